//! One session with one peer: lane 0 of its records, and what the data plane needs for the rest.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::datagram::{HEADER_LEN, Header, TAG_LEN};
use rmesh_wire::handshake::Cipher;
use rmesh_wire::payload::CONTROL_LANE;
use rmesh_wire::relay::{INNER_OFFSET, RelayEnds};
use rmesh_wire::{Boot, Instant, PeerId};

use super::Origin;
use super::pieces::Pieces;
use crate::api::SessionKeys;
use crate::crypto::{Aead, Crypto, Key};
use crate::replay::ReplayWindow;

/// A session not heard for this long, while another opens, is taken for dead.
const SILENT: Duration = Duration::from_secs(2);

/// Why a datagram of a session was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its tag is wrong, or it is too short to have one.
    Forged,
    /// Its number was seen before or is too old to tell.
    Replayed,
}

/// What a completed handshake gives.
pub(crate) struct Agreement {
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) peer: PeerId,
    pub(crate) peer_boot: Boot,
    pub(crate) opener: PeerId,
    pub(crate) cipher: Cipher,
    /// Both policies know pairs that may talk in plaintext; whether this is one is said path by path.
    pub(crate) plaintext: bool,
    pub(crate) seal_key: Key,
    pub(crate) open_key: Key,
}

/// The third handshake message, kept until the responder is heard under the session.
pub(crate) struct Finish {
    pub(crate) message: Vec<u8>,
    pub(crate) to: Origin,
    pub(crate) resend_at: Instant,
    pub(crate) tries_left: u8,
}

/// One session.
pub(crate) struct Session {
    pub(crate) agreement: Agreement,
    pub(crate) established: Instant,
    /// When a record or relay datagram under it last verified.
    pub(crate) heard: Instant,
    /// How the last record on lane 0 came.
    pub(crate) heard_from: Option<Origin>,
    /// Whether a record under it has verified; only then may it replace another.
    pub(crate) confirmed: bool,
    /// Set when another session replaced it: it only receives, until then.
    pub(crate) retires_at: Option<Instant>,
    pub(crate) finish: Option<Finish>,
    /// Records sealed and opened on lane 0 by this side.
    pub(crate) records: u64,
    /// Control messages of which pieces have come.
    pub(crate) pieces: Pieces,
    seal: Box<dyn Aead>,
    open: Box<dyn Aead>,
    next_counter: u64,
    window: ReplayWindow,
}

impl Session {
    /// `None` if the provider does not have the cipher.
    pub(crate) fn new(agreement: Agreement, crypto: &dyn Crypto, now: Instant) -> Option<Self> {
        let seal = crypto.aead(agreement.cipher, &agreement.seal_key)?;
        let open = crypto.aead(agreement.cipher, &agreement.open_key)?;
        Some(Session {
            agreement,
            established: now,
            heard: now,
            heard_from: None,
            confirmed: false,
            retires_at: None,
            finish: None,
            records: 0,
            pieces: Pieces::default(),
            seal,
            open,
            next_counter: 0,
            window: ReplayWindow::new(),
        })
    }

    /// The session as the data plane uses it.
    pub(crate) fn keys(&self) -> SessionKeys {
        SessionKeys {
            peer: self.agreement.peer,
            local_index: self.agreement.local_index,
            remote_index: self.agreement.remote_index,
            cipher: self.agreement.cipher,
            seal_key: self.agreement.seal_key.clone(),
            open_key: self.agreement.open_key.clone(),
        }
    }

    fn next_counter(&mut self) -> u64 {
        // 2^56 control records cannot be reached within a session's lifetime.
        let counter = self.next_counter;
        self.next_counter += 1;
        self.records += 1;
        counter
    }

    /// A number for the pieces of one payload, which the records before and behind have not.
    pub(crate) fn fresh_id(&self) -> u32 {
        self.next_counter as u32
    }

    /// A whole datagram carrying `payload` on lane 0.
    pub(crate) fn seal_record(&mut self, payload: &[u8]) -> Vec<u8> {
        let remote_index = self.agreement.remote_index;
        let header = Header::record(remote_index, CONTROL_LANE, self.next_counter());
        let associated = header.encode();
        let mut datagram = Vec::with_capacity(HEADER_LEN + payload.len() + TAG_LEN);
        datagram.extend_from_slice(&associated);
        datagram.extend_from_slice(payload);
        let text = datagram.get_mut(HEADER_LEN..).unwrap_or_default();
        let tag = self.seal.seal(&header.nonce(), &associated, text);
        datagram.extend_from_slice(&tag);
        datagram
    }

    /// The payload of a lane-0 record.
    pub(crate) fn open_record(
        &mut self,
        header: &Header,
        datagram: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let (associated, rest) = datagram
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Refusal::Forged)?;
        let (text, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(Refusal::Forged)?;
        let mut text = Vec::from(text);
        self.check_window(header)?;
        let opened = self.open.open(&header.nonce(), associated, &mut text, tag);
        opened.map_err(|_| Refusal::Forged)?;
        self.take(header)?;
        Ok(text)
    }

    /// `inner` wrapped for the neighbour at the other end of this session.
    pub(crate) fn wrap(&mut self, ends: RelayEnds, ttl: u8, inner: &[u8]) -> Vec<u8> {
        let remote_index = self.agreement.remote_index;
        let header = Header::relay(remote_index, CONTROL_LANE, self.next_counter(), ttl);
        let mut datagram = Vec::with_capacity(INNER_OFFSET + inner.len() + TAG_LEN);
        datagram.extend_from_slice(&header.encode());
        datagram.extend_from_slice(&ends.encode());
        datagram.extend_from_slice(inner);
        let tag = self.seal.seal(&header.nonce(), &datagram, &mut []);
        datagram.extend_from_slice(&tag);
        datagram
    }

    /// Checks that a lane-0 relay datagram came from this session's neighbour, for the first time.
    pub(crate) fn verify_relay(&mut self, header: &Header, datagram: &[u8]) -> Result<(), Refusal> {
        let (associated, tag) = datagram
            .split_last_chunk::<TAG_LEN>()
            .ok_or(Refusal::Forged)?;
        self.check_window(header)?;
        let opened = self.open.open(&header.nonce(), associated, &mut [], tag);
        opened.map_err(|_| Refusal::Forged)?;
        self.take(header)
    }

    fn check_window(&self, header: &Header) -> Result<(), Refusal> {
        self.window
            .check(header.counter())
            .then_some(())
            .ok_or(Refusal::Replayed)
    }

    fn take(&mut self, header: &Header) -> Result<(), Refusal> {
        self.records += 1;
        self.window
            .record(header.counter())
            .then_some(())
            .ok_or(Refusal::Replayed)
    }
}

/// Whether records come under `this` session and none under `other` any more.
pub(crate) fn is_heard_alone(this: &Session, other: &Session) -> bool {
    this.heard.since(other.heard) > SILENT
}

/// Whether two sessions came up because both ends dialled at once, and `this` is the one to keep.
pub(crate) fn is_preferred(this: &Session, other: &Session, simultaneous: Duration) -> bool {
    let (a, b) = (&this.agreement, &other.agreement);
    let apart =
        this.established.since(other.established) + other.established.since(this.established);
    a.peer_boot.random == b.peer_boot.random && apart <= simultaneous && a.opener < b.opener
}

/// Whether `new` becomes the session to seal with where `current` was.
///
/// When both ends dial at once two sessions come up; both ends must keep the same one, so the
/// one opened by the smaller peer id wins. In every other case the newer one does: a restarted
/// peer (its boot differs) has forgotten the older, and a renewal is there to be used.
pub(crate) fn replaces(new: &Session, current: &Session, simultaneous: Duration) -> bool {
    let (n, c) = (&new.agreement, &current.agreement);
    let silent = is_heard_alone(new, current);
    // The random part names a life; the counter may be raised within one.
    if n.peer_boot.random != c.peer_boot.random {
        // A life with a lower counter has lost its disk; it counts once the other one is silent.
        return silent || n.peer_boot > c.peer_boot;
    }
    let apart = new.established.since(current.established);
    n.opener == c.opener || apart > simultaneous || silent || n.opener < c.opener
}
