//! A host whose firewall drops what it does not know, as Docker sets it up.

use rmesh_router::fast::{accept_bridged, unaccept_bridged};

use crate::namespace::delivers;
use crate::support::{BRIDGE, Host, Wire, acquaint, is_silent, nft};

#[test]
fn bridged_frames_pass_a_firewall_whose_last_rule_refuses_the_rest() {
    let wire = Wire::new();
    let host = Host::new(&wire, 1);
    let [a, b] = ["10.32.0.1/16", "10.32.0.2/16"].map(|address| host.attach(address));
    acquaint(&a, &b);
    let [from, to] = [&a, &b].map(|container| container.udp());
    let accept = || host.namespace.enter(|| accept_bridged(BRIDGE)).unwrap();
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    host.namespace
        .enter(|| std::fs::write(switch, "1").unwrap());
    for (table, last) in [
        (
            "inet firewalld",
            "counter reject with icmpx admin-prohibited",
        ),
        ("ip filter", "log counter drop"),
    ] {
        let rules = format!(
            "add table {table} ; add chain {table} FORWARD {{ type filter hook forward priority 10 ; }} ; \
             add rule {table} FORWARD iifname lo accept ; add rule {table} FORWARD {last} ; \
             add chain {table} other {{ type filter hook forward priority 11 ; }} ; \
             add rule {table} other iifname lo drop"
        );
        nft(&host.namespace, &rules);
        assert!(is_silent(&from, &to), "{last}");
        let words = accept();
        assert_eq!(words.len(), 1, "{words:?}");
        assert!(words[0].contains("FORWARD of table"), "{words:?}");
        assert!(delivers(&from, &to) && delivers(&to, &from), "{last}");
        assert_eq!(accept(), Vec::<String>::new());
    }
    host.namespace.enter(|| unaccept_bridged(BRIDGE)).unwrap();
    assert!(is_silent(&from, &to));
}

#[test]
fn bridged_frames_pass_a_firewall_that_drops_what_is_forwarded() {
    let wire = Wire::new();
    let host = Host::new(&wire, 1);
    let [a, b] = ["10.32.0.1/16", "10.32.0.2/16"].map(|address| host.attach(address));
    acquaint(&a, &b);
    let [from, to] = [&a, &b].map(|container| container.udp());
    let accept = || host.namespace.enter(|| accept_bridged(BRIDGE)).unwrap();
    let unaccept = || host.namespace.enter(|| unaccept_bridged(BRIDGE)).unwrap();
    assert_eq!(accept(), Vec::<String>::new());
    assert!(delivers(&from, &to));

    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let has_switch = host.namespace.enter(|| std::fs::write(switch, "1").is_ok());
    let rules = |table: &str| {
        format!(
            "add table {table} ; add chain {table} FORWARD {{ type filter hook forward priority 0 ; \
             policy drop ; }} ; add rule {table} FORWARD iifname lo accept ; \
             add chain {table} free {{ type filter hook forward priority 1 ; }}"
        )
    };
    for table in ["ip filter", "ip6 filter", "inet strict"] {
        nft(&host.namespace, &rules(table));
    }
    assert!(
        has_switch,
        "this test needs br_netfilter (modprobe br_netfilter)"
    );
    assert!(is_silent(&from, &to));
    let words = accept();
    assert_eq!(words.len(), 3, "{words:?}");
    assert!(words[0].contains("FORWARD of table"), "{words:?}");
    assert!(delivers(&from, &to) && delivers(&to, &from));
    assert_eq!(accept(), Vec::<String>::new());
    let shown = nft(&host.namespace, "list chain ip filter FORWARD");
    let first = shown.lines().find(|line| line.contains("iifname")).unwrap();
    assert!(first.contains(r#"accept comment "rmesh rmesh""#), "{shown}");

    // Somebody loads the rules again.
    nft(&host.namespace, "flush chain ip filter FORWARD");
    assert_eq!(accept().len(), 1);
    assert!(delivers(&from, &to));

    unaccept();
    unaccept();
    assert!(!nft(&host.namespace, "list ruleset").contains("rmesh rmesh\""));
    assert!(is_silent(&from, &to));
}
