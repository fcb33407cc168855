//! Who asks where addresses are translated on the way, and what that shows of the mapping ([`super::super::keepalive`]).

use core::time::Duration;

use rmesh_wire::Instant;

use super::PathState;
use super::pace::{Pace, YIELD};
use crate::mesh::keepalive::{LEAST, MOST, rhythm};

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
    /// Traffic may have kept it since then: a question that comes in shows nothing.
    is_disturbed: bool,
    /// After so much silence this end sends something that keeps it, …
    keep: Option<Duration>,
    /// … unless there is to be a question by then.
    expected: Option<Instant>,
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
            let (asked, parts) = rhythm(keep.clamp(LEAST, MOST));
            // What nobody needs is only kept open.
            pace.alive = match pace == Pace::IDLE || parts > 1 {
                true => asked,
                false => pace.alive.min(asked),
            };
            pace.keep = own.map(|_| pace.alive / parts);
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
        let kept = pace.keep.unwrap_or(pace.alive);
        let is_late = |silence: &Duration| *silence + YIELD / 2 >= kept;
        let is_due = self.expected.is_some_and(|expected| expected <= now);
        // Where the time has just become shorter the other end does not know yet.
        let is_told = self.told.replace(pace.alive);
        let is_told = is_told.is_some_and(|told| told <= pace.alive);
        let waited = is_routine && is_due && is_told && self.lets_ask(self.is_smaller);
        let is_unasked = self.is_translated && waited && is_sparse(pace) && !self.is_disturbed;
        let unasked = silence.filter(is_late).filter(|_| is_unasked);
        self.unasked = unasked.map(|silence| (token, silence));
        self.begin(pace, now);
    }

    /// A question has gone either way.
    fn begin(&mut self, pace: Pace, now: Instant) -> (Option<Instant>, bool) {
        self.keep = pace.keep;
        self.expected = Some(now + pace.alive);
        let disturbed = core::mem::replace(&mut self.is_disturbed, false);
        (self.sent.replace(now), disturbed)
    }

    /// Something else is sent now by this path that keeps a mapping.
    pub(crate) fn sends(&mut self, now: Instant) {
        self.sent = self.sent.map(|_| now);
    }

    /// Traffic was sent by this path lately, nobody knows when.
    pub(crate) fn disturb(&mut self) {
        self.is_disturbed = true;
    }

    /// When this end sends something that needs no answer, so that the mapping lives until there is a question.
    pub(super) fn keep_at(&self) -> Option<Instant> {
        let at = self.sent? + self.keep?;
        (at + YIELD < self.expected?).then_some(at)
    }

    /// Whether this end waits for the other's question, which shows that the mapping lives.
    pub(super) fn waits(&self) -> bool {
        self.is_translated && self.is_sparse && self.lets_ask(self.is_smaller)
    }

    /// A question came in; for how long nothing had been sent until then, if that shows anything.
    pub(crate) fn asked(&mut self, pace: Pace, now: Instant) -> Option<Duration> {
        self.unasked = None;
        self.is_sparse = is_sparse(pace);
        self.told = Some(pace.alive);
        let (sent, is_disturbed) = self.begin(pace, now);
        let is_shown = self.is_translated && is_sparse(pace) && !is_disturbed;
        Some(now.since(sent?)).filter(|_| is_shown)
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

impl PathState {
    /// No mapping on it lives longer than so much without use: where one was to be kept later, it is asked sooner.
    pub(crate) fn keep_sooner(&mut self, interval: Duration) {
        if let Some(by) = self.mapping.keep_by(interval) {
            self.ask_by(by);
        }
    }

    /// Whether something is to be sent now that keeps a mapping; it is sent then.
    pub(crate) fn keeps(&mut self, now: Instant) -> bool {
        let is_due = self.keep_at().is_some_and(|at| at <= now);
        if is_due {
            self.mapping.sends(now);
        }
        is_due
    }

    /// When that is to be.
    pub(super) fn keep_at(&self) -> Option<Instant> {
        self.mapping.keep_at().filter(|_| self.alive)
    }
}

/// Whether a path is asked so rarely that a mapping may be lost meanwhile. Others are left alone.
fn is_sparse(pace: Pace) -> bool {
    pace.is_shared() && pace.dead >= Pace::LINK.dead
}
