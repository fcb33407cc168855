//! Searches the model of the ring's protocol.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rmesh_tests::model::checker::{STATES_MAX, search};
use rmesh_tests::model::scene::{Safeguard, Scene};
use rmesh_tests::model::scenes;

/// Searches scenes of the ring's protocol for two owners of one address, and tells the steps to them.
///
/// Examples:
///   rmesh-model                                  every scene, the large ones too (minutes)
///   rmesh-model --scene replaced
///   rmesh-model --scene replaced --without seal  the steps to a double ownership
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// Only the scene of this name.
    #[arg(long)]
    scene: Option<String>,
    /// A safeguard to take out; several times for several.
    #[arg(long, value_enum)]
    without: Vec<Safeguard>,
    /// States to visit at most; 40 million take about 4 GB.
    #[arg(long, default_value_t = STATES_MAX)]
    states: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut scenes = scenes::all();
    scenes.extend(scenes::large());
    let names: Vec<_> = scenes.iter().map(|scene| scene.name).collect();
    scenes.retain(|scene| {
        arguments
            .scene
            .as_deref()
            .is_none_or(|name| name == scene.name)
    });
    if scenes.is_empty() {
        eprintln!(
            "rmesh-model: no such scene; there are: {}",
            names.join("; ")
        );
        return ExitCode::from(2);
    }
    let broken = scenes
        .iter()
        .filter(|scene| !tell(&scene.without(&arguments.without), arguments.states))
        .count();
    ExitCode::from(u8::from(broken > 0))
}

/// Searches one scene and prints what came of it; whether it held.
fn tell(scene: &Scene, states_max: usize) -> bool {
    let start = Instant::now();
    let verdict = search(scene, states_max);
    let held = verdict.violation.is_none();
    let result = match (held, verdict.complete) {
        (false, _) => "BROKEN",
        (true, true) => "holds",
        (true, false) => "held as far as it was searched",
    };
    println!(
        "{}: {result}, {} states, {} steps deep, {:.1} s",
        scene.name,
        verdict.states,
        verdict.depth,
        start.elapsed().as_secs_f64()
    );
    if let Some((what, steps)) = verdict.violation {
        println!("  {what}, after");
        steps.iter().for_each(|step| println!("    {step}"));
    }
    held
}
