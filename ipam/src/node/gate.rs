//! Outputs wait for writes: nothing comes out that depends on a change which is not durable.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use rmesh_wire::PeerId;

use crate::api::{Event, Refusal};
use crate::entry::Entry;
use crate::limits::{TRANSMITS_MAX, WRITES_MAX};

/// Writes on their way to the disk, and what has to wait for them.
///
/// Every output is queued with the number of the last write queued before it. That is more than it
/// depends on, and therefore enough. It has to be durable; but for answers that follow from a
/// reservation (see `reserve`), which is durable itself, it is enough that it outlives this process.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    queued: u64,
    written: u64,
    /// Writes up to this number outlive this process, though maybe not the host.
    handed: u64,
    writes: VecDeque<(u64, Vec<u8>)>,
    events: VecDeque<(u64, Event)>,
    /// Those that need not wait for the disk.
    early: VecDeque<(u64, Event)>,
    transmits: VecDeque<(u64, PeerId, Vec<u8>)>,
    halted: Option<String>,
    dropped: u64,
}

impl Gate {
    /// Goes on from a log of `written` entries.
    pub(crate) fn new(written: u64) -> Self {
        Gate {
            queued: written,
            written,
            ..Gate::default()
        }
    }

    /// The number of the last write queued.
    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    /// Whether no input is to be taken in that may cause writes.
    pub(crate) fn is_full(&self) -> bool {
        self.writes.len() >= WRITES_MAX
    }

    pub(crate) fn write(&mut self, entry: &Entry) {
        match entry.encode() {
            Ok(bytes) => {
                self.queued += 1;
                self.writes.push_back((self.queued, bytes));
            }
            Err(error) => self.fail(alloc::format!("an entry cannot be encoded: {error}")),
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        // Once halted, all that is said is that it is halted: that depends on no write.
        let number = if self.halted.is_some() {
            0
        } else {
            self.queued
        };
        self.events.push_back((number, event));
    }

    /// An event that waits only until the writes before it outlive this process.
    pub(crate) fn early_event(&mut self, event: Event) {
        self.early.push_back((self.queued, event));
    }

    pub(crate) fn transmit(&mut self, to: PeerId, bytes: Vec<u8>) {
        if self.transmits.len() >= TRANSMITS_MAX {
            self.dropped += 1;
            return;
        }
        self.transmits.push_back((self.queued, to, bytes));
    }

    pub(crate) fn count_drop(&mut self) {
        self.dropped += 1;
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes up to `number` are durable; returns up to which they are now.
    pub(crate) fn confirm(&mut self, number: u64) -> u64 {
        self.written = self.written.max(number.min(self.queued));
        self.written
    }

    pub(crate) fn hand_over(&mut self, number: u64) {
        self.handed = self.handed.max(number.min(self.queued));
    }

    /// Up to which write early events need not wait.
    fn outlives(&self) -> u64 {
        self.written.max(self.handed)
    }

    /// The disk refused: nothing that waits comes out any more, and clients are told so.
    pub(crate) fn fail(&mut self, why: String) {
        let (written, outlives) = (self.written, self.outlives());
        let events = self.events.iter_mut().map(|event| (event, written));
        let early = self.early.iter_mut().map(|event| (event, outlives));
        for ((number, event), known) in events.chain(early) {
            if *number <= known {
                continue;
            }
            let refusal = Refusal::Disk(why.clone());
            match event {
                Event::Answer { result, .. } => *result = Err(refusal),
                Event::Claimed { .. } | Event::Notice(_) => {
                    *event = Event::Notice(alloc::format!("{refusal}"));
                }
            }
            *number = 0;
        }
        self.transmits
            .retain(|(number, ..)| *number <= self.written);
        self.writes.clear();
        self.halted.get_or_insert(why);
    }

    pub(crate) fn halted(&self) -> Option<&String> {
        self.halted.as_ref()
    }

    pub(crate) fn poll_write(&mut self) -> Option<(u64, Vec<u8>)> {
        self.writes.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let outlives = self.outlives();
        if self.early.front().is_some_and(|(at, _)| *at <= outlives) {
            return self.early.pop_front().map(|(_, event)| event);
        }
        let (number, _) = self.events.front()?;
        if *number > self.written {
            return None;
        }
        self.events.pop_front().map(|(_, event)| event)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(PeerId, Vec<u8>)> {
        let (number, ..) = self.transmits.front()?;
        if *number > self.written {
            return None;
        }
        self.transmits.pop_front().map(|(_, to, bytes)| (to, bytes))
    }
}
