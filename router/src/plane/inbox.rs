//! The bounded way from a worker to the control side. Nothing here ever waits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmesh_gossip::SendFailure;
use rmesh_wire::PeerId;
use tokio::sync::mpsc;

use super::api::Inbound;
use super::outbox::Failed;
use super::stats::{Reason, WorkerStats};

/// A failing destination is reported at most this often.
const FAILURE_EVERY: Duration = Duration::from_millis(100);
/// Failing destinations told apart.
const FAILURES_MAX: usize = 256;

/// Longest datagram the control side has, in bytes: a probe that fills the longest packet that
/// paths are searched for.
pub(crate) const LEN_MAX: usize = 9_216;
/// Longest one that is no such probe, in bytes. Others may use one half of the queue only, and
/// strangers have none: they could fill it with datagrams of 64 KiB.
pub(crate) const SHORT_LEN_MAX: usize = 2_048;

/// A worker's end of the queue.
pub(crate) struct Inbox {
    sender: mpsc::Sender<Inbound>,
    stats: Arc<WorkerStats>,
    /// When it was last reported, by destination and source port.
    failures: HashMap<(SocketAddr, usize), Instant>,
    /// What strangers sent in the batch at hand.
    strangers: Vec<(SocketAddr, Vec<u8>)>,
}

impl Inbox {
    pub(crate) fn new(sender: mpsc::Sender<Inbound>, stats: Arc<WorkerStats>) -> Self {
        Inbox {
            sender,
            stats,
            failures: HashMap::new(),
            strangers: Vec::new(),
        }
    }

    /// Takes a copy only if it can be of use.
    fn put_bytes(&self, bytes: &[u8], message: impl FnOnce(Vec<u8>) -> Inbound) {
        if bytes.len() > LEN_MAX {
            return self.stats.drop_one(Reason::Malformed);
        }
        if bytes.len() > SHORT_LEN_MAX && self.is_half_full() {
            return self.stats.drop_one(Reason::InboxFull);
        }
        self.put(|| message(bytes.to_vec()));
    }

    /// Makes the message only if there is room for it.
    fn put(&self, message: impl FnOnce() -> Inbound) {
        match self.sender.try_reserve() {
            Ok(permit) => permit.send(message()),
            Err(_) => self.stats.drop_one(Reason::InboxFull),
        }
    }

    pub(crate) fn datagram(&self, source: SocketAddr, datagram: &[u8]) {
        self.put_bytes(datagram, |bytes| Inbound::Datagram { source, bytes });
    }

    /// A datagram anybody could have sent: it may use one half of the queue only, so that the
    /// peers' own always find room. It waits for [`Inbox::hand_on_strangers`].
    pub(crate) fn stranger(&mut self, source: SocketAddr, datagram: &[u8]) {
        if datagram.len() > SHORT_LEN_MAX {
            return self.stats.drop_one(Reason::Malformed);
        }
        if self.is_half_full() {
            return self.stats.drop_one(Reason::InboxFull);
        }
        self.strangers.push((source, datagram.to_vec()));
    }

    /// Hands on what strangers sent in one batch, at once: the control side is woken once, and not
    /// by each of them.
    pub(crate) fn hand_on_strangers(&mut self) {
        if self.strangers.is_empty() {
            return;
        }
        match self.sender.try_reserve_many(self.strangers.len()) {
            Ok(permits) => {
                let waiting = self.strangers.drain(..);
                for (permit, (source, bytes)) in permits.zip(waiting) {
                    permit.send(Inbound::Datagram { source, bytes });
                }
            }
            Err(_) => {
                let dropped = self.strangers.drain(..).count();
                self.stats.drop_many(Reason::InboxFull, dropped as u64);
            }
        }
    }

    fn is_half_full(&self) -> bool {
        let free = self.sender.capacity().saturating_sub(self.strangers.len());
        free <= self.sender.max_capacity() / 2
    }

    pub(crate) fn relayed(&self, neighbour: PeerId, inner: &[u8]) {
        self.put_bytes(inner, |inner| Inbound::Relayed { neighbour, inner });
    }

    pub(crate) fn want(&self, peer: PeerId) {
        self.put(|| Inbound::Want(peer));
    }

    /// Frames move again; false if there is no room to say so.
    pub(crate) fn traffic(&self) -> bool {
        let permit = self.sender.try_reserve();
        permit.map(|permit| permit.send(Inbound::Traffic)).is_ok()
    }

    pub(crate) fn second_way(&self, peer: PeerId, suppressed: bool) {
        self.put(|| Inbound::SecondWay { peer, suppressed });
    }

    pub(crate) fn send_failed(&mut self, failed: Failed, now: Instant) {
        let Failed {
            destination,
            port,
            failure,
        } = failed;
        let key = (destination, port);
        let lately = |last: &Instant| now.saturating_duration_since(*last) < FAILURE_EVERY;
        if self.failures.get(&key).is_some_and(lately) {
            return;
        }
        if self.failures.len() >= FAILURES_MAX {
            self.failures.retain(|_, last| lately(last));
        }
        if self.failures.len() < FAILURES_MAX {
            self.failures.insert(key, now);
            self.put(|| match (port, failure) {
                (1.., SendFailure::Unreachable) => Inbound::PortRefused { destination, port },
                _ => Inbound::SendFailed {
                    destination,
                    failure,
                },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_peer_sends_is_not_kept() {
        let (sender, mut receiver) = mpsc::channel(2);
        let stats = Arc::new(WorkerStats::default());
        let (mut inbox, from) = (
            Inbox::new(sender, Arc::clone(&stats)),
            "192.0.2.1:1".parse().unwrap(),
        );
        inbox.stranger(from, &[0; SHORT_LEN_MAX + 1]);
        inbox.datagram(from, &[0; LEN_MAX + 1]);
        inbox.relayed(PeerId([1; 16]), &[0; LEN_MAX + 1]);
        assert!(receiver.try_recv().is_err());
        inbox.datagram(from, &[0; LEN_MAX]);
        assert!(receiver.try_recv().is_ok());
        let mut counters = crate::PlaneCounters::default();
        stats.add_to(&mut counters);
        assert_eq!(counters.drops["malformed_datagram"], 3);
    }

    #[test]
    fn strangers_leave_half_of_the_queue_to_peers() {
        let (sender, mut receiver) = mpsc::channel(8);
        let mut inbox = Inbox::new(sender, Arc::default());
        let from = "192.0.2.1:1".parse().unwrap();
        for _ in 0..8 {
            inbox.stranger(from, &[1]);
        }
        assert_eq!(receiver.len(), 0, "they wait for the end of the batch");
        inbox.hand_on_strangers();
        assert_eq!(receiver.len(), 4);
        inbox.datagram(from, &[2; LEN_MAX]);
        assert_eq!(receiver.len(), 4, "long ones leave it too");
        inbox.datagram(from, &[2]);
        assert_eq!(receiver.len(), 5);
        assert!(receiver.try_recv().is_ok());
    }

    #[test]
    fn a_full_queue_is_counted_and_failures_are_reported_sparingly() {
        let (sender, mut receiver) = mpsc::channel(2);
        let stats = Arc::new(WorkerStats::default());
        let mut inbox = Inbox::new(sender, Arc::clone(&stats));
        let (to, now) = ("192.0.2.1:1".parse().unwrap(), Instant::now());
        for _ in 0..5 {
            let failed = Failed {
                destination: to,
                port: 0,
                failure: SendFailure::TooBig { len: 1 },
            };
            inbox.send_failed(failed, now);
        }
        inbox.want(PeerId([1; 16]));
        inbox.want(PeerId([2; 16]));
        assert!(matches!(
            receiver.try_recv(),
            Ok(Inbound::SendFailed {
                failure: SendFailure::TooBig { .. },
                ..
            })
        ));
        assert_eq!(receiver.try_recv(), Ok(Inbound::Want(PeerId([1; 16]))));
        assert!(receiver.try_recv().is_err());
        let mut counters = crate::PlaneCounters::default();
        stats.add_to(&mut counters);
        assert_eq!(counters.drops["inbox_full"], 1);
    }
}
