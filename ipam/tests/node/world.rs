//! A small world in memory: nodes, wires that lose, double and reorder, disks that confirm late.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{
    Answer, Event, Found, Founding, Identity, Ledger, Member, Node, Range, Recovered, Refusal,
    Request, RequestId,
};
use rmesh_wire::{Instant, PeerId};

use crate::dice::Dice;

/// Members and announcements are told this often.
const MESH_EVERY: Duration = Duration::from_millis(50);
/// Steps without time going on that are too many.
const TURNS_MAX: u32 = 100_000;

/// The disk is the one the token speaks of; [`World::start`] says for how long the daemon was away.
pub(crate) const CURRENT: Found = Found::Current {
    down_for: Duration::ZERO,
};

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One host: its disk, its containers, and the node while the daemon runs.
pub(crate) struct Host {
    pub(crate) me: PeerId,
    pub(crate) name: String,
    pub(crate) node: Option<Node>,
    /// Durable entries.
    pub(crate) disk: Vec<Vec<u8>>,
    /// Written, not confirmed.
    pub(crate) writing: VecDeque<(Instant, u64, Vec<u8>)>,
    pub(crate) disk_fails: bool,
    /// What containers really carry.
    pub(crate) containers: BTreeMap<String, BTreeSet<IpAddr>>,
    pub(crate) founding: Founding,
    pub(crate) notices: Vec<String>,
    pub(crate) claimed: Vec<IpAddr>,
    clock: Duration,
    lives: u64,
    killed: Instant,
}

impl Host {
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.containers.values().flatten().copied().collect()
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("the daemon runs")
    }
}

type Delivery = (Instant, u64, usize, usize, Vec<u8>);

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) dice: Dice,
    /// Hosts in different groups do not reach each other.
    pub(crate) groups: Vec<u8>,
    /// Messages lost and doubled, in percent.
    pub(crate) loss: u64,
    pub(crate) doubling: u64,
    /// Whether what was written outlives a killed daemon before it is durable.
    pub(crate) hands_over: bool,
    pub(crate) answers: BTreeMap<RequestId, Result<Answer, Refusal>>,
    /// Whose containers get what a request answers.
    waiting: BTreeMap<RequestId, (usize, Request)>,
    wires: BinaryHeap<Reverse<Delivery>>,
    told: BTreeMap<(usize, usize), BTreeSet<IpAddr>>,
    remembered: BTreeMap<(usize, usize), BTreeSet<IpAddr>>,
    next_mesh: Instant,
    next_number: u64,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) is_traced: bool,
    pub(crate) recorded: Option<Vec<crate::record::Sent>>,
}

pub(crate) fn pool(text: &str) -> Range {
    Range::from(text.parse::<ipnet::IpNet>().expect("a prefix"))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl World {
    /// Hosts whose daemons do not run yet; the first founds, the others join.
    pub(crate) fn new(count: usize, pools: &[&str], seed: u64) -> Self {
        let pools: Vec<Range> = pools.iter().map(|text| pool(text)).collect();
        let mut dice = Dice(seed);
        let host = |at: usize| Host {
            me: PeerId([at as u8 + 1; 16]),
            name: format!("host{at}"),
            node: None,
            disk: Vec::new(),
            writing: VecDeque::new(),
            disk_fails: false,
            containers: BTreeMap::new(),
            founding: if at == 0 {
                Founding::Found {
                    pools: pools.clone(),
                }
            } else {
                Founding::Join {
                    pools: pools.clone(),
                    targets: count - 1,
                    init_peers: None,
                }
            },
            notices: Vec::new(),
            claimed: Vec::new(),
            clock: Duration::from_secs(dice.roll(1_000_000)),
            lives: 0,
            killed: Instant::ZERO,
        };
        let hosts = (0..count).map(host).collect();
        World {
            now: Instant::ZERO + secs(1),
            hosts,
            dice,
            groups: vec![0; count],
            loss: 0,
            doubling: 0,
            hands_over: false,
            answers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            wires: BinaryHeap::new(),
            told: BTreeMap::new(),
            remembered: BTreeMap::new(),
            next_mesh: Instant::ZERO,
            next_number: 1,
            sent: 0,
            sent_bytes: 0,
            is_traced: std::env::var_os("RING_TRACE").is_some(),
            recorded: None,
        }
    }

    pub(crate) fn trace(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            eprintln!("{:9.3} {}", self.now.as_nanos() as f64 / 1e9, text());
        }
    }

    /// All daemons run.
    pub(crate) fn started(mut self) -> Self {
        for at in 0..self.hosts.len() {
            self.start(at, Found::Nothing);
        }
        self
    }

    pub(crate) fn clock(&self, at: usize) -> Instant {
        self.now + self.hosts[at].clock
    }

    /// Starts a daemon from what is on its disk.
    pub(crate) fn start(&mut self, at: usize, found: Found) {
        let down_for = self.now.since(self.hosts[at].killed);
        let found = match found {
            Found::Current { .. } => Found::Current { down_for },
            other => other,
        };
        self.trace(|| {
            format!(
                "host{at} starts {found:?}, {} entries",
                self.hosts[at].disk.len()
            )
        });
        let clock = Duration::from_secs(self.dice.roll(1_000_000));
        self.hosts[at].clock = clock;
        let now = self.clock(at);
        let incarnation = 1_000 * (at as u64 + 1) + self.hosts[at].lives;
        let mut seed = [0; 32];
        for byte in &mut seed {
            *byte = self.dice.roll(256) as u8;
        }
        let host = &mut self.hosts[at];
        host.lives += 1;
        let entries = host.disk.iter().map(Vec::as_slice);
        let ledger = Ledger::fold(entries, now).expect("what was written is read");
        let written = host.disk.len() as u64;
        let identity = Identity {
            me: host.me,
            incarnation,
            seed,
        };
        let recovered = Recovered {
            ledger,
            written,
            found,
        };
        let mut node = Node::new(identity, recovered, host.founding.clone(), now);
        let running = host
            .containers
            .iter()
            .map(|(key, ips)| (key.clone(), ips.iter().copied().collect()));
        node.handle_running(&running.collect::<Vec<_>>(), now);
        host.node = Some(node);
        self.told.retain(|(_, to), _| *to != at);
        self.remembered.retain(|(_, to), _| *to != at);
        self.drain(at);
        self.mesh();
    }

    /// The daemon is killed: some of what was not confirmed is on the disk, some is not.
    pub(crate) fn kill(&mut self, at: usize) {
        self.trace(|| format!("host{at} is killed"));
        let mut kept = self.hosts[at].writing.len();
        if !self.hands_over {
            kept = self.dice.below(kept + 1);
        }
        let now = self.now;
        let host = &mut self.hosts[at];
        // Who was not sure yet is as if it had stayed away.
        if host.node.as_ref().is_none_or(|node| !node.is_fenced()) {
            host.killed = now;
        }
        host.node = None;
        for (_, _, bytes) in host.writing.drain(..).take(kept) {
            host.disk.push(bytes);
        }
        self.waiting.retain(|_, (host, _)| *host != at);
        self.told.retain(|(from, to), _| *from != at && *to != at);
        self.mesh();
    }

    pub(crate) fn is_up(&self, at: usize) -> bool {
        self.hosts[at].node.is_some()
    }

    pub(crate) fn reaches(&self, a: usize, b: usize) -> bool {
        self.groups[a] == self.groups[b] && self.is_up(a) && self.is_up(b)
    }

    /// Tells everybody who is there and what they carry.
    pub(crate) fn mesh(&mut self) {
        for at in 0..self.hosts.len() {
            if !self.is_up(at) {
                continue;
            }
            let others = (0..self.hosts.len()).filter(|other| *other != at);
            let members = others.clone().map(|other| Member {
                peer: self.hosts[other].me,
                name: self.hosts[other].name.clone(),
                reachable: self.reaches(at, other),
                neighbour: self.reaches(at, other),
                listed: true,
            });
            let members: Vec<Member> = members.collect();
            let now = self.clock(at);
            if let Some(node) = &mut self.hosts[at].node {
                node.handle_members(members, now);
            }
            for other in others.collect::<Vec<_>>() {
                let carried = self.hosts[other].addresses();
                if self.reaches(at, other) && self.told.get(&(other, at)) != Some(&carried) {
                    let peer = self.hosts[other].me;
                    let list: Vec<IpAddr> = carried.iter().copied().collect();
                    if let Some(node) = &mut self.hosts[at].node {
                        node.handle_announced(peer, &list, now);
                    }
                    self.told.insert((other, at), carried.clone());
                    self.remembered.insert((other, at), carried);
                }
            }
            self.drain(at);
        }
    }

    /// What `from` last told `to` that it carries, in the life that `to` has now.
    pub(crate) fn told_before(&self, from: usize, to: usize) -> Option<&BTreeSet<IpAddr>> {
        self.remembered.get(&(from, to))
    }

    pub(crate) fn request(&mut self, at: usize, request: Request, patience: Duration) -> RequestId {
        let id = RequestId(self.next_number);
        self.next_number += 1;
        if !self.is_up(at) {
            return id;
        }
        self.trace(|| format!("host{at} {id:?} {request:?}"));
        self.note_release(at, &request);
        self.waiting.insert(id, (at, request.clone()));
        let now = self.clock(at);
        if let Some(node) = &mut self.hosts[at].node {
            node.handle_request(id, request, now + patience, now);
        }
        self.drain(at);
        id
    }

    /// What is detached carries nothing any more.
    fn note_release(&mut self, at: usize, request: &Request) {
        let containers = &mut self.hosts[at].containers;
        match request {
            Request::Release { container } => {
                containers.remove(container);
            }
            Request::ReleaseAddress { container, address } => {
                if let Some(addresses) = containers.get_mut(container) {
                    addresses.remove(address);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn drain(&mut self, at: usize) {
        self.queue_writes(at);
        let (mut events, mut transmits) = (Vec::new(), Vec::new());
        if let Some(node) = &mut self.hosts[at].node {
            while let Some(event) = node.poll_event() {
                events.push(event);
            }
            while let Some(transmit) = node.poll_transmit() {
                transmits.push(transmit);
            }
        }
        for event in events {
            self.on_event(at, event);
        }
        for (to, bytes) in transmits {
            self.transmit(at, to, bytes);
        }
    }

    fn queue_writes(&mut self, at: usize) {
        let (now, clock) = (self.now, self.clock(at));
        let host = &mut self.hosts[at];
        let Some(node) = &mut host.node else {
            return;
        };
        while let Some((number, bytes)) = node.poll_write() {
            if host.disk_fails {
                node.handle_write_failed(number, "no space left on device".into(), clock);
                break;
            }
            let due = now + Duration::from_micros(self.dice.roll(4_000));
            let due = host.writing.back().map_or(due, |(last, ..)| due.max(*last));
            host.writing.push_back((due, number, bytes));
            if self.hands_over {
                node.handle_handed_over(number, clock);
            }
        }
    }

    fn on_event(&mut self, at: usize, event: Event) {
        self.trace(|| format!("host{at} {event:?}"));
        match event {
            Event::Answer { id, result } => {
                if let Some((host, request)) = self.waiting.remove(&id) {
                    assert_eq!(host, at);
                    self.note_given(at, &request, &result);
                }
                assert!(self.answers.insert(id, result).is_none(), "answered twice");
            }
            Event::Claimed { address, .. } => self.hosts[at].claimed.push(address),
            Event::Notice(text) => self.hosts[at].notices.push(text),
        }
    }

    /// A container has an address from now on: nobody else may.
    fn note_given(&mut self, at: usize, request: &Request, result: &Result<Answer, Refusal>) {
        let container = match request {
            Request::Allocate { container, .. } | Request::Claim { container, .. } => container,
            _ => return,
        };
        let Ok(Answer::Address(address)) = result else {
            return;
        };
        for (other, host) in self.hosts.iter().enumerate() {
            for (key, addresses) in &host.containers {
                let is_same = other == at && key == container;
                assert!(
                    is_same || !addresses.contains(address),
                    "{address} is given to {container} on host{at}, and {key} on host{other} has it"
                );
            }
        }
        let containers = &mut self.hosts[at].containers;
        containers
            .entry(container.clone())
            .or_default()
            .insert(*address);
    }

    fn transmit(&mut self, from: usize, to: PeerId, bytes: Vec<u8>) {
        assert!(bytes.len() <= rmesh_ipam::limits::MESSAGE_LEN_MAX);
        self.sent += 1;
        self.sent_bytes += bytes.len() as u64;
        let Some(to) = self.hosts.iter().position(|host| host.me == to) else {
            return;
        };
        self.record(from, to, &bytes);
        let copies = 1 + u64::from(self.dice.percent(self.doubling));
        for _ in 0..copies {
            if !self.dice.percent(self.loss) {
                let late = if self.loss > 0 && self.dice.percent(3) {
                    800_000
                } else {
                    20_000
                };
                let due = self.now + Duration::from_micros(500 + self.dice.roll(late));
                self.next_number += 1;
                self.wires
                    .push(Reverse((due, self.next_number, from, to, bytes.clone())));
            }
        }
    }

    fn next_at(&self) -> Instant {
        let mut next = self.next_mesh;
        if let Some(Reverse((due, ..))) = self.wires.peek() {
            next = next.min(*due);
        }
        for host in &self.hosts {
            if let Some((due, ..)) = host.writing.front() {
                next = next.min(*due);
            }
            if let Some((due, _)) = host.node.as_ref().and_then(Node::poll_timeout) {
                let due = Instant::from_nanos(
                    due.as_nanos().saturating_sub(host.clock.as_nanos() as u64),
                );
                next = next.min(due);
            }
        }
        next.max(self.now)
    }

    /// Lets time go on.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
    }

    /// Lets time go on until something is so; false if it is not within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration, is_so: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        self.run_until(end, is_so)
    }

    fn run_until(&mut self, end: Instant, is_so: impl Fn(&World) -> bool) -> bool {
        let mut turns = 0;
        loop {
            if is_so(self) {
                return true;
            }
            let next = self.next_at();
            if next > end {
                self.now = end;
                return false;
            }
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(
                turns < TURNS_MAX,
                "time stands still: {:?}",
                self.timeouts()
            );
            self.now = next;
            self.step();
        }
    }

    fn timeouts(&self) -> Vec<Option<&'static str>> {
        let nodes = self.hosts.iter().map(|host| host.node.as_ref());
        nodes.map(|node| Some(node?.poll_timeout()?.1)).collect()
    }

    fn step(&mut self) {
        if self.now >= self.next_mesh {
            self.next_mesh = self.now + MESH_EVERY;
            self.mesh();
        }
        if let Some(Reverse((due, ..))) = self.wires.peek()
            && *due <= self.now
            && let Some(Reverse((_, _, from, to, bytes))) = self.wires.pop()
        {
            self.deliver(from, to, &bytes);
        }
        for at in 0..self.hosts.len() {
            self.finish_writes(at);
            let now = self.clock(at);
            let due = self.hosts[at].node.as_ref().and_then(Node::poll_timeout);
            if due.is_some_and(|(due, _)| due <= now) {
                if let Some(node) = &mut self.hosts[at].node {
                    node.handle_timeout(now);
                }
                self.drain(at);
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if self.groups[from] != self.groups[to] {
            return;
        }
        let (now, peer) = (self.clock(to), self.hosts[from].me);
        if let Some(node) = &mut self.hosts[to].node {
            node.handle_message(peer, bytes, now);
        }
        self.drain(to);
    }

    fn finish_writes(&mut self, at: usize) {
        let (now, clock) = (self.now, self.clock(at));
        let mut last = None;
        let host = &mut self.hosts[at];
        while host.writing.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, number, bytes)) = host.writing.pop_front() {
                host.disk.push(bytes);
                last = Some(number);
            }
        }
        if let Some(number) = last {
            if let Some(node) = &mut host.node {
                node.handle_written(number, clock);
            }
            self.drain(at);
        }
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(
        &mut self,
        at: usize,
        request: Request,
        patience: Duration,
    ) -> Result<Answer, Refusal> {
        let id = self.request(at, request, patience);
        self.wait(patience + secs(1), |world| world.answers.contains_key(&id));
        self.answers
            .remove(&id)
            .expect("every request is answered in time")
    }

    pub(crate) fn attach(&mut self, at: usize, container: &str) -> Result<IpAddr, Refusal> {
        let request = allocate(container);
        match self.ask(at, request, secs(5))? {
            Answer::Address(address) => Ok(address),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn removal(&self, gone: usize, is_forced: bool) -> Request {
        Request::RemovePeer {
            peer: self.hosts[gone].me,
            name: self.hosts[gone].name.clone(),
            is_forced,
        }
    }

    pub(crate) fn remove(
        &mut self,
        at: usize,
        gone: usize,
        forced: bool,
    ) -> Result<Answer, Refusal> {
        self.ask(at, self.removal(gone, forced), secs(30))
    }

    pub(crate) fn rings_are_equal(&self) -> bool {
        let up = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let views: BTreeSet<_> = up
            .map(|node| {
                let report = node.report(self.now);
                let stamp = report.setup.map(|setup| setup.stamp);
                (report.ring, report.hash, stamp)
            })
            .collect();
        views.len() <= 1
    }

    pub(crate) fn witnesses(&self, at: usize) -> usize {
        let setup = self.hosts[at].node().report(self.now).setup;
        setup.map_or(0, |setup| setup.witnesses.as_slice().len())
    }
}

pub(crate) fn allocate(container: &str) -> Request {
    Request::Allocate {
        container: container.into(),
        subnet: None,
        wants_v6: false,
    }
}
