//! Several queues, and workers, of one port: what belongs together stays together and in order;
//! needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rmesh_router::kernel::Bridge;
use rmesh_router::port::fast::FastTap;
use rmesh_router::port::{FrameBatch, Port as _};

use crate::ports::{End, pair};
use crate::tap::{enter_new_namespace, packet_socket};

const QUEUES: usize = 4;
const FLOWS: u16 = 64;
/// Where TCP and UDP frames name their protocol, over IPv4 and IPv6.
const UDP: u8 = 17;

/// A frame of flow `number`, one way or the other; of IPv4 also as a fragment.
fn frame(number: u16, is_v6: bool, is_back: bool, fragment: u16) -> Vec<u8> {
    let hosts = if is_back { [2, 1] } else { [1, 2] };
    let mut ports = [40_000 + 2 * number, 80];
    if is_back {
        ports.reverse();
    }
    let mut frame = vec![2, 0, 0, 0, 0, hosts[1], 2, 0, 0, 0, 0, hosts[0]];
    if is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, UDP, 64]);
        for host in hosts {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
        }
    } else {
        let [high, low] = fragment.to_be_bytes();
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, high, low, 64, UDP, 0, 0]);
        for host in hosts {
            frame.extend([10, 0, 0, host]);
        }
    }
    for port in ports {
        frame.extend(port.to_be_bytes());
    }
    frame.extend([0, 8, 0, 0]);
    frame.resize(100, 0);
    frame
}

/// The queue each of these frames comes by, as numbers of the queues.
fn queues_of(
    taps: &mut [FastTap],
    mut link: &socket2::Socket,
    frames: &[Vec<u8>],
) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut batch = FrameBatch::default();
    for frame in frames {
        link.write_all(frame).unwrap();
        let mut came = 0;
        for (number, tap) in taps.iter_mut().enumerate() {
            tap.read_batch(&mut batch).unwrap();
            let same = batch.frames().filter(|(bytes, _)| *bytes == &frame[..]);
            let count = same.count();
            came += count;
            found.extend((count > 0).then_some(number));
        }
        assert_eq!(came, 1, "a frame comes once");
    }
    found
}

#[test]
fn all_frames_of_a_flow_come_by_one_queue_and_flows_by_all() {
    enter_new_namespace();
    let mut taps = FastTap::open("rmqueues", QUEUES).unwrap();
    let link = packet_socket("rmqueues");
    // What the kernel itself sends on a new interface.
    thread::sleep(Duration::from_millis(50));
    for is_v6 in [false, true] {
        let mut by_queue: BTreeMap<usize, usize> = BTreeMap::new();
        for number in 0..FLOWS {
            let both = [false, true].map(|is_back| frame(number, is_v6, is_back, 0));
            let of_flow = queues_of(&mut taps, &link, &[both.clone(), both].concat());
            assert_eq!(of_flow.len(), 1, "flow {number} has one queue");
            *by_queue
                .entry(of_flow.into_iter().next().unwrap())
                .or_default() += 1;
        }
        println!("IPv6 {is_v6}: {FLOWS} flows by queue: {by_queue:?}");
        assert_eq!(by_queue.len(), QUEUES);
        let most = by_queue.values().max().unwrap();
        assert!(*most <= usize::from(FLOWS) / 2, "{by_queue:?}");
    }
    // First, middle and last fragment, of which only the first has ports.
    let fragments = [0x2000, 0x2010, 0x0020].map(|field| frame(1, false, false, field));
    assert_eq!(queues_of(&mut taps, &link, &fragments).len(), 1);
}

#[test]
fn a_queue_of_the_bridges_port_holds_what_comes_while_its_worker_waits_for_a_core() {
    const FRAMES: usize = 2_900;
    enter_new_namespace();
    let bridge = Bridge::ensure("rmqbridge", 1_328, "test").unwrap();
    let mut taps = FastTap::open("rmqlong", QUEUES).unwrap();
    bridge.add_port("rmqlong", 1_328).unwrap();
    let mut link = packet_socket("rmqlong");
    let one = frame(1, false, false, 0);
    for _ in 0..FRAMES {
        link.write_all(&one).unwrap();
    }
    let (mut batch, mut came) = (FrameBatch::default(), 0);
    for tap in &mut taps {
        loop {
            tap.read_batch(&mut batch).unwrap();
            let count = batch.frames().filter(|(bytes, _)| *bytes == &one[..]);
            came += count.count();
            if batch.frames().next().is_none() {
                break;
            }
        }
    }
    assert_eq!(came, FRAMES);
}

/// Datagrams of each flow.
const DATAGRAMS: u32 = 4_000;

/// Sends them no faster than they are carried, however busy the machine is; but what is lost is not waited for.
fn send_numbered(from: &UdpSocket, to: SocketAddr, heard: &AtomicU32) {
    const AHEAD_MAX: u32 = 256;
    const PATIENCE_MS: u32 = 100;
    for number in 0..DATAGRAMS {
        let mut patience = 0..PATIENCE_MS;
        while number > heard.load(Relaxed) + AHEAD_MAX && patience.next().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
        // Lengths of all kinds, so that some are sent in runs and others not.
        let len = [4, 900, 900, 1_200][number as usize % 4];
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        from.send_to(&bytes, to).unwrap();
        if number % 32 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Gives how many came, and how many of them behind one with a higher number.
fn receive_numbered(at: &UdpSocket, seen: &AtomicU32) -> (u32, u32) {
    let (mut last, mut came, mut late) = (None, 0, 0);
    let mut bytes = [0; 2_000];
    while let Ok(len) = at.recv(&mut bytes) {
        assert!(len >= 4);
        let number = u32::from_be_bytes(*bytes.first_chunk().unwrap());
        late += u32::from(last.is_some_and(|last| number <= last));
        last = Some(number);
        seen.store(number, Relaxed);
        came += 1;
    }
    (came, late)
}

/// Numbered datagrams of several flows both ways through planes of two workers each.
#[test]
fn no_datagram_overtakes_another_of_its_flow() {
    const SOCKETS: usize = 8;
    enter_new_namespace();
    let ends = pair([true, true], 1_452);
    let [a, b] = &ends;
    let open = |end: &End| {
        let address = end.address;
        let bind = move || UdpSocket::bind((address, 0)).unwrap();
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| end.run(bind)).collect();
        sockets
    };
    let (near, far) = (open(a), open(b));
    let mut flows = Vec::new();
    for (one, other) in near.iter().zip(&far) {
        let (to_far, to_near) = (other.local_addr().unwrap(), one.local_addr().unwrap());
        for (from, to, at) in [(one, to_far, other), (other, to_near, one)] {
            flows.push((from.try_clone().unwrap(), to, at.try_clone().unwrap()));
        }
    }
    let running: Vec<_> = flows
        .into_iter()
        .map(|(from, to, at)| {
            at.set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let seen = Arc::new(AtomicU32::new(0));
            let heard = Arc::clone(&seen);
            let sending = thread::spawn(move || send_numbered(&from, to, &heard));
            let receiving = thread::spawn(move || receive_numbered(&at, &seen));
            (sending, receiving)
        })
        .collect();
    let mut all = (0, 0);
    for (sending, receiving) in running {
        sending.join().unwrap();
        let (came, late) = receiving.join().unwrap();
        all = (all.0 + came, all.1 + late);
    }
    println!(
        "{} of {} datagrams came, {} late",
        all.0,
        2 * SOCKETS as u32 * DATAGRAMS,
        all.1
    );
    assert_eq!(all.1, 0, "one overtook another of its flow");
    assert!(all.0 > SOCKETS as u32 * DATAGRAMS, "most came");
    for end in &ends {
        assert_eq!(end.plane.capabilities().workers, 2);
        assert_eq!(end.plane.counters().drops.get("replayed"), None);
    }
}
