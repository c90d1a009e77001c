//! One machine with its agent: what it is told to run, what it runs, how starts go.
//!
//! What the agent does about it is decided by `agent-core`; the machine is only the hardware: how
//! long images, processes and stops take, which of them fail, which GPUs really exist.
//! **Invariant:** knows only what it was told and what it sees of its own hardware.

use super::outage::Outage;
use crate::scenario::{StartModel, happens};
use agent_core::holdings::Holdings;
use agent_core::reconcile::{Action, Wants, reconcile};
use agent_core::replica::{self, AssignmentId, Binding, EXIT_NOT_STARTED, Exit, Held, Phase};
use rand::Rng;
use scheduler_core::command::{Observed, ReplicaReport};
use scheduler_core::duty::leases::{Heard, Instance};
use scheduler_core::id::{self, Epoch, JobId, NodeId, Rank};
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, GpuSet, TimeMs};

/// What the state wants to run on the node.
pub(super) fn wanted_on(state: &State, node: NodeId) -> Wants<Binding> {
    let binding = |(job, rank): (JobId, Rank)| {
        let held = state.replica(job, rank)?.allocation?;
        Some(Binding {
            id: AssignmentId(held.assignment.0),
            job: replica::JobId(job.0),
            rank: replica::Rank(rank.0),
            gpus: replica::GpuSet::of_bits(held.gpus.0),
            gpu_milli: held.share_milli.into(),
        })
    };
    Wants::new(state.work_to_run(node).filter_map(binding).collect())
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
    /// Position in the scenario of the node that it is, or is a clone of.
    pub(super) identity: usize,
    /// As of its last registration.
    pub(super) id: Option<NodeId>,
    pub(super) epoch: Epoch,
    pub(super) session: Session,
    /// The machine runs.
    pub(super) on: bool,
    /// The network to the servers is cut.
    pub(super) cut: bool,
    /// Forgotten by an operator: does not come back by itself.
    pub(super) removed: bool,
    /// Changes whenever what is on its way to the agent is void.
    pub(super) era: u32,
    /// Changes whenever all that ran is gone.
    pub(super) life: u32,
    /// How often it was switched off: each time its agent is another process.
    boots: u32,
    /// When its session was opened, or opened again.
    pub(super) opened_at: TimeMs,
    /// When the last heartbeat was sent that was answered; kept only where others have its identity.
    pub(super) answered_at: TimeMs,
    /// No message overtakes another one on its way to the agent.
    pub(super) told_at: TimeMs,
    /// While it has no session.
    pub(super) outage: Option<Box<Outage>>,
    /// GPUs that are really there.
    gpus: usize,
    wanted: Wants<Binding>,
    held: Holdings,
    /// The job whose image was fetched last, and since when it is there.
    image: Option<(replica::JobId, TimeMs)>,
}

/// Something that the machine will do by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Ready(AssignmentId),
    /// Its GPUs are free.
    Ended(AssignmentId, Exit),
}

/// What comes of telling a machine something.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    /// To be told to the servers.
    pub(super) reports: Vec<ReplicaReport>,
    /// What it does next, and after which time.
    pub(super) steps: Vec<(DurationMs, Step)>,
}

/// What a machine needs to know to react to anything.
pub(super) struct Hardware<'a, R> {
    pub(super) now: TimeMs,
    pub(super) start: &'a StartModel,
    pub(super) rng: &'a mut R,
}

impl Machine {
    /// Switched on, with so many GPUs, and not yet joined.
    pub(super) fn new(identity: usize, gpus: usize) -> Self {
        Self {
            identity,
            id: None,
            epoch: Epoch(0),
            session: Session::None,
            on: true,
            cut: false,
            removed: false,
            era: 0,
            life: 0,
            boots: 0,
            opened_at: TimeMs::ZERO,
            answered_at: TimeMs::ZERO,
            told_at: TimeMs::ZERO,
            outage: None,
            gpus,
            wanted: Wants::default(),
            held: Holdings::default(),
            image: None,
        }
    }

    /// Whether agent and servers hear each other.
    pub(super) fn is_reachable(&self) -> bool {
        self.on && !self.cut
    }

    pub(super) fn is_in_session(&self) -> bool {
        self.session == Session::Open
    }

    /// The agent's process. `at`: the machine's position, which no other machine has.
    pub(super) fn instance(&self, at: usize) -> Instance {
        Instance((at as u128 | (u128::from(self.boots) << 64)).to_le_bytes())
    }

    /// What a server hears when the agent opens its session as this node.
    pub(super) fn hello(&self, at: usize, node: NodeId) -> Heard {
        Heard { node, epoch: self.epoch, instance: self.instance(at), age_ms: 0 }
    }

    /// The machine stops, without a word.
    pub(super) fn die(&mut self) {
        self.on = false;
        self.boots += 1;
        self.session = Session::None;
        (self.outage, self.image) = (None, None);
        self.held = Holdings::default();
        self.forget_wanted();
    }

    /// The right to run is over: everything is killed, the session is no more. What is still wanted
    /// after the next join is told of then.
    pub(super) fn fence(&mut self) {
        self.session = Session::None;
        let all: Vec<Held> = self.held.iter().copied().collect();
        for Held { binding, phase } in all {
            let stopping = phase.stopping(true).unwrap_or(phase);
            self.end(binding, stopping, Exit::Failed(replica::EXIT_KILLED));
        }
        self.forget_wanted();
    }

    fn forget_wanted(&mut self) {
        self.era += 1;
        self.life += 1;
        self.wanted = Wants::default();
    }

    /// Whether a replica of it is running or about to.
    pub(super) fn runs(&self) -> bool {
        self.held.is_busy()
    }

    /// The agent hears what it should run.
    pub(super) fn told<R: Rng>(
        &mut self,
        wanted: Wants<Binding>,
        hardware: Hardware<'_, R>,
    ) -> Reaction {
        self.wanted = wanted;
        let mut reaction = Reaction::default();
        self.act(hardware, &mut reaction);
        reaction
    }

    /// A step that the machine had announced is done.
    pub(super) fn step<R: Rng>(&mut self, step: Step, hardware: Hardware<'_, R>) -> Reaction {
        let mut reaction = Reaction::default();
        let id = match step {
            Step::Ready(id) | Step::Ended(id, _) => id,
        };
        let Some(held) = self.held.get(id).copied() else { return reaction };
        match step {
            Step::Ready(_) => {
                if let Some(ready) = held.phase.ready() {
                    self.note(held.binding, ready, &mut reaction);
                }
            }
            Step::Ended(_, exit) => {
                if let Some(ended) = self.end(held.binding, held.phase, exit) {
                    reaction.reports.extend(self.report(&ended));
                }
                self.act(hardware, &mut reaction);
            }
        }
        reaction
    }

    /// All that the agent says when it has connected again.
    pub(super) fn repeat(&self) -> Vec<ReplicaReport> {
        self.held.iter().filter_map(|held| self.report(held)).collect()
    }

    fn report(&self, held: &Held) -> Option<ReplicaReport> {
        let observed = match held.phase.observed()? {
            replica::Observed::Starting => Observed::Starting,
            replica::Observed::Ready => Observed::Ready,
            replica::Observed::Ended(Exit::Succeeded) => Observed::Succeeded,
            replica::Observed::Ended(Exit::Failed(exit_code)) => Observed::Failed { exit_code },
        };
        let Binding { id, job, rank, .. } = held.binding;
        let (job, rank, assignment) = (JobId(job.0), Rank(rank.0), id::AssignmentId(id.0));
        Some(ReplicaReport { job, rank, assignment, node: self.id?, observed })
    }

    fn note(&mut self, binding: Binding, phase: Phase, reaction: &mut Reaction) {
        self.held.set(binding, phase);
        reaction.reports.extend(self.report(&Held { binding, phase }));
    }

    /// The replica is gone; how it is held from now on, if that is news.
    fn end(&mut self, binding: Binding, phase: Phase, exit: Exit) -> Option<Held> {
        match phase.ended(exit) {
            None => {
                self.held.remove(binding.id);
                None
            }
            Some(after) => {
                self.held.set(binding, after);
                (after != phase).then_some(Held { binding, phase: after })
            }
        }
    }

    /// Carries out what is to be done, until there is nothing more.
    fn act<R: Rng>(&mut self, mut hardware: Hardware<'_, R>, reaction: &mut Reaction) {
        loop {
            let actions = reconcile(&self.wanted, &self.held);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Stop(id) => self.stop(id, &mut hardware, reaction),
                    Action::Forget(id) => drop(self.held.remove(id)),
                    Action::Start(binding) => self.start(binding, &mut hardware, reaction),
                }
            }
        }
    }

    fn stop<R: Rng>(
        &mut self,
        id: AssignmentId,
        hardware: &mut Hardware<'_, R>,
        reaction: &mut Reaction,
    ) {
        let Some(held) = self.held.get(id).copied() else { return };
        let Some(stopping) = held.phase.stopping(false) else { return };
        self.held.set(held.binding, stopping);
        let took = hardware.start.stop.draw(hardware.rng);
        if took == DurationMs::ZERO {
            self.end(held.binding, stopping, Exit::Succeeded);
        } else {
            reaction.steps.push((took, Step::Ended(id, Exit::Succeeded)));
        }
    }

    fn start<R: Rng>(
        &mut self,
        binding: Binding,
        hardware: &mut Hardware<'_, R>,
        reaction: &mut Reaction,
    ) {
        // What the supplier only claims to have cannot be used.
        let there = GpuSet::first(self.gpus);
        let exists =
            binding.gpus.iter().all(|gpu| u8::try_from(gpu).is_ok_and(|g| there.contains(g)));
        let fails = !exists || happens(hardware.start.failing_ppm, hardware.rng);
        self.note(binding, Phase::Starting, reaction);
        let took = self.start_time(binding.job, hardware);
        let step = match fails {
            true => Step::Ended(binding.id, Exit::Failed(EXIT_NOT_STARTED)),
            false => Step::Ready(binding.id),
        };
        reaction.steps.push((took, step));
    }

    fn start_time<R: Rng>(
        &mut self,
        job: replica::JobId,
        hardware: &mut Hardware<'_, R>,
    ) -> DurationMs {
        let Hardware { now, start, rng } = hardware;
        let straggles = happens(start.straggling_ppm, rng);
        let times = if straggles { u64::from(start.straggling_times.max(1)) } else { 1 };
        let slow = |time: DurationMs| DurationMs(time.0.saturating_mul(times));
        let there = match self.image {
            Some((known, at)) if known == job => at,
            _ => now.after(slow(start.image.draw(rng))),
        };
        self.image = Some((job, there));
        there.since(*now).saturating_add(slow(start.process.draw(rng)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Latency;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn binding(assignment: u64, gpus: u64) -> Binding {
        let (id, job) = (AssignmentId(assignment), replica::JobId(assignment));
        let gpus = replica::GpuSet::of_bits(gpus);
        Binding { id, job, rank: replica::Rank(0), gpus, gpu_milli: 0 }
    }

    /// A machine of eight GPUs whose replicas take 40 ms to stop.
    struct Bench {
        machine: Machine,
        start: StartModel,
        rng: StdRng,
    }

    impl Bench {
        fn new() -> Self {
            let mut machine = Machine::new(0, 8);
            machine.id = Some(NodeId(3));
            let stop = Latency::Fixed(DurationMs(40));
            let start = StartModel { stop, ..StartModel::default() };
            Self { machine, start, rng: StdRng::seed_from_u64(1) }
        }

        fn told(&mut self, wanted: &[Binding], now: u64) -> Reaction {
            let hardware = Hardware { now: TimeMs(now), start: &self.start, rng: &mut self.rng };
            self.machine.told(Wants::new(wanted.to_vec()), hardware)
        }

        fn step(&mut self, step: Step, now: u64) -> Reaction {
            let hardware = Hardware { now: TimeMs(now), start: &self.start, rng: &mut self.rng };
            self.machine.step(step, hardware)
        }
    }

    #[test]
    fn a_start_waits_until_the_gpus_are_free() {
        let mut bench = Bench::new();
        let ready = |id| Step::Ready(AssignmentId(id));
        let stopped = Step::Ended(AssignmentId(1), Exit::Succeeded);
        let first = bench.told(&[binding(1, 0b11)], 0);
        assert_eq!(first.steps, [(DurationMs(500), ready(1))]);
        assert_eq!(first.reports[0].observed, Observed::Starting);
        let swap = bench.told(&[binding(2, 0b10)], 10);
        assert_eq!(swap.steps, [(DurationMs(40), stopped)]);
        let free = bench.step(stopped, 50);
        assert_eq!(free.steps, [(DurationMs(500), ready(2))]);
        let late = bench.step(ready(1), 500);
        assert!(late.reports.is_empty(), "a stopped start says nothing");
        let done = bench.step(ready(2), 550);
        assert_eq!(done.reports[0].observed, Observed::Ready);
    }

    #[test]
    fn gpus_that_do_not_exist_fail_and_a_fence_kills_all() {
        let mut bench = Bench::new();
        let not_started = Exit::Failed(EXIT_NOT_STARTED);
        let told = bench.told(&[binding(1, 0x100), binding(2, 1)], 0);
        assert_eq!(told.steps[0].1, Step::Ended(AssignmentId(1), not_started));
        let failed = bench.step(told.steps[0].1, 500);
        let exit_code = EXIT_NOT_STARTED;
        assert_eq!(failed.reports[0].observed, Observed::Failed { exit_code });
        assert!(bench.machine.runs());
        bench.machine.fence();
        assert!(!bench.machine.runs());
        // Should it still be wanted after the next join, this is what became of it.
        let told: Vec<Observed> =
            bench.machine.repeat().into_iter().map(|report| report.observed).collect();
        let killed = Observed::Failed { exit_code: replica::EXIT_KILLED };
        assert_eq!(told, [Observed::Failed { exit_code }, killed]);
        assert!(bench.told(&[binding(2, 1)], 900).steps.is_empty(), "it is not started again");
        bench.told(&[], 1_000);
        assert!(bench.machine.repeat().is_empty(), "nobody wants it: forgotten");
    }

    #[test]
    fn replicas_of_a_job_share_its_image() {
        let mut bench = Bench::new();
        bench.start.image = Latency::Fixed(DurationMs(20_000));
        let mut second = binding(1, 0b10);
        (second.id, second.rank) = (AssignmentId(9), replica::Rank(1));
        let both = bench.told(&[binding(1, 1), second], 0);
        let times: Vec<u64> = both.steps.iter().map(|(took, _)| took.0).collect();
        assert_eq!(times, [20_500, 20_500]);
    }
}
