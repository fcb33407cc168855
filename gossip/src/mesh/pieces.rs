//! Control messages that are longer than their path: in sealed fragments, as frames are.
//!
//! A message fits what every path is assumed to carry. One that carries less would never have its peers agree.

use alloc::vec::Vec;

use rmesh_wire::fragment::{FRAGMENT_HEADER_LEN, FRAGMENTS_MAX, FragmentHeader};
use rmesh_wire::payload::{HEAD_LEN, Head, PayloadKind};
use rmesh_wire::{Instant, PeerId};

use super::liveness::RECORD_OVERHEAD;
use super::path::PathState;
use super::peer::{Peer, Way};
use super::session::Session;
use super::{Mesh, Origin};
use crate::limits::CONTROL_LEN_MAX;

/// Messages under way in one session; beyond it the oldest is given up.
const UNDER_WAY_MAX: usize = 4;

/// One of which pieces have come.
#[derive(Debug)]
struct Assembly {
    id: u32,
    count: u8,
    /// By their numbers, with where each begins.
    pieces: Vec<(u8, u16, Vec<u8>)>,
}

/// Messages of one session that are put together.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// The oldest first.
    under_way: Vec<Assembly>,
}

impl Pieces {
    /// Takes a fragment's body; gives the whole payload if this was the last of it. What does not fit the others
    /// is not taken.
    pub(crate) fn take(&mut self, aux: u16, body: &[u8]) -> Option<Vec<u8>> {
        let (header, piece) = FragmentHeader::split(aux, body)?;
        let known = |assembly: &Assembly| assembly.id == header.id;
        let at = match self.under_way.iter().position(known) {
            Some(at) => at,
            None => {
                if self.under_way.len() == UNDER_WAY_MAX {
                    self.under_way.remove(0);
                }
                self.under_way.push(Assembly {
                    id: header.id,
                    count: header.count,
                    pieces: Vec::new(),
                });
                self.under_way.len() - 1
            }
        };
        let assembly = self.under_way.get_mut(at)?;
        let taken = assembly.pieces.iter().map(|(_, _, bytes)| bytes.len());
        let is_new = assembly
            .pieces
            .iter()
            .all(|(index, _, _)| *index != header.index);
        let fits = taken.sum::<usize>() + piece.len() <= HEAD_LEN + CONTROL_LEN_MAX;
        if header.count != assembly.count || !is_new || !fits {
            return None;
        }
        assembly
            .pieces
            .push((header.index, header.offset, Vec::from(piece)));
        if assembly.pieces.len() < usize::from(assembly.count) {
            return None;
        }
        let mut pieces = self.under_way.remove(at).pieces;
        pieces.sort_unstable_by_key(|(index, _, _)| *index);
        let mut whole = Vec::new();
        for (_, offset, bytes) in pieces {
            if usize::from(offset) != whole.len() {
                return None;
            }
            whole.extend_from_slice(&bytes);
        }
        Some(whole)
    }
}

/// Bytes of payload that fit a record on a way, if there is such a way.
fn room(peer: &Peer, way: Way) -> Option<usize> {
    let (path, overhead): (&PathState, usize) = match way {
        Way::Direct(address) => (peer.direct.get(&address)?, RECORD_OVERHEAD),
        Way::Relay => (&peer.relay, RECORD_OVERHEAD + rmesh_wire::relay::OVERHEAD),
    };
    Some(usize::from(path.datagram_len()).saturating_sub(overhead))
}

/// The datagrams that carry a payload of which `room` bytes fit each.
fn seal(session: &mut Session, payload: &[u8], room: usize) -> Vec<Vec<u8>> {
    if payload.len() <= room {
        return Vec::from([session.seal_record(payload)]);
    }
    let piece_len = room.saturating_sub(HEAD_LEN + FRAGMENT_HEADER_LEN);
    let count = payload
        .len()
        .checked_div(piece_len)
        .map(|_| payload.len().div_ceil(piece_len));
    let count = count.and_then(|count| u8::try_from(count).ok());
    let Some(count) = count.filter(|count| *count <= FRAGMENTS_MAX) else {
        return Vec::new();
    };
    let id = session.fresh_id();
    let pieces = (0..count).zip(payload.chunks(piece_len));
    let sealed = pieces.filter_map(|(index, piece)| {
        let header = FragmentHeader {
            id,
            index,
            count,
            offset: u16::try_from(usize::from(index) * piece_len).ok()?,
        };
        let head = Head {
            aux: header.aux(),
            ..Head::new(PayloadKind::Fragment)
        };
        let parts = [&head.encode()[..], &header.encode(), piece];
        Some(session.seal_record(&parts.concat()))
    });
    sealed.collect()
}

impl Mesh {
    /// The datagrams that carry a control payload to a peer by one of its ways, under its session.
    pub(crate) fn seal_for_way(&mut self, id: PeerId, way: Way, payload: &[u8]) -> Vec<Vec<u8>> {
        let Some(peer) = self.peers.get(&id) else {
            return Vec::new();
        };
        let session = peer.current.and_then(|index| self.sessions.get_mut(&index));
        session
            .zip(room(peer, way))
            .map_or_else(Vec::new, |(session, room)| seal(session, payload, room))
    }

    /// The same under one of several sessions, by the way its peer was last heard, which is given too.
    pub(crate) fn seal_under(
        &mut self,
        index: u32,
        payload: &[u8],
    ) -> Option<(Origin, Vec<Vec<u8>>)> {
        let session = self.sessions.get_mut(&index)?;
        let origin = session.heard_from?;
        let way = match origin {
            Origin::Direct(address) => Way::Direct(address),
            Origin::Relayed { .. } | Origin::Fast { .. } => Way::Relay,
        };
        let peer = self.peers.get(&session.agreement.peer);
        // Every path is assumed to carry a whole message.
        let room = peer.and_then(|peer| room(peer, way)).unwrap_or(usize::MAX);
        Some((origin, seal(session, payload, room)))
    }

    /// A piece of a control message arrived.
    pub(crate) fn on_fragment(&mut self, index: u32, (aux, body): (u16, &[u8]), now: Instant) {
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        let peer = session.agreement.peer;
        let Some(whole) = session.pieces.take(aux, body) else {
            return;
        };
        match Head::split(&whole) {
            Some((head, body)) if head.kind == PayloadKind::Control => {
                self.on_control(peer, body, now);
            }
            Some(_) | None => self.counters.datagrams_ignored += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fragments(id: u32, payload: &[u8], piece_len: usize) -> Vec<(u16, Vec<u8>)> {
        let count = payload.len().div_ceil(piece_len) as u8;
        let pieces = (0..count).zip(payload.chunks(piece_len));
        let fragment = |(index, piece): (u8, &[u8])| {
            let header = FragmentHeader {
                id,
                index,
                count,
                offset: (usize::from(index) * piece_len) as u16,
            };
            (header.aux(), [&header.encode()[..], piece].concat())
        };
        pieces.map(fragment).collect()
    }

    #[test]
    fn pieces_make_the_message_in_any_order_and_once() {
        let payload: Vec<u8> = (0..1_100u32).map(|n| n as u8).collect();
        let [a, b, c] = &fragments(1, &payload, 400)[..] else {
            panic!("three pieces")
        };
        let mut pieces = Pieces::default();
        for (aux, body) in [c, a, a] {
            assert_eq!(pieces.take(*aux, body), None);
        }
        assert_eq!(pieces.take(b.0, &b.1), Some(payload));
        assert!(pieces.under_way.is_empty());
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut pieces = Pieces::default();
        let payload = [7; 1_000];
        for id in 0..100 {
            let (aux, body) = &fragments(id, &payload, 400)[0];
            assert_eq!(pieces.take(*aux, body), None);
        }
        assert_eq!(pieces.under_way.len(), UNDER_WAY_MAX);
        let long = [7; 2 * CONTROL_LEN_MAX];
        for (aux, body) in fragments(500, &long, 400) {
            assert_eq!(pieces.take(aux, &body), None);
        }
        let held = pieces
            .under_way
            .iter()
            .flat_map(|assembly| &assembly.pieces);
        let held: usize = held.map(|(_, _, bytes)| bytes.len()).sum();
        assert!(held <= UNDER_WAY_MAX * (HEAD_LEN + CONTROL_LEN_MAX));
    }

    proptest! {
        #[test]
        fn nothing_that_is_invented_does_harm(
            given in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..64)), 0..64)
        ) {
            let mut pieces = Pieces::default();
            for (aux, body) in given {
                let whole = pieces.take(aux, &body);
                prop_assert!(whole.is_none_or(|whole| whole.len() <= HEAD_LEN + CONTROL_LEN_MAX));
            }
        }
    }
}
