//! Witnesses that may have forgotten what they acknowledged.

use std::cell::RefCell;

use rmesh_ipam::{Answer, Found, Request};

use crate::stories::witnesses_and_others;
use crate::world::{CURRENT, World, ip, ms, secs};

const POOL: &str = "10.32.0.0/16";
/// How a message begins that says that a setup is accepted, and one that has it accepted.
const INSTALLED: &str = "body: Installed {";
const INSTALL: &str = "body: Install {";

/// What is on one disk.
type Disk = Vec<Vec<u8>>;

/// The disk of each host as it was once.
#[derive(Default)]
struct Disks {
    /// Just before it accepted that three are witnesses.
    uninstalled: [Disk; 4],
    /// Just before it knew that it is so: all that accepted it have written that.
    installed: [Disk; 4],
}

/// Four hosts, everything that was sent from the beginning on kept.
fn three_witnesses() -> (World, Disks) {
    let mut world = World::new(4, &[POOL], 7);
    world.recorded = Some(Vec::new());
    let mut world = world.started();
    let disks = RefCell::new(Disks::default());
    let grown = |world: &World| {
        let mut disks = disks.borrow_mut();
        for at in (0..4).filter(|at| world.witnesses(*at) < 3) {
            let disk = &world.hosts[at].disk;
            disks.installed[at].clone_from(disk);
            if !world.has_sent(at, INSTALLED) {
                disks.uninstalled[at].clone_from(disk);
            }
        }
        (0..4).all(|at| world.witnesses(at) == 3)
    };
    assert!(world.wait(secs(10), grown));
    let owns =
        |world: &World| (0..4).all(|at| world.hosts[at].node().report(world.now).v4.free() > 0);
    assert!(world.wait(secs(10), owns), "everybody gets a first block");
    world.run(secs(1));
    (world, disks.into_inner())
}

fn claim(at: usize) -> Request {
    Request::Claim {
        container: format!("of{at}"),
        address: ip("10.32.200.200"),
    }
}

/// Host 0 grants an address to the one that is no witness, and nobody accepts it but host 0 and the
/// witness `forgets`; the other witness, `left`, hears nothing of it. Then host 0 is gone for good, the taker is
/// cut off with the address in use, and the witness starts with an older disk and without a token.
fn forgets_what_it_acknowledged(left_first: bool, is_delayed: bool) {
    let (mut world, disks) = three_witnesses();
    let (witnesses, others) = witnesses_and_others(&world, 0);
    let ([0, one, other], [taker]) = (&witnesses[..], &others[..]) else {
        panic!("host0 founded, and three are witnesses: {witnesses:?}");
    };
    let (left, forgets) = if left_first {
        (*one, *other)
    } else {
        (*other, *one)
    };
    let was = world.hosts[forgets].node().owner();
    world.groups[left] = 1;
    let given = world.ask(*taker, claim(*taker), secs(5));
    assert_eq!(given, Ok(Answer::Address(ip("10.32.200.200"))));
    world.kill(0);
    world.kill(forgets);
    world.groups[forgets] = 1;
    let disks = if is_delayed {
        disks.uninstalled
    } else {
        disks.installed
    };
    world.hosts[forgets].disk.clone_from(&disks[forgets]);
    world.start(forgets, Found::Unproven);
    if is_delayed {
        assert!(world.replay(0, forgets, &[INSTALL]) > 0);
        world.run(ms(10));
        assert!(world.hosts[forgets].disk.len() > disks[forgets].len());
    }
    world.run(secs(13));
    let request = world.removal(0, false);
    let removed = world.ask(left, request, secs(30));
    let taken = world.ask(left, claim(left), secs(5));
    assert!(removed.is_err() && taken.is_err(), "{removed:?} {taken:?}");
    let report = world.hosts[left].node().report(world.now);
    let words = report.waiting.join("; ");
    // It may have heard that it is behind, and have begun anew.
    let is_same = world.hosts[forgets].node().owner() == was;
    assert!(
        !is_same || words.contains("rmesh rmpeer host0 --force"),
        "the operator is told what helps: {words}"
    );
    // Host 0 had its disk all the time, and has its token.
    world.groups = vec![0; 4];
    world.start(0, CURRENT);
    let act = |world: &World| {
        [0, left, forgets]
            .iter()
            .all(|at| world.hosts[*at].node().report(world.now).is_witness)
    };
    assert!(world.wait(secs(30), act), "all three answer");
    assert!(
        world.ask(left, claim(left), secs(5)).is_err(),
        "it is in use"
    );
    world.attach(0, "late").expect("it has space");
    world.attach(forgets, "late").expect("it has space");
}

#[test]
fn a_witness_whose_older_disk_has_accepted_the_setup_does_not_act_in_it() {
    for left_first in [true, false] {
        forgets_what_it_acknowledged(left_first, false);
    }
}

#[test]
fn a_witness_with_an_older_disk_is_not_installed_by_a_message_from_before() {
    for left_first in [true, false] {
        forgets_what_it_acknowledged(left_first, true);
    }
}

#[test]
fn two_of_three_witnesses_that_were_rebooted_at_once_are_installed_anew() {
    let (mut world, _) = three_witnesses();
    let (witnesses, _) = witnesses_and_others(&world, 0);
    for at in &witnesses[..2] {
        world.kill(*at);
    }
    world.run(ms(500));
    for at in &witnesses[..2] {
        world.start(*at, Found::Unproven);
    }
    let act = |world: &World| {
        witnesses
            .iter()
            .all(|at| world.hosts[*at].node().report(world.now).is_witness)
    };
    assert!(world.wait(secs(15), act), "by the third and by themselves");
    for at in 0..4 {
        world.attach(at, "late").unwrap();
    }
}

/// All hosts lose power and come back without a token; everybody gets a new address, and all witnesses act.
fn all_come_back(world: &mut World, hosts: &[usize], what: &str) {
    for at in hosts {
        world.start(*at, Found::Unproven);
    }
    let act = |world: &World| {
        let Some(setup) = world.hosts[hosts[0]].node().report(world.now).setup else {
            return false;
        };
        let mut hosts = hosts.iter().map(|at| world.hosts[*at].node());
        hosts.all(|node| !setup.has_witness(node.owner()) || node.report(world.now).is_witness)
            && world.rings_are_equal()
    };
    assert!(
        world.wait(secs(60), act),
        "{what}: {:?}",
        hosts
            .iter()
            .map(|at| world.hosts[*at].node().report(world.now))
            .collect::<Vec<_>>()
    );
    for at in hosts {
        let opens = |world: &World| !world.hosts[*at].node().is_fenced();
        assert!(world.wait(secs(30), opens), "{what}");
        let given = world.attach(*at, "after");
        assert!(given.is_ok(), "{what}: {given:?}");
    }
}

fn switch_off(world: &mut World) {
    for at in 0..world.hosts.len() {
        if world.is_up(at) {
            world.kill(at);
            world.hosts[at].containers.clear();
        }
    }
    world.run(secs(1));
}

/// The setup that is being installed then names lives that nobody is in any more.
#[test]
fn a_power_cut_at_any_moment_of_a_change_heals_by_itself() {
    for count in [2, 3, 5] {
        for at in 0..40 {
            let mut world = World::new(count, &[POOL], 100 + at).started();
            world.run(ms(500 + at * 30));
            switch_off(&mut world);
            let hosts: Vec<usize> = (0..count).collect();
            all_come_back(&mut world, &hosts, &format!("{count} hosts, {at}"));
        }
    }
}

/// Five witnesses, all without power.
fn five_dark() -> World {
    let mut world = World::new(5, &[POOL], 7).started();
    let grown = |world: &World| (0..5).all(|at| world.witnesses(at) == 5);
    assert!(world.wait(secs(10), grown));
    let owns =
        |world: &World| (0..5).all(|at| world.hosts[at].node().report(world.now).v4.free() > 0);
    assert!(world.wait(secs(10), owns));
    switch_off(&mut world);
    world
}

#[test]
fn of_five_that_lost_power_four_go_on_and_three_do_not() {
    let mut world = five_dark();
    all_come_back(&mut world, &[0, 1, 2, 3], "four of five");
    let mut world = five_dark();
    for at in [1, 2, 3] {
        world.start(at, Found::Unproven);
    }
    world.run(secs(20));
    let report = world.hosts[1].node().report(world.now);
    assert!(!report.is_witness && !report.has_majority);
    let words = report.waiting.join("; ");
    println!("{words}");
    assert!(
        words.contains("4 of the 5 witnesses") && words.contains("rmesh rmpeer host0 --force"),
        "{words}"
    );
    for gone in [0, 4] {
        let done = world.remove(1, gone, true);
        assert!(matches!(done, Ok(Answer::Removed { .. })), "{done:?}");
    }
    for at in [1, 2, 3] {
        world.attach(at, "after").unwrap();
    }
}

/// What is shown to an operator and decides what `rmpeer` needs, on every host and not only on those that are
/// witnesses.
#[test]
fn everybody_knows_within_a_second_that_the_witnesses_act() {
    for seed in 0..20 {
        let mut world = World::new(12, &[POOL], seed).started();
        let grown = |world: &World| (0..12).all(|at| world.witnesses(at) == 5);
        assert!(world.wait(secs(8), grown), "seed {seed}: five witnesses");
        let known =
            |world: &World| (0..12).all(|at| world.hosts[at].node().report(world.now).has_majority);
        assert!(
            world.wait(secs(1), known),
            "seed {seed}: all know that they act"
        );
    }
}
