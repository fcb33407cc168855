//! The plain TAP port, in a network namespace of its own; needs root.
#![allow(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use rmesh_gossip::{Forwarding, Path, ProbeMarks};
use rmesh_router::{Plane, PlaneError};
use rmesh_wire::Mac;
use rmesh_wire::ethernet::parse_second_way_probe;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::sync::mpsc;

use crate::support::{forwarding_of, frame, id, know, mac, options, tree};

/// Moves the calling thread, and those it starts, to a new network namespace with `lo` up.
pub fn enter_new_namespace() {
    // SAFETY: unshare only changes which namespace this thread uses.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    let error = io::Error::last_os_error();
    assert!(
        entered,
        "this test needs root ({error}); run: sudo -E env \"PATH=$PATH\" cargo test --workspace"
    );
    set_up("lo");
}

pub fn request(name: &str) -> libc::ifreq {
    // SAFETY: a C structure of numbers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

pub fn set_up(name: &str) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    assert_eq!(result, 0, "{name}: {}", io::Error::last_os_error());
}

/// A packet socket on the interface, which is brought up.
pub fn packet_socket(name: &str) -> Socket {
    set_up(name);
    let all = (libc::ETH_P_ALL as u16).to_be();
    let protocol = Protocol::from(i32::from(all));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is the address of this family, and the name is a C string.
    let address = unsafe {
        let link = storage.view_as::<libc::sockaddr_ll>();
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_protocol = all;
        link.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
    };
    socket.bind(&address).unwrap();
    let timeout = Some(Duration::from_millis(100));
    socket.set_read_timeout(timeout).unwrap();
    socket
}

/// Whether a frame for which `wanted` holds is seen within `for_long`.
fn sees(socket: &Socket, for_long: Duration, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let (deadline, mut bytes) = (Instant::now() + for_long, vec![0; 66_000]);
    while Instant::now() < deadline {
        if let Ok(len) = (&*socket).read(&mut bytes)
            && wanted(&bytes[..len])
        {
            return true;
        }
    }
    false
}

fn start(tap: &str) -> (Plane, Socket) {
    let (sender, _) = mpsc::channel(1);
    let plane = Plane::start(options(tap), sender).unwrap();
    let socket = packet_socket(plane.tap_name());
    (plane, socket)
}

fn publish(plane: &Plane, me: u8, other: u8, address: SocketAddr) {
    let mut forwarding: Forwarding = forwarding_of(me);
    know(&mut forwarding, me, other, Path::Direct(address));
    let floods = &mut forwarding.floods;
    floods.insert(id(me).short_id(), tree(None, &[other]));
    floods.insert(id(other).short_id(), tree(Some(other), &[]));
    plane.publish(forwarding);
}

#[test]
fn frames_cross_between_two_tap_interfaces() {
    enter_new_namespace();
    let ((a, a_link), (b, b_link)) = (start("rmplane0"), start("rmplane1"));
    publish(&a, 1, 2, loopback(&b));
    publish(&b, 2, 1, loopback(&a));
    let second = Duration::from_secs(2);
    for sent in [
        frame(mac(2), mac(1), &[1; 1_300]),
        frame(Mac::BROADCAST, mac(1), &[2; 46]),
        frame(Mac([0x33, 0x33, 0, 0, 0, 9]), mac(1), &[3; 46]),
    ] {
        (&a_link).write_all(&sent).unwrap();
        assert!(sees(&b_link, second, |frame| *frame == sent[..]));
    }
    let back = frame(mac(1), mac(2), &[4; 100]);
    (&b_link).write_all(&back).unwrap();
    assert!(sees(&a_link, second, |frame| *frame == back[..]));
    let probe = |frame: &[u8]| {
        parse_second_way_probe(frame) == Some((ProbeMarks::default().of(&id(2)), id(2)))
    };
    assert!(
        sees(&b_link, 4 * second, probe),
        "a probe every five seconds"
    );
    b.stop();
    let again = start("rmplane1");
    assert_eq!(
        again.0.tap_name(),
        "rmplane1",
        "the TAP went with its plane"
    );
}

fn loopback(plane: &Plane) -> SocketAddr {
    ([127, 0, 0, 1], plane.port()).into()
}

#[test]
fn without_bind_both_families_are_served_on_one_port() {
    enter_new_namespace();
    let everywhere = |tap: &str| {
        let mut options = options(tap);
        options.bind.clear();
        let (sender, inbox) = mpsc::channel(1);
        let plane = Plane::start(options, sender).unwrap();
        let socket = packet_socket(plane.tap_name());
        (plane, socket, inbox)
    };
    let ((a, a_link, _a), (b, b_link, _b)) = (everywhere("rmplane4"), everywhere("rmplane5"));
    let six = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), b.port());
    for (number, address) in [(1, six), (2, loopback(&b))] {
        publish(&a, 1, 2, address);
        publish(&b, 2, 1, loopback(&a));
        let sent = frame(mac(2), mac(1), &[number; 1_300]);
        (&a_link).write_all(&sent).unwrap();
        let second = Duration::from_secs(2);
        assert!(
            sees(&b_link, second, |frame| *frame == sent[..]),
            "{address}"
        );
    }
}

#[test]
fn a_taken_tap_name_is_a_clear_error() {
    enter_new_namespace();
    let (sender, _) = mpsc::channel(1);
    for workers in [1, 2] {
        let mut first = options("rmplane2");
        first.workers = workers;
        let plane = Plane::start(first, sender.clone()).unwrap();
        for others in [1, 2] {
            let mut second = options("rmplane2");
            second.workers = others;
            let error = Plane::start(second, sender.clone()).err().unwrap();
            assert!(matches!(&error, PlaneError::Tap { name, .. } if name == "rmplane2"));
            let advice = "no other program using that name";
            assert!(error.to_string().contains(advice), "{error}");
        }
        plane.stop();
    }
}

#[test]
fn each_worker_has_a_queue_and_a_port_with_one_says_so() {
    enter_new_namespace();
    let (sender, _) = mpsc::channel(1);
    let mut wanted = options("rmplane3");
    wanted.workers = 4;
    let plane = Plane::start(wanted, sender.clone()).unwrap();
    assert_eq!((plane.note(), plane.capabilities().workers), (None, 4));
    drop(plane);
    let mut wanted = options("rmplane3");
    (wanted.workers, wanted.without.super_frames) = (4, true);
    let plane = Plane::start(wanted, sender).unwrap();
    assert!(plane.note().unwrap().contains("4 workers wanted, 1 used"));
    assert_eq!(plane.capabilities().workers, 1);
}
