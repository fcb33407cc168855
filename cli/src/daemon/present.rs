//! Which containers are attached at a start: those that are remembered and still there, and those of which
//! only the bridge tells, since the state folder was lost or is older than they are.

use std::collections::BTreeSet;
use std::path::Path;

use rmesh_gossip::limits::ENDPOINT_ADDRESSES_MAX;
use rmesh_router::attach::{self, Attachment};
use rmesh_router::kernel::{Bridge, owned_links};

use super::ports::{KernelPorts, Ports as _};
use crate::state::owner;

/// All that are there, each with every address it carries.
pub(super) fn present(
    bridge: &Bridge,
    state_dir: &Path,
    remembered: Vec<Attachment>,
) -> Vec<Attachment> {
    let ports = KernelPorts(bridge.clone());
    let (mut present, gone): (Vec<_>, Vec<_>) = remembered
        .into_iter()
        .partition(|attachment| ports.is_present(attachment));
    for attachment in gone {
        tracing::info!(
            "{} is gone, its interface {} with it",
            attachment.target,
            attachment.interface
        );
    }
    for attachment in &mut present {
        add_carried(&ports, attachment);
    }
    present.extend(forgotten(bridge, state_dir, &present));
    present
}

fn add_carried(ports: &KernelPorts, attachment: &mut Attachment) {
    match ports.carried(attachment) {
        Ok(carried) => {
            for net in carried.into_iter().flatten() {
                let has_room = attachment.addresses.len() < ENDPOINT_ADDRESSES_MAX;
                if has_room && !attachment.addresses.contains(&net) {
                    attachment.addresses.push(net);
                }
            }
        }
        Err(error) => tracing::warn!("cannot see what {} carries: {error}", attachment.target),
    }
}

/// Ports of the bridge that were made for this state folder and that nobody remembers.
fn forgotten(bridge: &Bridge, state_dir: &Path, known: &[Attachment]) -> Vec<Attachment> {
    let (ports, own) = match (bridge.ports(), owned_links(&owner(state_dir))) {
        (Ok(ports), Ok(own)) => (ports, own.ports),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!("cannot see which containers are attached: {error}");
            return Vec::new();
        }
    };
    let is_known = |port: &String| known.iter().any(|known| known.host_interface == *port);
    let own = ports.into_iter().filter(|port| own.contains(port));
    let lost: BTreeSet<String> = own.filter(|port| !is_known(port)).collect();
    if lost.is_empty() {
        return Vec::new();
    }
    let found = attach::find(&lost);
    for attachment in &found {
        tracing::warn!(
            "{} is attached and was not remembered: its addresses are its own again",
            attachment.target
        );
    }
    for port in lost {
        if found.iter().all(|found| found.host_interface != port) {
            tracing::warn!(
                "the interface {port} on the bridge {} leads to a container that cannot be found (its network \
                 namespace has neither a name nor a process): the addresses it carries may be given \
                 again; remove it with `ip link delete {port}`",
                bridge.name()
            );
        }
    }
    found
}
