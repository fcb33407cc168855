//! Where others say they see this peer: its addresses beyond a NAT.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::Instant;

/// Addresses kept.
const OBSERVED_MAX: usize = 4;
/// One that nobody has named for this long gives way to another; idle peers name it every 10 s.
/// Behind a NAT that gives every peer another port, or beside a peer that lies, each answer would
/// otherwise be news, and every news a record that the whole mesh passes on.
const OBSERVED_LIFETIME: Duration = Duration::from_secs(30);

/// The addresses, and when each was last named.
#[derive(Default)]
pub(crate) struct Observed(Vec<(SocketAddr, Instant)>);

impl Observed {
    /// Somebody named `address`; whether the list has changed.
    pub(crate) fn note(&mut self, address: SocketAddr, now: Instant) -> bool {
        if let Some((_, named)) = self.0.iter_mut().find(|(known, _)| *known == address) {
            *named = now;
            return false;
        }
        if self.0.len() >= OBSERVED_MAX {
            let oldest = (0..).zip(&self.0).min_by_key(|(_, (_, named))| *named);
            let over = oldest.filter(|(_, (_, named))| now.since(*named) >= OBSERVED_LIFETIME);
            let Some(at) = over.map(|(at, _)| at) else {
                return false;
            };
            self.0.remove(at);
        }
        self.0.push((address, now));
        true
    }

    /// The addresses, the newest first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().rev().map(|(address, _)| *address)
    }
}
