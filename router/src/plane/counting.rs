//! The frame path of one worker without its thread, its clock and the kernel, so that what it
//! takes can be counted: a port in memory on one side, on the other datagrams that stay queued.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmesh_gossip::Forwarding;
use tokio::sync::mpsc;

use super::api::{Inbound, PlaneCounters, PlaneError, Without};
use super::buffer::{BATCH_LEN, Buffer};
use super::engine::Engine;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::receive::Place;
use super::shared::Shared;
use super::sockets::Sockets;
use super::stats::WorkerStats;
use super::tables::Tables;
use super::transmit::{Transmitter, Worker};
use crate::port::{FrameBatch, Port};

/// Where peers are said to be. Nothing is sent there.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Time from turn to turn: long enough for the allowance of a turn's floods.
const TURN: Duration = Duration::from_secs(1);
const INBOUND_MAX: usize = 64;

/// One worker of a peer.
pub struct Stand {
    engine: Engine,
    tables: Tables,
    now: Instant,
    frames: FrameBatch,
    datagrams: Vec<Buffer>,
    /// Length of the datagrams in each buffer; the last may be shorter.
    datagram_lens: Vec<usize>,
    _inbound: mpsc::Receiver<Inbound>,
}

impl Stand {
    /// A worker between `port` and nowhere, which goes by `forwarding`.
    ///
    /// # Errors
    /// If there is no loopback address.
    pub fn new(port: Box<dyn Port>, forwarding: Forwarding) -> Result<Self, PlaneError> {
        let bind = [Ipv4Addr::LOCALHOST.into()];
        let sockets = Arc::new(Sockets::open(&bind, None, 0, 1, Without::default())?);
        let (stats, now) = (Arc::new(WorkerStats::default()), Instant::now());
        let shared = Arc::new(Shared::new(1, now));
        let (sender, inbound) = mpsc::channel(INBOUND_MAX);
        let outbox = Outbox::new(0, sockets, Arc::clone(&stats));
        let worker = Worker {
            number: 0,
            count: 1,
        };
        let transmitter = Transmitter::new(worker, outbox, Arc::clone(&stats));
        let inbox = Inbox::new(sender, Arc::clone(&stats));
        Ok(Stand {
            engine: Engine::new(port, transmitter, inbox, (stats, shared), now),
            tables: Tables::build(forwarding, &Tables::default(), 1, now),
            now,
            frames: FrameBatch::of(Buffer::many(BATCH_LEN)),
            datagrams: Buffer::many(BATCH_LEN),
            datagram_lens: Vec::with_capacity(BATCH_LEN),
            _inbound: inbound,
        })
    }

    /// Reads one batch from the port and queues what comes of it.
    ///
    /// # Errors
    /// Those of the port.
    pub fn send(&mut self) -> std::io::Result<()> {
        self.engine.port.read_batch(&mut self.frames)?;
        self.engine
            .handle_frames(&self.frames, &self.tables, self.now);
        Ok(())
    }

    /// The queued datagrams.
    pub fn queued(&self) -> impl Iterator<Item = &[u8]> {
        self.engine.transmitter.outbox.queued()
    }

    /// Forgets the queued datagrams, and lets some time go by.
    pub fn clear(&mut self) {
        self.engine.transmitter.outbox.clear();
        self.now += TURN;
    }

    /// Lets datagrams arrive, `joined` of them in a buffer as the kernel joins them, where they wait
    /// for [`Stand::receive`].
    ///
    /// # Panics
    /// If they do not fit, or are not of one length.
    pub fn arrive(&mut self, datagrams: &[&[u8]], joined: usize) {
        self.datagram_lens.clear();
        let buffers = self.datagrams.iter_mut();
        let chunks = datagrams.chunks(joined);
        assert!(chunks.len() <= BATCH_LEN, "more than one call brings");
        for (buffer, together) in buffers.zip(chunks) {
            let len = together[0].len();
            let (_, but_last) = together.split_last().unwrap_or((&together[0], &[]));
            assert!(but_last.iter().all(|datagram| datagram.len() == len));
            assert!(buffer.assign(together), "too long for a buffer");
            self.datagram_lens.push(len);
        }
    }

    /// Opens what arrived, relays it, writes it to the port.
    pub fn receive(&mut self) {
        for (number, datagram_len) in self.datagram_lens.iter().enumerate() {
            let (mut from, len) = (0, self.datagrams[number].data().len());
            while from < len {
                let to = len.min(from + datagram_len);
                let all = self.datagrams[number].data_mut();
                let datagram = all.get_mut(from..to).unwrap_or_default();
                let place = Place {
                    number,
                    from,
                    class: 0,
                };
                self.engine
                    .handle_datagram(ADDRESS, (datagram, place), &self.tables, self.now);
                if self.engine.must_deliver() {
                    self.engine.deliver_all(&self.datagrams);
                }
                from = to;
            }
        }
        self.engine.deliver_all(&self.datagrams);
    }

    /// What was counted, drops and all.
    pub fn counters(&self) -> PlaneCounters {
        let mut counters = PlaneCounters::default();
        self.engine.stats.add_to(&mut counters);
        counters
    }
}
