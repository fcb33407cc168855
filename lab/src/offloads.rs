//! What interfaces do for the kernel, switched off: a veth pair then carries real packets.

use std::io;

use crate::{LabError, Namespace, error::Attempt, sys};

/// `ETHTOOL_GSSET_INFO`, `ETHTOOL_GSTRINGS`, `ETHTOOL_SFEATURES` and `ETH_SS_FEATURES` of
/// linux/ethtool.h.
const GET_SET_INFO: u32 = 0x37;
const GET_STRINGS: u32 = 0x1b;
const SET_FEATURES: u32 = 0x3b;
const FEATURES: u32 = 4;
/// Length of a feature's name, padded with zeros.
const NAME_LEN: usize = 32;

/// Cutting and joining packets, in hardware or on its behalf.
const SEGMENTATION: [&str; 12] = [
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
    "tx-udp-segmentation",
    "tx-gso-partial",
    "tx-gso-list",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "rx-gro",
    "rx-gro-list",
];

/// Joining what is received.
const JOINS: &str = "rx-gro";

impl Namespace {
    /// Has an interface cut nothing and join nothing: every packet on it is one of its MTU.
    ///
    /// # Errors
    /// If there is no such interface, or the kernel refuses.
    pub fn without_offloads(&self, interface: &str) -> Result<(), LabError> {
        self.set_offloads(interface, false)
    }

    /// The same, but what it receives is joined again, as a network card's driver does.
    ///
    /// # Errors
    /// As [`Namespace::without_offloads`].
    pub fn with_receive_offload_only(&self, interface: &str) -> Result<(), LabError> {
        self.set_offloads(interface, true)
    }

    fn set_offloads(&self, interface: &str, joins: bool) -> Result<(), LabError> {
        self.enter(|| switch(interface, joins))
            .attempt(|| format!("switch offloads of {interface} in {}", self.name()))
    }
}

fn switch(interface: &str, joins: bool) -> io::Result<()> {
    let names = feature_names(interface)?;
    let blocks = names.len().div_ceil(32);
    // Each block: which of 32 features are meant, and which of them are to be on.
    let mut meant = vec![[0u32; 2]; blocks];
    for (at, name) in names.iter().enumerate() {
        if SEGMENTATION.contains(&name.as_str()) {
            let is_on = joins && name == JOINS;
            meant[at / 32][0] |= 1 << (at % 32);
            meant[at / 32][1] |= u32::from(is_on) << (at % 32);
        }
    }
    let mut command = words(&[
        SET_FEATURES,
        u32::try_from(blocks).map_err(io::Error::other)?,
    ]);
    for block in meant {
        command.extend(words(&block));
    }
    sys::ethtool(interface, &mut command)
}

fn feature_names(interface: &str) -> io::Result<Vec<String>> {
    let mut info = words(&[GET_SET_INFO, 0, 1 << FEATURES, 0, 0]);
    sys::ethtool(interface, &mut info)?;
    let count = word(&info, 4).min(4_096);
    let mut strings = words(&[GET_STRINGS, FEATURES, count]);
    strings.resize(12 + count as usize * NAME_LEN, 0);
    sys::ethtool(interface, &mut strings)?;
    let text = |name: &[u8]| {
        String::from_utf8_lossy(name)
            .trim_end_matches('\0')
            .to_owned()
    };
    Ok(strings[12..].chunks(NAME_LEN).map(text).collect())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let bytes = bytes.get(index * 4..).and_then(|rest| rest.first_chunk());
    u32::from_ne_bytes(*bytes.unwrap_or(&[0; 4]))
}
