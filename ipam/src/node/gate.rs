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
/// depends on, and therefore enough.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    queued: u64,
    written: u64,
    writes: VecDeque<(u64, Vec<u8>)>,
    events: VecDeque<(u64, Event)>,
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

    pub(crate) fn confirm(&mut self, number: u64) {
        self.written = self.written.max(number.min(self.queued));
    }

    /// The disk refused: nothing that waits comes out any more, and clients are told so.
    pub(crate) fn fail(&mut self, why: String) {
        for (number, event) in &mut self.events {
            if *number <= self.written {
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
