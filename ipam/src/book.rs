//! The address book: one address, one container.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use rmesh_wire::PeerId;
use serde::{Deserialize, Serialize};

/// Addresses all containers of this peer may hold together: 2,040 containers of eight addresses,
/// as many as one peer can announce.
pub const CLAIMS_MAX: usize = 16_320;
/// Addresses kept of what one other peer announces, for the same reason.
pub const ANNOUNCED_PER_PEER_MAX: usize = CLAIMS_MAX;
/// Other peers whose announcements are kept: as many as a mesh may have.
pub const PEERS_MAX: usize = 16_384;

/// Which container holds which address, as far as this peer knows.
///
/// Two laws hold whatever happens: an address is never claimed by two containers of this peer,
/// and no announcement takes away what is claimed here; where the two disagree, [`conflicts`]
/// says so. An IPv4 address and its IPv4-mapped IPv6 form (RFC 4291 section 2.5.5.2) are the same.
///
/// [`conflicts`]: AddressBook::conflicts
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressBook {
    me: PeerId,
    claims: BTreeMap<IpAddr, String>,
    announced: BTreeMap<PeerId, BTreeSet<IpAddr>>,
    announcers: BTreeMap<IpAddr, BTreeSet<PeerId>>,
}

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// A container of this peer, by its key.
    Container(String),
    /// Some container of another peer.
    Peer(PeerId),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Container(key) => write!(f, "container {key} of this peer"),
            Holder::Peer(peer) => write!(f, "a container of peer {}", peer.short()),
        }
    }
}

/// An address that somebody else holds too.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
#[error("{address} is held by {holder}; choose another address, or detach it there first")]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Who else holds it.
    pub holder: Holder,
}

/// An address cannot be claimed. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else holds it.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The book is full.
    #[error(
        "the containers of this peer hold {CLAIMS_MAX} addresses, the most there can be; detach \
         some of them"
    )]
    Full,
}

impl AddressBook {
    /// An empty book of the peer `me`, whose own announcements are not listened to.
    pub fn new(me: PeerId) -> Self {
        AddressBook {
            me,
            claims: BTreeMap::new(),
            announced: BTreeMap::new(),
            announcers: BTreeMap::new(),
        }
    }

    /// Claims addresses for a container of this peer: all of them, or none and an error that says
    /// who holds the first that is taken. What the container holds already stays its own, even if
    /// another peer announces it.
    ///
    /// A peer that is gone holds its addresses until [`AddressBook::replace_announced`] empties
    /// its announcement.
    pub fn claim(&mut self, addresses: &[IpAddr], container: &str) -> Result<(), ClaimError> {
        let mut new = BTreeSet::new();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            match self.holder(address) {
                Some(Holder::Container(key)) if key == container => {}
                Some(holder) => return Err(Conflict { address, holder }.into()),
                None => {
                    new.insert(address);
                }
            }
        }
        if self.claims.len().saturating_add(new.len()) > CLAIMS_MAX {
            return Err(ClaimError::Full);
        }
        let claims = new
            .into_iter()
            .map(|address| (address, container.to_owned()));
        self.claims.extend(claims);
        Ok(())
    }

    /// Gives up every address of a container; returns them.
    pub fn release(&mut self, container: &str) -> Vec<IpAddr> {
        let released = self.claimed_by(container).collect();
        self.claims.retain(|_, key| key != container);
        released
    }

    /// Gives up one address of a container; false if it does not hold it.
    pub fn release_address(&mut self, address: IpAddr, container: &str) -> bool {
        let address = address.to_canonical();
        let held = self
            .claims
            .get(&address)
            .is_some_and(|key| key == container);
        if held {
            self.claims.remove(&address);
        }
        held
    }

    /// Addresses a container of this peer holds.
    pub fn claimed_by(&self, container: &str) -> impl Iterator<Item = IpAddr> {
        let claims = self.claims.iter();
        claims.filter_map(move |(address, key)| (key == container).then_some(*address))
    }

    /// Takes note of everything another peer announces now, in place of what it announced before.
    /// Returns the conflicts with claims of this peer that are new.
    pub fn replace_announced(
        &mut self,
        peer: PeerId,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Vec<Conflict> {
        if peer == self.me {
            return Vec::new();
        }
        let before = self.announced.remove(&peer).unwrap_or_default();
        for address in &before {
            self.forget_announcer(*address, peer);
        }
        if self.announced.len() >= PEERS_MAX {
            return Vec::new();
        }
        let now: BTreeSet<IpAddr> = addresses
            .into_iter()
            .take(ANNOUNCED_PER_PEER_MAX)
            .map(|address| address.to_canonical())
            .collect();
        for address in &now {
            self.announcers.entry(*address).or_default().insert(peer);
        }
        let conflicts = now
            .difference(&before)
            .filter(|address| self.claims.contains_key(address))
            .map(|address| Conflict {
                address: *address,
                holder: Holder::Peer(peer),
            })
            .collect();
        if !now.is_empty() {
            self.announced.insert(peer, now);
        }
        conflicts
    }

    fn forget_announcer(&mut self, address: IpAddr, peer: PeerId) {
        if let Some(peers) = self.announcers.get_mut(&address) {
            peers.remove(&peer);
            if peers.is_empty() {
                self.announcers.remove(&address);
            }
        }
    }

    /// Who holds an address: a container of this peer before any other, else the smallest of the
    /// peers that announce it, so that all peers agree.
    pub fn holder(&self, address: IpAddr) -> Option<Holder> {
        let address = address.to_canonical();
        let claimed = self.claims.get(&address).cloned().map(Holder::Container);
        let peers = self.announcers.get(&address);
        claimed.or_else(|| peers?.first().copied().map(Holder::Peer))
    }

    /// Every claim of this peer that another peer announces too, by address.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> {
        let claimed = self.claims.keys();
        claimed.flat_map(|&address| {
            let peers = self.announcers.get(&address).into_iter().flatten();
            peers.map(move |&peer| Conflict {
                address,
                holder: Holder::Peer(peer),
            })
        })
    }
}
