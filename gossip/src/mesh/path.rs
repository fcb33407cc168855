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

use super::path_mtu::{Outcome, PathMtu, Patience, Shorts};

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

/// The least round trip is that of this time, and of up to as long before.
const LEAST_OF: Duration = Duration::from_secs(300);

/// How far away the other end is: the least round trip of some minutes. What is queued on the way, or
/// waits for a busy processor, does not make it longer, so no flood that ends within that time makes another path look shorter.
#[derive(Debug, Clone, Copy)]
struct Least {
    current: Option<Duration>,
    before: Option<Duration>,
    since: Instant,
}

impl Least {
    fn new(now: Instant) -> Self {
        Least {
            current: None,
            before: None,
            since: now,
        }
    }

    fn note(&mut self, sample: Duration, now: Instant) {
        if now.since(self.since) >= LEAST_OF {
            self.before = self.current.take();
            self.since = now;
        }
        self.current = Some(self.current.map_or(sample, |least| least.min(sample)));
    }

    fn get(&self) -> Option<Duration> {
        let both = [self.current, self.before];
        both.into_iter().flatten().min()
    }
}

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
    /// Length of the datagram it has to fill, if its length is what is asked.
    pub(crate) datagram_len: Option<u16>,
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
    /// Another length of datagrams is to be used, or the one in use is now known to be the longest.
    Size,
    /// Datagrams of the length in use do not pass any more.
    SizeLost,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    token: u64,
    sent: Instant,
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
    least: Least,
    outstanding: Vec<Outstanding>,
    misses: u32,
    suspected: bool,
    next_probe: Instant,
    retry: Duration,
    mtu: PathMtu,
    shorts: Shorts,
    /// Whether any probe was ever sent.
    pub(crate) tried: bool,
    /// Whether the kernel refused to send on it last time.
    pub(crate) refused: bool,
}

impl PathState {
    /// A path nothing is known of, with `headers` bytes of IP and UDP before a datagram; probed at
    /// once.
    pub(crate) fn new(headers: u16, now: Instant) -> Self {
        PathState {
            alive: false,
            since: now,
            smoothed: None,
            variation: Duration::ZERO,
            least: Least::new(now),
            outstanding: Vec::new(),
            misses: 0,
            suspected: false,
            next_probe: now,
            retry: RETRY_FIRST,
            mtu: PathMtu::new(headers, now),
            shorts: Shorts::default(),
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

    /// The least round trip of the last minutes, by which paths are compared.
    pub(crate) fn distance(&self) -> Option<Duration> {
        self.least.get()
    }

    /// The longest UDP payload to be sent on it, in bytes.
    pub(crate) fn datagram_len(&self) -> u16 {
        self.mtu.datagram_len()
    }

    /// The IP packet that makes, in bytes; and whether a search found it, or it is assumed.
    pub(crate) fn packet_len(&self) -> (u16, bool) {
        (self.mtu.packet_len(), self.mtu.is_found())
    }

    /// It leads another way from now on.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.mtu.restart(now);
    }

    /// Longer datagrams may pass now: searches again.
    pub(crate) fn search_again(&mut self, now: Instant) {
        self.mtu.search_again(now);
    }

    /// Records are sent on it.
    pub(crate) fn busy(&mut self, now: Instant) {
        self.mtu.busy(now);
    }

    /// Traffic flows and nothing comes back: ask quickly.
    pub(crate) fn suspect(&mut self, now: Instant) {
        if self.alive && !self.suspected {
            self.suspected = true;
            self.next_probe = now;
            self.mtu.doubt(now);
        }
    }

    /// Retry a dead path at once: something about it has changed.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if !self.alive {
            self.retry = RETRY_FIRST;
            self.next_probe = self.next_probe.min(now);
        }
    }

    /// The kernel refused a datagram of `len` bytes as too big.
    pub(crate) fn too_big(&mut self, len: u16, now: Instant) -> Change {
        of_size(self.mtu.refused(len, now))
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
        let unjudged = self.outstanding.iter().filter(|q| !q.judged);
        let judge = unjudged.map(|q| q.sent + self.answer_timeout()).min();
        let size = self.alive.then(|| self.mtu.deadline(self.patience()));
        let others = [judge, size].into_iter().flatten();
        others.fold(self.next_probe, Instant::min)
    }

    /// Judges missing answers and says whether a question is due.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        pace: Pace,
        token: impl FnOnce() -> u64,
    ) -> (Change, Option<Question>) {
        let mut change = self.judge(now);
        let patience = self.patience();
        if self.alive && change == Change::None {
            change = of_size(self.mtu.judge(now, patience, self.shorts));
        }
        // A path that became more important is not kept waiting by its old pace.
        let cap = if self.alive { pace.alive } else { pace.dead };
        self.next_probe = self.next_probe.min(now + cap);
        if now >= self.next_probe {
            let token = token();
            self.sent(token, pace, now);
            return (
                change,
                Some(Question {
                    token,
                    datagram_len: None,
                }),
            );
        }
        if !self.alive {
            return (change, None);
        }
        let question = self.mtu.ask(now, patience, token);
        let question = question.map(|(token, len, with_short)| {
            if with_short {
                self.next_probe = now;
            }
            Question {
                token,
                datagram_len: Some(len),
            }
        });
        (change, question)
    }

    fn sent(&mut self, token: u64, pace: Pace, now: Instant) {
        if self.suspected {
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
        self.outstanding.push(Outstanding {
            token,
            sent: now,
            judged: false,
        });
        self.tried = true;
        self.refused = false;
    }

    fn patience(&self) -> Patience {
        Patience {
            answer: self.answer_timeout(),
            round_trip: self.smoothed.unwrap_or_default(),
        }
    }

    fn answer_timeout(&self) -> Duration {
        let adaptive = self.smoothed.unwrap_or_default() * 2 + self.variation * 4;
        adaptive.max(ANSWER_TIMEOUT_MIN)
    }

    fn judge(&mut self, now: Instant) -> Change {
        let timeout = self.answer_timeout();
        for question in &mut self.outstanding {
            if question.judged || now.since(question.sent) < timeout {
                continue;
            }
            // Late answers are still welcome, so the question stays until it is pushed out.
            question.judged = true;
            self.shorts.missing = self.shorts.missing.max(Some(question.sent));
            if self.alive {
                self.misses += 1;
                self.suspected = true;
                self.next_probe = self.next_probe.min(now);
            }
        }
        if self.alive && self.misses >= MISSES_MAX {
            return self.die(now);
        }
        Change::None
    }

    fn die(&mut self, now: Instant) -> Change {
        self.alive = false;
        self.since = now;
        self.suspected = false;
        self.misses = 0;
        // It may come back another way.
        self.least = Least::new(now);
        self.mtu.restart(now);
        self.retry = RETRY_FIRST;
        self.next_probe = now + RETRY_FIRST;
        Change::Dead
    }

    /// An answer came over this path. Unknown tokens are ignored.
    pub(crate) fn answered(&mut self, token: u64, now: Instant) -> Change {
        let mut short = self.outstanding.iter();
        let short = short.position(|question| question.token == token);
        let (sent, change) = match short {
            Some(at) => {
                let sent = self.outstanding.remove(at).sent;
                self.shorts.answered = self.shorts.answered.max(Some(sent));
                (sent, Change::None)
            }
            None => match self.mtu.answered(token, now) {
                Some((sent, outcome)) => (sent, of_size(outcome)),
                None => return Change::None,
            },
        };
        self.least.note(now.since(sent), now);
        self.measure(now.since(sent));
        let was_alive = core::mem::replace(&mut self.alive, true);
        self.misses = 0;
        self.suspected = false;
        // Questions sent before this answer's no longer tell anything about the path.
        self.outstanding.retain(|other| other.sent >= sent);
        if !was_alive {
            self.since = now;
            self.retry = RETRY_FIRST;
            self.next_probe = now;
            self.mtu.restart(now);
            return Change::Alive;
        }
        change
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

fn of_size(outcome: Outcome) -> Change {
    match outcome {
        Outcome::Same => Change::None,
        Outcome::Changed => Change::Size,
        Outcome::Fell => Change::SizeLost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over IPv4 and a link of 1,500.
    const LINK: u16 = 1_472;

    fn path() -> PathState {
        PathState::new(28, at(0))
    }

    fn fits(question: Question, len_max: u16) -> bool {
        question.datagram_len.is_none_or(|len| len <= len_max)
    }

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
        run_under(path, from, to, |_, _| (), answers)
    }

    /// The same while `load` does what traffic does.
    fn run_under(
        path: &mut PathState,
        from: u64,
        to: u64,
        load: impl Fn(&mut PathState, u64),
        answers: impl Fn(u64, Question) -> bool,
    ) -> Vec<(u64, Change)> {
        let mut changes = Vec::new();
        let mut replies: Vec<(u64, u64)> = Vec::new();
        let mut token = from * 1000;
        for now in from..to {
            load(path, now);
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
    fn a_working_path_comes_up_within_one_round_trip_and_uses_its_full_size_after_another() {
        let mut path = path();
        let changes = run(&mut path, 0, 500, |_, question| fits(question, LINK));
        assert_eq!(changes, [(10, Change::Alive), (21, Change::Size)]);
        assert_eq!(path.round_trip(), Some(Duration::from_millis(10)));
        assert_eq!(path.packet_len(), (1_500, false), "more may pass");
        run(&mut path, 500, 3_000, |_, question| fits(question, LINK));
        assert_eq!(path.packet_len(), (1_500, true));
    }

    #[test]
    fn an_idle_path_that_is_cut_dies_within_three_seconds() {
        let mut path = path();
        run(&mut path, 0, 5_000, |_, _| true);
        let changes = run(&mut path, 5_000, 9_000, |_, _| false);
        let [(when, Change::Dead)] = changes[..] else {
            panic!("{changes:?}")
        };
        assert!(when < 8_000, "died at {when} ms");
    }

    #[test]
    fn a_suspected_path_that_is_cut_dies_within_a_second() {
        let mut path = path();
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
        let mut path = path();
        assert_eq!(run(&mut path, 0, 60_000, |_, _| false), []);
        let changes = run(&mut path, 60_000, 64_000, |_, _| true);
        assert!(matches!(changes[..], [(when, Change::Alive), ..] if when <= 63_010));
    }

    #[test]
    fn a_lost_answer_now_and_then_changes_nothing() {
        let mut path = path();
        run(&mut path, 0, 1_000, |_, _| true);
        let most = |now, _| now % 7 != 0;
        assert_eq!(run(&mut path, 1_000, 120_000, most), []);
    }

    #[test]
    fn a_path_that_swallows_long_datagrams_stays_alive_and_they_are_given_up_within_a_second() {
        for (silent, begin) in [(false, 7_100), (false, 7_450), (true, 7_100)] {
            let mut path = path();
            let load = |path: &mut PathState, now: u64| {
                if now >= 6_100 && now.is_multiple_of(100) {
                    path.busy(at(now));
                }
                if silent && now == begin + 400 {
                    path.suspect(at(now));
                }
            };
            run_under(&mut path, 0, begin, load, |_, question| {
                fits(question, LINK)
            });
            assert_eq!(path.packet_len(), (1_500, true));
            let less = |_, question| fits(question, 1_350);
            let changes = run_under(&mut path, begin, 20_000, load, less);
            let (when, _) = changes
                .iter()
                .find(|change| change.1 == Change::SizeLost)
                .unwrap();
            assert!(*when < begin + 1_000, "noticed after {} ms", when - begin);
            assert!(changes.iter().all(|change| change.1 != Change::Dead));
            assert_eq!(
                (path.packet_len(), path.datagram_len()),
                ((1_378, true), 1_350)
            );
        }
    }

    #[test]
    fn what_the_interface_refuses_is_not_sent_again_and_what_is_lost_otherwise_proves_nothing() {
        let mut path = path();
        run(&mut path, 0, 3_000, |_, question| fits(question, LINK));
        assert_eq!(path.too_big(1_473, at(3_000)), Change::None);
        assert_eq!(path.too_big(1_472, at(3_000)), Change::SizeLost);
        assert_eq!(path.packet_len(), (1_280, false));
        run(&mut path, 3_000, 6_000, |_, question| fits(question, 1_400));
        assert_eq!(path.packet_len(), (1_428, true));
        // Nothing at all is answered for a while: that is no matter of length.
        run(&mut path, 6_000, 6_800, |_, _| false);
        path.suspect(at(6_800));
        assert!(run(&mut path, 6_800, 7_300, |_, _| false).is_empty());
        assert_eq!(path.packet_len(), (1_428, true));
    }
}
