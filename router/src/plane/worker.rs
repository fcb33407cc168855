//! One data-plane thread: waits, reads a batch, decides, seals, sends, to completion.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use rmesh_wire::datagram::Header;

use super::api::LearnedMac;
use super::bucket::Bucket;
use super::buffer::{BATCH_LEN, Buffer};
use super::control::{self, NOWHERE};
use super::engine::{Engine, TICK};
use super::look::{Look, Source};
use super::receive::{Place, is_sealed};
use super::sockets::Sockets;
use super::stats::Reason;
use super::tables::Tables;
use crate::port::{FrameBatch, QUEUES_MAX};
use crate::sys::batch::Messages;
use crate::sys::{batch, poll};

/// Batches taken from one socket before the port has its turn.
const SOCKET_BATCHES: usize = 4;
/// Batches taken from the port before the sockets have their turn again, so that frames cannot
/// starve control datagrams.
const PORT_BATCHES: usize = 2;
/// A port that fails is left alone for this long.
const PORT_RETRY: Duration = Duration::from_millis(200);

/// A request for the learned MACs.
pub(crate) type LearnedRequest = SyncSender<Vec<LearnedMac>>;

/// Thread-local state of a worker.
pub(crate) struct WorkerThread {
    pub(crate) engine: Engine,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) tables: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
    pub(crate) wake: Arc<OwnedFd>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) requests: Receiver<LearnedRequest>,
}

/// Buffers and times between two rounds.
struct Round {
    messages: Messages,
    datagrams: Vec<Buffer>,
    arrivals: [batch::Arrival; BATCH_LEN],
    frames: FrameBatch,
    current: Arc<Tables>,
    next_tick: Instant,
    port_retry: Option<Instant>,
    /// For those that the kernel joined to records.
    strangers: Bucket,
    look: Look,
}

impl WorkerThread {
    /// Runs until told to stop. No error of a socket or of the port ends it.
    pub(crate) fn run(mut self) {
        let mut round = Round {
            messages: Messages::default(),
            datagrams: Buffer::few(),
            arrivals: [batch::Arrival::default(); BATCH_LEN],
            frames: FrameBatch::default(),
            current: Arc::clone(self.tables.load()),
            next_tick: Instant::now(),
            port_retry: None,
            strangers: control::strangers_allowance(Instant::now()),
            look: Look::default(),
        };
        while !self.stop.load(Ordering::Relaxed) {
            self.turn(&mut round);
        }
    }

    fn turn(&mut self, round: &mut Round) {
        let ready = self.wait(round);
        let (now, moved) = (Instant::now(), self.engine.stats.moved());
        self.renew_tables(round, now);
        if now >= round.next_tick {
            round.next_tick = now + TICK;
            self.engine.handle_tick(&round.current, now);
        }
        self.engine.handle_news(now);
        let [wake, others @ ..] = &ready;
        let (port, sockets) = others.split_at(QUEUES_MAX);
        if *wake {
            self.handle_wake(now);
        }
        for (number, _) in sockets.iter().enumerate().filter(|(_, ready)| **ready) {
            self.receive(number, round, now);
        }
        if port.contains(&true) {
            self.engine.port.note_ready(port);
            self.read_port(round, now);
        }
        self.engine.flush(now);
        self.engine.tell_traffic(moved);
    }

    /// Goes by the latest snapshot from now on.
    fn renew_tables(&mut self, round: &mut Round, now: Instant) {
        if !Arc::ptr_eq(&round.current, self.tables.load()) {
            round.current = Arc::clone(self.tables.load());
            self.engine.handle_tables(&round.current, now);
        }
    }

    fn number(&self) -> usize {
        self.engine.transmitter.worker.number
    }

    fn sealed(&self) -> &[UdpSocket] {
        self.sockets.sealed(self.number())
    }

    /// Waits for wake-up, queues of the port, and sockets, in this order.
    fn wait(&self, round: &mut Round) -> [bool; poll::DESCRIPTORS_MAX] {
        let mut descriptors: [RawFd; poll::DESCRIPTORS_MAX] = [-1; poll::DESCRIPTORS_MAX];
        let now = Instant::now();
        let port = match round.port_retry {
            Some(retry) if now < retry => [-1; QUEUES_MAX],
            _ => self.engine.port.fds(),
        };
        let timeout = match round.port_retry {
            Some(_) => TICK,
            // poll(2) counts whole milliseconds, downwards.
            None => self.engine.rest(now) + Duration::from_millis(1),
        };
        let all = [self.wake.as_raw_fd()]
            .into_iter()
            .chain(port)
            .chain(self.sealed().iter().map(|socket| socket.as_raw_fd()));
        for (slot, descriptor) in descriptors.iter_mut().zip(all) {
            *slot = descriptor;
        }
        let look = round.look.time();
        let mut ready = [false; poll::DESCRIPTORS_MAX];
        while now.elapsed() < look {
            ready = poll::readable(&descriptors, Duration::ZERO);
            if ready.contains(&true) {
                break;
            }
            // Others may need this core more.
            std::thread::yield_now();
        }
        if !ready.contains(&true) {
            ready = poll::readable(&descriptors, timeout);
        }
        let [_, others @ ..] = &ready;
        let (port, sockets) = others.split_at(QUEUES_MAX);
        let is_from = |of: &[bool], source| of.contains(&true).then_some(source);
        let source = is_from(port, Source::Port).or(is_from(sockets, Source::Sockets));
        if let Some(source) = source {
            round.look.came(source, now.elapsed());
        }
        ready
    }

    fn handle_wake(&mut self, now: Instant) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        while let Ok(request) = self.requests.try_recv() {
            // Whoever asked may have stopped waiting.
            let _ = request.try_send(self.engine.learned(now));
        }
    }

    fn receive(&mut self, number: usize, round: &mut Round, now: Instant) {
        let sockets = Arc::clone(&self.sockets);
        let Some(socket) = sockets.sealed(self.number()).get(number) else {
            return;
        };
        for _ in 0..SOCKET_BATCHES {
            let room = round.datagrams.len();
            if self.receive_batch(socket, round, now) < room {
                return;
            }
        }
    }

    /// Handles what waits at one socket, up to [`BATCH_LEN`] times one datagram or several in one;
    /// gives how many times.
    fn receive_batch(&mut self, socket: &UdpSocket, round: &mut Round, now: Instant) -> usize {
        // An error is that of an earlier datagram, told late, or "nothing waits".
        let (into, arrivals) = (&mut round.datagrams, &mut round.arrivals);
        let received = batch::receive(&mut round.messages, socket, into, arrivals);
        let Ok(count @ 1..) = received else {
            return 0;
        };
        // A record of a session opened during this turn may be among them.
        self.renew_tables(round, now);
        for number in 0..count {
            self.take_apart(number, round, now);
        }
        self.engine.deliver_all(&round.datagrams);
        self.engine.inbox.hand_on_strangers();
        if count == round.datagrams.len() {
            Buffer::add_more(&mut round.datagrams);
        }
        count
    }

    /// Handles the datagrams in one buffer.
    fn take_apart(&mut self, number: usize, round: &mut Round, now: Instant) {
        let arrival = round.arrivals[number];
        let len = round.datagrams[number].data().len();
        let datagram_len = match arrival.datagram_len {
            0 => len.max(1),
            told => told,
        };
        let stats = &self.engine.stats;
        stats
            .datagrams_received
            .add(len.div_ceil(datagram_len).max(1) as u64);
        stats.datagram_bytes_received.add(len as u64);
        if arrival.truncated {
            return stats.drop_one(Reason::Truncated);
        }
        let source = arrival.source.unwrap_or(NOWHERE);
        let mut from = 0;
        // An empty datagram is one too.
        while from < len || from == 0 {
            let all = round.datagrams[number].data_mut();
            let to = len.min(from + datagram_len);
            let datagram = all.get_mut(from..to).unwrap_or_default();
            if from > 0 && !self.may_follow(datagram, &mut round.strangers, now) {
                self.engine.stats.drop_one(Reason::InboxFull);
            } else {
                let class = arrival.class;
                let place = Place {
                    number,
                    from,
                    class,
                };
                let tables = &round.current;
                self.engine
                    .handle_datagram(source, (datagram, place), tables, now);
            }
            if self.engine.must_deliver() {
                self.engine.deliver_all(&round.datagrams);
            }
            from = to.max(1);
        }
    }

    /// Whether a datagram that came joined behind a sealed one may be handled: the kernel looked
    /// at the first one only, so a handshake behind it has to be paid for here.
    fn may_follow(&self, datagram: &[u8], strangers: &mut Bucket, now: Instant) -> bool {
        Header::decode(datagram).is_ok_and(|header| is_sealed(&header)) || strangers.take(now)
    }

    fn read_port(&mut self, round: &mut Round, now: Instant) {
        round.port_retry = None;
        for _ in 0..PORT_BATCHES {
            if let Err(error) = self.engine.port.read_batch(&mut round.frames) {
                tracing::debug!(port = self.engine.port.name(), %error, "cannot read frames");
                round.port_retry = Some(now + PORT_RETRY);
                return;
            }
            self.engine
                .handle_frames(&round.frames, &round.current, now);
            if !round.frames.is_full() {
                return;
            }
        }
    }
}
