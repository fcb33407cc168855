//! What an operator looks at when something is wrong with the ring.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::address::{Range, address};
use crate::limits::HOLD_MAX;
use crate::outlook::{Held, OtherRing, Outlook, PoolUse, RESTING_SHOWN_MAX};
use crate::resting::REST;
use crate::setup::RingId;

impl Node {
    /// Everything there is to know of the ring beyond [`Node::report`], and who owns these addresses.
    pub fn outlook(&self, addresses: &[IpAddr], now: Instant) -> Outlook {
        let space = &self.ledger.space;
        let pools = self.pools().into_iter();
        let holds = space.held().map(|(range, hold)| Held {
            range,
            peer: hold.peer,
            left: HOLD_MAX.saturating_sub(now.since(hold.since)),
            since: (hold.since > self.started).then(|| now.since(hold.since)),
        });
        let given = self.given.iter();
        let removed = self.ledger.removed.iter();
        let others = self.adoption.rings();
        Outlook {
            pools: pools.map(|pool| self.pool_use(pool, now)).collect(),
            holds: holds.collect(),
            given: given
                .map(|(at, since)| (address(*at), now.since(*since)))
                .collect(),
            resting: self.resting(now),
            removed: removed
                .map(|(owner, (name, _))| (owner.peer, name.clone()))
                .collect(),
            others: others.map(|ring| self.other_ring(ring)).collect(),
            disputed: self.disputes.ranges().collect(),
            owners: addresses.iter().map(|ip| self.owner_of(*ip)).collect(),
        }
    }

    /// What was freed less than [`REST`] ago, the last freed first.
    fn resting(&self, now: Instant) -> Vec<(IpAddr, Duration)> {
        let resting = self.ledger.space.resting_since();
        let young = resting
            .rev()
            .map(|(since, at)| (address(at), now.since(since)))
            .take_while(|(_, ago)| *ago < REST);
        young.take(RESTING_SHOWN_MAX).collect()
    }

    fn pool_use(&self, range: Range, now: Instant) -> PoolUse {
        PoolUse {
            range,
            counts: self.ledger.space.counts(range, now),
            owners: self.ledger.ring.sizes(range),
        }
    }

    fn other_ring(&self, ring: RingId) -> OtherRing {
        let members = self.peers.iter();
        let members = members.filter(|(_, p)| p.is_reachable && p.ring == Some(ring.short()));
        let members: Vec<PeerId> = members.map(|(peer, _)| *peer).collect();
        let holder = |at: u128| {
            let key = self.ledger.space.container_of(at);
            key.map(|key| String::from(key.as_ref()))
                .unwrap_or_default()
        };
        let conflicts = self.conflicts(ring).into_iter();
        OtherRing {
            ring,
            members,
            live_here: self.live_addresses(),
            live_there: self.live_of(ring).unwrap_or(0),
            conflicts: conflicts
                .map(|(at, peer)| (address(at), holder(at), peer))
                .collect(),
        }
    }
}
