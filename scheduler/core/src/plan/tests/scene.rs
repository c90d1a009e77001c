//! Tiny random fleets and requests, with every rule and resource in play.

use crate::command::{Command, SiteRtt};
use crate::fixture::entry::{World, gpu_spec, group, job_spec, name, node_spec, register};
use crate::fixture::fleet::submission;
use crate::id::NodeId;
use crate::job::{
    Condition, GpuAlternative, GpuAsk, GroupSpec, JobSpec, Level, Selector, Strategy, Toleration,
};
use crate::node::{Custom, GpuSpec, NodeSpec, Taint, TaintEffect, Vendor};
use crate::plan::{Budget, Policy, Request, plan};
use crate::unit::{BandwidthMbps, CpuMilli, DiskMib, MemoryMib, PriceMicroUsd, RttUs, VramMib};
use crate::view::View;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

pub(super) const SITES: usize = 4;

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) rng: StdRng,
}

fn one_in(rng: &mut StdRng, parts: u32) -> bool {
    rng.random_range(0..parts) == 0
}

impl Scene {
    /// Up to `nodes_max` nodes of at most 4 GPUs in up to 4 sites, partly occupied.
    pub(super) fn new(seed: u64, nodes_max: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let nodes = rng.random_range(1..=nodes_max);
        for number in 0..nodes {
            let spec = node(number, &mut rng);
            world.done(register(spec));
        }
        let mut rtts = Vec::new();
        for a in 0..SITES {
            for b in 0..a {
                let rtt = RttUs(rng.random_range(1..6) * 1000);
                if !one_in(&mut rng, 8) {
                    rtts.push(SiteRtt::told(site(a), site(b), rtt));
                }
            }
        }
        rtts.retain(|rtt| {
            let sites = world.state.sites();
            sites.find(&rtt.a).is_some() && sites.find(&rtt.b).is_some()
        });
        if !rtts.is_empty() {
            world.done(Command::SetSiteRtts(rtts));
        }
        let mut scene = Self { world, rng };
        for number in 0..scene.rng.random_range(0..4) {
            let mut spec = scene.spec();
            spec.groups.truncate(1);
            scene.submit(&format!("before-{number}"), spec);
        }
        scene
    }

    /// Plans and submits, if it fits.
    pub(super) fn submit(&mut self, request_id: &str, spec: JobSpec) {
        let view = View::new(&self.world.state);
        let found = plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default());
        if let Ok(plan) = found {
            self.world.done(submission(request_id, spec, Some(plan)));
        }
    }

    /// A request for at most 4 replicas.
    pub(super) fn spec(&mut self) -> JobSpec {
        let rng = &mut self.rng;
        let mut left = rng.random_range(1..=4u32);
        let mut groups = Vec::new();
        while left > 0 {
            let replicas = rng.random_range(1..=left);
            left -= replicas;
            groups.push(ask(groups.len(), replicas, rng));
        }
        // Where something else would do, a model that the fleet has not is a slip and refused.
        let known = |model: &crate::id::Name| self.world.state.models().find(model).is_some();
        for group in groups.iter_mut().filter(|group| group.shape.alternatives.len() > 1) {
            for one in &mut group.shape.alternatives {
                one.models.retain(known);
            }
        }
        let mut spec = job_spec(groups);
        spec.strategy =
            [Strategy::Pack, Strategy::Spread, Strategy::StrictPack, Strategy::StrictSpread]
                [rng.random_range(0..4)];
        let levels = [Level::Region, Level::Zone, Level::Site, Level::Rack];
        spec.topology_required = one_in(rng, 4).then(|| levels[rng.random_range(0..4)]);
        spec.topology_preferred = one_in(rng, 4).then(|| levels[rng.random_range(0..4)]);
        spec.rtt_max = one_in(rng, 3).then(|| RttUs(rng.random_range(0..6) * 1000 + 500));
        spec.price_max = one_in(rng, 6).then_some(PriceMicroUsd(1_500_000));
        spec
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.world.state.nodes().map(|node| node.id).collect()
    }
}

fn site(number: usize) -> crate::id::Name {
    name(&format!("site-{number}"))
}

fn node(number: usize, rng: &mut StdRng) -> NodeSpec {
    let mut spec = node_spec(&format!("n{number}"), 0);
    let gpus = rng.random_range(0..=4usize);
    let mixed = one_in(rng, 4);
    let model = rng.random_range(0..2);
    spec.gpus = (0..gpus)
        .map(|_| {
            let model = if mixed { rng.random_range(0..2) } else { model };
            let (called, vram) = [("big", 80_000), ("small", 16_000)][model];
            let vendor = Some([Vendor::Nvidia, Vendor::Amd][model]);
            GpuSpec { link_domain: rng.random_range(0..2), vendor, ..gpu_spec(called, vram) }
        })
        .collect();
    spec.resources.cpu = CpuMilli(rng.random_range(1..6) * 1000);
    spec.resources.memory = MemoryMib(rng.random_range(1..6) * 1024);
    spec.resources.disk = DiskMib(rng.random_range(1..4) * 1024);
    let at = rng.random_range(0..SITES);
    spec.place.site = site(at);
    spec.place.zone = name(&format!("zone-{}", at / 2));
    spec.place.rack = name(&format!("rack-{}", rng.random_range(0..2)));
    spec.price = PriceMicroUsd(rng.random_range(1..3) * 1_000_000);
    if one_in(rng, 5) {
        let effect =
            [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule][rng.random_range(0..2)];
        spec.taints.push(Taint { key: "kept".into(), value: "yes".into(), effect });
    }
    if one_in(rng, 3) {
        spec.custom = custom(rng.random_range(1..4));
    }
    if one_in(rng, 4) {
        spec.bandwidth_up = BandwidthMbps(100);
    }
    if one_in(rng, 3) {
        spec.labels.insert(Arc::from("disk"), Arc::from("fast"));
    }
    spec
}

fn alternative(rng: &mut StdRng) -> GpuAlternative {
    let mut one = GpuAlternative::default();
    if one_in(rng, 2) {
        one.models = vec![name(["big", "small"][rng.random_range(0..2)])];
    }
    if one_in(rng, 4) {
        one.vram_min = VramMib(40_000);
    }
    one.vendor = one_in(rng, 10).then_some(Vendor::Amd);
    one
}

fn custom(amount: u64) -> Custom {
    std::collections::BTreeMap::from([(name("licence"), amount)]).into()
}

fn ask(number: usize, replicas: u32, rng: &mut StdRng) -> GroupSpec {
    let mut group = group(&format!("g{number}"), replicas, 0);
    group.replicas_min = rng.random_range(1..=replicas);
    group.shape.gpus = match rng.random_range(0..6) {
        0 => GpuAsk::None,
        1 => GpuAsk::Share(rng.random_range(1..10) * 100),
        _ => GpuAsk::Whole(rng.random_range(1..=3)),
    };
    let asks_gpus = group.shape.gpus != GpuAsk::None;
    let alternatives = if one_in(rng, 3) && asks_gpus { rng.random_range(1..=2) } else { 0 };
    for _ in 0..alternatives {
        group.shape.alternatives.push(alternative(rng));
    }
    if one_in(rng, 10) {
        group.shape.custom = custom(rng.random_range(1..=2));
    }
    if one_in(rng, 20) {
        group.shape.bandwidth_up_min = BandwidthMbps(10_000);
    }
    // A replica that takes nothing else must at least need some CPU.
    let bare = !asks_gpus && group.shape.custom.is_empty();
    group.shape.cpu = CpuMilli(rng.random_range(u64::from(bare)..3) * 1000);
    group.shape.memory = MemoryMib(rng.random_range(0..3) * 1024);
    group.shape.disk = DiskMib(rng.random_range(0..2) * 1024);
    if one_in(rng, 4) {
        let toleration = Toleration { key: "kept".into(), value: None, effect: None };
        group.tolerations.push(toleration);
    }
    if one_in(rng, 5) {
        let (key, values): (Arc<str>, _) = match rng.random_range(0..3) {
            0 => ("disk".into(), vec![Arc::from("fast")]),
            1 => ("muster/site".into(), vec![Arc::from("site-0"), Arc::from("site-1")]),
            _ => ("muster/rack".into(), vec![Arc::from("rack-0")]),
        };
        let condition =
            if one_in(rng, 3) { Condition::NotIn(values) } else { Condition::In(values) };
        group.selectors.push(Selector { key, condition });
    }
    group
}
