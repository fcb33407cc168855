//! What others do to the kernel's objects is seen and put right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rmesh_router::fast::{Fast, FastEntries, FastOptions};
use rmesh_router::kernel::KernelError;
use rmesh_wire::Mac;

use crate::namespace::{Namespace, delivers};
use crate::support::{
    BRIDGE, Container, Host, PORT, TAP, Wire, heartbeat, is_silent, nft, options, run,
};
use crate::{pair, place};

/// Entries of the bridge's ports by MAC, and of VXLAN devices by MAC, each as iproute2 shows them.
fn shown(namespace: &Namespace) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut ports, mut tunnels) = (BTreeMap::new(), BTreeMap::new());
    for line in run(namespace, "/usr/sbin/bridge", &["fdb", "show"]).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [mac, "dev", device, "sticky", "master", BRIDGE, "static"] => {
                assert!(ports.insert(mac.into(), device.into()).is_none(), "{line}");
            }
            [mac, "dev", device, "dst", address, "self", "permanent"] => {
                let at = format!("{device} {address}");
                assert!(tunnels.insert(mac.into(), at).is_none(), "{line}");
            }
            _ => {}
        }
    }
    (ports, tunnels)
}

/// The same as they should be.
fn expected(wanted: &FastEntries) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let device = |v6: bool| format!("{BRIDGE}-vx{}", if v6 { 6 } else { 4 });
    let mut tunnels = BTreeMap::new();
    for (mac, address) in &wanted.heartbeats {
        tunnels.insert(
            mac.to_string(),
            format!("{} {address}", device(address.is_ipv6())),
        );
    }
    let port = |(mac, address): (&Mac, &Option<std::net::IpAddr>)| {
        let address = address.filter(|address| wanted.allowed.contains(address));
        let port = address.map_or(TAP.into(), |address| device(address.is_ipv6()));
        (mac.to_string(), port)
    };
    let ports = wanted.macs.iter().map(port).collect();
    for (mac, address) in &wanted.macs {
        if let Some(address) = address.filter(|address| wanted.allowed.contains(address)) {
            tunnels.insert(
                mac.to_string(),
                format!("{} {address}", device(address.is_ipv6())),
            );
        }
    }
    (ports, tunnels)
}

fn addresses(namespace: &Namespace, set: &str) -> BTreeSet<std::net::IpAddr> {
    let shown = nft(namespace, &format!("list set inet rmesh {set}"));
    let words = shown.split(|c: char| c.is_whitespace() || "{},".contains(c));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn address(&mut self) -> std::net::IpAddr {
        let last = self.below(20) as u8 + 10;
        match self.below(2) {
            0 => [192, 0, 2, last].into(),
            _ => [0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into(),
        }
    }

    fn mac(&mut self, kind: u8) -> Mac {
        Mac([2, kind, 0, 0, 0, self.below(60) as u8])
    }

    fn change(&mut self, wanted: &mut FastEntries) {
        match self.below(6) {
            0 => {
                wanted.allowed.insert(self.address());
            }
            1 => {
                wanted.allowed.remove(&self.address());
            }
            2 => {
                wanted.heartbeats.insert(self.mac(1), self.address());
            }
            3 => {
                wanted.heartbeats.remove(&self.mac(1));
            }
            4 => {
                let address = (self.below(3) > 0).then(|| self.address());
                wanted.macs.insert(self.mac(2), address);
            }
            _ => {
                wanted.macs.remove(&self.mac(2));
            }
        }
    }
}

#[test]
fn a_thousand_changes_leave_what_is_wanted_and_nothing_else() {
    let wire = Wire::new();
    let mut host = Host::new(&wire, 1);
    let mut dice = Dice(7);
    for round in 0..1_000 {
        for _ in 0..=dice.below(8) {
            dice.change(&mut host.wanted);
        }
        host.apply();
        if round % 50 == 49 {
            assert_eq!(shown(&host.namespace), expected(&host.wanted), "{round}");
            for set in ["allowed_in", "allowed_out"] {
                let both =
                    [4, 6].map(|family| addresses(&host.namespace, &format!("{set}{family}")));
                let [v4, v6] = both;
                assert_eq!(&v4 | &v6, host.wanted.allowed, "{round}");
            }
            assert_eq!(host.verify(), Vec::<String>::new());
        }
    }
    host.wanted = FastEntries::default();
    host.apply();
    assert_eq!(shown(&host.namespace), Default::default());
}

#[test]
fn a_large_mesh_is_told_and_verified_in_good_time() {
    /// Hosts and containers: more than any mesh has been promised.
    const PEERS: u32 = 1_000;
    const MACS: u32 = 10_000;
    let wire = Wire::new();
    let mut host = Host::new(&wire, 1);
    let peer = |n: u32| std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes());
    let mac = |kind, n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, kind, a, b, c, d])
    };
    host.wanted.allowed = (0..PEERS).map(peer).collect();
    host.wanted.heartbeats = (0..PEERS).map(|n| (mac(1, n), peer(n))).collect();
    host.wanted.macs = (0..MACS)
        .map(|n| (mac(2, n), Some(peer(n % PEERS))))
        .collect();
    let timed = |name: &str, host: &mut Host, work: &dyn Fn(&mut Host)| {
        let start = Instant::now();
        work(host);
        println!("{name}: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5), "{name}");
    };
    timed("all at once", &mut host, &Host::apply);
    timed("the same again", &mut host, &Host::apply);
    timed("verified", &mut host, &|host| {
        assert!(host.verify().is_empty())
    });
    timed("counted", &mut host, &|host| {
        assert_eq!(host.fast.counters().unwrap().sent.len(), PEERS as usize);
    });
    timed("restarted", &mut host, &Host::restart);
    assert_eq!(host.fast.adopted().len(), MACS as usize);
    host.wanted = FastEntries::default();
    timed("taken back", &mut host, &Host::apply);
}

/// Two hosts whose containers reach each other.
fn working(wire: &Wire) -> ([Host; 2], [Container; 2]) {
    let (mut hosts, containers) = pair(wire);
    place(&mut hosts, &containers, false);
    for host in &mut hosts {
        assert_eq!(host.verify(), Vec::<String>::new());
    }
    (hosts, containers)
}

fn reach(containers: &[Container; 2]) -> bool {
    delivers(&containers[0].udp(), &containers[1].udp())
}

#[test]
fn a_table_that_somebody_changed_is_made_anew() {
    let wire = Wire::new();
    let (mut hosts, containers) = working(&wire);
    let foreign = "add table inet other ; add chain inet other c ; add rule inet other c counter";
    nft(&hosts[0].namespace, foreign);
    let before = nft(&hosts[0].namespace, "-a list table inet other");
    let handle = |host: &Host, chain: &str| {
        let shown = nft(
            &host.namespace,
            &format!("-a list chain inet rmesh {chain}"),
        );
        let line = shown
            .lines()
            .rfind(|line| line.contains("# handle"))
            .unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let faults = [
        "delete table inet rmesh".to_owned(),
        format!(
            "delete rule inet rmesh vxlan_in handle {}",
            handle(&hosts[0], "vxlan_in")
        ),
        "insert rule inet rmesh vxlan_in accept".into(),
        "flush chain inet rmesh vxlan_out".into(),
        "flush set inet rmesh allowed_out4".into(),
        "add element inet rmesh allowed_in4 { 192.0.2.77 }".into(),
        "add table inet rmesh { flags dormant ; }".into(),
        "add chain inet rmesh vxlan_in { policy drop ; }".into(),
        "add chain inet rmesh more".into(),
    ];
    for fault in faults {
        nft(&hosts[0].namespace, &fault);
        let words = hosts[0].verify();
        assert_eq!(words.len(), 1, "{fault}: {words:?}");
        assert!(words[0].contains("nftables table rmesh was"), "{words:?}");
        assert_eq!(hosts[0].verify(), Vec::<String>::new(), "{fault}");
        assert!(reach(&containers), "{fault}");
    }
    assert_eq!(nft(&hosts[0].namespace, "-a list table inet other"), before);
    nft(&hosts[0].namespace, "delete table bridge rmesh");
    let words = hosts[0].verify();
    assert!(words[0].contains("for heartbeats was gone"), "{words:?}");
    // All at once, and somebody new comes before it was seen.
    nft(&hosts[0].namespace, "flush ruleset");
    let third = Host::new(&wire, 3);
    hosts[0].trust(&third);
    assert!(reach(&containers));
    assert_eq!(addresses(&hosts[0].namespace, "allowed_in4").len(), 2);
    assert_eq!(hosts[0].verify().len(), 1, "that for heartbeats");
}

#[test]
fn devices_and_entries_that_somebody_changed_are_put_right() {
    let wire = Wire::new();
    let (mut hosts, containers) = working(&wire);
    let (mac, thief) = (containers[1].mac.to_string(), "02:00:00:00:00:66");
    let own = heartbeat(1).to_string();
    let faults = [
        format!("ip link delete {BRIDGE}-vx4"),
        format!("ip link delete {BRIDGE}-vx6"),
        format!("ip link set {BRIDGE}-vx4 down"),
        format!("ip link set {BRIDGE}-vx4 nomaster"),
        format!("ip link set {BRIDGE}-vx4 type vxlan learning"),
        format!("bridge link set dev {BRIDGE}-vx4 isolated off"),
        format!("bridge link set dev {BRIDGE}-vx6 flood on"),
        format!("bridge link set dev {TAP} learning on"),
        format!("bridge fdb delete {mac} dev {BRIDGE}-vx4 master"),
        format!("bridge fdb replace {mac} dev {TAP} master static sticky"),
        format!("bridge fdb replace {mac} dev {BRIDGE}-vx4 master static"),
        format!("bridge fdb delete {mac} dev {BRIDGE}-vx4 self"),
        format!("bridge fdb replace {mac} dev {BRIDGE}-vx4 self dst 192.0.2.66"),
        format!("bridge fdb add {thief} dev {BRIDGE}-vx4 self dst 192.0.2.66"),
        format!("bridge fdb add {thief} dev {BRIDGE}-vx4 master static sticky"),
        format!("bridge fdb delete {own} dev {BRIDGE} self"),
    ];
    for fault in faults {
        let words: Vec<&str> = fault.split_whitespace().collect();
        run(
            &hosts[0].namespace,
            &format!("/usr/sbin/{}", words[0]),
            &words[1..],
        );
        let said = hosts[0].verify();
        assert!(!said.is_empty(), "{fault}");
        println!("{fault}: {said:?}");
        assert_eq!(hosts[0].verify(), Vec::<String>::new(), "{fault}");
        let wanted = expected(&hosts[0].wanted);
        assert_eq!(shown(&hosts[0].namespace), wanted, "{fault}");
        assert!(reach(&containers), "{fault}");
    }
}

#[test]
fn a_device_of_another_mesh_is_made_anew_and_one_of_somebody_else_is_left_alone() {
    let wire = Wire::new();
    let (mut hosts, containers) = working(&wire);
    let (namespace, bridge) = (&hosts[0].namespace, &hosts[0].bridge);
    let ensure = |change: &(dyn Fn(&mut FastOptions) + Sync)| {
        let mut options = options(bridge);
        change(&mut options);
        namespace.enter(|| Fast::ensure(options, heartbeat(1)))
    };
    let other = ensure(&|options| options.vni = 5).unwrap();
    assert!(other.adopted().is_empty());
    assert!(is_silent(&containers[0].udp(), &containers[1].udp()));
    drop(other);
    crate::support::remove(namespace).unwrap();

    let words = format!(
        "link add theirs type vxlan id {} dstport {PORT}",
        options(bridge).vni
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    run(namespace, "/usr/sbin/ip", &words);
    run(namespace, "/usr/sbin/ip", &["link", "set", "theirs", "up"]);
    let error = ensure(&|_| {}).err().unwrap();
    assert!(matches!(error, KernelError::TunnelTaken { .. }), "{error}");
    let name = format!("{BRIDGE}-vx4");
    run(
        namespace,
        "/usr/sbin/ip",
        &["link", "set", "theirs", "name", &name],
    );
    let error = ensure(&|_| {}).err().unwrap();
    assert!(matches!(error, KernelError::NotOurTunnel { .. }), "{error}");
    let error = crate::support::remove(namespace).unwrap_err();
    assert!(matches!(error, KernelError::NotOurTunnel { .. }), "{error}");
    run(namespace, "/usr/sbin/ip", &["link", "delete", &name]);
    let taken = namespace.udp(crate::namespace::ANY);
    let port = taken.local_addr().unwrap().port();
    let error = ensure(&|options| options.port = port).err().unwrap();
    assert!(matches!(error, KernelError::TunnelTaken { .. }), "{error}");
    hosts[0].restart();
    hosts[0].apply();
    assert!(reach(&containers));
}
