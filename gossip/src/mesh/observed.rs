//! Where others say they see this peer: its addresses beyond a NAT.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::Instant;

use super::Mesh;

/// Addresses kept.
const OBSERVED_MAX: usize = 4;
/// One that nobody has named for this long gives way to another; idle peers name it every 10 s.
/// Behind a NAT that gives every peer another port, or beside a peer that lies, each answer would
/// otherwise be news, and every news a record that the whole mesh passes on.
const OBSERVED_LIFETIME: Duration = Duration::from_secs(30);

/// All peers are told at most this often that this one is seen elsewhere.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The addresses, and when each was last named.
#[derive(Default)]
pub(crate) struct Observed {
    named: Vec<(SocketAddr, Instant)>,
    told: Option<Instant>,
}

impl Observed {
    /// Somebody named `address`; whether the list has changed.
    pub(crate) fn note(&mut self, address: SocketAddr, now: Instant) -> bool {
        if let Some((_, named)) = self.named.iter_mut().find(|(known, _)| *known == address) {
            *named = now;
            return false;
        }
        if self.named.len() >= OBSERVED_MAX {
            let oldest = (0..).zip(&self.named).min_by_key(|(_, (_, named))| *named);
            let over = oldest.filter(|(_, (_, named))| now.since(*named) >= OBSERVED_LIFETIME);
            let Some(at) = over.map(|(at, _)| at) else {
                return false;
            };
            self.named.remove(at);
        }
        self.named.push((address, now));
        true
    }

    /// The addresses, the newest first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.named.iter().rev().map(|(address, _)| *address)
    }
}

impl Mesh {
    /// A peer that saw this one at one address sees it at another now: a NAT on the way has forgotten it,
    /// and other peers may not reach it before it calls.
    pub(crate) fn tell_moved(&mut self, now: Instant) {
        let told = self.observed.told;
        if told.is_some_and(|told| now.since(told) < TELL_EVERY) {
            return;
        }
        self.observed.told = Some(now);
        for peer in self.peers.values_mut().filter(|p| p.current.is_some()) {
            if let Some(path) = peer.used_mut() {
                path.ask_now(now);
            }
        }
    }
}
