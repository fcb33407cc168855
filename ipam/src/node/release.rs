//! Giving up addresses: of containers, of holds, and everything when a peer leaves.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use rmesh_wire::PeerId;

use super::Node;
use super::request::Served;
use crate::address::{Range, address, number};
use crate::api::{Answer, Refusal};
use crate::cell::OwnerId;
use crate::entry::Entry;
use crate::space::Use;

impl Node {
    pub(super) fn release_container(&mut self, container: &str) -> Result<Answer, Refusal> {
        self.running.retain(|(key, _)| key != container);
        let addresses: Vec<u128> = self.ledger.space.of_container(container).collect();
        for at in &addresses {
            self.free(*at);
        }
        Ok(Answer::Released(
            addresses.into_iter().map(address).collect(),
        ))
    }

    /// Of an address that the container does not have nothing is released, and that is no error.
    pub(super) fn release_address(
        &mut self,
        container: &str,
        ip: IpAddr,
    ) -> Result<Answer, Refusal> {
        for (_, ips) in self.running.iter_mut().filter(|(key, _)| key == container) {
            ips.retain(|known| number(*known) != number(ip));
        }
        let at = number(ip);
        let holder = self.ledger.space.container_of(at);
        if holder.is_none_or(|holder| holder.as_ref() != container) {
            return Ok(Answer::Released(Vec::new()));
        }
        self.free(at);
        Ok(Answer::Released(Vec::from([ip])))
    }

    pub(super) fn release_held(&mut self, ip: IpAddr) -> Result<Answer, Refusal> {
        let at = number(ip);
        match self.ledger.space.state(at, self.now) {
            Use::Held(_) => {
                self.end_hold(Range::one(at));
                Ok(Answer::Released(Vec::from([ip])))
            }
            // Nobody holds it, but it is given to nobody while the peer that announced it and is gone
            // may come back.
            Use::Resting(_) | Use::Rested | Use::Fresh if self.forget_gone(at) => {
                self.is_stale = true;
                Ok(Answer::Released(Vec::from([ip])))
            }
            _ => Err(Refusal::Invalid(self.not_held(at))),
        }
    }

    /// Held addresses are free. What the removed peer announced about them counts no more, unless it is
    /// back: nobody would ever get them otherwise.
    pub(super) fn end_hold(&mut self, range: Range) {
        let held = self.ledger.space.held();
        let ended = held.filter_map(|(held, hold)| Some((held.intersect(&range)?, hold.peer)));
        let ended: Vec<(Range, PeerId)> = ended.collect();
        self.log(&Entry::HeldEnded(range));
        for (range, peer) in ended {
            if !self.is_reachable(peer) {
                self.forget_announced(peer, range);
            }
        }
        self.is_stale = true;
    }

    /// What peers that do not answer announced of an address counts no more; whether there was any.
    fn forget_gone(&mut self, at: u128) -> bool {
        let gone = self
            .gone_announcers()
            .filter(|(announced, _)| *announced == at);
        let gone: Vec<PeerId> = gone.map(|(_, peer)| peer).collect();
        for peer in &gone {
            self.forget_announced(*peer, Range::one(at));
        }
        !gone.is_empty()
    }

    fn not_held(&self, at: u128) -> String {
        let ip = address(at);
        let owner = self.ledger.ring.get(at).map(|cell| cell.owner.peer);
        match owner.filter(|owner| *owner != self.me) {
            Some(owner) => {
                let name = self.name(owner);
                alloc::format!("{ip} is not held here; it is {name}'s: run the command there")
            }
            None => alloc::format!("{ip} is not held for a removed peer"),
        }
    }

    /// Grants everything that is free to others; done when nothing is owned any more.
    pub(super) fn serve_leave(&mut self) -> Served {
        let owned: Vec<Range> = self.ledger.space.owned().collect();
        if owned.is_empty() {
            self.has_left = true;
            return Some(Ok(Answer::Left));
        }
        let heirs: Vec<OwnerId> = self.ring_members().map(|(owner, _)| owner).collect();
        if heirs.is_empty() || !self.may_use() {
            return None;
        }
        let own = self.ledger.ring.owned_by(self.owner());
        let free = own.flat_map(|run| {
            let gaps = self.ledger.granted.gaps(run.range);
            gaps.collect::<Vec<Range>>()
        });
        let space = &self.ledger.space;
        let free = free.filter(|range| {
            let is_held = space.held().any(|(held, _)| held.overlaps(range));
            !is_held && space.allocated_in(*range).next().is_none()
        });
        let free: Vec<Range> = free.collect();
        for (range, heir) in free.into_iter().zip(heirs.iter().cycle()) {
            if self.ledger.granted.len() < crate::limits::GRANTED_RUNS_MAX {
                self.grant(*heir, range);
            }
        }
        None
    }

    pub(super) fn is_leaving(&self) -> bool {
        let mut requests = self.requests.values();
        requests.any(|waiting| matches!(waiting.request, crate::api::Request::Leave))
    }

    pub(super) fn leave_too_late(&self) -> Refusal {
        let owned = self
            .ledger
            .space
            .owned()
            .map(|range| alloc::format!("{range}"));
        let owned: Vec<String> = owned.collect();
        let members: Vec<PeerId> = self.ring_members().map(|(owner, _)| owner.peer).collect();
        let who = if members.is_empty() {
            String::from("no other peer of the ring answers")
        } else {
            alloc::format!("asked: {}", self.names(members))
        };
        Refusal::TimedOut(alloc::format!(
            "could not hand over {} ({who}); the others get it by rmesh rmpeer once this peer is gone",
            owned.join(", ")
        ))
    }
}
