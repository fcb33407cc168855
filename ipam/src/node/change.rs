//! Changing the setup: who leads when to which witnesses and pools, by majorities of the old and
//! the new set.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::{Instant, PeerId};

use super::Node;
use super::install::{Collected, decides};
use super::proposal::Retry;
use super::request::Served;
use crate::address::Range;
use crate::api::{Answer, Refusal, Request};
use crate::cell::OwnerId;
use crate::limits::{
    GROWTH_PATIENCE, LEADER_PATIENCE, POOLS_MAX, RETRY_FIRST, WITNESSES_MAX, YIELD_MIN,
};
use crate::setup::{Ballot, Pool, Setup, Stamp};

/// A change that takes longer begins anew, with a higher ballot.
const CHANGE_MAX: Duration = Duration::from_secs(6);
/// How often it is looked whether a change is due, while one may be.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long after the first news it is looked: so the look after [`GROWTH_PATIENCE`] comes late enough to
/// find all peers that came together.
const FIRST_LOOK: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct State {
    pub(super) change: Option<Change>,
    /// Since when the setup should be another one.
    since: Option<Instant>,
    next: Instant,
    /// When anything was last heard that a look may depend on.
    stirred: Instant,
    highest: u32,
    pools: BTreeSet<Range>,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        State {
            change: None,
            since: None,
            next: Instant::ZERO,
            stirred: now,
            highest: 0,
            pools: BTreeSet::new(),
        }
    }

    /// Whether the next look may find something. Once [`GROWTH_PATIENCE`] is over since the last news time
    /// alone changes nothing.
    fn is_awake(&self) -> bool {
        self.since.is_some() || self.next <= self.stirred + GROWTH_PATIENCE + LOOK_EVERY
    }
}

/// A change this peer leads.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) target: Stamp,
    pub(super) ballot: Ballot,
    pub(super) old: Setup,
    /// What this peer wants; another one's wish that was accepted before goes first.
    wish: Setup,
    pub(super) sealed: BTreeMap<OwnerId, Collected>,
    /// What is proposed, once a majority of the old set is sealed and has told its state.
    pub(super) setup: Option<Setup>,
    pub(super) parts: Vec<crate::message::Page>,
    /// Which parts each has, in which life: the next one may have forgotten them.
    pub(super) carried: BTreeMap<(OwnerId, u64), BTreeSet<u32>>,
    pub(super) installed: BTreeMap<OwnerId, u64>,
    pub(super) retry: Retry,
    since: Instant,
}

impl Change {
    /// What to propose: what the highest ballot among the sealed ones accepted, else the wish. `now`:
    /// the lives that owners are in.
    pub(super) fn proposal(&self, now: &BTreeMap<OwnerId, u64>) -> Setup {
        let accepted = self
            .sealed
            .values()
            .filter_map(|sealed| sealed.accepted.as_ref());
        let highest = accepted.max_by_key(|(ballot, _)| *ballot);
        let setup = highest.map_or_else(|| self.wish.clone(), |(_, setup)| setup.clone());
        let is_named = |witness: &OwnerId| {
            let sealed = self.sealed.get(witness);
            sealed.is_some_and(|sealed| self.old.names(*witness, sealed.life))
        };
        if self.old.is_majority(is_named) {
            return setup;
        }
        // Nobody may be left of those it names, though they are there in other lives.
        let pairs = setup
            .witnesses
            .as_slice()
            .iter()
            .zip(setup.lives.as_slice());
        let lives = pairs.map(|(witness, life)| now.get(witness).copied().unwrap_or(*life));
        Setup {
            lives: Bounded::take_from(lives.collect::<Vec<u64>>()),
            ..setup
        }
    }

    /// Everybody who has to install the new setup, or may.
    pub(super) fn members(&self) -> BTreeSet<OwnerId> {
        let new = self
            .setup
            .iter()
            .flat_map(|setup| setup.witnesses.as_slice());
        self.old
            .witnesses
            .as_slice()
            .iter()
            .chain(new)
            .copied()
            .collect()
    }

    /// Takes note that a member has installed the setup, if it has all that goes with it.
    pub(super) fn install(&mut self, member: OwnerId, life: u64) {
        let carried = self.carried.get(&(member, life));
        if carried.map_or(0, BTreeSet::len) == self.parts.len() {
            self.installed.insert(member, life);
        }
    }

    /// Majorities of both sets have installed it; of the old one only those count that were sealed
    /// by this ballot, since others may have forgotten what they promised.
    pub(super) fn is_chosen(&self) -> bool {
        let is_installed = |setup: &Setup| {
            setup.is_majority(|witness| {
                let life = self.installed.get(witness);
                life.is_some_and(|life| setup.names(*witness, *life))
            })
        };
        let both = self.installed.iter().filter(|(witness, life)| {
            let sealed = self.sealed.get(witness);
            sealed.is_some_and(|sealed| sealed.life == **life)
        });
        let both = both.map(|(witness, life)| (*witness, *life)).collect();
        self.setup.as_ref().is_some_and(is_installed) && decides(&self.old, &both)
    }
}

/// How many witnesses there are among so many members: an odd number.
fn set_size(members: usize) -> usize {
    match members.min(WITNESSES_MAX) {
        even if even.is_multiple_of(2) => even.saturating_sub(1).max(1),
        odd => odd,
    }
}

impl Node {
    /// The setup as it should be by what is known here; `None`: as it is.
    fn desired(&self) -> Option<Setup> {
        let setup = self.ledger.setup.as_ref()?;
        let is_gone = |owner: &OwnerId| {
            // Who is back after all is a member like others.
            let is_back = self.is_current(*owner) && !self.is_asked_to_remove(*owner);
            let is_removed = self.ledger.removed.contains_key(owner) && !is_back;
            is_removed || self.is_superseded(*owner)
        };
        let old = setup.witnesses.as_slice();
        let mut witnesses: Vec<OwnerId> = old.iter().filter(|w| !is_gone(w)).copied().collect();
        let mut newcomers: Vec<(Instant, OwnerId)> = self
            .ring_members()
            .filter(|(owner, _)| !is_gone(owner) && !witnesses.contains(owner))
            .filter_map(|(owner, known)| Some((known.reachable_since?, owner)))
            .filter(|(since, _)| self.now.since(*since) >= GROWTH_PATIENCE)
            .collect();
        newcomers.sort();
        let size = set_size(witnesses.len() + newcomers.len());
        // Reachable ones stay first if some have to go.
        witnesses.sort_by_key(|witness| !self.is_current(*witness));
        witnesses.extend(newcomers.into_iter().map(|(_, owner)| owner));
        witnesses.truncate(size);
        let same: BTreeSet<_> = witnesses.iter().collect();
        let is_same = same == old.iter().collect();
        let pools = self.desired_pools(setup);
        let grows = pools.as_slice().len() > setup.pools.as_slice().len();
        if (is_same && !grows && !self.is_dormant() && !self.has_idle_witness(setup))
            || witnesses.is_empty()
        {
            return None;
        }
        let lives = witnesses
            .iter()
            .map(|witness| self.last_life(setup, *witness));
        Some(Setup {
            stamp: setup.stamp.next(),
            lives: Bounded::take_from(lives.collect::<Vec<u64>>()),
            witnesses: Bounded::take_from(witnesses),
            pools,
        })
    }

    /// Whether those witnesses that are there could decide on a next setup.
    pub(super) fn could_decide(&self, setup: &Setup) -> bool {
        let witnesses = setup.witnesses.as_slice().iter();
        let here = witnesses.filter(|witness| self.is_current(**witness));
        let here = here.map(|witness| (*witness, self.last_life(setup, *witness)));
        decides(setup, &here.collect())
    }

    /// Which witnesses are there in a life that the setup does not name, and what helps if they are too
    /// few to be named by the next one.
    pub(super) fn lives_in_words(&self) -> Option<String> {
        let setup = self.ledger.setup.as_ref()?;
        let (here, gone): (Vec<OwnerId>, Vec<OwnerId>) = self
            .witnesses()
            .partition(|witness| self.is_current(*witness));
        let forgot = here
            .iter()
            .filter(|w| !setup.names(**w, self.last_life(setup, **w)));
        let forgot: Vec<String> = forgot.map(|owner| self.shown(*owner)).collect();
        if forgot.is_empty() || self.could_decide(setup) {
            return None;
        }
        let first = gone.first().map(|owner| self.name(owner.peer))?;
        let gone: Vec<String> = gone.iter().map(|owner| self.shown(*owner)).collect();
        Some(alloc::format!(
            "{} may have forgotten what it acknowledged (it started without a token) and bears no \
             witness before {} of the {} witnesses answer; silent: {}; start them or, if they are gone \
             for good, run rmesh rmpeer {first} --force",
            forgot.join(", "),
            setup.revival(),
            setup.witnesses.as_slice().len(),
            gone.join(", "),
        ))
    }

    fn shown(&self, owner: OwnerId) -> String {
        match owner.peer == self.me {
            true => String::from("this host"),
            false => self.name(owner.peer),
        }
    }

    /// In which life a witness was last seen, or is named by the setup.
    fn last_life(&self, setup: &Setup, witness: OwnerId) -> u64 {
        let life = self.life_of(witness).or(setup.life_of(witness));
        life.unwrap_or(witness.incarnation)
    }

    fn desired_pools(&self, setup: &Setup) -> Bounded<Pool, POOLS_MAX> {
        let mut pools = setup.pools.as_slice().to_vec();
        for range in &self.change.pools {
            if !pools.iter().any(|pool| pool.range.overlaps(range)) {
                pools.push(Pool {
                    range: *range,
                    founder: self.owner(),
                });
            }
        }
        Bounded::take_from(pools)
    }

    /// Whether a reachable witness says that it lacks the state to act.
    fn has_idle_witness(&self, setup: &Setup) -> bool {
        let mut members = self.ring_members();
        members.any(|(owner, known)| {
            let is_settled = known
                .reachable_since
                .is_some_and(|s| self.now.since(s) >= GROWTH_PATIENCE);
            setup.has_witness(owner) && known.stamp == setup.stamp && !known.acts && is_settled
        })
    }

    /// Whether this witness is bound to a next setup of whose members no majority is there in the lives
    /// it names, so that neither it nor another can be chosen: what those accepted cannot be known.
    pub(super) fn is_change_stuck(&self) -> bool {
        let stamp = self.ledger.setup.as_ref().map(|setup| setup.stamp);
        let bound = self.ledger.setup_accepted.as_ref().map(|(_, setup)| setup);
        bound.is_some_and(|bound| {
            let is_there = |witness: &OwnerId| {
                let life = self.last_life(bound, *witness);
                self.is_current(*witness) && bound.names(*witness, life)
            };
            Some(bound.stamp) > stamp && !bound.is_majority(is_there)
        })
    }

    pub(super) fn drive_change(&mut self) {
        if let Some(change) = &self.change.change
            && self.now.since(change.since) > CHANGE_MAX
        {
            self.abort_change();
        }
        if self.change.change.is_some() {
            self.repeat_change();
        } else if self.now >= self.change.next {
            self.change.next = self.now + LOOK_EVERY;
            self.consider_change();
        }
    }

    /// Something was heard or done on which it may depend whether a change is due.
    pub(super) fn stir(&mut self) {
        if !self.change.is_awake() {
            self.change.next = self.now + FIRST_LOOK;
        }
        self.change.stirred = self.now;
    }

    /// Leads a change if one is due and it is this peer's turn.
    fn consider_change(&mut self) {
        let Some(setup) = self.ledger.setup.clone() else {
            return;
        };
        let is_sealed = self
            .ledger
            .setup_promised
            .is_some_and(|(target, _)| target > setup.stamp);
        let wish = self.desired();
        let is_witness = self.acts() || self.is_dormant();
        let may_lead = is_witness && !self.ledger.has_left_generation();
        if !may_lead || !(is_sealed || wish.is_some()) {
            self.change.since = None;
            return;
        }
        let since = *self.change.since.get_or_insert(self.now);
        let others = setup
            .witnesses
            .as_slice()
            .iter()
            .filter(|w| w.peer < self.me);
        let rank = match self.change.pools.is_empty() {
            true => others.filter(|witness| self.is_current(**witness)).count(),
            // Nobody else knows that a client wants it.
            false => 0,
        };
        let turns = u32::try_from(rank).unwrap_or(u32::MAX) + u32::from(is_sealed);
        if self.now.since(since) < LEADER_PATIENCE.saturating_mul(turns) {
            return;
        }
        // Without a majority the seal would only keep others from acting.
        if self.could_decide(&setup) {
            let next = setup.stamp.next();
            let same = || Setup {
                stamp: next,
                ..setup.clone()
            };
            self.lead(setup.clone(), wish.unwrap_or_else(same));
        }
    }

    fn lead(&mut self, old: Setup, wish: Setup) {
        let promised = self.ledger.setup_promised.map_or(0, |(_, ballot)| ballot.n);
        let n = self.change.highest.max(promised).saturating_add(1);
        self.change.highest = n;
        self.change.change = Some(Change {
            target: wish.stamp,
            ballot: Ballot {
                n,
                leader: self.me,
                life: self.ledger.life,
            },
            old,
            wish,
            sealed: BTreeMap::new(),
            setup: None,
            parts: Vec::new(),
            carried: BTreeMap::new(),
            installed: BTreeMap::new(),
            retry: Retry::new(self.now),
            since: self.now,
        });
        self.repeat_change();
    }

    pub(super) fn on_outvoted(&mut self, target: Stamp, n: u32) {
        if self.reform_outvoted(target) {
            return;
        }
        self.change.highest = self.change.highest.max(n);
        if self
            .change
            .change
            .as_ref()
            .is_some_and(|change| change.target == target)
        {
            self.abort_change();
        }
    }

    pub(super) fn abort_change(&mut self) {
        self.stir();
        self.change.change = None;
        self.change.next = self.now + YIELD_MIN + self.random.jittered(YIELD_MIN * 4);
    }

    /// Another setup is in force.
    pub(super) fn setup_changed(&mut self) {
        self.stir();
        self.change.change = None;
        self.change.since = None;
        self.change.next = self.now;
        self.probes = Some(Retry::new(self.now + RETRY_FIRST));
        self.reform = None;
        // Grants that waited for the change are proposed to the witnesses there are now.
        for proposal in self.proposals.values_mut() {
            proposal.retry_at(self.now);
        }
        let pools = self.pools();
        let is_free = |range: &Range| !pools.iter().any(|pool| pool.overlaps(range));
        self.change.pools.retain(is_free);
        let witnesses: Vec<PeerId> = self.witnesses().map(|witness| witness.peer).collect();
        for peer in witnesses {
            if peer != self.me {
                self.send_digest(peer);
            }
        }
        self.is_stale = true;
    }

    pub(super) fn begin_pool(&mut self, range: Range) -> Served {
        let Some(setup) = &self.ledger.setup else {
            return Some(Err(Refusal::NoRing(self.founding_in_words())));
        };
        let has_room = setup.pools.as_slice().len() < POOLS_MAX;
        // Who will be one within seconds waits for it.
        let is_left_out = !setup.has_witness(self.owner())
            && setup.witnesses.as_slice().len() >= set_size(self.ring_members().count() + 1);
        let done = self.serve_pool(range);
        if done.is_some() {
            return done;
        }
        if !has_room {
            let why = alloc::format!(
                "the ring has {POOLS_MAX} pools, the most there can be; use a subnet of one of them"
            );
            return Some(Err(Refusal::TooMany(why)));
        }
        if is_left_out {
            let why = alloc::format!(
                "only a witness of the ring can add a pool, and this host is none; run the command on \
                 one of them: {}",
                self.names(self.witnesses().map(|witness| witness.peer))
            );
            return Some(Err(Refusal::Invalid(why)));
        }
        self.change.pools.insert(range);
        self.change.next = self.now;
        None
    }

    /// Done as soon as the pool is there, whoever added it; refused if another one is in its way.
    pub(super) fn serve_pool(&self, range: Range) -> Served {
        let other = self
            .pools()
            .into_iter()
            .find(|pool| pool.overlaps(&range))?;
        if other == range {
            return Some(Ok(Answer::PoolAdded));
        }
        let why = alloc::format!("{range} overlaps the pool {other}; choose another range");
        Some(Err(Refusal::Invalid(why)))
    }

    /// Nobody waits for that pool any more. A change that is under way may still add it.
    pub(super) fn withdraw_pool(&mut self, range: Range) {
        let is_same = |request: &Request| *request == Request::AddPool { range };
        if !self.requests.values().any(|w| is_same(&w.request)) {
            self.change.pools.remove(&range);
        }
    }

    pub(super) fn pool_too_late(&self) -> Refusal {
        let why = self.witnesses_in_words();
        let mut gone = self.witnesses().filter(|w| !self.is_current(*w));
        let setup = self.ledger.setup.as_ref();
        let has_majority = setup.is_some_and(|s| s.is_majority(|w| self.is_current(*w)));
        let todo = match gone.next() {
            Some(gone) if !has_majority => alloc::format!(
                "start those that do not answer and try again, or, if they are gone for good, first: \
                 rmesh rmpeer {} --force",
                self.name(gone.peer)
            ),
            _ => String::from(
                "see whether the pool is there after all with rmesh ipam status, else try again with a \
                 longer --timeout",
            ),
        };
        Refusal::TimedOut(alloc::format!(
            "most witnesses of the ring have to agree to another pool, and did not in time ({why}); {todo}"
        ))
    }

    pub(super) fn witnesses(&self) -> impl Iterator<Item = OwnerId> {
        let setup = self.ledger.setup.iter();
        setup.flat_map(|setup| setup.witnesses.as_slice()).copied()
    }

    /// Who the witnesses are and which of them answer.
    pub(super) fn witnesses_in_words(&self) -> String {
        let (here, gone): (Vec<OwnerId>, Vec<OwnerId>) = self
            .witnesses()
            .partition(|witness| self.is_current(*witness));
        let names = |owners: Vec<OwnerId>| {
            let names: Vec<String> = owners.iter().map(|owner| self.shown(*owner)).collect();
            match names.is_empty() {
                true => String::from("none"),
                false => names.join(", "),
            }
        };
        alloc::format!(
            "of the ring's witnesses answer: {}; do not answer: {}",
            names(here),
            names(gone)
        )
    }

    pub(super) fn change_due(&self) -> Option<Instant> {
        match &self.change.change {
            Some(change) => Some(change.retry.next),
            None => (self.change.is_awake() && (self.acts() || self.is_dormant()))
                .then_some(self.change.next.max(self.now + Duration::from_millis(1))),
        }
    }
}
