//! One data-plane thread: waits, reads a batch, decides, seals, sends, to completion.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};

use super::api::LearnedMac;
use super::bucket::Bucket;
use super::buffer::{BATCH_LEN, Buffer};
use super::engine::{Engine, TICK};
use super::sockets::Sockets;
use super::stats::Reason;
use super::tables::Tables;
use crate::port::FrameBatch;
use crate::sys::{poll, udp};

/// Batches taken from one socket before the port has its turn.
const SOCKET_BATCHES: usize = 4;
/// Batches taken from the port before the sockets have their turn again, so that frames cannot
/// starve control datagrams.
const PORT_BATCHES: usize = 2;
/// Datagrams a second taken from those that anybody may have sent: a fiftieth of a core for what a
/// flood leaves of them, and what a thousand peers need to come back within a second.
const STRANGERS_PER_S: u32 = 8_000;
/// After a quiet time as many are taken at once as come in this time.
const STRANGERS_DEPTH: Duration = Duration::from_millis(64);
/// Longest sleep while nothing waits.
const IDLE: Duration = Duration::from_millis(500);
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
    datagrams: Vec<Buffer>,
    arrivals: [udp::Arrival; BATCH_LEN],
    frames: FrameBatch,
    current: Arc<Tables>,
    next_tick: Instant,
    port_retry: Option<Instant>,
    strangers: Bucket,
}

impl WorkerThread {
    /// Runs until told to stop. No error of a socket or of the port ends it.
    pub(crate) fn run(mut self) {
        let mut round = Round {
            datagrams: Buffer::many(BATCH_LEN),
            arrivals: [udp::Arrival::default(); BATCH_LEN],
            frames: FrameBatch::default(),
            current: Arc::clone(self.tables.load()),
            next_tick: Instant::now(),
            port_retry: None,
            strangers: Bucket::full(STRANGERS_PER_S, STRANGERS_DEPTH, Instant::now()),
        };
        while !self.stop.load(Ordering::Relaxed) {
            self.turn(&mut round);
        }
    }

    fn turn(&mut self, round: &mut Round) {
        let ready = self.wait(round);
        let now = Instant::now();
        self.renew_tables(round, now);
        if now >= round.next_tick {
            round.next_tick = now + TICK;
            self.engine.handle_tick(&round.current, now);
        }
        let [wake, port, sockets @ ..] = &ready;
        if *wake {
            self.handle_wake(now);
        }
        let (sealed, strangers) = sockets.split_at(self.sockets.sealed().len());
        for (number, _) in sealed.iter().enumerate().filter(|(_, ready)| **ready) {
            self.receive_sealed(number, round, now);
        }
        for (number, _) in strangers.iter().enumerate().filter(|(_, ready)| **ready) {
            self.receive_strangers(number, round, now);
        }
        if *port {
            self.read_port(round, now);
        }
        self.engine.flush(now);
    }

    /// Goes by the latest snapshot from now on.
    fn renew_tables(&mut self, round: &mut Round, now: Instant) {
        if !Arc::ptr_eq(&round.current, self.tables.load()) {
            round.current = Arc::clone(self.tables.load());
            self.engine.handle_tables(&round.current, now);
        }
    }

    /// Waits for wake-up, port, sockets of sealed datagrams and of strangers, in this order.
    fn wait(&self, round: &Round) -> [bool; poll::DESCRIPTORS_MAX] {
        let mut descriptors: [RawFd; poll::DESCRIPTORS_MAX] = [-1; poll::DESCRIPTORS_MAX];
        let now = Instant::now();
        let port = match round.port_retry {
            Some(retry) if now < retry => -1,
            _ => self.engine.port.fd(),
        };
        let mut timeout = if self.engine.is_waiting() || round.port_retry.is_some() {
            TICK
        } else {
            IDLE
        };
        let strangers_wait = round.strangers.time_left(now);
        let strangers = match strangers_wait.is_zero() {
            true => self.sockets.strangers(),
            // poll(2) counts whole milliseconds, downwards.
            false => {
                timeout = timeout.min(strangers_wait + Duration::from_millis(1));
                &[]
            }
        };
        let sockets = self.sockets.sealed().iter().chain(strangers);
        let all = [self.wake.as_raw_fd(), port]
            .into_iter()
            .chain(sockets.map(|socket| socket.as_raw_fd()));
        for (slot, descriptor) in descriptors.iter_mut().zip(all) {
            *slot = descriptor;
        }
        poll::readable(&descriptors, timeout)
    }

    fn handle_wake(&mut self, now: Instant) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        while let Ok(request) = self.requests.try_recv() {
            // Whoever asked may have stopped waiting.
            let _ = request.try_send(self.engine.learned(now));
        }
    }

    fn receive_sealed(&mut self, number: usize, round: &mut Round, now: Instant) {
        let sockets = Arc::clone(&self.sockets);
        let Some(socket) = sockets.sealed().get(number) else {
            return;
        };
        for _ in 0..SOCKET_BATCHES {
            if self.receive_batch(socket, round, now) < BATCH_LEN {
                return;
            }
        }
    }

    /// One batch, which the allowance pays for afterwards.
    fn receive_strangers(&mut self, number: usize, round: &mut Round, now: Instant) {
        let sockets = Arc::clone(&self.sockets);
        if let Some(socket) = sockets.strangers().get(number) {
            let count = self.receive_batch(socket, round, now);
            round.strangers.charge(count as u32, now);
        }
    }

    /// Handles what waits at one socket, up to [`BATCH_LEN`] datagrams; gives their number.
    fn receive_batch(&mut self, socket: &UdpSocket, round: &mut Round, now: Instant) -> usize {
        // An error is that of an earlier datagram, told late, or "nothing waits".
        let received = udp::receive(socket, &mut round.datagrams, &mut round.arrivals);
        let Ok(count @ 1..) = received else {
            return 0;
        };
        // A record of a session opened during this turn may be among them.
        self.renew_tables(round, now);
        let arrived = round.datagrams.iter_mut().zip(&round.arrivals);
        for (buffer, arrival) in arrived.take(count) {
            let stats = &self.engine.stats;
            stats.datagrams_received.add(1);
            let len = buffer.data().len() as u64;
            stats.datagram_bytes_received.add(len);
            if arrival.truncated {
                stats.drop_one(Reason::Truncated);
                continue;
            }
            let source = arrival.source.unwrap_or(NOWHERE);
            self.engine
                .handle_datagram(source, buffer, &round.current, now);
        }
        count
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
                .handle_frames(&mut round.frames, &round.current, now);
            if !round.frames.is_full() {
                return;
            }
        }
    }
}

/// Stands for a source the kernel did not name; no peer is ever found there.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
