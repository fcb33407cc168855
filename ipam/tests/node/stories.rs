//! What the protocol promises, told one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use rmesh_ipam::{Answer, Found, Founding, Refusal, Request};

use crate::world::{CURRENT, World, allocate, ip, ms, pool, secs};

const POOL: &str = "10.32.0.0/16";

/// A world whose first `count` hosts run and own something.
pub(crate) fn settled(count: usize, pools: &[&str]) -> World {
    let mut world = World::new(count, pools, 7).started();
    let owns = move |world: &World| {
        (0..count).all(|at| world.hosts[at].node().report(world.now).v4.free() > 0)
    };
    assert!(world.wait(secs(10), owns), "everybody gets a first block");
    world
}

/// The same, with so many witnesses, and a second more.
pub(crate) fn settled_with_witnesses(count: usize, witnesses: usize) -> World {
    let mut world = settled(count, &[POOL]);
    let have = move |world: &World| (0..count).all(|at| world.witnesses(at) == witnesses);
    assert!(world.wait(secs(5), have), "the set of witnesses grows");
    world.run(secs(1));
    world
}

/// Which hosts are witnesses by what host `at` knows, and which are not.
pub(crate) fn witnesses_and_others(world: &World, at: usize) -> (Vec<usize>, Vec<usize>) {
    let setup = world.hosts[at].node().report(world.now).setup;
    let setup = setup.expect("there is a ring");
    let is_witness = |at: &usize| {
        let node = world.hosts[*at].node.as_ref();
        node.is_some_and(|node| setup.has_witness(node.owner()))
    };
    (0..world.hosts.len()).partition(is_witness)
}

#[test]
fn a_founder_allocates_at_once_and_alone() {
    let mut world = World::new(1, &[POOL, "fd32::/48"], 1).started();
    assert_eq!(world.attach(0, "web"), Ok(ip("10.32.0.1")));
    assert_eq!(
        world.attach(0, "web"),
        Ok(ip("10.32.0.1")),
        "the same container, the same address"
    );
    assert_eq!(world.attach(0, "db"), Ok(ip("10.32.0.2")));
    let v6 = Request::Allocate {
        container: "web".into(),
        subnet: None,
        wants_v6: true,
    };
    assert_eq!(
        world.ask(0, v6, secs(1)),
        Ok(Answer::Address(ip("fd32::1")))
    );
    let subnet = Request::Allocate {
        container: "web".into(),
        subnet: Some(pool("10.32.7.0/24")),
        wants_v6: false,
    };
    assert_eq!(
        world.ask(0, subnet, secs(1)),
        Ok(Answer::Address(ip("10.32.7.1")))
    );
}

#[test]
fn everybody_gets_a_block_on_joining_and_allocates_through_a_cut() {
    let mut world = settled(3, &[POOL]);
    world.groups = vec![0, 1, 2];
    world.run(secs(1));
    let given: BTreeSet<_> = (0..3).map(|at| world.attach(at, "web").unwrap()).collect();
    assert_eq!(given.len(), 3);
    world.groups = vec![0, 0, 0];
    assert!(world.wait(secs(10), World::rings_are_equal));
}

#[test]
fn the_witness_set_grows_with_the_third_and_the_fifth_member() {
    for (count, witnesses) in [(2, 1), (3, 3), (5, 5), (6, 5)] {
        let mut world = World::new(count, &[POOL], 3).started();
        let grown = |world: &World| (0..count).all(|at| world.witnesses(at) == witnesses);
        assert!(
            world.wait(secs(5), grown),
            "{count} members, {witnesses} witnesses"
        );
        world.run(secs(5));
        assert!(grown(&world));
    }
}

#[test]
fn a_chosen_address_comes_from_its_owner_or_is_refused_with_the_holder_named() {
    let mut world = settled(2, &[POOL]);
    let claim = |container: &str, address: &str| Request::Claim {
        container: container.into(),
        address: ip(address),
    };
    assert_eq!(
        world.ask(1, claim("web", "10.32.9.9"), secs(2)),
        Ok(Answer::Address(ip("10.32.9.9")))
    );
    assert_eq!(
        world.ask(1, claim("web", "192.0.2.1"), secs(2)),
        Ok(Answer::OutsidePools)
    );
    let reserved = world.ask(1, claim("web", "10.32.0.0"), secs(2));
    assert_eq!(reserved, Err(Refusal::Reserved(ip("10.32.0.0"))));
    let taken = world.attach(0, "db").unwrap();
    let refused = world
        .ask(1, claim("web", &taken.to_string()), secs(2))
        .unwrap_err();
    assert!(refused.to_string().contains("host0"), "{refused}");
    world.groups = vec![0, 1];
    world.run(secs(1));
    let silent = world
        .ask(1, claim("web", "10.32.9.10"), secs(2))
        .unwrap_err();
    assert!(silent.to_string().contains("host0"), "{silent}");
}

#[test]
fn a_full_pool_says_who_owns_the_rest_and_for_how_long_it_tried() {
    let mut world = settled(3, &["10.32.0.0/26"]);
    world.groups = vec![0, 1, 2];
    world.run(secs(1));
    let refused = loop {
        let name = format!("c{}", world.hosts[2].containers.len());
        match world.ask(2, allocate(&name), secs(2)) {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    let text = refused.to_string();
    assert!(
        text.contains("peers host0, host1 own the rest and do not answer"),
        "{text}"
    );
    assert!(
        text.contains("tried 2.0 s") && text.contains("rmpeer"),
        "{text}"
    );
}

#[test]
fn every_address_of_the_pool_can_be_had_on_one_host() {
    let mut world = settled(4, &["10.32.0.0/26"]);
    for n in 0..62 {
        let given = world.ask(3, allocate(&format!("c{n}")), secs(20));
        assert!(given.is_ok(), "{n}: {given:?}");
    }
    let refused = world
        .ask(3, allocate("one too many"), secs(20))
        .unwrap_err();
    assert!(matches!(refused, Refusal::NoFree { .. }), "{refused}");
}

#[test]
fn freed_addresses_rest_a_minute_and_the_longest_freed_comes_first() {
    let mut world = World::new(1, &["10.32.0.0/29"], 5).started();
    let first: Vec<_> = (0..6)
        .map(|n| world.attach(0, &format!("c{n}")).unwrap())
        .collect();
    for n in [3, 1] {
        world
            .ask(
                0,
                Request::Release {
                    container: format!("c{n}"),
                },
                secs(1),
            )
            .unwrap();
        world.run(secs(1));
    }
    assert!(world.attach(0, "new").is_err());
    world.run(secs(60));
    assert_eq!(world.attach(0, "new"), Ok(first[3]));
    assert_eq!(world.attach(0, "newer"), Ok(first[1]));
}

#[test]
fn how_long_an_address_has_been_used_or_rests_is_known_of_this_life() {
    let mut world = World::new(1, &[POOL], 4).started();
    world.run(ms(100));
    let given = [1, 2].map(|n| {
        let answer = world.ask(0, allocate(&format!("c{n}")), secs(1));
        let Ok(Answer::Address(ip)) = answer else {
            panic!("{answer:?}");
        };
        ip
    });
    world.run(secs(30));
    let container = String::from("c2");
    assert!(
        world
            .ask(0, Request::Release { container }, secs(1))
            .is_ok()
    );
    world.run(secs(10));
    let outlook = world.hosts[0].node().outlook(&[], world.clock(0));
    assert_eq!(outlook.given.keys().collect::<Vec<_>>(), [&given[0]]);
    let used = outlook.given[&given[0]];
    assert!((secs(40)..secs(42)).contains(&used), "{used:?}");
    let [(ip, rests)] = outlook.resting[..] else {
        panic!("{:?}", outlook.resting);
    };
    assert!(
        ip == given[1] && (secs(10)..secs(11)).contains(&rests),
        "{ip} {rests:?}"
    );
    world.run(secs(51));
    let outlook = world.hosts[0].node().outlook(&[], world.clock(0));
    assert!(outlook.resting.is_empty(), "{:?}", outlook.resting);
    world.kill(0);
    world.start(0, CURRENT);
    world.run(secs(1));
    let outlook = world.hosts[0].node().outlook(&[], world.clock(0));
    assert!(
        outlook.given.is_empty(),
        "the ledger knows no time: {:?}",
        outlook.given
    );
}

#[test]
fn the_owner_of_nearly_everything_dies_and_two_survivors_take_over_at_once() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    let kept = world.attach(0, "web").unwrap();
    world.run(secs(1));
    world.kill(0);
    world.run(secs(13));
    let (peer, name) = (world.hosts[0].me, "host0".to_owned());
    let alive = world.ask(
        1,
        Request::RemovePeer {
            peer: world.hosts[2].me,
            name: "host2".into(),
            is_forced: false,
        },
        secs(3),
    );
    assert_eq!(alive, Err(Refusal::Alive("host2".into())));
    let remove = Request::RemovePeer {
        peer,
        name,
        is_forced: false,
    };
    let ids = [1, 2].map(|at| world.request(at, remove.clone(), secs(30)));
    let done = |world: &World| ids.iter().all(|id| world.answers.contains_key(id));
    assert!(world.wait(secs(5), done));
    for id in ids {
        assert!(
            matches!(world.answers[&id], Ok(Answer::Removed { .. })),
            "{:?}",
            world.answers[&id]
        );
    }
    let report = world.hosts[1].node().report(world.now);
    assert!(
        report.owners.keys().all(|owner| owner.peer != peer),
        "{:?}",
        report.owners
    );
    for at in [1, 2] {
        world.attach(at, "new").unwrap();
        let claim = Request::Claim {
            container: "thief".into(),
            address: kept,
        };
        let refused = world.ask(at, claim, secs(2)).unwrap_err();
        assert!(refused.to_string().contains("host0"), "{refused}");
    }
    // It returns with its old disk: it owns nothing, and its container keeps its address.
    world.start(0, CURRENT);
    let back = |world: &World| world.hosts[0].claimed.contains(&kept);
    assert!(
        world.wait(secs(15), back),
        "{:?}",
        world.hosts[0].node().report(world.now)
    );
    world.attach(0, "new").unwrap();
    assert!(world.wait(secs(10), World::rings_are_equal));
}

#[test]
fn two_members_and_the_witness_is_lost_force_forms_the_set_anew() {
    let mut world = settled(2, &[POOL]);
    world.kill(0);
    world.run(ms(100));
    let refused = world.remove(1, 0, false).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("rmesh rmpeer --force host0") && text.contains("twice"),
        "{text}"
    );
    let done = world.remove(1, 0, true);
    assert!(matches!(done, Ok(Answer::Removed { .. })), "{done:?}");
    let report = world.hosts[1].node().report(world.now);
    assert_eq!(report.owners.len(), 1, "{report:?}");
    assert!(report.is_witness);
}

#[test]
fn a_disk_that_refuses_stops_allocation_and_says_so() {
    let mut world = World::new(1, &[POOL], 6).started();
    world.attach(0, "web").unwrap();
    world.hosts[0].disk_fails = true;
    let refused = world.ask(0, allocate("db"), secs(2)).unwrap_err();
    assert!(
        refused.to_string().contains("no space left on device"),
        "{refused}"
    );
    let again = world.ask(0, allocate("db"), secs(2)).unwrap_err();
    assert_eq!(again, refused);
    world.kill(0);
    world.hosts[0].disk_fails = false;
    world.start(0, CURRENT);
    assert_eq!(world.attach(0, "db"), Ok(ip("10.32.0.2")));
}

#[test]
fn a_rolled_back_disk_is_another_owner_and_gets_its_space_back() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    let old = world.hosts[1].disk.len();
    let kept: Vec<_> = (0..5)
        .map(|n| world.attach(1, &format!("c{n}")).unwrap())
        .collect();
    let before = world.hosts[1].node().owner();
    world.kill(1);
    world.hosts[1].disk.truncate(old);
    world.start(1, Found::RolledBack);
    assert_ne!(world.hosts[1].node().owner(), before);
    let back = |world: &World| kept.iter().all(|at| world.hosts[1].claimed.contains(at));
    assert!(
        world.wait(secs(15), back),
        "{:?}",
        world.hosts[1].node().report(world.now)
    );
    let witness = |world: &World| world.hosts[1].node().report(world.now).is_witness;
    assert!(
        world.wait(secs(10), witness),
        "its place among the witnesses is given to it anew"
    );
    assert!(!kept.contains(&world.attach(1, "new").unwrap()));
}

#[test]
fn who_was_not_sure_is_not_sure_after_a_crash_either_though_the_token_is_new() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    let old = world.hosts[1].disk.len();
    world.attach(1, "web").unwrap();
    world.kill(1);
    world.hosts[1].disk.truncate(old);
    world.hosts[1].containers.clear();
    world.groups[1] = 1;
    world.mesh();
    world.start(1, Found::Unproven);
    world.run(ms(500));
    world.kill(1);
    let down_for = Duration::ZERO;
    world.start(1, Found::Current { down_for });
    let fenced = world.ask(1, allocate("early"), secs(3)).unwrap_err();
    assert!(matches!(fenced, Refusal::Fenced(_)), "{fenced}");
    world.groups[1] = 0;
    world.mesh();
    let opens = |world: &World| !world.hosts[1].node().is_fenced();
    assert!(world.wait(secs(15), opens));
    world.attach(1, "web").unwrap();
}

#[test]
fn after_a_power_cut_without_tokens_all_come_back_by_themselves() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    for at in 0..3 {
        world.kill(at);
        world.hosts[at].containers.clear();
    }
    world.start(2, Found::Unproven);
    let fenced = world.ask(2, allocate("early"), secs(2)).unwrap_err();
    assert!(
        fenced.to_string().contains("rmpeer host0 --force"),
        "{fenced}"
    );
    world.start(1, Found::Unproven);
    world.start(0, Found::Unproven);
    for at in 0..3 {
        world.attach(at, "web").unwrap();
    }
    let act = |world: &World| (0..3).all(|at| world.hosts[at].node().report(world.now).is_witness);
    assert!(world.wait(secs(10), act));
}

#[test]
fn peers_launched_only_with_each_other_agree_whatever_the_order() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut world = World::new(3, &[POOL], 9);
        for at in 0..3 {
            world.hosts[at].founding = Founding::Join {
                pools: vec![pool(POOL)],
                targets: 2,
                init_peers: None,
            };
        }
        for at in order {
            world.start(at, Found::Nothing);
            world.run(ms(700));
        }
        for at in order {
            world.attach(at, "web").unwrap();
        }
        assert!(world.wait(secs(10), World::rings_are_equal), "{order:?}");
    }
}

#[test]
fn one_of_three_waits_for_a_second_and_says_so() {
    let mut world = World::new(3, &[POOL], 9);
    world.hosts[0].founding = Founding::Join {
        pools: vec![pool(POOL)],
        targets: 2,
        init_peers: None,
    };
    world.start(0, Found::Nothing);
    let refused = world.ask(0, allocate("web"), secs(2)).unwrap_err();
    assert!(
        refused.to_string().contains("2 peers have to agree"),
        "{refused}"
    );
}

/// Two rings of two hosts each, founded apart.
fn two_rings() -> World {
    let mut world = World::new(4, &[POOL], 11);
    world.hosts[2].founding = Founding::Found {
        pools: vec![pool(POOL)],
    };
    world.groups = vec![0, 0, 1, 1];
    let mut world = world.started();
    world.run(secs(5));
    world
}

#[test]
fn of_two_rings_the_one_with_fewer_live_addresses_gives_way() {
    let mut world = two_rings();
    for n in 0..3 {
        world.attach(0, &format!("a{n}")).unwrap();
    }
    let claim = Request::Claim {
        container: "b".into(),
        address: ip("10.32.77.7"),
    };
    world.ask(2, claim, secs(2)).unwrap();
    let ring = world.hosts[0].node().report(world.now).ring;
    world.groups = vec![0; 4];
    let one = |world: &World| {
        (0..4).all(|at| world.hosts[at].node().report(world.now).ring == ring)
            && world.hosts[2].claimed.contains(&ip("10.32.77.7"))
    };
    assert!(
        world.wait(secs(20), one),
        "{:?}",
        world.hosts[2].node().report(world.now)
    );
    for at in 0..4 {
        world.attach(at, "new").unwrap();
    }
    assert!(world.wait(secs(10), World::rings_are_equal));
}

#[test]
fn two_rings_with_one_address_in_both_stay_apart_and_name_it() {
    let mut world = two_rings();
    let shared = ip("10.32.0.1");
    assert_eq!(world.attach(0, "a"), Ok(shared));
    world.attach(0, "a2").unwrap();
    // The same address over there is no violation: the rings know nothing of each other.
    let claim = Request::Claim {
        container: "b".into(),
        address: shared,
    };
    let id = world.request(2, claim, secs(2));
    let hidden = world.hosts[0].containers.remove("a");
    assert!(world.wait(secs(2), |world| world.answers.contains_key(&id)));
    world.hosts[0]
        .containers
        .extend(hidden.map(|addresses| ("a".to_owned(), addresses)));
    world.groups = vec![0; 4];
    world.run(secs(15));
    let rings: BTreeSet<_> = (0..4)
        .map(|at| world.hosts[at].node().report(world.now).ring)
        .collect();
    assert_eq!(rings.len(), 2);
    let waiting = world.hosts[2].node().report(world.now).waiting.join(" ");
    assert!(
        waiting.contains("10.32.0.1 by b here and by a container of"),
        "{waiting}"
    );
}

#[test]
fn who_leaves_hands_everything_over() {
    let mut world = settled(3, &[POOL]);
    assert_eq!(world.ask(1, Request::Leave, secs(10)), Ok(Answer::Left));
    let owner = world.hosts[1].node().owner();
    world.run(secs(1));
    let owners = world.hosts[0].node().report(world.now).owners;
    assert!(!owners.contains_key(&owner), "{owners:?}");
}

#[test]
fn an_idle_ring_is_quiet() {
    let mut world = settled(5, &[POOL]);
    world.run(secs(20));
    let before = world.sent_bytes;
    world.run(secs(100));
    let rate = (world.sent_bytes - before) / 100 / 5;
    println!("idle: {rate} bytes a second and peer");
    assert!(rate < 100, "{rate} bytes a second and peer");
}

#[test]
fn allocation_takes_microseconds_and_little_more_than_one_write() {
    let mut world = World::new(1, &["10.0.0.0/8"], 8).started();
    world.run(ms(100));
    let (count, before) = (10_000u32, world.hosts[0].disk.len());
    let started = std::time::Instant::now();
    for n in 0..count {
        world.request(0, allocate(&format!("c{n}")), secs(1));
    }
    let each = started.elapsed() / count;
    world.run(secs(1));
    println!("{each:?} an allocation, the world's part included");
    assert_eq!(world.hosts[0].containers.len(), 10_000);
    // One for each, and one in a hundred at most to reserve the next ones.
    let writes = world.hosts[0].disk.len() - before;
    assert!((10_000..10_100).contains(&writes), "{writes} writes");
    assert!(each < Duration::from_millis(1), "{each:?}");
}
