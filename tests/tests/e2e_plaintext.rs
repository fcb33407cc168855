//! Who gets plaintext and who does not; mixed meshes; hosts that change address or restart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use rmesh_lab::probe::{Capture, EtherListener, Listen, Pinger, UdpListener};
use rmesh_lab::{Container, Host, Link};
use rmesh_tests::pair::{Pair, address};
use rmesh_tests::story;
use rmesh_tests::story::INTERFACE;

const MARKER: &[u8] = b"this sentence must not be readable on the wire";
const VXLAN_PORT: u16 = 6784;
const PORT: u16 = 7000;
/// For local experiments (IEEE 802a).
const ETHERTYPE: u16 = 0x88b5;
const BROADCAST: [u8; 6] = [0xff; 6];
const PLAIN: &[&str] = &["--no-encryption"];
/// Long enough for a pair that agrees to have moved.
const DECIDED: Duration = Duration::from_secs(3);
const STRAGGLERS: Duration = Duration::from_secs(1);
const STALL_MAX: Duration = Duration::from_secs(1);
const PING_EVERY: Duration = Duration::from_millis(10);

fn pair(name: &str, flags: [&[&str]; 2]) -> Pair {
    let pair = Pair::start(story!(name), flags);
    pair.expect_ping();
    pair
}

/// Datagrams between the containers, both ways.
fn exchange_markers(pair: &Pair) {
    for (from, to, last) in [(0, 1, 2), (1, 0, 1)] {
        let to_address = SocketAddr::new(address(last), PORT);
        let listener = pair.containers[to]
            .enter(|| UdpSocket::bind(to_address))
            .expect("a socket");
        listener
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a time limit");
        let sender = pair.containers[from]
            .enter(|| UdpSocket::bind("0.0.0.0:0"))
            .expect("a socket");
        for _ in 0..20 {
            sender.send_to(MARKER, to_address).expect("a datagram");
        }
        let mut buffer = [0; 128];
        let len = listener.recv(&mut buffer).expect("the marker");
        assert_eq!(&buffer[..len], MARKER);
    }
}

fn pings(pair: &Pair) -> Pinger {
    Pinger::start(&pair.containers[0], address(2), PING_EVERY).expect("pings")
}

#[test]
fn without_the_consent_of_both_nothing_crosses_in_plaintext() {
    let foreign: &[&str] = &["--trusted-subnets", "198.51.100.0/24"];
    let own: &[&str] = &["--trusted-subnets", "10.77.0.0/16,fd77::/16"];
    let cases: [(&str, [&[&str]; 2], bool); 5] = [
        ("onlya", [PLAIN, &[]], false),
        ("onlyb", [&[], PLAIN], false),
        ("foreign", [PLAIN, foreign], false),
        ("owntrust", [own, own], true),
        ("mixtrust", [PLAIN, own], true),
    ];
    for (name, flags, agreed) in cases {
        let pair = pair(name, flags);
        let [a, b] = &pair.hosts;
        let capture = Capture::start(b, &pair.link.interface(b)).expect("a capture");
        sleep(DECIDED);
        exchange_markers(&pair);
        sleep(STRAGGLERS);
        let readable = capture.contains(MARKER);
        let (frames, lost) = capture.stop_counted();
        println!(
            "{name}: {} frames captured, {lost} lost, readable: {readable}",
            frames.len()
        );
        assert_eq!((readable, lost), (agreed, 0), "{name}");
        assert_eq!(pair.are("vxlan"), agreed, "{name}");
        let vxlan = frames.iter().filter(|frame| is_vxlan(frame)).count();
        assert_eq!(vxlan > 0, agreed, "{name}: {vxlan} VXLAN datagrams");
        let encrypted = pair.story.succeed(a, &["status"]).contains("all encrypted");
        assert_eq!(encrypted, !agreed, "{name}");
    }
}

/// Ethernet, IPv4 or IPv6 without options, UDP to VXLAN's port.
fn is_vxlan(frame: &[u8]) -> bool {
    let port_at = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20 + 2,
        Some([0x86, 0xdd]) => 14 + 40 + 2,
        _ => return false,
    };
    frame.get(port_at..port_at + 2) == Some(&VXLAN_PORT.to_be_bytes()[..])
}

/// A whole VXLAN payload: header with `vni`, and a broadcast of an EtherType of our own.
fn vxlan(vni: u32, destination: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0x08, 0, 0, 0];
    bytes.extend((vni << 8).to_be_bytes());
    bytes.extend(destination);
    bytes.extend([2, 0, 0, 0, 0, 0x99]);
    bytes.extend(ETHERTYPE.to_be_bytes());
    bytes.extend([0x5a; 64]);
    bytes
}

/// The network identifier on the wire, as a listener would learn it.
fn identifier(host: &Host) -> u32 {
    let arguments = ["-d", "link", "show", "rmesh-vx4"];
    let output = host.command("ip".as_ref(), &arguments).expect("iproute2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace();
    words
        .by_ref()
        .find(|word| *word == "id")
        .and_then(|_| words.next()?.parse().ok())
        .unwrap_or_else(|| panic!("no VXLAN identifier in {text}"))
}

#[test]
fn vxlan_of_a_third_host_reaches_no_container() {
    let mut pair = pair("injected", [PLAIN, PLAIN]);
    pair.story
        .expect_within(DECIDED, "both are on VXLAN", || pair.are("vxlan"));
    let attacker = pair.story.host("x");
    let [a, _] = &pair.hosts;
    let link = pair.story.link(&attacker, a);
    let vni = identifier(a);
    let one = &pair.containers[0];
    let listener = EtherListener::start(one, INTERFACE, ETHERTYPE).expect("a listener");
    let mac = one.mac(INTERFACE).expect("a MAC");
    let dropped = || {
        let text = pair.story.status(a);
        text["vxlan_dropped_in"].as_u64().unwrap_or(0)
    };
    let before = dropped();
    for v6 in [false, true] {
        let (from, to) = (link.address(&attacker, v6), link.address(a, v6));
        let socket = attacker
            .enter(|| UdpSocket::bind(SocketAddr::new(from, 0)))
            .expect("a socket");
        for destination in [BROADCAST, mac] {
            for _ in 0..10 {
                let payload = vxlan(vni, destination);
                socket
                    .send_to(&payload, SocketAddr::new(to, VXLAN_PORT))
                    .expect("a datagram");
            }
        }
    }
    sleep(STRAGGLERS);
    assert_eq!(listener.count(), 0, "an injected frame reached a container");
    let counted = dropped() - before;
    println!("{counted} injected datagrams were dropped");
    assert_eq!(counted, 40);
}

/// Four hosts in a ring, of which a and b, and c and d, may talk in plaintext; so do the two that have no wire.
#[test]
fn broadcasts_arrive_once_where_paths_are_mixed() {
    let mut story = story!("mixed");
    let hosts = story.hosts(["a", "b", "c", "d"]);
    let links: Vec<Link> = (0..4)
        .map(|at| story.link(&hosts[at], &hosts[(at + 1) % 4]))
        .collect();
    let nets = |of: &[usize]| {
        let net = |at: &usize| {
            let address = links[*at].address(&hosts[*at], false);
            let IpAddr::V4(v4) = address else {
                unreachable!("asked for IPv4")
            };
            let [a, b, c, _] = v4.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        };
        of.iter().map(net).collect::<Vec<_>>().join(",")
    };
    let trusted = nets(&[0, 2]);
    let mut routers = Vec::new();
    for at in 0..4 {
        let flags: &[&str] = match at {
            3 => PLAIN,
            _ => &["--trusted-subnets", &trusted],
        };
        let before = (at > 0).then(|| links[at - 1].address(&hosts[at - 1], false).to_string());
        let peers: Vec<&str> = before.iter().map(String::as_str).collect();
        routers.push(story.launch_with(&hosts[at], &peers, flags));
    }
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    let containers: Vec<Container> = hosts
        .iter()
        .zip(1..)
        .map(|(host, last)| story.container(host, "box", &format!("10.32.0.{last}/24")))
        .collect();
    for last in 2..=4 {
        story.expect_ping(Duration::from_secs(2), &containers[0], address(last));
    }
    let kind = |from: usize, to: usize| story.path_kind(&hosts[from], &hosts[to]);
    story.expect_within(DECIDED, "each pair has the path it may have", || {
        let kinds = [kind(0, 1), kind(1, 2), kind(2, 3), kind(3, 0), kind(0, 2)];
        kinds == ["vxlan", "direct", "vxlan", "direct", "relay"]
    });
    // The trees follow the last measured costs.
    sleep(DECIDED);
    for source in 0..4 {
        expect_once(&containers, source);
    }
}

/// What a container sends to everybody, and to a MAC that nobody has, arrives at all others once.
fn expect_once(containers: &[Container], source: usize) {
    let frames: Vec<_> = containers
        .iter()
        .map(|c| EtherListener::start(c, INTERFACE, ETHERTYPE).expect("a listener"))
        .collect();
    let datagrams: Vec<_> = containers
        .iter()
        .map(|c| UdpListener::start(c, INTERFACE, Listen::Broadcast, PORT).expect("a listener"))
        .collect();
    let from = &containers[source];
    let payload = format!("broadcast of {source}").into_bytes();
    EtherListener::send(from, INTERFACE, BROADCAST, ETHERTYPE, &payload).expect("a frame");
    // Nobody has this MAC.
    let unknown = [2, 0, 0, 0, 0, 0x77];
    EtherListener::send(from, INTERFACE, unknown, ETHERTYPE, &payload).expect("a frame");
    let everybody: SocketAddr = "10.32.0.255:7000".parse().expect("an address");
    UdpListener::send(from, INTERFACE, everybody, &payload).expect("a datagram");
    for at in (0..4).filter(|at| *at != source) {
        let came = datagrams[at].wait_for(&payload, Duration::from_secs(2));
        assert!(came, "container {at} misses the broadcast of {source}");
    }
    sleep(STRAGGLERS);
    let counts: Vec<usize> = frames.iter().map(EtherListener::count).collect();
    let expected: Vec<usize> = (0..4).map(|at| if at == source { 0 } else { 2 }).collect();
    assert_eq!(
        counts, expected,
        "copies of the frames of container {source}"
    );
    let copies: Vec<u64> = datagrams.iter().map(|l| l.count(&payload)).collect();
    assert_eq!(
        copies, [1; 4],
        "copies of the datagram of container {source}"
    );
}

/// The host a gets another address of the wire's network and loses the one it had.
fn change_address(name: &str, flags: &[&str], kind: &str) {
    let pair = pair(name, [flags, flags]);
    let [a, b] = &pair.hosts;
    pair.story
        .expect_within(DECIDED, "the path is settled", || pair.are(kind));
    let old = pair.link.address(a, false);
    let IpAddr::V4(v4) = old else {
        unreachable!("asked for IPv4")
    };
    let [x, y, z, _] = v4.octets();
    let new = format!("{}", Ipv4Addr::new(x, y, z, 77));
    let run = |host: &Host, arguments: &[&str]| {
        let output = host.command("ip".as_ref(), arguments).expect("iproute2");
        assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    };
    let (of_a, of_b) = (pair.link.interface(a), pair.link.interface(b));
    // The wire has no neighbour discovery of its own: what it had for the old address is said of the new.
    let mac = a
        .mac(&of_a)
        .expect("a MAC")
        .map(|byte| format!("{byte:02x}"))
        .join(":");
    run(
        b,
        &[
            "neigh",
            "replace",
            &new,
            "lladdr",
            &mac,
            "dev",
            &of_b,
            "nud",
            "permanent",
        ],
    );
    // Only IPv4 is left, so that nothing else can take over.
    let v6 = format!("{}/64", pair.link.address(a, true));
    run(a, &["address", "del", &v6, "dev", &of_a]);
    sleep(DECIDED);
    pair.story
        .expect_within(DECIDED, "the path is settled again", || pair.are(kind));
    let pinger = pings(&pair);
    sleep(Duration::from_secs(1));
    run(a, &["address", "del", &format!("{old}/24"), "dev", &of_a]);
    run(a, &["address", "add", &format!("{new}/24"), "dev", &of_a]);
    sleep(Duration::from_secs(4));
    pair.story
        .expect_within(DECIDED, "the same kind of path is used again", || {
            pair.are(kind)
        });
    let used = pair.story.peer(b, a)["path"]["address"].to_string();
    assert!(used.contains(&new), "{used}");
    let pings = pinger.stop().expect("pings");
    println!(
        "{} of {} pings over a change of address",
        pings.received, pings.sent
    );
    let gap = pings.longest_gap;
    pair.story.expect_took(STALL_MAX, "stall", gap);
}

#[test]
fn a_host_that_changes_its_address_stalls_encrypted_traffic_for_less_than_a_second() {
    change_address("moveseal", &[], "direct");
}

#[test]
fn a_host_that_changes_its_address_stalls_plaintext_traffic_for_less_than_a_second() {
    change_address("movevx", PLAIN, "vxlan");
}

#[test]
fn encrypted_traffic_resumes_within_a_second_of_a_restart() {
    let mut pair = pair("resume", [&[], &[]]);
    sleep(Duration::from_secs(1));
    pair.routers[1].kill();
    sleep(Duration::from_secs(2));
    let host = pair.hosts[1].clone();
    let peer = pair.link.address(&pair.hosts[0], false).to_string();
    let pinger = pings(&pair);
    let start = std::time::Instant::now();
    pair.routers[1] = pair.story.launch_with(&host, &[&peer], &[]);
    println!("serves again after {:?}", start.elapsed());
    let from = &pair.containers[0];
    let answered = rmesh_lab::probe::wait_ping(from, address(2), STALL_MAX * story::SLACK);
    assert!(answered.is_some(), "nothing comes back");
    let took = start.elapsed();
    drop(pinger.stop());
    pair.story
        .expect_took(STALL_MAX, "from the restart to the first answer", took);
}
