//! What agents and sessions say, between proto and core.
//!
//! **Invariant:** a report gets its node from the session, never from the message; a desired state
//! holds exactly the live replicas that are bound to the node.

use crate::status::bad_field;
use bytes::Bytes;
use proto::v1;
use scheduler_core::command::{Observed, ReplicaReport};
use scheduler_core::id::{AssignmentId, JobId, NodeId, Rank};
use scheduler_core::job::{Job, JobKind, ReplicaPhase};
use scheduler_core::node::Node;
use scheduler_core::state::State;
use std::collections::BTreeMap;
use tonic::Status;

/// Most reports in one message; as the proto says.
pub const REPORTS_MAX: usize = 4_096;

/// Bytes of a node key: 256 random bits.
pub const NODE_KEY_BYTES: usize = 32;

/// A field of bytes with a fixed length.
pub fn fixed<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Status> {
    let wrong = |_| bad_field(field, &format!("has {} bytes; it must have {N}", bytes.len()));
    bytes.try_into().map_err(wrong)
}

/// Reports of the agent whose verified session this is.
pub fn reports(node: NodeId, message: &v1::ReplicaReports) -> Result<Vec<ReplicaReport>, Status> {
    let count = message.reports.len();
    if count > REPORTS_MAX {
        let problem = format!("has {count} entries; at most {REPORTS_MAX} are allowed");
        return Err(bad_field("reports.reports", &problem));
    }
    let report = |(at, report): (usize, &v1::ReplicaReport)| {
        Ok(ReplicaReport {
            job: JobId(report.job_id),
            rank: Rank(report.rank),
            assignment: AssignmentId(report.assignment),
            node,
            observed: observed(at, report)?,
        })
    };
    message.reports.iter().enumerate().map(report).collect()
}

fn observed(at: usize, report: &v1::ReplicaReport) -> Result<Observed, Status> {
    let value = report.phase;
    match v1::ObservedPhase::try_from(value) {
        Ok(v1::ObservedPhase::Starting) => Ok(Observed::Starting),
        Ok(v1::ObservedPhase::Ready) => Ok(Observed::Ready),
        Ok(v1::ObservedPhase::Succeeded) => Ok(Observed::Succeeded),
        Ok(v1::ObservedPhase::Failed) => Ok(Observed::Failed { exit_code: report.exit_code }),
        Ok(v1::ObservedPhase::Unspecified) | Err(_) => {
            let problem = format!("is {value}, which is no observed phase");
            Err(bad_field(&format!("reports.reports[{at}].phase"), &problem))
        }
    }
}

/// Whether a report could change anything, now or once more of the log is applied here. What is
/// surely old or known already is not worth a log entry.
pub fn is_news(state: &State, report: &ReplicaReport) -> bool {
    let Some(replica) = state.replica(report.job, report.rank) else {
        // Perhaps this server has yet to learn of the job.
        return true;
    };
    let Some(allocation) = replica.allocation else { return true };
    // Assignments are numbered upwards: an older one is over for good.
    if allocation.assignment != report.assignment {
        return allocation.assignment < report.assignment;
    }
    allocation.node == report.node
        && match report.observed {
            Observed::Starting => replica.phase == ReplicaPhase::Assigned,
            Observed::Ready => {
                matches!(replica.phase, ReplicaPhase::Assigned | ReplicaPhase::Starting)
            }
            Observed::Succeeded | Observed::Failed { .. } => replica.phase.is_live(),
        }
}

/// Builds desired states from one look at the state; what replicas of a job share is made once.
pub struct Desires<'s> {
    state: &'s State,
    jobs: BTreeMap<JobId, Shared>,
}

/// What all assignments of a job have in common.
struct Shared {
    world_size: u32,
    head_rank: u32,
    head_address: String,
    token: Bytes,
    kind: i32,
    program: Option<v1::Program>,
}

impl<'s> Desires<'s> {
    /// Starts a look at the state.
    pub fn new(state: &'s State) -> Self {
        Self { state, jobs: BTreeMap::new() }
    }

    /// Everything that should run on the node.
    pub fn of(&mut self, node: &Node) -> v1::DesiredState {
        let state = self.state;
        let work = state.work_to_run(node.id);
        let assignments = work.filter_map(|(job, rank)| self.assignment(node.id, job, rank));
        v1::DesiredState {
            epoch: node.epoch.0,
            assignments: assignments.collect(),
            index: state.index(),
        }
    }

    fn assignment(&mut self, node: NodeId, id: JobId, rank: Rank) -> Option<v1::Assignment> {
        let state = self.state;
        let job = state.job(id)?;
        let replica = state.replica(id, rank).filter(|replica| replica.phase.is_live())?;
        let allocation = replica.allocation.filter(|allocation| allocation.node == node)?;
        let group = job.spec.groups.get(job.spec.group_of(rank)?)?;
        let shared = self.jobs.entry(id).or_insert_with(|| Shared::new(state, job));
        Some(v1::Assignment {
            job_id: id.0,
            rank: rank.0,
            assignment: allocation.assignment.0,
            gpus: allocation.gpus.iter().map(u32::from).collect(),
            gpu_milli: allocation.share_milli.into(),
            group: group.name.as_str().to_owned(),
            world_size: shared.world_size,
            head_rank: shared.head_rank,
            head_address: shared.head_address.clone(),
            job_token: shared.token.clone(),
            kind: shared.kind,
            program: shared.program.clone(),
            cpu_milli: group.shape.cpu.0,
            memory_mib: group.shape.memory.0,
            disk_mib: group.shape.disk.0,
        })
    }
}

impl Shared {
    fn new(state: &State, job: &Job) -> Self {
        let head_rank = job.spec.head_rank();
        let head = state.replica(job.id, head_rank).filter(|head| head.phase.is_live());
        let head_node = head.and_then(|head| state.node(head.allocation?.node));
        let program = &job.spec.program;
        let program =
            v1::Program { argv: program.argv.clone(), env: program.env.iter().cloned().collect() };
        let nothing = program.argv.is_empty() && program.env.is_empty();
        let kind = match job.spec.kind {
            JobKind::Ray => v1::JobKind::Ray,
            JobKind::Kubernetes => v1::JobKind::Kubernetes,
            JobKind::Plain => v1::JobKind::Plain,
        };
        Self {
            world_size: job.spec.replicas(),
            head_rank: head_rank.0,
            head_address: head_node.map(|node| node.address.to_string()).unwrap_or_default(),
            token: Bytes::copy_from_slice(&job.token.to_be_bytes()),
            kind: kind.into(),
            program: (!nothing).then_some(program),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(phase: i32) -> v1::ReplicaReports {
        let report = v1::ReplicaReport { job_id: 7, rank: 1, assignment: 9, phase, exit_code: 137 };
        v1::ReplicaReports { reports: vec![report] }
    }

    #[test]
    fn the_node_of_a_report_is_the_sessions() {
        let failed = message(v1::ObservedPhase::Failed.into());
        let got = reports(NodeId(3), &failed).expect("converts");
        let observed = Observed::Failed { exit_code: 137 };
        let (job, rank, assignment) = (JobId(7), Rank(1), AssignmentId(9));
        assert_eq!(got, [ReplicaReport { job, rank, assignment, node: NodeId(3), observed }]);
    }

    #[test]
    fn bad_reports_are_refused_by_field() {
        for phase in [0, 5, -1, i32::MAX] {
            let refusal = reports(NodeId(3), &message(phase)).expect_err("no phase");
            assert!(refusal.message().contains("reports.reports[0].phase"), "{refusal}");
        }
        let one = message(1).reports.remove(0);
        let many = v1::ReplicaReports { reports: vec![one; REPORTS_MAX + 1] };
        let refusal = reports(NodeId(3), &many).expect_err("too many");
        assert!(refusal.message().contains("4097"), "{refusal}");
        assert!(fixed::<16>("hello.instance", &[0; 15]).is_err());
        assert_eq!(fixed::<2>("hello.instance", &[1, 2]).expect("fits"), [1, 2]);
    }

    #[test]
    fn only_what_could_change_something_is_news() {
        use scheduler_core::fixture::entry::World;
        let mut world = World::with_nodes(1, 8);
        let job = world.submit_placed("a", &[(0, 1)]);
        let ready = world.report_of(job, 0, Observed::Ready);
        let starting = world.report_of(job, 0, Observed::Starting);
        let failed = world.report_of(job, 0, Observed::Failed { exit_code: 1 });
        for report in [&starting, &ready, &failed] {
            assert!(is_news(&world.state, report), "{report:?}");
        }
        world.report(job, 0, Observed::Ready);
        assert!(!is_news(&world.state, &starting));
        assert!(!is_news(&world.state, &ready));
        assert!(is_news(&world.state, &failed));
        let foreign = ReplicaReport { node: NodeId(9), ..failed };
        assert!(!is_news(&world.state, &foreign));
        let old = ReplicaReport { assignment: AssignmentId(0), ..failed };
        assert!(!is_news(&world.state, &old));
        // This server may be behind: a job or an assignment it does not know yet.
        let newer = ReplicaReport { assignment: AssignmentId(1_000), ..failed };
        let unknown = ReplicaReport { job: JobId(1_000), ..failed };
        assert!(is_news(&world.state, &newer) && is_news(&world.state, &unknown));
    }
}
