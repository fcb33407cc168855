//! What fuzzers drive: every way in which bytes of others reach this crate.

use crate::attach::TargetSpec;
use crate::plane::fuzz::{datagram, frame, member, super_frame, too_big};
use crate::{kernel, port};

/// A target's name and what it does with one input.
pub type Entry = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Entry] = &[
    ("plane_datagram", datagram),
    ("plane_member", member),
    ("plane_frame", frame),
    ("plane_super_frame", super_frame),
    ("plane_too_big", too_big),
    ("port_virtio_header", port::fuzz::virtio_header),
    ("port_pieces", port::fuzz::pieces),
    ("port_joined", port::fuzz::joined),
    ("port_opening", port::fuzz::opening),
    ("netlink_answer", kernel::netlink::fuzz),
    ("nftables_answer", kernel::nftables::fuzz),
    ("attach_target", attach_target),
];

/// How an operator names a container.
fn attach_target(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(target) = text.parse::<TargetSpec>()
    {
        assert_eq!(target.to_string().parse::<TargetSpec>().ok(), Some(target));
    }
}
