//! Each way from one peer to another, what came of it, and why it is used or not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{PathView, PeerView, StatusView, find};
use crate::duration;
use crate::failure::{Failure, FailureKind};
use crate::render::{self, short};

/// What this host knows of the mesh.
pub(crate) struct Mesh<'a> {
    pub(crate) me: &'a StatusView,
    pub(crate) peers: &'a [PeerView],
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Why {
    /// Name of the one end.
    pub(crate) from: String,
    /// Name of the other.
    pub(crate) to: String,
    /// Each way from this host, the best kind first; none if neither end is this host.
    pub(crate) ways: Vec<Way>,
    /// Cost of their control link in microseconds, if they have one.
    pub(crate) link_cost_us: Option<u32>,
    /// Names on the way that the routes take between them, both ends included; empty if there is none.
    pub(crate) route: Vec<String>,
    /// Cost of that.
    pub(crate) route_cost_us: u32,
}

/// One way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Way {
    /// What it is, in words.
    pub(crate) way: String,
    /// Whether frames go by it.
    pub(crate) in_use: bool,
    /// What came of it.
    pub(crate) state: String,
    /// Why it is used, or not; may be empty.
    pub(crate) reason: String,
}

impl Mesh<'_> {
    /// Each way between two peers, given by their names or the starts of their ids.
    pub(crate) fn why(&self, from: &str, to: &str) -> Result<Why, Failure> {
        let (from, to) = (self.find(from)?, self.find(to)?);
        if from == to {
            let why = "both ends are one peer";
            return Err(Failure::new(FailureKind::Usage, "cannot tell why", why));
        }
        let far = match (&from, &to) {
            (from, to) if *from == self.me.id => Some(to),
            (from, to) if *to == self.me.id => Some(from),
            _ => None,
        };
        let far = far.and_then(|far| self.peers.iter().find(|peer| peer.id == *far));
        let links = self.links();
        let ends = self.peers.iter().filter(|peer| peer.no_relay);
        let own = self.me.no_relay.then_some(self.me.id.as_str());
        let ends = ends.map(|peer| peer.id.as_str()).chain(own).collect();
        let (route, route_cost_us) = route(&links, &ends, &from, &to);
        Ok(Why {
            from: self.name(&from),
            to: self.name(&to),
            ways: far.map(ways).unwrap_or_default(),
            link_cost_us: links.get(&from).and_then(|of| of.get(&to)).copied(),
            route: route.iter().map(|id| self.name(id)).collect(),
            route_cost_us,
        })
    }

    fn find(&self, text: &str) -> Result<String, Failure> {
        let mine = (self.me.name.as_str(), self.me.id.as_str());
        let others = self.peers.iter().map(|p| (p.name.as_str(), p.id.as_str()));
        let found = find::one_of(text, others.chain([mine]))?;
        found.map(str::to_owned).ok_or_else(|| {
            let what = format!("cannot tell who {text} is");
            Failure::new(FailureKind::Missing, what, find::NOBODY).todo("see `rmesh status peers`")
        })
    }

    fn name(&self, id: &str) -> String {
        if id == self.me.id {
            return self.me.name.clone();
        }
        let mut peers = self.peers.iter();
        let peer = peers.find(|peer| peer.id == id);
        peer.map_or_else(|| short(id).to_owned(), |peer| peer.name.clone())
    }

    /// The control links that both ends publish; of the own ones this host sees the other ends' half.
    fn links(&self) -> BTreeMap<String, BTreeMap<String, u32>> {
        let claims = self.peers.iter().flat_map(|peer| {
            let links = peer.links.iter();
            links.map(|link| ((peer.id.as_str(), link.peer.as_str()), link.cost_us))
        });
        let claims: BTreeMap<(&str, &str), u32> = claims.collect();
        let mut links: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        for ((from, to), cost) in &claims {
            let back = match *to == self.me.id {
                true => Some(cost),
                false => claims.get(&(*to, *from)),
            };
            let Some(cost) = back.map(|back| *back.max(cost)) else {
                continue;
            };
            for (a, b) in [(from, to), (to, from)] {
                links
                    .entry((*a).into())
                    .or_default()
                    .insert((*b).into(), cost);
            }
        }
        links
    }
}

/// The cheapest way over links (Dijkstra's algorithm) that passes through none of `ends`, and its cost.
fn route(
    links: &BTreeMap<String, BTreeMap<String, u32>>,
    ends: &BTreeSet<&str>,
    from: &str,
    to: &str,
) -> (Vec<String>, u32) {
    let mut best: BTreeMap<&str, (u32, &str)> = BTreeMap::new();
    let mut queue = BinaryHeap::from([Reverse((0u32, from, from))]);
    while let Some(Reverse((cost, at, parent))) = queue.pop() {
        if best.contains_key(at) {
            continue;
        }
        best.insert(at, (cost, parent));
        if at != from && ends.contains(at) {
            continue;
        }
        for (next, more) in links.get(at).into_iter().flatten() {
            queue.push(Reverse((cost.saturating_add(*more), next.as_str(), at)));
        }
    }
    let Some((cost, _)) = best.get(to) else {
        return (Vec::new(), 0);
    };
    let mut way = vec![to.to_owned()];
    let mut at = to;
    while let Some((_, parent)) = best.get(at).filter(|_| at != from) {
        way.push((*parent).to_owned());
        at = parent;
    }
    way.reverse();
    (way, *cost)
}

/// Each way from this host to a peer.
fn ways(peer: &PeerView) -> Vec<Way> {
    let is_plain = peer.fast.as_ref().is_some_and(|fast| fast.in_use);
    let mut ways = vec![vxlan(peer)];
    let straight = |tcp: bool| {
        let candidates = peer.candidates.iter().filter(move |one| one.tcp == tcp);
        candidates.map(move |one| {
            let address = one.address;
            let path = match tcp {
                true => PathView::Tcp { address },
                false => PathView::Direct { address },
            };
            let round_trip = one.round_trip_us.map(Duration::from_micros);
            let trip = round_trip.map(|trip| format!(", round trip {}", duration::short(trip)));
            Way {
                way: render::path(Some(&path)),
                in_use: !is_plain && peer.sealed_path.as_ref() == Some(&path),
                state: format!("{}{}", one.state, trip.unwrap_or_default()),
                reason: one.reason.clone(),
            }
        })
    };
    ways.extend(straight(false));
    ways.push(relay(peer));
    let by_tcp: Vec<Way> = straight(true).collect();
    if by_tcp.is_empty() {
        ways.push(Way {
            way: "TCP".into(),
            in_use: false,
            state: "not tried".into(),
            reason: "tried only where it is on here, the peer listens, no address has answered by UDP for 5 s and no other \
                     peer relays"
                .into(),
        });
    }
    ways.extend(by_tcp);
    ways
}

fn vxlan(peer: &PeerView) -> Way {
    let (in_use, reason) = match &peer.fast {
        None => (false, "this host encrypts everything".to_owned()),
        Some(fast) => (fast.in_use, fast.reason.clone()),
    };
    let state = match &peer.fast {
        Some(_) if in_use => "alive",
        Some(fast) if fast.address.is_some() => "no answer",
        Some(_) | None => "not allowed",
    };
    Way {
        way: "VXLAN, not encrypted".into(),
        in_use,
        state: state.into(),
        reason,
    }
}

fn relay(peer: &PeerView) -> Way {
    let (in_use, state, reason) = match (&peer.sealed_path, &peer.route) {
        (Some(PathView::Relay { .. }), _) => (true, "alive", peer.reason.clone()),
        (Some(PathView::Direct { .. }), _) => (false, "not needed", String::new()),
        (_, Some(route)) if route.next_hop != peer.id => (false, "possible", String::new()),
        _ => {
            let why = "no other peer that this host reaches has a link that leads there";
            (false, "none", why.into())
        }
    };
    let way = match &peer.sealed_path {
        Some(relay @ PathView::Relay { .. }) => render::path(Some(relay)),
        _ => "through others".into(),
    };
    Way {
        way,
        in_use,
        state: state.into(),
        reason,
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cost = |us: u32| duration::short(Duration::from_micros(us.into()));
        writeln!(f, "{} to {}", self.from, self.to)?;
        for way in &self.ways {
            let used = if way.in_use { "*" } else { " " };
            write!(f, "{used} {:<32} {}", way.way, way.state)?;
            if !way.reason.is_empty() {
                write!(f, ": {}", way.reason)?;
            }
            writeln!(f)?;
        }
        match self.link_cost_us {
            Some(us) => writeln!(f, "control link: {}", cost(us))?,
            None => writeln!(f, "control link: none")?,
        }
        match self.route.as_slice() {
            [] => writeln!(f, "route: none; nothing leads from one to the other")?,
            way => writeln!(
                f,
                "route: {} ({})",
                way.join(" - "),
                cost(self.route_cost_us)
            )?,
        }
        if self.ways.is_empty() {
            let (from, to) = (&self.from, &self.to);
            writeln!(
                f,
                "what was tried is known there: `rmesh why {to}` on {from}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LinkView;
    use crate::render::{sample_peer, sample_status};

    fn peer(number: usize) -> PeerView {
        PeerView {
            id: number.to_string().repeat(32),
            name: format!("p{number}"),
            ..sample_peer()
        }
    }

    fn peers() -> Vec<PeerView> {
        let link = |to: usize, cost_us| LinkView {
            peer: peer(to).id,
            name: peer(to).name,
            cost_us,
        };
        // 1 - 2 - 3, and this host beside 1.
        let mut peers: Vec<PeerView> = (1..4).map(peer).collect();
        let me = LinkView {
            peer: sample_status().id,
            name: sample_status().name,
            cost_us: 100,
        };
        peers[0].links = vec![link(2, 1_000), me];
        peers[1].links = vec![link(1, 500), link(3, 700)];
        peers[2].links = vec![link(2, 700), link(1, 1)];
        peers
    }

    #[test]
    fn between_two_others_the_links_that_both_publish_lead() {
        let (me, peers) = (sample_status(), peers());
        let mesh = Mesh {
            me: &me,
            peers: &peers,
        };
        let [one, two, three] = [0, 1, 2].map(|at| peers[at].name.as_str());
        let why = mesh.why(one, &peers[2].id[..8]).unwrap();
        assert_eq!(why.link_cost_us, None, "one end only says so");
        assert_eq!(why.route, [one, two, three]);
        assert_eq!(why.route_cost_us, 1_700);
        assert!(why.ways.is_empty());
        assert!(why.to_string().contains(&format!("on {one}")), "{why}");
        let why = mesh.why(three, &me.name).unwrap();
        assert_eq!(why.route.len(), 4);
        assert!(!why.ways.is_empty());
        // Nothing that is between others goes through one that does not want it.
        let mut peers = self::peers();
        peers[1].no_relay = true;
        let mesh = Mesh {
            me: &me,
            peers: &peers,
        };
        let why = mesh.why(one, three).unwrap();
        assert!(why.route.is_empty(), "{why}");
        assert_eq!(mesh.why(one, two).unwrap().route, [one, two]);
        for text in ["nobody", "abc"] {
            assert_eq!(mesh.why(one, text).unwrap_err().kind, FailureKind::Missing);
        }
        assert_eq!(mesh.why(one, one).unwrap_err().kind, FailureKind::Usage);
    }

    #[test]
    fn each_kind_of_way_is_named_with_what_came_of_it() {
        let (me, peers) = (sample_status(), peers());
        let mesh = Mesh {
            me: &me,
            peers: &peers,
        };
        let why = mesh.why(&me.id, &peers[0].name).unwrap();
        let ways: Vec<&str> = why.ways.iter().map(|way| way.way.as_str()).collect();
        assert_eq!(ways.len(), 4, "{why}");
        assert!(ways[0].starts_with("VXLAN") && ways[1].starts_with("direct"));
        assert!(ways[3].starts_with("TCP"), "{why}");
    }
}
