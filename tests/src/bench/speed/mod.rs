//! What rmesh carries from container to container, beside the bare wire and the kernel's own VXLAN,
//! which encrypts nothing, over one underlay in one round. The bounds are the project's own, as parts of what
//! VXLAN does in the same round.

mod ground;
mod limit;
mod machine;
mod others;
mod plaintext;
mod scene;
mod tcp;
mod tunnels;
mod udp;

use std::time::Duration;

use super::{Bound, Figure};
use crate::story::Story;
pub(super) use limit::measure as limit;
pub(super) use plaintext::measure as plaintext;
use scene::{Scene, Underlay, Way};
use tcp::Carried;

/// Streams at once, besides one alone.
const STREAMS: usize = 4;
/// Payload of the largest datagram that rmesh's containers and VXLAN's need not fragment.
const LARGEST: [usize; 2] = [1_328 - 28, 1_450 - 28];
const SMALL_LEN: usize = 64;
const ASKED: usize = 400;
const FLOODED: usize = 4_000;
const PAUSE: Duration = Duration::from_millis(2);

/// Bounds of an underlay: one stream and four, by VXLAN.
struct Bounds {
    one: f64,
    four: f64,
}

/// A contender's figures.
struct Contender {
    name: &'static str,
    one: Carried,
    four: Carried,
}

fn compete(name: &'static str, way: &Way<'_>) -> Contender {
    Contender {
        name,
        one: tcp::carry(way, 1),
        four: tcp::carry(way, STREAMS),
    }
}

/// TCP over real packets, with each cipher and port, and over a relay.
pub(super) fn wire(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-wire", program);
    let mut scene = Scene::pair(&mut story, Underlay::Wire);
    let idle = rss(&scene);
    let raw = compete("raw veth", &scene.raw());
    let vxlan = compete("kernel VXLAN", &scene.vxlan());
    let rmesh = compete("rmesh", &scene.rmesh());
    let loaded = rss(&scene);
    scene.relaunch(&mut story, &["--without", "aes"]);
    let chacha = compete("rmesh, ChaCha20-Poly1305", &scene.rmesh());
    scene.relaunch(&mut story, &["--without", "super-frames"]);
    let plain = compete("rmesh, plain port", &scene.rmesh());
    drop((scene, story));
    let mut story = Story::new("bench-relay", program);
    let scene = Scene::relayed(&mut story, Underlay::Wire);
    let relayed = compete("rmesh, over one relay", &scene.rmesh());

    drop((scene, story));
    let others = others::compete();

    let all = [&raw, &vxlan, &rmesh, &chacha, &plain, &relayed];
    let all: Vec<&Contender> = all.into_iter().chain(&others).collect();
    let mut figures = absolute(Underlay::Wire, &all);
    let bounds = Bounds {
        one: 0.70,
        four: 0.62,
    };
    figures.extend(by_vxlan(Underlay::Wire, &vxlan, &rmesh, &bounds));
    let part = |name: &str, of: &Carried, by: &Carried, least: f64| {
        let part = of.gigabits_per_s / by.gigabits_per_s;
        Figure::new(format!("wire, TCP 1 stream, {name}"), "times", part).bound(Bound::Above(least))
    };
    figures.push(part(
        "ChaCha20-Poly1305 by VXLAN",
        &chacha.one,
        &vxlan.one,
        0.50,
    ));
    figures.push(part("relayed by direct", &relayed.one, &rmesh.one, 0.50));
    if !others.is_empty() {
        let rates = others.iter().map(|other| other.one.gigabits_per_s);
        let best = rates.fold(f64::NAN, f64::max);
        figures.push(Figure::new(
            "wire, TCP 1 stream, rmesh by the best of the others",
            "times",
            rmesh.one.gigabits_per_s / best,
        ));
    }
    let cpu = Figure::new(
        "wire, rmesh: CPU of the machine",
        "s/GB",
        rmesh.one.cpu_s_per_gigabyte,
    );
    figures.push(cpu.bound(Bound::Below(4.0)));
    figures.push(Figure::new("memory in RAM, idle", "MB", idle).bound(Bound::Below(15.0)));
    figures.push(Figure::new("memory in RAM, after load", "MB", loaded).bound(Bound::Below(30.0)));
    figures
}

/// TCP where the underlay joins what it receives.
pub(super) fn nic(program: &str) -> Vec<Figure> {
    over(
        Underlay::Nic,
        program,
        &Bounds {
            one: 0.75,
            four: 0.55,
        },
    )
}

/// TCP where the underlay carries super-frames whole.
pub(super) fn veth(program: &str) -> Vec<Figure> {
    over(
        Underlay::Veth,
        program,
        &Bounds {
            one: 0.45,
            four: 0.40,
        },
    )
}

fn over(underlay: Underlay, program: &str, bounds: &Bounds) -> Vec<Figure> {
    let mut story = Story::new(&format!("bench-{}", underlay.name()), program);
    let scene = Scene::pair(&mut story, underlay);
    let raw = compete("raw veth", &scene.raw());
    let vxlan = compete("kernel VXLAN", &scene.vxlan());
    let rmesh = compete("rmesh", &scene.rmesh());
    let mut figures = absolute(underlay, &[&raw, &vxlan, &rmesh]);
    figures.extend(by_vxlan(underlay, &vxlan, &rmesh, bounds));
    figures
}

fn rss(scene: &Scene) -> f64 {
    scene.daemons().map(machine::rss_mb).fold(0.0, f64::max)
}

fn absolute(underlay: Underlay, all: &[&Contender]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for contender in all {
        for (streams, carried) in [(1, contender.one), (STREAMS, contender.four)] {
            let name = format!(
                "{}, TCP {streams} streams, {}",
                underlay.name(),
                contender.name
            );
            figures.push(Figure::new(name, "Gbit/s", carried.gigabits_per_s));
        }
        let name = format!(
            "{}, {}: CPU of the machine",
            underlay.name(),
            contender.name
        );
        figures.push(Figure::new(name, "s/GB", contender.one.cpu_s_per_gigabyte));
    }
    figures
}

fn by_vxlan(
    underlay: Underlay,
    vxlan: &Contender,
    rmesh: &Contender,
    bounds: &Bounds,
) -> [Figure; 2] {
    let part = |streams: usize, of: Carried, by: Carried, least: f64| {
        let name = format!("{}, TCP {streams} streams, rmesh by VXLAN", underlay.name());
        let part = of.gigabits_per_s / by.gigabits_per_s;
        Figure::new(name, "times", part).bound(Bound::Above(least))
    };
    [
        part(1, rmesh.one, vxlan.one, bounds.one),
        part(STREAMS, rmesh.four, vxlan.four, bounds.four),
    ]
}

/// UDP over real packets: rates and round trips.
pub(super) fn datagrams(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-udp", program);
    let scene = Scene::pair(&mut story, Underlay::Wire);
    let ways = [("rmesh", scene.rmesh()), ("kernel VXLAN", scene.vxlan())];
    let mut figures = Vec::new();
    let mut large = [0.0; 2];
    let mut small = [0.0; 2];
    let mut kept = 0.0;
    for (at, (name, way)) in ways.iter().enumerate() {
        let measure = |len| match udp::datagrams(way, len) {
            Ok(datagrams) => datagrams,
            Err(error) => panic!("{name}: {error}"),
        };
        let (largest, smallest) = (measure(LARGEST[at]), measure(SMALL_LEN));
        large[at] = largest.best_per_s * LARGEST[at] as f64 * 8.0 / 1e9;
        small[at] = smallest.best_per_s / 1e3;
        if at == 0 {
            kept = largest.overloaded_per_s / largest.best_per_s;
        }
        let len = LARGEST[at];
        figures.push(Figure::new(
            format!("wire, UDP {len} B, {name}"),
            "Gbit/s",
            large[at],
        ));
        figures.push(Figure::new(
            format!("wire, UDP 64 B, {name}"),
            "thousand/s",
            small[at],
        ));
    }
    let ratio = |name: &str, [of, by]: [f64; 2], least| {
        Figure::new(format!("wire, {name}, rmesh by VXLAN"), "times", of / by)
            .bound(Bound::Above(least))
    };
    figures.push(ratio("UDP of the largest payload", large, 0.78));
    figures.push(ratio("UDP 64 B", small, 1.0));
    let kept = Figure::new(
        "wire, UDP, goodput under overload by the best",
        "times",
        kept,
    );
    figures.push(kept.bound(Bound::Above(0.8)));
    for (name, way) in &ways {
        figures.extend(trips(name, way));
    }
    figures
}

fn trips(name: &str, way: &Way<'_>) -> Vec<Figure> {
    let measure = |count, pause| match udp::round_trips(way, count, pause) {
        Ok(trips) => trips,
        Err(error) => panic!("{name}: {error}"),
    };
    let (apart, flood) = (measure(ASKED, PAUSE), measure(FLOODED, Duration::ZERO));
    let is_ours = name == "rmesh";
    let figure = |what: &str, value: f64, most: Option<f64>| {
        let figure = Figure::new(format!("wire, round trip {what}, {name}"), "us", value);
        match most.filter(|_| is_ours) {
            Some(most) => figure.bound(Bound::Below(most)),
            None => figure,
        }
    };
    vec![
        figure("2 ms apart, p50", apart.p50_us, Some(150.0)),
        figure("2 ms apart, p99", apart.p99_us, None),
        figure("flood, p50", flood.p50_us, Some(100.0)),
        figure("flood, p99", flood.p99_us, None),
    ]
}
