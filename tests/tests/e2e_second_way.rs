//! Two hosts bridge one and the same LAN by mistake, so that frames could go round for ever.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rmesh_lab::probe::{EtherListener, Pinger};
use rmesh_lab::{Container, Host};
use rmesh_tests::story;
use rmesh_tests::story::{INTERFACE, Story};

/// IEEE Std 802: for local experiments.
const ETHERTYPE: u16 = 0x88b5;

fn warnings(story: &Story, host: &Host) -> String {
    story.status(host)["warnings"].to_string()
}

fn names_second_way(story: &Story, host: &Host) -> bool {
    warnings(story, host).contains("connected outside the mesh")
}

fn start(from: &Container, to: IpAddr) -> Pinger {
    Pinger::start(from, to, Duration::from_millis(10)).expect("pings")
}

#[test]
fn a_lan_bridged_twice_is_named_and_carries_on() {
    let mut story = story!("secondway");
    let [a, b, lan] = story.hosts(["a", "b", "lan"]);
    let link = story.link(&a, &b);
    let wires = [story.link(&lan, &a), story.link(&lan, &b)];
    let routers = [
        story.launch(&a, &[link.address(&b, false)]),
        story.launch(&b, &[]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    let far: IpAddr = Ipv4Addr::new(10, 32, 0, 2).into();
    story.expect_ping(Duration::from_secs(2), &one, far);

    let from_the_start = start(&one, far);
    // The LAN's switch is a bridge of its own; both hosts plug their rmesh bridge into it.
    let ports = wires.each_ref().map(|wire| wire.interface(&lan));
    lan.switch("switch", &[&ports[0], &ports[1]])
        .expect("a switch");
    let machine = lan.container("machine").expect("a namespace");
    let address = "10.32.0.9/24".parse().expect("an address");
    lan.plug_machine(&machine, "switch", 1, address)
        .expect("a machine on the LAN");
    for (host, wire) in [(&a, &wires[0]), (&b, &wires[1])] {
        host.plug(&wire.interface(host), "rmesh")
            .expect("a bridge port");
    }
    story.expect_within(Duration::from_secs(10), "both name the cause", || {
        [&a, &b].iter().all(|host| names_second_way(&story, host))
    });
    println!("a: {}\nb: {}", warnings(&story, &a), warnings(&story, &b));
    let on_lan: IpAddr = Ipv4Addr::new(10, 32, 0, 9).into();
    for container in [&one, &two] {
        story.expect_ping(Duration::from_secs(5), container, on_lan);
    }
    let storm = EtherListener::start(&machine, "eth0", ETHERTYPE).expect("a listener");
    let pingers = [start(&one, far), start(&one, on_lan), start(&two, on_lan)];
    for number in 0..100u64 {
        let payload = [&number.to_be_bytes()[..], &[0; 56]].concat();
        EtherListener::send(&one, INTERFACE, [0xff; 6], ETHERTYPE, &payload).expect("a frame");
        std::thread::sleep(Duration::from_millis(50));
    }
    let [x, y, z] = pingers;
    let pingers = [
        ("container to container, from the start", from_the_start),
        ("container to container", x),
        ("one to the LAN", y),
        ("two to the LAN", z),
    ];
    for (name, pinger) in pingers {
        let report = pinger.stop().expect("pings");
        let (sent, received) = (report.sent, report.received);
        println!(
            "{name}: {received} of {sent}, {} twice, longest gap {:?}",
            report.duplicates, report.longest_gap
        );
        assert!((sent - received) * 100 < sent, "unicast is lost");
    }
    let broadcasts = storm.stop().len();
    println!("100 broadcasts came {broadcasts} times");
    assert!((100..=200).contains(&broadcasts), "a storm");

    b.unplug(&wires[1].interface(&b))
        .expect("a port taken away");
    story.expect_within(Duration::from_secs(20), "the warning ends", || {
        [&a, &b].iter().all(|host| !names_second_way(&story, host))
    });
    // The bridge of a has learned that the way to the container leads over the LAN; the container
    // asks anew when its neighbour entry goes stale.
    story.expect_ping(Duration::from_secs(15), &one, far);
}
