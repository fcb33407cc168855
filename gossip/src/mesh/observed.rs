//! Where others say they see this peer: its addresses beyond a NAT.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use rmesh_wire::Instant;

use super::Mesh;

/// Addresses kept.
const OBSERVED_MAX: usize = 4;
/// One that nobody has named for this long gives way to another; idle peers name it every 10 s.
/// Behind a NAT that gives every peer another port, or beside a peer that lies, each answer would
/// otherwise be news, and every news a record that the whole mesh passes on.
const OBSERVED_LIFETIME: Duration = Duration::from_secs(30);

/// A host that nobody has seen elsewhere for this long is behind no translator any more: whose peers ask in its place
/// hears where it is seen every two minutes only.
const TRANSLATED_FOR: Duration = Duration::from_secs(300);

/// All peers are told at most this often that this one is seen elsewhere.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// … and one that was named once may have been seen before this host moved; again after this time it is so.
const TRANSLATED_AFTER: Duration = Duration::from_secs(1);

/// One address, and when it was named first and last.
struct Named {
    address: SocketAddr,
    first: Instant,
    last: Instant,
}

/// The addresses that were named.
#[derive(Default)]
pub(crate) struct Observed {
    named: Vec<Named>,
    /// Whether this host is behind a translator, as it last published.
    is_translated: bool,
    told: Option<Instant>,
}

impl Observed {
    /// Somebody named `address`; whether the list has changed.
    pub(crate) fn note(&mut self, address: SocketAddr, now: Instant) -> bool {
        if let Some(known) = self.named.iter_mut().find(|known| known.address == address) {
            known.last = now;
            return false;
        }
        if self.named.len() >= OBSERVED_MAX {
            let oldest = (0..).zip(&self.named).min_by_key(|(_, known)| known.last);
            let over = oldest.filter(|(_, known)| now.since(known.last) >= OBSERVED_LIFETIME);
            let Some(at) = over.map(|(at, _)| at) else {
                return false;
            };
            self.named.remove(at);
        }
        self.named.push(Named {
            address,
            first: now,
            last: now,
        });
        true
    }

    /// The same without ports.
    pub(crate) fn outside(&self) -> Vec<IpAddr> {
        self.named.iter().map(|known| known.address.ip()).collect()
    }

    /// Whether somebody sees this host elsewhere than where it is: it is behind a translator.
    pub(crate) fn is_translated(&self) -> bool {
        self.is_translated
    }

    /// Looks again whether anybody does; whether that is news.
    pub(crate) fn turns(&mut self, now: Instant) -> bool {
        let is_so = |known: &Named| {
            let is_fresh = now.since(known.last) < TRANSLATED_FOR;
            is_fresh && known.last >= known.first + TRANSLATED_AFTER
        };
        let is_translated = self.named.iter().any(is_so);
        core::mem::replace(&mut self.is_translated, is_translated) != is_translated
    }

    /// The addresses, the newest first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.named.iter().rev().map(|known| known.address)
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
