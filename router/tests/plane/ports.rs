//! TCP and UDP between the kernels of two network namespaces, through planes on every pair of
//! ports; needs root.
#![allow(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use rmesh_gossip::Path;
use rmesh_router::port::fast::FastTap;
use rmesh_router::port::plain::PlainTap;
use rmesh_router::port::{Offloads, Port};
use rmesh_router::{Plane, PlaneCounters};
use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;

use crate::support::{forwarding_of, id, know, options, tree};
use crate::tap::{enter_new_namespace, request, set_up};

/// Bytes that cross each way.
const TRANSFER_LEN: usize = 4 << 20;
const STALL_MAX: Duration = Duration::from_secs(10);
/// The kernel's own length of a TAP's queue.
const QUEUE_LEN: u32 = 1_000;

/// Work for the thread that lives in a namespace.
type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
struct Namespace(std_mpsc::Sender<Job>);

impl Namespace {
    fn new() -> Self {
        let (sender, jobs) = std_mpsc::channel::<Job>();
        thread::spawn(move || {
            enter_new_namespace();
            jobs.into_iter().for_each(|job| job());
        });
        Namespace(sender)
    }

    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = std_mpsc::channel();
        let send = move || {
            let _ = reply.send(job());
        };
        self.0.send(Box::new(send)).unwrap();
        answer.recv().expect("the job did not panic")
    }
}

/// Gives an interface an IPv4 address, of which the network is 10.0.0.0/8, and brings it up.
fn set_address(name: &str, address: Ipv4Addr) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    let mut request = request(name);
    let mut bytes: libc::sockaddr = request_address();
    bytes.sa_data[2..6].copy_from_slice(&address.octets().map(|byte| byte as libc::c_char));
    request.ifr_ifru.ifru_addr = bytes;
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw mut request) };
    assert_eq!(result, 0, "{name}: {}", io::Error::last_os_error());
    set_lengths(name, 1_328, QUEUE_LEN);
    set_up(name);
}

/// Sets an interface's MTU, and how many frames it holds while nobody reads.
pub fn set_lengths(name: &str, mtu: u32, queue: u32) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    let mut request = request(name);
    for (what, value) in [(libc::SIOCSIFMTU, mtu), (libc::SIOCSIFTXQLEN, queue)] {
        request.ifr_ifru.ifru_metric = value as libc::c_int;
        // SAFETY: the request is a whole `ifreq` that outlives the call.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) };
        assert_eq!(result, 0, "{name}: {}", io::Error::last_os_error());
    }
}

fn request_address() -> libc::sockaddr {
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: [0; 14],
    }
}

/// Queues, and workers, of a fast port.
const QUEUES: usize = 2;

/// An end: a plane whose port is in a namespace of its own.
pub struct End {
    pub plane: Plane,
    namespace: Namespace,
    pub address: Ipv4Addr,
    is_fast: bool,
}

impl End {
    pub fn start(number: u8, is_fast: bool) -> End {
        let (namespace, address) = (Namespace::new(), Ipv4Addr::new(10, 9, 0, number));
        let ports = namespace.run(move || {
            let ports: Vec<Box<dyn Port>> = match is_fast {
                true => {
                    let queues = FastTap::open("rmports", QUEUES).unwrap().into_iter();
                    queues.map(|queue| Box::new(queue) as _).collect()
                }
                false => vec![Box::new(PlainTap::open("rmports").unwrap())],
            };
            set_address("rmports", address);
            ports
        });
        assert_eq!(ports[0].offloads().tcp, is_fast);
        assert_eq!(ports[0].offloads() == Offloads::default(), !is_fast);
        let (sender, _) = mpsc::channel(16);
        let plane = Plane::start_on(ports, options("unused"), sender).unwrap();
        End {
            plane,
            namespace,
            address,
            is_fast,
        }
    }

    /// Runs something where the port is.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.namespace.run(job)
    }

    pub fn publish(&self, me: u8, other: u8, to: &End, len_max: u16) {
        self.publish_len(me, other, to, (len_max, true));
    }

    fn publish_len(&self, me: u8, other: u8, to: &End, (len_max, is_found): (u16, bool)) {
        let mut forwarding = forwarding_of(me);
        let address = ([127, 0, 0, 1], to.plane.port()).into();
        know(&mut forwarding, me, other, Path::Direct(address));
        let peer = forwarding.peers.get_mut(&id(other)).unwrap();
        (peer.datagram_len_max, peer.is_len_found) = (len_max, is_found);
        let floods = &mut forwarding.floods;
        floods.insert(id(me).short_id(), tree(None, &[other]));
        floods.insert(id(other).short_id(), tree(Some(other), &[]));
        self.plane.publish(forwarding);
    }
}

pub fn pair(fast: [bool; 2], len_max: u16) -> [End; 2] {
    let [a, b] = [End::start(1, fast[0]), End::start(2, fast[1])];
    a.publish(1, 2, &b, len_max);
    b.publish(2, 1, &a, len_max);
    [a, b]
}

/// Bytes that show where they belong.
fn pattern() -> Vec<u8> {
    (0..TRANSFER_LEN as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Sends both ways at once over one connection.
fn exchange([a, b]: &[End; 2]) {
    let address = b.address;
    let listener = b
        .namespace
        .run(move || TcpListener::bind((address, 0)).unwrap());
    let to = listener.local_addr().unwrap();
    let near = a
        .namespace
        .run(move || TcpStream::connect_timeout(&to, STALL_MAX).unwrap());
    let far = listener.accept().unwrap().0;
    let both = [near, far].map(|stream| {
        stream.set_read_timeout(Some(STALL_MAX)).unwrap();
        stream.set_write_timeout(Some(STALL_MAX)).unwrap();
        let (mut writer, mut reader) = (stream.try_clone().unwrap(), stream);
        let writing = thread::spawn(move || writer.write_all(&pattern()).unwrap());
        let reading = thread::spawn(move || {
            let mut came = vec![0; TRANSFER_LEN];
            reader.read_exact(&mut came).unwrap();
            assert!(came == pattern(), "a byte was changed");
        });
        [writing, reading]
    });
    for half in both.into_iter().flatten() {
        half.join().unwrap();
    }
}

/// Datagrams of lengths that need none, one and several fragments of the sending kernel.
fn datagrams([a, b]: &[End; 2]) {
    let (from, to) = (a.address, b.address);
    let receiver = b.namespace.run(move || UdpSocket::bind((to, 0)).unwrap());
    receiver.set_read_timeout(Some(STALL_MAX)).unwrap();
    let sender = a.namespace.run(move || UdpSocket::bind((from, 0)).unwrap());
    let mut buffer = vec![0; 66_000];
    for len in [0, 1, 18, 63, 64, 1_300, 1_301, 5_000, 60_001] {
        let sent = &pattern()[..len];
        sender
            .send_to(sent, receiver.local_addr().unwrap())
            .unwrap();
        let came = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..came] == *sent, "{len} bytes");
    }
}

fn frames_a_call(counters: &PlaneCounters) -> [f64; 2] {
    let per = |frames: u64, calls: u64| frames as f64 / calls.max(1) as f64;
    [
        per(counters.frames_from_bridge, counters.reads_from_bridge),
        per(counters.frames_to_bridge, counters.writes_to_bridge),
    ]
}

#[test]
fn every_pair_of_ports_carries_the_same_bytes() {
    enter_new_namespace();
    for fast in [[true, true], [true, false], [false, true], [false, false]] {
        let ends = pair(fast, 1_452);
        exchange(&ends);
        datagrams(&ends);
        for end in &ends {
            let counters = end.plane.counters();
            let [read, written] = frames_a_call(&counters);
            println!(
                "fast {}, of {fast:?}: {read:.1} frames a read, {written:.1} a write",
                end.is_fast
            );
            if end.is_fast {
                assert!(read > 2.0, "super-frames were read: {counters:?}");
            } else {
                assert!((read, written) == (1.0, 1.0), "{counters:?}");
            }
            if fast == [true, true] {
                assert!(written > 2.0, "frames were joined: {counters:?}");
            }
            for reason in [
                "bad_super_frame",
                "bad_payload",
                "port_write",
                "forged",
                "too_big",
            ] {
                assert_eq!(counters.drops.get(reason), None, "{counters:?}");
            }
        }
    }
}

#[test]
fn a_path_smaller_than_a_segment_gets_shorter_ones_or_fragments_that_join_again() {
    enter_new_namespace();
    for (fast, is_assumed) in [(true, true), (true, false), (false, true)] {
        let ends = pair([fast, fast], 1_000);
        let [a, b] = &ends;
        if is_assumed {
            a.publish_len(1, 2, b, (1_000, false));
            b.publish_len(2, 1, a, (1_000, false));
        }
        exchange(&ends);
        for end in &ends {
            let counters = end.plane.counters();
            let fragments = counters.fragments_sent;
            println!("fast {fast}, assumed {is_assumed}: {fragments} fragments");
            assert_eq!(fragments > 1_000, !fast, "{counters:?}");
            assert_eq!(counters.reassembled > 1_000, !fast, "{counters:?}");
            assert_eq!(counters.mss_clamped, u64::from(!is_assumed), "{counters:?}");
        }
        datagrams(&ends);
        let told = ends[0].plane.counters().too_big_told;
        assert_eq!(told > 0, !is_assumed, "UDP is told, of what is known");
    }
}
