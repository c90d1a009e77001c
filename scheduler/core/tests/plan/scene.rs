//! Tiny random fleets, with jobs on them, and requests that use every field.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::command::{Command, NodeTransition, SiteRtt};
use scheduler_core::fixture::entry::{
    TENANT, World, gpu_spec, group, job_spec, name, node_spec, tenant,
};
use scheduler_core::fixture::fleet::submission;
use scheduler_core::id::Name;
use scheduler_core::job::{
    Affinity, Condition, DomainsMax, GpuAlternative, GpuAsk, GroupSpec, JobSpec, Level, Role,
    RttObjective, RttScope, Segment, Selector, Spread, Strategy, Target, Toleration,
};
use scheduler_core::node::{
    Custom, Eligibility, GpuSpec, Labels, NodeSpec, NodeStatus, Taint, TaintEffect, Vendor,
};
use scheduler_core::plan::{Budget, Policy, Request, find};
use scheduler_core::unit::{
    BandwidthMbps, ComputeCapability, CostMicroUsd, CpuMilli, DiskMib, DurationMs, MemoryMib,
    PriceMicroUsd, RttUs, VramMib,
};
use scheduler_core::validate;
use scheduler_core::view::View;
use std::collections::BTreeMap;

const SITES: usize = 4;
pub(crate) const LEVELS: [Level; 4] = [Level::Region, Level::Zone, Level::Site, Level::Rack];
const ALL_LEVELS: [Level; 5] = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];
const STRATEGIES: [Strategy; 4] =
    [Strategy::Pack, Strategy::Spread, Strategy::StrictPack, Strategy::StrictSpread];

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) rng: StdRng,
}

/// How big.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) nodes_max: usize,
    pub(crate) gpus_max: usize,
    pub(crate) replicas_max: u32,
    /// Jobs that are there before.
    pub(crate) jobs_max: usize,
}

/// Small enough that every way can be tried.
pub(crate) const TINY: Size = Size { nodes_max: 4, gpus_max: 3, replicas_max: 4, jobs_max: 3 };
/// Large enough that gangs cross racks, sites and regions.
pub(crate) const SMALL: Size = Size { nodes_max: 60, gpus_max: 8, replicas_max: 40, jobs_max: 12 };

fn one_in(rng: &mut StdRng, parts: u32) -> bool {
    rng.random_range(0..parts) == 0
}

fn pick<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

impl Scene {
    pub(crate) fn new(seed: u64, size: Size) -> Self {
        let mut scene = Self { world: World::new(), rng: StdRng::seed_from_u64(seed) };
        for number in 0..scene.rng.random_range(1..=size.nodes_max) {
            scene.join(number, size);
        }
        scene.tell_rtts();
        for number in 0..scene.rng.random_range(0..=size.jobs_max) {
            let few = Size { replicas_max: 2, ..size };
            let spec = scene.spec(few);
            let around = scene.world.state.around(&tenant(TENANT), &spec, None);
            let request = Request { around: &around, ..Request::whole(&spec) };
            let view = View::new(&scene.world.state);
            let plan = find(&view, &request, &Policy::BestFit, Budget::default());
            if let Some(plan) = plan {
                scene.world.done(submission(&format!("before-{number}"), spec, Some(plan)));
            }
        }
        scene
    }

    /// A random node joins; a few are then cordoned or lost.
    pub(crate) fn join(&mut self, number: usize, size: Size) {
        let spec = node(number, size, &mut self.rng);
        let (node, epoch) = self.world.join(spec);
        if one_in(&mut self.rng, 12) {
            let eligibility = pick(&mut self.rng, &[Eligibility::Cordoned, Eligibility::Draining]);
            self.world.done(Command::SetEligibility { node, eligibility });
        } else if one_in(&mut self.rng, 15) {
            let status = NodeStatus::Down;
            self.world.done(Command::NodeStatuses(vec![NodeTransition { node, epoch, status }]));
        }
    }

    /// Some pairs stay unknown, some sites are slow inside.
    fn tell_rtts(&mut self) {
        let mut told = Vec::new();
        for a in 0..SITES {
            for b in 0..=a {
                let median = RttUs(self.rng.random_range(1..6) * 1_000);
                let mut one = SiteRtt::told(site(a), site(b), median);
                one.rtt_high = RttUs(median.0 + self.rng.random_range(0..2) * 1_000);
                let known = |name: &Name| self.world.state.sites().find(name).is_some();
                let skipped = if a == b { 3 } else { 8 };
                if known(&one.a) && known(&one.b) && !one_in(&mut self.rng, skipped) {
                    told.push(one);
                }
            }
        }
        if !told.is_empty() {
            self.world.done(Command::SetSiteRtts(told));
        }
    }

    /// A request that the state would take.
    pub(crate) fn spec(&mut self, size: Size) -> JobSpec {
        loop {
            let mut spec = wild(size, &mut self.rng);
            self.only_known_models(&mut spec);
            if validate::job(&spec).is_ok() {
                return spec;
            }
        }
    }

    /// Any request, whether or not the state would take it.
    pub(crate) fn wild_spec(&mut self, size: Size) -> JobSpec {
        wild(size, &mut self.rng)
    }

    /// Where something else would do, a model that the fleet has not is a slip and refused.
    fn only_known_models(&self, spec: &mut JobSpec) {
        let known = |model: &Name| self.world.state.models().find(model).is_some();
        for group in &mut spec.groups {
            let alternatives = &mut group.shape.alternatives;
            let any = alternatives.len() > 1
                || alternatives.iter().any(|one| one.models.iter().any(known));
            for one in alternatives {
                if any {
                    one.models.retain(known);
                } else {
                    one.models.truncate(1);
                }
            }
        }
    }
}

fn site(number: usize) -> Name {
    name(&format!("site-{number}"))
}

fn node(number: usize, size: Size, rng: &mut StdRng) -> NodeSpec {
    let mut spec = node_spec(&format!("n{number}"), 0);
    let mixed = one_in(rng, 4);
    let model = rng.random_range(0..3);
    let gpus = if one_in(rng, 10) { 0 } else { rng.random_range(1..=size.gpus_max) };
    spec.gpus = (0..gpus)
        .map(|_| {
            let model = if mixed { rng.random_range(0..3) } else { model };
            let (called, vram) = [("big", 80_000), ("small", 16_000), ("odd", 40_000)][model];
            let vendor = [Some(Vendor::Nvidia), Some(Vendor::Amd), None][model];
            let compute_capability = ComputeCapability([900, 750, 0][model]);
            let link_domain = rng.random_range(0..2);
            GpuSpec { link_domain, vendor, compute_capability, ..gpu_spec(called, vram) }
        })
        .collect();
    let cores = if one_in(rng, 15) { 0 } else { rng.random_range(1..=2 + size.gpus_max as u64) };
    spec.resources.cpu = CpuMilli(cores * 1_000);
    spec.resources.memory = MemoryMib(rng.random_range(1..6) * 1_024);
    spec.resources.disk = DiskMib(rng.random_range(1..4) * 1_024);
    let at = rng.random_range(0..SITES);
    spec.place.site = site(at);
    spec.place.zone = name(&format!("zone-{}", at / 2));
    spec.place.region = name(["east", "west"][at / 3]);
    spec.place.rack = name(&format!("rack-{}", rng.random_range(0..2)));
    spec.price = PriceMicroUsd(rng.random_range(1..4) * 1_000_000);
    if one_in(rng, 5) {
        let effect = pick(rng, &[TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule]);
        let value = pick(rng, &["yes", "no"]).into();
        spec.taints.push(Taint { key: "kept".into(), value, effect });
    }
    if one_in(rng, 3) {
        spec.custom = custom(rng.random_range(1..4));
    }
    if one_in(rng, 4) {
        spec.bandwidth_up = BandwidthMbps(100);
    }
    if one_in(rng, 4) {
        spec.bandwidth_down = BandwidthMbps(100);
    }
    if one_in(rng, 2) {
        spec.labels.insert("disk".into(), pick(rng, &["fast", "slow"]).into());
    }
    spec
}

fn custom(amount: u64) -> Custom {
    BTreeMap::from([(name("licence"), amount)]).into()
}

fn labels(rng: &mut StdRng) -> Labels {
    let mut labels = Labels::new();
    labels.insert("app".into(), pick(rng, &["train", "serve"]).into());
    if one_in(rng, 2) {
        labels.insert("stage".into(), "test".into());
    }
    labels
}

/// Anything, sensible or not.
fn wild(size: Size, rng: &mut StdRng) -> JobSpec {
    let mut left = rng.random_range(1..=size.replicas_max);
    let mut groups = Vec::new();
    while left > 0 && groups.len() < 4 {
        let replicas = rng.random_range(1..=left);
        left -= replicas;
        groups.push(ask(groups.len(), replicas, rng));
    }
    if groups[0].replicas == 1 && one_in(rng, 3) {
        groups[0].role = Role::Head;
        groups[0].replicas_max = 1;
    }
    let mut spec = job_spec(groups);
    spec.strategy = if one_in(rng, 2) { Strategy::Pack } else { pick(rng, &STRATEGIES) };
    spec.topology_required = one_in(rng, 5).then(|| pick(rng, &LEVELS));
    spec.topology_preferred = one_in(rng, 4).then(|| pick(rng, &LEVELS));
    spec.rtt_max = one_in(rng, 3).then(|| RttUs(rng.random_range(0..7) * 1_000 + 500));
    if spec.rtt_max.is_some() && one_in(rng, 2) {
        spec.rtt_scope = pick(rng, &[RttScope::WithinGroups, RttScope::HeadToMembers]);
    }
    spec.rtt_objective =
        pick(rng, &[RttObjective::None, RttObjective::Diameter, RttObjective::Mean]);
    spec.price_max = one_in(rng, 6).then(|| PriceMicroUsd(rng.random_range(1..4) * 1_000_000));
    spec.duration = one_in(rng, 3).then_some(DurationMs(5_400_000));
    if spec.duration.is_some() && one_in(rng, 3) {
        let each = u64::from(size.replicas_max) * 3_000_000;
        spec.cost_max = Some(CostMicroUsd(rng.random_range(1..=each)));
    }
    if one_in(rng, 6) {
        spec.domains_max = domains_max(rng);
    }
    if one_in(rng, 8) {
        let each = u64::from(size.replicas_max) * 2_000_000;
        spec.hourly_max = Some(CostMicroUsd(rng.random_range(1..=each)));
    }
    if one_in(rng, 2) {
        spec.labels = labels(rng);
    }
    let groups = u16::try_from(spec.groups.len()).expect("few groups");
    while one_in(rng, 4) {
        let mut any = || rng.random_range(0..groups);
        let (group, with) = (any(), any());
        let target = if one_in(rng, 2) {
            Target::Groups { group, with }
        } else {
            Target::Jobs { group: one_in(rng, 2).then_some(group), labels: labels(rng) }
        };
        let (anti, preferred) = (one_in(rng, 2), one_in(rng, 4));
        spec.affinities.push(Affinity { anti, preferred, level: pick(rng, &ALL_LEVELS), target });
    }
    spec
}

fn ask(number: usize, replicas: u32, rng: &mut StdRng) -> GroupSpec {
    let mut group = group(&format!("g{number}"), replicas, 0);
    group.replicas_min = rng.random_range(1..=replicas);
    // Ranks are left out between the groups of a job that may grow.
    group.replicas_max = replicas + (number as u32 + 1) % 3;
    group.shape.gpus = match rng.random_range(0..7) {
        0 => GpuAsk::None,
        1 | 2 => GpuAsk::Share(rng.random_range(1..10) * 100),
        _ => GpuAsk::Whole(rng.random_range(1..=3)),
    };
    let has_gpus = group.shape.gpus != GpuAsk::None;
    if has_gpus && one_in(rng, 3) {
        for _ in 0..rng.random_range(1..=3) {
            group.shape.alternatives.push(alternative(rng));
        }
    }
    if one_in(rng, 8) {
        group.shape.custom = custom(rng.random_range(1..=2));
    }
    if one_in(rng, 12) {
        group.shape.bandwidth_up_min = BandwidthMbps(5_000);
    }
    if one_in(rng, 12) {
        group.shape.bandwidth_down_min = BandwidthMbps(5_000);
    }
    // A replica that takes nothing else must at least need some CPU.
    let bare = !has_gpus && group.shape.custom.is_empty();
    group.shape.cpu = CpuMilli(rng.random_range(u64::from(bare)..3) * 500);
    group.shape.memory = MemoryMib(rng.random_range(0..3) * 512);
    group.shape.disk = DiskMib(rng.random_range(0..3) * 256);
    if one_in(rng, 4) {
        let value = one_in(rng, 2).then(|| pick(rng, &["yes", "no"]).into());
        let effect = one_in(rng, 2).then_some(TaintEffect::NoSchedule);
        let key = pick(rng, &["kept", ""]).into();
        group.tolerations.push(Toleration { key, value, effect });
    }
    while one_in(rng, 5) {
        group.selectors.push(selector(rng));
    }
    rules(&mut group, rng);
    group
}

fn alternative(rng: &mut StdRng) -> GpuAlternative {
    let mut one = GpuAlternative::default();
    while one_in(rng, 2) {
        one.models.push(name(pick(rng, &["big", "small", "odd", "none"])));
    }
    one.vram_min = VramMib(pick(rng, &[0, 0, 20_000, 40_000]));
    one.vendor = one_in(rng, 5).then(|| pick(rng, &[Vendor::Amd, Vendor::Nvidia]));
    one.compute_capability_min = ComputeCapability(pick(rng, &[0, 0, 0, 800]));
    one
}

fn selector(rng: &mut StdRng) -> Selector {
    let (key, values): (&str, &[&str]) = pick(
        rng,
        &[
            ("disk", &["fast", "slow"]),
            ("muster/site", &["site-0", "site-1"]),
            ("muster/rack", &["rack-0"]),
            ("muster/region", &["west"]),
            ("muster/node", &["n0", "n2"]),
            ("muster/supplier", &["metal"]),
            ("unknown", &["x"]),
        ],
    );
    let values = values.iter().map(|&value| value.into()).collect();
    let condition = match rng.random_range(0..5) {
        0 => Condition::NotIn(values),
        1 => Condition::Exists,
        2 => Condition::DoesNotExist,
        _ => Condition::In(values),
    };
    Selector { key: key.into(), condition }
}

fn domains_max(rng: &mut StdRng) -> Vec<DomainsMax> {
    let mut bounds: Vec<DomainsMax> = Vec::new();
    while bounds.is_empty() || one_in(rng, 4) {
        let bound = DomainsMax { level: pick(rng, &ALL_LEVELS), max: rng.random_range(1..4) };
        bounds.retain(|other| other.level != bound.level);
        bounds.push(bound);
    }
    bounds
}

/// Each rule in some groups, seldom many at once.
fn rules(group: &mut GroupSpec, rng: &mut StdRng) {
    if one_in(rng, 6) {
        group.rules.replicas_per_node_max = rng.random_range(1..=3);
    }
    group.rules.strategy = one_in(rng, 8).then(|| pick(rng, &STRATEGIES));
    if one_in(rng, 7) {
        group.rules.domains_max = domains_max(rng);
    }
    group.rules.topology_required = one_in(rng, 8).then(|| pick(rng, &LEVELS));
    group.rules.topology_preferred = one_in(rng, 8).then(|| pick(rng, &LEVELS));
    if one_in(rng, 7) {
        let size = rng.random_range(1..=2);
        let wide = rng.random_range(0..3);
        if one_in(rng, 3) {
            group.rules.segments.push(Segment {
                level: ALL_LEVELS[wide],
                size: size * 2,
                exclusive: size == 2,
            });
        }
        let level = ALL_LEVELS[rng.random_range(wide + 1..5)];
        group.rules.segments.push(Segment { level, size, exclusive: wide == 1 });
    }
    if one_in(rng, 7) {
        let (level, skew_max) = (pick(rng, &ALL_LEVELS), rng.random_range(1..=2));
        group.rules.spread.push(Spread { level, skew_max, preferred: one_in(rng, 3) });
    }
}
