//! The host's side: the bridge, the addresses of this host, and news of them.

mod addresses;
mod bridge;
pub(crate) mod link;
pub(crate) mod netlink;
mod route;
pub(crate) mod sysctl;
mod watch;

pub use crate::error::KernelError;
pub use addresses::local_addresses;
pub use bridge::Bridge;
pub use watch::AddressWatch;
