//! Which peers to keep a control link with (DESIGN D8).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::PeerId;

use super::Graph;
use super::record::Node;
use super::store::{finish, fnv};
use crate::limits::{FULL_MESH_PEERS_MAX, LINKS_MAX, SPARSE_PEERS_MIN};

/// Links a peer asks for among `count` peers: all of them in a small mesh, about 4 + log2 N in a
/// large one.
fn degree(count: usize) -> usize {
    let log2 = usize::try_from(count.max(1).ilog2()).unwrap_or(0);
    4 + log2
}

/// Links a leaf asks for.
const LEAF_LINKS: usize = 2;
/// The nearest of so many by hash, so that not all leaves of one place hang on the one host that is near.
const LEAF_CHOICE: usize = 4;
/// Leaves for each host that can have links with them. On average each has twice as many such links, and the most about
/// three times the average: together with its own those are no more than can be published.
const LEAVES_PER_CARRIER: usize = 5;
const _: () = assert!(3 * LEAF_LINKS * LEAVES_PER_CARRIER < LINKS_MAX);

/// Who takes which part in a large mesh.
///
/// Each link of a host behind a translator of addresses is a mapping to be kept there, so it is a leaf: it asks for
/// [`LEAF_LINKS`] links with others that are none, and is asked for none. At most two thirds of all are leaves, and at most
/// [`LEAVES_PER_CARRIER`] for each host that is open to all and carries for others, which must not have too many
/// links; of more, the hash of the id says who is one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roles {
    leaves: BTreeSet<PeerId>,
    /// Who carries nothing for others, and so is no way for a leaf.
    ends: BTreeSet<PeerId>,
}

impl Roles {
    /// Those of all peers (`me` among them) with what they say of themselves.
    pub(crate) fn of<'a>(nodes: impl Iterator<Item = (PeerId, &'a Node)>) -> Roles {
        let (mut roles, mut count) = (Roles::default(), 0);
        let mut translated = Vec::new();
        for (peer, node) in nodes {
            count += 1;
            if node.is_translated() {
                translated.push((place(&peer), peer));
            }
            if node.is_no_relay() {
                roles.ends.insert(peer);
            }
        }
        if count <= SPARSE_PEERS_MIN {
            return Roles::default();
        }
        translated.sort_unstable();
        let closed = translated.iter().map(|(_, peer)| peer);
        let open = count - closed.chain(&roles.ends).collect::<BTreeSet<_>>().len();
        let most = (count * 2 / 3).min(open * LEAVES_PER_CARRIER);
        let leaves = translated.into_iter().take(most);
        roles.leaves = leaves.map(|(_, peer)| peer).collect();
        let carrying = count - roles.leaves.union(&roles.ends).count();
        if carrying <= LEAF_LINKS {
            return Roles::default();
        }
        roles
    }

    fn is_leaf(&self, peer: &PeerId) -> bool {
        self.leaves.contains(peer)
    }

    /// The order of links by which those are kept that join all: a leaf's come last, so that nobody hangs on it.
    fn weight(&self, a: &PeerId, b: &PeerId) -> u64 {
        let leaves = u64::from(self.is_leaf(a)) + u64::from(self.is_leaf(b));
        (leaves << 62) | (pair_hash(a, b) >> 2)
    }

    /// Some by hash, and the nearest of a few; more of them until enough are known to work.
    fn links_of_leaf(
        &self,
        me: &PeerId,
        peers: &[PeerId],
        round_trip: impl Fn(&PeerId) -> Option<Duration>,
    ) -> BTreeSet<PeerId> {
        let carries = |peer: &&PeerId| !self.is_leaf(peer) && !self.ends.contains(*peer);
        let mut by_hash: Vec<(u64, PeerId)> = peers
            .iter()
            .filter(carries)
            .map(|peer| (pair_hash(me, peer), *peer))
            .collect();
        by_hash.sort_unstable();
        let near = by_hash
            .iter()
            .take(LEAF_CHOICE)
            .filter_map(|(hash, peer)| Some((nearness(round_trip(peer)?), *hash, *peer)));
        let nearest = near.min().map(|(_, _, peer)| peer);
        let mut chosen: BTreeSet<PeerId> = nearest.into_iter().collect();
        let mut working = chosen.len();
        let most = degree(peers.len() + 1);
        for (_, peer) in by_hash {
            if working >= LEAF_LINKS || chosen.len() >= most {
                break;
            }
            if chosen.insert(peer) {
                working += usize::from(round_trip(&peer).is_some());
            }
        }
        chosen
    }
}

/// The peers `me` wants as control neighbours out of `peers` (without `me`): everybody while the
/// mesh is small; then the two next to it on a circle of hashed ids, which keeps the whole
/// connected, the nearest by round trip, and some chosen by hash.
///
/// Round trips count by powers of two, alike below a millisecond, and the hash decides among
/// equals: so the choice hardly follows their jitter, links do not flap, and no peer that is near
/// to everybody is chosen by everybody.
pub(crate) fn desired(
    me: &PeerId,
    peers: &[PeerId],
    roles: &Roles,
    round_trip: impl Fn(&PeerId) -> Option<Duration>,
) -> BTreeSet<PeerId> {
    if roles.is_leaf(me) {
        return roles.links_of_leaf(me, peers, round_trip);
    }
    let peers = peers.iter().filter(|peer| !roles.is_leaf(peer));
    let peers = &*peers.copied().collect::<Vec<_>>();
    if peers.len() < FULL_MESH_PEERS_MAX {
        return peers.iter().copied().collect();
    }
    let degree = degree(peers.len() + 1);
    let mut chosen = BTreeSet::new();
    chosen.extend(circle_neighbours(me, peers));
    let mut near: Vec<(u32, u64, PeerId)> = peers
        .iter()
        .filter_map(|peer| Some((nearness(round_trip(peer)?), pair_hash(me, peer), *peer)))
        .collect();
    near.sort_unstable();
    let half = degree / 2;
    chosen.extend(
        near.into_iter()
            .map(|(_, _, peer)| peer)
            .take(half.saturating_sub(1)),
    );
    let mut random: Vec<(u64, PeerId)> = peers.iter().map(|p| (pair_hash(me, p), *p)).collect();
    random.sort_unstable();
    for (_, peer) in random {
        if chosen.len() >= degree {
            break;
        }
        chosen.insert(peer);
    }
    chosen
}

/// The peers with a direct path whose links must stay because others may not stand in for them:
/// no way of published links leads there on which every link has a smaller [`Roles::weight`].
///
/// By the cycle rule of minimum spanning trees the links that stay join all whom working paths
/// join, whatever else everybody drops at the same time; so also two sites with a single path
/// between them stay one mesh. Where everybody reaches everybody hardly any is added, because
/// [`desired`] picks links with small hashes.
pub(crate) fn bridges<'a>(
    me: &PeerId,
    direct: impl Iterator<Item = &'a PeerId>,
    published: &Graph,
    roles: &Roles,
) -> BTreeSet<PeerId> {
    let bottlenecks = published.bottlenecks(me, |a, b| roles.weight(a, b));
    let is_bridge = |peer: &&PeerId| {
        let around = bottlenecks.get(*peer);
        *peer != me && around.is_none_or(|heaviest| *heaviest >= roles.weight(me, peer))
    };
    direct.filter(is_bridge).copied().collect()
}

/// Order of magnitude of a round trip.
fn nearness(round_trip: Duration) -> u32 {
    round_trip.as_millis().max(1).ilog2()
}

fn circle_neighbours(me: &PeerId, peers: &[PeerId]) -> [PeerId; 2] {
    let here = place(me);
    let after = peers
        .iter()
        .min_by_key(|peer| place(peer).wrapping_sub(here));
    let before = peers
        .iter()
        .min_by_key(|peer| here.wrapping_sub(place(peer)));
    [
        after.copied().unwrap_or(*me),
        before.copied().unwrap_or(*me),
    ]
}

/// Where a peer is on the circle.
fn place(peer: &PeerId) -> u64 {
    finish(fnv(0x9e37_79b9_7f4a_7c15, &peer.0))
}

/// Hash of an unordered pair, so that both ends tend to choose each other.
fn pair_hash(a: &PeerId, b: &PeerId) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    finish(fnv(fnv(0xcbf2_9ce4_8422_2325, &low.0), &high.0))
}

#[cfg(test)]
mod tests {
    use rmesh_wire::codec::Bounded;

    use super::*;
    use crate::topology::Routes;

    fn mesh(count: u64) -> Vec<PeerId> {
        let id = |n: u64| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&finish(n + 1).to_be_bytes());
            PeerId(id)
        };
        (0..count).map(id).collect()
    }

    fn links(
        peers: &[PeerId],
        round_trip: impl Fn(usize, usize) -> Option<Duration>,
    ) -> Vec<BTreeSet<PeerId>> {
        let place = |peer: &PeerId| peers.iter().position(|other| other == peer).unwrap();
        let mut links: Vec<BTreeSet<PeerId>> = alloc::vec![BTreeSet::new(); peers.len()];
        for (at, me) in peers.iter().enumerate() {
            let others: Vec<PeerId> = peers.iter().filter(|peer| *peer != me).copied().collect();
            for other in desired(me, &others, &Roles::default(), |peer| {
                round_trip(at, place(peer))
            }) {
                let there = place(&other);
                links[at].insert(other);
                links[there].insert(*me);
            }
        }
        links
    }

    /// Places of peers on a plane, one unit a millisecond, or all around one that is near to all.
    fn on_a_plane(a: usize, b: usize) -> Option<Duration> {
        let place = |n: usize| {
            let hash = finish(n as u64 + 77);
            ((hash % 200) as i64, ((hash >> 32) % 200) as i64)
        };
        let ((ax, ay), (bx, by)) = (place(a), place(b));
        Some(Duration::from_millis(
            ((ax - bx).abs() + (ay - by).abs()) as u64,
        ))
    }

    fn around_a_hub(a: usize, b: usize) -> Option<Duration> {
        let millis = if a.min(b) == 0 { 10 } else { 100 };
        Some(Duration::from_millis(millis))
    }

    fn assert_connected_with_few_links(peers: &[PeerId], links: &[BTreeSet<PeerId>]) {
        let mut seen = BTreeSet::from([peers[0]]);
        let mut queue = alloc::vec![0];
        while let Some(at) = queue.pop() {
            for other in &links[at] {
                if seen.insert(*other) {
                    queue.push(peers.iter().position(|peer| peer == other).unwrap());
                }
            }
        }
        assert_eq!(seen.len(), peers.len());
        let most = links.iter().map(BTreeSet::len).max().unwrap();
        let count = peers.len();
        assert!(
            most <= crate::limits::LINKS_MAX,
            "{most} links among {count}"
        );
    }

    #[test]
    fn meshes_of_every_size_are_connected_with_few_links() {
        for count in [2, 9, 10, 11, 50, 300] {
            let peers = mesh(count);
            assert_connected_with_few_links(&peers, &links(&peers, |_, _| None));
            assert_connected_with_few_links(&peers, &links(&peers, on_a_plane));
        }
        let peers = mesh(35);
        assert_connected_with_few_links(&peers, &links(&peers, around_a_hub));
    }

    #[test]
    fn jitter_of_a_fifth_moves_few_links() {
        let peers = mesh(60);
        let shaken = |a: usize, b: usize| {
            let percent = 90 + finish((a * 1_000 + b) as u64) % 21;
            Some(on_a_plane(a, b)? * u32::try_from(percent).unwrap() / 100)
        };
        let (before, after) = (links(&peers, on_a_plane), links(&peers, shaken));
        let total: usize = before.iter().map(BTreeSet::len).sum();
        let moved = before.iter().zip(&after);
        let moved: usize = moved.map(|(b, a)| b.difference(a).count()).sum();
        assert!(moved * 4 < total, "{moved} of {total} link ends moved");
    }

    /// Peers of whom only some can reach each other, and the links they keep.
    struct Patchwork {
        peers: Vec<PeerId>,
        roles: Roles,
        paths: BTreeSet<(usize, usize)>,
    }

    impl Patchwork {
        /// Two sites with one path between them.
        fn two_sites(size: usize) -> Self {
            let all = (0..2 * size).flat_map(|a| (0..a).map(move |b| (b, a)));
            let mut paths: BTreeSet<_> = all.filter(|(a, b)| (*a < size) == (*b < size)).collect();
            paths.insert((0, size));
            let peers = mesh(2 * size as u64);
            let roles = Roles::default();
            Patchwork {
                peers,
                roles,
                paths,
            }
        }

        /// A chain with every further path of which `percent` work.
        fn random(count: usize, percent: u64, seed: u64) -> Self {
            let works = |a: usize, b: usize| {
                a == b + 1 || finish(seed ^ (a * 1_000 + b) as u64) % 100 < percent
            };
            let all = (0..count).flat_map(|a| (0..a).map(move |b| (b, a)));
            let paths = all.filter(|(b, a)| works(*a, *b)).collect();
            let peers = mesh(count as u64);
            let roles = Roles::default();
            Patchwork {
                peers,
                roles,
                paths,
            }
        }

        fn graph(&self, links: &BTreeSet<(usize, usize)>) -> Graph {
            let mut order: Vec<usize> = (0..self.peers.len()).collect();
            order.sort_by_key(|at| self.peers[*at]);
            let place = |at: usize| order.iter().position(|other| *other == at).unwrap();
            let edges: Vec<_> = links
                .iter()
                .map(|(a, b)| (place(*a), place(*b), 1))
                .collect();
            Graph::new(order.iter().map(|at| self.peers[*at]).collect(), &edges)
        }

        /// What everybody keeps who sees `published`.
        fn kept(&self, published: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
            let graph = self.graph(published);
            let mut kept = BTreeSet::new();
            for (at, me) in self.peers.iter().enumerate() {
                let works = |other: usize| self.paths.contains(&(at.min(other), at.max(other)));
                let place = |peer: &PeerId| self.peers.iter().position(|p| p == peer).unwrap();
                let others: Vec<PeerId> = self.peers.iter().filter(|p| *p != me).copied().collect();
                let trip = |peer: &PeerId| works(place(peer)).then_some(Duration::from_millis(5));
                let direct: Vec<PeerId> =
                    others.iter().filter(|p| works(place(p))).copied().collect();
                let mut wanted = desired(me, &others, &self.roles, trip);
                wanted.extend(bridges(me, direct.iter(), &graph, &self.roles));
                let wanted = wanted.iter().map(place).filter(|other| works(*other));
                kept.extend(wanted.map(|other| (at.min(other), at.max(other))));
            }
            kept
        }

        fn is_joined_by(&self, links: &BTreeSet<(usize, usize)>) -> bool {
            Routes::of(self.graph(links), &self.peers[0]).iter().count() + 1 == self.peers.len()
        }

        /// Everybody decides at once, round after round, on what was kept in the last.
        fn assert_stays_joined(&self) -> usize {
            self.settled().len()
        }

        fn settled(&self) -> BTreeSet<(usize, usize)> {
            let mut links = self.paths.clone();
            for round in 0..6 {
                links = self.kept(&links);
                assert!(self.is_joined_by(&links), "apart after round {round}");
            }
            links
        }
    }

    #[test]
    fn two_sites_with_one_path_between_them_stay_one_mesh() {
        for size in [6, 10, 20] {
            Patchwork::two_sites(size).assert_stays_joined();
        }
    }

    #[test]
    fn whom_working_paths_join_the_kept_links_join() {
        for seed in 0..20 {
            for percent in [0, 5, 30] {
                Patchwork::random(30, percent, seed).assert_stays_joined();
            }
        }
    }

    #[test]
    fn where_everybody_reaches_everybody_hardly_any_link_is_added() {
        let patchwork = Patchwork::random(100, 100, 1);
        let links = patchwork.assert_stays_joined();
        let asked_for = degree(100) * 100;
        assert!(links < asked_for, "{links} links, {asked_for} asked for");
    }

    #[test]
    fn leaves_have_few_links_whoever_reaches_whom() {
        for (percent, leaves) in [(100, 1), (100, 20), (100, 33), (30, 20), (5, 25)] {
            let mut patchwork = Patchwork::random(50, percent, 7);
            let translated = patchwork.peers.iter().take(leaves).copied();
            patchwork.roles.leaves = translated.collect();
            let links = patchwork.settled();
            let of = |at: usize| links.iter().filter(|(a, b)| [*a, *b].contains(&at)).count();
            let most = |range: core::ops::Range<usize>| range.map(of).max().unwrap_or(0);
            let (leaf, other) = (most(0..leaves), most(leaves..50));
            assert!(other <= LINKS_MAX, "{other} links of one");
            if percent == 100 {
                assert!(leaf <= LEAF_LINKS, "{leaf} links of a leaf");
            }
        }
    }

    #[test]
    fn of_many_translated_hosts_some_are_no_leaves() {
        let leaves = |count, translated| roles(&mesh(count), translated, 0).leaves.len();
        assert_eq!(leaves(60, 20), 20);
        assert_eq!(leaves(60, 45), 40);
        assert_eq!(leaves(60, 57), 15, "three others have room for no more");
        assert_eq!(leaves(32, 20), 0, "small");
    }

    #[test]
    fn where_few_carry_for_others_all_stay_joined_and_none_has_too_many_links() {
        for (translated, ends) in [(60, 37), (60, 20), (97, 0), (60, 0), (10, 80)] {
            let mut patchwork = Patchwork::random(100, 100, 7);
            patchwork.roles = roles(&patchwork.peers, translated, ends);
            patchwork.assert_stays_joined();
            let links = patchwork.settled();
            let of = |at: usize| links.iter().filter(|(a, b)| [*a, *b].contains(&at)).count();
            let most = (0..100).map(of).max().unwrap_or(0);
            assert!(most <= LINKS_MAX, "{translated}, {ends}: {most} links");
        }
    }

    /// The parts in a mesh whose first peers are translated, and of which some after them carry nothing for others.
    fn roles(peers: &[PeerId], translated: usize, ends: usize) -> Roles {
        use crate::topology::record::{NO_RELAY, TRANSLATED};
        let node = |capabilities: u32| Node {
            name: alloc::string::String::new(),
            addresses: Bounded::take_from([]),
            mtu_bytes: 1_328,
            capabilities,
            up_ms: 0,
            twin: None,
            links: Bounded::take_from([]),
            sections: 0,
            leaving: false,
        };
        let nodes = [TRANSLATED, NO_RELAY, 0].map(node);
        let which = |at| match at {
            _ if at < translated => &nodes[0],
            _ if at < translated + ends => &nodes[1],
            _ => &nodes[2],
        };
        let known = peers.iter().enumerate();
        Roles::of(known.map(|(at, peer)| (*peer, which(at))))
    }
}
