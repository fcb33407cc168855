//! Sealed datagrams collected for one system call a socket.
//!
//! They are sealed where they are sent from, one behind the other. Those of one length to one
//! destination are a run, which the kernel cuts again (`UDP_SEGMENT`): it goes through the
//! network's layers once and not once a datagram.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use rmesh_gossip::{SOURCE_PORTS_MAX, SendFailure, SourcePorts};

use super::buffer::BATCH_LEN;
use super::crowd::Crowd;
use super::sockets::Sockets;
use super::stats::{Reason, WorkerStats};
use super::tables::Toward;
use crate::sys::batch::{self, Messages, Run};
use crate::sys::udp;

/// Bytes collected for one socket, at most: what stays in a core's second cache.
const ARENA_LEN: usize = 256 << 10;
/// Datagrams sent before the kernel is asked again how full a socket's buffer is: they take at most an eighth of it.
const ASK_EVERY: usize = 128;
/// Failures remembered between two visits of the worker; more in one batch are only counted.
const FAILURES_MAX: usize = BATCH_LEN;

struct Queue {
    arena: Box<[u8]>,
    used: usize,
    runs: [Run; BATCH_LEN],
    count: usize,
    crowd: Crowd,
    /// Datagrams since the kernel was asked how full the socket's buffer is.
    unasked: usize,
}

/// One queue a socket.
pub(crate) struct Outbox {
    worker: usize,
    /// The number of the source port that this worker may use instead of the one listened at.
    port: usize,
    own_port: SourcePorts,
    /// Addresses listened at: so many queues are for the sockets there, and those behind them for the port's.
    places: usize,
    sockets: Arc<Sockets>,
    queues: Vec<Queue>,
    stats: Arc<WorkerStats>,
    failures: Vec<Failed>,
    messages: Messages,
}

/// What the kernel refused to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) destination: SocketAddr,
    /// Number of the source port; 0 is the one listened at.
    pub(crate) port: usize,
    pub(crate) failure: SendFailure,
}

/// Nowhere: stands in runs that are not used.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Outbox {
    pub(crate) fn new(worker: usize, sockets: Arc<Sockets>, stats: Arc<WorkerStats>) -> Self {
        let queue = |_| Queue {
            arena: vec![0; ARENA_LEN].into_boxed_slice(),
            used: 0,
            runs: [Run::new(0, 0, (NOWHERE, 0)); BATCH_LEN],
            count: 0,
            crowd: Crowd::default(),
            unasked: 0,
        };
        let port = worker % SOURCE_PORTS_MAX;
        let (listening, apart) = (sockets.sealed(worker), sockets.apart(port));
        Outbox {
            worker,
            port,
            own_port: SourcePorts::default().with(port),
            places: listening.len(),
            queues: listening.iter().chain(apart).map(queue).collect(),
            sockets,
            stats,
            failures: Vec::with_capacity(FAILURES_MAX),
            messages: Messages::default(),
        }
    }

    /// Lets `make` fill a datagram of `len` bytes for a destination, with a traffic class, and queues it, unless `make`
    /// fails. Sends what waits if there is no room.
    #[inline]
    pub(crate) fn push(
        &mut self,
        (toward, class): (&Toward, u8),
        len: usize,
        make: impl FnOnce(&mut [u8]) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let destination = toward.address;
        let Some(place) = self.sockets.number_for(destination) else {
            let failed = Failed {
                destination,
                port: 0,
                failure: SendFailure::Unreachable,
            };
            note(&mut self.failures, failed);
            return Err(Reason::SendRefused);
        };
        let number = match toward.source_ports.has_any_of(self.own_port) {
            true => place + self.places,
            false => place,
        };
        if self
            .queues
            .get(number)
            .is_some_and(|queue| !queue.has_room(len))
        {
            self.flush_one(number);
        }
        let queue = self.queues.get_mut(number).ok_or(Reason::SendRefused)?;
        let place = queue.used..queue.used + len;
        make(queue.arena.get_mut(place).ok_or(Reason::TooBig)?)?;
        queue.add((destination, class), len, self.sockets.segments());
        Ok(())
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self) {
        for number in 0..self.queues.len() {
            self.flush_one(number);
        }
    }

    fn flush_one(&mut self, number: usize) {
        let (port, socket) = match number.checked_sub(self.places) {
            None => (0, self.sockets.sealed(self.worker).get(number)),
            Some(number) => (self.port, self.sockets.apart(self.port).get(number)),
        };
        let (Some(queue), Some(socket)) = (self.queues.get_mut(number), socket) else {
            return;
        };
        let mut flush = Flush {
            queue,
            at: 0,
            socket,
            sockets: &self.sockets,
            messages: &mut self.messages,
            refusals: Refusals {
                port,
                stats: &self.stats,
                failures: &mut self.failures,
            },
        };
        flush.run();
        (queue.used, queue.count) = (0, 0);
    }

    /// The next failure to be told to the control side.
    pub(crate) fn pop_failure(&mut self) -> Option<Failed> {
        self.failures.pop()
    }
}

#[cfg(feature = "counting")]
impl Outbox {
    /// The datagrams that wait.
    pub(crate) fn queued(&self) -> impl Iterator<Item = &[u8]> {
        self.queues.iter().flat_map(|queue| {
            let singles = queue.runs.iter().take(queue.count).flat_map(Run::singles);
            singles.filter_map(|single| single.bytes(&queue.arena))
        })
    }

    /// Forgets the datagrams that wait.
    pub(crate) fn clear(&mut self) {
        for queue in &mut self.queues {
            (queue.used, queue.count) = (0, 0);
        }
    }
}

impl Queue {
    fn has_room(&self, len: usize) -> bool {
        self.used + len <= ARENA_LEN && self.count < BATCH_LEN
    }

    #[inline]
    fn add(&mut self, to: (SocketAddr, u8), len: usize, segments: bool) {
        let start = self.used;
        self.used += len;
        if segments
            && let Some(last) = self.count.checked_sub(1)
            && self.runs[last].take(to, len)
        {
            return;
        }
        self.runs[self.count] = Run::new(start, len, to);
        self.count += 1;
    }

    /// Drops what goes to who is suspected, of the runs from `from` on.
    fn drop_suspects(&mut self, from: usize, stats: &WorkerStats) {
        let mut kept = from;
        for at in from..self.count {
            let run = self.runs[at];
            if self.crowd.has(run.destination) {
                stats.drop_many(Reason::SendBufferFull, run.count as u64);
            } else {
                self.runs[kept] = run;
                kept += 1;
            }
        }
        self.count = kept;
    }
}

/// A queue on its way.
struct Flush<'a> {
    queue: &'a mut Queue,
    /// The run to be sent next.
    at: usize,
    socket: &'a UdpSocket,
    sockets: &'a Sockets,
    messages: &'a mut Messages,
    refusals: Refusals<'a>,
}

/// Where what comes of a send is kept.
struct Refusals<'a> {
    port: usize,
    stats: &'a WorkerStats,
    failures: &'a mut Vec<Failed>,
}

impl Flush<'_> {
    fn run(&mut self) {
        if self.queue.count == 0 {
            return;
        }
        if !self.queue.crowd.is_calm() {
            self.judge();
            self.queue.drop_suspects(0, self.refusals.stats);
            if self.queue.crowd.is_looking() {
                self.look();
            }
        }
        while self.at < self.queue.count {
            self.send(self.queue.count);
        }
        if self.queue.unasked >= ASK_EVERY {
            self.judge();
        }
    }

    fn judge(&mut self) {
        self.queue.unasked = 0;
        let taken = udp::taken(self.socket);
        self.queue.crowd.judge(taken, Instant::now());
    }

    /// Sends the runs by destination, and finds whose stay in the socket's buffer most.
    fn look(&mut self) {
        let runs = &mut self.queue.runs[..self.queue.count];
        // Those of one destination keep their order.
        runs.sort_unstable_by_key(|run| (run.destination, run.start));
        while self.at < self.queue.count && self.queue.crowd.is_looking() {
            let destination = self.queue.runs[self.at].destination;
            let left = &self.queue.runs[self.at..self.queue.count];
            let own = left.iter().take_while(|run| run.destination == destination);
            let (before, end) = (udp::taken(self.socket).0, self.at + own.count());
            while self.at < end.min(self.queue.count) {
                self.send(end);
            }
            let (after, size) = udp::taken(self.socket);
            let stays = after.saturating_sub(before);
            let now = Instant::now();
            self.queue.crowd.stays(destination, stays, size, now);
        }
    }

    /// Sends what one call takes of the runs before `end`, or finds what to do about the first.
    fn send(&mut self, end: usize) {
        let queue = &mut *self.queue;
        let runs = &queue.runs[self.at..end.min(queue.count)];
        match batch::send(self.messages, self.socket, &queue.arena, runs) {
            Ok(sent) => {
                // Zero cannot be; if it were, it must not loop for ever.
                let sent = sent.max(1);
                for run in runs.iter().take(sent) {
                    count_sent(self.refusals.stats, run);
                    queue.unasked += run.count;
                }
                self.at += sent;
            }
            Err(error) if udp::is_full(&error) => self.refused(),
            Err(error) => {
                let run = runs[0];
                self.at += 1;
                if run.count > 1 && batch::cannot_segment(&error) {
                    // A way out without checksum offload: nobody can cut there.
                    self.sockets.stop_segmenting();
                    let singles = (&queue.arena[..], run.singles());
                    let way = (&mut *self.messages, self.socket);
                    send_singly(way, singles, &mut self.refusals);
                } else {
                    self.refusals.refuse(&run, &error);
                }
            }
        }
    }

    /// The socket's buffer is full: drops what goes to who has most of what is left, or all of it.
    fn refused(&mut self) {
        let queue = &mut *self.queue;
        let left = &queue.runs[self.at..queue.count];
        if queue.crowd.refused(left, Instant::now()) {
            return queue.drop_suspects(self.at, self.refusals.stats);
        }
        let count = left.iter().map(|run| run.count as u64).sum();
        self.refusals.stats.drop_many(Reason::SendBufferFull, count);
        queue.count = self.at;
    }
}

fn count_sent(stats: &WorkerStats, run: &Run) {
    stats.datagrams_sent.add(run.count as u64);
    stats.datagram_bytes_sent.add(run.len as u64);
}

impl Refusals<'_> {
    fn refuse(&mut self, run: &Run, error: &std::io::Error) {
        let failure = udp::failure(error, run.datagram_len);
        let reason = match failure {
            None => Reason::SendBufferFull,
            Some(_) => Reason::SendRefused,
        };
        self.stats.drop_many(reason, run.count as u64);
        if let Some(failure) = failure {
            let failed = Failed {
                destination: run.destination,
                port: self.port,
                failure,
            };
            note(self.failures, failed);
        }
    }
}

fn note(failures: &mut Vec<Failed>, failed: Failed) {
    if failures.len() < FAILURES_MAX {
        failures.push(failed);
    }
}

/// Sends the datagrams of a run that cannot be sent as one.
fn send_singly(
    (messages, socket): (&mut Messages, &UdpSocket),
    (arena, singles): (&[u8], impl Iterator<Item = Run>),
    refusals: &mut Refusals<'_>,
) {
    for single in singles {
        match batch::send(messages, socket, arena, &[single]) {
            Ok(_) => count_sent(refusals.stats, &single),
            Err(error) => refusals.refuse(&single, &error),
        }
    }
}
