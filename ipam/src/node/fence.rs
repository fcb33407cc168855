//! Whether the own ledger may be trusted: after a start it is compared with what others know.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::proposal::Retry;
use crate::address::Range;
use crate::api::{Event, Found};
use crate::cell::OwnerId;
use crate::entry::Entry;
use crate::limits::{REMOVAL_SILENCE, RUNS_LEN_MAX, START_PATIENCE};
use crate::message::{Body, Newer};
use crate::packed::Runs;
use crate::ring::Run;
use crate::setup::{Setup, Stamp};

/// What others answered about some cells.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: u64,
    pub(super) cells: Runs,
    /// How much newer what they know is.
    pub(super) answers: BTreeMap<OwnerId, Newer>,
}

impl Reading {
    /// Whether somebody knows something newer than `than`.
    fn is_outdated(&self, than: Newer) -> bool {
        self.answers.values().any(|newer| *newer > than)
    }
}

/// Nothing is handed out before the ledger is known to be current.
#[derive(Debug, Default)]
pub(super) struct Fence(Option<Check>);

#[derive(Debug)]
struct Check {
    since: Instant,
    /// There is no token: the disk may be an older one, and this peer's own word as a witness does
    /// not count.
    is_unproven: bool,
    /// A new term is being taken for what this owner has.
    is_renewing: bool,
    readings: Vec<Reading>,
    retry: Retry,
}

impl Check {
    fn have_answered(&self, confirmers: &[OwnerId]) -> bool {
        let mut readings = self.readings.iter();
        readings.all(|reading| confirmers.iter().all(|c| reading.answers.contains_key(c)))
    }
}

impl Node {
    /// Whether what this owner owns may be used.
    pub(super) fn may_use(&self) -> bool {
        self.fence.0.is_none() && self.ledger.ring_id.is_some()
    }

    pub(super) fn start(&mut self, incarnation: u64, found: Found) {
        let is_mine = self.ledger.incarnation != 0 && self.ledger.peer == self.me;
        // Of the ring that it may have founded it knows nothing to ask about.
        let was_founding = found == Found::Unproven && self.ledger.ring_id.is_none();
        if !is_mine || was_founding || matches!(found, Found::Nothing | Found::RolledBack) {
            let peer = self.me;
            self.log(&Entry::Began { peer, incarnation });
            if found == Found::RolledBack {
                let text = "this peer begins anew as an owner of addresses: its ledger is older than it was when \
                            the daemon last ran; what it owned is taken over as soon as the witnesses answer";
                self.gate.event(Event::Notice(String::from(text)));
            }
        } else if self.ledger.ring_id.is_some() {
            let before = self.ledger.unsure;
            if before.is_some() || !is_brief(found) {
                self.start_check(found == Found::Unproven || before == Some(true));
            }
        }
        self.follow_pending(Range::ALL);
        self.resume_grants();
        self.start_founding();
        self.drive_fence();
    }

    fn start_check(&mut self, is_unproven: bool) {
        let me = self.owner();
        if !is_unproven && self.is_alone() {
            return;
        }
        let unproven = is_unproven;
        self.log(&Entry::Unsure { unproven });
        if is_unproven {
            let life = self.random.number();
            self.log(&Entry::Life(life));
        }
        let own = self.ledger.ring.owned_by(me).flat_map(|run| {
            let kept = self.ledger.granted.gaps(run.range).collect::<Vec<Range>>();
            kept.into_iter().map(move |range| Run { range, ..run })
        });
        let mut lists = Runs::lists(own.collect::<Vec<Run>>(), RUNS_LEN_MAX);
        if lists.is_empty() {
            lists.push(Runs::default());
        }
        let readings = lists.into_iter().map(|cells| Reading {
            id: self.random.number(),
            cells,
            answers: BTreeMap::new(),
        });
        self.fence.0 = Some(Check {
            since: self.now,
            is_unproven,
            is_renewing: false,
            readings: readings.collect(),
            retry: Retry::new(self.now),
        });
    }

    /// Whether nobody else is in this ring, as far as its ledger knows.
    fn is_alone(&self) -> bool {
        let me = self.owner();
        let mut runs = self.ledger.ring.iter();
        let setup = self.ledger.setup.as_ref();
        runs.all(|run| run.cell.owner.peer == self.me)
            && setup.is_some_and(|setup| setup.has_witness(me))
            && self.confirmers().is_empty()
    }

    /// Who can say whether this ledger is current: the other witnesses, or all other owners if
    /// there is no other witness.
    fn confirmers(&self) -> Vec<OwnerId> {
        let Some(setup) = &self.ledger.setup else {
            return Vec::new();
        };
        let others = setup
            .witnesses
            .as_slice()
            .iter()
            .filter(|witness| witness.peer != self.me);
        let others: Vec<OwnerId> = others.copied().collect();
        if !others.is_empty() {
            return others;
        }
        let owners = self.ledger.ring.sizes(Range::ALL).into_keys();
        owners.filter(|owner| owner.peer != self.me).collect()
    }

    /// Somebody is there who was not: whoever was asked in vain is asked again at once.
    pub(super) fn ask_anew(&mut self) {
        if let Some(check) = &mut self.fence.0 {
            check.retry = Retry::new(self.now);
        }
    }

    pub(super) fn drive_fence(&mut self) {
        self.drive_disputes();
        let confirmers = self.confirmers();
        let Some(check) = &mut self.fence.0 else {
            return;
        };
        if check.retry.is_due(self.now, &mut self.random) {
            let mut reads = Vec::new();
            for reading in &check.readings {
                let silent = confirmers
                    .iter()
                    .filter(|c| !reading.answers.contains_key(c));
                reads.extend(silent.map(|to| (to.peer, reading.id, reading.cells.clone())));
            }
            for (peer, id, cells) in reads {
                self.send(peer, Body::Read { id, cells });
            }
        }
        self.judge_fence();
    }

    pub(super) fn on_read_answer(
        &mut self,
        from: OwnerId,
        (id, stamp): (u64, Stamp),
        (newer, seen): (Newer, u64),
    ) {
        if self.on_dispute_answer(from, id, newer) {
            return;
        }
        let setup = self.ledger.setup.as_ref();
        if setup.is_some_and(|setup| setup.stamp < stamp) {
            // Who is to be asked may be others by now.
            self.send(from.peer, Body::AskSetup);
            return;
        }
        let queued = self.gate.queued();
        let Some(check) = &mut self.fence.0 else {
            return;
        };
        let Some(reading) = check.readings.iter_mut().find(|reading| reading.id == id) else {
            return;
        };
        let newer = if seen > queued { Newer::Chosen } else { newer };
        reading.answers.insert(from, newer);
        self.judge_fence();
    }

    /// Opens the fence, or gives the incarnation up, if the answers tell.
    fn judge_fence(&mut self) {
        let (Some(check), Some(setup)) = (&self.fence.0, &self.ledger.setup) else {
            return;
        };
        let confirmers = self.confirmers();
        let is_done = check.readings.iter().all(|reading| {
            let count = confirmers
                .iter()
                .filter(|c| reading.answers.contains_key(c))
                .count();
            count >= needed(setup, &confirmers, self.owner(), check.is_unproven)
        });
        // A renewal goes above what was only promised.
        let is_outdated = check
            .readings
            .iter()
            .any(|r| r.is_outdated(Newer::Promised));
        // Those who answer first may have been removed with this one, and be back too.
        let has_waited = self.now.since(check.since) >= START_PATIENCE;
        let have_all_answered = !confirmers.is_empty() && check.have_answered(&confirmers);
        let is_ready = (is_done && (have_all_answered || has_waited)) || self.is_late(check);
        if is_outdated && is_ready {
            self.new_incarnation("what it owned was given to others while it was away");
        } else if is_ready {
            self.begin_renewal();
        }
    }

    /// The only witness has nobody but owners to ask, and goes on without those that are silent if
    /// its disk is the one it had: nobody can have taken anything but by a forced reform.
    fn is_late(&self, check: &Check) -> bool {
        let is_only = self
            .ledger
            .setup
            .as_ref()
            .is_some_and(|setup| setup.witnesses.as_slice() == [self.owner()]);
        is_only && !check.is_unproven && self.now.since(check.since) >= START_PATIENCE
    }

    /// That nothing newer is known is not enough: somebody may be about to take over what this
    /// owner has. With a new term of its own it is the other one that comes too late.
    fn begin_renewal(&mut self) {
        match &mut self.fence.0 {
            Some(check) if !check.is_renewing => check.is_renewing = true,
            _ => return,
        }
        self.contest_everything();
        self.end_renewal();
        self.drive_succession();
    }

    /// Opens the fence as soon as a new term holds for everything.
    pub(super) fn end_renewal(&mut self) {
        if self.is_renewing() && self.is_uncontested() {
            self.open_fence();
        }
    }

    /// Whether the ledger may be an older one, as nobody has confirmed it yet.
    pub(super) fn may_be_older(&self) -> bool {
        let check = self.fence.0.as_ref();
        check.is_some_and(|check| check.is_unproven && !check.is_renewing)
    }

    /// Whether others are being asked if the ledger is current.
    pub(super) fn is_asking(&self) -> bool {
        self.fence
            .0
            .as_ref()
            .is_some_and(|check| !check.is_renewing)
    }

    /// Whether others are being asked if what this peer knows as a witness is current. Who started
    /// without a token is no witness before it is installed anew, and current then.
    pub(super) fn is_reading(&self) -> bool {
        let check = self.fence.0.as_ref();
        check.is_some_and(|check| !check.is_renewing && !check.is_unproven)
    }

    pub(super) fn is_renewing(&self) -> bool {
        self.fence.0.as_ref().is_some_and(|check| check.is_renewing)
    }

    /// Whether the peer has begun anew since, as another owner of this ring.
    pub(super) fn is_superseded(&self, owner: OwnerId) -> bool {
        if owner.peer == self.me {
            return owner != self.owner();
        }
        let known = self.peers.get(&owner.peer);
        let known = known.filter(|known| known.ring == Some(self.ring_short()));
        let now = known.and_then(|known| known.incarnation);
        now.is_some_and(|now| now != owner.incarnation)
    }

    /// The ledger is current.
    fn open_fence(&mut self) {
        self.fence.0 = None;
        if self.ledger.unsure.is_some() {
            self.log(&Entry::Sure);
        }
        self.is_stale = true;
        self.reconsider_wants();
    }

    /// A peer has seen this owner depend on writes that the ledger does not have.
    pub(super) fn seen_ahead(&mut self, by: PeerId) {
        if self.fence.0.is_some() {
            self.new_incarnation("others have seen later writes of this ledger");
        } else {
            self.refuse(by, "claims to have seen writes that were never made");
        }
    }

    /// From now on this peer is another owner, which owns nothing and is no witness. What the old
    /// one owned is taken over by the rules of a succession.
    pub(super) fn new_incarnation(&mut self, why: &str) {
        let (peer, incarnation) = (self.me, self.random.number());
        self.log(&Entry::Began { peer, incarnation });
        self.proposals.clear();
        self.asks.clear();
        self.forget_disputes();
        self.succession_reset();
        self.setup_changed();
        self.follow_pending(Range::ALL);
        let text = alloc::format!("this peer begins anew as an owner of addresses: {why}");
        self.gate.event(Event::Notice(text));
        self.open_fence();
    }

    pub(super) fn fence_in_words(&self) -> String {
        let Some(check) = &self.fence.0 else {
            return String::from("the ledger is current");
        };
        let confirmers = self.confirmers();
        let silent = confirmers.iter().filter(|c| {
            check
                .readings
                .iter()
                .any(|reading| !reading.answers.contains_key(c))
        });
        let silent: Vec<PeerId> = silent.map(|owner| owner.peer).collect();
        let Some(first) = silent.first().map(|peer| self.name(*peer)) else {
            return String::from(
                "the ledger may be older than what others know: they have answered, and a new term is \
                 being taken for what this host owns; wait some seconds",
            );
        };
        alloc::format!(
            "the ledger may be older than what others know: waiting for {} to answer (for {} s now); \
             start them, or, if they are gone for good: rmesh rmpeer {first} --force",
            self.names(silent),
            self.now.since(check.since).as_secs()
        )
    }

    /// Whether nothing is handed out before others have confirmed that the ledger is the newest.
    pub fn is_fenced(&self) -> bool {
        self.fence.0.is_some()
    }

    pub(super) fn fence_due(&self) -> Option<Instant> {
        let check = self.fence.0.as_ref().map(|check| {
            let limit = check.since + START_PATIENCE;
            let is_limited = limit > self.now;
            if is_limited {
                check.retry.next.min(limit)
            } else {
                check.retry.next
            }
        });
        check.into_iter().chain(self.disputes_due()).min()
    }
}

/// Whether the daemon was away for too short a time to have been removed meanwhile.
fn is_brief(found: Found) -> bool {
    matches!(found, Found::Current { down_for } if down_for < REMOVAL_SILENCE)
}

/// How many of those who can confirm have to.
fn needed(setup: &Setup, confirmers: &[OwnerId], me: OwnerId, is_unproven: bool) -> usize {
    let has_others = confirmers.iter().any(|owner| setup.has_witness(*owner));
    if !has_others {
        return confirmers.len();
    }
    // This peer's own word counts if its disk is the one it had.
    let own = usize::from(setup.has_witness(me) && !is_unproven);
    setup.majority().saturating_sub(own)
}
