//! MACs learned from traffic: the forwarding database of IEEE 802.1Q section 8.8.

use foldhash::HashMap;
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

/// How often other workers are told that a MAC is still heard.
const TELL_EVERY: Duration = Duration::from_secs(75);

struct Entry {
    place: Place,
    heard: Instant,
    /// When other workers were told of it, or told of it.
    told: Instant,
}

/// One worker's learned MACs. Announced ones are the caller's to keep out.
#[derive(Default)]
pub(crate) struct Fdb {
    entries: HashMap<Mac, Entry>,
}

impl Fdb {
    /// Notes that `mac` was heard at `place`; whoever was heard last has it. Gives whether the other
    /// workers are to be told.
    pub(crate) fn learn(&mut self, mac: Mac, place: Place, now: Instant) -> bool {
        match self.entries.get_mut(&mac) {
            Some(entry) => {
                let long_ago = now.saturating_duration_since(entry.told) >= TELL_EVERY;
                let is_news = entry.place != place || long_ago;
                (entry.place, entry.heard) = (place, now);
                if is_news {
                    entry.told = now;
                }
                is_news
            }
            None => self.insert(mac, place, now),
        }
    }

    /// Notes what another worker tells.
    pub(crate) fn hear(&mut self, mac: Mac, place: Place, now: Instant) {
        match self.entries.get_mut(&mac) {
            Some(entry) => (entry.place, entry.heard, entry.told) = (place, now, now),
            None => {
                self.insert(mac, place, now);
            }
        }
    }

    fn insert(&mut self, mac: Mac, place: Place, now: Instant) -> bool {
        let has_room = self.entries.len() < LEARNED_MAX;
        if has_room {
            let (heard, told) = (now, now);
            self.entries.insert(mac, Entry { place, heard, told });
        }
        has_room
    }

    /// Where `mac` was heard last, unless that is too long ago.
    pub(crate) fn place(&self, mac: Mac, now: Instant) -> Option<Place> {
        let entry = self.entries.get(&mac)?;
        (now.saturating_duration_since(entry.heard) < AGING).then_some(entry.place)
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        let fresh = |heard: Instant| now.saturating_duration_since(heard) < AGING;
        self.entries.retain(|_, entry| fresh(entry.heard));
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Everything, for people.
    pub(crate) fn list(&self, now: Instant) -> Vec<LearnedMac> {
        let entry = |(mac, entry): (&Mac, &Entry)| LearnedMac {
            mac: *mac,
            peer: match &entry.place {
                Place::Local => None,
                Place::Remote(peer) => Some(*peer),
            },
            age: now.saturating_duration_since(entry.heard),
        };
        self.entries.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_what_is_new_and_from_time_to_time_what_is_not() {
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let there = Place::Remote(PeerId([1; 16]));
        assert!(fdb.learn(mac, Place::Local, now));
        assert!(!fdb.learn(mac, Place::Local, now));
        assert!(fdb.learn(mac, there, now), "moved");
        let later = now + TELL_EVERY;
        assert!(fdb.learn(mac, there, later), "still there");
        assert!(!fdb.learn(mac, there, later));
        fdb.hear(mac, Place::Local, later);
        assert_eq!(fdb.place(mac, later), Some(Place::Local));
        assert!(!fdb.learn(mac, Place::Local, later), "they know");
    }

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
