//! What changed in the state since an office last looked.
//!
//! **Invariant:** bounded by what there is, not by how often it changes.

use crate::duty::bag::Bag;
use crate::event::Event;
use crate::id::{JobId, NodeId};

/// What changed in the state since an office last looked.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub(super) nodes: Bag<NodeId>,
    pub(super) waiting: Bag<JobId>,
    /// Capacity appeared or came back.
    pub(super) grew: bool,
    pub(super) sites: bool,
    /// Another state took the place of the one that was known.
    pub(super) everything: bool,
}

impl Notes {
    /// Takes a note of the event; whether it matters to an office.
    pub fn take_in(&mut self, event: Event) -> bool {
        match event {
            Event::NodeChanged(node) | Event::NodeWorkChanged(node) => self.nodes.push(node),
            Event::JobWaiting(job) => self.waiting.push(job),
            Event::CapacityGrew => self.grew = true,
            Event::SitesChanged => self.sites = true,
            Event::JobChanged(_) | Event::TenantsChanged => return false,
        }
        true
    }

    /// A snapshot replaced the state.
    pub fn replaced(&mut self) {
        self.everything = true;
    }

    /// Whether nothing is in them.
    pub fn is_empty(&self) -> bool {
        let flags = self.grew || self.sites || self.everything;
        !flags && self.nodes.is_empty() && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_merged_and_those_of_no_matter_left_out() {
        let mut notes = Notes::default();
        assert!(!notes.take_in(Event::JobChanged(JobId(1))));
        assert!(notes.is_empty());
        for _ in 0..10_000 {
            assert!(notes.take_in(Event::NodeWorkChanged(NodeId(7))));
            assert!(notes.take_in(Event::NodeChanged(NodeId(3))));
        }
        assert!(notes.take_in(Event::JobWaiting(JobId(1))) && !notes.grew);
        assert!(notes.take_in(Event::CapacityGrew) && notes.grew && !notes.is_empty());
        assert_eq!(notes.nodes.take(), [NodeId(3), NodeId(7)]);
        assert_eq!(notes.waiting.take(), [JobId(1)]);
    }
}
