//! Desired against running: never two replicas on one GPU, whatever comes in.

use super::*;
use crate::replica::{Exit, GpuSet, Held, JobId, Rank};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn want(id: u64, rank: u32, gpus: &[u32], gpu_milli: u32) -> Binding {
    let gpus = gpus.iter().fold(GpuSet::default(), |set, gpu| set.with(*gpu).unwrap());
    Binding { id: AssignmentId(id), job: JobId(1), rank: Rank(rank), gpus, gpu_milli }
}

fn holdings(held: &[(Binding, Phase)]) -> Holdings {
    let mut all = Holdings::default();
    for (binding, phase) in held {
        all.set(*binding, *phase);
    }
    all
}

/// What is to be done when these are wanted.
fn act(wants: &[Binding], held: &Holdings) -> Vec<Action<Binding>> {
    reconcile(&Wants::new(wants.to_vec()), held)
}

const STOPPING: Phase = Phase::Stopping { fenced: false };

#[test]
fn starts_what_is_missing_and_stops_what_is_not_wanted() {
    let (old, kept, new) = (want(1, 0, &[0], 0), want(2, 1, &[1], 0), want(3, 2, &[2], 0));
    let held = holdings(&[(old, Phase::Ready), (kept, Phase::Starting)]);
    assert_eq!(act(&[kept, new], &held), [Action::Stop(AssignmentId(1)), Action::Start(new)]);
}

#[test]
fn a_start_waits_until_the_gpu_is_given_back() {
    let (old, new) = (want(1, 0, &[0, 1], 0), want(2, 1, &[1, 2], 0));
    let desired = [new];
    let stop = [Action::Stop(AssignmentId(1))];
    assert_eq!(act(&desired, &holdings(&[(old, Phase::Ready)])), stop);
    assert_eq!(act(&desired, &holdings(&[(old, STOPPING)])), []);
    let ended = Phase::Ended(Exit::Succeeded);
    assert_eq!(
        act(&desired, &holdings(&[(old, ended)])),
        [Action::Forget(AssignmentId(1)), Action::Start(new)]
    );
}

#[test]
fn a_new_binding_of_a_replica_waits_for_the_old_one() {
    let (old, new) = (want(1, 7, &[0], 0), want(2, 7, &[1], 0));
    let desired = [new];
    assert_eq!(act(&desired, &holdings(&[(old, STOPPING)])), []);
    assert_eq!(act(&desired, &holdings(&[])), [Action::Start(new)]);
}

#[test]
fn shares_of_one_gpu_add_up_to_one() {
    let shares: Vec<_> = (0..4).map(|rank| want(u64::from(rank), rank, &[0], 300)).collect();
    let starts = act(&shares, &holdings(&[]));
    assert_eq!(starts.len(), 3, "900 of 1000");
    let whole = want(9, 9, &[0], 0);
    assert_eq!(act(&[whole, shares[0]], &holdings(&[])).len(), 1);
}

#[test]
fn the_same_assignment_listed_twice_starts_once() {
    let one = want(1, 0, &[], 0);
    assert_eq!(act(&[one, one], &holdings(&[])).len(), 1);
}

#[test]
fn what_has_ended_is_not_started_again_while_it_is_wanted() {
    let one = want(1, 0, &[0], 0);
    let held = holdings(&[(one, Phase::Ended(Exit::Failed(1)))]);
    assert_eq!(act(&[one], &held), []);
}

/// A step of the outside world.
#[derive(Clone, Debug)]
enum Step {
    /// The scheduler wants these (indexes into the pool of assignments).
    Desire(Vec<usize>),
    /// Something that runs or stops ends.
    End(usize),
    /// The lease ends.
    Fence,
}

fn pool() -> impl Strategy<Value = Vec<Binding>> {
    let gpus = prop::collection::btree_set(0u32..4, 0..4);
    let one = (0u32..5, gpus, prop_oneof![Just(0u32), 1u32..1000]);
    prop::collection::vec(one, 1..12).prop_map(|specs| {
        let assignment = |(id, (rank, gpus, milli)): (u64, (u32, _, _))| {
            let gpus: Vec<u32> = BTreeSet::into_iter(gpus).collect();
            want(id, rank, &gpus, if gpus.len() == 1 { milli } else { 0 })
        };
        (0u64..).zip(specs).map(assignment).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(any::<prop::sample::Index>(), 0..8)
            .prop_map(|picks| Step::Desire(picks.iter().map(|pick| pick.index(1 << 20)).collect())),
        4 => (0usize..1 << 20).prop_map(Step::End),
        1 => Just(Step::Fence),
    ]
}

/// Applies actions as the agent does; asserts that every one of them is allowed.
fn carry_out(held: &mut Holdings, desired: &[Binding]) {
    for action in act(desired, held) {
        match action {
            Action::Stop(id) => {
                let Held { binding, phase } = *held.get(id).unwrap();
                held.set(binding, phase.stopping(false).unwrap());
            }
            Action::Forget(id) => {
                let gone = held.remove(id).unwrap();
                assert!(!gone.holds_gpus(), "forgot a live replica");
            }
            Action::Start(want) => {
                assert!(desired.contains(&want), "started what nobody wants");
                assert_eq!(held.set(want, Phase::Starting), None, "started twice");
            }
        }
        check(held);
    }
}

/// I9 on one node: no GPU over-committed, no replica there twice.
fn check(held: &Holdings) {
    let mut milli = [0; GPUS_MAX as usize];
    let mut replicas = BTreeSet::new();
    for held in held.iter().filter(|held| held.phase.holds_gpus()) {
        assert!(replicas.insert((held.binding.job, held.binding.rank)), "a replica runs twice");
        for gpu in held.binding.gpus.iter() {
            milli[gpu as usize] += held.binding.milli_per_gpu();
            assert!(milli[gpu as usize] <= GPU_MILLI, "GPU {gpu} is held twice");
        }
    }
}

proptest! {
    #[test]
    fn no_gpu_is_ever_held_twice(pool in pool(), steps in prop::collection::vec(step(), 1..60)) {
        let mut held = Holdings::default();
        let mut desired: Vec<Binding> = Vec::new();
        for step in steps {
            match step {
                Step::Desire(picks) => {
                    desired =
                        picks.iter().map(|pick| pool[pick % pool.len()]).collect();
                }
                Step::End(pick) => {
                    let alive: Vec<_> = held.iter().filter(|h| h.phase.holds_gpus()).collect();
                    if let Some(Held { binding, phase }) = alive.get(pick % alive.len().max(1)) {
                        let (binding, after) = (*binding, phase.ended(Exit::Succeeded));
                        match after {
                            Some(after) => held.set(binding, after),
                            None => held.remove(binding.id),
                        };
                    }
                }
                Step::Fence => desired.clear(),
            }
            carry_out(&mut held, &desired);
        }
        // Left alone, everything unwanted goes and nothing startable is left waiting.
        let stopping: Vec<_> = held.iter().filter(|held| held.phase == STOPPING).copied().collect();
        for gone in stopping {
            held.remove(gone.binding.id);
        }
        carry_out(&mut held, &desired);
        let wants = Wants::new(desired.clone());
        prop_assert!(held.iter().all(|held| wants.contains(held.binding.id)));
        prop_assert_eq!(act(&desired, &held), vec![]);
        if let Some(waiting) = desired.iter().find(|want| held.get(want.id).is_none()) {
            let blocked = is_there(&held, waiting) || !Room::beside(&held).take(waiting);
            prop_assert!(blocked, "could start, but waits");
        }
    }
}
