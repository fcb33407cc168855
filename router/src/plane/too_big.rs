//! What a sender is told of a packet that is too long for its path: ICMP "fragmentation needed"
//! (RFC 792, RFC 1191) or ICMPv6 "packet too big" (RFC 4443, RFC 8201).
//!
//! No router stands between the two, so the destination is the one that speaks. Told are only
//! packets that may not be fragmented, each pair of addresses once a second; the packet itself
//! crosses in sealed fragments, so that nobody who does not listen is cut off.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::buffer::concatenate;
use crate::port::checksum::{add, sum};
use crate::port::split::{network, put};

/// Messages a second to all containers of this host.
const PER_S: u32 = 200;
const DEPTH: Duration = Duration::from_millis(500);
/// One pair of addresses is told at most this often.
const PAIR_EVERY: Duration = Duration::from_secs(1);
/// Pairs remembered; of two that share a place only the latest is.
const PAIRS: usize = 256;
/// Ethernet with two tags.
const ETHERNET_LEN_MAX: usize = 22;
/// Longest messages (RFC 1812 section 4.3.2.3, RFC 4443 section 3.2); IPv6 carries no less.
const V4_LEN_MAX: usize = 576;
const V6_LEN_MAX: usize = 1_280;
const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const ICMP_LEN: usize = 8;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// Makes the messages and says when one is due.
pub(crate) struct TooBig {
    bucket: Bucket,
    hasher: RandomState,
    told: Box<[Option<(u64, Instant)>]>,
    /// The beginning of the packet, and the message about it.
    packet: [u8; ETHERNET_LEN_MAX + V6_LEN_MAX],
    message: [u8; ETHERNET_LEN_MAX + V6_LEN_MAX],
}

/// A packet that its sender has to be told of.
struct Offence {
    network: usize,
    is_v4: bool,
    mtu: usize,
}

impl TooBig {
    pub(crate) fn new(now: Instant) -> Self {
        TooBig {
            bucket: Bucket::full(PER_S, DEPTH, now),
            hasher: RandomState::new(),
            told: vec![None; PAIRS].into_boxed_slice(),
            packet: [0; ETHERNET_LEN_MAX + V6_LEN_MAX],
            message: [0; ETHERNET_LEN_MAX + V6_LEN_MAX],
        }
    }

    /// The frame that tells the sender of this one, given in parts, that a path takes frames of
    /// `frame_len_max` bytes only; `None` if it may not be told, or was lately.
    pub(crate) fn message(
        &mut self,
        parts: &[&[u8]],
        frame_len_max: usize,
        now: Instant,
    ) -> Option<&[u8]> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        concatenate_start(&mut self.packet, parts);
        let packet = self.packet.get(..len.min(self.packet.len()))?;
        let offence = Offence::of(packet, len, frame_len_max)?;
        self.take(&offence, now)?;
        let packet = self.packet.get(..len.min(self.packet.len()))?;
        let len = match offence.is_v4 {
            true => offence.tell_v4(packet, &mut self.message)?,
            false => offence.tell_v6(packet, &mut self.message)?,
        };
        self.message.get(..len)
    }

    /// Whether there is an allowance for these two.
    fn take(&mut self, offence: &Offence, now: Instant) -> Option<()> {
        let addresses = self.packet.get(offence.addresses())?;
        let hash = self.hasher.hash_one(addresses);
        let place = self.told.get_mut(hash as usize % PAIRS)?;
        let lately = |(of, told): (u64, Instant)| {
            of == hash && now.saturating_duration_since(told) < PAIR_EVERY
        };
        if place.is_some_and(lately) || !self.bucket.take(now) {
            return None;
        }
        *place = Some((hash, now));
        Some(())
    }
}

/// Fills `to` with the beginning of `parts`.
fn concatenate_start(to: &mut [u8], parts: &[&[u8]]) {
    let mut at = 0;
    for part in parts {
        let len = part.len().min(to.len() - at);
        concatenate(&mut to[at..at + len], &[&part[..len]]);
        at += len;
    }
}

impl Offence {
    /// `None` if a packet in a frame of `len` bytes, which begins with `frame`, is short enough,
    /// may be fragmented, or is one that must not be answered (RFC 1122 section 3.2.2, RFC 4443
    /// section 2.4).
    fn of(frame: &[u8], len: usize, frame_len_max: usize) -> Option<Self> {
        let (network, ether_type) = network(frame)?;
        let mtu = frame_len_max.checked_sub(network)?;
        let header = frame.get(network..)?;
        let offence = match ether_type {
            0x0800 => Self::of_v4(header, network, mtu)?,
            0x86dd => Self::of_v6(header, network, mtu)?,
            _ => return None,
        };
        (len - network > offence.mtu).then_some(offence)
    }

    fn of_v4(header: &[u8], network: usize, mtu: usize) -> Option<Self> {
        let (fixed, rest) = header.split_first_chunk::<V4_LEN>()?;
        let is_v4 = fixed[0] >> 4 == 4 && fixed[0] & 0x0f >= 5;
        let dont_fragment = fixed[6] & 0x40 != 0;
        let is_first = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x1fff == 0;
        let is_host = |first: u8| (1..224).contains(&first) && first != 127;
        let options = usize::from(fixed[0] & 0x0f).checked_sub(5)? * 4;
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        let is_error = fixed[9] == ICMP && matches!(rest.get(options), Some(3 | 4 | 5 | 11 | 12));
        let is_told = is_v4
            && dont_fragment
            && is_first
            && is_host(fixed[12])
            && is_host(fixed[16])
            && !is_error
            && mtu >= 68;
        is_told.then_some(Offence {
            network,
            is_v4: true,
            mtu,
        })
    }

    fn of_v6(header: &[u8], network: usize, mtu: usize) -> Option<Self> {
        let (fixed, rest) = header.split_first_chunk::<V6_LEN>()?;
        let is_error = fixed[6] == ICMP_V6 && rest.first().is_none_or(|kind| *kind < 128);
        let is_host = |address: &[u8]| address[0] != 0xff && address != [0; 16];
        let is_told =
            fixed[0] >> 4 == 6 && is_host(&fixed[8..24]) && is_host(&fixed[24..40]) && !is_error;
        is_told.then_some(Offence {
            network,
            is_v4: false,
            // Nobody sends less.
            mtu: mtu.max(V6_LEN_MAX),
        })
    }

    /// Where source and destination are.
    fn addresses(&self) -> std::ops::Range<usize> {
        let (from, len) = if self.is_v4 { (12, 8) } else { (8, 32) };
        self.network + from..self.network + from + len
    }

    /// Turns round the Ethernet header; gives the quotation and the length of the message.
    fn begin<'a>(
        &self,
        packet: &'a [u8],
        message: &mut [u8],
        (headers, len_max): (usize, usize),
    ) -> Option<(&'a [u8], usize)> {
        let quoted = packet.get(self.network..)?;
        let quoted = quoted.get(..quoted.len().min(len_max - headers))?;
        let ethernet = packet.get(..self.network)?;
        let [destination, source, rest] = [
            ethernet.get(..6)?,
            ethernet.get(6..12)?,
            ethernet.get(12..)?,
        ];
        let len = self.network + headers + quoted.len();
        let to = message.get_mut(..len)?;
        to.fill(0);
        concatenate(to, &[source, destination, rest]);
        concatenate(to.get_mut(self.network + headers..)?, &[quoted]);
        Some((quoted, len))
    }

    fn tell_v4(&self, packet: &[u8], message: &mut [u8]) -> Option<usize> {
        let (quoted, len) = self.begin(packet, message, (V4_LEN + ICMP_LEN, V4_LEN_MAX))?;
        let to = message.get_mut(self.network..len)?;
        let total = to.len() as u16;
        let [high, low] = total.to_be_bytes();
        // Network control, as kernels mark what they tell; not to be fragmented.
        let start = [0x45, 0xc0, high, low, 0, 0, 0x40, 0, 64, ICMP, 0, 0];
        concatenate(
            to,
            &[&start, quoted.get(16..20)?, quoted.get(12..16)?, &[3, 4]],
        );
        put(to, V4_LEN + 6, u16::try_from(self.mtu).unwrap_or(u16::MAX));
        let checksum = !sum(to.get(..V4_LEN)?);
        put(to, 10, checksum);
        let checksum = !sum(to.get(V4_LEN..)?);
        put(to, V4_LEN + 2, checksum);
        Some(len)
    }

    fn tell_v6(&self, packet: &[u8], message: &mut [u8]) -> Option<usize> {
        let (quoted, len) = self.begin(packet, message, (V6_LEN + ICMP_LEN, V6_LEN_MAX))?;
        let to = message.get_mut(self.network..len)?;
        let payload = (to.len() - V6_LEN) as u16;
        let [high, low] = payload.to_be_bytes();
        let start = [0x60, 0, 0, 0, high, low, ICMP_V6, 64];
        concatenate(
            to,
            &[&start, quoted.get(24..40)?, quoted.get(8..24)?, &[2, 0]],
        );
        put(to, V6_LEN + 6, u16::try_from(self.mtu).unwrap_or(u16::MAX));
        let pseudo = add(payload, ICMP_V6.into());
        let checksum = !add(pseudo, sum(to.get(8..)?));
        put(to, V6_LEN + 2, checksum);
        Some(len)
    }
}

#[cfg(test)]
mod tests;
