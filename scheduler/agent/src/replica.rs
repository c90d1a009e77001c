//! Replicas as they come over the wire: what is wanted, decoded and checked, and what is told.
//!
//! **Invariant:** an [`Assignment`] has been checked: its GPUs are distinct and on this node, its
//! share is at most one GPU. The job's token never reaches a log.

use crate::program::{Program, Programs};
use agent_core::reconcile::Want;
use agent_core::replica::{
    AssignmentId, Binding, Exit, GPU_MILLI, GPUS_MAX, GpuSet, Held, JobId, Observed, Rank,
};
use proto::v1;
use std::fmt;
use std::sync::Arc;

/// Length of a job's token in bytes.
const TOKEN_BYTES: usize = 16;

/// Secret that the members of a job share.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; TOKEN_BYTES]);

impl Token {
    /// Lower-case hex, for the environment of a member.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// One replica that should run here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    pub binding: Binding,
    pub group: Box<str>,
    pub kind: v1::JobKind,
    /// Replicas of the whole job.
    pub world_size: u32,
    pub head_rank: Rank,
    /// `host` or `host:port` of the head's node; may be empty.
    pub head_address: Box<str>,
    /// `None` where the server sent none.
    pub token: Option<Token>,
    pub program: Arc<Program>,
}

impl Want for Assignment {
    fn binding(&self) -> &Binding {
        &self.binding
    }
}

/// An assignment that cannot be carried out, with what is needed to say so to the server.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("assignment {id} of job {}, rank {}: {message}", job.0, rank.0)]
pub struct BadAssignment {
    pub id: AssignmentId,
    pub job: JobId,
    pub rank: Rank,
    pub message: String,
}

impl Assignment {
    /// Takes an assignment from the wire, for a node with `node_gpus` GPUs.
    pub fn decode(
        wire: v1::Assignment,
        node_gpus: u32,
        programs: &Programs,
    ) -> Result<Assignment, BadAssignment> {
        let (id, job, rank) = (AssignmentId(wire.assignment), JobId(wire.job_id), Rank(wire.rank));
        let bad = |message: String| BadAssignment { id, job, rank, message };
        let mut gpus = GpuSet::default();
        for (at, gpu) in wire.gpus.iter().enumerate() {
            if *gpu >= node_gpus.min(GPUS_MAX) {
                return Err(bad(format!("gpus[{at}]: {gpu}, but the node has {node_gpus} GPUs")));
            }
            gpus =
                gpus.with(*gpu).ok_or_else(|| bad(format!("gpus[{at}]: {gpu} is listed twice")))?;
        }
        if wire.gpu_milli != 0 && (wire.gpu_milli >= GPU_MILLI || gpus.len() != 1) {
            return Err(bad(format!(
                "gpu_milli: {} of {} GPUs; a share is 1 to 999 of one GPU",
                wire.gpu_milli,
                gpus.len()
            )));
        }
        let token = match wire.job_token.len() {
            0 => None,
            _ => Some(Token(wire.job_token.as_ref().try_into().map_err(|_| {
                bad(format!("job_token: {} bytes, not {TOKEN_BYTES}", wire.job_token.len()))
            })?)),
        };
        Ok(Assignment {
            binding: Binding { id, job, rank, gpus, gpu_milli: wire.gpu_milli },
            kind: v1::JobKind::try_from(wire.kind)
                .map_err(|_| bad(format!("kind: {} is unknown", wire.kind)))?,
            group: wire.group.into(),
            world_size: wire.world_size,
            head_rank: Rank(wire.head_rank),
            head_address: wire.head_address.into(),
            token,
            program: programs.share(wire.program),
        })
    }
}

/// What to tell the server of a replica, if anything.
pub fn report(held: &Held) -> Option<v1::ReplicaReport> {
    let (phase, exit_code) = match held.phase.observed()? {
        Observed::Starting => (v1::ObservedPhase::Starting, 0),
        Observed::Ready => (v1::ObservedPhase::Ready, 0),
        Observed::Ended(Exit::Succeeded) => (v1::ObservedPhase::Succeeded, 0),
        Observed::Ended(Exit::Failed(code)) => (v1::ObservedPhase::Failed, code),
    };
    Some(v1::ReplicaReport {
        job_id: held.binding.job.0,
        rank: held.binding.rank.0,
        assignment: held.binding.id.0,
        phase: phase.into(),
        exit_code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(change: impl FnOnce(&mut v1::Assignment)) -> Result<Assignment, String> {
        let mut wire = v1::Assignment { assignment: 5, gpus: vec![0, 3], ..Default::default() };
        change(&mut wire);
        Assignment::decode(wire, 4, &Programs::default()).map_err(|bad| bad.message)
    }

    #[test]
    fn good_assignments_pass() {
        let whole = decode(|_| ()).unwrap();
        assert_eq!(whole.binding.gpus.iter().collect::<Vec<_>>(), [0, 3]);
        assert_eq!(whole.binding.milli_per_gpu(), 1000);
        let share = decode(|wire| (wire.gpus, wire.gpu_milli) = (vec![2], 250)).unwrap();
        assert_eq!(share.binding.milli_per_gpu(), 250);
        assert!(decode(|wire| wire.gpus.clear()).unwrap().binding.gpus.is_empty());
    }

    #[test]
    fn bad_assignments_name_the_field_and_the_value() {
        let refused = |change: fn(&mut v1::Assignment)| decode(change).unwrap_err();
        assert_eq!(refused(|wire| wire.gpus = vec![0, 4]), "gpus[1]: 4, but the node has 4 GPUs");
        assert_eq!(refused(|wire| wire.gpus = vec![1, 1]), "gpus[1]: 1 is listed twice");
        assert!(refused(|wire| wire.gpus = vec![u32::MAX]).starts_with("gpus[0]: 4294967295"));
        assert!(refused(|wire| wire.gpu_milli = 500).starts_with("gpu_milli: 500 of 2 GPUs"));
        assert!(refused(|wire| wire.kind = 99).starts_with("kind: 99"));
        assert!(refused(|wire| wire.job_token = vec![1; 3].into()).starts_with("job_token: 3"));
    }

    #[test]
    fn tokens_do_not_print() {
        let token = decode(|wire| wire.job_token = vec![0xab; 16].into()).unwrap().token.unwrap();
        assert_eq!(token.to_hex(), "ab".repeat(16));
        assert!(!format!("{token:?}").contains("ab"));
    }
}
