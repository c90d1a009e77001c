//! Pages: a list that copies share, page by page, until one of them changes a page.
//!
//! The explainer works on a copy of the planner's view: with this, making one costs a pointer for
//! each page, and only what changes while both live is ever copied.
//! **Invariant:** a change of one copy is never seen through another.

use std::sync::Arc;

/// Items on a page: few enough that the first change after a copy takes about a microsecond, many
/// enough that a million nodes are some thousands of pages.
const PAGE_ITEMS: usize = 16;

/// Items by number.
#[derive(Clone, Debug)]
pub(super) struct Pages<T> {
    /// All of them full, the last one with what [`Default`] gives. Those with nothing else are
    /// one and the same, so a gap costs a pointer.
    pages: Vec<Arc<[T]>>,
    blank: Option<Arc<[T]>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), blank: None, len: 0 }
    }
}

impl<T: Clone + Default> Pages<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / PAGE_ITEMS)?.get(at % PAGE_ITEMS)
    }

    /// The item, to be changed: its page is copied first where another list has it too.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Arc::make_mut(self.pages.get_mut(at / PAGE_ITEMS)?).get_mut(at % PAGE_ITEMS)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter()).take(self.len)
    }

    /// Makes the list at least so long.
    pub(super) fn grow(&mut self, len: usize) {
        self.len = self.len.max(len);
        while self.pages.len() * PAGE_ITEMS < self.len {
            let page = self.blank();
            self.pages.push(page);
        }
    }

    /// Puts the default in the item's place, and gives its page back if nothing else is left there.
    pub(super) fn clear(&mut self, at: usize, is_blank: impl Fn(&T) -> bool) {
        if let Some(place) = self.get_mut(at) {
            *place = T::default();
        }
        let blank = self.blank();
        if let Some(page) = self.pages.get_mut(at / PAGE_ITEMS)
            && page.iter().all(is_blank)
        {
            *page = blank;
        }
    }

    fn blank(&mut self) -> Arc<[T]> {
        let make = || (0..PAGE_ITEMS).map(|_| T::default()).collect();
        Arc::clone(self.blank.get_or_insert_with(make))
    }

    /// Takes in one more item; returns its number.
    pub(super) fn push(&mut self, item: T) -> usize {
        let at = self.len;
        self.grow(at + 1);
        if let Some(place) = self.get_mut(at) {
            *place = item;
        }
        at
    }

    /// Memory held, in bytes, what copies share included.
    pub(super) fn bytes(&self) -> usize {
        let is_blank = |page: &Arc<[T]>| self.blank.as_ref().is_some_and(|b| Arc::ptr_eq(b, page));
        let full = self.pages.iter().filter(|page| !is_blank(page)).count();
        full * PAGE_ITEMS * size_of::<T>() + self.pages.len() * size_of::<Arc<[T]>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_what_neither_changes() {
        let mut list: Pages<u32> = Pages::default();
        (0..200).for_each(|number| assert_eq!(list.push(number), number as usize));
        let mut copy = list.clone();
        *copy.get_mut(70).expect("it is there") = 7;
        *list.get_mut(130).expect("it is there") = 13;
        list.grow(300);
        let of = |list: &Pages<u32>| list.iter().copied().collect::<Vec<_>>();
        let model = |changed: usize, to| {
            (0..200).map(|at| if at == changed { to } else { at as u32 }).collect::<Vec<_>>()
        };
        assert_eq!(of(&copy), model(70, 7));
        assert_eq!((of(&list)[..200].to_vec(), list.len()), (model(130, 13), 300));
        assert_eq!((list.get(250), copy.get(250)), (Some(&0), None));
        let before = list.bytes();
        (64..80).for_each(|at| list.clear(at, |number| *number == 0));
        assert!(list.bytes() < before && list.get(70) == Some(&0) && copy.get(70) == Some(&7));
        let shared =
            |at: usize| Arc::ptr_eq(&list.pages[at / PAGE_ITEMS], &copy.pages[at / PAGE_ITEMS]);
        assert_eq!([0, 70, 130, 199].map(shared), [true, false, false, true]);
    }
}
