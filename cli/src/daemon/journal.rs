//! One log line for each event an operator cares about, and no floods of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rmesh_gossip::{Event, Path};
use rmesh_wire::{Instant, PeerId};

/// The same trouble is logged again after this time.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Kinds of trouble remembered; beyond it the oldest is forgotten.
const TROUBLES_MAX: usize = 512;

/// Writes events to the log.
#[derive(Default)]
pub(crate) struct Journal {
    /// What was logged last when, and how often it was not logged since.
    troubles: BTreeMap<String, (Instant, u64)>,
    suppressed: u64,
}

impl Journal {
    /// Logs an event if an operator cares about it.
    pub(crate) fn log(&mut self, event: &Event, now: Instant) {
        match event {
            Event::PeerUp { peer, name } => tracing::info!("peer {} is up", who(name, *peer)),
            Event::PeerDown { peer, name } => tracing::info!("peer {} is down", who(name, *peer)),
            Event::PathChanged {
                peer,
                name,
                path,
                reason,
            } => {
                tracing::info!("path to {}: {}: {reason}", who(name, *peer), shown(*path));
            }
            Event::FastPathChanged {
                peer,
                name,
                address,
                reason,
            } => tell_of_vxlan(&who(name, *peer), *address, reason),
            Event::PathShrank { peer, name } => {
                let to = who(name, *peer);
                self.trouble(
                    &format!("path to {to}: packets of the usual size no longer pass"),
                    now,
                );
            }
            Event::NoAnswer { target } => {
                self.trouble(
                    &format!("no answer from {target}: unreachable, or a different secret"),
                    now,
                );
            }
            Event::HandshakeRefused { source } => {
                // The port is chosen by whoever tries.
                let ip = source.ip();
                self.trouble(
                    &format!("refused a handshake from {ip}: a different secret, or not a peer"),
                    now,
                );
            }
            Event::NameShared { peer, name } => {
                self.trouble(
                    &format!(
                        "peer {} has the name {name} too: use launch --name",
                        peer.short()
                    ),
                    now,
                );
            }
            Event::MacFrozen { mac, peer } => {
                let words = format!(
                    "MAC {mac} moved too often, it stays with {}: is it on two hosts?",
                    peer.short()
                );
                self.trouble(&words, now);
            }
            Event::TwinMet {
                name,
                address,
                gives_way,
            } => self.trouble(&twin_in_words(name, *address, *gives_way), now),
            Event::BootRaised { counter } => {
                tracing::warn!(
                    "another life of this peer has been seen, going on as boot {counter}: \
                     was its disk restored or cloned?"
                );
            }
            // Who carries out what follows says of this one what came of it.
            Event::ChecksumsDamaged { .. } => {}
            Event::ForwardingChanged | Event::ChannelMessage { .. } => {}
        }
    }

    /// Lines that were left out since the start because they had just been logged.
    pub(crate) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Logs trouble once a minute, with the number of times it was left out.
    pub(crate) fn trouble(&mut self, words: &str, now: Instant) {
        if let Some((last, left_out)) = self.troubles.get_mut(words) {
            if now < *last + REPEAT_AFTER {
                *left_out += 1;
                self.suppressed += 1;
                return;
            }
            tracing::warn!("{words} ({left_out} times more since it was last said)");
        } else {
            tracing::warn!("{words}");
        }
        if self.troubles.len() >= TROUBLES_MAX {
            let oldest = self.troubles.iter().min_by_key(|(_, (last, _))| *last);
            if let Some(oldest) = oldest.map(|(words, _)| words.clone()) {
                self.troubles.remove(&oldest);
            }
        }
        self.troubles.insert(words.into(), (now, 0));
    }
}

fn who(name: &str, peer: PeerId) -> String {
    format!("{name} ({})", peer.short())
}

fn tell_of_vxlan(to: &str, address: Option<IpAddr>, reason: &str) {
    match address {
        Some(address) => {
            tracing::info!("path to {to}: the kernel's VXLAN to {address}, not encrypted: {reason}")
        }
        None => tracing::warn!("path to {to}: encrypted from now on: {reason}"),
    }
}

fn twin_in_words(name: &str, address: Option<SocketAddr>, gives_way: bool) -> String {
    let at = address.map_or("an unknown address".into(), |a| a.to_string());
    let so = match gives_way {
        true => "it began earlier, this peer gives way",
        false => "it has a copy of this host's state folder",
    };
    format!("{name} at {at} runs with this peer's identity: {so}")
}

fn shown(path: Path) -> String {
    match path {
        Path::Direct(address) => format!("direct to {address}"),
        Path::Relay(peer) => format!("through {}", peer.short()),
        Path::Tcp(address) => format!("by TCP to {address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_trouble_is_counted_not_repeated() {
        let mut journal = Journal::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for second in 0..60 {
            journal.trouble("x", at(second));
        }
        assert_eq!(journal.troubles["x"], (at(0), 59));
        journal.trouble("x", at(60));
        assert_eq!(journal.troubles["x"], (at(60), 0));
        assert_eq!(journal.suppressed(), 59);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut journal = Journal::default();
        for number in 0..TROUBLES_MAX as u64 + 9 {
            journal.trouble(&number.to_string(), Instant::from_nanos(number));
        }
        assert_eq!(journal.troubles.len(), TROUBLES_MAX);
        assert!(!journal.troubles.contains_key("0"));
    }
}
