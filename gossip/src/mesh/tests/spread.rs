//! How news gets to everybody.

use rmesh_wire::Mac;

use super::step::Idle;
use super::*;
use crate::api::Endpoint;

fn attach(mesh: &mut Idle, number: u8) {
    let endpoint = |number| Endpoint {
        mac: Mac([2, 0, 0, 0, 0, number]),
        addresses: Vec::new(),
        name: String::from("web"),
        labels: Default::default(),
    };
    let now = mesh.now();
    mesh.hosts[0].handle_endpoints((0..=number).map(endpoint).collect(), now);
}

fn all_know(mesh: &Idle) -> bool {
    let first = mesh.hosts[0].digest();
    mesh.hosts.iter().all(|host| host.digest() == first)
}

fn sum(mesh: &Idle, count: impl Fn(Counters) -> u64) -> u64 {
    mesh.hosts.iter().map(|host| count(counters(host))).sum()
}

#[test]
fn a_change_reaches_everybody_once() {
    let mut mesh = Idle::new(6);
    // Costs of links are measured and told once more at 20 s.
    mesh.run(30_000);
    let sent = sum(&mesh, |counters| counters.records_sent);
    let fetched = sum(&mesh, |counters| counters.records_fetched);
    for number in 0..20 {
        attach(&mut mesh, number);
        mesh.run(30);
        assert!(all_know(&mesh), "change {number}");
    }
    let sent = sum(&mesh, |counters| counters.records_sent) - sent;
    // Three of them make a new section, which the node record has to name.
    assert_eq!(sent, 23 * 5);
    assert_eq!(sum(&mesh, |counters| counters.records_fetched), fetched);
}

#[test]
fn what_is_lost_on_its_way_is_fetched_from_whoever_announces_it() {
    let mut mesh = Idle::new(6);
    mesh.run(20_000);
    let fetched = sum(&mesh, |counters| counters.records_fetched);
    mesh.cut = Some((at(1), at(4)));
    attach(&mut mesh, 0);
    mesh.run(30);
    assert!(!all_know(&mesh));
    mesh.run(60);
    assert!(all_know(&mesh), "60 ms and a round trip later");
    assert!(sum(&mesh, |counters| counters.records_fetched) > fetched);
}
