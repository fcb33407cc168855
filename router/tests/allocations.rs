//! The frame path allocates nothing: super-frames go through two planes while every allocation of
//! their threads is counted.
#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rmesh_gossip::crypto::Key;
use rmesh_gossip::{Forwarding, Path, PeerForwarding, SessionKeys, SourcePorts};
use rmesh_router::port::offload::{Cut, CutKind, Offload};
use rmesh_router::port::{FrameBatch, Offloads, Port};
use rmesh_router::{Plane, PlaneOptions, Without};
use rmesh_wire::handshake::Cipher;
use rmesh_wire::payload::PartialChecksum;
use rmesh_wire::{Mac, PeerId};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

/// The system's allocator, counting what threads other than the test's own ask for.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_EXEMPT: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    let is_exempt = IS_EXEMPT.try_with(Cell::get).unwrap_or(true);
    ALLOCATIONS.fetch_add(u64::from(!is_exempt), Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is.
#[allow(unsafe_code, reason = "an allocator has no safe form")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Segments of one super-frame, and bytes of payload in each.
const PIECES: usize = 40;
const PIECE_LEN: usize = 1_276;
/// Frames that may be under way, so that no queue of the kernel's overflows.
const UNDER_WAY_MAX: u64 = 20 * PIECES as u64;
/// Frames before counting begins, and while it goes on.
const WARM_UP: u64 = 20_000;
const COUNTED: u64 = 100_000;
/// What may be allocated meanwhile by what goes by time and not by frames.
const ALLOCATIONS_MAX: u64 = 16;
/// How often the four sets of buffers of two workers may double from 4 to 64, which a batch of rare length
/// brings about at any time; of one round more, one at least has nothing but frames.
const GROWTHS_MAX: u32 = 4 * 4;

/// What both ports share.
#[derive(Default)]
struct Wire {
    asked: AtomicU64,
    sent: AtomicU64,
    came: AtomicU64,
    calls: AtomicU64,
}

/// One end makes super-frames, the other counts frames.
struct TestPort {
    wire: Arc<Wire>,
    frame: Option<Vec<u8>>,
    ready: OwnedFd,
}

impl TestPort {
    fn new(wire: &Arc<Wire>, frame: Option<Vec<u8>>) -> Box<Self> {
        let wakes = u32::from(frame.is_some());
        let ready = eventfd(wakes, EventfdFlags::NONBLOCK).unwrap();
        let wire = Arc::clone(wire);
        Box::new(TestPort { wire, frame, ready })
    }
}

impl Port for TestPort {
    fn name(&self) -> &str {
        "test"
    }

    fn fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            tcp: true,
            udp: true,
        }
    }

    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        let (wire, Some(frame)) = (&self.wire, &self.frame) else {
            return Ok(());
        };
        batch.fill_offloaded(|space| {
            let sent = wire.sent.load(Ordering::Relaxed);
            let under_way = sent - wire.came.load(Ordering::Relaxed).min(sent);
            if sent >= wire.asked.load(Ordering::Relaxed) || under_way >= UNDER_WAY_MAX {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            space[..frame.len()].copy_from_slice(frame);
            wire.sent.store(sent + PIECES as u64, Ordering::Relaxed);
            Ok((frame.len(), offload()))
        })
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(()) // A second-way probe.
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>], _: &Offload) -> io::Result<()> {
        let pieces = parts.len().saturating_sub(1).max(1);
        self.wire.came.fetch_add(pieces as u64, Ordering::Relaxed);
        self.wire.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn offload() -> Offload {
    Offload {
        checksum: Some(PartialChecksum {
            start: 34,
            offset: 16,
        }),
        cut: Some(Cut {
            kind: CutKind::Tcp4,
            piece_len: PIECE_LEN as u16,
            header_len: 54,
        }),
    }
}

/// TCP over IPv4, from the container of the first to that of the second.
fn super_frame() -> Vec<u8> {
    let mut frame = vec![0; 54 + PIECES * PIECE_LEN];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let len = (frame.len() - 14) as u16;
    frame[14..18].copy_from_slice(&[0x45, 0, (len >> 8) as u8, len as u8]);
    frame[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
    frame[46..48].copy_from_slice(&[0x50, 0x10]);
    frame
}

fn plane(port: Box<TestPort>) -> Plane {
    let options = PlaneOptions {
        bridge: String::new(),
        tap: String::new(),
        bind: vec![[127, 0, 0, 1].into()],
        port: 0,
        mtu_bytes: 1_328,
        workers: 1,
        interface: None,
        relay_limit: None,
        without: Without::default(),
    };
    Plane::start_on(vec![port], options, mpsc::channel(64).0).unwrap()
}

/// A snapshot of the peer `me`, whose only other is reached at this port.
fn forwarding(me: u8, port: u16) -> Forwarding {
    let other = 3 - me;
    let keys = SessionKeys {
        peer: PeerId([other; 16]),
        local_index: me.into(),
        remote_index: other.into(),
        cipher: Cipher::Aes256Gcm,
        seal_key: Key::new([me; 32]),
        open_key: Key::new([other; 32]),
    };
    let reached = PeerForwarding {
        session: Some(me.into()),
        path: Some(Path::Direct(([127, 0, 0, 1], port).into())),
        path_epoch: 0,
        datagram_len_max: 1_472,
        is_len_found: true,
        source_ports: SourcePorts::default(),
    };
    let macs = [1, 2].map(|of| (Mac([2, 0, 0, 0, 0, of]), PeerId([of; 16])));
    Forwarding {
        me: PeerId([me; 16]),
        sessions: vec![keys],
        peers: [(PeerId([other; 16]), reached)].into(),
        macs: macs.into(),
        ..Forwarding::default()
    }
}

/// Lets `frames` more cross; gives the time that took.
fn cross(wire: &Wire, frames: u64) -> Duration {
    let start = Instant::now();
    let all = wire.asked.fetch_add(frames, Ordering::Relaxed) + frames;
    while wire.came.load(Ordering::Relaxed) < all {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "frames were lost"
        );
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

#[test]
fn frames_cross_two_planes_without_an_allocation() {
    IS_EXEMPT.set(true);
    let wire = Arc::new(Wire::default());
    let source = plane(TestPort::new(&wire, Some(super_frame())));
    let sink = plane(TestPort::new(&wire, None));
    source.publish(forwarding(1, sink.port()));
    sink.publish(forwarding(2, source.port()));
    cross(&wire, WARM_UP);
    for _ in 0..=GROWTHS_MAX {
        if count_round(&wire) <= ALLOCATIONS_MAX {
            return;
        }
    }
    panic!("frames cost allocations in every round");
}

/// What was allocated while [`COUNTED`] frames crossed.
fn count_round(wire: &Wire) -> u64 {
    let (before, calls) = (
        ALLOCATIONS.load(Ordering::Relaxed),
        wire.calls.load(Ordering::Relaxed),
    );
    let time = cross(wire, COUNTED);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let calls = wire.calls.load(Ordering::Relaxed) - calls;
    println!(
        "{COUNTED} frames of {PIECE_LEN} bytes through two planes in {time:.2?} \
         ({:.1} Gbit/s): {allocations} allocations, {:.1} frames a write",
        (COUNTED * PIECE_LEN as u64 * 8) as f64 / time.as_secs_f64() / 1e9,
        COUNTED as f64 / calls as f64
    );
    allocations
}
