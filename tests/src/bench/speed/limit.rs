//! How much of what the kernel's VXLAN carries any tunnel in user space could: a forwarder that does nothing
//! else, in the same round, with datagrams of the same lengths; and one that also does to each payload what a cipher does.

use std::sync::Arc;

use anyhow::anyhow;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rmesh_lab::{Forwarder, Work};

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
    let both = [Underlay::Wire, Underlay::Nic];
    both.into_iter()
        .flat_map(|underlay| over(underlay, program))
        .collect()
}

fn over(underlay: Underlay, program: &str) -> Vec<Figure> {
    let mut story = Story::new(&format!("bench-limit-{}", underlay.name()), program);
    let mut scene = Scene::pair(&mut story, underlay);
    let vxlan = compete("kernel VXLAN", &scene.vxlan());
    let aes = compete("rmesh", &scene.rmesh());
    scene.relaunch(&mut story, &["--without", "aes"]);
    let chacha = compete("rmesh, ChaCha20-Poly1305", &scene.rmesh());
    drop((scene, story));
    let carried = |name, work| {
        let bare = bare(name, underlay, work);
        bare.unwrap_or_else(|error| panic!("{name}: {error:#}"))
    };
    let bare = carried("bare forwarder", None);
    let sealing = carried(
        "forwarder with ChaCha20-Poly1305",
        Some(chacha20_poly1305()),
    );
    let mut figures = absolute(underlay, &[&vxlan, &aes, &chacha, &bare, &sealing]);
    let pairs = [
        (&aes, &vxlan),
        (&bare, &vxlan),
        (&aes, &bare),
        (&chacha, &vxlan),
        (&sealing, &vxlan),
        (&chacha, &sealing),
    ];
    for (of, by) in pairs {
        let carried = [(1, of.one, by.one), (STREAMS, of.four, by.four)];
        for (streams, left, right) in carried {
            let (name, of, by) = (underlay.name(), of.name, by.name);
            let name = format!("{name}, TCP {streams} streams, {of} by {by}");
            let part = left.gigabits_per_s / right.gigabits_per_s;
            figures.push(Figure::new(name, "times", part));
        }
    }
    figures
}

fn bare(
    name: &'static str,
    underlay: Underlay,
    work: Option<anyhow::Result<Work>>,
) -> anyhow::Result<Contender> {
    let work = work.transpose()?;
    let mut ground = Ground::on("bare", underlay)?;
    let frame_len = ETHERNET_LEN + MTU as usize;
    let mut forwarders = Vec::new();
    for of in 0..2 {
        let addresses = [of, 1 - of].map(|of| ground.address(of));
        let lens = (OVERHEAD, frame_len);
        let host = &ground.hosts[of];
        let forwarder = Forwarder::start(host, TAP, addresses, lens, work.clone())?;
        forwarders.push(forwarder);
        ground.end_in_container(of, TAP, MTU)?;
    }
    let way = ground.way()?;
    Ok(Contender {
        name,
        one: tcp::try_carry(&way, 1)?,
        four: tcp::try_carry(&way, STREAMS)?,
    })
}

/// The work of sealing, and of opening, which is the same: under one nonce the second time undoes the first.
fn chacha20_poly1305() -> anyhow::Result<Work> {
    let refused = |_| anyhow!("the library does not take its own key length");
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).map_err(refused)?;
    let key = LessSafeKey::new(key);
    Ok(Arc::new(move |text: &mut [u8]| {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        // No payload is longer than the cipher takes.
        let _ = key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
    }))
}
