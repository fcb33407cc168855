//! The scene: peers join one after the other, settle, and are watched.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{Range, address};

use super::world::{What, World};
use super::{Cost, Scene, overlay};
use crate::heap;

/// Peers that everybody reaches while they join, so that the witnesses are among them.
const CORE: usize = 5;
/// One peer starts after the other in this time.
const START_EVERY: Duration = Duration::from_millis(100);
/// The witnesses are five after this time.
const GROWTH: Duration = Duration::from_secs(10);
/// Rings are equal after so many times this, at the latest.
const SETTLE: Duration = Duration::from_secs(10);
const SETTLE_MAX: usize = 30;
/// For so long nothing changes.
const QUIET: Duration = Duration::from_secs(60);

pub(super) fn measure(scene: &Scene) -> Cost {
    let mut world = World::new(scene.peers, scene.seed);
    let links = overlay::links(scene.peers);
    let before = heap::held();
    join(&mut world, scene.peers);
    for (host, links) in links.iter().enumerate() {
        world.tell_members(
            host,
            |other| host < CORE || other < CORE || links.contains(&other),
            |other| links.contains(&other),
        );
    }
    until_equal(&mut world);
    for (host, links) in links.iter().enumerate() {
        world.tell_members(host, |_| true, |other| links.contains(&other));
        world.run_for(Duration::from_millis(20));
    }
    for is_v6 in [false, true] {
        (0..scene.peers).for_each(|host| world.allocate(host, is_v6));
    }
    until_equal(&mut world);
    let per_peer = |bytes: usize| bytes.saturating_sub(before) as f64 / scene.peers as f64;
    let heap_settled = per_peer(heap::held());
    let quiet_bytes_per_s = watch(&mut world, QUIET).0;
    let allocation_messages = allocations(&mut world);
    let changes = plan(&mut world, scene);
    let (mean_bytes_per_s, worst_bytes_per_s) = watch(&mut world, scene.watched);
    let worst_second = world.meter.worst_second as f64;
    until_equal(&mut world);
    let heap_after = per_peer(heap::held());
    let held = heap::held();
    let ring = world.hosts[0].node.ring().clone();
    let heap_ring = heap::held().saturating_sub(held) as f64;
    drop(ring);
    assert_eq!(world.refused, Vec::<String>::new(), "a change failed");
    Cost {
        heap_settled,
        heap_after,
        heap_ring,
        mean_bytes_per_s,
        worst_bytes_per_s,
        worst_second,
        quiet_bytes_per_s,
        allocation_messages,
        changes,
        neighbours: links.iter().map(|near| near.len() as f64).sum::<f64>() / links.len() as f64,
    }
}

/// All join and get their first blocks. Nobody has neighbours yet: what is chosen is told later.
fn join(world: &mut World, peers: usize) {
    let pools = ["10.32.0.0/12", "fd84:228d:1783::/48"];
    let pools = pools.map(|text| Range::from(text.parse::<ipnet::IpNet>().expect("a prefix")));
    for host in 0..peers {
        world.start(&pools);
        if host < CORE {
            (0..=host).for_each(|one| world.tell_members(one, |_| true, |_| true));
            world.run_for(GROWTH / CORE as u32);
        } else {
            world.tell_members(host, |other| other < CORE, |_| false);
            world.run_for(START_EVERY);
        }
        if host + 1 == CORE {
            world.run_for(GROWTH);
        }
    }
    world.run_for(SETTLE);
}

/// Lets time go on until all rings are equal and everybody owns something.
fn until_equal(world: &mut World) {
    for _ in 0..SETTLE_MAX {
        world.run_for(SETTLE);
        let hash = world.hosts[0].node.ring().hash();
        let is_equal = world
            .hosts
            .iter()
            .all(|host| host.node.ring().hash() == hash);
        if is_equal && world.hosts.iter().all(|host| host.node.usable().len() > 1) {
            return;
        }
    }
    panic!("the rings are not equal after {SETTLE_MAX} times {SETTLE:?}");
}

/// Bytes a second, of a peer on average and of the worst one.
fn watch(world: &mut World, time: Duration) -> (f64, f64) {
    world.reset_meter();
    world.run_for(time);
    let bytes = &world.meter.bytes;
    let (sum, worst) = (bytes.iter().sum::<u64>(), bytes.iter().max().copied());
    let per_s = |bytes: f64| bytes / time.as_secs_f64();
    (
        per_s(sum as f64 / bytes.len() as f64),
        per_s(worst.unwrap_or(0) as f64),
    )
}

/// Each peer gives one address more of its own; no time goes on, so all that is sent is due to that.
fn allocations(world: &mut World) -> u64 {
    world.reset_meter();
    (0..world.hosts.len()).for_each(|host| world.allocate(host, false));
    world.meter.messages
}

/// Each peer claims its part of addresses in the block of a peer on the other side of the circle, at
/// random moments of the time that is watched.
fn plan(world: &mut World, scene: &Scene) -> usize {
    let rounds = scene.watched.as_secs_f64() / scene.change_every.as_secs_f64();
    let count = world.hosts.len();
    let changes = (rounds * count as f64).round() as usize;
    for change in 0..changes {
        let host = change % count;
        let round = change / count;
        let address = spare(world, (host + count / 2) % count, round);
        let after = scene.watched.mul_f64(world.random.unit());
        world.schedule(after, What::Claim { host, address });
    }
    changes
}

/// An address that a peer owns and is not about to use: in the middle of its first block.
fn spare(world: &World, host: usize, number: usize) -> IpAddr {
    let usable = world.hosts[host].node.usable();
    let blocks = usable.into_iter().filter(|range| range.is_v4());
    let block = blocks.max_by_key(Range::count).expect("a block of IPv4");
    address::address(block.first() + block.count() / 2 + number as u128 * 2)
}
