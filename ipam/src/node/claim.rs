//! One exact address for a container.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Node;
use super::ask::{Outcome, Subject};
use super::request::Served;
use crate::address::{address, number};
use crate::api::{Answer, Event, Refusal, RequestId};
use crate::entry::Entry;
use crate::message::Denial;
use crate::space::{ALLOCATED_MAX, Use, usable};

impl Node {
    pub(super) fn serve_claim(&mut self, id: RequestId, container: &str, ip: IpAddr) -> Served {
        let at = number(ip);
        let setup = self.ledger.setup.as_ref()?;
        let Some(pool) = setup.pool_of(at).map(|pool| pool.range) else {
            return Some(Ok(Answer::OutsidePools));
        };
        if !usable(pool).contains(at) {
            return Some(Err(Refusal::Reserved(ip)));
        }
        let space = &self.ledger.space;
        if let Use::Held(hold) = space.state(at, self.now) {
            let peer = self.name(hold.peer);
            return Some(Err(Refusal::Held { address: ip, peer }));
        }
        if let Some(by) = self.user_of(at, container) {
            return Some(Err(Refusal::Used { address: ip, by }));
        }
        match space.state(at, self.now) {
            Use::Allocated(_) => return Some(Ok(Answer::Address(ip))),
            Use::Resting(_) | Use::Rested | Use::Fresh if self.may_use() => {
                if self.disputes.contains(at) {
                    return None;
                }
                if space.allocated_count() >= ALLOCATED_MAX {
                    let why = "the containers of this peer have all the addresses they may have";
                    return Some(Err(Refusal::TooMany(String::from(why))));
                }
                self.allocate(at, container);
                return Some(Ok(Answer::Address(ip)));
            }
            _ => {}
        }
        let subject = Subject::Exact(at);
        self.wait_for(id, self.may_use().then_some(subject));
        self.denied_for_good(subject, ip).map(Err)
    }

    /// What the owner of an exact address answered, if waiting does not help.
    fn denied_for_good(&self, subject: Subject, address: IpAddr) -> Option<Refusal> {
        let ask = self.asks.get(&subject)?;
        ask.outcomes
            .iter()
            .find_map(|(peer, outcome)| match outcome {
                Outcome::Denied(Denial::Used(by)) => Some(Refusal::Used {
                    address,
                    by: alloc::format!("{} ({})", by.read(), self.name(*peer)),
                }),
                Outcome::Denied(Denial::Held(peer)) => Some(Refusal::Held {
                    address,
                    peer: self.name(*peer),
                }),
                _ => None,
            })
    }

    /// What containers carry at start counts, whatever the ledger says: they are told nothing new.
    pub(super) fn follow_running(&mut self, containers: &[(String, Vec<IpAddr>)]) {
        let running: BTreeSet<(u128, &str)> = containers
            .iter()
            .flat_map(|(key, ips)| ips.iter().map(|ip| (number(*ip), key.as_str())))
            .collect();
        let known = self.ledger.space.allocated();
        let gone = known.filter(|(at, key)| !running.contains(&(*at, key.as_ref())));
        let gone: Vec<u128> = gone.map(|(at, _)| at).collect();
        for at in gone {
            self.free(at);
        }
        if self.ledger.ring_id.is_none() {
            self.running = containers.to_vec();
            return;
        }
        let pools = self.pools();
        for (at, key) in running {
            if !pools.iter().any(|pool| pool.contains(at)) {
                continue;
            }
            if let Some(other) = self.ledger.space.container_of(at) {
                if other.as_ref() != key {
                    let ip = address(at);
                    let text =
                        alloc::format!("{ip} is carried by {key} and by {other}; detach one");
                    self.gate.event(Event::Notice(text));
                }
                continue;
            }
            if self.ledger.space.allocated_count() < ALLOCATED_MAX {
                self.allocate(at, key);
                // It may have had it for long.
                self.given.remove(&at);
            }
        }
        self.is_stale = true;
    }

    /// A container's address is owned here at last.
    pub(super) fn claimed(&mut self, at: u128) {
        if let Some(container) = self.ledger.space.container_of(at) {
            let container = String::from(container.as_ref());
            let address = address(at);
            self.gate.event(Event::Claimed { container, address });
        }
    }

    /// No container has the address any more.
    pub(super) fn free(&mut self, at: u128) {
        self.log(&Entry::Freed { address: at });
        self.pending.remove(&at);
        self.given.remove(&at);
        self.is_stale = true;
    }
}
