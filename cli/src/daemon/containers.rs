//! Attaching and detaching containers, one at a time.

mod check;
mod claim;
pub(super) mod lease;
mod release;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rmesh_gossip::limits::{ENDPOINT_ADDRESSES_MAX, ENDPOINTS_PER_SECTION, SECTIONS_MAX};
use rmesh_router::attach::{Attachment, Request, TargetSpec, host_interface, mac_for};
use rmesh_wire::{Mac, PeerId};
use tokio::sync::{Mutex, RwLock};
use tokio::time::{Instant, sleep, timeout_at};

use super::addresses::{Addresses, container_key, of_key};
use super::call::{Call, Handle, Snapshot, durable};
use super::ports::{Ports, failure};
use crate::api::{AttachBody, DetachBody};
use crate::args;
use crate::failure::{Failure, FailureKind};
use crate::subnet::check_subnets;

/// Containers of one host: as many as a peer can announce.
const ATTACHMENTS_MAX: usize = ENDPOINTS_PER_SECTION * SECTIONS_MAX as usize;
/// How long the remote holder of an address is given to show that it lives.
const SUSPICION_LIMIT: Duration = Duration::from_millis(1_500);
/// How often the mesh is looked at while waiting.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Who holds an address or a MAC that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// Another container of this host.
    Here { target: String, interface: String },
    /// A container of a reachable peer.
    There { peer: PeerId, name: String },
}

/// Attaches and detaches containers.
pub(crate) struct Containers {
    handle: Handle,
    ports: Arc<dyn Ports>,
    addresses: Addresses,
    /// Held while a container is attached or detached.
    one: Mutex<()>,
    /// Held for reading while a container may have addresses and no interface.
    assigning: RwLock<()>,
}

/// One container that is to be attached.
pub(super) struct Wish {
    pub(super) what: String,
    target: TargetSpec,
    inode: u64,
    body: AttachBody,
    pub(super) deadline: Instant,
    /// Whether the prefix lengths are the operator's.
    is_len_given: bool,
}

impl Wish {
    /// The ring's name for it.
    pub(super) fn key(&self) -> String {
        container_key(self.inode, &self.body.ifname)
    }

    /// It, if it is attached already.
    fn known<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Attachment> {
        let mut attached = snapshot.attachments.iter();
        attached.find(|a| is_same(a, self.inode, &self.body.ifname))
    }

    /// What the MAC of an interface without addresses is made of.
    fn seed(&self, snapshot: &Snapshot) -> String {
        format!("{} {} {}", snapshot.report.id, self.inode, self.body.ifname)
    }
}

impl Containers {
    /// With the task that owns the mesh, and the kernel.
    /// `subnets` are where addresses come from that nobody names.
    pub(crate) fn new(handle: Handle, ports: Arc<dyn Ports>, subnets: Vec<IpNet>) -> Self {
        Containers {
            addresses: Addresses::new(handle.clone(), subnets),
            handle,
            ports,
            one: Mutex::new(()),
            assigning: RwLock::new(()),
        }
    }

    /// Attaches a container; waits for nothing longer than `deadline`.
    pub(crate) async fn attach(
        &self,
        body: AttachBody,
        deadline: Instant,
    ) -> Result<Attachment, Failure> {
        let what = format!("cannot attach {}", body.target);
        check(&body).map_err(|why| Failure::new(FailureKind::Usage, what.as_str(), why))?;
        let target: TargetSpec = body.target.parse().map_err(|e| failure(what.clone(), &e))?;
        let _assigning = timeout_at(deadline, self.assigning.read())
            .await
            .map_err(|_| busy(&what))?;
        self.wait_until_joined(deadline).await?;
        let inode = self.inode(&what, &target).await?;
        let wish = Wish {
            what,
            target,
            inode,
            body,
            deadline,
            is_len_given: true,
        };
        let attached = match self.assign(&wish).await {
            Ok(assigned) => self.attach_assigned(&wish, assigned).await,
            Err(failure) => Err(failure),
        };
        if attached.is_err() {
            self.release_unless_attached(&wish).await;
        }
        attached
    }

    /// Addresses for a container; nothing if it is attached already. Others may be attached meanwhile,
    /// since owners of addresses may take their time.
    async fn assign(&self, wish: &Wish) -> Result<Option<Vec<IpNet>>, Failure> {
        let snapshot = self.handle.snapshot().await?;
        if wish.known(&snapshot).is_some() {
            return Ok(None);
        }
        let request = make_request(wish, &snapshot)?;
        self.wait_until_free(wish, &request).await?;
        let (what, key) = (&wish.what, wish.key());
        let assigned = self.addresses.assign(what, &key, &wish.body, wish.deadline);
        Ok(Some(assigned.await?))
    }

    async fn attach_assigned(
        &self,
        wish: &Wish,
        assigned: Option<Vec<IpNet>>,
    ) -> Result<Attachment, Failure> {
        let _one = timeout_at(wish.deadline, self.one.lock())
            .await
            .map_err(|_| busy(&wish.what))?;
        let snapshot = self.handle.snapshot().await?;
        let mut request = make_request(wish, &snapshot)?;
        if wish.known(&snapshot).is_none() {
            // Whoever detached it meanwhile freed them.
            let assigned = assigned.ok_or_else(|| busy(&wish.what))?;
            let confirmed = self.addresses.confirm(wish, &assigned);
            confirmed.await?;
            request.mac = mac_for(&assigned, wish.seed(&snapshot).as_bytes());
            request.addresses = assigned;
        }
        self.wait_until_free(wish, &request).await?;
        let attachment = self.make(&wish.what, request).await?;
        let keep = Box::new(attachment.clone());
        let saved = self.handle.ask(|reply| Call::Attached(keep, reply)).await?;
        durable("the attached containers", saved).await?;
        Ok(attachment)
    }

    /// What a container got that has no interface after all is free again.
    async fn release_unless_attached(&self, wish: &Wish) {
        let _one = self.one.lock().await;
        match self.handle.snapshot().await {
            Ok(snapshot) if wish.known(&snapshot).is_none() => {
                self.addresses.release(&wish.key()).await;
            }
            _ => {}
        }
    }

    /// Detaches a container's interfaces and returns them; none if it was not attached.
    pub(crate) async fn detach(&self, body: DetachBody) -> Result<Vec<Attachment>, Failure> {
        let what = format!("cannot detach {}", body.target);
        let target: TargetSpec = body.target.parse().map_err(|e| failure(what.clone(), &e))?;
        let _one = self.one.lock().await;
        // A namespace that has vanished is found by what it was called.
        let inode = self.inode(&what, &target).await.ok();
        let wanted = |a: &Attachment| {
            (inode == Some(a.netns_inode) || a.target == body.target)
                && body.ifname.as_ref().is_none_or(|name| *name == a.interface)
        };
        let mut found = self.handle.snapshot().await?.attachments;
        found.retain(wanted);
        for attachment in found.clone() {
            let ports = Arc::clone(&self.ports);
            let result = blocking(move || ports.detach(&attachment)).await?;
            result.map_err(|error| failure(what.clone(), &error))?;
        }
        self.forget(found.clone()).await?;
        Ok(found)
    }

    /// Drops attachments whose interface has vanished with its container.
    pub(crate) async fn drop_vanished(&self) -> Result<(), Failure> {
        let _one = self.one.lock().await;
        let attachments = self.handle.snapshot().await?.attachments;
        let ports = Arc::clone(&self.ports);
        let vanished = blocking(move || {
            let mut attachments = attachments;
            attachments.retain(|a| !ports.is_present(a));
            attachments
        });
        let vanished = vanished.await?;
        if vanished.is_empty() {
            return Ok(());
        }
        for gone in &vanished {
            tracing::info!(
                "{} is gone, its interface {} with it",
                gone.target,
                gone.interface
            );
        }
        self.forget(vanished).await
    }

    /// Containers whose interfaces are gone: they are announced no more, and their addresses are free.
    async fn forget(&self, gone: Vec<Attachment>) -> Result<(), Failure> {
        if gone.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = gone.iter().map(key_of).collect();
        let saved = self.handle.ask(|reply| Call::Detached(gone, reply)).await?;
        for key in keys {
            self.addresses.release(&key).await;
        }
        durable("the attached containers", saved).await
    }

    /// Before this host leaves its mesh for good: takes every container's interface away and hands all
    /// addresses over to the others, by `deadline`.
    ///
    /// # Errors
    /// Names what could not be handed over.
    pub(crate) async fn leave(&self, deadline: Instant) -> Result<(), Failure> {
        let _assigning = self.assigning.write().await;
        let _one = self.one.lock().await;
        let snapshot = self.handle.snapshot().await?;
        let mut gone = Vec::new();
        for attachment in snapshot.attachments {
            if Instant::now() >= deadline {
                break;
            }
            let (ports, taken) = (Arc::clone(&self.ports), attachment.clone());
            match blocking(move || ports.detach(&taken)).await? {
                Ok(()) => gone.push(attachment),
                // Whoever removes the rest of this host's interfaces tries that one again.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        self.forget(gone).await?;
        // Without others there is nobody to hand anything to, now or later.
        if snapshot.report.peers.is_empty() {
            return Ok(());
        }
        self.addresses.leave(deadline).await
    }

    /// Tells the ring which addresses the containers of this host carry; those of all others are free.
    pub(crate) async fn tell_running(&self) -> Result<(), Failure> {
        let _assigning = self.assigning.write().await;
        let _one = self.one.lock().await;
        let snapshot = self.handle.snapshot().await?;
        let carried = |a: &Attachment| {
            let addresses = a.addresses.iter().map(IpNet::addr);
            (key_of(a), addresses.collect::<Vec<IpAddr>>())
        };
        let mut running: Vec<_> = snapshot.attachments.iter().map(carried).collect();
        let allocated = snapshot.ring.report.map(|report| report.allocated);
        let (ports, known) = (Arc::clone(&self.ports), running.clone());
        // One whose interface is there although it is not remembered: this peer died between the two.
        let others = blocking(move || {
            let is_new = |key: &String| known.iter().all(|(other, _)| other != key);
            let allocated = allocated.unwrap_or_default().into_iter();
            let others = allocated.filter(|(_, key)| is_new(key));
            // A client's container is there until the client says otherwise.
            let others =
                others.filter(|(_, key)| lease::is_lease(key) || is_there(ports.as_ref(), key));
            others.collect::<Vec<(IpAddr, String)>>()
        });
        running.extend(others.await?.into_iter().map(|(ip, key)| (key, vec![ip])));
        self.handle.tell(Call::Running(running)).await
    }

    /// Just after launch nobody knows yet which addresses are in use.
    async fn wait_until_joined(&self, deadline: Instant) -> Result<(), Failure> {
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        while self.handle.snapshot().await?.joining && Instant::now() < half {
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits for an address that a peer may be just giving up, or a peer that may be dead.
    async fn wait_until_free(&self, wish: &Wish, request: &Request) -> Result<(), Failure> {
        let mut asked: Option<Instant> = None;
        loop {
            let snapshot = self.handle.snapshot().await?;
            let Some((wanted, holder)) = conflict(&snapshot, request, wish.inode) else {
                return Ok(());
            };
            let taken = || Err(taken(&wish.what, &wanted, &holder, &snapshot));
            let Holder::There { peer, .. } = &holder else {
                return taken();
            };
            let Some(asked) = asked else {
                self.handle.tell(Call::Suspect(*peer)).await?;
                asked = Some(Instant::now());
                sleep(LOOK_INTERVAL).await;
                continue;
            };
            // Records of other peers may still lead to it; only its own word counts.
            let report = snapshot
                .report
                .peers
                .iter()
                .find(|report| report.id == *peer);
            let heard = report.and_then(|report| report.heard_ago);
            if heard.is_some_and(|ago| ago < asked.elapsed()) {
                return taken();
            }
            if asked.elapsed() >= SUSPICION_LIMIT {
                return Ok(());
            }
            if Instant::now() >= wish.deadline {
                return taken();
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn inode(&self, what: &str, target: &TargetSpec) -> Result<u64, Failure> {
        let (ports, target) = (Arc::clone(&self.ports), target.clone());
        let inode = blocking(move || ports.netns_inode(&target)).await?;
        inode.map_err(|error| failure(what.into(), &error))
    }

    async fn make(&self, what: &str, request: Request) -> Result<Attachment, Failure> {
        let ports = Arc::clone(&self.ports);
        let made = blocking(move || ports.attach(&request)).await?;
        made.map_err(|error| failure(what.into(), &error))
    }
}

/// Runs work that may block outside the control thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| Failure::failed("an internal task failed", error))
}

fn busy(what: &str) -> Failure {
    let why = "other containers are being attached or detached, and the time is up";
    Failure::new(FailureKind::Timeout, what, why).todo("try again, with a longer --timeout")
}

fn check(body: &AttachBody) -> Result<(), String> {
    args::parse_interface(&body.ifname)?;
    args::parse_name(&body.name)?;
    body.ip.iter().try_for_each(args::check_ip)?;
    check_subnets(&body.subnet)?;
    if body.no_ip && !(body.ip.is_empty() && body.subnet.is_empty()) {
        return Err("no address and an address cannot both be wanted".into());
    }
    if body.ip.len() > ENDPOINT_ADDRESSES_MAX {
        return Err(format!(
            "a container has at most {ENDPOINT_ADDRESSES_MAX} addresses"
        ));
    }
    let twice = |(index, ip): (usize, &IpNet)| {
        body.ip
            .iter()
            .take(index)
            .any(|other| other.addr() == ip.addr())
    };
    match body.ip.iter().enumerate().find(|item| twice(*item)) {
        Some((_, ip)) => Err(format!("{} is given twice", ip.addr())),
        None => Ok(()),
    }
}

fn key_of(attachment: &Attachment) -> String {
    container_key(attachment.netns_inode, &attachment.interface)
}

/// Whether the interface of that key is there.
fn is_there(ports: &dyn Ports, key: &str) -> bool {
    of_key(key).is_some_and(|(netns_inode, interface)| {
        ports.is_present(&Attachment {
            target: String::new(),
            netns_inode,
            interface: interface.into(),
            host_interface: host_interface(netns_inode, interface),
            mac: Mac([0; 6]),
            addresses: Vec::new(),
            name: String::new(),
        })
    })
}

fn is_same(attachment: &Attachment, inode: u64, interface: &str) -> bool {
    attachment.netns_inode == inode && attachment.interface == interface
}

fn make_request(wish: &Wish, snapshot: &Snapshot) -> Result<Request, Failure> {
    let (what, body, known) = (&wish.what, &wish.body, wish.known(snapshot));
    if known.is_none() && snapshot.attachments.len() >= ATTACHMENTS_MAX {
        let why = format!("this host has {ATTACHMENTS_MAX} attached containers already");
        return Err(Failure::new(FailureKind::Unavailable, what, why));
    }
    let mut request = Request {
        target: wish.target.clone(),
        interface: body.ifname.clone(),
        addresses: body.ip.clone(),
        mac: mac_for(&body.ip, wish.seed(snapshot).as_bytes()),
        mtu_bytes: snapshot.mtu_bytes,
        name: body.name.clone(),
    };
    let Some(known) = known else {
        return Ok(request);
    };
    // Done again: what is there stays as it is.
    let unchanged = body.ip.is_empty() || body.ip == known.addresses;
    if !unchanged {
        let addresses: Vec<String> = known.addresses.iter().map(ToString::to_string).collect();
        let why = format!(
            "its interface {} is attached already, with {}",
            known.interface,
            if addresses.is_empty() {
                "no address".into()
            } else {
                addresses.join(", ")
            }
        );
        let todo = format!(
            "rmesh detach {} first, or choose another --ifname",
            body.target
        );
        return Err(Failure::new(FailureKind::Conflict, what, why).todo(todo));
    }
    request.addresses.clone_from(&known.addresses);
    request.mac = known.mac;
    if request.name.is_empty() {
        request.name.clone_from(&known.name);
    }
    Ok(request)
}

/// The first wanted address or MAC that somebody else holds, and who.
fn conflict(snapshot: &Snapshot, request: &Request, inode: u64) -> Option<(String, Holder)> {
    let wants = |addresses: &[IpNet], mac: Mac| -> Option<String> {
        let shared = addresses
            .iter()
            .map(IpNet::addr)
            .find(|a| wanted(request, *a));
        shared
            .map(|address| address.to_string())
            .or_else(|| (mac == request.mac).then(|| format!("MAC {mac}")))
    };
    let here = snapshot
        .attachments
        .iter()
        .filter(|a| !is_same(a, inode, &request.interface));
    for other in here {
        if let Some(shared) = wants(&other.addresses, other.mac) {
            let holder = Holder::Here {
                target: other.target.clone(),
                interface: other.interface.clone(),
            };
            return Some((shared, holder));
        }
    }
    let there = snapshot.report.endpoints.iter();
    for other in there.filter(|e| e.reachable && e.peer != snapshot.report.id) {
        if let Some(shared) = wants(&other.endpoint.addresses, other.endpoint.mac) {
            let holder = Holder::There {
                peer: other.peer,
                name: other.endpoint.name.clone(),
            };
            return Some((shared, holder));
        }
    }
    None
}

fn wanted(request: &Request, address: IpAddr) -> bool {
    request.addresses.iter().any(|ip| ip.addr() == address)
}

fn taken(what: &str, wanted: &str, holder: &Holder, snapshot: &Snapshot) -> Failure {
    let (why, todo) = match holder {
        Holder::Here { target, interface } => (
            format!("{wanted} is in use on this host by {target} (interface {interface})"),
            format!("choose another address, or first: rmesh detach {target}"),
        ),
        Holder::There { peer, name } => {
            let whose = if name.is_empty() {
                String::new()
            } else {
                format!(" for {name}")
            };
            let host = snapshot.name_of(*peer);
            (
                format!(
                    "{wanted} is announced by peer {host} ({}){whose}",
                    peer.short()
                ),
                format!("choose another address, or detach the container on {host} first"),
            )
        }
    };
    Failure::new(FailureKind::Conflict, what, why).todo(todo)
}
