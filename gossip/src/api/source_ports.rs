//! Source ports besides the one that is listened at.
//!
//! Network cards and equal paths (ECMP) spread packets by addresses and ports: what two hosts exchange between one port
//! each takes one receiving queue and one path, however many workers there are. So workers have sockets of their
//! own to send from, where it is shown that the way lets them pass and nobody translates.

use alloc::vec::Vec;
use core::net::SocketAddr;

/// Source ports a host has, at most, the one listened at included; that one has the number 0.
pub const SOURCE_PORTS_MAX: usize = 8;

/// Some of a host's source ports, by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourcePorts(u8);

impl SourcePorts {
    /// Whether this one is among them; 0 never is.
    #[inline]
    pub fn has(self, number: usize) -> bool {
        number < SOURCE_PORTS_MAX && self.0 >> number & 1 == 1
    }

    /// Whether one of those is among them.
    #[inline]
    pub fn has_any_of(self, others: SourcePorts) -> bool {
        self.0 & others.0 != 0
    }

    /// With this one too; 0, which always passes, and those that cannot be are left out.
    #[must_use]
    pub fn with(self, number: usize) -> Self {
        match number {
            1..SOURCE_PORTS_MAX => SourcePorts(self.0 | 1 << number),
            _ => self,
        }
    }

    /// How many.
    pub fn count(self) -> u8 {
        // At most seven.
        self.0.count_ones() as u8
    }
}

/// A datagram to be sent from a source port of this number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTransmit {
    /// Which.
    pub number: usize,
    /// Where to.
    pub destination: SocketAddr,
    /// The whole UDP payload.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_apart_by_number_and_the_one_listened_at_is_none_of_them() {
        let some = [0, 1, 7, 8, 70].into_iter();
        let some = some.fold(SourcePorts::default(), SourcePorts::with);
        let has: Vec<usize> = (0..100).filter(|number| some.has(*number)).collect();
        assert_eq!((has, some.count()), (alloc::vec![1, 7], 2));
        let [none, other] = [0, 2].map(|port| SourcePorts::default().with(port));
        assert!(some.has_any_of(some) && !some.has_any_of(none) && !some.has_any_of(other));
    }
}
