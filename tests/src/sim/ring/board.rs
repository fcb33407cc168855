//! What each peer announces and what others know of it, where wires are direct: a model of the
//! mesh's records.

use std::net::IpAddr;
use std::sync::Arc;

/// What a peer announced, and the how-manieth announcement that was; 0 is none.
#[derive(Clone, Default)]
pub(super) struct Announcement {
    pub(super) version: u64,
    pub(super) addresses: Arc<[IpAddr]>,
}

/// What everybody knows of everybody's announcements.
pub(super) struct Board {
    size: usize,
    known: Vec<Announcement>,
    versions: Vec<u64>,
}

impl Board {
    pub(super) fn new(size: usize) -> Self {
        Board {
            size,
            known: vec![Announcement::default(); size * size],
            versions: vec![0; size],
        }
    }

    /// What `who` knows of `of`.
    pub(super) fn known(&self, who: usize, of: usize) -> &Announcement {
        &self.known[who * self.size + of]
    }

    /// A host announces something else than before.
    pub(super) fn publish(&mut self, host: usize, addresses: Vec<IpAddr>) -> Announcement {
        self.versions[host] += 1;
        let announcement = Announcement {
            version: self.versions[host],
            addresses: addresses.into(),
        };
        self.known[host * self.size + host] = announcement.clone();
        announcement
    }

    /// Tells `who`; whether that is news.
    pub(super) fn learn(&mut self, who: usize, of: usize, what: &Announcement) -> bool {
        let known = &mut self.known[who * self.size + of];
        let is_news = known.version < what.version;
        if is_news {
            *known = what.clone();
        }
        is_news
    }

    /// The hosts of which `from` knows more than `to`.
    pub(super) fn news(&self, from: usize, to: usize) -> Vec<usize> {
        let of = 0..self.size;
        of.filter(|&of| of != to && self.known(from, of).version > self.known(to, of).version)
            .collect()
    }

    /// The daemon of a host is gone, and what it knew with it.
    pub(super) fn forget(&mut self, who: usize) {
        for of in 0..self.size {
            self.known[who * self.size + of] = Announcement::default();
        }
    }
}
