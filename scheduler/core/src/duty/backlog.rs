//! Jobs that wait for capacity or repair: which to try next, the highest priority first, then the
//! oldest, with back-off.
//!
//! **Invariant:** a job that was tried in vain is not tried again before something grew and its
//! pause is over; so a stuck gang costs little, and a sweep that is cut short goes on where it
//! stopped, so that nobody starves behind it. Who comes new and belongs before where it stands is
//! tried in turn with it: lost members of a running gang do not wait for a long queue to be walked.
//! A few at the head of the queue do not sit their pauses out where others would go before them
//! meanwhile.

use super::office::Kind;
use crate::id::JobId;
use crate::job::{JobSpec, Priority};
use crate::unit::{DurationMs, TimeMs};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Pause after the first vain try; doubles with every further one.
const PAUSE_MIN: DurationMs = DurationMs(10);
/// Longest pause: how late a job may notice capacity after many vain tries.
const PAUSE_MAX: DurationMs = DurationMs(2_000);

/// Jobs looked at in one go: some 100 us, then new jobs have their turn.
const LOOKS_MAX: usize = 4_096;

/// Jobs in one sweep that are tried before their pause is over, as they go before others: as many
/// vain tries as a round has time for.
const EAGER_MAX: usize = 8;

/// Place in the queue: the highest priority first, then the oldest.
type Place = (Reverse<Priority>, JobId);

/// One waiting job.
#[derive(Clone, Debug)]
struct Wait {
    priority: Priority,
    /// Growth that the last vain try knew of; `None` = never tried.
    tried: Option<u64>,
    not_before: TimeMs,
    pause: DurationMs,
    /// Nothing wakes it before.
    sleeps_until: TimeMs,
    /// A commit for it is under way.
    in_flight: bool,
    /// When its reason was last told to the state.
    told: Option<TimeMs>,
    /// It gets no reservation before.
    reserve_not_before: TimeMs,
    /// The kind that it was found to be of, as of this spec.
    kind: Option<(Arc<JobSpec>, Option<Kind>)>,
}

/// All waiting jobs.
#[derive(Debug, Default)]
pub struct Backlog {
    jobs: BTreeMap<JobId, Wait>,
    /// All of them in the order in which they are tried.
    order: BTreeSet<Place>,
    /// Counts up whenever capacity may have grown.
    growth: u64,
    /// The running sweep.
    sweep: Option<Sweep>,
    /// Jobs that came new before where the running sweep stands.
    passed: BTreeSet<Place>,
    /// One of those was the last to be tried: now it is the sweep's turn.
    took_passed: bool,
    /// Another sweep follows the running one: jobs it has passed may fit now.
    one_more: bool,
    /// When a sweep is due because a pause ends.
    again: Option<TimeMs>,
}

/// A walk over all jobs in their order.
#[derive(Clone, Copy, Debug, Default)]
struct Sweep {
    /// The last one looked at; `None` = it begins.
    last: Option<Place>,
    /// Jobs tried though their pause is not over.
    eager: usize,
}

impl Backlog {
    /// A job waits; known ones keep their pause.
    pub fn add(&mut self, job: JobId, priority: Priority, now: TimeMs) {
        if self.insert((job, priority), None, now) {
            self.start_sweep();
        }
    }

    /// Whether the job is new here.
    fn insert(
        &mut self,
        (job, priority): (JobId, Priority),
        tried: Option<u64>,
        now: TimeMs,
    ) -> bool {
        let told = tried.map(|_| now);
        let fresh = Wait {
            priority,
            tried,
            not_before: now,
            pause: PAUSE_MIN,
            sleeps_until: TimeMs::ZERO,
            in_flight: false,
            told,
            reserve_not_before: TimeMs::ZERO,
            kind: None,
        };
        let known = self.jobs.contains_key(&job);
        if !known {
            let place = (Reverse(priority), job);
            self.jobs.insert(job, fresh);
            self.order.insert(place);
            let stands = self.sweep.and_then(|sweep| sweep.last);
            if tried.is_none() && stands.is_some_and(|last| place < last) {
                self.passed.insert(place);
            }
        }
        !known
    }

    /// A job waits that was just now found not to fit, as of `growth`.
    pub fn add_tried(&mut self, job: JobId, priority: Priority, growth: u64, now: TimeMs) {
        let is_new = self.insert((job, priority), Some(growth), now);
        if is_new && growth != self.growth {
            self.start_sweep();
        } else if let Some(wait) = self.jobs.get_mut(&job) {
            // The state has told of it before the batch came back.
            wait.tried = wait.tried.max(Some(growth));
            wait.told = Some(now);
        }
    }

    /// Capacity may have grown.
    pub fn grew(&mut self) {
        self.growth += 1;
        if !self.jobs.is_empty() {
            self.start_sweep();
        }
    }

    /// Number of the latest growth.
    pub fn growth(&self) -> u64 {
        self.growth
    }

    fn start_sweep(&mut self) {
        // A running sweep is not cut short, or jobs far behind would never have their turn.
        match self.sweep {
            None => self.sweep = Some(Sweep::default()),
            Some(_) => self.one_more = true,
        }
    }

    /// The next job to try. None may mean that there are more to look at: [`Backlog::next_at`]
    /// tells.
    pub fn next(&mut self, now: TimeMs) -> Option<JobId> {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.start_sweep();
        }
        if let Some(job) = self.next_passed() {
            return Some(job);
        }
        let mut sweep = self.sweep?;
        let lowest = self.order.last().map_or(Priority::default(), |(Reverse(lowest), _)| *lowest);
        let from = sweep.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = None;
        for (looked, &place) in self.order.range((from, Bound::Unbounded)).enumerate() {
            if found.is_some() || looked == LOOKS_MAX {
                self.sweep = Some(sweep);
                return found;
            }
            sweep.last = Some(place);
            let (Reverse(priority), job) = place;
            let Some(wait) = self.jobs.get(&job) else { continue };
            if wait.in_flight || wait.tried == Some(self.growth) {
                continue;
            }
            let not_before = wait.not_before.max(wait.sleeps_until);
            if not_before > now {
                self.again = Some(self.again.map_or(not_before, |again| again.min(not_before)));
                if wait.sleeps_until > now {
                    continue;
                }
                // Others wait behind it, or come new, who would take what it waits for.
                if priority <= lowest.min(Priority::default()) || sweep.eager == EAGER_MAX {
                    continue;
                }
                sweep.eager += 1;
            }
            found = Some(job);
        }
        self.sweep = std::mem::take(&mut self.one_more).then(Sweep::default);
        self.passed.clear();
        found
    }

    /// The next of those that the sweep has passed; every other time, so that the sweep goes on.
    fn next_passed(&mut self) -> Option<JobId> {
        if std::mem::take(&mut self.took_passed) {
            return None;
        }
        while let Some((_, job)) = self.passed.pop_first() {
            if self.jobs.get(&job).is_some_and(|wait| wait.tried.is_none() && !wait.in_flight) {
                self.took_passed = true;
                return Some(job);
            }
        }
        None
    }

    /// When [`Backlog::next`] may have something without further news.
    pub fn next_at(&self, now: TimeMs) -> Option<TimeMs> {
        if self.sweep.is_some() { Some(now) } else { self.again }
    }

    /// The job did not fit.
    pub fn in_vain(&mut self, job: JobId, now: TimeMs) {
        let growth = self.growth;
        if let Some(wait) = self.jobs.get_mut(&job) {
            wait.tried = Some(growth);
            wait.not_before = now.after(wait.pause);
            wait.pause = DurationMs(wait.pause.0 * 2).min(PAUSE_MAX);
        }
    }

    /// The job is not to be tried before this time, whatever happens.
    pub fn sleep(&mut self, job: JobId, until: TimeMs) {
        if let Some(wait) = self.jobs.get_mut(&job) {
            wait.sleeps_until = until;
            self.again = Some(self.again.map_or(until, |again| again.min(until)));
        }
    }

    /// A commit for the job is under way.
    pub fn sent(&mut self, job: JobId) {
        if let Some(wait) = self.jobs.get_mut(&job) {
            wait.in_flight = true;
        }
    }

    /// The commit came back. `settled`: look at the job again soon, it is probably done; else its
    /// plan was stale, and it pauses.
    pub fn came_back(&mut self, job: JobId, settled: bool, now: TimeMs) {
        if !settled {
            self.in_vain(job, now);
        }
        if let Some(wait) = self.jobs.get_mut(&job) {
            wait.in_flight = false;
            wait.tried = None;
            self.again = Some(self.again.map_or(wait.not_before, |a| a.min(wait.not_before)));
        }
    }

    /// The kind that the job is of, which is only looked for where its spec is another one.
    pub fn kind(
        &mut self,
        job: JobId,
        spec: &Arc<JobSpec>,
        find: impl FnOnce() -> Option<Kind>,
    ) -> Option<Kind> {
        let Some(wait) = self.jobs.get_mut(&job) else { return find() };
        match &wait.kind {
            Some((known, kind)) if Arc::ptr_eq(known, spec) => *kind,
            _ => wait.kind.insert((Arc::clone(spec), find())).1,
        }
    }

    /// Whether the job's reason `is_news` and was not told for `every`; if so, it counts as told now.
    pub fn tell(
        &mut self,
        job: JobId,
        every: DurationMs,
        now: TimeMs,
        is_news: impl FnOnce() -> bool,
    ) -> bool {
        let Some(wait) = self.jobs.get_mut(&job) else { return false };
        let tells = wait.told.is_none_or(|told| now.since(told) >= every) && is_news();
        if tells {
            wait.told = Some(now);
        }
        tells
    }

    /// The job is tried again now, though nothing grew, and its reason is told whenever it was told
    /// last.
    pub fn tell_anew(&mut self, job: JobId, now: TimeMs) {
        self.hurry(job, now);
        if let Some(wait) = self.jobs.get_mut(&job) {
            (wait.tried, wait.told) = (None, None);
            self.start_sweep();
        }
    }

    /// The job is tried again then, though nothing grew.
    pub fn try_again(&mut self, job: JobId, at: TimeMs) {
        if let Some(wait) = self.jobs.get_mut(&job) {
            (wait.tried, wait.not_before) = (None, at);
            self.again = Some(self.again.map_or(at, |again| again.min(at)));
        }
    }

    /// The job's next try need not wait for its pause to end.
    pub fn hurry(&mut self, job: JobId, now: TimeMs) {
        if let Some(wait) = self.jobs.get_mut(&job) {
            (wait.not_before, wait.pause) = (now, PAUSE_MIN);
        }
    }

    /// Jobs of which no commit is under way, in their order, each with the time before which it gets
    /// no reservation.
    pub fn in_order(&self) -> impl Iterator<Item = (JobId, TimeMs)> {
        let all = self.order.iter().filter_map(|(_, job)| Some((*job, self.jobs.get(job)?)));
        let idle = all.filter(|(_, wait)| !wait.in_flight);
        idle.map(|(job, wait)| (job, wait.reserve_not_before))
    }

    /// The job gets no reservation before this time.
    pub fn reserve_later(&mut self, job: JobId, at: TimeMs) {
        if let Some(wait) = self.jobs.get_mut(&job) {
            wait.reserve_not_before = at;
        }
    }

    /// Priority of the first job in the queue.
    pub fn highest(&self) -> Option<Priority> {
        self.order.first().map(|(Reverse(highest), _)| *highest)
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The job waits no more.
    pub fn remove(&mut self, job: JobId) {
        if let Some(wait) = self.jobs.remove(&job) {
            self.order.remove(&(Reverse(wait.priority), job));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Priority = Priority(0);

    fn ids(numbers: &[u64]) -> Vec<JobId> {
        numbers.iter().map(|&number| JobId(number)).collect()
    }

    /// The next jobs to try, at most so many.
    fn due(backlog: &mut Backlog, limit: usize, now: TimeMs) -> Vec<JobId> {
        (0..limit).map_while(|_| backlog.next(now)).collect()
    }

    #[test]
    fn oldest_first_and_not_again_until_something_grew_and_the_pause_is_over() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        for job in [3, 1, 2] {
            backlog.add(JobId(job), USUAL, now);
        }
        assert_eq!(due(&mut backlog, 2, now), ids(&[1, 2]));
        assert_eq!(due(&mut backlog, 1, now), ids(&[3]));
        (1..=3).for_each(|job| backlog.in_vain(JobId(job), now));
        assert_eq!((due(&mut backlog, 9, now), backlog.next_at(now)), (vec![], None));
        backlog.grew();
        assert_eq!(due(&mut backlog, 9, now), vec![]);
        let again = backlog.next_at(now).expect("a pause ends");
        assert_eq!(again, now.after(PAUSE_MIN));
        assert_eq!(due(&mut backlog, 9, again), ids(&[1, 2, 3]));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        backlog.add(JobId(1), USUAL, now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert_eq!(due(&mut backlog, 1, now), ids(&[1]));
            backlog.in_vain(JobId(1), now);
            backlog.grew();
            assert_eq!(due(&mut backlog, 1, now), vec![]);
            let again = backlog.next_at(now).expect("a pause ends");
            pauses.push(again.since(now));
            now = again;
        }
        assert_eq!((pauses[0], pauses[11]), (PAUSE_MIN, PAUSE_MAX));
        assert!(pauses.is_sorted());
    }

    #[test]
    fn a_job_under_way_is_left_alone_and_looked_at_once_it_is_back() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        backlog.add(JobId(1), USUAL, now);
        assert_eq!(due(&mut backlog, 1, now), ids(&[1]));
        backlog.sent(JobId(1));
        backlog.grew();
        assert_eq!(due(&mut backlog, 1, now), vec![]);
        backlog.came_back(JobId(1), true, now);
        assert_eq!(due(&mut backlog, 1, now), ids(&[1]));
        backlog.remove(JobId(1));
        backlog.grew();
        assert_eq!((due(&mut backlog, 1, now), backlog.next_at(now)), (vec![], None));
    }

    #[test]
    fn growth_does_not_keep_a_sweep_from_its_end() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        (0..3 * LOOKS_MAX as u64).for_each(|job| backlog.add(JobId(job), USUAL, now));
        let mut seen = Vec::new();
        while seen.len() < 3 * LOOKS_MAX {
            for job in due(&mut backlog, 100, now) {
                backlog.in_vain(job, now);
                seen.push(job);
            }
            backlog.grew();
            assert_eq!(backlog.next_at(now), Some(now));
        }
        assert!(seen.is_sorted(), "oldest first, each once");
    }

    #[test]
    fn a_job_found_not_to_fit_waits_for_growth() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        backlog.add_tried(JobId(1), USUAL, backlog.growth(), now);
        assert_eq!(due(&mut backlog, 1, now), vec![]);
        backlog.add_tried(JobId(2), USUAL, 0, now);
        backlog.grew();
        assert_eq!(due(&mut backlog, 5, now), ids(&[1, 2]));
    }

    #[test]
    fn a_job_that_is_to_be_told_anew_is_tried_though_nothing_grew() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        backlog.add_tried(JobId(1), USUAL, backlog.growth(), now);
        assert_eq!(due(&mut backlog, 1, now), vec![]);
        assert!(!backlog.tell(JobId(1), DurationMs(5_000), now, || true));
        backlog.tell_anew(JobId(1), now);
        assert_eq!(due(&mut backlog, 1, now), ids(&[1]));
        assert!(backlog.tell(JobId(1), DurationMs(5_000), now, || true));
    }

    #[test]
    fn higher_priorities_go_first_then_older_ones_and_a_sweep_goes_on_where_it_stopped() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        for (job, priority) in [(1, -5), (2, 0), (3, 700), (4, 0), (5, 700)] {
            backlog.add(JobId(job), Priority(priority), now);
        }
        assert_eq!(due(&mut backlog, 3, now), ids(&[3, 5, 2]));
        backlog.in_vain(JobId(3), now);
        for job in [6, 7] {
            backlog.add(JobId(job), Priority(1_000), now);
        }
        let next = due(&mut backlog, 3, now);
        assert_eq!(next, ids(&[6, 4, 7]), "who comes is tried, and nobody starves behind them");
        [5, 2, 6, 4, 7].into_iter().for_each(|job| backlog.in_vain(JobId(job), now));
        assert_eq!(due(&mut backlog, 1, now), ids(&[1]));
        backlog.in_vain(JobId(1), now);
        assert_eq!(due(&mut backlog, 9, now), [], "nobody is tried twice");
        backlog.remove(JobId(7));
        let order: Vec<JobId> = backlog.in_order().map(|(job, _)| job).collect();
        assert_eq!(order, ids(&[6, 3, 5, 2, 4, 1]));
        backlog.remove(JobId(3));
        assert_eq!(backlog.in_order().count(), 5);
    }

    #[test]
    fn who_goes_before_others_does_not_sit_a_pause_out_while_they_take_what_grows() {
        let now = TimeMs(1_000);
        let mut backlog = Backlog::default();
        backlog.add(JobId(1), USUAL, now);
        (2..2 + 2 * EAGER_MAX as u64).for_each(|job| backlog.add(JobId(job), Priority(1), now));
        let all = due(&mut backlog, 1 + 2 * EAGER_MAX, now);
        all.iter().for_each(|&job| backlog.in_vain(job, now));
        assert_eq!(due(&mut backlog, 99, now), [], "nothing grew");
        for _ in 0..3 {
            backlog.grew();
            let eager = due(&mut backlog, 99, now);
            assert_eq!(eager, all[..EAGER_MAX], "the first few, and none that goes before nobody");
            eager.iter().for_each(|&job| backlog.in_vain(job, now));
            assert_eq!(due(&mut backlog, 99, now), [], "once for each growth");
        }
    }
}
