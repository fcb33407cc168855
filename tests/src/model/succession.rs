//! Succession: promises of a term, then the taker's proposal.

use super::scene::{Emit, Safeguard, Scene, Step};
use super::world::{ADDRESSES, Cell, Life, Message, PEERS, REBORN, World};

impl Scene {
    /// Takers collect promises and propose; peer 0 does so for its own older incarnation.
    pub(super) fn takers_act(&self, world: &World, emit: Emit<'_>) {
        for (round, taker) in self.takers.iter().enumerate() {
            if !self.may_take(world, *taker) {
                continue;
            }
            for address in 0..self.addresses {
                for witness in 0..PEERS {
                    self.promise(world, round, (witness, address), emit);
                }
                self.propose(world, round, address, emit);
            }
        }
    }

    fn may_take(&self, world: &World, taker: u8) -> bool {
        let removed = &world.peers[0];
        if taker == 0 {
            return removed.life == Life::Unsure && self.keeps(Safeguard::Renewal);
        }
        if taker == REBORN {
            return removed.life == Life::Runs && removed.id == REBORN;
        }
        let forced = world.setups[usize::from(Self::reformed())] != super::world::Set(0)
            && self.reformer.is_some()
            && !world.reform.sealed.has(0);
        (self.returns && world.reboots > 0)
            || removed.life == Life::Stopped
            || forced
            || !self.keeps(Safeguard::OnlyTheDead)
    }

    fn promise(
        &self,
        world: &World,
        round: usize,
        (witness, address): (usize, usize),
        emit: Emit<'_>,
    ) {
        let peer = &world.peers[witness];
        let setup = world.rounds[round]
            .setup
            .unwrap_or(world.peers[number(self.takers[round])].setup);
        let term = self.term(round);
        let free = peer.promised[address] < term
            || (!self.keeps(Safeguard::OwnTerms) && peer.promised[address] == term);
        if !self.acts(world, witness)
            || peer.setup != setup
            || !free
            || world.rounds[round].promises[address].has(witness)
            || !self.keeps(Safeguard::Promises)
            || (self.takers[round] == 0 && witness == 0)
        {
            return;
        }
        let mut next = *world;
        next.peers[witness].promised[address] = term;
        let told = &mut next.rounds[round];
        told.setup = Some(setup);
        if world.messages[round * ADDRESSES + address] == Message::EMPTY {
            told.highest[address] = told.highest[address].max(peer.highest(address));
        }
        told.promises[address] = told.promises[address].with(witness);
        emit(
            Step::Promise {
                witness,
                term,
                address,
                setup,
            },
            next,
        );
    }

    fn propose(&self, world: &World, round: usize, address: usize, emit: Emit<'_>) {
        let place = round * ADDRESSES + address;
        if world.messages[place] != Message::EMPTY {
            return;
        }
        let (told, taker) = (&world.rounds[round], self.takers[round]);
        let majority = told.setup.is_some_and(|setup| {
            told.promises[address].is_majority_of(world.setups[usize::from(setup)])
        });
        let mut highest = told.highest[address];
        if !self.keeps(Safeguard::Promises) {
            highest = world.peers[number(taker)].ring[address];
        } else if !majority {
            return;
        }
        if taker == 0 && highest > world.peers[0].newest(address) {
            return self.reborn(world, emit);
        }
        let renewed = highest.term() > 0 && self.takers[usize::from(highest.term()) - 1] == 0;
        let owner = if highest.owner() == 0 && taker != 0 && !renewed {
            world.peers[number(taker)].id
        } else {
            highest.owner()
        };
        let cell = Cell::new(self.term(round), 0, owner);
        let mut next = *world;
        next.messages[place].cells[address] = cell;
        next.messages[place].sender = number(taker) as u8;
        next.messages[place].setup = told.setup;
        emit(
            Step::Propose {
                taker,
                cell,
                address,
            },
            next,
        );
        self.propose_pair(&next, round, address, emit);
    }

    /// One message for both addresses, sent with the second.
    fn propose_pair(&self, world: &World, round: usize, address: usize, emit: Emit<'_>) {
        let first = round * ADDRESSES;
        let cells = [
            world.messages[first].cells[0],
            world.messages[first + 1].cells[1],
        ];
        if !self.pairs
            || cells.contains(&Cell::NONE)
            || world.messages[first]
                .acks
                .iter()
                .any(|acks| !acks.is_empty())
        {
            return;
        }
        let mut next = *world;
        next.messages[first].cells = cells;
        let taker = self.takers[round];
        emit(
            Step::Propose {
                taker,
                cell: cells[address],
                address,
            },
            next,
        );
    }
}

/// The peer that a taker is.
fn number(taker: u8) -> usize {
    usize::from(taker % REBORN)
}
