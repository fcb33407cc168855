//! What the interface of a container really carries.

use ipnet::IpNet;
use rmesh_gossip::limits::ENDPOINT_ADDRESSES_MAX;

use super::{Attachment, work};
use crate::error::AttachError;
use crate::sys::netns::Netns;

/// The addresses an attached interface carries now, without link-local ones and those a router
/// advertised; `None` if the namespace or the interface has vanished. A container may give itself any number:
/// those beyond [`ENDPOINT_ADDRESSES_MAX`] are left out.
///
/// # Errors
/// The namespace cannot be entered, or the kernel does not answer.
pub fn carried(attachment: &Attachment) -> Result<Option<Vec<IpNet>>, AttachError> {
    let netns = match Netns::open(&attachment.target.parse()?) {
        Err(error) if error.is_target_gone() => return Ok(None),
        opened => opened?,
    };
    if netns.inode() != attachment.netns_inode {
        return Ok(None);
    }
    let (mut inside, _) = work::open_inside(&netns)?;
    let Some(link) = inside.link(&attachment.interface)? else {
        return Ok(None);
    };
    let addresses = inside.addresses()?.into_iter();
    let given = addresses.filter(|a| a.link == link.index && a.is_global && a.is_permanent);
    let given = given.map(|address| address.net);
    Ok(Some(given.take(ENDPOINT_ADDRESSES_MAX).collect()))
}
