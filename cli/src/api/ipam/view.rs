//! What the API shows of the ring.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// Largest whole number that every reader of JSON takes exactly (RFC 8259 section 6).
const EXACT_MAX: u128 = (1 << 53) - 1;

/// A number of addresses: in JSON a number, or its digits as text above 2^53 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Count(pub(crate) u128);

impl fmt::Display for Count {
    /// Digits, or about a power of two where there are too many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            count if count <= EXACT_MAX => write!(f, "{count}"),
            count if count.is_power_of_two() => write!(f, "2^{}", count.ilog2()),
            count => {
                // The next power is nearer from half as much again on.
                let bits = count.ilog2();
                let is_upper = count - (1 << bits) > 1 << (bits - 1);
                write!(f, "~2^{}", bits + u32::from(is_upper))
            }
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match u64::try_from(self.0) {
            Ok(count) if self.0 <= EXACT_MAX => serializer.serialize_u64(count),
            _ => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Digits(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(count) => Ok(Count(count.into())),
            Either::Digits(text) => text.parse().map(Count).map_err(D::Error::custom),
        }
    }
}

/// `GET /v1/ipam`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct IpamView {
    /// The ring, 12 digits; nothing before one is founded or joined.
    pub(crate) ring: Option<String>,
    /// This peer's id.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// The pools.
    pub(crate) pools: Vec<PoolView>,
    /// Peers that decide together who owns what.
    pub(crate) witnesses: Vec<WitnessView>,
    /// Whether most witnesses answer, this peer included.
    pub(crate) has_majority: bool,
    /// Whether most would still answer after the loss of any one peer.
    pub(crate) survives_loss_of_one: bool,
    /// Addresses that containers of this host have.
    pub(crate) used: usize,
    /// Addresses of containers here that this peer does not own yet.
    pub(crate) pending: Vec<PendingView>,
    /// Addresses held for removed peers.
    pub(crate) held: Vec<HoldView>,
    /// Other rings that are there.
    pub(crate) others: Vec<OtherRingView>,
    /// Own space that somebody says is another's; not used until the witnesses have answered.
    pub(crate) disputed: Vec<String>,
    /// Peers that began to form the witnesses anew by force and did not end: until somebody does,
    /// this peer bears no witness.
    pub(crate) reformers: Vec<WitnessView>,
    /// Pools that routes of this host lead elsewhere.
    pub(crate) overlaps: Vec<String>,
    /// Messages about addresses that were refused.
    pub(crate) refused: Vec<RefusedView>,
    /// Why nothing is handed out although the disk is well, if that is so.
    pub(crate) fence: Option<String>,
    /// Why the disk does not take the ledger, if that is so.
    pub(crate) disk: Option<String>,
    /// A ledger that could not be used and was moved aside.
    pub(crate) aside: Option<String>,
    /// The ring whose ledger was lost, if this peer founded another one instead and is alone in it.
    pub(crate) lost_ring: Option<String>,
    /// What is going on.
    pub(crate) waiting: Vec<String>,
    /// What to do, as sentences with commands; empty if all is well.
    pub(crate) advice: Vec<String>,
}

/// One pool.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PoolView {
    /// Its addresses.
    pub(crate) prefix: String,
    /// How many those are.
    pub(crate) size: Count,
    /// This peer owns so many.
    pub(crate) own: Count,
    /// Of which so many are free, resting ones included.
    pub(crate) free: Count,
    /// And so many rest until they can be handed out again.
    pub(crate) resting: Count,
    /// And containers of this host have so many.
    pub(crate) used: Count,
    /// And so many are held for removed peers.
    pub(crate) held: Count,
    /// All owners, the largest first.
    pub(crate) owners: Vec<OwnerView>,
}

/// One owner of addresses of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OwnerView {
    /// Id of the peer.
    pub(crate) peer: String,
    /// Its name, also if it was removed and forgotten.
    pub(crate) name: String,
    /// Whether it answers, or is this peer.
    pub(crate) reachable: bool,
    /// Whether it is an earlier one of a peer that has begun anew, whose space nobody uses.
    pub(crate) former: bool,
    /// Addresses it owns.
    pub(crate) addresses: Count,
    /// The same in thousandths of the pool, rounded.
    pub(crate) share_per_mille: u16,
}

/// One witness.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WitnessView {
    /// Id of the peer.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether it answers, or is this peer.
    pub(crate) reachable: bool,
    /// Whether it lost its ledger and began anew: it bears no witness ever again.
    pub(crate) former: bool,
}

/// One address that a container carries and this peer does not own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PendingView {
    /// The address.
    pub(crate) address: IpAddr,
    /// The container.
    pub(crate) container: String,
}

/// Addresses held for a removed peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HoldView {
    /// One address, a prefix, or first-last.
    pub(crate) addresses: String,
    /// Id of the removed peer.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// When the hold ends, in milliseconds.
    pub(crate) ends_in_ms: u64,
    /// How long ago it began, in seconds, if that was after the start.
    pub(crate) since_s: Option<u64>,
}

/// Another ring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OtherRingView {
    /// Which.
    pub(crate) ring: String,
    /// Names of reachable peers in it.
    pub(crate) members: Vec<String>,
    /// Addresses in use in this ring.
    pub(crate) live_here: u32,
    /// And in the other one.
    pub(crate) live_there: u32,
    /// Addresses of this host's containers that are in use in both.
    pub(crate) conflicts: Vec<ConflictView>,
}

/// One address in use in two rings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConflictView {
    /// The address.
    pub(crate) address: IpAddr,
    /// The container here.
    pub(crate) container: String,
    /// Id of the peer that has the other one.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
}

/// Refused messages of one peer for one reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefusedView {
    /// Id of the peer.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// Why they were refused.
    pub(crate) reason: String,
    /// How many.
    pub(crate) count: u64,
}

/// `GET /v1/ipam/addresses`: one of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AddressView {
    /// One address, a prefix, or first-last.
    pub(crate) address: String,
    /// Id of the peer that has it.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether that is this peer.
    pub(crate) here: bool,
    /// The container, as it is called there; empty for held ones.
    pub(crate) container: String,
    /// How it is used.
    pub(crate) state: AddressState,
    /// For whom it is held.
    pub(crate) held_for: Option<String>,
    /// When the hold or the rest ends, in milliseconds.
    pub(crate) ends_in_ms: Option<u64>,
    /// For how long it has been what it is, in seconds, if that is known: it was begun by this host
    /// since its daemon started.
    pub(crate) since_s: Option<u64>,
}

/// How an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AddressState {
    /// By an attached container.
    Used,
    /// The same, but its owner has not granted it yet.
    Pending,
    /// Kept for a container that is not attached.
    Kept,
    /// Freed less than a minute ago.
    Resting,
    /// Held for a removed peer.
    Held,
    /// Another reachable peer announces it.
    Announced,
    /// Another peer announced it that does not answer.
    Unreachable,
}

/// `GET /v1/ipam/check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CheckView {
    /// Containers looked at.
    pub(crate) containers: usize,
    /// Addresses in the ledger.
    pub(crate) addresses: usize,
    /// What does not agree.
    pub(crate) differences: Vec<Difference>,
}

/// One thing that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// About this address.
    pub(crate) address: Option<IpAddr>,
    /// And this container.
    pub(crate) container: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What to do.
    pub(crate) todo: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_in_json_and_short_for_people() {
        for (count, json, text) in [
            (4_096, "4096", "4096"),
            (EXACT_MAX, "9007199254740991", "9007199254740991"),
            (1 << 80, "\"1208925819614629174706176\"", "2^80"),
            ((1 << 80) - 2, "\"1208925819614629174706174\"", "~2^80"),
            ((1 << 80) + 1, "\"1208925819614629174706177\"", "~2^80"),
        ] {
            let count = Count(count);
            assert_eq!(serde_json::to_string(&count).unwrap(), json);
            assert_eq!(serde_json::from_str::<Count>(json).unwrap(), count);
            assert_eq!(count.to_string(), text);
        }
        assert!(serde_json::from_str::<Count>("\"-1\"").is_err());
    }
}
