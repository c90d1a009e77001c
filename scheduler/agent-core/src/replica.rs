//! Replicas as a node sees them: which GPUs one is bound to, how far it is, how it ended.
//!
//! **Invariant:** the only ways from one phase to another are the functions of [`Phase`].

use std::fmt;

/// Most GPUs of one node, as in the contract.
pub const GPUS_MAX: u32 = 64;
/// Thousandths of a whole GPU.
pub const GPU_MILLI: u32 = 1000;
/// Exit code of what never ran.
pub const EXIT_NOT_STARTED: i32 = -1;
/// Exit code of what was killed (128 + SIGKILL), also where nobody saw how it ended.
pub const EXIT_KILLED: i32 = 137;

/// A job's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

/// A replica's number inside its job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rank(pub u32);

/// Fencing number of one binding of a replica to a node; never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AssignmentId(pub u64);

impl fmt::Display for AssignmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of GPU indexes below [`GPUS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct GpuSet(u64);

impl GpuSet {
    /// The set of the bits that are one.
    pub fn of_bits(bits: u64) -> GpuSet {
        GpuSet(bits)
    }

    /// The set with `gpu` in it too; `None` if it was there already or is out of range.
    pub fn with(self, gpu: u32) -> Option<GpuSet> {
        let bit = 1u64.checked_shl(gpu)?;
        (self.0 & bit == 0).then_some(GpuSet(self.0 | bit))
    }

    /// Indexes in rising order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let gpu = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(gpu)
        })
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which replica sits on which GPUs; all that is needed to keep two from the same GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    pub id: AssignmentId,
    pub job: JobId,
    pub rank: Rank,
    pub gpus: GpuSet,
    /// 0 = the GPUs are whole; else thousandths of the one GPU.
    pub gpu_milli: u32,
}

impl Binding {
    /// Thousandths that it takes of each of its GPUs.
    pub fn milli_per_gpu(&self) -> u32 {
        if self.gpu_milli == 0 { GPU_MILLI } else { self.gpu_milli }
    }

    /// Whether both are bindings of one replica.
    pub fn is_of_same_replica(&self, other: &Binding) -> bool {
        (self.job, self.rank) == (other.job, other.rank)
    }
}

/// How a replica ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// With exit code 0.
    Succeeded,
    /// With this exit code, 128 + signal, or [`EXIT_NOT_STARTED`].
    Failed(i32),
}

impl Exit {
    /// From an exit code; negative codes are failures.
    pub fn from_code(code: i32) -> Exit {
        if code == 0 { Exit::Succeeded } else { Exit::Failed(code) }
    }
}

/// How far a replica is that the agent holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Starting,
    Ready,
    /// Told to stop; its GPUs are not free yet.
    Stopping {
        /// It was stopped because the lease ended: if it is still wanted then, it has failed.
        fenced: bool,
    },
    /// Gone; remembered until the scheduler wants it no more.
    Ended(Exit),
}

/// What the servers are told of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observed {
    Starting,
    Ready,
    Ended(Exit),
}

impl Phase {
    /// Whether its GPUs are taken.
    pub fn holds_gpus(self) -> bool {
        !matches!(self, Phase::Ended(_))
    }

    /// Whether it is on its way or there, and was not told to stop.
    pub fn is_wanted(self) -> bool {
        matches!(self, Phase::Starting | Phase::Ready)
    }

    /// It has come up; `None` if that is no news.
    pub fn ready(self) -> Option<Phase> {
        (self == Phase::Starting).then_some(Phase::Ready)
    }

    /// It is told to stop; `None` if there is nothing to stop. Once fenced, always fenced.
    pub fn stopping(self, fenced: bool) -> Option<Phase> {
        let fenced = fenced || self == Phase::Stopping { fenced: true };
        self.holds_gpus().then_some(Phase::Stopping { fenced })
    }

    /// It is gone and its GPUs are free. `None` = forget it: nobody wants it any more. What was
    /// fenced may still be wanted after the next join, and then this is what became of it.
    pub fn ended(self, exit: Exit) -> Option<Phase> {
        match self {
            Phase::Starting | Phase::Ready => Some(Phase::Ended(exit)),
            Phase::Stopping { fenced: true } => Some(Phase::Ended(Exit::Failed(EXIT_KILLED))),
            Phase::Stopping { fenced: false } => None,
            Phase::Ended(_) => Some(self),
        }
    }

    /// What to tell the servers, if anything.
    pub fn observed(self) -> Option<Observed> {
        match self {
            Phase::Starting => Some(Observed::Starting),
            Phase::Ready => Some(Observed::Ready),
            Phase::Stopping { .. } => None,
            Phase::Ended(exit) => Some(Observed::Ended(exit)),
        }
    }
}

/// A replica that the agent holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub binding: Binding,
    pub phase: Phase,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_gpus() {
        let set = GpuSet::default().with(63).and_then(|set| set.with(2)).unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [2, 63]);
        assert_eq!((set.with(2), set.with(64), set.len()), (None, None, 2));
        assert_eq!(GpuSet::of_bits(0b1001).iter().collect::<Vec<_>>(), [0, 3]);
        assert!(GpuSet::of_bits(0).is_empty() && GpuSet::of_bits(0).iter().next().is_none());
    }

    #[test]
    fn what_was_fenced_is_told_of_and_what_was_stopped_is_forgotten() {
        let killed = Some(Phase::Ended(Exit::Failed(EXIT_KILLED)));
        let stopping = Phase::Ready.stopping(false).unwrap();
        assert_eq!(stopping.ended(Exit::Succeeded), None);
        let fenced = stopping.stopping(true).unwrap();
        assert_eq!(fenced.ended(Exit::Succeeded), killed);
        // A stop that comes after the fence does not undo it.
        assert_eq!(fenced.stopping(false).unwrap().ended(Exit::Succeeded), killed);
        assert_eq!(fenced.observed(), None);
    }

    #[test]
    fn an_end_is_final() {
        let ended = Phase::Starting.ended(Exit::Failed(3)).unwrap();
        assert_eq!(ended.observed(), Some(Observed::Ended(Exit::Failed(3))));
        assert_eq!((ended.stopping(true), ended.ready()), (None, None));
        assert_eq!(ended.ended(Exit::Succeeded), Some(ended));
        assert!(!ended.holds_gpus());
    }

    #[test]
    fn only_what_starts_becomes_ready() {
        assert_eq!(Phase::Starting.ready(), Some(Phase::Ready));
        assert_eq!(Phase::Ready.ready(), None);
        assert_eq!(Phase::Stopping { fenced: false }.ready(), None, "a stopped start says nothing");
    }
}
