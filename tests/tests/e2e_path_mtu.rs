//! Underlays that silently drop what is too long for them: found and left within seconds, under
//! running transfers, and without an IP fragment.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rmesh_lab::probe::{Capture, tcp_transfer};
use rmesh_lab::{Container, Host, Namespace, WireProfile};
use rmesh_tests::story;
use rmesh_tests::story::Story;

/// The lengths of IP packets, the longest first: under each one the transfer before it
/// already fills what the path carried.
const LIMITS: [u16; 7] = [1_492, 1_460, 1_450, 1_420, 1_400, 1_296, 1_280];
/// Container MTU of which a full frame fills a packet of 1,498 over IPv4.
const MTU: &str = "1420";
/// Bytes around a container's packet: IPv4 and UDP, record, payload head, Ethernet; 20 more over
/// IPv6.
const OVERHEAD: u32 = 28 + 32 + 4 + 14;
const STALL_MAX: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_millis(20);

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A wire of 50 Mbit/s and 5 ms, so that the transfer does not need the whole machine.
fn wire(packet_len_max: Option<usize>) -> WireProfile {
    WireProfile {
        latency: Duration::from_millis(5),
        rate_bits: Some(50_000_000),
        packet_len_max,
        ..WireProfile::default()
    }
}

/// A TCP transfer that goes on until it is stopped.
struct Transfer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    /// When something came last, and the longest time without since it was asked for.
    gap: Arc<Mutex<(Instant, Duration)>>,
    ends: [JoinHandle<()>; 2],
}

fn byte(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Transfer {
    fn start(from: &Namespace, to: &Namespace, at: IpAddr) -> Transfer {
        let listener = to
            .enter(|| TcpListener::bind(SocketAddr::new(at, 0)))
            .expect("a socket");
        let far = listener.local_addr().expect("its address");
        let near = from
            .enter(|| TcpStream::connect(far))
            .expect("a connection");
        let far = listener.accept().expect("the other end").0;
        far.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout");
        near.set_write_timeout(Some(READ_TIMEOUT))
            .expect("a timeout");
        let (stop, received) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let gap = Arc::new(Mutex::new((Instant::now(), Duration::ZERO)));
        let (stopped, count, gaps) = (Arc::clone(&stop), Arc::clone(&received), Arc::clone(&gap));
        let receiver = thread::spawn(move || receive(far, &stopped, &count, &gaps));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || send(near, &stopped));
        let ends = [sender, receiver];
        Transfer {
            stop,
            received,
            gap,
            ends,
        }
    }

    /// Longest time without a byte since the last call.
    fn take_gap(&self) -> Duration {
        let mut gap = self.gap.lock().expect("no panic elsewhere");
        let longest = gap.1.max(gap.0.elapsed());
        gap.1 = Duration::ZERO;
        longest
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for end in self.ends {
            end.join().expect("every byte was right");
        }
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool) {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let block: Vec<u8> = (sent..sent + 16_384).map(byte).collect();
        // Nothing but a full buffer is expected here; what else there is the receiver misses.
        sent += stream.write(&block).unwrap_or(0) as u64;
    }
}

fn receive(
    mut stream: TcpStream,
    stop: &AtomicBool,
    count: &AtomicU64,
    gap: &Mutex<(Instant, Duration)>,
) {
    let (mut block, mut position) = (vec![0; 65_536], 0);
    while !stop.load(Ordering::Relaxed) {
        let Ok(len) = stream.read(&mut block) else {
            continue;
        };
        let expected = (position..).map(byte);
        assert!(
            block[..len].iter().copied().eq(expected.take(len)),
            "a byte was changed"
        );
        position += len as u64;
        count.store(position, Ordering::Relaxed);
        let mut gap = gap.lock().expect("no panic elsewhere");
        *gap = (Instant::now(), gap.1.max(gap.0.elapsed()));
    }
}

/// IP fragments that the kernel of a host made, of both families.
fn fragments_made(host: &Host) -> u64 {
    let read = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        host.enter(|| std::fs::read_to_string(&path))
            .expect("the kernel's counters")
    };
    let v4 = read("snmp");
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    let counts = pairs.filter(|(name, _)| name.starts_with("Frag"));
    let v4: Vec<u64> = counts
        .map(|(_, value)| value.parse().expect("a number"))
        .collect();
    assert_eq!(v4.len(), 3, "FragOKs, FragFails, FragCreates: {names}");
    let v6 = read("snmp6");
    let v6 = v6.lines().filter(|line| line.starts_with("Ip6Frag"));
    let v6 = v6.map(|line| line.split_whitespace().nth(1).expect("a value"));
    v4.iter().sum::<u64>()
        + v6.map(|value| value.parse::<u64>().expect("a number"))
            .sum::<u64>()
}

/// All packets are whole, and those of UDP over IPv4 may not be fragmented.
fn expect_no_fragment(frames: &[Vec<u8>]) {
    let is_v6 = |frame: &&Vec<u8>| frame[12..14] == [0x86, 0xdd];
    let pieces = frames.iter().filter(is_v6).filter(|frame| frame[20] == 44);
    assert_eq!(pieces.count(), 0, "IPv6 fragments");
    let packets = frames.iter().filter(|frame| frame[12..14] == [8, 0]);
    let mut count = 0;
    for packet in packets.map(|frame| &frame[14..]) {
        let flags = u16::from_be_bytes([packet[6], packet[7]]);
        assert_eq!(flags & 0x3fff, 0, "an IP fragment");
        assert!(packet[9] != 17 || flags == 0x4000, "a datagram without DF");
        count += 1;
    }
    assert!(count > 1_000, "{count} packets only");
}

#[test]
fn every_silent_limit_is_left_in_a_running_transfer_without_an_ip_fragment() {
    let mut story = story!("pathmtu");
    let [a, b] = story.hosts(["a", "b"]);
    let link = story.emulated_link(&a, &b, 5);
    link.shape(wire(None));
    let to = link.address(&b, false).to_string();
    let routers = [
        story.launch_with(&a, &[&to], &["--mtu", MTU]),
        story.launch_with(&b, &[], &["--mtu", MTU]),
    ];
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    let two = story.container(&b, "two", "10.32.0.2/24");
    story.expect_ping(Duration::from_secs(2), &one, address("10.32.0.2"));
    let found_by = |host: &Host, other: &Host| {
        let peer = story.peer(host, other);
        (peer["path_mtu_found"] == true).then(|| peer["path_mtu_bytes"].as_u64().expect("a size"))
    };
    // Each end searches its own direction.
    let found = || found_by(&a, &b).filter(|found| found_by(&b, &a) == Some(*found));
    story.expect_within(Duration::from_secs(3), "1500 is found", || {
        found() == Some(1_500)
    });
    let transfers = [
        Transfer::start(&one, &two, address("10.32.0.2")),
        Transfer::start(&two, &one, address("10.32.0.1")),
    ];
    let capture = Capture::start(&a, &link.interface(&a)).expect("a capture");
    thread::sleep(Duration::from_millis(500));
    for limit in LIMITS {
        let what = format!("{limit} is found");
        let is_found = || found() == Some(limit.into());
        expect_to_go_on(&story, &transfers, limit, || {
            link.shape(wire(Some(limit.into())));
            story.expect_within(Duration::from_secs(4), &what, is_found);
        });
    }
    assert!(link.counters_towards(&b).too_long > 0);
    expect_no_fragment(&capture.stop());
    let lost = &story.status(&a)["control"]["path_mtu_lost"];
    println!(
        "{lost} black holes found at {} limits, IPv4 and IPv6",
        LIMITS.len()
    );
    transfers.into_iter().for_each(Transfer::stop);
    expect_small_path(&story, [&a, &b], [&one, &two]);
    for host in [&a, &b] {
        assert_eq!(fragments_made(host), 0, "{}", host.short_name());
    }
    link.shape(wire(None));
    story.expect_within(Duration::from_secs(25), "1500 again", || {
        found() == Some(1_500)
    });
}

/// Transfers go on, both ways, while a path of this limit is found.
fn expect_to_go_on(story: &Story, transfers: &[Transfer; 2], limit: u16, find: impl FnOnce()) {
    let before = transfers.each_ref().map(Transfer::received);
    for transfer in transfers {
        transfer.take_gap();
    }
    find();
    for ((transfer, before), way) in transfers.iter().zip(before).zip(["to", "from"]) {
        let goes_on = || transfer.received() > before + (1 << 20);
        story.expect_within(Duration::from_secs(2), "the transfer goes on", goes_on);
        let what = format!("the stall {way} b at {limit}");
        story.expect_took(STALL_MAX, &what, transfer.take_gap());
    }
}

/// A path over a tunnel may carry less than any should: what is longer crosses in sealed fragments, what the control
/// side says as well.
#[test]
fn a_path_that_carries_less_than_assumed_is_used_as_it_is() {
    let mut story = story!("pathmtusmall");
    let [a, b] = story.hosts(["a", "b"]);
    let link = story.emulated_link(&a, &b, 6);
    link.shape(wire(Some(700)));
    let to = link.address(&b, false).to_string();
    let routers = [
        story.launch_with(&a, &[&to], &[]),
        story.launch_with(&b, &[], &[]),
    ];
    let capture = Capture::start(&a, &link.interface(&a)).expect("a capture");
    story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
    let one = story.container(&a, "one", "10.32.0.1/24");
    // So many that what is said of them is longer than the path's packets.
    let many: Vec<Container> = (2..12)
        .map(|number| {
            let name = format!("one-of-many-with-a-long-name-{number}");
            story.container(&b, &name, &format!("10.32.0.{number}/24"))
        })
        .collect();
    let found = || {
        let found_by = |host: &Host, other: &Host| {
            let peer = story.peer(host, other);
            (peer["path_mtu_found"] == true).then(|| peer["path_mtu_bytes"].as_u64())
        };
        let both = [found_by(&a, &b), found_by(&b, &a)].map(Option::flatten);
        (both[0] == both[1]).then_some(both[0]).flatten()
    };
    story.expect_within(Duration::from_secs(8), "700 is found", || {
        found() == Some(700)
    });
    story.expect_ping(Duration::from_secs(5), &one, address("10.32.0.11"));
    let transfers = [
        Transfer::start(&one, &many[0], address("10.32.0.2")),
        Transfer::start(&many[0], &one, address("10.32.0.1")),
    ];
    thread::sleep(Duration::from_millis(500));
    link.shape(wire(None));
    let most = || found().is_some_and(|found| found >= 1_500);
    story.expect_within(Duration::from_secs(25), "all is found again", most);
    for limit in [1_200, 1_000, 600] {
        let what = format!("{limit} is found");
        let is_found = || found() == Some(limit.into());
        expect_to_go_on(&story, &transfers, limit, || {
            link.shape(wire(Some(limit.into())));
            story.expect_within(Duration::from_secs(8), &what, is_found);
        });
    }
    transfers.into_iter().for_each(Transfer::stop);
    expect_no_fragment(&capture.stop());
    for host in [&a, &b] {
        assert_eq!(fragments_made(host), 0, "{}", host.short_name());
    }
}

/// What containers see of a path that carries 1,280: new connections ask for less, and who sends
/// more by UDP is told how much fits.
fn expect_small_path(story: &Story, hosts: [&Host; 2], [one, two]: [&Container; 2]) {
    let count = |host: &Host, of: &str| story.status(host)["frames"][of].as_u64().expect("a count");
    let far = address("10.32.0.2");
    let clamped = count(hosts[1], "mss_clamped");
    let limit = Duration::from_secs(20);
    let report = tcp_transfer(one, two, far, 1 << 20, limit).expect("a connection");
    assert!(report.intact, "{report:?}");
    assert!(
        count(hosts[1], "mss_clamped") > clamped,
        "the SYN asked for less"
    );
    let receiver = two
        .enter(|| UdpSocket::bind(SocketAddr::new(far, 0)))
        .expect("a socket");
    receiver
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    let sender = one
        .enter(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("a socket");
    sender
        .connect(receiver.local_addr().expect("its address"))
        .expect("a route");
    sender.send(&[7; 1_392]).expect("fits the interface");
    let mut came = [0; 2_000];
    assert_eq!(
        receiver
            .recv(&mut came)
            .expect("it crossed in sealed fragments"),
        1_392
    );
    let learned = || {
        // The message may have come late or not at all, and is told as an error when it came.
        let _ = sender.send(&[7; 1_392]);
        rustix::net::sockopt::ip_mtu(&sender).expect("the kernel's idea")
    };
    let what = "the container's kernel knows what fits";
    let fits = || {
        let path = story.peer(hosts[0], hosts[1])["path"]["address"].to_string();
        1_280 - OVERHEAD - if path.contains('[') { 20 } else { 0 }
    };
    story.expect_within(Duration::from_secs(2), what, || learned() == fits());
    assert!(count(hosts[0], "too_big_told") > 0);
}
