//! Scenarios of one term: jobs come, wait, fit later; plans go stale; batches get lost.

use super::batch::BATCH_PLACEMENTS_MAX;
use super::*;
use crate::command::{Command, Entry, NodeTransition, Outcome, PutTenant, Rejection};
use crate::fixture::entry::{TENANT, World, group, job_spec, quota, tenant};
use crate::id::Epoch;
use crate::job::{JobPhase, ReasonCode};
use crate::node::NodeStatus;
use crate::plan::{Budget, Request, Unplaceable, answer, plan, quote};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::cell::Cell;

mod preempt;
mod reserve;

/// A leader's log, whose batches are applied when the test says so.
struct Desk {
    world: World,
    now: TimeMs,
    work_us: Cell<u64>,
    /// Work that every look at its clock takes.
    work_step_us: u64,
    under_way: VecDeque<Batch<u32>>,
    answers: Vec<(u32, Answer)>,
    notes: Notes,
    gone: Vec<u32>,
    /// How often a plan was looked for.
    plans: usize,
}

impl Shell for Desk {
    type Ticket = u32;

    fn look<R>(&self, at: impl FnOnce(&State) -> R) -> R {
        at(&self.world.state)
    }

    fn news(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    fn now(&self) -> TimeMs {
        self.now
    }

    fn work_us(&self) -> u64 {
        self.work_us.set(self.work_us.get() + self.work_step_us);
        self.work_us.get()
    }

    fn clock(&self) -> TimeMs {
        self.world.at
    }

    fn token(&mut self) -> u128 {
        7
    }

    fn is_gone(&self, ticket: &u32) -> bool {
        self.gone.contains(ticket)
    }

    fn answer(&mut self, ticket: u32, answer: Answer) {
        self.answers.push((ticket, answer));
    }

    fn send(&mut self, batch: Batch<u32>) {
        self.under_way.push_back(batch);
    }

    fn plan(
        &mut self,
        view: &View,
        request: &Request<'_>,
        policy: Policy,
    ) -> Result<Plan, Unplaceable> {
        self.plans += 1;
        let found = answer(view, request, &policy, Budget::default())?;
        assert!(!found.exhausted, "{request:?} took the whole budget");
        Ok(found.plan)
    }
}

/// One term over a small world.
struct Term {
    office: Office<u32>,
    desk: Desk,
    asked: u32,
}

impl Term {
    fn new(nodes: usize) -> Self {
        let world = World::with_nodes(nodes, 8);
        let now = TimeMs(5_000);
        let office = Office::new(&world.state, Policy::default(), Reserve::NOBODY, now);
        let desk = Desk {
            world,
            now,
            work_us: Cell::new(0),
            work_step_us: 0,
            under_way: VecDeque::new(),
            answers: Vec::new(),
            notes: Notes::default(),
            gone: Vec::new(),
            plans: 0,
        };
        Self { office, desk, asked: 0 }
    }

    /// Its caller was told of this plan at the present index.
    fn remember(&mut self, call: &Submission, digest: u128, taking: Taking) {
        let index = self.office.view().index();
        let (tenant, body) = (call.tenant.clone(), call.body_digest);
        self.office.remember(Offer { tenant, body, index, digest, taking: Arc::new(taking) });
    }

    fn submission(&self, replicas: u32, gpus: u8) -> Submission {
        Submission {
            tenant: tenant(TENANT),
            by: Actor::Operator,
            request_id: format!("r{}", self.asked).into(),
            body_digest: 1,
            spec: Arc::new(job_spec(vec![group("w", replicas, gpus)])),
            check: None,
        }
    }

    /// Asks for a job; gives its ticket.
    fn ask(&mut self, replicas: u32, gpus: u8) -> u32 {
        let call = self.submission(replicas, gpus);
        self.ask_for(call)
    }

    fn ask_for(&mut self, call: Submission) -> u32 {
        self.asked += 1;
        self.office.submit([Ask::new(call, self.asked)]);
        self.asked
    }

    /// One round, after the office has been told of all changes.
    fn round(&mut self) {
        self.office.catch_up(&mut self.desk);
        self.office.round(&mut self.desk);
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<Outcome, Rejection> {
        let state = &mut self.desk.world.state;
        let applied = state.apply(state.index() + 1, entry);
        assert_eq!(state.check(), [], "after {entry:?}");
        applied.events.iter().for_each(|event| {
            self.desk.notes.take_in(*event);
        });
        applied.result
    }

    fn apply(&mut self, command: Command) -> Result<Outcome, Rejection> {
        let (at, by) = (self.desk.world.at, Actor::System);
        self.apply_entry(&Entry { at, by, command })
    }

    /// The oldest batch under way comes back from the log.
    fn commit(&mut self) {
        let batch = self.desk.under_way.pop_front().expect("a batch is under way");
        let (entries, sent) = batch.into_parts();
        let results = entries.iter().map(|entry| self.apply_entry(entry)).collect();
        let index = self.desk.world.state.index();
        let answers = &mut self.desk.answers;
        let back = sent.applied(results, index, |ticket, answer| answers.push((ticket, answer)));
        self.take_back(back);
    }

    /// Nobody hears of the oldest batch under way again; it was not applied.
    fn lose(&mut self) -> Vec<u32> {
        let batch = self.desk.under_way.pop_front().expect("a batch is under way");
        let mut lost = Vec::new();
        let back = batch.into_parts().1.lost(|ticket| lost.push(ticket));
        self.take_back(back);
        lost
    }

    fn take_back(&mut self, back: Returned<u32>) {
        let mut notes = std::mem::take(&mut self.desk.notes);
        self.office.take_back(back, &mut notes, self.desk.now);
        self.office.take_in(&self.desk, notes);
    }

    /// Rounds and commits until nothing is left to do before `until`.
    fn settle(&mut self, until: TimeMs) {
        loop {
            self.round();
            while !self.desk.under_way.is_empty() {
                self.commit();
            }
            if !self.desk.notes.is_empty() {
                continue;
            }
            match self.office.next_at(self.desk.now) {
                Some(at) if at <= until => self.desk.now = self.desk.now.max(at),
                _ => return,
            }
        }
    }

    fn accepted(&self, ticket: u32) -> Accepted {
        match self.answers(ticket)[..] {
            [Answer::Accepted(accepted)] => accepted,
            ref other => panic!("{ticket}: {other:?}"),
        }
    }

    fn answers(&self, ticket: u32) -> Vec<Answer> {
        let mine = self.desk.answers.iter().filter(|(to, _)| *to == ticket);
        mine.map(|(_, answer)| answer.clone()).collect()
    }

    fn reason(&self, job: JobId) -> ReasonCode {
        self.desk.world.state.job(job).expect("is known").reason.code
    }

    fn phase(&self, job: JobId) -> JobPhase {
        self.desk.world.state.job(job).expect("is known").phase
    }

    fn cancel(&mut self, job: JobId) {
        self.apply(Command::Cancel { job, reason: Reason::default() }).expect("cancels");
    }

    fn down(&mut self, node: u32) {
        let (node, epoch, status) = (NodeId(node), Epoch(1), NodeStatus::Down);
        let down = vec![NodeTransition { node, epoch, status }];
        self.apply(Command::NodeStatuses(down)).expect("goes down");
    }
}

#[test]
fn what_fits_costs_one_entry_and_batches_plan_around_each_other() {
    let mut term = Term::new(1);
    let first = term.ask(1, 8);
    term.round();
    let second = term.ask(1, 8);
    term.round();
    assert_eq!(term.desk.under_way.len(), 2);
    term.commit();
    term.commit();
    let (first, second) = (term.accepted(first), term.accepted(second));
    assert!(first.placed && !first.known && first.decide_us == 1);
    assert!(!second.placed, "nothing of it went stale");
    assert_eq!(term.phase(first.job), JobPhase::Placed);
    assert_eq!(term.reason(second.job), ReasonCode::Busy);
    // Nothing has grown: it is left alone.
    term.settle(TimeMs(60_000));
    assert_eq!(term.phase(second.job), JobPhase::Pending);
    term.cancel(first.job);
    term.settle(TimeMs(60_000));
    assert_eq!(term.phase(second.job), JobPhase::Placed);
}

#[test]
fn a_stale_plan_is_made_anew_and_in_the_end_the_job_waits() {
    let mut term = Term::new(4);
    let ticket = term.ask(1, 8);
    for left in (1..=STALE_MAX).rev() {
        term.round();
        let [Command::Submit(submit)] = &commands(&term)[..] else { panic!("one submission") };
        let node = submit.plan.as_ref().expect("is planned").placements[0].node;
        term.down(node.0);
        term.commit();
        assert_eq!(term.answers(ticket), [], "{left} tries are left");
    }
    term.round();
    term.commit();
    let accepted = term.accepted(ticket);
    assert!(!accepted.placed);
    assert_eq!(term.reason(accepted.job), ReasonCode::Contention);
    term.settle(TimeMs(60_000));
    assert_eq!(term.phase(accepted.job), JobPhase::Placed);
}

fn commands(term: &Term) -> Vec<Command> {
    let batch = term.desk.under_way.front().expect("is under way");
    batch.entries.iter().map(|entry| entry.command.clone()).collect()
}

#[test]
fn a_job_over_quota_waits_and_says_so() {
    let mut term = Term::new(2);
    let (tenant, quota) = (tenant(TENANT), quota(8_000, 10));
    term.apply(Command::PutTenant(PutTenant { tenant, quota })).expect("is known");
    let [first, second] = [term.ask(1, 8), term.ask(1, 1)];
    // Both are looked up before either is placed: the log refuses the second one's plan.
    term.settle(TimeMs(5_000));
    let (first, second) = (term.accepted(first), term.accepted(second));
    assert!(first.placed && !second.placed);
    assert_eq!(term.reason(second.job), ReasonCode::Quota);
    let third = term.ask(1, 1);
    term.settle(TimeMs(5_000));
    let third = term.accepted(third);
    assert_eq!((third.placed, term.reason(third.job)), (false, ReasonCode::Quota));
}

/// It starts with as many replicas as the quota leaves, if they are enough; the others come as it
/// leaves more.
#[test]
fn a_job_that_its_quota_does_not_hold_whole_starts_with_its_minimum_or_more() {
    let mut term = Term::new(3);
    let put = |term: &mut Term, milli| {
        let asked = PutTenant { tenant: tenant(TENANT), quota: quota(milli, 10) };
        term.apply(Command::PutTenant(asked)).expect("is known");
    };
    put(&mut term, 14_000);
    let running = |term: &Term, job: JobId| {
        term.desk.world.state.replicas(job).filter(|(_, one)| one.phase.is_live()).count()
    };
    let first = term.ask(1, 8);
    term.settle(TimeMs(5_000));
    let first = term.accepted(first).job;
    let mut call = term.submission(8, 1);
    Arc::make_mut(&mut call.spec).groups[0].replicas_min = 5;
    let mut large = call.clone();
    Arc::make_mut(&mut large.spec).groups[0].replicas_min = 7;
    large.request_id = "large".into();
    let (second, large) = (term.ask_for(call), term.ask_for(large));
    term.settle(TimeMs(10_000));
    let (second, large) = (term.accepted(second), term.accepted(large));
    assert_eq!((second.placed, running(&term, second.job)), (true, 6));
    assert_eq!((large.placed, term.reason(large.job)), (false, ReasonCode::Quota));
    put(&mut term, 15_000);
    term.settle(TimeMs(60_000));
    assert_eq!([second.job, large.job].map(|job| running(&term, job)), [7, 0]);
    term.cancel(first);
    term.settle(TimeMs(120_000));
    assert_eq!([second.job, large.job].map(|job| running(&term, job)), [8, 7]);
}

#[test]
fn a_request_is_accepted_once() {
    let mut term = Term::new(1);
    let call = term.submission(1, 1);
    let first = term.ask_for(call.clone());
    term.settle(TimeMs(5_000));
    let again = term.ask_for(call.clone());
    let other = term.ask_for(Submission { body_digest: 2, ..call.clone() });
    let stranger = term.ask_for(Submission { tenant: tenant("nobody"), ..call });
    term.settle(TimeMs(5_000));
    let (first, again) = (term.accepted(first), term.accepted(again));
    assert!(!first.known && again.known && again.placed);
    assert_eq!(first.job, again.job);
    let rejected = |answers: &[Answer]| matches!(answers, [Answer::Rejected(_)]);
    assert!(rejected(&term.answers(other)) && rejected(&term.answers(stranger)));
}

#[test]
fn what_a_lost_batch_held_is_free_again() {
    let mut term = Term::new(1);
    let lost = term.ask(1, 8);
    term.round();
    assert_eq!(term.office.view().claims_len(), 1);
    assert_eq!(term.lose(), [lost]);
    assert_eq!((term.office.view().claims_len(), term.office.in_flight()), (0, 0));
    let next = term.ask(1, 8);
    term.settle(TimeMs(5_000));
    assert!(term.accepted(next).placed);
    assert_eq!(term.answers(lost), []);
}

#[test]
fn nobody_is_told_no_for_what_has_just_come() {
    let mut term = Term::new(1);
    let whole = term.ask(1, 8);
    term.settle(TimeMs(5_000));
    let next = term.ask(1, 8);
    let whole = term.accepted(whole).job;
    // The office has not been told of this yet.
    term.cancel(whole);
    term.office.round(&mut term.desk);
    term.commit();
    assert!(term.accepted(next).placed);
}

#[test]
fn who_was_planned_around_a_plan_that_failed_has_another_try() {
    let mut term = Term::new(1);
    let first = term.ask(1, 8);
    term.round();
    let second = term.ask(1, 4);
    term.round();
    assert_eq!(term.lose(), [first]);
    term.settle(TimeMs(60_000));
    assert!(!term.accepted(second).placed);
    let job = term.accepted(second).job;
    assert_eq!(term.phase(job), JobPhase::Placed, "nothing holds the node any more");
}

#[test]
fn of_equal_jobs_that_do_not_fit_one_is_tried() {
    let mut term = Term::new(1);
    let all = term.ask(1, 8);
    term.settle(TimeMs(5_000));
    for _ in 0..300 {
        term.ask(2, 4);
    }
    term.desk.plans = 0;
    term.settle(TimeMs(5_000));
    assert_eq!(term.desk.plans, 1);
    let all = term.accepted(all).job;
    term.cancel(all);
    term.settle(TimeMs(60_000));
    assert_eq!(term.desk.plans, 3, "one that fits, and one that does not");
    assert_eq!(term.desk.world.state.waiting().count(), 299);
}

#[test]
fn jobs_that_nobody_waits_for_are_left_out() {
    let mut term = Term::new(1);
    let [gone, other] = [term.ask(1, 1), term.ask(1, 1)];
    term.desk.gone.push(gone);
    term.settle(TimeMs(5_000));
    assert_eq!(term.answers(gone), []);
    assert!(term.accepted(other).placed);
    assert_eq!(term.desk.world.state.jobs_after(None).count(), 1);
}

#[test]
fn a_new_term_goes_on_with_those_who_wait() {
    let mut term = Term::new(2);
    let [first, gang] = [term.ask(1, 8), term.ask(2, 8)];
    term.settle(TimeMs(5_000));
    let (first, gang) = (term.accepted(first), term.accepted(gang));
    assert_eq!(term.phase(gang.job), JobPhase::Pending);
    let (state, now) = (&term.desk.world.state, term.desk.now);
    term.office = Office::new(state, Policy::default(), Reserve::NOBODY, now);
    term.cancel(first.job);
    term.settle(TimeMs(60_000));
    assert_eq!(term.phase(gang.job), JobPhase::Placed);
}

#[test]
fn few_batches_are_under_way_and_a_gang_travels_alone() {
    let mut term = Term::new(BATCH_PLACEMENTS_MAX / 8 + 1);
    let placements = u32::try_from(BATCH_PLACEMENTS_MAX).expect("fits");
    term.ask(placements, 1);
    term.ask(1, 1);
    term.round();
    let jobs =
        |term: &Term| term.desk.under_way.iter().map(|b| b.entries.len()).collect::<Vec<_>>();
    assert_eq!(jobs(&term), [1, 1]);
    for _ in 0..BATCH_JOBS_MAX + 10 {
        term.ask(1, 0);
    }
    (0..4).for_each(|_| term.round());
    assert_eq!(jobs(&term), [1, 1, BATCH_JOBS_MAX, 10]);
    term.ask(1, 0);
    term.round();
    assert_eq!((term.office.in_flight(), term.office.next_at(term.desk.now)), (4, None));
    term.lose();
    assert_eq!(term.office.next_at(term.desk.now), Some(term.desk.now));
    assert_eq!(term.office.close().count(), 1);
}

#[test]
fn a_round_tries_some_of_those_who_wait() {
    let mut term = Term::new(2);
    let whole = [term.ask(1, 8), term.ask(1, 8)];
    term.settle(TimeMs(5_000));
    for _ in 0..2 * TRIES_PER_ROUND {
        term.ask(1, 1);
    }
    term.settle(TimeMs(5_000));
    for ticket in whole {
        let job = term.accepted(ticket).job;
        term.cancel(job);
    }
    term.desk.now = TimeMs(60_000);
    term.round();
    let commits =
        |term: &Term| commands(term).iter().filter(|c| matches!(c, Command::Commit(_))).count();
    assert_eq!(commits(&term), 16, "all that fit into two nodes");
    term.lose();
    // Each try takes so long now that only a few fit into a round.
    term.desk.work_step_us = TRIES_TIME_US / 4;
    term.desk.now = TimeMs(70_000);
    term.round();
    assert!((1..=4).contains(&commits(&term)));
}

#[test]
fn a_plan_that_was_told_of_is_carried_out_or_nothing_is() {
    let mut term = Term::new(2);
    let call = term.submission(1, 8);
    let (who, spec) = (call.tenant.clone(), Arc::clone(&call.spec));
    let plan = term.office.dry_plan(&mut term.desk, &who, &spec).expect("is a tenant");
    let plan = Arc::new(Taking::from(plan.expect("fits")));
    let index = term.office.view().index();
    let digest = quote::digest(&spec, &plan.plan.placements, &[]);
    term.remember(&call, digest, Taking::clone(&plan));
    let check = Some(Check { index, digest: Some(digest) });
    let meant = term.ask_for(Submission { check, ..call.clone() });
    term.round();
    let [Command::Submit(submit)] = &commands(&term)[..] else { panic!("one submission") };
    assert_eq!(submit.plan.as_ref(), Some(&plan.plan));
    term.commit();
    assert!(term.accepted(meant).placed);
    // Its GPUs are taken now.
    let request_id = "another".into();
    let late = term.ask_for(Submission { check, request_id, ..call });
    term.settle(TimeMs(5_000));
    let [Answer::PlanChanged { why, .. }] = &term.answers(late)[..] else { panic!("aborts") };
    assert!(why.contains("not free any more"), "{why}");
    assert_eq!(term.desk.world.state.jobs_after(None).count(), 1);
}

/// Whatever happens, every caller is answered at most once, by then at least once unless its batch
/// got lost, and in the end nobody waits for what is free.
#[test]
fn in_any_order_of_things_nobody_is_forgotten() {
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut term = Term::new(6);
        let mut lost = Vec::new();
        for _ in 0..200 {
            term.desk.now = term.desk.now.after(DurationMs(rng.random_range(0..50)));
            match rng.random_range(0..10) {
                0..=3 => {
                    term.ask(rng.random_range(1..4), rng.random_range(0..9));
                }
                4 | 5 => term.round(),
                6 if !term.desk.under_way.is_empty() => term.commit(),
                7 if rng.random_ratio(1, 4) && !term.desk.under_way.is_empty() => {
                    lost.extend(term.lose());
                }
                8 => {
                    let live = term.desk.world.state.jobs_after(None);
                    let live: Vec<JobId> =
                        live.filter(|job| !job.phase.is_over()).map(|job| job.id).collect();
                    if let Some(&job) = live.choose(&mut rng) {
                        term.cancel(job);
                    }
                }
                9 if rng.random_ratio(1, 20) => {
                    let node = rng.random_range(0..6);
                    let status = term.desk.world.state.node(NodeId(node)).map(|node| node.status);
                    if status == Some(NodeStatus::Up) {
                        term.down(node);
                    }
                }
                _ => {}
            }
        }
        while !term.desk.under_way.is_empty() {
            term.commit();
        }
        let end = term.desk.now.after(DurationMs(60_000));
        term.settle(end);
        for ticket in 1..=term.asked {
            let answers = term.answers(ticket).len();
            assert_eq!(answers, usize::from(!lost.contains(&ticket)), "seed {seed}: {ticket}");
        }
        let state = &term.desk.world.state;
        let fresh = view_of(state);
        for job in state.waiting() {
            let wait = look::waiting(state, job).expect("waits");
            let found = plan(&fresh, &wait.request(), &Policy::default(), Budget::default());
            assert!(found.is_err(), "seed {seed}: {job} would fit");
        }
        assert_eq!(term.office.view().claims_len(), 0, "seed {seed}");
    }
}
