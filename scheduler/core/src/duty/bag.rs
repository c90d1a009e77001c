//! A bag of things that changed.
//!
//! **Invariant:** holds at most about twice as many items as there are different ones.

/// Least items between two merges; below that a merge is not worth its sort.
const MERGE_ITEMS_MIN: usize = 1024;

/// A bag of things that changed; repeats are merged now and then.
#[derive(Clone, Debug)]
pub struct Bag<T> {
    items: Vec<T>,
    merge_at: usize,
}

impl<T: Ord> Default for Bag<T> {
    fn default() -> Self {
        Self { items: Vec::new(), merge_at: MERGE_ITEMS_MIN }
    }
}

impl<T: Ord> Bag<T> {
    /// Puts one in.
    pub fn push(&mut self, item: T) {
        if self.items.last() == Some(&item) {
            return;
        }
        self.items.push(item);
        if self.items.len() >= self.merge_at {
            self.items.sort_unstable();
            self.items.dedup();
            self.merge_at = MERGE_ITEMS_MIN.max(2 * self.items.len());
        }
    }

    /// Takes all out: sorted, without repeats.
    pub fn take(&mut self) -> Vec<T> {
        let mut items = std::mem::take(self).items;
        items.sort_unstable();
        items.dedup();
        items
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bag_stays_small_however_often_the_same_things_change() {
        let mut bag = Bag::default();
        for round in 0..100_000u32 {
            bag.push(round % 700);
            assert!(bag.items.len() <= MERGE_ITEMS_MIN.max(2 * 700));
        }
        assert_eq!(bag.take(), (0..700).collect::<Vec<_>>());
        assert!(bag.is_empty());
    }
}
