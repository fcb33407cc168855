//! The largest segment that TCP asks for when it opens a connection (RFC 9293 section 3.7.1), lowered
//! to what fits a path, so that no segment of the connection has to be cut on its way.

use rmesh_wire::payload::PartialChecksum;

use super::checksum::{add, subtract};
use super::split::{network, put};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
/// Headers that the number leaves out (RFC 6691): IP and TCP without options.
const HEADERS_V4: u16 = 40;
const HEADERS_V6: u16 = 60;
const TCP_LEN: usize = 20;
const CHECKSUM_AT: usize = 16;
/// Kinds of TCP options that matter here.
const END: u8 = 0;
const NOTHING: u8 = 1;
const LARGEST: u8 = 2;

/// A TCP header that opens a connection, of a packet that is no fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    network: usize,
    transport: usize,
    is_v4: bool,
    /// Where its options end.
    end: usize,
}

/// Finds it; a few comparisons for every other frame.
pub(crate) fn opening(frame: &[u8]) -> Option<Opening> {
    let (network, ether_type) = network(frame)?;
    let field = |at: usize| Some(u16::from_be_bytes(*frame.get(at..at + 2)?.first_chunk()?));
    let (is_v4, transport, packet_end) = match ether_type {
        0x0800 if frame.get(network + 9) == Some(&TCP) => {
            let first = frame.get(network)?;
            let is_whole = field(network + 6)? & 0x3fff == 0;
            let transport = network + usize::from(first & 0x0f) * 4;
            let end = network + usize::from(field(network + 2)?);
            (first >> 4 == 4 && is_whole).then_some((true, transport, end))?
        }
        0x86dd if frame.get(network + 6) == Some(&TCP) => {
            let end = network + 40 + usize::from(field(network + 4)?);
            (false, network + 40, end)
        }
        _ => return None,
    };
    let &[words, flags] = frame.get(transport + 12..transport + 14)?.first_chunk()?;
    let end = transport + usize::from(words >> 4) * 4;
    let opens = flags & SYN != 0 && transport >= network + 20;
    let is_inside = end <= packet_end && packet_end <= frame.len();
    (opens && is_inside).then_some(Opening {
        network,
        transport,
        is_v4,
        end,
    })
}

impl Opening {
    /// Lowers the largest segment in `frame`, where this was found, to what fits a frame of
    /// `frame_len` bytes; true if it was larger. A checksum that was right stays right, and a wrong
    /// one wrong by as much (RFC 1624); one that is `partial` does not count the options yet.
    pub(crate) fn clamp(
        self,
        frame: &mut [u8],
        partial: Option<PartialChecksum>,
        frame_len: usize,
    ) -> bool {
        let mtu = u16::try_from(frame_len.saturating_sub(self.network)).unwrap_or(u16::MAX);
        let headers = if self.is_v4 { HEADERS_V4 } else { HEADERS_V6 };
        let fits = mtu.saturating_sub(headers);
        let Some((at, asked)) = self.largest(frame).filter(|(_, asked)| *asked > fits) else {
            return false;
        };
        let is_tcps = |partial: PartialChecksum| {
            (usize::from(partial.start), usize::from(partial.offset))
                == (self.transport, CHECKSUM_AT)
        };
        match partial {
            Some(partial) if !is_tcps(partial) => return false,
            Some(_) => {}
            None => self.update_checksum(frame, at, asked, fits),
        }
        put(frame, at, fits);
        true
    }

    /// Where the number is, and which it is.
    fn largest(self, frame: &[u8]) -> Option<(usize, u16)> {
        let mut at = self.transport + TCP_LEN;
        while at < self.end {
            let len = match *frame.get(at)? {
                END => return None,
                NOTHING => 1,
                LARGEST => {
                    let option = frame.get(at..self.end)?.first_chunk::<4>()?;
                    let [_, 4, high, low] = *option else {
                        return None;
                    };
                    return Some((at + 2, u16::from_be_bytes([high, low])));
                }
                _ => usize::from(*frame.get(at + 1)?).max(2),
            };
            at += len;
        }
        None
    }

    fn update_checksum(self, frame: &mut [u8], at: usize, old: u16, new: u16) {
        // A number at an odd place counts with its bytes exchanged.
        let is_odd = (at - self.transport) % 2 == 1;
        let word = |value: u16| if is_odd { value.swap_bytes() } else { value };
        let place = self.transport + CHECKSUM_AT;
        let before = frame
            .get(place..place + 2)
            .and_then(|bytes| bytes.first_chunk());
        if let Some(before) = before {
            let sum = !u16::from_be_bytes(*before);
            let sum = add(subtract(sum, word(old)), word(new));
            put(frame, place, !sum);
        }
    }
}

#[cfg(test)]
mod tests;
