//! Plaintext pairs beside a VXLAN and a bridge made by hand, with the same MTU, in turns: one of each, the
//! same backwards, and both with the other first, so that what changes meanwhile falls on both alike.

use std::time::Instant;

use super::super::{Bound, Figure};
use super::scene::{Scene, Underlay, Way};
use super::tcp::Length;
use super::{LARGEST, STREAMS, machine, tcp, udp};
use crate::story::Story;

/// Part of what the hand-made way carries that rmesh keeps.
const KEPT_MIN: f64 = 0.97;
/// Share of one core that each router may take while the kernel carries.
const ROUTER_MAX: f64 = 0.02;
/// Turns of 3 s with TCP, of 8 with UDP: by hand differs from by hand by up to a third from one to the next.
const TURNS: usize = 8;
const TURNS_UDP: usize = 4;
const FLAGS: [&str; 3] = ["--no-encryption", "--mtu", "1450"];

/// Gives what a way carries, in Gbit/s.
type Carry<'a> = &'a dyn Fn(&Way<'_>) -> f64;

pub(in super::super) fn measure(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-plain", program);
    let scene = Scene::pair_with(&mut story, Underlay::Wire, &FLAGS);
    scene.expect_plaintext(&story);
    let (ours, by_hand) = (scene.rmesh(), scene.vxlan());
    let one = |way: &Way<'_>| tcp::carry_for(Length::SHORT, way, 1).gigabits_per_s;
    let four = |way: &Way<'_>| tcp::carry_for(Length::SHORT, way, STREAMS).gigabits_per_s;
    let [_, largest] = LARGEST;
    let datagrams = |way: &Way<'_>| match udp::datagrams(way, largest) {
        Ok(datagrams) => datagrams.best_per_s * largest as f64 * 8.0 / 1e9,
        Err(error) => panic!("{}: {error}", way.address),
    };
    let mut figures = Vec::new();
    let mut busiest: f64 = 0.0;
    let kinds: [(&str, usize, Carry<'_>); 3] = [
        ("TCP 1 stream", TURNS, &one),
        ("TCP 4 streams", TURNS, &four),
        ("UDP of the largest payload", TURNS_UDP, &datagrams),
    ];
    for (what, turns, carry) in kinds {
        let mut rates = [Vec::new(), Vec::new()];
        let (mut spent, mut time) = ([0.0; 2], 0.0);
        for turn in 0..turns {
            let order = match turn % 2 {
                0 => [1, 0, 0, 1],
                _ => [0, 1, 1, 0],
            };
            for which in order {
                let (before, start) = (used(&scene), Instant::now());
                rates[which].push(carry([&ours, &by_hand][which]));
                if which == 0 {
                    let more = used(&scene).into_iter().zip(before);
                    let spent = spent.iter_mut().zip(more);
                    spent.for_each(|(spent, (after, before))| *spent += after - before);
                    time += start.elapsed().as_secs_f64();
                }
            }
        }
        busiest = spent
            .into_iter()
            .map(|spent| spent / time)
            .fold(busiest, f64::max);
        let [ours, by_hand] = rates.map(|values| values.iter().sum::<f64>() / values.len() as f64);
        let absolute =
            |name: &str, rate| Figure::new(format!("plaintext, {what}, {name}"), "Gbit/s", rate);
        figures.push(absolute("rmesh", ours));
        figures.push(absolute("VXLAN by hand", by_hand));
        let kept = Figure::new(
            format!("plaintext, {what}, rmesh by VXLAN by hand"),
            "times",
            ours / by_hand,
        );
        figures.push(kept.bound(Bound::Above(KEPT_MIN)));
    }
    let router = Figure::new("plaintext, a router meanwhile", "cores", busiest);
    figures.push(router.bound(Bound::Below(ROUTER_MAX)));
    figures
}

/// Seconds of a core that each router has used so far.
fn used(scene: &Scene) -> Vec<f64> {
    scene.daemons().map(machine::used_s).collect()
}
