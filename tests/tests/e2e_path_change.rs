//! Paths change under full load: nothing is taken for a replay, and a stream loses what a cut loses.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rmesh_lab::{Container, Host, Link};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story};
use rmesh_tests::stream::Stream;
use rmesh_tests::throughput::Connection;

const FAST: [&str; 0] = [];
const PLAIN: [&str; 2] = ["--without", "super-frames"];
/// A path that works is taken within this time, and one that does not is left.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);
const LEFT_WITHIN: Duration = Duration::from_secs(2);
/// Traffic before and after each change.
const SETTLED: Duration = Duration::from_secs(1);
/// Time between two datagrams of a paced stream.
const PACE: Duration = Duration::from_millis(1);
/// How long what was under way may take, and a look at the paths.
const LOOK: Duration = Duration::from_millis(250);

/// Hosts a and c with a wire between them that is cut, and b that joins them.
struct Scene {
    story: Story,
    hosts: [Host; 3],
    direct: Link,
    containers: [Container; 2],
    routers: [Router; 3],
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 32, 0, last])
}

impl Scene {
    fn start(name: &str, of_a: &[&str], of_c: &[&str]) -> Scene {
        let mut story = story!(name);
        let hosts = story.hosts(["a", "b", "c"]);
        let [a, b, c] = &hosts;
        let (ab, bc) = (story.link(a, b), story.link(b, c));
        let direct = story.link(a, c);
        direct.cut().expect("a cut");
        let routers = [
            story.launch(b, &[]),
            story.launch_with(a, &[&ab.address(b, false).to_string()], of_a),
            story.launch_with(c, &[&bc.address(b, false).to_string()], of_c),
        ];
        story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
        let containers = [
            story.container(a, "one", "10.32.0.1/24"),
            story.container(c, "two", "10.32.0.2/24"),
        ];
        story.expect_ping(Duration::from_secs(2), &containers[0], address(2));
        let scene = Scene {
            story,
            hosts,
            direct,
            containers,
            routers,
        };
        assert!(scene.is("relay"));
        scene
    }

    fn is(&self, kind: &str) -> bool {
        let [a, _, c] = &self.hosts;
        self.story.path_kind(a, c) == kind && self.story.path_kind(c, a) == kind
    }

    /// The address of the first host's end that the other one sends to.
    fn used(&self) -> String {
        let [a, _, c] = &self.hosts;
        let path = self.story.peer(c, a)["path"].clone();
        path["address"].as_str().unwrap_or_default().to_owned()
    }

    fn expect(&self, limit: Duration, what: &str, holds: impl FnMut() -> bool) {
        self.story.expect_within(limit, what, holds);
        thread::sleep(SETTLED);
    }

    fn go_direct(&self) {
        self.direct.restore().expect("the wire restored");
        self.expect(TAKEN_WITHIN, "both take the direct path", || {
            self.is("direct")
        });
    }

    fn cut(&self) {
        self.direct.cut().expect("a cut");
        self.expect(LEFT_WITHIN, "both take the relay", || self.is("relay"));
    }

    /// Takes the address away that the path leads to; gives it.
    fn take_address_away(&self) -> String {
        let used = self.used();
        let end = used.rsplit_once(':').expect("an address and a port").0;
        let end = end.trim_matches(['[', ']']);
        let len = if end.contains(':') { 64 } else { 24 };
        let gone = format!("{end}/{len}");
        self.address("del", &gone);
        self.expect(LEFT_WITHIN, "another address is used", || {
            let now = self.used();
            self.is("direct") && now != used && !now.is_empty()
        });
        gone
    }

    /// `ip address add` or `del` at the first host's end of the direct wire.
    fn address(&self, verb: &str, address: &str) {
        let a = &self.hosts[0];
        let interface = self.direct.interface(a);
        let arguments = ["address", verb, address, "dev", &interface];
        let output = a.command("ip".as_ref(), &arguments).expect("iproute2");
        assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    }

    /// Nothing anywhere was taken for a replay, and no session ended.
    fn expect_nothing_replayed(&self) {
        for router in &self.routers {
            let status = self.story.status(&router.host);
            let drops = &status["frames"]["drops"];
            let control = &status["control"]["datagrams_replayed"];
            println!("{} dropped {drops}", router.host.short_name());
            let counts = [&drops["replayed"], control].map(|count| count.as_u64().unwrap_or(0));
            assert_eq!(counts, [0, 0], "records were taken for replays");
            assert_eq!(drops["forged"], serde_json::Value::Null, "{drops}");
        }
    }

    /// Both containers send as much as they can while something happens.
    fn under_full_load(&self, happens: impl FnOnce()) {
        let [one, two] = &self.containers;
        let running = AtomicBool::new(true);
        thread::scope(|scope| {
            let senders = [(one, two, 2), (two, one, 1)].map(|(from, to, last)| {
                let running = &running;
                scope.spawn(move || {
                    let mut connection =
                        Connection::open(from, to, address(last)).expect("a connection");
                    let mut carried = Vec::new();
                    while running.load(Ordering::Relaxed) {
                        let measured = connection.measure(Duration::from_millis(500));
                        carried.push(measured.expect("the connection lives") as u64);
                    }
                    carried
                })
            });
            happens();
            running.store(false, Ordering::Relaxed);
            for sender in senders {
                let carried = sender
                    .join()
                    .unwrap_or_else(|p| std::panic::resume_unwind(p));
                println!("Mbit/s each half second: {carried:?}");
                assert!(carried.iter().max() > Some(&50), "no load");
            }
        });
    }

    /// Runs paced streams both ways while something happens; gives what was lost, at most, in time.
    fn lost_while(&self, happens: impl FnOnce()) -> Duration {
        let [one, two] = &self.containers;
        let start = Instant::now();
        let streams = [(one, two, 2), (two, one, 1)].map(|(from, to, last)| {
            Stream::start(from, to, address(last), PACE, 500).expect("sockets")
        });
        thread::sleep(SETTLED);
        happens();
        let took = start.elapsed();
        let reports = streams.map(Stream::stop);
        println!("{reports:?} in {took:?}");
        let lost = reports.map(|report| {
            assert_eq!(report.duplicated, 0, "{report:?}");
            took.mul_f64(report.lost as f64 / report.sent as f64)
        });
        lost.into_iter().max().unwrap_or_default()
    }

    /// A stream loses nothing but what is sent between the cut and the change.
    fn expect_only_the_cut_lost(&self, what: &str, change: impl FnOnce()) {
        let mut outage = Duration::ZERO;
        let lost = self.lost_while(|| {
            let start = Instant::now();
            change();
            outage = start.elapsed() - SETTLED;
        });
        println!("{what}: {lost:?} of the stream lost, {outage:?} until the change");
        assert!(lost <= outage + LOOK, "more was lost than the cut cost");
    }
}

fn expect_no_replay_under_load(scene: &Scene) {
    scene.under_full_load(|| {
        thread::sleep(SETTLED);
        for _ in 0..2 {
            scene.go_direct();
            scene.cut();
        }
        scene.go_direct();
        let gone = scene.take_address_away();
        scene.address("add", &gone);
        thread::sleep(SETTLED);
    });
    scene.expect_nothing_replayed();
}

#[test]
fn no_change_of_path_under_full_load_costs_a_record() {
    expect_no_replay_under_load(&Scene::start("pathload", &FAST, &FAST));
}

#[test]
fn no_change_of_path_under_full_load_costs_a_record_between_a_fast_and_a_plain_port() {
    expect_no_replay_under_load(&Scene::start("pathmix", &FAST, &PLAIN));
}

#[test]
fn a_stream_loses_what_a_cut_loses_and_nothing_to_a_better_path() {
    for (name, of_a, of_c) in [
        ("pathfast", &FAST[..], &FAST[..]),
        ("pathpaced", &PLAIN[..], &FAST[..]),
    ] {
        let scene = Scene::start(name, of_a, of_c);
        for _ in 0..2 {
            let lost = scene.lost_while(|| scene.go_direct());
            assert_eq!(lost, Duration::ZERO, "the old path was still there");
            scene.expect_only_the_cut_lost("cut", || scene.cut());
        }
        let lost = scene.lost_while(|| scene.go_direct());
        assert_eq!(lost, Duration::ZERO);
        scene.expect_only_the_cut_lost("address gone", || {
            scene.take_address_away();
        });
        scene.expect_nothing_replayed();
    }
}
