//! Refusals: what they say is so — the verdict, the counts, what would fit, and which bound would do.

use crate::brute::{self, Answer};
use crate::checker::Facts;
use crate::scene::{SMALL, Scene, TINY};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::command::{Command, Plan, SiteRtt};
use scheduler_core::fixture::entry::{
    TENANT, World, group, job_spec, name, node_spec, register, tenant,
};
use scheduler_core::fixture::fleet::{self, Fleet, occupy, submission};
use scheduler_core::job::{
    Affinity, GpuAsk, JobSpec, Level, RttScope, Segment, Shape, Spread, Strategy, Target,
};
use scheduler_core::node::Labels;
use scheduler_core::plan::{Budget, Cause, Policy, Request, Unplaceable, Verdict, plan};
use scheduler_core::unit::{CpuMilli, DiskMib, MemoryMib, RttUs, TimeMs};
use scheduler_core::view::View;
use std::collections::BTreeMap;

fn run(world: &World, spec: &JobSpec) -> Result<Plan, Unplaceable> {
    let around = world.state.around(&tenant(TENANT), spec, None);
    let request = Request { around: &around, ..Request::whole(spec) };
    plan(&View::new(&world.state), &request, &Policy::default(), Budget::default())
}

fn refused(world: &World, spec: &JobSpec) -> Unplaceable {
    let refusal = run(world, spec).expect_err("placed");
    let sum: u32 = refusal.counts.iter().map(|(_, count)| count).sum();
    assert_eq!(sum, refusal.nodes);
    refusal
}

fn count(refusal: &Unplaceable, wanted: Cause) -> u32 {
    refusal.counts.iter().filter(|(cause, _)| *cause == wanted).map(|(_, count)| count).sum()
}

/// Two sites of three racks with two nodes of two GPUs each.
fn hall() -> World {
    let mut world = World::new();
    for number in 0..12 {
        let mut spec = node_spec(&format!("n{number}"), 2);
        spec.place.site = name(&format!("site-{}", number / 6));
        spec.place.rack = name(&format!("rack-{}", number / 2 % 3));
        world.done(register(spec));
    }
    world
}

fn workers(replicas: u32, change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = job_spec(vec![group("w", replicas, 1)]);
    change(&mut spec);
    spec
}

fn own(anti: bool, level: Level) -> Affinity {
    let target = Target::Groups { group: 0, with: 0 };
    Affinity { anti, preferred: false, level, target }
}

/// Each rule among the members of one group says how many it leaves, never that all would fit.
#[test]
fn a_rule_among_members_is_counted_in_what_would_fit() {
    let world = hall();
    let cases: [(&str, JobSpec, u32); 9] = [
        ("per node", workers(13, |spec| spec.groups[0].rules.replicas_per_node_max = 1), 12),
        ("apart by rack", workers(7, |spec| spec.affinities = vec![own(true, Level::Rack)]), 6),
        ("apart by site", workers(3, |spec| spec.affinities = vec![own(true, Level::Site)]), 2),
        ("in one site", workers(13, |spec| spec.affinities = vec![own(false, Level::Site)]), 12),
        ("one node", workers(3, |spec| spec.strategy = Strategy::StrictPack), 2),
        ("nodes of their own", workers(13, |spec| spec.strategy = Strategy::StrictSpread), 12),
        (
            "own topology",
            workers(5, |spec| spec.groups[0].rules.topology_required = Some(Level::Rack)),
            4,
        ),
        ("topology", workers(5, |spec| spec.topology_required = Some(Level::Rack)), 4),
        (
            "blocks of three in racks of four",
            workers(24, |spec| {
                spec.groups[0].rules.segments =
                    vec![Segment { level: Level::Rack, size: 3, exclusive: false }];
            }),
            19,
        ),
    ];
    for (what, spec, most) in cases {
        let refusal = refused(&world, &spec);
        assert_eq!(refusal.nearest.placeable, [most], "{what}: {refusal}");
        assert!(!refusal.nearest.is_alone, "{what}");
        let verdict = if what == "topology" { Verdict::Latency } else { Verdict::NeverFits };
        assert_eq!(refusal.verdict, verdict, "{what}: {refusal}");
        let expected = format!("{most} of {} replicas would fit", spec.groups[0].replicas);
        assert!(refusal.to_string().contains(&expected), "{what}: {refusal}");
        assert!(run(&world, &workers(1, |_| {})).is_ok());
    }
}

/// Machines too small for one replica are no pool, however many there are; those large enough are.
#[test]
fn what_no_machine_could_hold_has_no_pool() {
    type Enlarge = fn(&mut Shape);
    let world = hall();
    let more: [(&str, Enlarge); 4] = [
        ("cpu", |shape| shape.cpu = CpuMilli(1 << 40)),
        ("memory", |shape| shape.memory = MemoryMib(1 << 40)),
        ("disk", |shape| shape.disk = DiskMib(1 << 40)),
        ("custom", |shape| shape.custom = BTreeMap::from([(name("licence"), 1)]).into()),
    ];
    for (what, enlarge) in more {
        let spec = workers(3, |spec| enlarge(&mut spec.groups[0].shape));
        let refusal = refused(&world, &spec);
        assert_eq!(refusal.verdict, Verdict::NoSuchPool, "{what}: {refusal}");
    }
    assert_eq!(refused(&world, &workers(25, |_| {})).verdict, Verdict::NeverFits);
}

/// A domain that is full keeps an even group small.
#[test]
fn evenness_is_counted_in_what_would_fit() {
    let mut world = hall();
    let mut filler = workers(11, |_| {});
    filler.topology_required = Some(Level::Site);
    let there = run(&world, &filler).expect("fits");
    world.done(submission("filler", filler, Some(there)));
    let mut even = workers(6, |_| {});
    let spread = Spread { level: Level::Site, skew_max: 1, preferred: false };
    even.groups[0].rules.spread = vec![spread];
    let refusal = refused(&world, &even);
    // One GPU is left of one site: one there, two in the other.
    assert_eq!(refusal.nearest.placeable, [3], "{refusal}");
    assert_eq!(refusal.verdict, Verdict::BusyUntil(None));
    even.groups[0].replicas_min = 1;
    assert_eq!(run(&world, &even).map(|plan| plan.placements.len()), Ok(3));
}

/// Where other jobs are in the way, the nodes that they keep are counted as such.
#[test]
fn nodes_that_other_jobs_keep_are_counted() {
    let mut world = hall();
    let labels: Labels = [("app".into(), "noisy".into())].into();
    let mut noisy = job_spec(vec![group("w", 1, 1)]);
    noisy.labels = labels.clone();
    let there = run(&world, &noisy).expect("fits");
    world.done(submission("noisy", noisy, Some(there)));
    let target = Target::Jobs { group: None, labels };
    let apart = |anti, level| {
        let target = target.clone();
        vec![Affinity { anti, preferred: false, level, target }]
    };
    let spec = workers(13, |spec| spec.affinities = apart(true, Level::Site));
    let refusal = refused(&world, &spec);
    assert_eq!(count(&refusal, Cause::Affinity), 6, "{refusal}");
    assert_eq!(count(&refusal, Cause::Usable), 6);
    assert_eq!(refusal.nearest.placeable, [12]);
    let spec = workers(4, |spec| spec.affinities = apart(false, Level::Rack));
    let refusal = refused(&world, &spec);
    assert_eq!(
        (count(&refusal, Cause::Affinity), refusal.nearest.placeable.as_slice()),
        (10, &[3][..])
    );
    // One replica, which takes the short way otherwise.
    let spec = workers(1, |spec| {
        spec.affinities = apart(true, Level::Site);
        spec.affinities.extend(apart(false, Level::Node));
    });
    let refusal = refused(&world, &spec);
    assert_eq!((count(&refusal, Cause::Affinity), count(&refusal, Cause::Usable)), (12, 0));
    assert_eq!(refusal.nearest.placeable, [0]);
}

/// Groups that fit each by itself, and rules that only bind together, are told as that.
#[test]
fn what_fits_only_apart_is_said_so() {
    let world = hall();
    let both = job_spec(vec![group("a", 20, 1), group("b", 20, 1)]);
    let refusal = refused(&world, &both);
    assert!(refusal.nearest.is_alone);
    assert_eq!(refusal.nearest.placeable, [20, 20]);
    let text = refusal.to_string();
    assert!(text.contains("each group would fit by itself, not all together"), "{text}");
    assert!(!text.contains("replicas would fit"), "{text}");
    let apart = Affinity {
        anti: true,
        preferred: false,
        level: Level::Site,
        target: Target::Groups { group: 0, with: 1 },
    };
    let mut spec = job_spec(vec![group("a", 6, 1), group("b", 6, 1), group("c", 6, 1)]);
    spec.affinities = vec![
        apart.clone(),
        Affinity { target: Target::Groups { group: 0, with: 2 }, ..apart.clone() },
        Affinity { target: Target::Groups { group: 1, with: 2 }, ..apart },
    ];
    let text = refused(&world, &spec).to_string();
    assert!(text.contains("not all together (affinity 1, affinity 2"), "{text}");
}

/// A spread is even over the domains that could hold a replica, whatever keeps the others from it.
#[test]
fn a_domain_too_small_for_a_replica_is_not_one_to_spread_over() {
    let mut world = World::new();
    for (number, cores) in [(0, 8), (1, 0)] {
        let mut spec = node_spec(&format!("n{number}"), 2);
        spec.place.site = name(&format!("site-{number}"));
        spec.resources.cpu = CpuMilli(cores * 1_000);
        world.done(register(spec));
    }
    let spec = workers(2, |spec| {
        spec.groups[0].shape.cpu = CpuMilli(1_000);
        let spread = Spread { level: Level::Site, skew_max: 1, preferred: false };
        spec.groups[0].rules.spread = vec![spread];
    });
    assert_eq!(run(&world, &spec).map(|plan| plan.placements.len()), Ok(2));
}

/// A site that may hold one member of a gang does.
#[test]
fn a_site_too_slow_inside_takes_one_member() {
    let mut world = World::new();
    for number in 0..6 {
        let mut spec = node_spec(&format!("n{number}"), 1);
        spec.place.site = name(&format!("site-{}", number / 2));
        world.done(register(spec));
    }
    let site = |number: usize| name(&format!("site-{number}"));
    let told = |a, b, us| SiteRtt::told(site(a), site(b), RttUs(us));
    world.done(Command::SetSiteRtts(vec![
        told(0, 0, 9_000),
        told(1, 1, 9_000),
        told(0, 1, 1_000),
        told(1, 2, 1_000),
        told(0, 2, 1_000),
    ]));
    let spec = |replicas| workers(replicas, |spec| spec.rtt_max = Some(RttUs(2_000)));
    // One each at the two slow sites, two at the third.
    let plan = run(&world, &spec(4)).expect("fits");
    let mut nodes: Vec<u32> = plan.placements.iter().map(|one| one.node.0 / 2).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, [0, 1, 2, 2]);
    let refusal = refused(&world, &spec(5));
    assert_eq!((refusal.verdict, refusal.nearest.rtt_max), (Verdict::Latency, Some(RttUs(9_000))));
}

/// The bound told is the smallest that does, and the part told to fit is the largest that fits.
#[test]
fn the_bound_told_is_the_least_and_the_part_told_the_largest() {
    let mut told = 0;
    // The last: beside jobs that keep the gang off some nodes.
    for seed in (0..1_500).chain([8_000_516, 108_000_473, 110_000_028]) {
        let mut scene = Scene::new(seed, TINY);
        let mut spec = scene.spec(TINY);
        spec.groups.truncate(1);
        spec.affinities.clear();
        spec.groups[0].rules = Default::default();
        (spec.cost_max, spec.hourly_max, spec.topology_required) = (None, None, None);
        spec.domains_max.clear();
        spec.strategy = Strategy::Pack;
        spec.rtt_scope = RttScope::AllPairs;
        spec.rtt_max.get_or_insert(RttUs(1_500));
        let group = &mut spec.groups[0];
        group.replicas = group.replicas.max(2);
        (group.replicas_min, group.replicas_max) = (group.replicas, group.replicas);
        let Err(refusal) = run(&scene.world, &spec) else { continue };
        if refusal.verdict != Verdict::Latency {
            continue;
        }
        told += 1;
        let facts = Facts::new(&scene.world.state, &tenant(TENANT), None);
        let fits = |rtt_max, replicas| {
            let mut spec = spec.clone();
            spec.rtt_max = Some(rtt_max);
            let group = &mut spec.groups[0];
            (group.replicas, group.replicas_min, group.replicas_max) =
                (replicas, replicas, replicas);
            brute::fits(&facts, &spec, &[replicas]) == Answer::Fits
        };
        let (bound, replicas) = (spec.rtt_max.expect("set"), spec.groups[0].replicas);
        if let Some(needed) = refusal.nearest.rtt_max {
            assert!(fits(needed, replicas), "SEED={seed}: {needed:?} does not do: {spec:?}");
            let less = RttUs(needed.0 - 1);
            assert!(!fits(less, replicas), "SEED={seed}: less than {needed:?} does: {spec:?}");
        }
        let most = refusal.nearest.placeable[0];
        assert!(most < replicas, "SEED={seed}: {most} of {replicas} beside a refusal: {spec:?}");
        assert!(most == 0 || fits(bound, most), "SEED={seed}: {most} do not fit: {spec:?}");
        assert!(!fits(bound, most + 1), "SEED={seed}: more than {most} fit: {spec:?}");
    }
    assert!(told > 60, "{told} refused for latency");
}

/// Plans again under the bound that a refusal names; whether it names one.
fn named_bound_does(world: &World, spec: &JobSpec, seed: u64) -> bool {
    let Err(refusal) = run(world, spec) else { return false };
    let Some(bound) = refusal.nearest.rtt_max else { return false };
    assert_eq!(refusal.verdict, Verdict::Latency, "SEED={seed}: {refusal}");
    assert!(spec.rtt_max.is_some_and(|asked| asked < bound), "SEED={seed}: {refusal}");
    let wider = JobSpec { rtt_max: Some(bound), ..spec.clone() };
    assert!(run(world, &wider).is_ok(), "SEED={seed}: {bound:?} does not do: {spec:?}");
    true
}

/// The planner places the job under the bound that a refusal names: with every rule and on fleets
/// of which several groups want a large part.
#[test]
fn the_planner_keeps_the_bound_told() {
    let mut told = 0;
    for seed in 0..600 {
        let mut scene = Scene::new(seed, SMALL);
        let mut spec = scene.spec(SMALL);
        spec.rtt_max.get_or_insert(RttUs(1_500));
        for group in &mut spec.groups {
            group.replicas_min = group.replicas;
        }
        told += u32::from(named_bound_does(&scene.world, &spec, seed));
    }
    assert!(told > 40, "{told} bounds told");
    told = 0;
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = Fleet::new(rng.random_range(120..240), 24, seed).state();
        occupy(&mut state, 400, seed);
        let world = World { state, at: TimeMs(1_000_000) };
        let mut spec = job_spec(vec![]);
        for (at, gpus) in [8, 4, 2, 1, 0].into_iter().enumerate().skip(rng.random_range(0..4)) {
            let gpus = if gpus == 0 { GpuAsk::None } else { GpuAsk::Whole(gpus) };
            spec.groups.push(fleet::workers(&format!("g{at}"), rng.random_range(1..40), gpus));
        }
        spec.rtt_max = Some(RttUs(rng.random_range(1..5_000)));
        told += u32::from(named_bound_does(&world, &spec, seed));
    }
    assert!(told > 25, "{told} bounds told to several groups");
}

/// No refusal names a number of replicas that would fit although all that are needed would.
#[test]
fn no_refusal_says_that_all_would_fit() {
    let mut refusals = 0;
    // The last: one member per site, and the cheap node of a site is not its first.
    for seed in (0..3_000).chain([94_001_744]) {
        let mut scene = Scene::new(seed, TINY);
        let spec = scene.spec(TINY);
        let Err(refusal) = run(&scene.world, &spec) else { continue };
        refusals += 1;
        let placeable: u32 = refusal.nearest.placeable.iter().sum();
        let all = format!("{placeable} of {placeable} replicas would fit");
        assert!(!refusal.to_string().contains(&all), "SEED={seed}: {refusal}");
        let least = spec.groups.iter().map(|group| group.replicas_min);
        let alone = refusal.nearest.placeable.iter().zip(least).all(|(have, need)| *have >= need);
        if refusal.verdict != Verdict::Undecided {
            assert_eq!(refusal.nearest.is_alone, alone, "SEED={seed}: {refusal}");
        }
        // What is said not to fit by itself does not.
        let facts = Facts::new(&scene.world.state, &tenant(TENANT), None);
        for (at, group) in spec.groups.iter().enumerate() {
            let most = refusal.nearest.placeable[at];
            if refusal.verdict == Verdict::Latency || most >= group.replicas {
                continue;
            }
            let mut counts = vec![0; spec.groups.len()];
            counts[at] = most + 1;
            let answer = brute::fits(&facts, &spec, &counts);
            assert_ne!(answer, Answer::Fits, "SEED={seed}: group {at}: {refusal}: {spec:?}");
        }
    }
    assert!(refusals > 800, "{refusals}");
}
