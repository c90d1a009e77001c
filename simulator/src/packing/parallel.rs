//! Runs independent cases on several threads.
//!
//! **Invariant:** results come in the order of the cases, whatever the threads did.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Results of all cases in their order; the first error by case number if there are any.
/// `done` is told how many cases have ended, from any thread.
pub fn run<C: Sync, R: Send, E: Send>(
    cases: &[C],
    threads: usize,
    work: impl Fn(&C) -> Result<R, E> + Sync,
    done: impl Fn(usize) + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let ended = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<R, E>>>> =
        Mutex::new(std::iter::repeat_with(|| None).take(cases.len()).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                while let Some((at, case)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(at).map(|case| (at, case))
                } {
                    let result = work(case);
                    let mut results = results.lock().unwrap_or_else(|broken| broken.into_inner());
                    if let Some(place) = results.get_mut(at) {
                        *place = Some(result);
                    }
                    drop(results);
                    done(ended.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(|broken| broken.into_inner());
    results.into_iter().flatten().collect()
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
