//! A free address for a container.

use alloc::string::String;

use super::Node;
use super::ask::Subject;
use super::request::Served;
use crate::address::{Range, address};
use crate::api::{Answer, Refusal, RequestId, pools_in_words};
use crate::entry::Entry;
use crate::space::ALLOCATED_MAX;

impl Node {
    pub(super) fn serve_allocate(
        &mut self,
        id: RequestId,
        container: &str,
        subnet: Option<Range>,
        wants_v6: bool,
    ) -> Served {
        let setup = self.ledger.setup.as_ref()?;
        let subnet = match subnet {
            Some(subnet) if setup.covers(&subnet) => subnet,
            Some(subnet) => return Some(Err(self.no_pool(alloc::format!("{subnet}")))),
            None => match self.first_pool(wants_v6) {
                Some(pool) => pool,
                None => return Some(Err(self.no_pool(family(wants_v6)))),
            },
        };
        let mut known = self.ledger.space.of_container(container);
        if let Some(at) = known.find(|at| subnet.contains(*at)) {
            return Some(Ok(Answer::Address(address(at))));
        }
        drop(known);
        if !self.may_use() {
            self.wait_for(id, None);
            return None;
        }
        if self.ledger.space.allocated_count() >= ALLOCATED_MAX {
            return Some(Err(Refusal::TooMany(String::from(
                "the containers of this peer have all the addresses they may have; detach some",
            ))));
        }
        self.hand_out(id, subnet, container)
    }

    /// One that is reserved, and then the answer need not wait for the disk; else any.
    fn hand_out(&mut self, id: RequestId, subnet: Range, container: &str) -> Served {
        let reserved = self.take_reserved(id, subnet);
        let taken = |at| self.is_taken(at);
        let any = || self.ledger.space.pick(subnet, self.now, taken);
        let Some(at) = reserved.or_else(any) else {
            return self.wait_for_block(id, subnet);
        };
        self.allocate(at, container);
        self.reserve_ahead(subnet, reserved.is_none());
        Some(Ok(Answer::Address(address(at))))
    }

    fn wait_for_block(&mut self, id: RequestId, subnet: Range) -> Served {
        let subject = Subject::Block(subnet);
        let rests = self.ledger.space.counts(subnet, self.now).resting > 0;
        self.wait_for(id, Some(subject));
        if self.is_hopeless(subject) && !rests {
            return Some(Err(self.no_free(id, subnet)));
        }
        None
    }

    /// Nothing of the subnet could be had.
    pub(super) fn no_free(&self, id: RequestId, subnet: Range) -> Refusal {
        let subject = Subject::Block(subnet);
        Refusal::NoFree {
            of: subnet,
            has_silent: self.has_silent(subject),
            why: self.explain(subject),
            tried: self.tried(id),
        }
    }

    /// From now on the container has the address.
    pub(super) fn allocate(&mut self, at: u128, container: &str) {
        let container = String::from(container);
        self.log(&Entry::Allocated {
            address: at,
            container,
        });
        self.given.insert(at, self.now);
        self.follow_pending(Range::one(at));
        self.is_stale = true;
    }

    fn first_pool(&self, wants_v6: bool) -> Option<Range> {
        self.pools()
            .into_iter()
            .find(|pool| pool.is_v4() != wants_v6)
    }

    pub(super) fn no_pool(&self, what: String) -> Refusal {
        let setup = self.ledger.setup.as_ref();
        let pools = setup
            .map(|setup| setup.pools.as_slice())
            .unwrap_or_default();
        Refusal::NoPool(what, pools_in_words(pools))
    }
}

fn family(wants_v6: bool) -> String {
    String::from(if wants_v6 { "IPv6" } else { "IPv4" })
}
