//! Forced reforms: who answers one leaves the generation, and two of them are two.

use std::collections::BTreeSet;

use rmesh_ipam::{Answer, Request};

use crate::stories::settled;
use crate::world::{CURRENT, World, ip, ms, secs};

const POOL: &str = "10.32.0.0/16";

fn removal(world: &World, gone: usize) -> Request {
    Request::RemovePeer {
        peer: world.hosts[gone].me,
        name: world.hosts[gone].name.clone(),
        is_forced: true,
    }
}

/// The reformer has heard that nothing of host 0 is another's; what host 0 and the witnesses that
/// were thought dead acknowledge afterwards would be unknown to it.
#[test]
fn who_answered_a_reform_acknowledges_and_counts_nothing_before_it() {
    let mut world = settled(6, &[POOL]);
    assert!(world.wait(secs(5), |world| (0..6).all(|at| world.witnesses(at) == 5)));
    world.run(secs(1));
    let setup = world.hosts[0].node().report(world.now).setup.unwrap();
    let is_witness = |at: &usize| setup.has_witness(world.hosts[*at].node().owner());
    let (witnesses, others): (Vec<usize>, Vec<usize>) = (1..6).partition(is_witness);
    let ([reformer, dead @ ..], [taker]) = (&witnesses[..], &others[..]) else {
        panic!("host0 founded, and five are witnesses: {witnesses:?}");
    };
    for at in dead {
        world.kill(*at);
    }
    world.run(ms(100));
    world.request(*reformer, removal(&world, dead[0]), secs(30));
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
    let removed = world.request(*reformer, removal(&world, 0), secs(30));
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
    let ids = [1, 2].map(|at| world.request(at, removal(&world, 0), secs(30)));
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
