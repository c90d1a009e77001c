//! Reservations in virtual time: who is promised what, who may slip in before, and what becomes of a
//! promise when things go otherwise.

use super::*;
use crate::command::Observed;
use crate::duty::expiry;
use crate::duty::office::holds::BRING_UP;
use std::collections::BTreeMap;

const SECOND: u64 = 1_000;
/// Jobs of these tests get a reservation after this.
const AFTER: DurationMs = DurationMs(10 * SECOND);
const ON: Reserve = Reserve { after: AFTER, most: 3 };
/// A promise is kept if the job is placed so soon after it.
const KEPT_WITHIN: DurationMs = DurationMs(3 * SECOND);

/// A term whose time goes from one happening to the next. It begins 5 s after `origin`.
struct Play {
    term: Term,
    origin: TimeMs,
    /// When jobs that were placed become ready.
    ready_at: BTreeMap<JobId, TimeMs>,
    /// Longest time from being placed to being ready.
    bring_up: DurationMs,
    /// First promise to each job, and the last.
    promised: BTreeMap<JobId, (TimeMs, TimeMs)>,
    placed: BTreeMap<JobId, TimeMs>,
    rng: StdRng,
}

impl Play {
    fn new(nodes: usize, reserve: Reserve) -> Self {
        let mut term = Term::new(nodes);
        // A second after the nodes have joined, by both clocks.
        let now = term.desk.world.at.after(DurationMs(SECOND));
        let origin = now.saturating_sub(TimeMs(5 * SECOND));
        (term.desk.now, term.desk.world.at) = (now, now);
        term.office = Office::new(&term.desk.world.state, Policy::default(), reserve, now);
        let (ready_at, promised, placed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let rng = StdRng::seed_from_u64(7);
        Self { term, origin, ready_at, bring_up: DurationMs::ZERO, promised, placed, rng }
    }

    /// A job comes now; its duration in seconds, 0 = none.
    fn job(&mut self, replicas: u32, gpus: u8, duration_s: u64) -> JobId {
        self.job_of(0, replicas, gpus, duration_s)
    }

    fn job_of(&mut self, priority: i16, replicas: u32, gpus: u8, duration_s: u64) -> JobId {
        let mut call = self.term.submission(replicas, gpus);
        let duration = (duration_s > 0).then_some(DurationMs(duration_s * SECOND));
        let priority = Priority(priority);
        call.spec = Arc::new(JobSpec { duration, priority, ..(*call.spec).clone() });
        let ticket = self.term.ask_for(call);
        self.settle();
        self.term.accepted(ticket).job
    }

    /// All that is to be done now.
    fn settle(&mut self) {
        loop {
            let now = self.term.desk.now;
            self.term.settle(now);
            self.watch();
            let state = &self.term.desk.world.state;
            let live = self.ready_at.iter().filter(|(_, at)| **at <= now).map(|(job, _)| *job);
            let ready: Vec<JobId> = live.collect();
            let over = expiry::next(state, now).filter(|_| !state.due(now, 1).0.is_empty());
            if ready.is_empty() && over.is_none() {
                return;
            }
            for job in ready {
                self.ready_at.remove(&job);
                self.report(job, Observed::Ready);
            }
            if let Some(over) = over {
                self.term.apply(over).expect("expires");
            }
        }
    }

    fn report(&mut self, job: JobId, observed: Observed) {
        let world = &self.term.desk.world;
        let live = world.state.replicas(job).filter(|(_, replica)| replica.phase.is_live());
        let reports = live.map(|(rank, _)| world.report_of(job, rank.0, observed)).collect();
        self.term.apply(Command::Report(reports)).expect("is taken in");
    }

    /// Takes down who was promised what, and who was placed.
    fn watch(&mut self) {
        let now = self.term.desk.now;
        for held in self.term.office.holds.iter() {
            let promised = self.promised.entry(held.job).or_insert((held.at, held.at));
            promised.1 = held.at;
        }
        let state = &self.term.desk.world.state;
        let bound: Vec<JobId> = state
            .jobs_after(None)
            .filter(|job| job.phase == JobPhase::Placed && !self.placed.contains_key(&job.id))
            .map(|job| job.id)
            .collect();
        for job in bound {
            let takes = self.rng.random_range(0..=self.bring_up.0);
            self.ready_at.insert(job, now.after(DurationMs(takes)));
            self.placed.insert(job, now);
        }
    }

    /// Goes on to so many seconds after the origin.
    fn go_to(&mut self, at_s: u64) {
        self.until(self.origin.after(DurationMs(at_s * SECOND)));
    }

    fn seconds(&self, at: TimeMs) -> u64 {
        at.since(self.origin).0 / SECOND
    }

    fn until(&mut self, until: TimeMs) {
        loop {
            self.settle();
            let now = self.term.desk.now;
            let due = self.term.office.next_at(now).filter(|at| *at > now);
            let ends = self.term.desk.world.state.endings().next().map(|(at, _)| at);
            let ready = self.ready_at.values().min().copied();
            let next = [due, ends, ready].into_iter().flatten().min();
            let next = next.unwrap_or(until).min(until);
            (self.term.desk.now, self.term.desk.world.at) = (next, next);
            if next == until {
                return self.settle();
            }
        }
    }

    fn promise_s(&self, job: JobId) -> Option<u64> {
        let held = self.term.office.holds.of(job)?;
        Some(self.seconds(held.at))
    }

    fn placed_s(&self, job: JobId) -> Option<u64> {
        self.placed.get(&job).map(|&at| self.seconds(at))
    }

    fn message(&self, job: JobId) -> String {
        let state = &self.term.desk.world.state;
        state.job(job).expect("is known").reason.message.to_string()
    }

    fn assert_promises_kept(&self, what: &str) {
        for (job, (first, _)) in &self.promised {
            let placed = self.placed.get(job).unwrap_or_else(|| panic!("{what}: {job} never ran"));
            let at = first.after(KEPT_WITHIN);
            assert!(*placed <= at, "{what}: {job} was promised {first:?} and placed at {placed:?}");
        }
    }
}

/// Two nodes of 8 GPUs, one taken until 105 s and one until 205 s; a gang of both comes at 5 s.
fn gang_behind_two(reserve: Reserve) -> (Play, JobId) {
    let mut play = Play::new(2, reserve);
    play.job(1, 8, 100);
    play.job(1, 8, 200);
    let gang = play.job(2, 8, 50);
    (play, gang)
}

#[test]
fn a_gang_is_promised_when_enough_has_ended_and_small_jobs_are_not_in_its_way() {
    for reserve in [ON, Reserve::NOBODY] {
        let (mut play, gang) = gang_behind_two(reserve);
        play.go_to(14);
        assert_eq!(play.promise_s(gang), None, "it has not waited for long enough");
        play.go_to(16);
        let is_on = reserve.is_on();
        assert_eq!(play.promise_s(gang), is_on.then_some(205));
        assert_eq!(play.message(gang).contains("; reserved, starts at about "), is_on);
        // One of them waits for what the gang needs.
        let small = play.job(1, 1, 0);
        play.go_to(110);
        let late = play.job(1, 1, 0);
        assert_eq!(play.placed_s(small).is_some(), !is_on);
        assert_eq!(play.placed_s(late).is_some(), !is_on);
        if is_on {
            let told = play.message(late);
            assert!(told.contains("16 GPUs are held for 1 other waiting job(s)"), "{told}");
        }
        play.go_to(260);
        assert_eq!(
            play.placed_s(gang),
            is_on.then_some(205),
            "small jobs stand in its way for ever"
        );
        play.go_to(300);
        assert!(play.placed_s(small).is_some() && play.placed_s(late).is_some());
        assert_eq!(play.term.office.view().claims_len(), 0);
    }
}

#[test]
fn who_ends_before_slips_in_and_who_does_not_waits() {
    let (mut play, gang) = gang_behind_two(ON);
    play.go_to(110);
    // It would be over at 205 s had it started a second ago.
    let late = play.job(1, 1, 205 - 109 - BRING_UP.0 / SECOND);
    let short = play.job(1, 1, 205 - 110 - BRING_UP.0 / SECOND);
    assert_eq!((play.placed_s(short), play.placed_s(late)), (Some(110), None));
    play.go_to(300);
    assert_eq!((play.placed_s(gang), play.placed_s(late)), (Some(205), Some(255)));
}

#[test]
fn dry_runs_and_plans_that_were_told_of_respect_holds() {
    let (mut play, gang) = gang_behind_two(ON);
    play.go_to(110);
    let call = play.term.submission(1, 1);
    let dry = |play: &mut Play, spec: &JobSpec| {
        let found = play.term.office.dry_plan(&mut play.term.desk, &call.tenant, spec);
        found.expect("is a tenant")
    };
    assert_eq!(dry(&mut play, &call.spec), None);
    let short = JobSpec { duration: Some(DurationMs(SECOND)), ..(*call.spec).clone() };
    let plan = dry(&mut play, &short).expect("slips in");
    let index = play.term.office.view().index();
    play.term.remember(&call, 0, plan.into());
    let check = Some(Check { index, digest: None });
    let meant = Submission { spec: Arc::new(short), check, ..call.clone() };
    let meant = play.term.ask_for(meant);
    play.settle();
    assert!(play.term.accepted(meant).placed);
    play.go_to(210);
    assert_eq!(play.placed_s(gang), Some(205));
}

#[test]
fn a_promise_moves_up_when_work_ends_early_and_back_when_a_node_is_lost() {
    let mut play = Play::new(3, ON);
    let long: Vec<JobId> = [100, 200, 300].into_iter().map(|s| play.job(1, 8, s)).collect();
    let gang = play.job(2, 8, 50);
    play.go_to(20);
    assert_eq!(play.promise_s(gang), Some(205));
    play.term.cancel(long[1]);
    play.go_to(60);
    assert_eq!(play.promise_s(gang), Some(105));
    play.term.down(0);
    play.go_to(64);
    assert_eq!(play.promise_s(gang), Some(305), "{}", play.message(gang));
    play.go_to(310);
    assert_eq!(play.placed_s(gang), Some(305));
}

#[test]
fn where_no_end_is_known_or_the_tenant_may_not_have_it_nothing_is_held() {
    let mut play = Play::new(2, ON);
    let endless = play.job(1, 8, 0);
    play.job(1, 8, 1_000);
    let gang = play.job(2, 8, 50);
    let too_large = play.job(3, 8, 50);
    play.go_to(100);
    assert!(play.term.office.holds.is_empty());
    assert_eq!(play.term.office.next_at(play.term.desk.now), None, "there is nothing to look for");
    assert_eq!(play.term.reason(too_large), ReasonCode::NeverFits);
    // Ten GPUs more than it holds already are too many for its tenant.
    let (tenant, quota) = (tenant(TENANT), quota(26_000, 10));
    play.term.apply(Command::PutTenant(PutTenant { tenant, quota })).expect("is known");
    let next = play.job(2, 8, 50);
    play.term.cancel(endless);
    let endless = play.job(1, 8, 2_000);
    play.go_to(300);
    assert!(play.placed_s(endless).is_some() && play.term.office.holds.is_empty());
    assert_eq!(play.term.reason(gang), ReasonCode::Quota);
    assert_eq!(play.term.reason(next), ReasonCode::Quota);
}

#[test]
fn a_tenant_has_few_reservations_and_a_job_that_goes_gives_its_own_up() {
    let mut play = Play::new(2, ON);
    play.job(2, 8, 1_000);
    let jobs: Vec<JobId> = (0..4).map(|_| play.job(1, 8, 50)).collect();
    play.go_to(100);
    let promised = |play: &Play| jobs.iter().map(|&job| play.promise_s(job)).collect::<Vec<_>>();
    assert_eq!(promised(&play), [Some(1_005), Some(1_005), None, None]);
    play.term.cancel(jobs[0]);
    play.go_to(200);
    assert_eq!(promised(&play), [None, Some(1_005), Some(1_005), None]);
    // One that goes before them takes the place of the last of them.
    let high = play.job_of(5, 1, 8, 50);
    play.go_to(300);
    assert_eq!(promised(&play), [None, Some(1_005), None, None]);
    assert_eq!(play.promise_s(high), Some(1_005));
    let others = [5, 4].map(|priority| play.job_of(priority, 1, 8, 50));
    play.go_to(400);
    assert_eq!(others.map(|job| play.promise_s(job).is_some()), [true, false]);
    assert_eq!(play.term.office.view().claims_len(), 2);
}

#[test]
fn a_repair_goes_before_reservations() {
    let mut play = Play::new(3, ON);
    let broken = play.job(2, 8, 1_000);
    play.job(1, 4, 100);
    let gang = play.job(1, 8, 50);
    play.go_to(20);
    assert_eq!(play.promise_s(gang), Some(105));
    play.go_to(104);
    // Its only way to live on is the node that the gang was promised.
    let node = play.term.desk.world.state.replica(broken, crate::id::Rank(0));
    let node = node.and_then(|replica| replica.allocation).expect("runs").node;
    play.term.down(node.0);
    play.go_to(110);
    assert_eq!(play.term.desk.world.state.waiting().collect::<Vec<_>>(), [gang]);
    assert!(play.promise_s(gang) > Some(1_000));
}

#[test]
fn a_higher_priority_goes_before_reservations_and_takes_their_places() {
    let (mut play, gang) = gang_behind_two(Reserve { most: 1, ..ON });
    play.go_to(110);
    assert_eq!(play.promise_s(gang), Some(205));
    // What is held for the gang is not in the way of who goes before it, be it new or waiting.
    let small = play.job_of(1, 1, 8, 500);
    assert_eq!(play.placed_s(small), Some(110));
    play.go_to(120);
    assert!(play.promise_s(gang) >= Some(610), "{}", play.message(gang));
    let larger = play.job_of(1, 2, 8, 50);
    let less = play.job_of(-1, 1, 8, 20);
    play.go_to(140);
    assert!(play.promise_s(larger).is_some() && play.promise_s(gang).is_none());
    play.go_to(900);
    let placed = [larger, gang].map(|job| play.placed_s(job));
    assert_eq!(placed, [Some(610), Some(660)]);
    assert!(play.placed_s(less) < Some(610), "slips in");
    assert_eq!(play.term.office.view().claims_len(), 0);
}

#[test]
fn a_job_sleeps_until_it_is_to_begin_and_ends_by_its_deadline() {
    let mut play = Play::new(1, ON);
    let times = |play: &Play, begin_s: u64, deadline_s: u64| {
        let mut call = play.term.submission(1, 8);
        let at = |s: u64| (s > 0).then(|| play.origin.after(DurationMs(s * SECOND)));
        let (begin, deadline) = (at(begin_s), at(deadline_s));
        call.spec = Arc::new(JobSpec { begin, deadline, ..(*call.spec).clone() });
        call
    };
    let call = times(&play, 400, 450);
    let late = play.term.ask_for(call);
    play.settle();
    let late = play.term.accepted(late).job;
    assert_eq!(
        (play.term.reason(late), play.term.phase(late)),
        (ReasonCode::Begin, JobPhase::Pending)
    );
    assert!(play.message(late).starts_with("begins at 19"), "{}", play.message(late));
    play.term.desk.plans = 0;
    play.job(1, 8, 100);
    let missed = times(&play, 0, 60);
    let missed = play.term.ask_for(missed);
    play.go_to(50);
    let missed = play.term.accepted(missed).job;
    assert_eq!(play.term.phase(missed), JobPhase::Pending);
    play.go_to(61);
    let failed = (JobPhase::Failed, ReasonCode::Deadline);
    assert_eq!((play.term.phase(missed), play.term.reason(missed)), failed);
    play.go_to(399);
    assert_eq!((play.placed_s(late), play.term.desk.plans), (None, 2), "nothing is tried for it");
    play.go_to(449);
    assert_eq!((play.placed_s(late), play.term.phase(late)), (Some(400), JobPhase::Ready));
    // What waits behind it is promised its deadline, which is known as a duration would be.
    let next = play.job(1, 8, 0);
    play.go_to(451);
    assert_eq!(play.term.phase(late), JobPhase::Expired);
    assert_eq!(play.placed_s(next), Some(450));
}

#[test]
fn of_those_that_wait_the_highest_priority_gets_what_grows() {
    let mut play = Play::new(1, Reserve::NOBODY);
    let first = play.job(1, 8, 0);
    let low: Vec<JobId> = (0..20).map(|_| play.job_of(-1, 1, 8, 0)).collect();
    let usual = play.job(1, 8, 0);
    let high = play.job_of(3, 1, 8, 0);
    for (at, (gone, next)) in
        [(first, high), (high, usual), (usual, low[0]), (low[0], low[1])].into_iter().enumerate()
    {
        play.go_to(20 + 20 * at as u64);
        play.term.cancel(gone);
        // Whatever pauses it has from tries in vain.
        play.settle();
        play.go_to(30 + 20 * at as u64);
        assert!(play.placed_s(next).is_some(), "{next}");
    }
    assert_eq!(play.placed.len(), 5);
}

/// Streams of jobs with and without durations, some ending early: whoever was promised a time is
/// placed by the first one promised, and in the end everybody is.
#[test]
fn promises_are_kept_whatever_comes() {
    let mut promises = 0;
    for seed in 0..40u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = rng.random_range(2..7);
        let most = rng.random_range(1..5);
        let mut play = Play::new(nodes, Reserve { after: AFTER, most });
        play.bring_up = DurationMs(rng.random_range(0..=BRING_UP.0));
        let mut mortal = Vec::new();
        for _ in 0..60 {
            let next = play.term.desk.now.after(DurationMs(rng.random_range(0..30 * SECOND)));
            play.until(next);
            let gang = rng.random_ratio(1, 5);
            let widest = if gang { u32::try_from(nodes).expect("few") } else { 1 };
            let (replicas, gpus) = (rng.random_range(1..=widest), rng.random_range(1..=8));
            let duration_s = if rng.random_ratio(1, 6) { 0 } else { rng.random_range(1..600) };
            let job = play.job(replicas, gpus, duration_s);
            if duration_s == 0 || rng.random_ratio(1, 3) {
                mortal.push(job);
            }
            if rng.random_ratio(1, 3) && !mortal.is_empty() {
                let job = mortal.swap_remove(rng.random_range(0..mortal.len()));
                let runs = play.term.phase(job) == JobPhase::Ready;
                if runs { play.term.cancel(job) } else { mortal.push(job) }
            }
        }
        for _ in 0..200 {
            let next = play.term.desk.now.after(DurationMs(300 * SECOND));
            play.until(next);
            for job in std::mem::take(&mut mortal) {
                match play.term.phase(job) {
                    JobPhase::Ready => play.term.cancel(job),
                    phase if phase.is_over() => {}
                    _ => mortal.push(job),
                }
            }
        }
        play.assert_promises_kept(&format!("seed {seed}"));
        assert_eq!(play.term.desk.world.state.waiting().count(), 0, "seed {seed}");
        assert_eq!(play.term.office.view().claims_len(), 0, "seed {seed}");
        promises += play.promised.len();
    }
    assert!(promises > 100, "only {promises} promises were made");
}
