//! The daemon's process, under the names all Prometheus clients use; from `/proc` (proc(5)).

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

use super::text::Text;
use crate::daemon::Snapshot;

/// What is left out cannot be read.
pub(super) fn section(text: &mut Text, _: &Snapshot) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(stat) = Stat::parse(&stat) {
        write(text, &stat);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // The folder itself is open meanwhile.
        text.gauge("process_open_fds", "File descriptors open.")
            .sample(&[], descriptors.count().saturating_sub(1));
    }
}

fn write(text: &mut Text, stat: &Stat) {
    let seconds = |ticks: u64| ticks as f64 / clock_ticks_per_second() as f64;
    let help = "Processor time used, in user and system mode.";
    text.counter("process_cpu_seconds_total", help)
        .sample(&[], seconds(stat.cpu_ticks));
    text.gauge("process_resident_memory_bytes", "Resident memory.")
        .sample(&[], stat.resident_pages * page_size() as u64);
    text.gauge("process_virtual_memory_bytes", "Virtual memory.")
        .sample(&[], stat.virtual_bytes);
    text.gauge("process_threads", "Threads.")
        .sample(&[], stat.threads);
    if let Some(boot) = boot_time() {
        let help = "When the process started, since 1970.";
        text.gauge("process_start_time_seconds", help)
            .sample(&[], boot as f64 + seconds(stat.start_ticks));
    }
}

/// Some fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Stat> {
        // The program's name may have blanks and parentheses in it; the third field follows.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine started, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 9 0 0 0 12 30 0 0 20 0 5 0 991 8192 33 1\n";
        let expected = Stat {
            cpu_ticks: 42,
            threads: 5,
            start_ticks: 991,
            virtual_bytes: 8192,
            resident_pages: 33,
        };
        assert_eq!(Stat::parse(line), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
