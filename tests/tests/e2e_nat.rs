//! Hosts behind translators of every kind, in one mesh whose only address is a host in the open.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rmesh_lab::Container;
use rmesh_lab::probe::{Capture, Pinger, TcpStreamProbe};
use rmesh_tests::site::{Access, House, Indoors, Internet, Site};
use rmesh_tests::story;
use rmesh_tests::story::{Router, Story};

/// The first packet of a pair arrives within this time, by whatever way.
const FIRST_PACKET: Duration = Duration::from_secs(1);
/// Who gets no UDP through is in the mesh within this time.
const BY_TCP_WITHIN: Duration = Duration::from_secs(10);
/// A pair that can be direct is so within this time.
const DIRECT_WITHIN: Duration = Duration::from_secs(5);
/// Datagrams a minute between two hosts that cannot reach each other directly, and try nevertheless.
const HOPELESS_PER_MINUTE: u64 = 120;
/// How often a translator gives out new ports, and how long traffic may stop for it.
const REMAPPED_EVERY: Duration = Duration::from_secs(5);
const STALL_MAX: Duration = Duration::from_secs(1);

struct Grid {
    story: Story,
    internet: Internet,
    sites: Vec<Site>,
    containers: Vec<Container>,
    _routers: Vec<Router>,
}

fn address(site: usize) -> IpAddr {
    IpAddr::from([10, 32, 0, site as u8 + 1])
}

/// Two sites of each of these kinds, that know a host in the open.
fn grid(name: &str, accesses: &[Access]) -> Grid {
    let mut story = story!(name);
    let internet = Internet::new(&mut story);
    let seed = internet.site(&mut story, "seed", Access::Open);
    let mut sites = Vec::new();
    for access in accesses {
        for number in 1..=2 {
            let name = format!("{}{number}", access.name());
            sites.push(internet.site(&mut story, &name, *access));
        }
    }
    let mut routers = vec![story.launch(&seed.host, &[])];
    for site in &sites {
        routers.push(story.launch(&site.host, &[seed.public]));
    }
    let limit = match accesses.contains(&Access::NoUdp) {
        true => BY_TCP_WITHIN,
        false => DIRECT_WITHIN,
    };
    story.expect_mesh(limit, &routers.iter().collect::<Vec<_>>());
    let containers = (0..).zip(&sites).map(|(number, site)| {
        let address = format!("{}/24", address(number));
        story.container(&site.host, "c", &address)
    });
    let containers = containers.collect();
    Grid {
        story,
        internet,
        sites,
        containers,
        _routers: routers,
    }
}

impl Grid {
    /// The path between two sites, "direct" if it is so from both ends.
    fn path(&self, [from, to]: [usize; 2]) -> String {
        let hosts = [from, to].map(|site| &self.sites[site].host);
        let there = self.story.path_kind(hosts[0], hosts[1]);
        let back = self.story.path_kind(hosts[1], hosts[0]);
        if there == back {
            there
        } else {
            format!("{there} there, {back} back")
        }
    }

    /// Every first site of a kind with every second one.
    fn pairs(&self) -> Vec<[usize; 2]> {
        let firsts = (0..self.sites.len()).step_by(2);
        let of = |first| {
            (1..self.sites.len())
                .step_by(2)
                .map(move |second| [first, second])
        };
        firsts.flat_map(of).collect()
    }

    fn accesses(&self, pair: [usize; 2]) -> [Access; 2] {
        pair.map(|site| self.sites[site].access)
    }
}

#[test]
fn every_pair_of_accesses_is_as_direct_as_it_can_be() {
    let grid = grid("nat-grid", &Access::ALL);
    let pairs = grid.pairs();
    for pair @ [from, to] in pairs.iter().copied() {
        let [a, b] = grid.accesses(pair).map(Access::name);
        println!("{a} to {b}");
        grid.story
            .expect_ping(FIRST_PACKET, &grid.containers[from], address(to));
    }
    let start = Instant::now();
    let is_as_expected = |pair| match grid.accesses(pair) {
        [a, b] if a.direct_with(b) => grid.path(pair) == "direct",
        // Whom of the others they call by TCP is a matter of ids.
        pair_of if pair_of.contains(&Access::NoUdp) => !grid.path(pair).contains("direct"),
        _ => grid.path(pair) == "relay",
    };
    let mut when = BTreeMap::new();
    grid.story
        .expect_within(DIRECT_WITHIN, "every pair is as it should be", || {
            for pair in &pairs {
                if is_as_expected(*pair) {
                    let found = || (grid.path(*pair), start.elapsed());
                    when.entry(*pair).or_insert_with(found);
                }
            }
            when.len() == pairs.len()
        });
    for site in &grid.sites {
        expect_known(&grid.story, site);
    }
    let [one, other] = [0, 2].map(|at| grid.sites[at].host.short_name());
    let why = grid
        .story
        .succeed(&grid.sites[4].host, &["why", one, other]);
    println!("{why}");
    assert!(why.contains(&format!("route: {one} - ")), "{why}");
    for (pair, (path, when)) in when {
        let [a, b] = grid.accesses(pair).map(Access::name);
        println!("{a:>5} {b:>5}: {path} after {when:.1?}");
    }
}

/// What a host finds out about its own access.
fn expect_known(story: &Story, site: &Site) {
    let text = story.succeed(&site.host, &["netcheck", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let expected = match site.access {
        Access::Open => "none",
        Access::EndpointIndependent | Access::AddressDependent | Access::Double => {
            "endpoint_independent"
        }
        Access::Symmetric => "endpoint_dependent",
        Access::NoUdp => "unknown",
    };
    let name = site.host.short_name();
    println!("{name}\n{}", story.succeed(&site.host, &["netcheck"]));
    assert_eq!(found["ipv4"]["mapping"], expected, "{name}: {text}");
    let has_udp = site.access != Access::NoUdp;
    assert_eq!(found["udp_answers"].as_u64() > Some(0), has_udp, "{text}");
}

#[test]
fn a_pair_that_cannot_be_direct_does_not_try_all_the_time() {
    let grid = grid("nat-hopeless", &[Access::Symmetric]);
    grid.story
        .expect_ping(FIRST_PACKET, &grid.containers[0], address(1));
    // What the first meeting takes is over.
    std::thread::sleep(DIRECT_WITHIN);
    let pinger = Pinger::start(&grid.containers[0], address(1), Duration::from_millis(100));
    let pinger = pinger.expect("a socket");
    let core = grid.internet.core();
    let interface = grid.sites[1].uplink.interface(core);
    let capture = Capture::start(core, &interface).expect("a capture in the internet");
    let time = Duration::from_secs(15);
    std::thread::sleep(time);
    let IpAddr::V4(from) = grid.sites[0].public else {
        panic!("an IPv4 internet")
    };
    // Source addresses are at byte 26 of an Ethernet frame.
    let frames = capture.stop();
    let attempts = frames
        .iter()
        .filter(|frame| frame.get(26..30) == Some(&from.octets()[..]));
    let per_minute = attempts.count() as u64 * 60 / time.as_secs();
    let report = pinger.stop().expect("a socket");
    println!(
        "{per_minute} hopeless datagrams a minute; {} of {} pings",
        report.received, report.sent
    );
    assert_eq!(grid.path([0, 1]), "relay");
    assert!(report.received + 1 >= report.sent, "{report:?}");
    assert!(per_minute <= HOPELESS_PER_MINUTE, "{per_minute}");
}

#[test]
fn a_translator_that_changes_its_mappings_stalls_nobody_for_long() {
    let accesses = [Access::EndpointIndependent, Access::AddressDependent];
    let grid = grid("nat-remap", &accesses);
    let [from, to] = [0, 3];
    grid.story
        .expect_ping(FIRST_PACKET, &grid.containers[from], address(to));
    grid.story
        .expect_within(DIRECT_WITHIN, "the pair is direct", || {
            grid.path([from, to]) == "direct"
        });
    let [near, far] = [from, to].map(|site| &grid.containers[site]);
    let stream = TcpStreamProbe::start(near, far, address(to)).expect("a connection");
    for site in [from, to, from, to] {
        std::thread::sleep(REMAPPED_EVERY);
        grid.sites[site].nats[0].remap().expect("new mappings");
    }
    std::thread::sleep(REMAPPED_EVERY);
    let report = stream.stop();
    println!("{report:?}");
    let what = "longest stall of a connection while mappings change";
    grid.story.expect_took(STALL_MAX, what, report.longest_gap);
    assert!(report.error.is_none(), "{report:?}");
}

#[test]
fn two_hosts_behind_one_translator_go_straight_or_by_its_hairpin() {
    let mut story = story!("hairpin");
    let internet = Internet::new(&mut story);
    let seed = internet.site(&mut story, "seed", Access::Open);
    let kinds = [(true, true), (true, false), (false, true), (false, false)];
    let houses = kinds.map(|(is_open, has_hairpin)| {
        let name = format!(
            "{}{}",
            char::from(b'a' + u8::from(is_open)),
            u8::from(has_hairpin)
        );
        let indoors = Indoors {
            is_open,
            has_hairpin,
        };
        internet.house(&mut story, &name, indoors)
    });
    let mut routers = vec![story.launch(&seed.host, &[])];
    for host in houses.iter().flat_map(|house| &house.hosts) {
        routers.push(story.launch(host, &[seed.public]));
    }
    story.expect_mesh(DIRECT_WITHIN, &routers.iter().collect::<Vec<_>>());
    // By its own address, by that of the translator, or not at all.
    let leads_to = |house: &House, from: usize| {
        let path = &story.peer(&house.hosts[from], &house.hosts[1 - from])["path"];
        let address = path["address"].as_str().unwrap_or_default().to_owned();
        let own = house.links[1 - from].address(&house.hosts[1 - from], false);
        match path["kind"].as_str() {
            Some("direct") if address == format!("{own}:6783") => "straight",
            Some("direct") if address.starts_with(&format!("{}:", house.public)) => "hairpin",
            Some("relay") => "relay",
            _ => "otherwise",
        }
    };
    for ((is_open, has_hairpin), house) in kinds.into_iter().zip(&houses) {
        let expected = match (is_open, has_hairpin) {
            (true, _) => "straight",
            (false, true) => "hairpin",
            (false, false) => "relay",
        };
        let what = format!("open indoors {is_open}, hairpin {has_hairpin}: {expected}");
        story.expect_within(DIRECT_WITHIN, &what, || {
            [0, 1].iter().all(|from| leads_to(house, *from) == expected)
        });
    }
    let one = story.container(&houses[2].hosts[0], "one", "10.32.0.1/24");
    let two = story.container(&houses[2].hosts[1], "two", "10.32.0.2/24");
    story.expect_ping(FIRST_PACKET, &one, address(1));
    drop((two, routers));
}
