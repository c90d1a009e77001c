//! Scenarios of one term: agents are heard, fall silent, come back, or are two of a kind.

use super::*;
use scheduler_core::command::Command;
use scheduler_core::fixture::entry::World;

const LEASE: Duration = Duration::from_secs(10);
const SERVER: ServerId = ServerId(1);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn instance(number: u8) -> Instance {
    Instance([number; 16])
}

fn heard_by(server: ServerId, node: u32, epoch: u32, process: u8, age: Duration) -> Digest {
    let heard = Heard {
        node: NodeId(node),
        epoch: Epoch(epoch),
        instance: instance(process),
        age_ms: u32::try_from(age.as_millis()).expect("short"),
    };
    Digest { server, heard: vec![heard], closed: Vec::new() }
}

fn closed_by(server: ServerId, node: u32, epoch: u32, process: u8) -> Digest {
    let (node, epoch, instance) = (NodeId(node), Epoch(epoch), instance(process));
    Digest { server, heard: Vec::new(), closed: vec![Closed { node, epoch, instance }] }
}

/// A term over a world of nodes, all heard at its start, and a clock that tests turn.
struct Term {
    leases: Leases,
    world: World,
    now: Instant,
}

impl Term {
    fn new(nodes: usize) -> Self {
        let now = Instant::now() + secs(1_000);
        let mut term = Self {
            leases: Leases::new(Timing::new(LEASE), now),
            world: World::with_nodes(nodes, 8),
            now,
        };
        for node in 0..u32::try_from(nodes).expect("few") {
            term.heard(node, 1, 1);
        }
        term
    }

    /// Lets time pass as a leader sees it who looks at his leases all the time.
    fn pass(&mut self, time: Duration) -> Vec<(u32, u32)> {
        let (step, end) = (Duration::from_millis(250), self.now + time);
        let mut due = Vec::new();
        while self.now < end {
            self.now = (self.now + step).min(end);
            let found = self.leases.due(self.now, &self.world.state);
            due.extend(found.iter().map(|t| (t.node.0, t.epoch.0)));
        }
        due
    }

    fn heard(&mut self, node: u32, epoch: u32, process: u8) -> Vec<RefusedWhy> {
        self.take(&heard_by(SERVER, node, epoch, process, Duration::ZERO))
    }

    fn take(&mut self, digest: &Digest) -> Vec<RefusedWhy> {
        let reply = self.leases.heard(digest, self.now);
        reply.refused.iter().map(|refused| refused.why).collect()
    }

    fn may_join(&self, node: u32, process: u8) -> Result<(), Held> {
        self.leases.may_join(NodeId(node), instance(process), self.now)
    }

    /// The node registers again and the leader learns of it.
    fn rejoin(&mut self, node: u32, process: u8) -> u32 {
        let epoch = self.world.rejoin(node);
        self.leases.joined(NodeId(node), epoch, instance(process), self.now);
        epoch.0
    }

    fn apply_down(&mut self, nodes: &[(u32, u32)]) {
        let down = nodes.iter().map(|&(node, epoch)| NodeTransition {
            node: NodeId(node),
            epoch: Epoch(epoch),
            status: NodeStatus::Down,
        });
        self.world.done(Command::NodeStatuses(down.collect()));
    }
}

#[test]
fn heartbeats_keep_a_lease_and_silence_ends_it_once() {
    let mut term = Term::new(3);
    for _ in 0..20 {
        assert_eq!(term.pass(secs(2)), []);
        for node in 0..3 {
            assert_eq!(term.heard(node, 1, 1), []);
        }
    }
    // Node 1 falls silent: the others live on.
    let mut due = Vec::new();
    for _ in 0..7 {
        due.extend(term.pass(secs(2)));
        term.heard(0, 1, 1);
        term.heard(2, 1, 1);
    }
    assert_eq!(due.first(), Some(&(1, 1)));
    assert!(due.iter().all(|found| *found == (1, 1)), "{due:?}");
    term.apply_down(&due[..1]);
    assert_eq!(term.pass(secs(2)), []);
}

#[test]
fn nobody_is_lost_before_the_lease_and_its_margin() {
    let mut term = Term::new(1);
    assert_eq!(term.pass(LEASE), []);
    assert_eq!(term.pass(secs(1)), []);
    assert_eq!(term.pass(Duration::from_millis(250)), [(0, 1)]);
}

#[test]
fn a_digest_that_was_long_on_its_way_counts_from_when_the_agent_was_heard() {
    let mut term = Term::new(1);
    assert_eq!(term.pass(secs(8)), []);
    // Heard five seconds ago: that is three seconds after the start.
    assert_eq!(term.take(&heard_by(SERVER, 0, 1, 1, secs(5))), []);
    assert_eq!(term.pass(secs(6)), []);
    assert_eq!(term.pass(Duration::from_millis(250)), [(0, 1)]);
}

#[test]
fn a_new_term_gives_everyone_a_full_lease() {
    let mut term = Term::new(2);
    assert_eq!(term.pass(secs(9)), []);
    term.leases.reset_for_new_term(term.now);
    assert_eq!(term.pass(secs(11)), []);
    assert_eq!(term.pass(secs(1)), [(0, 1), (1, 1)]);
}

#[test]
fn a_leader_that_was_stopped_blames_nobody() {
    let mut term = Term::new(2);
    term.now += secs(60);
    assert_eq!(term.leases.due(term.now, &term.world.state), []);
    assert_eq!(term.pass(secs(11)), []);
    assert_eq!(term.heard(0, 1, 1), []);
    assert_eq!(term.pass(secs(1)), [(1, 1)]);
}

#[test]
fn what_was_declared_lost_is_not_heard_any_more_until_it_joins_again() {
    let mut term = Term::new(1);
    assert_eq!(term.pass(Duration::from_millis(11_250)), [(0, 1)]);
    // The transition is on its way; the agent is back in the same epoch.
    assert_eq!(term.heard(0, 1, 1), [RefusedWhy::LeaseLost]);
    assert_eq!(term.may_join(0, 2), Ok(()));
    let epoch = term.rejoin(0, 1);
    assert_eq!(epoch, 2);
    assert_eq!(term.heard(0, 1, 1), [RefusedWhy::Superseded]);
    assert_eq!(term.heard(0, 2, 1), []);
    assert_eq!(term.pass(LEASE), []);
}

#[test]
fn a_transition_that_did_not_come_through_is_proposed_again() {
    let mut term = Term::new(1);
    assert_eq!(term.pass(Duration::from_millis(11_250)), [(0, 1)]);
    assert_eq!(term.pass(Duration::from_millis(1_500)), []);
    assert_eq!(term.pass(secs(1)), [(0, 1)]);
}

#[test]
fn an_old_epoch_keeps_nothing_alive() {
    let mut term = Term::new(1);
    let epoch = term.rejoin(0, 1);
    assert_eq!(term.pass(secs(6)), []);
    assert_eq!(term.heard(0, 1, 1), [RefusedWhy::Superseded]);
    assert_eq!(term.pass(Duration::from_millis(5_250)), [(0, epoch)]);
}

#[test]
fn a_second_process_with_the_same_key_is_kept_out_while_the_first_lives() {
    let mut term = Term::new(1);
    let held = term.may_join(0, 2).expect_err("process 1 is alive");
    assert!((1..=2_500).contains(&held.retry_after_ms), "{held:?}");
    // The process itself may always come back.
    assert_eq!(term.may_join(0, 1), Ok(()));
    // A stolen epoch does not help either.
    assert_eq!(term.heard(0, 1, 2), [RefusedWhy::Superseded]);
    // The first one's session closes: a restarted agent need not wait for the lease.
    term.take(&closed_by(SERVER, 0, 1, 1));
    assert_eq!(term.may_join(0, 2), Ok(()));
}

#[test]
fn a_session_that_moved_is_not_ended_by_its_old_server() {
    let mut term = Term::new(1);
    assert_eq!(term.take(&heard_by(ServerId(2), 0, 1, 1, Duration::ZERO)), []);
    term.take(&closed_by(SERVER, 0, 1, 1));
    assert!(term.may_join(0, 2).is_err());
    term.take(&closed_by(ServerId(2), 0, 1, 1));
    assert_eq!(term.may_join(0, 2), Ok(()));
}

#[test]
fn a_process_that_joined_and_died_holds_its_place_for_a_moment_only() {
    let mut term = Term::new(1);
    term.take(&closed_by(SERVER, 0, 1, 1));
    term.rejoin(0, 2);
    assert!(term.may_join(0, 3).is_err());
    term.pass(secs(2));
    assert_eq!(term.may_join(0, 3), Ok(()));
}

#[test]
fn a_registration_that_the_leader_was_not_told_of_is_found_in_the_state() {
    let mut term = Term::new(2);
    assert_eq!(term.pass(secs(3)), []);
    // Its outcome got lost: `joined` is never called.
    term.world.rejoin(1);
    let mut due = Vec::new();
    for _ in 0..4 {
        term.heard(0, 1, 1);
        due.extend(term.pass(secs(5)));
    }
    assert!(due.contains(&(1, 2)), "{due:?}");
    assert!(!due.contains(&(1, 1)), "{due:?}");
}

#[test]
fn the_loss_of_a_whole_site_comes_in_bounded_pieces() {
    let mut term = Term::new(1);
    let many = u32::try_from(TRANSITIONS_MAX).expect("fits") + 10;
    for node in 1..many {
        let spec = scheduler_core::fixture::entry::node_spec(&format!("m{node}"), 0);
        // Without the checks of the world: they would take minutes.
        let command = scheduler_core::fixture::entry::register(spec);
        let (at, by) = (term.world.at, scheduler_core::command::Actor::System);
        let entry = scheduler_core::command::Entry { at, by, command };
        let index = term.world.state.index() + 1;
        term.world.state.apply(index, &entry).result.expect("registers");
    }
    term.leases.reset_for_new_term(term.now);
    // Their leases count from the first look at the state, a quarter of a second later.
    assert_eq!(term.pass(Duration::from_millis(11_250)), []);
    term.now += Duration::from_millis(250);
    assert_eq!(term.leases.due(term.now, &term.world.state).len(), TRANSITIONS_MAX);
    term.now += Duration::from_millis(250);
    assert_eq!(term.leases.due(term.now, &term.world.state).len(), 10);
}
