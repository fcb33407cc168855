//! How much of what the kernel's VXLAN carries any tunnel in user space could: a forwarder that does nothing
//! else, in the same round, with datagrams of the same lengths.

use rmesh_lab::Forwarder;

use super::super::Figure;
use super::ground::Ground;
use super::scene::{Scene, Underlay};
use super::{Contender, STREAMS, absolute, compete, tcp};
use crate::story::Story;

const TAP: &str = "tap0";
/// What containers have by default, and what rmesh puts before each frame.
const MTU: u32 = 1_328;
const OVERHEAD: usize = 36;
const ETHERNET_LEN: usize = 14;

pub(in super::super) fn measure(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-limit", program);
    let scene = Scene::pair(&mut story, Underlay::Wire);
    let vxlan = compete("kernel VXLAN", &scene.vxlan());
    let rmesh = compete("rmesh", &scene.rmesh());
    drop((scene, story));
    let bare = bare().unwrap_or_else(|error| panic!("the forwarder: {error:#}"));
    let mut figures = absolute(Underlay::Wire, &[&vxlan, &rmesh, &bare]);
    let both = [
        (1, rmesh.one, bare.one, vxlan.one),
        (STREAMS, rmesh.four, bare.four, vxlan.four),
    ];
    for (streams, rmesh, bare, vxlan) in both {
        let mut part = |name: &str, of: tcp::Carried, by: tcp::Carried| {
            let name = format!("wire, TCP {streams} streams, {name}");
            let part = of.gigabits_per_s / by.gigabits_per_s;
            figures.push(Figure::new(name, "times", part));
        };
        part("rmesh by VXLAN", rmesh, vxlan);
        part("bare forwarder by VXLAN", bare, vxlan);
        part("rmesh by bare forwarder", rmesh, bare);
    }
    figures
}

fn bare() -> anyhow::Result<Contender> {
    let mut ground = Ground::new("bare")?;
    let frame_len = ETHERNET_LEN + MTU as usize;
    let mut forwarders = Vec::new();
    for of in 0..2 {
        let addresses = [of, 1 - of].map(|of| ground.address(of));
        let lens = (OVERHEAD, frame_len);
        let forwarder = Forwarder::start(&ground.hosts[of], TAP, addresses, lens)?;
        forwarders.push(forwarder);
        ground.end_in_container(of, TAP, MTU)?;
    }
    let way = ground.way()?;
    Ok(Contender {
        name: "bare forwarder",
        one: tcp::try_carry(&way, 1)?,
        four: tcp::try_carry(&way, STREAMS)?,
    })
}
