//! Who asks where addresses are translated on the way, and what that shows of the mapping ([`super::super::keepalive`]).

use core::time::Duration;

use rmesh_wire::Instant;

use super::pace::{Pace, YIELD};
use crate::mesh::keepalive::{LEAST, MOST};

/// What is known of the translators on one path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mapping {
    /// The other end sees this one elsewhere than where it is.
    is_translated: bool,
    /// This end's id is the smaller one.
    is_smaller: bool,
    /// The other end is behind one, and to be asked after so much silence.
    pub(crate) wanted: Option<Duration>,
    /// When this end last sent something that keeps a mapping.
    sent: Option<Instant>,
    /// How long this end meant to wait for a question when it last told the other end so.
    told: Option<Duration>,
    /// Whether it is asked so rarely that a mapping may be lost meanwhile.
    is_sparse: bool,
    /// A question that had to be asked because none came in, and how long nothing had been sent.
    unasked: Option<(u64, Duration)>,
}

/// This host, as far as it matters to how it watches a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watcher {
    /// Whether its id is the smaller one.
    pub(crate) is_smaller: bool,
    /// After how much silence it is to be asked where it is behind a translator.
    pub(crate) keep: Duration,
}

impl Mapping {
    /// Whether the other end is the one that asks.
    fn lets_ask(&self, is_smaller: bool) -> bool {
        match (self.is_translated, self.wanted.is_some()) {
            // Only what comes in shows that a mapping lives.
            (true, false) => true,
            (false, true) => false,
            _ => !is_smaller,
        }
    }

    /// The pace of a path that would be watched at `pace`.
    pub(crate) fn adapt(&self, mut pace: Pace, watcher: Watcher) -> Pace {
        if !is_sparse(pace) {
            return match watcher.is_smaller {
                true => pace,
                false => pace.yielding(),
            };
        }
        let own = self.is_translated.then_some(watcher.keep);
        if let Some(keep) = [own, self.wanted].into_iter().flatten().min() {
            let keep = keep.clamp(LEAST, MOST);
            // What nobody needs is only kept open.
            pace.alive = match pace == Pace::IDLE {
                true => keep,
                false => pace.alive.min(keep),
            };
        }
        match self.lets_ask(watcher.is_smaller) {
            true => pace.yielding(),
            false => pace,
        }
    }

    /// Whether the other end sees this one elsewhere than where it is.
    pub(crate) fn is_translated(&self) -> bool {
        self.is_translated
    }

    /// The other end has said whether it does.
    pub(crate) fn note_translated(&mut self, is_translated: bool, watcher: Watcher) {
        self.is_translated = is_translated;
        self.is_smaller = watcher.is_smaller;
    }

    /// A question goes out; `is_routine` says that nothing but the time is the reason.
    pub(super) fn asks(&mut self, token: u64, is_routine: bool, pace: Pace, now: Instant) {
        self.is_sparse = is_sparse(pace);
        let silence = self.sent.map(|sent| now.since(sent));
        let is_late = |silence: &Duration| *silence + YIELD / 2 >= pace.alive;
        // Where the time has just become shorter the other end does not know yet.
        let is_told = self.told.replace(pace.alive);
        let is_told = is_told.is_some_and(|told| told <= pace.alive);
        let waited = is_routine && is_told && self.lets_ask(self.is_smaller);
        let is_unasked = self.is_translated && waited && is_sparse(pace);
        let unasked = silence.filter(is_late).filter(|_| is_unasked);
        self.unasked = unasked.map(|silence| (token, silence));
        self.sent = Some(now);
    }

    /// A question came in; for how long nothing had been sent until then, if that shows anything.
    pub(crate) fn asked(&mut self, pace: Pace, now: Instant) -> Option<Duration> {
        self.unasked = None;
        self.is_sparse = is_sparse(pace);
        self.told = Some(pace.alive);
        let sent = self.sent.replace(now)?;
        (self.is_translated && is_sparse(pace)).then(|| now.since(sent))
    }

    /// Whether the other end may be out of reach before it is time to ask it.
    pub(super) fn may_be_lost(&self) -> bool {
        self.wanted.is_some() && self.is_sparse
    }

    /// When this end asks if no question comes in after such silence, if it is behind a translator.
    pub(super) fn keep_by(&self, interval: Duration) -> Option<Instant> {
        let sent = self.sent.filter(|_| self.is_translated)?;
        Some(sent + interval + YIELD)
    }

    /// An answer came; after how much silence no question had come in, if that was to be expected.
    pub(crate) fn answered(&mut self, token: u64) -> Option<Duration> {
        let (asked, silence) = self.unasked.take()?;
        (asked == token).then_some(silence)
    }
}

/// Whether a path is asked so rarely that a mapping may be lost meanwhile. Others are left alone.
fn is_sparse(pace: Pace) -> bool {
    pace.is_shared() && pace.dead >= Pace::LINK.dead
}
