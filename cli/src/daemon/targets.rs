//! Configured peers and what their names resolve to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rmesh_gossip::Target;
use rmesh_wire::Instant;
use tokio::sync::{Semaphore, mpsc};

use crate::failure::{Failure, FailureKind};
use crate::peer_address::PeerAddress;

/// Peers remembered; more would not help anybody to find the mesh.
pub(crate) const TARGETS_MAX: usize = 256;
/// Addresses taken from one name.
const ADDRESSES_MAX: usize = 16;
/// A name that leads to no connected peer is looked up again this often.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// A name whose peer is connected is looked up again this often.
const LOOKUP_INTERVAL_CONNECTED: Duration = Duration::from_secs(60);
/// Names looked up at a time: each occupies a thread as long as the resolver takes.
const LOOKUPS_MAX: usize = 16;

/// What a name resolved to; nothing if it did not.
#[derive(Debug)]
pub(crate) struct Resolved {
    peer: PeerAddress,
    addresses: Vec<SocketAddr>,
}

struct Entry {
    peer: PeerAddress,
    addresses: Vec<SocketAddr>,
    looking: bool,
    looked: Option<Instant>,
}

/// The list of configured peers.
pub(crate) struct Targets {
    entries: Vec<Entry>,
    results: mpsc::Sender<Resolved>,
    lookups: Arc<Semaphore>,
}

impl Targets {
    /// An empty list, and where the results of lookups arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Resolved>) {
        let (results, queue) = mpsc::channel(LOOKUPS_MAX);
        let targets = Targets {
            entries: Vec::new(),
            results,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        };
        (targets, queue)
    }

    /// Adds peers, or replaces all by them.
    pub(crate) fn connect(&mut self, peers: &[PeerAddress], replace: bool) -> Result<(), Failure> {
        let wanted: BTreeSet<&PeerAddress> = peers.iter().collect();
        let kept = if replace { 0 } else { self.entries.len() };
        let new = wanted.iter().filter(|p| replace || !self.knows(p)).count();
        if kept + new > TARGETS_MAX {
            let why = format!("at most {TARGETS_MAX} peers are remembered");
            let todo = "name a few: the others are found through them";
            return Err(Failure::new(FailureKind::Usage, "cannot connect", why).todo(todo));
        }
        if replace {
            self.entries.retain(|entry| wanted.contains(&entry.peer));
        }
        for peer in peers {
            if !self.knows(peer) {
                self.entries.push(Entry {
                    peer: peer.clone(),
                    addresses: peer.literal().into_iter().collect(),
                    looking: false,
                    looked: None,
                });
            }
        }
        Ok(())
    }

    /// Removes peers.
    pub(crate) fn forget(&mut self, peers: &[PeerAddress]) {
        self.entries.retain(|entry| !peers.contains(&entry.peer));
    }

    /// The list, to be remembered.
    pub(crate) fn peers(&self) -> Vec<PeerAddress> {
        self.entries
            .iter()
            .map(|entry| entry.peer.clone())
            .collect()
    }

    /// The list, for the mesh.
    pub(crate) fn resolved(&self) -> Vec<Target> {
        let target = |entry: &Entry| Target {
            name: entry.peer.to_string(),
            addresses: entry.addresses.clone(),
        };
        self.entries.iter().map(target).collect()
    }

    /// Whether nobody is configured.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Starts the lookups that are due; `connected` are the targets that need none soon.
    pub(crate) fn look_up(&mut self, connected: &BTreeSet<String>, now: Instant) {
        for entry in &mut self.entries {
            let interval = match connected.contains(&entry.peer.to_string()) {
                true => LOOKUP_INTERVAL_CONNECTED,
                false => LOOKUP_INTERVAL,
            };
            let due = entry.looked.is_none_or(|looked| now >= looked + interval);
            if entry.looking || !due || entry.peer.literal().is_some() {
                continue;
            }
            // Without a free place it stays due.
            let Ok(permit) = Arc::clone(&self.lookups).try_acquire_owned() else {
                return;
            };
            (entry.looking, entry.looked) = (true, Some(now));
            let (peer, results) = (entry.peer.clone(), self.results.clone());
            tokio::spawn(async move {
                // The resolver has its own time limit; nobody else waits for this name.
                let addresses = look_up(&peer).await;
                drop(permit);
                let _ = results.send(Resolved { peer, addresses }).await;
            });
        }
    }

    /// Takes the result of a lookup; true if it changed anything.
    pub(crate) fn take(&mut self, resolved: Resolved) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|e| e.peer == resolved.peer) else {
            return false;
        };
        entry.looking = false;
        // A name service that fails for a while takes nothing away.
        if resolved.addresses.is_empty() || resolved.addresses == entry.addresses {
            return false;
        }
        entry.addresses = resolved.addresses;
        true
    }

    fn knows(&self, peer: &PeerAddress) -> bool {
        self.entries.iter().any(|entry| entry.peer == *peer)
    }
}

async fn look_up(peer: &PeerAddress) -> Vec<SocketAddr> {
    let found = tokio::net::lookup_host((peer.host(), peer.port())).await;
    let addresses: BTreeSet<SocketAddr> = match found {
        Ok(found) => found
            .map(|a| SocketAddr::new(a.ip().to_canonical(), a.port()))
            .collect(),
        Err(error) => {
            tracing::debug!("{} does not resolve: {error}", peer.host());
            BTreeSet::new()
        }
    };
    addresses.into_iter().take(ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(names: &[&str]) -> Vec<PeerAddress> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn peers_are_added_replaced_and_forgotten() {
        let (mut targets, _queue) = Targets::new();
        targets.connect(&peers(&["a", "192.0.2.1"]), false).unwrap();
        targets.connect(&peers(&["a:6783", "c"]), false).unwrap();
        assert_eq!(targets.peers(), peers(&["a", "192.0.2.1", "c"]));
        targets.connect(&peers(&["c", "d"]), true).unwrap();
        assert_eq!(targets.peers(), peers(&["c", "d"]));
        targets.forget(&peers(&["c"]));
        assert_eq!(targets.peers(), peers(&["d"]));
    }

    #[test]
    fn the_list_is_bounded() {
        let (mut targets, _queue) = Targets::new();
        let many: Vec<String> = (0..=TARGETS_MAX).map(|n| format!("host{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(targets.connect(&peers(&many), false).is_err());
        assert!(targets.is_empty());
        targets.connect(&peers(&many[1..]), false).unwrap();
        assert!(targets.connect(&peers(&many[..1]), false).is_err());
        targets.connect(&peers(&many[1..3]), false).unwrap();
    }

    #[tokio::test]
    async fn names_are_looked_up_and_addresses_need_no_lookup() {
        let (mut targets, mut queue) = Targets::new();
        targets
            .connect(&peers(&["192.0.2.1", "localhost"]), false)
            .unwrap();
        assert_eq!(
            targets.resolved()[0].addresses,
            ["192.0.2.1:6783".parse().unwrap()]
        );
        targets.look_up(&BTreeSet::new(), Instant::ZERO);
        targets.look_up(&BTreeSet::new(), Instant::ZERO);
        let result = queue.recv().await.unwrap();
        assert!(targets.take(result));
        assert!(
            targets.resolved()[1]
                .addresses
                .iter()
                .all(|a| a.ip().is_loopback())
        );
        assert!(queue.try_recv().is_err(), "looked up twice");
    }

    #[test]
    fn a_failing_name_service_takes_nothing_away() {
        let (mut targets, _queue) = Targets::new();
        targets.connect(&peers(&["a"]), false).unwrap();
        let resolved = |text: &[&str]| Resolved {
            peer: "a".parse().unwrap(),
            addresses: text.iter().map(|t| t.parse().unwrap()).collect(),
        };
        assert!(targets.take(resolved(&["192.0.2.1:6783"])));
        assert!(!targets.take(resolved(&[])));
        assert_eq!(targets.resolved()[0].addresses.len(), 1);
        assert!(targets.take(resolved(&["192.0.2.2:6783"])));
    }
}
