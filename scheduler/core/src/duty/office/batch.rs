//! Batches: entries that go into one log record, and what becomes of each when it comes back.
//!
//! **Invariant:** every job in a batch is answered or handed back for another try, whatever
//! happened to the batch.

use super::look::{Accepted, Answer};
use super::offers::Taking;
use super::{Ask, STALE_MAX, Submission};
use crate::command::{
    Actor, Command, Commit, Entry, Outcome, Plan, Preempt, Rejection, Submit, Victim,
};
use crate::id::{JobId, NodeId};
use crate::job::{
    Condition, GpuAlternative, GroupSpec, JobSpec, Priority, Reason, ReasonCode, Selector,
};
use crate::unit::TimeMs;
use std::sync::Arc;

/// A batch is sent once its plans have this many placements: a gang travels alone.
pub(super) const BATCH_PLACEMENTS_MAX: usize = 1_024;
/// A batch is sent once its entries take about this many bytes; a record may have 8 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an entry without its variable parts, and of one placement, roughly.
const ENTRY_BYTES: usize = 256;
const PLACEMENT_BYTES: usize = 16;

/// What one entry of a batch is about.
#[derive(Debug)]
enum Item<T> {
    /// `growth`: as of which growth of capacity it was found not to fit; `None` = not known.
    Submit {
        ask: Ask<T>,
        planned: bool,
        growth: Option<u64>,
        /// Whose GPUs its plan takes.
        victims: Vec<JobId>,
        decide_us: u64,
    },
    Commit(JobId),
    Preempt {
        job: JobId,
        victims: Vec<JobId>,
    },
    Tell,
}

/// Entries that go into one log record.
#[derive(Debug)]
pub struct Batch<T> {
    pub(super) entries: Vec<Entry>,
    sent: Sent<T>,
    placements: usize,
    bytes: usize,
}

/// What is kept of a batch while its entries are under way.
#[derive(Debug)]
pub struct Sent<T> {
    claim: u64,
    items: Vec<Item<T>>,
    nodes: Vec<NodeId>,
}

/// What a batch that came back means to the office.
#[derive(Debug)]
pub struct Returned<T> {
    pub(super) claim: u64,
    /// Nodes whose plans were sent.
    pub(super) nodes: Vec<NodeId>,
    /// Jobs to try again.
    pub(super) again: Vec<Ask<T>>,
    /// Jobs now waiting, and as of which growth they were found not to fit.
    pub(super) waiting: Vec<(JobId, Priority, Option<u64>)>,
    /// New jobs with a duration that were placed.
    pub(super) placed: Vec<JobId>,
    /// Commits for waiting jobs, and whether they were accepted.
    pub(super) commits: Vec<(JobId, bool)>,
    /// Jobs that were to give way, whether they did or not.
    pub(super) victims: Vec<JobId>,
    /// A plan did not come true: what it held is free for those who were planned around it.
    pub(super) freed: bool,
}

/// How a submission was decided.
pub(super) struct Decided {
    /// `Err` = it waits, and why.
    pub(super) found: Result<Taking, Reason>,
    /// As of which growth of capacity it was found not to fit; `None` = not known.
    pub(super) growth: Option<u64>,
    pub(super) decide_us: u64,
}

impl<T> Batch<T> {
    /// An empty batch. `claim`: the number of the claim that all its plans hold in the view.
    pub(super) fn new(claim: u64) -> Self {
        let sent = Sent { claim, items: Vec::new(), nodes: Vec::new() };
        Self { entries: Vec::new(), sent, placements: 0, bytes: 0 }
    }

    pub(super) fn claim(&self) -> u64 {
        self.sent.claim
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the batch should be sent before anything else is put in.
    pub(super) fn is_full(&self) -> bool {
        self.placements >= BATCH_PLACEMENTS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// The entries to propose as one record, and what has to be told of the results.
    pub fn into_parts(self) -> (Vec<Entry>, Sent<T>) {
        (self.entries, self.sent)
    }

    /// Accepts a job: placed, or pending.
    pub(super) fn submit(&mut self, ask: Ask<T>, decided: Decided, token: u128, at: TimeMs) {
        let Decided { found, growth, decide_us } = decided;
        let (plan, victims, reason) = match found {
            Ok(Taking { plan, victims }) => (Some(plan), victims, Reason::default()),
            Err(reason) => (None, Vec::new(), reason),
        };
        let planned = plan.is_some();
        self.weigh(plan.as_ref());
        self.bytes += weight(&ask.call.spec);
        let giving = self.weigh_victims(&victims);
        let Submission { tenant, by, request_id, body_digest, spec, .. } = &ask.call;
        let command = Command::Submit(Submit {
            tenant: tenant.clone(),
            request_id: Arc::clone(request_id),
            body_digest: *body_digest,
            spec: Arc::clone(spec),
            token,
            plan,
            victims,
            reason,
        });
        self.entries.push(Entry { at, by: by.clone(), command });
        self.sent.items.push(Item::Submit { ask, planned, growth, victims: giving, decide_us });
    }

    /// Binds waiting replicas of a job.
    pub(super) fn commit(&mut self, job: JobId, plan: Plan, at: TimeMs) {
        self.weigh(Some(&plan));
        self.push(Command::Commit(Commit { job, plan }), Item::Commit(job), at);
    }

    /// Binds a whole waiting job to what others give up.
    pub(super) fn preempt(&mut self, job: JobId, plan: Plan, victims: Vec<Victim>, at: TimeMs) {
        self.weigh(Some(&plan));
        let item = Item::Preempt { job, victims: self.weigh_victims(&victims) };
        self.push(Command::Preempt(Preempt { job, plan, victims }), item, at);
    }

    /// Says why a job waits.
    pub(super) fn tell(&mut self, job: JobId, reason: Reason, at: TimeMs) {
        self.push(Command::SetReason { job, reason }, Item::Tell, at);
    }

    fn push(&mut self, command: Command, item: Item<T>, at: TimeMs) {
        self.bytes += ENTRY_BYTES;
        self.entries.push(Entry { at, by: Actor::System, command });
        self.sent.items.push(item);
    }

    /// The jobs of the victims.
    fn weigh_victims(&mut self, victims: &[Victim]) -> Vec<JobId> {
        let ranks: usize = victims.iter().map(|victim| victim.ranks.len()).sum();
        self.bytes += (victims.len() + ranks) * PLACEMENT_BYTES;
        victims.iter().map(|victim| victim.job).collect()
    }

    fn weigh(&mut self, plan: Option<&Plan>) {
        let Some(plan) = plan else { return };
        self.placements += plan.placements.len();
        self.bytes += plan.placements.len() * PLACEMENT_BYTES;
        self.sent.nodes.extend(plan.placements.iter().map(|placement| placement.node));
    }
}

impl<T> Sent<T> {
    /// The entries were applied, the last at `index`, with these results: answers the callers.
    pub fn applied(
        self,
        results: Vec<Result<Outcome, Rejection>>,
        index: u64,
        mut answer: impl FnMut(T, Answer),
    ) -> Returned<T> {
        let (mut returned, items) = self.back();
        let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (item, result) in items.into_iter().zip(results) {
            returned.settle(item, result, index, &mut answer);
        }
        returned
    }

    /// Nobody knows what became of the entries: gives the callers' tickets out.
    pub fn lost(self, mut fail: impl FnMut(T)) -> Returned<T> {
        let (mut returned, items) = self.back();
        for item in items {
            match item {
                Item::Submit { ask, planned, victims, .. } => {
                    returned.freed |= planned;
                    returned.victims.extend(victims);
                    fail(ask.ticket);
                }
                Item::Commit(job) => returned.commit(job, false),
                Item::Preempt { job, victims } => returned.preempt(job, victims, false),
                Item::Tell => {}
            }
        }
        returned
    }

    fn back(self) -> (Returned<T>, Vec<Item<T>>) {
        let Self { claim, items, nodes } = self;
        let (again, waiting, commits) = (Vec::new(), Vec::new(), Vec::new());
        let (placed, victims) = (Vec::new(), Vec::new());
        (Returned { claim, nodes, again, waiting, placed, commits, victims, freed: false }, items)
    }
}

impl<T> Returned<T> {
    fn settle(
        &mut self,
        item: Item<T>,
        result: Option<Result<Outcome, Rejection>>,
        index: u64,
        answer: &mut impl FnMut(T, Answer),
    ) {
        if let Item::Submit { victims, .. } = &item {
            self.victims.extend(victims);
        }
        match (item, result) {
            (Item::Tell, _) => {}
            (Item::Commit(job), result) => {
                self.commit(job, result.is_some_and(|result| result.is_ok()));
            }
            (Item::Preempt { job, victims }, result) => {
                self.preempt(job, victims, result.is_some_and(|result| result.is_ok()));
            }
            (Item::Submit { ask, planned, .. }, Some(Err(rejection))) => {
                self.freed |= planned;
                self.refused(ask, planned, rejection, answer);
            }
            (Item::Submit { ask, growth, decide_us, .. }, Some(Ok(outcome))) => {
                let Outcome::Submitted { job, known, placed } = outcome else {
                    let why = "the log answered a submission with something else";
                    return answer(ask.ticket, Answer::Odd { why });
                };
                match placed {
                    _ if known => {}
                    false => self.waiting.push((job, ask.call.spec.priority, growth)),
                    true if ask.call.spec.duration.is_some() => self.placed.push(job),
                    true => {}
                }
                let decide_us = if known { 0 } else { decide_us };
                let accepted = Accepted { job, known, placed, index, decide_us };
                answer(ask.ticket, Answer::Accepted(accepted));
            }
            (Item::Submit { ask, .. }, None) => {
                answer(ask.ticket, Answer::Odd { why: "the log gave no result for an entry" });
            }
        }
    }

    fn commit(&mut self, job: JobId, accepted: bool) {
        self.freed |= !accepted;
        self.commits.push((job, accepted));
    }

    fn preempt(&mut self, job: JobId, victims: Vec<JobId>, accepted: bool) {
        self.victims.extend(victims);
        self.commit(job, accepted);
    }

    /// A refused plan is not a refused job: it is planned again, and in the end it waits.
    fn refused(
        &mut self,
        mut ask: Ask<T>,
        planned: bool,
        rejection: Rejection,
        answer: &mut impl FnMut(T, Answer),
    ) {
        match rejection {
            Rejection::StalePlan { why } if planned => {
                ask.stale += 1;
                if ask.stale >= STALE_MAX {
                    let message = format!("{STALE_MAX} plans went stale; the last because {why}");
                    let code = ReasonCode::Contention;
                    ask.pending = Some(Reason { code, message: message.into() });
                }
                self.again.push(ask);
            }
            Rejection::QuotaExceeded { why, .. } if planned => {
                ask.pending = Some(Reason { code: ReasonCode::Quota, message: why.into() });
                self.again.push(ask);
            }
            rejection => answer(ask.ticket, Answer::Rejected(rejection)),
        }
    }
}

/// Bytes of a spec in an entry, roughly; its program is what can be large.
fn weight(spec: &JobSpec) -> usize {
    let program = &spec.program;
    let argv: usize = program.argv.iter().map(String::len).sum();
    let env: usize = program.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let text = |(key, value): (&Arc<str>, &Arc<str>)| key.len() + value.len();
    let labels: usize = spec.labels.iter().map(text).sum();
    let rules = spec.affinities.len() * 64;
    ENTRY_BYTES + argv + env + labels + rules + spec.groups.iter().map(group_weight).sum::<usize>()
}

fn group_weight(group: &GroupSpec) -> usize {
    let values = |selector: &Selector| match &selector.condition {
        Condition::In(values) | Condition::NotIn(values) => {
            values.iter().map(|value| value.len()).sum()
        }
        _ => 0usize,
    };
    let selectors: usize = group.selectors.iter().map(|one| one.key.len() + values(one)).sum();
    let models = |one: &GpuAlternative| 16 + one.models.len() * 16;
    let shape = &group.shape;
    let models: usize = shape.alternatives.iter().map(models).sum();
    let tolerations = group.tolerations.len() * 64;
    ENTRY_BYTES / 4 + selectors + tolerations + models + shape.custom.len() * 24
}

#[cfg(test)]
mod tests;
