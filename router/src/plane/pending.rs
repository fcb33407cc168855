//! Frames that wait for a session or a path to their peer.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rmesh_wire::PeerId;

use crate::port::offload::Offload;

/// Frames that may wait for one peer (DESIGN D8).
pub(crate) const FRAMES_PER_PEER: usize = 64;
/// How long a frame may wait (DESIGN D8).
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);
/// Peers waited for at once.
const PEERS_MAX: usize = 1_024;
/// Bytes that may wait in all: room for the first window of some hundred connections.
const BYTES_MAX: usize = 4 << 20;
/// The control side is told of a wanted peer at most this often.
const WANT_EVERY: Duration = Duration::from_millis(200);

/// A frame that waits, and what it leaves to do.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Instant, Frame)>,
    asked: Option<Instant>,
}

/// What came of [`Pending::push`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Whether the frame waits now; otherwise it is dropped.
    pub(crate) queued: bool,
    /// Whether the control side is to be told.
    pub(crate) want: bool,
}

/// Bounded queues of waiting frames. Off the fast path: frames are copied to the heap.
#[derive(Default)]
pub(crate) struct Pending {
    queues: HashMap<PeerId, Queue>,
    bytes: usize,
}

impl Pending {
    /// Lets `frame` wait for `peer`.
    pub(crate) fn push(
        &mut self,
        peer: PeerId,
        (frame, offload): (&[u8], &Offload),
        now: Instant,
    ) -> Pushed {
        if !self.queues.contains_key(&peer) && self.queues.len() >= PEERS_MAX {
            return Pushed {
                queued: false,
                want: false,
            };
        }
        let queue = self.queues.entry(peer).or_default();
        let fits = self.bytes + frame.len() <= BYTES_MAX;
        let queued = fits && queue.frames.len() < FRAMES_PER_PEER;
        if queued {
            self.bytes += frame.len();
            let frame = Frame {
                bytes: frame.to_vec(),
                offload: *offload,
            };
            queue.frames.push_back((now, frame));
        }
        let due = |asked: Instant| now.saturating_duration_since(asked) >= WANT_EVERY;
        let want = queue.asked.is_none_or(due);
        if want {
            queue.asked = Some(now);
        }
        Pushed { queued, want }
    }

    /// Takes every frame that waits for a peer that is `ready`, in order.
    pub(crate) fn take_ready(&mut self, ready: impl Fn(PeerId) -> bool) -> Vec<(PeerId, Frame)> {
        let mut taken = Vec::new();
        self.queues.retain(|&peer, queue| {
            if !ready(peer) {
                return true;
            }
            taken.extend(queue.frames.drain(..).map(|(_, frame)| (peer, frame)));
            false
        });
        self.bytes -= taken
            .iter()
            .map(|(_, frame)| frame.bytes.len())
            .sum::<usize>();
        taken
    }

    /// Drops what waited too long and says how many frames that were.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let (mut expired, bytes) = (0, &mut self.bytes);
        let late = |since: Instant| now.saturating_duration_since(since) >= WAIT_MAX;
        self.queues.retain(|_, queue| {
            while let Some((_, frame)) = queue.frames.pop_front_if(|(since, _)| late(*since)) {
                *bytes -= frame.bytes.len();
                expired += 1;
            }
            !queue.frames.is_empty() || queue.asked.is_some_and(|asked| !late(asked))
        });
        expired
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 16]);

    fn push(pending: &mut Pending, peer: PeerId, frame: &[u8], now: Instant) -> Pushed {
        pending.push(peer, (frame, &Offload::default()), now)
    }

    #[test]
    fn a_bounded_number_waits_and_leaves_in_order() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let pushed: Vec<_> = (0..70u8)
            .map(|n| push(&mut pending, PEER, &[n], now))
            .collect();
        assert_eq!(pushed.iter().filter(|p| p.queued).count(), FRAMES_PER_PEER);
        assert_eq!(pushed.iter().filter(|p| p.want).count(), 1, "asked once");
        assert!(push(&mut pending, PEER, &[0], now + WANT_EVERY).want);
        assert!(pending.take_ready(|_| false).is_empty());
        let frames = pending.take_ready(|peer| peer == PEER);
        let numbers: Vec<_> = frames.iter().map(|(_, frame)| frame.bytes[0]).collect();
        assert_eq!(numbers, (0..64).collect::<Vec<_>>());
        assert!(pending.is_empty());
        assert_eq!(pending.bytes, 0);
    }

    #[test]
    fn nothing_waits_longer_than_a_second_or_beyond_the_total() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        assert!(push(&mut pending, PEER, &[0; 100], now).queued);
        assert_eq!(pending.expire(now + WAIT_MAX / 2), 0);
        assert_eq!(pending.expire(now + WAIT_MAX), 1);
        assert!(pending.is_empty());
        let big = vec![0; 60_000];
        let queued = (0..200u8)
            .filter(|n| push(&mut pending, PeerId([*n; 16]), &big, now).queued)
            .count();
        assert_eq!(queued, BYTES_MAX / 60_000);
        for n in 0..PEERS_MAX as u32 + 10 {
            let mut id = [0xff; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            push(&mut pending, PeerId(id), &[], now);
        }
        assert_eq!(pending.queues.len(), PEERS_MAX);
    }
}
