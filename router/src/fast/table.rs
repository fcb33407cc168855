//! What keeps plaintext from and to anybody but live plaintext peers: one nftables table, replaced
//! as a whole in one step, whose sets of addresses change one by one.
//!
//! It looks at datagrams to VXLAN's port that end or begin on this host, not at those that a
//! container or a guest sends to somebody else's. At the input hook fragments have been put together,
//! so that none hides its port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::entries::Family as Underlay;
use super::{FastCounters, FastOptions};
use crate::kernel::KernelError;
use crate::kernel::nftables::decode::{Attributes, elements};
use crate::kernel::nftables::encode::{
    Base, Element, Header, Is, Meta, Rule, Table as Name, Verdict, attribute, attributes, hook,
    message, text,
};
use crate::kernel::nftables::shape::Shape;
use crate::kernel::nftables::{Change, Family, Nftables};

/// Name of the table, and what the names of those of other bridges begin with.
const NAME: &str = "rmesh";
/// Before connections are tracked (NF_IP_PRI_RAW): what is dropped costs no more.
const PRIORITY: i32 = -300;
/// NFPROTO_IPV4 and NFPROTO_IPV6, and the protocol UDP.
const NFPROTO: [u8; 2] = [2, 10];
const UDP: u8 = 17;
/// Where the protocol is in IPv4's header.
const PROTOCOL: u32 = 9;
/// Where UDP's destination port is in its header.
const DESTINATION_PORT: u32 = 2;
/// Addresses that a set has room for at least.
const ROOM_MIN: usize = 256;
/// Elements of a set that are read: peers are thousands.
const ELEMENTS_MAX: usize = 1 << 17;

/// A direction, as seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Way {
    const BOTH: [Way; 2] = [Way::In, Way::Out];

    fn chain(self) -> &'static str {
        match self {
            Way::In => "vxlan_in",
            Way::Out => "vxlan_out",
        }
    }

    fn set(self, underlay: Underlay) -> &'static str {
        match (self, underlay) {
            (Way::In, Underlay::V4) => "allowed_in4",
            (Way::In, Underlay::V6) => "allowed_in6",
            (Way::Out, Underlay::V4) => "allowed_out4",
            (Way::Out, Underlay::V6) => "allowed_out6",
        }
    }

    /// Where the other end's address is in the header of IP, and its length.
    fn address(self, underlay: Underlay) -> (u32, u32) {
        match (self, underlay) {
            (Way::In, Underlay::V4) => (12, 4),
            (Way::In, Underlay::V6) => (8, 16),
            (Way::Out, Underlay::V4) => (16, 4),
            (Way::Out, Underlay::V6) => (24, 16),
        }
    }

    fn hook(self) -> u32 {
        match self {
            Way::In => hook::INPUT,
            Way::Out => hook::OUTPUT,
        }
    }
}

/// Bytes and packets.
type Counted = (u64, u64);

/// The sets as the kernel has them. What comes is not counted by address: it comes one datagram after the other,
/// where what goes out does in super-frames, and a counter each took more time than all else here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sets {
    sent: BTreeMap<IpAddr, Counted>,
    heard: BTreeSet<IpAddr>,
}

/// The table of one bridge.
pub(super) struct Table {
    name: Name,
    port: u16,
    nftables: Nftables,
    /// Who is in the sets.
    allowed: BTreeSet<IpAddr>,
    /// How many each has room for.
    room: usize,
    shape: Shape,
}

impl Table {
    /// Makes the table anew, in one step with taking over what the sets of an older one say.
    pub(super) fn ensure(options: &FastOptions) -> Result<Table, KernelError> {
        let mut table = Table {
            name: name(options.bridge.name()),
            port: options.port,
            nftables: Nftables::open()?,
            allowed: BTreeSet::new(),
            room: 0,
            shape: Shape::default(),
        };
        let found = table.read_sets()?;
        // What is in one set only is what a crash or a stranger left.
        let both = |address: &&IpAddr| found.heard.contains(*address);
        let allowed = found.sent.keys().filter(both).copied().collect();
        table.replace(allowed, &found)?;
        Ok(table)
    }

    /// Whom it lets through.
    pub(super) fn allowed(&self) -> &BTreeSet<IpAddr> {
        &self.allowed
    }

    /// Lets more through.
    pub(super) fn allow(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
        let more: BTreeSet<IpAddr> = wanted.difference(&self.allowed).copied().collect();
        let all = &self.allowed | &more;
        if all.len() > self.room {
            let found = self.read_sets()?;
            return self.replace(all, &found);
        }
        let changes = self.put(&more, &BTreeMap::new());
        let doing = "let VXLAN from and to peers through";
        self.change(doing, &changes, all)
    }

    /// Lets nobody but these through.
    pub(super) fn forbid_others(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<(), KernelError> {
        let others: BTreeSet<IpAddr> = self.allowed.difference(wanted).copied().collect();
        let changes = self.take(&others);
        let doing = "drop VXLAN from and to others";
        self.change(doing, &changes, &self.allowed & wanted)
    }

    /// Makes changes after which these are let through. Where somebody has taken away what is to
    /// be changed, the table is made anew with them.
    fn change(
        &mut self,
        doing: &str,
        changes: &[Change],
        allowed: BTreeSet<IpAddr>,
    ) -> Result<(), KernelError> {
        if changes.is_empty() {
            return Ok(());
        }
        match self.nftables.commit(doing, changes) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                let found = self.read_sets()?;
                self.replace(allowed, &found)
            }
            Ok(()) => {
                self.allowed = allowed;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Looks whether it is as it was made, and puts right what is not.
    pub(super) fn verify(&mut self, words: &mut Vec<String>) -> Result<(), KernelError> {
        let (shape, sets) = (self.nftables.shape(&self.name)?, self.read_sets()?);
        let full = self.allowed.iter();
        let is_full = full.clone().eq(sets.sent.keys()) && full.eq(&sets.heard);
        if shape == self.shape && is_full {
            return Ok(());
        }
        let fault = shape.fault();
        words.push(format!("nftables table {} {fault}", self.name.name));
        self.replace(self.allowed.clone(), &sets)
    }

    pub(super) fn counters(&mut self) -> Result<FastCounters, KernelError> {
        let mut counters = FastCounters {
            sent: self.sent()?,
            ..FastCounters::default()
        };
        for rule in self.nftables.rules(&self.name)? {
            match rule.chain.as_str() {
                chain if chain == Way::In.chain() => counters.dropped_in += rule.packets,
                chain if chain == Way::Out.chain() => counters.dropped_out += rule.packets,
                _ => {}
            }
        }
        Ok(counters)
    }

    /// Makes the table anew with these let through, and with what was counted of them.
    fn replace(&mut self, allowed: BTreeSet<IpAddr>, found: &Sets) -> Result<(), KernelError> {
        let name = &self.name;
        let room = (2 * allowed.len()).next_power_of_two().max(ROOM_MIN);
        let size = u32::try_from(room).unwrap_or(u32::MAX);
        // To delete it is an error unless it is there.
        let mut changes = vec![name.create(), name.delete(), name.create()];
        for (at, way) in (1..).zip(Way::BOTH) {
            for (underlay, len, id) in [(Underlay::V4, 4, 0), (Underlay::V6, 16, 2)] {
                let counts = way == Way::Out;
                changes.push(name.set(way.set(underlay), len, (at + id, size), counts));
            }
            changes.extend(self.chains(way));
        }
        changes.extend(self.put(&allowed, &found.sent));
        self.nftables.commit("make the nftables table", &changes)?;
        self.allowed = allowed;
        self.room = room;
        self.shape = self.nftables.shape(&self.name)?;
        Ok(())
    }

    /// The rules of one direction. They are made to cost little, for each datagram that no network card
    /// joins runs them: what a peer's datagram meets is one rule, without a jump to another chain and
    /// with comparisons that the kernel does in place.
    fn chains(&self, way: Way) -> Vec<Change> {
        let name = &self.name;
        let base = Base {
            hook: way.hook(),
            priority: PRIORITY,
            device: None,
            policy: Verdict::Accept,
        };
        let port = self.port.to_be_bytes();
        let to_port =
            |rule: Rule| rule.bytes(Header::Transport, DESTINATION_PORT, Is::Equal, &port);
        let [v4, v6] = NFPROTO
            .map(|protocol| Rule::default().meta(Meta::NetworkProtocol, Is::Equal, &[protocol]));
        let v4 = v4.bytes(Header::Network, PROTOCOL, Is::Equal, &[UDP]);
        // There may be other headers before UDP's.
        let v6 = v6.meta(Meta::TransportProtocol, Is::Equal, &[UDP]);
        let mut changes = vec![name.chain(way.chain(), Some(base))];
        for (underlay, udp) in [(Underlay::V4, v4), (Underlay::V6, v6)] {
            let peer = to_port(udp)
                .among(Header::Network, way.address(underlay), way.set(underlay))
                .end(Verdict::Accept);
            changes.push(name.rule(way.chain(), &peer));
        }
        let udp = Rule::default().meta(Meta::TransportProtocol, Is::Equal, &[UDP]);
        let other = to_port(udp).count().end(Verdict::Drop);
        changes.push(name.rule(way.chain(), &other));
        changes
    }

    fn put(
        &self,
        addresses: &BTreeSet<IpAddr>,
        counted: &BTreeMap<IpAddr, Counted>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for way in Way::BOTH {
            let count =
                |ip| (way == Way::Out).then(|| counted.get(ip).copied().unwrap_or_default());
            for underlay in [Underlay::V4, Underlay::V6] {
                let own = addresses.iter().filter(|ip| Underlay::of(**ip) == underlay);
                let elements: Vec<_> = own.map(|ip| (octets(*ip), count(ip))).collect();
                changes.extend(self.name.put(way.set(underlay), &elements));
            }
        }
        changes
    }

    fn take(&self, addresses: &BTreeSet<IpAddr>) -> Vec<Change> {
        let mut changes = Vec::new();
        for way in Way::BOTH {
            for underlay in [Underlay::V4, Underlay::V6] {
                let own = addresses.iter().filter(|ip| Underlay::of(**ip) == underlay);
                let keys: Vec<_> = own.map(|ip| octets(*ip)).collect();
                changes.extend(self.name.take(way.set(underlay), &keys));
            }
        }
        changes
    }

    /// Bytes sent to each address.
    pub(super) fn sent(&mut self) -> Result<BTreeMap<IpAddr, u64>, KernelError> {
        let sent = self.read(Way::Out)?.into_iter();
        let bytes = |counted: Option<Counted>| counted.unwrap_or_default().0;
        Ok(sent.map(|(ip, counted)| (ip, bytes(counted))).collect())
    }

    fn read_sets(&mut self) -> Result<Sets, KernelError> {
        let heard = self.read(Way::In)?.into_iter();
        let sent = self.read(Way::Out)?.into_iter();
        Ok(Sets {
            heard: heard.map(|(ip, _)| ip).collect(),
            sent: sent
                .map(|(ip, counted)| (ip, counted.unwrap_or_default()))
                .collect(),
        })
    }

    /// The sets of one direction.
    fn read(&mut self, way: Way) -> Result<Vec<(IpAddr, Option<Counted>)>, KernelError> {
        let mut all = Vec::new();
        for underlay in [Underlay::V4, Underlay::V6] {
            let set = attribute(attributes::ELEMENTS_SET, &text(way.set(underlay)));
            let named = [self.name.attribute(), set].concat();
            let kind = (self.name.family, message::GET_ELEMENTS);
            let doing = "list the addresses in nftables";
            let take = |all: &mut Vec<_>, _: Family, some: &[u8]| {
                if all.len() < ELEMENTS_MAX {
                    all.extend(elements(Attributes(some)));
                }
            };
            let found: Vec<Element> = match self.nftables.dump(doing, kind, &named, take) {
                Err(error) if error.errno() == Some(libc::ENOENT) => continue,
                other => other?,
            };
            let found = found.into_iter();
            all.extend(found.filter_map(|(key, counted)| Some((address(&key)?, counted))));
        }
        Ok(all)
    }
}

/// Removes the table of a bridge; success too if there is none, or if the kernel has no tables.
pub(super) fn remove(bridge: &str) -> Result<(), KernelError> {
    match Nftables::available()? {
        Some(mut nftables) => nftables.remove_table("remove the nftables table", &name(bridge)),
        None => Ok(()),
    }
}

/// How the tables of a bridge are called, each in its family.
pub(super) fn table_name(bridge: &str) -> String {
    match bridge {
        NAME => NAME.to_owned(),
        other => format!("{NAME}_{other}"),
    }
}

fn name(bridge: &str) -> Name {
    Name {
        family: Family::INET,
        name: table_name(bridge),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}
