//! Who takes how much of a socket's buffer: a peer that is sent more than its way carries must not take the room of
//! what goes to others.
//!
//! The kernel says how much of the buffer is taken, but not by whom. Once it is more than half, what is sent is looked
//! at by destination: whose datagrams stay in the buffer most is suspected, and nothing is sent there until half of
//! it is free. The other half is left for all others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::sys::batch::Run;

/// Suspects at a time, at most; beyond it the first is forgotten.
const SUSPECTS_MAX: usize = 8;
/// Somebody is suspected once this part of the buffer was filled while it was looked who does.
const ENOUGH: usize = 32;
/// Nobody else is suspected for this long: what the suspect has in the buffer goes, but not at once.
const NEXT_AFTER: Duration = Duration::from_millis(20);
/// Who was suspected before others were is forgotten after this time: it may have been the wrong one.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(200);

/// Destinations that most likely fill the buffer.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// The latest last.
    suspects: Vec<(SocketAddr, Instant)>,
    /// Whether somebody is looked for.
    is_looking: bool,
    /// What stayed of what was sent where, in bytes, since that is so.
    stayed: Vec<(SocketAddr, usize)>,
}

impl Crowd {
    /// Whether there is room for all, as far as is known.
    pub(crate) fn is_calm(&self) -> bool {
        self.suspects.is_empty() && !self.is_looking
    }

    /// Whether it is to be told how much of the buffer who takes.
    pub(crate) fn is_looking(&self) -> bool {
        self.is_looking
    }

    /// So much of the buffer is `taken` of `size` bytes.
    pub(crate) fn judge(&mut self, (taken, size): (usize, usize), now: Instant) {
        if taken <= size / 2 {
            self.suspects.clear();
            self.stayed.clear();
            self.is_looking = false;
            return;
        }
        let latest = self.suspects.last().copied();
        self.suspects.retain(|suspect| {
            Some(*suspect) == latest || now.saturating_duration_since(suspect.1) < FORGOTTEN_AFTER
        });
        let is_more = taken > size - size / 4;
        self.is_looking = latest.is_none() || (is_more && !self.is_new(now));
    }

    /// Whether somebody was suspected just now.
    fn is_new(&self, now: Instant) -> bool {
        let latest = self.suspects.last();
        latest.is_some_and(|(_, since)| now.saturating_duration_since(*since) < NEXT_AFTER)
    }

    /// So many bytes of what was sent there were not gone at once. That may be because of others; so much of a
    /// buffer of `size` bytes is one's own.
    pub(crate) fn stays(&mut self, to: SocketAddr, bytes: usize, size: usize, now: Instant) {
        if let Some((_, sum)) = self.stayed.iter_mut().find(|(of, _)| *of == to) {
            *sum += bytes;
        } else if self.stayed.len() < SUSPECTS_MAX {
            self.stayed.push((to, bytes));
        }
        let all: usize = self.stayed.iter().map(|(_, sum)| sum).sum();
        let most = self.stayed.iter().max_by_key(|(_, sum)| *sum);
        let most = most.filter(|_| all >= size / ENOUGH).map(|(of, _)| *of);
        if let Some(most) = most {
            self.suspect(most, now);
        }
    }

    fn suspect(&mut self, destination: SocketAddr, now: Instant) {
        self.suspects.retain(|(suspect, _)| *suspect != destination);
        if self.suspects.len() == SUSPECTS_MAX {
            self.suspects.remove(0);
        }
        self.suspects.push((destination, now));
        self.stayed.clear();
        self.is_looking = false;
    }

    /// The socket took no more, and this is `left`: suspects who has most of it, and says whether it did. Not if
    /// somebody just was.
    pub(crate) fn refused(&mut self, left: &[Run], now: Instant) -> bool {
        match heaviest(left) {
            Some(heaviest) if !self.is_new(now) => {
                self.suspect(heaviest, now);
                true
            }
            _ => false,
        }
    }

    /// Whether nothing is to be sent there now.
    pub(crate) fn has(&self, destination: SocketAddr) -> bool {
        self.suspects
            .iter()
            .any(|(suspect, _)| *suspect == destination)
    }
}

/// The destination with the most bytes; few are in one batch.
fn heaviest(runs: &[Run]) -> Option<SocketAddr> {
    let bytes_for = |destination| {
        let own = runs.iter().filter(|run| run.destination == destination);
        own.map(|run| run.len).sum::<usize>()
    };
    let destinations = runs.iter().map(|run| run.destination);
    destinations.max_by_key(|destination| bytes_for(*destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn runs(of: &[(u16, usize)]) -> Vec<Run> {
        let run = |(port, len): &(u16, usize)| Run::new(0, *len, (at(*port), 0));
        of.iter().map(run).collect()
    }

    #[test]
    fn somebody_is_looked_for_once_half_is_taken_and_gives_way_until_half_is_free() {
        let (mut crowd, now) = (Crowd::default(), Instant::now());
        crowd.judge((50, 100), now);
        assert!(crowd.is_calm());
        crowd.judge((51, 100), now);
        assert!(crowd.is_looking());
        crowd.stays(at(2), 60, 3_200, now);
        crowd.stays(at(1), 30, 3_200, now);
        assert!(crowd.is_looking(), "that tells nothing yet");
        crowd.stays(at(1), 40, 3_200, now);
        assert!(crowd.has(at(1)) && !crowd.has(at(2)) && !crowd.is_looking());
        let later = now + 10 * FORGOTTEN_AFTER;
        crowd.judge((75, 100), later);
        assert!(crowd.has(at(1)) && !crowd.is_looking(), "it holds");
        crowd.judge((76, 100), later);
        assert!(crowd.is_looking(), "somebody else fills it");
        crowd.judge((50, 100), later);
        assert!(crowd.is_calm());
    }

    #[test]
    fn who_has_most_of_what_is_refused_is_suspected_but_not_one_after_another() {
        let (mut crowd, now) = (Crowd::default(), Instant::now());
        assert!(!crowd.refused(&[], now));
        assert!(crowd.refused(&runs(&[(1, 700), (2, 1_000), (1, 700)]), now));
        assert!(crowd.has(at(1)));
        assert!(!crowd.refused(&runs(&[(2, 9)]), now), "too soon");
        let now = now + NEXT_AFTER;
        assert!(crowd.refused(&runs(&[(2, 9)]), now));
        crowd.judge((99, 100), now);
        assert!(crowd.has(at(1)) && crowd.has(at(2)) && !crowd.is_looking());
        crowd.judge((99, 100), now + FORGOTTEN_AFTER);
        assert!(!crowd.has(at(1)) && crowd.has(at(2)));
        for port in 3..100 {
            crowd.suspect(at(port), now);
        }
        assert_eq!(crowd.suspects.len(), SUSPECTS_MAX);
        assert!(crowd.has(at(99)));
    }
}
