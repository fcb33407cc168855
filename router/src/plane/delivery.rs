//! Frames on their way to the bridge: those of one batch wait for each other, so that they can be
//! joined, and are written together.

use std::io::IoSlice;
use std::ops::Range;

use rmesh_wire::bundle::BUNDLED_MAX;
use rmesh_wire::payload::PartialChecksum;

use super::buffer::{BATCH_LEN, Buffer};
use super::stats::{Reason, WorkerStats};
use crate::port::coalesce::{Candidate, Coalescer};
use crate::port::offload::{CutKind, Offload};
use crate::port::{Port, checksum};

/// Frames of one batch, at most; beyond it those that came are written.
const FRAMES_MAX: usize = 1_024;
/// Of these, such as were put together from fragments.
const OWNED_MAX: usize = BATCH_LEN;

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the batch's buffer of this number.
    Batch(usize),
    /// In memory of its own.
    Owned(usize),
}

struct Waiting {
    place: Place,
    from: usize,
    to: usize,
    checksum: Option<PartialChecksum>,
}

/// The frames that wait.
pub(crate) struct Deliveries {
    waiting: Vec<Waiting>,
    owned: Vec<Vec<u8>>,
    coalescer: Coalescer,
    scratch: Buffer,
}

impl Default for Deliveries {
    fn default() -> Self {
        Deliveries {
            // Whether there is room is asked once a datagram.
            waiting: Vec::with_capacity(FRAMES_MAX + BUNDLED_MAX),
            owned: Vec::with_capacity(OWNED_MAX),
            coalescer: Coalescer::default(),
            scratch: Buffer::default(),
        }
    }
}

impl Deliveries {
    /// Whether no more frame may be added before [`Deliveries::write`].
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= FRAMES_MAX || self.owned.len() >= OWNED_MAX
    }

    /// Adds the frame that is in the batch's buffer `number` at `range`.
    pub(crate) fn add(
        &mut self,
        number: usize,
        range: Range<usize>,
        checksum: Option<PartialChecksum>,
    ) {
        self.put(Place::Batch(number), range, checksum);
    }

    /// Adds the frame that is in `bytes` at `range`.
    pub(crate) fn add_owned(
        &mut self,
        bytes: Vec<u8>,
        range: Range<usize>,
        checksum: Option<PartialChecksum>,
    ) {
        self.put(Place::Owned(self.owned.len()), range, checksum);
        self.owned.push(bytes);
    }

    fn put(&mut self, place: Place, range: Range<usize>, checksum: Option<PartialChecksum>) {
        self.waiting.push(Waiting {
            place,
            from: range.start,
            to: range.end,
            checksum,
        });
    }

    /// Writes everything that waits; `batch` has the buffers it was added from.
    pub(crate) fn write(&mut self, batch: &[Buffer], port: &mut dyn Port, stats: &WorkerStats) {
        let (waiting, owned, scratch) = (&self.waiting, &self.owned, &mut self.scratch);
        let candidate = |number: u16| {
            let frame = waiting.get(usize::from(number))?;
            let bytes = match frame.place {
                Place::Batch(number) => batch.get(number)?.data(),
                Place::Owned(number) => owned.get(number)?,
            };
            Some(Candidate {
                frame: bytes.get(frame.from..frame.to)?,
                checksum: frame.checksum,
            })
        };
        let count = u16::try_from(waiting.len()).unwrap_or(u16::MAX);
        let offloads = port.offloads();
        let mut write = |parts: &[IoSlice<'_>], offload: &Offload, frames: usize| {
            write_one(port, scratch, (parts, offload, frames), stats);
        };
        let joins = |kind| kind != CutKind::Udp || offloads.udp;
        if offloads.tcp {
            self.coalescer.write_all(count, joins, candidate, write);
        } else {
            for frame in (0..count).filter_map(candidate) {
                let offload = Offload {
                    checksum: frame.checksum,
                    cut: None,
                };
                write(&[IoSlice::new(frame.frame)], &offload, 1);
            }
        }
        self.waiting.clear();
        self.owned.clear();
    }
}

/// Writes one frame, joined of `frames`; completes its checksum for a port that cannot.
fn write_one(
    port: &mut dyn Port,
    scratch: &mut Buffer,
    (parts, offload, frames): (&[IoSlice<'_>], &Offload, usize),
    stats: &WorkerStats,
) {
    let written = match (parts, offload.checksum) {
        ([frame], None) => port.write(frame),
        ([frame], Some(partial)) if !port.offloads().tcp => {
            if scratch.assign(&[frame]) && checksum::complete(scratch.data_mut(), partial) {
                port.write(scratch.data())
            } else {
                Err(std::io::ErrorKind::InvalidData.into())
            }
        }
        _ => port.write_parts(parts, offload),
    };
    if written.is_err() {
        return stats.drop_many(Reason::PortWrite, frames as u64);
    }
    let len: usize = parts.iter().map(|part| part.len()).sum();
    stats.writes_to_bridge.add(1);
    stats.frames_to_bridge.add(frames as u64);
    stats.bytes_to_bridge.add(len as u64);
}
