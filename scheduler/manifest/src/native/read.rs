//! From a parsed file to `JobSpec`.

use super::unit;
use super::walk::Fields;
use crate::finding::{At, Findings};
use crate::mig;
use proto::v1::shape::Gpus;
use proto::v1::{
    Affinity, Disruption, DomainsMax, GpuAlternative, GpuVendor, Group, JobKind, JobSpec,
    Preemption, PreemptionPolicy, Program, Repair, Role, RttObjective, RttScope, Segment, Selector,
    SelectorOperator, Shape, Spread, Strategy, TaintEffect, Toleration, TopologyLevel,
};
use serde_json::Value;

pub(super) const KINDS: [(&str, JobKind); 3] =
    [("ray", JobKind::Ray), ("kubernetes", JobKind::Kubernetes), ("plain", JobKind::Plain)];
pub(super) const STRATEGIES: [(&str, Strategy); 4] = [
    ("pack", Strategy::Pack),
    ("spread", Strategy::Spread),
    ("strict-pack", Strategy::StrictPack),
    ("strict-spread", Strategy::StrictSpread),
];
pub(super) const LEVELS: [(&str, TopologyLevel); 5] = [
    ("region", TopologyLevel::Region),
    ("zone", TopologyLevel::Zone),
    ("site", TopologyLevel::Site),
    ("rack", TopologyLevel::Rack),
    ("node", TopologyLevel::Node),
];
pub(super) const VENDORS: [(&str, GpuVendor); 7] = [
    ("nvidia", GpuVendor::Nvidia),
    ("amd", GpuVendor::Amd),
    ("intel", GpuVendor::Intel),
    ("google", GpuVendor::Google),
    ("aws", GpuVendor::Aws),
    ("huawei", GpuVendor::Huawei),
    ("tenstorrent", GpuVendor::Tenstorrent),
];
pub(super) const SCOPES: [(&str, RttScope); 3] = [
    ("all-pairs", RttScope::AllPairs),
    ("within-groups", RttScope::WithinGroups),
    ("head-to-members", RttScope::HeadToMembers),
];
pub(super) const OBJECTIVES: [(&str, RttObjective); 2] =
    [("diameter", RttObjective::Diameter), ("mean", RttObjective::Mean)];
pub(crate) const POLICIES: [(&str, PreemptionPolicy); 2] =
    [("never", PreemptionPolicy::Never), ("lower-priority", PreemptionPolicy::LowerPriority)];
pub(crate) const DISRUPTIONS: [(&str, Disruption); 3] =
    [("none", Disruption::None), ("single", Disruption::Single), ("all", Disruption::All)];
pub(super) const ROLES: [(&str, Role); 2] = [("worker", Role::Worker), ("head", Role::Head)];
pub(super) const OPERATORS: [(&str, SelectorOperator); 4] = [
    ("in", SelectorOperator::In),
    ("not-in", SelectorOperator::NotIn),
    ("exists", SelectorOperator::Exists),
    ("does-not-exist", SelectorOperator::DoesNotExist),
];
pub(super) const EFFECTS: [(&str, TaintEffect); 2] = [
    ("no-schedule", TaintEffect::NoSchedule),
    ("prefer-no-schedule", TaintEffect::PreferNoSchedule),
];

/// Ways to share a GPU, in the words of the label that tells them.
const SHARINGS: [(&str, &str); 2] = [("time-slicing", "time-slicing"), ("mps", "mps")];
/// The label with which NVIDIA's GPU feature discovery says how a node's GPUs are shared.
const SHARING_KEY: &str = "nvidia.com/gpu.sharing-strategy";

/// The job that a file describes.
pub(super) fn job(value: &Value, f: &mut Findings) -> JobSpec {
    let mut spec = JobSpec::default();
    if let Some(mut fields) = Fields::open("", value, f) {
        fields.need("kind", f);
        fields.need("name", f);
        fields.need("groups", f);
        spec.kind = fields.word("kind", &KINDS, f).unwrap_or_default().into();
        spec.name = fields.text("name", f).unwrap_or_default();
        spec.strategy = fields.word("strategy", &STRATEGIES, f).unwrap_or(Strategy::Pack).into();
        spec.topology_required =
            fields.word("topology_required", &LEVELS, f).unwrap_or_default().into();
        spec.topology_preferred =
            fields.word("topology_preferred", &LEVELS, f).unwrap_or_default().into();
        let rtt = fields.amount("max_rtt", unit::microseconds, f);
        spec.rtt_us_max = fields.bound("max_rtt", rtt, f);
        let duration = fields.amount("duration", unit::seconds, f);
        spec.duration_s = fields.bound("duration", duration, f);
        let price = fields.amount("max_price", |text| unit::decimal(text, 6), f);
        spec.price_micro_usd_max = fields.bound("max_price", price, f);
        spec.program =
            fields.get("program").and_then(|value| program(&fields.at("program"), value, f));
        spec.labels = fields.text_map("labels", f);
        spec.rtt_scope = fields.word("rtt_scope", &SCOPES, f).unwrap_or_default().into();
        spec.rtt_objective = fields.word("minimise", &OBJECTIVES, f).unwrap_or_default().into();
        let total = fields.amount("max_total_price", |text| unit::decimal(text, 6), f);
        spec.price_total_micro_usd_max = fields.bound("max_total_price", total, f);
        let hourly = fields.amount("max_hourly_price", |text| unit::decimal(text, 6), f);
        spec.price_hour_micro_usd_max = fields.bound("max_hourly_price", hourly, f);
        spec.priority = fields.whole("priority", f).unwrap_or_default();
        let path = fields.at("preemption");
        spec.preemption = fields.get("preemption").and_then(|value| preemption(&path, value, f));
        let begin = fields.amount("begin", unit::time, f);
        spec.begin_time_ms = fields.bound("begin", begin, f);
        let deadline = fields.amount("deadline", unit::time, f);
        spec.deadline_time_ms = fields.bound("deadline", deadline, f);
        let least = fields.amount("min_duration", unit::seconds, f);
        spec.duration_s_min = fields.bound("min_duration", least, f);
        let path = fields.at("max_domains");
        spec.domains_max = each(&path, fields.list("max_domains", f), f, domains_max);
        let path = fields.at("affinity");
        spec.affinities = each(&path, fields.list("affinity", f), f, affinity);
        spec.suppliers_denied = fields.texts("suppliers_denied", f);
        spec.compliance = fields.texts("compliance", f);
        let path = fields.at("regions");
        if let Some(mut regions) =
            fields.get("regions").and_then(|value| Fields::open(&path, value, f))
        {
            spec.regions_allowed = regions.texts("allowed", f);
            spec.regions_denied = regions.texts("denied", f);
            regions.end(f);
        }
        let path = fields.at("groups");
        spec.groups = each(&path, fields.list("groups", f), f, group);
        fields.end(f);
    }
    spec
}

fn each<T>(
    path: &str,
    items: &[Value],
    faults: &mut Findings,
    read: impl Fn(&str, &Value, &mut Findings) -> Option<T>,
) -> Vec<T> {
    let at = |index: usize| format!("{path}[{index}]");
    items.iter().enumerate().filter_map(|(index, item)| read(&at(index), item, faults)).collect()
}

fn preemption(path: &str, value: &Value, f: &mut Findings) -> Option<Preemption> {
    let mut fields = Fields::open(path, value, f)?;
    let policy = fields.word("policy", &POLICIES, f).unwrap_or_default().into();
    let disruption = fields.word("disruption", &DISRUPTIONS, f).unwrap_or_default().into();
    fields.end(f);
    Some(Preemption { policy, disruption })
}

fn group(path: &str, value: &Value, f: &mut Findings) -> Option<Group> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("name", f);
    fields.need("replicas", f);
    let name = fields.text("name", f).unwrap_or_default();
    let role = fields.word("role", &ROLES, f).unwrap_or(Role::Worker).into();
    let replicas = fields.count("replicas", f).unwrap_or_default();
    let replicas_min = fields.count("min_replicas", f);
    let replicas_min = fields.bound("min_replicas", replicas_min, f);
    let (replicas, replicas_min) = spares(&mut fields, replicas, replicas_min, f);
    let replicas_max = fields.count("max_replicas", f);
    let replicas_max = fields.bound("max_replicas", replicas_max, f);
    let mut shape = shape(&mut fields, f);
    mig_slices(&mut fields, &mut shape, f);
    let path = fields.at("selectors");
    let mut selectors = each(&path, fields.list("selectors", f), f, selector);
    selectors.extend(sharing(&mut fields, &shape, f));
    let path = fields.at("tolerations");
    let tolerations = each(&path, fields.list("tolerations", f), f, toleration);
    let replicas_per_node_max = fields.count("max_per_node", f);
    let replicas_per_node_max = fields.bound("max_per_node", replicas_per_node_max, f);
    let strategy = fields.word("strategy", &STRATEGIES, f).unwrap_or_default().into();
    let topology_required = fields.word("topology_required", &LEVELS, f).unwrap_or_default();
    let topology_preferred = fields.word("topology_preferred", &LEVELS, f).unwrap_or_default();
    let path = fields.at("segments");
    let segments = each(&path, fields.list("segments", f), f, segment);
    let path = fields.at("spread");
    let spread = each(&path, fields.list("spread", f), f, spread);
    let path = fields.at("max_domains");
    let domains_max = each(&path, fields.list("max_domains", f), f, domains_max);
    let depends_on = fields.texts("depends_on", f);
    let path = fields.at("repair");
    let repair = fields.get("repair").and_then(|value| repair(&path, value, f));
    fields.end(f);
    Some(Group {
        name,
        role,
        replicas,
        replicas_min,
        shape: Some(shape),
        selectors,
        tolerations,
        replicas_max,
        replicas_per_node_max,
        strategy,
        topology_required: topology_required.into(),
        topology_preferred: topology_preferred.into(),
        segments,
        spread,
        depends_on,
        repair,
        domains_max,
    })
}

/// Replicas more than are needed: the group asks for them too, and does without.
fn spares(
    fields: &mut Fields<'_>,
    replicas: u32,
    replicas_min: u32,
    f: &mut Findings,
) -> (u32, u32) {
    let read = fields.count("spares", f);
    let spares = fields.bound("spares", read, f);
    if spares == 0 {
        return (replicas, replicas_min);
    }
    let at = At::of(&fields.at("spares"));
    let Some(all) = replicas.checked_add(spares) else {
        f.fault(&at, "is too large");
        return (replicas, replicas_min);
    };
    let needed = if replicas_min == 0 { replicas } else { replicas_min };
    f.note(&at, format!("read as {all} replicas of which {needed} are needed (min_replicas)"));
    (all, needed)
}

fn repair(path: &str, value: &Value, f: &mut Findings) -> Option<Repair> {
    let mut fields = Fields::open(path, value, f)?;
    let most = fields.count("max_in_flight", f);
    let in_flight_max = fields.bound("max_in_flight", most, f);
    let level = fields.word("level", &LEVELS, f).unwrap_or_default().into();
    let preferred = fields.flag("preferred", f);
    fields.end(f);
    Some(Repair { in_flight_max, level, preferred })
}

/// The fields of a group that say what one replica needs.
fn shape(fields: &mut Fields<'_>, f: &mut Findings) -> Shape {
    let gpus = fields.amount("gpus", gpus, f).flatten();
    let path = fields.at("gpu");
    let gpu_alternatives = each(&path, fields.list("gpu", f), f, alternative);
    Shape {
        gpus,
        gpu_models: fields.texts("gpu_models", f),
        vram_mib_min: fields.amount("min_vram", vram, f).unwrap_or_default(),
        cpu_milli: fields.amount("cpu", unit::cpu, f).unwrap_or_default(),
        memory_mib: fields.amount("memory", unit::mebibytes, f).unwrap_or_default(),
        disk_mib: fields.amount("disk", unit::mebibytes, f).unwrap_or_default(),
        gpu_alternatives,
        bandwidth_up_mbps_min: bandwidth(fields, "min_bandwidth_up", f),
        bandwidth_down_mbps_min: bandwidth(fields, "min_bandwidth_down", f),
        custom: fields.count_map("custom", f),
    }
}

/// Parts of a GPU made with MIG: countable resources that nodes declare.
fn mig_slices(fields: &mut Fields<'_>, shape: &mut Shape, f: &mut Findings) {
    let (at, count_at) = (At::of(&fields.at("mig_profile")), At::of(&fields.at("mig_count")));
    let profile = fields.text("mig_profile", f);
    let count = fields.count("mig_count", f);
    let Some(profile) = profile else {
        if count.is_some() {
            f.fault(&count_at, "is given without mig_profile, which it counts");
        }
        return;
    };
    let resource = match mig::resource(&profile) {
        Ok(resource) => resource,
        Err(why) => return f.fault(&at, why),
    };
    match shape.gpus {
        None => {}
        Some(Gpus::GpuCount(_)) => {
            let problem = "is given beside whole GPUs: a replica takes one or the other; leave out \
                           `gpus`, and say how many parts with `mig_count`";
            return f.fault(&at, problem);
        }
        Some(Gpus::GpuMilli(_)) => {
            return f.fault(&at, "is given beside a share of a GPU: leave out `gpus`");
        }
    }
    let told = !shape.gpu_models.is_empty() || !shape.gpu_alternatives.is_empty();
    if told || shape.vram_mib_min > 0 {
        let problem = "is given beside gpu, gpu_models or min_vram, which are about whole GPUs and \
                       shares; the profile says how much memory a part has";
        return f.fault(&at, problem);
    }
    let count = count.unwrap_or(1);
    if count == 0 {
        return f.fault(&count_at, "is 0; leave it out for 1");
    }
    f.note(&at, format!("counted as {count} of the resource `{resource}` that nodes declare"));
    if shape.custom.insert(resource, count.into()).is_some() {
        f.fault(&at, "is also counted under `custom`");
    }
}

/// How a shared GPU is shared: a label of NVIDIA's feature discovery.
fn sharing(fields: &mut Fields<'_>, shape: &Shape, f: &mut Findings) -> Option<Selector> {
    let policy = fields.word("share_policy", &SHARINGS, f)?;
    let at = At::of(&fields.at("share_policy"));
    if !matches!(shape.gpus, Some(Gpus::GpuMilli(_))) {
        let problem = "is given, but `gpus` asks for no share of a GPU, such as 0.25";
        f.fault(&at, problem);
        return None;
    }
    f.note(&at, format!("read as the selector {SHARING_KEY} = {policy}"));
    let operator = SelectorOperator::In.into();
    Some(Selector { key: SHARING_KEY.to_owned(), operator, values: vec![policy.to_owned()] })
}

fn bandwidth(fields: &mut Fields<'_>, key: &'static str, f: &mut Findings) -> u32 {
    fields.amount(key, unit::bandwidth, f).unwrap_or_default()
}

fn alternative(path: &str, value: &Value, f: &mut Findings) -> Option<GpuAlternative> {
    let mut fields = Fields::open(path, value, f)?;
    let able = fields.amount("min_compute_capability", unit::compute_capability, f);
    let one = GpuAlternative {
        models: fields.texts("models", f),
        vendor: fields.word("vendor", &VENDORS, f).unwrap_or_default().into(),
        vram_mib_min: fields.amount("min_vram", vram, f).unwrap_or_default(),
        compute_capability_min: able.unwrap_or_default(),
    };
    fields.end(f);
    Some(one)
}

fn segment(path: &str, value: &Value, f: &mut Findings) -> Option<Segment> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("level", f);
    fields.need("size", f);
    let level = fields.word("level", &LEVELS, f).unwrap_or_default().into();
    let size = fields.count("size", f).unwrap_or_default();
    let exclusive = fields.flag("exclusive", f);
    fields.end(f);
    Some(Segment { level, size, exclusive })
}

fn spread(path: &str, value: &Value, f: &mut Findings) -> Option<Spread> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("level", f);
    let level = fields.word("level", &LEVELS, f).unwrap_or_default().into();
    let skew_max = fields.count("max_skew", f).unwrap_or(1);
    let preferred = fields.flag("preferred", f);
    fields.end(f);
    Some(Spread { level, skew_max, preferred })
}

fn domains_max(path: &str, value: &Value, f: &mut Findings) -> Option<DomainsMax> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("level", f);
    fields.need("max", f);
    let level = fields.word("level", &LEVELS, f).unwrap_or_default().into();
    let max = fields.count("max", f).unwrap_or_default();
    fields.end(f);
    Some(DomainsMax { level, max })
}

fn affinity(path: &str, value: &Value, f: &mut Findings) -> Option<Affinity> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("level", f);
    let one = Affinity {
        anti: fields.flag("anti", f),
        level: fields.word("level", &LEVELS, f).unwrap_or_default().into(),
        preferred: fields.flag("preferred", f),
        group: fields.text("group", f).unwrap_or_default(),
        with_group: fields.text("with_group", f).unwrap_or_default(),
        with_job_labels: fields.text_map("with_jobs", f),
    };
    fields.end(f);
    Some(one)
}

fn gpus(text: &str) -> Result<Option<Gpus>, String> {
    let wanted = "must be a whole number of GPUs, or a share of one from 0.001 to 0.999";
    let milli = unit::decimal(text, 3).map_err(|why| format!("{wanted}; {why}"))?;
    match milli {
        0 => Ok(None),
        1..1000 => Ok(u32::try_from(milli).ok().map(Gpus::GpuMilli)),
        _ if milli.is_multiple_of(1000) => match u32::try_from(milli / 1000) {
            Ok(count) => Ok(Some(Gpus::GpuCount(count))),
            Err(_) => Err(format!("`{text}` is too large")),
        },
        _ => Err(format!("{wanted}, is {text}")),
    }
}

fn vram(text: &str) -> Result<u32, String> {
    u32::try_from(unit::mebibytes(text)?).map_err(|_| format!("`{text}` is too large"))
}

fn selector(path: &str, value: &Value, f: &mut Findings) -> Option<Selector> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("key", f);
    fields.need("operator", f);
    let key = fields.text("key", f).unwrap_or_default();
    let operator = fields.word("operator", &OPERATORS, f).unwrap_or_default().into();
    let values = fields.texts("values", f);
    fields.end(f);
    Some(Selector { key, operator, values })
}

fn toleration(path: &str, value: &Value, f: &mut Findings) -> Option<Toleration> {
    let mut fields = Fields::open(path, value, f)?;
    let key = fields.text("key", f).unwrap_or_default();
    let value = fields.text("value", f);
    let effect = fields.word("effect", &EFFECTS, f).unwrap_or_default().into();
    fields.end(f);
    Some(Toleration { key, value, effect })
}

fn program(path: &str, value: &Value, f: &mut Findings) -> Option<Program> {
    let mut fields = Fields::open(path, value, f)?;
    fields.need("argv", f);
    let argv = fields.texts("argv", f);
    let program = Program { argv, env: fields.text_map("env", f) };
    fields.end(f);
    Some(program)
}
