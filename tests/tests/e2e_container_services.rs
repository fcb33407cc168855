//! What containers offer each other across hosts: router advertisements, DHCP, large multicast; and
//! that a hostile one of them does not reach the hosts.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use rmesh_lab::probe::{Capture, FrameSender, Listen, UdpListener};
use rmesh_lab::{Container, Host};
use rmesh_tests::packets::{
    ALL_NODES, Advertisement, BROADCAST, Dhcp, DhcpKind, Mac, solicitation,
};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Router, Story};

/// A frame crosses within this time.
const SOON: Duration = Duration::from_secs(1);
/// Copies that come late would still be counted.
const STRAGGLERS: Duration = Duration::from_secs(1);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 1, 0, 0, 0, 0);

/// Hosts in a line: the first and the last reach each other only through the one between.
struct Line {
    story: Story,
    hosts: [Host; 3],
    _routers: [Router; 3],
}

fn line(name: &str) -> Line {
    let mut story = story!(name);
    let hosts = story.hosts(["a", "b", "c"]);
    let [a, b, c] = &hosts;
    for host in &hosts {
        // The worst default an administrator may have chosen: advertisements count though it forwards.
        host.set("ipv6/conf/default/accept_ra", "2")
            .expect("a setting");
    }
    let (ab, bc) = (story.link(a, b), story.link(b, c));
    let routers = [
        story.launch(a, &[]),
        story.launch(b, &[ab.address(a, false)]),
        story.launch(c, &[bc.address(b, false)]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    Line {
        story,
        hosts,
        _routers: routers,
    }
}

/// A container attached without any address.
fn bare(story: &Story, host: &Host, name: &str) -> Container {
    let container = host.container(name).expect("a container");
    story.succeed(host, &["attach", container.name(), "--no-ip"]);
    container
}

fn mac(container: &Container) -> Mac {
    container.mac(INTERFACE).expect("a MAC")
}

fn addresses(container: &Container) -> Vec<IpNet> {
    container.addresses(INTERFACE).unwrap_or_default()
}

fn link_local(container: &Container) -> Ipv6Addr {
    let found = addresses(container)
        .into_iter()
        .find_map(|net| match net.addr() {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        });
    found.expect("a link-local address")
}

/// The address a container has made itself from the prefix.
fn made(container: &Container, prefix: Ipv6Addr) -> Option<IpAddr> {
    let inside = |net: &IpNet| match net.addr() {
        IpAddr::V6(address) => address.segments()[..4] == prefix.segments()[..4],
        IpAddr::V4(_) => false,
    };
    addresses(container)
        .iter()
        .find(|net| inside(net))
        .map(IpNet::addr)
}

fn has(namespace: &BTreeSet<String>, words: &[&str]) -> bool {
    let mut lines = namespace.iter();
    lines.any(|line| words.iter().all(|word| line.contains(word)))
}

fn frames_with(capture: Capture, needle: &[u8]) -> usize {
    let (frames, lost) = capture.stop_counted();
    assert_eq!(lost, 0, "the capture lost frames");
    let found = |frame: &&Vec<u8>| frame.windows(needle.len()).any(|window| window == needle);
    frames.iter().filter(found).count()
}

#[test]
fn a_container_gets_its_address_from_a_router_container_on_another_host() {
    let Line { story, hosts, .. } = &line("slaac");
    let [a, _, c] = hosts;
    let router = bare(story, a, "router");
    let own: IpNet = "fd77:0:0:1::1/64".parse().expect("an address");
    router.add_address(INTERFACE, own).expect("an address");
    let asked = Capture::start(&router, INTERFACE).expect("a capture");
    let client = bare(story, c, "client");
    story.expect_within(Duration::from_secs(5), "its solicitation crosses", || {
        asked.contains(&solicitation())
    });
    let advertisement = Advertisement {
        mac: mac(&router),
        source: link_local(&router),
        prefix: PREFIX,
        lifetime_s: 1800,
        mtu_bytes: 1300,
        hop_limit: 33,
    };
    let heard = Capture::start(&client, INTERFACE).expect("a capture");
    let frame = advertisement.frame(ALL_NODES);
    let sender = FrameSender::open(&router, INTERFACE).expect("an interface");
    sender.send(&frame).expect("a frame");
    story.expect_within(
        Duration::from_secs(2),
        "it makes an address of the prefix",
        || made(&client, PREFIX).is_some(),
    );
    story.expect_ping(SOON, &client, own.addr());
    let address = made(&client, PREFIX).expect("an address");
    story.expect_ping(SOON, &router, address);
    let picture = client.picture().expect("a picture");
    println!("client: {address}");
    let routed = has(&picture, &["route", "Gateway(Inet6("]);
    assert!(routed, "no default route: {picture:#?}");
    assert!(has(
        &picture,
        &[&format!("ipv6/conf/{INTERFACE}/mtu = 1300")]
    ));
    std::thread::sleep(STRAGGLERS);
    assert_eq!(frames_with(heard, &frame), 1, "advertisements that came");
}

#[test]
fn dhcp_gives_a_container_its_address_across_hosts() {
    let Line { story, hosts, .. } = &line("dhcp");
    let [a, b, c] = hosts;
    let server_ip = Ipv4Addr::new(10, 77, 0, 1);
    let given = Ipv4Addr::new(10, 77, 0, 99);
    let server = story.container(a, "server", "10.77.0.1/24");
    let bystander = bare(story, b, "bystander");
    let client = bare(story, c, "client");
    assert!(addresses(&client).iter().all(|net| net.addr().is_ipv6()));
    let (server_mac, client_mac) = (mac(&server), mac(&client));
    let captures =
        [&server, &bystander, &client].map(|at| Capture::start(at, INTERFACE).expect("a capture"));
    let [at_server, _, at_client] = &captures;
    let senders = [&client, &server].map(|at| FrameSender::open(at, INTERFACE).expect("it is up"));
    let message = |kind, given, server| Dhcp {
        kind,
        client: client_mac,
        transaction: 0x1234_5678,
        given,
        server,
    };
    let none = Ipv4Addr::UNSPECIFIED;
    let everybody = (Ipv4Addr::BROADCAST, BROADCAST);
    let known = |kind| message(kind, given, server_ip);
    let exchange = [
        (message(DhcpKind::Discover, none, none), everybody),
        (known(DhcpKind::Offer), everybody),
        (known(DhcpKind::Request), everybody),
        (known(DhcpKind::Acknowledge), (given, client_mac)),
    ];
    for (message, to) in &exchange {
        let kind = message.kind;
        let from_client = matches!(kind, DhcpKind::Discover | DhcpKind::Request);
        let (sender, source, capture) = match from_client {
            true => (&senders[0], client_mac, at_server),
            false => (&senders[1], server_mac, at_client),
        };
        sender.send(&message.frame(source, *to)).expect("a frame");
        let what = format!("the {kind:?} crosses");
        story.expect_within(SOON, &what, || capture.contains(&message.message()));
    }
    client
        .add_address(INTERFACE, IpNet::new(given.into(), 24).expect("a length"))
        .expect("an address");
    story.expect_ping(SOON, &client, server_ip.into());
    std::thread::sleep(STRAGGLERS);
    let copies = captures.map(|capture| {
        let (frames, lost) = capture.stop_counted();
        assert_eq!(lost, 0);
        exchange.each_ref().map(|(message, _)| {
            let bytes = message.message();
            let whole = |frame: &&Vec<u8>| frame.ends_with(&bytes);
            frames.iter().filter(whole).count()
        })
    });
    println!(
        "copies of discover, offer, request, acknowledge at server, bystander, client: {copies:?}"
    );
    // Captures see what their own container sends, too. The acknowledgement is for the client alone.
    assert_eq!(copies, [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]);
}

#[test]
fn large_multicast_in_fragments_arrives_whole_and_once() {
    let Line { story, hosts, .. } = &line("fragments");
    let [a, b, c] = hosts;
    let all = [(a, "source"), (a, "near"), (b, "middle"), (c, "far")];
    let mut number = 0;
    let containers = all.map(|(host, name)| {
        number += 1;
        let container = host.container(name).expect("a container");
        let (v4, v6) = (format!("10.32.0.{number}/24"), format!("fd32::{number}/64"));
        story.succeed(
            host,
            &["attach", container.name(), "--ip", &v4, "--ip", &v6],
        );
        container
    });
    let [source, members @ ..] = &containers;
    story.expect_ping(
        Duration::from_secs(2),
        source,
        "10.32.0.4".parse().expect("an address"),
    );
    for (group, port) in [("239.7.7.7", 7101), ("ff05::7:7:7", 7102)] {
        let to = SocketAddr::new(group.parse().expect("a group"), port);
        let wire = Capture::start(&containers[3], INTERFACE).expect("a capture");
        expect_once_each(source, members, to);
        let (frames, _) = wire.stop_counted();
        let longest = frames.iter().map(Vec::len).max().unwrap_or_default() - 14;
        let many = frames.len();
        println!(
            "{to}: 3 datagrams at 3 members, each once and whole; {many} frames up to {longest} bytes"
        );
        assert!(longest <= 1328, "nothing was cut into fragments");
    }
}

/// Sends datagrams of several sizes to a group; each arrives at every member once and whole.
fn expect_once_each(source: &Container, members: &[Container], to: SocketAddr) {
    let listen = |member: &Container| {
        UdpListener::start(member, INTERFACE, Listen::Group(to.ip()), to.port()).expect("a member")
    };
    let listeners: Vec<UdpListener> = members.iter().map(listen).collect();
    let content = |len: usize| (0..len).map(move |at| (at * 31 + at / 251 + len) as u8);
    let payloads = [8_000, 1_301, 8_999].map(|len| Vec::from_iter(content(len)));
    for payload in &payloads {
        UdpListener::send(source, INTERFACE, to, payload).expect("a datagram");
    }
    for (listener, member) in listeners.iter().zip(members) {
        for payload in &payloads {
            let came = listener.wait_for(payload, Duration::from_secs(2));
            let (len, name) = (payload.len(), member.name());
            assert!(came, "{len} bytes to {to} do not arrive at {name}");
        }
    }
    std::thread::sleep(STRAGGLERS);
    let once = payloads.map(|payload| (payload, 1)).into();
    for listener in listeners {
        // Compared first: a picture of thousands of bytes helps nobody.
        let same = listener.stop() == once;
        assert!(same, "{to}: more came than was sent, or something else");
    }
}

#[test]
fn a_hostile_advertisement_changes_nothing_on_any_host() {
    let Line { story, hosts, .. } = &line("hostile");
    let [a, _, c] = hosts;
    let hostile = bare(story, a, "hostile");
    // Beside it, and two hosts away: what the advertisement does where it is believed.
    let victims = [bare(story, a, "near"), bare(story, c, "far")];
    std::thread::sleep(Duration::from_millis(500));
    let before = hosts
        .each_ref()
        .map(|host| host.picture().expect("a picture"));
    let advertisement = Advertisement {
        mac: mac(&hostile),
        source: link_local(&hostile),
        prefix: PREFIX,
        lifetime_s: 9000,
        mtu_bytes: 1280,
        hop_limit: 3,
    };
    let sender = FrameSender::open(&hostile, INTERFACE).expect("an interface");
    let targets = targets(a);
    for _ in 0..10 {
        for target in &targets {
            sender.send(&advertisement.frame(*target)).expect("a frame");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for victim in &victims {
        expect_believed(story, victim);
    }
    std::thread::sleep(Duration::from_secs(1));
    for (host, before) in hosts.iter().zip(&before) {
        expect_unchanged(host, before);
    }
    println!(
        "{} targets, 10 times each; both containers believed it, no host did",
        targets.len()
    );
}

/// Everybody, and each interface of a host, by its MAC and what its link-local address would be.
fn targets(host: &Host) -> Vec<(Ipv6Addr, Mac)> {
    let names = host.interface_names().expect("interfaces").into_iter();
    let macs = names.filter_map(|interface| host.mac(&interface).ok());
    let straight = macs.flat_map(|mac| [(ALL_NODES.0, mac), (eui64(mac), mac)]);
    [ALL_NODES].into_iter().chain(straight).collect()
}

fn expect_believed(story: &Story, victim: &Container) {
    let what = format!("{} believes it", victim.name());
    story.expect_within(Duration::from_secs(2), &what, || {
        made(victim, PREFIX).is_some()
    });
    let picture = victim.picture().expect("a picture");
    for line in ["mtu = 1280", "hop_limit = 3"] {
        let setting = format!("conf/{INTERFACE}/{line}");
        assert!(has(&picture, &[&setting]), "{line}");
    }
    assert!(has(&picture, &["route", "Gateway(Inet6("]), "{picture:#?}");
}

fn expect_unchanged(host: &Host, before: &BTreeSet<String>) {
    let after = host.picture().expect("a picture");
    let name = host.short_name();
    let gone: Vec<_> = before.difference(&after).collect();
    let new: Vec<_> = after.difference(before).collect();
    let same = gone.is_empty() && new.is_empty();
    assert!(same, "{name}: gone {gone:#?}, new {new:#?}");
    let routes = after
        .iter()
        .filter(|line| line.starts_with("route"))
        .count();
    let lines = after.len();
    println!("{name}: {lines} lines the same, {routes} of them routes");
    assert!(routes > 4 && lines > 300, "{after:#?}");
    for setting in ["accept_ra = 0", "disable_ipv6 = 1"] {
        let setting = format!("ipv6/conf/rmesh/{setting}");
        assert!(has(&after, &[&setting]), "{setting}");
    }
}

/// The link-local address made of a MAC (RFC 4291 appendix A).
fn eui64(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    let high = ((a ^ 2) << 8) | b;
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        high,
        (c << 8) | 0xff,
        0xfe00 | d,
        (e << 8) | f,
    )
}
