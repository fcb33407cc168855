//! What shows that a second-way probe was made by the peer it names (DESIGN D7).

use rmesh_wire::PeerId;
use sha2::{Digest, Sha256};

use crate::crypto::Key;

/// Marks the probes of this mesh's peers, each with its own: a container sees the probes of its own
/// host, and could otherwise name another peer in one and so stop its host's floods.
#[derive(Debug, Clone)]
pub struct ProbeMarks(Key);

impl ProbeMarks {
    /// The marks of the mesh with this secret, about which they tell nothing.
    pub fn new(secret: &Key) -> Self {
        let hash = Sha256::new()
            .chain_update(b"rmesh second way v2")
            .chain_update(secret.bytes());
        ProbeMarks(Key::made_by(|key| key.copy_from_slice(&hash.finalize())))
    }

    /// The mark of one peer's probes.
    pub fn of(&self, peer: &PeerId) -> u64 {
        let hash = Sha256::new()
            .chain_update(self.0.bytes())
            .chain_update(peer.0);
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Default for ProbeMarks {
    fn default() -> Self {
        ProbeMarks::new(&Key::new([0; 32]))
    }
}
