//! Another pool: who can add one, what is in its way, and what is said when nobody agrees.

use rmesh_ipam::{Answer, Refusal, Request};

use crate::stories::{settled, settled_with_witnesses, witnesses_and_others};
use crate::world::{World, pool, secs};

const POOL: &str = "10.32.0.0/16";

fn add(text: &str) -> Request {
    Request::AddPool { range: pool(text) }
}

fn pools(world: &World, at: usize) -> Vec<String> {
    let setup = world.hosts[at]
        .node()
        .report(world.now)
        .setup
        .expect("a ring");
    let pools = setup.pools.as_slice().iter();
    pools.map(|pool| pool.range.to_string()).collect()
}

#[test]
fn another_pool_is_added_and_everybody_gets_from_it() {
    let mut world = settled(3, &[POOL]);
    let range = pool("10.99.0.0/24");
    assert_eq!(
        world.ask(1, Request::AddPool { range }, secs(10)),
        Ok(Answer::PoolAdded)
    );
    let request = |_| Request::Allocate {
        container: "x".into(),
        subnet: Some(range),
        wants_v6: false,
    };
    world.run(secs(2));
    for at in 0..3 {
        assert!(matches!(
            world.ask(at, request(at), secs(5)),
            Ok(Answer::Address(_))
        ));
    }
    let overlapping = world.ask(
        0,
        Request::AddPool {
            range: pool("10.99.0.0/16"),
        },
        secs(5),
    );
    assert!(
        overlapping
            .unwrap_err()
            .to_string()
            .contains("overlaps the pool 10.99.0.0/24")
    );
}

#[test]
fn of_two_that_overlap_one_is_added_and_the_other_is_told_which() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    let wide = world.request(0, add("10.96.0.0/15"), secs(10));
    let narrow = world.request(1, add("10.96.0.0/16"), secs(10));
    let done = |world: &World| {
        [wide, narrow]
            .iter()
            .all(|id| world.answers.contains_key(id))
    };
    assert!(world.wait(secs(11), done));
    let answers = [&world.answers[&wide], &world.answers[&narrow]];
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    let words: Vec<String> = refused.map(ToString::to_string).collect();
    let [words] = &words[..] else {
        panic!("{answers:?}");
    };
    assert!(words.contains("overlaps the pool 10.96.0.0/1"), "{words}");
    world.run(secs(2));
    assert_eq!(pools(&world, 2).len(), 2);
}

#[test]
fn without_a_majority_nothing_is_added_then_or_later_and_the_silent_are_named() {
    let mut world = settled(3, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..3).all(|at| world.witnesses(at) == 3)));
    world.groups = vec![0, 1, 2];
    world.run(secs(1));
    let refusal = world.ask(0, add("10.96.0.0/16"), secs(4)).unwrap_err();
    let words = refusal.to_string();
    println!("{words}");
    assert!(matches!(refusal, Refusal::TimedOut(_)));
    for expected in ["do not answer: host1, host2", "rmesh rmpeer host1 --force"] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    // What was refused does not come true by itself when they are back.
    world.groups = vec![0; 3];
    world.run(secs(20));
    assert_eq!(pools(&world, 0), [POOL]);
    assert_eq!(
        world.ask(0, add("10.96.0.0/16"), secs(10)),
        Ok(Answer::PoolAdded)
    );
}

#[test]
fn who_is_no_witness_says_who_is() {
    let mut world = settled_with_witnesses(4, 3);
    let (_, others) = witnesses_and_others(&world, 0);
    let words = world
        .ask(others[0], add("10.96.0.0/16"), secs(5))
        .unwrap_err()
        .to_string();
    println!("{words}");
    assert!(
        words.contains("run the command on one of them: host0"),
        "{words}"
    );
}

#[test]
fn the_ninth_pool_is_one_too_many() {
    let mut world = World::new(1, &[POOL], 5).started();
    for n in 1..8 {
        let answer = world.ask(0, add(&format!("10.{}.0.0/16", 96 + n)), secs(5));
        assert_eq!(answer, Ok(Answer::PoolAdded));
    }
    let words = world.ask(0, add("10.200.0.0/16"), secs(5)).unwrap_err();
    assert!(words.to_string().contains("8 pools"), "{words}");
    assert_eq!(
        world.ask(0, add("10.97.0.0/16"), secs(5)),
        Ok(Answer::PoolAdded)
    );
}
