//! What TCP carries over a wire that loses, doubles and holds back frames: from host to host, and from
//! container to container of the same hosts.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::{Container, Host, Link, Namespace, WireProfile};

use crate::story::{Router, Story};
use crate::throughput::{Connection, measure_all};

/// Least part of the hosts' own goodput that containers keep. Their segments are 1,276 bytes beside
/// 1,448 (0.88), at the same rate of segments.
pub const KEPT_MIN: f64 = 0.8;
/// Streams at once: each meets losses of its own, which evens out the dice.
const STREAMS: usize = 16;
/// Alternations of both ways.
const ROUNDS: usize = 7;
const MEASURED: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(1);
/// What Linux uses unless told otherwise; the machine may have been.
const CONGESTION_CONTROL: &str = "cubic";
const SEED: u64 = 6;

/// 1 % loss, and frames that come twice or late. A round trip is long beside what a host spends.
pub fn lossy() -> WireProfile {
    WireProfile {
        latency: Duration::from_millis(5),
        loss: 0.01,
        duplication: 0.01,
        reordering: 0.01,
        ..WireProfile::default()
    }
}

/// Two hosts on such a wire, with a container each.
pub struct LossyScene {
    /// The hosts.
    pub hosts: [Host; 2],
    /// Their containers, 10.32.0.1 and 10.32.0.2.
    pub containers: [Container; 2],
    /// The wire.
    pub link: Link,
    /// The hosts' daemons.
    pub routers: [Router; 2],
}

/// The far container's address.
pub fn far() -> IpAddr {
    IpAddr::from([10, 32, 0, 2])
}

impl LossyScene {
    /// Starts both daemons with flags of their own; the wire is whole until they know it.
    pub fn start(story: &mut Story, flags: [&[&str]; 2]) -> LossyScene {
        let hosts = story.hosts(["a", "b"]);
        let [a, b] = &hosts;
        let link = story.emulated_link(a, b, SEED);
        let to = link.address(b, false).to_string();
        let routers = [
            story.launch_with(a, &[&to], flags[0]),
            story.launch_with(b, &[], flags[1]),
        ];
        story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
        let containers = [
            story.container(a, "one", "10.32.0.1/24"),
            story.container(b, "two", "10.32.0.2/24"),
        ];
        story.expect_ping(Duration::from_secs(2), &containers[0], far());
        let is_full = |host, other| story.peer(host, other)["path_mtu_bytes"] == 1_500;
        story.expect_within(Duration::from_secs(3), "the full size is found", || {
            is_full(a, b) && is_full(b, a)
        });
        link.shape(lossy());
        LossyScene {
            hosts,
            containers,
            link,
            routers,
        }
    }
}

/// What each way carried in each round, in Mbit/s.
#[derive(Debug, Clone, Default)]
pub struct LossyFigures {
    hosts: Vec<f64>,
    containers: Vec<f64>,
}

impl LossyFigures {
    /// Medians: host to host, container to container.
    pub fn medians(&self) -> [f64; 2] {
        [&self.hosts, &self.containers].map(|values| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
        })
    }

    /// Which part of the hosts' goodput the containers keep.
    pub fn kept(&self) -> f64 {
        let [hosts, containers] = self.medians();
        containers / hosts
    }
}

impl fmt::Display for LossyFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hosts {:.1?}, containers {:.1?} Mbit/s; by medians {:.3}",
            self.hosts,
            self.containers,
            self.kept()
        )
    }
}

fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> Vec<Connection> {
    let open = || {
        let connection = Connection::open(from, to, address)?;
        connection.set_congestion_control(CONGESTION_CONTROL)?;
        Ok::<_, std::io::Error>(connection)
    };
    let opened = (0..STREAMS).map(|_| open().unwrap_or_else(|error| panic!("{address}: {error}")));
    opened.collect()
}

/// Measures both ways in turns over one wire.
///
/// # Panics
/// If a connection breaks or stalls.
pub fn measure(story: &Story, scene: &LossyScene) -> LossyFigures {
    let ([a, b], [one, two]) = (&scene.hosts, &scene.containers);
    let mut ways = [
        open(a, b, scene.link.address(b, false)),
        open(one, two, far()),
    ];
    let mut carry = |way: usize, time| {
        let carried = measure_all(&mut ways[way], time);
        carried.unwrap_or_else(|error| panic!("way {way}: {error}"))
    };
    carry(0, WARM_UP);
    carry(1, WARM_UP);
    let mut figures = LossyFigures::default();
    for _ in 0..ROUNDS {
        figures.hosts.push(carry(0, MEASURED));
        figures.containers.push(carry(1, MEASURED));
    }
    eprintln!("{figures}");
    for host in &scene.hosts {
        let drops = &story.status(host)["frames"]["drops"];
        let wire = scene.link.counters_towards(host);
        eprintln!("{}: {wire:?}; dropped {drops}", host.short_name());
    }
    figures
}
