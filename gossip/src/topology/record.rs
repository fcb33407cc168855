//! The signed records peers publish of themselves (DESIGN D8), in sections that fit a datagram.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use rmesh_wire::codec::{self, Bounded, Bytes, Signature};
use rmesh_wire::handshake::NAME_LEN_MAX;
use rmesh_wire::{Boot, Mac, PeerId, ShortId};
use serde::{Deserialize, Serialize};

use crate::crypto::{Crypto, Key, peer_id};
use crate::limits::{
    ADDRESSES_MAX, ENDPOINT_ADDRESSES_MAX, ENDPOINT_LABELS_MAX, ENDPOINTS_PER_SECTION,
    LABEL_LEN_MAX, LINKS_MAX,
};

/// Largest encoded record without its signature, in bytes: one signed record, its age and the
/// message around it fit [`crate::limits::CONTROL_LEN_MAX`].
pub(crate) const RECORD_LEN_MAX: usize = 1_000;
/// Prefix of what the identity key signs.
const RECORD_CONTEXT: &[u8] = b"rmesh record v1";

/// Which of two records of one section is newer: the higher boot, then the higher sequence.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub(crate) struct Version {
    pub(crate) boot: Boot,
    pub(crate) sequence: u64,
}

/// Names one record: a peer and a section of what it says.
pub(crate) type RecordKey = (PeerId, u8);

/// One section of what a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) peer: PeerId,
    /// 0 holds the node itself, higher ones its endpoints.
    pub(crate) section: u8,
    pub(crate) version: Version,
    pub(crate) body: Body,
}

/// What a section says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// Section 0.
    Node(Node),
    /// Sections 1 and up.
    Endpoints(Bounded<EndpointRecord, ENDPOINTS_PER_SECTION>),
}

/// The peer itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where it can be reached, as it or others see it.
    pub(crate) addresses: Bounded<SocketAddr, ADDRESSES_MAX>,
    /// MTU of its containers, in bytes.
    pub(crate) mtu_bytes: u16,
    /// The TCP port at which it can be called, or 0, in the upper 16 bits, [`NO_RELAY`] and [`TRANSLATED`]
    /// in the lowest; the others are reserved.
    pub(crate) capabilities: u32,
    /// How long this life of it had lasted when it said this, in milliseconds.
    pub(crate) up_ms: u64,
    /// Name and address of another host that runs with its identity, if it knows of one.
    pub(crate) twin: Option<(String, SocketAddr)>,
    /// Its control links.
    pub(crate) links: Bounded<Link, LINKS_MAX>,
    /// How many endpoint sections are current.
    pub(crate) sections: u8,
    /// It is going away: nothing of it counts any more, but that addresses are in use if it has sections.
    pub(crate) leaving: bool,
}

/// Capability: it does not carry what is between others.
pub(crate) const NO_RELAY: u32 = 1;
/// Capability: others see it elsewhere than where it is, so each link costs it a mapping that has to be kept.
pub(crate) const TRANSLATED: u32 = 2;

impl Node {
    /// Whether nothing of others may go through it.
    pub(crate) fn is_no_relay(&self) -> bool {
        self.capabilities & NO_RELAY != 0
    }

    /// Whether it is behind a translator of addresses.
    pub(crate) fn is_translated(&self) -> bool {
        self.capabilities & TRANSLATED != 0
    }
}

/// A control link as one end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) to: ShortId,
    /// Measured round trip in microseconds, at least 1.
    pub(crate) cost_us: u32,
}

/// An address with its prefix length.
pub(crate) type AddressRecord = (IpAddr, u8);

/// A container's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) mac: Mac,
    pub(crate) addresses: Bounded<AddressRecord, ENDPOINT_ADDRESSES_MAX>,
    pub(crate) name: String,
    pub(crate) labels: Bounded<(String, String), ENDPOINT_LABELS_MAX>,
    /// One above the highest seen for this MAC when it was announced (RFC 7432 section 15).
    pub(crate) moves: u32,
}

/// An encoded record with the proof of who said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedRecord {
    pub(crate) bytes: Bytes<RECORD_LEN_MAX>,
    pub(crate) identity: [u8; 32],
    pub(crate) signature: Signature,
}

/// A signed record and how long ago it was made, as far as the sender knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgedRecord {
    pub(crate) age_ms: u32,
    /// For how long no links have led from the sender to the peer; 0 while they do.
    pub(crate) apart_ms: u32,
    pub(crate) signed: SignedRecord,
}

impl Record {
    /// Signs the record; `None` if it is longer than [`RECORD_LEN_MAX`].
    pub(crate) fn sign(
        &self,
        crypto: &dyn Crypto,
        seed: &Key,
        identity: [u8; 32],
    ) -> Option<SignedRecord> {
        let bytes = Bytes::new(codec::encode(self).ok()?)?;
        let signature = crypto.sign(seed, &signed_bytes(bytes.as_slice()));
        Some(SignedRecord {
            bytes,
            identity,
            signature,
        })
    }

    /// The record's name.
    pub(crate) fn key(&self) -> RecordKey {
        (self.peer, self.section)
    }

    fn is_sane(&self) -> bool {
        let name_ok = |name: &str| name.len() <= NAME_LEN_MAX && is_printable(name);
        match &self.body {
            Body::Node(node) => {
                let links = node.links.as_slice();
                let twin_ok = node.twin.as_ref().is_none_or(|(name, _)| name_ok(name));
                self.section == 0
                    && name_ok(&node.name)
                    && twin_ok
                    && links.iter().all(|l| l.cost_us > 0)
            }
            Body::Endpoints(endpoints) => {
                self.section > 0
                    && endpoints.as_slice().iter().all(|endpoint| {
                        let prefix_ok =
                            |(ip, len): &AddressRecord| *len <= if ip.is_ipv4() { 32 } else { 128 };
                        let label_ok = |(key, value): &(String, String)| {
                            key.len() <= LABEL_LEN_MAX && value.len() <= LABEL_LEN_MAX
                        };
                        name_ok(&endpoint.name)
                            && !endpoint.mac.is_group()
                            && endpoint.addresses.as_slice().iter().all(prefix_ok)
                            && endpoint.labels.as_slice().iter().all(label_ok)
                    })
            }
        }
    }
}

impl SignedRecord {
    /// The record inside, if it is well formed; the signature is not looked at. Left out are
    /// addresses nothing can be sent to, so that no record makes a peer dial them, and labels that
    /// would disturb a terminal.
    pub(crate) fn decode(&self) -> Option<Record> {
        let mut record: Record = codec::decode(self.bytes.as_slice()).ok()?;
        if !record.is_sane() || record.peer != peer_id(&self.identity) {
            return None;
        }
        match &mut record.body {
            Body::Node(node) => retain(&mut node.addresses, is_usable),
            Body::Endpoints(endpoints) => {
                let cleaned = endpoints.as_slice().iter().cloned().map(|mut endpoint| {
                    retain(&mut endpoint.labels, |(key, value)| {
                        is_printable(key) && is_printable(value)
                    });
                    endpoint
                });
                *endpoints = Bounded::take_from(cleaned);
            }
        }
        Some(record)
    }

    /// Whether the peer it names signed it.
    pub(crate) fn is_authentic(&self, crypto: &dyn Crypto) -> bool {
        crypto.verify(
            &self.identity,
            &signed_bytes(self.bytes.as_slice()),
            &self.signature,
        )
    }
}

fn retain<T: Clone, const N: usize>(list: &mut Bounded<T, N>, keep: impl Fn(&T) -> bool) {
    if !list.as_slice().iter().all(&keep) {
        *list = Bounded::take_from(list.as_slice().iter().filter(|item| keep(item)).cloned());
    }
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Whether an address means one host, and the same one everywhere: only such are published, and no
/// record makes its readers send to others.
pub(crate) fn is_usable(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let here_only = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let nobody = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    address.port() != 0 && !nobody && !here_only
}

fn signed_bytes(record: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(RECORD_CONTEXT);
    bytes.extend_from_slice(record);
    bytes
}
