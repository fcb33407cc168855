//! Peers that return: what they owned may have been taken over, or be about to be.

use std::collections::BTreeSet;

use rmesh_ipam::{Answer, Found, Refusal, Request, RequestId};

use crate::stories::{settled, settled_with_witnesses, witnesses_and_others};
use crate::world::{CURRENT, World, allocate, ip, ms, secs};

const POOL: &str = "10.32.0.0/16";

/// Four hosts, host 0 off for long enough to be removed, and one of the others that is no witness
/// has begun to remove it and was cut off at once.
fn removal_from_the_edge() -> (World, usize, RequestId) {
    let mut world = settled_with_witnesses(4, 3);
    let (_, others) = witnesses_and_others(&world, 0);
    let edge = others[0];
    world.kill(0);
    world.run(secs(13));
    let request = world.removal(0, false);
    let id = world.request(edge, request, secs(30));
    world.groups[edge] = 1;
    world.run(ms(100));
    (world, edge, id)
}

/// It has heard from a witness majority that nothing newer is known than what its ledger says, and
/// allocates; the removal that began before gets through to the witnesses only now.
fn returns_while_removed(found: Found) {
    let (mut world, edge, id) = removal_from_the_edge();
    world.start(0, found);
    let given = world.attach(0, "web").expect("it is sure");
    world.groups = vec![0; 4];
    assert!(world.wait(secs(31), |world| world.answers.contains_key(&id)));
    let answer = world.answers[&id].clone();
    let text = answer.expect_err("it is back").to_string();
    assert!(
        text.contains("host0") && text.contains("it is back"),
        "{text}"
    );
    let owner = world.hosts[0].node().owner();
    assert_eq!(world.hosts[edge].node().owner_of(given), Some(owner));
    assert!(world.wait(secs(15), World::rings_are_equal));
    for n in 0..40 {
        world.attach(0, &format!("own{n}")).expect("it has plenty");
        let given = world.ask(edge, allocate(&format!("edge{n}")), secs(5));
        assert!(given.is_ok(), "{given:?}");
    }
}

#[test]
fn a_peer_that_boots_while_it_is_removed_has_what_it_uses() {
    returns_while_removed(Found::Unproven);
}

#[test]
fn a_daemon_that_was_down_for_long_has_what_it_uses() {
    returns_while_removed(CURRENT);
}

/// It was removed while it was down, and started again where nobody tells it.
#[test]
fn a_daemon_that_was_down_for_long_does_not_allocate_before_a_majority_answers() {
    let mut world = settled_with_witnesses(3, 3);
    let kept = world.attach(0, "kept").unwrap();
    world.run(secs(1));
    world.kill(0);
    world.run(secs(13));
    let done = world.remove(1, 0, false);
    assert!(matches!(done, Ok(Answer::Removed { .. })), "{done:?}");
    world.groups = vec![1, 0, 0];
    world.start(0, CURRENT);
    let refused = world.ask(0, allocate("early"), secs(5)).unwrap_err();
    assert!(matches!(refused, Refusal::Fenced(_)), "{refused}");
    world.groups = vec![0; 3];
    let back = |world: &World| world.hosts[0].claimed.contains(&kept);
    assert!(
        world.wait(secs(15), back),
        "its container keeps its address"
    );
    world.attach(0, "late").unwrap();
}

#[test]
fn a_daemon_that_restarts_within_two_seconds_allocates_at_once_and_alone() {
    let mut world = settled(3, &[POOL]);
    world.run(secs(2));
    world.kill(0);
    world.groups = vec![1, 0, 0];
    world.run(ms(1_500));
    world.start(0, CURRENT);
    let given = world.ask(0, allocate("web"), ms(100));
    assert!(matches!(given, Ok(Answer::Address(_))), "{given:?}");
}

#[test]
fn a_peer_is_removed_when_it_has_been_silent_for_some_seconds() {
    let mut world = settled_with_witnesses(3, 3);
    world.kill(0);
    let killed = world.now;
    world.run(secs(1));
    let request = world.removal(0, false);
    let refused = world.ask(1, request.clone(), secs(1)).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains(
            "host0 was heard 1 s ago; a peer can be removed when it has been silent for 2.5 s"
        ),
        "{text}"
    );
    // With more patience the command waits for that, on both survivors at once.
    let ids = [1, 2].map(|at| world.request(at, request.clone(), secs(30)));
    let done = |world: &World| ids.iter().all(|id| world.answers.contains_key(id));
    assert!(world.wait(secs(29), done));
    let took = world.now.since(killed);
    println!(
        "removed {:.1} s after it was switched off",
        took.as_secs_f64()
    );
    assert!(took >= ms(2_500) && took < secs(6), "{took:?}");
    let given: BTreeSet<_> = [1, 2].map(|at| world.attach(at, "new").unwrap()).into();
    assert_eq!(given.len(), 2);
    let claim = Request::Claim {
        container: "x".into(),
        address: ip("10.32.200.200"),
    };
    assert!(world.ask(2, claim, secs(5)).is_ok());
}

#[test]
fn a_peer_that_comes_back_before_its_removal_begins_keeps_everything() {
    let mut world = settled_with_witnesses(3, 3);
    world.kill(2);
    world.run(ms(500));
    let request = world.removal(2, false);
    let id = world.request(1, request, secs(30));
    world.run(secs(1));
    world.start(2, CURRENT);
    assert!(world.wait(secs(20), |world| world.answers.contains_key(&id)));
    assert_eq!(world.answers[&id], Err(Refusal::Alive("host2".into())));
    world.attach(2, "web").unwrap();
}

/// Two of three witnesses were removed by force, and return before they hear of it.
#[test]
fn two_who_were_removed_together_do_not_confirm_each_other() {
    let mut world = settled_with_witnesses(3, 3);
    world.kill(0);
    world.kill(1);
    world.run(secs(13));
    for gone in [0, 1] {
        let done = world.remove(2, gone, true);
        assert!(matches!(done, Ok(Answer::Removed { .. })), "{done:?}");
    }
    // The two hear each other at once, and the third a second later.
    world.groups[2] = 1;
    let down_for = secs(14);
    for at in [0, 1] {
        world.start(at, Found::Current { down_for });
    }
    world.run(secs(1));
    world.groups[2] = 0;
    for n in 0..40 {
        for at in 0..3 {
            let given = world.attach(at, &format!("late{n}"));
            assert!(given.is_ok(), "{given:?}");
        }
    }
}

#[test]
fn a_founder_with_a_disk_from_before_it_met_anybody_waits_for_word_of_others() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    world.kill(0);
    world.run(secs(13));
    let done = world.remove(1, 0, false);
    assert!(matches!(done, Ok(Answer::Removed { .. })), "{done:?}");
    let taken = ip("10.32.0.9");
    let claim = Request::Claim {
        container: "x".into(),
        address: taken,
    };
    assert_eq!(world.ask(1, claim, secs(5)), Ok(Answer::Address(taken)));
    // It began and founded, and nothing more.
    world.hosts[0].disk.truncate(2);
    world.groups[0] = 1;
    world.start(0, Found::Unproven);
    let early = world.ask(0, allocate("early"), secs(1));
    assert!(early.is_err(), "others may be there: {early:?}");
    world.groups[0] = 0;
    for n in 0..20 {
        let given = world.attach(0, &format!("late{n}"));
        assert!(given.is_ok_and(|given| given != taken));
    }
}

#[test]
fn a_founder_with_a_disk_from_before_the_founding_is_another_owner() {
    let mut world = settled(3, &[POOL]);
    let given = world.attach(0, "web").expect("it owns almost everything");
    world.run(secs(1));
    world.kill(0);
    world.hosts[0].disk.truncate(1);
    world.hosts[0].containers.clear();
    let before = world.hosts[1].node().owner_of(given);
    world.start(0, Found::Unproven);
    assert_ne!(before, Some(world.hosts[0].node().owner()));
}

/// The holds of a removed peer went with the ledger of the one that took over.
#[test]
fn who_took_over_and_lost_its_ledger_hears_from_others_what_was_held() {
    let mut world = settled(4, &["10.32.0.0/24"]);
    assert!(world.wait(secs(5), |world| (0..4).all(|at| world.witnesses(at) == 3)));
    for n in 0..4 {
        world.attach(3, &format!("kept{n}")).expect("it has space");
    }
    world.run(secs(3));
    world.kill(3);
    world.run(secs(13));
    let done = world.remove(2, 3, false);
    assert!(
        matches!(done, Ok(Answer::Removed { held: 4, .. })),
        "{done:?}"
    );
    world.run(secs(3));
    world.kill(2);
    world.hosts[2].disk.clear();
    world.start(2, Found::Nothing);
    // The world fails if an address of the containers that live on is given again.
    let mut given = 0;
    for n in 0..200 {
        given += usize::from(world.attach(2, &format!("new{n}")).is_ok());
    }
    println!("{given} addresses given meanwhile");
    assert!(given > 100, "{given}");
}

/// The removed peer never returns, and nobody releases what it had.
#[test]
fn a_hold_ends_after_a_day() {
    let mut world = settled(3, &["10.32.0.0/24"]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    world.attach(2, "kept").expect("it has space");
    world.run(secs(3));
    world.kill(2);
    world.hosts[2].containers.clear();
    world.run(secs(4));
    let done = world.remove(1, 2, false);
    assert!(
        matches!(done, Ok(Answer::Removed { held: 1, .. })),
        "{done:?}"
    );
    let held = |world: &World| world.hosts[1].node().report(world.now).held.len();
    world.run(secs(24 * 3_600 - 60));
    assert_eq!(held(&world), 1, "a minute is left");
    world.run(secs(120));
    assert_eq!(held(&world), 0);
}
