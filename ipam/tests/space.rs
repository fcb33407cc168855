//! One owner's space, against a model of single addresses, and how fast it is.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use rmesh_ipam::address::number;
use rmesh_ipam::{Hold, NoBlock, REST, Range, Space, SpaceFull, Use, usable};
use rmesh_wire::{Instant, PeerId};

/// Addresses of a window for random histories.
const WINDOW: usize = 16;

fn net(text: &str) -> Range {
    Range::from(text.parse::<IpNet>().unwrap())
}

fn ip(text: &str) -> u128 {
    number(text.parse().unwrap())
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn hold(peer: u8) -> Hold {
    Hold {
        peer: PeerId([peer; 16]),
        since: at(0),
    }
}

fn take(space: &mut Space, subnet: Range, now: Instant) -> Option<u128> {
    let found = space.pick(subnet, now, |_| false)?;
    space.allocate(found, "c").unwrap();
    Some(found)
}

#[test]
fn a_subnet_gives_every_address_a_container_can_have_once() {
    for (subnet, first, last, count) in [
        ("10.0.0.0/29", "10.0.0.1", "10.0.0.6", 6),
        ("10.0.0.2/31", "10.0.0.2", "10.0.0.3", 2),
        (
            "255.255.255.255/32",
            "255.255.255.255",
            "255.255.255.255",
            1,
        ),
        ("0.0.0.0/30", "0.0.0.1", "0.0.0.2", 2),
        ("fd00::/125", "fd00::1", "fd00::7", 7),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            2,
        ),
    ] {
        let subnet = net(subnet);
        assert_eq!(usable(subnet), Range::new(ip(first), ip(last)).unwrap());
        let mut space = Space::new();
        space.own(subnet);
        let given: Vec<u128> = std::iter::from_fn(|| take(&mut space, subnet, at(0))).collect();
        assert_eq!(given.len(), count, "{subnet}");
        assert!(given.is_sorted_by(|a, b| a < b));
        assert_eq!((given[0], given[count - 1]), (ip(first), ip(last)));
    }
}

#[test]
fn freed_addresses_rest_and_never_used_ones_come_first() {
    let subnet = net("10.0.0.0/29");
    let mut space = Space::new();
    space.own(subnet);
    let [a, b] = [(); 2].map(|()| take(&mut space, subnet, at(0)).unwrap());
    space.release(b, at(1));
    space.release(a, at(2));
    let fresh: Vec<u128> = (0..4)
        .map(|_| take(&mut space, subnet, at(2)).unwrap())
        .collect();
    assert!(!fresh.contains(&a) && !fresh.contains(&b));
    assert_eq!(take(&mut space, subnet, at(60)), None);
    assert_eq!(space.state(b, at(60)), Use::Resting(at(1)));
    assert_eq!(take(&mut space, subnet, at(100)), Some(b));
    assert_eq!(take(&mut space, subnet, at(100)), Some(a));
}

#[test]
fn grants_take_half_from_the_end_and_come_down_to_one_address() {
    let pool = net("10.32.0.0/24");
    let mut space = Space::new();
    space.own(pool);
    take(&mut space, pool, at(0)).unwrap();
    let mut grant = |bits| -> Result<Range, NoBlock> {
        let block = space.pick_block(pool, bits, at(0), |_| 1)?;
        space.begin_grant(block);
        space.disown(block);
        space.end_grant(block);
        Ok(block)
    };
    assert_eq!(grant(4), Ok(net("10.32.0.240/28")));
    assert_eq!(grant(4), Ok(net("10.32.0.224/28")));
    // The largest free blocks are 10.32.0.64/26 and 10.32.0.128/26.
    assert_eq!(grant(128), Ok(net("10.32.0.192/27")));
    let mut rest = Vec::new();
    let none = loop {
        match grant(128) {
            Ok(block) => rest.push(block),
            Err(error) => break error,
        }
    };
    assert_eq!(none, NoBlock::NoFree);
    // The network's address is of no use to anybody and stays; one is a container's.
    let granted: u128 = rest.iter().map(Range::count).sum();
    assert_eq!(granted, 256 - 16 - 16 - 32 - 2);
}

#[test]
fn a_grant_takes_from_few_runs_and_rested_addresses_last() {
    let pool = net("10.32.0.0/24");
    let mut space = Space::new();
    space.own(pool);
    // Each four addresses are a run of the ring.
    let ring_runs = |block: Range| (block.count().div_ceil(4)) as usize;
    let block = space.pick_block(pool, 128, at(0), ring_runs).unwrap();
    assert_eq!(block, net("10.32.0.224/27"));
    let [a, b] = [(); 2].map(|()| take(&mut space, pool, at(0)).unwrap());
    space.disown(net("10.32.0.128/25"));
    space.hold(net("10.32.0.64/26"), hold(7));
    for at in Range::one(b + 1).first()..ip("10.32.0.64") {
        space.allocate(at, "d").unwrap();
    }
    assert_eq!(
        space.pick_block(pool, 3, at(9), ring_runs),
        Err(NoBlock::NoFree)
    );
    space.release(a, at(9));
    assert_eq!(
        space.pick_block(pool, 3, at(10), ring_runs),
        Err(NoBlock::Resting)
    );
    assert_eq!(
        space.pick_block(pool, 3, at(69), ring_runs),
        Ok(Range::one(a))
    );
}

#[test]
fn a_container_has_its_addresses_together_and_there_is_a_bound() {
    let mut space = Space::new();
    space.own(net("fd00::/48"));
    space.allocate(ip("fd00::1"), "web").unwrap();
    space.allocate(ip("10.0.0.1"), "web").unwrap();
    space.allocate(ip("fd00::1"), "db").unwrap();
    let web: Vec<u128> = space.of_container("web").collect();
    assert_eq!(web, [ip("10.0.0.1"), ip("fd00::1")]);
    assert_eq!(space.of_container("db").count(), 0);
    assert_eq!(space.release(ip("10.0.0.1"), at(0)).as_deref(), Some("web"));
    assert_eq!(space.state(ip("10.0.0.1"), at(0)), Use::NotOwned);
    let full = (2..).find_map(|n| space.allocate(n, "many").err());
    assert_eq!(full, Some(SpaceFull));
    assert_eq!(space.allocated().count(), rmesh_ipam::ALLOCATED_MAX);
}

/// One address of the model.
#[derive(Debug, Clone, Default)]
struct Address {
    owned: bool,
    container: Option<&'static str>,
    held: Option<Hold>,
    granting: bool,
    freed: Option<Instant>,
}

impl Address {
    fn state(&self, now: Instant) -> Use {
        match (self.container, self.held, self.freed) {
            (Some(key), _, _) => Use::Allocated(key.into()),
            (_, Some(hold), _) => Use::Held(hold),
            _ if self.granting => Use::Granting,
            (_, _, Some(since)) if now.since(since) < REST => Use::Resting(since),
            (_, _, Some(_)) => Use::Rested,
            _ if self.owned => Use::Fresh,
            _ => Use::NotOwned,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Own,
    Disown,
    Allocate(&'static str),
    Release,
    Hold(u8),
    EndHold,
    Grant,
    EndGrant,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<(Step, usize, usize)>> {
    let step = prop_oneof![
        4 => Just(Step::Own),
        1 => Just(Step::Disown),
        3 => prop_oneof![Just("web"), Just("db")].prop_map(Step::Allocate),
        3 => Just(Step::Release),
        1 => (0..2u8).prop_map(Step::Hold),
        1 => Just(Step::EndHold),
        1 => Just(Step::Grant),
        1 => Just(Step::EndGrant),
        2 => (0..70u64).prop_map(Step::Wait),
    ];
    vec((step, 0..WINDOW, 0..WINDOW), 0..40)
}

/// The same step in the space and in the model.
fn apply(space: &mut Space, model: &mut [Address], range: Range, step: &Step, now: Instant) {
    let one = range.first();
    match step {
        Step::Own => space.own(range),
        Step::Disown => space.disown(range),
        Step::Allocate(key) => space.allocate(one, key).unwrap(),
        Step::Release => {
            let released = space.release(one, now);
            assert_eq!(released.as_deref(), model[0].container);
        }
        Step::Hold(peer) => space.hold(range, hold(*peer)),
        Step::EndHold => space.end_hold(range),
        Step::Grant => space.begin_grant(range),
        Step::EndGrant => space.end_grant(range),
        Step::Wait(_) => {}
    }
    for (offset, address) in model.iter_mut().enumerate() {
        match step {
            Step::Own => address.owned = true,
            Step::Disown => (address.owned, address.freed) = (false, None),
            Step::Allocate(key) if offset == 0 => {
                let container = address.container.or(Some(key));
                (address.container, address.freed) = (container, None);
            }
            Step::Release if offset == 0 && address.container.take().is_some() => {
                let unused = address.owned && address.held.is_none() && !address.granting;
                address.freed = unused.then_some(now);
            }
            Step::Hold(peer) => (address.held, address.freed) = (Some(hold(*peer)), None),
            Step::EndHold => address.held = None,
            Step::Grant => (address.granting, address.freed) = (true, None),
            Step::EndGrant => address.granting = false,
            Step::Allocate(_) | Step::Release | Step::Wait(_) => {}
        }
    }
}

/// The address the model would give.
fn expected(model: &[Address], base: u128, subnet: Range, now: Instant) -> Option<u128> {
    let usable = usable(subnet);
    let all = || {
        (base..=u128::MAX)
            .zip(model)
            .filter(move |(at, _)| usable.contains(*at))
    };
    let fresh = all().find(|(_, address)| address.state(now) == Use::Fresh);
    let rested = all().filter(|(_, address)| address.state(now) == Use::Rested);
    let oldest = rested.min_by_key(|(at, address)| (address.freed, *at));
    fresh.or(oldest).map(|(at, _)| at)
}

fn check(space: &Space, model: &[Address], base: u128, now: Instant) {
    for (at, address) in (base..=u128::MAX).zip(model) {
        assert_eq!(space.state(at, now), address.state(now));
    }
    let whole = Range::new(base, base + (WINDOW as u128 - 1)).unwrap();
    let is = |state: Use| model.iter().filter(|a| a.state(now) == state).count() as u128;
    let counts = space.counts(whole, now);
    assert_eq!(
        (counts.fresh, counts.rested),
        (is(Use::Fresh), is(Use::Rested))
    );
    assert_eq!(
        space.free_count(),
        counts.fresh + counts.rested + counts.resting
    );
    for (first, bits) in [(0, 4), (0, 3), (8, 3), (4, 2), (6, 1), (3, 0)] {
        let subnet = Range::block(base + first, bits);
        assert_eq!(
            space.pick(subnet, now, |_| false),
            expected(model, base, subnet, now)
        );
        check_block(space, subnet, now);
    }
}

fn check_block(space: &Space, subnet: Range, now: Instant) {
    let free = |at| matches!(space.state(at, now), Use::Fresh | Use::Rested);
    let is_free = |block: &Range| (block.first()..=block.last()).all(free);
    let blocks = |bits| (subnet.first()..=subnet.last()).map(move |at| Range::block(at, bits));
    let inside = |block: &Range| subnet.covers(block) && is_free(block);
    let largest = (0..=4)
        .rev()
        .find(|bits| blocks(*bits).any(|block| inside(&block)));
    match space.pick_block(subnet, 128, now, |_| 1) {
        Ok(block) => {
            assert!(inside(&block) && block.block_bits().is_some());
            assert!(block.block_bits().unwrap() <= largest.unwrap().saturating_sub(1));
        }
        Err(_) => assert!(blocks(0).all(|one| !usable(subnet).covers(&one) || !inside(&one))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_space_is_what_its_addresses_are(steps in steps()) {
        let window = WINDOW as u128;
        let ends = [0, u128::MAX - window + 1, Range::V4.first(), Range::V4.last() - window + 1];
        for base in ends {
            let (mut space, mut now) = (Space::new(), at(0));
            let mut model = vec![Address::default(); WINDOW];
            for (step, a, b) in &steps {
                let (low, high) = (*a.min(b), *a.max(b));
                let range = Range::new(base + low as u128, base + high as u128).unwrap();
                if let Step::Wait(seconds) = step {
                    now = now + Duration::from_secs(*seconds);
                }
                apply(&mut space, &mut model[low..=high], range, step, now);
                check(&space, &model, base, now);
            }
        }
    }
}

/// Mean time of `f`, over `times` calls.
fn mean(times: u32, mut f: impl FnMut()) -> Duration {
    let start = std::time::Instant::now();
    (0..times).for_each(|_| f());
    start.elapsed() / times
}

#[test]
fn an_address_costs_microseconds_in_a_space_of_ten_thousand() {
    for pool in ["10.32.0.0/12", "fd32::/48"] {
        let pool = net(pool);
        let mut space = Space::new();
        let owning = mean(1, || space.own(pool));
        for n in 0..10_000 {
            let found = space.pick(pool, at(0), |_| false).unwrap();
            space.allocate(found, &format!("container{n}")).unwrap();
        }
        let mut now = at(0);
        let churn = mean(5_000, || {
            now = now + Duration::from_millis(1);
            let found = take(&mut space, pool, now).unwrap();
            space.release(found - 7_000, now).unwrap();
        });
        let block = mean(100, || {
            space.pick_block(pool, 10, now, |_| 1).unwrap();
        });
        println!("{pool}: own {owning:?}, pick+allocate+release {churn:?}, block {block:?}");
        assert!(churn < Duration::from_micros(100), "{churn:?}");
        assert!(block < Duration::from_millis(5), "{block:?}");
        assert!(owning < Duration::from_millis(5), "{owning:?}");
    }
}
