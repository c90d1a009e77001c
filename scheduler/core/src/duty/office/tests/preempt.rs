//! Jobs that take what others let go: who waits then, and what is promised to whom meanwhile.

use super::*;
use crate::command::{Scale, Victim};
use crate::fixture::entry::{self, name};
use crate::job::{Disruption, JobSpec, PreemptionPolicy};

fn low(term: &Term, replicas: u32, priority: i16) -> Submission {
    change(term.submission(replicas, 8), |spec| {
        spec.priority = Priority(priority);
        spec.preemption.disruption = Disruption::All;
    })
}

fn high(term: &Term, replicas: u32, priority: i16) -> Submission {
    change(term.submission(replicas, 8), |spec| {
        spec.priority = Priority(priority);
        spec.preemption.policy = PreemptionPolicy::LowerPriority;
    })
}

fn change(call: Submission, change: impl FnOnce(&mut JobSpec)) -> Submission {
    let mut spec = (*call.spec).clone();
    change(&mut spec);
    Submission { spec: Arc::new(spec), ..call }
}

impl Term {
    /// Asks for the job, and goes on until nothing is left to do.
    fn job(&mut self, call: Submission) -> JobId {
        let ticket = self.ask_for(call);
        self.settle(self.desk.now);
        self.accepted(ticket).job
    }

    fn message(&self, job: JobId) -> String {
        self.desk.world.state.job(job).expect("is known").reason.message.to_string()
    }
}

#[test]
fn the_fewest_jobs_give_way_and_come_back() {
    let mut term = Term::new(4);
    let kept = term.job(change(low(&term, 1, -5), |spec| spec.preemption = Default::default()));
    let two = term.job(low(&term, 2, -5));
    let one = term.job(low(&term, 1, -5));
    let high = term.job(high(&term, 2, 500));
    assert_eq!((term.phase(high), term.phase(kept)), (JobPhase::Placed, JobPhase::Placed));
    assert_eq!((term.phase(two), term.phase(one)), (JobPhase::Pending, JobPhase::Placed));
    // Tried in vain since, and it still says what befell it.
    term.settle(TimeMs(60_000));
    assert_eq!(term.reason(two), ReasonCode::Preempted);
    let told = term.message(two);
    assert!(told.starts_with("preempted by a job of priority 500; 0 of 4 nodes usable"), "{told}");
    term.cancel(one);
    term.settle(TimeMs(120_000));
    assert_eq!((term.phase(two), term.reason(two)), (JobPhase::Pending, ReasonCode::Preempted));
    term.cancel(high);
    term.settle(TimeMs(180_000));
    assert_eq!((term.phase(two), term.reason(two)), (JobPhase::Placed, ReasonCode::None));
}

#[test]
fn priorities_fall_from_one_who_is_sent_back_to_the_next_and_no_further() {
    let mut term = Term::new(3);
    let chain = |term: &Term, priority| {
        change(high(term, 1, priority), |spec| spec.preemption.disruption = Disruption::All)
    };
    let jobs: Vec<JobId> = [1, 2, 3].map(|at| term.job(chain(&term, at))).to_vec();
    let fourth = term.job(chain(&term, 4));
    term.settle(TimeMs(60_000));
    let phases = |term: &Term| jobs.iter().map(|&job| term.phase(job)).collect::<Vec<_>>();
    assert_eq!(phases(&term), [JobPhase::Pending, JobPhase::Placed, JobPhase::Placed]);
    // Both above the lowest must go; the higher of them finds nobody below itself then.
    let fifth = term.job(chain(&term, 5));
    term.settle(TimeMs(120_000));
    assert_eq!(phases(&term), [JobPhase::Pending, JobPhase::Pending, JobPhase::Placed]);
    assert_eq!((term.phase(fourth), term.phase(fifth)), (JobPhase::Placed, JobPhase::Placed));
    let equal = term.job(chain(&term, 3));
    term.settle(TimeMs(180_000));
    assert_eq!(term.phase(equal), JobPhase::Pending, "nobody below it runs");
    let times: Vec<u32> = jobs
        .iter()
        .map(|&job| term.desk.world.state.job(job).expect("known").preemptions)
        .collect();
    assert_eq!(times, [1, 1, 0]);
}

#[test]
fn what_is_given_up_is_promised_once() {
    let mut term = Term::new(2);
    let [a, b] = [1, 2].map(|_| term.job(low(&term, 1, -5)));
    let tickets = [1, 2].map(|_| term.ask_for(high(&term, 1, 500)));
    term.round();
    term.commit();
    // Both wait, and each takes another one in the batches that follow.
    term.settle(term.desk.now);
    let jobs = tickets.map(|ticket| term.accepted(ticket).job);
    assert_eq!(jobs.map(|job| term.phase(job)), [JobPhase::Placed; 2]);
    assert_eq!([a, b].map(|job| term.phase(job)), [JobPhase::Pending; 2]);
    assert_eq!(term.office.view.claims_len(), 0);
    assert!(term.office.preempting.giving.is_empty());
}

/// Told of a plan by which the victim gives way, its caller means it.
fn means(term: &mut Term, victim: JobId, call: Submission) -> u32 {
    let victims = vec![Victim { job: victim, ranks: Vec::new() }];
    let taking = Taking { plan: entry::plan(&[(0, 0xff)]), victims };
    term.remember(&call, 7, taking);
    let check = Some(Check { index: term.office.view().index(), digest: Some(7) });
    term.ask_for(Submission { check, ..call })
}

#[test]
fn a_plan_that_takes_is_carried_out_as_it_was_told_or_nothing_is() {
    for lost in [false, true] {
        let mut term = Term::new(1);
        let victim = term.job(low(&term, 1, -5));
        let call = high(&term, 1, 500);
        let first = means(&mut term, victim, call.clone());
        let second = means(&mut term, victim, Submission { request_id: "other".into(), ..call });
        term.round();
        let [Command::Submit(asked)] = &commands(&term)[..] else { panic!("only the first") };
        assert_eq!(asked.victims.iter().map(|one| one.job).collect::<Vec<_>>(), [victim]);
        let [Answer::PlanChanged { why, .. }] = &term.answers(second)[..] else { panic!("aborts") };
        assert!(why.contains("not free any more"), "{why}");
        match lost {
            true => drop(term.lose()),
            false => term.commit(),
        }
        assert!(term.office.preempting.giving.is_empty());
        if lost {
            assert_eq!(term.phase(victim), JobPhase::Placed);
            continue;
        }
        assert!(term.accepted(first).placed);
        term.settle(TimeMs(60_000));
        assert_eq!(term.phase(victim), JobPhase::Pending);
        assert_eq!(term.office.view.claims_len(), 0);
    }
}

#[test]
fn a_plan_that_takes_of_the_quota_is_carried_out_if_it_gives_enough_back() {
    for (gpu_milli_max, is_enough) in [(16_000, true), (15_000, false)] {
        let mut term = Term::new(2);
        let victim = term.job(low(&term, 1, -5));
        let kept = term.job(term.submission(1, 8));
        let (tenant, quota) = (tenant(TENANT), quota(gpu_milli_max, 10));
        term.apply(Command::PutTenant(PutTenant { tenant, quota })).expect("is known");
        let call = high(&term, 1, 500);
        let ticket = means(&mut term, victim, call);
        term.settle(TimeMs(60_000));
        let (taken, phases) = match is_enough {
            true => (term.accepted(ticket).placed, [JobPhase::Pending, JobPhase::Placed]),
            false => {
                let [Answer::PlanChanged { why, .. }] = &term.answers(ticket)[..] else {
                    panic!("{:?}", term.answers(ticket))
                };
                assert!(why.contains("would exceed 15"), "{why}");
                (false, [JobPhase::Placed; 2])
            }
        };
        assert_eq!(taken, is_enough);
        assert_eq!([victim, kept].map(|job| term.phase(job)), phases);
        assert!(term.office.preempting.giving.is_empty());
        assert_eq!(term.office.view.claims_len(), 0);
    }
}

#[test]
fn a_plan_that_takes_aborts_when_its_victim_has_gone_or_goes() {
    // Known before it asks, or only when its entry is applied.
    for late in [false, true] {
        let mut term = Term::new(1);
        let victim = term.job(low(&term, 1, -5));
        let call = high(&term, 1, 500);
        let ticket = means(&mut term, victim, call);
        if late {
            term.round();
        }
        term.cancel(victim);
        let other = Submission { request_id: "other".into(), ..term.submission(1, 8) };
        term.desk.world.submit(entry::submit(
            "other",
            (*other.spec).clone(),
            Some(entry::plan(&[(0, 0xff)])),
        ));
        term.office.catch_up(&mut term.desk);
        term.round();
        assert_eq!(term.desk.under_way.len(), usize::from(late), "nothing is tried in vain");
        term.settle(TimeMs(60_000));
        let [Answer::PlanChanged { .. }] = &term.answers(ticket)[..] else {
            panic!("{late}: {:?}", term.answers(ticket))
        };
        assert_eq!(term.office.view.claims_len(), 0);
        assert!(term.office.preempting.giving.is_empty());
        assert_eq!(term.desk.world.state.jobs_after(None).count(), 2, "it was not accepted");
    }
}

#[test]
fn a_stale_or_lost_preemption_is_made_anew() {
    for lost in [false, true] {
        let mut term = Term::new(1);
        let victim = term.job(low(&term, 1, -5));
        let ticket = term.ask_for(high(&term, 1, 500));
        term.round();
        term.commit();
        term.office.catch_up(&mut term.desk);
        term.round();
        let [Command::Preempt(asked)] = &commands(&term)[..] else {
            panic!("{:?}", commands(&term))
        };
        assert_eq!(asked.victims.iter().map(|one| one.job).collect::<Vec<_>>(), [victim]);
        if lost {
            term.lose();
        } else {
            term.cancel(victim);
            term.commit();
        }
        let job = term.accepted(ticket).job;
        assert_eq!(term.phase(job), JobPhase::Pending);
        term.settle(TimeMs(60_000));
        assert_eq!(term.phase(job), JobPhase::Placed);
        assert!(term.office.preempting.giving.is_empty());
    }
}

#[test]
fn who_does_not_ask_or_waits_for_something_else_takes_nothing() {
    let mut term = Term::new(2);
    let victims = [1, 2].map(|_| term.job(low(&term, 1, -5)));
    let never = change(high(&term, 1, 500), |spec| spec.preemption = Default::default());
    let too_much = high(&term, 3, 500);
    let equal = high(&term, 1, -5);
    let waits = [never, too_much, equal].map(|call| term.job(call));
    let later = term.desk.world.at.after(DurationMs(3_600_000));
    let begins = term.job(change(high(&term, 1, 500), |spec| spec.begin = Some(later)));
    term.settle(TimeMs(60_000));
    for job in waits.into_iter().chain([begins]) {
        assert_eq!(term.phase(job), JobPhase::Pending);
    }
    assert_eq!(victims.map(|job| term.phase(job)), [JobPhase::Placed; 2]);
}

/// A quota is made room in by the tenant's own jobs alone, though nodes are free.
#[test]
fn who_is_over_its_quota_takes_of_it_from_its_own() {
    let mut term = Term::new(4);
    let theirs = tenant("beta");
    for (name, milli) in [(tenant(TENANT), 16_000), (theirs.clone(), u64::MAX)] {
        let asked = PutTenant { tenant: name, quota: quota(milli, 10) };
        term.apply(Command::PutTenant(asked)).expect("an operator may");
    }
    let theirs = Submission { tenant: theirs, ..low(&term, 1, -9) };
    let theirs = term.job(theirs);
    let kept = term.job(change(low(&term, 1, -5), |spec| spec.preemption = Default::default()));
    let own = term.job(low(&term, 1, -5));
    let first = term.job(high(&term, 1, 500));
    term.settle(TimeMs(60_000));
    let phases = |term: &Term, jobs: [JobId; 4]| jobs.map(|job| term.phase(job));
    let (placed, pending) = (JobPhase::Placed, JobPhase::Pending);
    assert_eq!(phases(&term, [theirs, kept, own, first]), [placed, placed, pending, placed]);
    assert_eq!(term.reason(own), ReasonCode::Preempted);
    // Nobody of its own is left who lets go.
    let second = term.job(high(&term, 1, 600));
    term.settle(TimeMs(120_000));
    assert_eq!(phases(&term, [theirs, kept, first, second]), [placed, placed, placed, pending]);
    assert_eq!(term.reason(second), ReasonCode::Quota);
    term.cancel(kept);
    term.settle(TimeMs(180_000));
    assert_eq!(phases(&term, [theirs, own, first, second]), [placed, pending, placed, placed]);
}

#[test]
fn who_waits_in_vain_is_looked_at_again_when_capacity_grows() {
    let mut term = Term::new(2);
    let kept = term.job(change(low(&term, 1, -5), |spec| spec.preemption = Default::default()));
    let victim = term.job(low(&term, 1, -5));
    let high = term.job(high(&term, 2, 500));
    term.settle(TimeMs(60_000));
    assert_eq!((term.phase(high), term.phase(victim)), (JobPhase::Pending, JobPhase::Placed));
    term.cancel(kept);
    term.settle(TimeMs(120_000));
    assert_eq!((term.phase(high), term.phase(victim)), (JobPhase::Placed, JobPhase::Pending));
}

#[test]
fn while_somebody_gives_way_nobody_else_asks_it_or_takes_the_rest_or_gives_up() {
    let under_way = |term: &Term| -> Vec<Command> {
        let all = term.desk.under_way.iter().flat_map(|batch| &batch.entries);
        all.map(|entry| entry.command.clone()).collect()
    };
    // Of two nodes that one job leaves, each of two others takes one: the second once it is free.
    let mut term = Term::new(2);
    let victim = term.job(low(&term, 2, -5));
    let tickets = [1, 2].map(|_| term.ask_for(high(&term, 1, 500)));
    term.round();
    term.commit();
    term.round();
    term.round();
    assert!(matches!(under_way(&term)[..], [Command::Preempt(_)]), "{:?}", under_way(&term));
    // If that is lost, it is tried anew, and so is the second, for whom nobody was left.
    term.lose();
    term.settle(TimeMs(term.desk.now.0 + 60_000));
    let jobs = tickets.map(|ticket| term.accepted(ticket).job);
    assert_eq!(jobs.map(|job| term.phase(job)), [JobPhase::Placed; 2]);
    assert_eq!(term.phase(victim), JobPhase::Pending);

    // What is free and goes to the same plan is taken.
    let mut term = Term::new(2);
    term.job(low(&term, 1, -5));
    term.ask_for(high(&term, 2, 500));
    term.round();
    term.commit();
    term.round();
    term.ask_for(term.submission(1, 8));
    term.round();
    let all = under_way(&term);
    let [Command::Preempt(_), Command::Submit(late)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(late.plan, None);
}

#[test]
fn who_never_asks_is_not_even_tried() {
    let mut term = Term::new(2);
    let [ends, _] = [1, 2].map(|_| term.job(low(&term, 1, -5)));
    term.job(change(high(&term, 2, 500), |spec| spec.preemption = Default::default()));
    term.cancel(ends);
    term.round();
    assert!(term.desk.under_way.is_empty());
}

#[test]
fn growth_waits_where_a_whole_job_would_not() {
    let mut term = Term::new(2);
    let grows = change(high(&term, 1, 500), |spec| spec.groups[0].replicas_max = 2);
    let grows = term.job(grows);
    let victim = term.job(low(&term, 1, -5));
    let (group, request_id) = (name("w"), "more".into());
    let more = Scale { job: grows, group, replicas: 2, expected: None, request_id };
    term.apply(Command::Scale(more)).expect("may grow");
    term.settle(TimeMs(60_000));
    assert_eq!(term.phase(victim), JobPhase::Placed);
}

#[test]
fn searches_leave_the_planner_time_for_others() {
    let mut term = Term::new(2);
    for _ in 0..2 {
        term.job(low(&term, 1, -5));
    }
    let first = term.ask_for(high(&term, 1, 500));
    let second = term.ask_for(high(&term, 1, 500));
    term.round();
    term.commit();
    // Every look at the clock costs some time: one search is made, the other one waits its turn.
    term.desk.work_step_us = 4_000;
    term.office.catch_up(&mut term.desk);
    term.round();
    let preempts = |term: &Term| {
        let all = term.desk.under_way.iter().flat_map(|batch| &batch.entries);
        all.filter(|entry| matches!(entry.command, Command::Preempt(_))).count()
    };
    assert_eq!(preempts(&term), 1);
    term.commit();
    term.round();
    assert_eq!(preempts(&term), 0);
    term.settle(TimeMs(term.desk.now.0 + 60_000));
    let jobs = [first, second].map(|ticket| term.accepted(ticket).job);
    assert_eq!(jobs.map(|job| term.phase(job)), [JobPhase::Placed; 2]);
}
