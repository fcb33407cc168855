//! Opening sessions: the three messages of the handshake, in both roles.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::codec::{Bounded, CodecError};
use rmesh_wire::cookie::{CookieParts, FIRST_PAYLOAD_LEN, FirstMessage, MARK_LEN};
use rmesh_wire::datagram::{HEADER_LEN, Header, Kind, VERSION};
use rmesh_wire::handshake::{BINDING_CONTEXT, Cipher, Hello, NAME_LEN_MAX, PROLOGUE};
use rmesh_wire::{Instant, PeerId, codec};

use super::dial::Goal;
use super::guard::{Standing, Verdict};
use super::half_open::{HalfOpen, Remote};
use super::session::{Agreement, Finish, Session};
use super::twin::{Evidence, Twin};
use super::{Mesh, Origin};
use crate::api::{Event, Refusals};
use crate::crypto::{Handshake, HandshakeSetup, Role, peer_id};
use crate::limits::{HALF_OPEN_MAX, SESSIONS_PER_PEER_MAX};

/// The one secret generation there is today.
const GENERATION: u16 = 0;
/// The third message is sent again after this time unless the responder is heard.
const FINISH_RESEND: Duration = Duration::from_millis(300);
const FINISH_TRIES: u8 = 4;
/// How often one message is said again on demand: to all addresses of a peer, some times over.
const ANSWERS_MAX: u8 = 64;
/// Refused handshakes are reported to the operator at most this often.
const REFUSED_REPORT: Duration = Duration::from_secs(1);

/// The counter of a reason to refuse.
pub(super) type RefusedAs = fn(&mut Refusals) -> &mut u64;
const REFUSED_IDENTITY: RefusedAs = |by| &mut by.identity;
const REFUSED_VERSION: RefusedAs = |by| &mut by.version;

/// The other side, as its [`Hello`] proved it.
pub(super) struct Proven {
    peer: PeerId,
    hello: Hello,
    cipher: Cipher,
}

impl Mesh {
    /// Makes a first message for `goal`; returns its index, or `None` at the bound.
    pub(crate) fn open_handshake(&mut self, goal: Goal, now: Instant) -> Option<u32> {
        if self.half_opens.by_index.len() >= HALF_OPEN_MAX {
            return None;
        }
        let index = self.fresh_index();
        let mut state = self.new_handshake(Role::Initiator);
        let header = Header::handshake(Kind::HandshakeInit, GENERATION, index, 0);
        let mut message = Vec::from(header.encode());
        let mut payload = Vec::from(index.to_be_bytes());
        payload.resize(FIRST_PAYLOAD_LEN, 0);
        state.write(&payload, &mut message).ok()?;
        let mark1 = self.guard.mark1(&message);
        message.extend_from_slice(&mark1);
        let half_open = HalfOpen {
            state,
            created: now,
            message,
            goal: Some(goal),
            remote: None,
            answers_left: ANSWERS_MAX,
        };
        self.half_opens.insert(index, half_open);
        Some(index)
    }

    fn new_handshake(&mut self, role: Role) -> Box<dyn Handshake> {
        let randomness = self.random.secret_key();
        self.crypto.handshake(HandshakeSetup {
            role,
            static_key: &self.static_key,
            psk: &self.secret,
            prologue: PROLOGUE,
            randomness,
        })
    }

    /// Sends a first message, with the mark that shows this side's address to be its own if
    /// `origin` gave the cookie for it.
    pub(crate) fn send_first(&mut self, origin: Origin, mut message: Vec<u8>, now: Instant) {
        let mark2 = origin.address().map_or([0; MARK_LEN], |address| {
            self.guard.mark2(address, &message, now)
        });
        message.extend_from_slice(&mark2);
        self.send_to(origin, message, now);
    }

    /// What this side says of itself, behind its index: the header's copy of that is not sealed,
    /// and is not looked at.
    pub(super) fn hello(&self, index: u32, observed: Option<SocketAddr>, now: Instant) -> Vec<u8> {
        let hello = Hello {
            identity: self.identity_public,
            binding: self.binding,
            boot: self.boot,
            name: self.name.clone(),
            versions: (VERSION, VERSION),
            ciphers: Bounded::take_from(self.crypto.ciphers().iter().copied()),
            plaintext_allowed: !self.policy.is_never(),
            observed,
            up_ms: self.up_ms(now),
        };
        let mut payload = Vec::from(index.to_be_bytes());
        payload.extend_from_slice(&codec::encode(&hello).unwrap_or_default());
        payload
    }

    /// A first message: answered only if it shows knowledge of the secret.
    pub(crate) fn on_init(
        &mut self,
        origin: Origin,
        header: &Header,
        datagram: &[u8],
        now: Instant,
    ) {
        let first = FirstMessage::split(datagram);
        let Some((first, ephemeral)) = first.and_then(|f| Some((f, f.noise.first_chunk::<32>()?)))
        else {
            return self.refuse(|by| &mut by.malformed, origin, now);
        };
        if header.generation != GENERATION {
            return self.refuse(|by| &mut by.generation, origin, now);
        }
        if !self.guard.is_marked(&first) {
            return self.refuse(|by| &mut by.secret, origin, now);
        }
        // The initiator sends one message to all addresses it knows: one handshake, many answers.
        if let Some(index) = self.half_opens.by_ephemeral.get(ephemeral).copied() {
            return self.answer_again(index, origin, now);
        }
        let verdict = self
            .guard
            .judge(origin.address(), &first, &mut self.random, now);
        let verdict = match (verdict, origin.address()) {
            (Verdict::Take(standing), source) if !self.half_opens.has_room_for(standing) => {
                let cookie = source.filter(|_| standing == Standing::Unproven);
                cookie.map_or(Verdict::TooMany, |source| {
                    self.guard.offer_cookie(source, now)
                })
            }
            (verdict, _) => verdict,
        };
        match verdict {
            Verdict::Take(standing) => self.accept(origin, &first, (*ephemeral, standing), now),
            Verdict::TooMany => self.counters.handshakes_limited += 1,
            Verdict::Replayed => self.counters.handshakes_replayed += 1,
            Verdict::Cookie(cookie) => {
                let random = &mut self.random;
                let answer = self
                    .guard
                    .seal_cookie(cookie, header.sender(), &first, random);
                self.counters.cookies_sent += 1;
                if let Some(answer) = answer {
                    self.send_to(origin, answer, now);
                }
            }
        }
    }

    fn answer_again(&mut self, index: u32, origin: Origin, now: Instant) {
        let half = self.half_opens.by_index.get_mut(&index);
        let Some(half) = half.filter(|half| half.answers_left > 0) else {
            self.counters.handshakes_limited += 1;
            return;
        };
        half.answers_left -= 1;
        let message = half.message.clone();
        self.send_to(origin, message, now);
    }

    /// Works on a first message and answers it.
    fn accept(
        &mut self,
        origin: Origin,
        first: &FirstMessage<'_>,
        (ephemeral, standing): ([u8; 32], Standing),
        now: Instant,
    ) {
        let mut state = self.new_handshake(Role::Responder);
        let opened = state.read(first.noise).ok();
        let remote_index = opened
            .as_deref()
            .and_then(|payload| Some(split_index(payload)?.0));
        let Some(remote_index) = remote_index else {
            return self.refuse(|by| &mut by.forged, origin, now);
        };
        self.guard.remember(first);
        let index = self.fresh_index();
        let answer = Header::handshake(Kind::HandshakeResponse, GENERATION, index, remote_index);
        let mut message = Vec::from(answer.encode());
        let hello = self.hello(index, origin.seen(), now);
        if state.write(&hello, &mut message).is_err() {
            return;
        }
        let half_open = HalfOpen {
            state,
            created: now,
            message: message.clone(),
            goal: None,
            remote: Some(Remote {
                index: remote_index,
                ephemeral,
                standing,
            }),
            answers_left: ANSWERS_MAX,
        };
        self.half_opens.insert(index, half_open);
        self.send_to(origin, message, now);
    }

    /// A cookie: the first message goes there again, with the mark it asks for. Only to addresses
    /// that this side calls: a cookie is short, and its sender's address may be anybody's. A peer
    /// with several addresses may answer from another one than was called.
    pub(crate) fn on_cookie(
        &mut self,
        origin: Origin,
        header: &Header,
        datagram: &[u8],
        now: Instant,
    ) {
        let half = self.half_opens.by_index.get_mut(&header.receiver);
        let half = half.filter(|half| half.goal.is_some() && half.answers_left > 0);
        let parts = CookieParts::split(datagram);
        let (Some(half), Some(parts), Some(source)) = (half, parts, origin.address()) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let message = half.message.clone();
        let Some(mark1) = message.last_chunk::<MARK_LEN>() else {
            return;
        };
        let Some(cookie) = self.guard.open_cookie(&parts, mark1) else {
            return self.refuse(|by| &mut by.forged, origin, now);
        };
        half.answers_left -= 1;
        let Some(goal) = half.goal.clone() else {
            return;
        };
        let called = self.dial_origins(&goal, now).into_iter();
        let called: Vec<SocketAddr> = called.filter_map(Origin::address).collect();
        let from_called = called.contains(&source);
        for address in called {
            let meant = address == source || (!from_called && !self.guard.has_given(address, now));
            if meant && self.guard.keep_cookie(address, cookie, now) {
                self.send_first(Origin::Direct(address), message.clone(), now);
            }
        }
    }

    /// A second message: the responder knows the secret and says who it is.
    pub(crate) fn on_response(
        &mut self,
        origin: Origin,
        header: &Header,
        datagram: &[u8],
        now: Instant,
    ) {
        let half = self.half_opens.by_index.get_mut(&header.receiver);
        let Some(half) = half.filter(|half| half.goal.is_some()) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        // A forged answer leaves the handshake as it was: the genuine one may still come.
        let Ok(payload) = half
            .state
            .read(datagram.get(HEADER_LEN..).unwrap_or_default())
        else {
            return self.refuse(|by| &mut by.forged, origin, now);
        };
        let Some(mut half) = self.half_opens.remove(header.receiver) else {
            return;
        };
        let opened = split_index(&payload).ok_or(REFUSED_IDENTITY);
        let opened =
            opened.and_then(|(index, hello)| Ok((index, self.prove(hello, half.state.as_ref())?)));
        let (remote_index, proven) = match opened {
            Ok(opened) => opened,
            Err(reason) => return self.refuse(reason, origin, now),
        };
        let goal = half.goal.take();
        if proven.peer == self.me && proven.hello.boot.random == self.boot.random {
            return self.met_myself(goal, origin);
        }
        let finish = Header::handshake(
            Kind::HandshakeFinish,
            GENERATION,
            header.receiver,
            remote_index,
        );
        let mut message = Vec::from(finish.encode());
        let hello = self.hello(header.receiver, origin.seen(), now);
        let written = half.state.write(&hello, &mut message);
        let (Ok(()), Some((seal_key, open_key))) = (written, half.state.split()) else {
            return;
        };
        let agreement = Agreement {
            local_index: header.receiver,
            remote_index,
            peer: proven.peer,
            peer_boot: proven.hello.boot,
            opener: self.me,
            cipher: proven.cipher,
            plaintext: self.both_allow(&proven.hello),
            seal_key,
            open_key,
        };
        let finish = Finish {
            message: message.clone(),
            to: origin,
            resend_at: now + FINISH_RESEND,
            tries_left: FINISH_TRIES,
        };
        self.send_to(origin, message, now);
        if proven.peer == self.me {
            // Told by the third message, the twin knows as well.
            self.dial_answered(goal, self.me, origin, now);
            return self.heard_twin(proven.hello, origin, now);
        }
        if self.gives_way() {
            return;
        }
        self.dial_answered(goal, proven.peer, origin, now);
        self.establish(agreement, proven.hello, Some(finish), origin, now);
    }

    /// A third message: the initiator says who it is; the session is there.
    pub(crate) fn on_finish(
        &mut self,
        origin: Origin,
        header: &Header,
        datagram: &[u8],
        now: Instant,
    ) {
        let half = self.half_opens.by_index.get_mut(&header.receiver);
        let remote = half.as_ref().and_then(|half| half.remote);
        let (Some(half), Some(remote)) = (half, remote) else {
            self.counters.datagrams_ignored += 1;
            return;
        };
        let Ok(payload) = half
            .state
            .read(datagram.get(HEADER_LEN..).unwrap_or_default())
        else {
            return self.refuse(|by| &mut by.forged, origin, now);
        };
        let Some(mut half) = self.half_opens.remove(header.receiver) else {
            return;
        };
        let proven = split_index(&payload)
            .filter(|(index, _)| *index == remote.index)
            .ok_or(REFUSED_IDENTITY)
            .and_then(|(_, hello)| self.prove(hello, half.state.as_ref()));
        let proven = match proven {
            Ok(proven) => proven,
            Err(reason) => return self.refuse(reason, origin, now),
        };
        if proven.peer == self.me {
            return self.heard_twin(proven.hello, origin, now);
        }
        let Some((open_key, seal_key)) = half.state.split() else {
            return;
        };
        let agreement = Agreement {
            local_index: header.receiver,
            remote_index: remote.index,
            peer: proven.peer,
            peer_boot: proven.hello.boot,
            opener: proven.peer,
            cipher: proven.cipher,
            plaintext: self.both_allow(&proven.hello),
            seal_key,
            open_key,
        };
        self.establish(agreement, proven.hello, None, origin, now);
    }

    /// Checks everything a [`Hello`] claims; or says how it is to be counted.
    pub(super) fn prove(&self, payload: &[u8], state: &dyn Handshake) -> Result<Proven, RefusedAs> {
        let hello: Hello = codec::decode(payload).map_err(|error| match error {
            CodecError::Version(_) => REFUSED_VERSION,
            _ => REFUSED_IDENTITY,
        })?;
        let (lowest, highest) = hello.versions;
        if !(lowest..=highest).contains(&VERSION) {
            return Err(REFUSED_VERSION);
        }
        self.prove_hello(hello, state).ok_or(REFUSED_IDENTITY)
    }

    fn prove_hello(&self, hello: Hello, state: &dyn Handshake) -> Option<Proven> {
        let sane = hello.name.len() <= NAME_LEN_MAX && !hello.name.chars().any(char::is_control);
        let mut signed = Vec::from(BINDING_CONTEXT);
        signed.extend_from_slice(&state.remote_static()?);
        if !sane || !self.crypto.verify(&hello.identity, &signed, &hello.binding) {
            return None;
        }
        // Both ends see both offers and take the same one: the last of the fixed order.
        let offered = self
            .crypto
            .ciphers()
            .iter()
            .filter(|cipher| hello.ciphers.as_slice().contains(cipher));
        let cipher = offered.max().copied()?;
        Some(Proven {
            peer: peer_id(&hello.identity),
            hello,
            cipher,
        })
    }

    fn both_allow(&self, hello: &Hello) -> bool {
        hello.plaintext_allowed && !self.policy.is_never()
    }

    fn establish(
        &mut self,
        agreement: Agreement,
        hello: Hello,
        finish: Option<Finish>,
        origin: Origin,
        now: Instant,
    ) {
        let (index, peer) = (agreement.local_index, agreement.peer);
        let Some(mut session) = Session::new(agreement, self.crypto.as_ref(), now) else {
            return;
        };
        session.finish = finish;
        self.counters.handshakes_completed += 1;
        self.sessions.insert(index, session);
        self.bound_sessions(peer, now);
        self.meet(peer, &hello.name, now);
        self.note_observed(hello.observed, now);
        if let Some((address, entry)) = origin.address().zip(self.peers.get_mut(&peer)) {
            entry.add_candidate(address, now);
            self.note_sent(peer, address, now);
        }
        self.dirty.forwarding = true;
        // Each side lets the other verify a record, which is what makes the session usable.
        self.ask_under(index, origin, now);
    }

    /// Ends the oldest session with a peer that has opened too many.
    fn bound_sessions(&mut self, id: PeerId, now: Instant) {
        let current = self.peers.get(&id).and_then(|peer| peer.current);
        let of_peer = self.sessions.iter().filter(|(_, s)| s.agreement.peer == id);
        let mut ages: Vec<(Instant, u32)> = of_peer.map(|(at, s)| (s.established, *at)).collect();
        if ages.len() <= SESSIONS_PER_PEER_MAX {
            return;
        }
        ages.sort_unstable();
        let oldest = ages.into_iter().find(|(_, at)| Some(*at) != current);
        if let Some((_, oldest)) = oldest {
            self.drop_session(oldest, now);
        }
    }

    fn refuse(&mut self, reason: RefusedAs, origin: Origin, now: Instant) {
        self.counters.handshakes_refused += 1;
        self.refused_last = Some(now);
        *reason(&mut self.counters.handshakes_refused_by) += 1;
        let Some(source) = origin.address() else {
            return;
        };
        self.note_unwelcome(source);
        if now >= self.next_refused_report {
            self.next_refused_report = now + REFUSED_REPORT;
            let source = crate::tcp::unmarked(source);
            self.events.push_back(Event::HandshakeRefused { source });
        }
    }

    /// Sends third messages again whose responder has not been heard; gives up after some tries.
    pub(crate) fn resend_finishes(&mut self, now: Instant) {
        let mut resend = Vec::new();
        let mut dead = Vec::new();
        for index in self.sessions.due_by(now) {
            let session = self.sessions.get_mut(&index);
            let finish = session.and_then(|session| session.finish.as_mut());
            let Some(finish) = finish.filter(|finish| now >= finish.resend_at) else {
                continue;
            };
            if finish.tries_left == 0 {
                dead.push(index);
                continue;
            }
            finish.tries_left -= 1;
            finish.resend_at = now + FINISH_RESEND;
            resend.push((index, finish.to, finish.message.clone()));
        }
        for (index, to, message) in resend {
            self.send_to(to, message, now);
            self.ask_under(index, to, now);
        }
        for index in dead {
            self.drop_session(index, now);
        }
    }

    /// The other end of a handshake has this peer's identity and is not this peer.
    fn heard_twin(&mut self, hello: Hello, origin: Origin, now: Instant) {
        if hello.boot.random == self.boot.random {
            return;
        }
        let twin = Twin {
            life: hello.boot.random,
            up: Duration::from_millis(hello.up_ms),
            name: hello.name,
            addresses: origin.seen().into_iter().collect(),
        };
        self.meet_twin(twin, Evidence::Heard, now);
    }

    fn met_myself(&mut self, goal: Option<Goal>, origin: Origin) {
        let address = origin.address();
        self.own_addresses_met.extend(address);
        if let Some(Goal::Target(name)) = goal {
            self.target_is_me(&name, address);
        }
    }
}

/// The sender's index and the rest of a handshake message's payload.
fn split_index(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (index, rest) = payload.split_first_chunk()?;
    Some((u32::from_be_bytes(*index), rest))
}

/// A name as it goes on the wire: without control characters, cut at [`NAME_LEN_MAX`] bytes.
pub(crate) fn wire_name(name: &str) -> String {
    let mut cut = String::new();
    for character in name.chars().filter(|c| !c.is_control()) {
        if cut.len() + character.len_utf8() > NAME_LEN_MAX {
            break;
        }
        cut.push(character);
    }
    cut
}
