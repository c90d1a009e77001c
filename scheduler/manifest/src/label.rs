//! Conditions on node labels, and those among them that say which GPU is wanted.
//!
//! Other systems describe GPUs by labels; here models, vRAM and compute capability are facts of their own.
//! **Invariant:** a condition that cannot be kept exactly is a fault.

use crate::finding::{At, Findings, quote};
use crate::topology;
use proto::v1::{GpuAlternative, GpuVendor, Selector, SelectorOperator};

/// Labels that name a GPU's model.
const MODEL_KEYS: [&str; 5] = [
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "ray.io/accelerator-type",
    "cloud.google.com/gke-accelerator",
    "muster/gpu-model",
];
/// Label with the memory of one GPU in MiB.
const MEMORY_KEY: &str = "nvidia.com/gpu.memory";
/// Label with the whole part of the compute capability.
const MAJOR_KEY: &str = "nvidia.com/gpu.compute.major";
/// Label of nodes with any NVIDIA GPU: asking for one says the same.
const PRESENT_KEY: &str = "nvidia.com/gpu.present";

/// How a label's value is held against values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Operator {
    /// Kubernetes' words.
    pub(crate) const WORDS: [(&'static str, Self); 6] = [
        ("In", Self::In),
        ("NotIn", Self::NotIn),
        ("Exists", Self::Exists),
        ("DoesNotExist", Self::DoesNotExist),
        ("Gt", Self::Gt),
        ("Lt", Self::Lt),
    ];
}

/// What the conditions on a group's nodes come to.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Conditions {
    pub(crate) selectors: Vec<Selector>,
    /// What every GPU must be, as far as labels say it.
    pub(crate) gpu: GpuAlternative,
    /// Whether anything was said about GPUs, and where.
    pub(crate) gpu_at: Option<At>,
}

impl Conditions {
    /// Adds a condition; all must hold.
    pub(crate) fn add(
        &mut self,
        at: &At,
        key: &str,
        operator: Operator,
        values: Vec<String>,
        findings: &mut Findings,
    ) {
        let needs_values = matches!(operator, Operator::In | Operator::NotIn);
        if needs_values && values.is_empty() {
            return findings.fault(at, "needs at least one value");
        }
        if matches!(operator, Operator::Exists | Operator::DoesNotExist) && !values.is_empty() {
            return findings.fault(at, "takes no values");
        }
        if MODEL_KEYS.contains(&key) {
            return self.model(at, operator, values, findings);
        }
        match (key, operator) {
            (MEMORY_KEY | MAJOR_KEY, Operator::Gt) => self.bound(at, key, &values, findings),
            (MEMORY_KEY | MAJOR_KEY, _) => {
                findings.fault(at, format!("{key} can only be bounded from below, with Gt"));
            }
            (PRESENT_KEY, Operator::In) if values == ["true"] => {
                self.gpu_at.get_or_insert_with(|| at.clone());
                findings.note(at, "ignored: asking for a GPU says the same");
            }
            ("kubernetes.io/os" | "beta.kubernetes.io/os", Operator::In) if values == ["linux"] => {
                findings.note(at, "ignored: every node here runs Linux");
            }
            (_, Operator::Gt | Operator::Lt) => {
                findings.fault(at, "is not supported: labels here are not compared as numbers");
            }
            _ => self.select(at, key, operator, values, findings),
        }
    }

    fn select(
        &mut self,
        at: &At,
        key: &str,
        operator: Operator,
        values: Vec<String>,
        findings: &mut Findings,
    ) {
        let own = topology::own_label(key);
        if let Some(own) = own.filter(|own| *own != key) {
            findings.note(at, format!("{} is read as {own}", quote(key)));
        }
        let operator = match operator {
            Operator::In => SelectorOperator::In,
            Operator::NotIn => SelectorOperator::NotIn,
            Operator::Exists => SelectorOperator::Exists,
            _ => SelectorOperator::DoesNotExist,
        };
        let key = own.unwrap_or(key).to_owned();
        self.selectors.push(Selector { key, operator: operator.into(), values });
    }

    fn model(&mut self, at: &At, operator: Operator, values: Vec<String>, findings: &mut Findings) {
        self.gpu_at.get_or_insert_with(|| at.clone());
        match operator {
            Operator::In => {}
            // Any GPU has a model.
            Operator::Exists => return findings.note(at, "ignored: every GPU has a model"),
            _ => {
                let why = "is not supported: GPU models can be asked for, not excluded";
                return findings.fault(at, why);
            }
        }
        let models: Vec<String> = values.iter().map(|value| model_name(value)).collect();
        if models.iter().any(|model| model.contains("-MIG-")) {
            return findings.fault(at, "is not supported: parts of a GPU made with MIG");
        }
        findings.note(at, format!("read as GPU model {}", models.join(" or ")));
        if self.gpu.models.is_empty() {
            self.gpu.models = models;
            return;
        }
        self.gpu.models.retain(|model| models.contains(model));
        if self.gpu.models.is_empty() {
            findings.fault(at, "contradicts another condition on the GPU model");
        }
    }

    fn bound(&mut self, at: &At, key: &str, values: &[String], findings: &mut Findings) {
        let bound = match values {
            [one] => one.parse::<u32>().ok().and_then(|bound| bound.checked_add(1)),
            _ => None,
        };
        let Some(least) = bound else {
            return findings.fault(at, "needs exactly one whole number");
        };
        self.gpu_at.get_or_insert_with(|| at.clone());
        if key == MEMORY_KEY {
            self.gpu.vram_mib_min = self.gpu.vram_mib_min.max(least);
        } else {
            let capability = least.saturating_mul(100);
            self.gpu.compute_capability_min = self.gpu.compute_capability_min.max(capability);
        }
    }
}

/// Whether an alternative says no more than models and vRAM, for which there is a short form.
pub(crate) fn is_short(gpu: &GpuAlternative) -> bool {
    gpu.vendor() == GpuVendor::Unspecified && gpu.compute_capability_min == 0
}

/// A GPU's name as agents write it: `NVIDIA-A100-SXM4-80GB` becomes `A100-SXM4-80GB`.
pub(crate) fn model_name(name: &str) -> String {
    let mut rest = name.trim();
    for brand in ["NVIDIA", "nvidia", "AMD", "GeForce", "Tesla", "tesla", "Instinct"] {
        if let Some(tail) = rest.strip_prefix(brand)
            && let Some(tail) = tail.strip_prefix(['-', ' ', '_'])
        {
            rest = tail;
        }
    }
    let rest = rest.strip_suffix("-SHARED").unwrap_or(rest);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    rest.chars().map(plain).collect()
}

/// A value of a Ray label selector: `v`, `!v`, `in(a,b)`, `!in(a,b)`.
pub(crate) fn ray_condition(text: &str) -> Result<(Operator, Vec<String>), String> {
    let (negated, rest) = match text.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let operator = if negated { Operator::NotIn } else { Operator::In };
    let values: Vec<&str> = match rest.strip_prefix("in(") {
        Some(list) => list
            .strip_suffix(')')
            .ok_or_else(|| format!("{} lacks its closing bracket", quote(text)))?
            .split(',')
            .map(str::trim)
            .collect(),
        None => vec![rest],
    };
    let is_plain = |value: &str| {
        value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    if let Some(bad) = values.iter().find(|value| value.is_empty() || !is_plain(value)) {
        return Err(format!(
            "{} is none of v, !v, in(a,b), !in(a,b): {} is no label value",
            quote(text),
            quote(bad)
        ));
    }
    Ok((operator, values.into_iter().map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ray_selectors() {
        let values = |all: &[&str]| all.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        for (text, operator, wanted) in [
            ("H100", Operator::In, vec!["H100"]),
            ("!H100", Operator::NotIn, vec!["H100"]),
            ("in(a,b)", Operator::In, vec!["a", "b"]),
            ("in(a, b)", Operator::In, vec!["a", "b"]),
            ("!in(a,b)", Operator::NotIn, vec!["a", "b"]),
            ("in", Operator::In, vec!["in"]),
        ] {
            assert_eq!(ray_condition(text), Ok((operator, values(&wanted))), "{text}");
        }
        for bad in ["", "!", "in()", "in(a", "in(a,)", "!!a", "!in(,)", "a b", "in(a)b"] {
            assert!(ray_condition(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn models_are_named_as_agents_name_them() {
        for (label, wanted) in [
            ("NVIDIA-A100-SXM4-80GB", "A100-SXM4-80GB"),
            ("NVIDIA-H100-80GB-HBM3", "H100-80GB-HBM3"),
            ("NVIDIA-GeForce-RTX-4090", "RTX-4090"),
            ("Tesla-T4-SHARED", "T4"),
            ("H100", "H100"),
            ("NVIDIA H100 80GB HBM3", "H100-80GB-HBM3"),
        ] {
            assert_eq!(model_name(label), wanted);
        }
    }
}
