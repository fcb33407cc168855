//! Payloads put together again from sealed fragments (see [`rmesh_wire::fragment`]).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rmesh_wire::fragment::{FragmentHeader, REASSEMBLED_LEN_MAX};

/// A payload whose last piece has not come by then is given up.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);
/// Payloads under way in one session.
pub(crate) const PER_SESSION_MAX: usize = 64;
/// Payloads under way in all.
const TOTAL_MAX: usize = 256;
/// Bytes held in all.
const BYTES_MAX: usize = 4 << 20;

/// Which payload a fragment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Local index of the session.
    pub(crate) session: u32,
    pub(crate) lane: u8,
    pub(crate) id: u32,
}

struct Assembly {
    since: Instant,
    count: u8,
    piece_len: usize,
    /// Bit per piece that has come.
    have: u64,
    /// Their numbers and contents. Room for the whole is made when all have come: a single piece
    /// may claim to belong to 64 KiB.
    pieces: Vec<(u8, Vec<u8>)>,
    /// One of them was marked for congestion.
    is_marked: bool,
}

/// What came of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Others are missing.
    Waiting,
    /// The whole payload, and whether a piece of it was marked for congestion.
    Complete(Vec<u8>, bool),
    /// It does not fit the others, or came twice; the others stay.
    Refused,
}

/// Bounded reassembly. The oldest payload makes room for the newest.
#[derive(Default)]
pub(crate) struct Reassembly {
    assemblies: HashMap<Key, Assembly>,
    bytes: usize,
    /// Payloads given up since [`Reassembly::take_abandoned`].
    abandoned: u64,
}

/// Length of all pieces but the last, from any one of them. All offsets are multiples of it, so
/// pieces cannot overlap.
fn piece_len(header: &FragmentHeader, len: usize) -> Option<usize> {
    let (offset, last) = (usize::from(header.offset), usize::from(header.count) - 1);
    let index = usize::from(header.index);
    let piece_len = if index == last { offset / last } else { len };
    let fits = piece_len > 0
        && offset == index * piece_len
        && len <= piece_len
        && last * piece_len < REASSEMBLED_LEN_MAX;
    fits.then_some(piece_len)
}

impl Reassembly {
    /// Takes one authenticated piece whose numbers [`FragmentHeader::split`] has checked.
    pub(crate) fn push(
        &mut self,
        key: Key,
        header: &FragmentHeader,
        (piece, is_marked): (&[u8], bool),
        now: Instant,
    ) -> Outcome {
        let Some(piece_len) = piece_len(header, piece.len()) else {
            return Outcome::Refused;
        };
        let Some(assembly) = self.assemblies.get_mut(&key) else {
            self.make_room(&key, piece.len());
            let assembly = Assembly {
                since: now,
                count: header.count,
                piece_len,
                have: 1 << (header.index % 64),
                pieces: vec![(header.index, piece.to_vec())],
                is_marked,
            };
            self.bytes += piece.len();
            self.assemblies.insert(key, assembly);
            return Outcome::Waiting; // There are always at least two.
        };
        let bit = 1u64 << (header.index % 64);
        let fits = assembly.count == header.count && assembly.piece_len == piece_len;
        if !fits || assembly.have & bit != 0 {
            return Outcome::Refused;
        }
        assembly.have |= bit;
        assembly.is_marked |= is_marked;
        assembly.pieces.push((header.index, piece.to_vec()));
        let is_whole = assembly.have.count_ones() == u32::from(assembly.count);
        self.bytes += piece.len();
        if is_whole {
            let done = self.remove(key);
            let whole = |done: Assembly| {
                let is_marked = done.is_marked;
                Outcome::Complete(done.join(), is_marked)
            };
            return done.map_or(Outcome::Refused, whole);
        }
        while self.bytes > BYTES_MAX && self.assemblies.len() > 1 {
            self.abandon_oldest(|other| *other != key);
        }
        Outcome::Waiting
    }

    /// Gives up old payloads until there is room for a new one that begins with `len` bytes.
    fn make_room(&mut self, key: &Key, len: usize) {
        let in_session = |other: &Key| other.session == key.session;
        while self.assemblies.keys().filter(|k| in_session(k)).count() >= PER_SESSION_MAX {
            self.abandon_oldest(in_session);
        }
        while self.assemblies.len() >= TOTAL_MAX
            || (self.bytes + len > BYTES_MAX && !self.assemblies.is_empty())
        {
            self.abandon_oldest(|_| true);
        }
    }

    fn abandon_oldest(&mut self, among: impl Fn(&Key) -> bool) {
        let candidates = self.assemblies.iter().filter(|(key, _)| among(key));
        let oldest = candidates.min_by_key(|(_, assembly)| assembly.since);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.remove(key);
            self.abandoned += 1;
        }
    }

    fn remove(&mut self, key: Key) -> Option<Assembly> {
        let assembly = self.assemblies.remove(&key)?;
        self.bytes -= assembly.len();
        Some(assembly)
    }

    /// Gives up what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        let (bytes, abandoned) = (&mut self.bytes, &mut self.abandoned);
        self.assemblies.retain(|_, assembly| {
            let keep = now.saturating_duration_since(assembly.since) < WAIT_MAX;
            if !keep {
                *bytes -= assembly.len();
                *abandoned += 1;
            }
            keep
        });
    }

    /// Whether nothing waits for its other pieces.
    pub(crate) fn is_empty(&self) -> bool {
        self.assemblies.is_empty()
    }

    /// Payloads given up since the last call.
    pub(crate) fn take_abandoned(&mut self) -> u64 {
        std::mem::take(&mut self.abandoned)
    }
}

impl Assembly {
    /// Bytes held.
    fn len(&self) -> usize {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum()
    }

    /// All pieces in their order; they have been checked to leave no gap.
    fn join(mut self) -> Vec<u8> {
        self.pieces.sort_unstable_by_key(|(index, _)| *index);
        let mut whole = Vec::with_capacity(self.len());
        for (_, piece) in &self.pieces {
            whole.extend_from_slice(piece);
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rmesh_wire::fragment::FRAGMENTS_MAX;

    const KEY: Key = Key {
        session: 1,
        lane: 1,
        id: 1,
    };

    fn pieces(payload: &[u8], piece_len: usize) -> Vec<(FragmentHeader, Vec<u8>)> {
        let chunks: Vec<_> = payload.chunks(piece_len).collect();
        let header = |index: usize| FragmentHeader {
            id: 1,
            index: index as u8,
            count: chunks.len() as u8,
            offset: (index * piece_len) as u16,
        };
        let piece = |(index, chunk): (usize, &&[u8])| (header(index), chunk.to_vec());
        chunks.iter().enumerate().map(piece).collect()
    }

    #[test]
    fn pieces_that_do_not_fit_are_refused_and_do_not_spoil_the_rest() {
        let (mut reassembly, now) = (Reassembly::default(), Instant::now());
        let good = pieces(&[7; 250], 100);
        let mut push = |header: FragmentHeader, piece: &[u8]| {
            reassembly.push(KEY, &header, (piece, false), now)
        };
        assert_eq!(push(good[0].0, &good[0].1), Outcome::Waiting);
        assert_eq!(push(good[0].0, &good[0].1), Outcome::Refused, "twice");
        let overlap = FragmentHeader {
            offset: 50,
            ..good[1].0
        };
        assert_eq!(push(overlap, &good[1].1), Outcome::Refused);
        let other_count = FragmentHeader {
            count: 4,
            ..good[1].0
        };
        assert_eq!(push(other_count, &good[1].1), Outcome::Refused);
        assert_eq!(push(good[1].0, &good[1].1[..99]), Outcome::Refused);
        assert_eq!(push(good[1].0, &good[1].1), Outcome::Waiting);
        assert_eq!(
            push(good[2].0, &good[2].1),
            Outcome::Complete(vec![7; 250], false)
        );
        assert_eq!(reassembly.bytes, 0);
    }

    #[test]
    fn half_payloads_are_bounded_and_expire() {
        let (mut reassembly, now) = (Reassembly::default(), Instant::now());
        let first = pieces(&[7; 60_000], 1_000).remove(0);
        for id in 0..1_000 {
            let key = Key { id, ..KEY };
            reassembly.push(key, &first.0, (&first.1, false), now);
            let key = Key { session: id, ..KEY };
            reassembly.push(key, &first.0, (&first.1, false), now);
            assert!(reassembly.bytes <= BYTES_MAX);
        }
        assert!(reassembly.take_abandoned() > 1_000);
        reassembly.expire(now + WAIT_MAX);
        assert_eq!((reassembly.bytes, reassembly.assemblies.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn any_order_gives_the_payload_back(
            payload in prop::collection::vec(any::<u8>(), 200..5_000),
            piece_len in 100usize..1_200,
            seed in any::<prop::sample::Index>(),
            marked in any::<Option<prop::sample::Index>>(),
        ) {
            prop_assume!(payload.len() > piece_len);
            prop_assume!(payload.len().div_ceil(piece_len) <= usize::from(FRAGMENTS_MAX));
            let mut pieces = pieces(&payload, piece_len);
            let count = pieces.len();
            pieces.rotate_left(seed.index(count));
            let (mut reassembly, now) = (Reassembly::default(), Instant::now());
            let mut last = Outcome::Waiting;
            for (at, (header, piece)) in pieces.iter().enumerate() {
                prop_assert_eq!(last, Outcome::Waiting);
                let is_marked = marked.is_some_and(|marked| marked.index(count) == at);
                last = reassembly.push(KEY, header, (piece, is_marked), now);
            }
            prop_assert_eq!(last, Outcome::Complete(payload, marked.is_some()));
        }

        #[test]
        fn pushing_anything_is_total(
            parts in prop::collection::vec(
                (any::<u16>(), prop::collection::vec(any::<u8>(), 0..300)), 0..50),
        ) {
            let (mut reassembly, now) = (Reassembly::default(), Instant::now());
            for (aux, body) in parts {
                if let Some((header, piece)) = FragmentHeader::split(aux, &body) {
                    reassembly.push(KEY, &header, (piece, false), now);
                }
            }
            prop_assert!(reassembly.bytes <= BYTES_MAX);
        }
    }
}
