//! Settings of one interface under `/proc/sys/net`, which shows the network namespace of the
//! thread that looks.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::KernelError;
use super::link::check_name;
use super::netlink::failure;

/// Sets `net.FAMILY.conf.INTERFACE.KEY`, unless it has the value already. A kernel without that
/// family has nothing to set.
pub(crate) fn set(
    family: &str,
    interface: &str,
    key: &str,
    value: &str,
) -> Result<(), KernelError> {
    check_name(interface)?;
    let path: PathBuf = ["/proc/sys/net", family, "conf", interface, key]
        .iter()
        .collect();
    let doing = || format!("set {} to {value}", path.display());
    match fs::read_to_string(&path) {
        Ok(current) if current.trim_end() == value => Ok(()),
        Ok(_) => fs::write(&path, value).map_err(|cause| failure(&doing(), cause, String::new())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(failure(&doing(), cause, String::new())),
    }
}

/// Keeps the host from having any IPv6 address on an interface that carries containers' frames.
pub(crate) fn keep_ipv6_off(interface: &str) -> Result<(), KernelError> {
    set("ipv6", interface, "accept_ra", "0")?;
    set("ipv6", interface, "addr_gen_mode", "1")?;
    set("ipv6", interface, "disable_ipv6", "1")
}
