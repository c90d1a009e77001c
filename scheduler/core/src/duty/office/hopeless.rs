//! Specs found not to fit since capacity last grew: equal jobs need not be tried.
//!
//! Thousands of waiting jobs are asked after whenever something grows, so each learns once of which
//! kind it is: a number for all specs that a plan cannot tell apart.
//! **Invariant:** only of specs for which less room is never better, so that what did not fit does
//! not fit before something grew.

use super::holds::Lifted;
use crate::hash::Hasher;
use crate::job::{GroupRules, JobSpec, Reason};
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

/// Kinds found not to fit that are remembered: more than wait at a time anywhere.
const HOPELESS_MAX: usize = 1_024;
/// Kinds remembered: about four megabytes.
const KINDS_MAX: usize = 4_096;

/// What all specs have in common that a plan cannot tell apart. No number is given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kind(u64);

/// Kinds found not to fit, and why.
#[derive(Debug, Default)]
pub(super) struct Hopeless {
    /// By the holds that were lifted, too.
    why: BTreeMap<(Kind, Lifted), Reason>,
    /// With a spec of the kind, by hash of what a plan depends on.
    kinds: BTreeMap<u128, (Kind, Arc<JobSpec>)>,
    next: u64,
}

impl Hopeless {
    /// The spec's kind, if it is one that may be found hopeless.
    pub(super) fn kind(&mut self, spec: &Arc<JobSpec>) -> Option<Kind> {
        if !is_simple(spec) {
            return None;
        }
        let hash = hash(spec);
        if let Some((kind, known)) = self.kinds.get(&hash) {
            return (essence(known) == essence(spec)).then_some(*kind);
        }
        if self.kinds.len() == KINDS_MAX {
            self.kinds.clear();
            self.why.clear();
        }
        let kind = Kind(self.next);
        self.next += 1;
        self.kinds.insert(hash, (kind, Arc::clone(spec)));
        Some(kind)
    }

    /// As [`Hopeless::kind`], for one look; nothing is found out while nothing is hopeless.
    pub(super) fn known(&self, spec: &JobSpec) -> Option<Kind> {
        if self.why.is_empty() {
            return None;
        }
        let (kind, known) = self.kinds.get(&hash(spec))?;
        (essence(known) == essence(spec)).then_some(*kind)
    }

    /// Why jobs of the kind do not fit, if that is known.
    pub(super) fn why(&self, kind: Kind, lifted: Lifted) -> Option<&Reason> {
        self.why.get(&(kind, lifted))
    }

    /// A plan for all replicas of such a job was looked for and not found.
    pub(super) fn note(&mut self, kind: Kind, lifted: Lifted, why: &Reason) {
        if self.why.len() < HOPELESS_MAX {
            self.why.insert((kind, lifted), why.clone());
        }
    }

    /// Something grew.
    pub(super) fn clear(&mut self) {
        self.why.clear();
    }
}

/// Whether less room is never better. Not where members keep a balance among domains, which may
/// come about by losing one; nor where other jobs matter.
fn is_simple(spec: &JobSpec) -> bool {
    let is_free = |rules: &GroupRules| *rules == GroupRules::default();
    let ruled = spec.looks_around() || !spec.affinities.is_empty();
    !ruled && spec.groups.iter().all(|group| is_free(&group.rules))
}

/// All of the spec that a plan may depend on.
fn essence(spec: &JobSpec) -> impl Hash + PartialEq + '_ {
    let JobSpec { kind, groups, strategy, topology_required, topology_preferred, .. } = spec;
    let JobSpec { rtt_max, rtt_scope, rtt_objective, duration, price_max, cost_max, .. } = spec;
    let JobSpec { hourly_max, domains_max, labels, affinities, .. } = spec;
    // Without a bound on the cost, how long it runs decides nothing but which holds are lifted.
    let duration = duration.filter(|_| cost_max.is_some());
    let places = (kind, groups, strategy, topology_required, topology_preferred);
    let bounds =
        (rtt_max, rtt_scope, rtt_objective, duration, price_max, cost_max, hourly_max, domains_max);
    (places, bounds, labels, affinities)
}

fn hash(spec: &JobSpec) -> u128 {
    let mut hasher = Hasher::new();
    essence(spec).hash(&mut hasher);
    hasher.finish128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{full_job, group, job_spec, name};

    const NONE: Lifted = Lifted::NONE;

    #[test]
    fn equal_jobs_are_told_by_all_that_a_plan_depends_on() {
        let spec = Arc::new(job_spec(vec![group("w", 2, 8)]));
        let why = Reason { message: "full".into(), ..Reason::default() };
        let mut hopeless = Hopeless::default();
        let kind = hopeless.kind(&spec).expect("simple");
        assert_eq!((hopeless.why(kind, NONE), hopeless.known(&spec)), (None, None));
        hopeless.note(kind, NONE, &why);
        let renamed = Arc::new(JobSpec { name: name("other"), ..(*spec).clone() });
        assert_eq!((hopeless.kind(&renamed), hopeless.known(&renamed)), (Some(kind), Some(kind)));
        assert_eq!(hopeless.why(kind, NONE), Some(&why));
        assert_eq!(hopeless.why(kind, Lifted::ALL), None, "more is free for it");
        let smaller = job_spec(vec![group("w", 2, 7)]);
        let nearer = JobSpec { rtt_max: Some(crate::unit::RttUs(1)), ..(*spec).clone() };
        for other in [smaller, nearer] {
            assert_eq!(hopeless.known(&other), None);
            assert_ne!(hopeless.kind(&Arc::new(other)), Some(kind));
        }
        hopeless.clear();
        assert_eq!(hopeless.why(kind, NONE), None);
        assert_eq!(hopeless.kind(&spec), Some(kind), "kinds outlast growth");
    }

    #[test]
    fn jobs_with_rules_are_tried_again_and_what_is_remembered_is_bounded() {
        let mut hopeless = Hopeless::default();
        assert_eq!(hopeless.kind(&Arc::new(full_job())), None);
        let first = Arc::new(job_spec(vec![group("w", 1, 1)]));
        let kind = hopeless.kind(&first);
        for replicas in 1..2 * u32::try_from(HOPELESS_MAX).expect("fits") {
            let spec = Arc::new(job_spec(vec![group("w", replicas, 1)]));
            let kind = hopeless.kind(&spec).expect("simple");
            hopeless.note(kind, NONE, &Reason::default());
        }
        assert_eq!(hopeless.why.len(), HOPELESS_MAX);
        for replicas in 1..=u32::try_from(KINDS_MAX).expect("fits") + 1 {
            hopeless.kind(&Arc::new(job_spec(vec![group("w", replicas, 2)])));
            assert!(hopeless.kinds.len() <= KINDS_MAX);
        }
        assert_ne!(hopeless.kind(&first), kind, "forgotten, and no number is given twice");
    }
}
