//! Sealed datagrams collected for one system call a socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rmesh_gossip::SendFailure;

use super::buffer::{BATCH_LEN, Buffer};
use super::sockets::Sockets;
use super::stats::{Reason, WorkerStats};
use crate::sys::udp;

/// Failures remembered between two visits of the worker; more in one batch are only counted.
const FAILURES_MAX: usize = BATCH_LEN;

struct Queue {
    buffers: Vec<Buffer>,
    destinations: [SocketAddr; BATCH_LEN],
    used: usize,
}

/// One queue a socket.
pub(crate) struct Outbox {
    sockets: Arc<Sockets>,
    queues: Vec<Queue>,
    stats: Arc<WorkerStats>,
    failures: Vec<(SocketAddr, SendFailure)>,
}

impl Outbox {
    pub(crate) fn new(sockets: Arc<Sockets>, stats: Arc<WorkerStats>) -> Self {
        let queue = |_| Queue {
            buffers: Buffer::many(BATCH_LEN),
            destinations: [SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0); BATCH_LEN],
            used: 0,
        };
        Outbox {
            queues: sockets.sealed().iter().map(queue).collect(),
            sockets,
            stats,
            failures: Vec::with_capacity(FAILURES_MAX),
        }
    }

    /// Takes the datagram in `buffer`, giving a used one back, and sends if the queue is full.
    pub(crate) fn push(&mut self, buffer: &mut Buffer, destination: SocketAddr) {
        let number = self.sockets.number_for(destination);
        let Some((number, queue)) = number.and_then(|n| Some((n, self.queues.get_mut(n)?))) else {
            self.stats.drop_one(Reason::SendRefused);
            self.fail(destination, SendFailure::Unreachable);
            return;
        };
        if let Some(slot) = queue.buffers.get_mut(queue.used) {
            std::mem::swap(slot, buffer);
            queue.destinations[queue.used] = destination;
            queue.used += 1;
        }
        if queue.used == BATCH_LEN {
            self.flush_one(number);
        }
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self) {
        for number in 0..self.queues.len() {
            self.flush_one(number);
        }
    }

    fn flush_one(&mut self, number: usize) {
        let sockets = Arc::clone(&self.sockets);
        let (Some(queue), Some(socket)) =
            (self.queues.get_mut(number), sockets.sealed().get(number))
        else {
            return;
        };
        let mut at = 0;
        let mut refused = Vec::new();
        while at < queue.used {
            let buffers = &queue.buffers[at..queue.used];
            let destinations = &queue.destinations[at..queue.used];
            match udp::send(socket, buffers, destinations) {
                Ok(sent) => {
                    // Zero cannot be; if it were, it must not loop for ever.
                    let sent = sent.max(1);
                    self.stats.datagrams_sent.add(sent as u64);
                    let bytes = buffers.iter().take(sent).map(|b| b.data().len() as u64);
                    self.stats.datagram_bytes_sent.add(bytes.sum());
                    at += sent;
                }
                Err(error) => {
                    refused.push((queue.destinations[at], udp::failure(&error)));
                    at += 1;
                }
            }
        }
        queue.used = 0;
        for (destination, failure) in refused {
            self.refuse(destination, failure);
        }
    }

    fn refuse(&mut self, destination: SocketAddr, failure: Option<SendFailure>) {
        match failure {
            None => self.stats.drop_one(Reason::SendBufferFull),
            Some(failure) => {
                self.stats.drop_one(Reason::SendRefused);
                self.fail(destination, failure);
            }
        }
    }

    fn fail(&mut self, destination: SocketAddr, failure: SendFailure) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push((destination, failure));
        }
    }

    /// The next failure to be told to the control side.
    pub(crate) fn pop_failure(&mut self) -> Option<(SocketAddr, SendFailure)> {
        self.failures.pop()
    }
}
