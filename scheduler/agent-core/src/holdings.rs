//! Everything that a node holds, by assignment.
//!
//! **Invariant:** in rising order of assignments, each once. A few dozen entries at most, so they
//! lie side by side.

use crate::replica::{AssignmentId, Binding, Held, Phase};

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holdings(Vec<Held>);

impl Holdings {
    fn place(&self, id: AssignmentId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&id, |held| held.binding.id)
    }

    pub fn get(&self, id: AssignmentId) -> Option<&Held> {
        self.place(id).ok().and_then(|at| self.0.get(at))
    }

    /// All, by rising assignment.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any GPU is taken.
    pub fn is_busy(&self) -> bool {
        self.iter().any(|held| held.phase.holds_gpus())
    }

    /// Notes how a replica is now; gives how it was.
    pub fn set(&mut self, binding: Binding, phase: Phase) -> Option<Phase> {
        let held = Held { binding, phase };
        match self.place(binding.id) {
            Ok(at) => self.0.get_mut(at).map(|old| std::mem::replace(old, held).phase),
            Err(at) => {
                self.0.insert(at, held);
                None
            }
        }
    }

    /// Forgets a replica; gives how it was.
    pub fn remove(&mut self, id: AssignmentId) -> Option<Phase> {
        self.place(id).ok().map(|at| self.0.remove(at).phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Exit, GpuSet, JobId, Rank};

    fn binding(id: u64) -> Binding {
        let (job, rank) = (JobId(1), Rank(0));
        Binding { id: AssignmentId(id), job, rank, gpus: GpuSet::default(), gpu_milli: 0 }
    }

    #[test]
    fn every_assignment_once_in_order() {
        let mut held = Holdings::default();
        for id in [5, 1, 9] {
            assert_eq!(held.set(binding(id), Phase::Starting), None);
        }
        assert_eq!(held.set(binding(1), Phase::Ready), Some(Phase::Starting));
        assert_eq!(held.iter().map(|held| held.binding.id.0).collect::<Vec<_>>(), [1, 5, 9]);
        assert_eq!(held.remove(AssignmentId(5)), Some(Phase::Starting));
        assert_eq!(held.remove(AssignmentId(5)), None);
        assert_eq!(held.get(AssignmentId(1)).map(|held| held.phase), Some(Phase::Ready));
        assert!(held.is_busy());
        held.set(binding(1), Phase::Ended(Exit::Succeeded));
        held.set(binding(9), Phase::Ended(Exit::Succeeded));
        assert!(!held.is_busy() && held.len() == 2 && !held.is_empty());
    }
}
