//! A container that floods one peer takes from the flows to another no more than their fair part.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rmesh_lab::probe::{PingReport, Pinger, tcp_transfer};
use rmesh_lab::{Container, Host, Namespace};
use rmesh_tests::pair::address;
use rmesh_tests::story::{Router, Story};
use serde_json::Value;

/// Each is a socket, and so a flow, of its own: with as many, each worker gets some.
const FLOODS: usize = 4;
/// How often the other peer is pinged, and how long at least.
const PING_EVERY: Duration = Duration::from_millis(5);
const PINGED_FOR: Duration = Duration::from_secs(3);
/// Part of the pings that may be lost.
const LOST_MAX: f64 = 0.05;
/// What a transfer carries beside a flood, at least, of what it carries alone. Four threads that flood, both ends
/// and the routers share two processors: what a round trip takes is mostly waiting for one of those.
const SHARE_MIN: f64 = 0.01;
const TRANSFER_LEN: u64 = 64 << 20;
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);

/// Three hosts, of which the first has a link to each other; a loud and a calm container on the first, one on
/// each other.
struct Scene {
    story: Story,
    hosts: [Host; 3],
    _routers: [Router; 3],
    loud: Container,
    calm: Container,
    far: [Container; 2],
}

fn scene(name: &str) -> Scene {
    let mut story = Story::new(name, env!("CARGO_BIN_EXE_rmesh-under-test"));
    let hosts = story.hosts(["a", "b", "c"]);
    let [a, b, c] = &hosts;
    let links = [story.link(a, b), story.link(a, c)];
    let targets = [links[0].address(b, false), links[1].address(c, false)];
    let routers = [
        story.launch(a, &targets),
        story.launch(b, &[]),
        story.launch(c, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let loud = story.container(a, "loud", "10.32.0.1/24");
    let calm = story.container(a, "calm", "10.32.0.2/24");
    let far = [
        story.container(b, "at-b", "10.32.0.3/24"),
        story.container(c, "at-c", "10.32.0.4/24"),
    ];
    for (from, to) in [(&loud, 3), (&loud, 4), (&calm, 4)] {
        story.expect_ping(Duration::from_secs(2), from, address(to));
    }
    Scene {
        story,
        hosts,
        _routers: routers,
        loud,
        calm,
        far,
    }
}

/// Ends a flood, however the measurement beside it ends.
struct EndWith<'a>(&'a AtomicBool);

impl Drop for EndWith<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Runs something while a container floods another as fast as it can; gives how many datagrams that were.
fn beside_a_flood<T>(
    (loud, to): (&Container, IpAddr),
    sink: &Container,
    len: usize,
    body: impl FnOnce() -> T,
) -> (u64, T) {
    let to = SocketAddr::new(to, 9_000);
    let _sink = sink.enter(|| UdpSocket::bind(to)).expect("a socket");
    let open = || UdpSocket::bind("0.0.0.0:0");
    let sockets: Vec<UdpSocket> = (0..FLOODS)
        .map(|_| loud.enter(open).expect("a socket"))
        .collect();
    let (running, sent) = (AtomicBool::new(true), AtomicU64::new(0));
    let flood = |socket: &UdpSocket| {
        let bytes = vec![7; len];
        while running.load(Ordering::Relaxed) {
            let taken = socket.send_to(&bytes, to).is_ok();
            sent.fetch_add(u64::from(taken), Ordering::Relaxed);
        }
    };
    let result = thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| flood(socket));
        }
        let _until_the_end = EndWith(&running);
        // The flood has filled whatever it fills.
        thread::sleep(Duration::from_millis(300));
        body()
    });
    (sent.into_inner(), result)
}

fn lost(report: &PingReport) -> f64 {
    1.0 - report.received as f64 / report.sent.max(1) as f64
}

/// Bytes a second of a transfer.
fn rate(from: &Namespace, to: &Namespace, bytes: u64) -> f64 {
    let report = tcp_transfer(from, to, address(4), bytes, TRANSFER_LIMIT).expect("a connection");
    assert!(report.intact, "{report:?}");
    report.received as f64 / report.elapsed.as_secs_f64()
}

impl Scene {
    /// How flows to the third host fare beside a flood of the second by datagrams of `len` bytes.
    fn expect_fair(&self, from: &Container, len: usize, alone: f64) {
        let [b, c] = &self.far;
        let measured = || {
            let pinger = Pinger::start(from, address(4), PING_EVERY).expect("pings");
            let beside = rate(from, c, TRANSFER_LEN / 4);
            thread::sleep(PINGED_FOR);
            (pinger.stop().expect("pings"), beside)
        };
        let (sent, (pings, beside)) = beside_a_flood((&self.loud, address(3)), b, len, measured);
        println!(
            "{} beside {sent} datagrams of {len} bytes: {} of {} pings lost, longest gap {:?}; TCP {:.1} of {:.1} MB/s",
            from.name(),
            pings.sent - pings.received,
            pings.sent,
            pings.longest_gap,
            beside / 1e6,
            alone / 1e6,
        );
        println!("drops {}", self.drops());
        assert!(sent > 50_000, "a flood");
        assert!(lost(&pings) <= LOST_MAX, "{} lost", lost(&pings));
        assert!(beside >= SHARE_MIN * alone, "{beside} of {alone}");
    }

    fn drops(&self) -> Value {
        self.story.status(&self.hosts[0])["frames"]["drops"].clone()
    }
}

/// More comes than a worker carries: what is too much is taken from who sends it.
#[test]
fn a_flood_of_one_peer_leaves_the_flows_to_another_their_part() {
    let scene = scene("fair");
    let alone = rate(&scene.calm, &scene.far[1], TRANSFER_LEN);
    for len in [64, 1_200] {
        // From a neighbour, and from the loud container itself.
        for from in [&scene.calm, &scene.loud] {
            scene.expect_fair(from, len, alone);
        }
    }
}

/// The way to the flooded peer is slow, so that what goes there fills the buffer of the socket all share.
#[test]
fn a_slow_way_to_a_flooded_peer_does_not_stand_in_the_way_to_another() {
    let scene = scene("fairslow");
    let alone = rate(&scene.calm, &scene.far[1], TRANSFER_LEN);
    let slow = "qdisc add dev eth-b root tbf rate 200mbit burst 64k limit 64m";
    let words: Vec<&str> = slow.split(' ').collect();
    let output = scene.hosts[0].command("tc".as_ref(), &words).expect("tc");
    assert!(output.status.success(), "{output:?}");
    for from in [&scene.calm, &scene.loud] {
        scene.expect_fair(from, 1_200, alone);
    }
    let full = scene.drops()["send_buffer_full"].as_u64();
    assert!(full > Some(0), "the buffer was full");
}
