//! Countable resources of people's own naming: licences, FPGAs, slots of a cache.
//!
//! **Invariant:** rising names, none twice, no amount of zero; nothing at all is one null pointer,
//! since nearly no fleet uses these.

use crate::id::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most names on one node or in one shape.
pub const CUSTOM_MAX: usize = 16;

/// Amounts by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Name, u64>", into = "BTreeMap<Name, u64>")]
pub struct Custom(Option<Arc<Vec<(Name, u64)>>>);

impl From<BTreeMap<Name, u64>> for Custom {
    fn from(amounts: BTreeMap<Name, u64>) -> Self {
        let some: Vec<_> = amounts.into_iter().filter(|(_, amount)| *amount > 0).collect();
        Self::of(some)
    }
}

impl From<Custom> for BTreeMap<Name, u64> {
    fn from(custom: Custom) -> Self {
        custom.iter().map(|(name, amount)| (name.clone(), amount)).collect()
    }
}

impl Custom {
    fn of(amounts: Vec<(Name, u64)>) -> Self {
        Self((!amounts.is_empty()).then(|| Arc::new(amounts)))
    }

    fn list(&self) -> &[(Name, u64)] {
        self.0.as_ref().map_or(&[], |list| list.as_slice())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// Amounts by rising name; none is zero.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.list().iter().map(|(name, amount)| (name, *amount))
    }

    /// The amount of a name; 0 for an unknown one.
    pub fn get(&self, name: &Name) -> u64 {
        let list = self.list();
        match list.binary_search_by(|(known, _)| known.cmp(name)) {
            Ok(at) => list.get(at).map_or(0, |(_, amount)| *amount),
            Err(_) => 0,
        }
    }

    /// Sum, each amount held at the largest value.
    pub fn saturating_add(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        if self.is_empty() {
            return other.clone();
        }
        let mut sum: BTreeMap<Name, u64> = self.clone().into();
        for (name, more) in other.iter() {
            let amount = sum.entry(name.clone()).or_default();
            *amount = amount.saturating_add(more);
        }
        sum.into()
    }

    /// Difference, each amount held at zero.
    pub fn saturating_sub(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return self.clone();
        }
        let left = |(name, amount): (&Name, u64)| {
            let left = amount.saturating_sub(other.get(name));
            (left > 0).then(|| (name.clone(), left))
        };
        Self::of(self.iter().filter_map(left).collect())
    }

    /// Whether `more` fits beside `used` into this.
    pub fn holds(&self, used: &Self, more: &Self) -> bool {
        more.iter().all(|(name, amount)| {
            used.get(name).checked_add(amount).is_some_and(|sum| sum <= self.get(name))
        })
    }

    /// How many times `one` fits into this, at most `most`.
    pub fn slots(&self, one: &Self, most: u32) -> u32 {
        one.iter().fold(most, |most, (name, amount)| {
            let fits = self.get(name) / amount.max(1);
            u32::try_from(fits).unwrap_or(u32::MAX).min(most)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(of: &[(&str, u64)]) -> Custom {
        let name = |text: &str| Name::parse(text).expect("a name");
        of.iter().map(|&(text, amount)| (name(text), amount)).collect::<BTreeMap<_, _>>().into()
    }

    #[test]
    fn nothing_has_one_form_only() {
        assert_eq!(custom(&[("a", 0)]), Custom::default());
        let (a, ab) = (custom(&[("a", 2)]), custom(&[("a", 2), ("b", 3)]));
        assert_eq!(ab.saturating_sub(&ab), Custom::default());
        assert_eq!(ab.saturating_sub(&a), custom(&[("b", 3)]));
        assert_eq!(a.saturating_add(&custom(&[("b", 3)])), ab);
        assert_eq!(custom(&[("a", u64::MAX)]).saturating_add(&a), custom(&[("a", u64::MAX)]));
    }

    #[test]
    fn the_scarcest_amount_bounds_the_slots() {
        let have = custom(&[("a", 7), ("b", 2)]);
        assert_eq!(have.slots(&custom(&[("a", 2)]), 9), 3);
        assert_eq!(have.slots(&custom(&[("a", 1), ("b", 2)]), 9), 1);
        assert_eq!(have.slots(&custom(&[("c", 1)]), 9), 0);
        assert_eq!(have.slots(&Custom::default(), 9), 9);
        assert!(have.holds(&custom(&[("a", 5)]), &custom(&[("a", 2)])));
        assert!(!have.holds(&custom(&[("a", 6)]), &custom(&[("a", 2)])));
        assert!(!have.holds(&custom(&[("a", u64::MAX)]), &custom(&[("a", 2)])));
    }
}
