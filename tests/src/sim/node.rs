//! One simulated host: what survives its crashes, and the mesh core while it lives.

use std::net::SocketAddr;

use rmesh_gossip::api::Endpoint;
use rmesh_gossip::crypto::{Crypto, Key, model, real};
use rmesh_gossip::{Config, Mesh, Target};
use rmesh_wire::{Boot, Instant, Mac, PeerId};

use super::network::{Network, PORT};
use super::random::Random;

/// MTU of the simulated containers.
const MTU_BYTES: u16 = 1328;

/// One host.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) id: PeerId,
    identity: Key,
    secret: Key,
    real_crypto: bool,
    /// Durable boot counter.
    boot_counter: u64,
    targets: Vec<usize>,
    pub(crate) endpoints: Vec<Endpoint>,
    /// Durable hints where peers were reached.
    pub(crate) hints: Vec<SocketAddr>,
    /// The core, while the process runs.
    pub(crate) mesh: Option<Mesh>,
    /// Its process does not get the processor: nothing is read, no timer fires.
    pub(crate) is_paused: bool,
    /// When the earliest wake-up in the world's queue fires for this node.
    pub(crate) wake: Option<Instant>,
    random: Random,
}

fn provider(real_crypto: bool) -> Box<dyn Crypto> {
    if real_crypto {
        Box::new(real::RealCrypto::new())
    } else {
        Box::new(model::ModelCrypto::new())
    }
}

impl Node {
    pub(crate) fn new(
        index: usize,
        targets: Vec<usize>,
        secret: Key,
        real_crypto: bool,
        mut random: Random,
    ) -> Self {
        let identity = Key::new(random.bytes());
        let public = provider(real_crypto).identity_public(&identity);
        Node {
            index,
            id: rmesh_gossip::crypto::peer_id(&public),
            identity,
            secret,
            real_crypto,
            boot_counter: 0,
            targets,
            endpoints: Vec::new(),
            hints: Vec::new(),
            mesh: None,
            is_paused: false,
            wake: None,
            random,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("peer{}", self.index)
    }

    /// Starts the process: identity, boot counter, targets and attached containers were kept.
    pub(crate) fn start(&mut self, network: &Network, now: Instant) {
        self.boot_counter += 1;
        let config = Config {
            identity: self.identity.clone(),
            secret: self.secret.clone(),
            name: self.name(),
            boot: Boot {
                counter: self.boot_counter,
                random: self.random.next(),
            },
            seed: self.random.bytes(),
            port: PORT,
            mtu_bytes: MTU_BYTES,
            advertise: Vec::new(),
        };
        let mut mesh = Mesh::new(config, provider(self.real_crypto), now);
        mesh.handle_local_addresses(network.addresses(self.index), now);
        mesh.handle_endpoints(self.endpoints.clone(), now);
        mesh.handle_hints(core::mem::take(&mut self.hints), now);
        self.mesh = Some(mesh);
        self.is_paused = false;
        self.wake = None;
        self.resolve_targets(network, now);
    }

    /// The process is gone from one moment to the next; hints had been saved if `with_hints`.
    pub(crate) fn crash(&mut self, with_hints: bool) {
        if let Some(mesh) = self.mesh.take()
            && with_hints
        {
            self.hints = mesh.known_addresses();
        }
    }

    /// Resolves the configured peers' names again.
    pub(crate) fn resolve_targets(&mut self, network: &Network, now: Instant) {
        let Some(mesh) = self.mesh.as_mut() else {
            return;
        };
        let targets = self.targets.iter().map(|&peer| Target {
            name: format!("peer{peer}"),
            addresses: network
                .addresses(peer)
                .into_iter()
                .map(|ip| SocketAddr::new(ip, PORT))
                .collect(),
        });
        mesh.handle_targets(targets.collect(), now);
    }

    /// Another life with this counter was met; it is durable now.
    pub(crate) fn raise_boot(&mut self, counter: u64) {
        self.boot_counter = self.boot_counter.max(counter);
    }

    /// The state disk is restored from an old backup: the boot counter is lost.
    pub(crate) fn lose_boot_counter(&mut self) {
        self.boot_counter = 0;
    }

    /// Announces what is attached now.
    pub(crate) fn announce(&mut self, now: Instant) {
        if let Some(mesh) = self.mesh.as_mut() {
            mesh.handle_endpoints(self.endpoints.clone(), now);
        }
    }
}

/// Container number `number`: its MAC and address go with it wherever it is attached.
pub(crate) fn container(number: u32) -> Endpoint {
    let [_, a, b, c] = number.to_be_bytes();
    let address = ipnet::Ipv4Net::new([10, 200 | (a & 7), b, c].into(), 12);
    Endpoint {
        mac: Mac([2, 0, 0, a, b, c]),
        addresses: address.into_iter().map(ipnet::IpNet::from).collect(),
        name: format!("container{number}"),
        labels: Vec::new(),
    }
}
