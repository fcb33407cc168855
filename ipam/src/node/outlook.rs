//! What an operator looks at when something is wrong with the ring.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use crate::address::{Range, address};
use crate::limits::HOLD_MAX;
use crate::outlook::{OtherRing, Outlook, PoolUse};
use crate::setup::RingId;

impl Node {
    /// Everything there is to know of the ring beyond [`Node::report`], and who owns these addresses.
    pub fn outlook(&self, addresses: &[IpAddr], now: Instant) -> Outlook {
        let space = &self.ledger.space;
        let pools = self.pools().into_iter();
        let holds = space.held().map(|(range, hold)| {
            let left = HOLD_MAX.saturating_sub(now.since(hold.since));
            (range, hold.peer, left)
        });
        let removed = self.ledger.removed.iter();
        let others = self.adoption.rings();
        Outlook {
            pools: pools.map(|pool| self.pool_use(pool, now)).collect(),
            holds: holds.collect(),
            removed: removed
                .map(|(owner, (name, _))| (owner.peer, name.clone()))
                .collect(),
            others: others.map(|ring| self.other_ring(ring)).collect(),
            disputed: self.disputes.ranges().collect(),
            owners: addresses.iter().map(|ip| self.owner_of(*ip)).collect(),
        }
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
