//! One owner's part of the ring, as a state machine without IO.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use crate::address::Range;
use crate::addresses::Addresses;
use crate::announcers::Announcers;
use crate::api::{Event, Founding, Identity, Member, Recovered, Request, RequestId, Timeout};
use crate::cell::OwnerId;
use crate::entry::Entry;
use crate::ledger::Ledger;
use crate::limits::REFUSED_PEERS_MAX;
use crate::message::{Body, Message};
use crate::random::Random;

mod adopt;
mod allocate;
mod ask;
mod change;
mod claim;
mod dispute;
mod fence;
mod founding;
mod gate;
mod gossip;
mod grant;
mod hearsay;
mod inspect;
mod install;
mod learn;
mod outlook;
mod peer;
mod proposal;
mod reform;
mod release;
mod removal;
mod report;
mod request;
mod reserve;
mod succession;
#[cfg(test)]
mod tests;
mod witness;

pub use inspect::describe;

use gate::Gate;
use peer::Peer;

/// One owner's part of the ring.
///
/// It follows the contract in `rmesh_wire`, with one pair more: [`Node::poll_write`] hands out
/// what has to be appended to the log, and nothing that depends on a write comes out before
/// [`Node::handle_written`] confirms it; but for answers out of a durable reservation, for which
/// [`Node::handle_handed_over`] is enough. After every change drain [`Node::poll_write`],
/// [`Node::poll_event`] and [`Node::poll_transmit`] until each returns `None`, then ask
/// [`Node::poll_timeout`].
#[derive(Debug)]
pub struct Node {
    me: PeerId,
    random: Random,
    /// The last instant given.
    now: Instant,
    /// The first one.
    started: Instant,
    ledger: Ledger,
    gate: Gate,
    /// Messages of this peer to itself.
    loopback: VecDeque<Body>,
    founding: founding::State,
    peers: BTreeMap<PeerId, Peer>,
    announced: BTreeMap<PeerId, Addresses>,
    announcers: Announcers,
    /// Peers whose announcements are not written down as they are.
    announced_changed: BTreeSet<PeerId>,
    announced_due: Instant,
    proposals: BTreeMap<u64, proposal::Proposal>,
    want: ask::Want,
    asks: BTreeMap<ask::Subject, ask::Ask>,
    requests: BTreeMap<RequestId, request::Waiting>,
    reserve: reserve::Reserve,
    /// What containers carry, until a ring is known.
    running: Vec<(String, Vec<IpAddr>)>,
    /// Allocated, but not owned.
    pending: BTreeSet<u128>,
    /// Since when an address is a container's, of those that were given by this process.
    given: BTreeMap<u128, Instant>,
    fence: fence::Fence,
    disputes: dispute::Disputes,
    succession: succession::State,
    hearsay: BTreeMap<PeerId, hearsay::Hearsay>,
    /// Until when it is waited for word of peers that are not there, once it was asked for.
    heard_of_gone: Option<Instant>,
    change: change::State,
    /// The other peers, as last told.
    members: Vec<Member>,
    reform: Option<reform::Reform>,
    ask_reformer_at: Instant,
    adoption: adopt::State,
    refused: BTreeMap<(PeerId, &'static str), u64>,
    next_digest: Instant,
    /// When witnesses that did not speak of this setup yet are asked again.
    probes: Option<proposal::Retry>,
    /// Everything was handed over: nothing is asked for but what clients need.
    has_left: bool,
    /// Something changed that requests may wait for.
    is_stale: bool,
    /// How much later than it could a digest may be sent.
    slack: Duration,
}

impl Node {
    /// A node that goes on from what was found on the disk.
    pub fn new(identity: Identity, recovered: Recovered, founding: Founding, now: Instant) -> Self {
        let mut random = Random::new(identity.seed);
        let next_digest = now + random.jittered(crate::limits::DIGEST_EVERY) / 4;
        let Recovered {
            ledger,
            written,
            found,
        } = recovered;
        let mut node = Node {
            me: identity.me,
            random,
            now,
            started: now,
            announced: ledger.announced.clone(),
            announcers: Announcers::default(),
            announced_changed: BTreeSet::new(),
            announced_due: now,
            ledger,
            gate: Gate::new(written),
            loopback: VecDeque::new(),
            founding: founding::State::new(founding, now),
            peers: BTreeMap::new(),
            proposals: BTreeMap::new(),
            want: ask::Want::default(),
            asks: BTreeMap::new(),
            requests: BTreeMap::new(),
            reserve: reserve::Reserve::default(),
            running: Vec::new(),
            pending: BTreeSet::new(),
            given: BTreeMap::new(),
            fence: fence::Fence::default(),
            disputes: dispute::Disputes::default(),
            succession: succession::State::default(),
            hearsay: BTreeMap::new(),
            heard_of_gone: None,
            change: change::State::new(now),
            members: Vec::new(),
            reform: None,
            ask_reformer_at: now,
            adoption: adopt::State::default(),
            refused: BTreeMap::new(),
            next_digest,
            probes: None,
            has_left: false,
            is_stale: true,
            slack: Duration::ZERO,
        };
        for (peer, addresses) in &node.announced {
            for address in addresses {
                node.announcers.insert(*address, *peer);
            }
        }
        node.rest_reserved();
        node.start(identity.incarnation, found);
        node.settle();
        node
    }

    /// A message arrived on the ring's channel.
    pub fn handle_message(&mut self, from: PeerId, bytes: &[u8], now: Instant) {
        self.now = now;
        if self.gate.halted().is_some() || from == self.me {
            return;
        }
        if self.gate.is_full() {
            self.gate.count_drop();
            return;
        }
        match Message::decode(bytes) {
            Some(message) => self.on_message(from, message),
            None => self.refuse(from, "malformed"),
        }
        self.settle();
    }

    /// The complete list of other peers, after any change.
    pub fn handle_members(&mut self, members: Vec<Member>, now: Instant) {
        self.now = now;
        if self.members != members {
            self.stir();
            self.members.clone_from(&members);
        }
        self.follow_members(members);
        self.settle();
    }

    /// How many of the peers named at launch are others, as far as is known: a name that turned
    /// out to be this peer does not count, and two that are one peer count once.
    pub fn handle_targets(&mut self, targets: usize, now: Instant) {
        self.now = now;
        self.founding.set_targets(targets);
        self.settle();
    }

    /// All addresses another peer's containers carry, whenever that peer says something else than
    /// before. Not to be called when the peer is merely gone: what it last announced counts.
    pub fn handle_announced(&mut self, peer: PeerId, addresses: &[IpAddr], now: Instant) {
        self.now = now;
        self.follow_announced(peer, addresses);
        self.settle();
    }

    /// A local client wants something. It gets exactly one [`Event::Answer`], by `deadline` at the
    /// latest if the disk answers.
    pub fn handle_request(
        &mut self,
        id: RequestId,
        request: Request,
        deadline: Instant,
        now: Instant,
    ) {
        self.now = now;
        self.stir();
        self.take_request(id, request, deadline);
        self.settle();
    }

    /// What the containers of this host really carry, once at start: those addresses are theirs.
    /// Containers that have addresses in the ledger and are not named here are gone, and their
    /// addresses are free.
    pub fn handle_running(&mut self, containers: &[(String, Vec<IpAddr>)], now: Instant) {
        self.now = now;
        self.follow_running(containers);
        self.settle();
    }

    /// The instant of [`Node::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.gate.halted().is_none() && !self.gate.is_full() {
            // What waited for its time may be over, or under way.
            if self
                .other_dues()
                .iter()
                .any(|(at, _)| at.is_some_and(|at| at <= now))
            {
                self.stir();
            }
            self.tick();
        }
        self.settle();
    }

    /// Writes up to `number` are durable.
    pub fn handle_written(&mut self, number: u64, now: Instant) {
        self.now = now;
        let written = self.gate.confirm(number);
        self.reserve.written(written);
    }

    /// Writes up to `number` outlive this process, though maybe not the host: that is enough for answers
    /// out of a reservation. A caller that cannot say so never calls this.
    pub fn handle_handed_over(&mut self, number: u64, now: Instant) {
        self.now = now;
        self.gate.hand_over(number);
    }

    /// The disk refused the write `number`. The node halts: nothing comes out any more but
    /// refusals; make a new one from what is on the disk.
    pub fn handle_write_failed(&mut self, number: u64, why: String, now: Instant) {
        self.now = now;
        self.gate.fail(alloc::format!("write {number}: {why}"));
        self.refuse_all_requests();
    }

    /// The next entry to append to the log, and its number. Numbers ascend by one.
    pub fn poll_write(&mut self) -> Option<(u64, Vec<u8>)> {
        self.gate.poll_write()
    }

    /// Something the caller has to know or do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.gate.poll_event()
    }

    /// A message to send on the ring's channel, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(PeerId, Vec<u8>)> {
        self.gate.poll_transmit()
    }

    /// When to call [`Node::handle_timeout`] next, and why.
    pub fn poll_timeout(&self) -> Option<Timeout> {
        if self.gate.halted().is_some() {
            return None;
        }
        let routine = [
            (Some(self.next_digest + self.slack), "digest"),
            (self.change_due(), "setup change"),
        ];
        let due = routine.into_iter().chain(self.other_dues());
        let due = due.filter_map(|(at, why)| Some((at?, why)));
        due.min_by_key(|(at, _)| *at)
    }

    /// When what is under way has something to do.
    fn other_dues(&self) -> [(Option<Instant>, &'static str); 11] {
        [
            (self.probes_due(), "probe"),
            (self.proposals_due(), "proposal"),
            (self.asks_due(), "ask"),
            (self.requests_due(), "request"),
            (self.reserve_due(), "reserve"),
            (self.fence_due(), "fence"),
            (self.succession_due(), "succession"),
            (self.hearsay_due(), "hearsay"),
            (self.reform_due(), "reform"),
            (self.founding_due(), "founding"),
            (self.adoption_due(), "adoption"),
        ]
    }

    /// The state as log entries, to begin a new log with. It includes every write polled so far
    /// and those still to be polled.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        self.ledger.snapshot()
    }

    /// The number of the last write queued: what [`Recovered::written`] has to be next time.
    pub fn written(&self) -> u64 {
        self.gate.queued()
    }

    /// The owner this node is.
    pub fn owner(&self) -> OwnerId {
        self.ledger.owner()
    }

    fn ring_short(&self) -> u64 {
        self.ledger.ring_id.map_or(0, |ring| ring.short())
    }

    fn tick(&mut self) {
        self.wake_requests();
        self.drive_fence();
        self.drive_founding();
        self.drive_proposals();
        self.drive_hearsay();
        self.drive_succession();
        self.drive_change();
        self.drive_reform();
        self.drive_asks();
        self.drive_reserve();
        self.drive_adoption();
        self.drive_gossip();
        self.drive_probes();
    }

    /// Takes in what the last input led to.
    fn settle(&mut self) {
        loop {
            while let Some(body) = self.loopback.pop_front() {
                let me = self.owner();
                self.on_body(me, body);
            }
            if self.gate.halted().is_some() || !core::mem::take(&mut self.is_stale) {
                break;
            }
            self.serve_requests();
            self.want();
        }
        self.expire_requests();
    }

    /// Changes durable state. Everything that comes out from now on waits for it.
    fn log(&mut self, entry: &Entry) {
        if self.gate.halted().is_some() {
            return;
        }
        self.stir();
        self.ledger.apply(entry, self.now);
        self.gate.write(entry);
    }

    fn send(&mut self, to: PeerId, body: Body) {
        if to == self.me {
            self.loopback.push_back(body);
            return;
        }
        let message = Message {
            ring: self.ring_short(),
            incarnation: self.ledger.incarnation,
            life: self.ledger.life,
            written: self.gate.queued(),
            body,
        };
        match message.encode() {
            Some(bytes) => self.gate.transmit(to, bytes),
            None => self.gate.count_drop(),
        }
    }

    /// Counts a message that was refused.
    fn refuse(&mut self, from: PeerId, why: &'static str) {
        if from == self.me {
            return;
        }
        if self.refused.len() < REFUSED_PEERS_MAX || self.refused.contains_key(&(from, why)) {
            *self.refused.entry((from, why)).or_default() += 1;
        } else {
            self.gate.count_drop();
        }
    }

    fn on_message(&mut self, from: PeerId, message: Message) {
        let now = self.now;
        let is_digest = matches!(message.body, Body::Digest(_));
        let Some(known) = self.peer_mut(from) else {
            return;
        };
        let before = (known.incarnation, known.life, known.ring);
        if known.incarnation != Some(message.incarnation) {
            known.incarnation = Some(message.incarnation);
            known.written = 0;
        }
        known.life = Some(message.life);
        known.written = known.written.max(message.written);
        let moved = known.ring != Some(message.ring);
        known.ring = Some(message.ring);
        known.heard = Some(now);
        let after = (known.incarnation, known.life, known.ring);
        if moved {
            self.is_stale = true;
        }
        if !is_digest || before != after {
            self.stir();
        }
        let owner = OwnerId {
            peer: from,
            incarnation: message.incarnation,
        };
        let is_same_ring = message.ring == self.ring_short() && message.ring != 0;
        if is_same_ring || message.body.is_between_rings() {
            self.on_body(owner, message.body);
        }
    }

    /// The highest write an owner was seen to depend on; 0 if it was never heard.
    fn seen_of(&self, owner: OwnerId) -> u64 {
        let known = self.peers.get(&owner.peer);
        let known = known.filter(|known| known.incarnation == Some(owner.incarnation));
        known.map_or(0, |known| known.written)
    }

    fn on_body(&mut self, from: OwnerId, body: Body) {
        match body {
            Body::Digest(digest) => self.on_digest(from, &digest),
            Body::Probe => self.send_digest(from.peer),
            Body::AskSetup => self.send_setup(from.peer),
            Body::Setup { ring, setup } => self.on_setup(from, ring, setup),
            Body::Push(runs) => self.on_push(from, &runs),
            Body::Sync(sync) => self.on_sync(from, &sync),
            Body::Ask { id, within, wish } => self.on_ask(from, id, within, wish),
            Body::Granting { id } => self.on_granting(from, id),
            Body::Denied { id, why } => self.on_denied(from, id, why),
            Body::Accept { id, stamp, runs } => self.on_accept(from, id, stamp, &runs),
            Body::Accepted { id, stamp } => self.on_accepted(from, id, stamp),
            Body::Declined { id, why, .. } => self.on_declined(from, id, why),
            Body::Prepare {
                id,
                stamp,
                term,
                removed,
                ranges,
            } => {
                self.on_prepare(from, (id, stamp, term), removed, &ranges);
            }
            Body::Promise {
                id,
                stamp,
                covered_to,
                cells,
                announced,
            } => {
                let announced = announced.map(|addresses| addresses.into_vec());
                self.on_promise(from, (id, stamp, covered_to), cells, announced);
            }
            Body::Read { id, cells } => self.on_read(from, id, &cells),
            Body::ReadAnswer {
                id,
                stamp,
                newer,
                seen,
            } => {
                self.on_read_answer(from, (id, stamp), (newer, seen));
            }
            Body::AskGone => self.on_ask_gone(from),
            Body::Gone(peers) => self.on_gone(peers.as_slice()),
            Body::AskAnnounced { peer, from: first } => self.on_ask_announced(from, peer, first),
            Body::Announced {
                peer,
                addresses,
                next,
            } => {
                self.on_announced(from, peer, addresses.as_slice(), next);
            }
            other => self.on_setup_body(from, other),
        }
    }

    /// Messages of setup changes and of the founding.
    fn on_setup_body(&mut self, from: OwnerId, body: Body) {
        match body {
            Body::Seal { target, ballot } => self.on_seal(from, target, ballot),
            Body::Sealed {
                target,
                ballot,
                hash,
                accepted,
            } => {
                self.on_sealed(from, (target, ballot), hash, accepted);
            }
            Body::AskState { id, from: first } => self.on_ask_state(from, id, first),
            Body::AskReform {
                id,
                after,
                target,
                from: first,
            } => self.on_ask_reform(from, (id, first), after, target),
            Body::State {
                id,
                from: first,
                hash,
                page,
            } => {
                self.on_state(from, id, (first, hash), page);
            }
            Body::Carry {
                target,
                ballot,
                part,
                page,
            } => {
                self.on_carry(from, (target, ballot), part, page);
            }
            Body::Carried {
                target,
                ballot,
                part,
            } => self.on_carried(from, (target, ballot), part),
            Body::Install {
                target,
                ballot,
                hash,
                setup,
            } => {
                self.on_install(from, (target, ballot), hash, setup);
            }
            Body::Installed { target, ballot } => self.on_installed(from, target, ballot),
            Body::Outvoted { target, n } => self.on_outvoted(target, n),
            Body::AskReformEnd(target) => self.on_ask_reform_end(from, target),
            Body::ReformEnded(target) => self.on_reform_ended(from, target),
            Body::FoundPrepare { ballot } => self.on_found_prepare(from, ballot),
            Body::FoundPromise {
                ballot,
                promised,
                accepted,
            } => {
                self.on_found_promise(from, ballot, promised, accepted);
            }
            Body::FoundAccept { ballot, foundation } => {
                self.on_found_accept(from, ballot, foundation);
            }
            Body::FoundAccepted { ballot, promised } => {
                self.on_found_accepted(from, ballot, promised);
            }
            _ => {}
        }
    }

    /// The pools of the ring; none before there is one.
    pub fn pools(&self) -> Vec<Range> {
        let setup = self.ledger.setup.as_ref();
        let pools = setup
            .map(|setup| setup.pools.as_slice())
            .unwrap_or_default();
        pools.iter().map(|pool| pool.range).collect()
    }
}
