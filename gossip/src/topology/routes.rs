//! Shortest paths over the published control links, and every source's broadcast tree.
//!
//! A link counts only if both ends publish it; its cost is the larger of the two. All peers with
//! the same records compute the same trees: ties go to fewer hops, then to the smaller parent.

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use rmesh_wire::{PeerId, ShortId};

use super::Store;
use crate::api::FloodTree;

/// The control links of all peers. Nodes are numbered in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    nodes: Vec<PeerId>,
    edges: Vec<Vec<(usize, u32)>>,
}

/// How one node is reached from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reach {
    cost_us: u32,
    hops: u8,
    parent: usize,
}

/// A route to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// First hop: the peer itself if it is a neighbour on the shortest path.
    pub(crate) next_hop: PeerId,
    pub(crate) cost_us: u32,
    pub(crate) hops: u8,
}

/// Shortest routes from one peer to all it can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes(BTreeMap<PeerId, Route>);

impl Routes {
    /// Whether any route leads to `peer`.
    pub(crate) fn reaches(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// The route to `peer`.
    pub(crate) fn get(&self, peer: &PeerId) -> Option<Route> {
        self.0.get(peer).copied()
    }

    /// All routes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, Route)> {
        self.0.iter().map(|(peer, route)| (*peer, *route))
    }
}

impl Graph {
    /// The graph that the records describe.
    pub(crate) fn from_store(store: &Store) -> Self {
        let nodes: Vec<PeerId> = store.nodes().map(|(peer, _)| peer).collect();
        // Ids are in order, and so are the short ids they begin with.
        let place = |short: &ShortId| {
            let at = nodes.partition_point(|peer| peer.short_id() < *short);
            let names = |at: usize| nodes.get(at).is_some_and(|peer| peer.short_id() == *short);
            // A short id that two peers share names neither of them.
            (names(at) && !names(at + 1)).then_some(at)
        };
        let claims: Vec<Vec<(usize, u32)>> = store
            .nodes()
            .map(|(_, node)| {
                let links = node.links.as_slice().iter();
                let mut claimed: Vec<(usize, u32)> = links
                    .filter_map(|link| Some((place(&link.to)?, link.cost_us)))
                    .collect();
                claimed.sort_unstable();
                claimed.dedup_by_key(|(to, _)| *to);
                claimed
            })
            .collect();
        let both = |from: usize, to: usize, cost: u32| {
            let theirs = claims.get(to)?;
            let back = theirs.binary_search_by_key(&from, |(to, _)| *to).ok()?;
            let (_, back) = theirs.get(back)?;
            (from != to).then(|| (to, cost.max(*back)))
        };
        let edges = claims
            .iter()
            .enumerate()
            .map(|(from, links)| {
                links
                    .iter()
                    .filter_map(|(to, cost)| both(from, *to, *cost))
                    .collect()
            })
            .collect();
        Graph { nodes, edges }
    }

    fn index(&self, peer: &PeerId) -> Option<usize> {
        self.nodes.binary_search(peer).ok()
    }

    /// Dijkstra's algorithm from one node; `None` for what it cannot reach.
    fn reach(&self, source: usize) -> Vec<Option<Reach>> {
        let mut best: Vec<Option<Reach>> = alloc::vec![None; self.nodes.len()];
        let mut queue = BinaryHeap::new();
        let start = Reach {
            cost_us: 0,
            hops: 0,
            parent: source,
        };
        if let Some(slot) = best.get_mut(source) {
            *slot = Some(start);
            queue.push(Reverse((start, source)));
        }
        while let Some(Reverse((reach, at))) = queue.pop() {
            if best.get(at).copied().flatten() != Some(reach) {
                continue;
            }
            for (to, cost) in self.edges.get(at).into_iter().flatten() {
                let candidate = Reach {
                    cost_us: reach.cost_us.saturating_add(*cost),
                    hops: reach.hops.saturating_add(1),
                    parent: at,
                };
                let Some(slot) = best.get_mut(*to) else {
                    continue;
                };
                if slot.is_none_or(|known| candidate < known) {
                    *slot = Some(candidate);
                    queue.push(Reverse((candidate, *to)));
                }
            }
        }
        best
    }

    /// For every peer that links lead to from `me`: over all ways there, the least that the
    /// heaviest link of the way weighs (Prim's algorithm).
    pub(crate) fn bottlenecks(
        &self,
        me: &PeerId,
        weight: impl Fn(&PeerId, &PeerId) -> u64,
    ) -> BTreeMap<PeerId, u64> {
        let mut found: Vec<Option<u64>> = alloc::vec![None; self.nodes.len()];
        let mut queue = BinaryHeap::new();
        queue.extend(self.index(me).map(|source| Reverse((0, source))));
        while let Some(Reverse((heaviest, at))) = queue.pop() {
            let Some(slot) = found.get_mut(at).filter(|slot| slot.is_none()) else {
                continue;
            };
            *slot = Some(heaviest);
            for (to, _) in self.edges.get(at).into_iter().flatten() {
                let ends = self.nodes.get(at).zip(self.nodes.get(*to));
                let Some((here, there)) = ends.filter(|_| found.get(*to) == Some(&None)) else {
                    continue;
                };
                queue.push(Reverse((heaviest.max(weight(here, there)), *to)));
            }
        }
        let found = self.nodes.iter().zip(found);
        found
            .filter_map(|(peer, heaviest)| Some((*peer, heaviest?)))
            .collect()
    }

    /// Shortest routes from `me`.
    pub(crate) fn routes(&self, me: &PeerId) -> Routes {
        let Some(source) = self.index(me) else {
            return Routes::default();
        };
        let reach = self.reach(source);
        let mut routes = BTreeMap::new();
        for (at, peer) in self.nodes.iter().enumerate() {
            let Some(there) = reach.get(at).copied().flatten().filter(|_| at != source) else {
                continue;
            };
            if let Some(next_hop) = self.first_hop(&reach, source, at) {
                let Reach { cost_us, hops, .. } = there;
                routes.insert(
                    *peer,
                    Route {
                        next_hop,
                        cost_us,
                        hops,
                    },
                );
            }
        }
        Routes(routes)
    }

    fn first_hop(&self, reach: &[Option<Reach>], source: usize, to: usize) -> Option<PeerId> {
        let mut at = to;
        // A path cannot be longer than there are nodes.
        for _ in 0..self.nodes.len() {
            let parent = reach.get(at).copied().flatten()?.parent;
            if parent == source {
                return self.nodes.get(at).copied();
            }
            at = parent;
        }
        None
    }

    /// The broadcast tree of every source that reaches `me`, as seen from `me`.
    pub(crate) fn flood_trees(&self, me: &PeerId) -> BTreeMap<ShortId, FloodTree> {
        let Some(here) = self.index(me) else {
            return BTreeMap::new();
        };
        let mut trees = BTreeMap::new();
        for (source, peer) in self.nodes.iter().enumerate() {
            let reach = self.reach(source);
            let Some(own) = reach.get(here).copied().flatten() else {
                continue;
            };
            let parent = if source == here {
                None
            } else {
                self.nodes.get(own.parent).copied()
            };
            let is_child = |(at, reach): &(usize, &Option<Reach>)| {
                *at != source && reach.is_some_and(|reach| reach.parent == here)
            };
            let children = reach.iter().enumerate().filter(is_child);
            let children = children
                .filter_map(|(at, _)| self.nodes.get(at).copied())
                .collect();
            trees.insert(peer.short_id(), FloodTree { parent, children });
        }
        trees
    }

    #[cfg(test)]
    pub(crate) fn new(nodes: Vec<PeerId>, links: &[(usize, usize, u32)]) -> Self {
        let mut edges = alloc::vec![Vec::new(); nodes.len()];
        for (a, b, cost) in links {
            edges[*a].push((*b, *cost));
            edges[*b].push((*a, *cost));
        }
        Graph { nodes, edges }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
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
            let all: Vec<Routes> = ids.iter().map(|me| graph.routes(me)).collect();
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
        fn every_broadcast_reaches_everybody_exactly_once((count, links) in graphs()) {
            let (ids, links) = (peers(count), simple(links));
            let graph = Graph::new(ids.clone(), &links);
            let trees: Vec<_> = ids.iter().map(|me| graph.flood_trees(me)).collect();
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
                let routes = graph.routes(source);
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
            let trees = graph.flood_trees(&peers(count)[count / 2]);
            let took = start.elapsed();
            std::println!("broadcast trees of {count} sources: {took:?}");
            assert_eq!(trees.len(), count);
            assert!(took.as_millis() < bound_ms, "{took:?} for {count} sources");
        }
    }
}
