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
use super::nftables::{Nftables, attribute, nested, text};

/// NF_NETDEV_INGRESS and NF_DROP of linux/netfilter.h.
const HOOK_INGRESS: u32 = 0;
const POLICY_DROP: u32 = 0;
/// A table belongs to one bridge; this and the bridge's name are its name.
const TABLE_PREFIX: &str = "rmesh_";
const CHAIN: &str = "host";

/// Messages and attributes of linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;

/// Drops everything that comes in by the bridge itself, in the caller's network namespace; true if
/// that was not so before.
pub(crate) fn ensure(bridge: &str) -> Result<bool, KernelError> {
    check_name(bridge)?;
    let mut nftables = Nftables::open()?;
    let table = table(bridge);
    let doing = format!("keep containers of {bridge} from the host's ports by nftables");
    let wanted = [
        attribute(CHAIN_TABLE, &text(&table)),
        attribute(CHAIN_NAME, &text(CHAIN)),
    ];
    if nftables.exists(&doing, GET_CHAIN, &wanted.concat())? {
        return Ok(false);
    }
    let hook = [
        attribute(HOOK_NUMBER, &HOOK_INGRESS.to_be_bytes()),
        attribute(HOOK_PRIORITY, &0_u32.to_be_bytes()),
        attribute(HOOK_DEVICE, &text(bridge)),
    ];
    let chain = [
        attribute(CHAIN_TABLE, &text(&table)),
        attribute(CHAIN_NAME, &text(CHAIN)),
        nested(CHAIN_HOOK, &hook.concat()),
        attribute(CHAIN_POLICY, &POLICY_DROP.to_be_bytes()),
        attribute(CHAIN_TYPE, &text("filter")),
    ];
    let table = attribute(TABLE_NAME, &text(&table));
    nftables.create(&doing, &[(NEW_TABLE, table), (NEW_CHAIN, chain.concat())])?;
    Ok(true)
}

/// Undoes [`ensure`]; success too if there is nothing.
pub(crate) fn remove(bridge: &str) -> Result<(), KernelError> {
    check_name(bridge)?;
    let mut nftables = Nftables::open()?;
    let doing = format!("remove the nftables table of {bridge}");
    let table = attribute(TABLE_NAME, &text(&table(bridge)));
    if nftables.exists(&doing, GET_TABLE, &table)? {
        nftables.delete(&doing, DELETE_TABLE, table)?;
    }
    Ok(())
}

/// Names of the bridges, there or not, that have such a table; none if the kernel has no nftables.
pub(crate) fn guarded() -> Result<Vec<String>, KernelError> {
    let doing = "list the nftables tables";
    let tables = match Nftables::open() {
        Ok(mut nftables) => nftables.list(doing, GET_TABLE, TABLE_NAME)?,
        Err(KernelError::NotPermitted { doing }) => {
            return Err(KernelError::NotPermitted { doing });
        }
        Err(_) => Vec::new(),
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

fn table(bridge: &str) -> String {
    format!("{TABLE_PREFIX}{bridge}")
}
