//! How much of each peer's traffic with others this host carries, at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a peer saves up: traffic comes in bursts, and TCP's are as long as a round trip.
const DEPTH: Duration = Duration::from_millis(100);
/// … and so much at least, in bytes: a few datagrams of any rate.
const DEPTH_LEN_MIN: usize = 32 << 10;
const NANOS_PER_S: u64 = 1_000_000_000;

/// The limit, the same for every peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CarryLimit {
    bits_per_s: u64,
    start: Instant,
}

/// What has been carried for one peer: the generic cell rate algorithm ([`super::bucket`]) in a number that all
/// workers share, for a peer's flows come to all of them.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Up to when its allowance is spent, in nanoseconds since the limit's start.
    spent_until: AtomicU64,
}

impl CarryLimit {
    /// So many bits a second, and peer.
    pub(crate) fn new(bits_per_s: u64, now: Instant) -> Self {
        CarryLimit {
            bits_per_s: bits_per_s.max(1),
            start: now,
        }
    }

    fn cost(&self, len: usize) -> u64 {
        let nanos = len as u128 * 8 * u128::from(NANOS_PER_S) / u128::from(self.bits_per_s);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    fn depth(&self) -> u64 {
        let depth = u64::try_from(DEPTH.as_nanos()).unwrap_or(u64::MAX);
        depth.max(self.cost(DEPTH_LEN_MIN))
    }
}

impl Carried {
    /// Whether a datagram of this length may be carried now; then it is charged.
    pub(crate) fn admits(&self, limit: &CarryLimit, len: usize, now: Instant) -> bool {
        let now = now.saturating_duration_since(limit.start).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let charged = |spent_until: u64| {
            let spent = spent_until.max(now).saturating_add(limit.cost(len));
            (spent <= now.saturating_add(limit.depth())).then_some(spent)
        };
        let (order, failed) = (Ordering::Relaxed, Ordering::Relaxed);
        self.spent_until
            .fetch_update(order, failed, charged)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_gets_its_rate_and_a_burst() {
        let start = Instant::now();
        let limit = CarryLimit::new(8_000_000, start);
        let (one, other) = (Carried::default(), Carried::default());
        let count =
            |of: &Carried, now| (0..1_000).filter(|_| of.admits(&limit, 1_000, now)).count();
        assert_eq!(count(&one, start), 100, "100 ms of it at once");
        assert_eq!(count(&one, start), 0);
        assert_eq!(count(&other, start), 100);
        assert_eq!(count(&one, start + Duration::from_millis(20)), 20);
        let late = start + Duration::from_secs(3_600);
        assert_eq!(count(&one, late), 100, "no more than that is saved up");
    }

    #[test]
    fn the_slowest_rate_still_carries_whole_datagrams() {
        let start = Instant::now();
        let limit = CarryLimit::new(1_000, start);
        let carried = Carried::default();
        assert!(carried.admits(&limit, 9_000, start));
        assert!(!carried.admits(&limit, 65_000, start));
        assert!(carried.admits(&limit, 9_000, start + Duration::from_secs(72)));
    }
}
