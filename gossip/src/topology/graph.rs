//! The published control links of all peers. A link counts only if both ends publish it; its cost
//! is the larger of the two.
//!
//! All peers with the same records compute the same trees over it: ties go to fewer hops, then to
//! the smaller parent.

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;

use rmesh_wire::{PeerId, ShortId};

use super::record::Link;
use crate::api::FloodTree;

/// The graph is made anew once so many nodes more than are there have gone.
const ABSENT_MAX: usize = 64;

/// Two nodes between which a link appeared, changed or went away.
pub(super) type Change = (usize, usize);

/// The control links of all peers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    /// A node keeps its number until the graph is made anew.
    ids: Vec<PeerId>,
    numbers: BTreeMap<PeerId, usize>,
    /// What each node publishes, in order.
    claims: Vec<Vec<(ShortId, u32)>>,
    edges: Vec<Vec<(usize, u32)>>,
    /// Nodes that nothing may go through.
    ends: BTreeSet<usize>,
}

/// How one node is reached from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) cost_us: u32,
    pub(super) hops: u8,
    pub(super) parent: usize,
}

/// Nodes to go on from, the nearest first: cost, hops and number as one number, by which most of the time of the
/// algorithm is spent.
#[derive(Default)]
pub(super) struct Frontier(BinaryHeap<Reverse<u64>>);

/// Bits of a node's number: many more than there are peers.
const NUMBER_BITS: u32 = 24;
const _: () = assert!(2 * crate::limits::PEERS_MAX + ABSENT_MAX < 1 << NUMBER_BITS);

impl Frontier {
    pub(super) fn push(&mut self, reach: Reach, at: usize) {
        let (cost, hops) = (u64::from(reach.cost_us), u64::from(reach.hops));
        let rank = (cost << 8 | hops) << NUMBER_BITS | at as u64;
        self.0.push(Reverse(rank));
    }

    /// The nearest node whose way there is still the one it was pushed with.
    pub(super) fn pop(&mut self, reach: &[Option<Reach>]) -> Option<usize> {
        while let Some(Reverse(rank)) = self.0.pop() {
            let at = (rank & ((1 << NUMBER_BITS) - 1)) as usize;
            let rank = rank >> NUMBER_BITS;
            let now = reach.get(at).copied().flatten();
            let now = now.map(|now| u64::from(now.cost_us) << 8 | u64::from(now.hops));
            if now == Some(rank) {
                return Some(at);
            }
        }
        None
    }
}

/// Links by whom they lead to, each once.
fn claimed(links: &[Link]) -> Vec<(ShortId, u32)> {
    let mut claimed: Vec<(ShortId, u32)> = links.iter().map(|l| (l.to, l.cost_us)).collect();
    claimed.sort_unstable();
    claimed.dedup_by_key(|(to, _)| *to);
    claimed
}

impl Graph {
    /// The graph that these claims make.
    pub(super) fn of<'a>(claims: impl Iterator<Item = (PeerId, &'a [Link])> + Clone) -> Self {
        let mut graph = Graph::default();
        // Everybody is there before anybody's links are looked at: only then is it known which
        // short ids mean two.
        for (peer, _) in claims.clone() {
            graph.number_or_new(&peer);
        }
        for (peer, links) in claims {
            graph.set(&peer, links);
        }
        graph
    }

    /// Lets nothing go through these.
    pub(super) fn spare(mut self, peers: impl Iterator<Item = PeerId>) -> Self {
        self.ends = peers.filter_map(|peer| self.number(&peer)).collect();
        self
    }

    /// Whether nothing may go through a peer.
    pub(super) fn is_spared(&self, peer: &PeerId) -> bool {
        let number = self.number(peer);
        number.is_some_and(|number| self.ends.contains(&number))
    }

    /// Takes over what one peer publishes, and says between whom links have changed. `None` if so
    /// little is left as it was that the graph has to be made anew.
    pub(super) fn follow(&mut self, peer: &PeerId, links: Option<&[Link]>) -> Option<Vec<Change>> {
        let known = self.numbers.contains_key(peer);
        let shared = self.sharing(peer.short_id()).any(|other| other != peer);
        match links {
            // Whom a short id means depends on who is there.
            _ if shared && known == links.is_none() => None,
            Some(links) => {
                self.number_or_new(peer);
                Some(self.set(peer, links))
            }
            None => {
                let changes = self.set(peer, &[]);
                self.numbers.remove(peer);
                let absent = self.ids.len() - self.numbers.len();
                (absent <= self.numbers.len() + ABSENT_MAX).then_some(changes)
            }
        }
    }

    /// Whether this is what the peer published before.
    pub(super) fn agrees(&self, peer: &PeerId, links: Option<&[Link]>) -> bool {
        let kept = self.number(peer).and_then(|here| self.claims.get(here));
        kept == links.map(claimed).as_ref()
    }

    fn number_or_new(&mut self, peer: &PeerId) -> usize {
        let (ids, claims, edges) = (&mut self.ids, &mut self.claims, &mut self.edges);
        *self.numbers.entry(*peer).or_insert_with(|| {
            ids.push(*peer);
            claims.push(Vec::new());
            edges.push(Vec::new());
            ids.len() - 1
        })
    }

    fn set(&mut self, peer: &PeerId, links: &[Link]) -> Vec<Change> {
        let Some(here) = self.number(peer) else {
            return Vec::new();
        };
        let claimed = claimed(links);
        let Some(kept) = self.claims.get_mut(here) else {
            return Vec::new();
        };
        let before = core::mem::replace(kept, claimed.clone());
        // Both are in order.
        let is_in = |list: &[(ShortId, u32)], link| list.binary_search(link).is_ok();
        let changed = before.iter().filter(|old| !is_in(&claimed, old));
        let new = claimed.iter().filter(|new| !is_in(&before, new));
        let mut ends: Vec<ShortId> = changed.chain(new).map(|(to, _)| *to).collect();
        ends.sort_unstable();
        ends.dedup();
        let others = ends
            .into_iter()
            .filter_map(|to| Some((to, self.place(to)?)));
        let others: Vec<(ShortId, usize)> = others.filter(|(_, at)| *at != here).collect();
        let own = peer.short_id();
        let is_named = self.place(own) == Some(here);
        let mut changes = Vec::new();
        for (to, there) in others {
            let cost = || Some(self.claim(here, to)?.max(self.claim(there, own)?));
            let cost = cost().filter(|_| is_named);
            if self.put(here, there, cost) {
                self.put(there, here, cost);
                changes.push((here, there));
            }
        }
        changes
    }

    /// The cost at which a node publishes a link.
    fn claim(&self, from: usize, to: ShortId) -> Option<u32> {
        let claims = self.claims.get(from)?;
        let at = claims.binary_search_by_key(&to, |(to, _)| *to).ok()?;
        claims.get(at).map(|(_, cost)| *cost)
    }

    /// Sets or removes one direction of a link; whether that is news.
    fn put(&mut self, from: usize, to: usize, cost: Option<u32>) -> bool {
        let Some(edges) = self.edges.get_mut(from) else {
            return false;
        };
        let at = edges.iter().position(|(other, _)| *other == to);
        match (at.and_then(|at| edges.get_mut(at)), cost) {
            (Some((_, old)), Some(new)) => core::mem::replace(old, new) != new,
            (None, Some(new)) => {
                edges.push((to, new));
                true
            }
            (Some(_), None) => {
                edges.retain(|(other, _)| *other != to);
                true
            }
            (None, None) => false,
        }
    }

    fn sharing(&self, short: ShortId) -> impl Iterator<Item = &PeerId> {
        let end = |last: u8| {
            let mut id = [last; 16];
            id[..8].copy_from_slice(&short.0);
            PeerId(id)
        };
        self.numbers.range(end(0)..=end(u8::MAX)).map(|(id, _)| id)
    }

    /// The node of a short id; one that two peers share names neither of them.
    pub(super) fn place(&self, short: ShortId) -> Option<usize> {
        let mut named = self.sharing(short);
        let peer = named.next()?;
        named.next().is_none().then(|| self.number(peer))?
    }

    /// The number of a peer that is there.
    pub(super) fn number(&self, peer: &PeerId) -> Option<usize> {
        self.numbers.get(peer).copied()
    }

    /// The peer of a number.
    pub(super) fn id(&self, number: usize) -> Option<PeerId> {
        self.ids.get(number).copied()
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// All peers that are there, in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (PeerId, usize)> {
        self.numbers.iter().map(|(peer, number)| (*peer, *number))
    }

    /// A node's links.
    pub(super) fn edges(&self, of: usize) -> &[(usize, u32)] {
        self.edges.get(of).map_or(&[], Vec::as_slice)
    }

    /// Whether one way to a node is to be preferred to another.
    pub(super) fn is_better(&self, new: Reach, old: Option<Reach>) -> bool {
        let Some(old) = old else { return true };
        let by_cost = (new.cost_us, new.hops).cmp(&(old.cost_us, old.hops));
        let id = |reach: Reach| self.ids.get(reach.parent);
        by_cost.then_with(|| id(new).cmp(&id(old))).is_lt()
    }

    /// Goes on from the frontier until no way gets better; tells `note` what each was before.
    pub(super) fn relax(
        &self,
        reach: &mut [Option<Reach>],
        frontier: &mut Frontier,
        mut note: impl FnMut(usize, Option<Reach>),
    ) {
        while let Some(at) = frontier.pop(reach) {
            let Some(here) = reach.get(at).copied().flatten() else {
                continue;
            };
            if here.hops > 0 && self.ends.contains(&at) {
                continue;
            }
            for (to, cost) in self.edges(at) {
                let candidate = Reach {
                    cost_us: here.cost_us.saturating_add(*cost),
                    hops: here.hops.saturating_add(1),
                    parent: at,
                };
                let Some(slot) = reach.get_mut(*to) else {
                    continue;
                };
                if self.is_better(candidate, *slot) {
                    note(*to, *slot);
                    *slot = Some(candidate);
                    frontier.push(candidate, *to);
                }
            }
        }
    }

    /// Dijkstra's algorithm from one node; `None` for what it cannot reach.
    pub(super) fn reach(&self, source: usize) -> Vec<Option<Reach>> {
        let mut reach: Vec<Option<Reach>> = alloc::vec![None; self.len()];
        let mut frontier = Frontier::default();
        let start = Reach {
            cost_us: 0,
            hops: 0,
            parent: source,
        };
        if let Some(slot) = reach.get_mut(source) {
            *slot = Some(start);
            frontier.push(start, source);
        }
        self.relax(&mut reach, &mut frontier, |_, _| {});
        reach
    }

    /// For every peer that links lead to from `me`: over all ways there, the least that the
    /// heaviest link of the way weighs (Prim's algorithm).
    pub(crate) fn bottlenecks(
        &self,
        me: &PeerId,
        weight: impl Fn(&PeerId, &PeerId) -> u64,
    ) -> BTreeMap<PeerId, u64> {
        let mut found: Vec<Option<u64>> = alloc::vec![None; self.len()];
        let mut queue = BinaryHeap::new();
        queue.extend(self.number(me).map(|source| Reverse((0, source))));
        while let Some(Reverse((heaviest, at))) = queue.pop() {
            let Some(slot) = found.get_mut(at).filter(|slot| slot.is_none()) else {
                continue;
            };
            *slot = Some(heaviest);
            if self.ends.contains(&at) && self.id(at) != Some(*me) {
                continue;
            }
            for (to, _) in self.edges(at) {
                let ends = self.ids.get(at).zip(self.ids.get(*to));
                let Some((here, there)) = ends.filter(|_| found.get(*to) == Some(&None)) else {
                    continue;
                };
                queue.push(Reverse((heaviest.max(weight(here, there)), *to)));
            }
        }
        let found = self.ids.iter().zip(found);
        found
            .filter_map(|(peer, heaviest)| Some((*peer, heaviest?)))
            .collect()
    }

    /// The broadcast tree of a source as seen from `me`; `None` if it does not reach `me`.
    pub(crate) fn flood_tree(&self, me: &PeerId, source: ShortId) -> Option<FloodTree> {
        let here = self.number(me)?;
        let source = self.place(source)?;
        let reach = self.reach(source);
        let own = reach.get(here).copied().flatten()?;
        let parent = (source != here).then(|| self.id(own.parent)).flatten();
        let is_child = |(to, _): &&(usize, u32)| {
            let there = reach.get(*to).copied().flatten();
            *to != source && there.is_some_and(|there| there.parent == here)
        };
        let children = self.edges(here).iter().filter(is_child);
        let mut children: Vec<PeerId> = children.filter_map(|(to, _)| self.id(*to)).collect();
        children.sort_unstable();
        Some(FloodTree { parent, children })
    }

    /// Everybody whose broadcasts may come by.
    pub(crate) fn sources(&self) -> impl Iterator<Item = ShortId> {
        self.numbers.keys().map(PeerId::short_id)
    }

    #[cfg(test)]
    pub(crate) fn new(nodes: Vec<PeerId>, links: &[(usize, usize, u32)]) -> Self {
        let mut claims = alloc::vec![Vec::new(); nodes.len()];
        for (a, b, cost_us) in links {
            for (from, to) in [(*a, *b), (*b, *a)] {
                let to = nodes[to].short_id();
                let cost_us = *cost_us;
                claims[from].push(Link { to, cost_us });
            }
        }
        let claims: Vec<_> = nodes.into_iter().zip(claims).collect();
        Graph::of(claims.iter().map(|(peer, links)| (*peer, links.as_slice())))
    }
}
