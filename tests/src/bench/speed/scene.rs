//! Two hosts on one wire, joined in every way that is compared.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rmesh_lab::{Container, Host, LabError, Link, Namespace};

use crate::story::{Router, Story};

/// What VXLAN takes of each packet of the underlay, in bytes.
const VXLAN_OVERHEAD: u32 = 50;
const UNDERLAY_MTU: u32 = 1_500;
const MESH_WITHIN: Duration = Duration::from_secs(5);

/// What the underlay's interfaces do for the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Underlay {
    /// Nothing: every datagram is a packet of its own.
    Wire,
    /// They join what they receive, as a network card's driver does.
    Nic,
    /// Everything a veth pair can: it carries super-frames whole.
    Veth,
}

impl Underlay {
    pub(super) fn name(self) -> &'static str {
        match self {
            Underlay::Wire => "wire",
            Underlay::Nic => "nic",
            Underlay::Veth => "veth",
        }
    }

    pub(super) fn apply(self, host: &Host, interface: &str) -> Result<(), LabError> {
        match self {
            Underlay::Wire => host.without_offloads(interface),
            Underlay::Nic => host.with_receive_offload_only(interface),
            Underlay::Veth => Ok(()),
        }
    }
}

/// Where traffic starts, and the address of where it ends.
pub(super) struct Way<'a> {
    pub(super) from: &'a Namespace,
    pub(super) to: &'a Namespace,
    pub(super) address: IpAddr,
}

/// Two hosts, or three of which the third joins the others.
pub(super) struct Scene {
    hosts: Vec<Host>,
    links: Vec<Link>,
    routers: Vec<Router>,
    meshed: [Container; 2],
    bridged: Option<[Container; 2]>,
}

fn done<T>(result: Result<T, LabError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

impl Scene {
    /// Two hosts on one wire, with the kernel's VXLAN beside rmesh.
    pub(super) fn pair(story: &mut Story, underlay: Underlay) -> Scene {
        Scene::pair_with(story, underlay, &[])
    }

    /// The same with further flags for both routers.
    pub(super) fn pair_with(story: &mut Story, underlay: Underlay, flags: &[&str]) -> Scene {
        let hosts = story.hosts(["a", "b"]);
        let [a, b] = &hosts;
        let link = story.link(a, b);
        for host in &hosts {
            done(underlay.apply(host, &link.interface(host)));
        }
        let bridged = [bridged(&link, [a, b], 11), bridged(&link, [b, a], 12)];
        let peers = [Vec::new(), vec![link.address(a, false)]];
        let wires = (vec![link], &peers[..]);
        Scene::of(story, hosts.to_vec(), wires, Some(bridged), flags)
    }

    /// Two hosts that only a third one joins.
    pub(super) fn relayed(story: &mut Story, underlay: Underlay) -> Scene {
        let hosts = story.hosts(["a", "b", "r"]);
        let [a, b, r] = &hosts;
        let links = [a, b].map(|host| story.link(host, r));
        for (host, link) in [a, b].into_iter().zip(&links) {
            done(underlay.apply(host, &link.interface(host)));
            done(underlay.apply(r, &link.interface(r)));
        }
        let near = links.each_ref().map(|link| vec![link.address(r, false)]);
        let [of_a, of_b] = near;
        let peers = [of_a, of_b, Vec::new()];
        Scene::of(story, hosts.to_vec(), (links.into(), &peers), None, &[])
    }

    fn of(
        story: &mut Story,
        hosts: Vec<Host>,
        (links, peers): (Vec<Link>, &[Vec<IpAddr>]),
        bridged: Option<[Container; 2]>,
        flags: &[&str],
    ) -> Scene {
        let mut start = |(host, peers): (&Host, &Vec<IpAddr>)| {
            let peers: Vec<String> = peers.iter().map(IpAddr::to_string).collect();
            let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
            story.launch_with(host, &peers, flags)
        };
        let routers: Vec<Router> = hosts.iter().zip(peers).map(&mut start).collect();
        story.expect_mesh(MESH_WITHIN, &routers.iter().collect::<Vec<_>>());
        let meshed = [
            story.container(&hosts[0], "one", "10.32.0.1/24"),
            story.container(&hosts[1], "one", "10.32.0.2/24"),
        ];
        let scene = Scene {
            hosts,
            links,
            routers,
            meshed,
            bridged,
        };
        scene.expect_path(story);
        scene
    }

    fn expect_path(&self, story: &Story) {
        let way = self.rmesh();
        story.expect_ping(MESH_WITHIN, way.from, way.address);
    }

    /// Both routers anew, with these flags; the containers stay.
    pub(super) fn relaunch(&mut self, story: &mut Story, flags: &[&str]) {
        for router in self.routers.drain(..) {
            router.kill();
        }
        let near = self.links[0].address(&self.hosts[0], false).to_string();
        let peers: [&[&str]; 2] = [&[], &[&near]];
        let started = self.hosts.iter().zip(peers);
        let routers: Vec<Router> = started
            .map(|(host, peers)| story.launch_with(host, peers, flags))
            .collect();
        self.routers = routers;
        story.expect_mesh(MESH_WITHIN, &self.routers.iter().collect::<Vec<_>>());
        self.expect_path(story);
    }

    /// Waits until both ends carry frames by the kernel's VXLAN.
    pub(super) fn expect_plaintext(&self, story: &Story) {
        let [a, b, ..] = &self.hosts[..] else {
            panic!("two hosts");
        };
        story.expect_within(MESH_WITHIN, "both ends are on VXLAN", || {
            story.path_kind(a, b) == "vxlan" && story.path_kind(b, a) == "vxlan"
        });
    }

    /// The bare wire.
    pub(super) fn raw(&self) -> Way<'_> {
        let [a, b, ..] = &self.hosts[..] else {
            panic!("two hosts");
        };
        Way {
            from: a,
            to: b,
            address: self.links[0].address(b, false),
        }
    }

    /// The kernel's VXLAN on a bridge.
    pub(super) fn vxlan(&self) -> Way<'_> {
        let [from, to] = self.bridged.as_ref().expect("a scene of two hosts");
        Way {
            from,
            to,
            address: IpAddr::from([10, 32, 0, 12]),
        }
    }

    pub(super) fn rmesh(&self) -> Way<'_> {
        let [from, to] = &self.meshed;
        Way {
            from,
            to,
            address: IpAddr::from([10, 32, 0, 2]),
        }
    }

    pub(super) fn daemons(&self) -> impl Iterator<Item = u32> {
        self.routers.iter().map(|router| router.process.pid())
    }
}

/// A container that the kernel's VXLAN joins to that of the other host.
fn bridged(link: &Link, [host, other]: [&Host; 2], number: u8) -> Container {
    let make = || {
        let container = host.container("vxlan")?;
        host.switch("vxbridge", &[])?;
        let address = format!("10.32.0.{number}/24");
        let address = address.parse().expect("an address in the right form");
        host.plug_machine(&container, "vxbridge", number, address)?;
        let ends = [host, other].map(|host| v4(link.address(host, false)));
        host.plug_vxlan("vx0", ends, &link.interface(host), "vxbridge")?;
        container.set_mtu("eth0", UNDERLAY_MTU - VXLAN_OVERHEAD)?;
        Ok::<_, LabError>(container)
    };
    done(make())
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
