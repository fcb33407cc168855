//! Forced reforms: who answers one leaves the generation, and two of them are two.

use std::collections::BTreeSet;

use rmesh_ipam::{Answer, Request};

use crate::stories::{settled, settled_with_witnesses, witnesses_and_others};
use crate::world::{CURRENT, World, ip, ms, secs};

const POOL: &str = "10.32.0.0/16";

/// The reformer has heard that nothing of host 0 is another's; what host 0 and the witnesses that
/// were thought dead acknowledge afterwards would be unknown to it.
#[test]
fn who_answered_a_reform_acknowledges_and_counts_nothing_before_it() {
    let mut world = settled_with_witnesses(6, 5);
    let (witnesses, others) = witnesses_and_others(&world, 0);
    let ([0, reformer, dead @ ..], [taker]) = (&witnesses[..], &others[..]) else {
        panic!("host0 founded, and five are witnesses: {witnesses:?}");
    };
    for at in dead {
        world.kill(*at);
    }
    world.run(ms(100));
    world.request(*reformer, world.removal(dead[0], true), secs(30));
    // Host 0 and the taker have answered, the reform has not ended.
    world.run(ms(600));
    world.groups[*reformer] = 1;
    for at in dead {
        world.start(*at, CURRENT);
    }
    let reformed = |world: &World| world.witnesses(*reformer) == 1;
    assert!(world.wait(secs(3), reformed));
    let claim = Request::Claim {
        container: "x".into(),
        address: ip("10.32.200.200"),
    };
    let given = world.ask(*taker, claim.clone(), secs(5));
    world.kill(0);
    let removed = world.request(*reformer, world.removal(0, true), secs(30));
    assert!(world.wait(secs(31), |world| world.answers.contains_key(&removed)));
    let removed = &world.answers[&removed];
    assert!(matches!(removed, Ok(Answer::Removed { .. })), "{removed:?}");
    let again = world.ask(*reformer, claim, secs(5));
    assert!(again.is_ok(), "{again:?}");
    assert!(given.is_err(), "{given:?}");
}

#[test]
fn of_two_reforms_on_two_sides_of_a_cut_one_wins_everywhere() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    world.kill(0);
    world.groups = vec![2, 0, 1];
    world.run(secs(1));
    let ids = [1, 2].map(|at| world.request(at, world.removal(0, true), secs(30)));
    let done = |world: &World| ids.iter().all(|id| world.answers.contains_key(id));
    assert!(world.wait(secs(31), done));
    let sets = |world: &World| -> BTreeSet<_> {
        let reports = [1, 2].map(|at| world.hosts[at].node().report(world.now));
        reports
            .into_iter()
            .filter_map(|report| report.setup)
            .collect()
    };
    assert_eq!(sets(&world).len(), 2, "each is its own witness");
    world.groups = vec![0; 3];
    let one = |world: &World| sets(world).len() == 1;
    assert!(world.wait(secs(15), one), "{:?}", sets(&world));
}

/// Six hosts, three of the five witnesses dead: those, and who is left, in the order of their ids.
fn without_majority() -> (World, Vec<usize>, [usize; 3]) {
    let mut world = settled_with_witnesses(6, 5);
    let (mut dead, _) = witnesses_and_others(&world, 0);
    dead.truncate(3);
    for at in &dead {
        world.kill(*at);
    }
    world.run(ms(100));
    let mut left: Vec<usize> = (0..6).filter(|at| !dead.contains(at)).collect();
    left.sort_by_key(|at| world.hosts[*at].node().owner().peer);
    (world, dead, [left[0], left[1], left[2]])
}

fn claim(address: &str) -> Request {
    Request::Claim {
        container: address.into(),
        address: ip(address),
    }
}

#[test]
fn who_answered_a_reform_that_gave_way_to_another_one_comes_back() {
    let (mut world, dead, [lower, answers, higher]) = without_majority();
    world.groups[lower] = 1;
    let first = world.request(lower, world.removal(dead[0], true), secs(30));
    world.run(ms(1_000));
    let second = world.request(higher, world.removal(dead[0], true), secs(30));
    world.run(ms(900));
    world.groups[lower] = 0;
    let done = |world: &World| {
        [first, second]
            .iter()
            .all(|id| world.answers.contains_key(id))
    };
    assert!(world.wait(secs(30), done));
    let all = |world: &World| {
        [lower, answers, higher]
            .iter()
            .all(|at| world.witnesses(*at) == 3)
    };
    assert!(
        world.wait(secs(15), all),
        "the three that are left are the witnesses"
    );
    world.run(secs(5));
    world.kill(higher);
    let given = world.ask(answers, claim("10.32.200.200"), secs(15));
    assert!(given.is_ok(), "a grant is chosen again: {given:?}");
}

#[test]
fn who_answered_a_reformer_that_died_at_it_comes_back_when_it_does() {
    let (mut world, dead, left) = without_majority();
    let (living, _) = witnesses_and_others(&world, left[0]);
    let [reformer, answers] = living[..] else {
        panic!("of five witnesses three are dead");
    };
    world.request(reformer, world.removal(dead[0], true), secs(30));
    world.run(ms(500));
    world.kill(reformer);
    // With the one that answered they are a majority.
    for at in &dead[..2] {
        world.start(*at, CURRENT);
    }
    world.run(secs(1));
    let named = world.hosts[answers].node().report(world.now);
    assert_eq!(named.reformers, [world.hosts[reformer].me]);
    let command = format!("rmesh rmpeer host{reformer} --force");
    assert!(
        named.waiting.join("").contains(&command),
        "{:?}",
        named.waiting
    );
    let early = world.ask(answers, claim("10.32.200.200"), secs(5));
    assert!(early.is_err(), "it may have ended: {early:?}");
    world.start(reformer, CURRENT);
    world.run(secs(5));
    world.kill(dead[1]);
    let given = world.ask(answers, claim("10.32.200.201"), secs(15));
    assert!(given.is_ok(), "a grant is chosen again: {given:?}");
    assert_eq!(world.hosts[answers].node().report(world.now).reformers, []);
}
