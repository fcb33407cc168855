//! The control side's handle of the data plane.

use std::collections::BTreeMap;

use rmesh_gossip::{Forwarding, SendFailure, TrafficSample, Transmit};
use rmesh_wire::PeerId;
use tokio::sync::mpsc;

use super::api::{Inbound, LearnedMac, PeerCounters, PlaneCounters, PlaneError, PlaneOptions};

/// A running data plane.
pub struct Plane {
    options: PlaneOptions,
}

#[allow(missing_docs, unused_variables)]
impl Plane {
    pub fn start(options: PlaneOptions, inbox: mpsc::Sender<Inbound>) -> Result<Plane, PlaneError> {
        Ok(Plane { options })
    }

    pub fn tap_name(&self) -> &str {
        &self.options.tap
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    pub fn note(&self) -> Option<&str> {
        None
    }

    pub fn publish(&self, forwarding: Forwarding) {}

    pub fn send(&self, transmit: &Transmit) -> Result<(), SendFailure> {
        Ok(())
    }

    pub fn samples(&self) -> Vec<TrafficSample> {
        Vec::new()
    }

    pub fn counters(&self) -> PlaneCounters {
        PlaneCounters::default()
    }

    pub fn peer_counters(&self) -> BTreeMap<PeerId, PeerCounters> {
        BTreeMap::new()
    }

    pub fn learned(&self) -> Vec<LearnedMac> {
        Vec::new()
    }

    pub fn stop(self) {}
}
