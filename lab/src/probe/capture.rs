//! Everything that crosses an interface, in both directions.

use std::{
    io,
    sync::{Arc, Mutex},
};

use super::{
    background::Background,
    enlarge_receive_buffer,
    ether::{packet_socket, read_frames},
};
use crate::{Namespace, error::lock, sys};

const ETH_P_ALL: u16 = 0x0003;
/// Most bytes one capture keeps; what comes later is counted as lost.
const MAX_BYTES: usize = 64 << 20;
/// Queue of the socket, so that a burst does not get lost before it is read.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;

/// Records the frames that an interface receives and sends. Frames that a cut drops are still seen
/// where they arrive.
#[derive(Debug)]
pub struct Capture {
    kept: Arc<Mutex<Kept>>,
    work: Background<()>,
}

#[derive(Debug, Default)]
struct Kept {
    frames: Vec<Vec<u8>>,
    bytes: usize,
    lost: u64,
}

impl Capture {
    /// Starts recording.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn start(at: &Namespace, interface: &str) -> io::Result<Capture> {
        let socket = packet_socket(at, interface, ETH_P_ALL)?;
        enlarge_receive_buffer(&socket, RECEIVE_BUFFER_BYTES)?;
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Arc::clone(&kept);
        let work = Background::start(move |running| {
            read_frames(&socket, running, |frame| lock(&shared).add(frame));
            lock(&shared).lost += sys::packet_drops(&socket).unwrap_or(0);
        })?;
        Ok(Capture { kept, work })
    }

    /// Whether one of the frames so far contains these bytes. Nothing contains the empty string.
    pub fn contains(&self, needle: &[u8]) -> bool {
        lock(&self.kept)
            .frames
            .iter()
            .any(|frame| has(frame, needle))
    }

    /// How many frames were recorded so far.
    pub fn count(&self) -> usize {
        lock(&self.kept).frames.len()
    }

    /// Stops recording: the frames, headers included, in their order.
    pub fn stop(self) -> Vec<Vec<u8>> {
        self.stop_counted().0
    }

    /// Stops recording: the frames, and how many were lost because they came too fast or were too
    /// many. A proof that something did *not* cross needs zero.
    pub fn stop_counted(self) -> (Vec<Vec<u8>>, u64) {
        self.work.stop();
        let kept = std::mem::take(&mut *lock(&self.kept));
        (kept.frames, kept.lost)
    }
}

impl Kept {
    fn add(&mut self, frame: &[u8]) {
        if self.bytes + frame.len() > MAX_BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += frame.len();
        self.frames.push(frame.to_vec());
    }
}

fn has(frame: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && frame.windows(needle.len()).any(|window| window == needle)
}
