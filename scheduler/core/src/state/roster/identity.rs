//! Identity: what a group asks of a node's own name, rack and bandwidth, in which nodes of one class
//! differ.
//!
//! **Invariant:** says of a node what [`Needs::misfit`] says, as far as it goes by these.

use super::tags::{NODE_KEY, RACK_KEY};
use super::{Names, Spot};
use crate::fit::Needs;
use crate::job::{Condition, Selector};
use crate::unit::BandwidthMbps;

#[derive(Debug)]
pub(super) struct Identity {
    up_min: BandwidthMbps,
    down_min: BandwidthMbps,
    names: Allowed,
    racks: Allowed,
}

/// Names that a node, or its rack, may have.
#[derive(Debug, Default)]
enum Allowed {
    #[default]
    All,
    /// Those whose number is set.
    Some(Vec<bool>),
    Nothing,
}

impl Allowed {
    /// Keeps those that meet the condition too.
    fn narrow(&mut self, condition: &Condition, known: &Names) {
        let unless = |dropped: bool| vec![dropped; known.end()];
        let mark = |list: &mut Vec<bool>, values, to: bool| {
            for number in known.of(values) {
                list.get_mut(number as usize).into_iter().for_each(|place| *place = to);
            }
        };
        match (condition, &mut *self) {
            // Every node has a name and a rack.
            (_, Self::Nothing) | (Condition::Exists, _) => {}
            (Condition::DoesNotExist, _) => *self = Self::Nothing,
            (Condition::NotIn(values), Self::Some(list)) => mark(list, values, false),
            (Condition::NotIn(values), Self::All) => {
                let mut list = unless(true);
                mark(&mut list, values, false);
                *self = Self::Some(list);
            }
            (Condition::In(values), _) => {
                let mut list = unless(false);
                mark(&mut list, values, true);
                if let Self::Some(before) = self {
                    list.iter_mut().zip(before).for_each(|(one, before)| *one &= *before);
                }
                *self = Self::Some(list);
            }
        }
    }

    fn has(&self, number: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(list) => list.get(number as usize).is_some_and(|&one| one),
            Self::Nothing => false,
        }
    }
}

impl Identity {
    pub(super) fn new(needs: &Needs, names: &Names, racks: &Names) -> Self {
        let (up_min, down_min) = needs.bandwidth_min();
        let (mut own, mut rack) = (Allowed::All, Allowed::All);
        for Selector { key, condition } in needs.selectors().iter() {
            match key.as_ref() {
                NODE_KEY => own.narrow(condition, names),
                RACK_KEY => rack.narrow(condition, racks),
                _ => {}
            }
        }
        Self { up_min, down_min, names: own, racks: rack }
    }

    /// Whether it lets every node in.
    pub(super) fn is_nothing(&self) -> bool {
        let none = BandwidthMbps::ZERO;
        (self.up_min, self.down_min) == (none, none)
            && matches!((&self.names, &self.racks), (Allowed::All, Allowed::All))
    }

    pub(super) fn admits(&self, spot: &Spot) -> bool {
        spot.up >= self.up_min
            && spot.down >= self.down_min
            && self.racks.has(spot.rack)
            && self.names.has(spot.name)
    }
}
