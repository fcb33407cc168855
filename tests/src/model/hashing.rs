//! A state as few machine words, so that hashing millions of them is quick.

use std::hash::{Hash, Hasher};

use super::world::{Ballot, Cell, Message, Peer, Round, World};

impl Hash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.peers.iter().for_each(|peer| hash_peer(peer, to));
        for message in &self.messages {
            to.write_u64(message_word(message));
        }
        self.rounds.iter().for_each(|round| hash_round(round, to));
        for ballot in self.ballots.iter().chain([&self.reform]) {
            hash_ballot(ballot, to);
        }
        let [first, second, third] = self.setups.map(|setup| setup.0);
        let flags =
            u8::from(self.split) | u8::from(self.risked[0]) << 1 | u8::from(self.risked[1]) << 2;
        let image = u8::from(self.image.is_some());
        let fresh = self
            .fresh
            .iter()
            .fold(0, |bits, fresh| bits << 1 | u64::from(*fresh));
        to.write_u64(u64::from(self.reboots) | fresh << 8);
        to.write_u64(word(
            cells(self.read.1),
            [
                first,
                second,
                third,
                flags | image << 3 | self.read.0.0 << 4,
            ],
        ));
        if let Some(image) = &self.image {
            hash_peer(image, to);
        }
    }
}

fn word(high: u32, low: [u8; 4]) -> u64 {
    u64::from(high) << 32 | u64::from(u32::from_le_bytes(low))
}

fn cells(pair: [Cell; 2]) -> u32 {
    u32::from(pair[0].bits()) << 16 | u32::from(pair[1].bits())
}

fn hash_peer<H: Hasher>(peer: &Peer, to: &mut H) {
    to.write_u64(u64::from(cells(peer.ring)) << 32 | u64::from(cells(peer.accepted)));
    let setup = peer.setup | u8::from(peer.installed) << 4;
    let carried = u8::from(peer.carried[0]) << 6 | u8::from(peer.carried[1]) << 7;
    let ballots = peer.sealed | peer.accepted_ballot << 4;
    let promised = peer.promised[0] | peer.promised[1] << 4;
    to.write_u64(word(
        cells(peer.granted),
        [
            setup,
            ballots,
            promised,
            peer.id | (peer.life as u8) << 4 | carried,
        ],
    ));
}

fn message_word(message: &Message) -> u64 {
    let [first, second, third] = message.acks.map(|acks| acks.0);
    let from = message.sender | message.setup.map_or(0, |setup| setup + 1) << 4;
    word(cells(message.cells), [first, second, third, from])
}

fn hash_round<H: Hasher>(round: &Round, to: &mut H) {
    let setup = round.setup.map_or(0, |setup| setup + 1);
    to.write_u64(word(
        cells(round.highest),
        [round.promises[0].0, round.promises[1].0, setup, 0],
    ));
}

fn hash_ballot<H: Hasher>(ballot: &Ballot, to: &mut H) {
    let sets = ballot.sealed.0 | ballot.installs.0 << 4;
    let promised = ballot.promised[0] | ballot.promised[1] << 4;
    let proposed = ballot.proposed.0 | ballot.old_installs.0 << 4;
    to.write_u64(word(
        cells(ballot.cells),
        [
            sets,
            proposed,
            ballot.found | u8::from(ballot.fresh) << 4,
            promised,
        ],
    ));
}
