//! The few files that speak to the kernel below netlink.

pub(crate) mod netns;
pub(crate) mod packet;
