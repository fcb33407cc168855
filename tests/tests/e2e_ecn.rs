//! Congestion marks and traffic classes with real kernels: what an underlay marks, containers see and heed (RFC 6040,
//! RFC 2983, RFC 3168).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rmesh_lab::probe::Capture;
use rmesh_lab::{Container, Family, Host, Namespace};
use rmesh_tests::pair::address;
use rmesh_tests::story::{INTERFACE, Router, Story};

/// Where the test's datagrams go.
const PORT: u16 = 9_007;
/// By its length a datagram is known when it is sealed.
const DATAGRAM_LEN: usize = 702;
/// Expedited forwarding (RFC 3246).
const EXPEDITED: u8 = 0xb8;
/// The congestion field: not able to take marks, able (in two ways), congestion met.
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Flags of TCP: congestion window reduced, and the receiver's echo of a mark.
const CWR: u8 = 0x80;
const ECE: u8 = 0x40;
const SYN: u8 = 0x02;

struct Scene {
    story: Story,
    hosts: [Host; 2],
    containers: [Container; 2],
    underlay: String,
    is_v6: bool,
    _routers: [Router; 2],
}

fn scene(name: &str, family: Family) -> Scene {
    let mut story = Story::new(name, env!("CARGO_BIN_EXE_rmesh-under-test"));
    let hosts = story.hosts(["a", "b"]);
    let [a, b] = &hosts;
    let link = story.link_of(a, b, family);
    let is_v6 = family == Family::V6;
    let routers = [
        story.launch(a, &[link.address(b, is_v6)]),
        story.launch(b, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let containers = [
        story.container(a, "one", "10.32.0.1/24"),
        story.container(b, "two", "10.32.0.2/24"),
    ];
    story.expect_ping(Duration::from_secs(2), &containers[0], address(2));
    Scene {
        underlay: link.interface(b),
        story,
        hosts,
        containers,
        is_v6,
        _routers: routers,
    }
}

impl Scene {
    /// From now on the underlay does this to datagrams of the first host that `which` says.
    fn mark(&self, which: &str) {
        let family = if self.is_v6 { "ip6" } else { "ip" };
        let rules = format!(
            "table {family} underlay\ndelete table {family} underlay\ntable {family} underlay {{\n\
             chain out {{ type filter hook output priority 0;\n\
             udp dport 6783 {} {family} ecn set ce\n}}\n}}\n",
            which.replace("FAMILY", family)
        );
        let file = self.story.file("rules", &rules, 0o600);
        let path = file.display().to_string();
        let output = self.hosts[0]
            .command("nft".as_ref(), &["-f", &path])
            .expect("nft");
        assert!(output.status.success(), "{output:?}\n{rules}");
    }

    /// Sends a datagram of each of these classes from one container to the other; gives the classes with which
    /// they came to the other host, and to the container.
    fn send(&self, classes: &[u8]) -> [Vec<u8>; 2] {
        let [one, two] = &self.containers;
        let start = |at: &Namespace, interface: &str| Capture::start(at, interface);
        let outside = start(&self.hosts[1], &self.underlay).expect("a capture");
        let inside = start(two, INTERFACE).expect("a capture");
        let socket = one
            .enter(|| UdpSocket::bind("0.0.0.0:0"))
            .expect("a socket");
        for class in classes {
            rustix::net::sockopt::set_ip_tos(&socket, *class).expect("an option");
            socket
                .send_to(&[*class; DATAGRAM_LEN], SocketAddr::new(address(2), PORT))
                .expect("fits the interface");
            // One by one, or they would share a record.
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_millis(200));
        let classes = |frames: Vec<Vec<u8>>, len| -> Vec<u8> {
            let own = frames.iter().filter(|frame| frame.len() == len);
            own.filter_map(|frame| class_of(frame, UDP)).collect()
        };
        // Ethernet, IP and UDP around a datagram; and around that Ethernet, IP, UDP and a record.
        let inner = 14 + 28 + DATAGRAM_LEN;
        let outer = 14 + if self.is_v6 { 48 } else { 28 } + 36 + inner;
        [
            classes(outside.stop(), outer),
            classes(inside.stop(), inner),
        ]
    }

    fn not_understood(&self) -> u64 {
        let drops = &self.story.status(&self.hosts[1])["frames"]["drops"];
        drops["ecn_not_understood"].as_u64().unwrap_or_default()
    }
}

/// The traffic class of an IP packet of this protocol.
fn class_of(frame: &[u8], protocol: u8) -> Option<u8> {
    match frame.get(12..14)? {
        [0x08, 0x00] => (*frame.get(23)? == protocol).then_some(*frame.get(15)?),
        [0x86, 0xdd] => {
            let class = frame.get(14)? << 4 | frame.get(15)? >> 4;
            (*frame.get(20)? == protocol).then_some(class)
        }
        _ => None,
    }
}

/// The flags of a TCP segment over IPv4.
fn flags_of(frame: &[u8]) -> Option<u8> {
    class_of(frame, TCP)?;
    let header_len = usize::from(frame.get(14)? & 0x0f) * 4;
    frame.get(14 + header_len + 13).copied()
}

fn with(class: u8) -> [u8; 4] {
    [NOT_ECT, ECT_1, ECT_0, CE].map(|field| class | field)
}

#[test]
fn marks_of_the_underlay_reach_containers_and_classes_cross() {
    for family in [Family::V4, Family::V6] {
        let scene = scene("ecn", family);
        let sent = [with(0), with(EXPEDITED)].concat();
        let [outer, inner] = scene.send(&sent);
        assert_eq!(outer, sent, "{family:?}: copied outwards");
        assert_eq!(inner, sent, "{family:?}: and kept");
        // As a router does that is full: it marks what can take it.
        scene.mark("FAMILY ecn != not-ect");
        let marked = |field| [NOT_ECT, CE, CE, CE].map(|mark| field | mark);
        let marked = [marked(0), marked(EXPEDITED)].concat();
        let [outer, inner] = scene.send(&sent);
        assert_eq!(outer, marked, "{family:?}: marked");
        assert_eq!(inner, marked, "{family:?}: and told");
        assert_eq!(scene.not_understood(), 0);
        // One that should have dropped instead: who cannot understand the mark gets nothing.
        scene.mark("");
        let [_, inner] = scene.send(&sent);
        let understood: Vec<u8> = marked.into_iter().filter(|mark| mark & CE == CE).collect();
        assert_eq!(inner, understood, "{family:?}");
        assert!(scene.not_understood() >= 2, "{family:?}: counted");
    }
}

/// Sends until it is told to stop; what is counted is what has come.
fn beside_a_transfer<T>(from: &Namespace, to: &Namespace, body: impl FnOnce(&AtomicU64) -> T) -> T {
    let listener = to
        .enter(|| TcpListener::bind(SocketAddr::new(address(2), 0)))
        .expect("a socket");
    let far = listener.local_addr().expect("its address");
    let mut near = from
        .enter(|| TcpStream::connect(far))
        .expect("a connection");
    // One that heeds marks as RFC 3168 has it.
    rustix::net::sockopt::set_tcp_congestion(&near, "reno").expect("in every kernel");
    let mut far = listener.accept().expect("the other end").0;
    let (running, received) = (AtomicBool::new(true), AtomicU64::new(0));
    let limit = Some(Duration::from_millis(20));
    near.set_write_timeout(limit).expect("a timeout");
    far.set_read_timeout(limit).expect("a timeout");
    thread::scope(|scope| {
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) {
                // A full buffer is expected.
                let _ = near.write(&[7; 16_384]);
            }
        });
        scope.spawn(|| {
            let mut block = vec![0; 65_536];
            while running.load(Ordering::Relaxed) {
                let len = far.read(&mut block).unwrap_or(0);
                received.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
        let result = body(&received);
        running.store(false, Ordering::Relaxed);
        result
    })
}

#[test]
fn tcp_that_is_marked_is_told_and_slows_down() {
    let scene = scene("ecntcp", Family::V4);
    let [one, two] = &scene.containers;
    for container in [one, two] {
        container
            .enter(|| fs::write("/proc/sys/net/ipv4/tcp_ecn", "1"))
            .expect("a setting of the namespace");
    }
    let capture = Capture::start(two, INTERFACE).expect("a capture");
    let (first, marked, rates) = beside_a_transfer(one, two, |received| {
        let in_a_second = || {
            let before = received.load(Ordering::Relaxed);
            thread::sleep(Duration::from_secs(1));
            received.load(Ordering::Relaxed) - before
        };
        thread::sleep(Duration::from_millis(100));
        let first = capture.stop();
        let unmarked = in_a_second();
        scene.mark("FAMILY ecn != not-ect");
        thread::sleep(Duration::from_millis(200));
        let capture = Capture::start(two, INTERFACE).expect("a capture");
        thread::sleep(Duration::from_millis(100));
        let marked = capture.stop();
        (first, marked, [unmarked, in_a_second()])
    });
    let flags = first.iter().filter_map(|frame| flags_of(frame)).next();
    assert_eq!(flags, Some(SYN | ECE | CWR), "both ends want it");
    let has = |frame: &[u8], flag| flags_of(frame).is_some_and(|flags| flags & flag == flag);
    let count = |flag| marked.iter().filter(|frame| has(frame, flag)).count();
    let [echoed, reduced] = [ECE, CWR].map(count);
    let classes = marked.iter().filter_map(|frame| class_of(frame, TCP));
    let met = classes.filter(|class| class & CE == CE).count();
    println!(
        "{rates:?} bytes a second without and with marks; of {} segments {met} were marked, {echoed} are echoes, \
         {reduced} say that the window was reduced",
        marked.len()
    );
    assert!(met > 0 && echoed > 0 && reduced > 0);
    assert!(rates[1] < rates[0] / 2, "{rates:?}");
    assert_eq!(scene.not_understood(), 0);
}
