//! What befalls peer 0: it is switched off, comes back, reboots, perhaps with an older disk.

use super::scene::{Emit, Safeguard, Scene, Step};
use super::world::{ADDRESSES, Cell, Life, PEERS, REBORN, Set, World};

impl Scene {
    /// Faults of peer 0, and how it finds out what it still is.
    pub(super) fn faults(&self, world: &World, emit: Emit<'_>) {
        let peer = &world.peers[0];
        let mut next = *world;
        if self.stops && peer.life == Life::Runs && peer.id == 0 {
            next.peers[0].life = Life::Stopped;
            next.peers[0].carried = [false; ADDRESSES];
            emit(Step::Stop, next);
        }
        if self.returns && peer.life == Life::Stopped && world.reboots == 0 {
            let mut next = *world;
            self.reboot(&mut next, 0);
            emit(
                Step::Reboot {
                    peer: 0,
                    copy: false,
                },
                next,
            );
        }
        if let Some(who) = self.rolls_back {
            self.roll_back(world, usize::from(who), emit);
        }
        if peer.life == Life::Unsure && !self.keeps(Safeguard::Renewal) {
            self.find_out(world, emit);
        }
    }

    fn roll_back(&self, world: &World, who: usize, emit: Emit<'_>) {
        let mut next = *world;
        match world.image {
            None => {
                next.image = Some(world.peers[who]);
                emit(Step::CopyDisk, next);
            }
            Some(image) if world.peers[who].life == Life::Runs && world.reboots == 0 => {
                next.peers[who] = image;
                self.reboot(&mut next, who);
                emit(
                    Step::Reboot {
                        peer: who,
                        copy: true,
                    },
                    next,
                );
            }
            Some(_) => {}
        }
    }

    /// After a reboot it is unsure: no allocation, no grant, no acting as a witness.
    fn reboot(&self, world: &mut World, who: usize) {
        world.reboots += 1;
        let peer = &mut world.peers[who];
        peer.carried = [false; ADDRESSES];
        peer.installed &= !self.keeps(Safeguard::UnsureNoWitness);
        let proves = self.keeps(Safeguard::Fence) && who == 0;
        peer.life = if proves { Life::Unsure } else { Life::Runs };
    }

    fn find_out(&self, world: &World, emit: Emit<'_>) {
        let first = usize::from(self.keeps(Safeguard::NotCountingItself));
        let (answered, told) = world.read;
        for witness in first..PEERS {
            let peer = &world.peers[witness];
            if answered.has(witness) || (witness > 0 && !self.acts(world, witness)) {
                continue;
            }
            let mut next = *world;
            next.read.0 = answered.with(witness);
            next.read.1 = std::array::from_fn(|x| told[x].max(peer.highest(x)));
            emit(Step::Read { witness }, next);
        }
        if answered.is_majority_of(world.setups[usize::from(world.peers[0].setup)]) {
            self.judge(world, emit);
        }
    }

    /// Anything newer than its own means that it was rolled back: it is another owner from now on.
    fn judge(&self, world: &World, emit: Emit<'_>) {
        if (0..self.addresses).any(|x| world.read.1[x] > world.peers[0].newest(x)) {
            return self.reborn(world, emit);
        }
        let mut next = *world;
        next.peers[0].life = Life::Runs;
        next.read = (Set(0), [Cell::default(); ADDRESSES]);
        emit(Step::Proven { current: true }, next);
    }

    /// Peer 0 was rolled back: another owner, and no witness.
    pub(super) fn reborn(&self, world: &World, emit: Emit<'_>) {
        let mut next = *world;
        let peer = &mut next.peers[0];
        peer.life = Life::Runs;
        peer.id = if self.keeps(Safeguard::NewIncarnation) {
            REBORN
        } else {
            0
        };
        peer.installed &= !self.keeps(Safeguard::WitnessIncarnation);
        peer.granted = [Cell::NONE; ADDRESSES];
        next.read = (Set(0), [Cell::default(); ADDRESSES]);
        emit(Step::Proven { current: false }, next);
    }
}
