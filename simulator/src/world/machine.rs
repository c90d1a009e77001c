//! One machine with its agent: what it is told to run, what it runs, how starts go.
//!
//! The rules are those of the real agent: stops first, no start on a GPU whose holder has not been
//! seen to end, never two bindings of one replica, all stopped when the lease ends.
//! **Invariant:** knows only what it was told and what it sees of its own hardware.

use crate::scenario::{StartModel, happens};
use rand::Rng;
use scheduler_core::command::{Observed, ReplicaReport};
use scheduler_core::id::{AssignmentId, Epoch, JobId, NodeId, Rank};
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, GPU_MILLI_WHOLE, GPUS_PER_NODE_MAX, GpuSet, TimeMs};

/// Exit code of a start that failed.
const FAILED_CODE: i32 = 1;

/// One replica that should run here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bound {
    pub(super) assignment: AssignmentId,
    pub(super) job: JobId,
    pub(super) rank: Rank,
    gpus: GpuSet,
    share_milli: u16,
}

impl Bound {
    /// All that should run on the node.
    pub(super) fn all_of(state: &State, node: NodeId) -> Box<[Self]> {
        let bound = |(job, rank)| {
            let held = state.replica(job, rank)?.allocation?;
            let (gpus, share_milli) = (held.gpus, held.share_milli);
            Some(Self { assignment: held.assignment, job, rank, gpus, share_milli })
        };
        state.node_work(node).filter_map(bound).collect()
    }

    fn milli(&self) -> u16 {
        if self.share_milli == 0 { GPU_MILLI_WHOLE } else { self.share_milli }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Starting { fails: bool },
    Ready,
    Stopping,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bound: Bound,
    phase: Phase,
}

/// What stands between the agent and the servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Session {
    /// Has never joined, or must join again: its last session is over.
    None,
    /// Joined, but not connected; its lease runs on.
    Away,
    Open,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    /// As of its last registration.
    pub(super) id: Option<NodeId>,
    pub(super) epoch: Epoch,
    pub(super) session: Session,
    /// The machine runs.
    pub(super) on: bool,
    /// Since when the network to the servers is cut.
    pub(super) cut_since: Option<TimeMs>,
    /// Forgotten by an operator: does not come back by itself.
    pub(super) removed: bool,
    /// Changes whenever what is on its way to the agent is void.
    pub(super) era: u32,
    /// Changes whenever all that ran is gone.
    pub(super) life: u32,
    pub(super) joined_at: TimeMs,
    /// When the agent's lease ends, once nothing prolongs it.
    pub(super) lease_until: Option<TimeMs>,
    /// No message overtakes another one on its way to the agent.
    pub(super) told_at: TimeMs,
    /// Tries to connect since the last success.
    pub(super) tries: u32,
    /// GPUs that are really there.
    gpus: usize,
    wanted: Box<[Bound]>,
    held: Vec<Held>,
    /// The job whose image was fetched last, and since when it is there.
    image: Option<(JobId, TimeMs)>,
}

/// Something that the machine will do by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A start is done, one way or the other.
    Started(AssignmentId),
    Stopped(AssignmentId),
}

/// What comes of telling a machine something.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    /// To be told to the servers.
    pub(super) reports: Vec<ReplicaReport>,
    /// What it does next, and after which time.
    pub(super) steps: Vec<(DurationMs, Step)>,
}

impl Machine {
    /// Switched on, with so many GPUs, and not yet joined.
    pub(super) fn new(gpus: usize) -> Self {
        Self {
            id: None,
            epoch: Epoch(0),
            session: Session::None,
            on: true,
            cut_since: None,
            removed: false,
            era: 0,
            life: 0,
            joined_at: TimeMs::ZERO,
            lease_until: None,
            told_at: TimeMs::ZERO,
            tries: 0,
            gpus,
            wanted: Box::default(),
            held: Vec::new(),
            image: None,
        }
    }

    /// Whether agent and servers hear each other.
    pub(super) fn is_reachable(&self) -> bool {
        self.on && self.cut_since.is_none()
    }

    /// The power is gone, and with it all that ran.
    pub(super) fn die(&mut self) {
        self.fence();
        self.on = false;
        self.image = None;
    }

    /// The lease is over: everything is stopped, the session is no more.
    pub(super) fn fence(&mut self) {
        self.session = Session::None;
        self.era += 1;
        self.life += 1;
        self.held.clear();
        self.wanted = Box::default();
        self.lease_until = None;
    }

    /// Whether a replica of it is running or about to.
    pub(super) fn runs(&self) -> bool {
        self.held.iter().any(|held| held.phase != Phase::Failed)
    }

    /// The agent hears what it should run.
    pub(super) fn told(
        &mut self,
        wanted: Box<[Bound]>,
        now: TimeMs,
        start: &StartModel,
        rng: &mut impl Rng,
    ) -> Reaction {
        self.wanted = wanted;
        let mut reaction = Reaction::default();
        let wanted = &self.wanted;
        self.held.retain_mut(|held| {
            let id = held.bound.assignment;
            if wanted.iter().any(|want| want.assignment == id) {
                return true;
            }
            match held.phase {
                Phase::Stopping => true,
                Phase::Failed => false,
                Phase::Starting { .. } | Phase::Ready => {
                    let took = start.stop.draw(rng);
                    held.phase = Phase::Stopping;
                    if took > DurationMs::ZERO {
                        reaction.steps.push((took, Step::Stopped(id)));
                    }
                    took > DurationMs::ZERO
                }
            }
        });
        self.start_what_fits(now, start, rng, &mut reaction);
        reaction
    }

    /// A step that the machine had announced is done.
    pub(super) fn step(
        &mut self,
        step: Step,
        now: TimeMs,
        start: &StartModel,
        rng: &mut impl Rng,
    ) -> Reaction {
        let mut reaction = Reaction::default();
        match step {
            Step::Started(id) => {
                let held = self.held.iter_mut().find(|held| held.bound.assignment == id);
                let Some(held) = held else { return reaction };
                let Phase::Starting { fails } = held.phase else { return reaction };
                held.phase = if fails { Phase::Failed } else { Phase::Ready };
                let held = *held;
                reaction.reports.extend(self.report(&held));
            }
            Step::Stopped(id) => {
                self.held.retain(|held| held.bound.assignment != id);
                self.start_what_fits(now, start, rng, &mut reaction);
            }
        }
        reaction
    }

    /// All that the agent says when it has connected again.
    pub(super) fn repeat(&self) -> Vec<ReplicaReport> {
        self.held.iter().filter_map(|held| self.report(held)).collect()
    }

    fn report(&self, held: &Held) -> Option<ReplicaReport> {
        let observed = match held.phase {
            Phase::Starting { .. } => Observed::Starting,
            Phase::Ready => Observed::Ready,
            Phase::Stopping => return None,
            Phase::Failed => Observed::Failed { exit_code: FAILED_CODE },
        };
        let Bound { assignment, job, rank, .. } = held.bound;
        Some(ReplicaReport { job, rank, assignment, node: self.id?, observed })
    }

    fn start_what_fits(
        &mut self,
        now: TimeMs,
        start: &StartModel,
        rng: &mut impl Rng,
        reaction: &mut Reaction,
    ) {
        for at in 0..self.wanted.len() {
            let want = self.wanted[at];
            let known = |held: &Held| held.bound.assignment == want.assignment;
            if self.held.iter().any(known) || !self.has_room(&want) {
                continue;
            }
            // What the supplier only claims to have cannot be used.
            let exists = (want.gpus & !GpuSet::first(self.gpus)).is_empty();
            let fails = !exists || happens(start.failing_ppm, rng);
            let held = Held { bound: want, phase: Phase::Starting { fails } };
            self.held.push(held);
            reaction.reports.extend(self.report(&held));
            let took = self.start_time(want.job, now, start, rng);
            reaction.steps.push((took, Step::Started(want.assignment)));
        }
    }

    fn start_time(
        &mut self,
        job: JobId,
        now: TimeMs,
        start: &StartModel,
        rng: &mut impl Rng,
    ) -> DurationMs {
        let straggles = happens(start.straggling_ppm, rng);
        let times = if straggles { u64::from(start.straggling_times.max(1)) } else { 1 };
        let slow = |time: DurationMs| DurationMs(time.0.saturating_mul(times));
        let there = match self.image {
            Some((known, at)) if known == job => at,
            _ => now.after(slow(start.image.draw(rng))),
        };
        self.image = Some((job, there));
        there.since(now).saturating_add(slow(start.process.draw(rng)))
    }

    /// Whether the GPUs are free and no other binding of the replica is there.
    fn has_room(&self, want: &Bound) -> bool {
        let live = || self.held.iter().filter(|held| held.phase != Phase::Failed);
        if live().any(|held| (held.bound.job, held.bound.rank) == (want.job, want.rank)) {
            return false;
        }
        let sharers = live().filter(|held| !(held.bound.gpus & want.gpus).is_empty());
        let mut used = [0u16; GPUS_PER_NODE_MAX];
        for held in sharers {
            for gpu in held.bound.gpus.iter() {
                used[usize::from(gpu)] += held.bound.milli();
            }
        }
        want.gpus.iter().all(|gpu| used[usize::from(gpu)] + want.milli() <= GPU_MILLI_WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Latency;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn bound(assignment: u64, gpus: u64) -> Bound {
        let (job, rank) = (JobId(assignment), Rank(0));
        Bound {
            assignment: AssignmentId(assignment),
            job,
            rank,
            gpus: GpuSet(gpus),
            share_milli: 0,
        }
    }

    fn machine() -> (Machine, StartModel, StdRng) {
        let mut machine = Machine::new(8);
        machine.id = Some(NodeId(3));
        let stop = Latency::Fixed(DurationMs(40));
        (machine, StartModel { stop, ..StartModel::default() }, StdRng::seed_from_u64(1))
    }

    #[test]
    fn a_start_waits_until_the_gpus_are_free() {
        let (mut machine, start, mut rng) = machine();
        let first = machine.told([bound(1, 0b11)].into(), TimeMs(0), &start, &mut rng);
        assert_eq!(first.steps, [(DurationMs(500), Step::Started(AssignmentId(1)))]);
        assert_eq!(first.reports[0].observed, Observed::Starting);
        let swap = machine.told([bound(2, 0b10)].into(), TimeMs(10), &start, &mut rng);
        assert_eq!(swap.steps, [(DurationMs(40), Step::Stopped(AssignmentId(1)))]);
        let free = machine.step(Step::Stopped(AssignmentId(1)), TimeMs(50), &start, &mut rng);
        assert_eq!(free.steps, [(DurationMs(500), Step::Started(AssignmentId(2)))]);
        let late = machine.step(Step::Started(AssignmentId(1)), TimeMs(500), &start, &mut rng);
        assert!(late.reports.is_empty(), "a stopped start says nothing");
        let done = machine.step(Step::Started(AssignmentId(2)), TimeMs(550), &start, &mut rng);
        assert_eq!(done.reports[0].observed, Observed::Ready);
    }

    #[test]
    fn gpus_that_do_not_exist_fail_and_a_fence_stops_all() {
        let (mut machine, start, mut rng) = machine();
        machine.told([bound(1, 0x100), bound(2, 1)].into(), TimeMs(0), &start, &mut rng);
        let failed = machine.step(Step::Started(AssignmentId(1)), TimeMs(500), &start, &mut rng);
        assert_eq!(failed.reports[0].observed, Observed::Failed { exit_code: FAILED_CODE });
        assert!(machine.runs());
        machine.fence();
        assert!(!machine.runs() && machine.repeat().is_empty());
    }

    #[test]
    fn replicas_of_a_job_share_its_image() {
        let (mut machine, mut start, mut rng) = machine();
        start.image = Latency::Fixed(DurationMs(20_000));
        let mut second = bound(1, 0b10);
        (second.assignment, second.rank) = (AssignmentId(9), Rank(1));
        let both = machine.told([bound(1, 1), second].into(), TimeMs(0), &start, &mut rng);
        let times: Vec<u64> = both.steps.iter().map(|(took, _)| took.0).collect();
        assert_eq!(times, [20_500, 20_500]);
    }
}
