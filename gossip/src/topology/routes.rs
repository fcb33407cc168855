//! Shortest routes over the published control links, followed change by change.
//!
//! What a change cannot have touched is not looked at again: the ways below a link that is gone or
//! has changed are forgotten, and Dijkstra's algorithm goes on from their surroundings.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use rmesh_wire::{PeerId, ShortId};

use super::Store;
use super::graph::{Change, Frontier, Graph, Reach};
use super::record::{Link, Node};

/// A route to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// First hop: the peer itself if it is a neighbour on the shortest path.
    pub(crate) next_hop: PeerId,
    pub(crate) cost_us: u32,
    pub(crate) hops: u8,
}

/// Shortest routes from one peer to all it can reach.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    graph: Arc<Graph>,
    source: Option<usize>,
    reach: Vec<Option<Reach>>,
}

/// What all peers publish.
pub(crate) trait Claims {
    /// The links of a peer, if it is there.
    fn links(&self, peer: &PeerId) -> Option<&[Link]>;
    /// The same of everybody.
    fn all(&self) -> impl Iterator<Item = (PeerId, &[Link])> + Clone;
    /// Whether a peer does not carry what is between others.
    fn is_spared(&self, peer: &PeerId) -> bool;
}

fn graph_of(claims: &impl Claims) -> Graph {
    let spared = claims.all().map(|(peer, _)| peer);
    Graph::of(claims.all()).spare(spared.filter(|peer| claims.is_spared(peer)))
}

impl Claims for Store {
    fn links(&self, peer: &PeerId) -> Option<&[Link]> {
        self.node(peer).map(|node| node.links.as_slice())
    }

    fn all(&self) -> impl Iterator<Item = (PeerId, &[Link])> + Clone {
        self.nodes()
            .map(|(peer, node)| (peer, node.links.as_slice()))
    }

    fn is_spared(&self, peer: &PeerId) -> bool {
        self.node(peer).is_some_and(Node::is_no_relay)
    }
}

/// What became of the routes.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Peers to whom another way leads now, or none, or one over another first hop.
    pub(crate) touched: BTreeSet<PeerId>,
    /// Those of them that routes lead to and did not before, or the other way round.
    pub(crate) gained: BTreeSet<PeerId>,
    pub(crate) lost: BTreeSet<PeerId>,
    /// Whether a link changed, or a peer came or went.
    pub(crate) is_news: bool,
}

impl Routes {
    /// Whether any route leads to `peer`.
    pub(crate) fn reaches(&self, peer: &PeerId) -> bool {
        self.graph
            .number(peer)
            .is_some_and(|at| Some(at) != self.source && self.at(at).is_some())
    }

    /// The route to `peer`.
    pub(crate) fn get(&self, peer: &PeerId) -> Option<Route> {
        self.route(self.graph.number(peer)?)
    }

    /// First hop towards whoever has this short id.
    pub(crate) fn next_hop(&self, destination: ShortId) -> Option<PeerId> {
        let route = self.route(self.graph.place(destination)?)?;
        Some(route.next_hop)
    }

    /// All routes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, Route)> {
        let nodes = self.graph.nodes();
        nodes.filter_map(|(peer, at)| Some((peer, self.route(at)?)))
    }

    /// The links that the routes follow.
    pub(crate) fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Peers to whom the way leads over `neighbour`, itself included.
    pub(crate) fn beyond(&self, neighbour: &PeerId) -> Vec<PeerId> {
        let mut queue: Vec<usize> = self.graph.number(neighbour).into_iter().collect();
        queue.retain(|at| {
            self.at(*at)
                .is_some_and(|reach| Some(reach.parent) == self.source)
        });
        let mut next = 0;
        while let Some(at) = queue.get(next).copied() {
            next += 1;
            queue.extend(self.below(at));
        }
        queue
            .into_iter()
            .filter_map(|at| self.graph.id(at))
            .collect()
    }

    fn at(&self, number: usize) -> Option<Reach> {
        self.reach.get(number).copied().flatten()
    }

    fn route(&self, to: usize) -> Option<Route> {
        let source = self.source.filter(|source| *source != to)?;
        let Reach { cost_us, hops, .. } = self.at(to)?;
        let mut at = to;
        // A path cannot be longer than there are nodes.
        for _ in 0..self.reach.len() {
            let parent = self.at(at)?.parent;
            if parent == source {
                let next_hop = self.graph.id(at)?;
                return Some(Route {
                    next_hop,
                    cost_us,
                    hops,
                });
            }
            at = parent;
        }
        None
    }

    /// Follows what the `changed` peers claim now.
    pub(crate) fn follow(
        &mut self,
        me: &PeerId,
        claims: &impl Claims,
        changed: &BTreeSet<PeerId>,
    ) -> Followed {
        let mut changes: Vec<Change> = Vec::new();
        let mut came_or_went = false;
        for peer in changed {
            let links = claims.links(peer);
            let is_same = claims.is_spared(peer) == self.graph.is_spared(peer);
            // While it stays as it is so do the broadcast trees that were computed over it.
            if is_same && self.graph.agrees(peer, links) {
                continue;
            }
            came_or_went |= links.is_some() != self.graph.number(peer).is_some();
            if !is_same {
                return self.begin_anew(me, claims);
            }
            match Arc::make_mut(&mut self.graph).follow(peer, links) {
                Some(more) => changes.extend(more),
                None => return self.begin_anew(me, claims),
            }
        }
        if self.graph.number(me) != self.source {
            return self.begin_anew(me, claims);
        }
        let mut followed = self.repair(&changes);
        followed.is_news |= came_or_went;
        followed
    }

    fn begin_anew(&mut self, me: &PeerId, claims: &impl Claims) -> Followed {
        let before: BTreeMap<PeerId, Route> = self.iter().collect();
        self.graph = Arc::new(graph_of(claims));
        self.source = self.graph.number(me);
        self.reach = self
            .source
            .map_or_else(Vec::new, |source| self.graph.reach(source));
        let after: BTreeMap<PeerId, Route> = self.iter().collect();
        let all = || before.keys().chain(after.keys()).copied();
        let is_touched = |peer: &PeerId| before.get(peer) != after.get(peer);
        Followed {
            touched: all().filter(is_touched).collect(),
            gained: all().filter(|peer| !before.contains_key(peer)).collect(),
            lost: all().filter(|peer| !after.contains_key(peer)).collect(),
            is_news: true,
        }
    }

    /// Brings the routes up to date with changed links.
    fn repair(&mut self, changes: &[Change]) -> Followed {
        self.reach.resize(self.graph.len(), None);
        let mut before: BTreeMap<usize, Option<Reach>> = BTreeMap::new();
        let cut = self.forget_below(changes, &mut before);
        let mut frontier = Frontier::default();
        let graph = Arc::clone(&self.graph);
        // Every node beside one that was cut off, or at a link that changed, may lead on.
        let beside = cut.iter().flat_map(|at| graph.edges(*at));
        let ends = changes.iter().flat_map(|(a, b)| [*a, *b]);
        for at in beside.map(|(at, _)| *at).chain(ends) {
            if let Some(reach) = self.at(at) {
                frontier.push(reach, at);
            }
        }
        graph.relax(&mut self.reach, &mut frontier, |at, old| {
            before.entry(at).or_insert(old);
        });
        self.tell(&before, !changes.is_empty())
    }

    /// Forgets every way that leads over a changed link.
    fn forget_below(
        &mut self,
        changes: &[Change],
        before: &mut BTreeMap<usize, Option<Reach>>,
    ) -> Vec<usize> {
        let ways = changes.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
        let is_way = |(from, to): &(usize, usize)| {
            Some(*to) != self.source && self.at(*to).is_some_and(|reach| reach.parent == *from)
        };
        let mut cut: Vec<usize> = ways.filter(is_way).map(|(_, to)| to).collect();
        cut.sort_unstable();
        cut.dedup();
        let mut next = 0;
        while let Some(at) = cut.get(next).copied() {
            next += 1;
            let below = self.below(at);
            let Some(old) = self.reach.get_mut(at).and_then(Option::take) else {
                continue;
            };
            before.insert(at, Some(old));
            cut.extend(below);
        }
        cut
    }

    /// Nodes that are reached over `at` as the last hop before them.
    fn below(&self, at: usize) -> Vec<usize> {
        let is_below = |to: &usize| {
            Some(*to) != self.source && self.at(*to).is_some_and(|reach| reach.parent == at)
        };
        let others = self.graph.edges(at).iter().map(|(to, _)| *to);
        others.filter(is_below).collect()
    }

    fn tell(&self, before: &BTreeMap<usize, Option<Reach>>, is_news: bool) -> Followed {
        let mut followed = Followed {
            is_news,
            ..Followed::default()
        };
        let mut queue: Vec<usize> = Vec::new();
        for (at, old) in before {
            let (now, Some(peer)) = (self.at(*at), self.graph.id(*at)) else {
                continue;
            };
            if now == *old {
                continue;
            }
            queue.push(*at);
            match (old.is_some(), now.is_some()) {
                (false, true) => followed.gained.insert(peer),
                (true, false) => followed.lost.insert(peer),
                (true, true) | (false, false) => false,
            };
        }
        // Whoever lies beyond may be reached over another first hop now.
        while let Some(at) = queue.pop() {
            if let Some(peer) = self.graph.id(at)
                && followed.touched.insert(peer)
            {
                queue.extend(self.below(at));
            }
        }
        followed
    }
}

#[cfg(test)]
impl Routes {
    /// All routes from one peer, computed at once.
    pub(crate) fn of(graph: Graph, me: &PeerId) -> Self {
        let source = graph.number(me);
        let reach = source.map_or_else(Vec::new, |source| graph.reach(source));
        Routes {
            graph: Arc::new(graph),
            source,
            reach,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::api::FloodTree;
    use proptest::prelude::*;

    fn peers(count: usize) -> Vec<PeerId> {
        let id = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            PeerId(id)
        };
        (0..count).map(id).collect()
    }

    fn graphs() -> impl Strategy<Value = (usize, Vec<(usize, usize, u32)>)> {
        (2usize..12).prop_flat_map(|count| {
            let link = (0..count, 0..count, 1u32..9);
            (Just(count), prop::collection::vec(link, 0..30))
        })
    }

    /// Keeps one link per pair and none from a node to itself.
    fn simple(links: Vec<(usize, usize, u32)>) -> Vec<(usize, usize, u32)> {
        let mut once = BTreeMap::new();
        for (a, b, cost) in links.into_iter().filter(|(a, b, _)| a != b) {
            once.insert((a.min(b), a.max(b)), cost);
        }
        once.into_iter()
            .map(|((a, b), cost)| (a, b, cost))
            .collect()
    }

    fn trees(graph: &Graph, me: &PeerId) -> BTreeMap<ShortId, FloodTree> {
        let tree = |source| Some((source, graph.flood_tree(me, source)?));
        graph.sources().filter_map(tree).collect()
    }

    impl Claims for BTreeMap<PeerId, Vec<Link>> {
        fn links(&self, peer: &PeerId) -> Option<&[Link]> {
            self.get(peer).map(Vec::as_slice)
        }

        fn all(&self) -> impl Iterator<Item = (PeerId, &[Link])> + Clone {
            self.iter().map(|(peer, links)| (*peer, links.as_slice()))
        }

        /// Some are, and not all the time.
        fn is_spared(&self, peer: &PeerId) -> bool {
            let links = self.get(peer).and_then(|links| links.first());
            links.is_some_and(|link| link.cost_us == 4)
        }
    }

    /// What one peer publishes next: nothing if it is gone, and otherwise links and their costs.
    type Step = (usize, Option<Vec<(usize, u32)>>);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let links = prop::collection::vec((0usize..9, 1u32..5), 0..7);
        prop::collection::vec((0usize..9, prop::option::weighted(0.9, links)), 1..60)
    }

    fn floyd_warshall(count: usize, links: &[(usize, usize, u32)]) -> Vec<Vec<u32>> {
        let mut cost = alloc::vec![alloc::vec![u32::MAX / 4; count]; count];
        for (at, row) in cost.iter_mut().enumerate() {
            row[at] = 0;
        }
        for (a, b, c) in links {
            cost[*a][*b] = *c;
            cost[*b][*a] = *c;
        }
        for k in 0..count {
            for i in 0..count {
                for j in 0..count {
                    cost[i][j] = cost[i][j].min(cost[i][k] + cost[k][j]);
                }
            }
        }
        cost
    }

    proptest! {
        #[test]
        fn routes_cost_what_the_oracle_says_and_end_at_their_goal((count, links) in graphs()) {
            let (ids, links) = (peers(count), simple(links));
            let graph = Graph::new(ids.clone(), &links);
            let oracle = floyd_warshall(count, &links);
            let all: Vec<Routes> = ids.iter().map(|me| Routes::of(graph.clone(), me)).collect();
            for a in 0..count {
                for b in (0..count).filter(|b| *b != a) {
                    let expected = (oracle[a][b] < u32::MAX / 4).then_some(oracle[a][b]);
                    prop_assert_eq!(all[a].get(&ids[b]).map(|route| route.cost_us), expected);
                    let mut at = a;
                    for _ in 0..count {
                        let Some(route) = all[at].get(&ids[b]).filter(|_| at != b) else { break };
                        at = ids.iter().position(|id| *id == route.next_hop).unwrap();
                    }
                    prop_assert!(expected.is_none() || at == b);
                }
            }
        }

        #[test]
        fn followed_change_by_change_the_routes_are_those_computed_at_once(steps in steps(), twins in any::<bool>()) {
            let mut ids = peers(9);
            if twins {
                // Two that share a short id name neither.
                ids[8] = PeerId(core::array::from_fn(|at| ids[7].0[at] | u8::from(at == 15)));
            }
            let (mut claims, mut routes) = (BTreeMap::new(), Routes::default());
            for (peer, links) in steps {
                let link = |(to, cost_us)| Link { to: PeerId::short_id(&ids[to]), cost_us };
                match links {
                    Some(links) => claims.insert(ids[peer], links.into_iter().map(link).collect()),
                    None => claims.remove(&ids[peer]),
                };
                let before: BTreeMap<PeerId, Route> = routes.iter().collect();
                let followed = routes.follow(&ids[0], &claims, &BTreeSet::from([ids[peer]]));
                let oracle = Routes::of(graph_of(&claims), &ids[0]);
                let after: BTreeMap<PeerId, Route> = routes.iter().collect();
                prop_assert_eq!(&after, &oracle.iter().collect());
                for id in &ids {
                    let (old, new) = (before.get(id), after.get(id));
                    prop_assert!(old == new || followed.touched.contains(id));
                    let through = new.filter(|route| route.hops > 1).map(|route| route.next_hop);
                    prop_assert!(through.is_none_or(|hop| !claims.is_spared(&hop)));
                    prop_assert_eq!(followed.gained.contains(id), old.is_none() && new.is_some());
                    prop_assert_eq!(followed.lost.contains(id), old.is_some() && new.is_none());
                    let trees = [&routes, &oracle].map(|r| r.graph().flood_tree(&ids[0], id.short_id()));
                    prop_assert_eq!(&trees[0], &trees[1]);
                }
            }
        }

        #[test]
        fn every_broadcast_reaches_everybody_exactly_once((count, links) in graphs()) {
            let (ids, links) = (peers(count), simple(links));
            let graph = Graph::new(ids.clone(), &links);
            let trees: Vec<_> = ids.iter().map(|me| trees(&graph, me)).collect();
            for source in &ids {
                let mut got = alloc::vec![0; count];
                let mut queue = alloc::vec![*source];
                while let Some(at) = queue.pop() {
                    let here = ids.iter().position(|id| *id == at).unwrap();
                    got[here] += 1;
                    prop_assert!(got[here] == 1, "delivered twice");
                    for child in &trees[here][&source.short_id()].children {
                        let there = ids.iter().position(|id| id == child).unwrap();
                        let parent = trees[there][&source.short_id()].parent;
                        prop_assert_eq!(parent, Some(at));
                        queue.push(*child);
                    }
                }
                let routes = Routes::of(graph.clone(), source);
                for (peer, got) in ids.iter().zip(got) {
                    prop_assert_eq!(got == 1, peer == source || routes.reaches(peer));
                }
            }
        }
    }

    /// A ring with chords, as the overlay makes it.
    fn overlay_like(count: usize) -> Graph {
        let mut links = BTreeMap::new();
        for at in 0..count {
            for chord in [1, 7, 19, 41] {
                let to = (at * 5 + chord * 3 + 1) % count;
                let cost = u32::try_from(500 + (at * 31 + chord * 17) % 4_000).unwrap();
                for to in [to, (at + 1) % count] {
                    if at != to {
                        links.insert((at.min(to), at.max(to)), cost);
                    }
                }
            }
        }
        let links: Vec<_> = links.into_iter().map(|((a, b), c)| (a, b, c)).collect();
        Graph::new(peers(count), &links)
    }

    #[test]
    fn trees_of_all_sources_are_computed_in_little_time() {
        for (count, bound_ms) in [(50, 20), (300, 500), (1_000, 5_000)] {
            let graph = overlay_like(count);
            let start = std::time::Instant::now();
            let trees = trees(&graph, &peers(count)[count / 2]);
            let took = start.elapsed();
            std::println!("broadcast trees of {count} sources: {took:?}");
            assert_eq!(trees.len(), count);
            assert!(took.as_millis() < bound_ms, "{took:?} for {count} sources");
        }
    }
}
