//! One space for all addresses: numbers of 128 bits, IPv6 as it is, IPv4 in its mapped form
//! ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). Ranges are inclusive, so that none overflows.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bits before an IPv4 address in its mapped form.
const MAPPED_BITS: u8 = 96;

/// The number of an address. An IPv4 address and its IPv4-mapped IPv6 form have the same.
pub const fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number; IPv4 if it is in the mapped range.
pub const fn address(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).to_canonical()
}

/// An inclusive, never empty range of addresses: `first <= last`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    first: u128,
    last: u128,
}

impl Range {
    /// Every address there is.
    pub const ALL: Range = Range {
        first: 0,
        last: u128::MAX,
    };

    /// Every IPv4 address.
    pub const V4: Range = Range {
        first: number(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        last: number(IpAddr::V4(Ipv4Addr::BROADCAST)),
    };

    /// From `first` to `last`, both inside; `None` if `first > last`.
    pub const fn new(first: u128, last: u128) -> Option<Self> {
        if first <= last {
            Some(Range { first, last })
        } else {
            None
        }
    }

    /// One address.
    pub const fn one(number: u128) -> Self {
        Range {
            first: number,
            last: number,
        }
    }

    /// The aligned block of 2^`bits` addresses that `number` is in; `bits` above 128 count as 128.
    pub const fn block(number: u128, bits: u32) -> Self {
        // The host part's mask; 1 << 128 does not exist.
        let mask = match 1u128.checked_shl(bits) {
            Some(size) => size - 1,
            None => u128::MAX,
        };
        Range {
            first: number & !mask,
            last: number | mask,
        }
    }

    /// The first address.
    pub const fn first(&self) -> u128 {
        self.first
    }

    /// The last address, which belongs to the range.
    pub const fn last(&self) -> u128 {
        self.last
    }

    /// How many addresses; 2^128 - 1 for [`Range::ALL`], which has one more.
    pub const fn count(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether `number` is inside.
    pub const fn contains(&self, number: u128) -> bool {
        self.first <= number && number <= self.last
    }

    /// Whether all of `other` is inside.
    pub const fn covers(&self, other: &Range) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What both ranges share; `None` if that is nothing.
    pub fn intersect(&self, other: &Range) -> Option<Range> {
        Range::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Whether the ranges share an address.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.intersect(other).is_some()
    }

    /// Whether all of it is IPv4.
    pub const fn is_v4(&self) -> bool {
        Range::V4.covers(self)
    }

    /// Its first addresses, at most `count` but at least one.
    pub fn take(&self, count: u128) -> Range {
        let more = count.saturating_sub(1);
        let last = self.last().min(self.first().saturating_add(more));
        Range::new(self.first(), last).unwrap_or(*self)
    }

    /// What of it comes before `number`.
    pub const fn before(&self, number: u128) -> Option<Range> {
        match number.checked_sub(1) {
            Some(last) if last < self.last => Range::new(self.first, last),
            Some(_) => Some(*self),
            None => None,
        }
    }

    /// What of it comes after `number`.
    pub const fn after(&self, number: u128) -> Option<Range> {
        match number.checked_add(1) {
            Some(first) if first > self.first => Range::new(first, self.last),
            Some(_) => Some(*self),
            None => None,
        }
    }

    /// The largest aligned block of a power of two, of at most 2^`bits_max` addresses, that lies
    /// inside; of several the first.
    pub fn largest_block(&self, bits_max: u32) -> Range {
        // A range of one address is a block of one, so the search always ends.
        (0..=bits_max.min(128))
            .rev()
            .find_map(|bits| self.first_block(bits))
            .unwrap_or(Range::one(self.first))
    }

    /// The first aligned block of 2^`bits` addresses inside.
    pub fn first_block(&self, bits: u32) -> Option<Range> {
        let here = Range::block(self.first, bits);
        let block = if here.first == self.first {
            here
        } else {
            Range::block(here.last.checked_add(1)?, bits)
        };
        self.covers(&block).then_some(block)
    }

    /// The last aligned block of 2^`bits` addresses inside.
    pub fn last_block(&self, bits: u32) -> Option<Range> {
        let here = Range::block(self.last, bits);
        let block = if here.last == self.last {
            here
        } else {
            Range::block(here.first.checked_sub(1)?, bits)
        };
        self.covers(&block).then_some(block)
    }

    /// The exponent if it is an aligned block of a power of two.
    pub fn block_bits(&self) -> Option<u32> {
        let bits = u128::BITS - (self.last - self.first).leading_zeros();
        (Range::block(self.first, bits) == *self).then_some(bits)
    }
}

impl From<IpNet> for Range {
    fn from(net: IpNet) -> Self {
        let prefix = match net {
            IpNet::V4(v4) => v4.prefix_len().saturating_add(MAPPED_BITS),
            IpNet::V6(v6) => v6.prefix_len(),
        };
        let bits = u128::BITS.saturating_sub(u32::from(prefix));
        Range::block(number(net.addr()), bits)
    }
}

/// As a prefix if it is one, else from first to last.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width: u32 = if self.is_v4() { 32 } else { 128 };
        match self.block_bits().and_then(|bits| width.checked_sub(bits)) {
            Some(prefix) => write!(f, "{}/{prefix}", address(self.first)),
            None => write!(f, "{}-{}", address(self.first), address(self.last)),
        }
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first address and how many follow it.
impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.first, self.last - self.first).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (first, more) = <(u128, u128)>::deserialize(deserializer)?;
        let last = first
            .checked_add(more)
            .ok_or_else(|| serde::de::Error::custom("a range beyond the last address"))?;
        Ok(Range { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn net(text: &str) -> Range {
        Range::from(text.parse::<IpNet>().unwrap())
    }

    #[test]
    fn ipv4_and_its_mapped_form_are_one_address() {
        let v4: IpAddr = "10.32.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.32.0.1".parse().unwrap();
        assert_eq!(number(v4), number(mapped));
        assert_eq!(address(number(mapped)), v4);
        assert_eq!(net("10.32.0.0/12"), net("::ffff:10.32.0.0/108"));
    }

    #[test]
    fn prefixes_at_both_ends_of_both_families_do_not_overflow() {
        assert_eq!(net("::/0"), Range::ALL);
        assert_eq!(net("0.0.0.0/0"), Range::V4);
        assert_eq!(net("255.255.255.255/32").count(), 1);
        assert_eq!(net("255.255.255.0/24").last(), Range::V4.last());
        assert_eq!(net("::/128"), Range::one(0));
        assert_eq!(net("ffff::/16").last(), u128::MAX);
        assert_eq!(Range::ALL.count(), u128::MAX);
        assert_eq!(Range::ALL.before(0), None);
        assert_eq!(Range::ALL.after(u128::MAX), None);
        assert_eq!(Range::ALL.after(u128::MAX - 1), Some(Range::one(u128::MAX)));
        assert_eq!(Range::ALL.before(1), Some(Range::one(0)));
        assert_eq!(Range::one(5).after(2), Some(Range::one(5)));
        assert_eq!(Range::one(5).before(9), Some(Range::one(5)));
    }

    #[test]
    fn blocks_are_aligned_and_inside() {
        let range = Range::new(3, 21).unwrap();
        assert_eq!(range.largest_block(128), Range::block(8, 3));
        assert_eq!(range.largest_block(2), Range::block(4, 2));
        assert_eq!(range.first_block(4), None);
        assert_eq!(range.last_block(2), Some(Range::block(16, 2)));
        assert_eq!(range.last_block(3), Some(Range::block(8, 3)));
        assert_eq!(range.last_block(4), None);
        assert_eq!(Range::one(0).last_block(1), None);
        assert_eq!(Range::ALL.last_block(128), Some(Range::ALL));
        assert_eq!(Range::ALL.largest_block(200), Range::ALL);
        let end = Range::new(u128::MAX - 2, u128::MAX).unwrap();
        assert_eq!(end.largest_block(128), Range::block(u128::MAX, 1));
        assert_eq!(Range::one(u128::MAX).first_block(1), None);
        assert_eq!(Range::new(1, 2).unwrap().block_bits(), None);
        assert_eq!(Range::ALL.block_bits(), Some(128));
    }

    #[test]
    fn ranges_read_as_prefixes_where_they_are_some() {
        assert_eq!(net("10.32.0.0/12").to_string(), "10.32.0.0/12");
        assert_eq!(net("fd32::/48").to_string(), "fd32::/48");
        assert_eq!(Range::ALL.to_string(), "::/0");
        let odd = Range::new(net("10.0.0.1/32").first(), net("10.0.0.3/32").first());
        assert_eq!(odd.unwrap().to_string(), "10.0.0.1-10.0.0.3");
    }

    #[test]
    fn a_range_beyond_the_end_is_not_decoded() {
        use rmesh_wire::codec::{decode, encode};
        for range in [Range::ALL, Range::V4, Range::one(u128::MAX), Range::one(0)] {
            assert_eq!(decode::<Range>(&encode(&range).unwrap()), Ok(range));
        }
        assert!(decode::<Range>(&encode(&(u128::MAX, 1u128)).unwrap()).is_err());
    }
}
