//! Two hosts on one wire, with a container each.

use std::net::IpAddr;
use std::time::Duration;

use rmesh_lab::{Container, Host, Link};

use crate::story::{Router, Story};

/// A mesh of two.
pub struct Pair {
    /// What it is part of.
    pub story: Story,
    /// a and b.
    pub hosts: [Host; 2],
    /// The wire between them.
    pub link: Link,
    /// Their containers, 10.32.0.1 and 10.32.0.2.
    pub containers: [Container; 2],
    /// Their daemons.
    pub routers: [Router; 2],
}

/// Address of a container.
pub fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 32, 0, last])
}

impl Pair {
    /// Starts both daemons, with flags of their own.
    pub fn start(mut story: Story, flags: [&[&str]; 2]) -> Pair {
        let hosts = story.hosts(["a", "b"]);
        let link = story.link(&hosts[0], &hosts[1]);
        Pair::on(story, hosts, link, flags)
    }

    /// The same on a wire that is there.
    pub fn on(story: Story, hosts: [Host; 2], link: Link, flags: [&[&str]; 2]) -> Pair {
        Pair::on_within(Duration::from_secs(5), story, hosts, link, flags)
    }

    /// The same on one over which the hosts take longer to meet, at most so long.
    pub fn on_within(
        limit: Duration,
        mut story: Story,
        hosts: [Host; 2],
        link: Link,
        flags: [&[&str]; 2],
    ) -> Pair {
        let [a, b] = &hosts;
        let routers = [
            story.launch_with(a, &[], flags[0]),
            story.launch_with(b, &[&link.address(a, false).to_string()], flags[1]),
        ];
        story.expect_mesh(limit, &routers.each_ref());
        let containers = [
            story.container(a, "one", "10.32.0.1/24"),
            story.container(b, "two", "10.32.0.2/24"),
        ];
        Pair {
            story,
            hosts,
            link,
            containers,
            routers,
        }
    }

    /// Whether both use this kind of path to each other.
    pub fn are(&self, kind: &str) -> bool {
        let [a, b] = &self.hosts;
        self.story.path_kind(a, b) == kind && self.story.path_kind(b, a) == kind
    }

    /// Waits until both do.
    pub fn expect_both(&self, limit: Duration, kind: &str) {
        let what = format!("both ends take the {kind} path");
        self.story.expect_within(limit, &what, || self.are(kind));
    }

    /// Waits until the containers reach each other.
    pub fn expect_ping(&self) {
        let from = &self.containers[0];
        self.story
            .expect_ping(Duration::from_secs(2), from, address(2));
    }
}
