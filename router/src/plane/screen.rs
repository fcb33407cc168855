//! What of lane 0 is worth the control side's time.
//!
//! Lane 0 is opened and judged by `gossip::Mesh` alone. But that is one thread behind one queue, and
//! anybody can send what looks like a record of lane 0: a flood of such would take the place of the
//! peers' probes, and every path would be thought dead. So a worker first verifies, on a copy, that
//! the datagram is genuine and new.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rmesh_wire::datagram::{Header, Kind};

use super::bucket::Bucket;
use super::engine::Engine;
use super::inbox::LEN_MAX;
use super::stats::Reason;
use super::tables::Tables;

/// Datagrams of unknown sessions passed on a second: some may be of sessions that opened just now
/// and are in no snapshot yet.
const UNKNOWN_PER_S: u32 = 1_000;
/// After a quiet time as many are passed on at once as in this time.
const UNKNOWN_DEPTH: Duration = Duration::from_millis(64);

/// The allowance of datagrams of unknown sessions.
pub(crate) fn allowance(now: Instant) -> Bucket {
    Bucket::full(UNKNOWN_PER_S, UNKNOWN_DEPTH, now)
}

impl Engine {
    /// Hands a datagram of lane 0 to the control side if it is genuine and comes for the first time.
    pub(crate) fn screen(
        &mut self,
        source: SocketAddr,
        header: &Header,
        datagram: &[u8],
        tables: &Tables,
        now: Instant,
    ) -> Result<(), Reason> {
        let Some(session) = tables.session(header.receiver) else {
            if !self.unknown.take(now) {
                return Err(Reason::UnknownSession);
            }
            self.inbox.stranger(source, datagram);
            return Ok(());
        };
        if header.kind == Kind::Relay {
            session.verify_relay(header, datagram)?;
        } else {
            if datagram.len() > LEN_MAX || !self.copy.assign(&[datagram]) {
                return Err(Reason::Malformed);
            }
            session.open_record(header, self.copy.data_mut())?;
        }
        self.inbox.datagram(source, datagram);
        Ok(())
    }
}
