//! The kernel's VXLAN as a way to peers (DESIGN D11): who agrees to it, what goes through it.

mod state;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use rmesh_wire::datagram::{Header, Kind};
use rmesh_wire::payload::{CONTROL_LANE, Head, PayloadKind};
use rmesh_wire::probe::Probe;
use rmesh_wire::{Instant, PeerId};

pub(crate) use state::FastPath;
use state::{Consent, Others, Refusal, Step};

use super::path::{Pace, PathState};
use super::peer::Peer;
use super::{Mesh, Origin};
use crate::api::{Event, FastForwarding, FastReport, FastTransmit};
use crate::limits::TRANSMITS_MAX;

/// Headers of IP and UDP around a heartbeat in its frame, in bytes.
pub(crate) const HEARTBEAT_HEADERS: usize = 20 + 8;

impl Mesh {
    /// A heartbeat arrived through the kernel's VXLAN, and the checksum around it was right or not.
    /// Anything but a probe of an open session is counted and ignored.
    pub fn handle_fast(&mut self, payload: &[u8], is_intact: bool, now: Instant) {
        self.count_received(payload);
        let origin = Origin::Fast {
            peer: None,
            is_intact,
        };
        self.on_datagram(origin, payload, now);
        self.settle(now);
    }

    /// What went through the kernel's VXLAN since the start by the kernel's count, in bytes, both ways
    /// together, for each address that [`crate::FastForwarding::allowed`] names.
    pub fn handle_fast_traffic(&mut self, bytes: &[(IpAddr, u64)], now: Instant) {
        self.on_fast_traffic(bytes, now);
        self.settle(now);
    }

    /// Whether this side lets plaintext cross on a direct path, as far as it can know.
    pub(crate) fn allows_plaintext(
        &self,
        there: SocketAddr,
        path: &PathState,
    ) -> Result<(), Refusal> {
        // Nobody has said yet where this side is seen.
        let seen = path.said.seen_as.ok_or(Refusal::Translated)?;
        if !self.local_addresses.contains(&seen.ip()) || seen.port() != self.port {
            return Err(Refusal::Translated);
        }
        if there.port() != self.port {
            return Err(Refusal::OtherPort);
        }
        let is_allowed = self.policy.allows(seen.ip(), there.ip());
        is_allowed.then_some(()).ok_or(Refusal::NotTrustedHere)
    }

    /// What a probe says to plaintext that takes the way of `origin`; nothing before this side knows where it is
    /// seen.
    pub(crate) fn plaintext_said(&self, id: PeerId, origin: Origin) -> Option<bool> {
        if self.policy.is_never() {
            return Some(false);
        }
        let Some(peer) = self.peers.get(&id) else {
            return Some(false);
        };
        match origin {
            // Nothing crosses there in plaintext.
            Origin::Direct(there) if crate::tcp::is_tcp(there) => Some(false),
            Origin::Direct(there) => {
                let path = peer.direct.get(&there)?;
                path.said.seen_as?;
                Some(self.allows_plaintext(there, path).is_ok())
            }
            Origin::Fast { .. } => Some(peer.fast.to().is_some()),
            Origin::Relayed { .. } => Some(false),
        }
    }

    /// What both sides say to plaintext now.
    fn consent(&self, peer: &Peer) -> Consent {
        if self.policy.is_never() {
            return Consent::Refused(Refusal::PolicyHere);
        }
        let Some(session) = peer.current.and_then(|index| self.sessions.get(&index)) else {
            return Consent::Unheard;
        };
        if !session.agreement.plaintext {
            return Consent::Refused(Refusal::PolicyThere);
        }
        // What this side has against it is known better than what the other has.
        let both = |there: &SocketAddr, path: &PathState| {
            self.allows_plaintext(*there, path)?;
            match path.said.plaintext {
                Some(true) => Ok(()),
                Some(false) | None => Err(Refusal::NotTrustedThere),
            }
        };
        let sure = || peer.direct.iter().filter(|(_, path)| path.is_sure());
        let given = || sure().filter(|(there, path)| both(there, path).is_ok());
        let leads_to = |to: IpAddr| {
            let paths = peer.direct.iter();
            paths.filter(move |(there, _)| there.ip().to_canonical() == to)
        };
        // Whether the tunnel in use works its own heartbeats tell, as long as nobody objects to it, and the
        // other side has not lost that address. Another one whose path still answers may be next to fall silent.
        if let Some(to) = peer.fast.to()
            && leads_to(to).any(|(_, path)| path.inside)
        {
            return Consent::Refused(Refusal::Inside);
        }
        if let Some(to) = peer.fast.in_use() {
            let is_heard = leads_to(to).any(|(_, path)| path.is_sure());
            let is_there = leads_to(to).any(|(_, path)| !path.is_withdrawn());
            if is_there && !is_heard {
                return Consent::Unheard;
            }
        }
        let kept = given().find(|(there, _)| Some(there.ip().to_canonical()) == peer.fast.to());
        let used = given().find(|(there, _)| Some(**there) == peer.direct_address());
        let nearest = given().min_by_key(|(_, path)| path.distance());
        if let Some((there, _)) = kept.or(used).or(nearest) {
            return Consent::Given(there.ip().to_canonical());
        }
        // Only what was said counts against it: a new path has said nothing yet.
        let heard = |(there, path): (&SocketAddr, &PathState)| {
            path.said.seen_as?;
            path.said.plaintext?;
            both(there, path).err()
        };
        sure()
            .find_map(heard)
            .map_or(Consent::Unheard, Consent::Refused)
    }

    /// Takes in what both sides say now, where that may have changed.
    pub(crate) fn refresh_fast(&mut self, now: Instant) {
        let changed = core::mem::take(&mut self.dirty.fast);
        if self.policy.is_never() {
            return;
        }
        for id in changed {
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            let consent = self.consent(peer);
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let before = peer.fast.to();
            let step = peer.fast.agree(consent, now);
            self.dirty.forwarding |= peer.fast.to() != before;
            if peer.fast.deadline().is_some() {
                self.active.insert(id);
            }
            self.fast_changed(id, step);
        }
    }

    /// Heartbeats that are due, and what missing ones mean.
    pub(crate) fn watch_fast(&mut self, now: Instant) {
        if self.policy.is_never() {
            return;
        }
        let is_due = |peer: &Peer| peer.fast.deadline().is_some_and(|due| due <= now);
        for id in self.peers.due_by(now) {
            if self.peers.get(&id).is_some_and(is_due) {
                self.watch_fast_of(id, now);
            }
        }
    }

    fn watch_fast_of(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let others = self.others(peer);
        let is_large = self.is_large();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let pace = peer.pace(is_large, now);
        let was_doubted = peer.fast.is_doubted();
        let (step, is_due) = peer.fast.tick(now, pace, others);
        if peer.fast.is_doubted() && !was_doubted {
            // Before it is left another way has to have answered.
            for path in peer.direct.values_mut() {
                path.suspect(now, now);
            }
            if peer.is_relayed() {
                peer.relay.suspect(now, now);
            }
        }
        if is_due {
            let token = self.random.public_u64();
            self.ask_fast(id, token, pace, now);
        }
        self.fast_changed(id, step);
    }

    fn others(&self, peer: &Peer) -> Others {
        let since = peer.fast.silent_since();
        let direct = peer.direct.values();
        let relay = peer.is_relayed().then_some(&peer.relay);
        let answers = |path: &PathState| path.has_answered_since(since);
        if !direct.chain(relay).any(answers) {
            return Others::Silent;
        }
        let session = peer.current.and_then(|index| self.sessions.get(&index));
        match session.map(|session| session.established) {
            Some(opened) if opened > since => Others::AnswerUnderNewSession(opened),
            Some(_) | None => Others::Answer,
        }
    }

    /// A heartbeat as long as the containers' longest frames.
    fn ask_fast(&mut self, id: PeerId, token: u64, pace: Pace, now: Instant) {
        let overhead = HEARTBEAT_HEADERS + super::liveness::RECORD_OVERHEAD;
        let payload_len = usize::from(self.mtu_bytes).saturating_sub(overhead);
        let origin = Origin::Fast {
            peer: Some(id),
            is_intact: true,
        };
        let payload = self.probe(id, origin, token).encode(payload_len);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let leaves_checksum = peer.fast.leaves_checksum();
        peer.fast.sent(token, pace, now);
        let Some(index) = peer.current else { return };
        if let Some(session) = self.sessions.get_mut(&index) {
            let datagram = session.seal_record(&payload);
            self.transmit_fast(id, datagram, leaves_checksum);
        }
    }

    /// Queues a heartbeat, or an answer to one, for the shell.
    pub(crate) fn transmit_fast(&mut self, id: PeerId, bytes: Vec<u8>, leaves_checksum: bool) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(address) = peer.fast.to() else {
            return;
        };
        peer.fast.note_own(bytes.len());
        if self.fast_transmits.len() >= TRANSMITS_MAX {
            self.fast_transmits.pop_front();
            self.counters.transmits_dropped += 1;
        }
        self.counters.control_datagrams_sent += 1;
        self.counters.control_bytes_sent += bytes.len() as u64;
        self.fast_transmits.push_back(FastTransmit {
            peer: id,
            address,
            bytes,
            leaves_checksum,
        });
    }

    /// Something came through the tunnel: a probe of an open session, or nothing of ours.
    pub(crate) fn on_fast(
        &mut self,
        header: &Header,
        datagram: &[u8],
        is_intact: bool,
        now: Instant,
    ) {
        let is_record = header.kind == Kind::Record && header.lane() == CONTROL_LANE;
        let session = self.sessions.get_mut(&header.receiver);
        let session = session.filter(|session| is_record && session.confirmed);
        let Some(session) = session else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let payload = match session.open_record(header, datagram) {
            Ok(payload) => payload,
            Err(refusal) => return self.count_refusal(refusal),
        };
        let id = session.agreement.peer;
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.fast.note_own(datagram.len());
        }
        match Head::split(&payload) {
            Some((head, body)) if head.kind == PayloadKind::Probe => {
                let origin = Origin::Fast {
                    peer: Some(id),
                    is_intact,
                };
                self.on_probe(header.receiver, origin, head, body, now);
            }
            Some(_) | None => self.counters.datagrams_ignored += 1,
        }
    }

    /// An answer to a heartbeat.
    pub(crate) fn on_fast_answer(&mut self, id: PeerId, probe: &Probe, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let answer = peer.fast.answered(probe.token, probe.damaged, now);
        if let (true, Some(address)) = (answer.shows_damage, peer.fast.to()) {
            self.events.push_back(Event::ChecksumsDamaged {
                peer: id,
                name: peer.name.clone(),
                address,
            });
        }
        self.fast_changed(id, answer.step);
    }

    fn fast_changed(&mut self, id: PeerId, step: Step) {
        let (is_up, reason) = match step {
            Step::None => return,
            Step::Up => (true, "heartbeats come back"),
            Step::Down(reason) => (false, reason),
        };
        self.dirty.forwarding = true;
        // It may be tried at another address now.
        self.dirty.fast.insert(id);
        self.dirty.macs.insert(id);
        // One whose router was silent may only have been kept for this.
        self.dirty.routes |= !is_up;
        if let Some(peer) = self.peers.get(&id) {
            self.events.push_back(Event::FastPathChanged {
                peer: id,
                name: peer.name.clone(),
                address: peer.fast.in_use(),
                reason,
            });
        }
    }

    /// The kernel's counts: whoever's grew by more than heartbeats do carries traffic.
    pub(crate) fn on_fast_traffic(&mut self, bytes: &[(IpAddr, u64)], now: Instant) {
        let by_kernel = self.peers.values().filter(|peer| peer.fast.to().is_some());
        for id in by_kernel.map(|peer| peer.id).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            let to = peer.fast.to();
            let counted = bytes.iter().find(|(address, _)| Some(*address) == to);
            if let Some((_, bytes)) = counted
                && peer.fast.note_counted(*bytes, now)
            {
                peer.wanted_until = now + super::traffic::WANTED;
                peer.note_busy(state::USED, now);
                self.active.insert(peer.id);
            }
        }
    }

    pub(crate) fn fast_forwarding(&self) -> FastForwarding {
        let mut forwarding = FastForwarding::default();
        if self.policy.is_never() {
            return forwarding;
        }
        for (id, peer) in self.peers.iter() {
            let Some(to) = peer.fast.to() else { continue };
            forwarding.tunnels.insert(*id, to);
            forwarding.allowed.insert(to);
            let is_agreed = |(there, path): &(&SocketAddr, &PathState)| {
                path.is_sure()
                    && path.said.plaintext == Some(true)
                    && self.allows_plaintext(**there, path).is_ok()
            };
            let agreed = peer.direct.iter().filter(is_agreed);
            forwarding
                .allowed
                .extend(agreed.map(|(there, _)| there.ip().to_canonical()));
            if let Some(to) = peer.fast.in_use() {
                forwarding.in_use.insert(*id, to);
            }
        }
        forwarding
    }

    pub(crate) fn fast_report(&self, peer: &Peer, now: Instant) -> Option<FastReport> {
        if self.policy.is_never() {
            return None;
        }
        let fast = &peer.fast;
        Some(FastReport {
            address: fast.to(),
            in_use: fast.in_use().is_some(),
            age: now.since(fast.since),
            reason: reason(peer, self.port, now),
            cause: String::from(cause(&peer.fast)),
            round_trip: fast.round_trip(),
            loss_percent: fast.history().loss_percent(),
        })
    }
}

/// Why the tunnel is not used, or what is the matter with it, in a word that stays.
fn cause(fast: &FastPath) -> &'static str {
    if fast.is_held() {
        return "silent";
    }
    if fast.in_use().is_some() {
        return "";
    }
    match (fast.refusal(), fast.to()) {
        (Some(Refusal::PolicyHere), _) => "policy_here",
        (Some(Refusal::PolicyThere), _) => "policy_there",
        (Some(Refusal::NotTrustedHere), _) => "not_trusted_here",
        (Some(Refusal::NotTrustedThere), _) => "not_trusted_there",
        (Some(Refusal::Translated), _) => "translated",
        (Some(Refusal::Inside), _) => "inside",
        (Some(Refusal::OtherPort), _) => "other_port",
        (None, None) => "not_agreed_yet",
        (None, Some(_)) if fast.is_damaged() => "damaged",
        (None, Some(_)) => "unanswered",
    }
}

/// Why the tunnel is not used, or what is the matter with it, for an operator.
fn reason(peer: &Peer, port: u16, now: Instant) -> String {
    let (fast, name) = (&peer.fast, &peer.name);
    if fast.is_held() {
        let silent = now.since(fast.silent_since()).as_secs();
        return format!(
            "{name} has been silent on every way for {silent} s; the kernel goes on meanwhile"
        );
    }
    if fast.in_use().is_some() {
        return String::new();
    }
    let seen = peer.direct.values().find_map(|path| path.said.seen_as);
    match (fast.refusal(), fast.to()) {
        (Some(Refusal::PolicyHere), _) => String::from("this peer encrypts everything"),
        (Some(Refusal::PolicyThere), _) => format!("{name} encrypts everything"),
        (Some(Refusal::NotTrustedHere), _) => {
            String::from("an address of this path is not in --trusted-subnets of this peer")
        }
        (Some(Refusal::NotTrustedThere), _) => {
            format!("{name} does not trust the addresses of this path, or sees them translated")
        }
        (Some(Refusal::Translated), _) => match seen {
            Some(seen) => format!("somebody translates addresses: {name} sees this peer at {seen}"),
            None => String::from("somebody translates addresses"),
        },
        (Some(Refusal::OtherPort), _) => format!(
            "{name} is at another UDP port than this peer, and VXLAN needs the same --port on both"
        ),
        (Some(Refusal::Inside), _) => {
            format!("this host's route to {name} leads into the mesh itself")
        }
        (None, None) => format!("no direct way to {name} has agreed to plaintext yet"),
        (None, Some(_)) if fast.is_damaged() => format!(
            "what goes through it reaches {name} with wrong checksums: a network card on the way breaks them"
        ),
        (None, Some(to)) => format!(
            "no heartbeat through it is answered; does a firewall drop UDP {} to or from {to}?",
            port.saturating_add(1)
        ),
    }
}
