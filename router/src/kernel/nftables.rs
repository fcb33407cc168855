//! The little of nf_tables that is used here, over netlink: making, finding, listing and deleting
//! objects of the netdev family. Layouts: linux/netfilter/nfnetlink.h and
//! linux/netfilter/nf_tables.h.

use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::KernelError;
use super::netlink::{cause, failure, next_message, nonsense, uninterrupted};

/// Somebody may be loading a large ruleset, which makes others wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read at once, in bytes: the kernel makes them up to 32 KiB.
const ANSWER_LEN_MAX: usize = 1 << 16;
/// Names listed at most: far more tables than any host has.
const NAMES_MAX: usize = 1 << 12;
/// Answers read to one request at most.
const ANSWERS_MAX: usize = 1 << 12;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const FAMILY_NETDEV: u8 = 5;
const NESTED: u16 = 0x8000;
/// Length of `nfgenmsg`, which comes before the attributes, in bytes.
const HEADER_LEN: usize = 4;

/// A socket for requests about the network namespace it was opened in.
pub(super) struct Nftables {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Nftables {
    pub(super) fn open() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            Ok(socket)
        };
        let doing = "open a socket to nftables";
        let socket = open().map_err(|cause| failure(doing, cause, String::new()))?;
        let buffer = Vec::with_capacity(ANSWER_LEN_MAX);
        Ok(Nftables { socket, buffer })
    }

    /// Whether the object that these attributes name exists.
    pub(super) fn exists(
        &mut self,
        doing: &str,
        kind: u16,
        attributes: &[u8],
    ) -> Result<bool, KernelError> {
        let request = request(kind, NLM_F_ACK, 1, attributes);
        match self.exchange(doing, &request, 1, &mut |_| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One attribute, a text, of all objects of a kind.
    pub(super) fn list(
        &mut self,
        doing: &str,
        kind: u16,
        name: u16,
    ) -> Result<Vec<String>, KernelError> {
        let mut names = Vec::new();
        let request = request(kind, NLM_F_DUMP, 1, &[]);
        self.exchange(doing, &request, 1, &mut |attributes| {
            let mut found = NlasIterator::new(attributes).filter_map(Result::ok);
            let value = found.find(|attribute| attribute.kind() == name);
            if let (Some(value), true) = (value, names.len() < NAMES_MAX) {
                let text = String::from_utf8_lossy(value.value());
                names.push(text.trim_end_matches('\0').to_owned());
            }
        })?;
        Ok(names)
    }

    /// Makes objects, all or none.
    pub(super) fn create(
        &mut self,
        doing: &str,
        objects: &[(u16, Vec<u8>)],
    ) -> Result<(), KernelError> {
        self.change(doing, NLM_F_CREATE, objects)
    }

    /// Deletes an object and what is in it.
    pub(super) fn delete(
        &mut self,
        doing: &str,
        kind: u16,
        attributes: Vec<u8>,
    ) -> Result<(), KernelError> {
        self.change(doing, 0, &[(kind, attributes)])
    }

    /// Changes are made in batches, each message of which is answered.
    fn change(
        &mut self,
        doing: &str,
        flags: u16,
        objects: &[(u16, Vec<u8>)],
    ) -> Result<(), KernelError> {
        let mut batch = message(BATCH_BEGIN, NLM_F_REQUEST, 0, 0, SUBSYSTEM, &[]);
        let mut sequence = 0;
        for (kind, attributes) in objects {
            sequence += 1;
            batch.extend(request(*kind, flags | NLM_F_ACK, sequence, attributes));
        }
        let end = message(BATCH_END, NLM_F_REQUEST, sequence + 1, 0, SUBSYSTEM, &[]);
        batch.extend(end);
        self.exchange(doing, &batch, objects.len(), &mut |_| {})
    }

    /// Sends a request and hands the attributes of what comes to `take`, until `ends` ends have
    /// come, or an error.
    fn exchange(
        &mut self,
        doing: &str,
        request: &[u8],
        mut ends: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), KernelError> {
        uninterrupted(|| self.socket.send(request, 0))
            .map_err(|cause| failure(doing, cause, String::new()))?;
        for _ in 0..ANSWERS_MAX {
            self.receive(doing)?;
            let mut rest = self.buffer.as_slice();
            while let Some(one) = next_message(doing, &mut rest)? {
                if read(doing, &one, take)? {
                    ends = ends.saturating_sub(1);
                }
            }
            if ends == 0 {
                return Ok(());
            }
        }
        Err(nonsense(doing, "the answer does not end"))
    }

    fn receive(&mut self, doing: &str) -> Result<(), KernelError> {
        let received = uninterrupted(|| {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)
        });
        received
            .map(drop)
            .map_err(|cause| failure(doing, cause, String::new()))
    }
}

/// Takes in one message of an answer; true if it is an end.
fn read(
    doing: &str,
    message: &NetlinkBuffer<&[u8]>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<bool, KernelError> {
    let payload = message.payload();
    match (message.message_type(), payload.first_chunk::<4>()) {
        (NLMSG_ERROR, Some(code)) | (NLMSG_DONE, Some(code)) => match i32::from_ne_bytes(*code) {
            code if code < 0 => Err(failure(doing, cause(code), String::new())),
            _ => Ok(true),
        },
        (NLMSG_ERROR | NLMSG_DONE, None) => Ok(true),
        _ => {
            take(payload.get(HEADER_LEN..).unwrap_or_default());
            Ok(false)
        }
    }
}

fn request(kind: u16, flags: u16, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    let kind = (SUBSYSTEM << 8) | kind;
    let flags = flags | NLM_F_REQUEST;
    message(kind, flags, sequence, FAMILY_NETDEV, 0, attributes)
}

/// `nlmsghdr`, `nfgenmsg` and the attributes.
fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &[u8],
) -> Vec<u8> {
    let length = 16 + HEADER_LEN + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

/// `nlattr` with its value, padded to four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// An attribute whose value is attributes.
pub(super) fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

/// A text as the kernel wants it, with a zero byte at its end.
pub(super) fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_own_length() {
        assert_eq!(
            attribute(3, b"ab"),
            [6u16.to_ne_bytes(), 3u16.to_ne_bytes(), *b"ab", [0, 0]].concat()
        );
        let inside = attribute(1, &text("abc"));
        assert_eq!(inside.len(), 8);
        assert_eq!(nested(4, &inside)[2..4], (4u16 | NESTED).to_ne_bytes());
    }

    #[test]
    fn answers_end_with_an_error_or_a_zero() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = message(kind, 0, 1, 0, 0, &[]);
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            let one = next_message("x", &mut &bytes[..]).unwrap().unwrap();
            read("do it", &one, &mut |_| {})
        };
        assert!(answer(NLMSG_ERROR, 0).unwrap() && answer(NLMSG_DONE, 0).unwrap());
        assert!(!answer(0x0a00, 7).unwrap());
        let error = answer(NLMSG_ERROR, -libc::ENOENT).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
    }
}
