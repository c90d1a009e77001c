//! What one replica needs, gathered from named amounts: `cpu`, `nvidia.com/gpu`, a custom resource.
//!
//! **Invariant:** an amount that cannot be kept is a fault; one that is rounded up is told.

use crate::finding::{At, Findings, quote};
use crate::label::{Conditions, is_short};
use crate::mig;
use crate::quantity::Quantity;
use proto::v1::shape::Gpus;
use proto::v1::{GpuAlternative, GpuVendor, Shape};
use std::collections::BTreeMap;

/// Resources that are whole accelerators, by whose they are.
const GPU_KEYS: [(&str, GpuVendor); 9] = [
    ("nvidia.com/gpu", GpuVendor::Nvidia),
    ("amd.com/gpu", GpuVendor::Amd),
    ("gpu.intel.com/i915", GpuVendor::Intel),
    ("gpu.intel.com/xe", GpuVendor::Intel),
    ("google.com/tpu", GpuVendor::Google),
    ("aws.amazon.com/neuron", GpuVendor::Aws),
    ("aws.amazon.com/neurondevice", GpuVendor::Aws),
    ("huawei.com/Ascend910", GpuVendor::Huawei),
    ("tenstorrent.com/n300", GpuVendor::Tenstorrent),
];

/// GPUs asked for by some other way than a resource's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Devices {
    pub(crate) gpus: Option<Gpus>,
    /// The most wanted first; empty = any.
    pub(crate) alternatives: Vec<GpuAlternative>,
}

/// Amounts by name, each with the place that asks for it.
pub(crate) type Amounts = BTreeMap<String, (Quantity, At)>;

/// The shape that amounts, conditions on GPUs and devices come to.
pub(crate) fn shape(
    at: &At,
    amounts: &Amounts,
    conditions: &Conditions,
    devices: Option<&Devices>,
    findings: &mut Findings,
) -> Shape {
    let mut shape = Shape::default();
    let mut vendor = GpuVendor::Unspecified;
    for (name, (amount, at)) in amounts.iter().filter(|(_, (amount, _))| !amount.is_zero()) {
        match name.as_str() {
            "cpu" => shape.cpu_milli = milli(at, *amount, findings),
            "memory" => shape.memory_mib = mebibytes(at, *amount, findings),
            "ephemeral-storage" => shape.disk_mib = mebibytes(at, *amount, findings),
            _ => match GPU_KEYS.iter().find(|(key, _)| key == name) {
                Some((_, of)) if shape.gpus.is_none() => {
                    shape.gpus = gpu_count(at, *amount, findings);
                    vendor = *of;
                }
                Some(_) => {
                    findings.fault(at, "is not supported: GPUs of two kinds for one replica")
                }
                None => custom(at, name, *amount, &mut shape, findings),
            },
        }
    }
    let mut alternatives = Vec::new();
    if let Some(devices) = devices {
        if shape.gpus.is_some() {
            findings.fault(at, "asks for GPUs in two ways: choose one");
        }
        shape.gpus = devices.gpus;
        alternatives.clone_from(&devices.alternatives);
    }
    if let (Some(gpu_at), None) = (&conditions.gpu_at, shape.gpus) {
        findings.fault(gpu_at, "is about GPUs, but none is asked for");
    }
    if alternatives.is_empty() {
        alternatives.push(GpuAlternative::default());
    }
    for one in &mut alternatives {
        restrict(at, one, &conditions.gpu, findings);
        if vendor != GpuVendor::Unspecified {
            one.vendor = vendor.into();
        }
    }
    set_gpus(&mut shape, alternatives);
    shape
}

/// Puts alternatives into a shape, in the short form where it says the same.
fn set_gpus(shape: &mut Shape, mut alternatives: Vec<GpuAlternative>) {
    if alternatives.iter().all(|one| *one == GpuAlternative::default()) {
        return;
    }
    if let [one] = alternatives.as_mut_slice()
        && is_short(one)
    {
        shape.gpu_models = std::mem::take(&mut one.models);
        shape.vram_mib_min = one.vram_mib_min;
        return;
    }
    shape.gpu_alternatives = alternatives;
}

/// Holds the GPUs of a finished shape to what every GPU must be.
pub(crate) fn restrict_all(
    at: &At,
    shape: &mut Shape,
    every: &GpuAlternative,
    findings: &mut Findings,
) {
    if shape.gpus.is_none() {
        return findings.fault(at, "is about GPUs, but none is asked for");
    }
    let mut alternatives = std::mem::take(&mut shape.gpu_alternatives);
    if alternatives.is_empty() {
        alternatives.push(GpuAlternative {
            models: std::mem::take(&mut shape.gpu_models),
            vram_mib_min: std::mem::take(&mut shape.vram_mib_min),
            ..GpuAlternative::default()
        });
    }
    for one in &mut alternatives {
        restrict(at, one, every, findings);
    }
    set_gpus(shape, alternatives);
}

/// Holds an alternative to what every GPU must be.
fn restrict(at: &At, one: &mut GpuAlternative, every: &GpuAlternative, findings: &mut Findings) {
    if one.models.is_empty() {
        one.models.clone_from(&every.models);
    } else if !every.models.is_empty() {
        one.models.retain(|model| every.models.contains(model));
        if one.models.is_empty() {
            findings.fault(at, "the GPU models asked for contradict each other");
        }
    }
    one.vram_mib_min = one.vram_mib_min.max(every.vram_mib_min);
    one.compute_capability_min = one.compute_capability_min.max(every.compute_capability_min);
}

fn too_large(at: &At, findings: &mut Findings) -> u64 {
    findings.fault(at, "is too large");
    0
}

fn milli(at: &At, amount: Quantity, findings: &mut Findings) -> u64 {
    let Some((milli, exact)) = amount.milli() else { return too_large(at, findings) };
    if !exact {
        findings.note(at, format!("rounded up to {milli}m"));
    }
    milli
}

pub(crate) fn mebibytes(at: &At, amount: Quantity, findings: &mut Findings) -> u64 {
    let Some((mib, exact)) = amount.mebibytes() else { return too_large(at, findings) };
    if !exact {
        findings.note(at, format!("rounded up to {mib}MiB"));
    }
    mib
}

fn gpu_count(at: &At, amount: Quantity, findings: &mut Findings) -> Option<Gpus> {
    let count = amount.whole().and_then(|count| u32::try_from(count).ok());
    if count.is_none() {
        findings.fault(at, "must be a whole number of GPUs");
    }
    count.map(Gpus::GpuCount)
}

/// A countable resource of people's own naming.
fn custom(at: &At, name: &str, amount: Quantity, shape: &mut Shape, findings: &mut Findings) {
    let refused = match name {
        "nvidia.com/gpu.shared" => {
            Some("use the annotation gpu-fraction, or a share of a GPU in a native job")
        }
        _ if name.starts_with("hugepages-") => {
            Some("nodes here do not say which huge pages they have")
        }
        "storage" | "pods" => Some("it is no resource of a pod"),
        _ => None,
    };
    if let Some(why) = refused {
        return findings.fault(at, format!("is not supported: {why}"));
    }
    let profile = name.strip_prefix(mig::PREFIX);
    if let Some(Err(why)) = profile.map(mig::resource) {
        return findings.fault(at, why);
    }
    if profile.is_some() && shape.gpus.is_some() {
        return findings.fault(at, "is not supported: GPUs and parts of GPUs for one replica");
    }
    let Some(count) = amount.whole() else {
        return findings.fault(at, "must be whole: resources of one's own naming are counted");
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '.' };
    let own: String = name.chars().map(plain).collect();
    let said = if own == name {
        "counted as a resource that nodes declare".to_owned()
    } else {
        format!("counted as the resource {} that nodes declare", quote(&own))
    };
    findings.note(at, said);
    let known = shape.custom.insert(own, count);
    if known.is_some() {
        findings.fault(at, "has the same name as another resource once `/` is replaced");
    }
}
