//! How long a silent cut stops traffic: three hosts, each with a wire to each other, of which the one that
//! carries everything is cut under load.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use rmesh_lab::probe::{Pinger, TcpStreamProbe};
use rmesh_lab::{Container, Host, Link};

use crate::story::{Router, Story};
use crate::stream::Stream;

/// An outage may last this long, in 99 of 100 cuts.
pub const OUTAGE_MAX: Duration = Duration::from_secs(1);
/// A wire that works again is used again within this time.
pub const BACK_WITHIN: Duration = Duration::from_secs(5);
const LEFT_WITHIN: Duration = Duration::from_secs(2);
const SETTLED: Duration = Duration::from_millis(500);
/// An outage is known to this precision.
const PING_EVERY: Duration = Duration::from_millis(10);
const STREAM_EVERY: Duration = Duration::from_millis(1);
const STREAM_LEN: usize = 1_000;

/// Hosts a, b and c, all joined; a container on a and one on c.
pub struct Triangle {
    /// a, b and c.
    pub hosts: [Host; 3],
    /// The wire between a and c.
    pub direct: Link,
    /// On a and on c.
    pub containers: [Container; 2],
    /// Their daemons.
    pub routers: [Router; 3],
}

/// What a cut and its end did.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// Longest time without an answer after the cut.
    pub cut: Duration,
    /// Datagrams lost when the direct wire was taken back.
    pub lost_coming_back: u64,
}

fn far() -> IpAddr {
    IpAddr::from([10, 32, 0, 2])
}

impl Triangle {
    /// Starts all three with the same flags.
    pub fn start(story: &mut Story, flags: &[&str]) -> Triangle {
        let hosts = story.hosts(["a", "b", "c"]);
        let [a, b, c] = &hosts;
        let (ab, bc) = (story.link(a, b), story.link(b, c));
        let direct = story.link(a, c);
        let to = |link: &Link| link.address(b, false).to_string();
        let routers = [
            story.launch_with(b, &[], flags),
            story.launch_with(a, &[&to(&ab)], flags),
            story.launch_with(c, &[&to(&bc)], flags),
        ];
        story.expect_mesh(Duration::from_secs(5), &routers.each_ref());
        let containers = [
            story.container(a, "one", "10.32.0.1/24"),
            story.container(c, "two", "10.32.0.2/24"),
        ];
        story.expect_ping(Duration::from_secs(2), &containers[0], far());
        Triangle {
            hosts,
            direct,
            containers,
            routers,
        }
    }

    /// Whether both ends use this kind of path to each other.
    pub fn is(&self, story: &Story, kind: &str) -> bool {
        let [a, _, c] = &self.hosts;
        story.path_kind(a, c) == kind && story.path_kind(c, a) == kind
    }

    /// Cuts the wire between a and c under load, and restores it. `kind` is the path in use without a cut.
    ///
    /// # Panics
    /// If a connection breaks, or a path is not left or not taken back.
    pub fn cut_once(&self, story: &Story, kind: &str) -> Outage {
        let [one, two] = &self.containers;
        story.expect_within(BACK_WITHIN, "both ends use the wire", || {
            self.is(story, kind)
        });
        let stream = TcpStreamProbe::start(one, two, far()).expect("a connection");
        let load = Stream::start(one, two, far(), STREAM_EVERY, STREAM_LEN).expect("sockets");
        sleep(SETTLED);
        let pinger = Pinger::start(one, far(), PING_EVERY).expect("pings");
        sleep(SETTLED);
        self.direct.cut().expect("a cut");
        story.expect_within(LEFT_WITHIN, "both ends use the relay", || {
            self.is(story, "relay")
        });
        sleep(SETTLED);
        let pings = pinger.stop().expect("pings");
        load.stop();
        let load = Stream::start(one, two, far(), STREAM_EVERY, STREAM_LEN).expect("sockets");
        self.direct.restore().expect("the wire restored");
        story.expect_within(BACK_WITHIN, "both ends use the wire again", || {
            self.is(story, kind)
        });
        sleep(SETTLED);
        let back = load.stop();
        let stream = stream.stop();
        assert_eq!(stream.error, None, "the connection must survive");
        Outage {
            cut: pings.longest_gap,
            lost_coming_back: back.lost,
        }
    }
}
