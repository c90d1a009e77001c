//! Counts of what the agents of one process do, for progress bars and tests.
//!
//! **Invariant:** only [`crate::agent`] writes it; every change wakes those who wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// One figure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Figure {
    /// Agents that run.
    Agents,
    /// Agents that have joined at least once since their start.
    Joined,
    /// Sessions that have got a desired state.
    Sessions,
    /// Replicas being started.
    Starting,
    /// Replicas that run.
    Ready,
    /// Times a lease ended with everything stopped (only grows).
    Fences,
    /// Replicas that failed or could not be started (only grows).
    Failures,
    /// Words refused because newer ones were known (only grows).
    Stale,
}

const FIGURES: usize = Figure::Stale as usize + 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Meter {
    figures: [AtomicU64; FIGURES],
    changed: Notify,
    trouble: Mutex<Option<String>>,
}

impl Meter {
    /// A figure as it is now.
    pub fn get(&self, figure: Figure) -> u64 {
        self.figures[figure as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, figure: Figure) {
        self.figures[figure as usize].fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(crate) fn sub(&self, figure: Figure) {
        self.figures[figure as usize].fetch_sub(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// The newest trouble that any agent had, for people.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_trouble(&self, text: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        self.changed.notify_waiters();
    }

    /// Waits until `done` holds; it is asked again after every change.
    pub async fn wait(&self, done: impl Fn(&Meter) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if done(self) {
                return;
            }
            changed.await;
        }
    }
}
