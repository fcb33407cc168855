//! What traffic shows of the ways it takes.

use alloc::vec::Vec;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::peer::Peer;
use crate::api::{Path, TrafficSample};

/// Traffic that stays unanswered this long, or four round trips, makes a path suspect.
const SILENCE_MIN: Duration = Duration::from_millis(300);
/// Where traffic came a moment ago and does not any more, this end asks: it may be that it is this end that
/// cannot be reached, behind a NAT that has forgotten it, and then nothing comes before it calls.
const LULL: Duration = Duration::from_millis(200);
/// Each neighbour is asked at most so often because somebody waits.
const DEMAND_EVERY: Duration = Duration::from_millis(500);
/// Neighbours that die within this time may have died of one cause, …
const DEATHS_APART: Duration = Duration::from_secs(5);
/// … and all are asked for that at most so often.
const ROLL_CALL_EVERY: Duration = Duration::from_secs(2);
const ROLL_CALL_LINKS_MIN: usize = 4;
/// When a path died last, and when all neighbours may be asked again because of that.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    last: Option<Instant>,
    next_roll_call: Instant,
}

/// A frame that waited for a session keeps the peer close for this long.
pub(super) const WANTED: Duration = Duration::from_secs(300);
/// And so long it is watched as if there were more to come.
pub(super) const LATELY: Duration = Duration::from_secs(20);
/// Traffic flows if there was some so long ago, in so many samples …
const FLOWS: Duration = Duration::from_millis(200);
const FLOWS_SAMPLES: u32 = 3;
/// … and never a longer pause than this since; for as long a pair counts as having traffic afterwards. A
/// frame now and then, as idle containers send them, is none, and what it leaves unanswered tells nothing of the next.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Records sent between two looks that are worth more source ports than one.
const MUCH: u64 = 50;

/// Traffic without a long pause.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    since: Instant,
    last: Option<Instant>,
    samples: u32,
}

impl Flow {
    /// Some is seen now; whether it begins with that.
    fn note(&mut self, now: Instant) -> bool {
        let is_new = self.last.is_none_or(|last| now.since(last) > PAUSE_MAX);
        if is_new {
            (self.since, self.samples) = (now, 0);
        }
        self.samples = self.samples.saturating_add(1);
        self.last = Some(now);
        is_new
    }

    fn flows(&self, now: Instant) -> bool {
        self.samples >= FLOWS_SAMPLES && now.since(self.since) >= FLOWS
    }
}

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
        let (mut suspected, mut flowing, mut senders) = (Vec::new(), Vec::new(), Vec::new());
        for sample in samples {
            let Some(peer) = self.peers.get_mut(&sample.peer) else {
                continue;
            };
            let index = peer.current;
            let came_back = match peer.chosen {
                Some(Path::Direct(_)) => sample.received_direct > 0,
                Some(Path::Relay(_)) => sample.received_relayed > 0,
                Some(Path::Tcp(_)) | None => false,
            };
            if sample.sent + sample.received_direct + sample.received_relayed > 0 {
                if peer.flow.note(now) {
                    peer.silent_since = None;
                }
                if peer.flow.flows(now) {
                    peer.note_busy(PAUSE_MAX, now);
                }
            }
            if sample.sent > 0 {
                peer.wanted_until = now + WANTED;
                senders.push(sample.peer);
                if peer.flow.flows(now)
                    && let Some(path) = peer.used_mut()
                {
                    path.busy(now);
                    flowing.extend((sample.sent >= MUCH).then_some(sample.peer));
                }
            }
            if let Some(session) = index.and_then(|index| self.sessions.get_mut(&index)) {
                session.records += sample.sent;
            }
            if came_back {
                peer.silent_since = None;
                if peer.flow.flows(now) {
                    peer.lull_at = Some(now + LULL);
                }
            } else if sample.sent > 0 {
                let since = *peer.silent_since.get_or_insert(begun);
                if peer.flow.flows(now) && now.since(since) >= patience(peer) {
                    peer.silent_since = None;
                    suspect(peer, since, now);
                    suspected.push(sample.peer);
                }
            }
        }
        self.disturb_mappings(&senders);
        for id in flowing {
            self.note_port_flow(id, now);
        }
        for id in suspected {
            self.path_changed(id, "nothing comes back by the other", now);
        }
    }

    /// What is sent to these keeps the mappings of the ways it takes, nobody knows up to when.
    fn disturb_mappings(&mut self, senders: &[PeerId]) {
        for id in senders {
            let chosen = self.peers.get(id).and_then(|peer| peer.chosen);
            let neighbour = match chosen {
                Some(Path::Relay(hop)) => hop,
                _ => *id,
            };
            if let Some(path) = self.peers.get_mut(&neighbour).and_then(Peer::used_mut) {
                path.mapping.disturb();
            }
        }
    }

    /// Asks for a sign of life at once.
    pub(crate) fn on_suspicion(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            suspect(peer, now, now);
        }
    }

    /// A neighbour has died. If another did a moment ago there may be one cause, and more that it has taken: in a large
    /// mesh, where links are asked rarely, all of them are asked at once.
    pub(super) fn note_death(&mut self, now: Instant) {
        let before = self.deaths.last.replace(now);
        let is_second = before.is_some_and(|before| now.since(before) < DEATHS_APART);
        // Who keeps few links, behind a NAT, loses its ways for other reasons.
        let has_few = self.neighbours().len() < ROLL_CALL_LINKS_MIN;
        if !self.is_large() || !is_second || has_few || now < self.deaths.next_roll_call {
            return;
        }
        self.deaths.next_roll_call = now + ROLL_CALL_EVERY;
        let neighbours: Vec<PeerId> = self.neighbours().iter().copied().collect();
        for id in neighbours {
            let path = self.peers.get_mut(&id).and_then(Peer::used_mut);
            path.into_iter().for_each(|path| path.ask_now(now));
        }
    }

    /// Somebody waits here for what others may have to agree to: neighbours are asked, so that who has just
    /// died does not pass for one that will answer.
    pub fn handle_demand(&mut self, now: Instant) {
        for id in &self.active {
            let peer = self.peers.get_mut(id).filter(|peer| peer.is_neighbour());
            if let Some(peer) = peer.filter(|peer| now >= peer.next_demand) {
                peer.next_demand = now + DEMAND_EVERY;
                suspect(peer, now, now);
            }
        }
        self.settle(now);
    }

    pub(crate) fn on_want(&mut self, id: PeerId, now: Instant) {
        let known = self.is_known(id);
        if let Some(peer) = self.peers.get_mut(&id).filter(|_| known) {
            peer.wanted_until = now + WANTED;
            self.active.insert(id);
            if peer.current.is_none() {
                self.dial_check = Some(now);
            }
        }
    }
}

/// How long nothing may come back.
fn patience(peer: &Peer) -> Duration {
    let round_trips = peer.round_trip().unwrap_or_default() * 4;
    round_trips.max(SILENCE_MIN)
}

fn suspect(peer: &mut Peer, silent: Instant, now: Instant) {
    // What ends one way often ends others as well, and the next best should be one that works.
    for path in peer.direct.values_mut() {
        if !path.has_answered_since(silent) {
            path.suspect(silent, now);
        }
    }
    if let Some(path) = peer.used_mut() {
        path.suspect(silent, now);
    }
}

impl Peer {
    /// Traffic may have ended, or cannot come any more: asks, and suspects the path if something was sent
    /// that nothing came back for; true if it does.
    pub(super) fn watch_lull(&mut self, now: Instant) -> bool {
        if self.lull_at.is_none_or(|lull_at| lull_at > now) {
            return false;
        }
        self.lull_at = None;
        let Some(silent) = self.silent_since else {
            if let Some(path) = self.used_mut() {
                path.ask_now(now);
            }
            return false;
        };
        let due = silent + patience(self);
        if due > now {
            self.lull_at = Some(due);
            return false;
        }
        self.silent_since = None;
        suspect(self, silent, now);
        true
    }
}
