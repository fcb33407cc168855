//! Who has which MAC, by announcement (DESIGN D7).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use rmesh_wire::{Instant, Mac, PeerId};

use crate::limits::{MOVE_WINDOW, MOVES_MAX};

/// One announcement of a MAC by a reachable peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) mac: Mac,
    pub(crate) peer: PeerId,
    pub(crate) moves: u32,
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
pub(crate) struct Macs(BTreeMap<Mac, Place>);

impl Macs {
    /// Brings the table up to date with all announcements in force. The highest move counter
    /// wins, ties go to the smaller peer id. A MAC that moves five times in 180 s stays where it
    /// is until the window has passed (RFC 7432 section 15.1); those that just froze are returned.
    pub(crate) fn refresh(
        &mut self,
        announcements: impl Iterator<Item = Announcement>,
        now: Instant,
    ) -> Vec<(Mac, PeerId)> {
        let mut best: BTreeMap<Mac, Announcement> = BTreeMap::new();
        let mut holders: Vec<(Mac, PeerId)> = Vec::new();
        for new in announcements {
            holders.push((new.mac, new.peer));
            let kept = best.entry(new.mac).or_insert(new);
            let wins = new.moves > kept.moves || (new.moves == kept.moves && new.peer < kept.peer);
            if wins {
                *kept = new;
            }
        }
        self.0.retain(|mac, _| best.contains_key(mac));
        holders.sort_unstable();
        let mut frozen = Vec::new();
        for (mac, announcement) in best {
            let new = Place {
                peer: announcement.peer,
                highest: announcement.moves,
                window_start: now,
                moved: 0,
                frozen_until: None,
            };
            let place = self.0.entry(mac).or_insert(new);
            let holds = holders.binary_search(&(mac, place.peer)).is_ok();
            if place.settle(announcement, holds, now) {
                frozen.push((mac, place.peer));
            }
        }
        frozen
    }

    /// The peer in force for a MAC.
    #[cfg(test)]
    pub(crate) fn get(&self, mac: &Mac) -> Option<PeerId> {
        self.0.get(mac).map(|place| place.peer)
    }

    /// When the next frozen MAC may move again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|place| place.frozen_until).min()
    }

    /// The peer in force for every announced MAC.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Mac, PeerId)> {
        self.0.iter().map(|(mac, place)| (*mac, place.peer))
    }
}

impl Place {
    /// Moves to the place announced unless frozen; returns whether it froze just now. A frozen MAC
    /// moves all the same once the peer it is frozen at no longer announces it.
    fn settle(&mut self, to: Announcement, still_announced: bool, now: Instant) -> bool {
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

    fn says(peer: PeerId, moves: u32) -> Announcement {
        Announcement {
            mac: MAC,
            peer,
            moves,
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
