//! What hosts hear of each other: over the real mesh, or directly by a model of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rmesh_gossip::Event;
use rmesh_ipam::Member;

use super::super::network::{Fate, PORT};
use super::board::Announcement;
use super::story::Wires;
use super::world::{Action, World};

/// Channel of the mesh that carries the ring's messages.
const CHANNEL: u8 = 1;
/// A daemon looks at a changed mesh after this time.
const LOOK_AFTER: Duration = Duration::from_millis(50);
/// And at an unchanged one, since some changes are not told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A model of the mesh notices within this time who is reachable, from and to.
const NOTICE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_500));
/// Two hosts compare what they know of announcements this often.
const RUMOUR_EVERY: Duration = Duration::from_secs(1);
/// Share of messages that arrive twice where wires are direct.
const TWICE: f64 = 0.02;
/// The second copy arrives up to this much later.
const TWICE_LATER: Duration = Duration::from_millis(300);
/// Up to this many hosts, all are neighbours of all, as in the mesh.
pub(super) const ALL_NEIGHBOURS_MAX: usize = 9;

impl World {
    pub(super) fn on_datagram(&mut self, to: usize, source: SocketAddr, bytes: &[u8]) {
        let host = &mut self.hosts[to];
        let clock = host.clock(self.now);
        if let Some(mesh) = host.peer.mesh.as_mut() {
            mesh.handle_datagram(source, bytes, clock);
            self.settle(to);
        }
    }

    pub(super) fn on_message(&mut self, to: usize, from: usize, bytes: &[u8]) {
        let sender = self.hosts[from].id();
        self.note(Some(to), || {
            format!("peer{to} hears peer{from}: {}", rmesh_ipam::describe(bytes))
        });
        let host = &mut self.hosts[to];
        let clock = host.clock(self.now);
        if let Some(daemon) = host.daemon.as_mut() {
            self.meter.messages += 1;
            daemon.node.handle_message(sender, bytes, clock);
            self.settle(to);
        }
    }

    /// Takes what both cores have to say. Whether they said anything.
    pub(super) fn drain_events(&mut self, index: usize) -> bool {
        let mut any = self.drain_node_events(index);
        while let Some(event) = self.hosts[index]
            .peer
            .mesh
            .as_mut()
            .and_then(|m| m.poll_event())
        {
            any = true;
            self.on_mesh_event(index, event);
        }
        any
    }

    fn on_mesh_event(&mut self, index: usize, event: Event) {
        match event {
            Event::ChannelMessage { peer, bytes, .. } => {
                let Some(from) = self.host_of(peer) else {
                    return;
                };
                self.note(Some(index), || {
                    format!(
                        "peer{index} hears peer{from}: {}",
                        rmesh_ipam::describe(&bytes)
                    )
                });
                let host = &mut self.hosts[index];
                let clock = host.clock(self.now);
                if let Some(daemon) = host.daemon.as_mut() {
                    self.meter.messages += 1;
                    daemon.node.handle_message(peer, &bytes, clock);
                }
            }
            Event::BootRaised { counter } => self.hosts[index].peer.raise_boot(counter),
            Event::ForwardingChanged | Event::PeerUp { .. } | Event::PeerDown { .. } => {
                let host = &mut self.hosts[index];
                let life = host.life;
                if let Some(daemon) = host.daemon.as_mut()
                    && !core::mem::replace(&mut daemon.is_look_due, true)
                {
                    self.schedule(LOOK_AFTER, Action::Look { host: index, life });
                }
            }
            _ => {}
        }
    }

    /// Sends what the cores want sent. Whether that was anything.
    pub(super) fn drain_transmits(&mut self, index: usize) -> bool {
        let mut any = false;
        while let Some((to, bytes)) = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|d| d.node.poll_transmit())
        {
            any = true;
            let host = &mut self.hosts[index];
            let clock = host.clock(self.now);
            match host.peer.mesh.as_mut() {
                Some(mesh) => mesh.handle_channel_send(to, CHANNEL, &bytes, clock),
                None => self.send_directly(index, to, bytes),
            }
        }
        any | self.drain_datagrams(index)
    }

    fn drain_datagrams(&mut self, index: usize) -> bool {
        let mut any = false;
        let mut refused = Vec::new();
        while let Some(transmit) = self.hosts[index]
            .peer
            .mesh
            .as_mut()
            .and_then(|m| m.poll_transmit())
        {
            any = true;
            match self
                .network
                .fate(index, transmit.destination, transmit.bytes.len(), self.now)
            {
                Fate::Arrives(delay, to, source) => {
                    let bytes = transmit.bytes;
                    self.schedule(delay, Action::Datagram { to, source, bytes });
                }
                Fate::Lost => {}
                Fate::Refused(why) => refused.push((transmit.destination, why)),
            }
        }
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        for (destination, why) in refused {
            if let Some(mesh) = host.peer.mesh.as_mut() {
                mesh.handle_send_failure(destination, why, clock);
            }
        }
        any
    }

    fn send_directly(&mut self, from: usize, to: rmesh_wire::PeerId, bytes: Vec<u8>) {
        let Some(to) = self.host_of(to) else {
            return;
        };
        self.meter.sent_bytes += bytes.len() as u64;
        if let Some(delay) = self.delay(from, to) {
            if self.random.chance(TWICE) {
                let later = self.random.between(Duration::ZERO, TWICE_LATER);
                let bytes = bytes.clone();
                self.schedule(delay + later, Action::Message { to, from, bytes });
            }
            self.schedule(delay, Action::Message { to, from, bytes });
        }
    }

    /// How long a message is under way; `None` if it is lost.
    fn delay(&mut self, from: usize, to: usize) -> Option<Duration> {
        let address = self.network.addresses(to).first().copied()?;
        match self
            .network
            .fate(from, SocketAddr::new(address, PORT), 0, self.now)
        {
            Fate::Arrives(delay, ..) => Some(delay),
            Fate::Lost | Fate::Refused(_) => None,
        }
    }

    /// Says what the host's containers carry, as its daemon does after each change.
    pub(super) fn announce(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if !host.runs() {
            return;
        }
        if self.options.wires == Wires::Gossip {
            let clock = host.clock(self.now);
            host.peer.endpoints = host.endpoints();
            host.peer.announce(clock);
            return;
        }
        let carried = host.announced();
        let what = self.board.publish(index, carried);
        for to in self.running() {
            if to != index
                && let Some(delay) = self.delay(index, to)
            {
                let what = what.clone();
                self.schedule(
                    delay,
                    Action::Announced {
                        to,
                        of: index,
                        what,
                    },
                );
            }
        }
    }

    pub(super) fn on_announced(&mut self, to: usize, of: usize, what: &Announcement) {
        let is_other = to != of && self.hosts[to].runs();
        if is_other && self.board.learn(to, of, what) {
            self.tell(to, of, what.addresses.to_vec());
            self.settle(to);
        }
    }

    /// Tells a node what another peer announces.
    fn tell(&mut self, to: usize, of: usize, addresses: Vec<IpAddr>) {
        let peer = self.hosts[of].id();
        self.note(Some(to), || {
            format!("peer{to} learns that peer{of} announces {addresses:?} ")
        });
        let host = &mut self.hosts[to];
        let clock = host.clock(self.now);
        if let Some(daemon) = host.daemon.as_mut() {
            daemon.node.handle_announced(peer, &addresses, clock);
            daemon.told.insert(of, addresses);
        }
    }

    /// Two hosts that reach each other tell each other what only one of them knows.
    pub(super) fn rumour(&mut self, index: usize) {
        let pause = self.random.between(RUMOUR_EVERY / 2, RUMOUR_EVERY * 3 / 2);
        self.schedule(pause, Action::Rumour(index));
        let other = (index + 1 + self.random.below(self.hosts.len() - 1)) % self.hosts.len();
        let both = self.hosts[index].runs() && self.hosts[other].runs();
        if !both || !self.network.meet(index, other) {
            return;
        }
        for (from, to) in [(index, other), (other, index)] {
            let news = self.board.news(from, to);
            for of in news.iter().copied() {
                let what = self.board.known(from, of).clone();
                self.board.learn(to, of, &what);
                self.tell(to, of, what.addresses.to_vec());
            }
            if !news.is_empty() {
                self.settle(to);
            }
        }
    }

    /// Who reaches whom may have changed: everybody notices after a while.
    pub(super) fn wires_changed(&mut self) {
        if self.options.wires == Wires::Gossip {
            return;
        }
        for host in self.running() {
            let after = self.random.between(NOTICE.0, NOTICE.1);
            let life = self.hosts[host].life;
            self.schedule(after, Action::Look { host, life });
        }
    }

    /// A daemon looks at the mesh and tells its node.
    pub(super) fn look(&mut self, index: usize, life: u32) {
        if self.hosts[index].life != life || !self.hosts[index].runs() {
            return;
        }
        let members = match self.options.wires {
            Wires::Direct => self.members_by_wires(index),
            Wires::Gossip => self.members_by_mesh(index),
        };
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        if let Some(daemon) = host.daemon.as_mut()
            && daemon.members != members
        {
            daemon.members.clone_from(&members);
            daemon.node.handle_members(members, clock);
        }
        self.settle(index);
    }

    fn members_by_wires(&self, index: usize) -> Vec<Member> {
        let size = self.hosts.len();
        let others = (0..size).filter(|&other| other != index);
        let known = |other: &usize| {
            self.network.meet(index, *other) && self.hosts[*other].runs()
                || self.board.known(index, *other).version > 0
        };
        let member = |other: usize| {
            let reachable = self.network.meet(index, other) && self.hosts[other].runs();
            let is_near = size <= ALL_NEIGHBOURS_MAX || self.overlay[index].contains(&other);
            Member {
                peer: self.hosts[other].id(),
                name: self.hosts[other].name(),
                reachable,
                neighbour: reachable && is_near,
                listed: self.core.contains(&other),
            }
        };
        others.filter(known).map(member).collect()
    }

    fn members_by_mesh(&mut self, index: usize) -> Vec<Member> {
        let life = self.hosts[index].life;
        let named: Vec<_> = self
            .core
            .iter()
            .map(|&host| self.hosts[host].id())
            .collect();
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        let (Some(mesh), Some(daemon)) = (host.peer.mesh.as_ref(), host.daemon.as_mut()) else {
            return Vec::new();
        };
        if !core::mem::take(&mut daemon.is_look_due) {
            self.calendar
                .schedule(self.now + LOOK_EVERY, Action::Look { host: index, life });
        }
        let report = mesh.report(clock);
        let me = report.id;
        let members = report.peers.iter().map(|peer| Member {
            peer: peer.id,
            name: peer.name.clone(),
            reachable: peer.reachable,
            neighbour: peer.reachable && peer.links.iter().any(|(id, _)| *id == me),
            listed: named.contains(&peer.id),
        });
        let members = members.collect();
        // Nothing announced is told from nothing heard by the peer's other record.
        let heard = report
            .peers
            .iter()
            .filter(|p| p.reachable && !p.links.is_empty());
        let mut announced: BTreeMap<_, Vec<IpAddr>> =
            heard.map(|peer| (peer.id, Vec::new())).collect();
        for endpoint in &report.endpoints {
            let ips = endpoint.endpoint.addresses.iter().map(|net| net.addr());
            announced.entry(endpoint.peer).or_default().extend(ips);
        }
        announced.remove(&me);
        self.tell_all(index, announced);
        members
    }

    fn tell_all(&mut self, index: usize, announced: BTreeMap<rmesh_wire::PeerId, Vec<IpAddr>>) {
        for (peer, mut ips) in announced {
            ips.sort();
            let Some(of) = self.host_of(peer) else {
                continue;
            };
            let daemon = self.hosts[index].daemon.as_ref();
            if daemon.is_some_and(|daemon| daemon.told.get(&of) != Some(&ips)) {
                self.tell(index, of, ips);
            }
        }
    }
}
