//! Sets of small numbers as words of bits.
//!
//! **Invariant:** sets that are held against each other have equally many words; a number past the
//! end is in no set.

const WORD_BITS: usize = 64;

/// Words for a set of so many numbers.
pub(crate) fn words(count: usize) -> usize {
    count.div_ceil(WORD_BITS).max(1)
}

pub(crate) fn set(bits: &mut [u64], at: usize) {
    if let Some(word) = bits.get_mut(at / WORD_BITS) {
        *word |= 1 << (at % WORD_BITS);
    }
}

pub(crate) fn clear(bits: &mut [u64], at: usize) {
    if let Some(word) = bits.get_mut(at / WORD_BITS) {
        *word &= !(1 << (at % WORD_BITS));
    }
}

pub(crate) fn has(bits: &[u64], at: usize) -> bool {
    bits.get(at / WORD_BITS).is_some_and(|word| word & (1 << (at % WORD_BITS)) != 0)
}

pub(crate) fn first(bits: &[u64]) -> Option<usize> {
    let (at, word) = bits.iter().enumerate().find(|(_, word)| **word != 0)?;
    Some(at * WORD_BITS + word.trailing_zeros() as usize)
}

pub(crate) fn count(bits: &[u64]) -> usize {
    bits.iter().map(|word| word.count_ones() as usize).sum()
}

pub(crate) fn keep(bits: &mut [u64], only: &[u64]) {
    for (word, only) in bits.iter_mut().zip(only) {
        *word &= only;
    }
}

pub(crate) fn remove(bits: &mut [u64], gone: &[u64]) {
    for (word, gone) in bits.iter_mut().zip(gone) {
        *word &= !gone;
    }
}

pub(crate) fn and(a: &[u64], b: &[u64]) -> Vec<u64> {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

pub(crate) fn iter(bits: &[u64]) -> impl Iterator<Item = usize> {
    let words = bits.iter().enumerate();
    words.flat_map(|(at, &word)| iter_word(word).map(move |bit| at * WORD_BITS + bit as usize))
}

/// Places of the bits of one word.
pub(crate) fn iter_word(word: u64) -> impl Iterator<Item = u32> {
    let mut rest = word;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let bit = rest.trailing_zeros();
            rest &= rest - 1;
            bit
        })
    })
}
