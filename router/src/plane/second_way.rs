//! Finding a second way round through somebody's LAN (DESIGN D7).
//!
//! If two hosts' bridges are joined by another wire than the mesh, every flood would go round for
//! ever. Each peer writes a marked frame to its bridge; whoever reads another's from its own has
//! found such a wire, and of the two the one with the larger id stops flooding.

use std::time::{Duration, Instant};

use rmesh_wire::ethernet::second_way_probe;
use rmesh_wire::{Mac, PeerId};

use super::tables::Tables;

/// Time between two probes.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(5);
/// … and at least, when frames show that there may be one.
const PROBE_GAP: Duration = Duration::from_millis(200);
/// Flooding resumes this long after the last foreign probe: three may get lost.
pub(crate) const QUIET: Duration = Duration::from_secs(15);
/// Reports to the control side come at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Source of the probes: locally administered, the same everywhere, never announced.
const PROBE_SOURCE: Mac = Mac(*b"\x02rm2wy");

/// State of the search.
pub(crate) struct SecondWay {
    next_probe: Instant,
    last_probe: Option<Instant>,
    suppressed_until: Option<Instant>,
    last_report: Option<Instant>,
}

impl SecondWay {
    pub(crate) fn new(now: Instant) -> Self {
        SecondWay {
            next_probe: now,
            last_probe: None,
            suppressed_until: None,
            last_report: None,
        }
    }

    /// The probe to write to the bridge, if one is due and the mesh is known.
    pub(crate) fn poll_probe(&mut self, tables: &Tables, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_probe || tables.me == PeerId::default() {
            return None;
        }
        self.next_probe = now + PROBE_EVERY;
        self.last_probe = Some(now);
        let mark = tables.probe_marks.of(&tables.me);
        Some(second_way_probe(PROBE_SOURCE, mark, &tables.me))
    }

    /// When [`SecondWay::poll_probe`] has something to say.
    pub(crate) fn next_probe(&self) -> Instant {
        self.next_probe
    }

    /// Frames look as if there were a second way: the next probe is due soon.
    pub(crate) fn suspect(&mut self, now: Instant) {
        let soonest = self
            .last_probe
            .map_or(now, |last| now.max(last + PROBE_GAP));
        self.next_probe = self.next_probe.min(soonest);
    }

    /// Another peer's probe came in by our bridge: ours shall soon come in by its. Gives whether we stop flooding for it, if that
    /// is to be reported.
    pub(crate) fn handle_probe(&mut self, me: PeerId, from: PeerId, now: Instant) -> Option<bool> {
        let suppressed = me > from;
        if self.suppressed_until.is_none_or(|until| until <= now) {
            self.suspect(now);
        }
        if suppressed {
            self.suppressed_until = Some(now + QUIET);
        }
        let lately = |last: Instant| now.saturating_duration_since(last) < REPORT_EVERY;
        if self.last_report.is_some_and(lately) {
            return None;
        }
        self.last_report = Some(now);
        Some(suppressed)
    }

    /// Whether this peer neither floods its bridge's frames nor delivers floods to it.
    pub(crate) fn is_suppressed(&self, now: Instant) -> bool {
        self.suppressed_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmesh_gossip::{Forwarding, ProbeMarks};
    use rmesh_wire::ethernet::parse_second_way_probe;

    const SMALL: PeerId = PeerId([1; 16]);
    const LARGE: PeerId = PeerId([2; 16]);

    #[test]
    fn the_larger_id_stops_until_the_other_way_is_gone() {
        let now = Instant::now();
        let (mut small, mut large) = (SecondWay::new(now), SecondWay::new(now));
        assert_eq!(small.handle_probe(SMALL, LARGE, now), Some(false));
        assert_eq!(large.handle_probe(LARGE, SMALL, now), Some(true));
        assert_eq!(large.handle_probe(LARGE, SMALL, now), None, "told just now");
        assert!(!small.is_suppressed(now));
        assert!(large.is_suppressed(now + QUIET - REPORT_EVERY));
        assert!(!large.is_suppressed(now + QUIET));
    }

    #[test]
    fn a_probe_is_due_every_five_seconds_once_the_mesh_is_known() {
        let now = Instant::now();
        let mut second_way = SecondWay::new(now);
        assert_eq!(second_way.poll_probe(&Tables::default(), now), None);
        let forwarding = Forwarding {
            me: SMALL,
            ..Forwarding::default()
        };
        let tables = Tables::build(forwarding, &Tables::default(), 1, Instant::now());
        let probe = second_way.poll_probe(&tables, now).unwrap();
        assert_eq!(
            parse_second_way_probe(&probe),
            Some((ProbeMarks::default().of(&SMALL), SMALL))
        );
        assert_eq!(second_way.poll_probe(&tables, now), None);
        assert!(second_way.poll_probe(&tables, now + PROBE_EVERY).is_some());
    }

    #[test]
    fn a_suspicion_is_looked_into_at_once_but_not_all_the_time() {
        let now = Instant::now();
        let forwarding = Forwarding {
            me: SMALL,
            ..Forwarding::default()
        };
        let tables = Tables::build(forwarding, &Tables::default(), 1, Instant::now());
        let mut second_way = SecondWay::new(now);
        assert!(second_way.poll_probe(&tables, now).is_some());
        second_way.suspect(now);
        assert!(
            second_way.poll_probe(&tables, now).is_none(),
            "too soon after the last"
        );
        let later = now + PROBE_GAP;
        assert!(second_way.poll_probe(&tables, later).is_some());
        assert!(second_way.poll_probe(&tables, later + PROBE_GAP).is_none());
        // A probe of the other end is answered by one.
        second_way.handle_probe(SMALL, LARGE, later);
        assert!(second_way.poll_probe(&tables, later + PROBE_GAP).is_some());
    }
}
