//! Jobs coming in, from proto to core.
//!
//! **Invariant:** the bounds that the proto promises are checked here, under the proto's own field
//! names; what the core demands beyond them is checked by `validate`, so that a converted spec is
//! a valid one.

mod rules;
mod shape;

pub(crate) use shape::{custom, vendor};

use proto::v1;
use scheduler_core::command::Rejection;
use scheduler_core::hash::Hasher;
use scheduler_core::id::Name;
use scheduler_core::job::{
    Condition, Disruption, GroupSpec, JobKind, JobSpec, Level, Preemption, PreemptionPolicy,
    Program, Role, Selector, Strategy, Toleration,
};
use scheduler_core::node::TaintEffect;
use scheduler_core::unit::{CostMicroUsd, DurationMs, PriceMicroUsd, RttUs, TimeMs};
use scheduler_core::validate;
use std::fmt::Display;
use std::hash::Hash as _;
use std::sync::Arc;

/// As the proto says.
const GROUPS_MAX: usize = 64;
const REPLICAS_MAX: u32 = 100_000;
const GPUS_MAX: u64 = 1_000_000;
const LIST_MAX: usize = 32;
const VALUES_MAX: usize = 64;
const ARGUMENTS_MAX: usize = 256;
const RTT_US_MAX: u32 = 10_000_000;
const DURATION_S_MAX: u64 = 31_622_400;
const PRICE_MICRO_USD_MAX: u64 = 1_000_000_000;
/// Environment variables that the agent sets itself.
const ENV_RESERVED: &str = "MUSTER_";

type Taken<T> = Result<T, Rejection>;

fn bad<T>(field: impl Into<String>, problem: impl Into<String>) -> Taken<T> {
    Err(Rejection::Invalid { field: field.into(), problem: problem.into() })
}

fn at_most(field: &str, value: u64, max: u64) -> Taken<()> {
    if value <= max { Ok(()) } else { bad(field, format!("is {value}; at most {max} is allowed")) }
}

fn count(field: &str, len: usize, max: usize) -> Taken<()> {
    if len <= max {
        return Ok(());
    }
    bad(field, format!("has {len} items; at most {max} are allowed"))
}

fn name(field: &str, text: &str) -> Taken<Name> {
    Name::parse(text).or_else(|error| bad(field, error.to_string()))
}

fn unknown<T>(field: &str, value: i32) -> Taken<T> {
    bad(field, format!("is {value}, which is no known value"))
}

/// Checks a request id.
pub fn request_id(field: impl Display, id: &str) -> Taken<Arc<str>> {
    match validate::request_id(id) {
        Ok(()) => Ok(id.into()),
        Err(Rejection::Invalid { problem, .. }) => bad(field.to_string(), problem),
        Err(other) => Err(other),
    }
}

/// Digest of a spec: tells another body under the same request id.
pub fn digest(spec: &JobSpec) -> u128 {
    let mut hasher = Hasher::new();
    spec.hash(&mut hasher);
    hasher.finish128()
}

/// A path that the core has named, in the proto's words.
pub fn field_path(path: &str) -> String {
    path.replace("spec.resources.", "spec.").replace("duration_ms", "duration_s")
}

/// The whole spec of a job; `path` is where it stands in its request.
pub fn spec(path: impl Display, spec: Option<v1::JobSpec>) -> Taken<JobSpec> {
    let Some(spec) = spec else { return bad(path.to_string(), "is missing") };
    convert(spec).map_err(|rejection| match rejection {
        Rejection::Invalid { field, problem } => {
            let field = field_path(&field);
            let inner = field.strip_prefix("spec").unwrap_or(&field);
            Rejection::Invalid { field: format!("{path}{inner}"), problem }
        }
        other => other,
    })
}

fn convert(spec: v1::JobSpec) -> Taken<JobSpec> {
    // Counts before anything is converted: a hostile message must not cost more than its bytes.
    count("spec.groups", spec.groups.len(), GROUPS_MAX)?;
    at_most("spec.rtt_us_max", spec.rtt_us_max.into(), RTT_US_MAX.into())?;
    at_most("spec.duration_s", spec.duration_s, DURATION_S_MAX)?;
    // Here and not by the core, which would tell it in milliseconds.
    let longest = if spec.duration_s == 0 { DURATION_S_MAX } else { spec.duration_s };
    at_most("spec.duration_s_min", spec.duration_s_min, longest)?;
    at_most("spec.price_micro_usd_max", spec.price_micro_usd_max, PRICE_MICRO_USD_MAX)?;
    let common = rules::common_selectors(&spec)?;
    let names: Vec<String> = spec.groups.iter().map(|group| group.name.clone()).collect();
    let converted = JobSpec {
        name: name("spec.name", &spec.name)?,
        kind: kind(spec.kind)?,
        strategy: strategy("spec.strategy", spec.strategy)?.unwrap_or_default(),
        topology_required: level("spec.topology_required", spec.topology_required)?,
        topology_preferred: level("spec.topology_preferred", spec.topology_preferred)?,
        rtt_max: (spec.rtt_us_max > 0).then_some(RttUs(spec.rtt_us_max)),
        duration: (spec.duration_s > 0).then(|| DurationMs(spec.duration_s * 1000)),
        price_max: (spec.price_micro_usd_max > 0)
            .then_some(PriceMicroUsd(spec.price_micro_usd_max)),
        program: program(spec.program.unwrap_or_default())?,
        groups: groups(spec.groups, &common, &names)?,
        labels: rules::labels("spec.labels", spec.labels)?,
        rtt_scope: rules::rtt_scope(spec.rtt_scope)?,
        rtt_objective: rules::rtt_objective(spec.rtt_objective)?,
        cost_max: (spec.price_total_micro_usd_max > 0)
            .then_some(CostMicroUsd(spec.price_total_micro_usd_max)),
        affinities: rules::affinities(spec.affinities, &names)?,
        priority: validate::priority("spec.priority", spec.priority.into())?,
        begin: (spec.begin_time_ms > 0).then_some(TimeMs(spec.begin_time_ms)),
        deadline: (spec.deadline_time_ms > 0).then_some(TimeMs(spec.deadline_time_ms)),
        hourly_max: (spec.price_hour_micro_usd_max > 0)
            .then_some(CostMicroUsd(spec.price_hour_micro_usd_max)),
        domains_max: rules::domains_max("spec", &spec.domains_max)?,
        duration_min: (spec.duration_s_min > 0).then(|| DurationMs(spec.duration_s_min * 1000)),
        preemption: preemption(spec.preemption.unwrap_or_default())?,
    };
    validate::job(&converted)?;
    at_most("spec.groups", converted.gpu_milli() / 1000, GPUS_MAX)
        .or_else(|_| bad("spec.groups", format!("ask for more than {GPUS_MAX} GPUs in all")))?;
    Ok(converted)
}

fn kind(value: i32) -> Taken<JobKind> {
    match v1::JobKind::try_from(value) {
        Ok(v1::JobKind::Ray) => Ok(JobKind::Ray),
        Ok(v1::JobKind::Kubernetes) => Ok(JobKind::Kubernetes),
        Ok(v1::JobKind::Plain) => Ok(JobKind::Plain),
        Ok(v1::JobKind::Unspecified) => bad("spec.kind", "is missing"),
        Err(_) => unknown("spec.kind", value),
    }
}

fn preemption(asked: v1::Preemption) -> Taken<Preemption> {
    let policy = match v1::PreemptionPolicy::try_from(asked.policy) {
        Ok(v1::PreemptionPolicy::Unspecified | v1::PreemptionPolicy::Never) => {
            PreemptionPolicy::Never
        }
        Ok(v1::PreemptionPolicy::LowerPriority) => PreemptionPolicy::LowerPriority,
        Err(_) => return unknown("spec.preemption.policy", asked.policy),
    };
    let disruption = match v1::Disruption::try_from(asked.disruption) {
        Ok(v1::Disruption::Unspecified | v1::Disruption::None) => Disruption::None,
        Ok(v1::Disruption::Single) => Disruption::Single,
        Ok(v1::Disruption::All) => Disruption::All,
        Err(_) => return unknown("spec.preemption.disruption", asked.disruption),
    };
    Ok(Preemption { policy, disruption })
}

fn strategy(field: &str, value: i32) -> Taken<Option<Strategy>> {
    match v1::Strategy::try_from(value) {
        Ok(v1::Strategy::Unspecified) => Ok(None),
        Ok(v1::Strategy::Pack) => Ok(Some(Strategy::Pack)),
        Ok(v1::Strategy::Spread) => Ok(Some(Strategy::Spread)),
        Ok(v1::Strategy::StrictPack) => Ok(Some(Strategy::StrictPack)),
        Ok(v1::Strategy::StrictSpread) => Ok(Some(Strategy::StrictSpread)),
        Err(_) => unknown(field, value),
    }
}

fn level(field: &str, value: i32) -> Taken<Option<Level>> {
    match v1::TopologyLevel::try_from(value) {
        Ok(v1::TopologyLevel::Unspecified) => Ok(None),
        Ok(v1::TopologyLevel::Region) => Ok(Some(Level::Region)),
        Ok(v1::TopologyLevel::Zone) => Ok(Some(Level::Zone)),
        Ok(v1::TopologyLevel::Site) => Ok(Some(Level::Site)),
        Ok(v1::TopologyLevel::Rack) => Ok(Some(Level::Rack)),
        Ok(v1::TopologyLevel::Node) => Ok(Some(Level::Node)),
        Err(_) => unknown(field, value),
    }
}

fn program(program: v1::Program) -> Taken<Program> {
    count("spec.program.argv", program.argv.len(), ARGUMENTS_MAX)?;
    count("spec.program.env", program.env.len(), ARGUMENTS_MAX)?;
    if let Some(key) = program.env.keys().find(|key| key.starts_with(ENV_RESERVED)) {
        let shown: String = key.chars().take(64).filter(|c| !c.is_control()).collect();
        return bad("spec.program.env", format!("has {shown}; the agent sets {ENV_RESERVED}*"));
    }
    Ok(Program { argv: program.argv, env: program.env.into_iter().collect() })
}

/// `common` are selectors that every group gets beside its own; `names` those of all groups.
fn groups(groups: Vec<v1::Group>, common: &[Selector], names: &[String]) -> Taken<Vec<GroupSpec>> {
    let converted = groups.into_iter().enumerate();
    converted.map(|(at, one)| group(&format!("spec.groups[{at}]"), one, common, names)).collect()
}

fn group(path: &str, group: v1::Group, common: &[Selector], names: &[String]) -> Taken<GroupSpec> {
    let replicas = group.replicas;
    if !(1..=REPLICAS_MAX).contains(&replicas) {
        let problem = format!("is {replicas}; 1 to {REPLICAS_MAX} are allowed");
        return bad(format!("{path}.replicas"), problem);
    }
    at_most(&format!("{path}.replicas_min"), group.replicas_min.into(), replicas.into())?;
    count(&format!("{path}.selectors"), group.selectors.len(), LIST_MAX)?;
    count(&format!("{path}.tolerations"), group.tolerations.len(), LIST_MAX)?;
    let rules = rules::group(path, &group)?;
    let depends_on = rules::depends_on(path, &group.depends_on, names)?;
    let selectors = group.selectors.into_iter().enumerate();
    let tolerations = group.tolerations.into_iter().enumerate();
    Ok(GroupSpec {
        name: name(&format!("{path}.name"), &group.name)?,
        role: role(path, group.role)?,
        replicas,
        replicas_min: if group.replicas_min == 0 { replicas } else { group.replicas_min },
        replicas_max: if group.replicas_max == 0 { replicas } else { group.replicas_max },
        shape: shape::convert(&format!("{path}.shape"), group.shape)?,
        selectors: selectors
            .map(|(at, one)| selector(&format!("{path}.selectors[{at}]"), one))
            .chain(common.iter().cloned().map(Ok))
            .collect::<Taken<_>>()?,
        tolerations: tolerations
            .map(|(at, one)| toleration(&format!("{path}.tolerations[{at}]"), one))
            .collect::<Taken<_>>()?,
        rules,
        depends_on,
        repair: rules::repair(path, group.repair)?,
    })
}

fn role(path: &str, value: i32) -> Taken<Role> {
    match v1::Role::try_from(value) {
        Ok(v1::Role::Unspecified | v1::Role::Worker) => Ok(Role::Worker),
        Ok(v1::Role::Head) => Ok(Role::Head),
        Err(_) => unknown(&format!("{path}.role"), value),
    }
}

fn selector(path: &str, selector: v1::Selector) -> Taken<Selector> {
    count(&format!("{path}.values"), selector.values.len(), VALUES_MAX)?;
    let values: Vec<Arc<str>> =
        selector.values.iter().map(|value| Arc::from(value.as_str())).collect();
    let none = |condition: Condition| {
        if values.is_empty() {
            return Ok(condition);
        }
        bad(format!("{path}.values"), "must be empty for EXISTS and DOES_NOT_EXIST")
    };
    let condition = match v1::SelectorOperator::try_from(selector.operator) {
        Ok(v1::SelectorOperator::In) => Condition::In(values),
        Ok(v1::SelectorOperator::NotIn) => Condition::NotIn(values),
        Ok(v1::SelectorOperator::Exists) => none(Condition::Exists)?,
        Ok(v1::SelectorOperator::DoesNotExist) => none(Condition::DoesNotExist)?,
        Ok(v1::SelectorOperator::Unspecified) => {
            return bad(format!("{path}.operator"), "is missing");
        }
        Err(_) => return unknown(&format!("{path}.operator"), selector.operator),
    };
    Ok(Selector { key: selector.key.into(), condition })
}

fn toleration(path: &str, toleration: v1::Toleration) -> Taken<Toleration> {
    let effect = match v1::TaintEffect::try_from(toleration.effect) {
        Ok(v1::TaintEffect::Unspecified) => None,
        Ok(v1::TaintEffect::NoSchedule) => Some(TaintEffect::NoSchedule),
        Ok(v1::TaintEffect::PreferNoSchedule) => Some(TaintEffect::PreferNoSchedule),
        Err(_) => return unknown(&format!("{path}.effect"), toleration.effect),
    };
    let value = toleration.value.map(Arc::from);
    Ok(Toleration { key: toleration.key.into(), value, effect })
}

#[cfg(test)]
pub(crate) mod tests;
