//! Rules among the members of a job: bounds, and what would contradict itself.
//!
//! **Invariant:** what would contradict itself is refused here, whatever the fleet is like.

use super::{AFFINITIES_MAX, DEPENDENCIES_MAX, JOB_LABELS_MAX, LEVELS_MAX, REPLICAS_MAX, Valid};
use super::{count, invalid, labels, range};
use crate::job::{Affinity, DomainsMax, GroupRules, GroupSpec, JobSpec, Level, RttScope, Target};

/// The rules of the job as a whole; its groups have been checked.
pub(super) fn job(spec: &JobSpec) -> Valid {
    level("spec.topology_required", spec.topology_required)?;
    level("spec.topology_preferred", spec.topology_preferred)?;
    domains_max("spec", &spec.domains_max)?;
    if spec.rtt_scope != RttScope::AllPairs && spec.rtt_max.is_none() {
        return invalid("spec.rtt_scope", "is given, but rtt_us_max is not");
    }
    count(|| "spec.affinities".to_owned(), spec.affinities.len(), AFFINITIES_MAX)?;
    for (at, found) in spec.affinities.iter().enumerate() {
        affinity(&format!("spec.affinities[{at}]"), found, spec)?;
        if let Some(other) = spec.affinities.iter().take(at).position(|one| contradict(one, found))
        {
            let problem = format!("contradicts affinities[{other}]");
            return invalid(format!("spec.affinities[{at}]"), problem);
        }
    }
    order(spec)
}

/// Which groups start only once others run: no group may wait for itself, by whatever way.
fn order(spec: &JobSpec) -> Valid {
    for (at, group) in spec.groups.iter().enumerate() {
        let path = || format!("spec.groups[{at}].depends_on");
        count(path, group.depends_on.len(), DEPENDENCIES_MAX)?;
        for (nth, &other) in group.depends_on.iter().enumerate() {
            let path = format!("{}[{nth}]", path());
            if usize::from(other) >= spec.groups.len() {
                let problem = format!("is group {other}; there are {}", spec.groups.len());
                return invalid(path, problem);
            }
            let before = nth.checked_sub(1).and_then(|before| group.depends_on.get(before));
            if before.is_some_and(|before| *before >= other) {
                return invalid(path, "is named twice, or not in the order of the groups");
            }
        }
    }
    // Groups whose dependencies all have a place get one; in a circle none ever does.
    let mut placed = vec![false; spec.groups.len()];
    let has_place = |placed: &[bool], other: &u16| placed.get(usize::from(*other)) == Some(&true);
    for _ in 0..spec.groups.len() {
        for (at, group) in spec.groups.iter().enumerate() {
            if group.depends_on.iter().all(|other| has_place(&placed, other))
                && let Some(own) = placed.get_mut(at)
            {
                *own = true;
            }
        }
    }
    match placed.iter().position(|placed| !placed) {
        None => Ok(()),
        Some(at) => {
            let path = format!("spec.groups[{at}].depends_on");
            invalid(path, "leads into a circle: the group could never start")
        }
    }
}

/// The rules of one group.
pub(super) fn group(path: &str, group: &GroupSpec) -> Valid {
    let (replicas, max) = (u64::from(group.replicas), u64::from(group.replicas_max));
    range(|| format!("{path}.replicas_max"), max, replicas, u64::from(REPLICAS_MAX))?;
    let rules = &group.rules;
    let most = u64::from(rules.replicas_per_node_max);
    range(|| format!("{path}.replicas_per_node_max"), most, 0, u64::from(REPLICAS_MAX))?;
    level(&format!("{path}.topology_required"), rules.topology_required)?;
    level(&format!("{path}.topology_preferred"), rules.topology_preferred)?;
    segments(path, group)?;
    domains_max(path, &rules.domains_max)?;
    let flying = u64::from(group.repair.in_flight_max);
    range(|| format!("{path}.repair.in_flight_max"), flying, 0, u64::from(REPLICAS_MAX))?;
    if group.repair.preferred && group.repair.level.is_none() {
        return invalid(format!("{path}.repair.preferred"), "is given, but level is not");
    }
    spread(path, rules)
}

/// A level to keep a whole job or group within.
fn level(field: &str, level: Option<Level>) -> Valid {
    if level == Some(Level::Node) {
        return invalid(field, "is NODE; the strategy STRICT_PACK says that");
    }
    Ok(())
}

fn segments(path: &str, group: &GroupSpec) -> Valid {
    let segments = &group.rules.segments;
    count(|| format!("{path}.segments"), segments.len(), LEVELS_MAX)?;
    for (at, segment) in segments.iter().enumerate() {
        let path = format!("{path}.segments[{at}]");
        let most = u64::from(REPLICAS_MAX);
        range(|| format!("{path}.size"), u64::from(segment.size), 1, most)?;
        let Some(wider) = at.checked_sub(1).and_then(|before| segments.get(before)) else {
            continue;
        };
        if wider.level >= segment.level {
            return invalid(format!("{path}.level"), "is no narrower than the one before");
        }
        if !wider.size.is_multiple_of(segment.size) {
            let problem =
                format!("is {}, which does not divide the {} before", segment.size, wider.size);
            return invalid(format!("{path}.size"), problem);
        }
    }
    Ok(())
}

/// Bounds on domains; `path` is that of the job or group.
fn domains_max(path: &str, bounds: &[DomainsMax]) -> Valid {
    count(|| format!("{path}.domains_max"), bounds.len(), LEVELS_MAX)?;
    for (at, bound) in bounds.iter().enumerate() {
        let max = u64::from(bound.max);
        range(|| format!("{path}.domains_max[{at}].max"), max, 1, u64::from(REPLICAS_MAX))?;
        if bounds.iter().take(at).any(|other| other.level == bound.level) {
            let field = format!("{path}.domains_max[{at}].level");
            return invalid(field, "has an earlier bound already");
        }
    }
    Ok(())
}

fn spread(path: &str, rules: &GroupRules) -> Valid {
    count(|| format!("{path}.spread"), rules.spread.len(), LEVELS_MAX)?;
    for (at, spread) in rules.spread.iter().enumerate() {
        let most = u64::from(REPLICAS_MAX);
        let skew = u64::from(spread.skew_max);
        range(|| format!("{path}.spread[{at}].skew_max"), skew, 1, most)?;
        let earlier = rules.spread.iter().take(at);
        if earlier.into_iter().any(|other| other.level == spread.level) {
            let field = format!("{path}.spread[{at}].level");
            return invalid(field, "has an earlier spread already");
        }
    }
    Ok(())
}

/// Whether one asks for two groups to be near and the other for them to be apart as far or further.
fn contradict(a: &Affinity, b: &Affinity) -> bool {
    let pair = |affinity: &Affinity| match affinity.target {
        Target::Groups { group, with } => Some((group.min(with), group.max(with))),
        Target::Jobs { .. } => None,
    };
    let (near, apart) = if a.anti { (b, a) } else { (a, b) };
    let required = !a.preferred && !b.preferred && apart.anti && !near.anti;
    // Levels rise from wide to narrow.
    required && pair(a).is_some() && pair(a) == pair(b) && near.level >= apart.level
}

fn affinity(path: &str, affinity: &Affinity, spec: &JobSpec) -> Valid {
    let groups = spec.groups.len();
    let known = |field: &str, group: u16| {
        if usize::from(group) < groups {
            return Ok(());
        }
        invalid(format!("{path}.{field}"), format!("is group {group}; there are {groups}"))
    };
    match &affinity.target {
        Target::Groups { group, with } => {
            known("group", *group)?;
            known("with_group", *with)
        }
        Target::Jobs { group, labels: wanted } => {
            if let Some(group) = group {
                known("group", *group)?;
            }
            if wanted.is_empty() {
                let problem = "is empty; without a with_group at least one label is needed";
                return invalid(format!("{path}.with_job_labels"), problem);
            }
            labels(&format!("{path}.with_job_labels"), wanted, JOB_LABELS_MAX)
        }
    }
}
