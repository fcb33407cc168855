//! The daemon's life: it starts from what the disk has, writes, answers, and dies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::{
    Answer, Event, Found, Founding, Identity, Ledger, Node, Recovered, Refusal, Request, RequestId,
    Ring,
};

use super::disk::{Remains, Token};
use super::fault::Step;
use super::host::{Daemon, Job};
use super::story::{DiskKind, Wires};
use super::world::{Action, World};

/// A disk takes this long for a write, from and to.
const WRITE_TIME: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(8));
/// And sometimes this long.
const WRITE_TIME_SLOW: Duration = Duration::from_millis(400);
/// Share of slow writes.
const SLOW: f64 = 0.02;
/// Share of writes in the season at which the daemon crashes.
const CRASH_AT_WRITE: f64 = 0.006;
/// Share of writes in the season that the disk refuses.
const REFUSE_WRITE: f64 = 0.0015;
/// Share of writes that begin the file anew.
const SNAPSHOT: f64 = 0.02;
/// Share of answers after which the daemon dies before the container gets the address.
const CRASH_AT_ANSWER: f64 = 0.01;
/// Share of answers after which it dies just when the container has it.
const CRASH_AFTER_ANSWER: f64 = 0.03;
/// Share of lives in which nothing is said to outlive the process before it is durable.
const HANDS_NOTHING_OVER: f64 = 0.1;
/// A crashed daemon is started again after this time, from and to.
const DOWN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(8));

impl World {
    /// Starts the daemon of a host, if it does not run.
    pub(super) fn start(&mut self, index: usize) {
        if self.hosts[index].runs() {
            return;
        }
        let founding = self.founding(index);
        let host = &mut self.hosts[index];
        host.life += 1;
        host.is_doomed = false;
        let clock = host.clock(self.now);
        let fold = |entries: &[Vec<u8>]| Ledger::fold(entries.iter().map(Vec::as_slice), clock);
        let (entries, mut written) = host.disk.recover().unwrap_or_default();
        let down_for = clock.since(host.last_there);
        let mut folded = fold(&entries);
        let found = folded.as_ref().map_or(Found::Nothing, |ledger| {
            found(ledger, written, host.token, down_for)
        });
        if let Found::Current { .. } = found
            && let Some((all, number)) = host.disk.take_tail()
        {
            (folded, written) = (fold(&all), number);
        }
        host.disk.forget_tail();
        let Ok(ledger) = folded else {
            self.violate(format!("peer{index} cannot read its ledger"), Vec::new());
            return;
        };
        let identity = Identity {
            me: host.id(),
            incarnation: host.random.next() | 1,
            seed: host.random.bytes(),
        };
        let recovered = Recovered {
            ledger,
            written,
            found,
        };
        let node = Node::new(identity, recovered, founding, clock);
        let owner = node.owner();
        let hands_over = !host.random.chance(HANDS_NOTHING_OVER);
        host.daemon = Some(daemon(node, hands_over));
        self.note(Some(index), || {
            format!("peer{index} starts as {owner:?}, {found:?}, {written} writes")
        });
        self.begin_life(index);
    }

    /// The mesh, and what the containers really carry.
    fn begin_life(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        let (running, life) = (host.running(clock), host.life);
        host.wake = None;
        if let Some(daemon) = host.daemon.as_mut() {
            daemon.node.handle_running(&running, clock);
        }
        if self.options.wires == Wires::Gossip {
            host.peer.endpoints = host.endpoints();
            host.peer.start(&self.network, clock);
            self.schedule(
                Duration::from_millis(10),
                Action::Look { host: index, life },
            );
        }
        self.announce(index);
        self.wires_changed();
        self.settle(index);
    }

    /// How the host is launched. Who lost its ledger is launched again by somebody who knows that
    /// there is a ring, and says how many peers there are.
    fn founding(&self, index: usize) -> Founding {
        let pools = self.pools.clone();
        let host = &self.hosts[index];
        if !host.was_in_ring && self.is_founded_alone && index == 0 {
            return Founding::Found { pools };
        }
        let init_peers = host.was_in_ring.then_some(self.hosts.len());
        let targets = self.core.iter().filter(|&&other| other != index).count();
        Founding::Join {
            pools,
            targets,
            init_peers,
        }
    }

    /// The daemon is gone from one moment to the next; its containers live on.
    pub(super) fn kill(&mut self, index: usize, remains: Remains) {
        let host = &mut self.hosts[index];
        let Some(daemon) = host.daemon.take() else {
            return;
        };
        host.last_there = host.clock(self.now);
        host.peer.crash(true);
        host.disk.crash(remains, &mut host.random);
        if self.options.disk == DiskKind::ForgetsTail {
            host.disk.forget_tail();
        }
        self.meter.crashes += 1;
        self.board.forget(index);
        self.note(Some(index), || {
            format!("peer{index} is killed, {remains:?} is left of a write")
        });
        for job in daemon.jobs.into_values() {
            if let Job::Remove { victim, .. } = job {
                self.hosts[victim].removals -= 1;
            }
        }
        self.wires_changed();
    }

    /// The host is switched off: no daemon, no containers, no run folder.
    pub(super) fn power_off(&mut self, index: usize, remains: Remains) {
        self.kill(index, remains);
        self.note(Some(index), || format!("peer{index} is switched off"));
        let gone: Vec<String> = self.hosts[index].containers.keys().cloned().collect();
        for container in gone {
            self.bury(index, &container);
        }
        self.hosts[index].token = None;
        self.hosts[index].disk.forget_tail();
    }

    /// Kills the daemon and has it started again soon.
    pub(super) fn crash(&mut self, index: usize, remains: Remains) {
        self.kill(index, remains);
        let down = self.random.log_between(DOWN.0, DOWN.1);
        self.schedule(down, Action::Step(Step::Start(index)));
    }

    /// Hands what is queued to the disk, if it has nothing to do.
    pub(super) fn begin_write(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Some(daemon) = host.daemon.as_mut() else {
            return;
        };
        if !host.disk.is_due() {
            return;
        }
        let number = if host.disk.is_long() || host.random.chance(SNAPSHOT) {
            let (snapshot, number) = (daemon.node.snapshot(), daemon.node.written());
            host.disk.begin_snapshot(&snapshot, number)
        } else {
            host.disk.begin_append()
        };
        let takes = match host.random.chance(SLOW) {
            true => host.random.between(WRITE_TIME.1, WRITE_TIME_SLOW),
            false => host.random.log_between(WRITE_TIME.0, WRITE_TIME.1),
        };
        let life = host.life;
        self.schedule(takes, Action::Commit { host: index, life });
        if self.options.disk == DiskKind::ConfirmsEarly {
            self.confirm(index, number);
        }
    }

    /// The disk has done its write, unless this is the moment of a crash.
    pub(super) fn commit(&mut self, index: usize, life: u32) {
        if self.hosts[index].life != life || !self.hosts[index].runs() {
            return;
        }
        self.meter.commits += 1;
        if let Some((at, remains)) = self.options.crash_at
            && at == self.meter.commits
        {
            return self.crash(index, remains);
        }
        let is_rough = self.is_season && self.options.crash_at.is_none() && self.now >= self.truce;
        let is_doomed = core::mem::take(&mut self.hosts[index].is_doomed);
        if is_doomed || (is_rough && self.random.chance(CRASH_AT_WRITE)) {
            let remains = self.remains();
            return self.crash(index, remains);
        }
        if is_rough && self.random.chance(REFUSE_WRITE) {
            return self.refuse_write(index);
        }
        let host = &mut self.hosts[index];
        let (Some(number), Some(daemon)) = (host.disk.complete(&mut host.random), &host.daemon)
        else {
            return;
        };
        host.was_in_ring |= daemon.seen_in.is_some() && !host.disk.is_due();
        host.token = Some(Token {
            incarnation: daemon.node.owner().incarnation,
            written: number,
        });
        self.confirm(index, number);
        self.settle(index);
    }

    fn confirm(&mut self, index: usize, number: u64) {
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        if let Some(daemon) = host.daemon.as_mut() {
            daemon.node.handle_written(number, clock);
        }
    }

    /// ENOSPC or EIO: the node halts; somebody starts the daemon again.
    fn refuse_write(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        if let (Some(number), Some(daemon)) = (host.disk.refuse(), host.daemon.as_mut()) {
            daemon
                .node
                .handle_write_failed(number, "no space left".to_owned(), clock);
        }
        self.note(Some(index), || {
            format!("peer{index}: its disk refuses a write")
        });
        self.settle(index);
        let after = self.random.log_between(DOWN.0, DOWN.1);
        self.schedule(after, Action::Step(Step::Restart(index)));
    }

    /// Asks the node for something.
    pub(super) fn request(&mut self, index: usize, job: Job, request: Request, patience: Duration) {
        self.note(Some(index), || {
            format!("peer{index} is asked for {request:?}")
        });
        let host = &mut self.hosts[index];
        let id = host.next_request();
        let clock = host.clock(self.now);
        if let Some(daemon) = host.daemon.as_mut() {
            daemon.jobs.insert(id, job);
            daemon
                .node
                .handle_request(id, request, clock + patience, clock);
            self.settle(index);
        }
    }

    /// Takes what the node has to say. Whether it said anything.
    pub(super) fn drain_node_events(&mut self, index: usize) -> bool {
        let mut any = false;
        while let Some(event) = self.hosts[index]
            .daemon
            .as_mut()
            .and_then(|d| d.node.poll_event())
        {
            any = true;
            match event {
                Event::Answer { id, result } => self.answer(index, id, result),
                other => self.note(Some(index), || format!("peer{index}: {other:?}")),
            }
        }
        any
    }

    fn answer(&mut self, index: usize, id: RequestId, result: Result<Answer, Refusal>) {
        let daemon = self.hosts[index].daemon.as_mut();
        let Some(job) = daemon.and_then(|daemon| daemon.jobs.remove(&id)) else {
            self.violate(
                format!("peer{index} answers {id:?} twice: {result:?}"),
                Vec::new(),
            );
            return;
        };
        self.note(Some(index), || {
            format!("peer{index} answers {job:?} with {result:?} ")
        });
        self.meter.count(&job, &result);
        match job {
            Job::Attach {
                container,
                within,
                exact,
            } => match result {
                Ok(Answer::Address(ip)) => {
                    let is_wanted = within.contains(rmesh_ipam::address::number(ip))
                        && exact.is_none_or(|exact| exact == ip);
                    if !is_wanted {
                        let what = format!("peer{index} gave {ip} for {within} {exact:?}");
                        self.violate(what, vec![format!("peer{index}")]);
                    }
                    self.attach(index, &container, ip, exact.is_some());
                }
                refused => self.not_attached(index, &container, &refused),
            },
            Job::Remove { victim, is_forced } => self.removed(index, victim, is_forced, &result),
            Job::Leave => self.left(index),
            Job::Detach | Job::EndHold => {}
        }
    }

    fn attach(&mut self, index: usize, container: &str, ip: IpAddr, is_exact: bool) {
        self.check_durable(index, container, ip, is_exact);
        let is_rough = self.is_season && self.options.crash_at.is_none();
        if is_rough && self.random.chance(CRASH_AT_ANSWER) {
            let remains = self.remains();
            return self.crash(index, remains);
        }
        self.carry(index, container, ip);
        self.announce(index);
        if is_rough && self.random.chance(CRASH_AFTER_ANSWER) {
            let remains = self.remains();
            self.crash(index, remains);
        }
    }
}

fn daemon(node: Node, hands_over: bool) -> Daemon {
    Daemon {
        node,
        hands_over,
        jobs: BTreeMap::new(),
        told: BTreeMap::new(),
        members: Vec::new(),
        seen: Ring::new(),
        seen_in: None,
        seen_written: None,
        own: Vec::new(),
        is_look_due: false,
    }
}

/// What the token says of a ledger.
fn found(ledger: &Ledger, written: u64, token: Option<Token>, down_for: Duration) -> Found {
    if written == 0 && ledger.incarnation() == 0 {
        return Found::Nothing;
    }
    match token {
        None => Found::Unproven,
        Some(token) if token.incarnation != ledger.incarnation() => Found::RolledBack,
        Some(token) if token.written > written => Found::RolledBack,
        Some(_) => Found::Current { down_for },
    }
}
