//! Hosts with a bridge, a TAP and a fast path, on one wire.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rmesh_router::attach::{Request, attach, mac_for};
use rmesh_router::fast::{Fast, FastEntries, FastOptions, heartbeat_mac};
use rmesh_router::kernel::{Bridge, KernelError};
use rmesh_router::port::fast::FastTap;
use rmesh_router::port::{FrameBatch, Port as _};
use rmesh_wire::{Mac, PeerId};

use crate::namespace::Namespace;

pub(crate) const BRIDGE: &str = "rmesh";
pub(crate) const OWNER: &str = "/test";
pub(crate) const TAP: &str = "rmesh-tap";
pub(crate) const PORT: u16 = 6784;
pub(crate) const MTU_BYTES: u16 = 1328;
/// What is on its way is there after this time, however busy the machine.
const ARRIVED_MAX: Duration = Duration::from_secs(2);
/// What was not seen after this time will not come.
pub(crate) const SILENT: Duration = Duration::from_millis(200);
const WIRE_MTU_BYTES: u16 = 1500;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Runs a program in a namespace; it must succeed.
pub(crate) fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> String {
    let output = namespace
        .enter(|| Command::new(program).args(arguments).output())
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Loads rules of nftables.
pub(crate) fn nft(namespace: &Namespace, rules: &str) -> String {
    let words: Vec<&str> = rules.split_whitespace().collect();
    run(namespace, "/usr/sbin/nft", &words)
}

/// A switch between hosts.
pub(crate) struct Wire {
    pub(crate) namespace: Namespace,
    bridge: Bridge,
}

impl Wire {
    pub(crate) fn new() -> Wire {
        let namespace = Namespace::new();
        let bridge = namespace
            .enter(|| Bridge::ensure("wire", WIRE_MTU_BYTES, OWNER))
            .unwrap();
        Wire { namespace, bridge }
    }

    /// Gives a namespace an interface at this wire.
    fn plug(&self, namespace: &Namespace, addresses: &[&str]) {
        let addresses = nets(addresses);
        let request = Request {
            mac: mac_for(&addresses, b""),
            target: namespace.target(),
            interface: "eth0".into(),
            addresses,
            mtu_bytes: WIRE_MTU_BYTES,
            name: "host".into(),
        };
        self.namespace
            .enter(|| attach(&self.bridge, &request))
            .unwrap();
    }
}

/// A host of the mesh. `number` tells its addresses: 192.0.2.number and 2001:db8::number.
pub(crate) struct Host {
    pub(crate) number: u8,
    pub(crate) namespace: Namespace,
    pub(crate) bridge: Bridge,
    pub(crate) tap: FastTap,
    pub(crate) fast: Fast,
    pub(crate) wanted: FastEntries,
}

impl Host {
    pub(crate) fn new(wire: &Wire, number: u8) -> Host {
        let namespace = Namespace::new();
        let v4 = format!("192.0.2.{number}/24");
        let v6 = format!("2001:db8::{number}/64");
        wire.plug(&namespace, &[&v4, &v6]);
        let (bridge, tap) = namespace.enter(|| {
            let bridge = Bridge::ensure(BRIDGE, MTU_BYTES, OWNER).unwrap();
            let tap = FastTap::open(TAP, 1).unwrap().pop().unwrap();
            bridge.add_port(TAP, MTU_BYTES).unwrap();
            (bridge, tap)
        });
        let fast = namespace
            .enter(|| Fast::ensure(options(&bridge), heartbeat(number)))
            .unwrap();
        Host {
            number,
            namespace,
            bridge,
            tap,
            fast,
            wanted: FastEntries::default(),
        }
    }

    pub(crate) fn v4(&self) -> IpAddr {
        ip(&format!("192.0.2.{}", self.number))
    }

    pub(crate) fn v6(&self) -> IpAddr {
        ip(&format!("2001:db8::{}", self.number))
    }

    /// Starts the fast path again, as a restarted program does.
    pub(crate) fn restart(&mut self) {
        self.fast = self
            .namespace
            .enter(|| Fast::ensure(options(&self.bridge), heartbeat(self.number)))
            .unwrap();
    }

    /// Lets VXLAN from and to the other host through.
    pub(crate) fn trust(&mut self, other: &Host) {
        self.wanted.allowed.extend([other.v4(), other.v6()]);
        self.apply();
    }

    /// Says that heartbeats to the other go to this address of it.
    pub(crate) fn beat(&mut self, other: &Host, to: IpAddr) {
        self.wanted.heartbeats.insert(heartbeat(other.number), to);
        self.apply();
    }

    /// Says where a container is.
    pub(crate) fn place(&mut self, container: &Container, to: Option<IpAddr>) {
        self.wanted.macs.insert(container.mac, to);
        self.apply();
    }

    pub(crate) fn apply(&mut self) {
        let wanted = self.wanted.clone();
        self.enter_fast(|fast| fast.apply(wanted)).unwrap();
    }

    pub(crate) fn verify(&mut self) -> Vec<String> {
        self.enter_fast(Fast::verify).unwrap()
    }

    pub(crate) fn enter_fast<T: Send>(&mut self, work: impl FnOnce(&mut Fast) -> T + Send) -> T {
        let (namespace, fast) = (&self.namespace, &mut self.fast);
        namespace.enter(|| work(fast))
    }

    pub(crate) fn attach(&self, address: &str) -> Container {
        let namespace = Namespace::new();
        let addresses = nets(&[address]);
        let request = Request {
            mac: mac_for(&addresses, b""),
            target: namespace.target(),
            interface: "ethwe".into(),
            addresses: addresses.clone(),
            mtu_bytes: MTU_BYTES,
            name: "web".into(),
        };
        let attachment = self
            .namespace
            .enter(|| attach(&self.bridge, &request))
            .unwrap();
        Container {
            namespace,
            address: addresses[0].addr(),
            mac: attachment.mac,
        }
    }

    /// How many frames with "hello" have gone to the TAP since it was asked last; waits for so many.
    pub(crate) fn greetings_at_tap(&mut self, awaited: usize) -> usize {
        let (start, mut batch, mut count) = (Instant::now(), FrameBatch::default(), 0);
        loop {
            self.tap.read_batch(&mut batch).unwrap();
            let frames = batch.frames().map(|(frame, _)| frame);
            let all = batch.frames().count();
            count += frames.filter(|frame| frame.ends_with(b"hello")).count();
            if all > 0 {
                continue;
            }
            if count >= awaited || start.elapsed() > ARRIVED_MAX {
                return count;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Bytes of datagrams that went to another host by VXLAN, over both families, and of frames that came from all.
    pub(crate) fn counted(&mut self, other: &Host) -> (u64, u64) {
        let counters = self.fast.counters().unwrap();
        assert_eq!(counters.sent, self.fast.sent().unwrap());
        let both = [other.v4(), other.v6()];
        let sent = both.iter().filter_map(|ip| counters.sent.get(ip)).sum();
        (sent, counters.received)
    }

    /// Datagrams dropped on their way in, once there are so many.
    pub(crate) fn dropped_in(&mut self, awaited: u64) -> u64 {
        let start = Instant::now();
        loop {
            let dropped = self.fast.counters().unwrap().dropped_in;
            if dropped >= awaited || start.elapsed() > ARRIVED_MAX {
                return dropped;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Heartbeats that have come: at least so many, and what comes a moment later.
    pub(crate) fn heartbeats(&mut self, awaited: usize) -> Vec<Vec<u8>> {
        let (mut start, mut all) = (Instant::now(), Vec::new());
        let mut limit = ARRIVED_MAX;
        while start.elapsed() < limit {
            let before = all.len();
            self.fast.receive(&mut |payload, is_intact| {
                assert!(is_intact, "a checksum was damaged");
                all.push(payload.to_vec());
            });
            if before < awaited && all.len() >= awaited {
                (start, limit) = (Instant::now(), SILENT);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    }
}

pub(crate) fn options(bridge: &Bridge) -> FastOptions {
    FastOptions {
        bridge: bridge.clone(),
        tap: TAP.into(),
        port: PORT,
        vni: 0x00c0_ffee & 0x00ff_ffff,
        mtu_bytes: MTU_BYTES,
        bind: Vec::new(),
    }
}

pub(crate) fn heartbeat(number: u8) -> Mac {
    heartbeat_mac(&PeerId([number; 16]))
}

pub(crate) struct Container {
    pub(crate) namespace: Namespace,
    pub(crate) address: IpAddr,
    pub(crate) mac: Mac,
}

impl Container {
    /// Tells it the MAC of another: peers would answer its question.
    pub(crate) fn know(&self, other: &Container) {
        let (address, mac) = (other.address.to_string(), other.mac.to_string());
        let words = ["neigh", "replace", &address, "lladdr", &mac, "dev", "ethwe"];
        run(&self.namespace, "/usr/sbin/ip", &words);
    }

    pub(crate) fn udp(&self) -> UdpSocket {
        self.namespace.udp(self.address)
    }
}

/// Two containers that know each other's MACs.
pub(crate) fn acquaint(a: &Container, b: &Container) {
    a.know(b);
    b.know(a);
}

/// Whether none of a few datagrams arrives.
pub(crate) fn is_silent(from: &UdpSocket, to: &UdpSocket) -> bool {
    to.set_read_timeout(Some(SILENT)).unwrap();
    for _ in 0..3 {
        from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    }
    let silent = to.recv_from(&mut [0; 16]).is_err();
    to.set_read_timeout(Some(ARRIVED_MAX)).unwrap();
    silent
}

pub(crate) fn remove(namespace: &Namespace) -> Result<(), KernelError> {
    namespace.enter(|| Fast::remove(BRIDGE))
}
