//! Two hundred containers come and go, and leave nothing behind.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rmesh_lab::probe::wait_ping;
use rmesh_lab::{Container, Host};
use rmesh_tests::fuzz::Mutator;
use rmesh_tests::hostile::Vitals;
use rmesh_tests::story;
use rmesh_tests::story::Story;

const CONTAINERS_A_HOST: u8 = 100;
/// Random pairs of all 200, beside each container's neighbour.
const PAIRS: usize = 300;
/// One attachment, command line included; 200 of them are awaited by whoever starts a host.
const ATTACH_MAX: Duration = Duration::from_millis(100);
/// Until the threads that had no work for a second are gone.
const THREADS_END: Duration = Duration::from_secs(3);

fn address(host: usize, number: u8) -> IpAddr {
    Ipv4Addr::new(10, 32, host as u8, number).into()
}

/// What a leak would show in: interfaces, routes and addresses of a host.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    interfaces: Vec<String>,
    tables: Vec<String>,
}

impl Traces {
    fn of(host: &Host) -> Traces {
        let table = |name: &str| {
            let text = host.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{name}")));
            // The last columns of IPv6 routes count uses.
            let text = text.unwrap_or_else(|error| panic!("{name}: {error}"));
            let lines = text.lines().map(|line| match name {
                "ipv6_route" => line.get(..line.len().min(100)).unwrap_or(line).to_owned(),
                _ => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        Traces {
            interfaces: host.interface_names().expect("interfaces"),
            tables: ["route", "ipv6_route", "if_inet6"].map(table).into(),
        }
    }
}

/// Network namespaces a process keeps alive beside its own: by a thread inside, or by a descriptor.
fn foreign_namespaces(pid: u32) -> Vec<String> {
    let link = |path: PathBuf| {
        fs::read_link(path)
            .unwrap_or_default()
            .display()
            .to_string()
    };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let own = link(process.join("ns/net"));
    let entries = |folder: &str| {
        fs::read_dir(process.join(folder))
            .expect("a daemon")
            .flatten()
    };
    let threads = entries("task").map(|thread| link(thread.path().join("ns/net")));
    let descriptors = entries("fd").map(|descriptor| link(descriptor.path()));
    let all = threads
        .chain(descriptors)
        .filter(|name| name.starts_with("net:"));
    all.filter(|name| *name != own).collect()
}

/// Runs a step for every container; gives median and longest time of one.
fn timed<T>(items: &[T], mut step: impl FnMut(&T)) -> (Duration, Duration) {
    let mut times: Vec<Duration> = items
        .iter()
        .map(|item| {
            let start = Instant::now();
            step(item);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

fn make(hosts: &[Host; 2]) -> Vec<(usize, u8, Container)> {
    let mut containers = Vec::new();
    for number in 1..=CONTAINERS_A_HOST {
        for (at, host) in hosts.iter().enumerate() {
            let container = host.container(&format!("c{number}")).expect("a namespace");
            containers.push((at, number, container));
        }
    }
    containers
}

fn sample(story: &Story, containers: &[(usize, u8, Container)]) {
    let mut dice = Mutator::new(6);
    let count = containers.len();
    let neighbours = (0..count).map(|at| (at, (at + 1) % count));
    let random = (0..PAIRS).map(|_| (dice.below(count), dice.below(count)));
    let pairs: Vec<_> = neighbours
        .chain(random)
        .filter(|(from, to)| from != to)
        .collect();
    let (median, longest) = timed(&pairs, |(from, to)| {
        let (host, number, _) = containers[*to];
        let (from, to) = (&containers[*from].2, address(host, number));
        let took = wait_ping(from, to, Duration::from_secs(5));
        assert!(took.is_some(), "{} does not reach {to}", from.name());
    });
    println!(
        "{} pairs answered: median {median:.2?}, longest {longest:.2?}",
        pairs.len()
    );
    story.expect_took(Duration::from_secs(2), "the slowest pair", longest);
}

fn detach(story: &Story, hosts: &[Host; 2], containers: &[(usize, u8, Container)]) {
    let (median, longest) = timed(containers, |(at, _, container)| {
        story.succeed(&hosts[*at], &["detach", container.name()]);
    });
    println!(
        "detached {}: median {median:.2?}, longest {longest:.2?}",
        containers.len()
    );
    story.expect_took(ATTACH_MAX, "a detachment", median);
    for (_, _, container) in containers {
        assert_eq!(container.interface_names().expect("interfaces"), ["lo"]);
    }
}

#[test]
fn two_hundred_containers_leave_nothing_behind() {
    let mut story = story!("many");
    let hosts = story.hosts(["a", "b"]);
    let link = story.link(&hosts[0], &hosts[1]);
    let routers = [
        story.launch(&hosts[0], &[link.address(&hosts[1], false)]),
        story.launch(&hosts[1], &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let vitals = || {
        routers
            .each_ref()
            .map(|router| Vitals::of(router.process.pid()).expect("a daemon"))
    };
    // Once, so that what is kept for good is there: threads, caches.
    for (at, host) in hosts.iter().enumerate() {
        let first = story.container(host, "first", &format!("{}/16", address(at, 250)));
        story.succeed(host, &["detach", first.name()]);
    }
    let traces = hosts.each_ref().map(Traces::of);
    let before = vitals();

    let containers = make(&hosts);
    let (median, longest) = timed(&containers, |(at, number, container)| {
        story.attach(
            &hosts[*at],
            container,
            &format!("{}/16", address(*at, *number)),
        );
    });
    println!(
        "attached {}: median {median:.2?}, longest {longest:.2?}",
        containers.len()
    );
    story.expect_took(ATTACH_MAX, "an attachment", median);
    let everything = |host: &Host| {
        let text = story.succeed(host, &["status", "endpoints", "--json"]);
        let view: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        view["endpoints"].as_array().map_or(0, Vec::len) == containers.len()
    };
    story.expect_within(
        Duration::from_secs(2),
        "both hosts know all of them",
        || hosts.iter().all(everything),
    );
    sample(&story, &containers);
    let during = vitals();

    detach(&story, &hosts, &containers);
    for (host, before) in hosts.iter().zip(&traces) {
        assert_eq!(&Traces::of(host), before);
        assert_eq!(story.status(host)["attached"], 0);
    }
    for router in &routers {
        assert_eq!(
            foreign_namespaces(router.process.pid()),
            Vec::<String>::new()
        );
    }
    story.expect_within(THREADS_END, "idle threads ended", || {
        let more = |(now, before): (&Vitals, &Vitals)| now.threads > before.threads + 1;
        !vitals().iter().zip(&before).any(more)
    });
    let after = vitals();
    println!("before {before:?}\nwith all {during:?}\nafter {after:?}");
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.descriptors, before.descriptors, "descriptors leak");
        assert!(
            after.rss_bytes < before.rss_bytes + (16 << 20),
            "memory leaks"
        );
    }
}
