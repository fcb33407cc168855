//! A wire between two hosts, which can be cut without a sound: a veth pair or an emulated wire, with
//! static neighbours.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use crate::{
    Card, Host, LabError, WireCounters, WireProfile,
    emulator::Emulator,
    error::{Attempt, lock},
    netlink::{self, VethEnd},
    nft, probe,
};

/// A bound only: the kernel acts on a new carrier when it is asked about it.
const CARRIER_LIMIT: Duration = Duration::from_secs(5);
/// How long a new link may take to carry the first ping.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const CARRIER_POLL: Duration = Duration::from_millis(2);

/// Which address families a link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 alone; IPv6 is switched off on the interfaces.
    V4,
    /// IPv6 alone; no IPv4 address.
    V6,
    /// Both.
    Both,
}

/// A link between two hosts. Link number `n` of a lab is `10.77.n.0/24` and `fd77:n::/64`. Hosts reach
/// each other only by a link of their own: nothing is routed between links.
#[derive(Debug, Clone)]
pub struct Link(Arc<Wire>);

#[derive(Debug)]
struct Wire {
    /// Carries frames if the wire is an emulated one; a veth pair does it by itself.
    emulator: Option<Emulator>,
    number: u8,
    family: Family,
    ends: [End; 2],
}

#[derive(Debug)]
struct End {
    host: Host,
    interface: String,
    mac: [u8; 6],
    cut: Mutex<bool>,
    blocked: Mutex<bool>,
}

impl Link {
    /// Makes a veth pair.
    pub(crate) fn create(number: u8, a: &Host, b: &Host, family: Family) -> Result<Link, LabError> {
        let ends = [End::new(number, 1, a, b), End::new(number, 2, b, a)];
        let [near, far] = &ends;
        a.enter(|| netlink::add_veth(&near.veth(), &far.veth()))
            .attempt(|| format!("link {} and {}", a.name(), b.name()))?;
        Link::finish(number, family, ends, None)
    }

    /// Makes an emulated wire, which carries everything until a profile is set.
    pub(crate) fn emulate(
        number: u8,
        a: &Host,
        b: &Host,
        (family, seed): (Family, u64),
        card: Option<Card>,
    ) -> Result<Link, LabError> {
        let ends = [End::new(number, 1, a, b), End::new(number, 2, b, a)];
        let [near, far] = &ends;
        let taps = [
            (&**a, near.interface.as_str()),
            (&**b, far.interface.as_str()),
        ];
        let emulator = Emulator::start(taps, seed, card)
            .attempt(|| format!("emulate a wire from {} to {}", a.name(), b.name()))?;
        for end in &ends {
            end.host
                .enter(|| netlink::set_mac(&end.interface, end.mac))
                .attempt(|| format!("name {} of {}", end.interface, end.host.name()))?;
        }
        Link::finish(number, family, ends, Some(emulator))
    }

    /// Gives both ends addresses and the other end's neighbour entry.
    fn finish(
        number: u8,
        family: Family,
        ends: [End; 2],
        emulator: Option<Emulator>,
    ) -> Result<Link, LabError> {
        let wire = Wire {
            emulator,
            number,
            family,
            ends,
        };
        // A wire carries nothing before both ends are up and the kernel has taken note of it.
        let steps: [fn(&Wire, usize) -> io::Result<()>; 3] =
            [Wire::bring_up, Wire::await_carrier, Wire::configure];
        for step in steps {
            for (number, end) in wire.ends.iter().enumerate() {
                end.host
                    .enter(|| step(&wire, number))
                    .attempt(|| format!("configure {} of {}", end.interface, end.host.name()))?;
            }
        }
        wire.await_answer()?;
        Ok(Link(Arc::new(wire)))
    }

    /// The address of `host` on this link.
    ///
    /// # Panics
    /// If `host` is not on the link, or the link does not carry that family: the test is wrong.
    pub fn address(&self, host: &Host, v6: bool) -> IpAddr {
        let address = self
            .0
            .addresses(self.end(host))
            .into_iter()
            .find(|a| a.addr().is_ipv6() == v6);
        let Some(address) = address else {
            panic!("link {} carries {:?} only", self.0.number, self.0.family)
        };
        address.addr()
    }

    /// The name of the interface that `host` has on this link: `eth-<other host>`.
    ///
    /// # Panics
    /// If `host` is not on the link: the test is wrong.
    pub fn interface(&self, host: &Host) -> String {
        self.0.ends[self.end(host)].interface.clone()
    }

    /// Cuts both directions silently: what arrives is dropped, and no sender gets an error. A capture
    /// on the interface still sees what arrives, since it listens before the drop. Idempotent.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn cut(&self) -> Result<(), LabError> {
        self.0.ends.iter().try_for_each(|end| end.set_cut(true))
    }

    /// Cuts one direction only: `host` no longer receives, but still sends.
    ///
    /// # Errors
    /// If the kernel refuses.
    ///
    /// # Panics
    /// If `host` is not on the link: the test is wrong.
    pub fn cut_towards(&self, host: &Host) -> Result<(), LabError> {
        self.0.ends[self.end(host)].set_cut(true)
    }

    /// Drops UDP to this port in both directions, as silently. Idempotent; one port at a time.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn block_udp(&self, port: u16) -> Result<(), LabError> {
        let mut ends = self.0.ends.iter();
        ends.try_for_each(|end| end.set_blocked(Some(port)))
    }

    /// Drops UDP to this port towards `host` only.
    ///
    /// # Errors
    /// If the kernel refuses.
    ///
    /// # Panics
    /// If `host` is not on the link: the test is wrong.
    pub fn block_udp_towards(&self, host: &Host, port: u16) -> Result<(), LabError> {
        self.0.ends[self.end(host)].set_blocked(Some(port))
    }

    /// Undoes every cut and block of this link. Idempotent.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn restore(&self) -> Result<(), LabError> {
        self.0.ends.iter().try_for_each(|end| {
            end.set_cut(false)?;
            end.set_blocked(None)
        })
    }

    /// From now on both directions of an emulated wire do this to what they carry.
    ///
    /// # Panics
    /// If the link is a plain one: the test is wrong.
    pub fn shape(&self, profile: WireProfile) {
        for end in 0..2 {
            self.emulator().set_profile(end, profile);
        }
    }

    /// From now on the direction towards `host` of an emulated wire does this to what it carries.
    ///
    /// # Panics
    /// If the link is a plain one, or `host` is not on it: the test is wrong.
    pub fn shape_towards(&self, host: &Host, profile: WireProfile) {
        self.emulator().set_profile(self.end(host), profile);
    }

    /// What became of the frames towards `host` on an emulated wire.
    ///
    /// # Panics
    /// If the link is a plain one, or `host` is not on it: the test is wrong.
    pub fn counters_towards(&self, host: &Host) -> WireCounters {
        self.emulator().counters(self.end(host))
    }

    fn emulator(&self) -> &Emulator {
        let Some(emulator) = &self.0.emulator else {
            panic!("link {} is not emulated", self.0.number)
        };
        emulator
    }

    fn end(&self, host: &Host) -> usize {
        let position = self
            .0
            .ends
            .iter()
            .position(|end| end.host.name() == host.name());
        let Some(position) = position else {
            panic!("host {} is not on link {}", host.name(), self.0.number)
        };
        position
    }
}

impl Wire {
    /// Runs inside the namespace of that end, as the next two do.
    fn bring_up(&self, end: usize) -> io::Result<()> {
        let own = &self.ends[end];
        // Router advertisements and duplicate address detection would only add noise and delay.
        for (setting, value) in [("accept_ra", "0"), ("accept_dad", "0")] {
            fs::write(
                format!("/proc/sys/net/ipv6/conf/{}/{setting}", own.interface),
                value,
            )?;
        }
        if self.family == Family::V4 {
            let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", own.interface);
            fs::write(path, "1")?;
        }
        netlink::set_up(&own.interface)
    }

    fn await_carrier(&self, end: usize) -> io::Result<()> {
        let deadline = Instant::now() + CARRIER_LIMIT;
        while !netlink::is_operational(&self.ends[end].interface)? {
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(CARRIER_POLL);
        }
        Ok(())
    }

    fn configure(&self, end: usize) -> io::Result<()> {
        let (own, other) = (&self.ends[end], 1 - end);
        for address in self.addresses(end) {
            netlink::add_address(&own.interface, address)?;
        }
        for address in self.addresses(other) {
            netlink::add_neighbour(&own.interface, address.addr(), self.ends[other].mac)?;
        }
        Ok(())
    }

    /// The kernel begins to accept a new IPv6 address a moment after it took it, without a sign of its
    /// own. An answer proves it for both ends.
    fn await_answer(&self) -> Result<(), LabError> {
        let [near, far] = &self.ends;
        for address in self.addresses(1) {
            if probe::wait_ping(&near.host, address.addr(), ANSWER_LIMIT).is_none() {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Err(error).attempt(|| format!("reach {} by a new link", far.host.name()));
            }
        }
        Ok(())
    }

    fn addresses(&self, end: usize) -> Vec<IpNet> {
        let last = if end == 0 { 1 } else { 2 };
        let v4 = IpAddr::V4(Ipv4Addr::new(10, 77, self.number, last));
        let number = u16::from(self.number);
        let v6 = IpAddr::V6(Ipv6Addr::new(
            0xfd77,
            number,
            0,
            0,
            0,
            0,
            0,
            u16::from(last),
        ));
        match self.family {
            Family::V4 => vec![IpNet::new_assert(v4, 24)],
            Family::V6 => vec![IpNet::new_assert(v6, 64)],
            Family::Both => vec![IpNet::new_assert(v4, 24), IpNet::new_assert(v6, 64)],
        }
    }
}

impl End {
    fn new(number: u8, end: u8, host: &Host, peer: &Host) -> End {
        End {
            host: host.clone(),
            interface: format!("eth-{}", peer.short_name()),
            // Locally administered, and telling in a capture.
            mac: [0x02, 0x77, 0, 0, number, end],
            cut: Mutex::new(false),
            blocked: Mutex::new(false),
        }
    }

    fn veth(&self) -> VethEnd<'_> {
        VethEnd {
            interface: &self.interface,
            mac: self.mac,
            namespace: self.host.fd(),
        }
    }

    fn set_blocked(&self, port: Option<u16>) -> Result<(), LabError> {
        let mut current = lock(&self.blocked);
        if *current == port.is_some() {
            return Ok(());
        }
        let interface = &self.interface;
        self.host
            .enter(|| match port {
                Some(port) => nft::drop_port(interface, port),
                None => nft::allow_port(interface),
            })
            .attempt(|| {
                format!(
                    "block or allow a port of {interface} of {}",
                    self.host.name()
                )
            })?;
        *current = port.is_some();
        Ok(())
    }

    fn set_cut(&self, cut: bool) -> Result<(), LabError> {
        let mut current = lock(&self.cut);
        if *current == cut {
            return Ok(());
        }
        let interface = &self.interface;
        self.host
            .enter(|| {
                if cut {
                    nft::drop_ingress(interface)
                } else {
                    nft::allow_ingress(interface)
                }
            })
            .attempt(|| format!("cut or restore {interface} of {}", self.host.name()))?;
        *current = cut;
        Ok(())
    }
}
