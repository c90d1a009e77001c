//! The way from a proposal to its being applied: the log of the quorum, as far as time and loss go.
//!
//! **Invariant:** records are committed in the order in which they were proposed. When a leader
//! dies, what was under way is committed up to some record and lost from there on; nobody is told
//! which.

use super::leader::{Desk, Leader, Said};
use super::oracle::Disrupted;
use super::{Touched, Turn, Violation, World};
use crate::observe::Seen;
use rand::RngExt;
use scheduler_core::command::{Actor, Command, Entry, Outcome, Rejection};
use scheduler_core::duty::office::{Answer, Sent};
use scheduler_core::unit::TimeMs;
use std::collections::VecDeque;

/// Who proposed a record, and what becomes of it if its leader dies.
#[derive(Debug)]
pub(super) enum Origin {
    /// The planner: callers ask again.
    Batch(Sent<usize>),
    /// Relayed reports: proposed again.
    Reports,
    /// Registrations of these machines in these eras: their agents try again.
    Joins(Vec<(usize, u32)>),
    /// Found due again by the next leader.
    Duty,
    /// A client, who proposes it again.
    Anybody,
}

/// A record under way.
#[derive(Debug)]
struct Record {
    entries: Vec<Entry>,
    origin: Origin,
    due: TimeMs,
    /// Records committed when it was decided on.
    proposed_at: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Log {
    under_way: VecDeque<Record>,
    last_due: TimeMs,
    /// What the planner will have to say, when, and records committed when it began.
    planned: VecDeque<(TimeMs, u64, Said)>,
    /// Records of a dead leader that made it; applied once somebody leads.
    orphans: Vec<Vec<Entry>>,
    /// Proposals that wait for a leader.
    waiting: Vec<(Vec<(Actor, Command)>, Origin)>,
}

impl World<'_> {
    /// Proposes commands as one record, now or as soon as somebody leads.
    pub(super) fn send(&mut self, commands: Vec<(Actor, Command)>, origin: Origin) {
        if self.leader.is_none() {
            return self.log.waiting.push((commands, origin));
        }
        let at = self.some_clock();
        let entry = |(by, command)| Entry { at, by, command };
        self.send_entries(commands.into_iter().map(entry).collect(), origin, self.report.records);
    }

    /// `proposed_at`: records committed when it was decided what to propose.
    fn send_entries(&mut self, entries: Vec<Entry>, origin: Origin, proposed_at: u64) {
        let took = self.scenario.commit.draw(&mut self.dice.commit);
        let due = self.now().after(took).max(self.log.last_due);
        self.log.last_due = due;
        self.log.under_way.push_back(Record { entries, origin, due, proposed_at });
        self.heap.push(due, Turn::Commit);
    }

    /// The leader plans.
    pub(super) fn round(&mut self) -> Result<(), Violation> {
        let now = self.now();
        if self.round_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.round_at = None;
        let Some(leader) = &mut self.leader else { return Ok(()) };
        let mut desk = Desk {
            now,
            clock: self.servers.leaders_clock(now),
            state: &self.state,
            scenario: self.scenario,
            tenant: &self.tenant,
            rules: &mut *self.rules,
            observer: &mut *self.observer,
            done_ns: 0,
            said: Vec::new(),
        };
        self.report.planner_ns += leader.round(&mut desk);
        let (said, records) = (desk.said, self.report.records);
        for (at, said) in said {
            if at > now {
                self.heap.push(at, Turn::Say);
            }
            self.log.planned.push_back((at, records, said));
        }
        self.say_planned()
    }

    /// The planner says what it has to say by now.
    pub(super) fn say_planned(&mut self) -> Result<(), Violation> {
        let now = self.now();
        let mut answers = Vec::new();
        while let Some((_, records, said)) = self.log.planned.pop_front_if(|(at, ..)| *at <= now) {
            match said {
                Said::Batch(batch) => {
                    let (entries, sent) = batch.into_parts();
                    self.send_entries(entries, Origin::Batch(sent), records);
                }
                Said::Answer(arrival, answer) => answers.push((arrival, answer)),
            }
        }
        self.answer(answers)
    }

    /// The leader does what is due.
    pub(super) fn duty(&mut self) {
        let now = self.now();
        if self.duty_at.is_none_or(|at| at > now) {
            return;
        }
        self.duty_at = None;
        let Some(leader) = &mut self.leader else { return };
        let entries = leader.duties(&self.state, now, self.servers.leaders_clock(now));
        if !entries.is_empty() {
            self.send_entries(entries, Origin::Duty, self.report.records);
        }
    }

    /// The oldest record under way is committed.
    pub(super) fn commit(&mut self) -> Result<(), Violation> {
        let now = self.now();
        // The record that this was for may have died with its leader.
        if self.log.under_way.front().is_none_or(|record| record.due > now) {
            return Ok(());
        }
        let Some(record) = self.log.under_way.pop_front() else { return Ok(()) };
        let fresh = record.proposed_at == self.report.records;
        let mut touched = Touched::default();
        let results = self.apply_all(&record.entries, fresh, &mut touched)?;
        match record.origin {
            Origin::Batch(sent) => self.batch_done(sent, results)?,
            Origin::Reports => self.reports_done(),
            Origin::Joins(machines) => self.joined(&machines, &results)?,
            Origin::Duty => self.leader.as_mut().map_or((), Leader::duty_done),
            Origin::Anybody => {}
        }
        self.follow(touched)
    }

    /// Applies one record. `fresh`: nothing was applied since it was proposed.
    fn apply_all(
        &mut self,
        entries: &[Entry],
        fresh: bool,
        touched: &mut Touched,
    ) -> Result<Vec<Result<Outcome, Rejection>>, Violation> {
        self.report.records += 1;
        let mut results = Vec::with_capacity(entries.len());
        let mut first_plan = fresh;
        for entry in entries {
            let before = Disrupted::before(&self.state, &entry.command);
            let result = self.apply(entry, touched);
            let is_known = matches!(result, Ok(Outcome::Submitted { known: true, .. }));
            if let (Some(before), Ok(_), false) = (before, &result, is_known) {
                before.check(&self.state).map_err(|what| self.violation(what))?;
                self.report.jobs_preempted += before.jobs() as u64;
            }
            let planned = match &entry.command {
                Command::Submit(submit) => submit.plan.as_ref(),
                Command::Commit(commit) => Some(&commit.plan),
                Command::Preempt(preempt) => Some(&preempt.plan),
                _ => None,
            };
            let job = match (&entry.command, &result) {
                (Command::Commit(commit), _) => Some(commit.job),
                (Command::Preempt(preempt), _) => Some(preempt.job),
                (_, Ok(Outcome::Submitted { job, .. })) => Some(*job),
                _ => None,
            };
            if let (Some(plan), Some(job), Ok(_)) = (planned, job, &result) {
                self.oracle.placed(&self.state, job).map_err(|what| self.violation(what))?;
                let replicas = u32::try_from(plan.placements.len()).unwrap_or(u32::MAX);
                self.tell(Seen::Bound { job, replicas });
            }
            if let Err(Rejection::StalePlan { why }) = &result {
                if first_plan {
                    let what = format!("a plan was refused though nothing had changed: {why}");
                    return Err(self.violation(what));
                }
                self.report.plans_stale += 1;
                self.tell(Seen::Stale { why: *why });
            }
            first_plan &= planned.is_none();
            if let (Command::SetReason { job, reason }, Ok(_)) = (&entry.command, &result) {
                self.tell(Seen::Waiting { job: *job, reason });
            }
            if let (Command::Submit(submit), Some(job), None) = (&entry.command, job, planned) {
                self.tell(Seen::Waiting { job, reason: &submit.reason });
            }
            results.push(result);
        }
        Ok(results)
    }

    fn batch_done(
        &mut self,
        sent: Sent<usize>,
        results: Vec<Result<Outcome, Rejection>>,
    ) -> Result<(), Violation> {
        let (now, index) = (self.now(), self.report.records);
        let placed = |result: &&Result<Outcome, Rejection>| {
            matches!(result, Ok(Outcome::Submitted { placed: true, known: false, .. }))
        };
        self.report.jobs_placed_at_once += results.iter().filter(placed).count() as u64;
        let Some(leader) = &mut self.leader else { return Ok(()) };
        let answers = leader.returned(sent, results, index, now);
        self.answer(answers)
    }

    fn answer(&mut self, answers: Vec<(usize, Answer)>) -> Result<(), Violation> {
        for (arrival, answer) in answers {
            match answer {
                Answer::Accepted(accepted) => {
                    let noted = self.oracle.is_job_of(arrival, accepted.job);
                    noted.map_err(|what| self.violation(what))?;
                    self.accepted(arrival, accepted.job);
                }
                Answer::Rejected(why) => {
                    self.report.jobs_refused += 1;
                    self.note_answer(arrival);
                    self.tell(Seen::Refused { arrival, why: &why });
                }
                odd @ (Answer::PlanChanged { .. } | Answer::Odd { .. }) => {
                    return Err(self.violation(format!("arrival {arrival} got {odd:?}")));
                }
            }
        }
        Ok(())
    }

    /// The leading server dies, or is cut off from the others. Of what was under way, the first
    /// records survive.
    pub(super) fn lose_leader(&mut self, dies: bool) {
        if self.leader.is_some() {
            self.report.leaders_lost += 1;
            self.note_last_answers();
        }
        let Some(leader) = self.leader.take() else { return };
        self.unanswered(leader.close());
        for (_, _, said) in std::mem::take(&mut self.log.planned) {
            match said {
                Said::Batch(batch) => self.lost(batch.into_parts().1),
                Said::Answer(arrival, _) => self.unanswered(std::iter::once(arrival)),
            }
        }
        let under_way = std::mem::take(&mut self.log.under_way);
        let survive = self.dice.servers.random_range(0..=under_way.len());
        for (at, record) in under_way.into_iter().enumerate() {
            let again = |entries: &[Entry]| {
                let pair = |entry: &Entry| (entry.by.clone(), entry.command.clone());
                entries.iter().map(pair).collect()
            };
            match record.origin {
                Origin::Batch(sent) => self.lost(sent),
                Origin::Duty => {}
                Origin::Joins(machines) => self.joins_lost(&machines),
                origin @ (Origin::Reports | Origin::Anybody) => {
                    self.log.waiting.push((again(&record.entries), origin));
                }
            }
            if at < survive {
                self.log.orphans.push(record.entries);
            }
        }
        (self.round_at, self.duty_at) = (None, None);
        self.call_election();
        self.tell(Seen::LeaderLost);
        self.lose_streams(dies);
    }

    /// Nobody will say what became of a batch: its callers ask again.
    fn lost(&mut self, sent: Sent<usize>) {
        let mut arrivals = Vec::new();
        sent.lost(|arrival| arrivals.push(arrival));
        self.unanswered(arrivals.into_iter());
    }

    /// Another server leads: it applies what the dead one left, and goes on from there.
    pub(super) fn elect(&mut self) -> Result<(), Violation> {
        if self.leader.is_some() || !self.take_seat() {
            return Ok(());
        }
        let mut touched = Touched::default();
        for entries in std::mem::take(&mut self.log.orphans) {
            self.apply_all(&entries, false, &mut touched)?;
        }
        let now = self.now();
        let mut leader = Leader::new(&self.state, self.scenario, now);
        for (node, epoch) in self.silent() {
            leader.fell_silent(node, epoch, now);
        }
        self.leader = Some(leader);
        self.watch_all();
        self.log.last_due = now;
        self.tell(Seen::LeaderFound);
        self.follow(touched)?;
        for (commands, origin) in std::mem::take(&mut self.log.waiting) {
            self.send(commands, origin);
        }
        self.flush_later();
        self.ask_again();
        Ok(())
    }
}
