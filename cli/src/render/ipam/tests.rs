use super::*;
use crate::api::{Count, Difference, OwnerView};

fn owner(name: &str, reachable: bool, addresses: u128, share_per_mille: u16) -> OwnerView {
    OwnerView {
        peer: name.repeat(32),
        name: name.into(),
        reachable,
        former: false,
        addresses: Count(addresses),
        share_per_mille,
    }
}

fn witness(name: &str, reachable: bool) -> WitnessView {
    WitnessView {
        peer: name.repeat(32),
        name: name.into(),
        reachable,
        former: false,
    }
}

fn view() -> IpamView {
    IpamView {
        ring: Some("070707070707".into()),
        peer: "a".repeat(32),
        name: "a".into(),
        pools: vec![PoolView {
            prefix: "10.32.0.0/12".into(),
            size: Count(1 << 20),
            own: Count((1 << 20) - 1024),
            free: Count(1_000),
            used: Count(2),
            owners: vec![
                owner("a", true, (1 << 20) - 1024, 999),
                owner("b", false, 1024, 1),
            ],
            ..PoolView::default()
        }],
        witnesses: vec![witness("a", true), witness("b", false), witness("c", true)],
        has_majority: true,
        used: 2,
        ..IpamView::default()
    }
}

#[test]
fn the_page_reads_like_this() {
    let expected = "\
ring        070707070707
peer        a (aaaaaaaaaaaa)
witnesses   a, b (does not answer), c
one lost    no: the loss of any one peer would not leave a majority
ledger      current
containers  have 2 addresses
pool        10.32.0.0/12: 1048576 addresses, 1047552 owned here, 1000 free, 2 used

POOL          OWNER  ID            STATE            ADDRESSES  SHARE
10.32.0.0/12  a      aaaaaaaaaaaa  answers          1047552    99.9 %
10.32.0.0/12  b      bbbbbbbbbbbb  does not answer  1024       0.1 %
";
    assert_eq!(ipam_status(&view()), expected);
}

#[test]
fn what_is_not_well_is_shown_with_what_helps_and_no_more_than_fits() {
    let mut view = view();
    view.pending = vec![PendingView {
        address: "10.32.0.5".parse().unwrap(),
        container: "web".into(),
    }];
    view.held = vec![HoldView {
        addresses: "10.32.0.9".into(),
        peer: "d".repeat(32),
        name: "d".into(),
        ends_in_ms: 3_600_000,
        since_s: None,
    }];
    view.others = vec![OtherRingView {
        ring: "010101010101".into(),
        members: vec!["e".into()],
        live_here: 3,
        live_there: 2,
        conflicts: vec![ConflictView {
            address: "10.32.0.1".parse().unwrap(),
            container: "web".into(),
            peer: "e".repeat(32),
            name: "e".into(),
        }],
    }];
    view.refused = vec![RefusedView {
        peer: "f".repeat(32),
        name: "f".into(),
        reason: "claims what it cannot own".into(),
        count: 7,
    }];
    view.disk = Some("No space left on device".into());
    view.advice = (0..1_000).map(|n| format!("advice {n}")).collect();
    let page = ipam_status(&view);
    for words in [
        "pending     10.32.0.5 of web",
        "held        10.32.0.9 for d (dddddddddddd), for 60m yet",
        "other ring  010101010101 with e: 2 addresses in use there, 3 here, 1 in both",
        "conflict    10.32.0.1 of web here, and on e (eeeeeeeeeeee)",
        "refused     7 messages of f (ffffffffffff): claims what it cannot own",
        "ledger      the disk refuses it: No space left on device",
        "to do       advice 0",
        "to do       and 984 more: see --json",
    ] {
        assert!(page.contains(words), "{words}:\n{page}");
    }
    assert!(page.lines().count() < 60, "{page}");
}

#[test]
fn without_a_ring_it_says_what_it_waits_for() {
    let view = IpamView {
        waiting: vec!["2 peers have to agree".into()],
        ..IpamView::default()
    };
    let page = ipam_status(&view);
    assert!(page.contains("ring        none yet"), "{page}");
    assert!(page.contains("waiting     2 peers have to agree"), "{page}");
}

fn address(state: AddressState) -> AddressView {
    AddressView {
        address: "10.32.0.1".into(),
        peer: "a".repeat(32),
        name: "a".into(),
        here: true,
        container: "web".into(),
        state,
        held_for: Some("d".into()),
        ends_in_ms: Some(60_000),
        since_s: Some(200),
    }
}

#[test]
fn addresses_are_listed_with_what_they_are_used_for() {
    let text = ipam_addresses(
        &[address(AddressState::Used), address(AddressState::Held)],
        false,
    );
    assert!(text.contains("10.32.0.1  web        used"), "{text}");
    assert!(text.contains("held for d, for 60s yet  3m ago"), "{text}");
    let mut unknown = address(AddressState::Resting);
    unknown.since_s = None;
    let text = ipam_addresses(&[unknown], false);
    assert!(text.contains("free, rests for 60s yet  -"), "{text}");
    let text = ipam_addresses(&[address(AddressState::Kept)], true);
    assert!(
        text.contains("10.32.0.1  a     web        kept for"),
        "{text}"
    );
    assert_eq!(ipam_addresses(&[], false), "no addresses are in use\n");
}

#[test]
fn every_difference_has_its_advice() {
    let mut view = CheckView {
        containers: 2,
        addresses: 4,
        differences: vec![],
    };
    let agree = "2 containers and 4 addresses of the ledger looked at: all agree\n";
    assert_eq!(ipam_check(&view), agree);
    view.differences.push(Difference {
        address: Some("10.32.0.9".parse().unwrap()),
        container: "web".into(),
        what: "it carries an address that it was not given".into(),
        todo: "rmesh ipam claim 10.32.0.9 web".into(),
    });
    let text = ipam_check(&view);
    assert!(
        text.ends_with(
            "10.32.0.9 web: it carries an address that it was not given\n  to do: rmesh ipam claim \
             10.32.0.9 web\n"
        ),
        "{text}"
    );
}

#[test]
fn a_removal_says_what_was_taken_over_and_what_is_held() {
    let mut reply = RemoveReply {
        peer: "d".repeat(32),
        name: "d".into(),
        taken: vec!["10.40.0.0/14".into()],
        held: Count(2),
        held_for_ms: Some(86_400_000),
    };
    let text = removed(&reply);
    for words in [
        "taken over from d (dddddddddddd): 10.40.0.0/14",
        "2 of them",
        "held for 24h",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    reply.taken.clear();
    assert!(removed(&reply).contains("nothing to take over"));
}
