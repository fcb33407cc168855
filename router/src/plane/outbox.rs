//! Sealed datagrams collected for one system call a socket.
//!
//! They are sealed where they are sent from, one behind the other. Those of one length to one
//! destination are a run, which the kernel cuts again (`UDP_SEGMENT`): it goes through the
//! network's layers once and not once a datagram.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use rmesh_gossip::SendFailure;

use super::buffer::BATCH_LEN;
use super::sockets::Sockets;
use super::stats::{Reason, WorkerStats};
use crate::sys::batch::{self, Messages, Run};
use crate::sys::udp;

/// Bytes collected for one socket, at most: what stays in a core's second cache.
const ARENA_LEN: usize = 256 << 10;
/// Failures remembered between two visits of the worker; more in one batch are only counted.
const FAILURES_MAX: usize = BATCH_LEN;

struct Queue {
    arena: Box<[u8]>,
    used: usize,
    runs: [Run; BATCH_LEN],
    count: usize,
}

/// One queue a socket.
pub(crate) struct Outbox {
    worker: usize,
    sockets: Arc<Sockets>,
    queues: Vec<Queue>,
    stats: Arc<WorkerStats>,
    failures: Vec<(SocketAddr, SendFailure)>,
    messages: Messages,
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
        };
        Outbox {
            worker,
            queues: sockets.sealed(worker).iter().map(queue).collect(),
            sockets,
            stats,
            failures: Vec::with_capacity(FAILURES_MAX),
            messages: Messages::default(),
        }
    }

    /// Lets `make` fill a datagram of `len` bytes for a destination, with a traffic class, and queues it, unless `make`
    /// fails. Sends what waits if there is no room.
    pub(crate) fn push(
        &mut self,
        (destination, class): (SocketAddr, u8),
        len: usize,
        make: impl FnOnce(&mut [u8]) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let Some(number) = self.sockets.number_for(destination) else {
            self.fail(destination, SendFailure::Unreachable);
            return Err(Reason::SendRefused);
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
        let sockets = Arc::clone(&self.sockets);
        let socket = sockets.sealed(self.worker).get(number);
        let (Some(queue), Some(socket)) = (self.queues.get_mut(number), socket) else {
            return;
        };
        let (failures, stats) = (&mut self.failures, &self.stats);
        let messages = &mut self.messages;
        let mut at = 0;
        while at < queue.count {
            let runs = &queue.runs[at..queue.count];
            match batch::send(messages, socket, &queue.arena, runs) {
                Ok(sent) => {
                    // Zero cannot be; if it were, it must not loop for ever.
                    let sent = sent.max(1);
                    runs.iter()
                        .take(sent)
                        .for_each(|run| count_sent(stats, run));
                    at += sent;
                }
                Err(error) => {
                    let run = runs[0];
                    at += 1;
                    if run.count > 1 && batch::cannot_segment(&error) {
                        // A way out without checksum offload: nobody can cut there.
                        sockets.stop_segmenting();
                        let singles = (&queue.arena[..], run.singles());
                        send_singly((messages, socket), singles, stats, failures);
                    } else {
                        refuse(stats, failures, &run, &error);
                    }
                }
            }
        }
        (queue.used, queue.count) = (0, 0);
    }

    fn fail(&mut self, destination: SocketAddr, failure: SendFailure) {
        note(&mut self.failures, destination, failure);
    }

    /// The next failure to be told to the control side.
    pub(crate) fn pop_failure(&mut self) -> Option<(SocketAddr, SendFailure)> {
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
}

fn count_sent(stats: &WorkerStats, run: &Run) {
    stats.datagrams_sent.add(run.count as u64);
    stats.datagram_bytes_sent.add(run.len as u64);
}

fn refuse(
    stats: &WorkerStats,
    failures: &mut Vec<(SocketAddr, SendFailure)>,
    run: &Run,
    error: &std::io::Error,
) {
    let failure = udp::failure(error, run.datagram_len);
    let reason = match failure {
        None => Reason::SendBufferFull,
        Some(_) => Reason::SendRefused,
    };
    stats.drop_many(reason, run.count as u64);
    if let Some(failure) = failure {
        note(failures, run.destination, failure);
    }
}

fn note(
    failures: &mut Vec<(SocketAddr, SendFailure)>,
    destination: SocketAddr,
    failure: SendFailure,
) {
    if failures.len() < FAILURES_MAX {
        failures.push((destination, failure));
    }
}

/// Sends the datagrams of a run that cannot be sent as one.
fn send_singly(
    (messages, socket): (&mut Messages, &UdpSocket),
    (arena, singles): (&[u8], impl Iterator<Item = Run>),
    stats: &WorkerStats,
    failures: &mut Vec<(SocketAddr, SendFailure)>,
) {
    for single in singles {
        match batch::send(messages, socket, arena, &[single]) {
            Ok(_) => count_sent(stats, &single),
            Err(error) => refuse(stats, failures, &single, &error),
        }
    }
}
