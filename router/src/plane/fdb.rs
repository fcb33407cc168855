//! MACs learned from traffic: the forwarding database of IEEE 802.1Q section 8.8.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rmesh_wire::{Mac, PeerId};

use super::api::LearnedMac;

/// MACs kept; beyond it new ones are not learned and their frames are flooded.
pub(crate) const LEARNED_MAX: usize = 16_384;
/// A MAC not heard for this long is forgotten (IEEE 802.1Q table 8-6).
pub(crate) const AGING: Duration = Duration::from_secs(300);

/// Where a learned MAC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind this host's own bridge.
    Local,
    /// Behind this peer.
    Remote(PeerId),
}

/// Learned MACs. Announced ones are the caller's to keep out.
#[derive(Default)]
pub(crate) struct Fdb {
    entries: HashMap<Mac, (Place, Instant)>,
}

impl Fdb {
    /// Notes that `mac` was heard at `place`; whoever was heard last has it.
    pub(crate) fn learn(&mut self, mac: Mac, place: Place, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&mac) {
            *entry = (place, now);
        } else if self.entries.len() < LEARNED_MAX {
            self.entries.insert(mac, (place, now));
        }
    }

    /// Where `mac` was heard last, unless that is too long ago.
    pub(crate) fn place(&self, mac: Mac, now: Instant) -> Option<Place> {
        let (place, heard) = self.entries.get(&mac)?;
        (now.saturating_duration_since(*heard) < AGING).then_some(*place)
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        let fresh = |heard: Instant| now.saturating_duration_since(heard) < AGING;
        self.entries.retain(|_, (_, heard)| fresh(*heard));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Everything, for people.
    pub(crate) fn list(&self, now: Instant) -> Vec<LearnedMac> {
        let entry = |(mac, (place, heard)): (&Mac, &(Place, Instant))| LearnedMac {
            mac: *mac,
            peer: match place {
                Place::Local => None,
                Place::Remote(peer) => Some(*peer),
            },
            age: now.saturating_duration_since(*heard),
        };
        self.entries.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_heard_wins_and_silence_is_forgotten() {
        let (mac, peer, start) = (Mac([2; 6]), PeerId([1; 16]), Instant::now());
        let mut fdb = Fdb::default();
        fdb.learn(mac, Place::Remote(peer), start);
        fdb.learn(mac, Place::Local, start);
        assert_eq!(fdb.place(mac, start), Some(Place::Local));
        fdb.learn(mac, Place::Remote(peer), start);
        assert_eq!(fdb.place(mac, start), Some(Place::Remote(peer)));
        assert_eq!(fdb.list(start)[0].peer, Some(peer));
        assert_eq!(fdb.place(mac, start + AGING), None);
        fdb.expire(start + AGING);
        assert_eq!(fdb.len(), 0);
    }

    #[test]
    fn a_scan_of_macs_does_not_grow_it_without_bound() {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        for number in 0..LEARNED_MAX as u32 + 100 {
            let [a, b, c, d] = number.to_be_bytes();
            fdb.learn(Mac([2, 0, a, b, c, d]), Place::Local, now);
        }
        assert_eq!(fdb.len(), LEARNED_MAX);
    }
}
