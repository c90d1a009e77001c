//! Specs found not to fit since capacity last grew: equal jobs need not be tried.
//!
//! **Invariant:** only of specs for which less room is never better, so that what did not fit does
//! not fit before something grew.

use super::holds::Lifted;
use crate::hash::Hasher;
use crate::job::{GroupRules, JobSpec, Reason};
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

/// Specs remembered: about a megabyte; more kinds than wait at a time anywhere.
const SPECS_MAX: usize = 1_024;

/// Specs found not to fit, and why.
#[derive(Debug, Default)]
pub(super) struct Hopeless {
    /// By hash of what a plan depends on and of the holds that were lifted.
    specs: BTreeMap<u128, (Arc<JobSpec>, Reason)>,
}

impl Hopeless {
    /// Why a job like this one does not fit, if that is known.
    pub(super) fn why(&self, spec: &JobSpec, lifted: Lifted) -> Option<&Reason> {
        if self.specs.is_empty() {
            return None;
        }
        let (known, why) = self.specs.get(&hash(spec, lifted))?;
        (essence(known) == essence(spec)).then_some(why)
    }

    /// A plan for all replicas of such a job was looked for and not found.
    pub(super) fn note(&mut self, spec: &Arc<JobSpec>, lifted: Lifted, why: &Reason) {
        if self.specs.len() < SPECS_MAX && is_simple(spec) {
            self.specs.insert(hash(spec, lifted), (Arc::clone(spec), why.clone()));
        }
    }

    /// Something grew.
    pub(super) fn clear(&mut self) {
        self.specs.clear();
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
    let JobSpec { labels, affinities, .. } = spec;
    // Without a bound on the cost, how long it runs decides nothing but which holds are lifted.
    let duration = duration.filter(|_| cost_max.is_some());
    let places = (kind, groups, strategy, topology_required, topology_preferred);
    let bounds = (rtt_max, rtt_scope, rtt_objective, duration, price_max, cost_max);
    (places, bounds, labels, affinities)
}

fn hash(spec: &JobSpec, lifted: Lifted) -> u128 {
    let mut hasher = Hasher::new();
    (essence(spec), lifted).hash(&mut hasher);
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
        assert_eq!(hopeless.why(&spec, NONE), None);
        hopeless.note(&spec, NONE, &why);
        let renamed = JobSpec { name: name("other"), ..(*spec).clone() };
        assert_eq!(hopeless.why(&renamed, NONE), Some(&why));
        let smaller = job_spec(vec![group("w", 2, 7)]);
        let nearer = JobSpec { rtt_max: Some(crate::unit::RttUs(1)), ..(*spec).clone() };
        assert_eq!((hopeless.why(&smaller, NONE), hopeless.why(&nearer, NONE)), (None, None));
        assert_eq!(hopeless.why(&renamed, Lifted::ALL), None, "more is free for it");
        hopeless.clear();
        assert_eq!(hopeless.why(&spec, NONE), None);
    }

    #[test]
    fn jobs_with_rules_are_tried_again_and_the_number_of_others_is_bounded() {
        let mut hopeless = Hopeless::default();
        let ruled = Arc::new(full_job());
        hopeless.note(&ruled, NONE, &Reason::default());
        assert_eq!(hopeless.why(&ruled, NONE), None);
        for replicas in 1..2 * u32::try_from(SPECS_MAX).expect("fits") {
            let spec = job_spec(vec![group("w", replicas, 1)]);
            hopeless.note(&Arc::new(spec), NONE, &Reason::default());
        }
        assert_eq!(hopeless.specs.len(), SPECS_MAX);
    }
}
