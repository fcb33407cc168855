//! Scenes: who is there, what may happen, and which safeguard is taken out.

use super::checker::Model;
use super::world::{
    ADDRESSES, BALLOTS, Ballot, Cell, Life, MESSAGES, Message, PEERS, Peer, REBORN, Round, SETUPS,
    Set, TERMS, World,
};

/// What keeps two peers from owning one address. A negative control takes one out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Safeguard {
    /// A grant is durable with its owner before it is sent.
    GrantDurableFirst,
    /// A witness's acceptance is durable before its answer is sent.
    AckDurableFirst,
    /// A grant counts when a witness majority acknowledged it, not when it was sent.
    Witnesses,
    /// A taker collects promises before it proposes.
    Promises,
    /// Only a peer that is off is succeeded.
    OnlyTheDead,
    /// Each taker has terms of its own.
    OwnTerms,
    /// Within a term a witness accepts only the next cell of the owner it knows.
    NextOfOwner,
    /// A message is accepted whole or not at all.
    AllOrNothing,
    /// A witness that answered a seal acknowledges nothing more in the old setup.
    Seal,
    /// What the old witnesses accepted goes to the new ones.
    AcceptedTransfer,
    /// What the old witnesses promised goes to the new ones.
    PromisedTransfer,
    /// The old witnesses' rings agree with what the new ones begin with.
    RingTransfer,
    /// A setup needs a majority of the old witnesses to be chosen.
    OldMajority,
    /// A setup needs a majority of the new witnesses to be chosen.
    NewMajority,
    /// A leader proposes what an earlier one may have got chosen.
    EarlierBallot,
    /// A witness acts only after it installed exactly the chosen setup.
    Installed,
    /// Acknowledgements count only together with others of the same setup.
    SameSetup,
    /// A taker's promises count only in the setup they were given in.
    RoundInOneSetup,
    /// A peer that lost its ledger is another owner.
    NewIncarnation,
    /// A peer that lost its ledger is no witness any more.
    WitnessIncarnation,
    /// A peer that is unsure after a reboot asks the witnesses.
    Fence,
    /// Of the majority it asks, an unsure peer is none itself.
    NotCountingItself,
    /// An unsure peer is no witness until a setup change installs it anew.
    UnsureNoWitness,
    /// What an unsure peer installed, or is told to, counts for the life it was meant for.
    InstallForOneLife,
    /// An unsure peer takes a new term for what it owns before it uses it.
    Renewal,
    /// Who answers a forced reform leaves the old generation first.
    ReformSeal,
}

/// A change of the witness set that a leader wants.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The setup it follows.
    pub after: u8,
    /// The witnesses wanted.
    pub witnesses: Set,
    /// Whether they name the life that a rebooted peer began, so that it may install them.
    pub fresh: bool,
}

/// A configuration of the model.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What the test calls it.
    pub name: &'static str,
    /// Addresses in it.
    pub addresses: usize,
    /// The first witnesses.
    pub witnesses: Set,
    /// Who may be granted something.
    pub grantees: Set,
    /// Grants, at most.
    pub grants: usize,
    /// Whether one grant may carry both addresses.
    pub pairs: bool,
    /// The taker of each term, from 1. Peer 0 takes its own when it is unsure, and as `REBORN` what it was before.
    pub takers: Vec<u8>,
    /// Ballots, in rising order.
    pub wishes: Vec<Wish>,
    /// Peers whose ring follows gossip.
    pub listeners: Set,
    /// Whether peer 0 may be switched off.
    pub stops: bool,
    /// Whether peer 0 may return after that, its disk intact.
    pub returns: bool,
    /// The peer that may reboot, once, with an older disk. One other than 0 owns nothing then.
    pub rolls_back: Option<u8>,
    /// Who may force a reform, into the last setup.
    pub reformer: Option<u8>,
    /// Whether containers come and go, rather than an address being in use wherever it may be used.
    pub containers: bool,
    /// The safeguards taken out.
    pub without: Vec<Safeguard>,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            name: "",
            addresses: 1,
            witnesses: Set(0b0111),
            grantees: Set(0b0010),
            grants: 1,
            pairs: false,
            takers: Vec::new(),
            wishes: Vec::new(),
            listeners: Set(0b1111),
            stops: false,
            returns: false,
            rolls_back: None,
            reformer: None,
            containers: false,
            without: Vec::new(),
        }
    }
}

impl Scene {
    /// The scene with these safeguards taken out.
    pub fn without(&self, safeguards: &[Safeguard]) -> Self {
        let without = safeguards.to_vec();
        Self {
            without,
            ..self.clone()
        }
    }

    /// Whether the safeguard is in place.
    pub fn keeps(&self, safeguard: Safeguard) -> bool {
        !self.without.contains(&safeguard)
    }

    /// The term as cells carry it.
    pub fn term(&self, round: usize) -> u8 {
        if self.keeps(Safeguard::OwnTerms) {
            round as u8 + 1
        } else {
            1
        }
    }

    /// The setup a forced reform makes.
    pub fn reformed() -> u8 {
        SETUPS as u8 - 1
    }
}

/// What happened, for the trace. Peers, messages and ballots by number.
#[allow(missing_docs, reason = "the fields say what they are")]
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A peer recorded a grant and sent it.
    Grant {
        from: usize,
        cells: [Cell; ADDRESSES],
    },
    /// A container got an address, or gave it back.
    Container {
        peer: usize,
        address: usize,
        up: bool,
    },
    /// A witness accepted a message and acknowledged it.
    Accept {
        witness: usize,
        cells: [Cell; ADDRESSES],
        setup: u8,
    },
    /// The sender counted a majority.
    Count {
        sender: usize,
        cells: [Cell; ADDRESSES],
        setup: u8,
    },
    /// Chosen cells came by gossip.
    Gossip {
        from: usize,
        to: usize,
        address: usize,
    },
    /// A witness promised a term.
    Promise {
        witness: usize,
        term: u8,
        address: usize,
        setup: u8,
    },
    /// A taker proposed.
    Propose {
        taker: u8,
        cell: Cell,
        address: usize,
    },
    /// Peer 0 was switched off.
    Stop,
    /// Peer 0 came back with its disk.
    Return,
    /// Peer 0's disk was copied.
    CopyDisk,
    /// Peer 0 rebooted, perhaps with the copy.
    Reboot { peer: usize, copy: bool },
    /// A witness answered what peer 0 owns.
    Read { witness: usize },
    /// Peer 0 found itself current, or not.
    Proven { current: bool },
    /// A witness sealed for a ballot and answered.
    Seal { witness: usize, ballot: usize },
    /// A leader proposed witnesses.
    ProposeSetup { ballot: usize, witnesses: Set },
    /// A member installed them.
    Install { member: usize, ballot: usize },
    /// A peer learnt which setup is chosen.
    LearnSetup { peer: usize, setup: u8 },
    /// A peer answered a forced reform.
    AnswerReform { peer: usize },
    /// The reformer recorded the new generation.
    Reform,
}

/// Where steps go.
pub type Emit<'a> = &'a mut dyn FnMut(Step, World);

impl Model for Scene {
    type State = World;
    type Step = Step;

    fn start(&self) -> World {
        let mut setups = [Set(0); SETUPS];
        setups[0] = self.witnesses;
        World {
            peers: std::array::from_fn(|number| Peer {
                id: number as u8,
                granted: [Cell::NONE; ADDRESSES],
                installed: self.witnesses.has(number),
                ..Peer::default()
            }),
            messages: [Message::EMPTY; MESSAGES],
            rounds: [Round::default(); TERMS],
            setups,
            fresh: [false; SETUPS],
            ballots: [Ballot::default(); BALLOTS],
            split: false,
            image: None,
            reboots: 0,
            read: (Set(0), [Cell::default(); ADDRESSES]),
            reform: Ballot::default(),
            risked: [false; ADDRESSES],
        }
    }

    fn steps(&self, world: &World, emit: Emit<'_>) {
        self.owners_act(world, emit);
        self.containers_come_and_go(world, emit);
        self.witnesses_accept(world, emit);
        self.rings_spread(world, emit);
        self.takers_act(world, emit);
        self.setup_changes(world, emit);
        self.faults(world, emit);
        self.reforms(world, emit);
    }

    fn broken(&self, world: &World) -> Option<String> {
        if world.split {
            return Some(format!(
                "two witness sets chosen in one place: {:?}",
                world.setups
            ));
        }
        let double = (0..self.addresses).find(|&x| {
            !world.risked[x] && world.peers.iter().filter(|peer| peer.uses(x)).count() > 1
        })?;
        let users: Vec<_> = (0..PEERS)
            .filter(|&p| world.peers[p].uses(double))
            .collect();
        Some(format!("address {double} is used by peers {users:?}"))
    }

    fn reached_goal(&self, world: &World) -> bool {
        let moved = |p: usize| (0..self.addresses).all(|x| world.peers[p].may_use(x));
        let owner_moved = (1..PEERS).any(moved) || (world.peers[0].id == REBORN && moved(0));
        let changes = self
            .wishes
            .iter()
            .map(|wish| wish.after + 1)
            .max()
            .unwrap_or(0);
        let changed = world.setups[usize::from(changes)] != Set(0);
        let stopped = !self.stops || world.peers[0].life == Life::Stopped || self.returns;
        (owner_moved || self.grants == 0) && changed && stopped
    }
}
