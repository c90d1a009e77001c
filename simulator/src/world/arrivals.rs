//! Jobs coming in, being asked for again after a leader's death, and being ended by their tenants.
//!
//! **Invariant:** a caller that got no answer asks again with the same request id.

use super::log::Origin;
use super::{Turn, World};
use crate::observe::Seen;
use crate::scenario::{Scenario, Work};
use scheduler_core::command::{Actor, Command, Scale};
use scheduler_core::id::{JobId, Name};
use scheduler_core::job::{Reason, ReasonCode};
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use std::collections::BTreeMap;

/// Callers wait until there is a leader.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Positions in the scenario, by time.
    order: Vec<u32>,
    next: usize,
    /// Without an answer, while nobody leads.
    unanswered: Vec<usize>,
    /// Arrivals of jobs that have a life and are not ready yet.
    lives: BTreeMap<JobId, usize>,
    /// What tenants want of arrivals as soon as these have a job.
    wishes: BTreeMap<usize, Vec<Wish>>,
    /// Whether replicas of any job end by themselves.
    have_work: bool,
}

/// What a tenant wants of its job.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Cancel,
    /// `number` tells this wish from others.
    Scale {
        group: Name,
        replicas: u32,
        number: usize,
    },
}

impl Arrivals {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut order: Vec<u32> = (0u32..).take(scenario.arrivals.len()).collect();
        order.sort_by_key(|at| scenario.arrivals[*at as usize].at);
        let natures = scenario.arrivals.iter().filter_map(|arrival| arrival.nature.as_ref());
        let have_work = natures.into_iter().any(|nature| nature.work.is_some());
        let (lives, wishes) = (BTreeMap::new(), BTreeMap::new());
        Self { order, next: 0, unanswered: Vec::new(), lives, wishes, have_work }
    }

    pub(super) fn next_at(&self, scenario: &Scenario) -> Option<TimeMs> {
        let at = *self.order.get(self.next)? as usize;
        scenario.arrivals.get(at).map(|arrival| arrival.at)
    }

    /// What replicas of the job do before they end by themselves, if they do.
    pub(super) fn work_of(&self, scenario: &Scenario, state: &State, job: JobId) -> Option<Work> {
        let job = state.job(job).filter(|_| self.have_work)?;
        // The digest of a request is its arrival.
        let arrival = scenario.arrivals.get(usize::try_from(job.body_digest).ok()?)?;
        arrival.nature.as_ref()?.work
    }
}

impl World<'_> {
    /// All arrivals of now.
    pub(super) fn arrive(&mut self) {
        while let Some(at) = self.arrivals.next_at(self.scenario) {
            if at > self.now() {
                return self.heap.push(at, Turn::Arrive);
            }
            let arrival = self.arrivals.order[self.arrivals.next] as usize;
            self.arrivals.next += 1;
            self.ask(arrival);
        }
    }

    fn ask(&mut self, arrival: usize) {
        match &mut self.leader {
            Some(leader) => leader.submit(arrival),
            None => self.arrivals.unanswered.push(arrival),
        }
    }

    /// The leader is gone: these callers get no answer from it.
    pub(super) fn unanswered(&mut self, arrivals: impl Iterator<Item = usize>) {
        self.arrivals.unanswered.extend(arrivals);
    }

    /// There is a leader: callers without an answer ask it, in the order of their arrival.
    pub(super) fn ask_again(&mut self) {
        let mut arrivals = std::mem::take(&mut self.arrivals.unanswered);
        arrivals.sort_unstable();
        arrivals.into_iter().for_each(|arrival| self.ask(arrival));
    }

    /// The caller has an answer now.
    pub(super) fn note_answer(&mut self, arrival: usize) {
        let asked_at = self.scenario.arrivals.get(arrival).map_or(self.now(), |asked| asked.at);
        let waited = self.now().since(asked_at);
        self.report.answer_slowest = self.report.answer_slowest.max(waited);
    }

    /// The caller knows its job now.
    pub(super) fn accepted(&mut self, arrival: usize, job: JobId) {
        self.report.jobs_submitted += 1;
        self.note_answer(arrival);
        self.tell(Seen::Submitted { job, arrival });
        for wish in self.arrivals.wishes.remove(&arrival).unwrap_or_default() {
            self.follow_wish(job, wish);
        }
        let Some(life) = self.scenario.arrivals.get(arrival).and_then(|one| one.life) else {
            return;
        };
        match self.state.job(job).and_then(|job| job.ready_at) {
            Some(_) => self.push_after(life, Turn::Leave(job)),
            None => drop(self.arrivals.lives.insert(job, arrival)),
        }
    }

    /// The job is ready for the first time.
    pub(super) fn became_ready(&mut self, job: JobId) {
        self.report.jobs_ready += 1;
        let Some(arrival) = self.arrivals.lives.remove(&job) else { return };
        if let Some(life) = self.scenario.arrivals.get(arrival).and_then(|one| one.life) {
            self.push_after(life, Turn::Leave(job));
        }
    }

    /// The tenant ends the job.
    pub(super) fn leave(&mut self, job: JobId) {
        self.arrivals.lives.remove(&job);
        if self.state.job(job).is_none_or(|job| job.phase.is_over()) {
            return;
        }
        let code = ReasonCode::Cancelled;
        let reason = Reason { code, message: "its tenant ended it".into() };
        self.propose_for(job, Command::Cancel { job, reason });
    }

    /// The tenant wants something of the job of an arrival, which may not be known yet.
    pub(super) fn wish(&mut self, arrival: usize, wish: Wish) {
        match self.oracle.job_of(arrival) {
            Some(job) => self.follow_wish(job, wish),
            None => self.arrivals.wishes.entry(arrival).or_default().push(wish),
        }
    }

    fn follow_wish(&mut self, job: JobId, wish: Wish) {
        match wish {
            Wish::Cancel => self.leave(job),
            Wish::Scale { group, replicas, number } => {
                let request_id = format!("scale-{number}").into();
                let scale = Scale { job, group, replicas, expected: None, request_id };
                self.propose_for(job, Command::Scale(scale));
            }
        }
    }

    /// Proposes what the job's tenant asks for.
    fn propose_for(&mut self, job: JobId, command: Command) {
        let tenant = self.state.job(job).map_or(&self.tenant, |job| &job.tenant).clone();
        self.propose(Actor::Tenant(tenant), command);
    }

    /// Proposes one entry on somebody's behalf; it is proposed again until it is committed.
    pub(super) fn propose(&mut self, by: Actor, command: Command) {
        self.send(vec![(by, command)], Origin::Anybody);
    }
}
