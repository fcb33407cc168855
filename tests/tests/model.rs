//! The ring's protocol never lets two peers own one address, whatever happens in whatever order; and
//! each safeguard is needed, because without it the model finds how they would.
//!
//! Larger scenes, and the steps to a violation: `cargo run --release --bin rmesh-model -- --help`.

use std::time::Instant;

use rmesh_tests::model::checker::{STATES_MAX, search};
use rmesh_tests::model::scene::Safeguard::{self, *};
use rmesh_tests::model::scene::Scene;
use rmesh_tests::model::scenes;

/// The whole scene is searched, nothing is found, and what the scene is about does happen in it.
fn holds(scene: &Scene) {
    let start = Instant::now();
    let verdict = search(scene, STATES_MAX);
    let (states, depth, goals) = (verdict.states, verdict.depth, verdict.goals);
    println!(
        "{}, without {:?}: no double ownership in {states} states, {depth} steps deep, {goals} at the goal, {:.1} s",
        scene.name,
        scene.without,
        start.elapsed().as_secs_f64()
    );
    assert_eq!(verdict.violation, None, "{}", scene.name);
    assert!(
        verdict.complete,
        "{} has more states than searched",
        scene.name
    );
    assert!(goals > 0, "{} never gets where it should", scene.name);
}

/// Without each of these the scene breaks.
fn breaks(scene: &Scene, controls: &[&[Safeguard]]) {
    for out in controls {
        let verdict = search(&scene.without(out), STATES_MAX);
        let (what, way) = verdict
            .violation
            .unwrap_or_else(|| panic!("{} without {out:?}: no violation", scene.name));
        println!(
            "{}, without {out:?}: {what} after {} steps, {} states",
            scene.name,
            way.len(),
            verdict.states
        );
        assert_eq!(way.len(), verdict.depth, "the steps to it are known");
    }
}

/// Without each of these the scene still holds: something else covers it.
fn covered(scene: &Scene, controls: &[&[Safeguard]]) {
    for out in controls {
        holds(&scene.without(out));
    }
}

#[test]
fn grants_between_owners() {
    holds(&scenes::grants());
    breaks(&scenes::grants(), &[&[GrantDurableFirst]]);
}

#[test]
fn succession_of_a_peer_that_is_off() {
    let scene = scenes::succession();
    holds(&scene);
    breaks(
        &scene,
        &[
            &[GrantDurableFirst],
            &[AckDurableFirst],
            &[Witnesses],
            &[Promises],
            &[OnlyTheDead],
            &[OwnTerms, NextOfOwner],
        ],
    );
    // The rule of the next sequence alone keeps a term to one value, and so do terms that name their taker.
    covered(&scene, &[&[OwnTerms], &[NextOfOwner]]);
}

#[test]
fn two_addresses_in_one_message_and_in_parts() {
    let scene = scenes::two_addresses();
    holds(&scene);
    breaks(&scene, &[&[AllOrNothing], &[Promises], &[Witnesses]]);
}

#[test]
fn one_witness_becomes_three() {
    let scene = scenes::grown();
    holds(&scene);
    breaks(
        &scene,
        &[
            &[Seal],
            &[AcceptedTransfer],
            &[RingTransfer],
            &[NewMajority, Installed],
        ],
    );
}

#[test]
fn a_removed_witness_is_replaced() {
    let scene = scenes::replaced();
    holds(&scene);
    breaks(
        &scene,
        &[
            &[Seal],
            &[AcceptedTransfer],
            &[RingTransfer],
            &[SameSetup],
            &[NewMajority, Installed],
        ],
    );
    // A majority of the new set that installed, and acting only if installed, cover each other;
    // promises need no transfer, because no round crosses setups.
    covered(
        &scene,
        &[
            &[NewMajority],
            &[Installed],
            &[PromisedTransfer],
            &[RoundInOneSetup],
        ],
    );
}

#[test]
fn leaders_agree_on_one_witness_set() {
    let scene = scenes::two_leaders();
    holds(&scene);
    breaks(&scene, &[&[OldMajority], &[EarlierBallot]]);
}

#[test]
fn changes_follow_one_another() {
    let scene = scenes::two_changes();
    holds(&scene);
    breaks(&scene, &[&[AcceptedTransfer], &[SameSetup]]);
}

#[test]
fn an_owner_with_an_older_disk() {
    let scene = scenes::rolled_back();
    holds(&scene);
    breaks(
        &scene,
        &[
            &[Fence],
            &[Renewal, NotCountingItself],
            &[NewIncarnation],
            &[WitnessIncarnation, UnsureNoWitness],
        ],
    );
}

#[test]
fn a_peer_that_returns_while_it_is_removed() {
    let scene = scenes::returning();
    holds(&scene);
    breaks(&scene, &[&[Fence], &[Renewal]]);
}

#[test]
fn a_witness_with_an_older_disk() {
    holds(&scenes::witness_rolled_back());
    breaks(&scenes::witness_rolled_back(), &[&[UnsureNoWitness]]);
    holds(&scenes::witness_installed_anew());
    breaks(
        &scenes::witness_installed_anew(),
        &[&[UnsureNoWitness], &[InstallForOneLife]],
    );
    holds(&scenes::witness_and_leaders());
    breaks(&scenes::witness_and_leaders(), &[&[UnsureNoWitness]]);
}

#[test]
fn a_forced_reform_endangers_only_who_did_not_answer() {
    let scene = scenes::reformed();
    holds(&scene);
    breaks(&scene, &[&[ReformSeal], &[AcceptedTransfer]]);
}
