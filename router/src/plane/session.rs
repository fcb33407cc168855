//! A session as the data plane uses it: keys, one counter a lane, one replay window a lane.

use std::sync::{Arc, OnceLock};

use rmesh_gossip::SessionKeys;
use rmesh_gossip::crypto::Key;
use rmesh_wire::PeerId;
use rmesh_wire::datagram::{HEADER_LEN, Header, TAG_LEN};
use rmesh_wire::relay::{INNER_OFFSET, RelayEnds};

use super::aead::Aead;
use super::lane::{Numbers, Window};
use super::stats::{PeerStats, Reason};

/// Lanes there can be, the control side's lane 0 included.
const LANES: usize = 256;

/// One session. Lives as long as any snapshot names it, so counters and windows outlast publishes.
pub(crate) struct Session {
    pub(crate) peer: PeerId,
    pub(crate) stats: Arc<PeerStats>,
    pub(crate) local_index: u32,
    remote_index: u32,
    seal: Aead,
    open: Aead,
    seal_key: Key,
    open_key: Key,
    /// Next number of each lane; a lane has one writer. Never reset: a worker that comes back to a
    /// lane goes on where it left, so no nonce is used twice.
    next: Box<[Numbers]>,
    /// Made when the first record of a lane has authenticated: at most 255 of 4 KiB each.
    windows: Box<[OnceLock<Window>]>,
}

impl Session {
    /// `None` if the cipher is not spoken here.
    pub(crate) fn new(keys: &SessionKeys, stats: Arc<PeerStats>) -> Option<Self> {
        Some(Session {
            peer: keys.peer,
            stats,
            local_index: keys.local_index,
            remote_index: keys.remote_index,
            seal: Aead::new(keys.cipher, &keys.seal_key)?,
            open: Aead::new(keys.cipher, &keys.open_key)?,
            seal_key: keys.seal_key.clone(),
            open_key: keys.open_key.clone(),
            next: (0..LANES).map(|_| Numbers::default()).collect(),
            windows: (0..LANES).map(|_| OnceLock::new()).collect(),
        })
    }

    /// Whether this is the session of `keys`, so that it may go on under a new snapshot.
    pub(crate) fn is_of(&self, keys: &SessionKeys) -> bool {
        self.peer == keys.peer
            && self.local_index == keys.local_index
            && self.remote_index == keys.remote_index
            && self.seal_key == keys.seal_key
            && self.open_key == keys.open_key
    }

    /// Seals a record of `lane` where it is: `fill` puts the payload into `datagram`, between header and tag.
    ///
    /// The header is written first. Behind a whole payload it would still be on its way to the cache when
    /// the cipher loads it, which would have to wait for all of the payload.
    pub(crate) fn seal_record(
        &self,
        lane: u8,
        datagram: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let header = Header::record(self.remote_index, lane, self.take_number(lane)?);
        let (head, rest) = split(datagram, HEADER_LEN).ok_or(Reason::TooBig)?;
        head.copy_from_slice(&header.encode());
        let (text, tag) = split_tag(rest).ok_or(Reason::TooBig)?;
        fill(text)?;
        let sealed = self.seal.seal(header.nonce(), head, text, tag);
        sealed.ok_or(Reason::TooBig)
    }

    /// Wraps a datagram for one hop to this session's peer: `datagram` has it between room for
    /// header, ends and tag.
    pub(crate) fn wrap(
        &self,
        lane: u8,
        ends: RelayEnds,
        ttl: u8,
        datagram: &mut [u8],
    ) -> Result<(), Reason> {
        let place = datagram.get_mut(HEADER_LEN..INNER_OFFSET);
        place.ok_or(Reason::TooBig)?.copy_from_slice(&ends.encode());
        self.rewrap(lane, ttl, datagram)
    }

    /// Replaces header and tag of a relay datagram by those of the next hop, this session's peer.
    #[inline]
    pub(crate) fn rewrap(&self, lane: u8, ttl: u8, datagram: &mut [u8]) -> Result<(), Reason> {
        let header = Header::relay(self.remote_index, lane, self.take_number(lane)?, ttl);
        let (associated, tag) = split_tag(datagram).ok_or(Reason::Malformed)?;
        let place = associated
            .first_chunk_mut::<HEADER_LEN>()
            .ok_or(Reason::Malformed)?;
        *place = header.encode();
        let sealed = self.seal.seal(header.nonce(), associated, &mut [], tag);
        sealed.ok_or(Reason::TooBig)
    }

    /// Opens a record in place and gives its payload.
    pub(crate) fn open_record<'a>(
        &self,
        header: &Header,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], Reason> {
        let (head, rest) = split(datagram, HEADER_LEN).ok_or(Reason::Malformed)?;
        let (text, tag) = split_tag(rest).ok_or(Reason::Malformed)?;
        self.open
            .open(header.nonce(), head, text, *tag)
            .map_err(|_| Reason::Forged)?;
        self.accept(header)?;
        Ok(text)
    }

    /// Verifies the wrapping of a relay datagram.
    pub(crate) fn verify_relay(&self, header: &Header, datagram: &[u8]) -> Result<(), Reason> {
        let (associated, tag) = datagram
            .split_last_chunk::<TAG_LEN>()
            .ok_or(Reason::Malformed)?;
        self.open
            .open(header.nonce(), associated, &mut [], *tag)
            .map_err(|_| Reason::Forged)?;
        self.accept(header)
    }

    /// Test-and-set of the replay window; only for what has authenticated.
    fn accept(&self, header: &Header) -> Result<(), Reason> {
        let window = self.windows[usize::from(header.lane())].get_or_init(Window::default);
        window
            .accept(header.counter())
            .then_some(())
            .ok_or(Reason::Replayed)
    }

    fn take_number(&self, lane: u8) -> Result<u64, Reason> {
        let next = &self.next[usize::from(lane)];
        next.take().ok_or(Reason::Exhausted)
    }
}

fn split(bytes: &mut [u8], at: usize) -> Option<(&mut [u8], &mut [u8])> {
    bytes.split_at_mut_checked(at)
}

fn split_tag(bytes: &mut [u8]) -> Option<(&mut [u8], &mut [u8; TAG_LEN])> {
    bytes.split_last_chunk_mut::<TAG_LEN>()
}

/// The lane `worker` of `workers` sends on while a path's epoch is `epoch`.
///
/// Worker w owns the lanes 1 + w, 1 + w + workers, 1 + w + 2·workers and so on up to 255, and goes
/// through them in turn: a change of path means a fresh lane, whose window is not held back by
/// what is still under way on the old path. Lane 0 belongs to the control side.
pub(crate) fn lane_of(worker: usize, workers: usize, epoch: u32) -> u8 {
    let workers = workers.clamp(1, LANES - 1);
    let worker = worker % workers;
    let owned = (LANES - 1 - worker).div_ceil(workers);
    let lane = 1 + worker + workers * (epoch as usize % owned);
    u8::try_from(lane).unwrap_or(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rmesh_wire::ShortId;
    use rmesh_wire::handshake::Cipher;
    use std::collections::BTreeMap;

    /// Both ends of a session.
    pub(crate) fn pair() -> (Session, Session) {
        let end = |seal: u8, open: u8, index: u32| {
            let keys = SessionKeys {
                peer: PeerId([open; 16]),
                local_index: index,
                remote_index: 3 - index,
                cipher: Cipher::ChaCha20Poly1305,
                seal_key: Key::new([seal; 32]),
                open_key: Key::new([open; 32]),
            };
            Session::new(&keys, Arc::new(PeerStats::new(1))).unwrap()
        };
        (end(1, 2, 1), end(2, 1, 2))
    }

    fn sealed(session: &Session, lane: u8, payload: &[u8]) -> Vec<u8> {
        let mut datagram = [&[0; HEADER_LEN], payload, &[0; TAG_LEN]].concat();
        session
            .seal_record(lane, &mut datagram, |_| Ok(()))
            .unwrap();
        datagram
    }

    fn open(session: &Session, datagram: &[u8]) -> Result<Vec<u8>, Reason> {
        let header = Header::decode(datagram).unwrap();
        let mut copy = datagram.to_vec();
        session
            .open_record(&header, &mut copy)
            .map(|payload| payload.to_vec())
    }

    #[test]
    fn a_record_opens_once_and_only_unchanged() {
        let (a, b) = pair();
        let datagram = sealed(&a, 7, b"payload");
        for at in 0..datagram.len() {
            let mut forged = datagram.clone();
            forged[at] ^= 0x80;
            if Header::decode(&forged).is_ok() {
                assert_eq!(open(&b, &forged), Err(Reason::Forged), "byte {at}");
            }
        }
        assert_eq!(open(&b, &datagram).as_deref(), Ok(&b"payload"[..]));
        assert_eq!(open(&b, &datagram), Err(Reason::Replayed));
        assert_eq!(open(&a, &datagram), Err(Reason::Forged), "not a mirror");
    }

    #[test]
    fn a_lane_goes_on_counting_when_a_worker_comes_back_to_it() {
        let (a, b) = pair();
        let numbers: Vec<_> = [1, 1, 2, 1]
            .map(|lane| {
                let datagram = sealed(&a, lane, b"x");
                assert!(open(&b, &datagram).is_ok());
                Header::decode(&datagram).unwrap().counter()
            })
            .to_vec();
        assert_eq!(numbers, [0, 1, 0, 2]);
    }

    #[test]
    fn wrapping_adds_what_the_format_says_and_verifies_once() {
        let (a, b) = pair();
        let ends = RelayEnds {
            source: ShortId([1; 8]),
            destination: ShortId([2; 8]),
        };
        let mut wrapped = [&[0; INNER_OFFSET][..], &[9; 50], &[0; TAG_LEN]].concat();
        a.wrap(3, ends, 8, &mut wrapped).unwrap();
        let header = Header::decode(&wrapped).unwrap();
        assert_eq!((header.lane(), header.ttl), (3, 8));
        assert_eq!(RelayEnds::split(&wrapped), Some((ends, &[9; 50][..])));
        let mut forged = wrapped.clone();
        forged[40] ^= 1;
        assert_eq!(b.verify_relay(&header, &forged), Err(Reason::Forged));
        assert_eq!(b.verify_relay(&header, &wrapped), Ok(()));
        assert_eq!(b.verify_relay(&header, &wrapped), Err(Reason::Replayed));
    }

    #[test]
    fn no_two_workers_share_a_lane_and_each_epoch_is_fresh() {
        for workers in [1, 2, 3, 64, 255] {
            let mut owner = BTreeMap::new();
            for worker in 0..workers {
                for epoch in 0..600 {
                    let lane = lane_of(worker, workers, epoch);
                    assert_ne!(lane, 0);
                    assert_eq!(*owner.entry(lane).or_insert(worker), worker);
                    if workers < 100 {
                        assert_ne!(lane, lane_of(worker, workers, epoch + 1));
                    }
                }
            }
            assert_eq!(owner.len(), 255);
        }
    }
}
