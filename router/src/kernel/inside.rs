//! Whether the way to an address leads into the mesh itself: a host may have an address on the bridge, or a
//! route that leads there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::KernelError;
use super::netlink::Netlink;

/// Addresses remembered; beyond it all are looked up again.
const KNOWN_MAX: usize = 4_096;

/// Looks up ways, and remembers them until routes or interfaces change.
pub struct Inside {
    netlink: Netlink,
    bridge: String,
    /// The bridge and its ports; not known yet if this is `None`.
    own: Option<BTreeSet<u32>>,
    known: BTreeMap<IpAddr, bool>,
}

impl Inside {
    /// For one bridge, in the caller's network namespace.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open(bridge: &str) -> Result<Inside, KernelError> {
        Ok(Inside {
            netlink: Netlink::open()?,
            bridge: bridge.to_owned(),
            own: None,
            known: BTreeMap::new(),
        })
    }

    /// Routes or interfaces have changed.
    pub fn forget(&mut self) {
        self.own = None;
        self.known.clear();
    }

    /// Whether packets to this address would leave by the bridge or a port of it. What the kernel does not
    /// tell does not.
    pub fn leads_inside(&mut self, to: IpAddr) -> bool {
        let to = to.to_canonical();
        if let Some(known) = self.known.get(&to) {
            return *known;
        }
        let is_inside = self.look_up(to).unwrap_or(false);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(to, is_inside);
        is_inside
    }

    fn look_up(&mut self, to: IpAddr) -> Result<bool, KernelError> {
        let Some(out) = self.netlink.way_out(to)? else {
            return Ok(false);
        };
        if self.own.is_none() {
            let links = self.netlink.links()?;
            let bridge = links.iter().find(|link| link.name == self.bridge);
            let Some(bridge) = bridge.map(|link| link.index) else {
                return Ok(false);
            };
            let own = links
                .iter()
                .filter(|link| link.index == bridge || link.controller == Some(bridge));
            self.own = Some(own.map(|link| link.index).collect());
        }
        Ok(self.own.as_ref().is_some_and(|own| own.contains(&out)))
    }
}
