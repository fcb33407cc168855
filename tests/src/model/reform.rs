//! A forced reform: who answers makes a new generation, without a majority of the old.

use super::scene::{Emit, Safeguard, Scene, Step};
use super::world::{Life, PEERS, Set, World};

impl Scene {
    /// Peers answer the reformer; it records the new generation with itself as the only witness.
    pub(super) fn reforms(&self, world: &World, emit: Emit<'_>) {
        let Some(reformer) = self.reformer.map(usize::from) else {
            return;
        };
        let last = usize::from(Self::reformed());
        if !world.setups[last].is_empty() {
            return;
        }
        for peer in
            (0..PEERS).filter(|&peer| peer != reformer && world.peers[peer].life == Life::Runs)
        {
            if !world.reform.sealed.has(peer) {
                let mut next = *world;
                self.answer_reform(&mut next, peer);
                emit(Step::AnswerReform { peer }, next);
            }
        }
        let mut next = *world;
        self.answer_reform(&mut next, reformer);
        next.setups[last] = Set(0).with(reformer);
        let told = next.reform;
        let peer = &mut next.peers[reformer];
        (
            peer.setup,
            peer.installed,
            peer.sealed,
            peer.accepted_ballot,
        ) = (last as u8, true, 0, 0);
        self.take_over(peer, &told);
        for x in 0..self.addresses {
            next.risked[x] = !told.sealed.has(usize::from(told.cells[x].owner()));
        }
        emit(Step::Reform, next);
    }

    fn answer_reform(&self, world: &mut World, number: usize) {
        let mut told = world.reform;
        told.sealed = told.sealed.with(number);
        let peer = &mut world.peers[number];
        self.tell(peer, &mut told);
        if self.keeps(Safeguard::ReformSeal) {
            (peer.setup, peer.installed) = (Self::reformed(), false);
        }
        world.reform = told;
    }
}
