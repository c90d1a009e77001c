//! Rules among the members of a job, from proto to core.
//!
//! **Invariant:** what people say of regions, suppliers and compliance becomes selectors here; the
//! core knows no other form.

use super::{LIST_MAX, Taken, VALUES_MAX, bad, count, level, name, strategy, unknown};
use proto::v1;
use scheduler_core::job::{
    Affinity, Condition, DomainsMax, GroupRules, Level, Repair, RttObjective, RttScope, Segment,
    Selector, Spread, Target,
};
use scheduler_core::node::{LABEL_BYTES_MAX, Labels};
use scheduler_core::validate::{AFFINITIES_MAX, DEPENDENCIES_MAX, JOB_LABELS_MAX, LEVELS_MAX};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most labels of compliance; as the proto says.
const COMPLIANCE_MAX: usize = 16;
// All selectors of a group together stay below what the core takes.
const _: () = assert!(LIST_MAX + COMPLIANCE_MAX + 3 <= scheduler_core::validate::LIST_MAX);

/// Selectors that the job as a whole asks of every node.
pub(super) fn common_selectors(spec: &v1::JobSpec) -> Taken<Vec<Selector>> {
    let mut selectors = Vec::new();
    let lists = [
        ("spec.regions_allowed", "muster/region", true, &spec.regions_allowed),
        ("spec.regions_denied", "muster/region", false, &spec.regions_denied),
        ("spec.suppliers_denied", "muster/supplier", false, &spec.suppliers_denied),
    ];
    for (field, key, among, list) in lists {
        if list.is_empty() {
            continue;
        }
        count(field, list.len(), VALUES_MAX)?;
        let value = |(at, text): (usize, &String)| {
            name(&format!("{field}[{at}]"), text).map(|name| Arc::from(name.as_str()))
        };
        let values = list.iter().enumerate().map(value).collect::<Taken<Vec<Arc<str>>>>()?;
        let condition = if among { Condition::In(values) } else { Condition::NotIn(values) };
        selectors.push(Selector { key: key.into(), condition });
    }
    let allowed = spec.regions_allowed.iter();
    if let Some(region) = allowed.into_iter().find(|one| spec.regions_denied.contains(one)) {
        return bad("spec.regions_denied", format!("has {region}, as has regions_allowed"));
    }
    count("spec.compliance", spec.compliance.len(), COMPLIANCE_MAX)?;
    for (at, key) in spec.compliance.iter().enumerate() {
        let plain = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if key.is_empty() || key.len() > LABEL_BYTES_MAX || !plain {
            let problem = format!("is not 1 to {LABEL_BYTES_MAX} bytes of printable ASCII");
            return bad(format!("spec.compliance[{at}]"), problem);
        }
        let condition = Condition::In(vec!["true".into()]);
        selectors.push(Selector { key: key.as_str().into(), condition });
    }
    Ok(selectors)
}

/// Labels of a job, or wanted of other jobs.
pub(super) fn labels(field: &str, labels: BTreeMap<String, String>) -> Taken<Labels> {
    count(field, labels.len(), JOB_LABELS_MAX)?;
    let long = |(key, value): (&String, &String)| key.len().max(value.len()) > LABEL_BYTES_MAX;
    if labels.iter().any(long) {
        return bad(field, format!("has a key or value longer than {LABEL_BYTES_MAX} bytes"));
    }
    Ok(labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

pub(super) fn rtt_scope(value: i32) -> Taken<RttScope> {
    match v1::RttScope::try_from(value) {
        Ok(v1::RttScope::Unspecified | v1::RttScope::AllPairs) => Ok(RttScope::AllPairs),
        Ok(v1::RttScope::WithinGroups) => Ok(RttScope::WithinGroups),
        Ok(v1::RttScope::HeadToMembers) => Ok(RttScope::HeadToMembers),
        Err(_) => unknown("spec.rtt_scope", value),
    }
}

pub(super) fn rtt_objective(value: i32) -> Taken<RttObjective> {
    match v1::RttObjective::try_from(value) {
        Ok(v1::RttObjective::Unspecified) => Ok(RttObjective::None),
        Ok(v1::RttObjective::Diameter) => Ok(RttObjective::Diameter),
        Ok(v1::RttObjective::Mean) => Ok(RttObjective::Mean),
        Err(_) => unknown("spec.rtt_objective", value),
    }
}

/// `groups` are the names of the job's groups.
pub(super) fn affinities(list: Vec<v1::Affinity>, groups: &[String]) -> Taken<Vec<Affinity>> {
    count("spec.affinities", list.len(), AFFINITIES_MAX)?;
    let each = list.into_iter().enumerate();
    each.map(|(at, one)| affinity(&format!("spec.affinities[{at}]"), one, groups)).collect()
}

fn affinity(path: &str, affinity: v1::Affinity, groups: &[String]) -> Taken<Affinity> {
    let find = |field: &str, wanted: &str| find_group(&format!("{path}.{field}"), wanted, groups);
    let target = match (affinity.with_group.as_str(), affinity.with_job_labels.is_empty()) {
        ("", _) => Target::Jobs {
            group: match affinity.group.as_str() {
                "" => None,
                group => Some(find("group", group)?),
            },
            labels: labels(&format!("{path}.with_job_labels"), affinity.with_job_labels)?,
        },
        (with, true) => Target::Groups {
            group: find("group", &affinity.group)?,
            with: find("with_group", with)?,
        },
        (_, false) => {
            return bad(format!("{path}.with_job_labels"), "is given beside with_group");
        }
    };
    let level = domain_level(&format!("{path}.level"), affinity.level)?;
    Ok(Affinity { anti: affinity.anti, preferred: affinity.preferred, level, target })
}

fn domain_level(field: &str, value: i32) -> Taken<Level> {
    level(field, value)?.map_or_else(|| bad(field, "is missing"), Ok)
}

/// Rules among the replicas of a group.
pub(super) fn group(path: &str, group: &v1::Group) -> Taken<GroupRules> {
    count(&format!("{path}.segments"), group.segments.len(), LEVELS_MAX)?;
    count(&format!("{path}.spread"), group.spread.len(), LEVELS_MAX)?;
    let (required, preferred) = (group.topology_required, group.topology_preferred);
    let segment = |(at, one): (usize, &v1::Segment)| {
        let level = domain_level(&format!("{path}.segments[{at}].level"), one.level)?;
        Ok(Segment { level, size: one.size, exclusive: one.exclusive })
    };
    let spread = |(at, one): (usize, &v1::Spread)| {
        let level = domain_level(&format!("{path}.spread[{at}].level"), one.level)?;
        Ok(Spread { level, skew_max: one.skew_max, preferred: one.preferred })
    };
    Ok(GroupRules {
        replicas_per_node_max: group.replicas_per_node_max,
        strategy: strategy(&format!("{path}.strategy"), group.strategy)?,
        topology_required: level(&format!("{path}.topology_required"), required)?,
        topology_preferred: level(&format!("{path}.topology_preferred"), preferred)?,
        segments: group.segments.iter().enumerate().map(segment).collect::<Taken<_>>()?,
        spread: group.spread.iter().enumerate().map(spread).collect::<Taken<_>>()?,
        domains_max: domains_max(path, &group.domains_max)?,
    })
}

/// Bounds on domains; `path` is that of the job or group.
pub(super) fn domains_max(path: &str, bounds: &[v1::DomainsMax]) -> Taken<Vec<DomainsMax>> {
    count(&format!("{path}.domains_max"), bounds.len(), LEVELS_MAX)?;
    let bound = |(at, one): (usize, &v1::DomainsMax)| {
        let level = domain_level(&format!("{path}.domains_max[{at}].level"), one.level)?;
        Ok(DomainsMax { level, max: one.max })
    };
    bounds.iter().enumerate().map(bound).collect()
}

/// Groups that a group waits for, by their place in the job. `groups` are the names of the job's groups.
pub(super) fn depends_on(path: &str, names: &[String], groups: &[String]) -> Taken<Vec<u16>> {
    let field = format!("{path}.depends_on");
    count(&field, names.len(), DEPENDENCIES_MAX)?;
    let each = names.iter().enumerate();
    let found = each.map(|(at, wanted)| find_group(&format!("{field}[{at}]"), wanted, groups));
    let mut found = found.collect::<Taken<Vec<u16>>>()?;
    found.sort_unstable();
    if let Some(twice) = found.windows(2).find(|two| two[0] == two[1]) {
        let name = groups.get(usize::from(twice[0])).map_or("", String::as_str);
        return bad(field, format!("names {name} twice"));
    }
    Ok(found)
}

/// How lost replicas of a group are replaced.
pub(super) fn repair(path: &str, repair: Option<v1::Repair>) -> Taken<Repair> {
    let Some(repair) = repair else { return Ok(Repair::default()) };
    let level = level(&format!("{path}.repair.level"), repair.level)?;
    Ok(Repair { in_flight_max: repair.in_flight_max, level, preferred: repair.preferred })
}

fn find_group(field: &str, wanted: &str, groups: &[String]) -> Taken<u16> {
    match groups.iter().position(|name| name == wanted) {
        Some(at) => Ok(u16::try_from(at).unwrap_or(u16::MAX)),
        None => {
            let shown: String = wanted.chars().take(64).filter(|c| !c.is_control()).collect();
            bad(field, format!("is {shown:?}, which is no group of the job"))
        }
    }
}
