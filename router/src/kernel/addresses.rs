//! The addresses by which other hosts may reach this one.
use std::net::IpAddr;

use super::KernelError;

/// Global unicast addresses of interfaces that are up, except loopback, the bridge and its ports.
pub fn local_addresses(bridge: &str) -> Result<Vec<IpAddr>, KernelError> {
    let _ = bridge;
    unimplemented!()
}
