//! The host's side: the bridge, the addresses of this host, news of them, and what a report shows.

mod addresses;
mod bridge;
mod facts;
pub(crate) mod fdb;
mod guard;
mod inside;
pub(crate) mod link;
pub(crate) mod netlink;
pub(crate) mod nftables;
pub(crate) mod owned;
mod route;
pub(crate) mod sysctl;
pub(crate) mod tunnel;
mod watch;

pub use crate::error::KernelError;
pub use addresses::local_addresses;
pub use bridge::Bridge;
pub use facts::{
    HostAddress, HostLink, HostNextHop, HostRoute, host_addresses, host_links, host_routes,
};
pub use inside::Inside;
pub use owned::{OwnedLinks, owned_links, remove_port};
pub use watch::{AddressWatch, RulesetWatch, Woken};
