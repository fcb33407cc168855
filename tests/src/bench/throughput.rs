//! TCP from container to container over real packets: rmesh beside the bare wire and the kernel's
//! own VXLAN, all over one underlay in one round.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use rmesh_lab::{Container, Host, Link, Namespace};

use super::{Bound, Figure};
use crate::story::{Router, Story};
use crate::throughput::Connection;

/// How long each carries; slow start is over after the time before it.
const MEASURED: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
/// What VXLAN takes of each packet of the underlay, in bytes.
const VXLAN_OVERHEAD: u32 = 50;
const UNDERLAY_MTU: u32 = 1_500;
/// The project's bound, as a part of what the kernel carries unencrypted.
const PART_OF_VXLAN: f64 = 0.7;
/// Whole machine, both hosts and both ends of the connection, in seconds of CPU.
const CPU_PER_GB: f64 = 4.0;

/// What one contender did in one round.
struct Outcome {
    gigabits_per_s: f64,
    cpu_s_per_gigabyte: f64,
}

/// Two hosts on one wire, joined in every way that is compared.
struct Scene {
    hosts: [Host; 2],
    link: Link,
    routers: [Router; 2],
    meshed: [Container; 2],
    bridged: [Container; 2],
}

pub(super) fn measure(program: &str) -> Vec<Figure> {
    let mut story = Story::new("bench-throughput", program);
    let scene = Scene::make(&mut story);
    let [a, b] = &scene.hosts;
    let raw = scene.run([a, b], scene.link.address(b, false));
    let overlay = |last| IpAddr::from([10, 32, 0, last]);
    let vxlan = scene.run(scene.bridged.each_ref().map(|c| &**c), overlay(12));
    let rmesh = scene.run(scene.meshed.each_ref().map(|c| &**c), overlay(2));
    figures(&raw, &vxlan, &rmesh)
}

fn figures(raw: &Outcome, vxlan: &Outcome, rmesh: &Outcome) -> Vec<Figure> {
    let part = rmesh.gigabits_per_s / vxlan.gigabits_per_s;
    let mut figures = Vec::new();
    for (name, outcome) in [("raw veth", raw), ("kernel VXLAN", vxlan), ("rmesh", rmesh)] {
        let name = format!("wire, TCP 1 stream, {name}");
        figures.push(Figure::new(&name, "Gbit/s", outcome.gigabits_per_s));
        let cost = Figure::new(format!("{name}: CPU"), "s/GB", outcome.cpu_s_per_gigabyte);
        figures.push(cost);
    }
    if let Some(cost) = figures.pop() {
        figures.push(cost.bound(Bound::Below(CPU_PER_GB)));
    }
    let against = Figure::new("wire, TCP 1 stream, rmesh by kernel VXLAN", "times", part);
    figures.push(against.bound(Bound::Above(PART_OF_VXLAN)));
    figures
}

impl Scene {
    fn make(story: &mut Story) -> Scene {
        let hosts = story.hosts(["a", "b"]);
        let [a, b] = &hosts;
        let link = story.link(a, b);
        for host in &hosts {
            let off = host.without_offloads(&link.interface(host));
            off.unwrap_or_else(|error| panic!("{error}"));
        }
        let bridged = [bridged(&link, [a, b], 11), bridged(&link, [b, a], 12)];
        let routers = [
            story.launch(a, &[]),
            story.launch(b, &[link.address(a, false)]),
        ];
        story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
        let meshed = [
            story.container(a, "one", "10.32.0.1/24"),
            story.container(b, "one", "10.32.0.2/24"),
        ];
        Scene {
            hosts,
            link,
            routers,
            meshed,
            bridged,
        }
    }

    /// Sends from the first to `address`, which the second has.
    fn run(&self, [from, to]: [&Namespace; 2], address: IpAddr) -> Outcome {
        let opened = Connection::open(from, to, address);
        let mut connection = opened.unwrap_or_else(|error| panic!("{address}: {error}"));
        let mut carry = |time| match connection.measure(time) {
            Ok(megabits_per_s) => megabits_per_s / 1e3,
            Err(error) => panic!("{address}: {error}"),
        };
        carry(WARM_UP);
        let before = self.cpu_s();
        let gigabits_per_s = carry(MEASURED);
        let spent = self.cpu_s() - before;
        let gigabytes = gigabits_per_s / 8.0 * MEASURED.as_secs_f64();
        Outcome {
            gigabits_per_s,
            cpu_s_per_gigabyte: spent / gigabytes,
        }
    }

    /// CPU time of this process, which is both ends of the connection, and of the daemons. What
    /// the kernel does for a packet is charged to whoever runs.
    fn cpu_s(&self) -> f64 {
        let daemons = self.routers.each_ref().map(|router| router.process.pid());
        let processes = daemons.iter().map(|pid| format!("/proc/{pid}/stat"));
        let own = std::iter::once("/proc/self/stat".to_owned());
        let all = processes.chain(own);
        all.map(|path| cpu_of(Path::new(&path))).sum()
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
        let mtu = UNDERLAY_MTU - VXLAN_OVERHEAD;
        container.set_mtu("eth0", mtu)?;
        Ok::<_, rmesh_lab::LabError>(container)
    };
    make().unwrap_or_else(|error| panic!("{error}"))
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

/// User and system time of a process (proc_pid_stat(5), fields 14 and 15).
fn cpu_of(stat: &Path) -> f64 {
    let text = fs::read_to_string(stat).unwrap_or_default();
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / rustix::param::clock_ticks_per_second() as f64
}
