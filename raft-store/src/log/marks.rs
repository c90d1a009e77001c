//! What a log knows besides its entries, and how each record changes it.
//!
//! The same rules are used when a record is accepted, when it is written and when it is read
//! back, so the three can be compared.
//!
//! **Invariant:** a record that breaks a rule changes nothing.

use bytes::Bytes;

use super::LogPosition;
use super::format::Item;

/// Vote, committed, purged and last position of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Last saved vote.
    pub vote: Option<Bytes>,
    /// Last saved committed position.
    pub committed: Option<LogPosition>,
    /// Last purged position.
    pub purged: Option<LogPosition>,
    /// Last entry, or the last purged position when there is none behind it.
    pub last: Option<LogPosition>,
}

impl Marks {
    /// Index the next entry must have; `None` when an empty log takes any.
    pub(super) fn next_index(&self) -> Option<u64> {
        self.last.map(|last| last.index.saturating_add(1))
    }

    /// Index of the first entry that is not purged.
    pub(super) fn first_index(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index.saturating_add(1))
    }

    /// Lets a record take effect. A record that cannot follow is refused with the reason.
    pub(super) fn apply(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::Entry(record) => self.append(record.at)?,
            Item::Truncated(kept) => self.truncate(*kept)?,
            Item::Purged(upto) => self.purge(*upto)?,
            // Copied: the bytes may be a slice of a whole segment.
            Item::Vote(vote) => self.vote = Some(Bytes::copy_from_slice(vote)),
            Item::Committed(at) => self.committed = *at,
            Item::Carry(_) | Item::Sealed(_) | Item::Closed => {}
        }
        Ok(())
    }

    /// Lets an entry take effect.
    pub(super) fn append(&mut self, at: LogPosition) -> Result<(), String> {
        match self.next_index() {
            Some(next) if next != at.index => {
                Err(format!("entry {} where entry {next} must follow", at.index))
            }
            _ => {
                self.last = Some(at);
                Ok(())
            }
        }
    }

    fn truncate(&mut self, kept: Option<LogPosition>) -> Result<(), String> {
        let Some(kept) = kept else {
            self.last = self.purged;
            return Ok(());
        };
        let purged = self.purged.map(|purged| purged.index);
        let last = self.last.map(|last| last.index);
        if Some(kept.index) < purged || Some(kept.index) > last {
            let index = kept.index;
            return Err(format!("truncation behind entry {index}, outside {purged:?}..={last:?}"));
        }
        self.last = Some(kept);
        Ok(())
    }

    fn purge(&mut self, upto: LogPosition) -> Result<(), String> {
        if let Some(purged) = self.purged
            && purged.index >= upto.index
        {
            let (old, new) = (purged.index, upto.index);
            return Err(format!("purge up to entry {new}, but {old} is purged already"));
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        Ok(())
    }
}
