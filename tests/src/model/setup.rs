//! Changes of the witness set: seal, transfer, install, learn.

use super::scene::{Emit, Safeguard, Scene, Step};
use super::world::{Ballot, Cell, Life, PEERS, Peer, Set, World};

impl Scene {
    /// Leaders, each with its ballot, and those that answer them.
    pub(super) fn setup_changes(&self, world: &World, emit: Emit<'_>) {
        for ballot in 0..self.wishes.len() {
            for peer in (0..PEERS).filter(|&peer| world.peers[peer].life == Life::Runs) {
                self.seal(world, ballot, peer, emit);
                self.install(world, ballot, peer, emit);
            }
            self.propose_setup(world, ballot, emit);
        }
        for peer in (0..PEERS).filter(|&peer| world.peers[peer].life != Life::Stopped) {
            self.learn_setup(world, peer, emit);
        }
    }

    fn old_and_new(&self, world: &World, ballot: usize) -> (Set, Set) {
        let after = usize::from(self.wishes[ballot].after);
        (world.setups[after], world.ballots[ballot].proposed)
    }

    fn seal(&self, world: &World, ballot: usize, witness: usize, emit: Emit<'_>) {
        let peer = &world.peers[witness];
        let (old, proposed) = self.old_and_new(world, ballot);
        let number = ballot as u8 + 1;
        if !proposed.is_empty()
            || !peer.installed
            || !old.has(witness)
            || peer.setup != self.wishes[ballot].after
            || peer.sealed >= number
        {
            return;
        }
        let mut next = *world;
        let told = &mut next.ballots[ballot];
        told.sealed = told.sealed.with(witness);
        told.found = told.found.max(peer.accepted_ballot);
        self.tell(peer, told);
        next.peers[witness].sealed = number;
        emit(Step::Seal { witness, ballot }, next);
    }

    /// Adds to the union what a witness accepted and promised.
    pub(super) fn tell(&self, peer: &Peer, told: &mut Ballot) {
        for x in 0..self.addresses {
            let cell = if self.keeps(Safeguard::RingTransfer) {
                peer.highest(x)
            } else {
                peer.accepted[x]
            };
            if self.keeps(Safeguard::AcceptedTransfer) {
                told.cells[x] = told.cells[x].max(cell);
            }
            if self.keeps(Safeguard::PromisedTransfer) {
                told.promised[x] = told.promised[x].max(peer.promised[x]);
            }
        }
    }

    fn propose_setup(&self, world: &World, ballot: usize, emit: Emit<'_>) {
        let (old, proposed) = self.old_and_new(world, ballot);
        let told = &world.ballots[ballot];
        if !proposed.is_empty() || !told.sealed.is_majority_of(old) {
            return;
        }
        let mut next = *world;
        let wish = self.wishes[ballot];
        let (witnesses, fresh) = if told.found > 0 && self.keeps(Safeguard::EarlierBallot) {
            let earlier = &world.ballots[usize::from(told.found) - 1];
            (earlier.proposed, earlier.fresh)
        } else {
            (wish.witnesses, wish.fresh && world.reboots > 0)
        };
        next.ballots[ballot].proposed = witnesses;
        next.ballots[ballot].fresh = fresh;
        emit(Step::ProposeSetup { ballot, witnesses }, next);
    }

    fn install(&self, world: &World, ballot: usize, member: usize, emit: Emit<'_>) {
        let (peer, told) = (&world.peers[member], &world.ballots[ballot]);
        let (old, proposed) = self.old_and_new(world, ballot);
        let number = ballot as u8 + 1;
        if proposed.is_empty()
            || !old.or(proposed).has(member)
            || peer.setup != self.wishes[ballot].after
            || peer.sealed > number
            || peer.accepted_ballot == number
        {
            return;
        }
        let mut next = *world;
        next.peers[member].sealed = number;
        next.peers[member].accepted_ballot = number;
        next.ballots[ballot].installs = told.installs.with(member);
        if old.has(member) && (peer.installed || !self.keeps(Safeguard::UnsureNoWitness)) {
            next.ballots[ballot].old_installs = told.old_installs.with(member);
        }
        self.choose_setup(&mut next, ballot);
        emit(Step::Install { member, ballot }, next);
    }

    fn choose_setup(&self, world: &mut World, ballot: usize) {
        let (old, new) = self.old_and_new(world, ballot);
        let Ballot {
            installs,
            old_installs,
            ..
        } = world.ballots[ballot];
        let by_old = old_installs.is_majority_of(old) || !self.keeps(Safeguard::OldMajority);
        let by_new = installs.is_majority_of(new) || !self.keeps(Safeguard::NewMajority);
        if by_old && by_new {
            let place = usize::from(self.wishes[ballot].after) + 1;
            let (chosen, fresh) = (
                (new, world.ballots[ballot].fresh),
                (world.setups[place], world.fresh[place]),
            );
            world.split |= !world.setups[place].is_empty() && chosen != fresh;
            (world.setups[place], world.fresh[place]) = chosen;
        }
    }

    fn learn_setup(&self, world: &World, number: usize, emit: Emit<'_>) {
        let first = usize::from(world.peers[number].setup) + 1;
        for setup in (first..world.setups.len()).filter(|&setup| !world.setups[setup].is_empty()) {
            let mut next = *world;
            self.enter(&mut next, number, setup);
            emit(
                Step::LearnSetup {
                    peer: number,
                    setup: setup as u8,
                },
                next,
            );
        }
    }

    /// The peer knows the setup to be chosen; if it installed exactly that, it acts in it from now on.
    fn enter(&self, world: &mut World, number: usize, setup: usize) {
        let (chosen, fresh) = (world.setups[setup], world.fresh[setup]);
        let lived_on = self.names_life(world, number, fresh);
        let peer = &mut world.peers[number];
        let accepted = usize::from(peer.accepted_ballot).checked_sub(1);
        let told = accepted.map(|ballot| (self.wishes[ballot].after, world.ballots[ballot]));
        peer.setup = setup as u8;
        (peer.sealed, peer.accepted_ballot) = (0, 0);
        peer.installed = !self.keeps(Safeguard::Installed);
        match told {
            Some((after, told))
                if usize::from(after) + 1 == setup
                    && (told.proposed, told.fresh) == (chosen, fresh) =>
            {
                peer.installed = true;
                self.take_over(peer, &told);
            }
            _ => {}
        }
        peer.installed &= chosen.has(number) && lived_on;
    }

    /// Whether the peer is in the life that a setup means: a reboot began another.
    fn names_life(&self, world: &World, number: usize, fresh: bool) -> bool {
        let rebooted = world.reboots > 0 && number == usize::from(self.rolls_back.unwrap_or(0));
        fresh || !rebooted || !self.keeps(Safeguard::InstallForOneLife)
    }

    /// Makes the union of the old witnesses' state its own.
    pub(super) fn take_over(&self, peer: &mut Peer, told: &Ballot) {
        for x in 0..self.addresses {
            if told.cells[x] > peer.highest(x) {
                peer.accepted[x] = told.cells[x];
            }
            peer.promised[x] = peer.promised[x].max(told.promised[x]);
            peer.merge(x, Cell::default());
        }
    }
}
