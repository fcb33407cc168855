//! What protects a responder from floods of first messages: two marks at the end of each, and the
//! cookie that the second one is made from (after WireGuard, <https://www.wireguard.com/papers/wireguard.pdf>
//! section 5.4.4 and 5.4.7).
//!
//! ```text
//! first message    0        16                          336       352       368
//!                 | header | Noise message              | mark 1  | mark 2  |
//! cookie (typ 6)   0        16      28              44      60
//!                 | header | nonce | sealed cookie  | tag   |
//! ```

use crate::datagram::{HEADER_LEN, TAG_LEN};

/// Payload of a first message in bytes: the sender's index, then zeros, so many that the datagram
/// is longer than any answer: nobody's address can be made to receive more than was sent.
pub const FIRST_PAYLOAD_LEN: usize = 272;
/// A whole first message in bytes: header, ephemeral key and tag (48), payload, marks.
pub const FIRST_LEN: usize = MARKS_OFFSET + 2 * MARK_LEN;
/// Where the marks begin.
pub const MARKS_OFFSET: usize = HEADER_LEN + 48 + FIRST_PAYLOAD_LEN;
/// Length of a mark and of a cookie, in bytes.
pub const MARK_LEN: usize = 16;
/// Length of a cookie's nonce, in bytes.
pub const NONCE_LEN: usize = 12;
/// A whole cookie datagram in bytes.
pub const COOKIE_DATAGRAM_LEN: usize = HEADER_LEN + NONCE_LEN + MARK_LEN + TAG_LEN;

/// A keyed hash of 16 bytes.
pub type Mark = [u8; MARK_LEN];

/// A first message, cut into its parts.
#[derive(Debug, Clone, Copy)]
pub struct FirstMessage<'a> {
    /// What mark 1 is over: header and Noise message.
    pub marked: &'a [u8],
    /// The Noise message alone.
    pub noise: &'a [u8],
    /// Shows, cheaply, that the sender knows the secret.
    pub mark1: Mark,
    /// Shows that the sender receives what is sent to its address; zero without a cookie.
    pub mark2: Mark,
}

impl<'a> FirstMessage<'a> {
    /// `None` unless the datagram is exactly [`FIRST_LEN`] bytes long.
    pub fn split(datagram: &'a [u8]) -> Option<Self> {
        let (marked, marks) = datagram.split_at_checked(MARKS_OFFSET)?;
        let (mark1, mark2) = marks.split_first_chunk::<MARK_LEN>()?;
        Some(FirstMessage {
            marked,
            noise: marked.get(HEADER_LEN..)?,
            mark1: *mark1,
            mark2: mark2.try_into().ok()?,
        })
    }
}

/// A cookie datagram, cut into its parts.
#[derive(Debug, Clone, Copy)]
pub struct CookieParts<'a> {
    /// The encoded header.
    pub header: &'a [u8; HEADER_LEN],
    /// Nonce of the seal.
    pub nonce: &'a [u8; NONCE_LEN],
    /// The sealed cookie.
    pub sealed: &'a [u8; MARK_LEN],
    /// Its tag.
    pub tag: &'a [u8; TAG_LEN],
}

impl<'a> CookieParts<'a> {
    /// `None` unless the datagram is exactly [`COOKIE_DATAGRAM_LEN`] bytes long.
    pub fn split(datagram: &'a [u8]) -> Option<Self> {
        let (header, rest) = datagram.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (sealed, rest) = rest.split_first_chunk()?;
        let tag = rest.try_into().ok()?;
        Some(CookieParts {
            header,
            nonce,
            sealed,
            tag,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_where_the_picture_says() {
        let mut datagram = [0; FIRST_LEN];
        (datagram[16], datagram[336], datagram[367]) = (1, 2, 3);
        let first = FirstMessage::split(&datagram).unwrap();
        assert_eq!((first.marked.len(), first.noise.len()), (336, 320));
        assert_eq!((first.noise[0], first.mark1[0], first.mark2[15]), (1, 2, 3));
        assert!(FirstMessage::split(&datagram[1..]).is_none());
        let mut longer = datagram.to_vec();
        longer.push(0);
        assert!(FirstMessage::split(&longer).is_none());
    }

    #[test]
    fn a_cookie_is_shorter_than_what_asked_for_it() {
        let datagram = [7; COOKIE_DATAGRAM_LEN];
        assert!(datagram.len() < FIRST_LEN);
        assert!(CookieParts::split(&datagram).is_some());
        assert!(CookieParts::split(&datagram[1..]).is_none());
    }
}
