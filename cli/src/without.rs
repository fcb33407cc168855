//! `--without`: what the data plane is not to use, though it is there.

use clap::ValueEnum;
use rmesh_router::Without;

/// Something kernel or processor can do for the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Feature {
    /// Frames of up to 64 KiB to and from the bridge (virtio header, TSO, USO)
    SuperFrames,
    /// AES-256-GCM with the processor's instructions; ChaCha20-Poly1305 instead
    Aes,
    /// The kernel cuts runs of datagrams that are sent (UDP_SEGMENT)
    UdpSegmentation,
    /// The kernel joins runs of datagrams that are received (UDP_GRO)
    UdpReceiveOffload,
    /// Source ports of their own for the data plane's workers, so that network cards and equal paths spread what they send
    SourcePorts,
}

impl Feature {
    /// The word on the command line.
    pub(crate) fn word(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// All of them as the data plane takes them.
pub(crate) fn without(features: &[Feature]) -> Without {
    let has = |feature| features.contains(&feature);
    Without {
        super_frames: has(Feature::SuperFrames),
        aes: has(Feature::Aes),
        udp_segmentation: has(Feature::UdpSegmentation),
        udp_receive_offload: has(Feature::UdpReceiveOffload),
        source_ports: has(Feature::SourcePorts),
    }
}
