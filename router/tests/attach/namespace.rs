//! Network namespaces that vanish with the test.
#![allow(unsafe_code)]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use rmesh_router::attach::TargetSpec;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

const NEED_ROOT: &str = "these tests make network namespaces and need root: \
     sudo -E env \"PATH=$PATH\" cargo test --workspace";

/// An unnamed network namespace, kept alive by an open file only.
pub(crate) struct Namespace {
    file: File,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            // SAFETY: the thread ends here and shares nothing that a new network changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        });
        match made.join().unwrap() {
            Ok(file) => Namespace { file },
            Err(error) => panic!("{NEED_ROOT} ({error})"),
        }
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.file.as_fd(), network).expect(NEED_ROOT);
                work()
            });
            inside.join().unwrap()
        })
    }

    pub(crate) fn target(&self) -> TargetSpec {
        TargetSpec::Path(self.path().into())
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A UDP socket inside, bound to this address and any port.
    pub(crate) fn udp(&self, address: IpAddr) -> UdpSocket {
        let bound = self.enter(|| UdpSocket::bind((address, 0))).unwrap();
        let limit = Some(Duration::from_secs(2));
        bound.set_read_timeout(limit).unwrap();
        bound
    }
}

/// Whether a datagram sent by one socket to the address of the other arrives, and from whom.
pub(crate) fn delivers(from: &UdpSocket, to: &UdpSocket) -> bool {
    let address = to.local_addr().unwrap();
    deliver_to(from, to, address)
}

/// Whether a datagram sent to `address` arrives at `to`.
pub(crate) fn deliver_to(from: &UdpSocket, to: &UdpSocket, address: SocketAddr) -> bool {
    from.send_to(b"hello", address).unwrap();
    let mut buffer = [0; 16];
    match to.recv_from(&mut buffer) {
        Ok((len, source)) => buffer[..len] == *b"hello" && source == from.local_addr().unwrap(),
        Err(_) => false,
    }
}

/// Any IPv4 address.
pub(crate) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
