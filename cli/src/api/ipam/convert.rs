//! From what the daemon knows of the ring to what the API shows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rmesh_ipam::address::address;
use rmesh_ipam::{Held, OtherRing, Outlook, OwnerId, PoolUse, REST, Range, Report};
use rmesh_wire::PeerId;

use super::view::{
    AddressState, AddressView, ConflictView, Count, HoldView, IpamView, OtherRingView, OwnerView,
    PendingView, PoolView, RefusedView, WitnessView,
};
use crate::daemon::{Snapshot, lost_in_words};
use crate::duration::millis;

/// Names of peers, those of removed ones included.
struct Names<'a> {
    snapshot: &'a Snapshot,
    removed: &'a BTreeMap<PeerId, String>,
}

impl Names<'_> {
    fn of(&self, peer: PeerId) -> String {
        let report = &self.snapshot.report;
        let is_known = peer == report.id || report.peers.iter().any(|p| p.id == peer);
        match self.removed.get(&peer) {
            Some(name) if !is_known && !name.is_empty() => name.clone(),
            _ => self.snapshot.name_of(peer),
        }
    }

    fn is_reachable(&self, peer: PeerId) -> bool {
        let report = &self.snapshot.report;
        peer == report.id || report.peers.iter().any(|p| p.id == peer && p.reachable)
    }
}

/// `GET /v1/ipam`.
pub(super) fn status(snapshot: &Snapshot, outlook: &Outlook) -> IpamView {
    let names = Names {
        snapshot,
        removed: &outlook.removed,
    };
    let ring = &snapshot.ring;
    let mut view = IpamView {
        peer: snapshot.report.id.to_string(),
        name: snapshot.report.name.clone(),
        disk: ring.refused.clone(),
        aside: ring.aside.clone(),
        overlaps: ring.overlaps.clone(),
        lost_ring: ring.lost.clone(),
        ..IpamView::default()
    };
    if let Some(report) = &ring.report {
        of_report(&mut view, &names, report);
        view.pools = outlook
            .pools
            .iter()
            .map(|p| pool(p, &names, report))
            .collect();
    }
    view.held = outlook
        .holds
        .iter()
        .map(|hold| held(hold, &names))
        .collect();
    view.others = outlook
        .others
        .iter()
        .map(|other| other_ring(other, &names))
        .collect();
    view.disputed = outlook.disputed.iter().map(shown).collect();
    view.advice = advice(&view);
    view
}

fn of_report(view: &mut IpamView, names: &Names<'_>, report: &Report) {
    view.ring = report.ring.map(|ring| ring.to_string());
    let setup = report.setup.iter();
    let witnesses = setup.flat_map(|setup| setup.witnesses.as_slice());
    let witness = |peer: PeerId| WitnessView {
        peer: peer.to_string(),
        name: names.of(peer),
        reachable: names.is_reachable(peer),
        former: report.former_witnesses.contains(&peer),
    };
    view.witnesses = witnesses.map(|owner| witness(owner.peer)).collect();
    view.reformers = report.reformers.iter().map(|peer| witness(*peer)).collect();
    view.has_majority = report.has_majority;
    view.survives_loss_of_one = report.has_majority && report.spare_witnesses > 0;
    view.used = report.allocated.len();
    view.pending = pending(names.snapshot, report).collect();
    let refused = report.refused.iter();
    view.refused = refused
        .map(|((peer, reason), count)| RefusedView {
            peer: peer.to_string(),
            name: names.of(*peer),
            reason: (*reason).into(),
            count: *count,
        })
        .collect();
    view.fence.clone_from(&report.fence);
    if view.disk.is_none() {
        view.disk.clone_from(&report.halted);
    }
    view.waiting.clone_from(&report.waiting);
}

fn pending(snapshot: &Snapshot, report: &Report) -> impl Iterator<Item = PendingView> {
    report.pending.iter().map(|ip| PendingView {
        address: *ip,
        container: container_of(snapshot, report, *ip),
    })
}

fn container_of(snapshot: &Snapshot, report: &Report, ip: IpAddr) -> String {
    let mut allocated = report.allocated.iter();
    let found = allocated.find(|(address, _)| *address == ip);
    found.map_or_else(String::new, |(_, key)| snapshot.target_of(key))
}

fn pool(pool: &PoolUse, names: &Names<'_>, report: &Report) -> PoolView {
    let size = pool.range.count();
    let owners = pool.owners.iter();
    let owner = |(owner, count): (&OwnerId, &u128)| OwnerView {
        peer: owner.peer.to_string(),
        name: names.of(owner.peer),
        reachable: names.is_reachable(owner.peer),
        former: owner.peer == names.snapshot.report.id && Some(*owner) != report.owner,
        addresses: Count(*count),
        share_per_mille: per_mille(*count, size),
    };
    let mut owners: Vec<OwnerView> = owners.map(owner).collect();
    owners.sort_by(|a, b| (b.addresses, &a.name).cmp(&(a.addresses, &b.name)));
    let counts = pool.counts;
    PoolView {
        prefix: pool.range.to_string(),
        size: Count(size),
        own: Count(counts.owned),
        free: Count(counts.free()),
        resting: Count(counts.resting),
        used: Count(counts.allocated),
        held: Count(counts.held),
        owners,
    }
}

fn per_mille(part: u128, whole: u128) -> u16 {
    // Thousandths of what does not fit twelve bits more are close enough.
    let shift = (128 - whole.leading_zeros()).saturating_sub(100);
    let (part, whole) = (part >> shift, (whole >> shift).max(1));
    u16::try_from((part * 1_000 + whole / 2) / whole).unwrap_or(1_000)
}

fn held(hold: &Held, names: &Names<'_>) -> HoldView {
    HoldView {
        addresses: shown(&hold.range),
        peer: hold.peer.to_string(),
        name: names.of(hold.peer),
        ends_in_ms: millis(hold.left),
        since_s: hold.since.map(|since| since.as_secs()),
    }
}

/// One address as such.
fn shown(range: &Range) -> String {
    if range.count() == 1 {
        return address(range.first()).to_string();
    }
    range.to_string()
}

fn other_ring(other: &OtherRing, names: &Names<'_>) -> OtherRingView {
    let conflicts = other.conflicts.iter();
    OtherRingView {
        ring: other.ring.to_string(),
        members: other.members.iter().map(|peer| names.of(*peer)).collect(),
        live_here: other.live_here,
        live_there: other.live_there,
        conflicts: conflicts
            .map(|(address, key, peer)| ConflictView {
                address: *address,
                container: names.snapshot.target_of(key),
                peer: peer.to_string(),
                name: names.of(*peer),
            })
            .collect(),
    }
}

/// What to do about what is not well.
fn advice(view: &IpamView) -> Vec<String> {
    let mut advice: Vec<String> = Vec::new();
    advice.extend(view.lost_ring.iter().map(|lost| lost_in_words(lost)));
    let former = view.witnesses.iter().find(|witness| witness.former);
    let silent = view.witnesses.iter().filter(|witness| !witness.reachable);
    let silent: Vec<&str> = silent.map(|witness| witness.name.as_str()).collect();
    if let Some(reformer) = view.reformers.last() {
        advice.push(of_reformer(reformer));
    } else if view.ring.is_some() && !view.has_majority {
        advice.push(of_lost_majority(&silent, former));
    } else if !silent.is_empty() {
        let names = silent.join(", ");
        advice.push(format!(
            "a witness does not answer ({names}); if it is gone for good: rmesh rmpeer {}",
            silent.first().unwrap_or(&"PEER")
        ));
    } else if view.ring.is_some() && !view.survives_loss_of_one {
        advice.push(
            "the loss of one more peer would leave no majority: with three hosts or more one may be lost"
                .into(),
        );
    }
    for hold in &view.held {
        let which = &hold.addresses;
        advice.push(format!(
            "{which} is held for {}, whose container may still carry it; if it does not: rmesh ipam \
             release {which}",
            hold.name
        ));
    }
    advice.extend(view.others.iter().map(of_other_ring));
    if !view.overlaps.is_empty() {
        advice.push(
            "this host and containers use the same addresses: change the route, or attach containers \
             only from another part of the pool (rmesh attach --subnet) or from another pool (rmesh \
             ipam pool add)"
                .into(),
        );
    }
    if view.disk.is_some() {
        advice.push("see to the disk of the state folder; containers keep what they have".into());
    }
    advice
}

/// Somebody has begun what leaves no majority until it has ended.
fn of_reformer(reformer: &WitnessView) -> String {
    let name = &reformer.name;
    let todo = match reformer.reachable {
        true => "it says how that ends within seconds".to_owned(),
        false => format!("start it; or, if it is gone for good: rmesh rmpeer {name} --force"),
    };
    format!(
        "{name} began to form the witnesses anew by force and has not ended: this host hands out what it \
         owns and gets no more; {todo}"
    )
}

fn of_lost_majority(silent: &[&str], former: Option<&WitnessView>) -> String {
    if let Some(former) = former.filter(|_| silent.is_empty()) {
        let name = &former.name;
        return format!(
            "{name} lost its ledger and began anew, and with its former life most witnesses are gone: this \
             host hands out what it owns and gets no more; on {name}: rmesh rmpeer {name} --force forms \
             them anew from the hosts that answer"
        );
    }
    let Some(first) = silent.first() else {
        return "the witnesses answer and most of them do not act: this host hands out what it owns and \
                gets no more; `rmesh ipam status` on each of them says what it waits for"
            .into();
    };
    format!(
        "most witnesses do not answer ({}): this host hands out what it owns and gets no more; start them, \
         or, if they are gone for good: rmesh rmpeer {first} --force",
        silent.join(", "),
    )
}

fn of_other_ring(other: &OtherRingView) -> String {
    let (ring, who) = (&other.ring, other.members.join(", "));
    let Some(conflict) = other.conflicts.first() else {
        return format!(
            "{who} is in ring {ring}; the ring with fewer addresses in use joins the other within \
             seconds; to join theirs: rmesh ipam adopt {ring}"
        );
    };
    format!(
        "{who} is in ring {ring}, and both are used: {} by {} here and by a container on {}; rmesh \
         detach {} here, or the other one there, then: rmesh ipam adopt {ring}",
        conflict.address, conflict.container, conflict.name, conflict.container
    )
}

/// `GET /v1/ipam/addresses`: those of this host first, then those of others by name.
pub(super) fn addresses(snapshot: &Snapshot, outlook: &Outlook) -> Vec<AddressView> {
    let names = Names {
        snapshot,
        removed: &outlook.removed,
    };
    let report = snapshot.ring.report.as_ref();
    let mut views: Vec<AddressView> = report
        .into_iter()
        .flat_map(|report| own(snapshot, report, outlook))
        .collect();
    views.extend(outlook.resting.iter().map(|rest| resting(snapshot, rest)));
    views.extend(outlook.holds.iter().map(|hold| {
        let hold = held(hold, &names);
        AddressView {
            address: hold.addresses,
            peer: snapshot.report.id.to_string(),
            name: snapshot.report.name.clone(),
            here: true,
            container: String::new(),
            state: AddressState::Held,
            held_for: Some(hold.name),
            ends_in_ms: Some(hold.ends_in_ms),
            since_s: hold.since_s,
        }
    }));
    let mut others = announced(snapshot);
    others.sort_by(|a, b| a.name.cmp(&b.name));
    views.extend(others);
    views
}

/// One that was freed a moment ago.
fn resting(snapshot: &Snapshot, (ip, ago): &(IpAddr, Duration)) -> AddressView {
    AddressView {
        address: ip.to_string(),
        peer: snapshot.report.id.to_string(),
        name: snapshot.report.name.clone(),
        here: true,
        container: String::new(),
        state: AddressState::Resting,
        held_for: None,
        ends_in_ms: Some(millis(REST.saturating_sub(*ago))),
        since_s: Some(ago.as_secs()),
    }
}

fn own(snapshot: &Snapshot, report: &Report, outlook: &Outlook) -> Vec<AddressView> {
    let allocated = report.allocated.iter();
    let own = allocated.map(|(ip, key)| {
        let container = snapshot.target_of(key);
        let state = match () {
            () if report.pending.contains(ip) => AddressState::Pending,
            () if container == *key => AddressState::Kept,
            () => AddressState::Used,
        };
        AddressView {
            address: ip.to_string(),
            peer: snapshot.report.id.to_string(),
            name: snapshot.report.name.clone(),
            here: true,
            container,
            state,
            held_for: None,
            ends_in_ms: None,
            since_s: outlook.given.get(ip).map(Duration::as_secs),
        }
    });
    own.collect()
}

fn announced(snapshot: &Snapshot) -> Vec<AddressView> {
    let others = snapshot.report.endpoints.iter();
    let others = others.filter(|e| e.peer != snapshot.report.id);
    let each = others.flat_map(|e| {
        let state = match e.reachable {
            true => AddressState::Announced,
            false => AddressState::Unreachable,
        };
        let name = snapshot.name_of(e.peer);
        e.endpoint.addresses.iter().map(move |net| AddressView {
            address: net.addr().to_string(),
            peer: e.peer.to_string(),
            name: name.clone(),
            here: false,
            container: e.endpoint.name.clone(),
            state,
            held_for: None,
            ends_in_ms: None,
            since_s: None,
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    fn range(text: &str) -> Range {
        Range::from(text.parse::<ipnet::IpNet>().unwrap())
    }

    #[test]
    fn shares_are_rounded_thousandths_of_any_pool() {
        assert_eq!(per_mille(1, 3), 333);
        assert_eq!(per_mille(2, 3), 667);
        assert_eq!(per_mille(1 << 79, 1 << 80), 500);
        assert_eq!(per_mille(u128::MAX, u128::MAX), 1_000);
        assert_eq!(per_mille(0, 0), 0);
    }

    #[test]
    fn a_removed_peer_is_named_though_the_mesh_has_forgotten_it() {
        let gone = PeerId([0xdd; 16]);
        let outlook = Outlook {
            holds: vec![Held {
                range: range("10.32.0.9/32"),
                peer: gone,
                left: Duration::from_secs(60),
                since: None,
            }],
            removed: BTreeMap::from([(gone, "hostd".into())]),
            ..Outlook::default()
        };
        let snapshot = samples::snapshot();
        let view = status(&snapshot, &outlook);
        assert_eq!(view.held[0].addresses, "10.32.0.9");
        assert_eq!(
            (view.held[0].name.as_str(), view.held[0].ends_in_ms),
            ("hostd", 60_000)
        );
        let advice = view.advice.join("\n");
        assert!(advice.contains("rmesh ipam release 10.32.0.9"), "{advice}");
        let all = addresses(&snapshot, &outlook);
        assert_eq!(all[0].held_for.as_deref(), Some("hostd"));
        assert_eq!(all[1].state, AddressState::Announced);
        assert!(!all[1].here, "{all:?}");
    }

    #[test]
    fn who_did_not_end_a_forced_removal_is_named_with_the_command() {
        let mut snapshot = samples::snapshot();
        snapshot.report.peers[1].reachable = false;
        let say = |snapshot: &Snapshot| {
            let view = status(snapshot, &Outlook::default());
            view.advice.join("\n")
        };
        let report = snapshot.ring.report.as_mut().unwrap();
        (report.has_majority, report.reformers) = (false, vec![samples::C]);
        let advice = say(&snapshot);
        for words in ["c began", "gets no more", "rmesh rmpeer c --force"] {
            assert!(advice.contains(words), "{words}: {advice}");
        }
        // One that answers is not to be removed.
        snapshot.report.peers[1].reachable = true;
        assert!(!say(&snapshot).contains("--force"), "{}", say(&snapshot));
        let report = snapshot.ring.report.as_mut().unwrap();
        report.reformers = vec![];
        let advice = say(&snapshot);
        assert!(
            advice.contains("do not act") && !advice.contains("()"),
            "{advice}"
        );
    }

    #[test]
    fn addresses_show_for_how_long_they_are_what_they_are() {
        let web: IpAddr = "10.32.0.1".parse().unwrap();
        let freed: IpAddr = "10.32.0.2".parse().unwrap();
        let mut snapshot = samples::snapshot();
        snapshot.ring.report.as_mut().unwrap().allocated = [web, "10.32.0.3".parse().unwrap()]
            .map(|ip| (ip, "7/rmesh0".into()))
            .into();
        let outlook = Outlook {
            given: BTreeMap::from([(web, Duration::from_millis(7_900))]),
            resting: vec![(freed, Duration::from_secs(20))],
            ..Outlook::default()
        };
        let all = addresses(&snapshot, &outlook);
        let since: Vec<_> = all
            .iter()
            .take(3)
            .map(|a| (a.state, a.since_s, a.ends_in_ms))
            .collect();
        let expected = [
            (AddressState::Kept, Some(7), None),
            (AddressState::Kept, None, None),
            (AddressState::Resting, Some(20), Some(40_000)),
        ];
        assert_eq!(since, expected);
    }

    #[test]
    fn a_pool_that_a_route_leads_elsewhere_is_named_on_both_pages() {
        let mut snapshot = samples::snapshot();
        let words = "10.32.0.0/12 overlap this host's route to 10.40.0.0/16 through lan0";
        snapshot.ring.overlaps = vec![words.into()];
        let view = status(&snapshot, &Outlook::default());
        assert_eq!(view.overlaps, [words]);
        let advice = view.advice.join("\n");
        assert!(advice.contains("rmesh ipam pool add"), "{advice}");
        assert!(crate::api::ring::warnings(&snapshot).contains(&words.to_owned()));
    }

    #[test]
    fn another_ring_comes_with_the_command_that_helps() {
        let other = |conflicts| OtherRing {
            ring: rmesh_ipam::RingId([1; 16]),
            members: vec![samples::B],
            live_here: 3,
            live_there: 2,
            conflicts,
        };
        let say = |conflicts| {
            let outlook = Outlook {
                others: vec![other(conflicts)],
                ..Outlook::default()
            };
            status(&samples::snapshot(), &outlook).advice.join("\n")
        };
        let peaceful = say(vec![]);
        assert!(
            peaceful.contains("rmesh ipam adopt 010101010101"),
            "{peaceful}"
        );
        let ip = "10.32.0.1".parse().unwrap();
        let conflict = say(vec![(ip, "7/rmesh0".into(), samples::B)]);
        for words in [
            "10.32.0.1 by 7/rmesh0",
            "on b",
            "detach 7/rmesh0",
            "rmesh ipam adopt",
        ] {
            assert!(conflict.contains(words), "{words}: {conflict}");
        }
    }
}
