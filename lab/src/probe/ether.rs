//! Frames of any EtherType, by packet sockets (packet(7)).

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex},
};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

use super::{
    TICK,
    background::{Background, Running},
    is_timeout,
};
use crate::{Namespace, error::lock, netlink, sys};

/// Most frames a listener keeps.
const MAX_FRAMES: usize = 4096;
/// Longer frames are cut: the largest segment offload makes.
const MAX_FRAME_BYTES: usize = 65_600;

/// Collects the frames of one EtherType that come in by one interface.
#[derive(Debug)]
pub struct EtherListener {
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    work: Background<()>,
}

impl EtherListener {
    /// Listens; frames to other stations are seen only if the interface is promiscuous.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn start(at: &Namespace, interface: &str, ethertype: u16) -> io::Result<EtherListener> {
        let socket = packet_socket(at, interface, ethertype)?;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&frames);
        let keep = move |frame: &[u8]| {
            let mut frames = lock(&shared);
            if frames.len() < MAX_FRAMES {
                frames.push(frame.to_vec());
            }
        };
        let work = Background::start(move |running| read_frames(&socket, running, keep))?;
        Ok(EtherListener { frames, work })
    }

    /// Sends one frame from the interface's own address.
    ///
    /// # Errors
    /// If there is no such interface or the kernel refuses.
    pub fn send(
        from: &Namespace,
        interface: &str,
        destination: [u8; 6],
        ethertype: u16,
        payload: &[u8],
    ) -> io::Result<()> {
        let source = from.enter(|| netlink::mac(interface))?;
        let socket = packet_socket(from, interface, 0)?;
        let frame = [&destination[..], &source, &ethertype.to_be_bytes(), payload].concat();
        (&socket).write_all(&frame)
    }

    /// How many frames have come so far.
    pub fn count(&self) -> usize {
        lock(&self.frames).len()
    }

    /// Stops listening: the frames, headers included, at most 4096.
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.work.stop();
        std::mem::take(&mut lock(&self.frames))
    }
}

/// Puts whole frames on the wire, whoever they say they come from.
#[derive(Debug)]
pub struct FrameSender(Socket);

impl FrameSender {
    /// Opens an interface for sending.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn open(from: &Namespace, interface: &str) -> io::Result<FrameSender> {
        packet_socket(from, interface, 0).map(FrameSender)
    }

    /// Sends one frame, Ethernet header included.
    ///
    /// # Errors
    /// If it is longer than the interface takes, or the interface is gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write_all(frame)
    }
}

/// A packet socket on one interface for one EtherType (0 receives nothing).
pub(super) fn packet_socket(at: &Namespace, interface: &str, ethertype: u16) -> io::Result<Socket> {
    at.enter(|| {
        // Opened without a protocol, so that it hears nothing of other interfaces before it is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let index = name_to_index(&socket, interface)?;
        sys::bind_packet(&socket, index, ethertype)?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(socket)
    })
}

/// Hands each frame to `keep` until the probe is stopped.
pub(super) fn read_frames(mut socket: &Socket, running: &Running, mut keep: impl FnMut(&[u8])) {
    let mut buffer = vec![0; MAX_FRAME_BYTES];
    while running.goes_on() {
        match socket.read(&mut buffer) {
            Ok(length) => keep(&buffer[..length]),
            Err(error) if is_timeout(&error) => {}
            // The interface was down for a moment, or is gone.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
            Err(_) => return,
        }
    }
}
