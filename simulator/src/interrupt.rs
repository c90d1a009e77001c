//! Ctrl-C of commands that compute for long: the first ends them with what there is.
//!
//! **Invariant:** no work is lost to the first Ctrl-C that was done before it; the second ends the
//! program at once.

use signal_hook::consts::SIGINT;
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// Is set by the first Ctrl-C.
///
/// # Errors
/// The system's, if it lets nobody listen.
pub fn until_ctrl_c() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, INTERRUPTED.into(), Arc::clone(&stop))?;
    flag::register(SIGINT, Arc::clone(&stop))?;
    Ok(stop)
}
