//! Switches: bridges between wires, and machines plugged into them.

use crate::{
    LabError, Namespace,
    error::Attempt,
    netlink::{self, VethEnd},
};
use ipnet::IpNet;
use std::net::Ipv4Addr;

impl Namespace {
    /// Makes a switch of some of this namespace's interfaces.
    ///
    /// # Errors
    /// If the name is taken or an interface is not there.
    pub fn switch(&self, name: &str, ports: &[&str]) -> Result<(), LabError> {
        let make = || {
            netlink::add_bridge(name)?;
            netlink::set_up(name)?;
            ports
                .iter()
                .try_for_each(|port| netlink::set_controller(port, Some(name)))
        };
        self.enter(make)
            .attempt(|| format!("make switch {name} in {}", self.name()))
    }

    /// Makes an interface a port of a bridge that is there.
    ///
    /// # Errors
    /// If one of them is not there.
    pub fn plug(&self, interface: &str, bridge: &str) -> Result<(), LabError> {
        self.enter(|| netlink::set_controller(interface, Some(bridge)))
            .attempt(|| format!("plug {interface} into {bridge} in {}", self.name()))
    }

    /// Undoes [`Namespace::plug`].
    ///
    /// # Errors
    /// If the interface is not there.
    pub fn unplug(&self, interface: &str) -> Result<(), LabError> {
        self.enter(|| netlink::set_controller(interface, None))
            .attempt(|| format!("unplug {interface} in {}", self.name()))
    }

    /// Gives `machine` an interface `eth0` with an address, plugged into a bridge of this namespace.
    ///
    /// # Errors
    /// If the bridge is not there, or the machine has such an interface.
    pub fn plug_machine(
        &self,
        machine: &Namespace,
        bridge: &str,
        number: u8,
        address: IpNet,
    ) -> Result<(), LabError> {
        let port = format!("port{number}");
        let near = VethEnd {
            interface: &port,
            mac: [0x02, 0x78, 0, 0, number, 1],
            namespace: self.fd(),
        };
        let far = VethEnd {
            interface: "eth0",
            mac: [0x02, 0x78, 0, 0, number, 2],
            namespace: machine.fd(),
        };
        let what = || format!("plug {} into {bridge} in {}", machine.name(), self.name());
        self.enter(|| {
            netlink::add_veth(&near, &far)?;
            netlink::set_controller(&port, Some(bridge))?;
            netlink::set_up(&port)
        })
        .attempt(what)?;
        machine
            .enter(|| {
                netlink::set_up("eth0")?;
                netlink::add_address("eth0", address)
            })
            .attempt(what)
    }

    /// Makes a VXLAN interface with one other end and plugs it into a bridge of this namespace.
    ///
    /// # Errors
    /// If the name is taken, or `by` or the bridge is not there.
    pub fn plug_vxlan(
        &self,
        name: &str,
        [local, remote]: [Ipv4Addr; 2],
        by: &str,
        bridge: &str,
    ) -> Result<(), LabError> {
        let make = || {
            netlink::add_vxlan(name, local, remote, by)?;
            netlink::set_controller(name, Some(bridge))?;
            netlink::set_up(name)
        };
        self.enter(make)
            .attempt(|| format!("make {name} a port of {bridge} in {}", self.name()))
    }

    /// Brings up an interface that a program made, with an address if it is to have one.
    ///
    /// # Errors
    /// If it is not there or does not take the address.
    pub fn bring_up(&self, interface: &str, address: Option<IpNet>) -> Result<(), LabError> {
        let bring_up = || {
            netlink::set_up(interface)?;
            address.map_or(Ok(()), |address| netlink::add_address(interface, address))
        };
        self.enter(bring_up)
            .attempt(|| format!("bring up {interface} in {}", self.name()))
    }

    /// Sets the MTU of an interface, in bytes.
    ///
    /// # Errors
    /// If it is not there or does not take this MTU.
    pub fn set_mtu(&self, interface: &str, mtu_bytes: u32) -> Result<(), LabError> {
        self.enter(|| netlink::set_mtu(interface, mtu_bytes))
            .attempt(|| format!("set the MTU of {interface} in {}", self.name()))
    }
}
