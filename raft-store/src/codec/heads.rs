//! What many jobs of one record or row have in common, written once: tenant, body and spec.
//!
//! Streams of small jobs repeat their specs. Each job names its head by number; jobs with equal
//! heads share one copy of the spec when they are read.
//!
//! **Invariant:** whatever is read, a job's number is checked against the heads that are there.

use std::collections::HashMap;
use std::sync::Arc;

use scheduler_core::id::TenantId;
use scheduler_core::job::JobSpec;
use serde::{Deserialize, Serialize};

use super::CodecError;

/// A head as it is written.
#[derive(Clone, Copy, PartialEq, Serialize)]
pub(super) struct HeadOut<'a> {
    tenant: &'a TenantId,
    body_digest: [u8; 16],
    spec: &'a Arc<JobSpec>,
}

/// Heads gathered from jobs.
#[derive(Default)]
pub(super) struct HeadsOut<'a> {
    pub(super) list: Vec<HeadOut<'a>>,
    /// The latest head with this digest.
    known: HashMap<u128, u32>,
}

impl<'a> HeadsOut<'a> {
    /// Number of a job's head.
    pub(super) fn number(
        &mut self,
        tenant: &'a TenantId,
        body_digest: u128,
        spec: &'a Arc<JobSpec>,
    ) -> Result<u32, CodecError> {
        let head = HeadOut { tenant, body_digest: body_digest.to_le_bytes(), spec };
        let known = self.known.get(&body_digest).copied();
        if let Some(number) = known.filter(|number| self.list.get(*number as usize) == Some(&head))
        {
            return Ok(number);
        }
        let number = u32::try_from(self.list.len())
            .map_err(|error| CodecError::body("heads of jobs", error))?;
        self.list.push(head);
        self.known.insert(body_digest, number);
        Ok(number)
    }
}

/// A head as it was read.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) tenant: TenantId,
    body_digest: [u8; 16],
    pub(super) spec: Arc<JobSpec>,
}

impl Head {
    pub(super) fn body_digest(&self) -> u128 {
        u128::from_le_bytes(self.body_digest)
    }
}

/// The head that a job names.
pub(super) fn find<'a>(
    what: &'static str,
    heads: &'a [Head],
    number: u32,
) -> Result<&'a Head, CodecError> {
    let missing = || CodecError::body(what, format!("head {number} of {}", heads.len()));
    heads.get(number as usize).ok_or_else(missing)
}
