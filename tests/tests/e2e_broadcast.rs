//! Five hosts in a ring of links: everything that is not unicast, exactly once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rmesh_lab::Container;
use rmesh_lab::probe::{EtherListener, Listen, UdpListener};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Router, Story};

/// For local experiments (IEEE 802a); nobody else uses it.
const ETHERTYPE: u16 = 0x88b5;
const BROADCAST: [u8; 6] = [0xff; 6];
const PORT: u16 = 7000;
/// Copies that come late would still be counted.
const STRAGGLERS: Duration = Duration::from_secs(1);

struct Ring {
    story: Story,
    containers: Vec<Container>,
    _routers: Vec<Router>,
}

fn ring(name: &str) -> Ring {
    let mut story = story!(name);
    let hosts = story.hosts(["a", "b", "c", "d", "e"]);
    let links: Vec<_> = (0..5)
        .map(|at| story.link(&hosts[at], &hosts[(at + 1) % 5]))
        .collect();
    let mut routers = vec![story.launch(&hosts[0], &[])];
    for at in 1..5 {
        let before = links[at - 1].address(&hosts[at - 1], false);
        routers.push(story.launch(&hosts[at], &[before]));
    }
    story.expect_mesh(Duration::from_secs(5), &routers.iter().collect::<Vec<_>>());
    let containers = hosts.iter().enumerate().map(|(at, host)| {
        let container = host.container("box").expect("a container");
        let (v4, v6) = (
            format!("10.32.0.{}/24", at + 1),
            format!("fd32::{}/64", at + 1),
        );
        story.succeed(
            host,
            &["attach", container.name(), "--ip", &v4, "--ip", &v6],
        );
        container
    });
    let containers: Vec<_> = containers.collect();
    for other in 2..=5 {
        let address = format!("10.32.0.{other}").parse().expect("an address");
        story.expect_ping(Duration::from_secs(2), &containers[0], address);
    }
    Ring {
        story,
        containers,
        _routers: routers,
    }
}

#[test]
fn a_broadcast_arrives_exactly_once_at_every_container() {
    let ring = ring("once");
    for source in 0..ring.containers.len() {
        let from = &ring.containers[source];
        let listeners: Vec<_> = ring
            .containers
            .iter()
            .map(|c| EtherListener::start(c, INTERFACE, ETHERTYPE).expect("a listener"))
            .collect();
        let datagrams: Vec<_> = ring
            .containers
            .iter()
            .map(|c| UdpListener::start(c, INTERFACE, Listen::Broadcast, PORT).expect("a listener"))
            .collect();
        let payload = format!("broadcast of container {source}").into_bytes();
        EtherListener::send(from, INTERFACE, BROADCAST, ETHERTYPE, &payload).expect("a frame");
        let everybody: SocketAddr = "10.32.0.255:7000".parse().expect("an address");
        UdpListener::send(from, INTERFACE, everybody, &payload).expect("a datagram");
        for at in (0..5).filter(|at| *at != source) {
            let came = datagrams[at].wait_for(&payload, Duration::from_secs(2));
            assert!(came, "container {at} misses the broadcast of {source}");
        }
        std::thread::sleep(STRAGGLERS);
        // The source's own kernel hands its container a copy of a UDP broadcast, but not of a
        // frame: there a copy would have been round the mesh.
        let frames: Vec<usize> = listeners.iter().map(EtherListener::count).collect();
        let expected: Vec<usize> = (0..5).map(|at| usize::from(at != source)).collect();
        assert_eq!(
            frames, expected,
            "copies of the frame of container {source}"
        );
        let copies: Vec<u64> = datagrams.iter().map(|l| l.count(&payload)).collect();
        assert_eq!(
            copies, [1; 5],
            "copies of the datagram of container {source}"
        );
    }
    println!("10 broadcasts, 4 copies each, none twice");
}

#[test]
fn neighbour_discovery_multicast_and_any_ethertype_cross() {
    let ring = ring("kinds");
    let [first, .., last] = ring.containers.as_slice() else {
        unreachable!("five containers");
    };
    for other in 2..=5 {
        let address: IpAddr = format!("fd32::{other}").parse().expect("an address");
        ring.story
            .expect_ping(Duration::from_secs(2), first, address);
    }
    for (group, port) in [("239.1.2.3", 7001), ("ff05::1:2:3", 7002)] {
        let group: IpAddr = group.parse().expect("a group");
        let listeners: Vec<_> = ring.containers[1..]
            .iter()
            .map(|container| {
                UdpListener::start(container, INTERFACE, Listen::Group(group), port)
                    .expect("a member")
            })
            .collect();
        let payload = format!("to the group {group}").into_bytes();
        UdpListener::send(first, INTERFACE, SocketAddr::new(group, port), &payload)
            .expect("a multicast datagram sent");
        for listener in &listeners {
            assert!(
                listener.wait_for(&payload, Duration::from_secs(2)),
                "{group} does not arrive"
            );
        }
        std::thread::sleep(STRAGGLERS);
        let counts: Vec<u64> = listeners.iter().map(|l| l.count(&payload)).collect();
        assert_eq!(counts, [1; 4], "copies to {group}");
    }
    let listener = EtherListener::start(first, INTERFACE, ETHERTYPE).expect("a listener");
    let payload = [0xab; 100];
    let mac = first.mac(INTERFACE).expect("a MAC");
    for destination in [mac, BROADCAST] {
        EtherListener::send(last, INTERFACE, destination, ETHERTYPE, &payload).expect("a frame");
    }
    let what = "frames of EtherType 0x88b5 cross";
    ring.story
        .expect_within(Duration::from_secs(1), what, || listener.count() >= 2);
    std::thread::sleep(STRAGGLERS);
    let frames = listener.stop();
    assert_eq!(frames.len(), 2, "one unicast and one broadcast frame");
    for frame in frames {
        assert_eq!(&frame[6..12], &last.mac(INTERFACE).expect("a MAC"));
        assert_eq!(frame.get(14..), Some(&payload[..]));
    }
}
