//! Scenarios of one term: agents are heard, fall silent, come back, or are two of a kind.

use super::*;
use crate::command::Command;
use crate::fixture::entry::World;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const LEASE: DurationMs = DurationMs(10_000);
const LOOK: DurationMs = DurationMs(250);
/// A server, by a plain number.
const SERVER: u8 = 1;

fn secs(seconds: u64) -> DurationMs {
    DurationMs(seconds * 1_000)
}

fn instance(number: u8) -> Instance {
    Instance([number; 16])
}

/// What one server tells of one node.
struct Word {
    server: u8,
    heard: Vec<Heard>,
    closed: Vec<Closed>,
}

fn heard_by(server: u8, node: u32, epoch: u32, process: u8, age: DurationMs) -> Word {
    let heard = Heard {
        node: NodeId(node),
        epoch: Epoch(epoch),
        instance: instance(process),
        age_ms: u32::try_from(age.0).expect("short"),
    };
    Word { server, heard: vec![heard], closed: Vec::new() }
}

fn closed_by(server: u8, node: u32, epoch: u32, process: u8) -> Word {
    let (node, epoch, instance) = (NodeId(node), Epoch(epoch), instance(process));
    Word { server, heard: Vec::new(), closed: vec![Closed { node, epoch, instance }] }
}

/// A term over a world of nodes, all heard at its start, and a clock that tests turn.
struct Term {
    leases: Leases<u8>,
    world: World,
    now: TimeMs,
}

impl Term {
    fn new(nodes: usize) -> Self {
        let now = TimeMs(1_000_000);
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
    fn pass(&mut self, time: DurationMs) -> Vec<(u32, u32)> {
        let end = self.now.after(time);
        let mut due = Vec::new();
        while self.now < end {
            self.now = self.now.after(LOOK).min(end);
            due.extend(self.look());
        }
        due
    }

    fn look(&mut self) -> Vec<(u32, u32)> {
        let found = self.leases.due(self.now, &self.world.state);
        found.iter().map(|t| (t.node.0, t.epoch.0)).collect()
    }

    fn epoch(&self, node: u32) -> u32 {
        self.world.state.node(NodeId(node)).map_or(0, |node| node.epoch.0)
    }

    fn heard(&mut self, node: u32, epoch: u32, process: u8) -> Vec<RefusedWhy> {
        self.take(&heard_by(SERVER, node, epoch, process, DurationMs::ZERO))
    }

    fn take(&mut self, word: &Word) -> Vec<RefusedWhy> {
        let refused = self.leases.heard(word.server, &word.heard, &word.closed, self.now);
        refused.iter().map(|refused| refused.why).collect()
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
    assert_eq!(term.pass(LOOK), [(0, 1)]);
}

#[test]
fn a_digest_that_was_long_on_its_way_counts_from_when_the_agent_was_heard() {
    let mut term = Term::new(1);
    assert_eq!(term.pass(secs(8)), []);
    // Heard five seconds ago: that is three seconds after the start.
    assert_eq!(term.take(&heard_by(SERVER, 0, 1, 1, secs(5))), []);
    assert_eq!(term.pass(secs(6)), []);
    assert_eq!(term.pass(LOOK), [(0, 1)]);
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
    term.now = term.now.after(secs(60));
    assert_eq!(term.leases.due(term.now, &term.world.state), []);
    assert_eq!(term.pass(secs(11)), []);
    assert_eq!(term.heard(0, 1, 1), []);
    assert_eq!(term.pass(secs(1)), [(1, 1)]);
}

#[test]
fn what_was_declared_lost_is_not_heard_any_more_until_it_joins_again() {
    let mut term = Term::new(1);
    assert_eq!(term.pass(DurationMs(11_250)), [(0, 1)]);
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
    assert_eq!(term.pass(DurationMs(11_250)), [(0, 1)]);
    assert_eq!(term.pass(DurationMs(1_500)), []);
    assert_eq!(term.pass(secs(1)), [(0, 1)]);
}

#[test]
fn an_old_epoch_keeps_nothing_alive() {
    let mut term = Term::new(1);
    let epoch = term.rejoin(0, 1);
    assert_eq!(term.pass(secs(6)), []);
    assert_eq!(term.heard(0, 1, 1), [RefusedWhy::Superseded]);
    assert_eq!(term.pass(DurationMs(5_250)), [(0, epoch)]);
}

#[test]
fn a_second_process_with_the_same_key_is_kept_out_while_the_first_lives() {
    let mut term = Term::new(1);
    let held = term.may_join(0, 2).expect_err("process 1 is alive");
    assert!((1..=2_500).contains(&held.retry_after.0), "{held:?}");
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
    assert_eq!(term.take(&heard_by(2, 0, 1, 1, DurationMs::ZERO)), []);
    term.take(&closed_by(SERVER, 0, 1, 1));
    assert!(term.may_join(0, 2).is_err());
    term.take(&closed_by(2, 0, 1, 1));
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
        let spec = crate::fixture::entry::node_spec(&format!("m{node}"), 0);
        // Without the checks of the world: they would take minutes.
        let command = crate::fixture::entry::register(spec);
        let (at, by) = (term.world.at, crate::command::Actor::System);
        let entry = crate::command::Entry { at, by, command };
        let index = term.world.state.index() + 1;
        term.world.state.apply(index, &entry).result.expect("registers");
    }
    term.leases.reset_for_new_term(term.now);
    // Their leases count from the first look at the state, a quarter of a second later.
    assert_eq!(term.pass(DurationMs(11_250)), []);
    term.now = term.now.after(LOOK);
    assert_eq!(term.leases.due(term.now, &term.world.state).len(), TRANSITIONS_MAX);
    term.now = term.now.after(LOOK);
    assert_eq!(term.leases.due(term.now, &term.world.state).len(), 10);
}

/// Beats of some nodes at random times over two minutes; each pauses now and then.
fn beats(seed: u64, nodes: u32) -> Vec<(TimeMs, u32)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut beats = Vec::new();
    for node in 0..nodes {
        let mut at = 1_000_000;
        while at < 1_120_000 {
            at += if rng.random_ratio(1, 12) {
                rng.random_range(9_000..14_000)
            } else {
                rng.random_range(1_000..3_000)
            };
            beats.push((TimeMs(at), node));
        }
    }
    beats.sort_unstable();
    beats
}

#[test]
fn whoever_was_not_heard_for_a_lease_and_its_margin_is_lost_and_nobody_else() {
    for seed in 0..20 {
        let mut term = Term::new(8);
        let mut last = [term.now; 8];
        let mut beats = beats(seed, 8).into_iter().peekable();
        let mut lost = 0;
        while term.now < TimeMs(1_120_000) {
            let next = term.now.after(LOOK);
            while let Some((at, node)) = beats.next_if(|(at, _)| *at <= next) {
                term.now = at;
                let epoch = term.epoch(node);
                if term.heard(node, epoch, 1).is_empty() {
                    last[node as usize] = at;
                }
            }
            term.now = next;
            let silent = |&node: &u32| next.since(last[node as usize]) > secs(11);
            let expected: Vec<u32> = (0..8).filter(silent).collect();
            let mut found: Vec<u32> = term.look().iter().map(|one| one.0).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "seed {seed}, at {next:?}");
            for node in found {
                lost += 1;
                let epoch = term.epoch(node);
                term.apply_down(&[(node, epoch)]);
                term.rejoin(node, 1);
                last[node as usize] = next;
            }
        }
        assert!(lost > 0, "seed {seed} shows nothing");
    }
}

#[test]
fn a_table_of_silent_nodes_judges_like_one_that_hears_everybody() {
    for seed in 0..20 {
        let mut term = Term::new(8);
        let mut silent = Leases::<u8>::of_silent(Timing::new(LEASE), term.now);
        let mut rng = StdRng::seed_from_u64(seed);
        // Each node is silent for one stretch of some seconds, or for good.
        let stretch = |rng: &mut StdRng| {
            let from = TimeMs(1_000_000 + 250 * rng.random_range(4..40));
            (from, from.after(DurationMs(250 * rng.random_range(20..80))))
        };
        let stretches: Vec<(TimeMs, TimeMs)> = (0..8).map(|_| stretch(&mut rng)).collect();
        let mut lost = 0;
        while term.now < TimeMs(1_040_000) {
            for (node, &(from, to)) in (0u32..).zip(&stretches) {
                if term.now <= from || term.now >= to {
                    let word = heard_by(SERVER, node, 1, 1, DurationMs::ZERO);
                    let refused = silent.heard(SERVER, &word.heard, &[], term.now);
                    assert_eq!(term.take(&word), refused.iter().map(|r| r.why).collect::<Vec<_>>());
                }
                if term.now == from {
                    silent.fell_silent(NodeId(node), Epoch(1), from);
                }
            }
            term.now = term.now.after(LOOK);
            let due_at = silent.due_at();
            let [mut one, mut other] = [&mut term.leases, &mut silent]
                .map(|leases| leases.due(term.now, &term.world.state));
            one.sort_unstable_by_key(|lost| lost.node);
            other.sort_unstable_by_key(|lost| lost.node);
            assert_eq!(one, other, "seed {seed}, at {:?}", term.now);
            assert!(other.is_empty() || due_at.is_some_and(|at| at <= term.now));
            lost += one.len();
            let found: Vec<(u32, u32)> =
                one.iter().map(|lost| (lost.node.0, lost.epoch.0)).collect();
            if !found.is_empty() {
                term.apply_down(&found);
            }
        }
        assert!(lost > 0 && silent.due_at().is_none(), "seed {seed}: {lost}");
    }
}

#[test]
fn silent_nodes_have_a_full_lease_in_a_new_term_and_none_once_they_join() {
    let world = World::with_nodes(3, 8);
    let start = TimeMs(50_000);
    let mut leases = Leases::<u8>::of_silent(Timing::new(LEASE), start);
    assert_eq!(leases.due_at(), None);
    leases.fell_silent(NodeId(0), Epoch(1), start);
    leases.fell_silent(NodeId(2), Epoch(1), start);
    leases.joined(NodeId(2), Epoch(1), instance(1), start);
    let later = start.after(secs(9));
    leases.reset_for_new_term(later);
    assert_eq!(leases.due_at(), Some(later.after(secs(11)).after(TICK)));
    assert_eq!(leases.due(later.after(secs(11)), &world.state), []);
    let due = leases.due(later.after(secs(11)).after(TICK), &world.state);
    assert_eq!(due.iter().map(|lost| lost.node.0).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_watched_node_of_a_table_of_silent_ones_keeps_others_of_its_identity_out() {
    let world = World::with_nodes(2, 8);
    let start = TimeMs(50_000);
    let mut leases = Leases::<u8>::of_silent(Timing::new(LEASE), start);
    leases.watch(NodeId(0), Epoch(1), start);
    let own = |at: TimeMs, leases: &mut Leases<u8>| {
        let word = heard_by(SERVER, 0, 1, 1, DurationMs::ZERO);
        leases.heard(SERVER, &word.heard, &[], at)
    };
    assert_eq!(own(start, &mut leases), []);
    assert!(leases.may_join(NodeId(0), instance(2), start.after(secs(9))).is_err());
    assert_eq!(leases.may_join(NodeId(1), instance(2), start), Ok(()), "nobody watches it");
    // A new term knows no holder until it hears one.
    leases.reset_for_new_term(start.after(secs(9)));
    assert_eq!(leases.may_join(NodeId(0), instance(2), start.after(secs(9))), Ok(()));
    assert_eq!(own(start.after(secs(10)), &mut leases), []);
    assert!(leases.may_join(NodeId(0), instance(2), start.after(secs(11))).is_err());
    // Not heard, it is lost like any other.
    let over = start.after(secs(21)).after(TICK);
    assert_eq!(leases.due(start.after(secs(21)), &world.state), []);
    assert_eq!(leases.due(over, &world.state).len(), 1);
    assert_eq!(own(over, &mut leases).len(), 1, "its lease is lost");
    leases.joined(NodeId(0), Epoch(2), instance(2), over);
    assert!(leases.may_join(NodeId(0), instance(1), over).is_err());
    leases.unwatch(NodeId(0));
    let word = heard_by(SERVER, 0, 2, 2, DurationMs::ZERO);
    assert_eq!(leases.heard(SERVER, &word.heard, &[], over), []);
    assert_eq!(leases.due_at(), None, "heard, and nobody watches it");
}
