//! How much of the heap is in use: an allocator that counts, for whoever installs it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes the C library's allocator needs beside each allocation, what it rounds up to, and the
/// least it takes.
const HEAD: usize = 8;
const STEP: usize = 16;
const LEAST: usize = 32;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting what it holds.
pub struct Counting;

/// Bytes in use, with what the C library's allocator adds to each allocation; 0 where [`Counting`]
/// is not installed.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

fn cost(size: usize) -> usize {
    (size + HEAD).next_multiple_of(STEP).max(LEAST)
}

// SAFETY: every call is passed on to the system's allocator as it is.
#[allow(unsafe_code, reason = "an allocator has no safe form")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(cost(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(cost(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(cost(size), Ordering::Relaxed);
        HELD.fetch_sub(cost(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(cost(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(place, layout) }
    }
}
