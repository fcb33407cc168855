//! What will happen, in the order of its time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use rmesh_wire::Instant;

/// Things to come. Those of one instant come in the order they were put down.
pub(crate) struct Calendar<T> {
    queue: BinaryHeap<Reverse<Scheduled<T>>>,
    scheduled: u64,
}

struct Scheduled<T> {
    at: Instant,
    number: u64,
    what: T,
}

impl<T> PartialEq for Scheduled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Scheduled<T> {}

impl<T> PartialOrd for Scheduled<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Scheduled<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> Calendar<T> {
    pub(crate) fn new() -> Self {
        Calendar {
            queue: BinaryHeap::with_capacity(1024),
            scheduled: 0,
        }
    }

    pub(crate) fn schedule(&mut self, at: Instant, what: T) {
        self.scheduled += 1;
        let number = self.scheduled;
        self.queue.push(Reverse(Scheduled { at, number, what }));
    }

    /// Takes out what comes next, unless it comes after `end`.
    pub(crate) fn next_until(&mut self, end: Instant) -> Option<(Instant, T)> {
        if self.queue.peek()?.0.at > end {
            return None;
        }
        let Reverse(next) = self.queue.pop()?;
        Some((next.at, next.what))
    }
}
