//! How long it takes to find who gives way on a full fleet of 2,000 and of 69,000 nodes: whole jobs,
//! spares, or nobody because all of them are not enough.
//!
//! **Invariant:** the fleet comes from a seed, so figures of two runs are of the same case.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use scheduler_core::command::{Placement, Plan};
use scheduler_core::fixture::fleet::{Fleet, apply, gang, submission};
use scheduler_core::fixture::noise::Dice;
use scheduler_core::id::{NodeId, Rank};
use scheduler_core::job::{Disruption, GpuAsk, JobSpec, Level, Priority};
use scheduler_core::plan::preempt::{Asker, Candidates, SEARCH, choose};
use scheduler_core::plan::{Policy, Request};
use scheduler_core::state::State;
use scheduler_core::unit::{GpuSet, TimeMs};
use scheduler_core::view::View;
use std::collections::BTreeMap;
use std::hint::black_box;

/// Fills every node with one replica of some job of one to 64, all of which give way.
fn fill(state: &mut State, disruption: Disruption) {
    let mut dice = Dice::new(7);
    let mut by_size: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
    for node in state.nodes() {
        by_size.entry(node.gpus.len()).or_default().push(node.id);
    }
    let mut number = 0;
    for (gpus, mut nodes) in by_size.into_iter().filter(|(gpus, _)| *gpus > 0) {
        while !nodes.is_empty() {
            let wanted = [1, 1, 1, 1, 2, 4, 8, 64][dice.below(8) as usize];
            let taken: Vec<NodeId> = nodes.drain(..wanted.min(nodes.len())).collect();
            let mut spec = gang("low", taken.len() as u32, GpuAsk::Whole(gpus as u8));
            spec.priority = Priority(-1 - dice.below(3) as i16);
            spec.preemption.disruption = disruption;
            spec.groups[0].replicas_min = 1;
            let placement = |(rank, &node): (u32, &NodeId)| Placement {
                rank: Rank(rank),
                node,
                node_epoch: state.node(node).expect("there").epoch,
                gpus: GpuSet::first(gpus),
                share_milli: 0,
            };
            let placements = (0u32..).zip(&taken).map(placement).collect();
            number += 1;
            apply(state, submission(&format!("low-{number}"), spec, Some(Plan { placements })));
        }
    }
}

fn searches(c: &mut Criterion) {
    for nodes in [2_000, 69_000] {
        let mut state = Fleet::new(nodes, 300, 7).state();
        fill(&mut state, Disruption::All);
        let mut group = c.benchmark_group(format!("preempt/{nodes}"));
        group.sample_size(10);
        for replicas in [1, 16, 250] {
            let spec = gang("high", replicas, GpuAsk::Whole(8));
            search(&mut group, &state, &format!("{replicas}x8"), &spec);
        }
        // In vain, however much is freed: no rack is so large.
        let mut spec = gang("high", 250, GpuAsk::Whole(8));
        spec.topology_required = Some(Level::Rack);
        search(&mut group, &state, "250x8 in a rack", &spec);
        group.finish();
    }
    let mut state = Fleet::new(69_000, 300, 7).state();
    fill(&mut state, Disruption::Single);
    let mut group = c.benchmark_group("preempt/69000/spares");
    group.sample_size(10);
    for replicas in [1, 16, 250] {
        let spec = gang("high", replicas, GpuAsk::Whole(8));
        search(&mut group, &state, &format!("{replicas}x8"), &spec);
    }
    group.finish();
}

fn search(group: &mut BenchmarkGroup<'_, WallTime>, state: &State, name: &str, spec: &JobSpec) {
    let mut view = View::new(state);
    let tenant = scheduler_core::fixture::entry::tenant("acme");
    let asker = Asker::of(&tenant, spec);
    let (request, policy) = (Request::whole(spec), Policy::default());
    let all = Candidates::all(state, asker, TimeMs(2_000));
    let found = choose(&mut view, &request, &all, &policy, SEARCH);
    let cost = found.map(|found| (found.cost.whole, found.victims.len(), found.cost.gpu_milli));
    eprintln!("{name} among {} jobs: {cost:?} (whole, jobs, thousandths of GPUs)", all.len());
    group.bench_function(name, |b| {
        b.iter(|| {
            let all = Candidates::all(state, asker, TimeMs(2_000));
            black_box(choose(&mut view, &request, &all, &policy, SEARCH))
        });
    });
}

criterion_group!(benches, searches);
criterion_main!(benches);
