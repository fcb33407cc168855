//! One request to the kernel and its whole answer, over rtnetlink (RFC 3549).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::KernelError;

/// The kernel answers within the call that asks; more than this means that it never will.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer read at once, in bytes: the kernel makes them up to 32 KiB.
const ANSWER_LEN_MAX: usize = 1 << 16;
/// Messages in one answer: far more interfaces or addresses than a host has.
const MESSAGES_MAX: usize = 1 << 18;
/// A dump that changes keep interrupting is tried this often.
const DUMP_ATTEMPTS: u32 = 5;
/// Length of the request's header that comes back in an error, in bytes.
const ECHOED_HEADER_LEN: usize = 16;
/// The attribute with the kernel's own words (NLMSGERR_ATTR_MSG).
const ERROR_TEXT: u16 = 1;

/// A socket for requests about the network namespace it was opened in, from whichever thread
/// they are made later.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// An answer is complete, or it has to be asked for again.
enum Answer {
    Whole(Vec<RouteNetlinkMessage>),
    Interrupted,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(ANSWER_TIMEOUT))?;
            // Both only make error messages better; old kernels do without.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            Ok(socket)
        };
        let doing = "open a netlink socket";
        let socket = open().map_err(|cause| failure(doing, cause, String::new()))?;
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(ANSWER_LEN_MAX),
        })
    }

    /// Asks for a change and waits until it is made. `doing` completes the sentence "cannot …".
    pub(crate) fn change(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        self.exchange(doing, message, flags | NLM_F_ACK).map(drop)
    }

    /// Asks for one object; the answer may be empty.
    pub(crate) fn get(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, KernelError> {
        match self.exchange(doing, message, NLM_F_ACK)? {
            Answer::Whole(messages) => Ok(messages.into_iter().next()),
            Answer::Interrupted => Ok(None),
        }
    }

    /// Asks for all objects of a kind. Those this program cannot read are left out: somebody
    /// else's exotic interface must not stop the host's network.
    pub(crate) fn dump(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.exchange(doing, message.clone(), NLM_F_DUMP)? {
                Answer::Whole(messages) => return Ok(messages),
                Answer::Interrupted => {}
            }
        }
        Err(nonsense(doing, "it changes faster than it can be read"))
    }

    fn exchange(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Answer, KernelError> {
        self.send(doing, message, flags)?;
        let mut answer = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive(doing)?;
            let mut rest = self.buffer.as_slice();
            while let Some(one) = next_message(doing, &mut rest)? {
                if one.sequence_number() != self.sequence {
                    continue; // left over from a request that timed out
                }
                interrupted |= one.flags() & NLM_F_DUMP_INTR != 0;
                match read(doing, one)? {
                    Item::Object(object) => answer.push(*object),
                    Item::Unreadable => {}
                    Item::End if interrupted => return Ok(Answer::Interrupted),
                    Item::End => return Ok(Answer::Whole(answer)),
                }
                if answer.len() > MESSAGES_MAX {
                    return Err(nonsense(doing, "the answer does not end"));
                }
            }
        }
    }

    fn send(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        uninterrupted(|| self.socket.send(&bytes, 0))
            .map(drop)
            .map_err(|cause| failure(doing, cause, String::new()))
    }

    fn receive(&mut self, doing: &str) -> Result<(), KernelError> {
        let received = uninterrupted(|| {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, libc::MSG_TRUNC)
        });
        match received {
            Ok(len) if len > self.buffer.len() => Err(nonsense(doing, "it is too long")),
            Ok(_) => Ok(()),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Err(KernelError::NoAnswer {
                doing: doing.to_owned(),
                limit: ANSWER_TIMEOUT,
            }),
            Err(cause) => Err(failure(doing, cause, String::new())),
        }
    }
}

enum Item {
    Object(Box<RouteNetlinkMessage>),
    Unreadable,
    End,
}

/// Takes the first message off `rest`; `None` at its end.
pub(super) fn next_message<'a>(
    doing: &str,
    rest: &mut &'a [u8],
) -> Result<Option<NetlinkBuffer<&'a [u8]>>, KernelError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let message = NetlinkBuffer::new_checked(*rest).map_err(|e| nonsense(doing, &e.to_string()))?;
    let len = usize::try_from(message.length()).unwrap_or(usize::MAX);
    let (first, _) = rest
        .split_at_checked(len)
        .ok_or_else(|| nonsense(doing, "a message is cut short"))?;
    // Messages start at multiples of four bytes; the padding after the last may be missing.
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Ok(Some(NetlinkBuffer::new(first)))
}

fn read(doing: &str, message: NetlinkBuffer<&[u8]>) -> Result<Item, KernelError> {
    let flags = message.flags();
    let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.into_inner());
    match parsed.map(|message| message.payload) {
        Ok(NetlinkPayload::Error(error)) => match error.code {
            None => Ok(Item::End),
            Some(code) => Err(failure(
                doing,
                cause(code.get()),
                explanation(&error, flags),
            )),
        },
        Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
            Err(failure(doing, cause(done.code), String::new()))
        }
        Ok(NetlinkPayload::Done(_)) => Ok(Item::End),
        Ok(NetlinkPayload::InnerMessage(object)) => Ok(Item::Object(Box::new(object))),
        Ok(_) => Ok(Item::Unreadable),
        Err(error) => {
            tracing::debug!(doing, %error, "left out what the kernel said of one object");
            Ok(Item::Unreadable)
        }
    }
}

/// The error that the kernel names by a negative number.
pub(super) fn cause(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_neg())
}

/// The kernel's own words about an error, in parentheses, if it had any.
fn explanation(error: &ErrorMessage, flags: u16) -> String {
    let attributes = match flags & NLM_F_ACK_TLVS {
        0 => None,
        _ => error.header.get(ECHOED_HEADER_LEN..),
    };
    NlasIterator::new(attributes.unwrap_or_default())
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ERROR_TEXT)
        .map(|attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            format!(" ({})", text.trim_end_matches('\0'))
        })
        .unwrap_or_default()
}

/// Repeats a system call that a signal interrupted.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

pub(crate) fn failure(doing: &str, cause: io::Error, detail: String) -> KernelError {
    let doing = doing.to_owned();
    match cause.kind() {
        io::ErrorKind::PermissionDenied => KernelError::NotPermitted { doing },
        _ => KernelError::Refused {
            doing,
            cause,
            detail,
        },
    }
}

pub(crate) fn nonsense(doing: &str, reason: &str) -> KernelError {
    KernelError::Nonsense {
        doing: doing.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What a fuzzer drives: everything a kernel's answer may hold.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(mut rest: &[u8]) {
    while let Ok(Some(message)) = next_message("fuzz", &mut rest) {
        if let Err(error) = read("fuzz", message) {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NLMSG_ERROR;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let len = (16 + payload.len()) as u32;
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_refusal_tells_what_was_done_and_the_kernels_own_words() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        payload.extend(9u16.to_ne_bytes());
        payload.extend(ERROR_TEXT.to_ne_bytes());
        payload.extend(b"nope\0\0\0\0");
        let bytes = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &payload);
        let first = next_message("x", &mut &bytes[..]).unwrap().unwrap();
        let error = read("do it", first).err().unwrap().to_string();
        assert!(
            error.starts_with("cannot do it: Invalid argument"),
            "{error}"
        );
        assert!(error.ends_with(" (nope)"), "{error}");
    }

    #[test]
    fn permission_is_asked_for_by_name() {
        let payload = (-libc::EPERM).to_ne_bytes();
        let bytes = message(NLMSG_ERROR, 0, &payload);
        let first = next_message("x", &mut &bytes[..]).unwrap().unwrap();
        let error = read("do it", first).err().unwrap().to_string();
        assert_eq!(error, "cannot do it: not permitted; run as root");
    }

    #[test]
    fn damaged_answers_are_errors_and_never_panics() {
        let whole = message(NLMSG_ERROR, 0, &[0; 20]);
        for len in 1..whole.len() {
            assert!(next_message("x", &mut &whole[..len]).is_err(), "{len}");
        }
        for short in 0..16u32 {
            let mut bytes = whole.clone();
            bytes[..4].copy_from_slice(&short.to_ne_bytes());
            assert!(next_message("x", &mut &bytes[..]).is_err(), "{short}");
        }
        let cut = message(NLMSG_ERROR, 0, &[0; 2]);
        let first = next_message("x", &mut &cut[..]).unwrap().unwrap();
        assert!(matches!(read("x", first), Ok(Item::Unreadable)));
    }
}
