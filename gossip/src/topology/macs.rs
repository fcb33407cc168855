//! Who has which MAC, by announcement (DESIGN D7).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use rmesh_wire::{Instant, Mac, PeerId};

use crate::limits::{MOVE_WINDOW, MOVES_MAX};

/// What one peer announces: MACs and their move counters.
pub(crate) type Announced = Vec<(Mac, u32)>;

/// The announcement that wins a MAC.
#[derive(Debug, Clone, Copy)]
struct Winner {
    peer: PeerId,
    moves: u32,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    peer: PeerId,
    /// Highest move counter seen: a move is an announcement above it. That a place is lost from
    /// sight and comes back is none.
    highest: u32,
    window_start: Instant,
    moved: u32,
    frozen_until: Option<Instant>,
}

/// The MAC table. Its size is bounded by that of the records it is made from.
#[derive(Debug, Default)]
pub(crate) struct Macs {
    places: BTreeMap<Mac, Place>,
    /// All announcements in force.
    by_mac: BTreeMap<Mac, Vec<(PeerId, u32)>>,
    by_peer: BTreeMap<PeerId, Announced>,
    /// MACs to be looked at by [`Macs::settle`].
    touched: BTreeSet<Mac>,
    frozen: BTreeSet<Mac>,
}

impl Macs {
    /// What `peer` announces from now on as far as it is in force; counts from [`Macs::settle`] on.
    pub(crate) fn announce(&mut self, peer: PeerId, mut announced: Announced) {
        announced.sort_unstable();
        announced.reverse();
        // Of one MAC announced twice the higher counter stays.
        announced.dedup_by_key(|(mac, _)| *mac);
        let known = self.by_peer.get(&peer).map_or(&[][..], Vec::as_slice);
        if known == announced {
            return;
        }
        let before = self.by_peer.remove(&peer).unwrap_or_default();
        for (mac, _) in before {
            if let Some(holders) = self.by_mac.get_mut(&mac) {
                holders.retain(|(holder, _)| *holder != peer);
                if holders.is_empty() {
                    self.by_mac.remove(&mac);
                }
            }
            self.touched.insert(mac);
        }
        for (mac, moves) in &announced {
            self.by_mac.entry(*mac).or_default().push((peer, *moves));
            self.touched.insert(*mac);
        }
        if !announced.is_empty() {
            self.by_peer.insert(peer, announced);
        }
    }

    /// Brings the table up to date with what was announced. The highest move counter wins, ties go
    /// to the smaller peer id. A MAC that moves five times in 180 s stays where it is until the
    /// window has passed (RFC 7432 section 15.1); those that just froze are returned.
    pub(crate) fn settle(&mut self, now: Instant) -> Vec<(Mac, PeerId)> {
        let thawed = self.frozen.iter().filter(|mac| {
            let place = self.places.get(mac);
            let until = place.and_then(|place| place.frozen_until);
            until.is_none_or(|until| until <= now)
        });
        let mut touched = core::mem::take(&mut self.touched);
        touched.extend(thawed.copied());
        let mut frozen = Vec::new();
        for mac in touched {
            frozen.extend(self.settle_one(mac, now).map(|peer| (mac, peer)));
        }
        frozen
    }

    fn settle_one(&mut self, mac: Mac, now: Instant) -> Option<PeerId> {
        self.frozen.remove(&mac);
        let Some((holders, winner)) = self.by_mac.get(&mac).and_then(|h| Some((h, winner(h)?)))
        else {
            self.places.remove(&mac);
            return None;
        };
        let new = Place {
            peer: winner.peer,
            highest: winner.moves,
            window_start: now,
            moved: 0,
            frozen_until: None,
        };
        let place = self.places.entry(mac).or_insert(new);
        let holds = holders.iter().any(|(peer, _)| *peer == place.peer);
        let freezes = place.settle(winner, holds, now);
        if place.frozen_until.is_some() {
            self.frozen.insert(mac);
        }
        freezes.then_some(place.peer)
    }

    /// The peer in force for a MAC.
    #[cfg(test)]
    pub(crate) fn get(&self, mac: &Mac) -> Option<PeerId> {
        self.places.get(mac).map(|place| place.peer)
    }

    /// When the next frozen MAC may move again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let frozen = self.frozen.iter().filter_map(|mac| self.places.get(mac));
        frozen.filter_map(|place| place.frozen_until).min()
    }

    /// The peer in force for every announced MAC.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Mac, PeerId)> {
        self.places.iter().map(|(mac, place)| (*mac, place.peer))
    }
}

fn winner(holders: &[(PeerId, u32)]) -> Option<Winner> {
    let best = holders
        .iter()
        .min_by_key(|(peer, moves)| (Reverse(*moves), *peer));
    best.map(|(peer, moves)| Winner {
        peer: *peer,
        moves: *moves,
    })
}

impl Place {
    /// Moves to the place announced unless frozen; returns whether it froze just now. A frozen MAC
    /// moves all the same once the peer it is frozen at no longer announces it.
    fn settle(&mut self, to: Winner, still_announced: bool, now: Instant) -> bool {
        self.frozen_until = self.frozen_until.filter(|until| now < *until);
        let is_move = to.moves > self.highest;
        self.highest = self.highest.max(to.moves);
        if self.peer == to.peer {
            return false;
        }
        if self.frozen_until.is_some() && still_announced {
            return false;
        }
        if now.since(self.window_start) >= MOVE_WINDOW {
            *self = Place {
                window_start: now,
                moved: 0,
                frozen_until: None,
                ..*self
            };
        }
        self.peer = to.peer;
        self.moved += u32::from(is_move);
        let freezes = self.moved >= MOVES_MAX && self.frozen_until.is_none();
        if freezes {
            self.frozen_until = Some(self.window_start + MOVE_WINDOW);
        }
        freezes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const A: PeerId = PeerId([1; 16]);
    const B: PeerId = PeerId([2; 16]);

    fn says(peer: PeerId, moves: u32) -> (PeerId, u32) {
        (peer, moves)
    }

    impl Macs {
        /// Everybody says what is announced now.
        fn refresh(
            &mut self,
            announced: impl Iterator<Item = (PeerId, u32)>,
            now: Instant,
        ) -> Vec<(Mac, PeerId)> {
            let announced: Vec<_> = announced.collect();
            for peer in [A, B] {
                let own = announced.iter().filter(|(of, _)| *of == peer);
                self.announce(peer, own.map(|(_, moves)| (MAC, *moves)).collect());
            }
            self.settle(now)
        }
    }

    #[test]
    fn the_higher_move_counter_wins_and_ties_go_to_the_smaller_id() {
        let mut macs = Macs::default();
        macs.refresh([says(B, 0), says(A, 0)].into_iter(), Instant::ZERO);
        assert_eq!(macs.get(&MAC), Some(A));
        macs.refresh([says(A, 0), says(B, 1)].into_iter(), Instant::ZERO);
        assert_eq!(macs.get(&MAC), Some(B));
        macs.refresh([].into_iter(), Instant::ZERO);
        assert_eq!(macs.get(&MAC), None);
    }

    #[test]
    fn a_mac_that_flaps_is_frozen_until_the_window_has_passed() {
        let mut macs = Macs::default();
        let mut frozen = Vec::new();
        for moves in 0..12 {
            let (new, old) = if moves % 2 == 0 { (A, B) } else { (B, A) };
            let now = Instant::ZERO + Duration::from_secs(moves.into());
            let both = [says(new, moves), says(old, moves.saturating_sub(1))];
            frozen.extend(macs.refresh(both.into_iter(), now));
        }
        assert_eq!(
            frozen,
            [(MAC, B)],
            "five moves after the first place, reported once"
        );
        assert_eq!(macs.get(&MAC), Some(B));
        let later = Instant::ZERO + MOVE_WINDOW + Duration::from_secs(1);
        macs.refresh([says(A, 20), says(B, 19)].into_iter(), later);
        assert_eq!(macs.get(&MAC), Some(A));
    }

    #[test]
    fn a_host_that_comes_and_goes_from_sight_does_not_freeze_what_moved_to_it() {
        let mut macs = Macs::default();
        // The container moved from A, which still announces it, to B; B's link flaps.
        for second in 0..20 {
            let now = Instant::ZERO + Duration::from_secs(second);
            let both = [says(A, 0), says(B, 1)];
            let seen = both.into_iter().take(if second % 2 == 0 { 2 } else { 1 });
            assert!(macs.refresh(seen, now).is_empty());
            let expected = if second % 2 == 0 { B } else { A };
            assert_eq!(macs.get(&MAC), Some(expected));
        }
    }
}
