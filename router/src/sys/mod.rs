//! The few files that speak to the kernel below netlink.

pub(crate) mod batch;
pub(crate) mod ethtool;
pub(crate) mod netns;
pub(crate) mod packet;
pub(crate) mod poll;
pub(crate) mod steer;
pub(crate) mod tap;
pub(crate) mod udp;
