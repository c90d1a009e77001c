//! Whether values from outside are sane: bounds, characters, sums. Nothing about the fleet.
//!
//! Every refusal names the field by its path, the value and the limit.
//! **Invariant:** pure; the first fault in reading order is told, the same on every server.

mod job;
mod rules;

pub use job::{gpu_models, job, time_left};

use crate::command::Rejection;
use crate::id::REQUEST_ID_BYTES_MAX;
use crate::job::{Priority, REASON_BYTES_MAX, Reason};
use crate::node::{
    CUSTOM_MAX, Custom, LABEL_BYTES_MAX, LABELS_MAX, Labels, NodeSpec, Resources, TAINTS_MAX,
};
use crate::unit::{BandwidthMbps, ComputeCapability, GPUS_PER_NODE_MAX, PriceMicroUsd, RttUs};

/// Most groups in a job: each is planned and counted on its own.
pub const GROUPS_MAX: usize = 64;
/// Most replicas in a job: ten times the clusters we are built for; one entry stays near 3 MB.
pub const REPLICAS_MAX: u32 = 100_000;
/// Most GPU models, selectors or tolerations in a group, and values in one selector.
pub const LIST_MAX: usize = 64;
/// Most values in the selectors of all groups of a job together: ten thousand node names and as many
/// others. A node is held against each of them when a job is planned and again when it is applied,
/// and an entry must not hold up a server for longer than some others do.
pub const SELECTOR_VALUES_MAX: usize = 20_000;
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
/// Most amount of one countable resource: sums of a whole fleet stay far from the end of a `u64`.
pub const CUSTOM_AMOUNT_MAX: u64 = 1_000_000_000_000;
/// Most bandwidth of a node: 10 Tbit/s.
pub const BANDWIDTH_MBPS_MAX: u32 = 10_000_000;
/// Highest compute capability: 99.99.
pub const COMPUTE_CAPABILITY_MAX: u16 = 9_999;
/// Most alternatives in one shape: each is tried on its own before they are mixed.
pub const ALTERNATIVES_MAX: usize = 16;
/// Most labels on a job: each live job is found by every one of them.
pub const JOB_LABELS_MAX: usize = 16;
/// Most affinities of a job: each may be held against every member.
pub const AFFINITIES_MAX: usize = 32;
/// Most groups that one group waits for: a head, some stores and drivers.
pub const DEPENDENCIES_MAX: usize = 16;
/// Most segments, and most spreads, of a group: one for every level.
pub const LEVELS_MAX: usize = 5;
/// Highest price of a job as a whole: a billion US dollars.
pub const COST_MICRO_USD_MAX: u64 = 1_000_000_000_000_000;
/// Longest RTT: a minute.
pub const RTT_US_MAX: u32 = 60_000_000;
/// Shortest and longest duration of a job: a second, ten years.
pub const DURATION_MS_RANGE: (u64, u64) = (1_000, 315_576_000_000);
/// Latest point in time: the beginning of the year 9999, so that people can read all of them.
pub const TIME_MS_MAX: u64 = 253_370_764_800_000;
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

/// A priority, if it is one: from the lowest to the highest.
pub fn priority(field: &str, value: i64) -> Result<Priority, Rejection> {
    let (min, max) = (Priority::MIN, Priority::MAX);
    let known = i16::try_from(value).ok().map(Priority);
    known.filter(|known| (min..=max).contains(known)).ok_or_else(|| Rejection::Invalid {
        field: field.to_owned(),
        problem: format!("is {value}; {min} to {max} are allowed"),
    })
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
        let field = || format!("spec.gpus[{at}].compute_capability");
        compute_capability(field, gpu.compute_capability)?;
    }
    resources("spec.resources", &spec.resources)?;
    custom("spec.custom", &spec.custom)?;
    bandwidth(|| "spec.bandwidth_up_mbps".to_owned(), spec.bandwidth_up)?;
    bandwidth(|| "spec.bandwidth_down_mbps".to_owned(), spec.bandwidth_down)?;
    price("spec.price_micro_usd", spec.price)?;
    text(|| "spec.address".to_owned(), &spec.address, 0, ADDRESS_BYTES_MAX)?;
    if spec.address.contains(' ') {
        return invalid("spec.address", "has a space");
    }
    labels("spec.labels", &spec.labels, LABELS_MAX)?;
    for (at, key) in spec.labels.keys().enumerate() {
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

fn labels(field: &str, labels: &Labels, max: usize) -> Valid {
    count(|| field.to_owned(), labels.len(), max)?;
    for (at, (key, value)) in labels.iter().enumerate() {
        text(|| format!("{field}[{at}].key"), key, 1, LABEL_BYTES_MAX)?;
        text(|| format!("{field}[{at}].value"), value, 0, LABEL_BYTES_MAX)?;
    }
    Ok(())
}

fn custom(field: &str, custom: &Custom) -> Valid {
    count(|| field.to_owned(), custom.len(), CUSTOM_MAX)?;
    for (name, amount) in custom.iter() {
        range(|| format!("{field}[{name}]"), amount, 1, CUSTOM_AMOUNT_MAX)?;
    }
    Ok(())
}

fn bandwidth(field: impl FnOnce() -> String, value: BandwidthMbps) -> Valid {
    range(field, u64::from(value.0), 0, u64::from(BANDWIDTH_MBPS_MAX))
}

fn compute_capability(field: impl FnOnce() -> String, value: ComputeCapability) -> Valid {
    range(field, u64::from(value.0), 0, u64::from(COMPUTE_CAPABILITY_MAX))
}
