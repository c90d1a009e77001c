//! Runs independent cases on several threads.
//!
//! **Invariant:** results come in the order of the cases, whatever the threads did; what has ended
//! is kept when the rest is stopped.

use rayon::ThreadPoolBuilder;
use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Results of all cases in their order; the first error by case number if there are any.
/// Cases that `stop` comes before are left out, as are those that give `None` because it came while
/// they ran. `done` is told how many cases have ended, from any thread.
pub fn run<C: Sync, R: Send, E: Send>(
    cases: &[C],
    threads: usize,
    stop: &AtomicBool,
    work: impl Fn(&C) -> Result<Option<R>, E> + Sync,
    done: impl Fn(usize) + Sync,
) -> Result<Vec<R>, E> {
    let ended = AtomicUsize::new(0);
    let one = |case: &C| {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let result = work(case);
        done(ended.fetch_add(1, Ordering::Relaxed) + 1);
        result
    };
    // Cases may differ much in length, so each is handed out on its own.
    let all = || cases.par_iter().with_max_len(1).map(one).collect::<Vec<_>>();
    let results = match ThreadPoolBuilder::new().num_threads(threads.max(1)).build() {
        Ok(pool) => pool.install(all),
        // No threads to be had: this one does it all.
        Err(_) => cases.iter().map(one).collect(),
    };
    results.into_iter().filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_cases() {
        let cases: Vec<u32> = (0..100).collect();
        let square = |&case: &u32| if case < 1_000 { Ok(Some(case * case)) } else { Err(case) };
        let never = AtomicBool::new(false);
        let one = run(&cases, 1, &never, square, |_| ());
        assert_eq!(run(&cases, 4, &never, square, |_| ()), one);
        assert_eq!(one.as_deref().map(|list| list.get(9)), Ok(Some(&81)));
        assert_eq!(run(&[1u32, 2_000, 3_000], 3, &never, square, |_| ()), Err(2_000));
    }

    #[test]
    fn what_ended_before_it_was_stopped_is_kept() {
        let cases: Vec<u32> = (0..10).collect();
        let stop = AtomicBool::new(false);
        let work = |&case: &u32| {
            // The case that runs when it comes gives nothing, and none begins after it.
            stop.store(case == 6, Ordering::Relaxed);
            Ok::<_, ()>((case != 6).then_some(case))
        };
        let ended = AtomicUsize::new(0);
        let made = run(&cases, 1, &stop, work, |done| ended.store(done, Ordering::Relaxed));
        assert_eq!(made, Ok(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(ended.load(Ordering::Relaxed), 7);
    }
}
