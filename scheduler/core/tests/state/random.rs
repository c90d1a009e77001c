//! I1-I7 over random histories. A failing case is a list of seeds, each making one entry.

use proptest::prelude::*;
use scheduler_core::command::{Actor, Command, Entry, Outcome, PutTenant};
use scheduler_core::fixture::entry::{TENANT, World, node_spec, quota, supplier, tenant};
use scheduler_core::fixture::noise;
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{
    Disruption, Job, JobKind, JobPhase, PreemptionPolicy, Priority, ReasonCode, Replica,
    ReplicaPhase,
};
use scheduler_core::node::Node;
use scheduler_core::state::{Applied, Row, RowKey, State, Tenant};
use std::collections::BTreeMap;
use std::sync::Arc;

fn begin() -> State {
    let mut world = World::new();
    for host in 0..4 {
        world.join(node_spec(&format!("n{host}"), 8));
    }
    let quota = quota(u64::MAX, 1_000);
    world.done(Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota }));
    world.state
}

/// I1 by another count than the state's own: thousandths of every GPU, and the sums of a node.
fn overcommitted(state: &State) -> Option<NodeId> {
    let mut gpus: BTreeMap<(NodeId, u8), u64> = BTreeMap::new();
    let mut sums: BTreeMap<NodeId, (u64, u64, u64)> = BTreeMap::new();
    for job in state.jobs_after(None) {
        for (rank, replica) in state.replicas(job.id) {
            let Some(held) = replica.allocation.filter(|_| replica.phase.is_live()) else {
                continue;
            };
            let shape = &job.spec.groups[job.spec.group_of(rank).expect("a group")].shape;
            let milli = if held.share_milli == 0 { 1_000 } else { u64::from(held.share_milli) };
            assert_eq!(held.gpus.iter().map(|_| milli).sum::<u64>(), shape.gpu_milli());
            for gpu in held.gpus.iter() {
                *gpus.entry((held.node, gpu)).or_default() += milli;
            }
            let sum = sums.entry(held.node).or_default();
            sum.0 += shape.cpu.0;
            sum.1 += shape.memory.0;
            sum.2 += shape.disk.0;
        }
    }
    let over_gpu = gpus.iter().find(|((node, gpu), milli)| {
        **milli > 1_000 || state.node(*node).is_none_or(|n| n.gpus.len() <= usize::from(*gpu))
    });
    let over_sum = sums.iter().find(|(node, (cpu, memory, disk))| {
        let total = state.node(**node).map(|node| node.resources).unwrap_or_default();
        *cpu > total.cpu.0 || *memory > total.memory.0 || *disk > total.disk.0
    });
    over_gpu.map(|((node, _), _)| *node).or(over_sum.map(|(node, _)| *node))
}

/// Everything that can be seen from outside, derived or not.
fn seen(state: &State) -> String {
    let nodes: Vec<_> = state
        .nodes()
        .map(|node| (node, state.usage(node.id), state.node_work(node.id).collect::<Vec<_>>()))
        .collect();
    let jobs: Vec<_> = state
        .jobs_after(None)
        .map(|job| {
            let found = state.job_by_request(&job.tenant, &job.request_id);
            let spare = state.spare_ranks(job);
            (
                job,
                state.counts(job.id),
                found,
                members(state, job.id),
                state.scalings(job.id),
                spare,
            )
        })
        .collect();
    let disruptible: Vec<_> = state.disruptible(Priority(i16::MAX)).collect();
    let lists = (state.waiting().collect::<Vec<_>>(), state.due(state.now(), 1_000), disruptible);
    let tenants: Vec<_> = state.tenants().collect();
    format!("{nodes:?} {jobs:?} {lists:?} {tenants:?} {:?} {:?}", state.models(), state.sites())
}

fn members(state: &State, job: JobId) -> BTreeMap<Rank, Replica> {
    state.replicas(job).collect()
}

fn run(state: &mut State, seeds: &[u64]) -> Vec<(Entry, Applied)> {
    let mut history = Vec::new();
    for &seed in seeds {
        let entry = noise::entry(state, seed);
        let applied = state.apply(state.index() + 1, &entry);
        history.push((entry, applied));
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// I1, I2, I3, I4, I6: no step leaves a finding, and a rejection leaves everything as it was.
    #[test]
    fn nothing_breaks_the_state(seeds in prop::collection::vec(any::<u64>(), 1..160)) {
        let mut state = begin();
        for seed in seeds {
            let entry = noise::entry(&state, seed);
            let (hash, view) = (state.hash(), seen(&state));
            let applied = state.apply(state.index() + 1, &entry);
            let findings = state.check();
            prop_assert!(findings.is_empty(), "{findings:?} after {entry:?}");
            prop_assert_eq!(overcommitted(&state), None, "after {:?}", entry);
            if applied.result.is_err() {
                prop_assert_eq!(hash, state.hash(), "{:?} was rejected", entry);
                prop_assert_eq!(view, seen(&state));
                prop_assert!(applied.events.is_empty());
            }
        }
    }

    /// I2 by another count than the state's own: what a plan placed is whole, group by group.
    #[test]
    fn no_gang_is_placed_by_half(seeds in prop::collection::vec(any::<u64>(), 1..160)) {
        let mut state = begin();
        for seed in seeds {
            let entry = noise::entry(&state, seed);
            let applied = state.apply(state.index() + 1, &entry);
            let job = match (&applied.result, &entry.command) {
                (Ok(Outcome::Submitted { job, placed: true, known: false }), _) => *job,
                (Ok(_), Command::Commit(commit)) => commit.job,
                (Ok(_), Command::Preempt(preempt)) => preempt.job,
                _ => continue,
            };
            let spec = state.job(job).expect("placed").spec.clone();
            for (group, (first, end)) in
                spec.groups.iter().zip(spec.group_starts().iter().zip(spec.group_starts().iter().skip(1)))
            {
                let held = state
                    .replicas(job)
                    .filter(|(rank, _)| (*first..*end).contains(&rank.0))
                    .filter(|(_, replica)| {
                        replica.phase.is_live()
                            || replica.phase == ReplicaPhase::Succeeded
                    })
                    .count();
                prop_assert!(held >= group.replicas_min as usize, "{:?}", entry);
            }
        }
    }

    /// Jobs are started within their times, and end when these are over: neither sooner nor, where
    /// somebody asks, later.
    #[test]
    fn nobody_runs_out_of_its_time(seeds in prop::collection::vec(any::<u64>(), 1..160)) {
        let mut state = begin();
        for seed in seeds {
            let entry = noise::entry(&state, seed);
            let before: BTreeMap<JobId, JobPhase> =
                state.jobs_after(None).map(|job| (job.id, job.phase)).collect();
            let applied = state.apply(state.index() + 1, &entry);
            if applied.result.is_err() {
                continue;
            }
            let now = state.now().0;
            let (due, _) = state.due(state.now(), usize::MAX);
            for job in state.jobs_after(None) {
                let was = before.get(&job.id).copied().unwrap_or(JobPhase::Pending);
                let spec = &job.spec;
                let deadline = spec.deadline.map(|deadline| deadline.0);
                let least = spec.duration_min.or(spec.duration).map_or(1, |least| least.0);
                let ran = job.ready_at.zip(spec.duration);
                let ran = ran.map(|(ready, duration)| ready.0.saturating_add(duration.0));
                let started = was == JobPhase::Pending && job.placed_at.is_some();
                let in_time = deadline.is_none_or(|by| now.checked_add(least).is_some_and(|at| at <= by));
                prop_assert!(!started || (spec.begin.is_none_or(|at| at.0 <= now) && in_time));
                let is_over = match job.phase {
                    JobPhase::Ended => continue,
                    JobPhase::Failed if job.reason.code != ReasonCode::Deadline => continue,
                    JobPhase::Pending | JobPhase::Failed => !in_time,
                    _ => deadline.into_iter().chain(ran).any(|at| now >= at),
                };
                if job.phase.is_over() {
                    prop_assert!(is_over, "{:?}", job);
                } else {
                    prop_assert_eq!(due.contains(&job.id), is_over, "{:?}", job);
                }
            }
        }
    }

    /// Preemption, held against the rules written out again: only those lose something who let
    /// it, to a job that asks for it, waits and is of a higher priority; who goes back goes back
    /// whole, who loses spares alone is as far as before; and nobody else is touched.
    #[test]
    fn preemption_takes_nothing_from_who_did_not_let_it(
        seeds in prop::collection::vec(any::<u64>(), 1..200),
    ) {
        let mut state = begin();
        for seed in seeds {
            let entry = noise::entry(&state, seed);
            let victims = match &entry.command {
                Command::Preempt(asked) => &asked.victims,
                Command::Submit(asked) if !asked.victims.is_empty() => &asked.victims,
                _ => {
                    state.apply(state.index() + 1, &entry);
                    continue;
                }
            };
            let jobs: Vec<Arc<Job>> = state.jobs_after(None).cloned().collect();
            let before: BTreeMap<JobId, BTreeMap<Rank, Replica>> =
                jobs.iter().map(|job| (job.id, members(&state, job.id))).collect();
            let (by, victims) = match (&entry.command, state.apply(state.index() + 1, &entry).result) {
                (Command::Preempt(asked), Ok(_)) => {
                    let waited = jobs.iter().find(|job| job.id == asked.job).expect("there");
                    prop_assert_eq!(waited.phase, JobPhase::Pending);
                    (asked.job, &victims[..])
                }
                // Who had been accepted before takes nothing now.
                (_, Ok(Outcome::Submitted { job, known, .. })) => {
                    (job, if known { &[] } else { &victims[..] })
                }
                _ => continue,
            };
            let winner = state.job(by).expect("there");
            if !victims.is_empty() {
                prop_assert_eq!(winner.spec.preemption.policy, PreemptionPolicy::LowerPriority);
                prop_assert!(winner.placed_at.is_some());
            }
            for job in jobs.iter().filter(|job| job.id != by || victims.is_empty()) {
                let (now, after) = (state.job(job.id).expect("there"), members(&state, job.id));
                let Some(victim) = victims.iter().find(|victim| victim.job == job.id) else {
                    prop_assert_eq!(now, job);
                    prop_assert_eq!(&after, &before[&job.id]);
                    continue;
                };
                let disruption = job.spec.preemption.disruption;
                prop_assert!(disruption != Disruption::None && job.spec.priority < winner.spec.priority);
                prop_assert_eq!((now.preemptions, now.reason.code), (job.preemptions + 1, ReasonCode::Preempted));
                let changed = after.iter().filter(|(rank, now)| before[&job.id][rank] != **now);
                if victim.ranks.is_empty() {
                    prop_assert_eq!((now.phase, now.placed_at, now.ready_at), (JobPhase::Pending, None, None));
                    let stays = |one: &Replica| one.phase == ReplicaPhase::Waiting
                        || (one.phase == ReplicaPhase::Succeeded && job.spec.kind == JobKind::Plain);
                    prop_assert!(after.values().all(stays), "{:?}", after);
                    prop_assert!(before[&job.id].values().any(|one| one.phase.is_live()));
                } else {
                    prop_assert_eq!(disruption, Disruption::Single);
                    prop_assert_eq!((now.phase, now.ready_at), (job.phase, job.ready_at));
                    let ranks: Vec<Rank> = changed.map(|(rank, _)| *rank).collect();
                    prop_assert_eq!(&ranks, &victim.ranks);
                    for (group, starts) in job.spec.groups.iter().zip(job.spec.group_starts().windows(2)) {
                        let held = after.iter().filter(|(rank, one)| (starts[0]..starts[1]).contains(&rank.0)
                            && (one.phase.is_live() || one.phase == ReplicaPhase::Succeeded));
                        prop_assert!(held.count() >= group.replicas_min as usize);
                    }
                }
            }
        }
    }

    /// All that can be spared, and any part of it, may be taken; nothing more of it may.
    #[test]
    fn spares_are_spare(seeds in prop::collection::vec(any::<u64>(), 60..200), part in any::<u64>()) {
        let mut state = begin();
        run(&mut state, &seeds);
        let single = |job: &&Arc<Job>| job.spec.preemption.disruption == Disruption::Single
            && job.phase != JobPhase::Pending && !job.phase.is_over();
        let jobs: Vec<Arc<Job>> = state.jobs_after(None).filter(single).cloned().collect();
        for job in jobs {
            let spare = state.spare_ranks(&job);
            let counts = state.counts(job.id).expect("there").groups;
            for (group, (own, starts)) in job.spec.groups.iter().zip(counts.iter().zip(job.spec.group_starts().windows(2))) {
                let of_group = spare.iter().filter(|rank| (starts[0]..starts[1]).contains(&rank.0)).count();
                let over = |have: u32| (have + own.succeeded).saturating_sub(group.replicas_min) as usize;
                prop_assert!(of_group <= over(own.live()));
                // The head alone is kept beside the minimum, where the job runs.
                let ready = job.phase == JobPhase::Ready;
                let (live, idle) = (own.live() as usize, (own.live() - own.ready) as usize);
                let most = live.min(over(own.live())).min(over(own.ready) + idle);
                prop_assert!(!ready || of_group + 1 >= most);
            }
            for ranks in [spare.clone(), spare.iter().copied().filter(|rank| part >> (rank.0 % 64) & 1 == 0).collect()] {
                if ranks.is_empty() {
                    continue;
                }
                prop_assert_eq!(state.check_spared(&job, &ranks), true, "{:?} of {:?}", ranks, job);
            }
        }
    }

    /// I9: a scaling changes no replica that stays, gives what was asked for, and lets go first of
    /// what waits, then of what runs, of the highest ranks first, and never of the head.
    #[test]
    fn a_scaling_touches_nothing_that_stays(seeds in prop::collection::vec(any::<u64>(), 1..200)) {
        let mut state = begin();
        for seed in seeds {
            let entry = noise::entry(&state, seed);
            let Command::Scale(asked) = &entry.command else {
                state.apply(state.index() + 1, &entry);
                continue;
            };
            let (spec, before) = (state.job(asked.job).cloned(), members(&state, asked.job));
            let applied = state.apply(state.index() + 1, &entry);
            let after = members(&state, asked.job);
            let Ok(Outcome::Scaled { known: false, .. }) = applied.result else {
                prop_assert_eq!(before, after);
                continue;
            };
            let spec = spec.expect("was scaled").spec.clone();
            let at = spec.groups.iter().position(|group| group.name == asked.group).expect("one");
            let of_group = |members: &BTreeMap<Rank, Replica>| {
                members.keys().filter(|rank| spec.group_of(**rank) == Some(at)).count()
            };
            prop_assert_eq!(of_group(&after), asked.replicas as usize);
            prop_assert!(after.contains_key(&spec.head_rank()));
            let over = state.job(asked.job).is_some_and(|job| job.phase.is_over());
            for (rank, replica) in &after {
                let same = before.get(rank) == Some(replica);
                let fresh = !before.contains_key(rank) && replica.phase == ReplicaPhase::Waiting;
                prop_assert!(same || fresh || over, "rank {} of {:?}", rank, asked);
            }
            let power = |rank: &Rank| {
                let phase = before[rank].phase;
                (!phase.is_waiting(), phase == ReplicaPhase::Succeeded, std::cmp::Reverse(*rank))
            };
            let gone = before.keys().filter(|rank| !after.contains_key(rank)).map(power).max();
            let stays = |rank: &&Rank| {
                spec.group_of(**rank) == Some(at) && **rank != spec.head_rank() && after.contains_key(rank)
            };
            let kept = before.keys().filter(stays).map(power).min();
            prop_assert!(gone.is_none() || kept.is_none() || gone < kept, "{:?}", asked);
        }
    }

    /// I11: suppliers change their own nodes only, tenants their own jobs only.
    #[test]
    fn nobody_changes_what_is_not_theirs(seeds in prop::collection::vec(any::<u64>(), 1..200)) {
        let mut state = begin();
        for seed in seeds {
            let mut entry = noise::entry(&state, seed);
            // More outsiders than the noise has of itself.
            entry.by = match seed % 4 {
                0 => Actor::Supplier(supplier("ore")),
                1 => Actor::Tenant(tenant("beta")),
                _ => entry.by,
            };
            let jobs: Vec<Arc<Job>> = state.jobs_after(None).cloned().collect();
            let nodes: Vec<Arc<Node>> = state.nodes().cloned().collect();
            let quotas: Vec<Tenant> = state.tenants().cloned().collect();
            state.apply(state.index() + 1, &entry);
            match &entry.by {
                Actor::Supplier(by) => {
                    for node in nodes.iter().filter(|node| node.supplier != *by) {
                        prop_assert_eq!(state.node(node.id), Some(node));
                    }
                    // A job may lose replicas with a node, but nothing else: then it is being repaired.
                    for job in &jobs {
                        let now = state.job(job.id).expect("still there");
                        let lost = now.phase == JobPhase::Repairing;
                        let phases = (job.phase, now.phase);
                        prop_assert!(now.phase == job.phase || lost, "{phases:?} {:?}", entry.command);
                    }
                    prop_assert_eq!(state.jobs_len(), jobs.len());
                }
                Actor::Tenant(by) => {
                    for job in jobs.iter().filter(|job| job.tenant != *by) {
                        prop_assert_eq!(state.job(job.id), Some(job));
                    }
                    for job in state.jobs_after(jobs.last().map(|job| job.id)) {
                        prop_assert_eq!(&job.tenant, by);
                    }
                    prop_assert!(state.nodes().eq(nodes.iter()));
                }
                Actor::System | Actor::Operator => continue,
            }
            let same = |old: &Tenant| state.tenant(&old.id).is_some_and(|now| now.quota == old.quota);
            prop_assert!(quotas.iter().all(same) && state.tenants().count() == quotas.len());
        }
    }

    /// I5: the same entries, after a trip through bytes, give the same outcomes, events and hash.
    #[test]
    fn a_replay_is_equal(seeds in prop::collection::vec(any::<u64>(), 1..200)) {
        let mut first = begin();
        let mut second = begin();
        for (entry, applied) in run(&mut first, &seeds) {
            let bytes = postcard::to_stdvec(&entry).expect("encodes");
            let back: Entry = postcard::from_bytes(&bytes).expect("decodes");
            prop_assert_eq!(&back, &entry);
            let again = second.apply(second.index() + 1, &back);
            prop_assert_eq!(&again, &applied);
            let bytes = postcard::to_stdvec(&applied.result).expect("encodes");
            prop_assert_eq!(&applied.result, &postcard::from_bytes(&bytes).expect("decodes"));
        }
        prop_assert_eq!(first.hash(), second.hash());
        prop_assert_eq!(seen(&first), seen(&second));
    }

    /// I7: a snapshot and the rest of the log give what the whole log gives; a frozen view does
    /// not move with the state; rows survive bytes and any order.
    #[test]
    fn a_snapshot_and_the_tail_are_the_whole(
        seeds in prop::collection::vec(any::<u64>(), 1..120),
        tail in prop::collection::vec(any::<u64>(), 1..80),
    ) {
        let mut state = begin();
        run(&mut state, &seeds);
        let frozen = state.freeze();
        let (hash, view) = (state.hash(), seen(&state));
        let history = run(&mut state, &tail);

        prop_assert_eq!(frozen.hash(), hash);
        prop_assert_eq!(frozen.check(), []);
        let mut rows: Vec<Row> = frozen.rows().collect();
        rows.reverse();
        let bytes = postcard::to_stdvec(&rows).expect("encodes");
        let rows: Vec<Row> = postcard::from_bytes(&bytes).expect("decodes");
        let mut restored = State::from_rows(rows.into_iter()).expect("restores");
        prop_assert_eq!(restored.hash(), hash);
        prop_assert_eq!(restored.index(), frozen.index());
        prop_assert_eq!(seen(&restored), view);
        prop_assert!(restored.check().is_empty());
        for (entry, applied) in history {
            prop_assert_eq!(restored.apply(restored.index() + 1, &entry), applied);
        }
        prop_assert_eq!(restored.hash(), state.hash());
        prop_assert_eq!(seen(&restored), seen(&state));
    }

    /// A store that follows the changed rows holds the state after every batch.
    #[test]
    fn changed_rows_are_all_that_changed(seeds in prop::collection::vec(any::<u64>(), 1..160)) {
        let mut state = State::new();
        let mut store: BTreeMap<RowKey, Row> = BTreeMap::new();
        for batch in seeds.chunks(7) {
            run(&mut state, batch);
            for key in state.take_dirty() {
                match state.row(&key) {
                    Some(row) => store.insert(key, row),
                    None => store.remove(&key),
                };
            }
            let frozen: BTreeMap<RowKey, Row> = state.freeze().rows().map(|row| (row.key(), row)).collect();
            let empty = [RowKey::Models, RowKey::Sites];
            for (key, row) in &frozen {
                // Rows that were never touched are still as in the empty state.
                if store.contains_key(key) || !empty.contains(key) {
                    prop_assert_eq!(store.get(key), Some(row));
                }
            }
            prop_assert!(store.keys().all(|key| frozen.contains_key(key)));
        }
        let restored = State::from_rows(store.into_values()).expect("restores");
        prop_assert_eq!(restored.hash(), state.hash());
    }
}

fn takes(command: &Command) -> bool {
    matches!(command, Command::Submit(asked) if !asked.victims.is_empty())
}

/// The noise must reach the places that matter, or the properties above say nothing.
#[test]
fn the_noise_reaches_everything() {
    let mut state = begin();
    let mut reached: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..30_000u64 {
        let entry = noise::entry(&state, seed);
        let applied = state.apply(state.index() + 1, &entry);
        let of = format!("{:?}", entry.command);
        let of = of.split(['(', ' ']).next().unwrap_or_default().to_owned();
        let what = match &applied.result {
            Ok(Outcome::Submitted { known: false, .. }) if takes(&entry.command) => {
                "Submit takes".to_owned()
            }
            Ok(_) => format!("{of} done"),
            Err(rejection) => {
                let text = format!("{rejection:?}");
                text.split("node:").next().unwrap_or_default().chars().take(40).collect()
            }
        };
        *reached.entry(what).or_default() += 1;
        for job in state.jobs_after(None) {
            *reached.entry(format!("{:?}", job.phase)).or_default() += 1;
        }
    }
    for wanted in [
        "RegisterNode done",
        "SetEligibility done",
        "NodeStatuses done",
        "RemoveNode done",
        "SetSiteRtts done",
        "Submit done",
        "Submit takes",
        "Commit done",
        "Report done",
        "Cancel done",
        "Scale done",
        "Preempt done",
        "SetReason done",
        "Expire done",
        "PutTenant done",
        "RemoveTenant done",
        "Pending",
        "Placed",
        "Starting",
        "Ready",
        "Repairing",
        "Ended",
        "Failed",
        "Expired",
        "StalePlan { why: NodeGone",
        "StalePlan { why: NodeEpoch",
        "StalePlan { why: GpuTaken",
        "StalePlan { why: NodeFull",
        "StalePlan { why: DoesNotFit",
        "StalePlan { why: RankNotWaiting",
        "StalePlan { why: BelowMinimum",
        "StalePlan { why: BreaksConstraint",
        "StalePlan { why: Malformed",
        "StalePlan { why: TooEarly",
        "StalePlan { why: TooLate",
        "StalePlan { why: NodeUnschedulable",
        "StalePlan { why: NoVictim",
        "QuotaExceeded",
        "RequestIdReused",
        "NotFound",
        "Forbidden",
        "Invalid",
        "Precondition",
    ] {
        assert!(reached.keys().any(|what| what.starts_with(wanted)), "{wanted}: {reached:#?}");
    }
    assert!(state.check().is_empty());
}
