//! Virtual hosts and wires on one machine, for end-to-end tests and for `rmesh demo`.
//!
//! A [`Host`] is a network namespace made in this process by `unshare` and netlink: no other tool
//! is started, but `nft` for a [`Nat`] or a [`Firewall`]. Hosts are joined by [`Link`]s (veth pairs with static neighbours), which can be cut
//! silently, as a broken network does it: nobody gets an error; or by emulated wires that lose, delay,
//! double, reorder and swallow what they carry, as a [`WireProfile`] says. Real programs run inside hosts as
//! [`Process`]es, containers are bare namespaces beside them, and [`probe`] sends traffic and counts.
//!
//! ```no_run
//! use rmesh_lab::{Family, Lab, probe};
//! let mut lab = Lab::new("example")?;
//! let (a, b) = (lab.host("a")?, lab.host("b")?);
//! let link = lab.link(&a, &b, Family::Both)?;
//! assert!(probe::ping(&a, link.address(&b, false), Default::default())?.received > 0);
//! link.cut()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything goes away when the [`Lab`] is dropped; what a killed lab left goes when the next one
//! starts. Files lie under `/tmp/rmesh-lab-<uid>/`; those of a failed test are kept in `labs.failed/`.

mod card;
mod emulator;
mod error;
mod folder;
mod forwarder;
mod host;
mod lab;
mod lan;
mod leftovers;
mod link;
mod namespace;
mod nat;
mod netlink;
mod netns;
mod nft;
mod offloads;
mod picture;
mod privileges;
pub mod probe;
mod process;
mod routes;
mod shaper;
mod sys;

pub use card::Card;
pub use error::LabError;
pub use forwarder::{Forwarder, Work};
pub use host::{Container, Host};
pub use lab::Lab;
pub use link::{Family, Link};
pub use namespace::Namespace;
pub use nat::{Firewall, Nat, NatBehavior};
pub use privileges::require_privileges;
pub use process::Process;
pub use shaper::{WireCounters, WireProfile};
