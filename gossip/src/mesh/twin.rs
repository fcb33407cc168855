//! Two hosts that run with one identity, because a state folder was copied (DESIGN D8).
//!
//! Their records outbid each other and each takes over the other's sessions, so one has to give
//! way: the life that began later. It says so, takes no part in the mesh, and calls its twin now and
//! then; when that answers no more it comes back by itself. The one that goes on tells everybody in
//! its record, so that every peer's status names both.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use super::dial::Goal;
use super::session::Session;
use super::watched::Watched;
use super::{Mesh, Origin};
use crate::api::Event;
use crate::limits::ADDRESSES_MAX;
use crate::topology::control::pack_records;
use crate::topology::macs::Macs;
use crate::topology::record::{Body, Record};
use crate::topology::{Routes, Store};

/// Lives that began within this time of each other count as equally old: what they say of their
/// age has been under way for a while. The larger random number goes on then.
const SAME_AGE: Duration = Duration::from_secs(5);
/// Conflicts in a row after which the random number alone decides, should the two have judged
/// their ages differently.
const CONFLICTS_MAX: u32 = 3;
/// Conflicts further apart than this are not in a row.
const CONFLICT_WINDOW: Duration = Duration::from_secs(60);
/// Records are this much older than they say: the time they were under way.
const AGE_SLACK: Duration = Duration::from_secs(1);
/// A life this young cannot tell yet whether a fresh record is an earlier life's.
const EARLY: Duration = Duration::from_millis(2_500);
/// How often one that gave way calls its twin …
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// … and after what silence it comes back: three calls without an answer, and a half-open's time.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// It stays away at least this long, twice as long each time: two that cannot call each other
/// would otherwise meet in others' records all the time.
const HOLD_MIN: Duration = Duration::from_secs(60);
const HOLD_MAX: Duration = Duration::from_secs(600);
/// A twin that was heard itself is remembered for this long, …
const HEARD_LIFETIME: Duration = Duration::from_secs(40);
/// … one known by a record longer: it may be staying away.
const RECORD_LIFETIME: Duration = Duration::from_secs(900);

/// The other host, as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Twin {
    /// Its life's random number.
    pub(crate) life: u64,
    /// How long that life has lasted.
    pub(crate) up: Duration,
    /// The name it goes by.
    pub(crate) name: String,
    /// Where it is, at most [`ADDRESSES_MAX`].
    pub(crate) addresses: Vec<SocketAddr>,
}

/// How a twin was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It took part in a handshake.
    Heard,
    /// It publishes.
    Record,
}

struct GivingWay {
    not_before: Instant,
    heard: Instant,
    next_check: Instant,
    hints: Vec<SocketAddr>,
}

/// What is known of a twin, and what follows from it.
pub(crate) struct Twins {
    born: Instant,
    /// Since when this life takes part without a break.
    active_since: Instant,
    known: Option<(Twin, Instant)>,
    giving_way: Option<GivingWay>,
    hold: Duration,
    /// The other life that was called last.
    called: Option<u64>,
    conflicts: (u32, Instant),
}

impl Twins {
    pub(crate) fn new(now: Instant) -> Self {
        Twins {
            born: now,
            active_since: now,
            known: None,
            giving_way: None,
            hold: HOLD_MIN,
            called: None,
            conflicts: (0, now),
        }
    }

    /// The twin as others are told of it.
    pub(crate) fn published(&self) -> Option<(String, SocketAddr)> {
        let (twin, _) = self.known.as_ref()?;
        Some((twin.name.clone(), *twin.addresses.first()?))
    }
}

impl Mesh {
    /// How long this life has lasted, in milliseconds.
    pub(crate) fn up_ms(&self, now: Instant) -> u64 {
        let up = now.since(self.twins.born).as_millis();
        u64::try_from(up).unwrap_or(u64::MAX)
    }

    /// Whether this peer takes no part because its twin does.
    pub(crate) fn gives_way(&self) -> bool {
        self.twins.giving_way.is_some()
    }

    /// Whether a record of this peer's identity names a life that has not been called yet.
    pub(crate) fn is_unknown_life(&self, record: &Record) -> bool {
        let life = record.version.boot.random;
        life != self.boot.random && self.twins.called != Some(life) && is_node(record)
    }

    /// An authentic record of this peer's identity that it did not publish now: of an earlier life,
    /// or of a twin. `newer` than its own it hides that, so it is outbid unless this peer gives way.
    pub(crate) fn on_other_life(
        &mut self,
        record: &Record,
        age: Duration,
        newer: bool,
        now: Instant,
    ) {
        if self.is_unknown_life(record)
            && let Body::Node(node) = &record.body
        {
            // An earlier life answers nowhere; a twin does at once.
            self.twins.called = Some(record.version.boot.random);
            self.call_twin(node.addresses.as_slice(), now);
        }
        if !newer {
            return;
        }
        let ours = record.version.boot.random == self.boot.random;
        let active = now.since(self.twins.active_since);
        if !ours && active < EARLY && age < active + AGE_SLACK {
            // Too early to tell; the neighbours' digests bring it back.
            return;
        }
        let twin = self.twin_of(record, age, now);
        let yields = twin.is_some_and(|twin| self.meet_twin(twin, Evidence::Record, now));
        if !yields {
            self.outbid(record.version, now);
        }
    }

    /// The twin a record of this peer's identity comes from; `None` if it may be of an earlier life.
    fn twin_of(&self, record: &Record, age: Duration, now: Instant) -> Option<Twin> {
        let Body::Node(node) = &record.body else {
            return None;
        };
        let ours = record.version.boot.random == self.boot.random;
        let active = now.since(self.twins.active_since);
        if ours || node.leaving || age + AGE_SLACK >= active {
            return None;
        }
        Some(Twin {
            life: record.version.boot.random,
            up: Duration::from_millis(node.up_ms).saturating_add(age),
            name: node.name.clone(),
            addresses: node.addresses.as_slice().to_vec(),
        })
    }

    fn call_twin(&mut self, addresses: &[SocketAddr], now: Instant) {
        let own = |address: &SocketAddr| {
            address.port() == self.port && self.local_addresses.contains(&address.ip())
        };
        let others: Vec<SocketAddr> = addresses.iter().copied().filter(|a| !own(a)).collect();
        for address in others {
            let index = self.open_handshake(Goal::Hint(address), now);
            if let Some(message) = index.and_then(|index| self.half_opens.message(index, now)) {
                self.send_first(Origin::Direct(address), message, now);
            }
        }
    }

    /// Somebody else lives with this identity; whether this one gives way.
    pub(crate) fn meet_twin(&mut self, mut twin: Twin, evidence: Evidence, now: Instant) -> bool {
        twin.addresses.truncate(ADDRESSES_MAX);
        let lifetime = match evidence {
            Evidence::Heard => HEARD_LIFETIME,
            Evidence::Record => RECORD_LIFETIME,
        };
        let yields = self.yields_to(&twin, evidence, now);
        self.events.push_back(Event::TwinMet {
            name: twin.name.clone(),
            address: twin.addresses.first().copied(),
            gives_way: yields,
        });
        let before = self.twins.published();
        self.twins.known = Some((twin, now + lifetime));
        if let Some(giving_way) = self.twins.giving_way.as_mut() {
            giving_way.heard = now;
        } else if yields {
            self.give_way(now);
        } else if self.twins.published() != before {
            self.node_changed(now);
        }
        yields
    }

    fn yields_to(&mut self, twin: &Twin, evidence: Evidence, now: Instant) -> bool {
        let (count, last) = &mut self.twins.conflicts;
        if now.since(*last) > CONFLICT_WINDOW {
            *count = 0;
        }
        if evidence == Evidence::Record {
            *count += 1;
            *last = now;
        }
        let up = now.since(self.twins.born);
        if up.abs_diff(twin.up) < SAME_AGE || *count > CONFLICTS_MAX {
            twin.life > self.boot.random
        } else {
            twin.up > up
        }
    }

    fn give_way(&mut self, now: Instant) {
        let hints = self.known_addresses();
        self.twins.giving_way = Some(GivingWay {
            not_before: now + self.twins.hold,
            heard: now,
            next_check: now + CHECK_INTERVAL,
            hints,
        });
        self.twins.hold = (self.twins.hold * 2).min(HOLD_MAX);
        let open: Vec<u32> = self.sessions.keys().copied().collect();
        for index in open {
            self.drop_session(index, now);
        }
        self.half_opens = Default::default();
        self.dialer.dials = Watched::default();
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.direct.clear();
            }
            self.path_changed(id, "this peer gave way to its twin", now);
        }
        self.peers = Watched::default();
        self.kinds = Default::default();
        self.active.clear();
        self.store = Store::default();
        self.routes = Routes::default();
        self.macs = Macs::default();
        self.dirty.forwarding = true;
        self.dirty.routes = true;
        self.dirty.links = true;
    }

    /// Two lives of another peer may both have a session here, and this peer's records for them go
    /// under the newer one alone: the older life is told of the newer here, or it would go on as if
    /// nothing had happened.
    pub(crate) fn tell_other_lives(&mut self, id: PeerId, now: Instant) {
        let Some(stored) = self.store.get(&(id, 0)) else {
            return;
        };
        let life = stored.record.version.boot.random;
        // In a large mesh nearly everybody is one with whom there is no session at all.
        let is_met = self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.current.is_some());
        if self.is_large() && !is_met {
            return;
        }
        let of_other_life = |session: &Session| {
            let agreement = &session.agreement;
            agreement.peer == id && agreement.peer_boot.random != life && session.confirmed
        };
        let sessions = self.sessions.iter().filter(|(_, s)| of_other_life(s));
        let sessions: Vec<u32> = sessions.map(|(index, _)| *index).collect();
        if sessions.is_empty() {
            return;
        }
        let messages = pack_records(self.store.get(&(id, 0)).map(|stored| stored.aged(now)));
        for index in sessions {
            for message in &messages {
                self.send_control_under(index, message, now);
            }
        }
    }

    /// Calls the twin, comes back, forgets.
    pub(crate) fn watch_twin(&mut self, now: Instant) {
        if self
            .twins
            .known
            .as_ref()
            .is_some_and(|(_, until)| *until <= now)
            && !self.gives_way()
        {
            self.twins.known = None;
            self.node_changed(now);
        }
        let Some(giving_way) = self.twins.giving_way.as_mut() else {
            return;
        };
        if now.since(giving_way.heard) >= SILENCE_MAX && now >= giving_way.not_before {
            let hints = core::mem::take(&mut giving_way.hints);
            self.twins.giving_way = None;
            self.twins.active_since = now;
            self.publish_everything(now);
            return self.add_hints(hints, now);
        }
        if now < giving_way.next_check {
            return;
        }
        giving_way.next_check = now + CHECK_INTERVAL;
        let known = self.twins.known.as_ref();
        let addresses = known.map_or_else(Vec::new, |(twin, _)| twin.addresses.clone());
        self.call_twin(&addresses, now);
    }

    pub(crate) fn twin_deadline(&self) -> Option<Instant> {
        match (&self.twins.giving_way, &self.twins.known) {
            (Some(giving_way), _) => Some(giving_way.next_check),
            (None, Some((_, until))) => Some(*until),
            (None, None) => None,
        }
    }

    /// What an operator should know of twins: this peer's, and those others tell of.
    pub(crate) fn twin_warnings(&self) -> Vec<String> {
        let shown = |address: Option<&SocketAddr>| {
            address.map_or(String::from("an unknown address"), |a| format!("{a}"))
        };
        let mut warnings = Vec::new();
        if let Some((twin, _)) = &self.twins.known {
            let (name, at) = (&twin.name, shown(twin.addresses.first()));
            let own = format!(
                "{name} at {at} runs with the same identity as this peer, {}",
                self.name
            );
            warnings.push(if self.gives_way() {
                format!(
                    "{own}, and began earlier: this peer takes no part in the mesh until that ends. If \
                     this host has the copied state folder, run `rmesh reset` here and launch anew"
                )
            } else {
                format!(
                    "{own}: it has a copy of this host's state folder. Run `rmesh reset` there and \
                     launch it anew"
                )
            });
        }
        let others = self.store.nodes().filter(|(id, _)| *id != self.me);
        warnings.extend(others.filter_map(|(id, node)| {
            let (name, address) = node.twin.as_ref()?;
            let mut addresses = node.addresses.as_slice().iter();
            let at = addresses.find(|at| *at != address).copied();
            Some(format!(
                "{} at {} and {name} at {address} run with one identity: a state folder was copied. \
                 Run `rmesh reset` on the copy and launch it anew",
                self.name_of(&id),
                shown(at.as_ref()),
            ))
        }));
        warnings
    }
}

fn is_node(record: &Record) -> bool {
    matches!(record.body, Body::Node(_))
}

#[cfg(test)]
mod tests;
