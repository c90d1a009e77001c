//! Whether values from outside are sane: bounds, characters, sums. Nothing about the fleet.
//!
//! Every refusal names the field by its path, the value and the limit.
//! **Invariant:** pure; the first fault in reading order is told, the same on every server.

use crate::command::Rejection;
use crate::id::{Name, REQUEST_ID_BYTES_MAX};
use crate::job::{
    Condition, GpuAsk, GroupSpec, JobSpec, Program, REASON_BYTES_MAX, Reason, Role, Selector,
    Shape, Toleration,
};
use crate::node::{LABEL_BYTES_MAX, LABELS_MAX, NodeSpec, Resources, TAINTS_MAX};
use crate::unit::{GPUS_PER_NODE_MAX, PriceMicroUsd, RttUs, VramMib};
use std::collections::BTreeSet;

/// Most groups in a job: each is planned and counted on its own.
pub const GROUPS_MAX: usize = 64;
/// Most replicas in a job: ten times the clusters we are built for; one entry stays near 3 MB.
pub const REPLICAS_MAX: u32 = 100_000;
/// Most GPU models, selectors or tolerations in a group, and values in one selector.
pub const LIST_MAX: usize = 64;
/// Most arguments, and most environment variables, of a program.
pub const PROGRAM_ITEMS_MAX: usize = 1_024;
/// Most bytes of a program's arguments and environment: the job rides in one consensus entry.
pub const PROGRAM_BYTES_MAX: usize = 64 * 1024;
/// Most thousandths of CPU cores: 16,384 cores, several times the largest machine on sale.
pub const CPU_MILLI_MAX: u64 = 16_384_000;
/// Most memory: 256 TiB.
pub const MEMORY_MIB_MAX: u64 = 256 * 1024 * 1024;
/// Most disk: 16 PiB.
pub const DISK_MIB_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Most vRAM of one GPU: 4 TiB.
pub const VRAM_MIB_MAX: u32 = 4 * 1024 * 1024;
/// Highest price of a GPU-hour: a million US dollars.
pub const PRICE_MICRO_USD_MAX: u64 = 1_000_000_000_000;
/// Longest RTT: a minute.
pub const RTT_US_MAX: u32 = 60_000_000;
/// Shortest and longest duration of a job: a second, ten years.
pub const DURATION_MS_RANGE: (u64, u64) = (1_000, 315_576_000_000);
/// Longest address, in bytes: a DNS name of 253, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 259;
/// Prefix of labels that the scheduler itself gives.
pub const LABEL_RESERVED: &str = crate::fit::LABEL_PREFIX;

type Valid = Result<(), Rejection>;

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Valid {
    Err(Rejection::Invalid { field: field.into(), problem: problem.into() })
}

fn range(field: impl FnOnce() -> String, value: u64, min: u64, max: u64) -> Valid {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    invalid(field(), format!("is {value}; {min} to {max} are allowed"))
}

fn count(field: impl FnOnce() -> String, len: usize, max: usize) -> Valid {
    if len <= max {
        return Ok(());
    }
    invalid(field(), format!("has {len} items; at most {max} are allowed"))
}

/// Printable ASCII of bounded length.
fn text(field: impl FnOnce() -> String, value: &str, min: usize, max: usize) -> Valid {
    if value.len() < min || value.len() > max {
        let len = value.len();
        return invalid(field(), format!("is {len} bytes long; {min} to {max} are allowed"));
    }
    match value.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
        None => Ok(()),
        Some(at) => invalid(field(), format!("has a byte at {at} that is not printable ASCII")),
    }
}

/// A request id: 1 to 64 bytes of printable ASCII.
pub fn request_id(id: &str) -> Result<(), Rejection> {
    text(|| "request_id".to_owned(), id, 1, REQUEST_ID_BYTES_MAX)
}

/// A reason for people: bounded, and no control characters that could disturb a terminal.
pub fn reason(reason: &Reason) -> Result<(), Rejection> {
    let message = &reason.message;
    if message.len() > REASON_BYTES_MAX {
        let (len, max) = (message.len(), REASON_BYTES_MAX);
        return invalid(
            "reason.message",
            format!("is {len} bytes long; at most {max} are allowed"),
        );
    }
    match message.chars().position(char::is_control) {
        None => Ok(()),
        Some(at) => invalid("reason.message", format!("has a control character at {at}")),
    }
}

/// An RTT between sites: 1 us to a minute.
pub fn rtt(value: RttUs, field: impl FnOnce() -> String) -> Result<(), Rejection> {
    range(field, u64::from(value.0), 1, u64::from(RTT_US_MAX))
}

/// All a node declares of itself.
pub fn node(spec: &NodeSpec) -> Result<(), Rejection> {
    count(|| "spec.gpus".to_owned(), spec.gpus.len(), GPUS_PER_NODE_MAX)?;
    for (at, gpu) in spec.gpus.iter().enumerate() {
        let vram = u64::from(gpu.vram.0);
        range(|| format!("spec.gpus[{at}].vram_mib"), vram, 1, u64::from(VRAM_MIB_MAX))?;
        let domains = GPUS_PER_NODE_MAX as u64 - 1;
        let domain = u64::from(gpu.link_domain);
        range(|| format!("spec.gpus[{at}].link_domain"), domain, 0, domains)?;
    }
    resources("spec.resources", &spec.resources)?;
    price("spec.price_micro_usd", spec.price)?;
    text(|| "spec.address".to_owned(), &spec.address, 0, ADDRESS_BYTES_MAX)?;
    if spec.address.contains(' ') {
        return invalid("spec.address", "has a space");
    }
    count(|| "spec.labels".to_owned(), spec.labels.len(), LABELS_MAX)?;
    for (at, (key, value)) in spec.labels.iter().enumerate() {
        text(|| format!("spec.labels[{at}].key"), key, 1, LABEL_BYTES_MAX)?;
        text(|| format!("spec.labels[{at}].value"), value, 0, LABEL_BYTES_MAX)?;
        if key.starts_with(LABEL_RESERVED) {
            let problem =
                format!("is {key}; labels under {LABEL_RESERVED} are given by the scheduler");
            return invalid(format!("spec.labels[{at}].key"), problem);
        }
    }
    count(|| "spec.taints".to_owned(), spec.taints.len(), TAINTS_MAX)?;
    for (at, taint) in spec.taints.iter().enumerate() {
        text(|| format!("spec.taints[{at}].key"), &taint.key, 1, LABEL_BYTES_MAX)?;
        text(|| format!("spec.taints[{at}].value"), &taint.value, 0, LABEL_BYTES_MAX)?;
    }
    Ok(())
}

fn resources(field: &str, amounts: &Resources) -> Valid {
    range(|| format!("{field}.cpu_milli"), amounts.cpu.0, 0, CPU_MILLI_MAX)?;
    range(|| format!("{field}.memory_mib"), amounts.memory.0, 0, MEMORY_MIB_MAX)?;
    range(|| format!("{field}.disk_mib"), amounts.disk.0, 0, DISK_MIB_MAX)
}

fn price(field: &str, price: PriceMicroUsd) -> Valid {
    range(|| field.to_owned(), price.0, 0, PRICE_MICRO_USD_MAX)
}

/// All a job asks for.
pub fn job(spec: &JobSpec) -> Result<(), Rejection> {
    if spec.groups.is_empty() {
        return invalid("spec.groups", "is empty; a job has at least one group");
    }
    count(|| "spec.groups".to_owned(), spec.groups.len(), GROUPS_MAX)?;
    let mut names: BTreeSet<&Name> = BTreeSet::new();
    let mut heads = 0u32;
    let mut replicas = 0u64;
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
    program(&spec.program)
}

fn group(path: &str, group: &GroupSpec) -> Valid {
    let (replicas, min) = (u64::from(group.replicas), u64::from(group.replicas_min));
    range(|| format!("{path}.replicas"), replicas, 1, u64::from(REPLICAS_MAX))?;
    range(|| format!("{path}.replicas_min"), min, 1, replicas)?;
    if group.role == Role::Head && replicas != 1 {
        let problem = format!("is {replicas}; a HEAD group has exactly 1");
        return invalid(format!("{path}.replicas"), problem);
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
    Ok(())
}

fn shape(path: &str, shape: &Shape) -> Valid {
    match shape.gpus {
        GpuAsk::None => {
            if !shape.models.is_empty() {
                return invalid(format!("{path}.models"), "is given, but no GPU is asked for");
            }
            if shape.vram_min != VramMib::ZERO {
                return invalid(
                    format!("{path}.vram_mib_min"),
                    "is given, but no GPU is asked for",
                );
            }
            if shape.cpu.0 == 0 {
                return invalid(
                    format!("{path}.cpu_milli"),
                    "is 0, and no GPU is asked for either",
                );
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
    count(|| format!("{path}.models"), shape.models.len(), LIST_MAX)?;
    let vram = u64::from(shape.vram_min.0);
    range(|| format!("{path}.vram_mib_min"), vram, 0, u64::from(VRAM_MIB_MAX))?;
    resources(path, &Resources { cpu: shape.cpu, memory: shape.memory, disk: shape.disk })
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
