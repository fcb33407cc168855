//! Two streams from one seed: what is visible on the wire never tells about what is secret.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use sha2::Digest;
use zeroize::Zeroize;

use crate::crypto::Key;

/// Source of all randomness of one mesh.
pub(crate) struct Random {
    public: ChaCha20Rng,
    secret: ChaCha20Rng,
}

impl Random {
    pub(crate) fn new(mut seed: [u8; 32]) -> Self {
        let stream = |label: &[u8]| {
            let mut hash: [u8; 32] = sha2::Sha256::new()
                .chain_update(label)
                .chain_update(seed)
                .finalize()
                .into();
            let rng = ChaCha20Rng::from_seed(hash);
            hash.zeroize();
            rng
        };
        let random = Random {
            public: stream(b"rmesh public"),
            secret: stream(b"rmesh secret"),
        };
        seed.zeroize();
        random
    }

    /// A number others may see.
    pub(crate) fn public_u64(&mut self) -> u64 {
        self.public.next_u64()
    }

    /// A number others may see.
    pub(crate) fn public_u32(&mut self) -> u32 {
        self.public.next_u32()
    }

    /// 32 bytes nobody may see.
    pub(crate) fn secret_key(&mut self) -> Key {
        Key::made_by(|key| self.secret.fill_bytes(key))
    }
}
