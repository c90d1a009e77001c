//! What the tail holds of the newest entries, and what it gives back.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// A step of the tail's life; numbers are taken modulo what makes sense.
#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Truncate(u64),
    Purge(u64),
    Write,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..6).prop_map(Step::Push),
        1 => (0_u64..12).prop_map(Step::Truncate),
        1 => (0_u64..12).prop_map(Step::Purge),
        2 => Just(Step::Write),
    ];
    proptest::collection::vec(step, 0..40)
}

fn record(index: u64) -> Record {
    let at = LogPosition { term: 1, leader: 1, index };
    Record { at, kind: 0, payload: Bytes::from(vec![7; 100]) }
}

fn batch(indexes: Range<u64>) -> Batch {
    Batch::new(indexes.map(record).collect()).expect("consecutive")
}

proptest! {
    /// Against one map of entries: what is held, is what was put and neither truncated, purged
    /// nor evicted; nothing unwritten is evicted; and what is evicted goes from the front.
    #[test]
    fn holds_what_a_plain_map_holds(steps in steps(), bytes_max in 0_usize..2_000) {
        let mut tail = Tail::new(bytes_max);
        let mut plain: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut next, mut ticket) = (5_u64, 0_u64);
        for step in steps {
            match step {
                Step::Push(count) => {
                    ticket += 1;
                    let indexes = next..next + count as u64;
                    plain.extend(indexes.clone().map(|index| (index, ticket)));
                    tail.push(batch(indexes), ticket);
                    next += count as u64;
                }
                Step::Truncate(back) => {
                    let last_kept = next.checked_sub(1 + back);
                    tail.truncate_after(last_kept);
                    plain.retain(|index, _| Some(*index) <= last_kept);
                    next = next.min(last_kept.map_or(0, |last| last + 1));
                }
                Step::Purge(ahead) => {
                    let upto = tail.first_index().unwrap_or(next).saturating_sub(2) + ahead;
                    tail.purge(upto);
                    plain.retain(|index, _| *index > upto);
                    next = next.max(upto + 1);
                }
                Step::Write => {
                    let written = ticket;
                    tail.evict(written, &mut Vec::new());
                    prop_assert!(tail.bytes() <= bytes_max);
                    let first = tail.first_index().unwrap_or(u64::MAX);
                    plain.retain(|index, brought_by| *index >= first || *brought_by > written);
                }
            }
            prop_assert_eq!(tail.first_index(), plain.keys().next().copied());
            prop_assert_eq!(tail.len(), plain.len());
            for index in 0..next + 3 {
                let found = tail.get(index).map(|record| record.at.index);
                prop_assert_eq!(found, plain.contains_key(&index).then_some(index));
            }
        }
    }
}

#[test]
fn memory_is_counted_until_it_is_given_back() {
    let mut tail = Tail::new(usize::MAX);
    tail.push(batch(0..10), 1);
    let full = tail.bytes();
    assert!(full > 10 * 100);
    tail.purge(4);
    tail.truncate_after(Some(7));
    assert_eq!((tail.len(), tail.bytes()), (3, full));
    tail.purge(7);
    assert_eq!((tail.len(), tail.bytes()), (0, 0));
}
