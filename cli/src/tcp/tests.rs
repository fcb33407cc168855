//! Two ends on this machine, each with a socket in place of its data plane.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rmesh_wire::datagram::Header;
use tokio::sync::mpsc;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(5);

struct End {
    tcp: Tcp,
    closed: mpsc::Receiver<SocketAddr>,
    plane: UdpSocket,
}

impl End {
    fn start() -> End {
        let plane = UdpSocket::bind((HERE, 0)).unwrap();
        plane.set_read_timeout(Some(LIMIT)).unwrap();
        let at = plane.local_addr().unwrap();
        let (tcp, closed) = Tcp::start((&[HERE], None), Some(0), at).unwrap();
        End { tcp, closed, plane }
    }

    fn at(&self) -> SocketAddr {
        SocketAddr::new(HERE, self.tcp.port().unwrap())
    }

    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_536];
        let (len, from) = self.plane.recv_from(&mut buffer).unwrap();
        buffer.truncate(len);
        (buffer, from)
    }
}

fn datagram(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::from(Header::record(7, 1, number).encode());
    bytes.resize(len, number as u8);
    bytes
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn datagrams_cross_whole_both_ways_and_both_ends_know_by_what_connection() {
    let (a, b) = (End::start(), End::start());
    let to_b = a.tcp.local(b.at()).unwrap();
    assert_eq!(a.tcp.local(b.at()), Some(to_b), "one connection is enough");
    assert_eq!(a.tcp.remote(to_b), Some(b.at()));
    let sent: Vec<_> = [16, 1_400, 9_200, 17].map(|len| datagram(3, len)).into();
    for bytes in &sent {
        a.plane.send_to(bytes, to_b).unwrap();
    }
    let mut to_a = None;
    for bytes in &sent {
        let (came, from) = b.receive();
        assert_eq!(&came, bytes);
        assert_eq!(*to_a.get_or_insert(from), from);
    }
    let to_a = to_a.unwrap();
    assert!(b.tcp.remote(to_a).is_some());
    b.plane.send_to(&datagram(9, 700), to_a).unwrap();
    assert_eq!(a.receive(), (datagram(9, 700), to_b));
    wait_for("the counts", || a.tcp.counters().received == 1);
    assert_eq!((a.tcp.counters().sent, b.tcp.counters().received), (4, 4));
}

#[test]
fn the_ends_of_peers_connections_are_told_and_unwanted_ones_are_closed() {
    let (mut a, mut b) = (End::start(), End::start());
    let to_b = a.tcp.local(b.at()).unwrap();
    a.plane.send_to(&datagram(1, 20), to_b).unwrap();
    let (_, to_a) = b.receive();
    let remote = b.tcp.remote(to_a).unwrap();
    for (end, remote) in [(&a, b.at()), (&b, remote)] {
        end.tcp.judge_one(remote, |_| true);
        assert_eq!(end.tcp.counters().unproven, 0);
        end.tcp.judge(|_| true, Instant::now() + 2 * PROVES_WITHIN);
    }
    b.tcp.judge(|_| false, Instant::now());
    assert_eq!(b.closed.blocking_recv(), Some(remote));
    assert_eq!(a.closed.blocking_recv(), Some(b.at()));
    assert_eq!(a.tcp.remote(to_b), None);
    let now = Instant::now();
    assert!(a.tcp.has_ended(to_b, now), "what is still under way");
    assert!(!a.tcp.has_ended(to_b, now + ENDED_FOR));
    assert!(!a.tcp.has_ended(b.at(), now));
    let nobody = SocketAddr::new(HERE, 1);
    a.tcp.local(nobody).unwrap();
    assert_eq!(a.closed.blocking_recv(), Some(nobody), "a call that fails");
}

#[test]
fn strangers_are_few_and_do_not_stay() {
    let mut end = End::start();
    let open = || TcpStream::connect(end.at()).unwrap();
    let mut strangers: Vec<_> = (0..UNPROVEN_PER_SOURCE + 3).map(|_| open()).collect();
    wait_for("three are turned away", || end.tcp.counters().refused == 3);
    let most = UNPROVEN_PER_SOURCE as u64;
    wait_for("no more are left", || end.tcp.counters().unproven == most);
    let count = end.tcp.counters();
    for mut first in strangers.drain(..3) {
        first.set_read_timeout(Some(LIMIT)).unwrap();
        let ended = first.read(&mut [0]);
        assert!(matches!(ended, Ok(0)), "those that came first: {ended:?}");
    }
    end.tcp.judge(|_| false, Instant::now());
    assert_eq!(
        end.tcp.counters().unproven,
        count.unproven,
        "they have time"
    );
    end.tcp.judge(|_| false, Instant::now() + PROVES_WITHIN);
    wait_for("all are closed", || end.tcp.counters().connections == 0);
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(LIMIT)).unwrap();
        assert!(matches!(stranger.read(&mut [0]), Ok(0) | Err(_)));
    }
    let mut browser = open();
    browser
        .write_all(b"\0\x20GET / HTTP/1.1\r\nHost: example.org\r\n")
        .unwrap();
    wait_for("nonsense is hung up on", || {
        end.tcp.counters().connections == 0
    });
    assert!(end.closed.try_recv().is_err(), "nobody has to know");
}

#[test]
fn what_a_slow_connection_does_not_take_is_dropped_in_whole_datagrams() {
    let end = End::start();
    let mut slow = TcpStream::connect(end.at()).unwrap();
    slow.set_read_timeout(Some(LIMIT)).unwrap();
    let hello = datagram(0, 100);
    let framed = [&100u16.to_be_bytes()[..], &hello].concat();
    slow.write_all(&framed).unwrap();
    let (_, to) = end.receive();
    let count = 60_000;
    for number in 1..=count {
        end.plane.send_to(&datagram(number, 1_400), to).unwrap();
    }
    let dropped = || end.tcp.counters().dropped;
    wait_for("some are dropped", || dropped() > 0);
    let lost = dropped();
    let (mut read, mut last) = (0, 0);
    while read + lost < count {
        let mut bytes = [0; 1_402];
        slow.read_exact(&mut bytes).unwrap();
        let header = Header::decode(&bytes[2..]).unwrap();
        assert_eq!(bytes[2..], datagram(header.counter(), 1_400));
        assert!(header.counter() > last, "in their order");
        last = header.counter();
        read += 1;
    }
    assert_eq!(dropped(), lost);
}
