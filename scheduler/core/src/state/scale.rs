//! Another number of replicas of a group, asked for while its job lives.
//!
//! More: the lowest ranks of the group that are absent are asked for again, and wait to be placed
//! like any others. Fewer: those that wait go first, then those that run, then those that succeeded;
//! of each kind the highest ranks, which are the newest, first. The head stays whatever else goes.
//! **Invariant:** no replica that stays is touched: not its rank, node, GPUs or assignment. A group
//! never asks for fewer replicas than its minimum, nor for more than its maximum.

use super::State;
use super::apply::Turn;
use super::replicas::blank;
use crate::command::{Outcome, Rejection, Scale};
use crate::id::{JobId, Rank};
use crate::job::{Job, Replica, ReplicaPhase, Scaling};
use crate::unit::GpuMilli;
use crate::validate;
use std::cmp::Reverse;

/// Scalings of a job whose request ids are remembered: who repeats a request does so before so many
/// others have come.
pub const SCALINGS_REMEMBERED: usize = 16;

/// Group names that a refusal lists at most.
const GROUPS_LISTED_MAX: usize = 8;

impl State {
    pub(super) fn scale(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &Scale,
    ) -> Result<Outcome, Rejection> {
        validate::request_id(&asked.request_id)?;
        let job = self.owned_job(turn, asked.job)?.clone();
        let group = find_group(&job, asked)?;
        let mut scalings = self.scalings(job.id).to_vec();
        if let Some(known) = scalings.iter().find(|known| known.request_id == asked.request_id) {
            return repeated(&job, asked, group, known);
        }
        if job.phase.is_over() {
            return Err(Rejection::Precondition { what: format!("{} is over", job.id) });
        }
        let before = check_replicas(&job, asked, group)?;
        let mut spec = job.spec.as_ref().clone();
        if let Some(group) = spec.groups.get_mut(usize::from(group)) {
            group.replicas = asked.replicas;
        }
        self.check_scaled_quota(&job, before, asked, spec.gpu_milli())?;

        if scalings.len() >= SCALINGS_REMEMBERED {
            scalings.drain(..=scalings.len() - SCALINGS_REMEMBERED);
        }
        scalings.push(Scaling {
            request_id: asked.request_id.clone(),
            group,
            replicas: asked.replicas,
            expected: asked.expected,
            before,
        });
        let ranks = self.ranks_to_turn(&job, group, before, asked.replicas);
        let id = job.id;
        drop(job);
        self.rescale(id, spec, scalings);
        for rank in ranks {
            self.turn_rank(turn, id, rank, asked.replicas > before);
        }
        self.settle(turn, id);
        Ok(Outcome::Scaled { before, known: false })
    }

    /// Refuses to grow to what the tenant's quota could never hold.
    fn check_scaled_quota(
        &self,
        job: &Job,
        before: u32,
        asked: &Scale,
        gpu_milli: u64,
    ) -> Result<(), Rejection> {
        let max = self.known_tenant(&job.tenant)?.quota.gpu_milli_max;
        if asked.replicas <= before || gpu_milli <= max {
            return Ok(());
        }
        let [asked, max] = [gpu_milli, max].map(GpuMilli);
        let why = format!("the job would ask for {asked} GPUs, {max} allowed");
        Err(Rejection::QuotaExceeded { tenant: job.tenant.clone(), why })
    }

    /// Ranks of the group that come, or go.
    fn ranks_to_turn(&self, job: &Job, group: u16, before: u32, after: u32) -> Vec<Rank> {
        let starts = job.spec.group_starts();
        let first = usize::from(group);
        let bound = |at: usize| starts.get(at).copied().unwrap_or(0);
        let all = (bound(first)..bound(first + 1)).map(Rank);
        let own = all.filter_map(|rank| Some((rank, self.replica(job.id, rank)?.phase)));
        let count = usize::try_from(before.abs_diff(after)).unwrap_or(usize::MAX);
        if after > before {
            let absent = own.filter(|(_, phase)| *phase == ReplicaPhase::Absent);
            return absent.map(|(rank, _)| rank).take(count).collect();
        }
        let head = job.spec.head_rank();
        let there = own.filter(|(rank, phase)| *rank != head && *phase != ReplicaPhase::Absent);
        let mut order: Vec<(u8, Reverse<Rank>)> =
            there.map(|(rank, phase)| (staying_power(phase), Reverse(rank))).collect();
        order.sort_unstable();
        order.into_iter().take(count).map(|(_, Reverse(rank))| rank).collect()
    }

    fn turn_rank(&mut self, turn: &mut Turn<'_>, id: JobId, rank: Rank, comes: bool) {
        let Some(replica) = self.replica(id, rank) else { return };
        match (comes, replica.phase.is_live()) {
            (true, _) => self.put_replica(id, rank, blank(ReplicaPhase::Waiting)),
            (false, true) => self.let_go(turn, id, rank, ReplicaPhase::Absent),
            (false, false) => {
                // Its last allocation tells reports that come late from news.
                let absent = Replica { phase: ReplicaPhase::Absent, ..replica };
                self.put_replica(id, rank, absent);
            }
        }
    }
}

/// Which replicas go last.
fn staying_power(phase: ReplicaPhase) -> u8 {
    if phase.is_waiting() {
        0
    } else if phase.is_live() {
        1
    } else {
        2
    }
}

fn find_group(job: &Job, asked: &Scale) -> Result<u16, Rejection> {
    let groups = &job.spec.groups;
    let found = groups.iter().position(|group| group.name == asked.group);
    found.and_then(|at| u16::try_from(at).ok()).ok_or_else(|| {
        let names = groups.iter().take(GROUPS_LISTED_MAX).map(|group| group.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let more = if groups.len() > GROUPS_LISTED_MAX { ", …" } else { "" };
        let problem = format!("is {}; {} has the groups {names}{more}", asked.group, job.id);
        Rejection::Invalid { field: "group".to_owned(), problem }
    })
}

fn repeated(job: &Job, asked: &Scale, group: u16, known: &Scaling) -> Result<Outcome, Rejection> {
    let same = known.group == group
        && known.replicas == asked.replicas
        && known.expected == asked.expected;
    if !same {
        let request_id = asked.request_id.to_string();
        return Err(Rejection::RequestIdReused { request_id, job: job.id });
    }
    Ok(Outcome::Scaled { before: known.before, known: true })
}

/// Replicas that there are now, if so many others may be asked for.
fn check_replicas(job: &Job, asked: &Scale, group: u16) -> Result<u32, Rejection> {
    let Some(group) = job.spec.groups.get(usize::from(group)) else { return Ok(0) };
    let (name, now) = (&group.name, group.replicas);
    if asked.expected.is_some_and(|expected| expected != now) {
        let expected = asked.expected.unwrap_or_default();
        let what = format!("group {name} of {} has {now} replicas, not {expected}", job.id);
        return Err(Rejection::Precondition { what });
    }
    let (min, max) = (group.replicas_min, group.replicas_max);
    if !(min..=max).contains(&asked.replicas) {
        let problem = format!(
            "is {}; group {name} of {} may have {min} to {max} (replicas_min to replicas_max)",
            asked.replicas, job.id
        );
        return Err(Rejection::Invalid { field: "replicas".to_owned(), problem });
    }
    Ok(now)
}
