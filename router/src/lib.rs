//! Frames in, frames out, and the kernel.
//!
//! [`kernel`] keeps the host's side in order (bridge, addresses), [`attach`] joins containers to
//! the bridge. Both speak netlink; no other program is called.

pub mod attach;
pub mod error;
pub mod kernel;
pub(crate) mod sys;
