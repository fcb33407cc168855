//! What the answers to probes say of a path, in figures.

use core::time::Duration;

use rmesh_wire::Instant;

/// The least round trip is that of this time, and of up to as long before.
const LEAST_OF: Duration = Duration::from_secs(300);

/// How far away the other end is: the least round trip of some minutes. What is queued on the way, or
/// waits for a busy processor, does not make it longer, so no flood that ends within that time makes another path look shorter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Least {
    current: Option<Duration>,
    before: Option<Duration>,
    since: Instant,
}

impl Least {
    pub(super) fn new(now: Instant) -> Self {
        Least {
            current: None,
            before: None,
            since: now,
        }
    }

    pub(super) fn note(&mut self, sample: Duration, now: Instant) {
        if now.since(self.since) >= LEAST_OF {
            self.before = self.current.take();
            self.since = now;
        }
        self.current = Some(self.current.map_or(sample, |least| least.min(sample)));
    }

    pub(super) fn get(&self) -> Option<Duration> {
        let both = [self.current, self.before];
        both.into_iter().flatten().min()
    }
}

/// Round trips, smoothed as RFC 6298 section 2 does it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl RoundTrip {
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// After this time an answer is late: two round trips and four variations; nothing before the first.
    pub(crate) fn patience(&self) -> Duration {
        self.smoothed.unwrap_or_default() * 2 + self.variation * 4
    }

    pub(crate) fn note(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }
}

/// What became of the latest questions, at most 64 of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct History {
    missing: u64,
    count: u32,
}

impl History {
    pub(crate) fn note(&mut self, answered: bool) {
        self.missing = (self.missing << 1) | u64::from(!answered);
        self.count = (self.count + 1).min(u64::BITS);
    }

    /// How many of a hundred are missing; `None` before the first.
    pub(crate) fn loss_percent(&self) -> Option<u8> {
        let percent = (self.missing.count_ones() * 100).checked_div(self.count)?;
        u8::try_from(percent).ok()
    }
}
