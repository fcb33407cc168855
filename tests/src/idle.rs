//! The cost of a peer in a mesh of three in which nothing happens.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::hostile::Vitals;
use crate::story::Story;

/// Memory in RAM an idle peer may take, in bytes.
pub const RSS_MAX: u64 = 20_000_000;
/// Share of one core an idle peer may take.
pub const CPU_MAX: f64 = 0.005;
/// Times a second an idle peer may be woken, all its threads together; with what idle containers send.
pub const WAKEUPS_PER_S_MAX: f64 = 8.0;
/// Joining is over after this time: addresses are saved, and the searches for a longer path MTU that follow 5
/// and 10 s after the first are done.
pub const JOINED: Duration = Duration::from_secs(12);
/// Then nothing goes on any more: kernels of new containers have sent what they ask routers (at once, then 4, 8 and
/// 16 s later, RFC 7559), each of which wakes every peer, and the next search is over too.
pub const SETTLED: Duration = Duration::from_secs(45);

/// What was measured, the worst of the three peers each.
#[derive(Debug, Clone, Copy)]
pub struct IdleFigures {
    /// Memory in RAM, in bytes.
    pub rss_bytes_max: u64,
    /// Share of one core.
    pub cpu_max: f64,
    /// Times a second the peer was woken: voluntary context switches of all its threads.
    pub wakeups_per_s_max: f64,
    /// For how long.
    pub time: Duration,
}

impl fmt::Display for IdleFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "idle peer of three, worst over {:.1?}: RSS {:.1} MB (bound {:.0}), CPU {:.2} % of a core \
             (bound {:.1}), {:.1} wake-ups a second (bound {:.0})",
            self.time,
            self.rss_bytes_max as f64 / 1e6,
            RSS_MAX as f64 / 1e6,
            self.cpu_max * 100.0,
            CPU_MAX * 100.0,
            self.wakeups_per_s_max,
            WAKEUPS_PER_S_MAX
        )
    }
}

/// Launches three peers with a container each and watches them do nothing, once they have had time to settle.
///
/// # Panics
/// If they do not become a mesh.
pub fn measure(story: &mut Story, settles: Duration, time: Duration) -> IdleFigures {
    let hosts = story.hosts(["a", "b", "c"]);
    let [a, b, c] = &hosts;
    let (ab, bc, ac) = (story.link(a, b), story.link(b, c), story.link(a, c));
    let routers = [
        story.launch(a, &[]),
        story.launch(b, &[ab.address(a, false)]),
        story.launch(c, &[ac.address(a, false), bc.address(b, false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let _containers: Vec<_> = (1..)
        .zip(&hosts)
        .map(|(number, host)| story.container(host, "one", &format!("10.32.0.{number}/24")))
        .collect();
    std::thread::sleep(settles);
    let pids = routers.each_ref().map(|router| router.process.pid());
    let (before, start) = (pids.map(Cost::of), Instant::now());
    std::thread::sleep(time);
    let (after, time) = (pids.map(Cost::of), start.elapsed());
    let rss = pids.map(|pid| Vitals::of(pid).map_or(0, |vitals| vitals.rss_bytes));
    let seconds = time.as_secs_f64();
    let since = |of: fn(&Cost) -> f64| {
        let pairs = before.iter().zip(&after);
        pairs
            .map(|(before, after)| (of(after) - of(before)) / seconds)
            .fold(0.0, f64::max)
    };
    IdleFigures {
        rss_bytes_max: rss.into_iter().max().unwrap_or_default(),
        cpu_max: since(|cost| cost.cpu_s),
        wakeups_per_s_max: since(|cost| cost.wakeups),
        time,
    }
}

/// What a process has used so far.
pub(crate) struct Cost {
    pub(crate) cpu_s: f64,
    wakeups: f64,
}

impl Cost {
    pub(crate) fn of(pid: u32) -> Cost {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .expect("a running daemon")
            .flatten();
        let mut cost = Cost {
            cpu_s: 0.0,
            wakeups: 0.0,
        };
        for task in tasks {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            // proc(5): nanoseconds on a core come first.
            let ran = read("schedstat");
            let ran = ran
                .split_whitespace()
                .next()
                .and_then(|ns| ns.parse::<f64>().ok());
            cost.cpu_s += ran.unwrap_or_default() / 1e9;
            let status = read("status");
            let switches = status
                .lines()
                .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            let switches = switches.and_then(|count| count.trim().parse::<f64>().ok());
            cost.wakeups += switches.unwrap_or_default();
        }
        cost
    }
}
