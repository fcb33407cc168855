//! Attachments of which only their interfaces tell.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Attachment, TargetSpec, carried, host_interface, work};
use crate::error::AttachError;
use crate::kernel::link::Link;
use crate::sys::netns::{NAMED, Netns};

/// The attachments whose host ends have these names, found by looking into every network namespace that has a
/// name or a process. Those of others, which only an open file keeps alive, are not found; nor is the name
/// that an operator gave a container known.
pub fn find(host_interfaces: &BTreeSet<String>) -> Vec<Attachment> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for target in candidates() {
        if found.len() == host_interfaces.len() {
            break;
        }
        // One that is gone meanwhile, or this host's own, has none of them.
        let Ok(netns) = Netns::open(&target) else {
            continue;
        };
        if seen.insert(netns.inode()) {
            match look_into(&netns, host_interfaces) {
                Ok(attachments) => found.extend(attachments),
                Err(error) => tracing::warn!("cannot look for containers in {target}: {error}"),
            }
        }
    }
    found
}

/// Namespaces with a name come first: it outlives a process.
fn candidates() -> impl Iterator<Item = TargetSpec> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.collect::<Vec<String>>()
    };
    let named = names(Path::new(NAMED)).into_iter().map(TargetSpec::Named);
    let processes = names(Path::new("/proc")).into_iter();
    let processes = processes.filter_map(|name| name.parse().ok().map(TargetSpec::Pid));
    named.chain(processes)
}

fn look_into(
    netns: &Netns,
    host_interfaces: &BTreeSet<String>,
) -> Result<Vec<Attachment>, AttachError> {
    let (mut inside, _) = work::open_inside(netns)?;
    let other_end = |link: &Link| host_interface(netns.inode(), &link.name);
    let links = inside.links()?.into_iter();
    let ours = links.filter(|link| host_interfaces.contains(&other_end(link)));
    let found = ours.filter_map(|link| {
        Some(Attachment {
            target: netns.target().to_owned(),
            netns_inode: netns.inode(),
            host_interface: other_end(&link),
            mac: link.mac?,
            interface: link.name,
            addresses: Vec::new(),
            name: String::new(),
        })
    });
    let mut found: Vec<Attachment> = found.collect();
    for attachment in &mut found {
        attachment.addresses = carried(attachment)?.unwrap_or_default();
    }
    Ok(found)
}
