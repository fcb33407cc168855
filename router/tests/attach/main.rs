//! Containers on a bridge, told as stories. Each test has a host and containers of its own, all
//! network namespaces that vanish with it.

#![allow(clippy::unwrap_used)]

mod namespace;

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use namespace::{ANY, Namespace, deliver_to, delivers};
use rmesh_router::attach::{
    self, AttachError, Attachment, Request, TargetSpec, attach, detach, is_present, mac_for,
};
use rmesh_router::kernel::{AddressWatch, Bridge, KernelError, local_addresses};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::net::netdevice::name_to_index;

const MTU_BYTES: u16 = 1328;
/// Whose interfaces they are.
const OWNER: &str = "/test";
const BRIDGE: &str = "rmesh";

/// A neighbour has taken in an announcement after this time, however busy the machine.
const LEARNT_MAX: Duration = Duration::from_secs(1);

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn request(target: TargetSpec, addresses: &[&str]) -> Request {
    let addresses = nets(addresses);
    Request {
        mac: mac_for(&addresses, b"test"),
        target,
        interface: attach::INTERFACE_DEFAULT.into(),
        addresses,
        mtu_bytes: MTU_BYTES,
        name: "web".into(),
    }
}

/// A host with a bridge.
struct Host {
    namespace: Namespace,
    bridge: Bridge,
}

impl Host {
    fn new() -> Self {
        let namespace = Namespace::new();
        let bridge = namespace
            .enter(|| Bridge::ensure(BRIDGE, MTU_BYTES, OWNER))
            .unwrap();
        Host { namespace, bridge }
    }

    fn attach(&self, to: &Namespace, addresses: &[&str]) -> Result<Attachment, AttachError> {
        self.request(&request(to.target(), addresses))
    }

    fn request(&self, request: &Request) -> Result<Attachment, AttachError> {
        self.namespace.enter(|| attach(&self.bridge, request))
    }

    fn detach(&self, attachment: &Attachment) -> Result<(), AttachError> {
        self.namespace.enter(|| detach(attachment))
    }

    fn ports(&self) -> Vec<String> {
        self.namespace.enter(|| self.bridge.ports()).unwrap()
    }

    fn has(&self, interface: &str) -> bool {
        has(&self.namespace, interface)
    }

    fn is_present(&self, attachment: &Attachment) -> bool {
        self.namespace
            .enter(|| is_present(&self.bridge, attachment))
    }
}

fn has(namespace: &Namespace, interface: &str) -> bool {
    namespace.enter(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        name_to_index(&socket, interface).is_ok()
    })
}

fn setting(namespace: &Namespace, path: &str) -> String {
    let path = format!("/proc/sys/net/{path}");
    let value = namespace.enter(|| fs::read_to_string(path)).unwrap();
    value.trim().to_owned()
}

#[test]
fn a_bridge_is_made_once_and_adopted_after() {
    let host = Host::new();
    let again = host
        .namespace
        .enter(|| Bridge::ensure(BRIDGE, 1400, OWNER))
        .unwrap();
    assert_eq!(again.index(), host.bridge.index());
    assert_eq!(again.name(), BRIDGE);
    let container = Namespace::new();
    let port = host.attach(&container, &[]).unwrap();
    let third = host
        .namespace
        .enter(|| Bridge::ensure(BRIDGE, MTU_BYTES, OWNER))
        .unwrap();
    // A bridge left alone would have taken the MAC of its port.
    assert_eq!((third.mac(), third.mac().0[0] & 3), (host.bridge.mac(), 2));
    host.detach(&port).unwrap();
    for (path, value) in [
        ("ipv6/conf/rmesh/disable_ipv6", "1"),
        ("ipv6/conf/rmesh/accept_ra", "0"),
        ("ipv4/conf/rmesh/arp_ignore", "1"),
    ] {
        assert_eq!(setting(&host.namespace, path), value, "{path}");
    }
    assert_eq!(host.ports(), Vec::<String>::new());

    let loopback = host
        .namespace
        .enter(|| Bridge::ensure("lo", MTU_BYTES, OWNER));
    assert!(matches!(loopback, Err(KernelError::NotABridge { .. })));
    let missing = host
        .namespace
        .enter(|| host.bridge.add_port("tap9", MTU_BYTES));
    let error = missing.unwrap_err().to_string();
    assert!(error.contains("make tap9 a port of rmesh"), "{error}");

    for _ in 0..2 {
        host.namespace.enter(|| Bridge::remove(BRIDGE)).unwrap();
    }
    assert!(!host.has(BRIDGE));
}

#[test]
fn two_containers_of_a_host_reach_each_other_at_once() {
    let host = Host::new();
    let (a, b) = (Namespace::new(), Namespace::new());
    let started = Instant::now();
    let first = host.attach(&a, &["10.32.0.1/16", "fd32::1/64"]).unwrap();
    let second = host.attach(&b, &["10.32.0.2/16", "fd32::2/64"]).unwrap();
    println!("two attached in {:?}", started.elapsed());
    assert_eq!(first.mac, mac_for(&nets(&["10.32.0.1/16"]), b""));
    assert_eq!(first.addresses, nets(&["10.32.0.1/16", "fd32::1/64"]));
    let mut ports = vec![first.host_interface.clone(), second.host_interface.clone()];
    let mut found = host.ports();
    ports.sort();
    found.sort();
    assert_eq!(found, ports);

    for (one, other) in [("10.32.0.1", "10.32.0.2"), ("fd32::1", "fd32::2")] {
        let (from, to) = (a.udp(ip(one)), b.udp(ip(other)));
        assert!(delivers(&from, &to), "{one} to {other}");
        assert!(delivers(&to, &from), "{other} to {one}");
    }
    for port in ports {
        let path = format!("ipv6/conf/{port}/disable_ipv6");
        assert_eq!(setting(&host.namespace, &path), "1");
    }
}

#[test]
fn multicast_leaves_a_container_that_has_no_other_route() {
    let host = Host::new();
    let (a, b) = (Namespace::new(), Namespace::new());
    host.attach(&a, &["10.32.0.1/16"]).unwrap();
    host.attach(&b, &["10.32.0.2/16"]).unwrap();
    let group = "239.9.9.9".parse().unwrap();
    let listener = b.udp(ANY);
    listener
        .join_multicast_v4(&group, &"10.32.0.2".parse().unwrap())
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let speaker = a.udp(ip("10.32.0.1"));
    assert!(deliver_to(
        &speaker,
        &listener,
        SocketAddr::new(group.into(), port)
    ));
}

#[test]
fn attaching_again_changes_nothing_and_more_addresses_are_added() {
    let host = Host::new();
    let container = Namespace::new();
    let first = host
        .attach(&container, &["10.32.0.1/16", "fd32::1/64"])
        .unwrap();
    let again = host
        .attach(&container, &["10.32.0.1/16", "fd32::1/64"])
        .unwrap();
    assert_eq!(first, again);

    let more = host
        .attach(&container, &["10.32.0.9/16", "10.32.0.9/16"])
        .unwrap();
    let all = nets(&["10.32.0.9/16", "10.32.0.1/16", "fd32::1/64"]);
    assert_eq!(more.addresses, all);
    assert_eq!(
        (more.mac, &more.host_interface),
        (first.mac, &first.host_interface)
    );
    assert_eq!(host.ports().len(), 1);
    for address in ["10.32.0.9", "10.32.0.1", "fd32::1"] {
        container.udp(ip(address));
    }
}

#[test]
fn a_bridge_that_was_made_anew_takes_its_containers_back() {
    let mut host = Host::new();
    let container = Namespace::new();
    let first = host.attach(&container, &["10.32.0.1/16"]).unwrap();
    host.bridge = host.namespace.enter(|| {
        Bridge::remove(BRIDGE).unwrap();
        Bridge::ensure(BRIDGE, MTU_BYTES, OWNER).unwrap()
    });
    assert!(!host.is_present(&first));
    assert_eq!(host.attach(&container, &["10.32.0.1/16"]).unwrap(), first);
    assert!(host.is_present(&first));
}

#[test]
fn the_neighbours_learn_at_once_that_an_address_has_moved() {
    let host = Host::new();
    let (a, old, new) = (Namespace::new(), Namespace::new(), Namespace::new());
    host.attach(&a, &["10.32.0.1/16", "fd32::1/64"]).unwrap();
    let was = host.attach(&old, &["10.32.0.2/16", "fd32::2/64"]).unwrap();
    let pairs = [("10.32.0.1", "10.32.0.2"), ("fd32::1", "fd32::2")];
    for (one, other) in pairs {
        assert!(delivers(&a.udp(ip(one)), &old.udp(ip(other))));
    }
    host.detach(&was).unwrap();

    let mut moved = request(new.target(), &["10.32.0.2/16", "fd32::2/64"]);
    moved.mac = mac_for(&[], b"another machine");
    host.request(&moved).unwrap();
    // The announcement is sent when the attach ends, and may still wait in a queue of the kernel's: what
    // is sent before it has come goes to the old place. Without it, an old entry would be doubted after
    // five seconds (RFC 4861 section 10).
    let start = Instant::now();
    for (one, other) in pairs {
        let (one, other) = (a.udp(ip(one)), new.udp(ip(other)));
        other
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let lost = std::iter::repeat_with(|| delivers(&one, &other))
            .take_while(|arrived| !arrived && start.elapsed() < LEARNT_MAX)
            .count();
        let took = start.elapsed();
        println!("{:?}: {lost} lost, {took:?}", other.local_addr());
        assert!(took < LEARNT_MAX, "{:?}", other.local_addr());
    }
}

#[test]
fn an_interface_that_is_not_ours_is_left_alone() {
    let host = Host::new();
    let container = Namespace::new();
    let mut taken = request(container.target(), &["10.32.0.1/16"]);
    taken.interface = "lo".into();
    let error = host.request(&taken).unwrap_err();
    assert!(
        matches!(error, AttachError::InterfaceTaken { .. }),
        "{error}"
    );
    assert_eq!(host.ports(), Vec::<String>::new());
    assert!(has(&container, "lo"));
}

#[test]
fn half_done_work_is_undone() {
    let host = Host::new();
    let container = Namespace::new();
    let made = host.attach(&container, &["10.32.0.1/16"]).unwrap();
    // The second address is impossible, so the first must not stay.
    let error = host
        .attach(&container, &["10.32.0.7/16", "10.32.0.1/24"])
        .unwrap_err();
    assert!(matches!(error, AttachError::Address { .. }), "{error}");
    let after = host.attach(&container, &[]).unwrap();
    assert_eq!(after.addresses, nets(&["10.32.0.1/16"]));
    host.detach(&made).unwrap();

    // No bridge to put the host end into: neither end may stay.
    host.namespace.enter(|| Bridge::remove(BRIDGE)).unwrap();
    let error = host.attach(&container, &["10.32.0.1/16"]).unwrap_err();
    assert!(matches!(error, AttachError::Kernel(_)), "{error}");
    assert!(!host.has(&made.host_interface));
    assert!(!has(&container, &made.interface));
}

#[test]
fn detaching_twice_is_as_good_as_once() {
    let host = Host::new();
    let container = Namespace::new();
    let made = host.attach(&container, &["10.32.0.1/16"]).unwrap();
    assert!(host.is_present(&made));
    for _ in 0..2 {
        host.detach(&made).unwrap();
        assert!(!host.is_present(&made));
        assert!(!has(&container, &made.interface));
    }
    let forged = Attachment {
        host_interface: BRIDGE.into(),
        ..made
    };
    let error = host.detach(&forged).unwrap_err();
    assert!(matches!(error, AttachError::NotOurs { .. }), "{error}");
    assert!(host.has(BRIDGE));
}

#[test]
fn a_container_that_vanishes_takes_its_interface_along() {
    let host = Host::new();
    let container = Namespace::new();
    let made = host.attach(&container, &["10.32.0.1/16"]).unwrap();
    drop(container);
    let started = Instant::now();
    while host.is_present(&made) {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the host end stays"
        );
        thread::sleep(Duration::from_millis(10));
    }
    host.detach(&made).unwrap();
}

#[test]
fn a_missing_target_is_named() {
    let host = Host::new();
    let plain = tempfile_path();
    File::create(&plain).unwrap();
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let gone = format!("pid:{}", ended.id());
    for (text, expected) in [
        (
            "no-such-container".into(),
            "no network namespace named no-such-container in /run/netns",
        ),
        ("/no/such/path".to_owned(), "/no/such/path does not exist"),
        (gone.clone(), "is gone"),
        (plain.clone(), "is not a network namespace"),
        ("/proc/self/ns/uts".to_owned(), "is not a network namespace"),
        ("/proc/thread-self/ns/net".to_owned(), "the host itself"),
    ] {
        let request = request(text.parse().unwrap(), &["10.32.0.1/16"]);
        let error = host.request(&request).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    fs::remove_file(plain).unwrap();
    assert_eq!(host.ports(), Vec::<String>::new());
}

fn tempfile_path() -> String {
    let name = format!("rmesh-attach-{}", std::process::id());
    std::env::temp_dir().join(name).to_str().unwrap().to_owned()
}

#[test]
fn named_namespaces_and_processes_are_found() {
    let host = Host::new();
    let container = Namespace::new();
    let name = format!("rmesh-attach-{}", std::process::id());
    let path = format!("/run/netns/{name}");
    fs::create_dir_all("/run/netns").unwrap();
    File::create(&path).unwrap();
    mount_bind(container.path(), &path).unwrap();
    let named = host.request(&request(name.parse().unwrap(), &["10.32.0.1/16"]));
    unmount(&path, UnmountFlags::DETACH).unwrap();
    fs::remove_file(&path).unwrap();
    let named = named.unwrap();
    assert_eq!(named.target, name);
    let inode = host
        .namespace
        .enter(|| attach::netns_inode(&container.target()))
        .unwrap();
    assert_eq!(named.netns_inode, inode);
    // The same container by another name is the same attachment.
    let by_path = host.attach(&container, &["10.32.0.1/16"]).unwrap();
    assert_eq!(by_path.host_interface, named.host_interface);

    let mut process = container
        .enter(|| std::process::Command::new("sleep").arg("60").spawn())
        .unwrap();
    let pid = TargetSpec::Pid(process.id());
    let by_pid = host.request(&request(pid, &["10.32.0.1/16"]));
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(by_pid.unwrap().host_interface, named.host_interface);
}

#[test]
fn only_addresses_other_hosts_can_reach_are_local_addresses() {
    let (wire, host) = (Host::new(), Host::new());
    let give = |interface: &str, addresses: &[&str]| {
        let mut request = request(host.namespace.target(), addresses);
        request.interface = interface.into();
        wire.request(&request).unwrap();
    };
    give(
        "eth0",
        &["192.0.2.1/24", "2001:db8::1/64", "169.254.7.7/16"],
    );
    give("eth1", &["198.51.100.1/24"]);
    host.namespace
        .enter(|| host.bridge.add_port("eth1", MTU_BYTES))
        .unwrap();
    let container = Namespace::new();
    host.attach(&container, &["10.32.0.1/16"]).unwrap();
    let found = host
        .namespace
        .enter(|| local_addresses(BRIDGE, None))
        .unwrap();
    assert_eq!(found, [ip("192.0.2.1"), ip("2001:db8::1")]);
}

#[test]
fn changes_of_addresses_are_heard_of() {
    let (wire, host) = (Host::new(), Host::new());
    let watch = host.namespace.enter(AddressWatch::open).unwrap();
    let quiet = || {
        let started = Instant::now();
        while watch.drain() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "news without end"
            );
            thread::sleep(Duration::from_millis(50));
        }
    };
    quiet();
    wire.attach(&host.namespace, &["192.0.2.1/24"]).unwrap();
    assert!(watch.drain());
    quiet();
}

#[test]
fn many_containers_attach_at_the_same_time() {
    const CONTAINERS: u8 = 16;
    let host = Host::new();
    let containers: Vec<Namespace> = (0..CONTAINERS).map(|_| Namespace::new()).collect();
    let started = Instant::now();
    thread::scope(|scope| {
        for (number, container) in (1..).zip(&containers) {
            let host = &host;
            scope.spawn(move || {
                let address = format!("10.32.0.{number}/16");
                host.attach(container, &[&address]).unwrap();
            });
        }
    });
    println!("{CONTAINERS} attached in {:?}", started.elapsed());
    assert_eq!(host.ports().len(), usize::from(CONTAINERS));
    let (first, last) = (&containers[0], &containers[usize::from(CONTAINERS) - 1]);
    assert!(delivers(
        &first.udp(ip("10.32.0.1")),
        &last.udp(ip("10.32.0.16"))
    ));
}

#[test]
fn two_attaches_of_one_container_at_the_same_time_leave_one_interface() {
    let host = Host::new();
    for _ in 0..16 {
        let container = Namespace::new();
        let results = thread::scope(|scope| {
            let attach = || host.attach(&container, &["10.32.0.1/16"]);
            let both = [scope.spawn(attach), scope.spawn(attach)];
            both.map(|thread| thread.join().unwrap())
        });
        let [made, again] = results.map(Result::unwrap);
        assert_eq!(made, again);
        assert!(host.is_present(&made));
        assert!(has(&container, &made.interface));
        host.detach(&made).unwrap();
    }
}
