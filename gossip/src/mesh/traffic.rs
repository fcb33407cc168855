//! What traffic shows of the ways it takes.

use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::peer::Peer;
use crate::api::{Path, TrafficSample};

/// Traffic that stays unanswered this long, or four round trips, makes a path suspect.
const SILENCE_MIN: Duration = Duration::from_millis(300);
/// A frame that waited for a session keeps the peer close for this long.
pub(super) const WANTED: Duration = Duration::from_secs(300);
/// A pair counts as having traffic for this long after it had.
const LINGER: Duration = Duration::from_secs(3);

impl Mesh {
    /// What the data plane saw: traffic without an answer makes the path in use suspect.
    pub(crate) fn on_traffic(&mut self, samples: &[TrafficSample], now: Instant) {
        // What was sent without an answer was sent after the last look.
        let begun = core::mem::replace(&mut self.traffic_seen, now);
        let begun = if now.since(begun) < SILENCE_MIN {
            begun
        } else {
            now
        };
        for sample in samples {
            let Some(peer) = self.peers.get_mut(&sample.peer) else {
                continue;
            };
            let index = peer.current;
            let came_back = match peer.chosen {
                Some(Path::Direct(_)) => sample.received_direct > 0,
                Some(Path::Relay(_)) => sample.received_relayed > 0,
                None => false,
            };
            if sample.sent + sample.received_direct + sample.received_relayed > 0 {
                peer.note_busy(LINGER, now);
            }
            if sample.sent > 0 {
                peer.wanted_until = now + WANTED;
                if let Some(path) = peer.used_mut() {
                    path.busy(now);
                }
            }
            if let Some(session) = index.and_then(|index| self.sessions.get_mut(&index)) {
                session.records += sample.sent;
            }
            if came_back {
                peer.silent_since = None;
            } else if sample.sent > 0 {
                let since = *peer.silent_since.get_or_insert(begun);
                let patience = peer.round_trip().unwrap_or_default() * 4;
                if now.since(since) >= patience.max(SILENCE_MIN) {
                    peer.silent_since = None;
                    suspect(peer, now);
                }
            }
        }
    }

    /// Asks for a sign of life at once.
    pub(crate) fn on_suspicion(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            suspect(peer, now);
        }
    }

    pub(crate) fn on_want(&mut self, id: PeerId, now: Instant) {
        let known = self.is_known(id);
        if let Some(peer) = self.peers.get_mut(&id).filter(|_| known) {
            peer.wanted_until = now + WANTED;
        }
    }
}

fn suspect(peer: &mut Peer, now: Instant) {
    // What ends one way often ends others as well, and the next best should be one that works.
    for path in peer.direct.values_mut() {
        path.suspect(now);
    }
    if let Some(path) = peer.used_mut() {
        path.suspect(now);
    }
}
