//! Sets of vertices as words of bits.
//!
//! **Invariant:** sets of one problem have equally many words.

const WORD_BITS: usize = 64;

/// Words for a set of so many vertices.
pub(super) fn words(count: usize) -> usize {
    count.div_ceil(WORD_BITS).max(1)
}

pub(super) fn set(bits: &mut [u64], at: usize) {
    bits[at / WORD_BITS] |= 1 << (at % WORD_BITS);
}

pub(super) fn clear(bits: &mut [u64], at: usize) {
    bits[at / WORD_BITS] &= !(1 << (at % WORD_BITS));
}

pub(super) fn has(bits: &[u64], at: usize) -> bool {
    bits[at / WORD_BITS] & (1 << (at % WORD_BITS)) != 0
}

pub(super) fn first(bits: &[u64]) -> Option<usize> {
    let (at, word) = bits.iter().enumerate().find(|(_, word)| **word != 0)?;
    Some(at * WORD_BITS + word.trailing_zeros() as usize)
}

pub(super) fn count(bits: &[u64]) -> usize {
    bits.iter().map(|word| word.count_ones() as usize).sum()
}

pub(super) fn keep(bits: &mut [u64], only: &[u64]) {
    for (word, only) in bits.iter_mut().zip(only) {
        *word &= only;
    }
}

pub(super) fn remove(bits: &mut [u64], gone: &[u64]) {
    for (word, gone) in bits.iter_mut().zip(gone) {
        *word &= !gone;
    }
}

pub(super) fn and(a: &[u64], b: &[u64]) -> Vec<u64> {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

pub(super) fn iter(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(at, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                at * WORD_BITS + bit
            })
        })
    })
}
