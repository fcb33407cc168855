//! The steps of one attach, each of which can be found done already.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;

use super::{Attachment, Request, announce, host_interface};
use crate::error::AttachError;
use crate::kernel::link::{End, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::{Bridge, sysctl};
use crate::sys::netns::Netns;
use crate::sys::packet::PacketSocket;

/// An interface comes up within milliseconds; the kernel delays some news of it by a second.
const UP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const UP_POLL: Duration = Duration::from_millis(2);

/// One attach under way: sockets into both namespaces, which work from any thread.
pub(super) struct Work<'a> {
    bridge: &'a Bridge,
    request: &'a Request,
    netns: Netns,
    host_interface: String,
    host: Netlink,
    inside: Netlink,
    packets: PacketSocket,
}

/// Opens sockets that act inside a namespace.
pub(super) fn open_inside(netns: &Netns) -> Result<(Netlink, PacketSocket), AttachError> {
    netns.run(|| {
        let packets = PacketSocket::open().map_err(|cause| AttachError::Enter {
            target: netns.target().to_owned(),
            cause,
            hint: "; run as root",
        })?;
        Ok((Netlink::open()?, packets))
    })
}

impl<'a> Work<'a> {
    pub(super) fn open(
        bridge: &'a Bridge,
        request: &'a Request,
        netns: Netns,
    ) -> Result<Self, AttachError> {
        let (inside, packets) = open_inside(&netns)?;
        Ok(Work {
            bridge,
            request,
            host_interface: host_interface(netns.inode(), &request.interface),
            host: Netlink::open()?,
            inside,
            packets,
            netns,
        })
    }

    /// Makes the veth pair unless it exists; true if it was made.
    pub(super) fn ensure_pair(&mut self) -> Result<bool, AttachError> {
        if self.find_pair()? {
            return Ok(false);
        }
        let here = End {
            name: &self.host_interface,
            mac: None,
        };
        let there = End {
            name: &self.request.interface,
            mac: Some(self.request.mac),
        };
        let mtu_bytes = self.request.mtu_bytes;
        let made = self
            .host
            .create_veth(&here, &there, self.netns.as_fd(), mtu_bytes);
        match made {
            Ok(()) => Ok(true),
            // Another attach was faster; then it is there now.
            Err(error) if error.errno() == Some(libc::EEXIST) && self.find_pair()? => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the pair exists; what is left of a former one is removed.
    fn find_pair(&mut self) -> Result<bool, AttachError> {
        let mut host = self.host.link(&self.host_interface)?;
        let inside = self.inside.link(&self.request.interface)?;
        if host.is_none() && inside.is_some() {
            // Another attach may have made both since.
            host = self.host.link(&self.host_interface)?;
        }
        match (host, inside) {
            (Some(host), Some(inside)) if host.is_paired_with(&inside) => Ok(true),
            (_, Some(_)) => Err(AttachError::InterfaceTaken {
                target: self.netns.target().to_owned(),
                interface: self.request.interface.clone(),
            }),
            // The container renamed its end.
            (Some(_), None) => {
                self.host.delete_link(&self.host_interface)?;
                Ok(false)
            }
            (None, None) => Ok(false),
        }
    }

    /// Makes the pair usable. Addresses that were given are put into `added`.
    pub(super) fn bring_up(&mut self, added: &mut Vec<IpNet>) -> Result<Attachment, AttachError> {
        let request = self.request;
        self.bridge
            .add_port(&self.host_interface, request.mtu_bytes)?;
        self.prepare_ipv6()?;
        let link = self.look_inside()?;
        let others = self.add_addresses(&link, added)?;
        let mtu = LinkAttribute::Mtu(request.mtu_bytes.into());
        self.inside.set_link_up(&link, vec![mtu])?;
        self.inside.ensure_multicast_route(&link)?;
        self.wait_until_up()?;
        let mac = link.mac.unwrap_or(request.mac);
        let mut addresses: Vec<IpNet> = Vec::new();
        for &net in request.addresses.iter().chain(&others) {
            if !addresses.contains(&net) {
                addresses.push(net);
            }
        }
        for net in &addresses {
            announce::send(&self.packets, link.index, mac, net.addr())?;
        }
        Ok(Attachment {
            target: self.netns.target().to_owned(),
            netns_inode: self.netns.inode(),
            interface: request.interface.clone(),
            host_interface: self.host_interface.clone(),
            mac,
            addresses,
            name: request.name.clone(),
        })
    }

    /// Takes back what this attach did; best effort, because the first error is the one to tell.
    pub(super) fn undo(&mut self, made: bool, added: &[IpNet]) {
        if made {
            if let Err(error) = self.host.delete_link(&self.host_interface) {
                let interface = &self.host_interface;
                tracing::warn!(interface, %error, "left behind a half-made interface");
            }
            return;
        }
        let Ok(link) = self.look_inside() else {
            return; // gone, and its addresses with it
        };
        for &net in added {
            if let Err(error) = self.inside.delete_address(&link, net) {
                tracing::warn!(interface = link.name, %error, "left behind an address");
            }
        }
    }

    /// Switches IPv6 on where a container runtime has switched it off, if it is asked for, and
    /// makes link-local addresses usable at once: the MAC is unique in the mesh.
    fn prepare_ipv6(&self) -> Result<(), AttachError> {
        let interface = &self.request.interface;
        let wanted = self
            .request
            .addresses
            .iter()
            .any(|net| net.addr().is_ipv6());
        self.netns.run(|| {
            sysctl::set("ipv6", interface, "accept_dad", "0")?;
            if wanted {
                sysctl::set("ipv6", interface, "disable_ipv6", "0")?;
            }
            Ok(())
        })
    }

    /// Adds the addresses that are missing; returns those that are there but were not asked for.
    fn add_addresses(
        &mut self,
        link: &Link,
        added: &mut Vec<IpNet>,
    ) -> Result<Vec<IpNet>, AttachError> {
        let listed = self.inside.addresses()?.into_iter();
        let present: Vec<IpNet> = listed
            .filter(|a| a.link == link.index && a.is_global && a.is_permanent)
            .map(|a| a.net)
            .collect();
        for &address in &self.request.addresses {
            if present.contains(&address) || added.contains(&address) {
                continue;
            }
            let held = present.iter().chain(added.iter());
            if held.clone().any(|net| net.addr() == address.addr()) {
                let reason = "the container has it already, with another prefix length";
                return Err(AttachError::Address { address, reason });
            }
            match self.inside.add_address(link, address) {
                Ok(()) => added.push(address),
                // Another attach was faster.
                Err(error) if error.errno() == Some(libc::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let asked = |net: &IpNet| self.request.addresses.contains(net);
        Ok(present.into_iter().filter(|net| !asked(net)).collect())
    }

    /// Waits until both ends have a carrier and the bridge forwards.
    fn wait_until_up(&mut self) -> Result<(), AttachError> {
        let started = Instant::now();
        while started.elapsed() < UP_TIMEOUT {
            let inside = self.look_inside()?;
            let host = self.host.link(&self.host_interface)?.unwrap_or_default();
            if inside.is_operational && host.is_operational && host.is_forwarding {
                return Ok(());
            }
            thread::sleep(UP_POLL);
        }
        Err(self.not_up())
    }

    fn look_inside(&mut self) -> Result<Link, AttachError> {
        let found = self.inside.link(&self.request.interface)?;
        found.ok_or_else(|| self.not_up())
    }

    fn not_up(&self) -> AttachError {
        AttachError::NotUp {
            target: self.netns.target().to_owned(),
            interface: self.request.interface.clone(),
            limit: UP_TIMEOUT,
        }
    }
}
