//! Handshakes under way, in both roles: how many there may be, and how long.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use rmesh_wire::Instant;

use super::dial::Goal;
use super::guard::Standing;
use crate::crypto::Handshake;
use crate::limits::{HALF_OPEN_MAX, HALF_OPEN_PER_STANDING_MAX, HALF_OPEN_TIMEOUT};

/// A handshake that is under way.
pub(crate) struct HalfOpen {
    pub(super) state: Box<dyn Handshake>,
    pub(super) created: Instant,
    /// What this side sent last; sent again when the other side repeats itself.
    pub(super) message: Vec<u8>,
    /// As initiator: what it is for.
    pub(super) goal: Option<Goal>,
    /// As responder: who began it.
    pub(super) remote: Option<Remote>,
    /// How often this side may still say its message again when the other asks for it.
    pub(super) answers_left: u8,
}

/// The one who began a handshake.
#[derive(Clone, Copy)]
pub(super) struct Remote {
    pub(super) index: u32,
    /// The ephemeral key of its first message.
    pub(super) ephemeral: [u8; 32],
    pub(super) standing: Standing,
}

/// All handshakes under way, by local index.
#[derive(Default)]
pub(crate) struct HalfOpens {
    pub(super) by_index: BTreeMap<u32, HalfOpen>,
    pub(super) by_ephemeral: BTreeMap<[u8; 32], u32>,
    /// How many others began, by their standing.
    taken: [usize; 3],
    /// All, the oldest first.
    by_age: BTreeSet<(Instant, u32)>,
}

impl HalfOpens {
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.by_index.contains_key(&index)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_index.len()
    }

    pub(super) fn insert(&mut self, index: u32, half_open: HalfOpen) {
        if let Some(remote) = half_open.remote {
            self.by_ephemeral.insert(remote.ephemeral, index);
            self.taken[remote.standing as usize] += 1;
        }
        self.by_age.insert((half_open.created, index));
        self.by_index.insert(index, half_open);
    }

    /// Whether one more can be taken from somebody of this standing.
    pub(super) fn has_room_for(&self, standing: Standing) -> bool {
        self.taken[standing as usize] < HALF_OPEN_PER_STANDING_MAX
            && self.by_index.len() < HALF_OPEN_MAX
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<HalfOpen> {
        let half_open = self.by_index.remove(&index)?;
        self.by_age.remove(&(half_open.created, index));
        if let Some(remote) = half_open.remote {
            self.by_ephemeral.remove(&remote.ephemeral);
            self.taken[remote.standing as usize] -= 1;
        }
        Some(half_open)
    }

    /// Forgets the ones that took too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |created: Instant| now.since(created) >= HALF_OPEN_TIMEOUT;
        let gone = self.by_age.iter().take_while(|(created, _)| late(*created));
        for index in gone.map(|(_, index)| *index).collect::<Vec<_>>() {
            self.remove(index);
        }
    }

    /// When the next one takes too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let oldest = self.by_age.first();
        oldest.map(|(created, _)| *created + HALF_OPEN_TIMEOUT)
    }

    /// The first message of a handshake this side opened, if it is young enough to be repeated.
    pub(crate) fn message(&self, index: u32, now: Instant) -> Option<Vec<u8>> {
        let half = self.by_index.get(&index)?;
        (now.since(half.created) < HALF_OPEN_TIMEOUT * 4 / 5).then(|| half.message.clone())
    }
}
