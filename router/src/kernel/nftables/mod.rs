//! The little of nf_tables that is used here, over netlink. [`encode`] writes objects, [`decode`]
//! reads them. Layouts: linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod shape;

use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};

use self::decode::{Attributes, TableState};
use self::encode::Table;
use super::KernelError;
use super::netlink::{cause, failure, next_message, nonsense, uninterrupted};

/// Somebody may be loading a large ruleset, which makes others wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read at once, in bytes: the kernel makes them up to 32 KiB.
const ANSWER_LEN_MAX: usize = 1 << 16;
/// Answers read to one request at most.
const ANSWERS_MAX: usize = 1 << 12;
/// Longest batch in bytes: the elements of sets of tens of thousands of peers.
const BATCH_LEN_MAX: usize = 4 << 20;
/// A dump that changes keep interrupting is tried this often.
const DUMP_ATTEMPTS: u32 = 5;

/// Tables listed at most: far more than any host has.
const TABLES_MAX: usize = 1 << 12;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
/// Length of `nfgenmsg`, which comes before the attributes, in bytes.
const HEADER_LEN: usize = 4;

/// Which packets a table sees (NFPROTO of linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family(pub(crate) u8);

impl Family {
    /// All of them, where objects are listed.
    pub(crate) const ANY: Family = Family(0);
    /// IPv4 and IPv6.
    pub(crate) const INET: Family = Family(1);
    pub(crate) const IPV4: Family = Family(2);
    /// Frames of one interface.
    pub(crate) const NETDEV: Family = Family(5);
    /// Frames of bridges.
    pub(crate) const BRIDGE: Family = Family(7);
    pub(crate) const IPV6: Family = Family(10);
}

/// A request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) family: Family,
    /// What is asked for, one of [`encode::message`].
    pub(crate) kind: u16,
    /// `NLM_F_CREATE` and the like.
    pub(crate) flags: u16,
    pub(crate) attributes: Vec<u8>,
}

/// A socket for requests about the network namespace it was opened in.
pub(crate) struct Nftables {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// What an answer is taken in by: family and attributes of each object.
type Take<'a> = &'a mut dyn FnMut(Family, &[u8]);

impl Nftables {
    pub(crate) fn open() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            // A batch is one datagram. Without the privilege, short ones do.
            let _ = set_socket_send_buffer_size_force(socket.as_fd(), BATCH_LEN_MAX);
            Ok(socket)
        };
        let doing = "open a socket to nftables";
        let socket = open().map_err(|cause| failure(doing, cause, String::new()))?;
        Ok(Nftables {
            socket,
            buffer: Vec::with_capacity(ANSWER_LEN_MAX),
            sequence: 0,
        })
    }

    /// Opens one if the kernel has nftables: where it has not, there is nothing to list or remove.
    pub(crate) fn available() -> Result<Option<Self>, KernelError> {
        let mut nftables = match Self::open() {
            Ok(nftables) => nftables,
            Err(error @ KernelError::NotPermitted { .. }) => return Err(error),
            Err(_) => return Ok(None),
        };
        let doing = "ask for nftables";
        let kind = (Family::ANY, encode::message::GET_GENERATION);
        match nftables.get(doing, kind, &[], &mut |_, _| {}) {
            Ok(_) => Ok(Some(nftables)),
            Err(error @ KernelError::NotPermitted { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Hands the one object that the attributes name to `take`; false if there is none.
    pub(crate) fn get(
        &mut self,
        doing: &str,
        (family, kind): (Family, u16),
        attributes: &[u8],
        take: Take<'_>,
    ) -> Result<bool, KernelError> {
        let first = self.number(1);
        let request = request(family, kind, NLM_F_ACK, first, attributes);
        match self.exchange(doing, &request, (first, 1), take) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Collects all objects of a kind, as far as the attributes narrow them down, with `take`.
    pub(crate) fn dump<T: Default>(
        &mut self,
        doing: &str,
        (family, kind): (Family, u16),
        attributes: &[u8],
        take: impl Fn(&mut T, Family, &[u8]),
    ) -> Result<T, KernelError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut all = T::default();
            let first = self.number(1);
            let request = request(family, kind, NLM_F_DUMP, first, attributes);
            let take = &mut |family, attributes: &[u8]| take(&mut all, family, attributes);
            match self.exchange(doing, &request, (first, 1), take) {
                Ok(true) => return Ok(all),
                Ok(false) => {}
                Err(error) if error.errno() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(nonsense(doing, "it changes faster than it can be read"))
    }

    /// Makes changes, all or none.
    pub(crate) fn commit(&mut self, doing: &str, changes: &[Change]) -> Result<(), KernelError> {
        let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        // The begin has a number too: what fails as a whole is answered by it.
        let begin = self.number(count.saturating_add(2));
        let any = Family::ANY.0;
        let mut batch = message(BATCH_BEGIN, NLM_F_REQUEST, begin, any, SUBSYSTEM, &[]);
        let mut sequence = begin;
        for change in changes {
            sequence = sequence.wrapping_add(1);
            let flags = change.flags | NLM_F_ACK;
            let one = request(
                change.family,
                change.kind,
                flags,
                sequence,
                &change.attributes,
            );
            batch.extend(one);
        }
        let end = sequence.wrapping_add(1);
        batch.extend(message(BATCH_END, NLM_F_REQUEST, end, any, SUBSYSTEM, &[]));
        if batch.len() > BATCH_LEN_MAX {
            return Err(nonsense(doing, "the request is too long"));
        }
        self.exchange(doing, &batch, (begin, count), &mut |_, _| {})
            .map(drop)
    }

    /// Names of all tables of a family.
    pub(crate) fn tables(
        &mut self,
        doing: &str,
        family: Family,
    ) -> Result<Vec<String>, KernelError> {
        let kind = (family, encode::message::GET_TABLE);
        self.dump(
            doing,
            kind,
            &[],
            |names: &mut Vec<String>, _, attributes| {
                if let Some(table) = TableState::read(Attributes(attributes))
                    && names.len() < TABLES_MAX
                {
                    names.push(table.name);
                }
            },
        )
    }

    /// What is said of a table; `None` if there is none, or if the kernel lacks its family.
    pub(crate) fn table(
        &mut self,
        doing: &str,
        table: &Table,
    ) -> Result<Option<TableState>, KernelError> {
        let kind = (table.family, encode::message::GET_TABLE);
        let mut found = None;
        let got = self.get(doing, kind, &table.attribute(), &mut |_, attributes| {
            found = TableState::read(Attributes(attributes));
        });
        match got.as_ref().map_err(KernelError::errno) {
            Ok(_) | Err(Some(libc::EAFNOSUPPORT)) => {}
            Err(_) => drop(got?),
        }
        Ok(found)
    }

    /// Deletes a table and what is in it; success too if there is none.
    pub(crate) fn remove_table(&mut self, doing: &str, table: &Table) -> Result<(), KernelError> {
        if self.table(doing, table)?.is_none() {
            return Ok(());
        }
        match self.commit(doing, &[table.delete()]) {
            // Somebody else was faster.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Reserves so many numbers of requests.
    fn number(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Sends a request and hands what comes to `take`, until `ends` ends have come, or an error.
    /// False if what was taken is not of one moment.
    fn exchange(
        &mut self,
        doing: &str,
        request: &[u8],
        (first, mut ends): (u32, u32),
        take: Take<'_>,
    ) -> Result<bool, KernelError> {
        uninterrupted(|| self.socket.send(request, 0))
            .map_err(|cause| failure(doing, cause, String::new()))?;
        let last = self.sequence;
        let mut whole = true;
        for _ in 0..ANSWERS_MAX {
            self.receive(doing)?;
            let mut rest = self.buffer.as_slice();
            while let Some(one) = next_message(doing, &mut rest)? {
                // What is left over of a request that failed has an earlier number.
                if one.sequence_number().wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                whole &= one.flags() & NLM_F_DUMP_INTR == 0;
                if read(doing, &one, take)? {
                    ends = ends.saturating_sub(1);
                }
            }
            if ends == 0 {
                return Ok(whole);
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
fn read(doing: &str, message: &NetlinkBuffer<&[u8]>, take: Take<'_>) -> Result<bool, KernelError> {
    let payload = message.payload();
    match (message.message_type(), payload.first_chunk::<4>()) {
        (NLMSG_ERROR, Some(code)) | (NLMSG_DONE, Some(code)) => match i32::from_ne_bytes(*code) {
            code if code < 0 => Err(failure(doing, cause(code), String::new())),
            _ => Ok(true),
        },
        (NLMSG_ERROR | NLMSG_DONE, None) => Ok(true),
        (_, Some([family, ..])) => {
            take(
                Family(*family),
                payload.get(HEADER_LEN..).unwrap_or_default(),
            );
            Ok(false)
        }
        (_, None) => Ok(false),
    }
}

fn request(family: Family, kind: u16, flags: u16, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    let kind = (SUBSYSTEM << 8) | kind;
    let flags = flags | NLM_F_REQUEST;
    message(kind, flags, sequence, family.0, 0, attributes)
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

/// What a fuzzer drives: everything an answer of nftables may hold.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(mut rest: &[u8]) {
    while let Ok(Some(message)) = next_message("fuzz", &mut rest) {
        if let Err(error) = read("fuzz", &message, &mut |_, attributes| {
            decode::fuzz(attributes)
        }) {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_with_an_error_or_a_zero() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = message(kind, 0, 1, 0, 0, &[]);
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            let one = next_message("x", &mut &bytes[..]).unwrap().unwrap();
            read("do it", &one, &mut |_, _| {})
        };
        assert!(answer(NLMSG_ERROR, 0).unwrap() && answer(NLMSG_DONE, 0).unwrap());
        assert!(!answer(0x0a00, 7).unwrap());
        let error = answer(NLMSG_ERROR, -libc::ENOENT).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
    }
}
