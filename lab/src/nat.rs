//! Network address translators and firewalls between hosts, by nf_tables, as they behave by RFC 4787.
//!
//! Rules are written as text for the program `nft`, for they are to be read by whoever doubts a test.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use crate::{Host, LabError, Namespace, error::Attempt, nft};

const NFT: &str = "/usr/sbin/nft";
/// External ports of the first mapping, one for each inside socket.
const FIRST_PORT: u16 = 20_000;
/// External ports after a [`Nat::remap`] are this much higher.
const PORT_STEP: u16 = 100;
/// Settings of `/proc/sys/net` that say how long a mapping lasts, in seconds: before and after there
/// was an answer.
const LIFETIMES: [&str; 2] = [
    "netfilter/nf_conntrack_udp_timeout",
    "netfilter/nf_conntrack_udp_timeout_stream",
];

/// What a translator does to UDP (RFC 4787).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatBehavior {
    /// One external port a socket, open for everybody ("full cone").
    EndpointIndependent,
    /// One external port a socket, open for the addresses it has sent to ("restricted cone").
    AddressDependent,
    /// An external port for every destination, open for that destination only ("symmetric").
    Symmetric,
}

/// A translator that runs on a host which forwards; gone with the host.
#[derive(Debug)]
pub struct Nat {
    router: Host,
    outside: String,
    behavior: NatBehavior,
    lifetime: Duration,
    inside: Vec<(Ipv4Addr, u16)>,
    /// Its own address outside, if what comes for it from inside is turned round.
    hairpin: Option<Ipv4Addr>,
    next_port: AtomicU16,
}

impl Nat {
    /// Makes `router` forward, and translate what leaves by its interface `outside`. `inside` are the
    /// UDP sockets that get an external port of their own, not equal to theirs; others keep their
    /// port where it is free. A mapping that is not used ends after `lifetime`, whole seconds.
    ///
    /// # Errors
    /// If there is no program `nft`, or the kernel refuses.
    pub fn start(
        router: &Host,
        outside: &str,
        behavior: NatBehavior,
        lifetime: Duration,
        inside: &[(Ipv4Addr, u16)],
    ) -> Result<Nat, LabError> {
        router.forward_packets()?;
        for setting in LIFETIMES {
            router.set(setting, &lifetime.as_secs().to_string())?;
        }
        let nat = Nat {
            router: router.clone(),
            outside: outside.to_owned(),
            behavior,
            lifetime,
            inside: inside.to_vec(),
            hairpin: None,
            next_port: AtomicU16::new(FIRST_PORT),
        };
        nat.remap()?;
        Ok(nat)
    }

    /// Lets its inside sockets reach each other at their external addresses, which are ports of `external`, and sees
    /// to it that they see each other there (RFC 4787 REQ-9); for [`NatBehavior::EndpointIndependent`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn turn_round(mut self, external: Ipv4Addr) -> Result<Nat, LabError> {
        self.hairpin = Some(external);
        self.remap()?;
        Ok(self)
    }

    /// The external port that the first of the inside sockets gets, if the translator has one for each.
    pub fn first_port(&self) -> u16 {
        self.next_port.load(Ordering::Relaxed) - PORT_STEP
    }

    /// Forgets every mapping, as a translator does that was switched off and on: the next datagram of
    /// a socket gets another external port.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remap(&self) -> Result<(), LabError> {
        let first = self.next_port.fetch_add(PORT_STEP, Ordering::Relaxed);
        run(&self.router, &self.rules(first))?;
        self.router
            .enter(nft::forget_connections)
            .attempt(|| format!("forget the connections of {}", self.router.name()))
    }

    fn rules(&self, first_port: u16) -> String {
        let (outside, lifetime) = (&self.outside, self.lifetime.as_secs());
        let (key_type, sent, received) = match self.behavior {
            NatBehavior::AddressDependent => (
                "ipv4_addr . inet_service",
                "ip daddr . udp sport",
                "ip saddr . udp dport",
            ),
            NatBehavior::EndpointIndependent | NatBehavior::Symmetric => {
                ("inet_service", "udp sport", "udp dport")
            }
        };
        let mut ports = String::new();
        let (mut open, mut note) = (String::new(), String::new());
        if self.behavior == NatBehavior::Symmetric {
            let _ = writeln!(ports, "oifname {outside} masquerade fully-random");
        } else {
            for ((address, port), external) in self.inside.iter().zip(first_port..) {
                let _ = writeln!(
                    ports,
                    "oifname {outside} ip saddr {address} udp sport {port} masquerade to :{external}"
                );
            }
            let _ = writeln!(ports, "oifname {outside} masquerade");
            open = format!("iifname {outside} meta l4proto udp dnat ip to {received} map @mapped");
            for direction in ["original", "reply"] {
                let _ = writeln!(
                    note,
                    "oifname {outside} meta l4proto udp ct direction {direction} \
                     update @mapped {{ {sent} : ct {direction} ip saddr . ct {direction} proto-src }}"
                );
            }
        }
        if let Some(external) = self.hairpin {
            self.add_hairpin(external, first_port, &mut open, &mut ports);
        }
        // What nobody asked for is dropped before it becomes a connection, which would take the
        // external port from the socket that is about to ask.
        format!(
            "add table ip lab_nat
             delete table ip lab_nat
             table ip lab_nat {{
               map mapped {{
                 type {key_type} : ipv4_addr . inet_service
                 flags dynamic,timeout
                 timeout {lifetime}s
                 size 4096
               }}
               chain inbound {{ type nat hook prerouting priority dstnat
                 {open}
               }}
               chain outbound {{ type nat hook postrouting priority srcnat
                 {ports}
               }}
               chain note {{ type filter hook postrouting priority 150
                 {note}
               }}
               chain refuse {{ type filter hook input priority 0
                 iifname {outside} meta l4proto udp drop
               }}
               chain unasked {{ type filter hook forward priority 0
                 iifname {outside} ct state new ct status & dnat != dnat drop
               }}
             }}"
        )
    }

    /// What comes from inside for an external address goes in again, as if it came from one.
    fn add_hairpin(
        &self,
        external: Ipv4Addr,
        first_port: u16,
        inward: &mut String,
        ports: &mut String,
    ) {
        let outside = &self.outside;
        let _ = writeln!(
            inward,
            "\niifname != {outside} ip daddr {external} meta l4proto udp dnat ip to udp dport map @mapped"
        );
        for ((address, port), own) in self.inside.iter().zip(first_port..) {
            let _ = writeln!(
                ports,
                "oifname != {outside} ip saddr {address} udp sport {port} ct status dnat \
                 snat to {external}:{own}"
            );
        }
    }
}

/// What a firewall on the way drops, in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firewall {
    /// Everything from outside that does not answer something from inside.
    Inbound,
    /// UDP both ways.
    Udp,
    /// What goes from inside to inside, but for what a translator here turns round.
    Between,
}

impl Namespace {
    /// Drops what `firewall` says of what this namespace forwards from or to its interface `outside`,
    /// and of nothing else; takes the place of one that was there.
    ///
    /// # Errors
    /// If there is no program `nft`, or the kernel refuses.
    pub fn firewall(&self, outside: &str, firewall: Firewall) -> Result<(), LabError> {
        let rules = match firewall {
            Firewall::Inbound => format!("iifname {outside} ct state new,invalid drop"),
            Firewall::Between => {
                format!("iifname != {outside} oifname != {outside} ct status & dnat != dnat drop")
            }
            Firewall::Udp => {
                format!(
                    "iifname {outside} meta l4proto udp drop\noifname {outside} meta l4proto udp drop"
                )
            }
        };
        run(
            self,
            &format!(
                "add table ip lab_firewall
                 delete table ip lab_firewall
                 table ip lab_firewall {{
                   chain forward {{ type filter hook forward priority -10
                     {rules}
                   }}
                 }}"
            ),
        )
    }

    /// Undoes [`Namespace::firewall`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn no_firewall(&self) -> Result<(), LabError> {
        run(
            self,
            "add table ip lab_firewall\ndelete table ip lab_firewall",
        )
    }
}

/// Has `nft` apply rules as a whole.
fn run(at: &Namespace, rules: &str) -> Result<(), LabError> {
    let output = at.command(Path::new(NFT), &[rules])?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(std::io::Error::other(said)).attempt(|| format!("give {} the rules {rules}", at.name()))
}
