//! What agents saw of their replicas.
//!
//! **Invariant:** only the node that holds an assignment moves its replica, and only forwards.

use super::apply::Turn;
use super::{FAILURES_MAX, State};
use crate::command::{Observed, Outcome, Rejection, ReplicaReport};
use crate::event::Event;
use crate::id::JobId;
use crate::job::{JobPhase, Reason, ReasonCode, Replica, ReplicaPhase};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(super) fn report(
        &mut self,
        turn: &mut Turn<'_>,
        reports: &[ReplicaReport],
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let mut jobs: BTreeSet<JobId> = BTreeSet::new();
        // Groups that wait for others, of the few jobs that have such.
        let mut held: BTreeMap<JobId, Vec<usize>> = BTreeMap::new();
        let mut looked: Option<JobId> = None;
        let mut last: Option<JobId> = None;
        let (mut changed, mut stale) = (0u32, 0u32);
        for report in reports {
            if looked.replace(report.job) != Some(report.job) && !held.contains_key(&report.job) {
                let groups = self.held_back(report.job);
                if !groups.is_empty() {
                    held.insert(report.job, groups);
                }
            }
            if !self.observe(turn, report) {
                stale = stale.saturating_add(1);
                continue;
            }
            changed = changed.saturating_add(1);
            if last.replace(report.job) != Some(report.job) {
                jobs.insert(report.job);
            }
        }
        for job in jobs {
            self.settle(turn, job);
        }
        for (job, groups) in held {
            self.let_start(turn, job, &groups);
        }
        Ok(Outcome::Reported { changed, stale })
    }

    /// Takes in one report; returns whether it changed anything.
    fn observe(&mut self, turn: &mut Turn<'_>, report: &ReplicaReport) -> bool {
        let (job, rank) = (report.job, report.rank);
        let Some(replica) = self.replica(job, rank) else { return false };
        let held = replica
            .allocation
            .is_some_and(|held| held.assignment == report.assignment && held.node == report.node);
        if !held || !replica.phase.is_live() {
            return false;
        }
        match report.observed {
            Observed::Starting => self.advance(report, replica, ReplicaPhase::Starting),
            Observed::Ready => self.advance(report, replica, ReplicaPhase::Ready),
            Observed::Succeeded => {
                self.let_go(turn, job, rank, ReplicaPhase::Succeeded);
                true
            }
            Observed::Failed { exit_code } => {
                self.fail(turn, report, replica, exit_code);
                true
            }
        }
    }

    fn advance(&mut self, report: &ReplicaReport, replica: Replica, to: ReplicaPhase) -> bool {
        // The phases of a live replica are in order.
        if replica.phase >= to {
            return false;
        }
        self.put_replica(report.job, report.rank, Replica { phase: to, ..replica });
        true
    }

    fn fail(&mut self, turn: &mut Turn<'_>, report: &ReplicaReport, replica: Replica, code: i32) {
        let (job, rank) = (report.job, report.rank);
        let failures = replica.failures.saturating_add(1);
        let failed = Replica { phase: ReplicaPhase::Failed, failures, ..replica };
        self.put_replica(job, rank, failed);
        turn.event(Event::NodeWorkChanged(report.node));
        turn.event(Event::CapacityGrew);
        if failures >= FAILURES_MAX {
            let message = format!(
                "rank {rank} failed {failures} times, the last time with exit code {code} on {}",
                report.node
            );
            let reason = Reason { code: ReasonCode::ReplicaFailed, message: message.into() };
            self.end_job(turn, job, JobPhase::Failed, reason);
        }
    }
}
