//! Batches: entries that go into one log record, and what becomes of each when it comes back.
//!
//! **Invariant:** every job in a batch is settled with its caller or handed back for another try,
//! whatever happened to the batch.

use super::inbox::{Ask, Inbox};
use crate::call::{Accepted, CallError};
use crate::clock;
use crate::status;
use raft_store::Quorum;
use scheduler_core::command::{Actor, Command, Commit, Entry, Outcome, Plan, Rejection, Submit};
use scheduler_core::id::{JobId, NodeId};
use scheduler_core::job::{JobSpec, Reason, ReasonCode};
use std::sync::Arc;

/// A plan that went stale this often is given up; the job then waits.
pub(super) const STALE_MAX: u8 = 3;
/// A batch is sent once its plans have this many placements: a gang travels alone.
pub(super) const BATCH_PLACEMENTS_MAX: usize = 1_024;
/// A batch is sent once its entries take about this many bytes; a record may have 8 MiB.
pub(super) const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an entry without its variable parts, and of one placement, roughly.
const ENTRY_BYTES: usize = 256;
const PLACEMENT_BYTES: usize = 16;

/// What one entry of a batch is about.
#[expect(clippy::large_enum_variant, reason = "nearly every item is the large one")]
enum Item {
    /// `growth`: as of which growth of capacity it was found not to fit; `None` = not known.
    Submit {
        ask: Ask,
        planned: bool,
        growth: Option<u64>,
        decide_us: u64,
    },
    Commit(JobId),
    Tell,
}

/// Entries that go into one log record.
pub(super) struct Batch {
    /// Number of the claim that all its plans hold in the planner's view.
    pub(super) claim: u64,
    entries: Vec<Entry>,
    items: Vec<Item>,
    nodes: Vec<NodeId>,
    placements: usize,
    bytes: usize,
}

/// What a batch that came back means to the planner.
#[derive(Default)]
pub(super) struct Returned {
    pub(super) claim: u64,
    /// Nodes whose plans were sent.
    pub(super) nodes: Vec<NodeId>,
    /// Jobs to try again.
    pub(super) again: Vec<Ask>,
    /// Jobs now waiting, and as of which growth they were found not to fit.
    pub(super) waiting: Vec<(JobId, Option<u64>)>,
    /// Commits for waiting jobs, and whether they were accepted.
    pub(super) commits: Vec<(JobId, bool)>,
}

impl Batch {
    pub(super) fn new(claim: u64) -> Self {
        let (entries, items, nodes) = (Vec::new(), Vec::new(), Vec::new());
        Self { claim, entries, items, nodes, placements: 0, bytes: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the batch should be sent before anything else is put in.
    pub(super) fn is_full(&self) -> bool {
        self.placements >= BATCH_PLACEMENTS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Accepts a job: placed by `plan`, or pending for `reason`.
    pub(super) fn submit(
        &mut self,
        ask: Ask,
        plan: Option<Plan>,
        reason: Reason,
        growth: Option<u64>,
        decide_us: u64,
    ) {
        let call = &ask.call;
        self.weigh(plan.as_ref());
        self.bytes += weight(&call.spec);
        let command = Command::Submit(Submit {
            tenant: call.tenant.clone(),
            request_id: Arc::clone(&call.request_id),
            body_digest: call.body_digest,
            spec: Arc::clone(&call.spec),
            token: uuid::Uuid::new_v4().as_u128(),
            plan,
            reason,
        });
        let planned = matches!(&command, Command::Submit(submit) if submit.plan.is_some());
        self.entries.push(Entry { at: clock::now(), by: call.by.clone(), command });
        self.items.push(Item::Submit { ask, planned, growth, decide_us });
    }

    /// Binds waiting replicas of a job.
    pub(super) fn commit(&mut self, job: JobId, plan: Plan) {
        self.weigh(Some(&plan));
        self.push(Command::Commit(Commit { job, plan }), Item::Commit(job));
    }

    /// Says why a job waits.
    pub(super) fn tell(&mut self, job: JobId, reason: Reason) {
        self.push(Command::SetReason { job, reason }, Item::Tell);
    }

    fn push(&mut self, command: Command, item: Item) {
        self.bytes += ENTRY_BYTES;
        self.entries.push(Entry { at: clock::now(), by: Actor::System, command });
        self.items.push(item);
    }

    fn weigh(&mut self, plan: Option<&Plan>) {
        let Some(plan) = plan else { return };
        self.placements += plan.placements.len();
        self.bytes += plan.placements.len() * PLACEMENT_BYTES;
        self.nodes.extend(plan.placements.iter().map(|placement| placement.node));
    }

    /// Proposes the batch, answers its callers, and tells the planner what is left to do.
    pub(super) async fn send(self, quorum: Quorum, inbox: Arc<Inbox>) {
        let start = clock::instant();
        let Self { claim, entries, items, nodes, .. } = self;
        let proposed = quorum.propose(entries).await;
        let commit_us = clock::micros_since(start);
        let mut returned = Returned { claim, nodes, ..Returned::default() };
        match proposed {
            Ok(proposed) => {
                let results = proposed.results.into_iter().map(Some);
                let results = results.chain(std::iter::repeat_with(|| None));
                for (item, result) in items.into_iter().zip(results) {
                    returned.settle(item, result, proposed.index, commit_us);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a batch was not accepted");
                let error = status::quorum_to_call(error);
                items.into_iter().for_each(|item| returned.fail(item, &error));
            }
        }
        inbox.returned(returned);
    }
}

impl Returned {
    fn settle(
        &mut self,
        item: Item,
        result: Option<Result<Outcome, Rejection>>,
        index: u64,
        commit_us: u64,
    ) {
        let Some(result) = result else {
            let why = "the log gave no result for an entry".to_owned();
            return self.fail(item, &CallError::Internal { why });
        };
        match item {
            Item::Tell => {}
            Item::Commit(job) => {
                if let Err(rejection) = &result {
                    tracing::debug!(%job, %rejection, "a plan for a waiting job was refused");
                }
                self.commits.push((job, result.is_ok()));
            }
            Item::Submit { ask, planned, growth, decide_us } => match result {
                Ok(Outcome::Submitted { job, known, placed }) => {
                    if !placed && !known {
                        self.waiting.push((job, growth));
                    }
                    let [decide_us, commit_us] =
                        if known { [0, 0] } else { [decide_us, commit_us] };
                    let accepted = Accepted { job, known, placed, index, decide_us, commit_us };
                    ask.slot.settle(Ok(accepted));
                }
                Ok(_) => {
                    let why = "the log answered a submission with something else".to_owned();
                    ask.slot.settle(Err(CallError::Internal { why }));
                }
                Err(rejection) => self.refused(ask, planned, rejection),
            },
        }
    }

    /// A refused plan is not a refused job: it is planned again, and in the end it waits.
    fn refused(&mut self, mut ask: Ask, planned: bool, rejection: Rejection) {
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
            rejection => ask.slot.settle(Err(CallError::Rejected(rejection))),
        }
    }

    fn fail(&mut self, item: Item, error: &CallError) {
        match item {
            Item::Submit { ask, .. } => ask.slot.settle(Err(error.clone())),
            Item::Commit(job) => self.commits.push((job, false)),
            Item::Tell => {}
        }
    }
}

/// Bytes of a spec in an entry, roughly; its program is what can be large.
fn weight(spec: &JobSpec) -> usize {
    let program = &spec.program;
    let argv: usize = program.argv.iter().map(String::len).sum();
    let env: usize = program.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let group = |group: &scheduler_core::job::GroupSpec| {
        let values = |selector: &scheduler_core::job::Selector| match &selector.condition {
            scheduler_core::job::Condition::In(values)
            | scheduler_core::job::Condition::NotIn(values) => {
                values.iter().map(|value| value.len()).sum()
            }
            _ => 0usize,
        };
        let selectors: usize = group.selectors.iter().map(|one| one.key.len() + values(one)).sum();
        let models = |one: &scheduler_core::job::GpuAlternative| 16 + one.models.len() * 16;
        let shape = &group.shape;
        let models: usize = shape.alternatives.iter().map(models).sum();
        let tolerations = group.tolerations.len() * 64;
        ENTRY_BYTES / 4 + selectors + tolerations + models + shape.custom.len() * 24
    };
    let text = |(key, value): (&std::sync::Arc<str>, &std::sync::Arc<str>)| key.len() + value.len();
    let labels = spec.labels.iter().map(text).sum::<usize>();
    ENTRY_BYTES
        + argv
        + env
        + labels
        + spec.affinities.len() * 64
        + spec.groups.iter().map(group).sum::<usize>()
}

#[cfg(test)]
mod tests;
