//! Whether frames for one peer may cross by the kernel's VXLAN, and whether it carries them.
//!
//! Once both sides allow it, heartbeats of the containers' full MTU go through the tunnel, and two
//! answers in a row take it into use. Three missing in a row end that, if another way has answered since
//! the first of them was sent: the tunnel is blocked. If none has, all ways fell silent together; most
//! likely the other router is restarting while its kernel still forwards, and the tunnel stays in use
//! for [`HOLD`]. It is tried again for ever, with back-off.
//!
//! Heartbeats leave the checksum around them to the network card, as containers do. The other side says if
//! it arrives wrong. Where they do not arrive at all, every other one has it computed before; if only
//! those are answered the card breaks the others. Answers always have it.

use core::net::IpAddr;
use core::time::Duration;

use alloc::collections::VecDeque;
use rmesh_wire::Instant;

use super::super::path::{History, Pace, RoundTrip};

/// Interval of heartbeats while the tunnel carries traffic.
const BEAT: Duration = Duration::from_millis(400);
/// Once one is missing, and while it is being proven.
const BEAT_FAST: Duration = Duration::from_millis(100);
/// It counts as carrying traffic for this long after it did.
pub(crate) const USED: Duration = Duration::from_secs(30);
/// Interval while it carries none.
const BEAT_IDLE: Duration = Duration::from_secs(5);
/// An answer is missing after the larger of this and two smoothed round trips and four variations.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(150);
/// Answers missing in a row that end it.
const LOST_MAX: u32 = 3;
/// Answers in a row that take it into use.
const PROOFS: u32 = 2;
/// How long it stays in use while no way at all answers.
pub(crate) const HOLD: Duration = Duration::from_secs(60);
/// A restarted router answers on other ways first; the tunnel has this long to follow.
const FOLLOW: Duration = Duration::from_secs(1);
/// First retry after it failed; doubles up to [`RETRY_CLOSE`], or the longer pace of peers without traffic.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CLOSE: Duration = Duration::from_secs(4);
/// A tunnel that worked for this long is retried as if it had never failed.
const STABLE: Duration = Duration::from_secs(30);
/// What the kernel counts of one besides its payload: Ethernet, VXLAN, UDP and IP headers and those around
/// the payload, in bytes.
const OUTER_V4: u64 = 14 + 8 + 8 + 20 + INNER;
const OUTER_V6: u64 = 14 + 8 + 8 + 40 + INNER;
const INNER: u64 = super::HEARTBEAT_HEADERS as u64;
/// Missing in a row after which every other heartbeat leaves with its checksum computed, and answers to those
/// alone that show that the card is to blame.
const LEFT_LOST_MAX: u32 = 3;
const DONE_ANSWERED_MAX: u32 = 3;
/// Heartbeats under way at once; older ones are counted as missed already.
const OUTSTANDING_MAX: usize = 16;

/// Why the tunnel may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The policy of this side is to encrypt everything.
    PolicyHere,
    /// That of the other side.
    PolicyThere,
    /// An address of this path is not in this side's trusted subnets.
    NotTrustedHere,
    /// Or not in those of the other side, or the other side sees a translation.
    NotTrustedThere,
    /// Somebody between translates addresses.
    Translated,
    /// This host's route to the other leads into the mesh itself.
    Inside,
    /// The other side is at another UDP port, and so is its VXLAN.
    OtherPort,
}

/// What both sides say to plaintext, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Both allow it to and from this address, which a direct probe has verified.
    Given(IpAddr),
    /// Nothing new: there is no session or no direct path by which it could be said.
    Unheard,
    /// One of them does not.
    Refused(Refusal),
}

/// What an event did to the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing that matters outside.
    None,
    /// Frames go through it from now on.
    Up,
    /// They do not any more.
    Down(&'static str),
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    token: u64,
    sent: Instant,
    judged: bool,
    leaves_checksum: bool,
}

/// What an answer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) step: Step,
    /// Checksums that are left to the network card come out wrong.
    pub(crate) shows_damage: bool,
}

/// The tunnel to one peer.
#[derive(Debug)]
pub(crate) struct FastPath {
    /// The other end, once both sides agree.
    to: Option<IpAddr>,
    refusal: Option<Refusal>,
    in_use: bool,
    pub(crate) since: Instant,
    beats: VecDeque<Beat>,
    lost: u32,
    /// When the first of those was sent.
    silent_since: Instant,
    proofs: u32,
    /// Heartbeats so far; and how many of those whose checksum was computed were answered since one of the
    /// others was.
    tries: u32,
    done_answered: u32,
    damaged: bool,
    next: Instant,
    retry: Duration,
    used_until: Instant,
    trip: RoundTrip,
    history: History,
    /// Bytes of heartbeats and answers, both ways, as the kernel counts them; and the most it has counted
    /// beyond those.
    own: u64,
    beyond: Option<u64>,
    counted: u64,
}

impl FastPath {
    pub(crate) fn new(now: Instant) -> Self {
        FastPath {
            to: None,
            refusal: None,
            in_use: false,
            since: now,
            beats: VecDeque::new(),
            lost: 0,
            silent_since: now,
            proofs: 0,
            tries: 0,
            done_answered: 0,
            damaged: false,
            next: now,
            retry: RETRY_FIRST,
            used_until: Instant::ZERO,
            trip: RoundTrip::default(),
            history: History::default(),
            own: 0,
            beyond: None,
            counted: 0,
        }
    }

    /// The other end of the tunnel, while both sides agree to it.
    pub(crate) fn to(&self) -> Option<IpAddr> {
        self.to
    }

    /// The same while frames are to go through it.
    pub(crate) fn in_use(&self) -> Option<IpAddr> {
        self.to.filter(|_| self.in_use)
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.trip.smoothed()
    }

    pub(crate) fn history(&self) -> History {
        self.history
    }

    /// Whether the last answer said that checksums arrive wrong.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether the next heartbeat leaves its checksum to the network card.
    pub(crate) fn leaves_checksum(&self) -> bool {
        self.in_use || self.lost < LEFT_LOST_MAX || self.tries.is_multiple_of(2)
    }

    /// Whether it is in use although nothing answers.
    pub(crate) fn is_held(&self) -> bool {
        self.in_use && self.lost >= LOST_MAX
    }

    /// Whether an answer is missing: a good moment to doubt the other ways as well.
    pub(crate) fn is_doubted(&self) -> bool {
        self.in_use && self.lost > 0
    }

    /// Since when nothing came back.
    pub(crate) fn silent_since(&self) -> Instant {
        self.silent_since
    }

    /// A heartbeat, or an answer to one, that leaves or came.
    pub(crate) fn note_own(&mut self, payload_len: usize) {
        let outer = match self.to {
            Some(IpAddr::V6(_)) => OUTER_V6,
            Some(IpAddr::V4(_)) | None => OUTER_V4,
        };
        self.own = self.own.saturating_add(outer + payload_len as u64);
    }

    /// The kernel has counted so many bytes since the start; whether more than heartbeats went through since
    /// the last time.
    pub(crate) fn note_counted(&mut self, bytes: u64, now: Instant) -> bool {
        if bytes < core::mem::replace(&mut self.counted, bytes) {
            // It counts from the start again.
            self.own = 0;
            self.beyond = None;
        }
        let beyond = bytes.saturating_sub(self.own);
        // One that has arrived and is not read yet is beyond them for a moment, once.
        let before = *self.beyond.get_or_insert(beyond);
        if beyond <= before {
            return false;
        }
        self.beyond = Some(beyond);
        self.used_until = now + USED;
        if self.in_use {
            self.next = self.next.min(now + BEAT);
        }
        true
    }

    /// Try again at once: something about the way has changed.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if !self.in_use {
            self.retry = RETRY_FIRST;
            self.next = self.next.min(now);
        }
    }

    /// What both sides say now.
    pub(crate) fn agree(&mut self, consent: Consent, now: Instant) -> Step {
        match consent {
            // What is in use ends by its own heartbeats; what is not waits for better days.
            Consent::Unheard if self.in_use => Step::None,
            Consent::Unheard => {
                self.to = None;
                self.refusal = None;
                Step::None
            }
            Consent::Refused(refusal) => {
                self.refusal = Some(refusal);
                self.to = None;
                self.end("encryption is required", now)
            }
            Consent::Given(to) if self.to == Some(to) => Step::None,
            Consent::Given(to) => {
                self.refusal = None;
                // Another address has to prove itself first.
                let step = self.end("its address changed", now);
                self.to = Some(to);
                self.trip = RoundTrip::default();
                self.retry = RETRY_FIRST;
                self.next = now;
                step
            }
        }
    }

    fn end(&mut self, why: &'static str, now: Instant) -> Step {
        self.beats.clear();
        self.lost = 0;
        self.proofs = 0;
        self.done_answered = 0;
        if !core::mem::replace(&mut self.in_use, false) {
            return Step::None;
        }
        if now.since(self.since) >= STABLE {
            self.retry = RETRY_FIRST;
        }
        self.since = now;
        self.next = now + self.retry;
        Step::Down(why)
    }

    /// When [`FastPath::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.to?;
        let unjudged = self.beats.iter().filter(|beat| !beat.judged);
        let judge = unjudged.map(|beat| beat.sent + self.answer_timeout()).min();
        Some(judge.map_or(self.next, |judge| judge.min(self.next)))
    }

    fn answer_timeout(&self) -> Duration {
        let adaptive = self.trip.patience();
        adaptive.max(ANSWER_TIMEOUT_MIN)
    }

    /// Judges missing answers; and whether a heartbeat is due, which is to be told to
    /// [`FastPath::sent`]. `others` says what came of the other ways.
    pub(crate) fn tick(&mut self, now: Instant, pace: Pace, others: Others) -> (Step, bool) {
        if self.to.is_none() {
            return (Step::None, false);
        }
        self.judge(now);
        let mut step = Step::None;
        if self.in_use && self.lost >= LOST_MAX {
            step = self.give_up(now, others);
        }
        // One that became more important is not kept waiting by its old pace.
        self.next = self.next.min(now + self.interval(now, pace));
        (step, now >= self.next)
    }

    fn judge(&mut self, now: Instant) {
        let timeout = self.answer_timeout();
        for beat in &mut self.beats {
            if beat.judged || now.since(beat.sent) < timeout {
                continue;
            }
            beat.judged = true;
            if self.lost == 0 {
                self.silent_since = beat.sent;
            }
            self.lost += 1;
            self.proofs = 0;
            self.history.note(false);
            if self.in_use {
                self.next = self.next.min(now);
            }
        }
    }

    fn give_up(&mut self, now: Instant, others: Others) -> Step {
        match others {
            Others::Silent if now.since(self.silent_since) < HOLD => Step::None,
            Others::Silent => self.end("nothing has answered for 60 s", now),
            Others::AnswerUnderNewSession(opened) if now.since(opened) < FOLLOW => Step::None,
            Others::AnswerUnderNewSession(_) | Others::Answer => {
                self.end("three heartbeats were lost, and another way answers", now)
            }
        }
    }

    fn interval(&self, now: Instant, pace: Pace) -> Duration {
        let is_close = pace != Pace::IDLE;
        match (self.in_use, self.lost) {
            (true, 0) if now < self.used_until => BEAT,
            (true, 0) => BEAT_IDLE,
            (true, 1..LOST_MAX) => BEAT_FAST,
            (true, _) => BEAT,
            (false, _) if self.proofs > 0 || self.done_answered > 0 => BEAT_FAST,
            (false, _) if is_close => self.retry.min(RETRY_CLOSE),
            (false, _) => self.retry.min(pace.dead),
        }
    }

    /// A heartbeat with this token left.
    pub(crate) fn sent(&mut self, token: u64, pace: Pace, now: Instant) {
        self.next = now + self.interval(now, pace);
        if !self.in_use && self.proofs == 0 && self.done_answered == 0 {
            self.retry = (self.retry * 2).min(pace.dead.max(RETRY_CLOSE));
        }
        if self.beats.len() >= OUTSTANDING_MAX {
            self.beats.pop_front();
        }
        self.beats.push_back(Beat {
            token,
            sent: now,
            judged: false,
            leaves_checksum: self.leaves_checksum(),
        });
        self.tries = self.tries.wrapping_add(1);
    }

    /// An answer came through the tunnel, and says whether the checksum around the question was wrong. Unknown
    /// tokens are ignored.
    pub(crate) fn answered(&mut self, token: u64, damaged: bool, now: Instant) -> Answer {
        let mut answer = Answer {
            step: Step::None,
            shows_damage: damaged,
        };
        let Some(at) = self.beats.iter().position(|beat| beat.token == token) else {
            answer.shows_damage = false;
            return answer;
        };
        let Some(beat) = self.beats.remove(at) else {
            return answer;
        };
        self.history.note(true);
        self.trip.note(now.since(beat.sent));
        if !beat.leaves_checksum {
            answer.shows_damage = self.note_done(now);
            return answer;
        }
        self.beats.retain(|other| other.sent >= beat.sent);
        self.lost = 0;
        self.done_answered = 0;
        self.damaged = damaged;
        if damaged {
            self.proofs = 0;
            self.next = self.next.min(now + BEAT_FAST);
            return answer;
        }
        if !self.in_use {
            answer.step = self.prove(now);
        }
        answer
    }

    /// One whose checksum was computed was answered; whether that makes it sure that others are broken.
    fn note_done(&mut self, now: Instant) -> bool {
        self.next = self.next.min(now + BEAT_FAST);
        self.done_answered += 1;
        let is_sure = self.done_answered >= DONE_ANSWERED_MAX;
        if is_sure {
            self.done_answered = 0;
            self.lost = 0;
            self.retry = RETRY_FIRST;
        }
        is_sure
    }

    fn prove(&mut self, now: Instant) -> Step {
        self.proofs += 1;
        self.next = self.next.min(now);
        if self.proofs < PROOFS || self.to.is_none() {
            return Step::None;
        }
        self.in_use = true;
        self.since = now;
        self.next = now + BEAT;
        // Traffic is about to come over from the sealed path.
        self.used_until = now + USED;
        Step::Up
    }
}

/// What came of a peer's other ways since the tunnel fell silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nothing answered.
    Silent,
    /// One answered, under a session that was opened since, at this time: the other router has restarted.
    AnswerUnderNewSession(Instant),
    /// One answered.
    Answer,
}
