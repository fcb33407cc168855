//! What is counted: a worker's way from the port to the system call that sends, and from the one
//! that receives to the port.

use rmesh_router::PlaneCounters;
use rmesh_router::plane::counting::Stand;

use crate::frames::{self, Frame};
use crate::mesh::{BETWEEN, FROM, Reach, TO, peer};

/// Segments of a super-frame, and super-frames of a turn: what one call reads and one sends.
const PIECES: usize = 40;
const SUPER_FRAMES: usize = 4;
/// Frames of a turn that come one by one.
const SINGLES: usize = 60;
const SMALL_LEN: usize = 64;
/// Flows whose segments come mixed.
const FLOWS: usize = 12;

/// Turns before counting begins, and those that count.
const WARM_UP: usize = 2;
pub(crate) const TURNS: usize = 4;

/// One benchmark.
pub(crate) struct Benchmark {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    make: fn() -> Scene,
}

/// A scene, ready for its first turn.
struct Scene {
    /// Where what arrives was sealed, and by whom it was passed on.
    before: Vec<Stand>,
    /// The one that is counted.
    counted: Stand,
    /// Datagrams that the kernel joins.
    joined: usize,
    /// Frames of a turn.
    frames: usize,
    /// What one of `turns` turns counts, so that nothing else is taken for the frame path.
    expect: fn(&PlaneCounters) -> u64,
}

/// All of them.
pub(crate) const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "send-tcp",
        about: "super-frames of TCP: decided, cut, sealed, queued",
        make: || sending(Reach::Direct, bulk()),
    },
    Benchmark {
        name: "send-udp",
        about: "super-frames of UDP",
        make: || {
            sending(
                Reach::Direct,
                vec![frames::udp([FROM, TO], PIECES); SUPER_FRAMES],
            )
        },
    },
    Benchmark {
        name: "send-small",
        about: "datagrams of 64 bytes, one by one",
        make: || sending(Reach::Direct, singles()),
    },
    Benchmark {
        name: "send-relayed",
        about: "super-frames of TCP to a peer that another one relays to",
        make: || sending(Reach::Relayed, bulk()),
    },
    Benchmark {
        name: "send-flood",
        about: "broadcasts",
        make: || Scene {
            expect: |counters| counters.floods_originated,
            ..sending(Reach::Direct, vec![frames::broadcast(FROM); SINGLES])
        },
    },
    Benchmark {
        name: "receive-tcp",
        about: "segments of TCP: opened, checked against replay, joined, written",
        make: || receiving(Reach::Direct, bulk(), PIECES),
    },
    Benchmark {
        name: "receive-flows",
        about: "segments of twelve flows, mixed, each in a buffer",
        make: || receiving(Reach::Direct, mixed(), 1),
    },
    Benchmark {
        name: "receive-small",
        about: "datagrams of 64 bytes, each in a buffer",
        make: || receiving(Reach::Direct, singles(), 1),
    },
    Benchmark {
        name: "receive-relayed",
        about: "segments of TCP that another peer relayed",
        make: || receiving(Reach::Relayed, bulk(), PIECES),
    },
    Benchmark {
        name: "relay",
        about: "segments of TCP passed on from peer to peer",
        make: || Scene {
            expect: |counters| counters.relayed,
            ..between(Reach::Relayed, bulk(), PIECES)
        },
    },
    Benchmark {
        name: "flood",
        about: "broadcasts passed on, and written",
        make: || Scene {
            expect: |counters| counters.floods_forwarded.min(counters.floods_delivered),
            ..between(Reach::Direct, vec![frames::broadcast(FROM); SINGLES], 1)
        },
    },
];

/// The benchmark of this name.
pub(crate) fn find(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS.iter().find(|benchmark| benchmark.name == name)
}

impl Benchmark {
    /// Makes the scene and goes through it; `count` runs what is counted. Gives how many frames
    /// that were.
    pub(crate) fn run(&self, mut count: impl FnMut(&mut dyn FnMut())) -> u64 {
        let mut scene = (self.make)();
        for _ in 0..WARM_UP {
            scene.turn(|turn| turn());
        }
        for _ in 0..TURNS {
            scene.turn(&mut count);
        }
        let counters = scene.counted.counters();
        let carried = (scene.expect)(&counters);
        let expected = scene.frames * (WARM_UP + TURNS);
        assert_eq!(carried, expected as u64, "{}: {counters:?}", self.name);
        assert_eq!(counters.datagrams_sent, 0, "{}: a system call", self.name);
        (scene.frames * TURNS) as u64
    }
}

impl Scene {
    /// Prepares one turn, and lets `count` run it.
    fn turn(&mut self, mut count: impl FnMut(&mut dyn FnMut())) {
        self.counted.clear();
        let Some((first, passing)) = self.before.split_first_mut() else {
            return count(&mut || send(&mut self.counted));
        };
        send(first);
        let mut under_way = take(first);
        for stand in passing {
            arrive(stand, &under_way, self.joined);
            stand.receive();
            under_way = take(stand);
        }
        arrive(&mut self.counted, &under_way, self.joined);
        count(&mut || self.counted.receive());
    }
}

fn send(stand: &mut Stand) {
    let sent = stand.send();
    sent.unwrap_or_else(|error| panic!("the port: {error}"));
}

fn take(stand: &mut Stand) -> Vec<Vec<u8>> {
    let taken = stand.queued().map(<[u8]>::to_vec).collect();
    stand.clear();
    taken
}

fn arrive(stand: &mut Stand, datagrams: &[Vec<u8>], joined: usize) {
    let datagrams: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    stand.arrive(&datagrams, joined);
}

fn sending(reach: Reach, frames: Vec<Frame>) -> Scene {
    Scene {
        before: Vec::new(),
        joined: 1,
        frames: count(&frames),
        counted: peer(FROM, reach, frames),
        expect: |counters| counters.frames_from_bridge,
    }
}

fn receiving(reach: Reach, frames: Vec<Frame>, joined: usize) -> Scene {
    let number = count(&frames);
    let mut before = vec![peer(FROM, reach, frames)];
    if reach == Reach::Relayed {
        before.push(peer(BETWEEN, reach, Vec::new()));
    }
    Scene {
        before,
        joined,
        frames: number,
        counted: peer(TO, reach, Vec::new()),
        expect: |counters| counters.frames_to_bridge,
    }
}

/// What the one between the two does.
fn between(reach: Reach, frames: Vec<Frame>, joined: usize) -> Scene {
    Scene {
        frames: count(&frames),
        before: vec![peer(FROM, reach, frames)],
        joined,
        counted: peer(BETWEEN, reach, Vec::new()),
        expect: |counters| counters.frames_to_bridge,
    }
}

fn bulk() -> Vec<Frame> {
    (0..SUPER_FRAMES)
        .map(|number| frames::tcp([FROM, TO], PIECES, number))
        .collect()
}

fn singles() -> Vec<Frame> {
    vec![frames::small([FROM, TO], SMALL_LEN); SINGLES]
}

/// Segments in sequence, of each flow in turn.
fn mixed() -> Vec<Frame> {
    (0..SINGLES)
        .map(|number| {
            let (flow, start) = (number % FLOWS, number / FLOWS * SMALL_LEN);
            let port = 40_000 + flow as u16;
            frames::tcp_segment([FROM, TO], port, start as u32, SMALL_LEN)
        })
        .collect()
}

/// Frames that these are once they are cut.
fn count(frames: &[Frame]) -> usize {
    let pieces = |(frame, offload): &Frame| {
        offload.cut.map_or(1, |cut| {
            let payload = frame.len() - usize::from(cut.header_len);
            payload.div_ceil(cut.piece_len.into())
        })
    };
    frames.iter().map(pieces).sum()
}
