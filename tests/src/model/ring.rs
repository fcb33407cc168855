//! Grants, what witnesses make of them, and how chosen cells get about.

use super::scene::{Emit, Safeguard, Scene, Step};
use super::world::{ADDRESSES, Cell, Life, MESSAGES, Message, PEERS, Peer, SETUPS, TERMS, World};

/// The first place of a grant among the messages.
const FIRST_GRANT: usize = TERMS * ADDRESSES;

impl Scene {
    /// An owner grants what it may use: recorded first, then sent.
    pub(super) fn owners_act(&self, world: &World, emit: Emit<'_>) {
        let Some(place) = (FIRST_GRANT..FIRST_GRANT + self.grants)
            .find(|&place| world.messages[place] == Message::EMPTY)
        else {
            return;
        };
        for from in 0..PEERS {
            for to in (0..PEERS).filter(|&to| to != from && self.grantees.has(to)) {
                for carried in [0b01, 0b10, 0b11] {
                    self.grant(world, place, (from, to, carried), emit);
                }
            }
        }
    }

    fn grant(
        &self,
        world: &World,
        place: usize,
        (from, to, carried): (usize, usize, u8),
        emit: Emit<'_>,
    ) {
        let mut next = *world;
        let mut cells = [Cell::NONE; ADDRESSES];
        for x in (0..ADDRESSES).filter(|x| carried >> x & 1 == 1) {
            if x >= self.addresses
                || !world.peers[from].may_use(x)
                || world.peers[from].carried[x]
                || (carried == 3 && !self.pairs)
            {
                return;
            }
            let old = world.peers[from].ring[x];
            cells[x] = Cell::new(old.term(), old.seq() + 1, world.peers[to].id);
            if self.keeps(Safeguard::GrantDurableFirst) {
                next.peers[from].granted[x] = cells[x];
            }
        }
        next.messages[place].cells = cells;
        next.messages[place].sender = from as u8;
        emit(Step::Grant { from, cells }, next);
    }

    /// Containers get addresses from what their host owns, with no word to anybody.
    pub(super) fn containers_come_and_go(&self, world: &World, emit: Emit<'_>) {
        for peer in (0..PEERS).filter(|_| self.containers) {
            for address in 0..self.addresses {
                let up = !world.peers[peer].carried[address];
                if world.peers[peer].life == Life::Runs
                    && (!up || world.peers[peer].may_use(address))
                {
                    let mut next = *world;
                    next.peers[peer].carried[address] = up;
                    emit(Step::Container { peer, address, up }, next);
                }
            }
        }
    }

    /// Witnesses accept what was sent, by the rule, and acknowledge it in the setup they act in.
    pub(super) fn witnesses_accept(&self, world: &World, emit: Emit<'_>) {
        for place in (0..MESSAGES).filter(|&place| world.messages[place] != Message::EMPTY) {
            for witness in 0..PEERS {
                self.accept(world, place, witness, emit);
            }
        }
    }

    fn accept(&self, world: &World, place: usize, witness: usize, emit: Emit<'_>) {
        let (message, peer) = (&world.messages[place], &world.peers[witness]);
        let setup = peer.setup;
        let elsewhere = message.setup.is_some_and(|of| of != setup);
        if !self.acts(world, witness)
            || message.acks[usize::from(setup)].has(witness)
            || (elsewhere && self.keeps(Safeguard::RoundInOneSetup))
        {
            return;
        }
        let allowed =
            |x: usize| message.cells[x] == Cell::NONE || self.may_accept(peer, world, message, x);
        let whole = (0..ADDRESSES).all(allowed);
        if !whole && (self.keeps(Safeguard::AllOrNothing) || !(0..ADDRESSES).any(allowed)) {
            return;
        }
        let mut next = *world;
        for x in (0..ADDRESSES).filter(|&x| message.cells[x] != Cell::NONE && allowed(x)) {
            if message.cells[x] > peer.highest(x) && self.keeps(Safeguard::AckDurableFirst) {
                next.peers[witness].accepted[x] = message.cells[x];
            }
        }
        let acks = &mut next.messages[place].acks[usize::from(setup)];
        *acks = acks.with(witness);
        emit(
            Step::Accept {
                witness,
                cells: message.cells,
                setup,
            },
            next,
        );
    }

    /// Whether the peer acts as a witness: it installed the setup that it knows to be chosen, and did not seal it.
    pub(super) fn acts(&self, world: &World, witness: usize) -> bool {
        let peer = &world.peers[witness];
        peer.life == Life::Runs
            && peer.installed
            && (peer.sealed == 0 || !self.keeps(Safeguard::Seal))
            && world.setups[usize::from(peer.setup)].has(witness)
    }

    /// The witness's rule for one address of a message.
    fn may_accept(&self, peer: &Peer, world: &World, message: &Message, x: usize) -> bool {
        let (cell, highest, promised) = (message.cells[x], peer.highest(x), peer.promised[x]);
        if cell <= highest {
            return cell == highest && promised <= cell.term();
        }
        if cell.term() > highest.term() {
            return promised == cell.term()
                || (!self.keeps(Safeguard::Promises) && promised <= cell.term());
        }
        let granter = world.peers[usize::from(message.sender)].id;
        if !self.keeps(Safeguard::NextOfOwner) {
            return promised <= cell.term();
        }
        highest.owner() == granter && cell.seq() == highest.seq() + 1 && promised <= cell.term()
    }

    /// Senders count acknowledgements, and what is chosen gets about.
    pub(super) fn rings_spread(&self, world: &World, emit: Emit<'_>) {
        for message in world
            .messages
            .iter()
            .filter(|message| **message != Message::EMPTY)
        {
            self.count(world, message, emit);
        }
        for to in (0..PEERS).filter(|&to| self.listeners.has(to)) {
            for from in (0..PEERS).filter(|&from| from != to) {
                self.gossip(world, from, to, emit);
            }
        }
    }

    fn count(&self, world: &World, message: &Message, emit: Emit<'_>) {
        let sender = usize::from(message.sender);
        let peer = &world.peers[sender];
        let news = |x: usize| message.cells[x] != Cell::NONE && message.cells[x] > peer.ring[x];
        let forgotten =
            |x: usize| message.cells[x] != Cell::NONE && message.cells[x] != peer.granted[x];
        let is_grant = message.setup.is_none() && self.keeps(Safeguard::Promises);
        if is_grant && self.keeps(Safeguard::GrantDurableFirst) && (0..ADDRESSES).any(forgotten) {
            return;
        }
        if peer.life == Life::Stopped
            || !(0..ADDRESSES).any(news)
            || !self.is_chosen(world, message, peer.setup)
        {
            return;
        }
        let mut next = *world;
        for x in (0..ADDRESSES).filter(|&x| message.cells[x] != Cell::NONE) {
            // Without durability the sender tells the new owner and then forgets.
            let told = if self.keeps(Safeguard::GrantDurableFirst) {
                sender
            } else {
                usize::from(message.cells[x].owner())
            };
            next.peers[told].merge(x, message.cells[x]);
        }
        // An unsure peer whose new term is chosen is sure again.
        if message.setup.is_some() && next.peers[sender].id == 0 && sender == 0 {
            next.peers[sender].life = Life::Runs;
        }
        emit(
            Step::Count {
                sender,
                cells: message.cells,
                setup: peer.setup,
            },
            next,
        );
    }

    fn is_chosen(&self, world: &World, message: &Message, setup: u8) -> bool {
        let witnesses = world.setups[usize::from(setup)];
        let together = (0..SETUPS).fold(message.acks[0], |all, setup| all.or(message.acks[setup]));
        let acks = if self.keeps(Safeguard::SameSetup) {
            message.acks[usize::from(setup)]
        } else {
            together
        };
        acks.is_majority_of(witnesses) || !self.keeps(Safeguard::Witnesses)
    }

    fn gossip(&self, world: &World, from: usize, to: usize, emit: Emit<'_>) {
        let (source, target) = (&world.peers[from], &world.peers[to]);
        if source.life == Life::Stopped || target.life == Life::Stopped {
            return;
        }
        for address in 0..self.addresses {
            if source.ring[address] > target.ring[address] {
                let mut next = *world;
                next.peers[to].merge(address, source.ring[address]);
                emit(Step::Gossip { from, to, address }, next);
            }
        }
    }
}
