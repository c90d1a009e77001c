//! The event heap: virtual time and what happens next.
//!
//! **Invariant:** events at one instant come out in the order in which they were put in, so a run
//! never depends on anything but its scenario.

use scheduler_core::unit::TimeMs;
use std::collections::BTreeMap;

/// Events by (time, sequence).
#[derive(Debug)]
pub struct Heap<E> {
    events: BTreeMap<(TimeMs, u64), E>,
    sequence: u64,
    now: TimeMs,
}

impl<E> Default for Heap<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), sequence: 0, now: TimeMs::ZERO }
    }
}

impl<E> Heap<E> {
    /// Puts `event` at `at`; a time in the past counts as now.
    pub fn push(&mut self, at: TimeMs, event: E) {
        let at = at.max(self.now);
        self.events.insert((at, self.sequence), event);
        self.sequence += 1;
    }

    /// Moves time to the next event and gives it out.
    pub fn pop(&mut self) -> Option<(TimeMs, E)> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some((at, event))
    }

    /// When the next event is.
    pub fn next_at(&self) -> Option<TimeMs> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Virtual time: that of the last event given out.
    pub fn now(&self) -> TimeMs {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_order_of_arrival() {
        let mut heap = Heap::default();
        heap.push(TimeMs(5), "b");
        heap.push(TimeMs(1), "a");
        heap.push(TimeMs(5), "c");
        assert_eq!(heap.pop(), Some((TimeMs(1), "a")));
        heap.push(TimeMs(0), "late");
        assert_eq!(heap.pop(), Some((TimeMs(1), "late")));
        assert_eq!(heap.pop(), Some((TimeMs(5), "b")));
        assert_eq!(heap.pop(), Some((TimeMs(5), "c")));
        assert_eq!(heap.pop(), None);
        assert_eq!(heap.now(), TimeMs(5));
    }
}
