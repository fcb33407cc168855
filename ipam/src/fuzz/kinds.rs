//! One message of every kind, about the ring of the member that hears them.

use alloc::vec::Vec;

use rmesh_wire::codec::Bounded;

use super::member::{Member, OTHERS, pools};
use super::step;
use crate::address::Range;
use crate::cell::{Cell, OwnerId, Term};
use crate::entry::Foundation;
use crate::message::{Body, Decline, Denial, Message, Newer, Page, Text, Wish};
use crate::packed::Runs;
use crate::ring::Run;
use crate::setup::{Ballot, RingId, Setup, Stamp};
use crate::sync::Sync;

/// The sender.
const OWNER: OwnerId = OwnerId {
    peer: OTHERS[0],
    incarnation: 12,
};
const BALLOT: Ballot = Ballot {
    n: 1,
    leader: OWNER.peer,
    life: 12,
};
const TERM: Term = Term {
    n: 1,
    taker: OWNER.peer,
};

fn message(ring: u64, body: Body) -> Vec<u8> {
    let message = Message {
        ring,
        incarnation: OWNER.incarnation,
        life: OWNER.incarnation,
        written: 1,
        body,
    };
    message.encode().unwrap_or_default()
}

/// What is known of the ring that a founder of these tests is in.
struct Known {
    ring: RingId,
    setup: Setup,
    after: Stamp,
    range: Range,
    runs: Runs,
    page: Page,
}

impl Known {
    fn of(mut member: Member) -> Option<Self> {
        let sent = member.take(0, &message(0, Body::AskSetup));
        let (ring, setup) =
            sent.iter()
                .find_map(|(_, bytes)| match Message::decode(bytes)?.body {
                    Body::Setup { ring, setup } => Some((ring, setup)),
                    _ => None,
                })?;
        let range = pools().first()?.last_block(4)?;
        let (term, seq, owner) = (TERM, 0, OWNER);
        let cell = Cell { term, seq, owner };
        let runs = Runs::new(Vec::from([Run { range, cell }]))?;
        let page = Page {
            covered_to: u128::MAX,
            accepted: runs.clone(),
            promised: Bounded::take_from([(range, TERM)]),
        };
        Some(Known {
            ring,
            after: setup.stamp,
            setup,
            range,
            runs,
            page,
        })
    }

    /// About cells that are granted.
    fn of_grants(&self) -> Vec<Body> {
        let (id, stamp, within) = (1, self.after, self.range);
        let cells = || self.runs.clone();
        let peer = OTHERS[1];
        let deny = |why| Body::Denied { id, why };
        let decline = |why| Body::Declined { id, stamp, why };
        let ask = |wish| Body::Ask { id, within, wish };
        Vec::from([
            Body::Probe,
            Body::Push(cells()),
            Body::Sync(Sync::News {
                runs: cells(),
                rest: None,
            }),
            ask(Wish::Block(16)),
            ask(Wish::Spare(4)),
            ask(Wish::Exact(within.first())),
            Body::Granting { id },
            deny(Denial::Used(Text::new("web"))),
            deny(Denial::Held(peer)),
            decline(Decline::Promised(3)),
            decline(Decline::Behind),
            Body::Accept {
                id,
                stamp,
                runs: cells(),
            },
            Body::Accepted { id, stamp },
        ])
    }

    /// About cells that are taken over.
    fn of_successions(&self) -> Vec<Body> {
        let (id, stamp, within) = (1, self.after, self.range);
        let cells = || self.runs.clone();
        let peer = OTHERS[1];
        let addresses = || Bounded::take_from([within.first()]);
        Vec::from([
            Body::Prepare {
                id,
                stamp,
                term: TERM,
                removed: peer,
                ranges: Bounded::take_from([within]),
            },
            Body::Promise {
                id,
                stamp,
                covered_to: u128::MAX,
                cells: cells(),
                announced: Some(addresses()),
            },
            Body::AskAnnounced { peer, from: 0 },
            Body::Announced {
                peer,
                addresses: addresses(),
                next: Some(within.last()),
            },
            Body::AskGone,
            Body::Gone(Bounded::take_from([peer])),
            Body::Read { id, cells: cells() },
            Body::ReadAnswer {
                id,
                stamp,
                newer: Newer::Accepted,
                seen: 1,
            },
        ])
    }

    /// About setups.
    fn of_setups(&self) -> Vec<Body> {
        let (id, from, hash, part, ballot) = (1, 0, 7, 0, BALLOT);
        let target = self.after.next();
        let (ring, page) = (self.ring, || self.page.clone());
        let setup = || Setup {
            stamp: target,
            ..self.setup.clone()
        };
        Vec::from([
            Body::Setup {
                ring,
                setup: self.setup.clone(),
            },
            Body::Seal { target, ballot },
            Body::Sealed {
                target,
                ballot,
                hash,
                accepted: Some((ballot, setup())),
            },
            Body::AskState { id, from },
            Body::State {
                id,
                from,
                hash,
                page: page(),
            },
            Body::Carry {
                target,
                ballot,
                part,
                page: page(),
            },
            Body::Carried {
                target,
                ballot,
                part,
            },
            Body::Install {
                target,
                ballot,
                hash,
                setup: setup(),
            },
            Body::Installed { target, ballot },
            Body::Outvoted { target, n: 9 },
        ])
    }

    /// About foundings and forced reforms.
    fn of_beginnings(&self) -> Vec<Body> {
        let (ballot, after, target) = (BALLOT, self.after, self.after.next());
        let foundation = || Foundation {
            ring: self.ring,
            setup: self.setup.clone(),
        };
        Vec::from([
            Body::FoundPrepare { ballot },
            Body::FoundPromise {
                ballot,
                promised: ballot,
                accepted: Some((ballot, foundation())),
            },
            Body::FoundAccept {
                ballot,
                foundation: foundation(),
            },
            Body::FoundAccepted {
                ballot,
                promised: ballot,
            },
            Body::AskReform {
                id: 1,
                after,
                target: Stamp::first_of(crate::setup::Generation {
                    n: 1,
                    by: OWNER.peer,
                }),
                from: 0,
            },
            Body::AskReformEnd(target),
            Body::ReformEnded(target),
        ])
    }
}

/// The inputs, by name.
pub(super) fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    let Some(known) = Known::of(Member::founder()) else {
        return Vec::new();
    };
    let ring = known.ring.short();
    let of = |bodies: Vec<Body>| {
        let texts = bodies.into_iter().map(|body| message(ring, body));
        texts.flat_map(|text| step(4, &text)).collect()
    };
    Vec::from([
        ("seed-kinds-of-grants", of(known.of_grants())),
        ("seed-kinds-of-successions", of(known.of_successions())),
        ("seed-kinds-of-setups", of(known.of_setups())),
        ("seed-kinds-of-beginnings", of(known.of_beginnings())),
    ])
}
