//! Programs of jobs, each kept once per process however many replicas run it.
//!
//! **Invariant:** a program's environment is a secret of its tenant: it is never printed.

use proto::v1;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Dead entries are swept out when the table has grown to this many; it then doubles at most.
const SWEEP_AT_MIN: usize = 64;

/// What a process runtime runs for a replica.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Program {
    /// Program and arguments; empty when the job has none.
    pub argv: Vec<String>,
    /// Environment of the job, by rising name.
    pub env: Vec<(String, String)>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} arguments, {} variables)", self.argv.len(), self.env.len())
    }
}

/// All programs in use by this process.
#[derive(Default)]
pub struct Programs {
    hasher: RandomState,
    empty: Arc<Program>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_hash: HashMap<u64, Vec<Weak<Program>>>,
    sweep_at: usize,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Programs")
    }
}

impl Programs {
    /// The one shared copy of `program`.
    pub fn share(&self, program: Option<v1::Program>) -> Arc<Program> {
        let Some(program) = program.filter(|p| !p.argv.is_empty() || !p.env.is_empty()) else {
            return Arc::clone(&self.empty);
        };
        let program = Program { argv: program.argv, env: program.env.into_iter().collect() };
        let hash = self.hasher.hash_one(&program);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.by_hash.get(&hash).into_iter().flatten().filter_map(Weak::upgrade);
        if let Some(shared) = same.into_iter().find(|shared| **shared == program) {
            return shared;
        }
        let shared = Arc::new(program);
        known.by_hash.entry(hash).or_default().push(Arc::downgrade(&shared));
        known.sweep();
        shared
    }
}

impl Known {
    fn sweep(&mut self) {
        if self.by_hash.len() < self.sweep_at.max(SWEEP_AT_MIN) {
            return;
        }
        self.by_hash.retain(|_, same| {
            same.retain(|program| program.strong_count() > 0);
            !same.is_empty()
        });
        self.sweep_at = self.by_hash.len().saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(argument: &str) -> Option<v1::Program> {
        Some(v1::Program { argv: vec![argument.to_owned()], env: Default::default() })
    }

    #[test]
    fn equal_programs_share_one_copy() {
        let programs = Programs::default();
        let first = programs.share(program("a"));
        assert!(Arc::ptr_eq(&first, &programs.share(program("a"))));
        assert!(!Arc::ptr_eq(&first, &programs.share(program("b"))));
        assert!(Arc::ptr_eq(&programs.share(None), &programs.share(Some(v1::Program::default()))));
    }

    #[test]
    fn programs_nobody_uses_are_forgotten() {
        let programs = Programs::default();
        for at in 0..10 * SWEEP_AT_MIN {
            programs.share(program(&at.to_string()));
        }
        assert!(programs.known.lock().unwrap().by_hash.len() <= SWEEP_AT_MIN);
    }
}
