//! Broadcast trees.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rmesh_wire::{PeerId, ShortId};

use crate::topology::Graph;

/// Where frames flooded by one source come from and go to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FloodTree {
    /// The only neighbour they are accepted from; `None` at the source itself.
    pub parent: Option<PeerId>,
    /// Neighbours to pass them on to.
    pub children: Vec<PeerId>,
}

/// The broadcast trees of all sources, each computed when it is asked for: at a thousand peers one
/// takes half a millisecond, and most sources send nothing for minutes.
#[derive(Debug, Clone, Default)]
pub struct Floods {
    given: BTreeMap<ShortId, FloodTree>,
    links: Option<(Arc<Graph>, PeerId)>,
}

impl Floods {
    /// Trees over these links, as seen from `me`.
    pub(crate) fn over(links: &Arc<Graph>, me: PeerId) -> Self {
        Floods {
            given: BTreeMap::new(),
            links: Some((Arc::clone(links), me)),
        }
    }

    /// Gives one tree by hand.
    pub fn insert(&mut self, source: ShortId, tree: FloodTree) -> Option<FloodTree> {
        self.given.insert(source, tree)
    }

    /// Everybody whose broadcasts may come by.
    pub fn sources(&self) -> impl Iterator<Item = ShortId> {
        let linked = self.links.iter().flat_map(|(graph, _)| graph.sources());
        self.given.keys().copied().chain(linked)
    }

    /// The tree of `source`; `None` if nothing of it reaches this peer.
    pub fn tree(&self, source: ShortId) -> Option<FloodTree> {
        let given = self.given.get(&source).cloned();
        let computed = || {
            let (graph, me) = self.links.as_ref()?;
            graph.flood_tree(me, source)
        };
        given.or_else(computed)
    }

    /// Whether the trees of both are the same because nothing has changed.
    pub fn are_those_of(&self, other: &Floods) -> bool {
        let same = |other: &Arc<Graph>| {
            let own = self.links.as_ref();
            own.is_some_and(|(graph, _)| Arc::ptr_eq(graph, other))
        };
        self.given == other.given && other.links.as_ref().is_some_and(|(graph, _)| same(graph))
    }
}

impl<const N: usize> From<[(ShortId, FloodTree); N]> for Floods {
    fn from(given: [(ShortId, FloodTree); N]) -> Self {
        Floods {
            given: given.into(),
            links: None,
        }
    }
}
