//! A large mesh of which some hosts are behind translators of addresses: what it costs those to be there.

use std::time::Duration;

use rmesh_wire::PeerId;
use rmesh_wire::payload::RING_CHANNEL;

use super::fault::Fault;
use super::layout::Layout;
use super::network::Translator;
use super::random::Random;
use super::report::Traffic;
use super::scenario::{LAUNCH, Options, SETTLE, Scenario, await_rest, world};
use super::world::World;

/// The cost of quiet is measured for this long.
const MEASURED: Duration = Duration::from_secs(600);
/// The ring of addresses sends a message so often to some neighbour of each host, this long.
const RING_EVERY: Duration = Duration::from_secs(5);
const RING_MESSAGE: [u8; 72] = [0; 72];
/// How often it is looked whether somebody is known to be gone.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// All peers.
    pub peers: usize,
    /// Those behind a translator, each its own.
    pub translated: usize,
    /// How long a translator keeps a mapping that is not used.
    pub lifetime: Duration,
    /// Whether there is a ring of addresses, whose digests are on their way all the time.
    pub has_ring: bool,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Quiet {
    /// What must not be; empty if all is well.
    pub violations: Vec<String>,
    /// Traffic of each peer behind a translator, and for how long.
    pub traffic: Vec<Traffic>,
    /// How long that was measured.
    pub measured: Duration,
    /// How many control links each of them had.
    pub links: Vec<usize>,
    /// Times a peer was given up meanwhile.
    pub downs: u64,
    /// From the sudden end of one of them until nobody thought it reachable.
    pub noticed: Option<Duration>,
}

impl Quiet {
    /// The most of anything, a second.
    pub fn most(&self, of: impl Fn(&Traffic) -> u64) -> f64 {
        let most = self.traffic.iter().map(of).max().unwrap_or(0);
        most as f64 / self.measured.as_secs_f64()
    }
}

/// Runs it.
pub fn run(setting: Setting) -> Quiet {
    let mut random = Random::new(setting.seed);
    let open = setting.peers - setting.translated;
    let layout = Layout::behind(setting.peers, open, &mut random);
    let options = Options {
        peers: setting.peers,
        scenario: Scenario::Steady,
        seed: setting.seed,
        minutes: 1.0,
        real_crypto: false,
        trace: false,
    };
    let mut world = world(&options, &layout, 0.0, &mut random);
    for node in open..setting.peers {
        world
            .network
            .translate(node, Translator::new(setting.lifetime));
    }
    world.run_for(LAUNCH);
    await_rest(&mut world, &vec![false; setting.peers]);
    // Sessions that nobody wants any more end, and the keeping of mappings finds its time.
    world.run_for(SETTLE * 2);
    let (before, downs) = (traffic(&world, open), world.meter.peer_downs);
    match setting.has_ring {
        true => run_with_ring(&mut world, &mut random),
        false => world.run_for(MEASURED),
    }
    let traffic = traffic(&world, open).into_iter().zip(before);
    let traffic = traffic.map(|(now, before)| Traffic {
        sent: now.sent - before.sent,
        sent_bytes: now.sent_bytes - before.sent_bytes,
        received: now.received - before.received,
        received_bytes: now.received_bytes - before.received_bytes,
    });
    Quiet {
        traffic: traffic.collect(),
        measured: MEASURED,
        links: (open..setting.peers)
            .map(|at| neighbours(&mut world, at).len())
            .collect(),
        downs: world.meter.peer_downs - downs,
        noticed: end_of(&mut world, open),
        violations: world.violations,
    }
}

/// One message of each host to one neighbour, now and then.
fn run_with_ring(world: &mut World, random: &mut Random) {
    let end = world.now + MEASURED;
    let peers = world.nodes.len();
    let pause = RING_EVERY / u32::try_from(peers).unwrap_or(1);
    while world.now < end {
        world.run_for(pause.min(end.since(world.now)));
        let node = random.below(peers);
        let neighbours = neighbours(world, node);
        let now = world.now;
        if let Some(to) = neighbours.get(random.below(neighbours.len().max(1)))
            && let Some(mesh) = world.nodes[node].mesh.as_mut()
        {
            mesh.handle_channel_send(*to, RING_CHANNEL, &RING_MESSAGE, now);
            world.settle(node);
        }
    }
}

fn traffic(world: &World, open: usize) -> Vec<Traffic> {
    let translated = open..world.nodes.len();
    translated.map(|at| world.meter.traffic(at)).collect()
}

fn neighbours(world: &mut World, at: usize) -> Vec<PeerId> {
    let Some(mesh) = world.nodes[at].mesh.as_mut() else {
        return Vec::new();
    };
    mesh.tell_again();
    let members = mesh.poll_members().unwrap_or_default();
    let neighbours = members.iter().filter(|member| member.neighbour);
    neighbours.map(|member| member.peer).collect()
}

/// One of them is gone from one moment to the next.
fn end_of(world: &mut World, node: usize) -> Option<Duration> {
    let (start, id) = (world.now, world.nodes[node].id);
    Fault::Crash {
        node,
        with_hints: false,
    }
    .strike(world);
    let thinks_it_there = |world: &World| {
        let meshes = world.nodes.iter().filter_map(|other| other.mesh.as_ref());
        meshes.map(|mesh| mesh.forwarding()).any(|forwarding| {
            let known = forwarding.peers.get(&id);
            known.is_some_and(|known| known.path.is_some())
        })
    };
    while thinks_it_there(world) {
        if world.now.since(start) > Duration::from_secs(60) {
            return None;
        }
        world.run_for(LOOK);
    }
    Some(world.now.since(start))
}
