//! Which peers to keep a control link with (DESIGN D8).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::PeerId;

use super::store::{finish, fnv};
use crate::limits::FULL_MESH_PEERS_MAX;

/// Links a peer asks for among `count` peers: all of them in a small mesh, about 4 + log2 N in a
/// large one.
fn degree(count: usize) -> usize {
    let log2 = usize::try_from(count.max(1).ilog2()).unwrap_or(0);
    4 + log2
}

/// The peers `me` wants as control neighbours out of `peers` (without `me`): everybody while the
/// mesh is small; then the two next to it on a circle of hashed ids, which keeps the whole
/// connected, the nearest by round trip, and some chosen by hash. The choice only changes with
/// the set of peers, so links do not flap.
pub(crate) fn desired(
    me: &PeerId,
    peers: &[PeerId],
    round_trip: impl Fn(&PeerId) -> Option<Duration>,
) -> BTreeSet<PeerId> {
    if peers.len() < FULL_MESH_PEERS_MAX {
        return peers.iter().copied().collect();
    }
    let degree = degree(peers.len() + 1);
    let mut chosen = BTreeSet::new();
    chosen.extend(circle_neighbours(me, peers));
    let mut near: Vec<(Duration, PeerId)> = peers
        .iter()
        .filter_map(|peer| Some((round_trip(peer)?, *peer)))
        .collect();
    near.sort_unstable();
    let half = degree / 2;
    chosen.extend(
        near.into_iter()
            .map(|(_, peer)| peer)
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

fn circle_neighbours(me: &PeerId, peers: &[PeerId]) -> [PeerId; 2] {
    let place = |peer: &PeerId| finish(fnv(0x9e37_79b9_7f4a_7c15, &peer.0));
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

/// Hash of an unordered pair, so that both ends tend to choose each other.
fn pair_hash(a: &PeerId, b: &PeerId) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    finish(fnv(fnv(0xcbf2_9ce4_8422_2325, &low.0), &high.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(count: u64) -> Vec<PeerId> {
        let id = |n: u64| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&finish(n + 1).to_be_bytes());
            PeerId(id)
        };
        (0..count).map(id).collect()
    }

    fn links(peers: &[PeerId]) -> Vec<BTreeSet<PeerId>> {
        let mut links: Vec<BTreeSet<PeerId>> = alloc::vec![BTreeSet::new(); peers.len()];
        for (at, me) in peers.iter().enumerate() {
            let others: Vec<PeerId> = peers.iter().filter(|peer| *peer != me).copied().collect();
            for other in desired(me, &others, |_| None) {
                let there = peers.iter().position(|peer| *peer == other).unwrap();
                links[at].insert(other);
                links[there].insert(*me);
            }
        }
        links
    }

    #[test]
    fn meshes_of_every_size_are_connected_with_few_links() {
        for count in [2, 9, 10, 11, 50, 300] {
            let peers = mesh(count);
            let links = links(&peers);
            let mut seen = BTreeSet::from([peers[0]]);
            let mut queue = alloc::vec![0];
            while let Some(at) = queue.pop() {
                for other in &links[at] {
                    if seen.insert(*other) {
                        queue.push(peers.iter().position(|peer| peer == other).unwrap());
                    }
                }
            }
            assert_eq!(seen.len(), peers.len(), "{count} peers");
            let most = links.iter().map(BTreeSet::len).max().unwrap();
            assert!(
                most <= crate::limits::LINKS_MAX,
                "{most} links among {count}"
            );
        }
    }
}
