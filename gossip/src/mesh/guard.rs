//! Who may start a handshake, and how often: nothing a stranger sends costs public-key work, and
//! nothing a recorded message costs much of it (DESIGN D3; WireGuard's paper, section 5.3).
//!
//! In this order: the first mark shows knowledge of the secret for the price of one hash; a first
//! message that was read before is a replay; each source has an allowance; and when more arrive
//! than this peer wants to work on, a sender has to show by a cookie that it receives what is sent
//! to its address. What comes through a neighbour's session has shown all that.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};
use rmesh_wire::Instant;
use rmesh_wire::cookie::{CookieParts, FirstMessage, MARK_LEN, Mark, NONCE_LEN};
use rmesh_wire::datagram::{Header, Kind};
use rmesh_wire::handshake::Cipher;

use crate::crypto::{Aead, Crypto, Key};
use crate::random::Random;
use crate::topology::store::finish;

/// First messages one source may send at once, and a second after that: a whole site behind one
/// address may start at the same moment.
const SOURCE_BURST: u32 = 128;
const SOURCE_PER_S: u32 = 64;
/// First messages without a cookie worked on at once, and a second: at 0.3 ms each a twentieth of
/// a core.
const UNPROVEN_BURST: u32 = 256;
const UNPROVEN_PER_S: u32 = 128;
/// Cookies handed out a second.
const COOKIES_PER_S: u32 = 512;
/// Allowances kept; sources share one if their hashes collide. Those that have shown a cookie have
/// their own table, which spoofed addresses cannot fill.
const SOURCES: usize = 1_024;
/// First messages remembered as read, so that a recording of them is told at once.
const SEEN_MAX: usize = 4_096;
/// A cookie's key lives this long, and its cookies as long again.
const COOKIE_KEY_LIFETIME: Duration = Duration::from_secs(120);
/// Cookies kept that others gave.
const COOKIES_MAX: usize = 256;

/// What the sender of a first message has shown beyond knowledge of the secret, which a recording
/// shows as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    Unproven,
    /// By a cookie, that its address is its own.
    Proven,
    /// It came through a neighbour's session.
    Relayed,
}

/// What to do with a first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Work on it, if there is a place for one of this standing.
    Take(Standing),
    /// Answer with this cookie only.
    Cookie(Mark),
    /// It was read before.
    Replayed,
    /// Too many: from this source, or of all.
    TooMany,
}

/// Tokens that come back with time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowance {
    used: u32,
    since: Instant,
}

impl Allowance {
    /// Takes a token if there is one, of `burst` at most and `per_s` new ones a second.
    pub(crate) fn take(&mut self, burst: u32, per_s: u32, now: Instant) -> bool {
        let back = now.since(self.since).as_millis() * u128::from(per_s) / 1_000;
        if back > 0 {
            self.used = self
                .used
                .saturating_sub(u32::try_from(back).unwrap_or(u32::MAX));
            self.since = now;
        }
        let free = self.used < burst;
        self.used += u32::from(free);
        free
    }

    /// Whether [`Allowance::take`] would find one now.
    pub(crate) fn is_left(&mut self, burst: u32, per_s: u32, now: Instant) -> bool {
        let free = self.take(burst, per_s, now);
        self.used -= u32::from(free);
        free
    }
}

/// The keys and the memory of all that.
pub(crate) struct Guard {
    mark_key: Key,
    seal: Option<Box<dyn Aead>>,
    cookie_keys: [Key; 2],
    rotate_at: Instant,
    source_key: u64,
    sources: Vec<Allowance>,
    proven_sources: Vec<Allowance>,
    unproven: Allowance,
    cookies_sent: Allowance,
    seen: BTreeSet<[u8; 32]>,
    seen_order: VecDeque<[u8; 32]>,
    cookies: BTreeMap<SocketAddr, (Mark, Instant)>,
}

impl Guard {
    pub(crate) fn new(
        secret: &Key,
        crypto: &dyn Crypto,
        random: &mut Random,
        now: Instant,
    ) -> Self {
        let seal_key = derive(secret, b"rmesh cookie seal v1");
        Guard {
            mark_key: mark_key(secret),
            seal: crypto.aead(Cipher::ChaCha20Poly1305, &seal_key),
            cookie_keys: [random.secret_key(), random.secret_key()],
            rotate_at: now + COOKIE_KEY_LIFETIME,
            source_key: random.public_u64(),
            sources: alloc::vec![Allowance::default(); SOURCES],
            proven_sources: alloc::vec![Allowance::default(); SOURCES],
            unproven: Allowance::default(),
            cookies_sent: Allowance::default(),
            seen: BTreeSet::new(),
            seen_order: VecDeque::new(),
            cookies: BTreeMap::new(),
        }
    }

    /// Whether the sender knows the secret.
    pub(crate) fn is_marked(&self, first: &FirstMessage<'_>) -> bool {
        is_mac(self.mark_key.bytes(), &[first.marked], &first.mark1)
    }

    /// Mark 1 of what a first message begins with.
    pub(crate) fn mark1(&self, marked: &[u8]) -> Mark {
        mark1(&self.mark_key, marked)
    }

    /// Mark 2 for a first message to `destination`; zero without a cookie from there.
    pub(crate) fn mark2(&self, destination: SocketAddr, before: &[u8], now: Instant) -> Mark {
        let cookie = self.cookies.get(&destination);
        let fresh = cookie.filter(|(_, since)| now.since(*since) < COOKIE_KEY_LIFETIME);
        fresh.map_or([0; MARK_LEN], |(cookie, _)| mac(cookie, &[before]))
    }

    /// What to do with a marked first message that is not being worked on yet. `source` is `None`
    /// if it came through a neighbour's session.
    pub(crate) fn judge(
        &mut self,
        source: Option<SocketAddr>,
        first: &FirstMessage<'_>,
        random: &mut Random,
        now: Instant,
    ) -> Verdict {
        if ephemeral(first).is_none_or(|key| self.seen.contains(key)) {
            return Verdict::Replayed;
        }
        let Some(source) = source else {
            return Verdict::Take(Standing::Relayed);
        };
        self.rotate(random, now);
        let proven = self.has_cookie(source, first);
        let slot = self.slot(source.ip());
        let table = if proven {
            &mut self.proven_sources
        } else {
            &mut self.sources
        };
        let allowed = table
            .get_mut(slot)
            .is_some_and(|source| source.take(SOURCE_BURST, SOURCE_PER_S, now));
        match (proven, allowed) {
            (true, true) => Verdict::Take(Standing::Proven),
            (true, false) => Verdict::TooMany,
            (false, true) if self.unproven.take(UNPROVEN_BURST, UNPROVEN_PER_S, now) => {
                Verdict::Take(Standing::Unproven)
            }
            // Whoever used up the allowance may have lied about its address: the one whose it is
            // shows that by a cookie.
            (false, _) => self.offer_cookie(source, now),
        }
    }

    /// A cookie for `source`, if not too many are handed out already.
    pub(crate) fn offer_cookie(&mut self, source: SocketAddr, now: Instant) -> Verdict {
        if self.cookies_sent.take(COOKIES_PER_S, COOKIES_PER_S, now) {
            return Verdict::Cookie(cookie(&self.cookie_keys[0], source));
        }
        Verdict::TooMany
    }

    /// A first message was read: it is never read again.
    pub(crate) fn remember(&mut self, first: &FirstMessage<'_>) {
        let Some(key) = ephemeral(first) else { return };
        if self.seen.insert(*key) {
            self.seen_order.push_back(*key);
        }
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    /// The datagram that gives `cookie` to the sender of `first`, and to nobody without the secret.
    pub(crate) fn seal_cookie(
        &self,
        mut cookie: Mark,
        receiver: u32,
        first: &FirstMessage<'_>,
        random: &mut Random,
    ) -> Option<Vec<u8>> {
        let header = Header::handshake(Kind::Cookie, 0, 0, receiver).encode();
        let mut nonce = [0; NONCE_LEN];
        let (high, low) = (random.public_u64(), random.public_u32());
        nonce[..8].copy_from_slice(&high.to_be_bytes());
        nonce[8..].copy_from_slice(&low.to_be_bytes());
        let bound = bound(&header, &first.mark1);
        let tag = self.seal.as_ref()?.seal(&nonce, &bound, &mut cookie);
        Some([&header[..], &nonce, &cookie, &tag].concat())
    }

    /// The cookie given in answer to a first message with `mark1`, if it is genuine.
    pub(crate) fn open_cookie(&self, parts: &CookieParts<'_>, mark1: &Mark) -> Option<Mark> {
        let mut cookie = *parts.sealed;
        let bound = bound(parts.header, mark1);
        let opened = self.seal.as_ref().is_some_and(|seal| {
            seal.open(parts.nonce, &bound, &mut cookie, parts.tag)
                .is_ok()
        });
        opened.then_some(cookie)
    }

    /// Whether a cookie for `address` is kept.
    pub(crate) fn has_given(&self, address: SocketAddr, now: Instant) -> bool {
        let kept = self.cookies.get(&address);
        kept.is_some_and(|(_, since)| now.since(*since) < COOKIE_KEY_LIFETIME)
    }

    /// Keeps a cookie for `address`; whether it is news. Whoever sends a recorded one again is told
    /// nothing more.
    pub(crate) fn keep_cookie(&mut self, address: SocketAddr, cookie: Mark, now: Instant) -> bool {
        let fresh = |since: Instant| now.since(since) < COOKIE_KEY_LIFETIME;
        let kept = self.cookies.get(&address);
        if kept.is_some_and(|(kept, since)| *kept == cookie && fresh(*since)) {
            return false;
        }
        if self.cookies.len() >= COOKIES_MAX {
            self.cookies.retain(|_, (_, since)| fresh(*since));
        }
        let room = self.cookies.len() < COOKIES_MAX || self.cookies.contains_key(&address);
        if room {
            self.cookies.insert(address, (cookie, now));
        }
        room
    }

    fn has_cookie(&self, source: SocketAddr, first: &FirstMessage<'_>) -> bool {
        let shown = |key: &Key| {
            let cookie = cookie(key, source);
            is_mac(&cookie, &[first.marked, &first.mark1], &first.mark2)
        };
        first.mark2 != [0; MARK_LEN] && self.cookie_keys.iter().any(shown)
    }

    fn rotate(&mut self, random: &mut Random, now: Instant) {
        if now >= self.rotate_at {
            self.rotate_at = now + COOKIE_KEY_LIFETIME;
            self.cookie_keys.swap(0, 1);
            self.cookie_keys[0] = random.secret_key();
        }
    }

    /// An IPv4 host or an IPv6 /64 counts as one source.
    fn slot(&self, ip: IpAddr) -> usize {
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => u64::from(u32::from(ip)),
            IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
        };
        let mixed = finish(network ^ self.source_key);
        usize::try_from(mixed % SOURCES as u64).unwrap_or(0)
    }
}

fn ephemeral<'a>(first: &FirstMessage<'a>) -> Option<&'a [u8; 32]> {
    first.noise.first_chunk::<32>()
}

fn bound(header: &[u8], mark1: &Mark) -> Vec<u8> {
    [header, mark1].concat()
}

fn cookie(key: &Key, source: SocketAddr) -> Mark {
    let port = source.port().to_be_bytes();
    match source.ip() {
        IpAddr::V4(ip) => mac(key.bytes(), &[&ip.octets(), &port]),
        IpAddr::V6(ip) => mac(key.bytes(), &[&ip.octets(), &port]),
    }
}

/// Mark 1 under the key [`mark_key`] gives.
pub(crate) fn mark1(key: &Key, marked: &[u8]) -> Mark {
    mac(key.bytes(), &[marked])
}

/// Key of the first mark.
pub(crate) fn mark_key(secret: &Key) -> Key {
    derive(secret, b"rmesh first mark v1")
}

fn derive(secret: &Key, label: &[u8]) -> Key {
    Key::made_by(|key| {
        for (half, part) in (0u8..).zip(key.chunks_exact_mut(MARK_LEN)) {
            part.copy_from_slice(&mac(secret.bytes(), &[label, &[half]]));
        }
    })
}

/// Keyed BLAKE2s (RFC 7693) of 16 bytes.
fn keyed(key: &[u8], parts: &[&[u8]]) -> Option<Blake2sMac<U16>> {
    // Keys here have 16 or 32 bytes; BLAKE2s takes up to 32.
    let mut mac = Blake2sMac::<U16>::new_from_slice(key).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac)
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Mark {
    keyed(key, parts).map_or([0; MARK_LEN], |mac| mac.finalize().into_bytes().into())
}

/// Compared in constant time.
fn is_mac(key: &[u8], parts: &[&[u8]], mark: &Mark) -> bool {
    keyed(key, parts).is_some_and(|mac| mac.verify_slice(mark).is_ok())
}
