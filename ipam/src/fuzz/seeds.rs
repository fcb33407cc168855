//! Inputs to begin with: what a member hears while three of them do what members do, and what it writes
//! meanwhile. The same ones each time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use rmesh_wire::PeerId;

use super::kinds::kinds;
use super::member::{ME, MEMBERS, Member, OTHERS, REQUEST, TICK, pools};
use super::step;
use crate::api::Founding;
use crate::log;

/// Longest input of messages, in bytes.
const LEN_MAX: usize = 6_000;
/// Messages after which a tick ends, whatever is still on its way.
const PER_TICK_MAX: usize = 200;

/// At which tick which member takes which step.
type Story = &'static [(u32, usize, u8, u8)];

/// A name, and the story; how long each goes on is in ticks.
const STORIES: &[(&str, u32, Story)] = &[
    ("join", 40, &[]),
    (
        "use",
        60,
        &[
            (20, 0, REQUEST, 0x10),
            (22, 0, REQUEST, 0x11),
            (30, 1, REQUEST, 0x20),
            (31, 2, REQUEST, 0x31),
            (32, 2, REQUEST, 0x42),
            (40, 0, REQUEST, 0x22),
            (45, 1, REQUEST, 0x24),
            (50, 0, REQUEST, 0x14),
            (52, 1, REQUEST, 0x1f),
        ],
    ),
    (
        "remove",
        90,
        &[
            (20, 2, REQUEST, 0x10),
            (30, 0, MEMBERS, 0x3b),
            (30, 1, MEMBERS, 0x3b),
            (40, 0, MEMBERS, 1),
            (40, 1, MEMBERS, 1),
            (70, 0, REQUEST, 0x0a),
            (80, 0, REQUEST, 0x06),
        ],
    ),
    (
        "reform",
        120,
        &[
            (20, 2, REQUEST, 0x10),
            (21, 1, REQUEST, 0x10),
            (40, 0, MEMBERS, 0),
            (70, 0, REQUEST, 0x09),
            (72, 0, REQUEST, 0x07),
            (100, 0, MEMBERS, 3),
        ],
    ),
    (
        "leave",
        80,
        &[
            (20, 0, REQUEST, 0x10),
            (30, 2, REQUEST, 0x10),
            (50, 2, REQUEST, 0x0d),
            (60, 0, REQUEST, 0x0d),
        ],
    ),
];

/// The inputs made for a target, by name.
pub fn seeds(target: &str) -> Vec<(alloc::string::String, Vec<u8>)> {
    let mut seeds = Vec::new();
    if target == "ipam_message" {
        let kinds = kinds().into_iter();
        seeds.extend(kinds.map(|(name, input)| (alloc::string::String::from(name), input)));
    }
    for (name, ticks, story) in STORIES {
        for second_founds in [false, true] {
            let (heard, written) = tell(*ticks, story, second_founds);
            let name = match second_founds {
                false => alloc::format!("seed-{name}"),
                true => alloc::format!("seed-{name}-two-rings"),
            };
            match target {
                "ipam_message" => seeds.push((name, heard)),
                "ipam_log" => {
                    let entries = written.iter().flat_map(|entry| step(0, entry));
                    seeds.push((alloc::format!("{name}-entries"), entries.collect()));
                    let (before, later) = written.split_at(written.len() / 2);
                    let mut file = log::begin(before, 3);
                    file.extend(log::batches(later).concat());
                    seeds.push((name, file));
                }
                _ => {}
            }
        }
    }
    seeds
}

/// Three members and what is on its way between them.
struct Tale {
    members: Vec<Member>,
    way: VecDeque<(PeerId, PeerId, Vec<u8>)>,
    heard: Vec<u8>,
    /// Ticks since the first member was given something.
    silent: u8,
}

fn place(peer: PeerId) -> usize {
    let [first, ..] = peer.0;
    usize::from(first).saturating_sub(1)
}

impl Tale {
    fn send(&mut self, from: PeerId, sent: Vec<(PeerId, Vec<u8>)>) {
        let way = sent.into_iter().map(|(to, bytes)| (from, to, bytes));
        self.way.extend(way);
    }

    /// Gives the first member a step, and keeps it as the input will have it.
    fn give(&mut self, what: u8, text: &[u8]) -> Vec<(PeerId, Vec<u8>)> {
        if self.heard.len() < LEN_MAX {
            let silent = core::mem::take(&mut self.silent);
            self.heard.extend(step(what | silent << 2, text));
        }
        self.members[0].take(what, text)
    }

    fn deliver(&mut self) {
        for _ in 0..PER_TICK_MAX {
            let Some((from, to, bytes)) = self.way.pop_front() else {
                break;
            };
            let sent = match OTHERS.iter().position(|other| *other == from) {
                Some(what) if to == ME => self.give(what as u8, &bytes),
                _ => self.members[place(to)].hear(from, &bytes),
            };
            self.send(to, sent);
        }
    }
}

/// What the first member hears, and what it writes.
fn tell(ticks: u32, story: Story, second_founds: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let join = |init_peers| Founding::Join {
        pools: pools(),
        targets: 2,
        init_peers,
    };
    let other = match second_founds {
        false => join(None),
        true => Founding::Found { pools: pools() },
    };
    let mut tale = Tale {
        members: Vec::from([
            Member::founder(),
            Member::new(OTHERS[0], other),
            Member::new(OTHERS[1], join(Some(3))),
        ]),
        way: VecDeque::new(),
        heard: Vec::new(),
        silent: 0,
    };
    tale.members[0].kept = Some(Vec::new());
    for (at, peer) in OTHERS.into_iter().enumerate() {
        let sent = tale.members[at + 1].take(MEMBERS, &[3]);
        tale.send(peer, sent);
    }
    for tick in 0..ticks {
        for (at, peer) in [ME, OTHERS[0], OTHERS[1]].into_iter().enumerate() {
            let mut sent = tale.members[at].wait(TICK);
            let steps = story.iter().filter(|step| (step.0, step.1) == (tick, at));
            tale.silent = tale.silent.saturating_add(u8::from(at == 0)).min(63);
            for (_, _, what, byte) in steps {
                sent.extend(match at {
                    0 => tale.give(*what, &[*byte]),
                    _ => tale.members[at].take(*what, &[*byte]),
                });
            }
            tale.send(peer, sent);
        }
        tale.deliver();
    }
    let written = tale.members[0].kept.take().unwrap_or_default();
    (tale.heard, written)
}
