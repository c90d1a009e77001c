//! Ray's placement group, as the arguments of `ray.util.placement_group` written down.
//!
//! ```yaml
//! bundles: [{GPU: 8, CPU: 16}, {GPU: 8, CPU: 16}]
//! strategy: STRICT_SPREAD
//! name: trainers
//! bundle_label_selector: [{ray.io/accelerator-type: H100}, {ray.io/accelerator-type: H100}]
//! ```
//!
//! **Invariant:** rank `i` of the job is bundle `i`, unless a note says otherwise; STRICT_PACK is one node; no strategy is PACK.

use crate::decode::{Rest, Scalar, Verdict, decode, word};
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::kubernetes::finish_group;
use crate::label::{Conditions, ray_condition};
use crate::quantity::Quantity;
use crate::shape::{self, Amounts};
use crate::topology;
use proto::v1;
use proto::v1::shape::Gpus;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Label of Ray that means a single node.
const NODE_LABEL: &str = "ray.io/node-id";
/// Name of a job whose placement group has none.
const NAME: &str = "placement-group";
/// Custom resources that stand for a GPU's model, in small parts of one.
const ACCELERATOR: &str = "accelerator_type:";

/// What becomes of fields that the struct below does not name.
const REST: Rest = &[
    (
        "PlacementGroup",
        &["fallback_strategy"],
        Verdict::Refused("give alternatives in one selector, as in in(H100,A100)"),
    ),
    ("PlacementGroup", &["ray_namespace"], Verdict::Ignored("the tenant follows from the token")),
];

/// Amounts by the name of their resource.
type Bundle = BTreeMap<String, Scalar>;
/// Conditions by label.
type LabelSelector = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PlacementGroup {
    bundles: Vec<Bundle>,
    strategy: Option<String>,
    name: Option<String>,
    lifetime: Option<String>,
    #[serde(rename = "_soft_target_node_id")]
    soft_target_node_id: Option<String>,
    bundle_label_selector: Option<Vec<LabelSelector>>,
    topology_strategy: Option<BTreeMap<String, String>>,
}

const STRATEGIES: [(&str, v1::Strategy); 4] = [
    ("PACK", v1::Strategy::Pack),
    ("SPREAD", v1::Strategy::Spread),
    ("STRICT_PACK", v1::Strategy::StrictPack),
    ("STRICT_SPREAD", v1::Strategy::StrictSpread),
];

/// Most groups that a job may have.
const GROUPS_MAX: usize = 64;

/// Whether a document has the shape of a placement group.
pub(crate) fn is_one(value: &Value) -> bool {
    value.get("bundles").is_some() && value.get("apiVersion").is_none()
}

/// Reads a placement group.
pub(crate) fn read(document: &Document, findings: &mut Findings) -> v1::JobSpec {
    let at = &document.at;
    let read: PlacementGroup = decode(at, &document.value, &[REST], findings);
    let mut spec = v1::JobSpec {
        name: read.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| NAME.to_owned()),
        kind: v1::JobKind::Ray.into(),
        ..v1::JobSpec::default()
    };
    strategy(at, &read, &mut spec, findings);
    if let Some(lifetime) = &read.lifetime {
        // Detached or not: a job here ends when it is cancelled.
        word(&at.field("lifetime"), lifetime, &[("detached", ())], findings);
    }
    if read.soft_target_node_id.is_some() {
        let at = at.field("_soft_target_node_id");
        if spec.strategy() == v1::Strategy::StrictPack {
            findings.note(&at, "ignored: a hint, and Ray's node ids mean nothing here");
        } else {
            findings.fault(&at, "is only allowed with STRICT_PACK");
        }
    }
    spec.groups = groups(at, &read, findings);
    if spec.groups.len() > GROUPS_MAX {
        let at = at.field("bundles");
        let said = format!(
            "more than {GROUPS_MAX} rows of like bundles: ranks do not follow bundles' indexes"
        );
        findings.note(&at, said);
        spec.groups = by_kind(std::mem::take(&mut spec.groups)).unwrap_or_else(|| {
            findings.fault(&at, format!("are of more than {GROUPS_MAX} kinds"));
            Vec::new()
        });
    }
    spec
}

fn strategy(at: &At, read: &PlacementGroup, spec: &mut v1::JobSpec, findings: &mut Findings) {
    let mut own = v1::Strategy::Pack;
    if let Some(text) = &read.strategy {
        own = word(&at.field("strategy"), text, &STRATEGIES, findings).unwrap_or(own);
    }
    let at = at.field("topology_strategy");
    if let Some(by_label) = &read.topology_strategy {
        if read.strategy.is_some() {
            findings.fault(&at, "must not come with strategy");
        }
        let labels = by_label.keys().filter(|label| *label != NODE_LABEL).count();
        if labels > 1 {
            findings.fault(
                &at,
                format!("has {labels} labels beside {NODE_LABEL}; at most 1 is allowed"),
            );
        }
        for (label, text) in by_label {
            let at = at.field(label);
            let Some(strategy) = word(&at, text, &STRATEGIES, findings) else { continue };
            if label == NODE_LABEL {
                own = strategy;
            } else if strategy != v1::Strategy::StrictPack {
                findings.fault(&at, "must be STRICT_PACK: Ray takes no other on a label");
            } else if let Some(level) = topology::level_at(&at, label, findings) {
                match level {
                    v1::TopologyLevel::Node => own = v1::Strategy::StrictPack,
                    level => spec.topology_required = level.into(),
                }
            }
        }
    }
    spec.strategy = own.into();
}

/// Bundles in order; those in a row that are alike become one group.
fn groups(at: &At, read: &PlacementGroup, findings: &mut Findings) -> Vec<v1::Group> {
    let at_bundles = at.field("bundles");
    if read.bundles.is_empty() {
        findings.fault(&at_bundles, "needs at least one bundle");
    }
    let selectors = read.bundle_label_selector.as_deref().unwrap_or_default();
    let at_selectors = at.field("bundle_label_selector");
    if read.bundle_label_selector.is_some() && selectors.len() != read.bundles.len() {
        let problem = format!(
            "has {} selectors for {} bundles: one for each is needed",
            selectors.len(),
            read.bundles.len()
        );
        findings.fault(&at_selectors, problem);
    }
    let mut groups: Vec<v1::Group> = Vec::new();
    // What a row of equal bundles was read as: notes are told once, and long lists stay quick.
    let mut last: Option<(&Bundle, Option<&LabelSelector>)> = None;
    for (index, bundle) in read.bundles.iter().enumerate() {
        let selector = selectors.get(index);
        if last == Some((bundle, selector))
            && let Some(group) = groups.last_mut()
        {
            group.replicas = group.replicas.saturating_add(1);
            continue;
        }
        last = Some((bundle, selector));
        let at_selector = at_selectors.index(index);
        let mut conditions = Conditions::default();
        for (key, text) in selector.into_iter().flatten() {
            let at = at_selector.field(key);
            match ray_condition(text) {
                Ok((operator, values)) => conditions.add(&at, key, operator, values, findings),
                Err(why) => findings.fault(&at, why),
            }
        }
        let shape = bundle_shape(&at_bundles.index(index), bundle, &mut conditions, findings);
        groups.push(finish_group(v1::Group {
            name: format!("bundle-{index}"),
            replicas: 1,
            shape: Some(shape),
            selectors: conditions.selectors,
            ..v1::Group::default()
        }));
    }
    groups
}

/// Groups of like bundles put together, wherever they stand; `None` = still more than a job may have.
fn by_kind(groups: Vec<v1::Group>) -> Option<Vec<v1::Group>> {
    let mut kinds: Vec<v1::Group> = Vec::new();
    for group in groups {
        let full = kinds.len() == GROUPS_MAX;
        let same = kinds
            .iter_mut()
            .find(|kind| kind.shape == group.shape && kind.selectors == group.selectors);
        match same {
            Some(kind) => kind.replicas = kind.replicas.saturating_add(group.replicas),
            None if full => return None,
            None => kinds.push(group),
        }
    }
    Some(kinds)
}

fn bundle_shape(
    at: &At,
    bundle: &Bundle,
    conditions: &mut Conditions,
    findings: &mut Findings,
) -> v1::Shape {
    let mut amounts = Amounts::new();
    let mut gpus = None;
    for (name, text) in bundle {
        let at = at.field(name);
        let amount = match Quantity::parse(&text.0) {
            Ok(amount) => amount,
            Err(why) => {
                findings.fault(&at, why);
                continue;
            }
        };
        match name.as_str() {
            "CPU" => drop(amounts.insert("cpu".to_owned(), (amount, at))),
            "GPU" => gpus = gpus_of(&at, amount, findings),
            // Both are parts of a machine's memory, in bytes.
            "memory" | "object_store_memory" => {
                if name == "object_store_memory" && !amount.is_zero() {
                    findings.note(&at, "counted as memory");
                }
                let (sum, _) = amounts
                    .entry("memory".to_owned())
                    .or_insert_with(|| (Quantity::default(), at.clone()));
                *sum = sum.saturating_add(amount);
            }
            _ if name.starts_with("node:") => findings.fault(
                &at,
                "is not supported: Ray's names of nodes mean nothing here; select labels instead",
            ),
            _ => match name.strip_prefix(ACCELERATOR) {
                Some(model) => {
                    let values = vec![model.to_owned()];
                    let operator = crate::label::Operator::In;
                    conditions.add(&at, "ray.io/accelerator-type", operator, values, findings);
                }
                None => drop(amounts.insert(name.clone(), (amount, at))),
            },
        }
    }
    if bundle.is_empty()
        || bundle.values().all(|text| Quantity::parse(&text.0).is_ok_and(Quantity::is_zero))
    {
        findings.fault(at, "is empty: a bundle needs at least one resource");
    }
    let devices = gpus.map(|gpus| shape::Devices { gpus: Some(gpus), alternatives: Vec::new() });
    shape::shape(at, &amounts, conditions, devices.as_ref(), findings)
}

/// Whole GPUs, or a share of one.
fn gpus_of(at: &At, amount: Quantity, findings: &mut Findings) -> Option<Gpus> {
    let Some((milli, exact)) = amount.milli() else {
        findings.fault(at, "is too large");
        return None;
    };
    if !exact {
        findings.note(at, format!("rounded up to {milli}/1000"));
    }
    match (milli, u32::try_from(milli)) {
        (0, _) => None,
        (1..1000, Ok(share)) => Some(Gpus::GpuMilli(share)),
        (_, Ok(milli)) if milli.is_multiple_of(1000) => Some(Gpus::GpuCount(milli / 1000)),
        _ => {
            let problem =
                format!("must be whole or less than one, is {}", quote(&format!("{milli}/1000")));
            findings.fault(at, problem);
            None
        }
    }
}
