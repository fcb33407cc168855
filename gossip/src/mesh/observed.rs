//! Where others say they see this peer: its addresses beyond a NAT.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use rmesh_wire::Instant;

use super::Mesh;
use super::path::PathState;
use super::peer::Peer;

/// Addresses kept.
const OBSERVED_MAX: usize = 4;
/// One that nobody has named for this long gives way to another.
/// Behind a NAT that gives every peer another port, or beside a peer that lies, each answer would
/// otherwise be news, and every news a record that the whole mesh passes on.
const OBSERVED_LIFETIME: Duration = Duration::from_secs(30);

/// For so long an address that somebody has named tells which ways lead round by this host's own translator: longer than
/// a host with few links goes without being told.
const OUTSIDE_LIFETIME: Duration = Duration::from_secs(900);

/// All peers are told at most this often that this one is seen elsewhere.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// It is looked this often at most whether a host is behind a translator. Two looks have to agree: others may
/// have seen it before it moved.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// One address, and when it was named last.
struct Named {
    address: SocketAddr,
    last: Instant,
}

/// The addresses that were named.
#[derive(Default)]
pub(crate) struct Observed {
    named: Vec<Named>,
    /// Whether this host is behind a translator, as it last published.
    is_translated: bool,
    /// When it was looked at last, and what it looked like.
    judged: Option<(Instant, bool)>,
    told: Option<Instant>,
    /// When this host got the addresses that it has.
    moved: Instant,
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
        self.named.push(Named { address, last: now });
        true
    }

    /// The same without ports, of those that were named lately and since this host has its addresses: what leads there
    /// goes round by its own translator.
    pub(crate) fn outside(&self, now: Instant) -> Vec<IpAddr> {
        let counts =
            |known: &&Named| known.last >= self.moved && now.since(known.last) < OUTSIDE_LIFETIME;
        let named = self.named.iter().filter(counts);
        named.map(|known| known.address.ip()).collect()
    }

    /// This host has other addresses now, and perhaps another translator.
    pub(crate) fn move_on(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Whether most see this host elsewhere than where it is: it is behind a translator.
    pub(crate) fn is_translated(&self) -> bool {
        self.is_translated
    }

    fn is_judged_lately(&self, now: Instant) -> bool {
        let judged = self.judged;
        judged.is_some_and(|(when, _)| now.since(when) < JUDGE_EVERY)
    }

    /// It looks as if this host were behind a translator, or not; whether that is so and news.
    fn judge(&mut self, is_translated: bool, now: Instant) -> bool {
        let before = self.judged.replace((now, is_translated));
        let agree = before.is_some_and(|(_, before)| before == is_translated);
        agree && core::mem::replace(&mut self.is_translated, is_translated) != is_translated
    }

    /// The addresses, the newest first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.named.iter().rev().map(|known| known.address)
    }
}

impl Mesh {
    /// Looks again whether most of those who reach this host directly see it elsewhere than where it is: one that is
    /// behind a translator itself, or lies, is not believed alone. Whether that is news.
    pub(crate) fn judge_translation(&mut self, now: Instant) -> bool {
        if self.observed.is_judged_lately(now) {
            return false;
        }
        let used = self.active_peers().filter_map(Peer::used);
        let seen = used
            .filter(|path| path.is_alive())
            .filter_map(PathState::seen_as);
        let (home, elsewhere): (Vec<_>, Vec<_>) = seen.partition(|seen| self.is_at_home(*seen));
        if home.is_empty() && elsewhere.is_empty() {
            return false;
        }
        let is_translated = elsewhere.len() > home.len();
        self.observed.judge(is_translated, now)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_tells_of_the_own_translator_for_a_while_and_until_this_host_moves() {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let address: SocketAddr = "198.51.100.1:6783".parse().expect("an address");
        let mut observed = Observed::default();
        assert!(observed.note(address, at(1)));
        assert_eq!(observed.outside(at(400)), [address.ip()]);
        assert!(observed.outside(at(901)).is_empty(), "nobody said so again");
        observed.note(address, at(1_000));
        observed.move_on(at(1_001));
        assert!(observed.outside(at(1_001)).is_empty());
        assert_eq!(
            observed.addresses().next(),
            Some(address),
            "it is tried still"
        );
        observed.note(address, at(1_002));
        assert_eq!(observed.outside(at(1_003)), [address.ip()]);
    }
}
