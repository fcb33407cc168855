//! Port probes: whether datagrams that leave from another source port arrive, and unchanged.
//!
//! A host whose workers have source ports of their own asks from each of them. The answer comes by the way in use,
//! whatever that is, and says where the question was seen to come from. Neither tells anything of a path's life,
//! and nothing is ever sent to where a question came from.
//!
//! Flag of the payload head: bit 0 set in an answer. Body:
//! ```text
//!  0       8                          26
//! | token | address (16) port (2)
//! ```
//! In a question the address is all zero.

use core::net::SocketAddr;

use crate::payload::{HEAD_LEN, Head, PayloadKind};
use crate::probe::{ADDRESS_LEN, decode_address, encode_address};

/// Length of the whole payload, in bytes.
pub const PORT_PROBE_LEN: usize = HEAD_LEN + TOKEN_LEN + ADDRESS_LEN;

const TOKEN_LEN: usize = 8;
const ANSWER: u8 = 1;

/// A question or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortProbe {
    /// Whether this answers a question.
    pub is_answer: bool,
    /// Chosen by the one who asks.
    pub token: u64,
    /// In an answer: where the question was seen to come from.
    pub observed: Option<SocketAddr>,
}

impl PortProbe {
    /// The payload.
    pub fn encode(&self) -> [u8; PORT_PROBE_LEN] {
        let head = Head {
            flags: u8::from(self.is_answer) * ANSWER,
            ..Head::new(PayloadKind::PortProbe)
        };
        let mut bytes = [0; PORT_PROBE_LEN];
        let (start, body) = bytes.split_at_mut(HEAD_LEN);
        let (token, address) = body.split_at_mut(TOKEN_LEN);
        start.copy_from_slice(&head.encode());
        token.copy_from_slice(&self.token.to_be_bytes());
        address.copy_from_slice(&encode_address(self.observed));
        bytes
    }

    /// Reads the body of one; `None` if it is too short.
    pub fn decode(head: Head, body: &[u8]) -> Option<Self> {
        let (token, rest) = body.split_first_chunk::<TOKEN_LEN>()?;
        let (address, _) = rest.split_first_chunk::<ADDRESS_LEN>()?;
        Some(PortProbe {
            is_answer: head.flags & ANSWER != 0,
            token: u64::from_be_bytes(*token),
            observed: decode_address(address),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_back_and_short_ones_do_not() {
        let seen = [None, Some("192.0.2.1:9"), Some("[2001:db8::1]:65535")];
        for (is_answer, observed) in seen.into_iter().enumerate() {
            let probe = PortProbe {
                is_answer: is_answer > 0,
                token: 0x0102_0304_0506_0708,
                observed: observed.map(|seen| seen.parse().unwrap()),
            };
            let bytes = probe.encode();
            let (head, body) = Head::split(&bytes).unwrap();
            assert_eq!(head.kind, PayloadKind::PortProbe);
            assert_eq!(PortProbe::decode(head, body), Some(probe));
            assert_eq!(PortProbe::decode(head, &body[..body.len() - 1]), None);
        }
    }
}
