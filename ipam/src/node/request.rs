//! Requests of local clients: taken in, served as soon as they can be, refused in time.

use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::Instant;

use super::Node;
use super::ask::Subject;
use crate::api::{Answer, Event, Refusal, Request, RequestId};
use crate::limits::{CONTAINER_LEN_MAX, REQUESTS_MAX};

/// A request that has no answer yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// It is not begun before.
    pub(super) not_before: Option<Instant>,
    /// What is asked for on its behalf.
    pub(super) subject: Option<Subject>,
}

/// Done, or not yet.
pub(super) type Served = Option<Result<Answer, Refusal>>;

impl Node {
    pub(super) fn take_request(&mut self, id: RequestId, request: Request, deadline: Instant) {
        if let Some(why) = self.gate.halted() {
            let result = Err(Refusal::Disk(why.clone()));
            self.gate.event(Event::Answer { id, result });
            return;
        }
        let is_known = self.requests.contains_key(&id);
        if self.requests.len() >= REQUESTS_MAX || self.gate.is_full() || is_known {
            let why = alloc::format!("{} requests wait already; try again", self.requests.len());
            self.answer(id, Err(Refusal::TooMany(why)));
            return;
        }
        if let Some(result) = self.begin(&request, deadline) {
            self.answer(id, result);
            return;
        }
        let not_before = self.removal_wait(&request);
        let waiting = Waiting {
            request,
            since: self.now,
            deadline,
            not_before,
            subject: None,
        };
        self.requests.insert(id, waiting);
        self.is_stale = true;
    }

    /// What has to happen once when a request arrives.
    fn begin(&mut self, request: &Request, deadline: Instant) -> Served {
        match request {
            Request::Allocate { container, .. }
            | Request::Claim { container, .. }
            | Request::Release { container }
            | Request::ReleaseAddress { container, .. } => (container.len() > CONTAINER_LEN_MAX)
                .then(|| {
                    let why = "a container's key has at most 255 bytes; choose a shorter one";
                    Err(Refusal::Invalid(String::from(why)))
                }),
            Request::RemovePeer {
                peer,
                name,
                is_forced,
            } => self.begin_removal((*peer, name), *is_forced, deadline),
            Request::Adopt { peer } => self.begin_adoption(*peer),
            Request::AddPool { range } => self.begin_pool(*range),
            Request::Leave | Request::ReleaseHeld { .. } => None,
        }
    }

    pub(super) fn answer(&mut self, id: RequestId, result: Result<Answer, Refusal>) {
        self.requests.remove(&id);
        let answer = Event::Answer { id, result };
        if self.reserve.is_early(id) {
            self.gate.early_event(answer);
        } else {
            self.gate.event(answer);
        }
    }

    pub(super) fn serve_requests(&mut self) {
        let ids: Vec<RequestId> = self.requests.keys().copied().collect();
        for id in ids {
            let Some(waiting) = self.requests.get(&id) else {
                continue;
            };
            let request = waiting.request.clone();
            if let Some(result) = self
                .begin_late(id, &request)
                .or_else(|| self.serve(id, &request))
            {
                self.answer(id, result);
            }
        }
    }

    /// Begins what had to wait, if it is time.
    fn begin_late(&mut self, id: RequestId, request: &Request) -> Served {
        let waiting = self.requests.get(&id)?;
        let deadline = waiting.deadline;
        if waiting.not_before? > self.now {
            return None;
        }
        let result = self.begin(request, deadline);
        let not_before = self.removal_wait(request);
        if let Some(waiting) = self.requests.get_mut(&id) {
            waiting.not_before = not_before;
        }
        result
    }

    /// Requests that had to wait may be begun.
    pub(super) fn wake_requests(&mut self) {
        let mut begins = self.requests.values().filter_map(|w| w.not_before);
        self.is_stale |= begins.any(|begin| begin <= self.now);
    }

    fn serve(&mut self, id: RequestId, request: &Request) -> Served {
        match request {
            Request::Allocate {
                container,
                subnet,
                wants_v6,
            } => self.serve_allocate(id, container, *subnet, *wants_v6),
            Request::Claim { container, address } => self.serve_claim(id, container, *address),
            Request::Release { container } => Some(self.release_container(container)),
            Request::ReleaseAddress { container, address } => {
                Some(self.release_address(container, *address))
            }
            Request::ReleaseHeld { address } => Some(self.release_held(*address)),
            Request::RemovePeer { peer, .. } => self.serve_removal(id, *peer),
            Request::Adopt { peer } => self.serve_adoption(*peer),
            Request::Leave => self.serve_leave(),
            Request::AddPool { range } => self.serve_pool(*range),
        }
    }

    /// Sets what is asked for on behalf of a request.
    pub(super) fn wait_for(&mut self, id: RequestId, subject: Option<Subject>) {
        let Some(waiting) = self.requests.get_mut(&id) else {
            return;
        };
        let is_new = waiting.subject != subject;
        waiting.subject = subject;
        if let Some(subject) = subject.filter(|_| is_new) {
            self.hurry(subject);
        }
    }

    /// How long a request has been waiting.
    pub(super) fn tried(&self, id: RequestId) -> core::time::Duration {
        let waiting = self.requests.get(&id);
        waiting
            .map(|waiting| self.now.since(waiting.since))
            .unwrap_or_default()
    }

    /// Refuses what could not be done in time.
    pub(super) fn expire_requests(&mut self) {
        let late = self
            .requests
            .iter()
            .filter(|(_, waiting)| waiting.deadline <= self.now);
        let late: Vec<RequestId> = late.map(|(id, _)| *id).collect();
        for id in late {
            let Some(waiting) = self.requests.get(&id) else {
                continue;
            };
            let request = waiting.request.clone();
            let refusal = self.too_late(id, &request);
            self.answer(id, Err(refusal));
            if let Request::AddPool { range } = request {
                self.withdraw_pool(range);
            }
        }
    }

    fn too_late(&self, id: RequestId, request: &Request) -> Refusal {
        let subject = self.requests.get(&id).and_then(|waiting| waiting.subject);
        let tried = self.tried(id);
        match (request, subject) {
            (Request::RemovePeer { peer, .. }, _) => self.removal_too_late(*peer),
            (Request::Leave, _) => self.leave_too_late(),
            (Request::AddPool { .. }, _) => self.pool_too_late(),
            (Request::Adopt { peer }, _) => {
                let name = self.name(*peer);
                Refusal::TimedOut(alloc::format!("{name} does not say which ring it is in"))
            }
            _ if self.ledger.setup.is_none() => Refusal::NoRing(self.founding_in_words()),
            _ if !self.may_use() => Refusal::Fenced(self.fence_in_words()),
            (_, Some(Subject::Exact(at))) => Refusal::NotGranted {
                address: crate::address::address(at),
                why: self.explain(Subject::Exact(at)),
                tried,
            },
            (_, Some(Subject::Block(subnet))) => self.no_free(id, subnet),
            (_, None) => Refusal::TimedOut(String::from("there was no time to try; allow more")),
        }
    }

    pub(super) fn refuse_all_requests(&mut self) {
        let why = self.gate.halted().cloned().unwrap_or_default();
        let ids: Vec<RequestId> = self.requests.keys().copied().collect();
        for id in ids {
            self.answer(id, Err(Refusal::Disk(why.clone())));
        }
        self.gate.fail(why);
    }

    pub(super) fn requests_due(&self) -> Option<Instant> {
        let due = self.requests.values();
        let due = due.flat_map(|waiting| waiting.not_before.into_iter().chain([waiting.deadline]));
        due.min()
    }
}
