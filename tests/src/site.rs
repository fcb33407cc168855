//! An internet with hosts in it, some of them behind translators.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rmesh_lab::{Firewall, Host, Link, Nat, NatBehavior};

use crate::story::Story;

/// UDP port of the mesh.
const PORT: u16 = 6_783;
/// How long a translator keeps a mapping that is not used: as short as RFC 4787 (REQ-5) lets those of
/// some well-known services be, and what many home routers do to all.
const MAPPING_LIFETIME: Duration = Duration::from_secs(30);

/// What is between a host and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing.
    Open,
    /// A translator with one port a socket, open for everybody.
    EndpointIndependent,
    /// A translator with one port a socket, open for whom it called.
    AddressDependent,
    /// A translator with a port for every destination.
    Symmetric,
    /// Two translators in a row, as with a carrier's behind the own one.
    Double,
    /// A translator that lets no UDP pass.
    NoUdp,
}

impl Access {
    /// All of them.
    pub const ALL: [Access; 6] = [
        Access::Open,
        Access::EndpointIndependent,
        Access::AddressDependent,
        Access::Symmetric,
        Access::Double,
        Access::NoUdp,
    ];

    /// A short name, for hosts and tables.
    pub fn name(self) -> &'static str {
        match self {
            Access::Open => "open",
            Access::EndpointIndependent => "ei",
            Access::AddressDependent => "ad",
            Access::Symmetric => "sym",
            Access::Double => "dbl",
            Access::NoUdp => "noudp",
        }
    }

    /// Whether hosts with these two can reach each other without help: each calls the port that others
    /// see the other at, which is another one for everybody behind a symmetric translator. Where the
    /// other end lets in who comes from an address it has called, whatever the port, one such
    /// translator is no obstacle.
    pub fn direct_with(self, other: Access) -> bool {
        let both = [self, other];
        !both.contains(&Access::NoUdp) && both != [Access::Symmetric; 2]
    }
}

/// The middle of everything: carries what has a public address, and drops the rest in silence.
pub struct Internet(Host);

/// Two hosts behind one translator that gives each a port, open for everybody.
pub struct House {
    /// The hosts.
    pub hosts: [Host; 2],
    /// Their wires to the translator.
    pub links: [Link; 2],
    /// The address that others see both at.
    pub public: IpAddr,
    _nat: Nat,
}

/// What is between two hosts of a [`House`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indoors {
    /// They reach each other at their own addresses.
    pub is_open: bool,
    /// The translator turns round what one sends to the other's address outside.
    pub has_hairpin: bool,
}

/// A host and what it is behind.
pub struct Site {
    /// The host.
    pub host: Host,
    /// What it is behind.
    pub access: Access,
    /// Its translators, from the inside out.
    pub nats: Vec<Nat>,
    /// The wire by which it, or its outermost translator, is in the internet.
    pub uplink: Link,
    /// The address that others see it at.
    pub public: IpAddr,
}

impl Internet {
    /// An empty one.
    pub fn new(story: &mut Story) -> Internet {
        let net = story.host("net");
        net.drop_unrouted().expect("a route");
        Internet(net)
    }

    /// The host that carries everything.
    pub fn core(&self) -> &Host {
        &self.0
    }

    /// Two hosts with `name` and a number.
    pub fn house(&self, story: &mut Story, name: &str, indoors: Indoors) -> House {
        let router = story.host(&format!("{name}-r"));
        let uplink = story.uplink(&router, &self.0);
        let hosts = [1, 2].map(|number| story.host(&format!("{name}{number}")));
        let links = hosts.each_ref().map(|host| story.uplink(host, &router));
        let sockets = [0, 1].map(|at| (v4(links[at].address(&hosts[at], false)), PORT));
        let (outside, public) = (uplink.interface(&router), uplink.address(&router, false));
        let behavior = NatBehavior::EndpointIndependent;
        let nat = Nat::start(&router, &outside, behavior, MAPPING_LIFETIME, &sockets);
        let nat = nat.unwrap_or_else(|error| panic!("translator of {name}: {error}"));
        let nat = match indoors.has_hairpin {
            true => nat.turn_round(v4(public)).expect("rules"),
            false => nat,
        };
        if !indoors.is_open {
            router.firewall(&outside, Firewall::Between).expect("rules");
        }
        House {
            hosts,
            links,
            public,
            _nat: nat,
        }
    }

    /// A host with this access.
    pub fn site(&self, story: &mut Story, name: &str, access: Access) -> Site {
        let host = story.host(name);
        use NatBehavior::{AddressDependent, EndpointIndependent, Symmetric};
        let behaviors: &[NatBehavior] = match access {
            Access::Open => &[],
            Access::EndpointIndependent => &[EndpointIndependent],
            Access::AddressDependent => &[AddressDependent],
            Access::Symmetric => &[Symmetric],
            Access::Double => &[EndpointIndependent, AddressDependent],
            Access::NoUdp => &[EndpointIndependent],
        };
        let routers: Vec<Host> = (0..behaviors.len())
            .map(|number| story.host(&format!("{name}-r{number}")))
            .collect();
        // From the outside in, for a router's own uplink is where it translates.
        let mut above = self.0.clone();
        let mut outside = Vec::new();
        for router in routers.iter().rev() {
            outside.push(story.uplink(router, &above));
            above = router.clone();
        }
        let last = story.uplink(&host, &above);
        let uplink = outside.first().unwrap_or(&last).clone();
        let mut inside = (v4(last.address(&host, false)), PORT);
        let mut nats = Vec::new();
        for ((router, behavior), link) in routers.iter().zip(behaviors).zip(outside.iter().rev()) {
            let interface = link.interface(router);
            let nat = Nat::start(router, &interface, *behavior, MAPPING_LIFETIME, &[inside]);
            let nat = nat.unwrap_or_else(|error| panic!("translator of {name}: {error}"));
            inside = (v4(link.address(router, false)), nat.first_port());
            nats.push(nat);
            if access == Access::NoUdp {
                let firewall = router.firewall(&interface, Firewall::Udp);
                firewall.unwrap_or_else(|error| panic!("firewall of {name}: {error}"));
            }
        }
        let public = uplink.address(routers.last().unwrap_or(&host), false);
        Site {
            host,
            access,
            nats,
            uplink,
            public,
        }
    }
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} on a wire of IPv4"),
    }
}
