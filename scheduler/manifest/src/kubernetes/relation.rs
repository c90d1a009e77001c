//! What the groups of a job have to do with each other: shared labels and domains, near and apart.
//!
//! **Invariant:** a wish of pods of one template about themselves uses the group's own words, where it has them.

use super::job::Owner;
use super::members::{Bond, Members, Term};
use crate::finding::{Findings, quote};
use crate::topology::narrower;
use proto::v1;
use std::collections::BTreeMap;

/// Most labels that a job carries.
const LABELS_MAX: usize = 16;

/// Labels of the job: those that all its pods share, then those of the objects.
pub(super) fn labels(
    owners: &[Owner],
    members: &[Members],
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut labels = members.first().map(|one| one.pinned.labels.clone()).unwrap_or_default();
    labels.retain(|key, value| members.iter().all(|one| one.pinned.labels.get(key) == Some(value)));
    for owner in owners {
        for (key, value) in &owner.pinned.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if labels.len() > LABELS_MAX
        && let Some(owner) = owners.first()
    {
        let left_off: Vec<_> = labels.keys().skip(LABELS_MAX).map(|key| quote(key)).collect();
        let text = format!("left off, a job carries {LABELS_MAX} labels: {}", left_off.join(", "));
        findings.note(&owner.at.down(&["metadata", "labels"]), text);
        labels = labels.into_iter().take(LABELS_MAX).collect();
    }
    labels
}

/// Groups of one name are numbered; what owners say of them goes by the new names.
pub(super) fn unique_names(owners: &mut [Owner], members: &mut [Members]) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut named: BTreeMap<(usize, String), String> = BTreeMap::new();
    for one in members.iter_mut() {
        let said = one.group.name.clone();
        let times = seen.entry(said.clone()).or_default();
        *times += 1;
        if *times > 1 {
            one.group.name = format!("{said}-{times}");
        }
        named.entry((one.owner, said)).or_insert_with(|| one.group.name.clone());
    }
    let rename = |owner: usize, name: &mut String| {
        if let Some(new) = named.get(&(owner, name.clone())) {
            name.clone_from(new);
        }
    };
    for one in members {
        let owner = one.owner;
        one.group.depends_on.iter_mut().for_each(|name| rename(owner, name));
    }
    for (at, owner) in owners.iter_mut().enumerate() {
        for affinity in &mut owner.affinities {
            rename(at, &mut affinity.group);
            rename(at, &mut affinity.with_group);
        }
    }
}

/// Members that share a domain: the whole job's, where all share it, else between groups.
pub(super) fn bonds(spec: &mut v1::JobSpec, members: &mut [Members]) {
    let mut seen: Vec<Bond> = Vec::new();
    for bond in members.iter().flat_map(|one| one.bonds.clone()).collect::<Vec<_>>() {
        if seen.contains(&bond) {
            continue;
        }
        let names: Vec<String> = members
            .iter()
            .filter(|one| one.bonds.contains(&bond))
            .map(|one| one.group.name.clone())
            .collect();
        let is_all = names.len() == members.len();
        match (is_all, bond.level, bond.preferred) {
            (true, v1::TopologyLevel::Node, false) => {
                spec.strategy = v1::Strategy::StrictPack.into();
                drop_own(members, |group| group.strategy = v1::Strategy::Unspecified.into());
            }
            (true, v1::TopologyLevel::Node, true) => {}
            (true, level, false) => {
                spec.topology_required = narrower(spec.topology_required(), level).into();
                drop_own(members, |group| {
                    if group.topology_required() == level {
                        group.topology_required = v1::TopologyLevel::Unspecified.into();
                    }
                });
            }
            (true, level, true) => {
                spec.topology_preferred = narrower(spec.topology_preferred(), level).into();
                drop_own(members, |group| {
                    if group.topology_preferred() == level {
                        group.topology_preferred = v1::TopologyLevel::Unspecified.into();
                    }
                });
            }
            (false, level, preferred) => {
                for pair in names.windows(2) {
                    let [one, other] = pair else { continue };
                    spec.affinities.push(v1::Affinity {
                        level: level.into(),
                        preferred,
                        group: one.clone(),
                        with_group: other.clone(),
                        ..v1::Affinity::default()
                    });
                }
            }
        }
        seen.push(bond);
    }
}

fn drop_own(members: &mut [Members], forget: impl Fn(&mut v1::Group)) {
    for one in members {
        forget(&mut one.group);
    }
}

/// Affinities between pods, by whom their labels are about.
pub(super) fn terms(spec: &mut v1::JobSpec, members: &mut [Members], findings: &mut Findings) {
    for place in 0..members.len() {
        for term in members[place].terms.clone() {
            let is_meant = |other: &Members| {
                term.labels.iter().all(|(key, value)| other.labels.get(key) == Some(value))
            };
            let meant: Vec<usize> =
                (0..members.len()).filter(|at| is_meant(&members[*at])).collect();
            let base = v1::Affinity {
                anti: term.anti,
                preferred: term.preferred,
                level: term.level.into(),
                group: members[place].group.name.clone(),
                ..v1::Affinity::default()
            };
            if meant.is_empty() {
                findings.note(&term.at, "read as about the tenant's other jobs with these labels");
                spec.affinities.push(v1::Affinity { with_job_labels: term.labels.clone(), ..base });
                continue;
            }
            findings.note(&term.at, "read as about the groups of this job with these labels");
            for other in meant {
                if other == place && own_term(&term, &mut members[place]) {
                    continue;
                }
                let with_group = members[other].group.name.clone();
                spec.affinities.push(v1::Affinity { with_group, ..base.clone() });
            }
        }
    }
}

/// A term about the pods of the same group, where a group has words of its own for it.
fn own_term(term: &Term, one: &mut Members) -> bool {
    match (term.anti, term.preferred, term.level) {
        (true, false, v1::TopologyLevel::Node) => one.group.replicas_per_node_max = 1,
        (true, ..) => return false,
        (false, false, level) => one.require(level),
        (false, true, level) => one.prefer(level),
    }
    true
}

/// What the only group asks for, the job asks for: said of the job it means the same, in fewer words.
pub(super) fn hoist(spec: &mut v1::JobSpec) {
    let [group] = spec.groups.as_mut_slice() else { return };
    let level = |level: i32| v1::TopologyLevel::try_from(level).unwrap_or_default();
    spec.topology_required =
        narrower(level(spec.topology_required), group.topology_required()).into();
    spec.topology_preferred =
        narrower(level(spec.topology_preferred), group.topology_preferred()).into();
    group.topology_required = v1::TopologyLevel::Unspecified.into();
    group.topology_preferred = v1::TopologyLevel::Unspecified.into();
    if group.strategy() != v1::Strategy::Unspecified {
        spec.strategy = group.strategy;
        group.strategy = v1::Strategy::Unspecified.into();
    }
    // Of one group, no two on one node is Ray's STRICT_SPREAD.
    if group.replicas_per_node_max == 1 && spec.strategy == i32::from(v1::Strategy::Pack) {
        spec.strategy = v1::Strategy::StrictSpread.into();
        group.replicas_per_node_max = 0;
    }
}
