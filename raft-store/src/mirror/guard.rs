//! Panics inside sled are caught here, and only here: the copy can be rebuilt, nothing else can.
//!
//! **Invariant:** a panic anywhere else ends the process; whoever runs a server installs a hook
//! that asks [`panic_is_caught`].

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Names of sled's own threads begin so; what panics there reaches us as an error.
const SLED_THREADS: &str = "sled-";

/// Whether a panic on this thread, now, is caught and mended by rebuilding the copy.
pub fn panic_is_caught() -> bool {
    let current = std::thread::current();
    INSIDE.get() || current.name().is_some_and(|name| name.starts_with(SLED_THREADS))
}

/// Runs something that may panic inside sled; the panic's text, if it did.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = INSIDE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(outer);
    result.map_err(|panic| text(&*panic))
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("sled panicked: {}", said.unwrap_or("it does not say why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_counts_as_caught_only_inside() {
        assert!(!panic_is_caught());
        let inside = caught(panic_is_caught);
        assert_eq!(inside, Ok(true));
        let broken = caught(|| panic!("torn page"));
        assert_eq!(broken, Err("sled panicked: torn page".to_owned()));
        assert!(!panic_is_caught());
    }
}
