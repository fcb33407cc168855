//! What of lane 0 is worth the control side's time.
//!
//! Lane 0 is opened and judged by `gossip::Mesh` alone. But an input of the mesh costs a look at every peer,
//! and anybody can send what looks like a record of lane 0: a flood of such would take the place of the
//! peers' probes, and every path would be thought dead. So it is first verified, on a copy and against
//! the workers' snapshot, that the datagram is genuine and new.

use std::time::{Duration, Instant};

use rmesh_wire::datagram::{Header, Kind};

use super::bucket::Bucket;
use super::buffer::Buffer;
use super::inbox::LEN_MAX;
use super::stats::Reason;
use super::tables::Tables;

/// Datagrams of unknown sessions passed on a second: some may be of sessions that opened just now
/// and are in no snapshot yet.
const UNKNOWN_PER_S: u32 = 1_000;
/// After a quiet time as many are passed on at once as in this time.
const UNKNOWN_DEPTH: Duration = Duration::from_millis(64);

/// Who sent a datagram of lane 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A peer: it is genuine and comes for the first time.
    Peer,
    /// Perhaps one whose session is in no snapshot yet, or anybody.
    Unknown,
}

/// What judges them.
pub(crate) struct Screen {
    /// For those whose session no snapshot has.
    unknown: Bucket,
    /// Where a copy is verified.
    copy: Buffer,
}

impl Screen {
    pub(crate) fn new(now: Instant) -> Self {
        Screen {
            unknown: Bucket::full(UNKNOWN_PER_S, UNKNOWN_DEPTH, now),
            copy: Buffer::default(),
        }
    }

    /// Whose datagram of lane 0 this is, or why it is not worth the control side's time.
    pub(crate) fn judge(
        &mut self,
        header: &Header,
        datagram: &[u8],
        tables: &Tables,
        now: Instant,
    ) -> Result<Sender, Reason> {
        let Some(session) = tables.session(header.receiver) else {
            let may_pass = self.unknown.take(now);
            return may_pass
                .then_some(Sender::Unknown)
                .ok_or(Reason::UnknownSession);
        };
        if header.kind == Kind::Relay {
            session.verify_relay(header, datagram)?;
        } else {
            if datagram.len() > LEN_MAX || !self.copy.assign(&[datagram]) {
                return Err(Reason::Malformed);
            }
            session.open_record(header, self.copy.data_mut())?;
        }
        Ok(Sender::Peer)
    }
}
