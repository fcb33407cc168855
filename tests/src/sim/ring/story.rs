//! One run: a mesh is launched, lives through a season of faults, and must be well afterwards.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant as WallClock};

use rmesh_gossip::crypto::Key;
use rmesh_ipam::{Range, address};
use rmesh_wire::Instant;

use super::super::layout::Layout;
use super::super::network::Network;
use super::super::node::Node as Peer;
use super::super::random::Random;
use super::disk::Remains;
use super::fault::Step;
use super::host::Host;
use super::report::RingOutcome;
use super::wires::ALL_NEIGHBOURS_MAX;
use super::world::{Action, World};

/// All peers are started within this time.
const LAUNCH: Duration = Duration::from_secs(3);
/// Peers that everybody is launched with, at most.
const CORE_MAX: usize = 5;
/// Clients come after this time.
const FIRST_WORK: Duration = Duration::from_secs(2);

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Wires {
    /// Over the real mesh, with the model of its cryptography.
    Gossip,
    /// From host to host; who is there and what is announced is told by a model of the mesh.
    Direct,
}

/// How honest the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskKind {
    /// Confirms what is durable.
    Honest,
    /// Confirms what it has only taken: the checks must notice.
    ConfirmsEarly,
    /// A killed process leaves nothing but what was durable: the checks must notice.
    ForgetsTail,
}

/// What the operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Follows the rules.
    Careful,
    /// Removes peers that live: the checks must notice.
    Careless,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// How many peers, at least three.
    pub peers: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Simulated seconds of faults.
    pub seconds: f64,
    /// How messages travel.
    pub wires: Wires,
    /// The disk.
    pub disk: DiskKind,
    /// The operator.
    pub operator: Operator,
    /// The only fault: a crash at the how-manieth write of all, and what it leaves.
    pub crash_at: Option<(u64, Remains)>,
    /// Tells everything on standard error.
    pub trace: bool,
}

impl RingOptions {
    /// A careful operator and an honest disk.
    pub fn new(peers: usize, seed: u64, seconds: f64, wires: Wires) -> Self {
        RingOptions {
            peers,
            seed,
            seconds,
            wires,
            disk: DiskKind::Honest,
            operator: Operator::Careful,
            crash_at: None,
            trace: false,
        }
    }

    /// The one command that replays this run, if it is a plain one.
    pub fn command(&self) -> String {
        let wires = match self.wires {
            Wires::Gossip => "gossip",
            Wires::Direct => "direct",
        };
        format!(
            "cargo run --release --bin rmesh-sim -- --scenario ring --wires {wires} --peers {} \
             --seed {} --minutes {}",
            self.peers,
            self.seed,
            self.seconds / 60.0
        )
    }

    /// Share of datagrams lost in the season.
    pub(super) fn loss(&self) -> f64 {
        match self.wires {
            Wires::Gossip => 0.03,
            Wires::Direct => 0.02,
        }
    }
}

/// Runs one story; once more, to be told, if something was violated.
///
/// # Errors
/// There are too few peers, or too many.
pub fn run(options: &RingOptions) -> Result<RingOutcome, String> {
    if !(3..=1_000).contains(&options.peers) {
        return Err("--peers must be from 3 to 1000".to_owned());
    }
    let start = WallClock::now();
    let mut outcome = live(options, options.trace);
    if !outcome.violations.is_empty() {
        outcome = live(options, true);
    }
    outcome.wall = start.elapsed();
    Ok(outcome)
}

fn live(options: &RingOptions, is_kept: bool) -> RingOutcome {
    let mut world = world(options);
    world.trace.is_kept = is_kept;
    world.trace.is_told = options.trace;
    let season = Duration::from_secs_f64(options.seconds);
    if options.crash_at.is_none() {
        world.plan(Instant::ZERO + LAUNCH / 2, Instant::ZERO + LAUNCH + season);
    }
    world.run_for(LAUNCH + season);
    let mut equal = None;
    if world.violations.is_empty() {
        equal = world.calm();
    }
    if world.violations.is_empty() {
        world.drain();
    }
    let told = world.trace.story(&world.words);
    RingOutcome {
        options: *options,
        violations: world.violations,
        story: told,
        equal,
        meter: world.meter,
        simulated: world.now.since(Instant::ZERO),
        wall: Duration::ZERO,
    }
}

fn world(options: &RingOptions) -> World {
    let mut random = Random::new(options.seed);
    let layout = Layout::open(options.peers, &mut random);
    let secret = Key::new(random.bytes());
    let hosts = (0..options.peers).map(|index| {
        let mut targets = layout.targets[index].clone();
        // Whoever else is removed, these are there until everybody has joined.
        targets.extend((0..CORE_MAX.min(options.peers)).filter(|&other| other != index));
        let own = Random::new(random.next());
        let peer = Peer::new(index, targets, secret.clone(), false, own);
        Host::new(peer, Random::new(random.next()))
    });
    let hosts = hosts.collect();
    let is_rough = options.crash_at.is_none();
    let loss = if is_rough { options.loss() } else { 0.0 };
    let network = Network::new(&layout, loss, Random::new(random.next()));
    let mut world = World::new(*options, hosts, network, random.next());
    world.pools = pools(options.peers, &mut random);
    world.found(&mut random);
    world.launch(&mut random);
    world
}

/// Small pools, so that they run out; for many peers some addresses more than first blocks take, as
/// in a mesh that is not short of them.
fn pools(peers: usize, random: &mut Random) -> Vec<Range> {
    let bits = if peers <= 16 { 6 } else { 11 };
    let bits = bits + random.below(2) as u32;
    let v4 = address::number(IpAddr::V4(Ipv4Addr::new(10, 32, 0, 0)));
    let v6 = address::number(IpAddr::V6(Ipv6Addr::new(0xfd32, 0, 0, 0, 0, 0, 0, 0)));
    let mut pools = vec![Range::block(v4, bits)];
    if peers <= 16 && random.chance(0.3) {
        pools.push(Range::block(v6, 6));
    }
    pools
}

impl World {
    /// Who founds the ring: one peer alone, or a few together.
    fn found(&mut self, random: &mut Random) {
        let size = self.hosts.len();
        self.is_founded_alone = random.chance(0.5);
        self.core = match self.is_founded_alone {
            true => vec![0],
            false => (0..CORE_MAX - 2 * random.below(2))
                .filter(|&host| host < size)
                .collect(),
        };
        for host in 0..size {
            if size > ALL_NEIGHBOURS_MAX {
                self.befriend(host, random);
            }
        }
    }

    /// The overlay, where wires are direct: the next one and a few at random.
    fn befriend(&mut self, host: usize, random: &mut Random) {
        let size = self.hosts.len();
        let few = size.ilog2() as usize / 4;
        let mut friends: BTreeSet<usize> = (0..few).map(|_| random.below(size)).collect();
        friends.insert((host + 1) % size);
        friends.remove(&host);
        for friend in friends {
            self.overlay[host].insert(friend);
            self.overlay[friend].insert(host);
        }
    }

    fn launch(&mut self, random: &mut Random) {
        for host in 0..self.hosts.len() {
            let at = random.between(Duration::ZERO, LAUNCH);
            self.schedule(at, Action::Step(Step::Start(host)));
            self.schedule(at + FIRST_WORK, Action::Work(host));
            if self.options.wires == Wires::Direct {
                self.schedule(at, Action::Rumour(host));
            }
        }
    }
}
