//! A look inside, for those who check that a node does right.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Node;
use crate::address::{Range, number};
use crate::message::Message;
use crate::ring::Ring;
use crate::setup::{RingId, Stamp};

impl Node {
    /// The chosen cells this peer knows.
    pub fn ring(&self) -> &Ring {
        &self.ledger.ring
    }

    /// The ring this peer is in.
    pub fn ring_id(&self) -> Option<RingId> {
        self.ledger.ring_id
    }

    /// Which setup this peer knows to be chosen.
    pub fn stamp(&self) -> Option<Stamp> {
        self.ledger.setup.as_ref().map(|setup| setup.stamp)
    }

    /// What this owner may hand out or grant, unless it is in use or held: nothing while it does
    /// not know whether its ledger is current, and nothing that is granted or disputed.
    pub fn usable(&self) -> Vec<Range> {
        if !self.may_use() {
            return Vec::new();
        }
        let owned = self.ledger.space.owned();
        let kept = owned.flat_map(|range| self.ledger.granted.gaps(range).collect::<Vec<Range>>());
        kept.filter(|range| !self.disputes.overlaps(*range))
            .collect()
    }

    /// What an address is to this owner, in words.
    pub fn explain_address(&self, ip: IpAddr) -> String {
        let at = number(ip);
        let announcers = self.names(self.announcers.of(at));
        let state = self.ledger.space.state(at, self.now);
        let disputed = self.disputes.contains(at);
        format!("{state:?}, announced by [{announcers}], disputed: {disputed}")
    }
}

/// A ring message in words.
pub fn describe(bytes: &[u8]) -> String {
    match Message::decode(bytes) {
        Some(message) => format!("{message:?}"),
        None => String::from("malformed"),
    }
}
