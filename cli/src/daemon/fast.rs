//! The kernel's VXLAN: tells the kernel what the mesh has decided, and carries heartbeats.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rmesh_gossip::{FastForwarding, FastTransmit, Forwarding};
use rmesh_router::LearnedMac;
use rmesh_router::fast::{Fast, FastCounters, FastEntries, heartbeat_mac};
use rmesh_wire::{Instant, Mac, PeerId};

/// What the kernel has counted is looked at this often while there are tunnels.
const COUNT_INTERVAL: Duration = Duration::from_millis(400);
/// Devices, entries and nftables are compared with what they should be this often.
const VERIFY_INTERVAL: Duration = Duration::from_secs(10);
/// Entries of before the start stay for this long unless the mesh decides otherwise: whoever is behind
/// them may not have been met yet.
const ADOPTED_LIFETIME: Duration = Duration::from_secs(60);
/// Heartbeats read in one go.
const HEARTBEATS_MAX: usize = 256;

/// The fast path of this host, if it has one.
pub(super) struct FastLane {
    fast: Option<Fast>,
    me: PeerId,
    forwarding: FastForwarding,
    announced: BTreeMap<Mac, PeerId>,
    learned: BTreeMap<Mac, PeerId>,
    adopted: BTreeMap<Mac, IpAddr>,
    adopted_until: Instant,
    counters: FastCounters,
    count_at: Instant,
    verify_at: Instant,
    trouble: Option<String>,
}

/// What there is to show of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FastView {
    /// What the kernel has counted.
    pub(crate) counters: FastCounters,
    /// What the kernel refuses, in words.
    pub(crate) trouble: Option<String>,
    /// VXLAN devices on which the kernel completes checksums, which the network card gets wrong.
    pub(crate) completing: Vec<String>,
}

impl FastLane {
    /// `trouble` says why there is none although the policy asks for it.
    pub(super) fn new(
        fast: Option<Fast>,
        trouble: Option<String>,
        me: PeerId,
        now: Instant,
    ) -> Self {
        FastLane {
            adopted: fast.as_ref().map(Fast::adopted).unwrap_or_default(),
            fast,
            me,
            forwarding: FastForwarding::default(),
            announced: BTreeMap::new(),
            learned: BTreeMap::new(),
            adopted_until: now + ADOPTED_LIFETIME,
            counters: FastCounters::default(),
            count_at: now,
            verify_at: now + VERIFY_INTERVAL,
            trouble,
        }
    }

    /// Whether this host has one.
    pub(super) fn is_on(&self) -> bool {
        self.fast.is_some()
    }

    /// A descriptor that is readable when heartbeats have arrived.
    pub(super) fn heartbeats(&self) -> std::io::Result<Option<OwnedFd>> {
        let fast = self.fast.as_ref();
        fast.map(|fast| fast.as_fd().try_clone_to_owned())
            .transpose()
    }

    /// The mesh has decided anew.
    pub(super) fn follow(&mut self, forwarding: &Forwarding, now: Instant) {
        if self.fast.is_none() {
            return;
        }
        let others = forwarding.macs.iter();
        let others = others.filter(|(_, peer)| **peer != self.me);
        self.announced = others.map(|(mac, peer)| (*mac, *peer)).collect();
        self.forwarding.clone_from(&forwarding.fast);
        self.apply(now);
    }

    /// What the workers have learned.
    pub(super) fn note_learned(&mut self, learned: &[LearnedMac], now: Instant) {
        let remote = learned.iter();
        let remote = remote.filter_map(|learned| Some((learned.mac, learned.peer?)));
        let remote: BTreeMap<Mac, PeerId> = remote.collect();
        if remote != self.learned {
            self.learned = remote;
            self.apply(now);
        }
    }

    fn apply(&mut self, now: Instant) {
        let wanted = self.entries(now);
        let Some(fast) = &mut self.fast else { return };
        self.trouble = fast.apply(wanted).err().map(|error| {
            let words = error.to_string();
            if self.trouble.as_ref() != Some(&words) {
                tracing::warn!("{words}; it is tried again");
            }
            words
        });
    }

    fn entries(&mut self, now: Instant) -> FastEntries {
        if now >= self.adopted_until {
            self.adopted.clear();
        }
        let of = |peer: &PeerId| self.forwarding.in_use.get(peer).copied();
        // Announced MACs are never overruled by learned ones.
        let known = self.learned.iter().chain(&self.announced);
        let known = known.map(|(mac, peer)| (*mac, of(peer)));
        let tunnels = self.forwarding.tunnels.iter();
        let mut entries = FastEntries {
            allowed: self.forwarding.allowed.clone(),
            heartbeats: tunnels.map(|(id, to)| (heartbeat_mac(id), *to)).collect(),
            macs: known.collect(),
        };
        for (mac, address) in &self.adopted {
            if !self.announced.contains_key(mac) {
                entries.macs.insert(*mac, Some(*address));
                entries.allowed.insert(*address);
            }
        }
        entries
    }

    /// Sends a heartbeat; one that the kernel does not take is as good as lost.
    pub(super) fn send(&self, transmit: &FastTransmit) {
        let Some(fast) = &self.fast else { return };
        let to = heartbeat_mac(&transmit.peer);
        let heartbeat = (&transmit.bytes[..], transmit.leaves_checksum);
        if let Err(error) = fast.send(to, transmit.address, heartbeat) {
            tracing::debug!(to = %transmit.address, %error, "a heartbeat was not sent");
        }
    }

    /// The mesh has found that checksums left to the network card come out wrong on the way to this address.
    pub(super) fn complete_checksums(&mut self, address: IpAddr, peer: &str) {
        let Some(fast) = &mut self.fast else { return };
        match fast.complete_checksums(address) {
            Ok(true) => tracing::warn!(
                "the network card gets checksums inside VXLAN wrong: so {peer} saw them at {address}; from now \
                 on the kernel completes them"
            ),
            Ok(false) => tracing::debug!("{peer} still sees wrong checksums"),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// Heartbeats that have arrived, and of each whether its checksum was right.
    pub(super) fn receive(&mut self) -> Vec<(Vec<u8>, bool)> {
        let mut payloads = Vec::new();
        let Some(fast) = &mut self.fast else {
            return payloads;
        };
        while payloads.len() < HEARTBEATS_MAX {
            let before = payloads.len();
            fast.receive(&mut |payload, is_intact| payloads.push((payload.to_vec(), is_intact)));
            if payloads.len() == before {
                break;
            }
        }
        payloads
    }

    /// When [`FastLane::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fast.as_ref()?;
        let counts = !self.forwarding.tunnels.is_empty();
        let count_at = counts.then_some(self.count_at);
        Some(count_at.map_or(self.verify_at, |at| at.min(self.verify_at)))
    }

    /// Looks after the kernel; gives what it has counted, if it is time to look at that.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<(IpAddr, u64)> {
        if now >= self.verify_at {
            self.verify_at = now + VERIFY_INTERVAL;
            self.verify(now);
        }
        if now < self.count_at || self.forwarding.tunnels.is_empty() {
            return Vec::new();
        }
        self.count_at = now + COUNT_INTERVAL;
        let Some(fast) = &mut self.fast else {
            return Vec::new();
        };
        match fast.sent() {
            Ok(sent) => sent.into_iter().collect(),
            Err(error) => {
                tracing::debug!("{error}");
                Vec::new()
            }
        }
    }

    fn count(&mut self) {
        let Some(fast) = &mut self.fast else { return };
        match fast.counters() {
            Ok(counters) => self.counters = counters,
            Err(error) => tracing::debug!("{error}"),
        }
    }

    fn verify(&mut self, now: Instant) {
        if now >= self.adopted_until && !self.adopted.is_empty() {
            self.apply(now);
        }
        let Some(fast) = &mut self.fast else { return };
        match fast.verify() {
            Ok(repaired) => {
                for words in repaired {
                    tracing::warn!("{words}");
                }
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    pub(super) fn view(&mut self) -> FastView {
        self.count();
        FastView {
            counters: self.counters.clone(),
            trouble: self.trouble.clone(),
            completing: self.fast.as_ref().map(Fast::completing).unwrap_or_default(),
        }
    }
}
