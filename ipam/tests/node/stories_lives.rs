//! Witnesses whose disk is an older one, and that have no token which says so.

use rmesh_ipam::{Found, Request};

use crate::stories::{settled_with_witnesses, witnesses_and_others};
use crate::world::{World, ip, ms, secs};

const GIVEN: &str = "10.32.200.200";

fn claim(container: &str) -> Request {
    Request::Claim {
        container: container.into(),
        address: ip(GIVEN),
    }
}

/// Four hosts, three of them witnesses: the founder, two more, and the one that is none.
fn four() -> (World, [usize; 3]) {
    let world = settled_with_witnesses(4, 3);
    let (witnesses, others) = witnesses_and_others(&world, 0);
    (world, [witnesses[1], witnesses[2], others[0]])
}

/// The founder's grant was acknowledged by the founder and one witness, which then boots with the
/// first `kept` entries of its disk; the founder is gone, and the taker cut off. Returns how many
/// entries the disk had.
fn forgets(kept: usize) -> usize {
    let (mut world, [forgetful, other, taker]) = four();
    world.groups[other] = 1;
    let given = world.ask(taker, claim("first"), secs(5));
    assert!(given.is_ok(), "two of three acknowledge: {given:?}");
    let entries = world.hosts[forgetful].disk.len();
    world.groups[taker] = 2;
    world.kill(0);
    world.kill(forgetful);
    world.hosts[forgetful].disk.truncate(kept);
    world.hosts[forgetful].containers.clear();
    // What is on its way gets lost.
    world.run(ms(500));
    world.groups[other] = 0;
    world.start(forgetful, Found::Unproven);
    world.run(secs(14));
    // The world fails if one address is given to two.
    let removed = world.remove(other, 0, false);
    let again = world.ask(other, claim("second"), secs(5));
    assert!(again.is_err(), "{kept} entries: {removed:?}, {again:?}");
    world.groups = vec![0; 4];
    entries
}

#[test]
fn a_witness_with_an_older_disk_acknowledges_nothing_against_what_it_forgot() {
    let entries = forgets(usize::MAX);
    println!("disks with 1 to {entries} entries");
    for kept in 1..=entries {
        forgets(kept);
    }
}

#[test]
fn witnesses_that_all_lost_their_tokens_revive_each_other_and_of_two_neither() {
    let (mut world, witnesses) = four();
    let [first, second, _] = witnesses;
    for at in 0..4 {
        world.kill(at);
    }
    for at in [0, first] {
        world.start(at, Found::Unproven);
    }
    world.run(secs(10));
    let acts = |world: &World, at: usize| world.hosts[at].node().report(world.now).is_witness;
    assert!(
        !acts(&world, 0) && !acts(&world, first),
        "two of three may both have forgotten"
    );
    world.start(second, Found::Unproven);
    let all = |world: &World| [0, first, second].iter().all(|at| acts(world, *at));
    let start = world.now;
    assert!(world.wait(secs(15), all), "three of three have not");
    println!(
        "three of three act again after {:?}",
        world.now.since(start)
    );
    world.run(ms(100));
    let open = |world: &World| {
        [0, first, second]
            .iter()
            .all(|at| !world.hosts[*at].node().is_fenced())
    };
    assert!(world.wait(secs(15), open));
}
