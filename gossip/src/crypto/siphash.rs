//! SipHash-2-4 with 128 bits of output (Aumasson and Bernstein 2012), for the model of cryptography.

/// The hash of `parts` under `key`. Each part is closed by its length, so `["ab"]` and
/// `["a", "b"]` differ; one part alone gives plain SipHash-2-4-128.
pub(super) fn hash(key: [u64; 2], parts: &[&[u8]]) -> [u8; 16] {
    let mut state = State::new(key);
    for part in parts {
        state.absorb(part);
    }
    state.finish()
}

struct State([u64; 4]);

impl State {
    fn new([k0, k1]: [u64; 2]) -> Self {
        State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    fn absorb(&mut self, part: &[u8]) {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = part.len() as u8;
        self.word(u64::from_le_bytes(last));
    }

    fn output(&mut self) -> [u8; 8] {
        for _ in 0..4 {
            self.round();
        }
        let [a, b, c, d] = self.0;
        (a ^ b ^ c ^ d).to_le_bytes()
    }

    fn finish(mut self) -> [u8; 16] {
        self.0[2] ^= 0xee;
        let first = self.output();
        self.0[1] ^= 0xdd;
        let second = self.output();
        let mut out = [0; 16];
        out[..8].copy_from_slice(&first);
        out[8..].copy_from_slice(&second);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_authors_vectors() {
        let empty = [
            0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
            0x02, 0x93,
        ];
        assert_eq!(hash(KEY, &[b""]), empty);
        let one = [
            0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22,
            0xfc, 0x45,
        ];
        assert_eq!(hash(KEY, &[&[0]]), one);
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(hash(KEY, &[b"ab"]), hash(KEY, &[b"a", b"b"]));
        assert_ne!(hash(KEY, &[b"a", b""]), hash(KEY, &[b"a"]));
    }
}
