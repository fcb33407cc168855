//! Keeps containers out of the host's own network stack.
//!
//! A bridge without any address still hands broadcasts, multicasts and frames for its own MAC to
//! the host's IP stack, which takes them in at every address and port of the host, and forwards
//! them where forwarding is on. So all that comes in by the bridge itself is dropped: an nftables
//! base chain with policy drop at its ingress hook, in a table of its own. Frames between the ports
//! do not pass there. Settings under `/proc/sys` would not do: no `rp_filter` stops a broadcast from
//! 0.0.0.0, and system services set it, and forwarding, for new interfaces as they see fit.

use super::KernelError;
use super::link::check_name;
use super::nftables::encode::{Base, Table, Verdict, attribute, attributes, hook, message, text};
use super::nftables::{Family, Nftables};

/// A table belongs to one bridge; this and the bridge's name are its name.
const TABLE_PREFIX: &str = "rmesh_";
const CHAIN: &str = "host";

/// Drops everything that comes in by the bridge itself, in the caller's network namespace; true if
/// that was not so before.
pub(crate) fn ensure(bridge: &str) -> Result<bool, KernelError> {
    check_name(bridge)?;
    let mut nftables = Nftables::open()?;
    let table = table(bridge);
    let doing = format!("keep containers of {bridge} from the host's ports by nftables");
    let chain = attribute(attributes::CHAIN_NAME, &text(CHAIN));
    let wanted = [table.attribute(), chain].concat();
    let kind = (Family::NETDEV, message::GET_CHAIN);
    if nftables.get(&doing, kind, &wanted, &mut |_, _| {})? {
        return Ok(false);
    }
    let base = Base {
        hook: hook::INGRESS,
        priority: 0,
        device: Some(bridge),
        policy: Verdict::Drop,
    };
    nftables.commit(&doing, &[table.create(), table.chain(CHAIN, Some(base))])?;
    Ok(true)
}

/// Undoes [`ensure`]; success too if there is nothing.
pub(crate) fn remove(bridge: &str) -> Result<(), KernelError> {
    check_name(bridge)?;
    let doing = format!("remove the nftables table of {bridge}");
    Nftables::open()?.remove_table(&doing, &table(bridge))
}

/// Names of the bridges, there or not, that have such a table; none if the kernel has no nftables.
pub(crate) fn guarded() -> Result<Vec<String>, KernelError> {
    let doing = "list the nftables tables";
    let tables = match Nftables::available()? {
        Some(mut nftables) => nftables.tables(doing, Family::NETDEV)?,
        None => Vec::new(),
    };
    let bridges = tables
        .iter()
        .filter_map(|name| name.strip_prefix(TABLE_PREFIX));
    // A table of somebody else's may have any name.
    Ok(bridges
        .filter(|name| check_name(name).is_ok())
        .map(str::to_owned)
        .collect())
}

fn table(bridge: &str) -> Table {
    Table {
        family: Family::NETDEV,
        name: format!("{TABLE_PREFIX}{bridge}"),
    }
}
