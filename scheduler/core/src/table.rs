//! A paged copy-on-write vector keyed by dense numbers: a view of it costs one pointer a page.
//!
//! **Invariant:** holds values only; what they mean, and which numbers are given out, is the
//! caller's. Cloning never copies values; the first write to a page after that copies the page.

use std::sync::Arc;

/// Slots of one page: 4 KiB for the usual 32-byte value, so that a copy stays in the caches.
const PAGE_SLOTS: u64 = 128;

#[derive(Clone, Debug)]
struct Page<T> {
    slots: Vec<Option<T>>,
    used: usize,
}

/// Values by number. A page with one value costs as much as a full one, a gap of pages nothing:
/// numbers may grow for ever while old values go.
#[derive(Clone, Debug)]
pub struct Table<T> {
    /// By rising number / [`PAGE_SLOTS`]; none is empty. With numbers given out one after another
    /// a page is found at once, however many there are.
    pages: Vec<(u64, Arc<Page<T>>)>,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

fn slot_of(key: u64) -> usize {
    usize::try_from(key % PAGE_SLOTS).unwrap_or(0)
}

impl<T> Table<T> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, key: u64) -> Option<&T> {
        let at = self.place(key / PAGE_SLOTS).ok()?;
        self.pages.get(at)?.1.slots.get(slot_of(key))?.as_ref()
    }

    /// Where the page is, or where it belongs.
    fn place(&self, number: u64) -> Result<usize, usize> {
        let Some((first, _)) = self.pages.first() else { return Err(0) };
        let Some(ahead) = number.checked_sub(*first) else { return Err(0) };
        // No number comes twice, so a page lies here if none is missing before it, else before.
        let guess = usize::try_from(ahead).unwrap_or(usize::MAX);
        match self.pages.get(guess) {
            Some((found, _)) if *found == number => Ok(guess),
            _ => {
                let upto = guess.min(self.pages.len());
                self.pages
                    .get(..upto)
                    .unwrap_or_default()
                    .binary_search_by_key(&number, |page| page.0)
            }
        }
    }

    /// All values by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.iter_from(0)
    }

    /// Values with numbers of at least `first`, rising.
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = (u64, &T)> {
        let start = move |page: u64| if page == first / PAGE_SLOTS { slot_of(first) } else { 0 };
        let from = self.place(first / PAGE_SLOTS).unwrap_or_else(|at| at);
        self.pages.get(from..).unwrap_or_default().iter().flat_map(move |(number, page)| {
            let keys = number.saturating_mul(PAGE_SLOTS)..=u64::MAX;
            let slots = keys.zip(&page.slots).skip(start(*number));
            slots.filter_map(|(key, slot)| Some((key, slot.as_ref()?)))
        })
    }
}

impl<T: Clone> Table<T> {
    /// The value for changing; copies its page first when a clone of the table shares it.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let at = self.place(key / PAGE_SLOTS).ok()?;
        let (_, page) = self.pages.get_mut(at)?;
        // An absent value must not cost a copy.
        page.slots.get(slot_of(key))?.as_ref()?;
        Arc::make_mut(page).slots.get_mut(slot_of(key))?.as_mut()
    }

    /// Puts a value; returns the one before.
    pub fn insert(&mut self, key: u64, value: T) -> Option<T> {
        let number = key / PAGE_SLOTS;
        let at = self.place(number).unwrap_or_else(|at| {
            let slots = (0..PAGE_SLOTS).map(|_| None).collect();
            self.pages.insert(at, (number, Arc::new(Page { slots, used: 0 })));
            at
        });
        let (_, page) = self.pages.get_mut(at)?;
        let page = Arc::make_mut(page);
        let old = page.slots.get_mut(slot_of(key))?.replace(value);
        if old.is_none() {
            page.used += 1;
            self.len += 1;
        }
        old
    }

    /// Takes a value out; frees its page when that was the last one there.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let at = self.place(key / PAGE_SLOTS).ok()?;
        let (_, page) = self.pages.get_mut(at)?;
        page.slots.get(slot_of(key))?.as_ref()?;
        let page = Arc::make_mut(page);
        let old = page.slots.get_mut(slot_of(key))?.take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages.remove(at);
        }
        Some(old)
    }
}

impl<T: PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_like_a_map_and_clones_stay_as_they_were() {
        let mut table = Table::default();
        let mut model = BTreeMap::new();
        let mut kept = Vec::new();
        let mut seed = 7u64;
        for step in 0..20_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // A window that moves on, so that pages in front become free.
            let key = step / 10 + (seed >> 33) % 700;
            match seed % 5 {
                0 | 1 => assert_eq!(table.insert(key, step), model.insert(key, step)),
                2 | 3 => assert_eq!(table.remove(key), model.remove(&key)),
                _ => {
                    if let Some(value) = table.get_mut(key) {
                        *value += 1;
                    }
                    if let Some(value) = model.get_mut(&key) {
                        *value += 1;
                    }
                }
            }
            if step % 4_000 == 0 {
                kept.push((table.clone(), model.clone()));
            }
        }
        kept.push((table, model));
        for (table, model) in kept {
            assert_eq!(table.len(), model.len());
            assert!(table.iter().eq(model.iter().map(|(k, v)| (*k, v))));
            for from in [0, 500, 1_000, 5_000] {
                let rest = model.range(from..).map(|(k, v)| (*k, v));
                assert!(table.iter_from(from).eq(rest));
            }
            assert!(model.iter().all(|(k, v)| table.get(*k) == Some(v)));
        }
    }

    #[test]
    fn emptied_pages_are_given_back() {
        let mut table = Table::default();
        for key in 0..100_000u64 {
            table.insert(key, key);
            if key >= 1_000 {
                table.remove(key - 1_000);
            }
        }
        assert_eq!(table.len(), 1_000);
        assert!(table.pages.len() <= 10);
        table.insert(u64::MAX, 1);
        table.insert(u64::MAX - 128, 2);
        assert_eq!(table.iter_from(u64::MAX).collect::<Vec<_>>(), [(u64::MAX, &1)]);
        assert_eq!(table.len(), 1_002);
    }
}
