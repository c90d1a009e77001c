//! A hash that is the same on every server: fixed algorithm, no keys, no dependence on the machine.
//!
//! **Invariant:** for comparing states and finding keys, never for security: it withstands
//! accidents, not adversaries, so nothing may trust that two equal hashes mean equal values.

/// Odd constants with even bit counts: the first digits of the square roots of 2, 3 and 5.
const FOLDS: [u64; 3] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b];

/// Streaming 128-bit hash; feed it through [`std::hash::Hash`].
///
/// Two lanes, each multiplying word by word into 128 bits and folding the halves together.
#[derive(Clone, Debug)]
pub struct Hasher {
    low: u64,
    high: u64,
    words: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

fn fold(value: u64, by: u64) -> u64 {
    let wide = u128::from(value) * u128::from(by);
    let bytes = wide.to_le_bytes();
    let (mut low, mut high) = ([0u8; 8], [0u8; 8]);
    low.copy_from_slice(bytes.get(..8).unwrap_or(&[0; 8]));
    high.copy_from_slice(bytes.get(8..).unwrap_or(&[0; 8]));
    u64::from_le_bytes(low) ^ u64::from_le_bytes(high)
}

impl Hasher {
    pub const fn new() -> Self {
        Self { low: FOLDS[1], high: FOLDS[2], words: 0 }
    }

    fn word(&mut self, word: u64) {
        self.words = self.words.wrapping_add(1);
        // Adding the count keeps runs of equal words from cancelling out.
        let salted = word ^ self.words.wrapping_mul(FOLDS[0]);
        self.low = fold(self.low ^ salted, FOLDS[1] | 1).wrapping_add(word);
        self.high = fold(self.high.rotate_left(29) ^ salted, FOLDS[2] | 1).wrapping_add(self.low);
    }

    /// The hash of all that was fed so far.
    pub fn finish128(&self) -> u128 {
        let mut last = self.clone();
        last.word(self.words);
        last.word(FOLDS[0]);
        (u128::from(last.high) << 64) | u128::from(last.low)
    }
}

impl std::hash::Hasher for Hasher {
    fn finish(&self) -> u64 {
        let mut last = self.clone();
        last.word(self.words);
        last.high ^ last.low
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for chunk in words.by_ref() {
            self.word(chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut word = [0u8; 8];
            for (to, from) in word.iter_mut().zip(rest) {
                *to = *from;
            }
            self.word(u64::from_le_bytes(word));
        }
        // Closes the run, so that neighbouring texts cannot trade bytes or trailing zeroes.
        self.word(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.word(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.word(u64::try_from(value & u128::from(u64::MAX)).unwrap_or(u64::MAX));
        self.word(u64::try_from(value >> 64).unwrap_or(u64::MAX));
    }

    fn write_usize(&mut self, value: usize) {
        self.word(u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn write_i32(&mut self, value: i32) {
        self.write_i64(i64::from(value));
    }

    fn write_i64(&mut self, value: i64) {
        self.word(u64::from_le_bytes(value.to_le_bytes()));
    }

    fn write_isize(&mut self, value: isize) {
        self.write_i64(i64::try_from(value).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::Hasher;
    use std::hash::{Hash, Hasher as _};

    fn hash(value: impl Hash) -> u128 {
        let mut hasher = Hasher::new();
        value.hash(&mut hasher);
        hasher.finish128()
    }

    #[test]
    fn is_fixed_for_all_time() {
        // Servers compare these over the network: a change here is a change of protocol.
        let found = [hash(0u64), hash("node-7"), hash((1u8, vec![2u32, 3], Some("x")))];
        assert_eq!(found.map(|hash| format!("{hash:032x}")), GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        "110294fbb1914a459751e35b8efe44bd",
        "942d236adeb8d05b501048a44bf64f11",
        "26ed210322a9a85373e8f334e36e1733",
    ];

    #[test]
    fn tells_neighbours_apart() {
        let mut seen = std::collections::BTreeSet::new();
        for value in 0u64..2_000 {
            assert!(seen.insert(hash(value)));
            assert!(seen.insert(hash((value, 0u64))));
            assert!(seen.insert(hash((0u64, 1 + value))));
        }
        assert_ne!(hash(("ab", "c")), hash(("a", "bc")));
        assert_ne!(hash(vec![0u8; 8]), hash(vec![0u8; 9]));
    }

    #[test]
    fn equal_input_is_equal_in_pieces_of_the_same_shape() {
        let mut a = Hasher::new();
        a.write_u64(1);
        a.write(b"abc");
        let mut b = Hasher::new();
        b.write_u64(1);
        b.write(b"abc");
        assert_eq!(a.finish(), b.finish());
    }
}
