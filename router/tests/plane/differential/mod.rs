//! The same frames through fast and plain ports: whoever sends and whoever receives, the same comes,
//! whatever was cut and joined on the way; needs root.
//!
//! The kernel is part of it: it cuts super-frames for a port that cannot take them, and shows what
//! was written back as a network card would have delivered it.

mod dice;
mod generate;
mod link;
mod packet;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rmesh_router::port::offload::Offload;

use crate::ports::{End, set_lengths};
use crate::support::mac;
use crate::tap::enter_new_namespace;
use generate::{Frame, MARKER, MTU};
use link::TapLink;

const INTERFACE: &str = "rmports";
/// Frames that the interface holds while nobody reads: all pieces of the most finely cut ones.
const QUEUE_LEN: u32 = 16_000;
/// What is sent before it is waited for, so that no queue between the ports runs over.
const BURST_BYTES: usize = 256 << 10;
const BURST_FRAMES: usize = 32;
/// How long a burst may take: far longer than it does.
const BURST_MAX: Duration = Duration::from_secs(10);
/// How long stragglers may take.
const QUIET: Duration = Duration::from_millis(300);
const FRAMES: usize = 2_000;
const SEED: u64 = 40;
/// UDP payload of a path on which every frame of [`MTU`] fits one record, and of one on which few do.
const PATHS: [u16; 2] = [9_400, 1_232];

/// Frames in the order in which they came.
type Came = Vec<(Vec<u8>, Offload)>;

/// Everything that the far end's bridge gets.
struct Watch {
    came: Arc<Mutex<Came>>,
    marker: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Watch {
    fn start(link: TapLink) -> Watch {
        let (came, marker, stop) = (
            Arc::<Mutex<Came>>::default(),
            Arc::<AtomicU64>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (kept, last, stopped) = (Arc::clone(&came), Arc::clone(&marker), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some((frame, offload)) = link.receive() else {
                    continue;
                };
                // The kernels of both ends have something to say, too.
                if frame[6..12] != mac(1).0 {
                    continue;
                }
                if frame[12..14] == MARKER {
                    let number = u64::from_be_bytes(*frame[14..].first_chunk().unwrap());
                    last.fetch_max(number, Ordering::Release);
                } else {
                    kept.lock().unwrap().push((frame, offload));
                }
            }
            link.missed()
        });
        Watch {
            came,
            marker,
            stop,
            thread,
        }
    }

    /// Waits until a marker has come; the frames before it have, or are behind it by little.
    fn wait_for(&self, number: u64) {
        let deadline = Instant::now() + BURST_MAX;
        while self.marker.load(Ordering::Acquire) < number {
            assert!(Instant::now() < deadline, "marker {number} was lost");
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn stop(self) -> Came {
        let mut count = usize::MAX;
        while count != self.came.lock().unwrap().len() {
            count = self.came.lock().unwrap().len();
            thread::sleep(QUIET);
        }
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.join().unwrap(), 0, "the test did not keep up");
        std::mem::take(&mut *self.came.lock().unwrap())
    }
}

fn pair(fast: [bool; 2], path: u16) -> ([End; 2], [TapLink; 2]) {
    let ends = [End::start(1, fast[0]), End::start(2, fast[1])];
    let links = ends.each_ref().map(|end| {
        end.run(|| {
            set_lengths(INTERFACE, MTU as u32, QUEUE_LEN);
            TapLink::open(INTERFACE)
        })
    });
    let [a, b] = &ends;
    a.publish(1, 2, b, path);
    b.publish(2, 1, a, path);
    (ends, links)
}

/// Sends all frames from the first end; gives what the second end's bridge got.
fn carry(fast: [bool; 2], path: u16, sent: &[Frame]) -> Came {
    let (ends, [from, to]) = pair(fast, path);
    let watch = Watch::start(to);
    let (mut bytes, mut frames, mut number) = (0, 0, 0);
    for (at, frame) in sent.iter().enumerate() {
        let taken = from.send(&frame.bytes, &frame.offload);
        taken
            .unwrap_or_else(|error| panic!("the kernel refused frame {at}: {error}: {frame:02x?}"));
        (bytes, frames) = (bytes + frame.bytes.len(), frames + 1);
        if bytes >= BURST_BYTES || frames >= BURST_FRAMES || at + 1 == sent.len() {
            (bytes, frames, number) = (0, 0, number + 1);
            let marker = generate::marker(number);
            from.send(&marker.bytes, &marker.offload).unwrap();
            watch.wait_for(number);
        }
    }
    let came = watch.stop();
    for end in &ends {
        let counters = end.plane.counters();
        println!(
            "fast {fast:?}, path {path}: {} frames read in {}, {} written in {}; {} fragments; dropped {:?}",
            counters.frames_from_bridge,
            counters.reads_from_bridge,
            counters.frames_to_bridge,
            counters.writes_to_bridge,
            counters.fragments_sent,
            counters.drops,
        );
    }
    if fast == [true, true] {
        let super_frames = came
            .iter()
            .filter(|(_, offload)| offload.cut.is_some())
            .count();
        assert!(super_frames > 100, "only {super_frames} were joined");
    }
    came
}

/// What each flow consists of, normalised.
fn flows<'a>(
    frames: impl Iterator<Item = (&'a [u8], &'a Offload)>,
    is_joined: bool,
) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (frame, offload) in frames {
        for piece in packet::cut(frame, offload) {
            flows
                .entry(packet::flow(&piece))
                .or_default()
                .push(packet::normal(&piece));
        }
    }
    if is_joined {
        let joined = flows
            .into_iter()
            .map(|(flow, frames)| (flow, packet::joined(frames)));
        return joined.collect();
    }
    flows
}

fn expect_same(
    what: &str,
    sent: &BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    came: &BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
) {
    let none = Vec::new();
    for flow in sent.keys().chain(came.keys()) {
        let (sent, came) = (
            sent.get(flow).unwrap_or(&none),
            came.get(flow).unwrap_or(&none),
        );
        if sent == came {
            continue;
        }
        let at = sent
            .iter()
            .zip(came)
            .take_while(|(sent, came)| sent == came)
            .count();
        let show = |frames: &[Vec<u8>]| {
            let shown = frames.iter().skip(at).take(2);
            let shown = shown.map(|frame| {
                format!(
                    "{} bytes {:02x?}",
                    frame.len(),
                    &frame[..frame.len().min(110)]
                )
            });
            shown.collect::<Vec<_>>().join("\n      ")
        };
        let byte = sent.get(at).zip(came.get(at)).map(|(sent, came)| {
            sent.iter()
                .zip(came)
                .take_while(|(sent, came)| sent == came)
                .count()
        });
        panic!(
            "{what}: flow {flow:02x?}: {} frames sent, {} came; the first that differs is {at}, at byte {byte:?}\nsent: {}\ncame: {}",
            sent.len(),
            came.len(),
            show(sent),
            show(came)
        );
    }
}

#[test]
fn the_same_frames_come_through_every_pair_of_ports_cut_and_joined_or_not() {
    enter_new_namespace();
    for path in PATHS {
        // Where frames do not fit, a fast port cuts TCP shorter and a plain one seals fragments.
        let is_joined = path < MTU as u16;
        let sent = generate::frames(SEED + u64::from(path), FRAMES);
        let expected = flows(
            sent.iter().map(|frame| (&frame.bytes[..], &frame.offload)),
            is_joined,
        );
        let count = expected.values().map(Vec::len).sum::<usize>();
        println!(
            "{} frames, {count} on the wire, {} flows",
            sent.len(),
            expected.len()
        );
        for fast in [[false, false], [true, false], [false, true], [true, true]] {
            let came = carry(fast, path, &sent);
            let came = flows(
                came.iter().map(|(frame, offload)| (&frame[..], offload)),
                is_joined,
            );
            expect_same(&format!("fast {fast:?}, path {path}"), &expected, &came);
        }
    }
}
