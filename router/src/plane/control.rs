//! The control side's own end of the sockets.
//!
//! Handshakes and lane 0 come to the thread that handles them without a detour through a worker: on a host
//! with nothing to do, to be woken is most of what a datagram costs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use rmesh_wire::datagram::{Header, HeaderError};
use rmesh_wire::payload::CONTROL_LANE;

use super::api::Inbound;
use super::bucket::Bucket;
use super::buffer::{BATCH_LEN, Buffer};
use super::inbox::SHORT_LEN_MAX;
use super::receive::is_sealed;
use super::screen::Screen;
use super::sockets::Sockets;
use super::stats::{Reason, WorkerStats};
use super::tables::Tables;
use crate::sys::batch::{self, Arrival, Messages};

/// Batches taken from one socket of lane 0 before anything else has its turn.
const SOCKET_BATCHES: usize = 4;
/// Datagrams a second taken from those that anybody may have sent: a fiftieth of a core for what a
/// flood leaves of them, and what a thousand peers need to come back within a second.
const STRANGERS_PER_S: u32 = 8_000;
/// After a quiet time as many are taken at once as come in this time.
const STRANGERS_DEPTH: Duration = Duration::from_millis(64);

/// Stands for a source the kernel did not name; no peer is ever found there.
pub(super) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The allowance of datagrams that anybody may have sent.
pub(super) fn strangers_allowance(now: Instant) -> Bucket {
    Bucket::full(STRANGERS_PER_S, STRANGERS_DEPTH, now)
}

/// Reads what is for the control side. There is one, from [`crate::Plane::take_control`].
pub struct Control {
    sockets: Arc<Sockets>,
    tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    stats: Arc<WorkerStats>,
    screen: Screen,
    strangers: Bucket,
    messages: Messages,
    datagrams: Vec<Buffer>,
    arrivals: [Arrival; BATCH_LEN],
}

impl Control {
    pub(super) fn new(
        sockets: Arc<Sockets>,
        tables: Arc<ArcSwap<Tables>>,
        stats: Arc<WorkerStats>,
    ) -> Self {
        let now = Instant::now();
        Control {
            sockets,
            tables: Cache::new(tables),
            stats,
            screen: Screen::new(now),
            strangers: strangers_allowance(now),
            messages: Messages::default(),
            datagrams: Buffer::few(),
            arrivals: [Arrival::default(); BATCH_LEN],
        }
    }

    /// Copies of the descriptors to wait for: readable when there is something for [`Control::receive`] at
    /// the socket of the same number.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let all = self
            .sockets
            .control()
            .iter()
            .chain(self.sockets.strangers());
        all.map(|socket| socket.try_clone().map(OwnedFd::from))
            .collect()
    }

    /// Whether anybody may send what comes to the socket of this number: it is to be read only when
    /// [`Control::rest`] is over.
    pub fn is_strangers(&self, number: usize) -> bool {
        number >= self.sockets.control().len()
    }

    /// For how long strangers' sockets are left alone, so that a flood costs no more than it may.
    pub fn rest(&self, now: Instant) -> Duration {
        self.strangers.time_left(now)
    }

    /// Puts what waits at the socket of this number into `inbound`, as far as it is worth the control side's
    /// time; false if more may wait there.
    pub fn receive(&mut self, number: usize, inbound: &mut Vec<Inbound>) -> bool {
        let sockets = Arc::clone(&self.sockets);
        let lane_0 = sockets.control();
        if let Some(socket) = lane_0.get(number) {
            return (0..SOCKET_BATCHES).any(|_| self.receive_batch(socket, inbound).is_none());
        }
        let Some(socket) = sockets.strangers().get(number - lane_0.len()) else {
            return true;
        };
        let now = Instant::now();
        let before = self.stats.datagrams_received.get();
        let more = self.receive_batch(socket, inbound).is_some();
        let count = self.stats.datagrams_received.get() - before;
        self.strangers
            .charge(u32::try_from(count).unwrap_or(u32::MAX), now);
        !more
    }

    /// One batch; `None` if nothing more waits.
    fn receive_batch(&mut self, socket: &UdpSocket, inbound: &mut Vec<Inbound>) -> Option<()> {
        let now = Instant::now();
        // An error is that of an earlier datagram, told late, or "nothing waits".
        let (into, arrivals) = (&mut self.datagrams, &mut self.arrivals);
        let received = batch::receive(&mut self.messages, socket, into, arrivals);
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(_) => return Some(()),
        };
        for number in 0..count {
            self.take_apart(number, inbound, now);
        }
        let is_full = count == self.datagrams.len();
        if is_full {
            Buffer::add_more(&mut self.datagrams);
        }
        is_full.then_some(())
    }

    /// Looks at the datagrams in one buffer.
    fn take_apart(&mut self, number: usize, inbound: &mut Vec<Inbound>, now: Instant) {
        let (arrival, bytes) = (self.arrivals[number], self.datagrams[number].data());
        let datagram_len = match arrival.datagram_len {
            0 => bytes.len().max(1),
            told => told,
        };
        let count = bytes.len().div_ceil(datagram_len).max(1);
        self.stats.datagrams_received.add(count as u64);
        self.stats.datagram_bytes_received.add(bytes.len() as u64);
        if arrival.truncated {
            return self.stats.drop_one(Reason::Truncated);
        }
        let source = arrival.source.unwrap_or(NOWHERE);
        let tables = self.tables.load();
        for at in 0..count {
            let end = bytes.len().min((at + 1) * datagram_len);
            let datagram = bytes.get(at * datagram_len..end).unwrap_or_default();
            match judge(&mut self.screen, datagram, tables, now) {
                Ok(()) => inbound.push(Inbound::Datagram {
                    source,
                    bytes: datagram.to_vec(),
                }),
                Err(reason) => self.stats.drop_one(reason),
            }
        }
    }
}

/// Whether the control side is to see it.
fn judge(
    screen: &mut Screen,
    datagram: &[u8],
    tables: &Tables,
    now: Instant,
) -> Result<(), Reason> {
    let header = Header::decode(datagram).map_err(|error| match error {
        HeaderError::Version(_) => Reason::UnknownVersion,
        _ => Reason::Malformed,
    })?;
    if !is_sealed(&header) {
        let is_short = datagram.len() <= SHORT_LEN_MAX;
        return is_short.then_some(()).ok_or(Reason::Malformed);
    }
    if header.lane() != CONTROL_LANE {
        return Err(Reason::StrayRecord);
    }
    screen.judge(&header, datagram, tables, now).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::api::Without;
    use crate::sys::batch::Run;
    use crate::sys::udp;
    use rmesh_wire::datagram::Kind;

    /// Sockets on loopback, a reader, and a sender with where to send to.
    fn scene() -> (Control, UdpSocket, SocketAddr) {
        let bind = [Ipv4Addr::LOCALHOST.into()];
        let sockets = Arc::new(Sockets::open(&bind, None, 0, 2, Without::default()).unwrap());
        let to = SocketAddr::new(bind[0], sockets.port());
        let control = Control::new(sockets, Arc::default(), Arc::default());
        let from = udp::open("127.0.0.1:0".parse().unwrap()).unwrap();
        (control, from, to)
    }

    fn drops(control: &Control, reason: &str) -> u64 {
        let mut counters = crate::PlaneCounters::default();
        control.stats.add_to(&mut counters);
        counters.drops.get(reason).copied().unwrap_or(0)
    }

    #[test]
    fn strangers_are_read_at_a_bounded_pace_and_lane_0_is_not_held_up_by_them() {
        let (mut control, from, to) = scene();
        let (hello, mut inbound) = ([0x11; 64], Vec::new());
        assert!(!control.is_strangers(0) && control.is_strangers(1));
        let mut begun = None;
        while control.rest(Instant::now()).is_zero() {
            from.send_to(&hello, to).unwrap();
            begun.get_or_insert_with(Instant::now);
            control.receive(1, &mut inbound);
        }
        let took = begun.unwrap().elapsed();
        let most = (took + STRANGERS_DEPTH).as_secs_f64() * f64::from(STRANGERS_PER_S);
        assert!(
            inbound.len() as f64 <= most + 1.0,
            "{} of {most}",
            inbound.len()
        );
        inbound.clear();
        let early = Header::record(9, CONTROL_LANE, 0).encode();
        from.send_to(&early, to).unwrap();
        assert!(control.receive(0, &mut inbound));
        assert_eq!(inbound.len(), 1);
    }

    #[test]
    fn joined_datagrams_are_taken_apart_and_frames_among_them_are_counted_as_lost() {
        let (mut control, from, to) = scene();
        let datagrams = [
            Header::record(9, CONTROL_LANE, 0).encode(),
            Header::record(9, 1, 0).encode(),
            Header::handshake(Kind::HandshakeInit, 0, 5, 0).encode(),
            [0; 16],
        ];
        let arena = datagrams.concat();
        let mut run = Run::new(0, 16, (to, 0));
        (1..4).for_each(|_| assert!(run.take((to, 0), 16)));
        batch::send(&mut Messages::default(), &from, &arena, &[run]).unwrap();
        let (mut inbound, source) = (Vec::new(), from.local_addr().unwrap());
        assert!(control.receive(0, &mut inbound));
        let expected = [datagrams[0], datagrams[2]].map(|bytes| Inbound::Datagram {
            source,
            bytes: bytes.to_vec(),
        });
        assert_eq!(inbound, expected);
        assert_eq!(drops(&control, "stray_record"), 1);
        assert_eq!(control.stats.datagrams_received.get(), 4);
    }
}
