//! Each policy's formula on cases worked out by hand, and choices on small fleets.

use super::fgd::Fgd;
use super::fragment::{Fragment, frequent, typical_max};
use super::look::{Look, Spare, Work};
use super::published::{BestFit, DotProduct, GpuClustering, GpuPacking, Largest};
use super::{Policy, Scorer};
use crate::fixture::entry::{World, group, job_spec, node_spec, register};
use crate::id::{Name, NodeId};
use crate::job::{GpuAlternative, GpuAsk, JobSpec};
use crate::node::{Models, Resources};
use crate::plan::{Budget, Request, find, plan};
use crate::unit::{CpuMilli, DiskMib, GpuSet, MemoryMib, VramMib};
use crate::view::{Classes, Free, Kind, KindId, Mix, View};
use std::sync::Arc;

const LARGEST: Largest = Largest { cpu: 128_000, gpu_milli: 8_000 };

fn free(idle: usize, shares_taken: &[u16], cpu: u64) -> Free {
    let mut free = Free::default();
    free.rest = Resources { cpu: CpuMilli(cpu), memory: MemoryMib(1_000_000), disk: DiskMib::ZERO };
    free.idle = GpuSet::first(idle + shares_taken.len());
    for (gpu, &milli) in (0u8..).zip(shares_taken) {
        free.take_share(gpu, milli);
    }
    free
}

fn look(free: &Free, gpus: GpuAsk, cpu: u64) -> Look<'_> {
    Look {
        gpus,
        needs: Resources { cpu: CpuMilli(cpu), ..Resources::default() },
        free,
        spare: Spare::of(free),
        mask: GpuSet::first(8),
        gpus_all: 8,
        kind: KindId(0),
        work: Work::default(),
    }
}

#[test]
fn names_are_read_as_they_are_printed() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    let error = "FGD".parse::<Policy>().expect_err("names are in small letters").to_string();
    assert!(error.contains("\"FGD\"") && error.contains("gpu-clustering"), "{error}");
    assert_eq!(Policy::default(), Policy::Foresight);
}

#[test]
fn best_fit_takes_half_of_each_part_left() {
    // Left over: 64 of 128 cores and 2.5 of 8 GPUs: 1 - 0.25 - 0.15625 = 0.59375.
    let free = free(3, &[500], 96_000);
    assert_eq!(BestFit(LARGEST).score(&look(&free, GpuAsk::Whole(1), 32_000)), 59);
}

#[test]
fn dot_product_multiplies_free_and_asked() {
    // (96/128 * 32/128 + 3.5/8 * 1/8) / 2 = (0.1875 + 0.0546875) / 2 = 0.12109; 1 - that.
    let free = free(3, &[500], 96_000);
    assert_eq!(DotProduct(LARGEST).score(&look(&free, GpuAsk::Whole(1), 32_000)), 87);
}

#[test]
fn gpu_packing_prefers_shared_then_used_then_idle() {
    let score = |free: &Free, gpus| GpuPacking.score(&look(free, gpus, 1_000));
    // The fullest GPU with room has 500 left: 100 - 50 / 10.
    assert_eq!(score(&free(3, &[500, 100], 96_000), GpuAsk::Share(400)), 95);
    assert_eq!(score(&free(3, &[500], 96_000), GpuAsk::Share(600)), 49, "one idle GPU is opened");
    assert_eq!(score(&free(3, &[500], 96_000), GpuAsk::Whole(2)), 48);
    assert_eq!(score(&free(8, &[], 96_000), GpuAsk::Whole(2)), 33 - 8);
    assert_eq!(score(&free(8, &[], 96_000), GpuAsk::None), 0);
}

#[test]
fn gpu_clustering_prefers_nodes_of_its_class() {
    let free = free(2, &[], 96_000);
    let score = |same, others| {
        let look = Look { work: Work { same, others }, ..look(&free, GpuAsk::Whole(1), 1_000) };
        GpuClustering(LARGEST).score(&look)
    };
    // 25 * (8000 - 2000) / 8000 = 18, and 25 for each step.
    let steps = [score(false, true), score(false, false), score(true, true), score(true, false)];
    assert_eq!(steps, [18, 43, 68, 93]);
}

fn kind(gpus: GpuAsk, cpu: u64) -> Kind {
    let (models, vram_min) = (Vec::new(), VramMib::ZERO);
    Kind { gpus, cpu: CpuMilli(cpu), memory: MemoryMib::ZERO, models, vram_min }
}

fn classes() -> Classes {
    let mut world = World::new();
    world.done(register(node_spec("a", 8)));
    let mut classes = Classes::default();
    classes.enter(world.state.node(NodeId(0)).expect("just registered"));
    classes
}

#[test]
fn the_fragment_is_what_typical_kinds_cannot_use() {
    let (one, share, eight, cpu) = (
        kind(GpuAsk::Whole(1), 4_000),
        kind(GpuAsk::Share(300), 20_000),
        kind(GpuAsk::Whole(8), 4_000),
        kind(GpuAsk::None, 1_000),
    );
    let weighted = [(&one, 0.4), (&share, 0.3), (&eight, 0.2), (&cpu, 0.1)];
    let fragment = Fragment::new(&weighted, &classes(), &Models::default());
    let of = |free: &Free| fragment.of(KindId(0), &Spare::of(free));
    // Free: one idle GPU, 500 and 200 left on shared ones: 1,700 in all. One GPU cannot use 700,
    // the share cannot use 200, eight cannot run: all 1,700; a CPU kind counts all.
    let roomy = of(&free(1, &[500, 800], 32_000));
    assert!((roomy - (0.4 * 700.0 + 0.3 * 200.0 + 0.3 * 1_700.0)).abs() < 1e-9, "{roomy}");
    // With 8 cores the share cannot run either.
    let narrow = of(&free(1, &[500, 800], 8_000));
    assert!((narrow - (0.4 * 700.0 + 0.6 * 1_700.0)).abs() < 1e-9, "{narrow}");
    assert_eq!(of(&free(0, &[], 8_000)), 0.0);
}

#[test]
fn the_most_frequent_kinds_come_first_and_are_not_too_many() {
    let kinds: Vec<(Kind, u64)> =
        (0..1_000).map(|cpu| (kind(GpuAsk::Whole(1), cpu), cpu)).collect();
    let most = |percent| {
        let chosen = frequent(kinds.iter(), percent, 256);
        chosen.iter().map(|(kind, _)| kind.cpu.0).collect::<Vec<_>>()
    };
    // 999 + 998 + 997 + 996 + 995 are ten too few for a hundredth of 499,500.
    assert_eq!(most(1), [999, 998, 997, 996, 995, 994]);
    assert_eq!((most(95).len(), most(95).last()), (256, Some(&744)));
    assert_eq!([0, 256, 1_024, 1 << 30].map(typical_max), [256, 256, 128, 0], "by kinds of nodes");
}

#[test]
fn fgd_goes_where_the_fragment_grows_least() {
    let kinds = vec![(kind(GpuAsk::Whole(1), 4_000), 1), (kind(GpuAsk::Share(500), 4_000), 1)];
    let fgd = Fgd::new(&Mix { version: 1, kinds }, &classes(), &Models::default());
    // Two GPUs, one half used. Before: whole GPUs cannot use 500; shares can use all: 250.
    // The share in the half-used one leaves no fragment: gain 0.25, sigmoid 0.562.
    let free = free(1, &[500], 96_000);
    let half = look(&free, GpuAsk::Share(500), 4_000);
    assert_eq!((fgd.score(&half), fgd.device(&half)), (56, Some(0)));
    // 800 of the idle one: holes of 500 and 200: whole 700 / 2, plus shares 200 / 2: 450.
    // Gain -0.2, sigmoid 0.450.
    let most = look(&free, GpuAsk::Share(800), 4_000);
    assert_eq!((fgd.score(&most), fgd.device(&most)), (45, Some(1)));
}

/// Nodes with this many GPUs, with whole jobs of the given GPUs already on them.
fn view(nodes: &[usize]) -> View {
    let mut world = World::new();
    for (number, &gpus) in nodes.iter().enumerate() {
        world.done(register(node_spec(&format!("n{number}"), gpus)));
    }
    View::new(&world.state)
}

fn job(gpus: GpuAsk) -> JobSpec {
    let mut workers = group("workers", 1, 0);
    workers.shape.gpus = gpus;
    job_spec(vec![workers])
}

fn place(view: &mut View, claim: u64, spec: &JobSpec, policy: Policy) -> Option<(u32, u64)> {
    view.note_arrival(spec);
    let plan = find(view, &Request::whole(spec), &policy, Budget::default())?;
    view.claim(claim, spec, &plan);
    plan.placements.first().map(|placement| (placement.node.0, placement.gpus.0))
}

#[test]
fn equal_scores_go_to_the_lower_node() {
    for policy in Policy::ALL.into_iter().filter(|policy| *policy != Policy::Random) {
        let mut view = view(&[8, 8, 8]);
        assert_eq!(place(&mut view, 0, &job(GpuAsk::Whole(1)), policy), Some((0, 1)), "{policy}");
    }
}

#[test]
fn every_policy_fills_the_fleet_and_then_says_no() {
    for policy in Policy::ALL {
        let mut view = view(&[8, 4, 2]);
        let spec = job(GpuAsk::Whole(1));
        let placed = (0..20).filter_map(|at| place(&mut view, at, &spec, policy)).count();
        assert_eq!(placed, 14, "{policy}");
        let request = Request::whole(&spec);
        assert!(plan(&view, &request, &policy, Budget::default()).is_err());
        view.unclaim(3);
        assert!(place(&mut view, 99, &spec, policy).is_some(), "{policy}");
    }
}

/// Scores kept from before answer as scores made anew do.
#[test]
fn what_is_kept_changes_no_answer() {
    for policy in Policy::ALL {
        let mut view = view(&[8, 8, 4, 4, 2, 1, 1]);
        let specs: Vec<JobSpec> =
            [GpuAsk::Whole(1), GpuAsk::Share(300), GpuAsk::Whole(2), GpuAsk::Share(810)]
                .map(job)
                .into();
        for (at, spec) in specs.iter().cycle().take(200).enumerate() {
            view.note_arrival(spec);
            let request = Request::whole(spec);
            let kept = find(&view, &request, &policy, Budget::default());
            view.with_boards(|boards| *boards = super::Boards::default());
            let anew = find(&view, &request, &policy, Budget::default());
            assert_eq!(kept, anew, "{policy}, job {at}");
            if let Some(plan) = kept {
                view.claim(at as u64, spec, &plan);
            }
            if at % 3 == 0 {
                view.unclaim((at / 2) as u64);
            }
        }
    }
}

#[test]
fn avoided_and_closed_nodes_are_not_chosen() {
    for policy in Policy::ALL {
        let view = view(&[1, 1, 1]);
        let spec = Arc::new(job(GpuAsk::Whole(1)));
        let avoid = [NodeId(0), NodeId(2)];
        let request = Request { avoid: &avoid, ..Request::whole(&spec) };
        let plan = find(&view, &request, &policy, Budget::default()).expect("node 1 is free");
        assert_eq!(plan.placements[0].node, NodeId(1), "{policy}");
        let all = [NodeId(0), NodeId(1), NodeId(2)];
        let request = Request { avoid: &all, ..Request::whole(&spec) };
        assert_eq!(find(&view, &request, &policy, Budget::default()), None, "{policy}");
    }
}

#[test]
fn foresight_keeps_whole_machines_where_work_comes_and_goes() {
    let mut view = view(&[8, 8, 4]);
    let (one, share) = (job(GpuAsk::Whole(1)), job(GpuAsk::Share(400)));
    let mut nodes = std::collections::BTreeSet::new();
    for claim in 0..4 {
        let spec = if claim % 2 == 0 { &one } else { &share };
        nodes.extend(place(&mut view, claim, spec, Policy::Foresight).map(|(node, _)| node));
    }
    assert_eq!(nodes.len(), 1, "three GPUs' worth of work fits on one node: {nodes:?}");
}

#[test]
fn foresight_leaves_the_models_that_others_are_bound_to() {
    let mut world = World::new();
    let rare = Name::parse("rare").expect("a name");
    for number in 0..6 {
        let mut spec = node_spec(&format!("n{number}"), 2);
        if number < 2 {
            spec.gpus.iter_mut().for_each(|gpu| gpu.model = rare.clone());
        }
        world.done(register(spec));
    }
    let mut view = View::new(&world.state);
    let any = job(GpuAsk::Whole(1));
    let mut bound = any.clone();
    let alternative = GpuAlternative { models: vec![rare], ..GpuAlternative::default() };
    bound.groups[0].shape.alternatives = vec![alternative];
    [&bound, &any, &any].into_iter().cycle().take(12).for_each(|spec| view.note_arrival(spec));
    let mut node = |claim, spec| place(&mut view, claim, spec, Policy::Foresight).map(|at| at.0);
    let others: Vec<u32> = (0..8).filter_map(|claim| node(claim, &any)).collect();
    assert_eq!(others, [2, 2, 3, 3, 4, 4, 5, 5]);
    assert_eq!(node(8, &bound), Some(0));
    assert_eq!(node(9, &any), Some(0), "what is left is for all");
}

#[test]
fn foresight_spends_the_largest_machine_last() {
    let mut world = World::new();
    for number in 0..12 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.resources.cpu.0 *= if number == 0 { 2 } else { 1 };
        world.done(register(spec));
    }
    let mut view = View::new(&world.state);
    let (one, share) = (job(GpuAsk::Whole(1)), job(GpuAsk::Share(500)));
    let specs = [&one, &share, &share, &one];
    // Many have come and none has left, wherever they went.
    specs.iter().cycle().take(256).for_each(|spec| view.note_arrival(spec));
    let mut claims = 0u64..;
    let mut nodes = specs.iter().cycle().zip(&mut claims).map_while(|(spec, claim)| {
        let (node, _) = place(&mut view, claim, spec, Policy::Foresight)?;
        Some(node)
    });
    let before = nodes.position(|node| node == 0);
    // 11 nodes of 8 GPUs, and four jobs for every three GPUs.
    assert_eq!(before, Some(117), "jobs placed elsewhere before");
}
