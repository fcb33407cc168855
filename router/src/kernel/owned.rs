//! What rmesh made in a network namespace, found again without any record but the kernel's: every
//! interface it makes carries an alias that names the owner.

use netlink_packet_route::link::{InfoKind, LinkAttribute};

use super::link::Link;
use super::netlink::Netlink;
use super::{KernelError, guard};

/// What every alias begins with.
const MARK: &str = "rmesh ";
/// Longest alias in bytes (IFALIASZ of linux/if.h with its zero byte).
const ALIAS_LEN_MAX: usize = 255;

/// The interfaces of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedLinks {
    /// Names of the host's ends of containers' interfaces.
    pub ports: Vec<String>,
    /// Names of the bridges that rmesh made.
    pub bridges: Vec<String>,
    /// Names of the VXLAN devices that rmesh made, see [`crate::fast::Fast`].
    pub tunnels: Vec<String>,
    /// Bridges that only nftables still knows, and that nobody has.
    pub lost_bridges: Vec<String>,
}

/// The alias of interfaces that belong to `owner`, which is the daemon's state folder.
pub(crate) fn alias(owner: &str) -> String {
    let room = ALIAS_LEN_MAX - MARK.len();
    // A long path is told by its end.
    let mut start = owner.len().saturating_sub(room);
    while !owner.is_char_boundary(start) {
        start += 1;
    }
    format!("{MARK}{}", owner.get(start..).unwrap_or_default())
}

/// The attribute that marks an interface as `owner`'s.
pub(crate) fn mark(owner: &str) -> LinkAttribute {
    LinkAttribute::IfAlias(alias(owner))
}

/// Whether rmesh made it, whoever's it is.
pub(crate) fn is_marked(link: &Link) -> bool {
    link.alias.starts_with(MARK)
}

/// Looks for everything of `owner` in the caller's network namespace.
///
/// # Errors
/// If the kernel does not answer.
pub fn owned_links(owner: &str) -> Result<OwnedLinks, KernelError> {
    let links = Netlink::open()?.links()?;
    let alias = alias(owner);
    let of_kind = |kind: InfoKind| {
        let own = links.iter().filter(|link| link.alias == alias);
        let own = own.filter(|link| link.kind.as_ref() == Some(&kind));
        own.map(|link| link.name.clone()).collect()
    };
    let mut lost_bridges = guard::guarded()?;
    lost_bridges.retain(|bridge| links.iter().all(|link| link.name != *bridge));
    Ok(OwnedLinks {
        ports: of_kind(InfoKind::Veth),
        bridges: of_kind(InfoKind::Bridge),
        tunnels: of_kind(InfoKind::Vxlan),
        lost_bridges,
    })
}

/// Removes the host's end of a container's interface, and the other end with it; success too if
/// it is gone.
///
/// # Errors
/// If the kernel refuses.
pub fn remove_port(name: &str) -> Result<(), KernelError> {
    Netlink::open()?.delete_link(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_fits_and_tells_owners_apart() {
        assert_eq!(alias("/var/lib/rmesh"), "rmesh /var/lib/rmesh");
        let long = format!("/{}", "ä".repeat(300));
        let cut = alias(&long);
        assert!(cut.len() <= ALIAS_LEN_MAX && long.ends_with(&cut[MARK.len()..]));
        assert_ne!(alias("/a"), alias("/b"));
    }
}
