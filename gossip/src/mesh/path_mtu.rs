//! The largest datagram one path carries (RFC 8899, for one direction: an answer is short).
//!
//! A path is assumed to carry [`PACKET_LEN_BASE`]. Longer datagrams are used once a padded question
//! of their length was answered, and what is used is asked again now and then. Nothing else counts:
//! no ICMP message of anybody, and a lost or invented answer changes nothing. A length is given up
//! after [`ASKED_MAX`] questions of it went unanswered, and only if the short ones that were sent
//! meanwhile were answered: otherwise the path is at fault and not the length. If that happens to the
//! assumed one, [`PACKET_LEN_FLOOR`] is used and the search goes on above it.

use core::time::Duration;

use alloc::vec::Vec;
use rmesh_wire::Instant;

/// IP packets every path is assumed to carry, in bytes (RFC 8200 section 5).
const PACKET_LEN_BASE: u16 = 1_280;
/// What is assumed once that turned out to be too much: what every host takes (RFC 791 section 3.1), and nobody
/// has less in use. Handshakes and questions are shorter.
const PACKET_LEN_FLOOR: u16 = 576;
/// Longest packet that is searched for, in bytes: what networks with jumbo frames carry.
const PACKET_LEN_MAX: u16 = 9_216;
/// Lengths that many paths have: between two of them there seldom is another.
const USUAL: [u16; 14] = [
    576, 1_006, 1_200, 1_280, 1_296, 1_400, 1_420, 1_450, 1_460, 1_492, 1_500, 8_896, 9_000, 9_001,
];
/// What is tried first, while nothing is known not to pass.
const HOPED_FOR: [u16; 3] = [1_500, 9_000, PACKET_LEN_MAX];
/// Questions of one length that must go missing. Where half of everything is lost, this many are,
/// and no short one, once in 500 times.
const ASKED_MAX: usize = 5;
/// Time between two of them: one and a quarter round trips, within these.
const ASK_EVERY: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];
/// The length in use is asked again after this time while traffic is sent. With the time for
/// [`ASKED_MAX`] questions a black hole is left before TCP's third retransmission, 1.4 s after it began.
const CONFIRM_BUSY: Duration = Duration::from_millis(500);
/// The same without traffic: it is asked at once when traffic begins.
const CONFIRM_IDLE: Duration = Duration::from_secs(60);
/// A path counts as busy for this long after it was.
const BUSY: Duration = Duration::from_secs(1);
/// First time after which more is searched for again; doubles up to the last, which is RFC 8899's
/// timer (section 5.1.1).
const RAISE_FIRST: Duration = Duration::from_secs(5);
const RAISE_LAST: Duration = Duration::from_secs(600);

/// A length being tried.
#[derive(Debug)]
struct Trial {
    len: u16,
    began: Instant,
    /// Questions and when they were sent.
    asked: Vec<(u64, Instant)>,
}

/// How long to wait for what, as the path's round trips have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// An answer is missing after this time.
    pub(super) answer: Duration,
    /// Smoothed round trip.
    pub(super) round_trip: Duration,
}

impl Patience {
    fn between(self) -> Duration {
        let [least, most] = ASK_EVERY;
        (self.round_trip + self.round_trip / 4).clamp(least, most)
    }
}

/// What became of the short questions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shorts {
    /// When the latest of those that were answered was sent.
    pub(super) answered: Option<Instant>,
    /// When the latest of those whose answer is missing was sent.
    pub(super) missing: Option<Instant>,
}

/// What the search knows after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The length in use is what it was.
    Same,
    /// It is another, or is now known to be the longest.
    Changed,
    /// It does not pass any more: back to what is assumed, or what is left if that does not pass either.
    Fell,
}

/// The search of one path. Lengths are those of UDP payloads.
#[derive(Debug)]
pub(super) struct PathMtu {
    /// Bytes of IP and UDP headers before a datagram.
    headers: u16,
    /// The longest datagram to be sent.
    len: u16,
    /// Whether one of this length was answered since the path works.
    proven: bool,
    /// Whether the search for it has come to its end.
    found: bool,
    /// The shortest length that does not pass, as far as is known.
    ceiling: u16,
    /// A longer one being tried.
    search: Option<Trial>,
    /// When the search goes on, or begins again.
    next_search: Instant,
    is_searching: bool,
    /// Time until it begins again.
    raise: Duration,
    /// The one in use being asked again.
    confirm: Option<Trial>,
    /// When that happens next, and when any was answered last.
    next_confirm: Instant,
    confirmed: Instant,
    busy_until: Instant,
    /// Only control messages are sent on it, which any path carries.
    is_control_only: bool,
}

impl PathMtu {
    /// Nothing is known of the path; `headers` bytes of IP and UDP come before a datagram.
    pub(super) fn new(headers: u16, now: Instant) -> Self {
        PathMtu {
            headers,
            len: PACKET_LEN_BASE - headers,
            proven: false,
            found: false,
            ceiling: PACKET_LEN_MAX + 1 - headers,
            search: None,
            next_search: now,
            is_searching: true,
            raise: RAISE_FIRST,
            confirm: None,
            next_confirm: now,
            confirmed: now,
            busy_until: Instant::ZERO,
            is_control_only: false,
        }
    }

    /// The longest datagram to be sent, in bytes.
    pub(super) fn datagram_len(&self) -> u16 {
        self.len
    }

    /// The packet it makes, in bytes.
    pub(super) fn packet_len(&self) -> u16 {
        self.len + self.headers
    }

    /// Whether a search found that length; it is assumed otherwise, or the search goes on.
    pub(super) fn is_found(&self) -> bool {
        self.found
    }

    /// Begins anew: the path is another one now.
    pub(super) fn restart(&mut self, now: Instant) {
        *self = PathMtu {
            busy_until: self.busy_until,
            ..PathMtu::new(self.headers, now)
        };
    }

    /// Something may have got better.
    pub(super) fn search_again(&mut self, now: Instant) {
        self.raise = RAISE_FIRST;
        self.next_search = self.next_search.min(now);
    }

    /// Datagrams are sent on it.
    pub(super) fn busy(&mut self, now: Instant) {
        self.busy_until = now + BUSY;
        let due = (self.confirmed + CONFIRM_BUSY).max(now);
        self.next_confirm = self.next_confirm.min(due);
    }

    /// Whether frames may be sent on it at any time, or only control messages.
    pub(super) fn set_control_only(&mut self, is_control_only: bool, now: Instant) {
        if core::mem::replace(&mut self.is_control_only, is_control_only) && !is_control_only {
            self.next_confirm = self.next_confirm.min(now);
        }
    }

    /// Datagrams are sent on it and nothing comes back: asks for the length in use now.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.next_confirm = self.next_confirm.min(now);
    }

    /// The kernel refused a datagram of `len` bytes as too big for the interface.
    pub(super) fn refused(&mut self, len: u16, now: Instant) -> Outcome {
        self.ceiling = self.ceiling.min(len);
        self.search.take_if(|trial| trial.len >= len);
        if len <= self.len {
            return self.fall(len, now);
        }
        self.go_on(now)
    }

    /// When [`PathMtu::judge`] or [`PathMtu::ask`] has something to do.
    pub(super) fn deadline(&self, patience: Patience) -> Instant {
        let due = |trial: &Option<Trial>, begin| {
            let trial = trial.as_ref();
            trial.map_or(begin, |trial| trial.deadline(patience))
        };
        let search = due(&self.search, self.next_search);
        let confirm = due(&self.confirm, self.next_confirm);
        if self.proven {
            search.min(confirm)
        } else {
            search
        }
    }

    /// Judges what is missing.
    pub(super) fn judge(&mut self, now: Instant, patience: Patience, shorts: Shorts) -> Outcome {
        let is_over = |trial: &mut Trial| trial.is_asked() && trial.deadline(patience) <= now;
        // If the short ones went missing too, this tells nothing and is tried again.
        let tells = |trial: &Trial| {
            let since = |sent: Option<Instant>| sent.is_some_and(|sent| sent >= trial.began);
            since(shorts.answered) && !since(shorts.missing)
        };
        if let Some(lost) = self.confirm.take_if(is_over).filter(tells) {
            return self.fall(lost.len, now);
        }
        match self.search.take_if(is_over).filter(tells) {
            Some(lost) if lost.len == self.len && self.packet_len() > PACKET_LEN_FLOOR => {
                self.fall(lost.len, now)
            }
            Some(lost) => {
                self.ceiling = self.ceiling.min(lost.len);
                self.go_on(now)
            }
            None => Outcome::Same,
        }
    }

    /// The length of the question that is due, if one is; and whether a short one has to go with it.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        patience: Patience,
        token: impl FnOnce() -> u64,
    ) -> Option<(u64, u16, bool)> {
        if self.proven && self.confirm.is_none() && now >= self.next_confirm {
            self.confirm = Some(Trial::of(self.len, now));
        }
        if self.search.is_none() && now >= self.next_search {
            let len = self.next_len(now);
            self.search = len.map(|len| Trial::of(len, now));
        }
        let is_due = |trial: &&mut Trial| !trial.is_asked() && trial.deadline(patience) <= now;
        let mut trials = self.confirm.iter_mut().chain(&mut self.search);
        let trial = trials.find(is_due)?;
        let token = token();
        trial.asked.push((token, now));
        Some((token, trial.len, trial.asked.len() > 1))
    }

    /// An answer came: when its question was sent, if it was one of this search's.
    pub(super) fn answered(&mut self, token: u64, now: Instant) -> Option<(Instant, Outcome)> {
        let sent = |trial: &Option<Trial>| trial.as_ref()?.sent(token);
        let (confirm, search) = (sent(&self.confirm), sent(&self.search));
        let sent = confirm.or(search)?;
        self.proven = true;
        self.confirmed = now;
        self.confirm = None;
        let is_busy = now < self.busy_until;
        let wait = match (is_busy, self.is_control_only) {
            (true, _) => CONFIRM_BUSY,
            (false, true) => RAISE_LAST,
            (false, false) => CONFIRM_IDLE,
        };
        self.next_confirm = now + wait;
        if search.is_none() {
            return Some((sent, Outcome::Same));
        }
        let longer = self.search.take().map_or(0, |trial| trial.len);
        self.len = self.len.max(longer);
        self.go_on(now);
        Some((sent, Outcome::Changed))
    }

    /// Back to what every path is assumed to carry, or below it; what it does carry is searched below `lost`.
    fn fall(&mut self, lost: u16, now: Instant) -> Outcome {
        let anew = PathMtu::new(self.headers, now);
        let len = match lost > anew.len {
            true => anew.len,
            false => PACKET_LEN_FLOOR - self.headers,
        };
        *self = PathMtu {
            len,
            ceiling: self.ceiling.min(lost),
            busy_until: self.busy_until,
            ..anew
        };
        Outcome::Fell
    }

    /// Ends the search if nothing is left to be tried.
    fn go_on(&mut self, now: Instant) -> Outcome {
        if !self.is_searching || self.candidate().is_some() {
            return Outcome::Same;
        }
        self.is_searching = false;
        self.next_search = now + self.raise;
        self.raise = (self.raise * 2).min(RAISE_LAST);
        let found = self.proven;
        let is_news = core::mem::replace(&mut self.found, found) != found;
        if is_news {
            Outcome::Changed
        } else {
            Outcome::Same
        }
    }

    /// What to try now; a search that had ended begins again, without a ceiling.
    fn next_len(&mut self, now: Instant) -> Option<u16> {
        if !self.is_searching {
            self.is_searching = true;
            self.ceiling = PACKET_LEN_MAX + 1 - self.headers;
        }
        let len = self.candidate();
        if len.is_none() {
            self.go_on(now);
        }
        len
    }

    /// A length between the one in use and the ceiling: first what is hoped for, then usual ones
    /// by halves, then every other. Before those the assumed length itself, if nothing passed yet.
    fn candidate(&self) -> Option<u16> {
        let (low, high) = (self.packet_len(), self.ceiling + self.headers);
        let assumed = (!self.proven && low < high).then_some(low);
        let len = if high > PACKET_LEN_MAX {
            HOPED_FOR.into_iter().find(|len| *len > low)
        } else {
            let between = |len: &&u16| (low + 1..high).contains(*len);
            let count = USUAL.iter().filter(between).count();
            let usual = USUAL.iter().filter(between).nth(count / 2).copied();
            // What is usual is most likely the end.
            let step = if USUAL.contains(&low) {
                1
            } else {
                high.saturating_sub(low) / 2
            };
            let between = usual.or((low + 1 < high).then(|| low + step));
            assumed.or(between)
        };
        len.or(assumed).map(|len| len - self.headers)
    }
}

impl Trial {
    fn of(len: u16, now: Instant) -> Self {
        Trial {
            len,
            began: now,
            asked: Vec::with_capacity(ASKED_MAX),
        }
    }

    fn is_asked(&self) -> bool {
        self.asked.len() >= ASKED_MAX
    }

    /// When the question with this token was sent.
    fn sent(&self, token: u64) -> Option<Instant> {
        let mut asked = self.asked.iter();
        asked.find(|(of, _)| *of == token).map(|(_, sent)| *sent)
    }

    /// When the next question is due, or the last one's answer is missing.
    fn deadline(&self, patience: Patience) -> Instant {
        let Some((_, last)) = self.asked.last() else {
            return self.began;
        };
        let is_last = self.is_asked();
        *last
            + if is_last {
                patience.answer
            } else {
                patience.between()
            }
    }
}

#[cfg(test)]
mod tests;
