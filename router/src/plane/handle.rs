//! The control side's handle of the data plane.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use rmesh_gossip::{Forwarding, PortTransmit, SendFailure, TrafficSample, Transmit};
use rmesh_wire::PeerId;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use super::aead::has_aes_instructions;
use super::api::{
    Inbound, LearnedMac, PeerCounters, PlaneCapabilities, PlaneCounters, PlaneError, PlaneOptions,
    Without,
};
use super::control::Control;
use super::engine::Engine;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::shared::Shared;
use super::sockets::Sockets;
use super::stats::{Reason, WorkerStats};
use super::tables::Tables;
use super::transmit::{Transmitter, Worker};
use super::worker::{LearnedRequest, WorkerThread};
use crate::port::fast::FastTap;
use crate::port::plain::PlainTap;
use crate::port::{Offloads, Port};
use crate::sys::udp;

/// Workers there can be, each with a queue, sockets and a lane of its own.
const WORKERS_MAX: usize = 64;
/// Longest wait for a worker's answer to [`Plane::learned`].
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Reasons of drops that no worker counts.
const OUTSIDE: [&str; 3] = [
    "control_send_buffer_full",
    "receive_buffer_full",
    "strangers_buffer_full",
];

/// A running data plane. Dropping it stops it, and its TAP goes.
pub struct Plane {
    tap: String,
    offloads: Offloads,
    note: Option<String>,
    sockets: Arc<Sockets>,
    tables: Arc<ArcSwap<Tables>>,
    shared: Arc<Shared>,
    workers: Vec<Running>,
    stop: Arc<AtomicBool>,
    /// Held while a snapshot is built, so that each is built on the one before.
    publishing: Mutex<()>,
    /// Totals at the last [`Plane::samples`].
    sampled: Mutex<HashMap<PeerId, TrafficSample>>,
    /// Whether the processor seals with AES.
    has_aes: bool,
    /// The control side's own datagrams that did not fit the socket's buffer.
    control_dropped: AtomicU64,
    /// What the control side receives, and what it counts.
    control: Mutex<Option<Control>>,
    control_stats: Arc<WorkerStats>,
}

struct Running {
    thread: Option<JoinHandle<()>>,
    wake: Arc<OwnedFd>,
    stats: Arc<WorkerStats>,
    requests: std_mpsc::SyncSender<LearnedRequest>,
}

impl Plane {
    /// Opens the TAP and the sockets in the calling thread's network namespace and starts the
    /// workers. `inbox` takes what they have for the control side; what does not fit is dropped and
    /// counted. The TAP is not yet a port of the bridge: that is the caller's to do.
    ///
    /// # Errors
    /// Says what could not be opened; nothing is left behind.
    pub fn start(options: PlaneOptions, inbox: mpsc::Sender<Inbound>) -> Result<Plane, PlaneError> {
        let workers = options.workers.clamp(1, WORKERS_MAX);
        let ports = open_tap(&options.tap, workers, options.without);
        let ports = ports.map_err(|source| PlaneError::Tap {
            name: options.tap.clone(),
            source,
        })?;
        Plane::start_on(ports, options, inbox)
    }

    /// Like [`Plane::start`], on queues of one port made by the caller: a worker each.
    ///
    /// # Errors
    /// Says what could not be opened; nothing is left behind.
    pub fn start_on(
        ports: Vec<Box<dyn Port>>,
        options: PlaneOptions,
        inbox: mpsc::Sender<Inbound>,
    ) -> Result<Plane, PlaneError> {
        let Some(first) = ports.first() else {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(PlaneError::Tap {
                name: options.tap,
                source,
            });
        };
        let (bind, count) = (&options.bind, ports.len());
        let sockets = Arc::new(Sockets::open(
            bind,
            options.interface.as_deref(),
            options.port,
            count,
            options.without,
        )?);
        let now = Instant::now();
        let shared = Shared::new(count, now).with_carry_limit(options.relay_limit, now);
        let shared = Arc::new(shared);
        let (tables, control_stats) = <(Arc<ArcSwap<Tables>>, Arc<WorkerStats>)>::default();
        let parts = (&sockets, &tables, &control_stats);
        let control = Control::new(parts.0.clone(), parts.1.clone(), parts.2.clone());
        let mut plane = Plane {
            tap: first.name().to_owned(),
            offloads: first.offloads(),
            note: note_of(options.workers, count, first.name()),
            sockets,
            tables,
            shared: Arc::clone(&shared),
            has_aes: has_aes_instructions() && !options.without.aes,
            workers: Vec::with_capacity(count),
            stop: Arc::default(),
            publishing: Mutex::default(),
            sampled: Mutex::default(),
            control_dropped: AtomicU64::new(0),
            control: Mutex::new(Some(control)),
            control_stats,
        };
        for (number, port) in ports.into_iter().enumerate() {
            let worker = Worker { number, count };
            plane
                .start_worker(worker, port, (inbox.clone(), Arc::clone(&shared)))
                .map_err(PlaneError::Worker)?;
        }
        tracing::info!(
            tap = plane.tap,
            bridge = options.bridge,
            port = plane.port(),
            capabilities = %plane.capabilities(),
            "data plane up"
        );
        Ok(plane)
    }

    fn start_worker(
        &mut self,
        worker: Worker,
        port: Box<dyn Port>,
        (inbox, shared): (mpsc::Sender<Inbound>, Arc<Shared>),
    ) -> io::Result<()> {
        let stats = Arc::new(WorkerStats::default());
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let wake = Arc::new(wake);
        let (requests, receiver) = std_mpsc::sync_channel(1);
        let outbox = Outbox::new(worker.number, Arc::clone(&self.sockets), Arc::clone(&stats));
        let transmitter = Transmitter::new(worker, outbox, Arc::clone(&stats));
        let inbox = Inbox::new(inbox, Arc::clone(&stats));
        let now = Instant::now();
        let engine = Engine::new(port, transmitter, inbox, (Arc::clone(&stats), shared), now);
        let thread = WorkerThread {
            engine,
            sockets: Arc::clone(&self.sockets),
            tables: Cache::new(Arc::clone(&self.tables)),
            wake: Arc::clone(&wake),
            stop: Arc::clone(&self.stop),
            requests: receiver,
        };
        let name = format!("rmesh-plane-{}", worker.number);
        let thread = Builder::new().name(name).spawn(move || thread.run())?;
        self.workers.push(Running {
            thread: Some(thread),
            wake,
            stats,
            requests,
        });
        Ok(())
    }

    /// The TAP's real name.
    pub fn tap_name(&self) -> &str {
        &self.tap
    }

    /// The UDP port actually bound.
    pub fn port(&self) -> u16 {
        self.sockets.port()
    }

    /// What reads the datagrams that are for the control side, the first time it is asked for.
    pub fn take_control(&self) -> Option<Control> {
        lock(&self.control).take()
    }

    /// What kernel and processor do for it at the moment.
    pub fn capabilities(&self) -> PlaneCapabilities {
        PlaneCapabilities {
            tcp_super_frames: self.offloads.tcp,
            udp_super_frames: self.offloads.udp,
            udp_segmentation: self.sockets.segments(),
            udp_receive_offload: self.sockets.joins(),
            aes: self.has_aes,
            workers: self.workers.len(),
        }
    }

    /// What an operator should know about how the options were applied.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Makes `forwarding` what workers go by. Counters, lanes and replay windows of sessions that
    /// stay go on; frames that waited for a session are sent.
    pub fn publish(&self, forwarding: Forwarding) {
        let _publishing = lock(&self.publishing);
        let (old, workers) = (self.tables.load(), self.workers.len());
        let tables = Tables::build(forwarding, &old, workers, Instant::now());
        self.tables.store(Arc::new(tables));
        self.wake_workers();
    }

    fn wake_workers(&self) {
        for worker in &self.workers {
            // Fails only if the counter is full, and then the worker is woken already.
            let _ = rustix::io::write(&worker.wake, &1u64.to_ne_bytes());
        }
    }

    /// Sends one of the control side's own datagrams. If the socket has no room it is dropped and
    /// counted, like any datagram may be.
    ///
    /// # Errors
    /// What the kernel's refusal means for the path.
    pub fn send(&self, transmit: &Transmit) -> Result<(), SendFailure> {
        let number = self.sockets.number_for(transmit.destination);
        let socket = number
            .and_then(|number| self.sockets.control().get(number))
            .ok_or(SendFailure::Unreachable)?;
        let Err(error) = socket.send_to(&transmit.bytes, transmit.destination) else {
            return Ok(());
        };
        match udp::failure(&error, transmit.bytes.len()) {
            Some(failure) => Err(failure),
            None => {
                self.control_dropped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Source ports that workers have besides the one listened at, from number 1 on: for IPv4 and for IPv6.
    pub fn source_ports(&self) -> [Vec<u16>; 2] {
        self.sockets.source_ports()
    }

    /// Sends one of the control side's own datagrams from such a port. Whether there was room is no matter: who
    /// asks by it asks again.
    ///
    /// # Errors
    /// If the kernel refuses to send there from that port.
    pub fn send_from_port(&self, transmit: &PortTransmit) -> Result<(), SendFailure> {
        let place = self.sockets.number_for(transmit.destination);
        let sockets = self.sockets.apart(transmit.number);
        let socket = place.and_then(|place| sockets.get(place));
        let socket = socket.ok_or(SendFailure::Unreachable)?;
        match socket.send_to(&transmit.bytes, transmit.destination) {
            Ok(_) => Ok(()),
            Err(error) => udp::failure(&error, transmit.bytes.len()).map_or(Ok(()), Err),
        }
    }

    /// Every reason that [`PlaneCounters::drops`] may name.
    pub fn drop_reasons() -> impl Iterator<Item = &'static str> {
        Reason::NAMES.iter().copied().chain(OUTSIDE)
    }

    /// Once nothing moves: the next frame is told by [`Inbound::Traffic`], so that until then nobody has to
    /// look. One that moves at the same moment may be missed by that; [`Plane::samples`] after this has it.
    pub fn await_traffic(&self) {
        self.shared.await_traffic();
    }

    /// What moved since the last call, one entry a peer with which something moved.
    pub fn samples(&self) -> Vec<TrafficSample> {
        let tables = self.tables.load();
        let mut sampled = lock(&self.sampled);
        let mut samples = Vec::new();
        let mut totals = HashMap::new();
        for (peer, stats) in tables.stats() {
            let total = stats.totals(peer);
            let sample = match sampled.get(&peer) {
                Some(before) => difference(&total, before),
                None => total,
            };
            if sample.sent + sample.received_direct + sample.received_relayed > 0 {
                samples.push(sample);
            }
            totals.insert(peer, total);
        }
        *sampled = totals;
        samples
    }

    /// Event counts since the start.
    pub fn counters(&self) -> PlaneCounters {
        let mut counters = PlaneCounters {
            unusable_sessions: self.tables.load().unusable_sessions,
            ..PlaneCounters::default()
        };
        let stats = self.workers.iter().map(|worker| &worker.stats);
        for stats in stats.chain([&self.control_stats]) {
            stats.add_to(&mut counters);
        }
        let outside = OUTSIDE.into_iter().zip([
            self.control_dropped.load(Ordering::Relaxed),
            self.sockets.all_sealed().map(udp::dropped).sum(),
            self.sockets.strangers().iter().map(udp::dropped).sum(),
        ]);
        let moved = outside.filter(|(_, dropped)| *dropped > 0);
        let named = moved.map(|(name, dropped)| (name.to_owned(), dropped));
        counters.drops.extend(named);
        counters
    }

    /// What was exchanged with each peer, those lately gone included.
    pub fn peer_counters(&self) -> BTreeMap<PeerId, PeerCounters> {
        let tables = self.tables.load();
        let counters = tables.stats().map(|(id, stats)| (id, stats.counters()));
        counters.collect()
    }

    /// MACs learned from traffic; empty if the worker that is asked is too busy to tell. Each
    /// knows what all have learned.
    pub fn learned(&self) -> Vec<LearnedMac> {
        let (reply, answer) = std_mpsc::sync_channel(1);
        let first = self.workers.first();
        if first.is_none_or(|worker| worker.requests.try_send(reply).is_err()) {
            return Vec::new();
        }
        self.wake_workers();
        answer.recv_timeout(ANSWER_TIMEOUT).unwrap_or_default()
    }

    /// Stops the workers and waits for them; the TAP is gone then.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake_workers();
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a data-plane worker had panicked");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Totals of a peer that was away for long start again from zero; everything is new then.
fn difference(total: &TrafficSample, before: &TrafficSample) -> TrafficSample {
    let since = |total: u64, before: u64| total.checked_sub(before).unwrap_or(total);
    TrafficSample {
        peer: total.peer,
        sent: since(total.sent, before.sent),
        received_direct: since(total.received_direct, before.received_direct),
        received_relayed: since(total.received_relayed, before.received_relayed),
    }
}

/// The fast port with its queues, or the plain one, which has one, where the kernel has no virtio
/// headers for TAPs.
fn open_tap(name: &str, queues: usize, without: Without) -> io::Result<Vec<Box<dyn Port>>> {
    let plain = || Ok(vec![Box::new(PlainTap::open(name)?) as Box<dyn Port>]);
    if without.super_frames {
        return plain();
    }
    match FastTap::open(name, queues) {
        Ok(queues) => {
            let port = |queue| Box::new(queue) as Box<dyn Port>;
            Ok(queues.into_iter().map(port).collect())
        }
        Err(error) => {
            let ports = plain()?;
            tracing::warn!(%error, "frames cross one by one: the TAP has no virtio header");
            Ok(ports)
        }
    }
}

/// Says so if there are fewer workers than wanted: a thread needs a queue of its own.
fn note_of(wanted: usize, count: usize, port: &str) -> Option<String> {
    let note = (wanted > count).then(|| {
        format!("{wanted} workers wanted, {count} used: the port {port} has no more queues")
    });
    if let Some(note) = &note {
        tracing::warn!("{note}");
    }
    note
}
