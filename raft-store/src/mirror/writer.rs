//! The thread that keeps the copy in step with the state.
//!
//! **Invariant:** it waits for nobody and nobody waits for it, except when the server is closed;
//! what it has not written yet is a set of row keys, bounded by the rows there are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use scheduler_core::state::{Frozen, RowKey};

use super::store::Store;
use crate::codec::record::StoredMembershipBytes;
use crate::error::StoreError;
use crate::log::LogPosition;

/// What was written is made durable this often; more often buys nothing, since the log and the
/// snapshots are what counts.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// From one write to the next passes so many times what the first one took: the copy spares a restart the
/// replay of the log, and must not take the processor from those who wait for decisions. Under
/// load it falls behind, and what changes twice meanwhile is written once.
const REST_FACTOR: u32 = 15;
/// It never rests longer, so that a restart has not much more than this to replay.
const REST_MAX: Duration = Duration::from_secs(5);
/// After a failure (a full disk, say) the copy is begun anew, at most this often.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// Which rows of a view are to be written.
pub(crate) enum Changes {
    /// The whole state: first copy, or after a snapshot replaced everything.
    All,
    /// These, changed or gone.
    Rows(Vec<RowKey>),
}

/// The state at one position, and what changed since the last view.
pub(crate) struct View {
    pub(crate) frozen: Frozen,
    pub(crate) changes: Changes,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: StoredMembershipBytes,
}

/// What is there to write.
pub(crate) enum Taken {
    /// Nothing has changed.
    Nothing,
    /// Something has, but must not be kept yet; to be asked again.
    Later,
    View(Box<View>),
}

/// Where views come from.
pub(crate) trait Source: Send + Sync {
    /// Freezes the state and takes what changed, under one lock.
    fn take(&self) -> Taken;
    /// The next view must be of everything.
    fn want_all(&self);
}

/// Figures of the copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Index that the copy has reached.
    pub applied_index: u64,
    /// Batches written since the start.
    pub writes: u64,
    /// Rows written since the start.
    pub rows_written: u64,
    /// Rows it holds.
    pub rows: u64,
    pub bytes_on_disk: u64,
    /// Failures since the start; after each the copy was begun anew.
    pub failures: u64,
}

#[derive(Default)]
struct Shared {
    woken: AtomicBool,
    stop: AtomicBool,
    stats: Mutex<Stats>,
}

/// Handle to the writer thread; stops it when dropped.
pub(crate) struct Mirror {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    pub(crate) fn start(
        store: Store,
        source: Arc<dyn Source>,
        interval: Duration,
        cache_bytes: u64,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("state-mirror".to_owned());
        let worker = Worker {
            store: Some(store),
            source,
            shared: shared.clone(),
            interval,
            cache_bytes,
            flush_due: false,
            last_flush: Instant::now(),
        };
        let thread = thread
            .spawn(move || worker.run())
            .map_err(|source| StoreError::io("start the thread of", "state".as_ref(), source))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says that something changed. Cheap when it has been said already.
    pub(crate) fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::AcqRel)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Worker {
    /// `None` while no copy can be kept.
    store: Option<Store>,
    source: Arc<dyn Source>,
    shared: Arc<Shared>,
    interval: Duration,
    cache_bytes: u64,
    flush_due: bool,
    last_flush: Instant,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.wait_for_work();
            let stop = self.shared.stop.load(Ordering::Acquire);
            let woken = self.shared.woken.swap(false, Ordering::AcqRel);
            let began = Instant::now();
            if woken || stop {
                match self.source.take() {
                    Taken::View(view) => self.write(&view),
                    Taken::Later => self.shared.woken.store(true, Ordering::Release),
                    Taken::Nothing => {}
                }
            }
            if self.flush_due && (stop || self.last_flush.elapsed() >= FLUSH_EVERY) {
                self.flush();
            }
            if stop {
                return;
            }
            self.rest(began);
        }
    }

    /// Parks until woken, or until a flush is due.
    fn wait_for_work(&self) {
        loop {
            let ready = self.shared.woken.load(Ordering::Acquire)
                || self.shared.stop.load(Ordering::Acquire);
            let flush_in = FLUSH_EVERY.saturating_sub(self.last_flush.elapsed());
            if ready || (self.flush_due && flush_in.is_zero()) {
                return;
            }
            match self.flush_due {
                true => thread::park_timeout(flush_in),
                false => thread::park(),
            }
        }
    }

    /// Lets changes gather before the next write, counted from when this one began.
    fn rest(&self, began: Instant) {
        let rest = rest(began.elapsed(), self.interval);
        loop {
            let left = rest.saturating_sub(began.elapsed());
            if left.is_zero() || self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn write(&mut self, view: &View) {
        let Some(store) = &mut self.store else { return };
        match store.write(view) {
            Ok(rows) => {
                self.flush_due = true;
                let mut stats = self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
                stats.applied_index = view.applied.map_or(0, |at| at.index);
                stats.writes += 1;
                stats.rows_written += rows as u64;
                stats.rows = store.rows() as u64;
                stats.bytes_on_disk = store.bytes_on_disk();
            }
            Err(why) => self.start_over(&why),
        }
    }

    fn flush(&mut self) {
        self.last_flush = Instant::now();
        self.flush_due = false;
        let Some(store) = &mut self.store else { return };
        if let Err(why) = store.flush() {
            self.start_over(&why);
        }
    }

    fn start_over(&mut self, why: &str) {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).failures += 1;
        self.flush_due = false;
        self.source.want_all();
        let Some(store) = self.store.take() else { return };
        match store.start_over(why, self.cache_bytes) {
            Ok(store) => self.store = Some(store),
            Err(error) => {
                tracing::error!(%error, "no copy of the state is kept until the next start");
            }
        }
        let began = Instant::now();
        while !self.shared.stop.load(Ordering::Acquire) && began.elapsed() < RETRY_EVERY {
            thread::park_timeout(RETRY_EVERY.saturating_sub(began.elapsed()));
        }
        self.shared.woken.store(true, Ordering::Release);
    }
}

/// Time from the beginning of one write, which took so long, to that of the next.
fn rest(took: Duration, interval: Duration) -> Duration {
    took.saturating_mul(REST_FACTOR).min(REST_MAX).max(took).max(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_a_write_takes_the_longer_it_rests() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(1), ms(150)), ms(150));
        assert_eq!(rest(ms(100), ms(150)), ms(1_500));
        assert_eq!(rest(ms(1_000), ms(150)), REST_MAX);
        assert_eq!(rest(ms(9_000), ms(150)), ms(9_000), "it is late already");
    }
}
