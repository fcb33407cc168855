//! The few files that speak to the kernel below netlink.

pub(crate) mod poll;
pub(crate) mod udp;
