//! Groups that start one after the other, and how lost replicas are replaced.

use scheduler_core::command::{Command, Commit, NodeTransition, Observed, Plan, Rejection, Stale};
use scheduler_core::duty::office::look;
use scheduler_core::event::Event;
use scheduler_core::fixture::entry::{
    World, group, job_spec, name, node_spec, placement, plan, submit,
};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{JobPhase, JobSpec, Level, Repair, ReplicaPhase};
use scheduler_core::node::NodeStatus;

fn told(world: &World, node: u32) -> Vec<u32> {
    world.state.work_to_run(NodeId(node)).map(|(_, rank)| rank.0).collect()
}

/// Applies reports of some ranks at once; nodes of which something is to be told.
fn report(world: &mut World, job: JobId, ranks: &[u32], observed: Observed) -> Vec<u32> {
    let reports = ranks.iter().map(|&rank| world.report_of(job, rank, observed)).collect();
    let entry = scheduler_core::command::Entry {
        at: world.at,
        by: scheduler_core::command::Actor::System,
        command: Command::Report(reports),
    };
    let applied = world.state.apply(world.state.index() + 1, &entry);
    assert!(applied.result.is_ok() && world.state.check().is_empty());
    let of_node = |event: Event| match event {
        Event::NodeWorkChanged(node) => Some(node.0),
        _ => None,
    };
    applied.events.into_iter().filter_map(of_node).collect()
}

/// A head, two stores that wait for it, and four workers that wait for both; two to a node.
fn three_steps(world: &mut World) -> JobId {
    let mut spec = job_spec(vec![group("head", 1, 1), group("store", 2, 1), group("w", 4, 1)]);
    spec.groups[1].depends_on = vec![0];
    spec.groups[2].depends_on = vec![0, 1];
    spec.groups[2].replicas_min = 3;
    let places = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1)];
    world.submit(submit("a", spec, Some(plan(&places))))
}

#[test]
fn groups_are_placed_at_once_and_started_one_after_the_other() {
    let mut world = World::with_nodes(4, 8);
    let job = three_steps(&mut world);
    let all = |world: &World| (0..4).map(|node| told(world, node)).collect::<Vec<_>>();
    assert_eq!(all(&world), [vec![0], vec![], vec![], vec![]]);
    assert_eq!(world.state.groups_waiting(job), [(1, vec![0]), (2, vec![0, 1])]);
    assert_eq!(world.state.usage(NodeId(3)).map(|usage| usage.live), Some(1), "held, not started");
    assert!(report(&mut world, job, &[0], Observed::Starting).is_empty());
    assert_eq!(report(&mut world, job, &[0], Observed::Ready), [0, 1]);
    assert_eq!(all(&world), [vec![0, 1], vec![2], vec![], vec![]]);
    assert_eq!(world.state.groups_waiting(job), [(2, vec![1])]);
    // One of two stores is not its minimum.
    assert!(report(&mut world, job, &[1], Observed::Ready).is_empty());
    assert_eq!(report(&mut world, job, &[2], Observed::Ready), [1, 2, 3]);
    assert_eq!(all(&world), [vec![0, 1], vec![2, 3], vec![4, 5], vec![6]]);
    assert_eq!(world.state.groups_waiting(job), []);
    // The third worker makes the job ready; nobody else is to be told.
    assert!(report(&mut world, job, &[3, 4, 5], Observed::Ready).is_empty());
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Ready));
}

#[test]
fn what_has_begun_goes_on_and_what_has_not_waits_again() {
    let mut world = World::with_nodes(5, 8);
    let job = three_steps(&mut world);
    report(&mut world, job, &[0, 1, 2], Observed::Ready);
    report(&mut world, job, &[3], Observed::Starting);
    report(&mut world, job, &[4], Observed::Ready);
    report(&mut world, job, &[0], Observed::Failed { exit_code: 1 });
    assert_eq!(told(&world, 1), [2, 3]);
    assert_eq!(told(&world, 2), [4], "the fifth had not begun");
    world
        .done(Command::Commit(Commit { job, plan: Plan { placements: vec![placement(0, 4, 1)] } }));
    assert_eq!((told(&world, 4), told(&world, 3)), (vec![0], vec![]));
    assert_eq!(report(&mut world, job, &[0], Observed::Ready), [2, 3]);
    assert_eq!((told(&world, 2), told(&world, 3)), (vec![4, 5], vec![6]));
    // Done is as good as running.
    report(&mut world, job, &[0, 1, 2], Observed::Succeeded);
    assert_eq!(told(&world, 3), [6]);
}

#[test]
fn all_in_one_batch_is_one_step_after_the_other() {
    let mut world = World::with_nodes(4, 8);
    let job = three_steps(&mut world);
    // Those who have told that they run need not be told to.
    assert_eq!(report(&mut world, job, &[0, 1, 2], Observed::Ready), [1, 2, 3]);
}

#[test]
fn circles_and_strange_groups_are_refused() {
    let refused = |change: fn(&mut JobSpec)| {
        let mut spec = job_spec(vec![group("a", 1, 1), group("b", 1, 1), group("c", 1, 1)]);
        change(&mut spec);
        match World::with_nodes(1, 8).refused(Command::Submit(submit("r", spec, None))) {
            Rejection::Invalid { field, problem } => format!("{field} {problem}"),
            other => panic!("{other:?}"),
        }
    };
    let circle = "spec.groups[0].depends_on leads into a circle: the group could never start";
    assert_eq!(refused(|spec| spec.groups[0].depends_on = vec![0]), circle);
    let long = refused(|spec| {
        for at in 0..3_u16 {
            spec.groups[usize::from(at)].depends_on = vec![(at + 1) % 3];
        }
    });
    assert_eq!(long, circle);
    let strange = refused(|spec| spec.groups[1].depends_on = vec![0, 7]);
    assert_eq!(strange, "spec.groups[1].depends_on[1] is group 7; there are 3");
    let twice = refused(|spec| spec.groups[1].depends_on = vec![0, 0]);
    assert!(twice.starts_with("spec.groups[1].depends_on[1] is named twice"), "{twice}");
    let wish = refused(|spec| spec.groups[2].repair.preferred = true);
    assert_eq!(wish, "spec.groups[2].repair.preferred is given, but level is not");
    let many = refused(|spec| spec.groups[2].repair.in_flight_max = 100_001);
    assert!(many.starts_with("spec.groups[2].repair.in_flight_max is 100001"), "{many}");
}

/// Eight replicas on eight nodes in two racks, and as many nodes beside them.
fn ready(repair: Repair) -> (World, JobId) {
    let mut world = World::new();
    for number in 0..16 {
        let mut spec = node_spec(&format!("n{number}"), 1);
        spec.place.rack = name(&format!("k{}", number % 2));
        world.join(spec);
    }
    let mut spec = job_spec(vec![group("w", 8, 1)]);
    spec.groups[0].repair = repair;
    let places: Vec<(u32, u64)> = (0..8).map(|node| (node, 1)).collect();
    let job = world.submit(submit("a", spec, Some(plan(&places))));
    world.report_all(job, Observed::Ready);
    (world, job)
}

fn lose(world: &mut World, nodes: impl IntoIterator<Item = u32>) {
    let status = NodeStatus::Down;
    let epoch = scheduler_core::id::Epoch(1);
    let down = nodes.into_iter().map(|node| NodeTransition { node: NodeId(node), epoch, status });
    world.done(Command::NodeStatuses(down.collect()));
}

fn replace(world: &mut World, job: JobId, places: &[(u32, u32)]) -> Result<(), Rejection> {
    let placements = places.iter().map(|&(rank, node)| placement(rank, node, 1)).collect();
    world.system(Command::Commit(Commit { job, plan: Plan { placements } })).map(|_| ())
}

fn broken() -> Result<(), Rejection> {
    Err(Rejection::StalePlan { why: Stale::BreaksConstraint })
}

#[test]
fn a_lost_replica_comes_back_where_it_stood() {
    let near = Repair { level: Some(Level::Rack), ..Repair::default() };
    let (mut world, job) = ready(near);
    lose(&mut world, [2, 3]);
    // Even numbers are in one rack, odd ones in the other.
    assert_eq!(replace(&mut world, job, &[(2, 9), (3, 8)]), broken());
    assert_eq!(replace(&mut world, job, &[(2, 8), (3, 9)]), Ok(()));
    // A wish is the planner's affair.
    let (mut world, job) = ready(Repair { preferred: true, ..near });
    lose(&mut world, [2]);
    assert_eq!(replace(&mut world, job, &[(2, 9)]), Ok(()));
    // Nobody knows any more where a removed node stood.
    let (mut world, job) = ready(near);
    lose(&mut world, [2]);
    world.done(Command::RemoveNode { node: NodeId(2), force: true });
    assert_eq!(replace(&mut world, job, &[(2, 9)]), Ok(()));
}

#[test]
fn so_many_are_replaced_at_once_and_the_others_after_them() {
    let (mut world, job) = ready(Repair { in_flight_max: 2, ..Repair::default() });
    lose(&mut world, 0..5);
    assert_eq!(replace(&mut world, job, &[(0, 8), (1, 9), (2, 10)]), broken());
    assert_eq!(look::kept_back(&world.state, job), None);
    // Fewer than there is room for is no progress below the minimum.
    let few = replace(&mut world, job, &[(0, 8)]);
    let below = Stale::BelowMinimum { group: 0, placed: 4, min: 5 };
    assert_eq!(few, Err(Rejection::StalePlan { why: below }));
    assert_eq!(replace(&mut world, job, &[(0, 8), (1, 9)]), Ok(()));
    assert_eq!(replace(&mut world, job, &[(2, 10)]), broken());
    // None of the other three has its turn, and it is said what they wait for.
    assert!(look::waiting(&world.state, job).is_none());
    let (waiting, why) = look::kept_back(&world.state, job).expect("some wait");
    let told = "waits until replacements that start now run: 3 lost of w, of which at most 2 may start at once";
    assert_eq!((waiting, &*why.message), (3, told));
    world.report(job, 0, Observed::Starting);
    assert_eq!(replace(&mut world, job, &[(2, 10)]), broken());
    world.report(job, 0, Observed::Ready);
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job], "it is looked at again");
    assert_eq!(look::kept_back(&world.state, job), None);
    assert_eq!(replace(&mut world, job, &[(2, 10)]), Ok(()));
    world.report(job, 1, Observed::Ready);
    world.report(job, 2, Observed::Ready);
    assert_eq!(replace(&mut world, job, &[(3, 11), (4, 12)]), Ok(()));
    world.report_all(job, Observed::Ready);
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Ready));
    let running = |phase| phase == ReplicaPhase::Ready;
    assert!(world.state.replicas(job).all(|(_, replica)| running(replica.phase)));
    assert!(world.state.replica(job, Rank(4)).is_some());
}

#[test]
fn a_start_is_no_repair() {
    let mut world = World::with_nodes(8, 1);
    let mut spec = job_spec(vec![group("w", 4, 1)]);
    spec.groups[0].repair.in_flight_max = 1;
    let job = world.submit(submit("a", spec, Some(plan(&[(0, 1), (1, 1), (2, 1), (3, 1)]))));
    lose(&mut world, 0..3);
    assert_eq!(replace(&mut world, job, &[(0, 4), (1, 5), (2, 6)]), Ok(()));
}
