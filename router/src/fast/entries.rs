//! What the kernel's forwarding entries should be, and the least changes that make them so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rmesh_wire::Mac;

use super::FastEntries;

/// A family of underlay addresses, which has a VXLAN device of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// A port of the bridge that leads to other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Tap,
    Tunnel(Family),
}

/// Forwarding entries of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// Of VXLAN devices.
    pub(super) tunnels: BTreeMap<(Family, Mac), IpAddr>,
    /// Of the bridge.
    pub(super) ports: BTreeMap<Mac, Port>,
}

/// One request to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    PutTunnel(Family, Mac, IpAddr),
    PutPort(Mac, Port),
    DropPort(Mac, Port),
    DropTunnel(Family, Mac),
}

impl Entries {
    /// Those that `wanted` asks for, where `has` says which families have a device. What has no way
    /// by VXLAN goes by the TAP: a MAC whose address has no device, or is not allowed, for its
    /// frames would be dropped. MACs that name no single interface have no entries.
    pub(super) fn of(wanted: &FastEntries, has: impl Fn(Family) -> bool) -> Entries {
        let mut entries = Entries::default();
        let has = |address: IpAddr| is_place(address) && has(Family::of(address));
        for (mac, address) in &wanted.heartbeats {
            let family = Family::of(*address);
            if is_single(*mac) && has(*address) {
                entries.tunnels.insert((family, *mac), *address);
            }
        }
        for (mac, address) in &wanted.macs {
            if !is_single(*mac) {
                continue;
            }
            let address =
                address.filter(|address| wanted.allowed.contains(address) && has(*address));
            let port = match address {
                None => Port::Tap,
                Some(address) => {
                    let family = Family::of(address);
                    entries.tunnels.insert((family, *mac), address);
                    Port::Tunnel(family)
                }
            };
            entries.ports.insert(*mac, port);
        }
        entries
    }

    /// What turns these into `wanted`, in an order that never leaves a MAC without a way: a tunnel's
    /// entry is there before the bridge points to it, and goes after.
    pub(super) fn changes_to(&self, wanted: &Entries) -> Vec<Change> {
        let mut changes = Vec::new();
        for ((family, mac), address) in &wanted.tunnels {
            if self.tunnels.get(&(*family, *mac)) != Some(address) {
                changes.push(Change::PutTunnel(*family, *mac, *address));
            }
        }
        for (mac, port) in &wanted.ports {
            if self.ports.get(mac) != Some(port) {
                changes.push(Change::PutPort(*mac, *port));
            }
        }
        for (mac, port) in &self.ports {
            if !wanted.ports.contains_key(mac) {
                changes.push(Change::DropPort(*mac, *port));
            }
        }
        for (family, mac) in self.tunnels.keys() {
            if !wanted.tunnels.contains_key(&(*family, *mac)) {
                changes.push(Change::DropTunnel(*family, *mac));
            }
        }
        changes
    }

    /// Whether a change may be made where some before it have failed: the bridge never points to a
    /// tunnel that has no entry, nor is one taken away while the bridge points to it.
    pub(super) fn lets(&self, change: Change) -> bool {
        match change {
            Change::PutPort(mac, Port::Tunnel(family)) => self.tunnels.contains_key(&(family, mac)),
            Change::DropTunnel(family, mac) => self.ports.get(&mac) != Some(&Port::Tunnel(family)),
            Change::PutTunnel(..) | Change::PutPort(..) | Change::DropPort(..) => true,
        }
    }

    /// Takes note of a change that was made.
    pub(super) fn note(&mut self, change: Change) {
        match change {
            Change::PutTunnel(family, mac, address) => {
                self.tunnels.insert((family, mac), address);
            }
            Change::PutPort(mac, port) => {
                self.ports.insert(mac, port);
            }
            Change::DropPort(mac, _) => {
                self.ports.remove(&mac);
            }
            Change::DropTunnel(family, mac) => {
                self.tunnels.remove(&(family, mac));
            }
        }
    }

    /// MACs that go by VXLAN, and to which address.
    pub(super) fn by_tunnel(&self) -> BTreeMap<Mac, IpAddr> {
        let ports = self.ports.iter().filter_map(|(mac, port)| match port {
            Port::Tap => None,
            Port::Tunnel(family) => Some((*mac, *self.tunnels.get(&(*family, *mac))?)),
        });
        ports.collect()
    }
}

/// Whether it tells one host: not a group, and not an address that means another host on each link.
fn is_place(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_local && !address.is_multicast() && !address.is_unspecified()
}

/// Whether it is the MAC of one interface.
fn is_single(mac: Mac) -> bool {
    !mac.is_group() && mac != Mac::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn ip(last: u8) -> IpAddr {
        match last % 2 {
            0 => [10, 0, 0, last].into(),
            _ => [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
        }
    }

    fn wanted() -> impl Strategy<Value = FastEntries> {
        let to = prop::option::of((0..8u8).prop_map(ip));
        let macs = prop::collection::btree_map((0..12u8).prop_map(mac), to, 0..12);
        let heartbeat = ((20..28u8).prop_map(mac), (0..8u8).prop_map(ip));
        let heartbeats = prop::collection::btree_map(heartbeat.0, heartbeat.1, 0..8);
        let allowed = prop::collection::btree_set((0..8u8).prop_map(ip), 0..8);
        (allowed, heartbeats, macs).prop_map(|(allowed, heartbeats, macs)| FastEntries {
            allowed,
            heartbeats,
            macs,
        })
    }

    proptest! {
        #[test]
        fn the_changes_lead_there_and_no_mac_is_ever_without_its_way(
            from in wanted(), to in wanted(), v6 in any::<bool>(),
        ) {
            let has = |family| v6 || family == Family::V4;
            let (mut now, to) = (Entries::of(&from, has), Entries::of(&to, has));
            let (was, whole) = (now.clone(), to.clone());
            let changes = now.changes_to(&to);
            for change in &changes {
                prop_assert!(now.lets(*change));
                now.note(*change);
                for (mac, port) in &now.ports {
                    if let Port::Tunnel(family) = port {
                        prop_assert!(now.tunnels.contains_key(&(*family, *mac)), "{mac}");
                    }
                }
                for mac in was.ports.keys().filter(|mac| whole.ports.contains_key(mac)) {
                    prop_assert!(now.ports.contains_key(mac), "{mac}");
                }
            }
            prop_assert_eq!(&now, &to);
            prop_assert!(now.changes_to(&to).is_empty());
            prop_assert!(changes.len() <= 2 * (8 + 12 + 12));
        }
    }

    proptest! {
        #[test]
        fn changes_that_fail_leave_the_way_that_was(
            from in wanted(), to in wanted(), fails in prop::collection::vec(any::<bool>(), 64),
        ) {
            let (mut now, to) = (Entries::of(&from, |_| true), Entries::of(&to, |_| true));
            for (change, fails) in now.changes_to(&to).into_iter().zip(fails) {
                if !fails && now.lets(change) {
                    now.note(change);
                }
                for (mac, port) in &now.ports {
                    if let Port::Tunnel(family) = port {
                        prop_assert!(now.tunnels.contains_key(&(*family, *mac)), "{mac}");
                    }
                }
            }
            for change in now.changes_to(&to) {
                prop_assert!(now.lets(change));
                now.note(change);
            }
            prop_assert_eq!(now, to);
        }
    }

    #[test]
    fn a_mac_moves_with_one_replace() {
        let tap = FastEntries {
            allowed: [ip(2)].into(),
            macs: [(mac(1), None)].into(),
            ..FastEntries::default()
        };
        let mut vxlan = tap.clone();
        vxlan.macs.insert(mac(1), Some(ip(2)));
        let [tap, vxlan] = [tap, vxlan].map(|wanted| Entries::of(&wanted, |_| true));
        let there = [
            Change::PutTunnel(Family::V4, mac(1), ip(2)),
            Change::PutPort(mac(1), Port::Tunnel(Family::V4)),
        ];
        assert_eq!(tap.changes_to(&vxlan), there);
        let back = [
            Change::PutPort(mac(1), Port::Tap),
            Change::DropTunnel(Family::V4, mac(1)),
        ];
        assert_eq!(vxlan.changes_to(&tap), back);
        assert_eq!(vxlan.by_tunnel(), [(mac(1), ip(2))].into());
        assert!(tap.by_tunnel().is_empty());
    }

    #[test]
    fn an_address_of_no_single_host_is_no_way() {
        for address in ["0.0.0.0", "239.1.1.1", "::", "ff02::1", "fe80::1"] {
            let address = address.parse().unwrap();
            let wanted = FastEntries {
                allowed: [address].into(),
                heartbeats: [(mac(9), address)].into(),
                macs: [(mac(1), Some(address))].into(),
            };
            let entries = Entries::of(&wanted, |_| true);
            assert!(entries.tunnels.is_empty(), "{address}");
            assert_eq!(entries.ports, [(mac(1), Port::Tap)].into());
        }
    }

    #[test]
    fn what_is_not_allowed_or_has_no_device_goes_by_the_tap() {
        let wanted = FastEntries {
            allowed: [ip(1)].into(),
            heartbeats: [(mac(9), ip(1)), (Mac([3; 6]), ip(2))].into(),
            macs: [
                (mac(1), Some(ip(1))),
                (mac(2), Some(ip(2))),
                (Mac::BROADCAST, None),
                (Mac::default(), None),
            ]
            .into(),
        };
        let entries = Entries::of(&wanted, |family| family == Family::V4);
        assert!(entries.tunnels.is_empty());
        assert_eq!(
            entries.ports,
            [(mac(1), Port::Tap), (mac(2), Port::Tap)].into()
        );
    }
}
