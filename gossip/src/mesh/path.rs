//! One way to reach one peer, and whether it works.
//!
//! A path proves itself by probes alone: an answer that came back over the path the question took
//! shows that both directions work (data that arrives by another path proves nothing). While it
//! is alive it is asked again every [`Pace`]; after the first missing answer, or on suspicion
//! (traffic flows and nothing comes back), it is asked quickly and declared dead after
//! [`MISSES_MAX`] answers in a row are missing. A dead path is retried for ever with back-off.

use core::time::Duration;

use alloc::vec::Vec;
use rmesh_wire::Instant;

/// Answers missing in a row that end a path. At 5 % loss each way a working path is given up once
/// in 10^7 suspicions; with [`PROBE_FAST`] and [`ANSWER_TIMEOUT_MIN`] it takes 0.95 s.
const MISSES_MAX: u32 = 8;
/// Questions under way at once; older ones are counted as missed already.
const OUTSTANDING_MAX: usize = 8;
/// Interval of probes on an alive path that is suspected.
const PROBE_FAST: Duration = Duration::from_millis(100);
/// An answer is missing after the larger of this and four smoothed round trips.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// First retry of a dead path; doubles up to the pace's cap.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// A path's full size is asked again after this time.
const SIZE_PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Full-size questions that must go missing, while small ones are answered, to end the full size.
const SIZE_MISSES_MAX: u32 = 3;

/// How eagerly a path is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Interval of probes while it is alive.
    pub(crate) alive: Duration,
    /// Longest interval of retries while it is dead.
    pub(crate) dead: Duration,
}

impl Pace {
    /// Control neighbours, peers with traffic, and the path in use.
    pub(crate) const CLOSE: Pace = Pace {
        alive: Duration::from_secs(1),
        dead: Duration::from_secs(3),
    };
    /// Everything else.
    pub(crate) const IDLE: Pace = Pace {
        alive: Duration::from_secs(10),
        dead: Duration::from_secs(30),
    };
}

/// A question to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// Comes back in the answer.
    pub(crate) token: u64,
    /// Whether to pad it to the path's full size.
    pub(crate) full_size: bool,
}

/// What an event did to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that matters outside.
    None,
    /// It works from now on.
    Alive,
    /// It does not work any more.
    Dead,
    /// Its full size works, or no longer does.
    Size,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    token: u64,
    sent: Instant,
    full_size: bool,
    judged: bool,
}

/// State of one path.
#[derive(Debug)]
pub(crate) struct PathState {
    alive: bool,
    /// Since when it has been alive or dead.
    pub(crate) since: Instant,
    smoothed: Option<Duration>,
    variation: Duration,
    outstanding: Vec<Outstanding>,
    misses: u32,
    suspected: bool,
    next_probe: Instant,
    retry: Duration,
    full_size: bool,
    size_misses: u32,
    next_size_probe: Instant,
    /// Whether any probe was ever sent.
    pub(crate) tried: bool,
    /// Whether the kernel refused to send on it last time.
    pub(crate) refused: bool,
}

impl PathState {
    /// A path nothing is known of; probed at once.
    pub(crate) fn new(now: Instant) -> Self {
        PathState {
            alive: false,
            since: now,
            smoothed: None,
            variation: Duration::ZERO,
            outstanding: Vec::new(),
            misses: 0,
            suspected: false,
            next_probe: now,
            retry: RETRY_FIRST,
            full_size: false,
            size_misses: 0,
            next_size_probe: now,
            tried: false,
            refused: false,
        }
    }

    /// Whether both directions worked lately.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Smoothed round trip (RFC 6298), if any answer came.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Whether datagrams of the path's full size pass.
    pub(crate) fn full_size(&self) -> bool {
        self.alive && self.full_size
    }

    /// Traffic flows and nothing comes back: ask quickly.
    pub(crate) fn suspect(&mut self, now: Instant) {
        if self.alive && !self.suspected {
            self.suspected = true;
            self.next_probe = now;
        }
    }

    /// Retry a dead path at once: something about it has changed.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if !self.alive {
            self.retry = RETRY_FIRST;
            self.next_probe = self.next_probe.min(now);
        }
    }

    /// The kernel refused a datagram as too big.
    pub(crate) fn too_big(&mut self, now: Instant) -> Change {
        self.next_size_probe = now + SIZE_PROBE_INTERVAL;
        self.outstanding.retain(|question| !question.full_size);
        if core::mem::replace(&mut self.full_size, false) {
            Change::Size
        } else {
            Change::None
        }
    }

    /// The kernel refused to send on it at all.
    pub(crate) fn refuse(&mut self, now: Instant) -> Change {
        self.refused = true;
        self.outstanding.clear();
        if self.alive {
            self.die(now)
        } else {
            Change::None
        }
    }

    /// When [`PathState::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        let judge = self
            .outstanding
            .iter()
            .filter(|q| !q.judged)
            .map(|q| q.sent)
            .min();
        judge.map_or(self.next_probe, |sent| {
            self.next_probe.min(sent + self.answer_timeout())
        })
    }

    /// Judges missing answers and says whether a question is due.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        pace: Pace,
        token: impl FnOnce() -> u64,
    ) -> (Change, Option<Question>) {
        let change = self.judge(now);
        // A path that became more important is not kept waiting by its old pace.
        let cap = if self.alive { pace.alive } else { pace.dead };
        self.next_probe = self.next_probe.min(now + cap);
        if now < self.next_probe {
            return (change, None);
        }
        let full_size = self.alive && !self.suspected && now >= self.next_size_probe;
        let question = Question {
            token: token(),
            full_size,
        };
        self.sent(question, pace, now);
        (change, Some(question))
    }

    fn sent(&mut self, question: Question, pace: Pace, now: Instant) {
        if question.full_size {
            self.next_size_probe = now + SIZE_PROBE_INTERVAL;
            // A small question follows at once, so that a lost full size is not a lost path.
            self.next_probe = now + PROBE_FAST;
        } else if self.suspected {
            self.next_probe = now + PROBE_FAST;
        } else if self.alive {
            self.next_probe = now + pace.alive;
        } else {
            self.next_probe = now + self.retry.min(pace.dead);
            self.retry = (self.retry * 2).min(pace.dead);
        }
        if self.outstanding.len() >= OUTSTANDING_MAX {
            self.outstanding.remove(0);
        }
        let Question { token, full_size } = question;
        self.outstanding.push(Outstanding {
            token,
            sent: now,
            full_size,
            judged: false,
        });
        self.tried = true;
        self.refused = false;
    }

    fn answer_timeout(&self) -> Duration {
        let adaptive = self.smoothed.unwrap_or_default() * 2 + self.variation * 4;
        adaptive.max(ANSWER_TIMEOUT_MIN)
    }

    fn judge(&mut self, now: Instant) -> Change {
        let timeout = self.answer_timeout();
        let mut change = Change::None;
        for question in &mut self.outstanding {
            if question.judged || now.since(question.sent) < timeout {
                continue;
            }
            // Late answers are still welcome, so the question stays until it is pushed out.
            question.judged = true;
            if question.full_size {
                self.size_misses += 1;
                self.next_size_probe = now;
            } else if self.alive {
                self.misses += 1;
                self.suspected = true;
                self.next_probe = self.next_probe.min(now);
            }
        }
        if self.size_misses >= SIZE_MISSES_MAX {
            self.size_misses = 0;
            self.next_size_probe = now + SIZE_PROBE_INTERVAL;
            if core::mem::replace(&mut self.full_size, false) {
                change = Change::Size;
            }
        }
        if self.alive && self.misses >= MISSES_MAX {
            change = self.die(now);
        }
        change
    }

    fn die(&mut self, now: Instant) -> Change {
        self.alive = false;
        self.since = now;
        self.suspected = false;
        self.misses = 0;
        self.full_size = false;
        self.retry = RETRY_FIRST;
        self.next_probe = now + RETRY_FIRST;
        Change::Dead
    }

    /// An answer came over this path. Unknown tokens are ignored.
    pub(crate) fn answered(&mut self, token: u64, now: Instant) -> Change {
        let Some(at) = self
            .outstanding
            .iter()
            .position(|question| question.token == token)
        else {
            return Change::None;
        };
        let question = self.outstanding.remove(at);
        self.measure(now.since(question.sent));
        let was_alive = core::mem::replace(&mut self.alive, true);
        self.misses = 0;
        self.suspected = false;
        // Questions sent before this answer's no longer tell anything about the path.
        self.outstanding
            .retain(|other| other.full_size || other.sent >= question.sent);
        let mut grown = false;
        if question.full_size {
            self.size_misses = 0;
            grown = !core::mem::replace(&mut self.full_size, true);
        }
        if !was_alive {
            self.since = now;
            self.retry = RETRY_FIRST;
            self.next_probe = now;
            self.next_size_probe = now;
            return Change::Alive;
        }
        if grown { Change::Size } else { Change::None }
    }

    fn measure(&mut self, sample: Duration) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    /// Runs the path from `from` to `to` (milliseconds); the far end answers after 10 ms while
    /// `answers` says so. Returns every change with its time.
    fn run(
        path: &mut PathState,
        from: u64,
        to: u64,
        answers: impl Fn(u64, Question) -> bool,
    ) -> Vec<(u64, Change)> {
        let mut changes = Vec::new();
        let mut replies: Vec<(u64, u64)> = Vec::new();
        let mut token = from * 1000;
        for now in from..to {
            for (due, answered) in core::mem::take(&mut replies) {
                if due > now {
                    replies.push((due, answered));
                    continue;
                }
                let change = path.answered(answered, at(now));
                changes.extend((change != Change::None).then_some((now, change)));
            }
            let next = || {
                token += 1;
                token
            };
            let (change, question) = path.tick(at(now), Pace::CLOSE, next);
            changes.extend((change != Change::None).then_some((now, change)));
            if let Some(question) = question.filter(|question| answers(now, *question)) {
                replies.push((now + 10, question.token));
            }
        }
        changes
    }

    #[test]
    fn a_working_path_comes_up_within_one_round_trip_and_finds_its_full_size() {
        let mut path = PathState::new(at(0));
        let changes = run(&mut path, 0, 500, |_, _| true);
        assert_eq!(changes, [(10, Change::Alive), (20, Change::Size)]);
        assert_eq!(path.round_trip(), Some(Duration::from_millis(10)));
    }

    #[test]
    fn an_idle_path_that_is_cut_dies_within_three_seconds() {
        let mut path = PathState::new(at(0));
        run(&mut path, 0, 5_000, |_, _| true);
        let changes = run(&mut path, 5_000, 9_000, |_, _| false);
        let [(when, Change::Dead)] = changes[..] else {
            panic!("{changes:?}")
        };
        assert!(when < 8_000, "died at {when} ms");
    }

    #[test]
    fn a_suspected_path_that_is_cut_dies_within_a_second() {
        let mut path = PathState::new(at(0));
        run(&mut path, 0, 5_000, |_, _| true);
        path.suspect(at(5_000));
        let changes = run(&mut path, 5_000, 9_000, |_, _| false);
        let [(when, Change::Dead)] = changes[..] else {
            panic!("{changes:?}")
        };
        assert!(when < 6_000, "died at {when} ms");
    }

    #[test]
    fn a_dead_path_is_retried_and_comes_back_within_its_pace() {
        let mut path = PathState::new(at(0));
        assert_eq!(run(&mut path, 0, 60_000, |_, _| false), []);
        let changes = run(&mut path, 60_000, 64_000, |_, _| true);
        assert!(matches!(changes[..], [(when, Change::Alive), ..] if when <= 63_010));
    }

    #[test]
    fn a_lost_answer_now_and_then_changes_nothing() {
        let mut path = PathState::new(at(0));
        run(&mut path, 0, 1_000, |_, _| true);
        assert_eq!(run(&mut path, 1_000, 120_000, |now, _| now % 7 != 0), []);
    }

    #[test]
    fn a_path_that_swallows_full_size_stays_alive_at_the_small_size() {
        let mut path = PathState::new(at(0));
        run(&mut path, 0, 1_000, |_, _| true);
        assert!(path.full_size());
        let changes = run(&mut path, 1_000, 40_000, |_, question| !question.full_size);
        let [(when, Change::Size)] = changes[..] else {
            panic!("{changes:?}")
        };
        assert!(when < 15_000, "noticed at {when} ms");
        assert!(path.is_alive() && !path.full_size());
    }
}
