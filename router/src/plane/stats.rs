//! Counters with one writer: no frame waits for another core's cache line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rmesh_gossip::TrafficSample;
use rmesh_wire::PeerId;

use super::api::{FrameCounters, PathKind, PeerCounters, PlaneCounters};
use super::carried::Carried;

/// A number that one thread raises and any may read.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds without a locked instruction; only the owning thread may call this.
    pub(crate) fn add(&self, amount: u64) {
        let sum = self.get().wrapping_add(amount);
        self.0.store(sum, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares [`Reason`] and its names in one place.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why something was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            pub(crate) const NAMES: &'static [&'static str] = &[$($name),+];
        }
    };
}

reasons! {
    /// A frame without a whole Ethernet header.
    Runt = "runt_frame",
    /// A frame whose source is a group address.
    GroupSource = "group_source",
    /// IEEE 802.1Q table 8-1.
    LinkLocalControl = "link_local_control",
    /// A second-way probe, which is never carried.
    SecondWayProbe = "second_way_probe",
    /// A flood that came round by a second way: its source is behind another peer, or our own.
    SecondWay = "second_way",
    /// The frame's destination is on this host's own bridge.
    Local = "local_destination",
    /// More floods of one source a second than allowed.
    Storm = "storm_limit",
    /// Floods stopped because of a second way round.
    Suppressed = "flooding_suppressed",
    /// No session or no path to the peer, where waiting is no use.
    NoPath = "no_path",
    /// Nowhere to wait: the peer's or the total bound is reached.
    PendingFull = "pending_full",
    /// Waited too long for a session.
    PendingExpired = "pending_expired",
    /// A super-frame that cannot be cut: headers that contradict what its sender left to do.
    BadSuperFrame = "bad_super_frame",
    /// Would need more fragments than allowed.
    TooBig = "too_big",
    /// A lane's counter is used up.
    Exhausted = "counter_exhausted",
    /// The kernel had no room for a datagram.
    SendBufferFull = "send_buffer_full",
    /// The kernel refused a datagram.
    SendRefused = "send_refused",
    /// Writing to the TAP failed.
    PortWrite = "port_write",
    /// Not an rmesh datagram.
    Malformed = "malformed_datagram",
    /// A datagram of a version that is not spoken here.
    UnknownVersion = "unknown_version",
    /// Longer than any datagram can be.
    Truncated = "truncated_datagram",
    /// An index no session has.
    UnknownSession = "unknown_session",
    /// A tag that does not match.
    Forged = "forged",
    /// A record seen before.
    Replayed = "replayed",
    /// An authentic payload that makes no sense on a data lane.
    BadPayload = "bad_payload",
    /// Marked for congestion on the way, and its ends do not understand that (RFC 6040).
    EcnNotUnderstood = "ecn_not_understood",
    /// A relay datagram whose TTL ran out.
    RelayTtl = "relay_ttl",
    /// A relay datagram with no way on, or only the way it came.
    RelayNoRoute = "relay_no_route",
    /// More than is carried for one peer.
    RelayLimit = "relay_limit",
    /// A flood whose TTL ran out.
    FloodTtl = "flood_ttl",
    /// A flood of a source nobody knows, or from somebody who is not its tree parent.
    FloodParent = "flood_not_from_parent",
    /// A flood seen before.
    FloodRepeated = "flood_repeated",
    /// A fragment that does not fit the others, or came twice.
    BadFragment = "bad_fragment",
    /// A reassembly given up: too old, or too many at once.
    ReassemblyAbandoned = "reassembly_abandoned",
    /// The control side's queue is full.
    InboxFull = "inbox_full",
    /// A record of frames that the kernel joined to a datagram of the control side's.
    StrayRecord = "stray_record",
}

/// What one worker counts.
#[derive(Default)]
pub(crate) struct WorkerStats {
    pub(crate) frames_from_bridge: Count,
    pub(crate) bytes_from_bridge: Count,
    pub(crate) reads_from_bridge: Count,
    pub(crate) writes_to_bridge: Count,
    pub(crate) frames_to_bridge: Count,
    pub(crate) bytes_to_bridge: Count,
    pub(crate) datagrams_sent: Count,
    pub(crate) datagram_bytes_sent: Count,
    pub(crate) datagrams_received: Count,
    pub(crate) datagram_bytes_received: Count,
    pub(crate) relayed: Count,
    pub(crate) floods_originated: Count,
    pub(crate) floods_forwarded: Count,
    pub(crate) floods_delivered: Count,
    pub(crate) fragments_sent: Count,
    pub(crate) bundles_sent: Count,
    pub(crate) too_big_told: Count,
    pub(crate) mss_clamped: Count,
    pub(crate) reassembled: Count,
    pub(crate) pending_sent: Count,
    pub(crate) learned_macs: Count,
    drops: Drops,
}

/// A count for each reason.
struct Drops([Count; Reason::NAMES.len()]);

impl Default for Drops {
    fn default() -> Self {
        Drops(std::array::from_fn(|_| Count::default()))
    }
}

impl WorkerStats {
    pub(crate) fn drop_one(&self, reason: Reason) {
        self.drop_many(reason, 1);
    }

    pub(crate) fn drop_many(&self, reason: Reason, amount: u64) {
        if let Some(count) = self.drops.0.get(reason as usize) {
            count.add(amount);
        }
    }

    /// Frames carried so far, which move whenever a record does that is not the control side's.
    pub(crate) fn moved(&self) -> u64 {
        let moved = [
            &self.frames_from_bridge,
            &self.frames_to_bridge,
            &self.relayed,
        ];
        moved
            .iter()
            .fold(0, |sum, count| sum.wrapping_add(count.get()))
    }

    /// Adds what this worker counted to `sum`.
    pub(crate) fn add_to(&self, sum: &mut PlaneCounters) {
        sum.frames_from_bridge += self.frames_from_bridge.get();
        sum.bytes_from_bridge += self.bytes_from_bridge.get();
        sum.reads_from_bridge += self.reads_from_bridge.get();
        sum.writes_to_bridge += self.writes_to_bridge.get();
        sum.frames_to_bridge += self.frames_to_bridge.get();
        sum.bytes_to_bridge += self.bytes_to_bridge.get();
        sum.datagrams_sent += self.datagrams_sent.get();
        sum.datagram_bytes_sent += self.datagram_bytes_sent.get();
        sum.datagrams_received += self.datagrams_received.get();
        sum.datagram_bytes_received += self.datagram_bytes_received.get();
        sum.relayed += self.relayed.get();
        sum.floods_originated += self.floods_originated.get();
        sum.floods_forwarded += self.floods_forwarded.get();
        sum.floods_delivered += self.floods_delivered.get();
        sum.fragments_sent += self.fragments_sent.get();
        sum.bundles_sent += self.bundles_sent.get();
        sum.too_big_told += self.too_big_told.get();
        sum.mss_clamped += self.mss_clamped.get();
        sum.reassembled += self.reassembled.get();
        sum.pending_sent += self.pending_sent.get();
        sum.learned_macs += self.learned_macs.get();
        add_drops(&self.drops.0, &mut sum.drops);
    }
}

fn add_drops(counts: &[Count], drops: &mut BTreeMap<String, u64>) {
    for (name, count) in Reason::NAMES.iter().zip(counts) {
        if count.get() > 0 {
            *drops.entry((*name).to_owned()).or_default() += count.get();
        }
    }
}

/// What one worker exchanged with one peer.
#[derive(Default)]
pub(crate) struct PeerLane {
    pub(crate) records_sent: Count,
    pub(crate) records_direct: Count,
    pub(crate) records_relayed: Count,
    frames: [FrameLane; PathKind::ALL.len()],
}

impl PeerLane {
    /// Frames of this many bytes in all went to the peer.
    pub(crate) fn count_sent(&self, path: PathKind, frames: u64, len: usize) {
        let lane = &self.frames[path as usize];
        lane.frames_sent.add(frames);
        lane.bytes_sent.add(len as u64);
    }

    /// A frame of this many bytes came from the peer.
    pub(crate) fn count_received(&self, path: PathKind, len: usize) {
        let lane = &self.frames[path as usize];
        lane.frames_received.add(1);
        lane.bytes_received.add(len as u64);
    }
}

/// What one worker exchanged with one peer by one kind of path.
#[derive(Default)]
struct FrameLane {
    frames_sent: Count,
    bytes_sent: Count,
    frames_received: Count,
    bytes_received: Count,
}

impl FrameLane {
    fn counters(&self) -> FrameCounters {
        FrameCounters {
            frames_sent: self.frames_sent.get(),
            bytes_sent: self.bytes_sent.get(),
            frames_received: self.frames_received.get(),
            bytes_received: self.bytes_received.get(),
        }
    }
}

/// What was exchanged with one peer, a part a worker, and what of its traffic with others was carried.
pub(crate) struct PeerStats {
    lanes: Box<[PeerLane]>,
    pub(crate) carried: Carried,
}

impl PeerStats {
    pub(crate) fn new(workers: usize) -> Self {
        PeerStats {
            lanes: (0..workers.max(1)).map(|_| PeerLane::default()).collect(),
            carried: Carried::default(),
        }
    }

    /// The part only `worker` writes.
    pub(crate) fn of(&self, worker: usize) -> &PeerLane {
        // There is always one part, and every worker's number is below their count.
        &self.lanes[worker % self.lanes.len()]
    }

    /// Records so far, as a sample counted from the beginning.
    pub(crate) fn totals(&self, peer: PeerId) -> TrafficSample {
        let sum = |count: fn(&PeerLane) -> &Count| self.lanes.iter().map(|l| count(l).get()).sum();
        TrafficSample {
            peer,
            sent: sum(|lane| &lane.records_sent),
            received_direct: sum(|lane| &lane.records_direct),
            received_relayed: sum(|lane| &lane.records_relayed),
        }
    }

    pub(crate) fn counters(&self) -> PeerCounters {
        let of = |path: PathKind| {
            let lanes = self
                .lanes
                .iter()
                .filter_map(|lane| lane.frames.get(path as usize));
            lanes.map(FrameLane::counters).sum()
        };
        PeerCounters(PathKind::ALL.map(of))
    }
}
