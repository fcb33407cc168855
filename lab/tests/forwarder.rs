//! The forwarder that others are measured by carries everything, and unchanged.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::sync::Arc;
use std::time::Duration;

use rmesh_lab::{Family, Forwarder, Lab, Work, probe};

const LIMIT: Duration = Duration::from_secs(20);
const MTU: u16 = 1_328;

#[test]
fn it_carries_pings_and_a_transfer_in_super_frames_unchanged() {
    let mut lab = Lab::new("forwarder").unwrap();
    let hosts = ["a", "b"].map(|name| lab.host(name).unwrap());
    let link = lab.link(&hosts[0], &hosts[1], Family::Both).unwrap();
    let mut ends = Vec::new();
    for (of, host) in hosts.iter().enumerate() {
        let addresses = [of, 1 - of].map(|of| link.address(&hosts[of], false));
        let lens = (Forwarder::OVERHEAD_MIN, 14 + usize::from(MTU));
        let work: Work = Arc::new(|bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x5a));
        let end = Forwarder::start(host, "tap0", addresses, lens, Some(work));
        ends.push(end.unwrap());
        host.set_mtu("tap0", MTU.into()).unwrap();
        let inner = format!("10.88.0.{}/24", of + 1).parse().unwrap();
        host.bring_up("tap0", Some(inner)).unwrap();
    }
    let far = "10.88.0.2".parse().unwrap();
    probe::wait_ping(&hosts[0], far, LIMIT).unwrap();
    let report = probe::tcp_transfer(&hosts[0], &hosts[1], far, 20_000_000, LIMIT).unwrap();
    assert!(report.intact, "{report:?}");
    drop(ends);
    let names = hosts[0].interface_names().unwrap();
    assert!(!names.iter().any(|name| name == "tap0"), "it is gone");
}
