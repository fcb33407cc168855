//! The bridge offers containers no port of their host, even if they know its addresses and its
//! MAC, and even if the host forwards.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use rmesh_lab::Host;
use rmesh_lab::probe::{EtherListener, FrameSender};
use rmesh_router::kernel::Bridge;
use rmesh_tests::story;
use rmesh_tests::story::INTERFACE;

const BRIDGE: &str = "rmesh";
/// A service of the host, and the daemon's port.
const SERVICE: u16 = 5555;
const DAEMON: u16 = 6783;
const ROUNDS: u64 = 20;
const ARP: u16 = 0x0806;
const SOON: Duration = Duration::from_secs(5);

/// IPv4 packets that have come up to the host's IP stack, by whatever interface.
fn received(host: &Host) -> u64 {
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.expect("counters");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let found = pairs.find(|(name, _)| *name == "InReceives");
    found.expect("a count").1.parse().expect("a number")
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// An Ethernet frame with a UDP datagram over IPv4, without a UDP checksum.
fn frame(
    to: [u8; 6],
    from: [u8; 6],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
) -> Vec<u8> {
    let text = b"hello";
    let udp_len = 8 + text.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 0, 0, 0, 8, 17, 0, 0]);
    ip.extend(source.octets());
    ip.extend(destination.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = 4444u16.to_be_bytes().to_vec();
    udp.extend(port.to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(text);
    [&to[..], &from, &[8, 0], &ip, &udp].concat()
}

/// A who-has for an address, to everybody.
fn who_has(from: [u8; 6], source: Ipv4Addr, wanted: Ipv4Addr) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    let (source, wanted) = (source.octets(), wanted.octets());
    [
        &[0xff; 6][..],
        &from,
        &ARP.to_be_bytes(),
        &fixed,
        &from,
        &source,
        &[0; 6],
        &wanted,
    ]
    .concat()
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address}"),
    }
}

/// What has come to a socket.
fn drained(socket: &UdpSocket) -> u64 {
    let mut buffer = [0; 64];
    (0..)
        .take_while(|_| socket.recv(&mut buffer).is_ok())
        .count() as u64
}

fn listen(host: &Host, port: u16) -> UdpSocket {
    let socket = host.enter(|| UdpSocket::bind(("0.0.0.0", port)));
    let socket = socket.expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

/// What a container may try that knows all of this: the bridge's MAC, its own, and the addresses of
/// its host and of another one.
fn guesses(bridge: [u8; 6], own: [u8; 6], host: Ipv4Addr, other: Ipv4Addr) -> [Vec<u8>; 8] {
    let (source, nobody) = (Ipv4Addr::new(10, 32, 0, 1), Ipv4Addr::UNSPECIFIED);
    let (all, group) = (Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1));
    let group_mac = [0x01, 0, 0x5e, 0, 0, 1];
    // The last two look as if they came back from the other host.
    [
        frame(bridge, own, source, host, SERVICE),
        frame(bridge, own, source, host, DAEMON),
        frame(bridge, own, source, other, SERVICE),
        frame([0xff; 6], own, source, all, SERVICE),
        frame([0xff; 6], own, nobody, all, DAEMON),
        frame(group_mac, own, nobody, group, SERVICE),
        frame(bridge, own, other, host, SERVICE),
        frame(bridge, own, other, host, DAEMON),
    ]
}

#[test]
fn a_container_that_guesses_reaches_neither_the_host_nor_anything_beyond_it() {
    let mut story = story!("host-ports");
    let [a, b] = story.hosts(["a", "b"]);
    let ab = story.link(&a, &b);
    let router = story.launch(&a, &[]);
    let one = story.container(&a, "one", "10.32.0.1/24");
    a.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("the host forwards");
    assert_eq!(
        a.addresses(BRIDGE).expect("the bridge"),
        [],
        "the bridge has an address"
    );
    let here = listen(&a, SERVICE);
    let beyond = listen(&b, SERVICE);

    let (bridge, own) = (
        a.mac(BRIDGE).expect("a MAC"),
        one.mac(INTERFACE).expect("a MAC"),
    );
    let (host, other) = (v4(ab.address(&a, false)), v4(ab.address(&b, false)));
    let frames = guesses(bridge, own, host, other);
    let sender = FrameSender::open(&one, INTERFACE).expect("a packet socket");
    let send = || {
        for frame in &frames {
            sender.send(frame).expect("a frame leaves");
        }
    };
    let answers = EtherListener::start(&one, INTERFACE, ARP).expect("a packet socket");
    let before = received(&a);
    for _ in 0..ROUNDS {
        send();
        sender
            .send(&who_has(own, Ipv4Addr::new(10, 32, 0, 1), host))
            .expect("a frame leaves");
    }
    std::thread::sleep(Duration::from_millis(300));
    let came = (
        received(&a) - before,
        drained(&here),
        drained(&beyond),
        answers.stop().len(),
    );
    println!(
        "guarded: {} frames sent; packets, here, beyond, ARP answers: {came:?}",
        ROUNDS * 9
    );
    assert_eq!(came, (0, 0, 0, 0));

    // Without the guard they would arrive: somebody loads another ruleset.
    let (mut open, mut reached) = (0, 0);
    story.expect_within(SOON, "without the guard frames arrive", || {
        a.enter(|| Bridge::unguard(BRIDGE)).expect("nftables");
        let before = received(&a);
        send();
        std::thread::sleep(Duration::from_millis(50));
        (open, reached) = (received(&a) - before, drained(&here) + drained(&beyond));
        open > 0 && reached > 0
    });
    println!("unguarded: {open} packets, {reached} datagrams delivered");
    story.expect_within(Duration::from_secs(3), "the guard is back", || {
        let before = received(&a);
        send();
        std::thread::sleep(Duration::from_millis(50));
        received(&a) == before
    });
    let logged = router.logged();
    assert!(logged.contains("nftables table"), "{logged}");
}

#[test]
fn a_bridge_of_somebody_elses_is_refused_and_left_alone() {
    let mut story = story!("host-ports-other");
    let a = story.host("a");
    // As another owner's daemon would leave it, but for the mark.
    let ip = std::path::Path::new("/usr/sbin/ip");
    for words in [
        &["link", "add", BRIDGE, "type", "bridge"][..],
        &["link", "set", BRIDGE, "up"],
    ] {
        assert!(a.command(ip, words).expect("ip").status.success());
    }
    let settings = || {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/{name}"));
        a.enter(|| [read("accept_ra").ok(), read("disable_ipv6").ok()])
    };
    let before = settings();
    let failed = story.fail(&a, 1, &["launch"]);
    assert!(failed.contains("not made by rmesh"), "{failed}");
    assert_eq!(settings(), before);
    story.succeed(&a, &["reset"]);
    assert!(
        a.interface_names()
            .expect("links")
            .contains(&BRIDGE.to_owned())
    );
}
