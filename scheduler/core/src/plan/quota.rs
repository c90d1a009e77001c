//! Quota: how many replicas a bound on the GPUs of the whole request leaves to each group.
//!
//! **Invariant:** no group is left fewer than its minimum: who asks for a plan sees to it that the
//! least of the request keeps the bound.

use super::{Ranks, Request};
use crate::job::JobSpec;

/// What a group asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Want {
    replicas: u32,
    /// At least so many of them, or none of the request.
    min: u32,
    /// Thousandths of GPUs of each.
    gpu_milli: u64,
}

impl Want {
    fn milli(&self, replicas: u32) -> u64 {
        self.gpu_milli.saturating_mul(replicas.into())
    }
}

impl Request<'_> {
    /// By group of the spec.
    fn wants(&self) -> Vec<Want> {
        let spec = self.spec;
        let mut wants: Vec<Want> = spec
            .groups
            .iter()
            .map(|group| Want {
                replicas: group.replicas,
                min: group.replicas_min,
                gpu_milli: group.shape.gpu_milli(),
            })
            .collect();
        if let Ranks::Some(ranks) = self.ranks {
            let starts = spec.group_starts();
            wants.iter_mut().for_each(|want| want.replicas = 0);
            for &rank in ranks {
                let at = JobSpec::group_within(&starts, rank);
                at.and_then(|at| wants.get_mut(at)).into_iter().for_each(|one| one.replicas += 1);
            }
            for &(rank, _) in self.fixed {
                let at = JobSpec::group_within(&starts, rank);
                let want = at.and_then(|at| wants.get_mut(at));
                want.into_iter().for_each(|one| one.min = one.min.saturating_sub(1));
            }
            wants.iter_mut().for_each(|want| want.min = want.min.min(want.replicas));
        }
        wants
    }

    /// How many replicas of each group of the spec its bound on GPUs leaves; `None` = all.
    pub(super) fn counts(&self) -> Option<Vec<u32>> {
        if self.gpu_milli_max == u64::MAX {
            return None;
        }
        Some(left(&self.wants(), self.gpu_milli_max))
    }

    /// The least that is placed of it, in thousandths of GPUs: all minima, or any one replica where
    /// those that stay are as many.
    pub fn least_gpu_milli(&self) -> u64 {
        let wants = self.wants();
        if wants.iter().all(|want| want.min == 0) {
            let some = wants.iter().filter(|want| want.replicas > 0);
            return some.map(|want| want.gpu_milli).min().unwrap_or(0);
        }
        wants.iter().fold(0, |sum, want| sum.saturating_add(want.milli(want.min)))
    }
}

/// How many replicas of each group are left: the minima, and of the others as many as the bound
/// leaves, group by group.
fn left(wants: &[Want], gpu_milli_max: u64) -> Vec<u32> {
    let least = wants.iter().fold(0u64, |sum, want| sum.saturating_add(want.milli(want.min)));
    let mut rest = gpu_milli_max.saturating_sub(least);
    let count = |want: &Want| {
        let more = want.replicas.saturating_sub(want.min);
        let room = rest.checked_div(want.gpu_milli).unwrap_or(u64::MAX);
        let more = more.min(u32::try_from(room).unwrap_or(u32::MAX));
        rest -= want.milli(more);
        want.min + more
    };
    wants.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{group, job_spec};
    use crate::id::{NodeId, Rank};
    use crate::job::GpuAsk;

    fn want(replicas: u32, min: u32, gpu_milli: u64) -> Want {
        Want { replicas, min, gpu_milli }
    }

    #[test]
    fn groups_take_of_the_rest_one_after_the_other_and_keep_their_minima() {
        let wants = [want(4, 1, 1_000), want(3, 3, 0), want(5, 2, 500)];
        assert_eq!(left(&wants, u64::MAX), [4, 3, 5]);
        assert_eq!(left(&wants, 6_499), [4, 3, 4]);
        assert_eq!(left(&wants, 4_000), [3, 3, 2]);
        assert_eq!(left(&wants, 3_999), [2, 3, 3]);
        assert_eq!(left(&wants, 2_000), [1, 3, 2]);
        assert_eq!(left(&wants, 0), [1, 3, 2]);
    }

    #[test]
    fn the_least_is_of_the_minima_or_of_one_replica() {
        let mut spec = job_spec(vec![group("a", 4, 2), group("b", 3, 1)]);
        spec.groups[0].replicas_min = 2;
        spec.groups[1].shape.gpus = GpuAsk::Share(300);
        let whole = Request::whole(&spec);
        assert_eq!(whole.least_gpu_milli(), 2 * 2_000 + 3 * 300);
        let ranks = [Rank(2), Rank(3), Rank(6)];
        let fixed = [(Rank(0), NodeId(0)), (Rank(1), NodeId(0)), (Rank(4), NodeId(0))];
        let more = Request { ranks: Ranks::Some(&ranks), fixed: &fixed, ..whole };
        assert_eq!(more.least_gpu_milli(), 300, "one of b is missing");
        spec.groups[1].replicas_min = 1;
        let more = Request { ranks: Ranks::Some(&ranks), fixed: &fixed, ..Request::whole(&spec) };
        assert_eq!(more.least_gpu_milli(), 300, "the smallest of all");
        let large = Request { ranks: Ranks::Some(&ranks[..2]), ..more };
        assert_eq!(large.least_gpu_milli(), 2_000);
    }
}
