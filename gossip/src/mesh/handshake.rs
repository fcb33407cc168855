//! Opening sessions: the three messages of the handshake, in both roles.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::codec::Bounded;
use rmesh_wire::cookie::{CookieParts, FIRST_PAYLOAD_LEN, FirstMessage, MARK_LEN};
use rmesh_wire::datagram::{HEADER_LEN, Header, Kind, VERSION};
use rmesh_wire::handshake::{BINDING_CONTEXT, Cipher, Hello, NAME_LEN_MAX, PROLOGUE};
use rmesh_wire::{Instant, PeerId, codec};

use super::dial::Goal;
use super::guard::Verdict;
use super::session::{Agreement, Finish, Session};
use super::twin::{Evidence, Twin};
use super::{Mesh, Origin};
use crate::api::{Event, Refusals};
use crate::crypto::{Handshake, HandshakeSetup, Role, peer_id};
use crate::limits::{HALF_OPEN_MAX, HALF_OPEN_TIMEOUT};

/// The one secret generation there is today.
const GENERATION: u16 = 0;
/// The third message is sent again after this time unless the responder is heard.
const FINISH_RESEND: Duration = Duration::from_millis(300);
const FINISH_TRIES: u8 = 4;
/// How often one message is said again on demand: to all addresses of a peer, some times over.
const ANSWERS_MAX: u8 = 64;
/// Refused handshakes are reported to the operator at most this often.
const REFUSED_REPORT: Duration = Duration::from_secs(1);

/// A handshake that is under way.
pub(crate) struct HalfOpen {
    state: Box<dyn Handshake>,
    created: Instant,
    /// What this side sent last; sent again when the other side repeats itself.
    message: Vec<u8>,
    /// As initiator: what it is for.
    goal: Option<Goal>,
    /// As responder: the other side's index and the ephemeral key of its first message.
    remote: Option<(u32, [u8; 32])>,
    /// How often this side may still say its message again when the other asks for it.
    answers_left: u8,
}

/// All handshakes under way, by local index.
#[derive(Default)]
pub(crate) struct HalfOpens {
    by_index: BTreeMap<u32, HalfOpen>,
    by_ephemeral: BTreeMap<[u8; 32], u32>,
}

impl HalfOpens {
    pub(crate) fn contains(&self, index: u32) -> bool {
        self.by_index.contains_key(&index)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_index.len()
    }

    fn insert(&mut self, index: u32, half_open: HalfOpen) {
        if let Some((_, ephemeral)) = half_open.remote {
            self.by_ephemeral.insert(ephemeral, index);
        }
        self.by_index.insert(index, half_open);
    }

    /// Whether one more can be taken from somebody else; the other half is for those of this side.
    fn has_room_for_others(&self) -> bool {
        self.by_ephemeral.len() < HALF_OPEN_MAX / 2
    }

    fn remove(&mut self, index: u32) -> Option<HalfOpen> {
        let half_open = self.by_index.remove(&index)?;
        if let Some((_, ephemeral)) = half_open.remote {
            self.by_ephemeral.remove(&ephemeral);
        }
        Some(half_open)
    }

    /// Forgets the ones that took too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |half: &HalfOpen| now.since(half.created) >= HALF_OPEN_TIMEOUT;
        let gone: Vec<u32> = self
            .by_index
            .iter()
            .filter(|(_, half)| late(half))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            self.remove(index);
        }
    }

    /// When the next one takes too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_index
            .values()
            .map(|half| half.created + HALF_OPEN_TIMEOUT)
            .min()
    }

    /// The first message of a handshake this side opened, if it is young enough to be repeated.
    pub(crate) fn message(&self, index: u32, now: Instant) -> Option<Vec<u8>> {
        let half = self.by_index.get(&index)?;
        (now.since(half.created) < HALF_OPEN_TIMEOUT * 4 / 5).then(|| half.message.clone())
    }
}

/// The other side, as its [`Hello`] proved it.
struct Proven {
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
    fn hello(&self, index: u32, observed: Option<SocketAddr>, now: Instant) -> Vec<u8> {
        let hello = Hello {
            identity: self.identity_public,
            binding: self.binding,
            boot: self.boot,
            name: self.name.clone(),
            versions: (VERSION, VERSION),
            ciphers: Bounded::take_from(self.crypto.ciphers().iter().copied()),
            plaintext_allowed: false,
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
        match verdict {
            Verdict::Take if self.half_opens.has_room_for_others() => {
                self.accept(origin, &first, *ephemeral, now);
            }
            Verdict::Take | Verdict::TooMany => self.counters.handshakes_limited += 1,
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
        ephemeral: [u8; 32],
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
        let hello = self.hello(index, origin.address(), now);
        if state.write(&hello, &mut message).is_err() {
            return;
        }
        let half_open = HalfOpen {
            state,
            created: now,
            message: message.clone(),
            goal: None,
            remote: Some((remote_index, ephemeral)),
            answers_left: ANSWERS_MAX,
        };
        self.half_opens.insert(index, half_open);
        self.send_to(origin, message, now);
    }

    /// A cookie: the first message goes there again, with the mark it asks for.
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
        if !self.guard.take_cookie(source, &parts, mark1, now) {
            return self.refuse(|by| &mut by.forged, origin, now);
        }
        half.answers_left -= 1;
        self.send_first(origin, message, now);
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
        let opened = split_index(&payload)
            .and_then(|(index, hello)| Some((index, self.prove(hello, half.state.as_ref())?)));
        let Some((remote_index, proven)) = opened else {
            return self.refuse(|by| &mut by.identity, origin, now);
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
        let hello = self.hello(header.receiver, origin.address(), now);
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
        let (Some(half), Some((remote_index, _))) = (half, remote) else {
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
            .filter(|(index, _)| *index == remote_index)
            .and_then(|(_, hello)| self.prove(hello, half.state.as_ref()));
        let Some(proven) = proven else {
            return self.refuse(|by| &mut by.identity, origin, now);
        };
        if proven.peer == self.me {
            return self.heard_twin(proven.hello, origin, now);
        }
        let Some((open_key, seal_key)) = half.state.split() else {
            return;
        };
        let agreement = Agreement {
            local_index: header.receiver,
            remote_index,
            peer: proven.peer,
            peer_boot: proven.hello.boot,
            opener: proven.peer,
            cipher: proven.cipher,
            seal_key,
            open_key,
        };
        self.establish(agreement, proven.hello, None, origin, now);
    }

    /// Checks everything a [`Hello`] claims.
    fn prove(&self, payload: &[u8], state: &dyn Handshake) -> Option<Proven> {
        let hello: Hello = codec::decode(payload).ok()?;
        let (lowest, highest) = hello.versions;
        let sane = hello.name.len() <= NAME_LEN_MAX
            && !hello.name.chars().any(char::is_control)
            && (lowest..=highest).contains(&VERSION);
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
        self.meet(peer, &hello.name, now);
        self.note_observed(hello.observed, now);
        if let Some((address, entry)) = origin.address().zip(self.peers.get_mut(&peer)) {
            entry.add_candidate(address, now);
        }
        self.dirty.forwarding = true;
        // Each side lets the other verify a record, which is what makes the session usable.
        self.ask_under(index, origin, now);
    }

    fn refuse(&mut self, reason: fn(&mut Refusals) -> &mut u64, origin: Origin, now: Instant) {
        self.counters.handshakes_refused += 1;
        *reason(&mut self.counters.handshakes_refused_by) += 1;
        let Some(source) = origin.address() else {
            return;
        };
        if now >= self.next_refused_report {
            self.next_refused_report = now + REFUSED_REPORT;
            self.events.push_back(Event::HandshakeRefused { source });
        }
    }

    /// Sends third messages again whose responder has not been heard; gives up after some tries.
    pub(crate) fn resend_finishes(&mut self, now: Instant) {
        let mut resend = Vec::new();
        let mut dead = Vec::new();
        for (index, session) in &mut self.sessions {
            let Some(finish) = session.finish.as_mut().filter(|f| now >= f.resend_at) else {
                continue;
            };
            if finish.tries_left == 0 {
                dead.push(*index);
                continue;
            }
            finish.tries_left -= 1;
            finish.resend_at = now + FINISH_RESEND;
            resend.push((*index, finish.to, finish.message.clone()));
        }
        for (index, to, message) in resend {
            self.send_to(to, message, now);
            self.ask_under(index, to, now);
        }
        for index in dead {
            self.drop_session(index);
        }
    }

    pub(crate) fn finish_deadline(&self) -> Option<Instant> {
        self.sessions
            .values()
            .filter_map(|s| Some(s.finish.as_ref()?.resend_at))
            .min()
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
            addresses: origin.address().into_iter().collect(),
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
