//! Where a frame from this host's bridge goes: pure decisions, no IO.

use std::time::Instant;

use rmesh_wire::ethernet::{addresses, parse_second_way_probe};
use rmesh_wire::{Mac, PeerId};

use super::fdb::{Fdb, Place};
use super::stats::Reason;
use super::tables::Tables;

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// End to end to the one peer that has the destination.
    Unicast(PeerId),
    /// Down the broadcast tree.
    Flood,
    /// Not carried, but another peer of this mesh reaches our bridge by a second way.
    SecondWay(PeerId),
    /// Not carried.
    Drop(Reason),
}

/// Decides about a frame read from the TAP (DESIGN D7).
pub(crate) fn decide(frame: &[u8], tables: &Tables, fdb: &Fdb, now: Instant) -> Decision {
    let Some((destination, source)) = addresses(frame) else {
        return Decision::Drop(Reason::Runt);
    };
    if let Some((mark, peer)) = parse_second_way_probe(frame) {
        let is_other = peer != tables.me && mark == tables.probe_marks.of(&peer);
        return if is_other {
            Decision::SecondWay(peer)
        } else {
            Decision::Drop(Reason::SecondWayProbe)
        };
    }
    if destination.is_link_local_control() {
        Decision::Drop(Reason::LinkLocalControl)
    } else if source.is_group() {
        Decision::Drop(Reason::GroupSource)
    } else if destination.is_group() {
        flood(source, tables)
    } else {
        unicast([destination, source], tables, fdb, now)
    }
}

/// A frame whose source another peer announced came in by a second way: flooded, it would go round.
fn flood(source: Mac, tables: &Tables) -> Decision {
    match tables.announced(source) {
        Some(owner) if owner != tables.me => Decision::Drop(Reason::SecondWay),
        Some(_) | None => Decision::Flood,
    }
}

fn unicast([destination, source]: [Mac; 2], tables: &Tables, fdb: &Fdb, now: Instant) -> Decision {
    let announced = tables.announced(destination).map(|owner| {
        if owner == tables.me {
            Place::Local
        } else {
            Place::Remote(owner)
        }
    });
    match announced.or_else(|| fdb.place(destination, now)) {
        Some(Place::Local) => Decision::Drop(Reason::Local),
        Some(Place::Remote(peer)) => Decision::Unicast(peer),
        None => flood(source, tables),
    }
}

/// Whether a frame that came through the tunnel may reach this host's bridge.
pub(crate) fn admit(frame: &[u8]) -> Result<Mac, Reason> {
    let (destination, source) = addresses(frame).ok_or(Reason::Runt)?;
    if destination.is_link_local_control() {
        Err(Reason::LinkLocalControl)
    } else if source.is_group() {
        Err(Reason::GroupSource)
    } else if parse_second_way_probe(frame).is_some() {
        Err(Reason::SecondWayProbe)
    } else {
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmesh_gossip::{Forwarding, ProbeMarks};
    use rmesh_wire::ethernet::second_way_probe;

    const ME: PeerId = PeerId([1; 16]);
    const OTHER: PeerId = PeerId([2; 16]);
    const THIRD: PeerId = PeerId([3; 16]);
    const MINE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ANNOUNCED: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const LEARNED: Mac = Mac([2, 0, 0, 0, 0, 3]);
    const HERE: Mac = Mac([2, 0, 0, 0, 0, 4]);
    const UNKNOWN: Mac = Mac([2, 0, 0, 0, 0, 5]);

    fn decide_for(frame: &[u8]) -> Decision {
        let forwarding = Forwarding {
            me: ME,
            macs: [(MINE, ME), (ANNOUNCED, OTHER)].into(),
            ..Forwarding::default()
        };
        let tables = Tables::build(forwarding, &Tables::default(), 1, Instant::now());
        let (mut fdb, now) = (Fdb::default(), Instant::now());
        fdb.learn(LEARNED, Place::Remote(THIRD), now);
        fdb.learn(HERE, Place::Local, now);
        fdb.learn(ANNOUNCED, Place::Remote(THIRD), now);
        decide(frame, &tables, &fdb, now)
    }

    fn frame(destination: Mac, source: Mac) -> Vec<u8> {
        [&destination.0[..], &source.0, &[0x88, 0xb5, 0]].concat()
    }

    #[test]
    fn each_kind_of_destination_goes_its_way() {
        let to = |mac| decide_for(&frame(mac, MINE));
        assert_eq!(to(ANNOUNCED), Decision::Unicast(OTHER), "over learned");
        assert_eq!(to(LEARNED), Decision::Unicast(THIRD));
        assert_eq!(to(UNKNOWN), Decision::Flood);
        assert_eq!(to(Mac::BROADCAST), Decision::Flood);
        assert_eq!(to(Mac([0x33, 0x33, 0, 0, 0, 1])), Decision::Flood);
        assert_eq!(to(MINE), Decision::Drop(Reason::Local));
        assert_eq!(to(HERE), Decision::Drop(Reason::Local));
    }

    #[test]
    fn what_must_not_cross_does_not() {
        let control = Mac([1, 0x80, 0xc2, 0, 0, 0x0e]);
        let crossed = frame(control, MINE);
        let drop = Decision::Drop(Reason::LinkLocalControl);
        assert_eq!(decide_for(&crossed), drop);
        assert_eq!(admit(&crossed), Err(Reason::LinkLocalControl));
        let spoofed = frame(ANNOUNCED, Mac::BROADCAST);
        assert_eq!(decide_for(&spoofed), Decision::Drop(Reason::GroupSource));
        assert_eq!(admit(&spoofed), Err(Reason::GroupSource));
        let came_round = frame(Mac::BROADCAST, ANNOUNCED);
        assert_eq!(decide_for(&came_round), Decision::Drop(Reason::SecondWay));
        assert_eq!(decide_for(&[0; 13]), Decision::Drop(Reason::Runt));
        assert_eq!(admit(&[0; 13]), Err(Reason::Runt));
        assert_eq!(admit(&frame(MINE, ANNOUNCED)), Ok(ANNOUNCED));
    }

    #[test]
    fn only_another_peers_probe_of_this_mesh_is_a_second_way() {
        let marks = ProbeMarks::default();
        let probe = |mark, peer| second_way_probe(UNKNOWN, mark, &peer);
        let drop = Decision::Drop(Reason::SecondWayProbe);
        let genuine = probe(marks.of(&OTHER), OTHER);
        assert_eq!(decide_for(&genuine), Decision::SecondWay(OTHER));
        assert_eq!(decide_for(&probe(marks.of(&ME), ME)), drop);
        assert_eq!(decide_for(&probe(marks.of(&OTHER) ^ 1, OTHER)), drop);
        assert_eq!(admit(&genuine), Err(Reason::SecondWayProbe));
        // A container reads its own host's mark from that host's probes.
        let forged = probe(marks.of(&ME), OTHER);
        assert_eq!(decide_for(&forged), drop, "made by a container");
    }
}
