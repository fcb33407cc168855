//! The fast TAP port: each frame with a virtio header, so that super-frames of up to 64 KiB cross
//! in one system call and no transport checksum is computed on this host.
//!
//! A port has several of the interface's queues. The kernel drops what comes to one that is full, so who
//! floods fills the queue of its own frames; they are read in turns, and the others have theirs.
//!
//! The interface goes when the process goes.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use super::coalesce::PARTS_MAX;
use super::offload::{Offload, VIRTIO_HEADER_LEN};
use super::{FrameBatch, Offloads, Port, QUEUES_MAX};
use crate::sys::tap::Queue;
use crate::sys::{poll, steer, tap};

/// Most queues of one interface (`MAX_TAP_QUEUES` of the kernel).
const INTERFACE_QUEUES_MAX: usize = 256;
/// What is read of a queue before the next has its turn, if there is another: one super-frame, or as many small
/// frames as take a part of its time.
const TURN_BYTES: usize = 32 << 10;
const TURN_FRAMES: usize = 16;

/// A TAP interface of the calling thread's network namespace, with virtio headers.
pub struct FastTap {
    name: String,
    queues: Vec<OwnedFd>,
    /// The queue that has its turn.
    turn: usize,
    /// Which queues have something, a bit each, if somebody has just looked.
    ready: Option<u32>,
    offloads: Offloads,
}

impl FastTap {
    /// Makes the interface with so many ports, each with several queues; it is down and without address. All
    /// frames of a flow come by the same one, and all of one pair of MACs by queues of one number.
    ///
    /// # Errors
    /// If the kernel has no virtio headers or no TCP offload for TAPs, without the privilege,
    /// without `/dev/net/tun`, or if the name is taken. Nothing is left behind.
    pub fn open(name: &str, ports: usize) -> io::Result<Vec<Self>> {
        let ports = ports.max(1);
        let each = (INTERFACE_QUEUES_MAX / ports).clamp(1, QUEUES_MAX);
        let which = match ports * each {
            1 => Queue::Only,
            _ => Queue::First,
        };
        let (first, name) = tap::open(name, which)?;
        let udp = tap::set_offloads(&first, tap::TCP | tap::UDP).is_ok();
        if !udp {
            tap::set_offloads(&first, tap::TCP)?;
        }
        if which == Queue::First {
            // Without it flows may change their queue, and overtake themselves then.
            let steered = steer::load_program(ports, each).and_then(|program| {
                // The kernel keeps the program while the interface has it.
                tap::set_steering(&first, &program)
            });
            if let Err(error) = steered {
                tracing::warn!(%error, "the kernel chooses the queues of flows by itself");
            }
        }
        let offloads = Offloads { tcp: true, udp };
        let port = |_| FastTap {
            name: name.clone(),
            queues: Vec::with_capacity(each),
            turn: 0,
            ready: None,
            offloads,
        };
        let mut all: Vec<FastTap> = (0..ports).map(port).collect();
        all[0].queues.push(first);
        // The kernel numbers queues in the order in which they are opened.
        for number in 1..ports * each {
            let queue = tap::open(&name, Queue::Next)?.0;
            all[number % ports].queues.push(queue);
        }
        Ok(all)
    }

    /// Which queues have something, a bit each.
    fn waiting(&self) -> u32 {
        bits_of(&poll::readable(&self.fds(), Duration::ZERO))
    }
}

fn bits_of(ready: &[bool]) -> u32 {
    let bits = (0..).zip(ready);
    bits.map(|(at, ready)| u32::from(*ready) << at).sum()
}

/// Reads one frame with what it leaves to do; a length of 0 stands for nothing.
fn read_one(queue: &OwnedFd, space: &mut [u8]) -> io::Result<(usize, Offload)> {
    loop {
        let mut header = [0; VIRTIO_HEADER_LEN];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(space)];
        let len = rustix::io::readv(queue, &mut parts)?;
        let Some(len) = len.checked_sub(VIRTIO_HEADER_LEN) else {
            return Ok((0, Offload::default()));
        };
        // One that makes no sense is the kernel's mistake and nothing to carry.
        if let Some(offload) = Offload::decode(&header, len) {
            return Ok((len, offload));
        }
    }
}

/// Whose turn it is among queues that have something.
struct Turns {
    waiting: u32,
    at: usize,
    frames: usize,
    bytes: usize,
}

impl Turns {
    fn begin(waiting: u32, at: usize) -> Self {
        Turns {
            waiting,
            at,
            frames: 0,
            bytes: 0,
        }
    }

    /// The queue to read from, if one has something.
    fn queue(&mut self) -> Option<usize> {
        if self.waiting == 0 {
            return None;
        }
        let is_alone = self.waiting == 1 << self.at;
        if !is_alone && (self.frames >= TURN_FRAMES || self.bytes >= TURN_BYTES) {
            self.next();
        }
        while self.waiting & (1 << self.at) == 0 {
            self.next();
        }
        Some(self.at)
    }

    fn next(&mut self) {
        *self = Turns::begin(self.waiting, (self.at + 1) % QUEUES_MAX);
    }

    fn took(&mut self, len: usize) {
        (self.frames, self.bytes) = (self.frames + 1, self.bytes + len);
    }

    /// The queue whose turn it is has nothing more.
    fn is_empty_now(&mut self) {
        self.waiting &= !(1 << self.at);
    }
}

impl Port for FastTap {
    fn name(&self) -> &str {
        &self.name
    }

    fn fd(&self) -> RawFd {
        self.queues[0].as_raw_fd()
    }

    fn fds(&self) -> [RawFd; QUEUES_MAX] {
        let mut all = [-1; QUEUES_MAX];
        for (slot, queue) in all.iter_mut().zip(&self.queues) {
            *slot = queue.as_raw_fd();
        }
        all
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn note_ready(&mut self, ready: &[bool]) {
        self.ready = Some(bits_of(ready.get(..QUEUES_MAX).unwrap_or(ready)));
    }

    fn read_batch(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        let waiting = self.ready.take().unwrap_or_else(|| self.waiting());
        let mut turns = Turns::begin(waiting, self.turn);
        let queues = &self.queues;
        let result = batch.fill_offloaded(|space| {
            while let Some(queue) = turns.queue().and_then(|at| queues.get(at)) {
                match read_one(queue, space) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => turns.is_empty_now(),
                    Ok((0, _)) => turns.is_empty_now(),
                    Ok((len, offload)) => {
                        turns.took(len);
                        return Ok((len, offload));
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(io::ErrorKind::WouldBlock.into())
        });
        self.turn = (turns.at + 1) % QUEUES_MAX;
        result
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.write_parts(&[IoSlice::new(frame)], &Offload::default())
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>], offload: &Offload) -> io::Result<()> {
        let header = offload.encode();
        let mut all = [IoSlice::new(&[]); PARTS_MAX + 1];
        all[0] = IoSlice::new(&header);
        let count = parts.len().min(PARTS_MAX);
        all[1..=count].copy_from_slice(&parts[..count]);
        if count < parts.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::io::writev(&self.queues[0], &all[..=count])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_have_something_are_read_in_turns() {
        let mut turns = Turns::begin(0b1001_0010, 2);
        let mut order = Vec::new();
        for len in [100, TURN_BYTES, 1, TURN_BYTES, TURN_BYTES] {
            order.extend(turns.queue());
            turns.took(len);
        }
        assert_eq!(order, [4, 4, 7, 7, 1]);
        for expected in [Some(4), Some(7), Some(1), None] {
            assert_eq!(turns.queue(), expected);
            turns.is_empty_now();
        }
    }

    #[test]
    fn many_small_frames_end_a_turn_too_unless_no_other_waits() {
        let mut turns = Turns::begin(0b11, 0);
        let mut order = Vec::new();
        for _ in 0..2 * TURN_FRAMES {
            order.extend(turns.queue());
            turns.took(60);
        }
        assert_eq!(order[..TURN_FRAMES], [0; TURN_FRAMES]);
        assert_eq!(order[TURN_FRAMES..], [1; TURN_FRAMES]);
        turns.is_empty_now();
        for _ in 0..2 * TURN_FRAMES {
            assert_eq!(turns.queue(), Some(0));
            turns.took(60);
        }
    }
}
