//! Sets of small numbers as words of bits.
//!
//! **Invariant:** sets that are held against each other have equally many words; a number past the
//! end is in no set.

const WORD_BITS: usize = 64;

/// Words for a set of so many numbers.
pub(crate) fn words(count: usize) -> usize {
    count.div_ceil(WORD_BITS).max(1)
}

/// The word in which the number is.
pub(crate) fn word_of(at: usize) -> usize {
    at / WORD_BITS
}

/// The number's bit in its word.
pub(crate) fn single(at: usize) -> u64 {
    1 << (at % WORD_BITS)
}

/// The number at this place of this word.
pub(crate) fn number(word: usize, bit: u32) -> usize {
    word * WORD_BITS + bit as usize
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

/// Sets in `row` the places of the values up to `most`, and clears all others.
pub(crate) fn set_up_to(row: &mut [u64], values: &[u32], most: u32) {
    // Of a length that is known when this is built, they are looked at in two thirds of the time.
    let (whole, rest) = values.as_chunks::<WORD_BITS>();
    for (word, values) in row.iter_mut().zip(whole) {
        *word = up_to(values, most);
    }
    if let (Some(word), false) = (row.get_mut(whole.len()), rest.is_empty()) {
        let mut values = [0; WORD_BITS];
        values.iter_mut().zip(rest).for_each(|(to, value)| *to = *value);
        *word = up_to(&values, most) & (single(rest.len()) - 1);
    }
}

fn up_to(values: &[u32; WORD_BITS], most: u32) -> u64 {
    // By way of bytes, which a processor makes many at a time.
    let mut are = [0u8; WORD_BITS];
    are.iter_mut().zip(values).for_each(|(is, value)| *is = u8::from(*value <= most));
    let (eights, _) = are.as_chunks::<8>();
    eights.iter().rev().fold(0, |word, eight| {
        word << 8 | u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// Turns a square of bits so that rows become columns, halves of it at a time (Warren's Hacker's
/// Delight, 7-3).
pub(crate) fn transpose(square: &mut [u64; WORD_BITS]) {
    let mut width = WORD_BITS / 2;
    let mut low = u64::MAX >> width;
    while width > 0 {
        for rows in square.chunks_mut(2 * width) {
            let (upper, lower) = rows.split_at_mut(width);
            for (upper, lower) in upper.iter_mut().zip(lower) {
                let other = (*upper >> width ^ *lower) & low;
                *lower ^= other;
                *upper ^= other << width;
            }
        }
        width /= 2;
        low ^= low << width;
    }
}

/// Adds to the values whose places are set in the word.
pub(crate) fn add_to(values: &mut [i32; WORD_BITS], word: u64, more: i32) {
    // By way of eight at a time, each against a bit of its own, which a processor does side by side.
    let (eights, _) = values.as_chunks_mut::<8>();
    for (eight, byte) in eights.iter_mut().zip(word.to_le_bytes()) {
        for (at, value) in eight.iter_mut().enumerate() {
            *value += if i32::from(byte) & (1 << at) != 0 { more } else { 0 };
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn rows_become_columns() {
        let mut rng = StdRng::seed_from_u64(4);
        let square: [u64; WORD_BITS] = std::array::from_fn(|_| rng.random());
        let mut turned = square;
        transpose(&mut turned);
        for (at, row) in square.iter().enumerate() {
            let column = turned.iter().enumerate().filter(|(_, row)| has(&[**row], at));
            let column: Vec<usize> = column.map(|(to, _)| to).collect();
            assert_eq!(column, iter(&[*row]).collect::<Vec<usize>>());
        }
    }

    #[test]
    fn more_is_added_where_the_word_says_so_and_nowhere_else() {
        let mut rng = StdRng::seed_from_u64(5);
        for word in [0, u64::MAX, rng.random(), rng.random()] {
            let old: [i32; WORD_BITS] = std::array::from_fn(|_| rng.random_range(-9..9));
            let mut values = old;
            add_to(&mut values, word, 100);
            for (at, (new, old)) in values.iter().zip(&old).enumerate() {
                assert_eq!(*new, old + if has(&[word], at) { 100 } else { 0 });
            }
        }
    }

    #[test]
    fn values_up_to_some_value_are_set_and_no_others() {
        let mut rng = StdRng::seed_from_u64(3);
        for len in [0usize, 1, 7, 8, 63, 64, 65, 200] {
            let values: Vec<u32> = (0..len).map(|_| rng.random_range(0..9)).collect();
            for most in [0, 4, u32::MAX] {
                let mut row = vec![u64::MAX; len.div_ceil(WORD_BITS)];
                set_up_to(&mut row, &values, most);
                let up_to = values.iter().enumerate().filter(|(_, value)| **value <= most);
                let up_to: Vec<usize> = up_to.map(|(at, _)| at).collect();
                assert_eq!(iter(&row).collect::<Vec<usize>>(), up_to);
            }
        }
    }
}
