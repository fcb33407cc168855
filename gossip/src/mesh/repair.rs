//! Finding out that a neighbour has other records, and mending it.
//!
//! Every probe carries a digest of all records. One that differs may only mean that news are under way; if the
//! next does as well, something was lost.

use core::time::Duration;

use rmesh_wire::probe::Digest;
use rmesh_wire::{Instant, PeerId};

use super::Mesh;

/// Digests in a row that must differ before a repair: one may just be news under way.
const MISMATCHES: u32 = 2;
/// Probes that come together tell of one moment only: digests that differ are counted this often.
const MISMATCH_INTERVAL: Duration = Duration::from_millis(300);
/// A repair with one neighbour is started at most this often, …
const REPAIR_INTERVAL: Duration = Duration::from_millis(500);
/// … and with any in a large mesh: what one sends need not come from others as well.
const REPAIR_INTERVAL_ANY: Duration = Duration::from_millis(100);
/// While news keep coming in it, what differs is most likely under way: what was lost can wait a little.
const REPAIR_INTERVAL_BUSY: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_secs(1);

impl Mesh {
    /// A neighbour's digest came with its probe.
    pub(crate) fn compare_digest(&mut self, id: PeerId, digest: Digest, now: Instant) {
        let same = digest == self.store.digest();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.is_neighbour()) else {
            return;
        };
        if same {
            peer.mismatches = 0;
            return;
        }
        if now >= peer.next_mismatch {
            peer.mismatches = peer.mismatches.saturating_add(1);
            peer.next_mismatch = now + MISMATCH_INTERVAL;
            let is_first = peer.mismatches < MISMATCHES;
            // Whether that was news under way shows soon, and not only with the next question.
            if let Some(path) = peer.used_mut().filter(|_| is_first) {
                path.ask_by(now + MISMATCH_INTERVAL);
            }
        }
        if peer.mismatches >= MISMATCHES {
            self.repair(id, now);
        }
    }

    fn repair(&mut self, id: PeerId, now: Instant) {
        let is_large = self.is_large();
        let interval = match now.since(self.outbox.taken_last) < BUSY {
            true => REPAIR_INTERVAL_BUSY,
            false => REPAIR_INTERVAL_ANY,
        };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if now < peer.next_buckets || (is_large && now < self.outbox.repaired_last + interval) {
            return;
        }
        peer.next_buckets = now + REPAIR_INTERVAL;
        self.outbox.repaired_last = now;
        self.counters.repairs_started += 1;
        let buckets = self.store.buckets();
        self.send_control(id, &buckets, now);
    }
}
