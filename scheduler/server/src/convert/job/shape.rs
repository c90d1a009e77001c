//! What one replica needs, from proto to core.
//!
//! **Invariant:** both forms of what GPUs would do end in one list of alternatives.

use super::{Taken, at_most, bad, count, name, unknown};
use proto::v1;
use scheduler_core::job::{GpuAlternative, GpuAsk, Shape};
use scheduler_core::node::{CUSTOM_MAX, Custom, Vendor};
use scheduler_core::unit::{
    BandwidthMbps, ComputeCapability, CpuMilli, DiskMib, MemoryMib, VramMib,
};
use scheduler_core::validate::{ALTERNATIVES_MAX, COMPUTE_CAPABILITY_MAX};
use std::collections::BTreeMap;

/// As the proto says.
const GPU_COUNT_MAX: u32 = 64;
const GPU_MILLI_MAX: u32 = 999;
const MODELS_MAX: usize = 32;
const VRAM_MIB_MAX: u32 = 4_194_304;
const CPU_MILLI_MAX: u64 = 4_096_000;
const MEMORY_MIB_MAX: u64 = 64 * 1024 * 1024;
const DISK_MIB_MAX: u64 = 16 * 1024 * 1024 * 1024;

pub(super) fn convert(path: &str, shape: Option<v1::Shape>) -> Taken<Shape> {
    let Some(shape) = shape else { return bad(path, "is missing") };
    at_most(&format!("{path}.cpu_milli"), shape.cpu_milli, CPU_MILLI_MAX)?;
    at_most(&format!("{path}.memory_mib"), shape.memory_mib, MEMORY_MIB_MAX)?;
    at_most(&format!("{path}.disk_mib"), shape.disk_mib, DISK_MIB_MAX)?;
    Ok(Shape {
        gpus: gpus(path, shape.gpus)?,
        alternatives: alternatives(path, &shape)?,
        cpu: CpuMilli(shape.cpu_milli),
        memory: MemoryMib(shape.memory_mib),
        disk: DiskMib(shape.disk_mib),
        bandwidth_up_min: BandwidthMbps(shape.bandwidth_up_mbps_min),
        bandwidth_down_min: BandwidthMbps(shape.bandwidth_down_mbps_min),
        custom: custom(&format!("{path}.custom"), shape.custom)?,
    })
}

fn gpus(path: &str, gpus: Option<v1::shape::Gpus>) -> Taken<GpuAsk> {
    let range = |field: &str, value: u32, max: u32| {
        if (1..=max).contains(&value) {
            return Ok(());
        }
        bad(format!("{path}.{field}"), format!("is {value}; 1 to {max} are allowed"))
    };
    match gpus {
        None => Ok(GpuAsk::None),
        Some(v1::shape::Gpus::GpuCount(count)) => {
            range("gpu_count", count, GPU_COUNT_MAX)?;
            Ok(GpuAsk::Whole(u8::try_from(count).unwrap_or(u8::MAX)))
        }
        Some(v1::shape::Gpus::GpuMilli(milli)) => {
            range("gpu_milli", milli, GPU_MILLI_MAX)?;
            Ok(GpuAsk::Share(u16::try_from(milli).unwrap_or(u16::MAX)))
        }
    }
}

fn alternatives(path: &str, shape: &v1::Shape) -> Taken<Vec<GpuAlternative>> {
    let short = !shape.gpu_models.is_empty() || shape.vram_mib_min > 0;
    if !short {
        let field = format!("{path}.gpu_alternatives");
        count(&field, shape.gpu_alternatives.len(), ALTERNATIVES_MAX)?;
        let each = shape.gpu_alternatives.iter().enumerate();
        return each.map(|(at, one)| alternative(&format!("{field}[{at}]"), one)).collect();
    }
    if !shape.gpu_alternatives.is_empty() {
        let problem = "is given beside gpu_models or vram_mib_min, which say the same in short";
        return bad(format!("{path}.gpu_alternatives"), problem);
    }
    let vram_min = vram(&format!("{path}.vram_mib_min"), shape.vram_mib_min)?;
    let models = models(&format!("{path}.gpu_models"), &shape.gpu_models)?;
    Ok(vec![GpuAlternative { models, vram_min, ..GpuAlternative::default() }])
}

fn alternative(path: &str, one: &v1::GpuAlternative) -> Taken<GpuAlternative> {
    let able = one.compute_capability_min;
    let field = format!("{path}.compute_capability_min");
    at_most(&field, able.into(), COMPUTE_CAPABILITY_MAX.into())?;
    Ok(GpuAlternative {
        models: models(&format!("{path}.models"), &one.models)?,
        vendor: vendor(one.vendor)
            .map_or_else(|value| unknown(&format!("{path}.vendor"), value), Ok)?,
        vram_min: vram(&format!("{path}.vram_mib_min"), one.vram_mib_min)?,
        compute_capability_min: ComputeCapability(u16::try_from(able).unwrap_or(u16::MAX)),
    })
}

fn models(field: &str, models: &[String]) -> Taken<Vec<scheduler_core::id::Name>> {
    count(field, models.len(), MODELS_MAX)?;
    models.iter().enumerate().map(|(at, text)| name(&format!("{field}[{at}]"), text)).collect()
}

fn vram(field: &str, mib: u32) -> Taken<VramMib> {
    at_most(field, mib.into(), VRAM_MIB_MAX.into())?;
    Ok(VramMib(mib))
}

/// A vendor, `None` where none is told; the value itself where it is unknown.
pub(crate) fn vendor(value: i32) -> Result<Option<Vendor>, i32> {
    match v1::GpuVendor::try_from(value) {
        Ok(v1::GpuVendor::Unspecified) => Ok(None),
        Ok(v1::GpuVendor::Nvidia) => Ok(Some(Vendor::Nvidia)),
        Ok(v1::GpuVendor::Amd) => Ok(Some(Vendor::Amd)),
        Ok(v1::GpuVendor::Intel) => Ok(Some(Vendor::Intel)),
        Ok(v1::GpuVendor::Google) => Ok(Some(Vendor::Google)),
        Ok(v1::GpuVendor::Aws) => Ok(Some(Vendor::Aws)),
        Ok(v1::GpuVendor::Huawei) => Ok(Some(Vendor::Huawei)),
        Ok(v1::GpuVendor::Tenstorrent) => Ok(Some(Vendor::Tenstorrent)),
        Err(_) => Err(value),
    }
}

/// Countable resources; amounts of zero fall away.
pub(crate) fn custom(field: &str, amounts: BTreeMap<String, u64>) -> Taken<Custom> {
    count(field, amounts.len(), CUSTOM_MAX)?;
    let mut named = BTreeMap::new();
    for (at, (text, amount)) in amounts.into_iter().enumerate() {
        named.insert(name(&format!("{field}[{at}].name"), &text)?, amount);
    }
    Ok(named.into())
}
