//! The ring: the node that knows who owns which address, with its ledger on the disk and the mesh that
//! carries its messages.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rmesh_gossip::Mesh;
use rmesh_ipam::{
    Answer, Event, Found, Founding, Identity, Ledger, Member, Node, Outlook, Range, Recovered,
    Refusal, Report, Request, RequestId,
};
use rmesh_wire::payload::RING_CHANNEL;
use rmesh_wire::{Instant, PeerId};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::ledger::{self, Alive, Folded, News, Place, Standing, Tail, Writer};
use crate::state::KnownRing;

/// Entries under way to the disk; beyond it the node keeps them.
const WRITES_MAX: u64 = 4_096;

/// Names of peers that are remembered: those of a large mesh.
const NAMES_MAX: usize = 1_024;

/// A host is awake about this often anyway: what is routine need not wake it.
const ROUTINE_SLACK: Duration = Duration::from_millis(1_500);

/// Where the answer to a request goes.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Refusal>>;

/// What a ring is made with.
#[derive(Debug, Clone)]
pub(crate) struct RingOptions {
    /// This peer.
    pub(crate) me: PeerId,
    /// The pools to propose if there is no ring yet.
    pub(crate) pools: Vec<IpNet>,
    /// How many other peers are configured, one of which may have a ring.
    pub(crate) targets: usize,
    /// How many peers found it together; by default those configured and this one.
    pub(crate) init_peers: Option<usize>,
    /// The ring this peer was last in.
    pub(crate) remembered: KnownRing,
}

/// What is shown of the ring.
#[derive(Debug, Clone, Default)]
pub(crate) struct RingView {
    /// What the node says; nothing while the disk does not let there be one.
    pub(crate) report: Option<Report>,
    /// The pools this peer proposes where there is no ring yet.
    pub(crate) pools: Vec<IpNet>,
    /// Pools that routes of this host lead elsewhere, in words.
    pub(crate) overlaps: Vec<String>,
    /// Why nothing can be written down, if that is so.
    pub(crate) refused: Option<String>,
    /// The ledger that could not be used, where it was moved, and why.
    pub(crate) aside: Option<String>,
    /// The ring whose ledger was lost, if this peer founded another one instead and is alone in it.
    pub(crate) lost: Option<String>,
    /// Names of other peers, those of the time before the start too; [`NAMES_MAX`] at most.
    pub(crate) names: BTreeMap<PeerId, String>,
    /// Entries made durable since the start.
    pub(crate) entries_written: u64,
    /// Commits that took: each is one sync of the disk.
    pub(crate) commits: u64,
    /// Writes that the disk refused.
    pub(crate) writes_failed: u64,
}

/// The node and everything around it.
pub(super) struct Ring {
    options: RingOptions,
    node: Option<Node>,
    writer: Writer,
    /// When this daemon was last there, for the next one.
    alive: Alive,
    /// What is on its way to the disk, for the next one.
    tail: Tail,
    /// The first write with which it was noted that the ledger is the newest: before it is durable, a next
    /// daemon would not use the tail.
    noted_from: Option<u64>,
    /// Whether it is sure that the ledger is the newest there is.
    vouched: bool,
    queued: u64,
    confirmed: u64,
    waiting: BTreeMap<RequestId, Reply>,
    next_request: u64,
    view: RingView,
    /// Pools that have been compared with the routes of this host.
    compared: Option<Vec<IpNet>>,
    /// Whether what containers carry has to be compared with the ledger again.
    is_new: bool,
    had_ring: bool,
    /// Whether it founds a ring although it was in one.
    is_second: bool,
    has_new_names: bool,
}

/// What makes a snapshot of the entries of a ledger.
pub(crate) fn fold(entries: &[&[u8]]) -> Result<Folded, String> {
    let ledger = Ledger::fold(entries.iter().copied(), Instant::ZERO);
    let ledger = ledger.map_err(|error| format!("an entry cannot be read: {error}"))?;
    Ok(Folded {
        snapshot: ledger.snapshot(),
        incarnation: ledger.incarnation(),
    })
}

impl Ring {
    /// Finds the ledger and starts to write it; also returns where the disk's news arrives.
    ///
    /// # Errors
    /// There is no thread or no random number to be had. A disk that refuses is no error: it is tried
    /// again, and until then no address is handed out.
    pub(super) fn start(
        options: RingOptions,
        place: Place,
        now: Instant,
    ) -> io::Result<(Self, UnboundedReceiver<News>)> {
        let (file, found, refused) = match place.open() {
            Ok((file, found)) => (Some(file), Some(found), None),
            Err(error) => (None, None, Some(error.to_string())),
        };
        let names = options.remembered.names.iter().take(NAMES_MAX);
        let names = names.cloned().collect();
        let (alive, tail) = (Alive::beside(&place.token), Tail::beside(&place.token));
        let (writer, news) = Writer::start(place, file)?;
        let mut ring = Ring {
            options,
            node: None,
            writer,
            alive,
            tail,
            noted_from: None,
            vouched: false,
            queued: 0,
            confirmed: 0,
            waiting: BTreeMap::new(),
            next_request: 0,
            view: RingView {
                names,
                ..RingView::default()
            },
            compared: None,
            is_new: false,
            had_ring: false,
            is_second: false,
            has_new_names: false,
        };
        if let Some(why) = refused {
            tracing::error!("{why}: no addresses are handed out until the disk takes writes");
            ring.view.refused = Some(why);
        }
        if let Some(found) = found {
            ring.begin(found, now)?;
        }
        Ok((ring, news))
    }

    /// A node that goes on from what was found on the disk.
    fn begin(&mut self, found: ledger::Found, now: Instant) -> io::Result<()> {
        if let Some((path, why)) = &found.aside {
            let words = format!(
                "the ledger of addresses was unusable ({why}) and has been moved to {}: a new one was \
                 begun, what containers carry is claimed again and the old space comes back by itself",
                path.display()
            );
            tracing::error!("{words}");
            self.view.aside = Some(words);
        }
        let entries = found.entries.iter().map(Vec::as_slice);
        // It was folded when it was found, so it can be.
        let ledger = Ledger::fold(entries, now).map_err(io::Error::other)?;
        let recovered = Recovered {
            ledger,
            written: found.written,
            found: match found.standing {
                Standing::Nothing => Found::Nothing,
                Standing::Current => Found::Current {
                    down_for: self.alive.down_for(),
                },
                Standing::Unproven => Found::Unproven,
                Standing::RolledBack => Found::RolledBack,
            },
        };
        self.vouched = found.standing != Standing::Unproven;
        (self.queued, self.confirmed) = (found.written, found.written);
        self.tail.begin(found.written);
        self.noted_from = None;
        let founding = self.founding();
        self.is_second =
            found.standing == Standing::Nothing && matches!(founding, Founding::Found { .. });
        let node = Node::new(identity(self.options.me)?, recovered, founding, now);
        let node = node.with_slack(ROUTINE_SLACK);
        if !node.is_fenced() {
            self.alive.note();
        }
        self.node = Some(node);
        let remembered = self.with_remembered(Vec::new());
        if let Some(node) = &mut self.node {
            node.handle_members(remembered, now);
        }
        self.view.refused = None;
        self.is_new = true;
        Ok(())
    }

    fn founding(&self) -> Founding {
        let pools = self
            .options
            .pools
            .iter()
            .copied()
            .map(Range::from)
            .collect();
        let init_peers = self.options.init_peers;
        match (self.options.targets, init_peers) {
            (0, None) => Founding::Found { pools },
            (targets, init_peers) => Founding::Join {
                pools,
                targets,
                init_peers,
            },
        }
    }

    /// What is shown of it.
    pub(super) fn view(&self, now: Instant) -> RingView {
        RingView {
            report: self.node.as_ref().map(|node| node.report(now)),
            pools: self.options.pools.clone(),
            ..self.view.clone()
        }
    }

    /// What there is to know beyond that, and who owns these addresses.
    pub(super) fn outlook(&self, addresses: &[IpAddr], now: Instant) -> Option<Outlook> {
        let node = self.node.as_ref()?;
        Some(node.outlook(addresses, now))
    }

    /// When [`Ring::handle_timeout`] is wanted.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.node.as_ref()?.poll_timeout()?.0)
    }

    /// The time of [`Ring::deadline`] has come.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_due = self.deadline().is_some_and(|at| at <= now);
        if let Some(node) = self.node.as_mut().filter(|_| is_due) {
            node.handle_timeout(now);
        }
    }

    /// A message of another peer's ring.
    pub(super) fn handle_message(&mut self, from: PeerId, bytes: &[u8], now: Instant) {
        if let Some(node) = &mut self.node {
            node.handle_message(from, bytes, now);
        }
    }

    /// A local client wants something; it gets its answer by `deadline`.
    pub(super) fn handle_request(
        &mut self,
        request: Request,
        deadline: Instant,
        reply: Reply,
        now: Instant,
    ) {
        let Some(node) = &mut self.node else {
            let why = self.view.refused.clone().unwrap_or_default();
            drop(reply.send(Err(Refusal::Disk(why))));
            return;
        };
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.waiting.insert(id, reply);
        node.handle_request(id, request, deadline, now);
    }

    /// What the containers of this host carry, all of them.
    pub(super) fn handle_running(&mut self, running: &[(String, Vec<IpAddr>)], now: Instant) {
        if let Some(node) = &mut self.node {
            node.handle_running(running, now);
        }
    }

    /// Whether what containers carry is to be told now: after a start, and when a ring was joined.
    pub(super) fn wants_running(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Once a second: is the ledger proven to be the newest by now, is there a ring?
    pub(super) fn handle_second(&mut self, now: Instant) {
        let Some(node) = &mut self.node else { return };
        // What may be done any time about now is done while the thread is awake.
        node.handle_timeout(now);
        // Before a daemon that was away for long has proven its ledger, it is as if it were still away.
        if !node.is_fenced() {
            self.alive.note();
        }
        if self.vouched && self.had_ring {
            return;
        }
        let report = node.report(now);
        if !self.had_ring && report.ring.is_some() {
            (self.had_ring, self.is_new) = (true, true);
        }
        if !self.vouched && report.fence.is_none() {
            self.vouched = true;
            let incarnation = node.owner().incarnation;
            self.writer.write(Vec::new(), Some(incarnation));
        }
    }

    /// Once a second: what is to be remembered of the ring, if that is new. A second one that this peer
    /// founded alone is not, until another peer is in it or the daemon is started anew.
    pub(super) fn ring_to_remember(&mut self, now: Instant) -> Option<KnownRing> {
        let ring = self.node.as_ref()?.ring_id()?.to_string();
        let is_same = self.options.remembered.ring == ring;
        if !is_same && self.is_lost(now) {
            return None;
        }
        self.view.lost = None;
        if is_same && !self.has_new_names {
            return None;
        }
        self.has_new_names = false;
        let names = self.view.names.clone().into_iter().collect();
        let known = KnownRing { ring, names };
        if known == self.options.remembered {
            return None;
        }
        self.options.remembered = known.clone();
        Some(known)
    }

    /// Whether the ring there is was founded by this peer alone although it was in another one.
    fn is_lost(&mut self, now: Instant) -> bool {
        let lost = self.options.remembered.ring.clone();
        let report = self.node.as_ref().map(|node| node.report(now));
        let mut owners = report.iter().flat_map(|report| report.owners.keys());
        let is_alone = owners.all(|owner| owner.peer == self.options.me);
        if lost.is_empty() || !self.is_second || !is_alone {
            return false;
        }
        if self.view.lost.is_none() {
            tracing::error!("{}", lost_in_words(&lost));
        }
        self.view.lost = Some(lost);
        true
    }

    /// All other members, also those that the mesh does not know since the start: they have names.
    fn with_remembered(&mut self, members: Vec<Member>) -> Vec<Member> {
        let mut all = members;
        for member in all.iter().filter(|member| !member.name.is_empty()) {
            let has_room =
                self.view.names.len() < NAMES_MAX || self.view.names.contains_key(&member.peer);
            if has_room && self.view.names.get(&member.peer) != Some(&member.name) {
                self.view.names.insert(member.peer, member.name.clone());
                self.has_new_names = true;
            }
        }
        let known: BTreeSet<PeerId> = all.iter().map(|member| member.peer).collect();
        let others = self
            .view
            .names
            .iter()
            .filter(|(peer, _)| !known.contains(peer));
        all.extend(others.map(|(peer, name)| Member {
            peer: *peer,
            name: name.clone(),
            reachable: false,
            neighbour: false,
            listed: false,
        }));
        all
    }

    /// The pools of the ring; none before there is one.
    pub(super) fn pools(&self) -> Vec<Range> {
        self.node.as_ref().map(Node::pools).unwrap_or_default()
    }

    /// The pools, if they have to be compared with the routes of this host: once after they changed.
    /// Who joins a ring cannot choose its pools, only say what is wrong with them here.
    pub(super) fn pools_to_compare(&mut self) -> Option<Vec<IpNet>> {
        let ranges = self.pools();
        let nets = ranges
            .iter()
            .filter_map(|range| range.to_string().parse().ok());
        let mut pools: Vec<IpNet> = nets.collect();
        if pools.is_empty() {
            pools.clone_from(&self.options.pools);
        }
        if self.compared.as_ref() == Some(&pools) {
            return None;
        }
        self.compared = Some(pools.clone());
        Some(pools)
    }

    /// The routes of this host may have changed.
    pub(super) fn compare_again(&mut self) {
        self.compared = None;
    }

    /// Pools that routes of this host lead elsewhere, in words.
    pub(super) fn handle_overlaps(&mut self, overlaps: Vec<String>) {
        for new in overlaps
            .iter()
            .filter(|words| !self.view.overlaps.contains(words))
        {
            tracing::warn!("{new}: containers with such an address are not reached from this host");
        }
        self.view.overlaps = overlaps;
    }

    /// What became of writes.
    pub(super) fn handle_news(&mut self, news: News, mesh: &mut Mesh, now: Instant) {
        match news {
            News::Written(number) => {
                self.view.entries_written += number.saturating_sub(self.confirmed);
                self.view.commits += 1;
                self.confirmed = number;
                self.tail.confirm(number);
                if let Some(node) = &mut self.node {
                    node.handle_written(number, now);
                }
            }
            News::Failed(number, why) => {
                self.view.writes_failed += 1;
                self.view.refused = Some(why.clone());
                if let Some(node) = &mut self.node {
                    node.handle_write_failed(number, why, now);
                }
            }
            News::Reopened(found) => {
                self.writer.resume();
                if let Err(error) = self.begin(*found, now) {
                    tracing::error!("the ledger cannot be gone on with: {error}");
                }
                mesh.tell_again();
            }
        }
    }

    /// Takes in what the mesh has to tell, and hands out what follows.
    pub(super) fn settle(&mut self, mesh: &mut Mesh, now: Instant) {
        if self.node.is_none() {
            return;
        }
        if let Some(members) = mesh.poll_members() {
            let members = self.with_remembered(members.into_iter().map(member).collect());
            let Some(node) = &mut self.node else { return };
            node.handle_members(members, now);
            self.options.targets = mesh.targets_of_others();
            node.handle_targets(self.options.targets, now);
        }
        let Some(node) = &mut self.node else { return };
        while let Some((peer, addresses)) = mesh.poll_announced() {
            node.handle_announced(peer, &addresses, now);
        }
        self.write(now);
        self.tell();
        self.transmit(mesh, now);
    }

    fn write(&mut self, now: Instant) {
        let Some(node) = &mut self.node else { return };
        let mut entries = Vec::new();
        while self.queued - self.confirmed < WRITES_MAX {
            let Some((number, entry)) = node.poll_write() else {
                break;
            };
            self.queued = number;
            entries.push(entry);
        }
        if entries.is_empty() {
            return;
        }
        let is_noted = self.noted_from.is_some_and(|from| self.confirmed >= from);
        if self.tail.hand_over(&entries) && is_noted {
            node.handle_handed_over(self.queued, now);
        }
        let vouched = self.vouched.then(|| node.owner().incarnation);
        if vouched.is_some() {
            self.noted_from.get_or_insert(self.queued);
        }
        self.writer.write(entries, vouched);
    }

    fn tell(&mut self) {
        let Some(node) = &mut self.node else { return };
        while let Some(event) = node.poll_event() {
            match event {
                Event::Answer { id, result } => {
                    // An answer nobody waits for any more is dropped.
                    let reply = self.waiting.remove(&id);
                    drop(reply.map(|reply| reply.send(result)));
                }
                Event::Claimed { container, address } => {
                    tracing::info!("{address} of container {container} is owned by this peer now");
                }
                Event::Notice(words) => tracing::warn!("{words}"),
            }
        }
    }

    fn transmit(&mut self, mesh: &mut Mesh, now: Instant) {
        let Some(node) = &mut self.node else { return };
        while let Some((to, bytes)) = node.poll_transmit() {
            mesh.handle_channel_send(to, RING_CHANNEL, &bytes, now);
        }
    }

    /// Writes what is still to be written and ends. Nothing is given away.
    pub(super) fn finish(mut self, now: Instant) {
        if let Some(node) = &mut self.node {
            node.handle_stop(now);
        }
        self.write(now);
        self.writer.finish();
    }
}

/// What an operator has to know of a ring that this host is not in any more.
pub(crate) fn lost_in_words(ring: &str) -> String {
    format!(
        "the ledger of addresses was lost and a new ring was founded: if other hosts have the old one \
         ({ring}), connect to them: rmesh connect HOST; until then both may hand out the same addresses"
    )
}

fn identity(me: PeerId) -> io::Result<Identity> {
    let (mut seed, mut incarnation) = ([0; 32], [0; 8]);
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    getrandom::fill(&mut incarnation).map_err(io::Error::other)?;
    Ok(Identity {
        me,
        // Zero is nobody's.
        incarnation: u64::from_be_bytes(incarnation).max(1),
        seed,
    })
}

fn member(member: rmesh_gossip::Member) -> Member {
    Member {
        peer: member.peer,
        name: member.name,
        reachable: member.reachable,
        neighbour: member.neighbour,
        listed: member.listed,
    }
}
