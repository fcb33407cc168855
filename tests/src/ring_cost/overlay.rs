//! The control links of a large mesh, as `rmesh_gossip` chooses them where all round trips are alike.

use std::collections::BTreeSet;

/// Neighbours of each of `count` peers: the two beside it on a circle and the ones with the smallest
/// hashes of the pair, about 4 + log2 N in all, and those that chose it.
pub(super) fn links(count: usize) -> Vec<BTreeSet<usize>> {
    let degree = 4 + count.ilog2() as usize;
    let mut links = vec![BTreeSet::new(); count];
    for me in 0..count {
        let mut chosen = BTreeSet::from([(me + 1) % count, (me + count - 1) % count]);
        let mut others: Vec<usize> = (0..count).filter(|other| *other != me).collect();
        others.sort_by_cached_key(|other| pair_hash(me, *other));
        let missing = degree.saturating_sub(chosen.len());
        chosen.extend(others.into_iter().take(missing));
        for other in chosen {
            links[me].insert(other);
            links[other].insert(me);
        }
    }
    links
}

/// The same both ways (the finisher of SplitMix64).
fn pair_hash(one: usize, other: usize) -> u64 {
    let pair = (one.min(other) as u64) << 32 | one.max(other) as u64;
    let hash = pair.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
