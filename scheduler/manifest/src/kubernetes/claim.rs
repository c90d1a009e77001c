//! Devices claimed through Kubernetes' dynamic resource allocation, where they are GPUs.
//!
//! **Invariant:** only expressions whose meaning is certain are understood; any other is a fault.

use super::pod::{Metadata, Object, PodClaim};
use crate::decode::{Rest, Verdict, decode};
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::label::model_name;
use crate::quantity::Quantity;
use crate::shape::Devices;
use proto::v1::shape::Gpus;
use proto::v1::{GpuAlternative, GpuVendor};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Device classes that are whole GPUs, by whose they are, with the name of their driver.
const CLASSES: [(&str, GpuVendor); 3] = [
    ("gpu.nvidia.com", GpuVendor::Nvidia),
    ("gpu.amd.com", GpuVendor::Amd),
    ("gpu.intel.com", GpuVendor::Intel),
];

/// What becomes of fields that the structs below do not name.
const REST: Rest = &[
    (
        "Claims",
        &["config"],
        Verdict::Ignored("for the driver that prepares the device, it steers no placement"),
    ),
    (
        "Claims",
        &["constraints"],
        Verdict::Refused("the GPUs of one replica are of one model and one node, no more is kept"),
    ),
    (
        "Exactly",
        &["adminAccess", "capacity", "tolerations"],
        Verdict::Refused("only whole GPUs are claimed"),
    ),
    (
        "Request",
        &["deviceClassName", "selectors", "allocationMode", "count"],
        Verdict::Refused("of an older version: put it below `exactly`"),
    ),
];

type ClaimDocument = Object<ClaimSpec>;

type TemplateDocument = Object<TemplateSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateSpec {
    #[serde(rename = "metadata")]
    _metadata: Metadata,
    spec: ClaimSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimSpec {
    devices: Claims,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    requests: Vec<Request>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Request {
    #[serde(rename = "name")]
    _name: String,
    exactly: Option<Exactly>,
    first_available: Vec<Exactly>,
}

/// One way to fulfil a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Exactly {
    #[serde(rename = "name")]
    _name: String,
    device_class_name: String,
    selectors: Vec<DeviceSelector>,
    allocation_mode: Option<String>,
    count: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DeviceSelector {
    cel: Cel,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Cel {
    expression: String,
}

/// Claims of a file by the name of their template or of themselves.
#[derive(Default)]
pub(crate) struct Known {
    templates: BTreeMap<String, Devices>,
    claims: BTreeMap<String, At>,
}

impl Known {
    /// Reads a `ResourceClaimTemplate`.
    pub(super) fn template(&mut self, document: &Document, findings: &mut Findings) {
        let at = &document.at;
        let rest = [REST, super::pod::REST];
        let read: TemplateDocument = decode(at, &document.value, &rest, findings);
        let at = at.down(&["spec", "spec", "devices", "requests"]);
        let devices = devices(&at, &read.spec.spec.devices.requests, findings);
        self.templates.insert(read.metadata.name.unwrap_or_default(), devices);
    }

    /// Reads a `ResourceClaim`: devices that several pods would share.
    pub(super) fn claim(&mut self, document: &Document, findings: &mut Findings) {
        let at = &document.at;
        let rest = [REST, super::pod::REST];
        let read: ClaimDocument = decode(at, &document.value, &rest, findings);
        let requests = at.down(&["spec", "devices", "requests"]);
        devices(&requests, &read.spec.devices.requests, findings);
        self.claims.insert(read.metadata.name.unwrap_or_default(), at.clone());
    }

    /// What the claims of a pod come to.
    pub(super) fn of_pod(
        &self,
        at: &At,
        claims: &[PodClaim],
        findings: &mut Findings,
    ) -> Option<Devices> {
        let mut found = None;
        for (index, claim) in claims.iter().enumerate() {
            let at = at.index(index);
            if claim.resource_claim_name.is_some() {
                let at = at.field("resourceClaimName");
                let why = "is not supported: devices shared by several replicas; \
                           use resourceClaimTemplateName";
                findings.fault(&at, why);
                continue;
            }
            let at = at.field("resourceClaimTemplateName");
            let Some(name) = claim.resource_claim_template_name.as_deref() else {
                findings.fault(&at, "missing");
                continue;
            };
            match self.templates.get(name) {
                None => findings.fault(
                    &at,
                    format!("no ResourceClaimTemplate {} stands in this text", quote(name)),
                ),
                Some(_) if found.is_some() => {
                    findings.fault(&at, "is not supported: more than one claim for one pod");
                }
                Some(devices) => found = Some(devices.clone()),
            }
        }
        found
    }
}

fn devices(at: &At, requests: &[Request], findings: &mut Findings) -> Devices {
    let [request] = requests else {
        findings.fault(at, format!("must be exactly one request, are {}", requests.len()));
        return Devices::default();
    };
    let at = at.index(0);
    let ways: Vec<(At, &Exactly)> = match (&request.exactly, request.first_available.as_slice()) {
        (Some(exactly), []) => vec![(at.field("exactly"), exactly)],
        (None, ways @ [_, ..]) => {
            let at = at.field("firstAvailable");
            ways.iter().enumerate().map(|(index, way)| (at.index(index), way)).collect()
        }
        _ => {
            findings.fault(&at, "needs either `exactly` or `firstAvailable`");
            return Devices::default();
        }
    };
    let mut count = None;
    let mut alternatives = Vec::new();
    for (at, way) in ways {
        let asked = way.count.unwrap_or(1);
        match count {
            None => count = Some(asked),
            Some(first) if first != asked => findings.fault(
                &at.field("count"),
                format!(
                    "is not supported: {asked} beside {first}: all alternatives have one count"
                ),
            ),
            Some(_) => {}
        }
        alternatives.push(alternative(&at, way, findings));
    }
    Devices { gpus: count.map(Gpus::GpuCount), alternatives }
}

fn alternative(at: &At, way: &Exactly, findings: &mut Findings) -> GpuAlternative {
    let class = CLASSES.iter().find(|(name, _)| *name == way.device_class_name);
    let mut gpu = GpuAlternative::default();
    match class {
        Some((_, vendor)) => gpu.vendor = (*vendor).into(),
        None => findings.fault(
            &at.field("deviceClassName"),
            format!(
                "{} is no class of whole GPUs known here: gpu.nvidia.com, gpu.amd.com, gpu.intel.com",
                quote(&way.device_class_name)
            ),
        ),
    }
    if way.allocation_mode.as_deref().is_some_and(|mode| mode != "ExactCount") {
        findings.fault(&at.field("allocationMode"), "must be ExactCount");
    }
    for (index, selector) in way.selectors.iter().enumerate() {
        let at = at.field("selectors").index(index).down(&["cel", "expression"]);
        for condition in selector.cel.expression.split("&&") {
            if let Err(why) = condition_on(&mut gpu, condition.trim()) {
                findings.fault(&at, why);
            }
        }
    }
    gpu
}

/// Understands one comparison of a CEL expression.
fn condition_on(gpu: &mut GpuAlternative, condition: &str) -> Result<(), String> {
    let not_understood = || {
        format!(
            "{} is not supported; understood are productName == '…', productName in ['…'], \
             memory.compareTo(quantity('40Gi')) >= 0 and \
             cudaComputeCapability.compareTo(semver('9.0.0')) >= 0, joined by &&",
            quote(condition)
        )
    };
    let domains = CLASSES.iter().map(|(name, _)| *name);
    let fact = domains
        .flat_map(|name| {
            ["attributes", "capacity"].into_iter().flat_map(move |kind| {
                ["'", "\""].map(|mark| (kind, format!("device.{kind}[{mark}{name}{mark}].")))
            })
        })
        .find_map(|(kind, start)| condition.strip_prefix(&start).map(|rest| (kind, rest)));
    let (kind, rest) = fact.ok_or_else(not_understood)?;
    if let ("attributes", Some(rest)) = (kind, rest.strip_prefix("productName")) {
        let names = match rest.trim_start().strip_prefix("in") {
            Some(list) => {
                let list = list.trim().strip_prefix('[').and_then(|list| list.strip_suffix(']'));
                list.ok_or_else(not_understood)?.split(',').collect()
            }
            None => vec![rest.trim_start().strip_prefix("==").ok_or_else(not_understood)?],
        };
        let mut models = Vec::new();
        for name in names {
            models.push(model_name(text(name).ok_or_else(not_understood)?));
        }
        // All conditions must hold: of several lists, what they have in common.
        if !gpu.models.is_empty() {
            models.retain(|model| gpu.models.contains(model));
        }
        if models.is_empty() {
            return Err("contradicts another condition on productName".to_owned());
        }
        gpu.models = models;
        return Ok(());
    }
    if let ("capacity", Some(rest)) = (kind, rest.strip_prefix("memory")) {
        let amount = at_least(rest, "quantity").ok_or_else(not_understood)?;
        let (mib, _) = Quantity::parse(amount)?.mebibytes().ok_or_else(not_understood)?;
        let least = u32::try_from(mib).map_err(|_| not_understood())?;
        gpu.vram_mib_min = gpu.vram_mib_min.max(least);
        return Ok(());
    }
    if let ("attributes", Some(rest)) = (kind, rest.strip_prefix("cudaComputeCapability")) {
        let version = at_least(rest, "semver").ok_or_else(not_understood)?;
        let mut parts = version.split('.').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor @ 0..=99))) = (parts.next(), parts.next()) else {
            return Err(not_understood());
        };
        let least =
            major.checked_mul(100).and_then(|m| m.checked_add(minor)).ok_or_else(not_understood)?;
        gpu.compute_capability_min = gpu.compute_capability_min.max(least);
        return Ok(());
    }
    Err(not_understood())
}

/// The amount of `.compareTo(FUNCTION('AMOUNT')) >= 0`.
fn at_least<'a>(rest: &'a str, function: &str) -> Option<&'a str> {
    let rest = rest.strip_prefix(".compareTo(")?.trim_start().strip_prefix(function)?;
    let (amount, rest) = rest.strip_prefix('(')?.split_once(')')?;
    let zero = rest.trim_start().strip_prefix(')')?.trim_start().strip_prefix(">=")?;
    (zero.trim() == "0").then(|| text(amount))?
}

/// A text between quotation marks.
fn text(quoted: &str) -> Option<&str> {
    let quoted = quoted.trim();
    let inner = |mark: char| quoted.strip_prefix(mark)?.strip_suffix(mark);
    inner('\'')
        .or_else(|| inner('"'))
        .filter(|text| !text.is_empty() && !text.contains(['\'', '"']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_are_understood() {
        let mut gpu = GpuAlternative::default();
        for condition in [
            "device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100 80GB HBM3'",
            "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0",
            "device.attributes[\"gpu.nvidia.com\"].cudaComputeCapability.compareTo(semver('8.9.0')) >= 0",
        ] {
            condition_on(&mut gpu, condition).expect(condition);
        }
        assert_eq!(gpu.models, ["H100-80GB-HBM3"]);
        assert_eq!((gpu.vram_mib_min, gpu.compute_capability_min), (40_960, 809));
        let mut gpu = GpuAlternative::default();
        let either = "device.attributes['gpu.nvidia.com'].productName in ['A', 'B']";
        condition_on(&mut gpu, either).expect(either);
        assert_eq!(gpu.models, ["A", "B"]);
    }

    #[test]
    fn any_other_expression_is_refused() {
        for bad in [
            "",
            "true",
            "device.attributes['gpu.nvidia.com'].productName != 'A'",
            "device.attributes['gpu.nvidia.com'].productName == 'A' || true",
            "!device.attributes['gpu.nvidia.com'].productName == 'A'",
            "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) > 0",
            "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 01",
            "device.attributes['gpu.nvidia.com'].uuid == 'A'",
            "device.attributes['other.com'].productName == 'A'",
            "device.attributes['gpu.nvidia.com'].cudaComputeCapability.compareTo(semver('9')) >= 0",
        ] {
            assert!(condition_on(&mut GpuAlternative::default(), bad).is_err(), "{bad}");
        }
    }
}
