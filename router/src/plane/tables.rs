//! The immutable snapshot that workers read, built from the mesh's [`Forwarding`].

use foldhash::{HashMap, HashMapExt as _};
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use rmesh_gossip::api::{FloodTree, Floods};
use rmesh_gossip::limits::SESSION_LIFETIME;
use rmesh_gossip::{Forwarding, Path, PeerForwarding, ProbeMarks, SessionKeys, SourcePorts};
use rmesh_wire::datagram::{HEADER_LEN, TAG_LEN};
use rmesh_wire::{Mac, PeerId, ShortId, relay};

use super::api::PathKind;
use super::session::Session;
use super::stats::PeerStats;

/// Peers that are gone whose counters are kept, about 0.2 KiB each.
const GONE_MAX: usize = 1_024;

/// Everything a worker needs to decide, as of one publish.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) me: PeerId,
    pub(crate) me_short: ShortId,
    pub(crate) boot_random: u64,
    pub(crate) probe_marks: ProbeMarks,
    /// By the index datagrams arrive with.
    sessions: HashMap<u32, Arc<Session>>,
    peers: HashMap<PeerId, Peer>,
    /// `None` where two peers share the short id: nobody is meant then.
    by_short: HashMap<ShortId, Option<PeerId>>,
    next_hops: HashMap<ShortId, PeerId>,
    macs: HashMap<Mac, PeerId>,
    trees: Arc<Trees>,
    /// Counters of every peer that is reachable or has a session, and of those lately gone: one
    /// that comes back goes on counting.
    stats: HashMap<PeerId, Counted>,
    /// Sessions that lately left the snapshot, and when. Should one come back, it goes on counting:
    /// starting again would use nonces twice. None comes back after [`SESSION_LIFETIME`].
    retired: Vec<(Instant, Arc<Session>)>,
    /// Sessions whose cipher is not spoken here.
    pub(crate) unusable_sessions: u64,
}

/// The broadcast trees, each computed once, by the worker that needs it first.
#[derive(Default)]
struct Trees {
    of: Floods,
    computed: HashMap<ShortId, OnceLock<Option<FloodTree>>>,
}

impl Trees {
    fn new(of: Floods) -> Self {
        let computed = of.sources().map(|source| (source, OnceLock::new()));
        Trees {
            computed: computed.collect(),
            of,
        }
    }

    fn of(&self, source: ShortId) -> Option<&FloodTree> {
        let tree = self.computed.get(&source)?;
        tree.get_or_init(|| self.of.tree(source)).as_ref()
    }
}

/// One reachable peer.
pub(crate) struct Peer {
    session: Option<Arc<Session>>,
    forwarding: PeerForwarding,
    /// Its address, if it is reached directly.
    toward: Option<Toward>,
}

impl Peer {
    fn new(session: Option<Arc<Session>>, forwarding: PeerForwarding) -> Self {
        let toward = match forwarding.path {
            Some(Path::Direct(address)) => Some(Toward {
                address,
                source_ports: forwarding.source_ports,
            }),
            // Whoever publishes a snapshot puts the socket that stands for a TCP connection here.
            Some(Path::Relay(_) | Path::Tcp(_)) | None => None,
        };
        Peer {
            session,
            forwarding,
            toward,
        }
    }

    fn direct(&self) -> Option<(&Session, u32, &Toward)> {
        let session = self.session.as_deref()?;
        Some((session, self.forwarding.path_epoch, self.toward.as_ref()?))
    }
}

/// Counters of one peer.
#[derive(Clone)]
struct Counted {
    stats: Arc<PeerStats>,
    /// When the peer was found to be gone; `None` while it is there.
    gone: Option<Instant>,
}

/// An address that datagrams go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Toward {
    pub(crate) address: SocketAddr,
    /// From which source ports they may, besides the one listened at.
    pub(crate) source_ports: SourcePorts,
}

/// How a sealed payload gets to a peer.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    /// Session with the peer itself.
    pub(crate) session: &'a Session,
    pub(crate) epoch: u32,
    /// The neighbour that relays, and the epoch of the path to it.
    pub(crate) relay: Option<(&'a Session, u32)>,
    pub(crate) destination: &'a Toward,
    /// Largest payload one record may carry, in bytes.
    pub(crate) payload_len_max: usize,
    /// Whether a search found that; it is assumed otherwise.
    pub(crate) is_len_found: bool,
}

impl Route<'_> {
    /// The kind of path this is.
    pub(crate) fn kind(&self) -> PathKind {
        match self.relay {
            None => PathKind::Direct,
            Some(_) => PathKind::Relay,
        }
    }
}

impl Tables {
    /// Builds the next snapshot. Sessions and counters that `old` has already are carried on.
    pub(crate) fn build(
        forwarding: Forwarding,
        old: &Tables,
        workers: usize,
        now: Instant,
    ) -> Tables {
        let mut stats = StatsOf {
            old,
            workers,
            of: HashMap::new(),
        };
        let mut tables = Tables {
            me: forwarding.me,
            me_short: forwarding.me.short_id(),
            boot_random: forwarding.boot.random,
            probe_marks: forwarding.probe_marks,
            next_hops: forwarding.next_hops.into_iter().collect(),
            macs: forwarding.macs.into_iter().collect(),
            trees: match forwarding.floods.are_those_of(&old.trees.of) {
                true => Arc::clone(&old.trees),
                false => Arc::new(Trees::new(forwarding.floods)),
            },
            ..Tables::default()
        };
        for keys in &forwarding.sessions {
            match session(keys, old, &mut stats) {
                Some(session) => {
                    tables.sessions.insert(keys.local_index, session);
                }
                None => tables.unusable_sessions += 1,
            }
        }
        for (id, forwarding) in forwarding.peers {
            let session = forwarding
                .session
                .and_then(|index| tables.sessions.get(&index))
                .filter(|session| session.peer == id)
                .cloned();
            stats.get(id);
            tables.add_short(id);
            tables.peers.insert(id, Peer::new(session, forwarding));
        }
        tables.stats = stats.finish(now);
        tables.retire(old, now);
        tables
    }

    /// Keeps what `old` had and this snapshot has not.
    fn retire(&mut self, old: &Tables, now: Instant) {
        let left = old.sessions.values().map(|session| (now, session));
        let before = old.retired.iter().map(|(since, session)| (*since, session));
        for (since, session) in before.chain(left) {
            let same = |kept: &Arc<Session>| Arc::ptr_eq(kept, session);
            let is_in_use = self.sessions.get(&session.local_index).is_some_and(same);
            if !is_in_use && now.saturating_duration_since(since) < SESSION_LIFETIME {
                self.retired.push((since, Arc::clone(session)));
            }
        }
    }

    fn add_short(&mut self, id: PeerId) {
        match self.by_short.entry(id.short_id()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Some(id));
            }
            Entry::Occupied(mut shared) => {
                shared.insert(None);
            }
        }
    }

    pub(crate) fn session(&self, local_index: u32) -> Option<&Session> {
        self.sessions.get(&local_index).map(Arc::as_ref)
    }

    /// Counters by peer.
    pub(crate) fn stats(&self) -> impl Iterator<Item = (PeerId, &PeerStats)> {
        self.stats.iter().map(|(id, of)| (*id, of.stats.as_ref()))
    }

    /// Counters of one.
    pub(crate) fn stats_of(&self, peer: PeerId) -> Option<&PeerStats> {
        self.stats.get(&peer).map(|of| of.stats.as_ref())
    }

    /// The peer a short id means, if exactly one is known by it.
    pub(crate) fn resolve(&self, short: ShortId) -> Option<PeerId> {
        self.by_short.get(&short).copied().flatten()
    }

    /// Who announced `mac`.
    #[inline]
    pub(crate) fn announced(&self, mac: Mac) -> Option<PeerId> {
        self.macs.get(&mac).copied()
    }

    /// Broadcast tree of `source`.
    pub(crate) fn flood_tree(&self, source: ShortId) -> Option<&FloodTree> {
        self.trees.of(source)
    }

    /// Whether broadcasts of `source` may come by.
    pub(crate) fn is_source(&self, source: ShortId) -> bool {
        self.trees.computed.contains_key(&source)
    }

    /// Neighbour that brings a relayed datagram nearer to `destination`.
    pub(crate) fn next_hop(&self, destination: ShortId) -> Option<PeerId> {
        self.next_hops.get(&destination).copied()
    }

    /// Session, epoch and address of a peer reached directly.
    pub(crate) fn direct(&self, id: PeerId) -> Option<(&Session, u32, &Toward)> {
        self.peers.get(&id)?.direct()
    }

    /// How to reach `id`; `None` while there is no session or no path.
    pub(crate) fn route(&self, id: PeerId) -> Option<Route<'_>> {
        let peer = self.peers.get(&id)?;
        let (relay, destination, overhead) = match (&peer.toward, peer.forwarding.path?) {
            (Some(toward), _) => (None, toward, 0),
            (None, Path::Relay(neighbour)) => {
                let (session, epoch, toward) = self.direct(neighbour)?;
                (Some((session, epoch)), toward, relay::OVERHEAD)
            }
            (None, Path::Direct(_) | Path::Tcp(_)) => return None,
        };
        let datagram_len_max = usize::from(peer.forwarding.datagram_len_max);
        Some(Route {
            session: peer.session.as_deref()?,
            epoch: peer.forwarding.path_epoch,
            relay,
            destination,
            payload_len_max: datagram_len_max.saturating_sub(HEADER_LEN + TAG_LEN + overhead),
            is_len_found: peer.forwarding.is_len_found,
        })
    }
}

/// Counters by peer, carried on from the snapshot before.
struct StatsOf<'a> {
    old: &'a Tables,
    workers: usize,
    of: HashMap<PeerId, Counted>,
}

impl StatsOf<'_> {
    fn get(&mut self, peer: PeerId) -> Arc<PeerStats> {
        let carried = |of: &Counted| Arc::clone(&of.stats);
        let fresh = || Arc::new(PeerStats::new(self.workers));
        let present = || Counted {
            stats: self.old.stats.get(&peer).map_or_else(fresh, carried),
            gone: None,
        };
        carried(self.of.entry(peer).or_insert_with(present))
    }

    /// A session that is carried on goes on with the counters it has.
    fn go_on(&mut self, session: &Session) {
        let counted = || Counted {
            stats: Arc::clone(&session.stats),
            gone: None,
        };
        self.of.entry(session.peer).or_insert_with(counted);
    }

    /// With the counters of those that are gone, of the latest if there are too many.
    fn finish(mut self, now: Instant) -> HashMap<PeerId, Counted> {
        let gone = self.old.stats.iter();
        let gone = gone.filter(|(peer, _)| !self.of.contains_key(peer));
        let since = |of: &Counted| of.gone.unwrap_or(now);
        let mut gone: Vec<_> = gone.map(|(peer, of)| (since(of), *peer, of)).collect();
        if gone.len() > GONE_MAX {
            gone.sort_unstable_by_key(|(since, peer, _)| (std::cmp::Reverse(*since), *peer));
            gone.truncate(GONE_MAX);
        }
        for (since, peer, of) in gone {
            let (stats, gone) = (Arc::clone(&of.stats), Some(since));
            self.of.insert(peer, Counted { stats, gone });
        }
        self.of
    }
}

fn session(keys: &SessionKeys, old: &Tables, stats: &mut StatsOf<'_>) -> Option<Arc<Session>> {
    let retired = old.retired.iter().map(|(_, session)| session);
    let mut candidates = old
        .sessions
        .get(&keys.local_index)
        .into_iter()
        .chain(retired);
    if let Some(session) = candidates.find(|session| session.is_of(keys)) {
        stats.go_on(session);
        return Some(Arc::clone(session));
    }
    Session::new(keys, stats.get(keys.peer)).map(Arc::new)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rmesh_gossip::crypto::Key;
    use rmesh_wire::handshake::Cipher;

    fn keys(peer: u8, local_index: u32, key: u8, cipher: Cipher) -> SessionKeys {
        SessionKeys {
            peer: PeerId([peer; 16]),
            local_index,
            remote_index: local_index,
            cipher,
            seal_key: Key::new([key; 32]),
            open_key: Key::new([key; 32]),
        }
    }

    fn reached(session: Option<u32>, path: Path) -> PeerForwarding {
        PeerForwarding {
            session,
            path: Some(path),
            path_epoch: 0,
            datagram_len_max: 1252,
            is_len_found: true,
            source_ports: SourcePorts::default(),
        }
    }

    fn sample() -> Forwarding {
        let chacha = Cipher::ChaCha20Poly1305;
        let direct = Path::Direct("192.0.2.1:6783".parse().unwrap());
        let relayed = Path::Relay(PeerId([1; 16]));
        Forwarding {
            sessions: vec![keys(1, 10, 1, chacha), keys(2, 20, 2, chacha)],
            peers: [
                (PeerId([1; 16]), reached(Some(10), direct)),
                (PeerId([2; 16]), reached(Some(20), relayed)),
                (PeerId([3; 16]), reached(Some(10), direct)),
            ]
            .into(),
            ..Forwarding::default()
        }
    }

    #[test]
    fn sessions_outlast_publishes_unless_their_keys_change() {
        let first = Tables::build(sample(), &Tables::default(), 1, Instant::now());
        let mut next = sample();
        next.sessions[1].seal_key = Key::new([9; 32]);
        let second = Tables::build(next, &first, 1, Instant::now());
        assert!(Arc::ptr_eq(&first.sessions[&10], &second.sessions[&10]));
        assert!(!Arc::ptr_eq(&first.sessions[&20], &second.sessions[&20]));
        let stats = [&first, &second].map(|tables| &tables.sessions[&20].stats);
        assert!(
            Arc::ptr_eq(stats[0], stats[1]),
            "counters go on over rekeys"
        );
    }

    #[test]
    fn a_session_that_comes_back_goes_on_counting() {
        let now = Instant::now();
        let first = Tables::build(sample(), &Tables::default(), 1, now);
        let without = Tables::build(Forwarding::default(), &first, 1, now);
        assert!(without.session(10).is_none());
        let again = Tables::build(sample(), &without, 1, now);
        assert!(Arc::ptr_eq(&first.sessions[&10], &again.sessions[&10]));
        assert!(again.retired.is_empty());
        let later = now + SESSION_LIFETIME;
        let forgotten = Tables::build(Forwarding::default(), &without, 1, later);
        assert!(forgotten.retired.is_empty());
    }

    #[test]
    fn a_peer_that_comes_back_goes_on_counting() {
        let (now, peer) = (Instant::now(), PeerId([2; 16]));
        let sent = |tables: &Tables| {
            let mut of = tables.stats().filter(|(id, _)| *id == peer);
            of.next().unwrap().1.counters().total().bytes_sent
        };
        let first = Tables::build(sample(), &Tables::default(), 1, now);
        let count = |tables: &Tables, index| {
            let session = tables.session(index).unwrap();
            session.stats.of(0).count_sent(PathKind::Relay, 1, 100);
        };
        count(&first, 20);
        let without = Tables::build(Forwarding::default(), &first, 1, now);
        assert_eq!(sent(&without), 100);
        let mut renewed = sample();
        renewed.sessions[1] = keys(2, 30, 9, Cipher::ChaCha20Poly1305);
        let again = Tables::build(renewed, &without, 1, now);
        count(&again, 30);
        assert_eq!(sent(&again), 200, "under another session too");
    }

    #[test]
    fn counters_of_the_gone_are_bounded_and_the_latest_stay() {
        let begin = Instant::now();
        let mut tables = Tables::default();
        for number in 0..GONE_MAX + 2 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let present = reached(None, Path::Relay(PeerId([1; 16])));
            let peers = [(PeerId(id), present)].into();
            let forwarding = Forwarding {
                peers,
                ..Forwarding::default()
            };
            let now = begin + std::time::Duration::from_millis(number as u64);
            tables = Tables::build(forwarding, &tables, 1, now);
        }
        assert_eq!(tables.stats().count(), GONE_MAX + 1, "one is there");
        assert!(!tables.stats.contains_key(&PeerId([0; 16])), "the first");
    }

    #[test]
    fn routes_know_their_overhead_and_whose_session_it_is() {
        let tables = Tables::build(sample(), &Tables::default(), 1, Instant::now());
        let direct = tables.route(PeerId([1; 16])).unwrap();
        let relayed = tables.route(PeerId([2; 16])).unwrap();
        assert_eq!(direct.payload_len_max, 1252 - 32);
        assert_eq!(relayed.payload_len_max, 1252 - 32 - 48);
        assert_eq!(relayed.destination, direct.destination);
        assert!(tables.direct(PeerId([2; 16])).is_none());
        assert!(tables.route(PeerId([3; 16])).is_none(), "another's session");
    }

    #[test]
    fn both_ciphers_are_spoken_and_shared_short_ids_mean_nobody() {
        let mut forwarding = sample();
        let (path, mut twin) = (forwarding.peers[&PeerId([1; 16])], [1; 16]);
        twin[15] = 9;
        forwarding.peers.insert(PeerId(twin), path);
        forwarding.sessions[1].cipher = Cipher::Aes256Gcm;
        let tables = Tables::build(forwarding, &Tables::default(), 1, Instant::now());
        assert_eq!(tables.unusable_sessions, 0);
        assert!(tables.session(20).is_some());
        assert_eq!(tables.resolve(ShortId([1; 8])), None);
        assert_eq!(tables.resolve(ShortId([2; 8])), Some(PeerId([2; 16])));
    }
}
