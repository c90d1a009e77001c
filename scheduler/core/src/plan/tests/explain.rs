//! Explanations: counts that add up, and changes that help, are the smallest, and leave no trace.

use super::config;
use super::scene::Scene;
use crate::command::{Command, Observed, SiteRtt};
use crate::duty::office::look::quota_left;
use crate::fixture::entry::{TENANT, quota, submit, tenant};
use crate::fixture::entry::{World, group, job_spec, name, node_spec, plan as placed, register};
use crate::id::JobId;
use crate::job::{DomainsMax, GpuAsk, JobSpec, Level, ReasonCode};
use crate::node::{Eligibility, Taint, TaintEffect};
use crate::plan::explain::{Change, Help};
use crate::plan::{Budget, Explanation, Outlook, Policy, Request, Verdict, explain, plan};
use crate::state::State;
use crate::unit::{
    CostMicroUsd, CpuMilli, DiskMib, DurationMs, MemoryMib, PriceMicroUsd, RttUs, TimeMs, VramMib,
};
use crate::view::View;
use proptest::prelude::*;
use rand::RngExt;
use std::collections::BTreeMap;

fn explained(state: &State, spec: &JobSpec) -> Explanation {
    let outlook = Outlook::new(state, &tenant(TENANT));
    let mut view = View::new(state);
    let gpu_milli_max = quota_left(state, &tenant(TENANT));
    let request = Request { gpu_milli_max, ..Request::whole(spec) };
    let answer = explain(&mut view, &request, &Policy::default(), &outlook, Budget::default());
    let fresh = View::new(state);
    for (node, slot) in fresh.slots() {
        let seen = view.slot(node).map(|slot| (&slot.free, slot.open));
        assert_eq!(seen, Some((&slot.free, slot.open)), "node {node}");
    }
    answer
}

fn fits(state: &State, spec: &JobSpec) -> bool {
    let view = View::new(state);
    plan(&view, &Request::whole(spec), &Policy::default(), Budget::default()).is_ok()
}

/// The same change, one step less; `None` = that is no change any more, or there is no step.
fn one_step_less(change: &Change, spec: &JobSpec) -> Option<Change> {
    let shape = |groups: &[usize]| &spec.groups[groups[0]].shape;
    let less = match change.clone() {
        Change::RttMax(Some(RttUs(rtt))) => Change::RttMax(Some(RttUs(rtt - 1))),
        Change::PriceMax(PriceMicroUsd(price)) => Change::PriceMax(PriceMicroUsd(price - 1)),
        Change::HourlyMax(CostMicroUsd(most)) => Change::HourlyMax(CostMicroUsd(most - 10_000)),
        Change::Topology(None) => Change::Topology(Some(Level::Region)),
        Change::Topology(Some(level)) => Change::Topology(Some(match level {
            Level::Region => Level::Zone,
            Level::Zone => Level::Site,
            _ => return None,
        })),
        Change::VramMin { groups, vram: VramMib(vram) } => {
            Change::VramMin { groups, vram: VramMib(vram + 1) }
        }
        Change::Cpu { groups, cpu: CpuMilli(cpu) } => {
            let cpu = CpuMilli((cpu + 100).min(shape(&groups).cpu.0));
            Change::Cpu { groups, cpu }
        }
        Change::Memory { groups, memory: MemoryMib(memory) } => {
            let memory = MemoryMib((memory + 64).min(shape(&groups).memory.0));
            Change::Memory { groups, memory }
        }
        Change::Disk { groups, disk: DiskMib(disk) } => {
            let disk = DiskMib((disk + 1_024).min(shape(&groups).disk.0));
            Change::Disk { groups, disk }
        }
        Change::Replicas(counts) if counts.len() == 1 => Change::Replicas(vec![counts[0] + 1]),
        _ => return None,
    };
    Some(less)
}

fn kind(change: &Change) -> &'static str {
    match change {
        Change::Quota { .. } => "quota",
        Change::Replicas(_) => "replicas",
        Change::RttMax(_) => "rtt",
        Change::Topology(_) => "topology",
        Change::Strategy(_) => "strategy",
        Change::PriceMax(_) => "price",
        Change::HourlyMax(_) => "hourly",
        Change::DomainsMax { .. } => "domains",
        Change::Model { .. } => "model",
        Change::VramMin { .. } => "vram",
        Change::NoSelector { .. } | Change::SelectorValue { .. } => "selector",
        Change::Tolerate { .. } => "taint",
        Change::Cpu { .. } | Change::Memory { .. } | Change::Disk { .. } => "resources",
        Change::NoRule { .. } => "rule",
        Change::Open { .. } => "open",
        Change::Wait { .. } => "wait",
        Change::Preempt(_) => "preempt",
    }
}

/// Two racks of 16 GPUs and two of 8, at two sites.
#[test]
fn how_many_domains_would_do_is_told() {
    let mut world = World::new();
    for (number, rack) in ["a", "a", "b", "b", "c", "d"].into_iter().enumerate() {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.rack = name(rack);
        spec.place.site = name(if rack < "c" { "one" } else { "two" });
        world.join(spec);
    }
    let told = |spec: &JobSpec| {
        let answer = explained(&world.state, spec);
        let bound = answer.helps.into_iter().find_map(|help| match help.change {
            Change::DomainsMax { groups, bound } => Some((groups, bound, help.is_least)),
            _ => None,
        });
        (answer.verdict, bound)
    };
    let at_most = |level, max| DomainsMax { level, max };
    let mut spec = job_spec(vec![group("w", 5, 8)]);
    spec.domains_max = vec![at_most(Level::Rack, 3)];
    assert_eq!(told(&spec), (None, None));
    spec.domains_max = vec![at_most(Level::Rack, 2)];
    let rack = Some((Vec::new(), at_most(Level::Rack, 3), true));
    assert_eq!(told(&spec), (Some(Verdict::Latency), rack));
    // Of two bounds the one that is in the way.
    spec.domains_max = vec![at_most(Level::Rack, 4), at_most(Level::Site, 1)];
    let site = Some((Vec::new(), at_most(Level::Site, 2), true));
    assert_eq!(told(&spec), (Some(Verdict::Latency), site));
    // A group's own, beside one that has none.
    spec.domains_max.clear();
    spec.groups = vec![group("w", 3, 8), group("free", 3, 8)];
    spec.groups[0].rules.domains_max = vec![at_most(Level::Node, 2)];
    let own = Some((vec![0], at_most(Level::Node, 3), true));
    assert_eq!(told(&spec), (Some(Verdict::Latency), own));
}

/// Two nodes of 8 GPUs at $ 1, one at $ 2.505, one far too dear for its GPUs' bound.
#[test]
fn the_price_per_hour_that_would_do_is_told_to_the_cent() {
    let mut world = World::new();
    for (host, price) in [("a", 1_000_000), ("b", 1_000_000), ("c", 2_505_000), ("d", 9_000_000)] {
        let mut spec = node_spec(host, 8);
        spec.price = PriceMicroUsd(price);
        world.join(spec);
    }
    let mut spec = job_spec(vec![group("w", 3, 8)]);
    spec.price_max = Some(PriceMicroUsd(3_000_000));
    let told = |spec: &JobSpec| {
        let answer = explained(&world.state, spec);
        let hourly = answer.helps.iter().find_map(|help| match help.change {
            Change::HourlyMax(CostMicroUsd(most)) => Some((most, help.is_least)),
            _ => None,
        });
        (answer.verdict, hourly)
    };
    let bound = |most| JobSpec { hourly_max: Some(CostMicroUsd(most)), ..spec.clone() };
    // 16 GPUs at $ 1 and 8 at $ 2.505: $ 36.04 and nothing less.
    assert_eq!(told(&bound(36_040_000)), (None, None));
    let (verdict, least) = told(&bound(36_039_999));
    assert_eq!((verdict, least), (Some(Verdict::Budget), Some((36_049_999, true))));
    assert_eq!(told(&bound(10_000_000)), (Some(Verdict::Budget), Some((36_040_000, true))));
    // Fewer do with less, and a share costs its part.
    spec.groups[0].replicas_min = 2;
    assert_eq!(
        told(&JobSpec { hourly_max: Some(CostMicroUsd(16_000_000)), ..spec.clone() }).0,
        None
    );
    let mut share = job_spec(vec![group("w", 1, 1)]);
    share.groups[0].shape.gpus = GpuAsk::Share(333);
    share.hourly_max = Some(CostMicroUsd(333_000));
    assert!(fits(&world.state, &share));
    share.hourly_max = Some(CostMicroUsd(332_999));
    assert!(!fits(&world.state, &share));
}

/// Busy or not, it is the price that would have to change first.
#[test]
fn what_no_empty_fleet_would_be_cheap_enough_for_is_a_matter_of_the_budget() {
    let mut world = World::with_nodes(2, 8);
    let spec = job_spec(vec![group("w", 2, 8)]);
    let verdict = |world: &World, spec: &JobSpec| explained(&world.state, spec).verdict;
    let prices: [fn(&mut JobSpec); 3] = [
        |spec| spec.price_max = Some(PriceMicroUsd(1)),
        |spec| spec.hourly_max = Some(CostMicroUsd(1)),
        |spec| {
            spec.duration = Some(DurationMs(3_600_000));
            spec.cost_max = Some(CostMicroUsd(1));
        },
    ];
    for dear in prices {
        let mut spec = spec.clone();
        dear(&mut spec);
        assert_eq!(verdict(&world, &spec), Some(Verdict::Budget), "idle");
    }
    world.submit_placed("all", &[(0, 0xff), (1, 0xff)]);
    for dear in prices {
        let mut spec = spec.clone();
        dear(&mut spec);
        assert_eq!(verdict(&world, &spec), Some(Verdict::Budget), "busy");
        // More than there is, whatever it costs.
        spec.groups = vec![group("w", 3, 8)];
        let by_class = spec.price_max.is_some();
        let wanted = if by_class { Verdict::Budget } else { Verdict::NeverFits };
        assert_eq!(verdict(&world, &spec), Some(wanted), "too large");
    }
}

/// Parts made with MIG, say: nothing else of a node is taken.
#[test]
fn a_replica_may_ask_for_nothing_but_a_countable_resource() {
    let licences = |count: u64| BTreeMap::from([(name("licence"), count)]).into();
    let mut world = World::new();
    for number in 0..3 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.custom = licences(7);
        world.join(spec);
    }
    let ask = |replicas: u32| {
        let mut spec = job_spec(vec![group("w", replicas, 0)]);
        let shape = &mut spec.groups[0].shape;
        (shape.cpu, shape.custom) = (CpuMilli::ZERO, licences(2));
        spec
    };
    for policy in Policy::ALL {
        let mut view = View::new(&world.state);
        (0..70).for_each(|_| view.note_arrival(&ask(1)));
        for replicas in [1, 2, 9] {
            let spec = ask(replicas);
            let found = plan(&view, &Request::whole(&spec), &policy, Budget::default());
            let placed = found.expect("three on each node").placements.len();
            assert_eq!(placed, replicas as usize, "{policy}");
        }
        let spec = ask(10);
        let refusal = plan(&view, &Request::whole(&spec), &policy, Budget::default());
        assert_eq!(refusal.expect_err("too many").verdict, Verdict::NeverFits, "{policy}");
    }
    let answer = explained(&world.state, &ask(10));
    assert_eq!(helps(&answer), [Change::Replicas(vec![9])]);
    let (spec, view) = (ask(9), View::new(&world.state));
    let placed = plan(&view, &Request::whole(&spec), &Policy::default(), Budget::default());
    world.done(Command::Submit(submit("all", spec, placed.ok())));
    assert_eq!(explained(&world.state, &ask(1)).verdict, Some(Verdict::BusyUntil(None)));
    assert_eq!(world.state.check(), []);
}

/// Jobs with a duration run from now on; returns them in the order of their ends.
fn run_some(scene: &mut Scene) -> Vec<JobId> {
    for number in 0..scene.rng.random_range(0..5u64) {
        let mut spec = scene.spec();
        spec.groups.truncate(1);
        spec.duration = Some(DurationMs(scene.rng.random_range(1..5) * 10_000));
        scene.submit(&format!("runs-{number}"), spec);
    }
    let world = &mut scene.world;
    let jobs: Vec<JobId> = world.state.jobs_after(None).map(|job| job.id).collect();
    for &job in &jobs {
        world.report_all(job, Observed::Ready);
    }
    world.state.endings().map(|(_, job)| job).collect()
}

/// The state after these jobs' time is over.
fn end(world: &mut World, jobs: &[JobId], at: TimeMs) {
    world.at = at;
    world.done(Command::Expire { jobs: jobs.to_vec(), forget: Vec::new() });
}

fn check_wait(scene: Scene, spec: &JobSpec, ends: &[JobId], until: TimeMs, last: JobId) {
    let mut world = scene.world;
    let upto = ends.iter().position(|&job| job == last).expect("a job that runs");
    // One end less does not do.
    if upto > 0 {
        end(&mut world, &ends[..upto], until);
        assert!(!fits(&world.state, spec), "fits before {last} has ended: {spec:?}");
    }
    end(&mut world, &ends[..=upto], until);
    assert!(fits(&world.state, spec), "does not fit after {last} has ended: {spec:?}");
}

/// Explains a random request and holds every word against the planner; what was told.
fn check(seed: u64) -> Vec<&'static str> {
    let mut scene = Scene::new(seed, 5);
    let ends = run_some(&mut scene);
    if scene.rng.random_range(0..4) == 0 {
        let some = scene.nodes()[0];
        let eligibility = Eligibility::Cordoned;
        scene.world.done(Command::SetEligibility { node: some, eligibility });
    }
    let spec = scene.spec();
    let state = &scene.world.state;
    let answer = explained(state, &spec);
    assert_eq!(answer, explained(state, &spec), "not deterministic");
    assert!(!answer.is_cut_short);
    assert_eq!(answer.groups.len(), spec.groups.len());
    for group in &answer.groups {
        assert_eq!(group.counts.iter().map(|(_, count)| count).sum::<u32>(), answer.nodes);
    }
    assert_eq!(answer.nodes as usize, state.nodes_len());
    assert_eq!(answer.verdict.is_none(), fits(state, &spec));
    assert!(answer.verdict.is_some() || answer.helps.is_empty());
    for Help { change, is_least } in &answer.helps {
        let Some(changed) = change.apply(&spec) else { continue };
        assert!(fits(state, &changed), "{change:?} does not help: {spec:?}");
        let less = one_step_less(change, &spec).filter(|_| *is_least);
        if let Some(less) = less.and_then(|less| less.apply(&spec)) {
            assert!(!fits(state, &less), "less than {change:?} helps: {spec:?}");
        }
    }
    let told = answer.helps.iter().map(|help| kind(&help.change)).collect();
    let wait = answer.helps.iter().find_map(|help| match help.change {
        Change::Wait { until, job, own: true } => Some((until, job)),
        Change::Wait { .. } => panic!("all jobs are the tenant's own"),
        _ => None,
    });
    if let Some(Verdict::BusyUntil(until)) = answer.verdict {
        assert_eq!(until, wait.map(|(until, _)| until));
    }
    if let Some((until, job)) = wait {
        check_wait(scene, &spec, &ends, until, job);
    }
    told
}

#[test]
fn random_cases_tell_changes_of_every_kind() {
    let mut told = BTreeMap::new();
    for kind in (0..1_500).flat_map(check) {
        *told.entry(kind).or_insert(0u32) += 1;
    }
    for kind in [
        "replicas",
        "rtt",
        "topology",
        "strategy",
        "price",
        "model",
        "vram",
        "selector",
        "taint",
        "resources",
        "open",
        "wait",
    ] {
        let count = told.get(kind).copied().unwrap_or(0);
        assert!(count >= 1, "{kind} only {count} times: {told:?}");
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn changes_help_and_are_the_smallest(seed: u64) {
        check(seed);
    }
}

fn helps(answer: &Explanation) -> Vec<Change> {
    answer.helps.iter().map(|help| help.change.clone()).collect()
}

#[test]
fn the_quota_comes_before_all_else() {
    let mut world = World::with_nodes(4, 8);
    let quota = quota(20_000, 10);
    world.done(Command::PutTenant(crate::command::PutTenant { tenant: tenant(TENANT), quota }));
    let mut first = job_spec(vec![group("w", 1, 8)]);
    first.duration = Some(DurationMs(60_000));
    let job = world.submit(submit("first", first, Some(placed(&[(0, 0xff)]))));
    world.report_all(job, Observed::Ready);
    let answer = explained(&world.state, &job_spec(vec![group("w", 20, 1)]));
    assert_eq!(answer.verdict, Some(Verdict::Quota));
    let until = world.state.endings().next().expect("one job ends").0;
    assert_eq!(
        helps(&answer),
        [
            Change::Replicas(vec![12]),
            Change::Quota { gpu_milli_more: 8_000 },
            Change::Wait { until, job, own: true },
        ]
    );
}

/// A job whose deadline leaves no time for it by then does not start when others end.
#[test]
fn what_ends_too_late_for_a_deadline_is_no_help() {
    let mut world = World::with_nodes(1, 8);
    let mut first = job_spec(vec![group("w", 1, 8)]);
    first.duration = Some(DurationMs(60_000));
    let job = world.submit(submit("first", first, Some(placed(&[(0, 0xff)]))));
    world.report_all(job, Observed::Ready);
    let until = world.state.endings().next().expect("one job ends").0;
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    spec.duration = Some(DurationMs(10_000));
    for (slack, wanted) in [(0, Some(until)), (1, None)] {
        spec.deadline = Some(TimeMs(until.0 + 10_000 - slack));
        let answer = explained(&world.state, &spec);
        assert_eq!(answer.verdict, Some(Verdict::BusyUntil(wanted)));
        assert_eq!(helps(&answer).len(), usize::from(wanted.is_some()));
    }
}

/// Nobody starts before its time, though there is room sooner.
#[test]
fn what_ends_before_a_job_may_begin_is_waited_for_no_less_long() {
    let mut world = World::with_nodes(1, 8);
    let mut first = job_spec(vec![group("w", 1, 8)]);
    first.duration = Some(DurationMs(60_000));
    let job = world.submit(submit("first", first, Some(placed(&[(0, 0xff)]))));
    world.report_all(job, Observed::Ready);
    let until = world.state.endings().next().expect("one job ends").0;
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    for (begin, wanted) in [(until.0 - 1, until), (until.0 + 5_000, TimeMs(until.0 + 5_000))] {
        spec.begin = Some(TimeMs(begin));
        assert_eq!(explained(&world.state, &spec).verdict, Some(Verdict::BusyUntil(Some(wanted))));
    }
}

#[test]
fn a_price_bound_names_the_next_price() {
    let mut world = World::new();
    for (number, price) in [(0, 2_000_000), (1, 3_000_000), (2, 5_000_000)] {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.price = PriceMicroUsd(price);
        world.done(register(spec));
    }
    let mut spec = job_spec(vec![group("w", 2, 8)]);
    spec.price_max = Some(PriceMicroUsd(2_500_000));
    let answer = explained(&world.state, &spec);
    assert_eq!(answer.verdict, Some(Verdict::Budget));
    assert_eq!(
        helps(&answer),
        [Change::Replicas(vec![1]), Change::PriceMax(PriceMicroUsd(3_000_000))]
    );
    // One replica alone goes another way through the planner.
    spec.groups = vec![group("w", 1, 8)];
    spec.price_max = Some(PriceMicroUsd(1_000_000));
    let answer = explained(&world.state, &spec);
    assert_eq!(answer.verdict, Some(Verdict::Budget));
    assert_eq!(helps(&answer), [Change::PriceMax(PriceMicroUsd(2_000_000))]);
    let view = View::new(&world.state);
    let refusal = plan(&view, &Request::whole(&spec), &Policy::default(), Budget::default())
        .expect_err("too dear");
    assert_eq!(refusal.to_reason().code, ReasonCode::Budget);
}

#[test]
fn the_smallest_rtt_bound_is_named() {
    let mut world = World::new();
    for number in 0..6 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.site = name(["a", "b", "c"][number / 2]);
        world.done(register(spec));
    }
    let rtt = |a: &str, b: &str, ms: u32| SiteRtt::told(name(a), name(b), RttUs(ms * 1_000));
    world.done(Command::SetSiteRtts(vec![
        rtt("a", "b", 80),
        rtt("b", "c", 90),
        rtt("a", "c", 200),
    ]));
    let mut spec = job_spec(vec![group("w", 4, 8)]);
    spec.rtt_max = Some(RttUs(50_000));
    let answer = explained(&world.state, &spec);
    assert_eq!(answer.verdict, Some(Verdict::Latency));
    assert_eq!(helps(&answer), [Change::Replicas(vec![2]), Change::RttMax(Some(RttUs(80_000)))]);
}

#[test]
fn nodes_that_come_back_and_taints_that_are_tolerated_help() {
    let mut world = World::with_nodes(2, 8);
    let mut tainted = node_spec("spot", 8);
    let taint = Taint { key: "spot".into(), value: "".into(), effect: TaintEffect::NoSchedule };
    tainted.taints.push(taint.clone());
    world.done(register(tainted));
    let node = crate::id::NodeId(1);
    world.done(Command::SetEligibility { node, eligibility: Eligibility::Draining });
    let answer = explained(&world.state, &job_spec(vec![group("w", 2, 8)]));
    assert_eq!(answer.verdict, Some(Verdict::NotReady));
    assert_eq!(
        helps(&answer),
        [
            Change::Replicas(vec![1]),
            Change::Tolerate { groups: vec![0], taint },
            Change::Open { nodes: 1 },
        ]
    );
}

#[test]
fn a_spent_budget_says_so_and_tells_nothing_false() {
    let mut world = World::with_nodes(8, 8);
    let mut spec = job_spec(vec![group("w", 4, 8)]);
    spec.groups[0].shape.cpu = CpuMilli(200_000);
    world.done(Command::SetEligibility {
        node: crate::id::NodeId(1),
        eligibility: Eligibility::Cordoned,
    });
    let outlook = Outlook::default();
    for steps_max in 0..60 {
        let mut view = View::new(&world.state);
        let (request, budget) = (Request::whole(&spec), Budget { steps_max });
        let answer = explain(&mut view, &request, &Policy::default(), &outlook, budget);
        for help in &answer.helps {
            let changed = help.change.apply(&spec);
            assert!(changed.is_none_or(|spec| fits(&world.state, &spec)), "{help:?}");
        }
        assert!(answer.is_cut_short || steps_max > 8, "{steps_max}: {answer:?}");
    }
}
