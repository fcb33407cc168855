//! One way to reach one peer, and whether it works.
//!
//! A path proves itself by probes alone: an answer that came back over the path the question took
//! shows that both directions work (data that arrives by another path proves nothing). While it
//! is alive it is asked again every [`Pace`]; after the first missing answer, or on suspicion
//! (traffic flows and nothing comes back), it is asked quickly and declared dead after
//! [`MISSES_MAX`] answers in a row are missing. A dead path is retried for ever with back-off.

use core::time::Duration;

use alloc::vec::Vec;
use core::net::SocketAddr;

use rmesh_wire::Instant;

use super::path_mtu::{Outcome, PathMtu, Patience, Shorts};

mod figures;
mod mapping;
mod pace;

use figures::Least;
pub(crate) use figures::{History, RoundTrip};
pub(crate) use mapping::{Mapping, Watcher};
pub(crate) use pace::Pace;

/// Answers missing in a row that end a path. At 5 % loss each way a working path is given up once
/// in 10^7 suspicions; with [`PROBE_FAST`] and [`ANSWER_TIMEOUT_MIN`] it takes 0.95 s.
const MISSES_MAX: u32 = 8;
/// Questions under way at once; older ones are counted as missed already.
const OUTSTANDING_MAX: usize = 8;
/// Interval of probes on an alive path that is suspected.
const PROBE_FAST: Duration = Duration::from_millis(100);
/// An answer is missing after the larger of this and four smoothed round trips.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// The same three where traffic flows and nothing comes back: a stop of it is felt at once. Half of a second
/// stays for noticing the silence and for the way round. What loses many packets anyway is judged as if idle.
const DOUBTED_MISSES_MAX: u32 = 5;
const DOUBTED_PROBE_FAST: Duration = Duration::from_millis(50);
const DOUBTED_ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(150);
/// The same in a stream, which holds up everything behind what was lost until that has been sent again.
const STREAM_ANSWER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Answers missing in a row after which another path is used, if it was asked at the same time and has answered.
const OUTDONE_MISSES: u32 = 2;
const LOSSY_PERCENT: u8 = 10;
/// First retry of a dead path; doubles up to the pace's cap.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// Retries this far apart can be early.
const RETRY_ROUTINE: Duration = Duration::from_secs(1);
/// So often in a row the other end's questions may stand for own ones, before one is asked for the sake of
/// the round trip.
const DEFERRED_MAX: u32 = 12;

/// A probe may be sent so much before its time, together with others, but never in the first half of its
/// interval. Pairs of hosts fall into step by that, and a host with nothing else to do wakes once for all of
/// them: the one that is asked first asks the others, and each of those has half of an interval at least to go.
const EARLY: Duration = Duration::from_secs(2);
/// … and much less where the other end is behind a translator of addresses: if that has forgotten the mapping, the other
/// end calls when the question should have come, and that has to be before this one takes the path for dead.
const EARLY_TRANSLATED: Duration = Duration::from_millis(250);
/// Nothing that is due later than this is brought forward.
pub(crate) const AHEAD: Duration = EARLY.saturating_add(pace::YIELD);
/// Who waits for the other end's question goes on waiting if it is due so soon, or late.
const SOON: Duration = Duration::from_millis(50);

/// What was said about a direct path, by probes that took it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Where the other side sees this one.
    pub(crate) seen_as: Option<SocketAddr>,
    /// Whether the other side lets plaintext cross between the two addresses.
    pub(crate) plaintext: Option<bool>,
}

/// A question to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    /// Comes back in the answer.
    pub(crate) token: u64,
    /// Length of the datagram it has to fill, if its length is what is asked.
    pub(crate) datagram_len: Option<u16>,
    /// Whether those before it were answered.
    pub(crate) proven: bool,
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
    /// Nothing comes back by it: another that works is to be used.
    Overdue,
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
    trip: RoundTrip,
    least: Least,
    outstanding: Vec<Outstanding>,
    misses: u32,
    suspected: bool,
    /// Suspected, and not only because an answer is missing: since when nothing has come back.
    doubted: Option<Instant>,
    next_probe: Instant,
    /// Time between the last question and that.
    interval: Duration,
    /// How often in a row the other end's questions have stood for own ones.
    deferred: u32,
    retry: Duration,
    mtu: PathMtu,
    shorts: Shorts,
    history: History,
    /// Whether the other side publishes this address, and when it stopped to.
    published: bool,
    withdrawn: Option<Instant>,
    /// Datagrams follow one another in a stream.
    is_stream: bool,
    pub(crate) said: Said,
    /// Where the other side saw this one last.
    seen_as: Option<SocketAddr>,
    pub(crate) mapping: Mapping,
    /// Whether any probe was ever sent.
    pub(crate) tried: bool,
    /// Whether the kernel refused to send on it last time.
    pub(crate) refused: bool,
    /// Whether that was because it leads into the mesh itself.
    pub(crate) inside: bool,
    /// Whether it leads round by the translator of this host's own network.
    pub(crate) is_hairpin: bool,
}

impl PathState {
    /// A path nothing is known of, with `headers` bytes of IP and UDP before a datagram; probed at
    /// once.
    pub(crate) fn new(headers: u16, now: Instant) -> Self {
        PathState {
            alive: false,
            since: now,
            trip: RoundTrip::default(),
            least: Least::new(now),
            outstanding: Vec::new(),
            misses: 0,
            suspected: false,
            doubted: None,
            next_probe: now,
            interval: Duration::ZERO,
            deferred: 0,
            retry: RETRY_FIRST,
            mtu: PathMtu::new(headers, now),
            shorts: Shorts::default(),
            history: History::default(),
            published: false,
            withdrawn: None,
            is_stream: false,
            said: Said::default(),
            seen_as: None,
            mapping: Mapping::default(),
            tried: false,
            refused: false,
            inside: false,
            is_hairpin: false,
        }
    }

    /// The same where datagrams follow one another in a stream.
    pub(crate) fn over_stream(mut self) -> Self {
        self.is_stream = true;
        self
    }

    /// Whether both directions worked lately.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }

    /// Smoothed round trip (RFC 6298), if any answer came.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.trip.smoothed()
    }

    /// The least round trip of the last minutes, by which paths are compared.
    pub(crate) fn distance(&self) -> Option<Duration> {
        self.least.get()
    }

    /// What became of the latest questions.
    pub(crate) fn history(&self) -> History {
        self.history
    }

    /// Whether a question sent at that time or later was answered.
    pub(crate) fn has_answered_since(&self, time: Instant) -> bool {
        self.alive && self.shorts.answered.is_some_and(|sent| sent >= time)
    }

    /// Whether the other side publishes this address now. If it did before it may have lost it.
    pub(crate) fn note_published(&mut self, published: bool, now: Instant) {
        if core::mem::replace(&mut self.published, published) && !published {
            self.withdrawn = Some(now);
            self.suspect(now, now);
        }
    }

    /// The other side sees this one at `address`; whether it saw it elsewhere before.
    pub(crate) fn note_seen_as(&mut self, address: SocketAddr) -> bool {
        let before = self.seen_as.replace(address);
        before.is_some_and(|before| before != address)
    }

    /// Where the other side saw this one last.
    pub(crate) fn seen_as(&self) -> Option<SocketAddr> {
        self.seen_as
    }

    /// Whether it works as far as anybody can know.
    pub(crate) fn is_sure(&self) -> bool {
        self.alive && !self.is_withdrawn()
    }

    /// Whether the other side has stopped to publish the address, and nothing has been answered since.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn
            .is_some_and(|withdrawn| !self.has_answered_since(withdrawn))
    }

    /// What the probes on it say has changed.
    pub(crate) fn ask_now(&mut self, now: Instant) {
        self.ask_by(now);
    }

    /// Ask at this time at the latest.
    pub(crate) fn ask_by(&mut self, time: Instant) {
        if self.alive {
            self.next_probe = self.next_probe.min(time);
        }
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

    /// Traffic flows and nothing has come back since `silent`: ask quickly.
    pub(crate) fn suspect(&mut self, silent: Instant, now: Instant) {
        if self.alive && self.doubted.is_none() {
            self.doubted = Some(silent);
            if !core::mem::replace(&mut self.suspected, true) {
                self.mtu.doubt(now);
            }
            self.next_probe = now;
        }
    }

    /// Whether `other` is to be used in its place: nothing comes back by this one, and by the other an answer
    /// has. It is enough that the other began to work after that, as it does where the other end has a new
    /// address; if it worked before, answers have to be missing.
    pub(crate) fn is_outdone_by(&self, other: &PathState) -> bool {
        self.doubted.is_some_and(|silent| {
            let began = other.since >= silent || self.misses >= OUTDONE_MISSES;
            began && other.is_sure() && other.doubted.is_none()
        })
    }

    /// Somebody is awake anyway: what is asked soon is asked now, so that an idle host wakes once for all.
    pub(crate) fn bring_forward(&mut self, now: Instant) {
        if self.is_soon(now) {
            self.next_probe = now;
        }
    }

    /// Whether [`PathState::bring_forward`] changes anything.
    pub(crate) fn is_soon(&self, now: Instant) -> bool {
        let is_routine = match self.alive {
            // Nor is the other end's question forestalled where it shows something.
            true => !self.suspected && !self.mapping.waits(),
            false => self.interval >= RETRY_ROUTINE,
        };
        let early = self.early();
        let is_soon = match self.deferred {
            0 => self.next_probe <= now + early,
            _ => {
                let other = self.next_probe.since(now).saturating_sub(pace::YIELD);
                (SOON..=early).contains(&other)
            }
        };
        is_routine && is_soon && self.next_probe > now
    }

    /// How much before its time a question may be sent.
    fn early(&self) -> Duration {
        let early = EARLY.min(self.interval / 2);
        match self.mapping.may_be_lost() {
            true => early.min(EARLY_TRANSLATED),
            false => early,
        }
    }

    /// The other end has asked by it; `proven` says whether its questions before were answered. Then both
    /// directions work, and this end need not ask for a while.
    pub(crate) fn asked(&mut self, proven: bool, pace: Pace, now: Instant) {
        if !pace.is_shared() || !self.alive || self.suspected || self.next_probe <= now {
            return;
        }
        if proven && self.deferred < DEFERRED_MAX {
            self.deferred += 1;
            // Not later either, as it may have been put off at a slower pace.
            self.next_probe = now + pace.alive;
        } else if self.deferred > 0 {
            // It misses answers, or it is time for own figures.
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

    /// The kernel refused a datagram of `len` bytes as too big.
    pub(crate) fn too_big(&mut self, len: u16, now: Instant) -> Change {
        of_size(self.mtu.refused(len, now))
    }

    /// The kernel refused to send on it at all.
    pub(crate) fn refuse(&mut self, is_inside: bool, now: Instant) -> Change {
        self.refused = true;
        self.inside = is_inside;
        self.outstanding.clear();
        if self.alive {
            self.die(now)
        } else {
            Change::None
        }
    }

    /// When [`PathState::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Instant {
        // What a dead path does not answer is judged before the next question.
        let unjudged = self.outstanding.iter().filter(|q| self.alive && !q.judged);
        let judge = unjudged.map(|q| q.sent + self.answer_timeout()).min();
        let size = self.alive.then(|| self.mtu.deadline(self.patience()));
        let others = [judge, size, self.keep_at()].into_iter().flatten();
        others.fold(self.next_probe, Instant::min)
    }

    /// Judges missing answers and says whether a question is due.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        pace: Pace,
        token: impl FnOnce() -> u64,
    ) -> (Change, Option<Question>) {
        self.mtu.set_control_only(pace.is_control_only, now);
        let mut change = self.judge(now);
        let proven = self.alive && !self.suspected && self.outstanding.is_empty();
        let patience = self.patience();
        if self.alive && matches!(change, Change::None) {
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
                    proven,
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
                proven,
            }
        });
        (change, question)
    }

    fn sent(&mut self, token: u64, pace: Pace, now: Instant) {
        let is_routine = self.alive && !self.suspected;
        self.mapping.asks(token, is_routine, pace, now);
        self.interval = if self.suspected {
            self.probe_fast()
        } else if self.alive {
            pace.alive
        } else {
            self.retry.min(pace.dead)
        };
        self.next_probe = now + self.interval;
        if !self.alive {
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
        self.deferred = 0;
        self.tried = true;
        self.refused = false;
        self.inside = false;
    }

    fn patience(&self) -> Patience {
        Patience {
            answer: self.answer_timeout(),
            round_trip: self.trip.smoothed().unwrap_or_default(),
        }
    }

    fn answer_timeout(&self) -> Duration {
        let adaptive = self.trip.patience();
        adaptive.max(match self.doubted.is_some() {
            _ if self.is_stream => STREAM_ANSWER_TIMEOUT_MIN,
            true => DOUBTED_ANSWER_TIMEOUT_MIN,
            false => ANSWER_TIMEOUT_MIN,
        })
    }

    fn probe_fast(&self) -> Duration {
        let interval = match self.doubted.is_some() {
            true => DOUBTED_PROBE_FAST,
            false => PROBE_FAST,
        };
        // No more of them under way than are remembered until they are late: a question that is pushed
        // out before it is judged is never missed, and a path whose round trips vary would not die.
        interval.max(self.answer_timeout() / (OUTSTANDING_MAX as u32 - 1))
    }

    fn misses_max(&self) -> u32 {
        let is_lossy = self.history.loss_percent() > Some(LOSSY_PERCENT);
        match self.doubted.is_some() && !is_lossy {
            true => DOUBTED_MISSES_MAX,
            false => MISSES_MAX,
        }
    }

    fn judge(&mut self, now: Instant) -> Change {
        let (timeout, before) = (self.answer_timeout(), self.misses);
        for question in &mut self.outstanding {
            if question.judged || now.since(question.sent) < timeout {
                continue;
            }
            // Late answers are still welcome, so the question stays until it is pushed out.
            question.judged = true;
            self.history.note(false);
            self.shorts.missing = self.shorts.missing.max(Some(question.sent));
            if self.alive {
                self.misses += 1;
                self.suspected = true;
                self.next_probe = self.next_probe.min(now);
            }
        }
        if self.alive && self.misses >= self.misses_max() {
            return self.die(now);
        }
        let is_overdue = self.doubted.is_some() && self.misses >= OUTDONE_MISSES;
        match is_overdue && before < OUTDONE_MISSES {
            true => Change::Overdue,
            false => Change::None,
        }
    }

    fn die(&mut self, now: Instant) -> Change {
        self.alive = false;
        self.since = now;
        self.suspected = false;
        self.doubted = None;
        self.misses = 0;
        // It may come back another way.
        self.said = Said::default();
        self.least = Least::new(now);
        self.mtu.restart(now);
        self.retry = RETRY_FIRST;
        self.next_probe = now + RETRY_FIRST;
        Change::Dead
    }

    /// The session that it was probed under is over.
    pub(crate) fn end(&mut self, now: Instant) -> Change {
        self.outstanding.clear();
        match self.alive {
            true => self.die(now),
            false => Change::None,
        }
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
        self.history.note(true);
        self.least.note(now.since(sent), now);
        self.trip.note(now.since(sent));
        let was_alive = core::mem::replace(&mut self.alive, true);
        self.misses = 0;
        self.suspected = false;
        self.doubted = None;
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
}

fn of_size(outcome: Outcome) -> Change {
    match outcome {
        Outcome::Same => Change::None,
        Outcome::Changed => Change::Size,
        Outcome::Fell => Change::SizeLost,
    }
}

#[cfg(test)]
mod tests;
