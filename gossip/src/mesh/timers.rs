//! What is due when, and what follows from every input.

use alloc::collections::BTreeSet;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::Mesh;
use super::dial::{Dial, Goal, rekey_at};
use super::peer::Peer;
use super::session::Session;
use super::watched::Watched;
use crate::limits::SESSION_LIFETIME;

/// Debug builds compare what is remembered with a look at everything, where that takes no time.
const CHECKED_PEERS_MAX: usize = 16;

/// Peers of some kinds, so that nobody has to look for them among all.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// Those with a control link, but for those that this input has touched: see [`Mesh::neighbours`].
    neighbours: BTreeSet<PeerId>,
    /// Those with which TCP is used or thought of.
    pub(super) tcp: BTreeSet<PeerId>,
}

impl Mesh {
    /// Brings everything derived up to date; after every input.
    pub(super) fn settle(&mut self, now: Instant) {
        // Routes follow links, paths follow routes, links follow paths: few rounds reach the end,
        // and whatever is left is picked up by the timer that is set below.
        self.refresh_fast(now);
        for _ in 0..3 {
            self.news.members |= self.dirty.links || self.dirty.routes;
            if core::mem::replace(&mut self.dirty.links, false) {
                self.refresh_links(now);
            }
            if core::mem::replace(&mut self.dirty.routes, false) {
                self.refresh_routes(now);
            }
            if core::mem::replace(&mut self.dirty.overlay, false) {
                self.follow_overlay(now);
            }
            if !self.dirty.links && !self.dirty.routes {
                break;
            }
        }
        self.follow_touched(now);
        self.next_timeout = self.next_deadline(now);
    }

    /// Looks at the deadlines of the peers and sessions that this input has touched.
    fn follow_touched(&mut self, now: Instant) {
        let session_due = |_: &u32, session: Option<&Session>| session.map(session_deadline);
        self.sessions.follow(now, session_due);
        self.neighbours();
        let dial_due = |_: &Goal, dial: Option<&Dial>| dial.map(|dial| dial.next);
        self.dialer.dials.follow(now, dial_due);
        let is_tcp_on = self.is_tcp_on();
        let terms = Terms {
            me: self.me,
            rekey_after: self.rekey_after,
            sessions: &self.sessions,
            is_plain: !self.policy.is_never(),
            now,
        };
        let tcp_peers = &mut self.kinds.tcp;
        self.peers.follow(now, |id, peer| {
            match peer.filter(|peer| is_tcp_on && peer.concerns_tcp()) {
                Some(_) => tcp_peers.insert(*id),
                None => tcp_peers.remove(id),
            };
            terms.due(peer?)
        });
        let is_checked = self.peers.len() <= CHECKED_PEERS_MAX;
        debug_assert!(!is_checked || self.peers.is_followed(|peer| terms.due(peer)));
        debug_assert!(!is_checked || self.are_followed());
    }

    /// Whether what is remembered is what a look at everything finds. Only to be asserted.
    fn are_followed(&self) -> bool {
        let neighbours = self.peers.values().filter(|peer| peer.is_neighbour());
        let is_tcp_on = self.is_tcp_on();
        let by_tcp = self.peers.values();
        let by_tcp = by_tcp.filter(|peer| is_tcp_on && peer.concerns_tcp());
        let dial_due = |dial: &Dial| Some(dial.next);
        let session_due = |session: &Session| Some(session_deadline(session));
        self.sessions.is_followed(session_due)
            && self.dialer.dials.is_followed(dial_due)
            && neighbours.map(|peer| &peer.id).eq(&self.kinds.neighbours)
            && by_tcp.map(|peer| &peer.id).eq(&self.kinds.tcp)
    }

    /// Peers with a control link.
    pub(super) fn neighbours(&mut self) -> &BTreeSet<PeerId> {
        for id in self.peers.touched() {
            match self.peers.get(id).is_some_and(Peer::is_neighbour) {
                true => self.kinds.neighbours.insert(*id),
                false => self.kinds.neighbours.remove(id),
            };
        }
        &self.kinds.neighbours
    }

    /// What is due first with any peer.
    fn peers_deadline(&self) -> Option<(Instant, &'static str)> {
        let &(due, id) = self.peers.first_due()?;
        let peer = self.peers.get(&id)?;
        let why = match () {
            () if peer_deadline(peer) == Some(due) => "a path is probed",
            () if peer.fast.deadline() == Some(due) => "a heartbeat is due",
            () => "a session is renewed",
        };
        Some((due, why))
    }

    pub(super) fn run_timers(&mut self, now: Instant) {
        self.half_opens.expire(now);
        self.expire_sessions(now);
        self.resend_finishes(now);
        self.watch_tcp(now);
        self.watch_paths(now);
        self.watch_fast(now);
        if self.is_dial_due(now) {
            self.dial(now);
        }
        self.watch_twin(now);
        self.run_publisher(now);
        self.flush(now);
        self.fetch_announced(now);
        self.dirty.routes |= self.routes_due.is_some_and(|due| due <= now);
        self.dirty.overlay |= self.overlay_due.is_some_and(|due| due <= now);
        if self.macs.deadline().is_some_and(|due| due <= now) {
            self.refresh_macs(now);
            self.dirty.forwarding = true;
        }
    }

    fn next_deadline(&self, now: Instant) -> (Instant, &'static str) {
        let deadlines = [
            (self.half_opens.deadline(), "a handshake times out"),
            (
                self.sessions.first_due().map(|(due, _)| *due),
                "a session ends or is confirmed",
            ),
            (self.tcp_deadline(now), "TCP is tried or left"),
            (self.dial_deadline(), "a peer is dialled"),
            (self.dial_check, "a peer may have to be dialled"),
            (self.publisher_deadline(), "the own record is published"),
            (self.flush_deadline(), "records are spread"),
            (
                self.announced.deadline(),
                "an announced record has not come",
            ),
            (self.routes_due, "the routes follow changed records"),
            (self.overlay_due, "control links follow who is there"),
            (self.twin_deadline(), "a twin is looked after"),
            (self.macs.deadline(), "a frozen MAC may move again"),
            (self.store.deadline(self.me), "a record expires"),
        ];
        let due = deadlines
            .into_iter()
            .filter_map(|(due, why)| Some((due?, why)))
            .chain(self.peers_deadline());
        let (due, why) = due
            .min()
            .unwrap_or((now + crate::limits::RECORD_REFRESH, "idle"));
        (due.max(now), why)
    }
}

/// What a peer's deadline depends on besides itself.
struct Terms<'a> {
    me: PeerId,
    rekey_after: Duration,
    sessions: &'a Watched<u32, Session>,
    is_plain: bool,
    now: Instant,
}

impl Terms<'_> {
    fn due(&self, peer: &Peer) -> Option<Instant> {
        let session = peer.current.and_then(|index| self.sessions.get(&index));
        let rekey = session.map(|session| rekey_at(session, self.me, self.rekey_after));
        let rekey = rekey.filter(|due| *due > self.now);
        let fast = peer.fast.deadline().filter(|_| self.is_plain);
        let due = [peer_deadline(peer), rekey, fast];
        due.into_iter().flatten().min()
    }
}

/// When a session ends, or its third message is repeated.
pub(super) fn session_deadline(session: &Session) -> Instant {
    let finish = session.finish.as_ref().map(|finish| finish.resend_at);
    finish.map_or(session_end(session), |at| at.min(session_end(session)))
}

/// When a session ends.
pub(super) fn session_end(session: &Session) -> Instant {
    let old = session.established + SESSION_LIFETIME;
    session
        .retires_at
        .map_or(old, |retires_at| retires_at.min(old))
}

/// When a peer's ways have something to do; only peers with a session can be asked.
pub(super) fn peer_deadline(peer: &Peer) -> Option<Instant> {
    peer.current?;
    let direct = peer
        .direct
        .values()
        .map(super::path::PathState::deadline)
        .min();
    // A relay is only watched while it is in use.
    let relay = peer.is_relayed().then(|| peer.relay.deadline());
    [direct, relay, peer.lull_at, peer.ports.deadline()]
        .into_iter()
        .flatten()
        .min()
}
