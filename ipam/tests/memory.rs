//! The ring of a thousand peers stays small.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use rmesh_ipam::{Cell, OwnerId, Range, Ring, Run, Term};
use rmesh_wire::PeerId;

/// Bytes the ring of 1,000 peers with three runs each may take: half of what issue 4 allows.
const RING_LEN_MAX: usize = 512 << 10;

/// The system's allocator, counting what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
#[allow(unsafe_code, reason = "an allocator has no safe form")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Three runs a peer that never coalesce, in an order in which trees split badly or well.
fn runs(stride: u32) -> impl Iterator<Item = Run> {
    (0..3_000u32).map(move |step| {
        let number = step * stride % 3_000;
        let mut peer = [0; 16];
        peer[..4].copy_from_slice(&(number % 1_000).to_be_bytes());
        let owner = OwnerId {
            peer: PeerId(peer),
            incarnation: u64::from(number % 1_000),
        };
        let range = Range::block(Range::V4.first() + (u128::from(number) << 8), 8);
        let term = Term::FIRST;
        let cell = Cell {
            term,
            seq: number,
            owner,
        };
        Run { range, cell }
    })
}

#[test]
fn the_ring_of_a_thousand_peers_takes_less_than_half_a_megabyte() {
    for (order, stride) in [("ascending", 1), ("scattered", 1_777)] {
        let before = HELD.load(Ordering::Relaxed);
        let ring: Ring = runs(stride).collect();
        let held = HELD.load(Ordering::Relaxed) - before;
        assert_eq!(ring.len(), 3_000);
        println!("ring of 1,000 peers, 3,000 runs, {order}: {held} bytes");
        assert!(held < RING_LEN_MAX, "{held}");
    }
}
