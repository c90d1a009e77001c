//! Copies of a set that are each to have a domain to themselves: JobSet's and LeaderWorkerSet's exclusive topology.
//!
//! **Invariant:** what is kept apart inside a job is kept apart for certain; other jobs are the tenant's own.

use super::members::Members;
use super::pinned::Entry;
use crate::finding::{At, Findings};
use crate::topology;
use proto::v1;
use std::collections::BTreeMap;

/// Most groups of which each is kept from all others: with as many affinities of other sorts, 28 of the 32 that a job
/// may have.
pub(super) const APART_MAX: usize = 7;

/// A level of which each copy has a domain to itself.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Exclusive {
    pub(super) at: At,
    pub(super) level: v1::TopologyLevel,
    /// Key and value of the annotation: other jobs with the same keep away.
    label: (String, String),
}

impl Exclusive {
    /// Reads an annotation whose value is the key of a level.
    pub(super) fn read(entry: &Entry<'_>, findings: &mut Findings) -> Option<Self> {
        let level = topology::level_at(&entry.at, entry.value, findings)?;
        let label = (entry.key.to_owned(), entry.value.to_owned());
        Some(Self { at: entry.at.clone(), level, label })
    }

    /// Holds members of `copies` blocks of `size` to a domain for each block.
    pub(super) fn hold(
        &self,
        members: &mut Members,
        copies: u32,
        size: u32,
        findings: &mut Findings,
    ) {
        if copies == 1 {
            return members.require(self.level);
        }
        let block = v1::Segment { level: self.level.into(), size, exclusive: true };
        let inner = members.group.segments.first();
        if inner.is_some_and(|inner| inner.level <= block.level || !size.is_multiple_of(inner.size))
        {
            let problem = "does not go with the slices of the pods: each must be narrower, and divide the \
                           pods of one copy";
            return findings.fault(&self.at, problem);
        }
        members.group.segments.insert(0, block);
    }
}

/// Keeps groups with a domain for each copy apart from each other, and from the tenant's other jobs with the same
/// annotation, which the job then carries as a label. `all`: there are no other groups.
pub(super) fn keep_others_away(
    alone: &[(String, Exclusive)],
    all: bool,
    labels: &mut BTreeMap<String, String>,
    affinities: &mut Vec<v1::Affinity>,
    findings: &mut Findings,
) {
    let Some((_, first)) = alone.first() else { return };
    if alone.len() > APART_MAX {
        let problem = format!("is not supported for more than {APART_MAX} groups of one job");
        return findings.fault(&first.at, problem);
    }
    let anti = |level: v1::TopologyLevel| v1::Affinity {
        anti: true,
        level: level.into(),
        ..v1::Affinity::default()
    };
    for (at, (name, exclusive)) in alone.iter().enumerate() {
        for (other, apart) in &alone[..at] {
            // The wider of both: apart there is apart in every domain inside.
            let (group, with_group) = (other.clone(), name.clone());
            let level = apart.level.min(exclusive.level);
            affinities.push(v1::Affinity { group, with_group, ..anti(level) });
        }
    }
    let text = "read as: also apart from the tenant's other jobs that say the same; other tenants' are not looked at";
    let is_one = all && alone.iter().all(|(_, other)| other.label == first.label);
    for (name, exclusive) in alone.iter().take(if is_one { 1 } else { alone.len() }) {
        let (key, value) = exclusive.label.clone();
        labels.insert(key.clone(), value.clone());
        let group = if is_one { String::new() } else { name.clone() };
        let with_job_labels = [(key, value)].into();
        affinities.push(v1::Affinity { group, with_job_labels, ..anti(exclusive.level) });
        findings.note(&exclusive.at, text);
    }
}
