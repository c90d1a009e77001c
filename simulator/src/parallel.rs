//! Runs independent cases on several threads.
//!
//! **Invariant:** results come in the order of the cases, whatever the threads did.

use rayon::ThreadPoolBuilder;
use rayon::prelude::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cores of this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Results of all cases in their order; the first error by case number if there are any.
/// `done` is told how many cases have ended, from any thread.
pub fn run<C: Sync, R: Send, E: Send>(
    cases: &[C],
    threads: usize,
    work: impl Fn(&C) -> Result<R, E> + Sync,
    done: impl Fn(usize) + Sync,
) -> Result<Vec<R>, E> {
    let ended = AtomicUsize::new(0);
    let one = |case: &C| {
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
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_cases() {
        let cases: Vec<u32> = (0..100).collect();
        let square = |&case: &u32| if case < 1_000 { Ok(case * case) } else { Err(case) };
        let one = run(&cases, 1, square, |_| ());
        assert_eq!(run(&cases, 4, square, |_| ()), one);
        assert_eq!(one.as_deref().map(|list| list.get(9)), Ok(Some(&81)));
        assert_eq!(run(&[1u32, 2_000, 3_000], 3, square, |_| ()), Err(2_000));
    }
}
