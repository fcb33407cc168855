//! What the whole machine and single processes spend.

use std::fs;

/// Seconds of CPU that the whole machine has spent since it started, kernel threads and interrupts
/// included (proc_stat(5)): user, nice, system, irq, softirq.
pub(super) fn busy_s() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first
        .split_whitespace()
        .skip(1)
        .map(|ticks| ticks.parse().unwrap_or(0.0))
        .collect();
    let busy = [0, 1, 2, 5, 6].map(|at| ticks.get(at).copied().unwrap_or(0.0));
    busy.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
}

/// Memory of a process in RAM, in MB.
pub(super) fn rss_mb(pid: u32) -> f64 {
    let vitals = crate::hostile::Vitals::of(pid);
    vitals.map_or(f64::NAN, |vitals| vitals.rss_bytes as f64 / 1e6)
}

/// Seconds of a core that all threads of a process have used so far.
pub(super) fn used_s(pid: u32) -> f64 {
    crate::idle::Cost::of(pid).cpu_s
}
