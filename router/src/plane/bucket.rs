//! Allowances: so many a second, and at most those of some time at once.

use std::time::{Duration, Instant};

/// The generic cell rate algorithm (ITU-T I.371): one number, up to when tokens are spent.
pub(crate) struct Bucket {
    step: Duration,
    depth: Duration,
    spent_until: Instant,
}

impl Bucket {
    /// A full bucket that gets `per_second` tokens a second and holds those of `depth`.
    pub(crate) fn full(per_second: u32, depth: Duration, now: Instant) -> Self {
        let step = Duration::from_secs(1) / per_second.max(1);
        Bucket {
            step,
            depth,
            spent_until: now,
        }
    }

    /// Time until there is a token; zero if there is one.
    pub(crate) fn time_left(&self, now: Instant) -> Duration {
        let next = self.spent_until.max(now) + self.step;
        let ahead = next.saturating_duration_since(now);
        ahead.saturating_sub(self.depth)
    }

    /// Takes `count` tokens, also such as there are not yet.
    pub(crate) fn charge(&mut self, count: u32, now: Instant) {
        self.spent_until = self.spent_until.max(now) + self.step * count;
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let allowed = self.time_left(now).is_zero();
        if allowed {
            self.charge(1, now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_charged_ahead_is_waited_for() {
        let now = Instant::now();
        let mut bucket = Bucket::full(1_000, Duration::from_millis(10), now);
        bucket.charge(9, now);
        assert!(bucket.take(now) && !bucket.take(now));
        bucket.charge(5, now);
        assert_eq!(bucket.time_left(now), Duration::from_millis(6));
        let later = now + Duration::from_millis(6);
        assert!(bucket.take(later) && !bucket.take(later));
    }
}
