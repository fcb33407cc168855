//! Tables of which it is known what an input touched, and when each entry is due: no input looks at all of them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Deref;

use rmesh_wire::Instant;

/// A table that remembers which entries may have changed.
#[derive(Debug)]
pub(crate) struct Watched<K, V> {
    entries: BTreeMap<K, V>,
    touched: Vec<K>,
    agenda: Agenda<K>,
}

/// When entries are due, the earliest first.
#[derive(Debug)]
struct Agenda<K> {
    due: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K, V> Default for Watched<K, V> {
    fn default() -> Self {
        Watched {
            entries: BTreeMap::new(),
            touched: Vec::new(),
            agenda: Agenda {
                due: BTreeMap::new(),
                order: BTreeSet::new(),
            },
        }
    }
}

impl<K, V> Deref for Watched<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

impl<K: Ord + Clone, V> Watched<K, V> {
    fn touch(&mut self, key: &K) {
        if self.touched.last() != Some(key) {
            self.touched.push(key.clone());
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if self.touched.last() != Some(key) {
            self.touched.push(key.clone());
        }
        Some(entry)
    }

    /// Every entry; all of them count as touched.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.touched.extend(self.entries.keys().cloned());
        self.entries.iter_mut()
    }

    /// See [`Watched::iter_mut`].
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, entry)| entry)
    }

    pub(crate) fn insert(&mut self, key: K, entry: V) {
        self.touch(&key);
        self.entries.insert(key, entry);
    }

    pub(crate) fn or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.touch(&key);
        self.entries.entry(key).or_insert_with(new)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.touch(key);
        Some(entry)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let touched = &mut self.touched;
        self.entries.retain(|key, entry| {
            let keeps = keep(key, entry);
            if !keeps {
                touched.push(key.clone());
            }
            keeps
        });
    }

    /// Asks `when` for every entry that was touched since this was asked last, or that was due by `now`.
    pub(crate) fn follow(
        &mut self,
        now: Instant,
        mut when: impl FnMut(&K, Option<&V>) -> Option<Instant>,
    ) {
        let mut touched = core::mem::take(&mut self.touched);
        touched.extend(self.agenda.due_by(now));
        touched.sort_unstable();
        touched.dedup();
        for key in &touched {
            let due = when(key, self.entries.get(key));
            self.agenda.set(key, due);
        }
        touched.clear();
        self.touched = touched;
    }

    /// Whether every entry is due when `when` says: what that goes by has not changed since it was touched.
    pub(crate) fn is_followed(&self, when: impl Fn(&V) -> Option<Instant>) -> bool {
        let known = |key: &K| self.agenda.due.get(key).copied();
        let mut entries = self.entries.iter();
        entries.all(|(key, entry)| known(key) == when(entry))
            && self
                .agenda
                .due
                .keys()
                .all(|key| self.entries.contains_key(key))
    }

    /// Entries that were due by `now` when they were touched last. What was touched since may be due as well.
    pub(crate) fn due_by(&self, now: Instant) -> Vec<K> {
        let mut due: Vec<K> = self.agenda.due_by(now).collect();
        due.extend(self.touched.iter().cloned());
        due.sort_unstable();
        due.dedup();
        due
    }

    /// What was touched since [`Watched::follow`], more than once perhaps.
    pub(crate) fn touched(&self) -> &[K] {
        &self.touched
    }

    /// The entry that is due first, and when.
    pub(crate) fn first_due(&self) -> Option<&(Instant, K)> {
        self.agenda.order.first()
    }
}

impl<K: Ord + Clone> Agenda<K> {
    fn set(&mut self, key: &K, due: Option<Instant>) {
        let before = self.due.get(key).copied();
        if before == due {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key.clone()));
        }
        match due {
            Some(due) => {
                self.due.insert(key.clone(), due);
                self.order.insert((due, key.clone()));
            }
            None => _ = self.due.remove(key),
        }
    }

    fn due_by(&self, now: Instant) -> impl Iterator<Item = K> {
        self.order
            .iter()
            .take_while(move |(due, _)| *due <= now)
            .map(|(_, key)| key.clone())
    }
}
