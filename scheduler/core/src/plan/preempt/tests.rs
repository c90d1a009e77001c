//! Who gives way, held against every set of running jobs on tiny fleets, and against the state.

use super::*;
use crate::command::{Command, Preempt, PutTenant, Rejection};
use crate::duty::office::look::quota_left;
use crate::fixture::entry::{TENANT, World, group, job_spec, name, quota, submit, tenant};
use crate::id::{NodeId, Rank};
use crate::job::{Disruption, JobKind, JobSpec, PreemptionPolicy, ReasonCode, Strategy};
use crate::node::Custom;
use crate::plan::quote;
use crate::plan::{Ranks, plan};
use crate::state::State;
use crate::unit::{CpuMilli, TimeMs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

/// A few nodes full of jobs of all priorities, and the spec of one that does not fit.
fn scene(seed: u64) -> (World, Vec<JobId>, JobSpec) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    for node in 0..rng.random_range(1..=4) {
        let gpus = rng.random_range(1..=4);
        let mut spec = crate::fixture::entry::node_spec(&format!("n{node}"), gpus);
        spec.custom = seats(rng.random_range(1..=4));
        world.join(spec);
    }
    world.done(Command::PutTenant(PutTenant {
        tenant: tenant("beta"),
        quota: quota(u64::MAX, 1_000),
    }));
    let mut jobs = Vec::new();
    for number in 0..7 {
        let mut spec = some_job(&mut rng);
        spec.priority = Priority(rng.random_range(-3..=1));
        spec.preemption.disruption =
            [Disruption::None, Disruption::Single, Disruption::All, Disruption::All]
                [rng.random_range(0..4)];
        let view = View::new(&world.state);
        let Ok(found) = plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default())
        else {
            continue;
        };
        let mut asked = submit(&format!("low{number}"), spec, Some(found));
        asked.tenant = tenant(if rng.random_range(0..3) == 0 { "beta" } else { TENANT });
        jobs.push(world.submit(asked));
        if rng.random_range(0..2) == 0 {
            world.report_all(jobs[jobs.len() - 1], crate::command::Observed::Ready);
        }
    }
    let mut spec = some_job(&mut rng);
    spec.priority = Priority(rng.random_range(0..=1));
    spec.preemption.policy = PreemptionPolicy::LowerPriority;
    if seed.is_multiple_of(3) {
        // The tenant may hold what it does, and some of what it asks for.
        let held = world.state.tenant(&tenant(TENANT)).expect("there").gpu_milli_used;
        let more = rng.random_range(0..=spec.gpu_milli());
        let quota = quota(held.saturating_add(more).max(spec.gpu_milli()), 1_000);
        world.done(Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota }));
    }
    (world, jobs, spec)
}

/// Whether it may be placed now, as far as the quota goes.
fn may_hold(state: &State, spec: &JobSpec) -> bool {
    Request::whole(spec).least_gpu_milli() <= quota_left(state, &tenant(TENANT))
}

fn within_quota<'a>(state: &State, spec: &'a JobSpec) -> Request<'a> {
    Request { gpu_milli_max: quota_left(state, &tenant(TENANT)), ..Request::whole(spec) }
}

fn seats(count: u64) -> Custom {
    BTreeMap::from([(name("seat"), count)]).into()
}

fn some_job(rng: &mut StdRng) -> JobSpec {
    let mut groups = Vec::new();
    for at in 0..rng.random_range(1..=2) {
        let mut one = group(&format!("g{at}"), rng.random_range(1..=3), rng.random_range(0..=3));
        one.replicas_min = rng.random_range(1..=one.replicas);
        if rng.random_range(0..4) == 0 {
            one.shape.gpus = crate::job::GpuAsk::Share(rng.random_range(2..9) * 100);
        }
        one.shape.custom = seats(rng.random_range(0..6) / 4);
        one.shape.cpu = CpuMilli(rng.random_range(1..=20) * 1_000);
        groups.push(one);
    }
    let mut spec = job_spec(groups);
    spec.strategy =
        [Strategy::Pack, Strategy::Spread, Strategy::StrictSpread][rng.random_range(0..3)];
    spec
}

fn asker(spec: &JobSpec) -> (crate::id::TenantId, Priority) {
    (tenant(TENANT), spec.priority)
}

fn candidates(state: &State, spec: &JobSpec) -> Vec<Candidate> {
    let (tenant, priority) = asker(spec);
    let asker = Asker { priority, ..Asker::of(&tenant, spec) };
    Candidates::all(state, asker, state.now())
}

fn chosen(view: &mut View, state: &State, spec: &JobSpec) -> Option<Choice> {
    let candidates = candidates(state, spec);
    choose(view, &within_quota(state, spec), &candidates, &Policy::BestFit, SEARCH).ok()
}

/// Whether the planner finds room for the spec once these jobs have been cancelled for good.
fn fits_without(seed: u64, gone: &[JobId]) -> bool {
    let (mut world, _, spec) = scene(seed);
    for &job in gone {
        world.done(Command::Cancel { job, reason: Default::default() });
    }
    let view = View::new(&world.state);
    let found = plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default());
    found.is_ok() && may_hold(&world.state, &spec)
}

/// The state takes the choice, and none that leaves anybody out; whether there is one.
fn check_against_state(seed: u64) -> Option<(u32, usize)> {
    let (mut world, _, spec) = scene(seed);
    let mut view = View::new(&world.state);
    let request = Request::whole(&spec);
    let fits = find(&view, &request, &Policy::BestFit, Budget::default()).is_some();
    if fits && may_hold(&world.state, &spec) {
        return None;
    }
    let before: Vec<_> = (0..view.node_end() as u32).map(|node| view.base(node)).collect();
    let choice = chosen(&mut view, &world.state, &spec);
    let after: Vec<_> = (0..view.node_end() as u32).map(|node| view.base(node)).collect();
    assert_eq!(before, after, "seed {seed}: the view is put back");
    let again = chosen(&mut View::new(&world.state), &world.state, &spec);
    assert_eq!(choice, again, "seed {seed}: always the same");
    let choice = choice?;
    let held = candidates(&world.state, &spec);
    let has_room = |view: &View| quote::is_free(view, &choice.plan.placements);
    assert!(with_taken(&mut view, &held, &choice.victims, has_room), "seed {seed}");
    let after: Vec<_> = (0..view.node_end() as u32).map(|node| view.base(node)).collect();
    assert_eq!(before, after, "seed {seed}: the view is put back");
    let job = world.submit(submit("high", spec, None));
    let with = |victims: Vec<Victim>| {
        Command::Preempt(Preempt { job, plan: choice.plan.clone(), victims })
    };
    let mut lesser = Vec::new();
    for (at, victim) in choice.victims.iter().enumerate() {
        let mut fewer = choice.victims.clone();
        fewer.remove(at);
        lesser.push(fewer);
        for rank in (0..victim.ranks.len()).filter(|_| victim.ranks.len() > 1) {
            let mut fewer = choice.victims.clone();
            fewer[at].ranks.remove(rank);
            lesser.push(fewer);
        }
    }
    for fewer in lesser {
        let refused = world.refused(with(fewer.clone()));
        assert!(
            matches!(refused, Rejection::StalePlan { .. } | Rejection::QuotaExceeded { .. }),
            "seed {seed}: {fewer:?}: {refused}"
        );
    }
    let held: u64 = held_milli(&world.state, &choice.victims);
    assert_eq!(choice.cost.gpu_milli, held, "seed {seed}");
    world.done(with(choice.victims.clone()));
    let lost = world.state.jobs_after(None).filter(|job| job.reason.code == ReasonCode::Preempted);
    assert_eq!(lost.count(), choice.victims.len());
    Some((choice.cost.whole, choice.victims.len()))
}

fn held_milli(state: &State, victims: &[Victim]) -> u64 {
    let mut sum = 0;
    for victim in victims {
        let job = state.job(victim.job).expect("there");
        let live = state.replicas(victim.job).filter(|(_, one)| one.phase.is_live());
        let taken = live.filter(|(rank, _)| victim.ranks.is_empty() || victim.ranks.contains(rank));
        sum += taken
            .map(|(rank, _)| {
                job.spec.groups[job.spec.group_of(rank).expect("one")].shape.gpu_milli()
            })
            .sum::<u64>();
    }
    sum
}

#[test]
fn the_state_takes_the_choice_and_nothing_less() {
    let mut ends = BTreeMap::new();
    // The last are of quotas that do not hold all replicas, but the least of the job.
    let seeds = [4_000_002, 7_000_842, 11_000_100, 13_000_341, 20_000_436];
    for seed in (0..2_000).chain(seeds) {
        let end = match check_against_state(seed) {
            None => "none",
            Some((0, _)) => "spares",
            Some((1, 1)) => "one whole",
            Some((_, 1..)) => "several",
            Some(_) => panic!("seed {seed}: nobody gives way"),
        };
        *ends.entry(end).or_insert(0u32) += 1;
    }
    for end in ["none", "spares", "one whole", "several"] {
        assert!(ends.get(end).is_some_and(|&count| count > 10), "{end}: {ends:?}");
    }
}

/// Over all sets of running jobs that may be sent back whole: the lowest priority up to which some
/// are enough, the fewest of those, with the fewest GPUs, and the least lost. Where spares may be taken, too, sets do not say it all.
#[test]
fn on_tiny_fleets_the_fewest_jobs_give_way() {
    let (mut cases, mut several) = (0, 0);
    // The last are of quotas that do not hold all replicas.
    for seed in (0..1_500).chain([1_000_551, 3_000_201, 4_000_002, 5_000_160, 10_000_728]) {
        let (world, _, spec) = scene(seed);
        let candidates = candidates(&world.state, &spec);
        if candidates.is_empty()
            || candidates.iter().any(|one| !one.spares.is_empty())
            || fits_without(seed, &[])
        {
            continue;
        }
        let mut best: Option<(Priority, usize, u64, u128)> = None;
        for set in 1u32..1 << candidates.len() {
            let all = candidates.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
            let all: Vec<&Candidate> = all.map(|(_, one)| one).collect();
            let highest = all.iter().map(|one| one.priority).max().expect("some");
            let lost =
                all.iter().map(|one| u128::from(one.rest_gpu_milli) * u128::from(one.ran.0)).sum();
            let taken = all.iter().map(|one| one.rest_gpu_milli).sum();
            let cost = (highest, all.len(), taken, lost);
            let jobs: Vec<JobId> = all.iter().map(|one| one.job).collect();
            if best.is_none_or(|best| cost < best) && fits_without(seed, &jobs) {
                best = Some(cost);
            }
        }
        let choice = chosen(&mut View::new(&world.state), &world.state, &spec);
        let found = choice.map(|choice| {
            let cost = choice.cost;
            (cost.highest, cost.whole as usize, cost.gpu_milli, cost.lost)
        });
        assert_eq!(found, best, "seed {seed}");
        cases += u32::from(best.is_some());
        several += u32::from(best.is_some_and(|best| best.1 > 1));
    }
    assert!(cases > 100 && several > 20, "{cases} {several}");
}

/// Ten jobs spread over all nodes, and one that fills a node: one gives way, not ten.
#[test]
fn one_job_gives_way_rather_than_a_piece_of_each() {
    let mut world = World::with_nodes(8, 8);
    let low = |replicas: u32, gpus: u8| {
        let mut spec = job_spec(vec![group("w", replicas, gpus)]);
        spec.priority = Priority(-1);
        spec.preemption.disruption = Disruption::All;
        spec
    };
    for job in 0..8u64 {
        let places: Vec<(u32, u64)> = (0..7).map(|node| (node, 1 << job)).collect();
        let found = crate::fixture::entry::plan(&places);
        world.submit(submit(&format!("wide{job}"), low(7, 1), Some(found)));
    }
    let found = crate::fixture::entry::plan(&[(7, 0xff)]);
    let narrow = world.submit(submit("narrow", low(1, 8), Some(found)));
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    spec.preemption.policy = PreemptionPolicy::LowerPriority;
    let mut view = View::new(&world.state);
    let choice = chosen(&mut view, &world.state, &spec).expect("fits");
    assert_eq!(choice.victims, [Victim { job: narrow, ranks: Vec::new() }]);
    assert_eq!(choice.plan.placements[0].node, NodeId(7));
    // Of a gang whose spares are enough, no more than is needed.
    let mut spec = job_spec(vec![group("w", 2, 1)]);
    spec.preemption.policy = PreemptionPolicy::LowerPriority;
    world.done(Command::Cancel { job: narrow, reason: Default::default() });
    let mut wide = low(8, 1);
    wide.preemption.disruption = Disruption::Single;
    wide.groups[0].replicas_min = 2;
    let places: Vec<(u32, u64)> = (0..8).map(|gpu| (7, 1 << gpu)).collect();
    let found = crate::fixture::entry::plan(&places);
    let elastic = world.submit(submit("elastic", wide, Some(found)));
    let choice = chosen(&mut View::new(&world.state), &world.state, &spec).expect("fits");
    let [victim] = choice.victims.as_slice() else { panic!("{choice:?}") };
    assert_eq!((victim.job, victim.ranks.len(), choice.cost.whole), (elastic, 2, 0));
    assert!(victim.ranks.iter().all(|rank| *rank >= Rank(2)));
}

fn victim(disruption: Disruption, replicas: u32) -> JobSpec {
    let mut spec = job_spec(vec![group("w", replicas, 8)]);
    spec.priority = Priority(-1);
    spec.preemption.disruption = disruption;
    spec
}

fn taker(replicas: u32) -> JobSpec {
    let mut spec = job_spec(vec![group("w", replicas, 8)]);
    spec.preemption.policy = PreemptionPolicy::LowerPriority;
    spec
}

/// One victim on each of the nodes, the first the oldest by hours.
fn one_on_each(nodes: u32) -> (World, Vec<JobId>) {
    let mut world = World::with_nodes(nodes as usize, 8);
    let place = |node: u32| {
        world.at = TimeMs(world.at.0 + 3_600_000);
        let found = crate::fixture::entry::plan(&[(node, 0xff)]);
        world.submit(submit(&format!("v{node}"), victim(Disruption::All, 1), Some(found)))
    };
    let jobs = (0..nodes).map(place).collect();
    (world, jobs)
}

#[test]
fn of_equal_jobs_those_that_ran_least_give_way() {
    let (world, jobs) = one_on_each(5);
    for wanted in 1..=3 {
        let spec = taker(wanted);
        let choice = chosen(&mut View::new(&world.state), &world.state, &spec).expect("fits");
        let victims: Vec<JobId> = choice.victims.iter().map(|victim| victim.job).collect();
        assert_eq!(victims, jobs[5 - wanted as usize..]);
        assert!(!choice.is_cut);
        let hours = u128::from(wanted * (wanted - 1) / 2);
        assert_eq!(choice.cost.lost / 8_000 / 3_600_000, hours);
    }
    let request_spec = taker(2);
    let request = Request::whole(&request_spec);
    let all = candidates(&world.state, &request_spec);
    let few = Budget { steps_max: 5_000 };
    let choice = choose(&mut View::new(&world.state), &request, &all, &Policy::BestFit, few);
    assert!(choice.expect("fits").is_cut, "every try counts");
}

#[test]
fn the_spares_that_ran_least_are_taken_of_as_few_jobs_as_are_enough() {
    let mut world = World::with_nodes(9, 8);
    let mut place = |first: u32| {
        world.at = TimeMs(world.at.0 + 3_600_000);
        let mut spec = victim(Disruption::Single, 3);
        spec.groups[0].replicas_min = 1;
        let places: Vec<(u32, u64)> = (first..first + 3).map(|node| (node, 0xff)).collect();
        let found = crate::fixture::entry::plan(&places);
        world.submit(submit(&format!("elastic{first}"), spec, Some(found)))
    };
    let jobs = [6, 0, 3].map(&mut place);
    for (wanted, of) in [(1, &jobs[2..]), (2, &jobs[2..]), (3, &jobs[1..]), (6, &jobs[..])] {
        let spec = taker(wanted);
        let choice = chosen(&mut View::new(&world.state), &world.state, &spec).expect("fits");
        let victims: Vec<JobId> = choice.victims.iter().map(|victim| victim.job).collect();
        assert_eq!((victims, choice.cost.whole), (of.to_vec(), 0));
        assert_eq!(choice.cost.gpu_milli, u64::from(wanted) * 8_000);
    }
}

/// More is placed than the least, where what is given up holds it; and what is done is not needed.
#[test]
fn all_that_fits_goes_where_others_gave_way() {
    let (mut world, jobs) = one_on_each(2);
    for job in jobs {
        world.done(Command::Cancel { job, reason: Default::default() });
    }
    let found = crate::fixture::entry::plan(&[(0, 0xff), (1, 0xff)]);
    world.submit(submit("wide", victim(Disruption::All, 2), Some(found)));
    let mut spec = taker(2);
    spec.groups[0].replicas_min = 1;
    let choice = chosen(&mut View::new(&world.state), &world.state, &spec).expect("fits");
    assert_eq!((choice.plan.placements.len(), choice.cost.whole), (2, 1));
    let spec = JobSpec { kind: JobKind::Plain, ..taker(3) };
    let last = Request { ranks: Ranks::Some(&[Rank(2)]), ..Request::whole(&spec) };
    let all = candidates(&world.state, &spec);
    let choice = choose(&mut View::new(&world.state), &last, &all, &Policy::BestFit, SEARCH);
    assert_eq!(choice.map(|choice| choice.plan.placements.len()), Ok(1));
}

#[test]
fn candidates_are_read_in_slices_without_those_who_give_way_already_or_are_related() {
    let (mut world, jobs) = one_on_each(3);
    let beta = tenant("beta");
    world.done(Command::PutTenant(PutTenant { tenant: beta.clone(), quota: quota(8_000, 1) }));
    world.done(Command::Cancel { job: jobs[2], reason: Default::default() });
    let found = crate::fixture::entry::plan(&[(2, 0xff)]);
    let mut asked = submit("theirs", victim(Disruption::All, 1), Some(found));
    asked.tenant = beta;
    let theirs = world.submit(asked);
    let read = |is_about_jobs, but: &[JobId]| {
        let (state, own, but) = (&world.state, tenant(TENANT), but.iter().copied().collect());
        let asker = Asker { tenant: &own, priority: Priority(0), is_about_jobs };
        let (mut all, mut counts) = (Candidates::begin(state, asker.priority, &but), Vec::new());
        while all.read_on(state, asker, state.now(), 1) {
            counts.push(all.found.len());
        }
        let found: Vec<(JobId, bool)> = all.found.iter().map(|one| (one.job, one.own)).collect();
        (found, counts)
    };
    let all = vec![(jobs[0], true), (jobs[1], true), (theirs, false)];
    assert_eq!(read(false, &[]), (all, vec![1, 2, 3]));
    assert_eq!(read(false, &[jobs[0]]).0, [(jobs[1], true), (theirs, false)]);
    assert_eq!(read(true, &[]).0, [(theirs, false)]);
    // What it amounts to names those of the tenant who asks.
    let spec = taker(3);
    let choice = chosen(&mut View::new(&world.state), &world.state, &spec).expect("fits");
    let Taken { whole, part, own, .. } = choice.taken(&candidates(&world.state, &spec));
    assert_eq!((whole, part, own), (3, 0, jobs[..2].to_vec()));
}

/// A search that is cut short still says only what holds.
#[test]
fn a_search_that_is_cut_short_sends_nobody_back_for_nothing() {
    for seed in 0..300 {
        let (mut world, _, spec) = scene(seed);
        let mut view = View::new(&world.state);
        let request = Request::whole(&spec);
        if find(&view, &request, &Policy::BestFit, Budget::default()).is_some() {
            continue;
        }
        let all = candidates(&world.state, &spec);
        let best = choose(&mut view, &request, &all, &Policy::BestFit, SEARCH);
        for steps_max in [0, 1, 5_000, 20_000, 100_000] {
            let budget = Budget { steps_max };
            let choice = choose(&mut view, &request, &all, &Policy::BestFit, budget);
            assert_eq!(choice.as_ref().err(), best.as_ref().err(), "seed {seed}");
            let Ok(choice) = choice else { continue };
            let best = best.as_ref().expect("some");
            assert!(best.cost.highest <= choice.cost.highest, "seed {seed}");
            let job = world.submit(submit(&format!("high{steps_max}"), spec.clone(), None));
            for at in 0..choice.victims.len() {
                let mut victims = choice.victims.clone();
                victims.remove(at);
                let plan = choice.plan.clone();
                world.refused(Command::Preempt(Preempt { job, plan, victims }));
            }
        }
    }
}

/// A try without enough steps proves nothing: neither that nobody helps, nor that fewer would not do.
#[test]
fn tries_that_are_cut_short_are_told() {
    let (mut undecided, mut dearer) = (0, 0);
    for seed in 0..1_000 {
        let (world, _, spec) = scene(seed);
        let mut view = View::new(&world.state);
        let request = Request::whole(&spec);
        let all = candidates(&world.state, &spec);
        let mut choose_by =
            |try_steps| choose_by(&mut view, &request, &all, &Policy::BestFit, SEARCH, try_steps);
        let best = choose_by(TRY_STEPS);
        for try_steps in [1, 20, 50, 100] {
            match (choose_by(try_steps), &best) {
                (Ok(choice), Ok(best)) if choice.cost > best.cost => {
                    assert!(choice.is_cut, "seed {seed}, {try_steps}");
                    dearer += 1;
                }
                (Ok(_), best) => assert!(best.is_ok(), "seed {seed}, {try_steps}"),
                (Err(Vain::NotEnough), best) => {
                    assert_eq!(*best, Err(Vain::NotEnough), "seed {seed}, {try_steps}");
                }
                (Err(Vain::Undecided), _) => undecided += 1,
            }
        }
    }
    assert!(undecided > 10 && dearer > 10, "{undecided} {dearer}");
}
