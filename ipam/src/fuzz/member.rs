//! A member of a ring that does what the bytes of an input say.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use rmesh_wire::{Instant, PeerId};

use crate::address::{Range, address, number};
use crate::api::{self, Event, Found, Founding, Identity, Recovered, Request, RequestId};
use crate::entry::Entry;
use crate::ledger::Ledger;
use crate::message::Message;
use crate::node::Node;

/// The member an input is given to.
pub(super) const ME: PeerId = PeerId([1; 16]);
/// The two peers it hears.
pub(super) const OTHERS: [PeerId; 2] = [PeerId([2; 16]), PeerId([3; 16])];
/// What a step is, in its lowest two bits: a message of one of [`OTHERS`], or one of these.
pub(super) const REQUEST: u8 = 2;
/// Who is there, and what they announce.
pub(super) const MEMBERS: u8 = 3;
/// The other bits are the time before it, in this unit.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Time a client gives a request.
const PATIENCE: Duration = Duration::from_secs(5);
/// Outputs of one input of a node, at most: the bounds of its asks and grants are far below.
const OUTPUTS_MAX: usize = 8_192;
/// Timeouts that may be due at one instant, each of its own concern.
const AT_ONCE_MAX: usize = 64;
/// Timeouts taken in one step.
const TIMEOUTS_MAX: usize = 1_000;

const V4: Range = Range::block(number(IpAddr::V4(Ipv4Addr::new(10, 32, 0, 0))), 8);
const V6: Range = Range::block(
    number(IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0))),
    8,
);

/// A node with what its caller has to do for it.
pub(super) struct Member {
    me: PeerId,
    node: Node,
    now: Instant,
    /// What was written, followed.
    ledger: Ledger,
    requests: u64,
    answered: BTreeSet<RequestId>,
    /// What was written, for whoever asks for it.
    pub(super) kept: Option<Vec<Vec<u8>>>,
}

pub(super) fn pools() -> Vec<Range> {
    Vec::from([V4, V6])
}

impl Member {
    pub(super) fn founder() -> Self {
        let mut founder = Member::new(ME, Founding::Found { pools: pools() });
        founder.take(MEMBERS, &[3]);
        founder
    }

    pub(super) fn new(me: PeerId, founding: Founding) -> Self {
        let [first, ..] = me.0;
        let identity = Identity {
            me,
            incarnation: 10 + u64::from(first),
            seed: [first; 32],
        };
        let recovered = Recovered {
            ledger: Ledger::default(),
            written: 0,
            found: Found::Nothing,
        };
        Member {
            me,
            node: Node::new(identity, recovered, founding, Instant::ZERO),
            now: Instant::ZERO,
            ledger: Ledger::default(),
            requests: 0,
            answered: BTreeSet::new(),
            kept: None,
        }
    }

    /// One step; returns what the node sends.
    pub(super) fn take(&mut self, what: u8, text: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        let mut sent = self.wait(TICK * u32::from(what >> 2));
        let byte = text.first().copied().unwrap_or_default();
        match what & 3 {
            REQUEST => self.ask(byte),
            MEMBERS => self.follow(byte),
            from => {
                let from = OTHERS.get(usize::from(from)).copied().unwrap_or_default();
                self.node.handle_message(from, text, self.now);
            }
        }
        sent.extend(self.drain());
        sent
    }

    /// A message of whoever it is.
    pub(super) fn hear(&mut self, from: PeerId, bytes: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        self.node.handle_message(from, bytes, self.now);
        self.drain()
    }

    /// Every client was answered, and what was written is what is held.
    pub(super) fn end(&mut self) {
        self.ask(0);
        self.wait(PATIENCE);
        self.wait(PATIENCE);
        assert_eq!(self.answered.len() as u64, self.requests);
        let report = self.node.report(self.now);
        assert_eq!(report.halted, None);
        assert!(report.refused.keys().all(|(peer, _)| OTHERS.contains(peer)));
        let held = self.node.snapshot();
        let held = Ledger::fold(held.iter().map(Vec::as_slice), Instant::ZERO);
        assert!(held.expect("a snapshot is entries") == self.ledger);
    }

    /// Does what is due until then.
    pub(super) fn wait(&mut self, time: Duration) -> Vec<(PeerId, Vec<u8>)> {
        let (until, mut sent) = (self.now + time, self.drain());
        let mut at_once = 0;
        for _ in 0..TIMEOUTS_MAX {
            let due = self.node.poll_timeout().map(|(at, _)| at);
            let Some(at) = due.filter(|at| *at <= until) else {
                break;
            };
            at_once = if at > self.now { 0 } else { at_once + 1 };
            assert!(at_once < AT_ONCE_MAX, "{:?}", self.node.poll_timeout());
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now);
            sent.extend(self.drain());
        }
        self.now = until;
        sent
    }

    /// Takes out whatever the node wants done; it must come to an end.
    fn drain(&mut self) -> Vec<(PeerId, Vec<u8>)> {
        let mut sent = Vec::new();
        let mut outputs = 0;
        while let Some((number, entry)) = self.node.poll_write() {
            let read = Entry::decode(&entry).expect("an entry that is one");
            self.ledger.apply(&read, Instant::ZERO);
            if let Some(kept) = &mut self.kept {
                kept.push(entry);
            }
            self.node.handle_written(number, self.now);
            outputs += 1;
        }
        while let Some(event) = self.node.poll_event() {
            if let Event::Answer { id, .. } = event {
                assert!(self.answered.insert(id), "{id:?} is answered twice");
            }
            outputs += 1;
        }
        while let Some((to, bytes)) = self.node.poll_transmit() {
            assert!(Message::decode(&bytes).is_some(), "a message nobody reads");
            sent.push((to, bytes));
            outputs += 1;
        }
        assert!(outputs < OUTPUTS_MAX, "{outputs} outputs of one input");
        sent
    }

    fn ask(&mut self, byte: u8) {
        let [first, second] = OTHERS;
        let container = alloc::format!("web-{}", byte >> 4);
        let at = address(V4.first() + 16 + u128::from(byte));
        let remove = |peer, is_forced| Request::RemovePeer {
            peer,
            name: String::from("gone"),
            is_forced,
        };
        let request = match byte & 15 {
            0 | 1 => Request::Allocate {
                container,
                subnet: None,
                wants_v6: byte & 1 == 1,
            },
            2 | 3 => Request::Claim {
                container,
                address: at,
            },
            4 => Request::Release { container },
            5 => Request::ReleaseAddress {
                container,
                address: at,
            },
            6 => Request::ReleaseHeld { address: at },
            7 | 8 => remove(first, byte & 1 == 1),
            9 | 10 => remove(second, byte & 1 == 1),
            11 => Request::Adopt { peer: first },
            12 => Request::Adopt { peer: second },
            13 => Request::Leave,
            _ => Request::AddPool {
                range: Range::block(V4.first() + (u128::from(byte) << 8), 8),
            },
        };
        self.requests += 1;
        let (id, deadline) = (RequestId(self.requests), self.now + PATIENCE);
        self.node.handle_request(id, request, deadline, self.now);
    }

    fn follow(&mut self, byte: u8) {
        let others = [ME, OTHERS[0], OTHERS[1]];
        let others: Vec<PeerId> = others.into_iter().filter(|peer| *peer != self.me).collect();
        let members = others.iter().enumerate().map(|(at, peer)| api::Member {
            peer: *peer,
            name: alloc::format!("host{at}"),
            reachable: byte & (1 << at) != 0,
            neighbour: true,
            listed: true,
        });
        self.node.handle_members(members.collect(), self.now);
        for peer in others.iter().take(usize::from(byte >> 2 & 3)) {
            let at = address(V4.first() + 64 + u128::from(byte >> 4));
            self.node.handle_announced(*peer, &[at], self.now);
        }
    }
}
