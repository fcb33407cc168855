//! What a daemon opens before it serves.

use std::io;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rmesh_gossip::crypto::Key;
use rmesh_gossip::crypto::real::RealCrypto;
use rmesh_gossip::plaintext::vxlan_network;
use rmesh_gossip::{Config, Mesh, PlaintextPolicy};
use rmesh_router::attach::Attachment;
use rmesh_router::fast::{Fast, FastOptions, heartbeat_mac};
use rmesh_router::kernel::{AddressWatch, Bridge, Inside, KernelError, local_addresses};
use rmesh_router::{Plane, PlaneOptions, Without};
use rmesh_wire::{Boot, PeerId};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use zeroize::Zeroize as _;

use super::alarm::Alarm;
use super::arrivals::{Arrivals, Incoming};
use super::call::{Call, Handle};
use super::clock::Clock;
use super::containers::Containers;
use super::core::{Core, Parts};
use super::fast::FastLane;
use super::guard::Guard;
use super::pools;
use super::ports::KernelPorts;
use super::present::present;
use super::ring::{Ring, RingOptions, fold};
use super::streams::{Closed, Streams, TcpPort};
use super::targets::{Resolved, Targets};
use crate::disk;
use crate::failure::{Failure, FailureKind};
use crate::ledger::{LEDGER, LEDGER_TOKEN, News, Place};
use crate::peer_address::PeerAddress;
use crate::rate::Rate;
use crate::state::{
    File, KnownRing, Lock, LockError, PermissionsError, RUN_LOCK, STATE_LOCK, Saver, StateDir,
    StateError, aside_warning, lock_todo, make_folder, owner, tighten,
};

/// Datagrams from the workers that wait for the control thread; beyond it they are dropped, and
/// counted by the workers.
const INBOUND_MAX: usize = 4_096;
const WHAT: &str = "cannot start the router";

/// How a daemon is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Folder of the socket.
    pub(crate) run_dir: PathBuf,
    /// Folder of the state; identity and secret must be there already.
    pub(crate) state_dir: PathBuf,
    /// Human name.
    pub(crate) name: String,
    /// UDP port.
    pub(crate) port: u16,
    /// Where the same is to be had by TCP.
    pub(crate) tcp_port: TcpPort,
    /// Whether nothing of others goes through this host.
    pub(crate) no_relay: bool,
    /// What is carried for each other peer.
    pub(crate) relay_limit: Option<Rate>,
    /// Local addresses to use; empty means all.
    pub(crate) bind: Vec<IpAddr>,
    /// Else the one interface to use.
    pub(crate) interface: Option<String>,
    /// Addresses to publish besides.
    pub(crate) advertise: Vec<SocketAddr>,
    /// MTU of the containers in bytes.
    pub(crate) mtu_bytes: u16,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// Data-plane threads.
    pub(crate) workers: usize,
    /// Renew sessions earlier than usual.
    pub(crate) without: Without,
    pub(crate) rekey_after: Option<Duration>,
    /// Whose frames need not be encrypted.
    pub(crate) plaintext: PlaintextPolicy,
    /// IPv4 addresses to found a ring with.
    pub(crate) cidr: Ipv4Net,
    /// IPv6 addresses to found a ring with; by default made from the mesh secret.
    pub(crate) cidr6: Option<Ipv6Net>,
    /// Where containers get addresses from unless said otherwise.
    pub(crate) subnets: Vec<IpNet>,
    /// How many peers found a ring together.
    pub(crate) init_peers: Option<usize>,
}

/// A daemon that is ready to serve.
pub(super) struct Daemon {
    pub(super) core: Core,
    /// What workers tell, and what comes by the control side's own sockets.
    pub(super) inbound: Incoming,
    pub(super) resolved: mpsc::Receiver<Resolved>,
    pub(super) ledger: mpsc::UnboundedReceiver<News>,
    pub(super) calls: mpsc::Receiver<Call>,
    /// Where looks at the addresses of this host arrive.
    pub(super) addresses: (mpsc::Sender<Vec<IpAddr>>, mpsc::Receiver<Vec<IpAddr>>),
    /// Of addresses and interfaces, and of routes.
    pub(super) watches: [AsyncFd<AddressWatch>; 2],
    /// Readable when heartbeats have arrived through the kernel's VXLAN, if it is used.
    pub(super) heartbeats: Option<AsyncFd<OwnedFd>>,
    /// The other ends of TCP connections that are over.
    pub(super) closed: Closed,
    pub(super) alarm: Alarm,
    pub(super) guard: Guard,
    pub(super) handle: Handle,
    pub(super) containers: Arc<Containers>,
    pub(super) run_dir: PathBuf,
    pub(super) bridge: Bridge,
    pub(super) bind: Vec<IpAddr>,
    pub(super) interface: Option<String>,
    pub(super) locks: [Lock; 2],
}

/// What was on disk.
pub(crate) struct Remembered {
    pub(crate) identity: Key,
    pub(crate) secret: Key,
    pub(crate) boot: Boot,
    pub(crate) peers: Vec<PeerAddress>,
    hints: Vec<SocketAddr>,
    attachments: Vec<Attachment>,
    ring: Option<KnownRing>,
    /// Damaged files that earlier starts or this one moved aside.
    pub(crate) moved_aside: Vec<PathBuf>,
}

/// Opens everything.
pub(super) fn start(options: Options) -> Result<Daemon, Failure> {
    let cannot = |cause: &dyn std::fmt::Display| Failure::failed(WHAT, cause);
    let (state, locks, exposed) = open_state(&options)?;
    let mut remembered = remember(&state)?;
    let pools = pools::proposed(options.cidr, options.cidr6, &remembered.secret);
    check_pools(&options, &pools)?;
    let saver = Saver::start(state).map_err(|e| cannot(&e))?;

    let (clock, watches, alarm) = wake_ups()?;
    let (bridge, plane, inbound) = open_plane(&options)?;
    remembered.attachments = present(&bridge, &options.state_dir, remembered.attachments);

    let (mut targets, resolved) = Targets::new();
    targets.connect(&remembered.peers, true)?;
    let secret = remembered.secret.clone();
    let (hints, attachments) = (
        take(&mut remembered.hints),
        take(&mut remembered.attachments),
    );
    let (known_ring, moved_aside) = (remembered.ring.take(), take(&mut remembered.moved_aside));
    let (streams, closed) = open_streams(&options, plane.port())?;
    let mesh = streams.introduce(make_mesh(&options, remembered, plane.port(), clock)?);
    let [ports_v4, ports_v6] = plane.source_ports();
    let mesh = mesh.with_source_ports(ports_v4, ports_v6);
    let (mesh, fast) = open_fast(&options, (&bridge, &plane), &secret, (mesh, clock));
    say_who(&options.name, &mesh, plane.port());
    let proposed = (mesh.id(), pools, targets.peers().len());
    let (ring, ledger) = open_ring(&options, proposed, known_ring, clock)?;
    let parts = Parts {
        mesh,
        plane,
        ring,
        fast,
        streams,
        inside: Inside::open(&options.bridge).map_err(|e| cannot(&e))?,
        clock,
        saver,
        targets,
        attachments,
        moved_aside,
        exposed,
        secret,
        bridge: options.bridge.clone(),
        mtu_bytes: options.mtu_bytes,
        relay_limit: options.relay_limit,
    };
    let mut core = Core::new(parts, hints);
    core.handle_addresses(own_addresses(&options).map_err(|e| cannot(&e))?);
    let heartbeats = heartbeats(&core).map_err(|e| cannot(&e))?;
    let guard = Guard::start(bridge.clone()).map_err(|e| cannot(&e))?;
    let (handle, calls) = Handle::new();
    let ports = Arc::new(KernelPorts(bridge.clone()));
    let containers = Arc::new(Containers::new(handle.clone(), ports, options.subnets));
    Ok(Daemon {
        core,
        inbound,
        resolved,
        ledger,
        calls,
        addresses: mpsc::channel(1),
        watches,
        heartbeats,
        closed,
        alarm,
        guard,
        handle,
        containers,
        run_dir: options.run_dir,
        bridge,
        bind: options.bind,
        interface: options.interface,
        locks,
    })
}

fn open_streams(options: &Options, udp_port: u16) -> Result<(Streams, Closed), Failure> {
    let at = (options.bind.as_slice(), options.interface.as_deref());
    Streams::start(at, options.tcp_port, udp_port)
}

/// What this peer knows of the ring of addresses, or proposes if there is none.
fn open_ring(
    options: &Options,
    (me, pools, targets): (PeerId, Vec<IpNet>, usize),
    remembered: Option<KnownRing>,
    clock: Clock,
) -> Result<(Ring, mpsc::UnboundedReceiver<News>), Failure> {
    let ring = RingOptions {
        me,
        pools,
        targets,
        init_peers: options.init_peers,
        remembered: remembered.unwrap_or_default(),
    };
    Ring::start(ring, ledger_place(options), clock.now()).map_err(|e| Failure::failed(WHAT, e))
}

fn say_who(name: &str, mesh: &Mesh, port: u16) {
    let (version, id) = (crate::VERSION, mesh.id().short());
    tracing::info!("rmesh {version} is {name} ({id}), UDP port {port}");
}

/// With --bind, those addresses are all there are.
fn own_addresses(options: &Options) -> Result<Vec<IpAddr>, KernelError> {
    match options.bind.as_slice() {
        [] => local_addresses(&options.bridge, options.interface.as_deref()),
        bind => Ok(bind.to_vec()),
    }
}

/// The clock, and what wakes the control thread beside messages.
fn wake_ups() -> Result<(Clock, [AsyncFd<AddressWatch>; 2], Alarm), Failure> {
    let cannot = |cause: &dyn std::fmt::Display| Failure::failed(WHAT, cause);
    let register = |watch: Result<AddressWatch, KernelError>| {
        let watch = watch.map_err(|e| cannot(&e))?;
        super::watch::register(watch).map_err(|e| cannot(&e))
    };
    let watches = [
        register(AddressWatch::open())?,
        register(AddressWatch::open_routes())?,
    ];
    let clock = Clock::start();
    let alarm = Alarm::new(clock).map_err(|e| cannot(&e))?;
    Ok((clock, watches, alarm))
}

/// The state folder, the locks that make it and the run folder this process's own, and what others
/// could do there.
fn open_state(options: &Options) -> Result<(StateDir, [Lock; 2], Vec<String>), Failure> {
    make_folder(&options.run_dir).map_err(|cause| {
        Failure::failed(WHAT, format!("{}: {cause}", options.run_dir.display()))
    })?;
    let state = StateDir::open(&options.state_dir).map_err(refused)?;
    let mut exposed = Vec::new();
    for folder in [&options.run_dir, &options.state_dir] {
        exposed.extend(tighten(folder).map_err(not_private)?);
    }
    for words in &exposed {
        tracing::warn!("{words}");
    }
    let locks = [
        lock(&options.run_dir, RUN_LOCK)?,
        lock(&options.state_dir, STATE_LOCK)?,
    ];
    state.recover().map_err(refused)?;
    Ok((state, locks, exposed))
}

fn not_private(error: PermissionsError) -> Failure {
    let todo = error.todo();
    Failure::failed(WHAT, error).todo(todo)
}

/// A ring that this peer is in already stays as it is; what is wrong with its pools is told later.
fn check_pools(options: &Options, pools: &[IpNet]) -> Result<(), Failure> {
    if options.state_dir.join(LEDGER).exists() {
        return Ok(());
    }
    pools::check_routes(pools, &options.bridge)
}

/// Where the ledger of the ring is kept.
fn ledger_place(options: &Options) -> Place {
    Place {
        disk: disk::here(),
        folder: options.state_dir.clone(),
        token: options.run_dir.join(LEDGER_TOKEN),
        fold,
    }
}

fn lock(folder: &Path, name: &str) -> Result<Lock, Failure> {
    Lock::take(folder, name).map_err(|error| {
        let todo = match &error {
            LockError::Held { .. } => {
                "rmesh connect PEER adds peers to it, rmesh stop ends it; or use another --run-dir \
                 and --state-dir"
                    .into()
            }
            LockError::Refused { cause, .. } => lock_todo(folder, cause),
        };
        Failure::new(FailureKind::Conflict, WHAT, error).todo(todo)
    })
}

/// Reads the state and makes this start's boot counter durable.
pub(crate) fn remember(state: &StateDir) -> Result<Remembered, Failure> {
    let missing = |name: &str| {
        Failure::failed(WHAT, format!("{} is missing", state.path(name).display()))
            .todo("launch again without --foreground to see what to do")
    };
    let identity = state.identity().map_err(refused)?;
    let identity = identity.ok_or_else(|| missing("identity"))?;
    let secret = state.secret().map_err(refused)?;
    let secret = secret.ok_or_else(|| missing("secret"))?;
    let counter = forgiven(state.boot())?.saturating_add(1);
    let (peers, hints) = (forgiven(state.peers())?, forgiven(state.hints())?);
    let attachments = forgiven(state.attachments())?;
    let ring = forgiven(state.ring())?;
    state.save(File::Boot, &counter).map_err(refused)?;
    let mut random = [0; 8];
    fill(&mut random)?;
    let moved_aside = state.aside().map_err(refused)?;
    for path in &moved_aside {
        tracing::warn!("{}", aside_warning(path));
    }
    Ok(Remembered {
        identity,
        secret,
        boot: Boot {
            counter,
            random: u64::from_be_bytes(random),
        },
        peers,
        hints,
        attachments,
        ring,
        moved_aside,
    })
}

fn refused(cause: StateError) -> Failure {
    let todo = cause.todo();
    Failure::failed(WHAT, cause).todo(todo)
}

/// Goes on without a damaged file that has been moved aside.
fn forgiven<T: Default>(loaded: Result<T, StateError>) -> Result<T, Failure> {
    match loaded {
        Ok(value) => Ok(value),
        Err(error @ StateError::MovedAside { .. }) => {
            tracing::error!("{error}; going on without it");
            Ok(T::default())
        }
        Err(error) => Err(refused(error)),
    }
}

/// The bridge, and the data plane as its port.
fn open_plane(options: &Options) -> Result<(Bridge, Plane, Incoming), Failure> {
    let cannot = |cause: &dyn std::fmt::Display| Failure::failed(WHAT, cause);
    let owner = owner(&options.state_dir);
    let bridge = Bridge::ensure(&options.bridge, options.mtu_bytes, &owner);
    let bridge = bridge.map_err(|e| cannot(&e))?;
    let (inbox, inbound) = mpsc::channel(INBOUND_MAX);
    let plane = Plane::start(plane_options(options), inbox).map_err(|e| cannot(&e))?;
    if let Some(note) = plane.note() {
        tracing::info!("{note}");
    }
    let added = bridge.add_port(plane.tap_name(), options.mtu_bytes);
    added.map_err(|e| cannot(&e))?;
    let control = plane.take_control();
    let control = control.ok_or_else(|| cannot(&"its datagrams are read by somebody else"))?;
    let arrivals = Arrivals::new(control).map_err(|e| cannot(&e))?;
    Ok((bridge, plane, (inbound, arrivals)))
}

/// The kernel's VXLAN, if the policy has a use for it; where it cannot be used everything is encrypted.
fn open_fast(
    options: &Options,
    (bridge, plane): (&Bridge, &Plane),
    secret: &Key,
    (mesh, clock): (Mesh, Clock),
) -> (Mesh, FastLane) {
    let (me, now) = (mesh.id(), clock.now());
    if options.plaintext.is_never() {
        // An earlier launch may have had another policy.
        if let Err(error) = Fast::remove(bridge.name()) {
            tracing::warn!("{error}");
        }
        return (mesh, FastLane::new(None, None, me, now));
    }
    let Some(port) = plane.port().checked_add(1) else {
        let words = "all is encrypted, for VXLAN would need the UDP port after 65535: launch with another --port";
        tracing::warn!("{words}");
        return (mesh, FastLane::new(None, Some(words.into()), me, now));
    };
    let wanted = FastOptions {
        bridge: bridge.clone(),
        tap: plane.tap_name().to_owned(),
        port,
        vni: vxlan_network(secret),
        mtu_bytes: options.mtu_bytes,
        bind: options.bind.clone(),
    };
    match Fast::ensure(wanted, heartbeat_mac(&me)) {
        Ok(fast) => {
            let lane = FastLane::new(Some(fast), None, me, now);
            (mesh.with_plaintext(options.plaintext.clone()), lane)
        }
        Err(error) => {
            let words = format!("all is encrypted, for the kernel's VXLAN cannot be used: {error}");
            tracing::warn!("{words}");
            (mesh, FastLane::new(None, Some(words), me, now))
        }
    }
}

/// Something to wait for heartbeats by.
fn heartbeats(core: &Core) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let descriptor = core.heartbeats()?;
    descriptor.map(super::watch::register_owned).transpose()
}

fn plane_options(options: &Options) -> PlaneOptions {
    PlaneOptions {
        bridge: options.bridge.clone(),
        tap: format!("{}-tap", options.bridge),
        bind: options.bind.clone(),
        port: options.port,
        mtu_bytes: options.mtu_bytes,
        workers: options.workers,
        interface: options.interface.clone(),
        relay_limit: options.relay_limit.map(Rate::bits_per_s),
        without: options.without,
    }
}

fn make_mesh(
    options: &Options,
    remembered: Remembered,
    port: u16,
    clock: Clock,
) -> Result<Mesh, Failure> {
    let mut seed = [0; 32];
    fill(&mut seed)?;
    let config = Config {
        identity: remembered.identity,
        secret: remembered.secret,
        name: options.name.clone(),
        boot: remembered.boot,
        seed,
        port,
        mtu_bytes: options.mtu_bytes,
        advertise: options.advertise.clone(),
    };
    seed.zeroize();
    let crypto = RealCrypto::with_aes(rmesh_router::has_aes_instructions() && !options.without.aes);
    let mesh = Mesh::new(config, Box::new(crypto), clock.now());
    let mesh = match options.no_relay {
        true => mesh.without_relaying(),
        false => mesh,
    };
    Ok(match options.rekey_after {
        Some(age) => mesh.with_rekey_after(age),
        None => mesh,
    })
}

fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|cause| Failure::failed(WHAT, cause))
}
