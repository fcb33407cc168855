//! Probes, paths and sessions over time: what works, what is used, what is over.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::payload::Head;
use rmesh_wire::probe::Probe;
use rmesh_wire::{Instant, PeerId};

use super::path::{self, Change, Question, Said, Watcher};
use super::peer::{Peer, Way};
use super::session::{Session, is_heard_alone, is_preferred, replaces};
use super::timers::{peer_deadline, session_end};
use super::{Mesh, Origin};
use crate::api::{Event, Path, SendFailure};
use crate::limits::REPLACED_SESSION_GRACE;

/// Two sessions this close together were opened by both ends at once.
const SIMULTANEOUS: Duration = Duration::from_secs(10);
/// A record may be under way for this long.
const IN_FLIGHT: Duration = Duration::from_secs(1);
/// Bytes around a probe's payload in a record: header and tag.
pub(crate) const RECORD_OVERHEAD: usize = 32;

impl Mesh {
    /// Judges and probes every way of every peer that is due.
    pub(crate) fn watch_paths(&mut self, now: Instant) {
        if self.paths_due(now).is_empty() {
            return;
        }
        self.bring_forward(now);
        for id in self.paths_due(now) {
            self.watch_peer(id, now);
        }
    }

    fn paths_due(&self, now: Instant) -> Vec<PeerId> {
        let is_due = |peer: &Peer| peer_deadline(peer).is_some_and(|due| due <= now);
        let mut due = self.peers.due_by(now);
        due.retain(|id| self.peers.get(id).is_some_and(is_due));
        due
    }

    /// This host is awake, and most likely those it hears from: what is due soon is done now.
    fn bring_forward(&mut self, now: Instant) {
        let is_soon = |peer: &Peer| {
            peer.current.is_some() && peer.direct.values().any(|path| path.is_soon(now))
        };
        // Of all that are due in a while hardly any is: those that stay as they are need not be looked at again.
        let mut soon = self.peers.due_by(now + path::AHEAD);
        soon.retain(|id| self.peers.get(id).is_some_and(is_soon));
        for id in soon {
            let peer = self.peers.get_mut(&id);
            for path in peer.into_iter().flat_map(|peer| peer.direct.values_mut()) {
                path.bring_forward(now);
            }
        }
    }

    fn watch_peer(&mut self, id: PeerId, now: Instant) {
        let (watcher, is_large) = (self.watcher(id), self.is_large());
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let suspected = peer.watch_lull(now);
        let mut questions: Vec<(Way, Question)> = Vec::new();
        let mut kept: Vec<SocketAddr> = Vec::new();
        let (mut changed, mut shrank, mut died) = (suspected, false, false);
        let addresses: Vec<SocketAddr> = peer.direct.keys().copied().collect();
        let relay = peer.is_relayed().then_some(Way::Relay);
        for way in addresses.into_iter().map(Way::Direct).chain(relay) {
            let random = &mut self.random;
            let pace = peer.pace_of(way, watcher, is_large, now);
            let Some(path) = peer.way_mut(way) else {
                continue;
            };
            if path.deadline() > now {
                continue;
            }
            let (change, question) = path.tick(now, pace, || random.public_u64());
            if let Way::Direct(address) = way
                && question.is_none()
                && path.keeps(now)
            {
                kept.push(address);
            }
            died |= change == Change::Dead;
            changed |= matches!(change, Change::Alive | Change::Dead | Change::Overdue);
            self.dirty.forwarding |= matches!(change, Change::Size | Change::SizeLost);
            shrank |= change == Change::SizeLost;
            questions.extend(question.map(|question| (way, question)));
        }
        for (way, question) in questions {
            self.ask(id, way, question, now);
        }
        self.keep_open(id, &kept, now);
        self.watch_ports(id, now);
        if shrank {
            self.note_shrunk(id);
        }
        if changed {
            self.path_changed(id, "a path stopped answering", now);
        }
        if died {
            self.note_death(now);
        }
    }

    fn note_shrunk(&mut self, id: PeerId) {
        self.counters.path_mtu_lost += 1;
        if let Some(peer) = self.peers.get(&id) {
            let name = peer.name.clone();
            self.events.push_back(Event::PathShrank { peer: id, name });
        }
    }

    fn watcher(&self, of: PeerId) -> Watcher {
        Watcher {
            is_smaller: self.me < of,
            keep: self.keepalive.interval(),
        }
    }

    pub(crate) fn probe(&self, peer: PeerId, origin: Origin, token: u64) -> Probe {
        let plaintext = self.plaintext_said(peer, origin);
        let path = self.peers.get(&peer).zip(origin.address());
        let path = path.and_then(|(peer, address)| peer.direct.get(&address));
        let is_translated = path.is_some_and(|path| path.mapping.is_translated());
        Probe {
            is_answer: false,
            neighbour: self.peers.get(&peer).is_some_and(|peer| peer.desired),
            plaintext: plaintext == Some(true),
            undecided: plaintext.is_none(),
            proven: false,
            damaged: false,
            keep: is_translated.then(|| self.keepalive.interval()),
            token,
            digest: self.store.digest(),
            observed: None,
        }
    }

    fn ask(&mut self, id: PeerId, way: Way, question: Question, now: Instant) {
        let overhead = match way {
            Way::Direct(_) => RECORD_OVERHEAD,
            Way::Relay => RECORD_OVERHEAD + rmesh_wire::relay::OVERHEAD,
        };
        let datagram_len = usize::from(question.datagram_len.unwrap_or(0));
        let payload_len = datagram_len.saturating_sub(overhead);
        let origin = match way {
            Way::Direct(address) => Origin::Direct(address),
            Way::Relay => Origin::Relayed {
                neighbour: id,
                source: None,
            },
        };
        let probe = Probe {
            proven: question.proven,
            ..self.probe(id, origin, question.token)
        };
        let payload = probe.encode(payload_len);
        let Some(index) = self.peers.get(&id).and_then(|peer| peer.current) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        let datagram = session.seal_record(&payload);
        self.send_way(id, way, datagram, now);
    }

    /// Sends a probe under a session that is not in use yet, so that the other side can use it.
    pub(crate) fn ask_under(&mut self, index: u32, to: Origin, now: Instant) {
        let Some(peer) = self
            .sessions
            .get(&index)
            .map(|session| session.agreement.peer)
        else {
            return;
        };
        let token = self.random.public_u64();
        let payload = self.probe(peer, to, token).encode(0);
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        let datagram = session.seal_record(&payload);
        self.send_to(to, datagram, now);
    }

    /// A probe or an answer arrived under the session `index`.
    pub(crate) fn on_probe(
        &mut self,
        index: u32,
        origin: Origin,
        head: Head,
        body: &[u8],
        now: Instant,
    ) {
        let Some(probe) = Probe::decode(head, body) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let Some(id) = self
            .sessions
            .get(&index)
            .map(|session| session.agreement.peer)
        else {
            return;
        };
        self.note_desire(id, probe.neighbour, now);
        self.compare_digest(id, probe.digest, now);
        if probe.is_answer {
            return self.on_answer(id, origin, &probe, now);
        }
        self.follow_opener(index, now);
        if let Some(address) = origin.address() {
            self.note_asked(id, address, &probe, index, now);
        }
        self.note_said(id, origin, &probe, now);
        let answer = Probe {
            is_answer: true,
            observed: origin.seen(),
            damaged: matches!(origin, Origin::Fast { is_intact, .. } if !is_intact),
            ..self.probe(id, origin, probe.token)
        };
        let payload = answer.encode(0);
        if let Some(session) = self.sessions.get_mut(&index) {
            let datagram = session.seal_record(&payload);
            self.send_to(origin, datagram, now);
        }
    }

    /// A question came straight from `address`, under the session `index`.
    fn note_asked(
        &mut self,
        id: PeerId,
        address: SocketAddr,
        probe: &Probe,
        index: u32,
        now: Instant,
    ) {
        let (watcher, is_large) = (self.watcher(id), self.is_large());
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        // Somebody who reaches us directly can most likely be reached the same way.
        peer.add_candidate(address, now);
        // Ends that go by different sessions both have to ask, or they would not find out.
        let is_current = peer.current == Some(index);
        if let Some(path) = peer.direct.get_mut(&address) {
            path.mapping.wanted = probe.keep;
        }
        let pace = peer.pace_of(Way::Direct(address), watcher, is_large, now);
        if let Some(path) = peer.direct.get_mut(&address) {
            path.hurry(now);
            if is_current {
                path.asked(probe.proven, pace, now);
            }
            if let Some(silence) = path.mapping.asked(pace, now) {
                self.keepalive.survived(silence);
            }
        }
        self.bring_forward(now);
    }

    /// What a probe that took a direct way says about plaintext on it, and an answer about addresses.
    fn note_said(&mut self, id: PeerId, origin: Origin, probe: &Probe, now: Instant) {
        let address = origin.address().filter(|_| !self.policy.is_never());
        let Some((address, peer)) = address.zip(self.peers.get_mut(&id)) else {
            return;
        };
        let Some(path) = peer.direct.get_mut(&address) else {
            return;
        };
        let said = Said {
            seen_as: probe.observed.or(path.said.seen_as),
            // A router that has just started says neither; what it said in its last life stays meanwhile.
            plaintext: match probe.undecided {
                true => path.said.plaintext,
                false => Some(probe.plaintext),
            },
        };
        if said == path.said {
            return;
        }
        let is_seen_elsewhere = said.seen_as != path.said.seen_as;
        path.said = said;
        self.dirty.fast.insert(id);
        if is_seen_elsewhere {
            // What this side says of the path follows from where it is seen: the other is to know at once.
            path.ask_now(now);
        }
    }

    fn note_desire(&mut self, id: PeerId, desires_us: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if core::mem::replace(&mut peer.desires_us, desires_us) != desires_us {
            self.active.insert(id);
            self.links_changed(now);
        }
    }

    fn on_answer(&mut self, id: PeerId, origin: Origin, probe: &Probe, now: Instant) {
        if matches!(origin, Origin::Fast { .. }) {
            return self.on_fast_answer(id, probe, now);
        }
        self.note_said(id, origin, probe, now);
        let way = origin.address().map_or(Way::Relay, Way::Direct);
        self.note_observed(probe.observed, now);
        let is_translated = probe.observed.map(|seen| !self.is_at_home(seen));
        let watcher = self.watcher(id);
        let Some(path) = self.peers.get_mut(&id).and_then(|peer| peer.way_mut(way)) else {
            return;
        };
        let has_moved = probe.observed.is_some_and(|seen| path.note_seen_as(seen));
        let lost_after = path.mapping.answered(probe.token);
        let is_shorter = lost_after.is_some_and(|silence| self.keepalive.lost(silence));
        if way != Way::Relay {
            path.mapping.wanted = probe.keep;
        }
        if let Some(is_translated) = is_translated {
            path.mapping.note_translated(is_translated, watcher);
        }
        let was_sure = path.is_sure();
        match path.answered(probe.token, now) {
            Change::None if !was_sure && path.is_sure() => {
                self.path_changed(id, "an address that was withdrawn answers", now);
            }
            Change::None => self.cost_changed(id, now),
            Change::Alive => self.path_changed(id, "a better path answers", now),
            Change::Size => self.dirty.forwarding = true,
            Change::SizeLost | Change::Dead | Change::Overdue => {}
        }
        if has_moved {
            self.tell_moved(now);
        }
        if is_shorter {
            self.keep_mappings_sooner();
        }
    }

    /// Something about the ways to a peer changed: choose again and tell whom it concerns.
    pub(crate) fn path_changed(&mut self, id: PeerId, reason: &'static str, now: Instant) {
        self.dirty.forwarding = true;
        self.dirty.overlay = true;
        self.dirty.fast.insert(id);
        self.note_udp(id, now);
        self.links_changed(now);
        let hop = self.next_hop(id);
        if self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.best_path(hop).is_none())
        {
            // The routes still lead over what has just died: they are followed first, and then
            // the path is chosen again.
            self.dirty.routes = true;
            self.dirty.choose.insert(id);
            return;
        }
        self.choose(id, reason, now);
    }

    /// Takes the best way to `id` into use.
    pub(crate) fn choose(&mut self, id: PeerId, reason: &'static str, now: Instant) {
        let hop = self.next_hop(id);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.mark_hairpins(&self.observed.outside(now));
        let path = peer.best_path(hop);
        if path == peer.chosen {
            return;
        }
        let is_direct = |path: Option<Path>| matches!(path, Some(Path::Direct(_)));
        if is_direct(path) != is_direct(peer.chosen) {
            // Whether it can hand on what is for others has changed.
            self.dirty.choose.extend(self.routes.beyond(&id));
            self.dirty.choose.remove(&id);
            self.dirty.routes |= !self.dirty.choose.is_empty();
        }
        peer.chosen = path;
        peer.chosen_since = now;
        peer.path_epoch = peer.path_epoch.wrapping_add(1);
        peer.silent_since = None;
        if matches!(path, Some(Path::Relay(_))) {
            peer.relay.turn(now);
        }
        // What was kept in reserve may have ended with the one before, and is asked rarely.
        if let Some(used) = peer.used_mut() {
            used.ask_now(now);
        }
        self.dirty.forwarding = true;
        let (name, was_up) = (peer.name.clone(), peer.reported_up);
        peer.reported_up = path.is_some();
        match path {
            None if was_up => self.events.push_back(Event::PeerDown { peer: id, name }),
            None => {}
            Some(path) => {
                if !was_up {
                    let name = name.clone();
                    self.events.push_back(Event::PeerUp { peer: id, name });
                }
                self.events.push_back(Event::PathChanged {
                    peer: id,
                    name,
                    path: super::tcp::told(path),
                    reason,
                });
            }
        }
    }

    /// A record under the session verified: it may replace an older one now.
    pub(crate) fn confirm(&mut self, index: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        session.finish = None;
        session.heard = now;
        let is_first = !core::mem::replace(&mut session.confirmed, true);
        if !is_first && session.retires_at.is_none() {
            return;
        }
        let id = session.agreement.peer;
        let current = self.peers.get(&id).and_then(|peer| peer.current);
        let old = current.filter(|current| *current != index);
        let (Some(new), old) = (self.sessions.get(&index), old) else {
            return;
        };
        let wins = old
            .and_then(|old| self.sessions.get(&old))
            .is_none_or(|old| {
                // The ends did not choose the same one: what is still heard is in use there.
                let in_use = old.retires_at.is_some() || is_heard_alone(new, old);
                let chosen = if is_first {
                    replaces(new, old, SIMULTANEOUS)
                } else {
                    is_preferred(new, old, SIMULTANEOUS)
                };
                in_use || chosen
            });
        if !is_first && !wins {
            return;
        }
        self.judge_session(id, index, old, wins, now);
        self.path_changed(id, "a session opened", now);
        if is_first {
            self.tell_other_lives(id, now);
        }
    }

    /// One side that opens two sessions at once may have them confirmed in another order than the
    /// other side sees. Who opened them asks its questions under the one it uses, and is followed.
    fn follow_opener(&mut self, index: u32, now: Instant) {
        let Some(session) = self.sessions.get(&index) else {
            return;
        };
        let (id, by_other) = (session.agreement.peer, session.agreement.opener != self.me);
        // A question that was under way when the session was replaced says nothing.
        let is_late = |retires_at: Instant| retires_at + IN_FLIGHT < now + REPLACED_SESSION_GRACE;
        if !by_other || !session.retires_at.is_some_and(is_late) {
            return;
        }
        let current = self.peers.get(&id).and_then(|peer| peer.current);
        let same_opener = |other: &Session| {
            let (a, b) = (&session.agreement, &other.agreement);
            a.opener == b.opener && a.peer_boot.random == b.peer_boot.random
        };
        let crossed = current.filter(|current| self.sessions.get(current).is_some_and(same_opener));
        if crossed.is_some() {
            self.judge_session(id, index, crossed, true, now);
        }
    }

    /// Uses session `index` with a peer from now on if it `wins` over `old`; the loser retires.
    fn judge_session(
        &mut self,
        id: PeerId,
        index: u32,
        old: Option<u32>,
        wins: bool,
        now: Instant,
    ) {
        let loser = if wins { old } else { Some(index) };
        if let Some(loser) = loser.and_then(|loser| self.sessions.get_mut(&loser)) {
            loser.retires_at = Some(now + REPLACED_SESSION_GRACE);
        }
        if let Some(winner) = self.sessions.get_mut(&index).filter(|_| wins) {
            winner.retires_at = None;
        }
        if let Some(peer) = self.peers.get_mut(&id).filter(|_| wins) {
            peer.current = Some(index);
            self.active.insert(id);
            peer.silent_since = None;
            for path in peer.direct.values_mut() {
                path.hurry(now);
            }
            peer.relay.hurry(now);
        }
        self.dirty.forwarding = true;
    }

    /// Ends sessions that are replaced or too old.
    pub(crate) fn expire_sessions(&mut self, now: Instant) {
        for index in self.sessions.due_by(now) {
            let session = self.sessions.get(&index);
            if session.is_some_and(|session| session_end(session) <= now) {
                self.drop_session(index, now);
            }
        }
    }

    pub(crate) fn drop_session(&mut self, index: u32, now: Instant) {
        let Some(session) = self.sessions.remove(&index) else {
            return;
        };
        self.dirty.forwarding = true;
        self.dirty.gone = true;
        let id = session.agreement.peer;
        if let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.current == Some(index))
        {
            peer.current = None;
            for path in peer.direct.values_mut() {
                path.end(now);
            }
            self.dirty.links = true;
            self.path_changed(id, "its session is over", now);
        }
    }

    pub(crate) fn on_send_failure(
        &mut self,
        destination: SocketAddr,
        failure: SendFailure,
        now: Instant,
    ) {
        if let SendFailure::TooBig { len } = failure {
            return self.on_too_big(destination, len, now);
        }
        let is_inside = failure == SendFailure::Inside;
        let reason = match is_inside {
            true => "this host's route to it leads into the mesh itself",
            false => "the kernel refuses to send there",
        };
        self.counters.sends_inside += u64::from(is_inside);
        let mut changed = Vec::new();
        let there = self.peers.values();
        let there = there.filter(|peer| peer.direct.contains_key(&destination));
        for id in there.map(|peer| peer.id).collect::<Vec<_>>() {
            let peer = self.peers.get_mut(&id);
            let path = peer.and_then(|peer| peer.direct.get_mut(&destination));
            if path.is_some_and(|path| path.refuse(is_inside, now) != Change::None) {
                changed.push(id);
            }
        }
        if is_inside {
            self.dirty.fast.extend(self.peers.keys());
        }
        for id in changed {
            self.path_changed(id, reason, now);
        }
    }

    /// Also what is relayed leaves by the way to a neighbour.
    fn on_too_big(&mut self, destination: SocketAddr, len: u16, now: Instant) {
        let is_there = |peer: &&Peer| peer.direct_address() == Some(destination);
        let neighbours: Vec<PeerId> = self.active_peers().filter(is_there).map(|p| p.id).collect();
        let is_relayed =
            |peer: &Peer| matches!(peer.chosen, Some(Path::Relay(by)) if neighbours.contains(&by));
        let concerned = self.active_peers();
        let concerned = concerned.filter(|p| p.direct.contains_key(&destination) || is_relayed(p));
        let mut shrunk = Vec::new();
        for id in concerned.map(|peer| peer.id).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let relay = match is_relayed(peer) {
                true => Some(&mut peer.relay),
                false => None,
            };
            for path in peer.direct.get_mut(&destination).into_iter().chain(relay) {
                let change = path.too_big(len, now);
                self.dirty.forwarding |= change != Change::None;
                shrunk.extend((change == Change::SizeLost).then_some(peer.id));
            }
        }
        for id in shrunk {
            self.note_shrunk(id);
        }
    }
}
