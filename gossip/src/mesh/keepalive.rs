//! How long the translators of addresses on the way keep a mapping that nobody uses.
//!
//! Who is behind one says on each path after how much silence it is to be asked ([`Keepalive::interval`]), and the
//! other end asks then: only a question that comes in from outside shows that the mapping still lives, for one that
//! goes out makes a new one. Such a question is the path's sign of life as well, so a path that is asked more often
//! anyway costs nothing. Where mappings live shorter than links are to be asked ([`rhythm`]) this end sends something
//! in between that nobody answers: a third of what questions and answers would cost. As long as they arrive the time grows step by
//! step; where twice in a row they do not, and this end has to call first, it shrinks. The time is the network's,
//! not the peer's: what one path finds out serves all, and it is known again where the host comes back to.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use rmesh_wire::payload::{Head, PayloadKind};
use rmesh_wire::{Instant, PeerId};

use super::peer::{Peer, Way};
use super::{Mesh, Origin};

/// At first: most translators keep mappings for longer, few for less (RFC 4787 REQ-5 asks for two minutes).
const FIRST: Duration = Duration::from_secs(10);
/// Never less …
pub(crate) const LEAST: Duration = Duration::from_secs(2);
/// … nor more: an idle path that has died should not be taken for one that works for longer.
pub(crate) const MOST: Duration = Duration::from_secs(30);
/// Mappings that live shorter are kept by this end itself between questions …
const OFTEN: Duration = Duration::from_secs(6);
/// … which are this far apart then: hardly more than the questions of any link.
const ASKED_LEAST: Duration = Duration::from_secs(8);
const ASKED_MOST: Duration = Duration::from_secs(9);
/// Questions that arrive after such silence make it longer by a quarter.
const GROWS_AFTER: u32 = 3;
/// Mappings lost in a row that make it shorter by a quarter: one question may be lost for other reasons.
const SHRINKS_AFTER: u32 = 2;
/// A time at which a mapping was lost is tried again after so many questions that arrived: a translator that was
/// switched off and on forgets everything at once.
const FORGIVES_AFTER: u32 = 200;
/// Networks remembered.
const NETWORKS_MAX: usize = 8;

/// What is known of the network this host is in, and of those it was in.
#[derive(Debug, Default)]
pub(crate) struct Keepalive {
    now: Lifetime,
    /// The addresses of this host where it was, the latest last.
    left: Vec<(Vec<IpAddr>, Lifetime)>,
    addresses: Vec<IpAddr>,
}

/// How long mappings live in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lifetime {
    interval: Duration,
    /// The shortest silence at which one was lost.
    lost_at: Option<Duration>,
    survived: u32,
    lost: u32,
}

impl Default for Lifetime {
    fn default() -> Self {
        Lifetime {
            interval: FIRST,
            lost_at: None,
            survived: 0,
            lost: 0,
        }
    }
}

impl Keepalive {
    /// This host has these addresses from now on.
    pub(crate) fn enter(&mut self, addresses: &[IpAddr]) {
        let left = core::mem::replace(&mut self.addresses, addresses.to_vec());
        let known = self.left.iter().position(|(known, _)| known == addresses);
        let next = known.map(|at| self.left.remove(at).1);
        let before = core::mem::replace(&mut self.now, next.unwrap_or_default());
        if self.left.len() >= NETWORKS_MAX {
            self.left.remove(0);
        }
        self.left.push((left, before));
    }

    /// After so much silence a path is to be asked.
    pub(crate) fn interval(&self) -> Duration {
        self.now.interval
    }

    /// A question came in on a path on which nothing had been sent for `silence`.
    pub(crate) fn survived(&mut self, silence: Duration) {
        let known = &mut self.now;
        // Shorter ones say nothing.
        let (asked, parts) = rhythm(known.interval);
        if silence * 4 < asked / parts * 3 {
            return;
        }
        known.lost = 0;
        known.survived += 1;
        if known.survived >= FORGIVES_AFTER {
            known.lost_at = None;
        }
        if known.survived.is_multiple_of(GROWS_AFTER) {
            let longest = known.lost_at.map_or(MOST, |lost_at| lost_at * 9 / 10);
            let longer = (known.interval * 5 / 4).min(longest).min(MOST);
            known.interval = known.interval.max(longer);
        }
    }

    /// No question came in after `silence`, though the other end asks, and answered this one's at once. Whether the
    /// time is shorter now.
    pub(crate) fn lost(&mut self, silence: Duration) -> bool {
        let known = &mut self.now;
        // What follows from such silence has been drawn: other paths were asked before they could know.
        if silence * 3 / 4 >= known.interval {
            return false;
        }
        known.survived = 0;
        known.lost += 1;
        if known.lost < SHRINKS_AFTER {
            return false;
        }
        known.lost = 0;
        known.lost_at = Some(known.lost_at.map_or(silence, |at| at.min(silence)));
        let shorter = (silence * 3 / 4).clamp(LEAST, MOST);
        let before = known.interval;
        known.interval = before.min(shorter);
        known.interval < before
    }
}

/// How far apart questions are to be where mappings are to be used after such silence at the latest, and into how many
/// parts of silence that is cut.
pub(crate) fn rhythm(interval: Duration) -> (Duration, u32) {
    if interval >= OFTEN {
        return (interval, 1);
    }
    let interval = interval.max(LEAST);
    let parts = ASKED_LEAST.as_millis().div_ceil(interval.as_millis());
    let parts = u32::try_from(parts).unwrap_or(1);
    ((interval * parts).min(ASKED_MOST), parts)
}

impl Mesh {
    /// Sends what keeps mappings of this host's translator and needs no answer.
    pub(super) fn keep_open(&mut self, id: PeerId, addresses: &[SocketAddr], now: Instant) {
        let index = self.peers.get(&id).and_then(|peer| peer.current);
        for address in addresses {
            let session = index.and_then(|index| self.sessions.get_mut(&index));
            let Some(session) = session else { return };
            let datagram = session.seal_record(&Head::new(PayloadKind::Keep).encode());
            self.send_way(id, Way::Direct(*address), datagram, now);
        }
    }

    /// Somebody has kept its mapping. If that had been forgotten it comes from elsewhere: it is called there at once.
    pub(super) fn on_keep(&mut self, id: PeerId, origin: Origin, now: Instant) {
        let peer = self.peers.get_mut(&id).zip(origin.address());
        if let Some((peer, address)) = peer {
            peer.add_candidate(address, now);
            if let Some(path) = peer.direct.get_mut(&address) {
                path.hurry(now);
            }
        }
    }

    /// Mappings live shorter than was thought. Other ends hear of it when they are asked, which must not wait until it would
    /// have been time before: meanwhile the mappings are gone, and what those ask gets no answer.
    pub(super) fn keep_mappings_sooner(&mut self) {
        let interval = self.keepalive.interval();
        let is_kept = |peer: &&Peer| {
            peer.direct
                .values()
                .any(|path| path.mapping.is_translated())
        };
        let kept = self.active_peers().filter(is_kept);
        for id in kept.map(|peer| peer.id).collect::<Vec<_>>() {
            let peer = self.peers.get_mut(&id);
            for path in peer.into_iter().flat_map(|peer| peer.direct.values_mut()) {
                path.keep_sooner(interval);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network whose translator keeps mappings for `lifetime`, asked so many times.
    fn live(keepalive: &mut Keepalive, lifetime: Duration, times: u32) -> (Duration, u32) {
        let mut lost = 0;
        for _ in 0..times {
            let silence = keepalive.interval();
            if silence < lifetime {
                keepalive.survived(silence);
            } else {
                keepalive.lost(silence);
                lost += 1;
            }
        }
        (keepalive.interval(), lost)
    }

    #[test]
    fn the_time_between_questions_follows_the_lifetime_of_mappings() {
        for (seconds, least) in [(120, 30), (25, 20), (12, 9), (5, 3), (3, 2)] {
            let lifetime = Duration::from_secs(seconds);
            let mut keepalive = Keepalive::default();
            let (first, _) = live(&mut keepalive, lifetime, 60);
            assert!(first < lifetime, "{first:?} of {lifetime:?}");
            assert!(
                first >= Duration::from_secs(least),
                "{first:?} of {lifetime:?}"
            );
            // It is tried again now and then whether they live longer.
            let (_, lost) = live(&mut keepalive, lifetime, 1_000);
            assert!(lost <= 25, "{lost} of 1000 at {lifetime:?}");
        }
    }

    #[test]
    fn what_other_paths_lose_after_the_same_silence_counts_once() {
        let mut keepalive = Keepalive::default();
        for _ in 0..20 {
            keepalive.lost(Duration::from_secs(8));
        }
        assert_eq!(keepalive.interval(), Duration::from_secs(6));
    }

    #[test]
    fn questions_are_hardly_more_than_nine_seconds_apart_and_show_most_of_the_interval() {
        for tenths in 20..300 {
            let interval = Duration::from_millis(tenths * 100);
            let (asked, parts) = rhythm(interval);
            assert!(asked <= ASKED_MOST.max(interval));
            assert!(asked >= ASKED_LEAST.min(interval));
            assert!(asked / parts <= interval && asked / parts * 4 >= interval * 3);
        }
    }

    #[test]
    fn a_translator_that_was_switched_off_and_on_is_forgiven() {
        let mut keepalive = Keepalive::default();
        live(&mut keepalive, Duration::from_secs(60), 60);
        keepalive.lost(Duration::from_secs(1));
        keepalive.survived(MOST);
        keepalive.lost(Duration::from_secs(1));
        assert_eq!(keepalive.interval(), MOST, "not twice in a row");
        keepalive.lost(Duration::from_secs(4));
        assert_eq!(keepalive.interval(), Duration::from_secs(3));
        let (interval, _) = live(&mut keepalive, Duration::from_secs(60), 300);
        assert_eq!(interval, MOST);
    }

    #[test]
    fn each_network_has_its_own_and_it_is_known_again() {
        let [home, away] = [[1, 2, 3, 4], [5, 6, 7, 8]].map(IpAddr::from);
        let mut keepalive = Keepalive::default();
        keepalive.enter(&[home]);
        let (at_home, _) = live(&mut keepalive, Duration::from_secs(5), 50);
        keepalive.enter(&[away]);
        assert_eq!(keepalive.interval(), FIRST);
        for other in 0..5 {
            keepalive.enter(&[IpAddr::from([9, 9, 9, other])]);
        }
        keepalive.enter(&[home]);
        assert_eq!(keepalive.interval(), at_home);
        for other in 0..100 {
            keepalive.enter(&[IpAddr::from([10, 9, 9, other])]);
        }
        assert!(keepalive.left.len() <= NETWORKS_MAX);
    }
}
