//! What a job asks for: groups, shapes, conditions, program.
//!
//! **Invariant:** costs no more than the limits allow, however large the spec.

use super::rules;
use super::{
    ALTERNATIVES_MAX, COST_MICRO_USD_MAX, DURATION_MS_RANGE, GROUPS_MAX, JOB_LABELS_MAX, LIST_MAX,
    PROGRAM_BYTES_MAX, PROGRAM_ITEMS_MAX, REPLICAS_MAX, SELECTOR_VALUES_MAX, TIME_MS_MAX,
    VRAM_MIB_MAX, Valid, bandwidth, compute_capability, count, custom, invalid, labels, price,
    priority, range, resources, rtt, text,
};
use crate::command::Rejection;
use crate::id::Name;
use crate::job::{
    Condition, GpuAlternative, GpuAsk, GroupSpec, JobSpec, Program, Role, Selector, Shape,
    Toleration,
};
use crate::node::LABEL_BYTES_MAX;
use crate::told::{Long, Utc};
use crate::unit::{GPUS_PER_NODE_MAX, TimeMs};
use std::collections::BTreeSet;

/// All a job asks for.
pub fn job(spec: &JobSpec) -> Result<(), Rejection> {
    if spec.groups.is_empty() {
        return invalid("spec.groups", "is empty; a job has at least one group");
    }
    count(|| "spec.groups".to_owned(), spec.groups.len(), GROUPS_MAX)?;
    let mut names: BTreeSet<&Name> = BTreeSet::new();
    let mut heads = 0u32;
    let (mut replicas, mut most) = (0u64, 0u64);
    let mut values = 0usize;
    for (at, found) in spec.groups.iter().enumerate() {
        let path = format!("spec.groups[{at}]");
        group(&path, found)?;
        if !names.insert(&found.name) {
            return invalid(
                format!("{path}.name"),
                format!("is {}, as of an earlier group", found.name),
            );
        }
        heads += u32::from(found.role == Role::Head);
        if heads > 1 {
            return invalid(
                format!("{path}.role"),
                "is HEAD, as of an earlier group; only one may be",
            );
        }
        replicas = replicas.saturating_add(u64::from(found.replicas));
        if replicas > u64::from(REPLICAS_MAX) {
            let problem = format!(
                "brings the job to {replicas} replicas; at most {REPLICAS_MAX} are allowed"
            );
            return invalid(format!("{path}.replicas"), problem);
        }
        most = most.saturating_add(u64::from(found.replicas_max));
        if most > u64::from(REPLICAS_MAX) {
            let problem = format!(
                "brings the job to {most} replicas at most; at most {REPLICAS_MAX} are allowed"
            );
            return invalid(format!("{path}.replicas_max"), problem);
        }
        selector_values(&path, found, &mut values)?;
    }
    if let Some(bound) = spec.rtt_max {
        rtt(bound, || "spec.rtt_us_max".to_owned())?;
    }
    if let Some(duration) = spec.duration {
        let (min, max) = DURATION_MS_RANGE;
        range(|| "spec.duration_ms".to_owned(), duration.0, min, max)?;
    }
    if let Some(bound) = spec.price_max {
        price("spec.price_micro_usd_max", bound)?;
    }
    if let Some(bound) = spec.cost_max {
        let field = || "spec.price_total_micro_usd_max".to_owned();
        range(field, bound.0, 1, COST_MICRO_USD_MAX)?;
        if spec.duration.is_none() {
            let problem = "is missing; a bound on the total price needs it";
            return invalid("spec.duration_ms", problem);
        }
    }
    if let Some(bound) = spec.hourly_max {
        let field = || "spec.price_hour_micro_usd_max".to_owned();
        range(field, bound.0, 1, COST_MICRO_USD_MAX)?;
    }
    priority("spec.priority", spec.priority.0.into())?;
    times(spec)?;
    labels("spec.labels", &spec.labels, JOB_LABELS_MAX)?;
    rules::job(spec)?;
    program(&spec.program)
}

/// What can be said of a job's times whatever time it is.
fn times(spec: &JobSpec) -> Valid {
    if let Some(begin) = spec.begin {
        range(|| "spec.begin_time_ms".to_owned(), begin.0, 1, TIME_MS_MAX)?;
    }
    if let Some(least) = spec.duration_min {
        let field = || "spec.duration_ms_min".to_owned();
        let (min, max) = DURATION_MS_RANGE;
        range(field, least.0, min, spec.duration.map_or(max, |duration| duration.0))?;
        if spec.deadline.is_none() {
            return invalid(field(), "is given without spec.deadline_time_ms, which it is about");
        }
    }
    let Some(deadline) = spec.deadline else { return Ok(()) };
    range(|| "spec.deadline_time_ms".to_owned(), deadline.0, 1, TIME_MS_MAX)?;
    match spec.begin {
        Some(begin) => time_left(spec, deadline, begin, "spec.begin_time_ms"),
        None => Ok(()),
    }
}

/// Refuses a deadline before which a job that starts then has too little time.
pub fn time_left(
    spec: &JobSpec,
    deadline: TimeMs,
    start: TimeMs,
    what: &str,
) -> Result<(), Rejection> {
    let least = spec.time_min();
    if start.after(least) <= deadline {
        return Ok(());
    }
    let problem = match spec.duration_min.or(spec.duration) {
        Some(least) => format!(
            "is {:#}; at least {} after {what}, {:#}, is needed",
            Utc(deadline),
            Long(least),
            Utc(start)
        ),
        None => format!("is {:#}, which is not after {what}, {:#}", Utc(deadline), Utc(start)),
    };
    invalid("spec.deadline_time_ms", problem)
}

fn group(path: &str, group: &GroupSpec) -> Valid {
    let (replicas, min) = (u64::from(group.replicas), u64::from(group.replicas_min));
    range(|| format!("{path}.replicas"), replicas, 1, u64::from(REPLICAS_MAX))?;
    range(|| format!("{path}.replicas_min"), min, 1, replicas)?;
    if group.role == Role::Head && replicas != 1 {
        let problem = format!("is {replicas}; a HEAD group has exactly 1");
        return invalid(format!("{path}.replicas"), problem);
    }
    if group.role == Role::Head && group.replicas_max > 1 {
        let problem = format!("is {}; a HEAD group has exactly 1", group.replicas_max);
        return invalid(format!("{path}.replicas_max"), problem);
    }
    shape(&format!("{path}.shape"), &group.shape)?;
    count(|| format!("{path}.selectors"), group.selectors.len(), LIST_MAX)?;
    for (at, found) in group.selectors.iter().enumerate() {
        selector(&format!("{path}.selectors[{at}]"), found)?;
    }
    count(|| format!("{path}.tolerations"), group.tolerations.len(), LIST_MAX)?;
    for (at, found) in group.tolerations.iter().enumerate() {
        toleration(&format!("{path}.tolerations[{at}]"), found)?;
    }
    rules::group(path, group)
}

fn shape(path: &str, shape: &Shape) -> Valid {
    match shape.gpus {
        GpuAsk::None => {
            if let Some(first) = shape.alternatives.first() {
                let field = match shape.alternatives.as_slice() {
                    [one] if one.is_short() && !first.models.is_empty() => "gpu_models",
                    [one] if one.is_short() => "vram_mib_min",
                    _ => "gpu_alternatives",
                };
                return invalid(format!("{path}.{field}"), "is given, but no GPU is asked for");
            }
            // What a node has no end of would fit there without end.
            if !shape.asks_something() {
                let problem = "is 0, and neither a GPU nor a countable resource is asked for";
                return invalid(format!("{path}.cpu_milli"), problem);
            }
        }
        GpuAsk::Whole(whole) => {
            let max = GPUS_PER_NODE_MAX as u64;
            range(|| format!("{path}.gpus"), u64::from(whole), 1, max)?;
        }
        GpuAsk::Share(milli) => {
            range(|| format!("{path}.gpu_share_milli"), u64::from(milli), 1, 999)?;
        }
    }
    count(|| format!("{path}.gpu_alternatives"), shape.alternatives.len(), ALTERNATIVES_MAX)?;
    for (at, found) in shape.alternatives.iter().enumerate() {
        alternative(&alternative_path(path, shape, at), found)?;
    }
    bandwidth(|| format!("{path}.bandwidth_up_mbps_min"), shape.bandwidth_up_min)?;
    bandwidth(|| format!("{path}.bandwidth_down_mbps_min"), shape.bandwidth_down_min)?;
    custom(&format!("{path}.custom"), &shape.custom)?;
    resources(path, &shape.resources())
}

/// Where the fields of an alternative stand; up to and with the beginning of their names.
fn alternative_path(path: &str, shape: &Shape, at: usize) -> String {
    match shape.alternatives.as_slice() {
        [one] if one.is_short() => format!("{path}.gpu_"),
        _ => format!("{path}.gpu_alternatives[{at}]."),
    }
}

fn alternative(path: &str, alternative: &GpuAlternative) -> Valid {
    count(|| format!("{path}models"), alternative.models.len(), LIST_MAX)?;
    // The short form has no prefix here.
    let plain = path.strip_suffix("gpu_").unwrap_or(path);
    let vram = u64::from(alternative.vram_min.0);
    range(|| format!("{plain}vram_mib_min"), vram, 0, u64::from(VRAM_MIB_MAX))?;
    let field = || format!("{path}compute_capability_min");
    compute_capability(field, alternative.compute_capability_min)
}

/// All GPU models that a shape names, with their paths; `path` is the shape's.
pub fn gpu_models<'a>(path: &str, shape: &'a Shape) -> impl Iterator<Item = (String, &'a Name)> {
    shape.alternatives.iter().enumerate().flat_map(move |(at, one)| {
        let path = alternative_path(path, shape, at);
        let each = one.models.iter().enumerate();
        each.map(move |(nth, model)| (format!("{path}models[{nth}]"), model))
    })
}

fn selector(path: &str, selector: &Selector) -> Valid {
    text(|| format!("{path}.key"), &selector.key, 1, LABEL_BYTES_MAX)?;
    let (Condition::In(values) | Condition::NotIn(values)) = &selector.condition else {
        return Ok(());
    };
    if values.is_empty() {
        return invalid(
            format!("{path}.values"),
            "is empty; IN and NOT_IN need at least one value",
        );
    }
    count(|| format!("{path}.values"), values.len(), LIST_MAX)?;
    for (at, value) in values.iter().enumerate() {
        text(|| format!("{path}.values[{at}]"), value, 0, LABEL_BYTES_MAX)?;
    }
    Ok(())
}

/// Counts what the selectors of a group name towards what the job may name in all.
fn selector_values(path: &str, group: &GroupSpec, values: &mut usize) -> Valid {
    for (at, found) in group.selectors.iter().enumerate() {
        *values += found.condition.values().len();
        if *values > SELECTOR_VALUES_MAX {
            let problem = format!(
                "brings the job to {values} values in selectors; at most {SELECTOR_VALUES_MAX} are allowed"
            );
            return invalid(format!("{path}.selectors[{at}].values"), problem);
        }
    }
    Ok(())
}

fn toleration(path: &str, toleration: &Toleration) -> Valid {
    text(|| format!("{path}.key"), &toleration.key, 0, LABEL_BYTES_MAX)?;
    match &toleration.value {
        Some(value) => text(|| format!("{path}.value"), value, 0, LABEL_BYTES_MAX),
        None => Ok(()),
    }
}

fn program(program: &Program) -> Valid {
    count(|| "spec.program.argv".to_owned(), program.argv.len(), PROGRAM_ITEMS_MAX)?;
    count(|| "spec.program.env".to_owned(), program.env.len(), PROGRAM_ITEMS_MAX)?;
    let mut bytes = 0usize;
    for (at, argument) in program.argv.iter().enumerate() {
        bytes = bytes.saturating_add(argument.len());
        if argument.contains('\0') {
            return invalid(format!("spec.program.argv[{at}]"), "has a zero byte");
        }
    }
    if program.argv.first().is_some_and(String::is_empty) {
        return invalid("spec.program.argv[0]", "is empty; it names the program");
    }
    for (at, (key, value)) in program.env.iter().enumerate() {
        bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
        if key.is_empty() || key.contains(['=', '\0']) {
            let problem = "is empty or has a '=' or a zero byte";
            return invalid(format!("spec.program.env[{at}].name"), problem);
        }
        if value.contains('\0') {
            return invalid(format!("spec.program.env[{at}].value"), "has a zero byte");
        }
    }
    if bytes > PROGRAM_BYTES_MAX {
        let problem = format!("is {bytes} bytes in all; at most {PROGRAM_BYTES_MAX} are allowed");
        return invalid("spec.program", problem);
    }
    Ok(())
}
