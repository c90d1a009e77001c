//! Jobs, plans and tenants going out, from core to proto.
//!
//! **Invariant:** reads one state and never fails; a job's token and its agents' secrets stay in.

use crate::call::Offer;
use proto::v1;
use scheduler_core::id::{JobId, Name, NodeId, Rank, SiteId};
use scheduler_core::job::{
    Affinity, Condition, Disruption, DomainsMax, GpuAlternative, GpuAsk, GroupSpec, Job, JobKind,
    JobPhase, JobSpec, Level, Preemption, PreemptionPolicy, Reason, ReasonCode, Repair, Replica,
    ReplicaPhase, Role, RttObjective, RttScope, Segment, Selector, Shape, Strategy, Target,
    Toleration,
};
use scheduler_core::node::{Labels, TaintEffect};
use scheduler_core::plan::quote::GroupQuote;
use scheduler_core::state::{PhaseCounts, State, Tenant};
use scheduler_core::unit::{GpuSet, TimeMs};
use std::collections::{BTreeMap, BTreeSet};

/// A job without its spec and places: for lists and acknowledgements.
pub fn job(state: &State, job: &Job) -> v1::Job {
    let counts = state.counts(job.id).map(|counts| counts.total);
    v1::Job {
        id: job.id.0,
        tenant: job.tenant.to_string(),
        request_id: job.request_id.to_string(),
        spec: None,
        phase: phase(job.phase).into(),
        reason: Some(reason(&job.reason)),
        counts: counts.map(replica_counts),
        nodes: 0,
        gpu_milli: 0,
        rtt_us_widest: 0,
        regions: Vec::new(),
        modified_index: job.modified_index,
        submitted_time_ms: job.submitted_at.0,
        placed_time_ms: millis(job.placed_at),
        ready_time_ms: millis(job.ready_at),
        ended_time_ms: millis(job.ended_at),
        name: job.spec.name.to_string(),
        kind: kind(job.spec.kind).into(),
        priority: job.spec.priority.0.into(),
        groups_waiting: Vec::new(),
        preemptions: job.preemptions,
    }
}

/// As [`job`], with what its live replicas hold; walks all replicas.
pub fn job_held(state: &State, found: &Job) -> v1::Job {
    let mut shown = job(state, found);
    let held = Held::of(state, found);
    shown.nodes = held.nodes;
    shown.gpu_milli = held.gpu_milli;
    shown
}

/// As [`job_held`], with spec, regions and widest round trip.
pub fn job_whole(state: &State, found: &Job) -> v1::Job {
    let mut shown = job(state, found);
    let held = Held::of(state, found);
    shown.nodes = held.nodes;
    shown.gpu_milli = held.gpu_milli;
    shown.regions = held.spread.regions(state);
    shown.rtt_us_widest = held.spread.rtt_us_widest(state);
    shown.spec = Some(spec(&found.spec));
    shown.groups_waiting = groups_waiting(state, found);
    shown
}

fn groups_waiting(state: &State, job: &Job) -> Vec<v1::GroupWait> {
    let name = |at: usize| job.spec.groups.get(at).map(|group| group.name.to_string());
    let wait = |(at, others): (usize, Vec<usize>)| v1::GroupWait {
        group: name(at).unwrap_or_default(),
        waits_for: others.into_iter().filter_map(name).collect(),
    };
    state.groups_waiting(job.id).into_iter().map(wait).collect()
}

fn millis(time: Option<TimeMs>) -> u64 {
    time.map_or(0, |time| time.0)
}

/// What the live replicas of a job hold.
struct Held {
    nodes: u32,
    gpu_milli: u64,
    spread: Spread,
}

impl Held {
    fn of(state: &State, job: &Job) -> Self {
        let mut nodes = BTreeSet::new();
        let mut gpu_milli = 0u64;
        for (_, replica) in state.replicas(job.id).filter(|(_, one)| one.phase.is_live()) {
            let Some(allocation) = replica.allocation else { continue };
            nodes.insert(allocation.node);
            gpu_milli += milli_of(allocation.gpus, allocation.share_milli);
        }
        let spread = Spread::of(state, nodes.iter().copied());
        Self { nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX), gpu_milli, spread }
    }
}

fn milli_of(gpus: GpuSet, share_milli: u16) -> u64 {
    match share_milli {
        0 => u64::from(gpus.len()) * 1000,
        share => u64::from(share),
    }
}

/// The sites of a set of nodes.
struct Spread {
    sites: BTreeSet<SiteId>,
}

impl Spread {
    fn of(state: &State, nodes: impl Iterator<Item = NodeId>) -> Self {
        Self { sites: nodes.filter_map(|id| Some(state.node(id)?.site)).collect() }
    }

    fn regions(&self, state: &State) -> Vec<String> {
        let sites = self.sites.iter().filter_map(|&id| state.sites().site(id));
        let regions: BTreeSet<&str> = sites.map(|site| site.region.as_str()).collect();
        regions.into_iter().map(str::to_owned).collect()
    }

    /// Over pairs of different sites; a single site counts with its own inner round trip.
    fn rtt_us_widest(&self, state: &State) -> u32 {
        let sites: Vec<SiteId> = self.sites.iter().copied().collect();
        let pairs = sites
            .iter()
            .enumerate()
            .flat_map(|(at, &a)| sites.iter().skip(at).map(move |&b| (a, b)));
        pairs.filter_map(|(a, b)| state.sites().rtt(a, b)).map(|rtt| rtt.0).max().unwrap_or(0)
    }
}

/// The members of a job from rank `from`, at most `limit`, and the rank after the last one listed
/// if there are more.
pub fn replicas(
    state: &State,
    job: &Job,
    from: u32,
    limit: usize,
) -> (Vec<v1::Replica>, Option<u32>) {
    let mut groups = GroupNames::new(&job.spec);
    let all = state.replicas(job.id).skip_while(|(rank, _)| rank.0 < from);
    let mut listed = Vec::new();
    for (rank, found) in all {
        if listed.len() == limit {
            return (listed, Some(rank.0));
        }
        listed.push(replica(state, groups.of(rank), rank, &found));
    }
    (listed, None)
}

/// Names of groups by rising rank.
struct GroupNames<'a> {
    spec: &'a JobSpec,
    at: usize,
    end: u32,
}

impl<'a> GroupNames<'a> {
    fn new(spec: &'a JobSpec) -> Self {
        Self { spec, at: 0, end: spec.groups.first().map_or(0, GroupSpec::ranks) }
    }

    fn of(&mut self, rank: Rank) -> &'a str {
        while rank.0 >= self.end {
            self.at += 1;
            let Some(group) = self.spec.groups.get(self.at) else { return "" };
            self.end = self.end.saturating_add(group.ranks());
        }
        self.spec.groups.get(self.at).map_or("", |group| group.name.as_str())
    }
}

fn node_name(state: &State, node: NodeId) -> String {
    state.node(node).map_or_else(String::new, |node| node.name.to_string())
}

fn replica(state: &State, group: &str, rank: Rank, replica: &Replica) -> v1::Replica {
    let mut shown = v1::Replica {
        rank: rank.0,
        group: group.to_owned(),
        phase: replica_phase(replica.phase).into(),
        failures: replica.failures.into(),
        ..v1::Replica::default()
    };
    if let Some(allocation) = replica.allocation {
        shown.node_id = allocation.node.0;
        shown.node_name = node_name(state, allocation.node);
        shown.gpus = allocation.gpus.iter().map(u32::from).collect();
        shown.gpu_milli = allocation.share_milli.into();
        shown.bound = true;
    }
    shown
}

/// Where a plan would put a job; at most `limit` replicas from rank `from` on are listed.
pub fn plan(
    state: &State,
    spec: &JobSpec,
    offer: &Offer,
    from: u32,
    limit: usize,
) -> v1::PlanJobResponse {
    let Offer { plan, digest, quote, taken } = offer;
    let mut groups = GroupNames::new(spec);
    let start = plan.placements.partition_point(|one| one.rank.0 < from);
    let listed = plan.placements.iter().skip(start);
    let next = plan.placements.get(start.saturating_add(limit)).map_or(0, |one| one.rank.0);
    let replicas = listed.take(limit).map(|placement| v1::Replica {
        rank: placement.rank.0,
        group: groups.of(placement.rank).to_owned(),
        phase: v1::ReplicaPhase::Waiting.into(),
        node_id: placement.node.0,
        node_name: node_name(state, placement.node),
        gpus: placement.gpus.iter().map(u32::from).collect(),
        gpu_milli: placement.share_milli.into(),
        failures: 0,
        bound: true,
    });
    let group = |(group, quote): (&GroupSpec, &GroupQuote)| v1::GroupPlan {
        group: group.name.to_string(),
        replicas: quote.replicas,
        nodes: quote.nodes,
        gpu_milli: quote.gpu_milli,
        price_micro_usd_per_hour: quote.price_per_hour.0,
    };
    let nodes: BTreeSet<NodeId> = plan.placements.iter().map(|one| one.node).collect();
    v1::PlanJobResponse {
        placeable: true,
        replicas: replicas.collect(),
        replicas_next: next,
        replicas_placeable: u32::try_from(plan.placements.len()).unwrap_or(u32::MAX),
        nodes: quote.nodes,
        nodes_total: u32::try_from(state.nodes_len()).unwrap_or(u32::MAX),
        rtt_us_widest: quote.rtt_widest.0,
        rtt_us_mean: quote.rtt_mean.0,
        rtt_pairs_unknown: quote.pairs_unknown,
        regions: Spread::of(state, nodes.into_iter()).regions(state),
        price_micro_usd_per_hour: quote.price_per_hour.0,
        price_micro_usd_total: quote.price_total.map_or(0, |price| price.0),
        plan_digest: format!("{digest:032x}"),
        groups: spec.groups.iter().zip(&quote.groups).map(group).collect(),
        fragmentation: Some(v1::Fragmentation {
            nodes_whole_before: quote.before.nodes_whole,
            nodes_whole_after: quote.after.nodes_whole,
            gpus_apart_before: quote.before.gpus_apart,
            gpus_apart_after: quote.after.gpus_apart,
        }),
        preempted: taken.as_ref().map(super::explain::preempted),
        ..v1::PlanJobResponse::default()
    }
}

/// A tenant with what it holds.
pub fn tenant(tenant: &Tenant) -> v1::Tenant {
    let quota = tenant.quota;
    v1::Tenant {
        name: tenant.id.to_string(),
        gpu_milli_max: (quota.gpu_milli_max < u64::MAX).then_some(quota.gpu_milli_max),
        pending_jobs_max: Some(quota.pending_jobs_max),
        gpu_milli_used: tenant.gpu_milli_used,
        pending_jobs: tenant.pending_jobs,
        priority_max: Some(quota.priority_max.0.into()),
    }
}

/// A reason.
pub fn reason(reason: &Reason) -> v1::Reason {
    let code = match reason.code {
        ReasonCode::None => v1::ReasonCode::Unspecified,
        ReasonCode::NeverFits => v1::ReasonCode::NeverFits,
        ReasonCode::Busy => v1::ReasonCode::Busy,
        ReasonCode::Network => v1::ReasonCode::Network,
        ReasonCode::Quota => v1::ReasonCode::Quota,
        ReasonCode::Contention => v1::ReasonCode::Contention,
        ReasonCode::Cancelled => v1::ReasonCode::Cancelled,
        ReasonCode::Finished => v1::ReasonCode::Finished,
        ReasonCode::ReplicaFailed => v1::ReasonCode::ReplicaFailed,
        ReasonCode::DurationOver => v1::ReasonCode::DurationOver,
        ReasonCode::NoSuchPool => v1::ReasonCode::NoSuchPool,
        ReasonCode::NotReady => v1::ReasonCode::NotReady,
        ReasonCode::Budget => v1::ReasonCode::Budget,
        ReasonCode::Begin => v1::ReasonCode::Begin,
        ReasonCode::Deadline => v1::ReasonCode::Deadline,
        ReasonCode::Preempted => v1::ReasonCode::Preempted,
    };
    v1::Reason { code: code.into(), message: reason.message.to_string() }
}

fn replica_counts(counts: PhaseCounts) -> v1::ReplicaCounts {
    v1::ReplicaCounts {
        waiting: counts.waiting,
        assigned: counts.assigned,
        starting: counts.starting,
        ready: counts.ready,
        succeeded: counts.succeeded,
        failed: counts.failed,
        released: counts.released,
    }
}

/// A job's phase.
pub fn phase(phase: JobPhase) -> v1::JobPhase {
    match phase {
        JobPhase::Pending => v1::JobPhase::Pending,
        JobPhase::Placed => v1::JobPhase::Placed,
        JobPhase::Starting => v1::JobPhase::Starting,
        JobPhase::Ready => v1::JobPhase::Ready,
        JobPhase::Repairing => v1::JobPhase::Repairing,
        JobPhase::Ended => v1::JobPhase::Ended,
        JobPhase::Failed => v1::JobPhase::Failed,
        JobPhase::Expired => v1::JobPhase::Expired,
    }
}

fn replica_phase(phase: ReplicaPhase) -> v1::ReplicaPhase {
    match phase {
        ReplicaPhase::Waiting => v1::ReplicaPhase::Waiting,
        ReplicaPhase::Assigned => v1::ReplicaPhase::Assigned,
        ReplicaPhase::Starting => v1::ReplicaPhase::Starting,
        ReplicaPhase::Ready => v1::ReplicaPhase::Ready,
        ReplicaPhase::Succeeded => v1::ReplicaPhase::Succeeded,
        ReplicaPhase::Failed => v1::ReplicaPhase::Failed,
        ReplicaPhase::Released => v1::ReplicaPhase::Released,
        // Never listed.
        ReplicaPhase::Absent => v1::ReplicaPhase::Unspecified,
    }
}

fn kind(kind: JobKind) -> v1::JobKind {
    match kind {
        JobKind::Ray => v1::JobKind::Ray,
        JobKind::Kubernetes => v1::JobKind::Kubernetes,
        JobKind::Plain => v1::JobKind::Plain,
    }
}

/// A level, or none.
pub(super) fn level(level: Option<Level>) -> v1::TopologyLevel {
    match level {
        None => v1::TopologyLevel::Unspecified,
        Some(Level::Region) => v1::TopologyLevel::Region,
        Some(Level::Zone) => v1::TopologyLevel::Zone,
        Some(Level::Site) => v1::TopologyLevel::Site,
        Some(Level::Rack) => v1::TopologyLevel::Rack,
        Some(Level::Node) => v1::TopologyLevel::Node,
    }
}

/// A spec as it was asked for.
pub fn spec(spec: &JobSpec) -> v1::JobSpec {
    let rtt_scope = match spec.rtt_scope {
        RttScope::AllPairs => v1::RttScope::AllPairs,
        RttScope::WithinGroups => v1::RttScope::WithinGroups,
        RttScope::HeadToMembers => v1::RttScope::HeadToMembers,
    };
    let rtt_objective = match spec.rtt_objective {
        RttObjective::None => v1::RttObjective::Unspecified,
        RttObjective::Diameter => v1::RttObjective::Diameter,
        RttObjective::Mean => v1::RttObjective::Mean,
    };
    v1::JobSpec {
        name: spec.name.to_string(),
        kind: kind(spec.kind).into(),
        groups: spec.groups.iter().map(|one| group(one, &spec.groups)).collect(),
        strategy: strategy(Some(spec.strategy)).into(),
        topology_required: level(spec.topology_required).into(),
        topology_preferred: level(spec.topology_preferred).into(),
        rtt_us_max: spec.rtt_max.map_or(0, |rtt| rtt.0),
        duration_s: spec.duration.map_or(0, |duration| duration.0 / 1000),
        price_micro_usd_max: spec.price_max.map_or(0, |price| price.0),
        program: Some(v1::Program {
            argv: spec.program.argv.clone(),
            env: spec.program.env.iter().cloned().collect(),
        }),
        labels: labels(&spec.labels),
        rtt_scope: rtt_scope.into(),
        rtt_objective: rtt_objective.into(),
        price_total_micro_usd_max: spec.cost_max.map_or(0, |cost| cost.0),
        affinities: spec.affinities.iter().map(|one| affinity(spec, one)).collect(),
        // These came in as selectors of every group, and are shown as such.
        suppliers_denied: Vec::new(),
        regions_allowed: Vec::new(),
        regions_denied: Vec::new(),
        compliance: Vec::new(),
        priority: spec.priority.0.into(),
        begin_time_ms: millis(spec.begin),
        deadline_time_ms: millis(spec.deadline),
        duration_s_min: spec.duration_min.map_or(0, |least| least.0 / 1000),
        preemption: preemption(spec.preemption),
        price_hour_micro_usd_max: spec.hourly_max.map_or(0, |price| price.0),
        domains_max: spec.domains_max.iter().map(domains_max).collect(),
    }
}

/// A bound on the domains of a level.
pub(super) fn domains_max(bound: &DomainsMax) -> v1::DomainsMax {
    v1::DomainsMax { level: level(Some(bound.level)).into(), max: bound.max }
}

/// Left out where it is the usual one.
fn preemption(of: Preemption) -> Option<v1::Preemption> {
    let policy = match of.policy {
        PreemptionPolicy::Never => v1::PreemptionPolicy::Unspecified,
        PreemptionPolicy::LowerPriority => v1::PreemptionPolicy::LowerPriority,
    };
    let disruption = match of.disruption {
        Disruption::None => v1::Disruption::Unspecified,
        Disruption::Single => v1::Disruption::Single,
        Disruption::All => v1::Disruption::All,
    };
    let shown = v1::Preemption { policy: policy.into(), disruption: disruption.into() };
    (of != Preemption::default()).then_some(shown)
}

fn labels(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// A strategy, or none.
pub(super) fn strategy(strategy: Option<Strategy>) -> v1::Strategy {
    match strategy {
        None => v1::Strategy::Unspecified,
        Some(Strategy::Pack) => v1::Strategy::Pack,
        Some(Strategy::Spread) => v1::Strategy::Spread,
        Some(Strategy::StrictPack) => v1::Strategy::StrictPack,
        Some(Strategy::StrictSpread) => v1::Strategy::StrictSpread,
    }
}

fn affinity(spec: &JobSpec, affinity: &Affinity) -> v1::Affinity {
    let name = |group: u16| {
        let group = spec.groups.get(usize::from(group));
        group.map(|group| group.name.to_string()).unwrap_or_default()
    };
    let (group, with_group, with_job_labels) = match &affinity.target {
        Target::Groups { group, with } => (name(*group), name(*with), labels(&Labels::new())),
        Target::Jobs { group, labels: wanted } => {
            (group.map(name).unwrap_or_default(), String::new(), labels(wanted))
        }
    };
    v1::Affinity {
        anti: affinity.anti,
        level: level(Some(affinity.level)).into(),
        preferred: affinity.preferred,
        group,
        with_group,
        with_job_labels,
    }
}

/// `all` are the groups of the job.
fn group(group: &GroupSpec, all: &[GroupSpec]) -> v1::Group {
    let role = match group.role {
        Role::Worker => v1::Role::Worker,
        Role::Head => v1::Role::Head,
    };
    let rules = &group.rules;
    let segment = |one: &Segment| v1::Segment {
        level: level(Some(one.level)).into(),
        size: one.size,
        exclusive: one.exclusive,
    };
    let spread = |one: &scheduler_core::job::Spread| v1::Spread {
        level: level(Some(one.level)).into(),
        skew_max: one.skew_max,
        preferred: one.preferred,
    };
    let named = |at: &u16| all.get(usize::from(*at)).map(|other| other.name.to_string());
    let depends_on = group.depends_on.iter().filter_map(named);
    let repair = v1::Repair {
        in_flight_max: group.repair.in_flight_max,
        level: level(group.repair.level).into(),
        preferred: group.repair.preferred,
    };
    v1::Group {
        name: group.name.to_string(),
        role: role.into(),
        replicas: group.replicas,
        replicas_min: group.replicas_min,
        shape: Some(shape(&group.shape)),
        selectors: group.selectors.iter().map(selector).collect(),
        tolerations: group.tolerations.iter().map(toleration).collect(),
        replicas_max: group.replicas_max,
        replicas_per_node_max: rules.replicas_per_node_max,
        strategy: strategy(rules.strategy).into(),
        topology_required: level(rules.topology_required).into(),
        topology_preferred: level(rules.topology_preferred).into(),
        segments: rules.segments.iter().map(segment).collect(),
        spread: rules.spread.iter().map(spread).collect(),
        depends_on: depends_on.collect(),
        repair: (group.repair != Repair::default()).then_some(repair),
        domains_max: rules.domains_max.iter().map(domains_max).collect(),
    }
}

fn shape(shape: &Shape) -> v1::Shape {
    let gpus = match shape.gpus {
        GpuAsk::None => None,
        GpuAsk::Whole(count) => Some(v1::shape::Gpus::GpuCount(count.into())),
        GpuAsk::Share(milli) => Some(v1::shape::Gpus::GpuMilli(milli.into())),
    };
    let names = |names: &[Name]| names.iter().map(ToString::to_string).collect();
    // One plain alternative is shown in its short form.
    let (short, long) = match shape.alternatives.as_slice() {
        [one] if one.is_short() => (Some(one), &[][..]),
        all => (None, all),
    };
    let alternative = |one: &GpuAlternative| v1::GpuAlternative {
        models: names(&one.models),
        vendor: super::node::shown_vendor(one.vendor).into(),
        vram_mib_min: one.vram_min.0,
        compute_capability_min: one.compute_capability_min.0.into(),
    };
    v1::Shape {
        gpus,
        gpu_models: short.map(|one| names(&one.models)).unwrap_or_default(),
        vram_mib_min: short.map_or(0, |one| one.vram_min.0),
        cpu_milli: shape.cpu.0,
        memory_mib: shape.memory.0,
        disk_mib: shape.disk.0,
        gpu_alternatives: long.iter().map(alternative).collect(),
        bandwidth_up_mbps_min: shape.bandwidth_up_min.0,
        bandwidth_down_mbps_min: shape.bandwidth_down_min.0,
        custom: super::node::shown_custom(&shape.custom),
    }
}

/// A selector.
pub(super) fn selector(selector: &Selector) -> v1::Selector {
    let texts = |values: &[std::sync::Arc<str>]| values.iter().map(ToString::to_string).collect();
    let (operator, values) = match &selector.condition {
        Condition::In(values) => (v1::SelectorOperator::In, texts(values)),
        Condition::NotIn(values) => (v1::SelectorOperator::NotIn, texts(values)),
        Condition::Exists => (v1::SelectorOperator::Exists, Vec::new()),
        Condition::DoesNotExist => (v1::SelectorOperator::DoesNotExist, Vec::new()),
    };
    v1::Selector { key: selector.key.to_string(), operator: operator.into(), values }
}

fn toleration(toleration: &Toleration) -> v1::Toleration {
    let effect = match toleration.effect {
        None => v1::TaintEffect::Unspecified,
        Some(TaintEffect::NoSchedule) => v1::TaintEffect::NoSchedule,
        Some(TaintEffect::PreferNoSchedule) => v1::TaintEffect::PreferNoSchedule,
    };
    v1::Toleration {
        key: toleration.key.to_string(),
        value: toleration.value.as_ref().map(ToString::to_string),
        effect: effect.into(),
    }
}

/// The job with this id, if it is there and the caller may see it.
pub fn find<'a>(
    state: &'a State,
    id: JobId,
    caller: &crate::auth::Caller,
) -> Option<&'a std::sync::Arc<Job>> {
    state.job(id).filter(|job| caller.sees_tenant(&job.tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_way_in_and_out() {
        let mut sent = crate::convert::job::tests::good();
        sent.rtt_us_max = 5_000;
        sent.duration_s = 60;
        sent.labels.insert("app".to_owned(), "train".to_owned());
        sent.regions_denied = vec!["mars".to_owned()];
        sent.rtt_objective = v1::RttObjective::Diameter.into();
        let shape = sent.groups[0].shape.as_mut().expect("has one");
        shape.custom.insert("licence".to_owned(), 2);
        shape.bandwidth_up_mbps_min = 100;
        let mut other = sent.groups[0].clone();
        other.name = "others".to_owned();
        let shape = other.shape.as_mut().expect("has one");
        shape.gpu_models.clear();
        let vendors = [v1::GpuVendor::Nvidia, v1::GpuVendor::Amd];
        shape.gpu_alternatives = vendors
            .map(|vendor| v1::GpuAlternative {
                vendor: vendor.into(),
                compute_capability_min: 809,
                ..v1::GpuAlternative::default()
            })
            .to_vec();
        sent.groups.push(other);
        let taken = crate::convert::job::spec("spec", Some(sent)).expect("is good");
        let again = crate::convert::job::spec("spec", Some(spec(&taken))).expect("is good");
        assert_eq!(taken, again);
    }
}
