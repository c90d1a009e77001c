//! `LeaderWorkerSet`: copies of a leader with its workers, as they serve one model each.
//!
//! **Invariant:** what is asked of one copy (a domain of its own, subgroups) is kept for each copy, or refused; never
//! for the pods of all copies together.

use super::claim::Known;
use super::exclusive::{APART_MAX, Exclusive, keep_others_away};
use super::job::{Owner, name_of};
use super::members::{Members, shorter, together};
use super::pinned::{On, Pinned};
use super::pod::{self, Object, PodTemplate};
use crate::decode::{Rest, Verdict, decode, word};
use crate::document::Document;
use crate::finding::{At, Findings};
use proto::v1;
use serde::Deserialize;

const VOLUMES: Verdict = Verdict::Ignored(
    "muster does not mount volumes, and one that lies in one place steers nothing",
);

/// What becomes of fields that the structs below do not name.
const REST: Rest = &[
    (
        "LwsSpec",
        &["rolloutStrategy"],
        Verdict::Ignored("muster does not change what runs: submit the new one beside the old"),
    ),
    (
        "LwsSpec",
        &["networkConfig"],
        Verdict::Ignored("muster makes no services, it has no say in where members go"),
    ),
    (
        "Template",
        &["restartPolicy"],
        Verdict::Ignored("lost members are replaced, and failed ones as often as muster allows"),
    ),
    ("Template", &["volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy"], VOLUMES),
];

/// Label that all pods of a set get, with its name.
const NAME_LABEL: &str = "leaderworkerset.sigs.k8s.io/name";

/// The group of the leaders, and that of their workers.
const LEADER: &str = "leader";
const WORKERS: &str = "workers";

type LwsDocument = Object<LwsSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LwsSpec {
    replicas: Option<u32>,
    leader_worker_template: Template,
    startup_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Template {
    leader_template: Option<PodTemplate>,
    worker_template: PodTemplate,
    size: Option<u32>,
    sub_group_policy: Option<SubGroupPolicy>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SubGroupPolicy {
    sub_group_policy_type: Option<String>,
    sub_group_size: Option<u32>,
}

/// Subgroups of a copy that each have a domain to themselves.
struct Sub {
    at: At,
    size: u32,
    /// The leader is of none of them.
    excludes_leader: bool,
    exclusive: Exclusive,
}

/// Copies of a leader and its workers on their way to groups.
struct Set {
    at: At,
    copies: u32,
    /// Pods of one copy, the leader among them.
    size: u32,
    leader: Members,
    /// `None` where a copy is a leader alone.
    workers: Option<Members>,
    /// Workers start once the leaders run.
    leader_first: bool,
    /// The domain that each copy is to have to itself.
    exclusive: Option<Exclusive>,
    sub: Option<Sub>,
}

/// Reads a `LeaderWorkerSet`.
pub(super) fn set(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let read: LwsDocument = decode(at, &document.value, &[REST, pod::REST], findings);
    let name = name_of(at, &read.metadata, findings);
    let mut pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let mut owner = Owner { at: at.clone(), kind: "LeaderWorkerSet", name, ..Owner::default() };
    let at_spec = at.field("spec");
    let set_name = read.metadata.name.as_deref();
    if let Some(set) = Set::read(&at_spec, &read.spec, (set_name, &pinned), known, findings) {
        let alone = set.into_groups(&mut owner, findings);
        keep_others_away(&alone, true, &mut pinned.labels, &mut owner.affinities, findings);
    }
    pinned.keep_together(&at.field("metadata"), &mut owner.members);
    let of_pods = owner.members.iter().fold(None, |least, one| shorter(least, one.duration_s));
    Owner { duration_s: shorter(pinned.duration_s, of_pods), pinned, ..owner }
}

impl Set {
    fn read(
        at: &At,
        spec: &LwsSpec,
        (set_name, pinned): (Option<&str>, &Pinned),
        known: &Known,
        findings: &mut Findings,
    ) -> Option<Self> {
        let template = &spec.leader_worker_template;
        let at_template = at.field("leaderWorkerTemplate");
        let mut members = |field: &str, template: &PodTemplate| {
            let at = at_template.field(field);
            let metadata = template.metadata.with_made(&[(NAME_LABEL, set_name)]);
            Members::read(&at, &metadata, &template.spec, On::Template, known, findings)
        };
        let worker = members("workerTemplate", &template.worker_template);
        let leader = match &template.leader_template {
            Some(template) => members("leaderTemplate", template),
            None => worker.clone(),
        };
        let (copies, size) = (spec.replicas.unwrap_or(1), template.size.unwrap_or(1));
        if copies == 0 {
            findings.fault(&at.field("replicas"), "is 0: nothing would run");
        }
        if size == 0 {
            findings.fault(&at_template.field("size"), "must be at least 1");
        }
        if copies == 0 || size == 0 || copies.checked_mul(size).is_none() {
            findings.fault(&at.field("replicas"), "times the size is no number of pods");
            return None;
        }
        let words = [("LeaderCreated", false), ("LeaderReady", true)];
        let policy = spec.startup_policy.as_deref().unwrap_or("LeaderCreated");
        let leader_first = word(&at.field("startupPolicy"), policy, &words, findings)?;
        let mut set = Self {
            at: at_template.clone(),
            copies,
            size,
            leader,
            workers: (size > 1).then_some(worker),
            leader_first,
            exclusive: pinned.exclusive.clone(),
            sub: None,
        };
        let at_policy = at_template.field("subGroupPolicy");
        set.sub = set.subgroups(&at_policy, template.sub_group_policy.as_ref(), pinned, findings);
        Some(set)
    }

    /// Subgroups, where they are more than a label.
    fn subgroups(
        &self,
        at: &At,
        policy: Option<&SubGroupPolicy>,
        pinned: &Pinned,
        findings: &mut Findings,
    ) -> Option<Sub> {
        let (policy, exclusive) = match (policy, pinned.sub_exclusive.clone()) {
            (Some(policy), Some(exclusive)) => (policy, exclusive),
            (Some(_), None) => {
                findings
                    .note(at, "ignored: without an exclusive topology subgroups are labels only");
                return None;
            }
            (None, Some(exclusive)) => {
                let problem = "needs spec.leaderWorkerTemplate.subGroupPolicy";
                findings.fault(&exclusive.at, problem);
                return None;
            }
            (None, None) => return None,
        };
        let words = [("LeaderWorker", false), ("LeaderExcluded", true)];
        let kind = policy.sub_group_policy_type.as_deref().unwrap_or("LeaderWorker");
        let excludes_leader = word(&at.field("subGroupPolicyType"), kind, &words, findings)?;
        let at = at.field("subGroupSize");
        let Some(size) = policy.sub_group_size.filter(|size| *size > 0) else {
            findings.fault(&at, "must be at least 1");
            return None;
        };
        let pods = if excludes_leader { self.size - 1 } else { self.size };
        if !pods.is_multiple_of(size) {
            let problem = if excludes_leader || !(self.size - 1).is_multiple_of(size) {
                format!("is {size}, which does not divide {pods} pods")
            } else {
                format!(
                    "is {size} for {pods} pods, which is not supported: the first subgroup would have one pod \
                     more; use subGroupPolicyType: LeaderExcluded"
                )
            };
            findings.fault(&at, problem);
            return None;
        }
        Some(Sub { at, size, excludes_leader, exclusive })
    }

    /// Whether leader and workers need the same of their nodes.
    fn is_alike(&self) -> bool {
        let workers = self.workers.as_ref();
        let plain = |one: &Members| one.terms.is_empty();
        workers.is_none_or(|workers| {
            workers.group == self.leader.group && plain(workers) && plain(&self.leader)
        })
    }

    /// Puts the groups into the owner; those of which each copy is to have a domain to itself.
    fn into_groups(self, owner: &mut Owner, findings: &mut Findings) -> Vec<(String, Exclusive)> {
        let of_leader = self.sub.as_ref().filter(|sub| !sub.excludes_leader);
        let as_one = self.copies > 1 || of_leader.is_some() || self.workers.is_none();
        let apart = self.sub.as_ref().is_some_and(|sub| sub.excludes_leader);
        let in_order = self.leader_first && self.workers.is_some();
        if as_one && !apart && !in_order && self.is_alike() {
            return self.one_group(owner, findings);
        }
        if let Some(sub) = of_leader {
            let problem = "is not supported where leader and workers differ, or start one after the other: \
                           use subGroupPolicyType: LeaderExcluded";
            findings.fault(&sub.at, problem);
        }
        match &self.exclusive {
            Some(exclusive) if self.copies > 1 => {
                if usize::try_from(self.copies).map_or(true, |copies| copies > APART_MAX) {
                    let problem = format!(
                        "is not supported for {} replicas whose leader and workers differ, or start one after \
                         the other: at most {APART_MAX}",
                        self.copies
                    );
                    findings.fault(&exclusive.at, problem);
                    return Vec::new();
                }
                self.pairs(owner, findings)
            }
            _ => self.two_groups(owner, findings),
        }
    }

    /// All pods alike: the first of each block is its leader.
    fn one_group(self, owner: &mut Owner, findings: &mut Findings) -> Vec<(String, Exclusive)> {
        let Self { mut leader, copies, size, exclusive, sub, .. } = self;
        leader.group.name.clone_from(&owner.name);
        leader.group.replicas = copies.saturating_mul(size);
        leader.pinned.podset_group = None;
        per_copy(&mut leader, copies, size, findings);
        if let Some(sub) = &sub {
            sub.exclusive.hold(
                &mut leader,
                copies.saturating_mul(size / sub.size),
                sub.size,
                findings,
            );
        }
        if let Some(exclusive) = &exclusive {
            exclusive.hold(&mut leader, copies, size, findings);
        }
        if copies > 1 && size > 1 {
            let text = format!("read as one group: the first of every {size} members is a leader");
            findings.note(&self.at, text);
        }
        owner.members.push(leader);
        exclusive
            .or(sub.map(|sub| sub.exclusive))
            .map(|one| (owner.name.clone(), one))
            .into_iter()
            .collect()
    }

    /// All leaders, and all workers.
    fn two_groups(self, owner: &mut Owner, findings: &mut Findings) -> Vec<(String, Exclusive)> {
        let Self { mut leader, copies, size, exclusive, sub, leader_first, .. } = self;
        let Some(mut workers) = self.workers else { return Vec::new() };
        leader.group.name = LEADER.to_owned();
        leader.group.replicas = copies;
        if copies == 1 {
            leader.group.role = v1::Role::Head.into();
        }
        workers.group.name = WORKERS.to_owned();
        workers.group.replicas = copies.saturating_mul(size - 1);
        for members in [&leader, &workers].into_iter().filter(|_| copies > 1) {
            if let Some(group) = &members.pinned.podset_group {
                let problem =
                    "is not supported for several replicas whose leader and workers differ";
                findings.fault(&group.at, problem);
            }
        }
        per_copy(&mut leader, copies, 1, findings);
        per_copy(&mut workers, copies, size - 1, findings);
        if leader_first {
            workers.group.depends_on = vec![LEADER.to_owned()];
            if copies > 1 {
                findings
                    .note(&self.at, "read as: workers start once the leaders of all replicas run");
            }
        }
        if let Some(sub) = &sub {
            let blocks = copies.saturating_mul((size - 1) / sub.size);
            sub.exclusive.hold(&mut workers, blocks, sub.size, findings);
        }
        let mut alone = Vec::new();
        let mut both = [leader, workers];
        if let Some(exclusive) = exclusive {
            together(&exclusive.at, &mut both, exclusive.level, false);
            alone.push((LEADER.to_owned(), exclusive));
        } else if let Some(sub) = sub {
            alone.push((WORKERS.to_owned(), sub.exclusive));
        }
        owner.members.extend(both);
        alone
    }

    /// A leader's group and a workers' group for each copy.
    fn pairs(self, owner: &mut Owner, findings: &mut Findings) -> Vec<(String, Exclusive)> {
        let mut alone = Vec::new();
        let (Some(workers), Some(exclusive)) = (&self.workers, &self.exclusive) else {
            return alone;
        };
        for copy in 0..self.copies {
            let mut leader = self.leader.clone();
            leader.group.name = format!("{LEADER}-{copy}");
            leader.group.replicas = 1;
            let mut workers = workers.clone();
            workers.group.name = format!("{WORKERS}-{copy}");
            workers.group.replicas = self.size - 1;
            if self.leader_first {
                workers.group.depends_on = vec![leader.group.name.clone()];
            }
            if let Some(sub) = &self.sub {
                let blocks = (self.size - 1) / sub.size;
                sub.exclusive.hold(&mut workers, blocks, sub.size, findings);
            }
            let name = leader.group.name.clone();
            let mut both = [leader, workers];
            // One place for each copy: members with an equal one would share a domain.
            let at = exclusive.at.index(copy as usize);
            together(&at, &mut both, exclusive.level, false);
            owner.members.extend(both);
            alone.push((name, exclusive.clone()));
        }
        findings.note(&self.at, "read as two groups for each replica: a leader, and its workers");
        alone
    }
}

/// What a template asks of where its pods are, it asks of those of each copy.
fn per_copy(members: &mut Members, copies: u32, size: u32, findings: &mut Findings) {
    if copies == 1 {
        return;
    }
    let at = members.at.down(&["metadata", "annotations"]);
    let group = &mut members.group;
    let mut level = group.topology_required();
    group.topology_required = v1::TopologyLevel::Unspecified.into();
    if group.strategy() == v1::Strategy::StrictPack {
        level = v1::TopologyLevel::Node;
        group.strategy = v1::Strategy::Unspecified.into();
    }
    if group.topology_preferred() != v1::TopologyLevel::Unspecified {
        group.topology_preferred = v1::TopologyLevel::Unspecified.into();
        findings.note(&at, "ignored: a wish about each replica; say it as required");
    }
    if size == 1 || level == v1::TopologyLevel::Unspecified {
        return;
    }
    let inner = group.segments.first();
    if inner
        .is_some_and(|inner| inner.level <= i32::from(level) || !size.is_multiple_of(inner.size))
    {
        return findings
            .fault(&at, "slices must be narrower than the level required, and divide a replica");
    }
    group.segments.insert(0, v1::Segment { level: level.into(), size, exclusive: false });
}
