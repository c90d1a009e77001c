//! Head: sites for a gang of which only the way between the head and each member counts.
//!
//! Every site that holds the head is tried; around it the nearest sites serve best for each bound
//! and each objective, so this is exact (on paper) and needs no search.
//! **Invariant:** the head's replicas stand at one site, or where they already are.

use super::{Answer, Budget, Choice, Objective, Question, Steps, Vertex};
use crate::topology::FAR;

/// Where the head is.
#[derive(Clone, Copy, Debug)]
pub enum Head<'a> {
    /// To be placed: what it needs of its one site, in the dimensions of the question's need,
    /// which includes it.
    Waits(&'a [u64]),
    /// At these sites already, all near enough to the members that stay.
    Stays(&'a [u16]),
}

/// Sites for the members and, in the second place, the head's own site where it waits. The
/// choice's RTTs are those between head and members.
pub fn around_head(
    question: &Question<'_>,
    head: Head<'_>,
    budget: Budget,
) -> (Answer, Option<u16>) {
    within_steps(question, head, &mut Steps::new(budget.steps_max))
}

pub(in crate::plan) fn within_steps(
    question: &Question<'_>,
    head: Head<'_>,
    steps: &mut Steps,
) -> (Answer, Option<u16>) {
    let count = question.vertices.len();
    steps.spend((count * count) as u64 * 2);
    let tries: Vec<Star> = match head {
        Head::Stays(sites) => Star::new(question, sites, None).into_iter().collect(),
        Head::Waits(need) => {
            let able = question.vertices.iter().filter(|vertex| {
                vertex.have.iter().zip(need).all(|(have, need)| have >= need)
                    && inside(question, vertex.site)
            });
            able.filter_map(|vertex| Star::new(question, &[vertex.site], Some(vertex.site)))
                .collect()
        }
    };
    let floor = tries.iter().map(|star| star.value(question.objective)).min();
    match tries.into_iter().min_by_key(|star| (star.value(question.objective), star.head)) {
        None => (Answer::Infeasible, None),
        Some(star) => {
            let head = star.head;
            (Answer::Chosen(star.choice(question, floor.unwrap_or(0))), head)
        }
    }
}

/// Whether head and members may stand at one site, and towards all members that stay.
fn inside(question: &Question<'_>, site: u16) -> bool {
    let bound = question.bound_us.unwrap_or(FAR - 1);
    let fixed = question.fixed.iter().map(|&(fixed, _)| fixed);
    fixed.chain([site]).all(|other| question.net.high(site, other) <= bound)
}

/// Members around one place of the head.
struct Star {
    head: Option<u16>,
    sites: Vec<u16>,
    median_us: u32,
    high_us: u32,
    /// Members times RTT, and members.
    sum: u128,
    units: u64,
}

impl Star {
    fn new(question: &Question<'_>, heads: &[u16], head: Option<u16>) -> Option<Self> {
        let bound = question.bound_us.unwrap_or(FAR - 1);
        let far = |site: u16, usual: bool| {
            let way = |&from: &u16| match usual {
                true => question.net.median(from, site),
                false => question.net.high(from, site),
            };
            heads.iter().map(way).max().unwrap_or(0)
        };
        let mut near: Vec<(u32, u32, &Vertex)> = question
            .vertices
            .iter()
            .map(|vertex| (far(vertex.site, true), far(vertex.site, false), vertex))
            .filter(|&(_, high, _)| high <= bound)
            .collect();
        near.sort_by_key(|&(median, high, vertex)| (median, high, vertex.site));
        let lead = lead(question);
        let mut star = Self { head, sites: vec![], median_us: 0, high_us: 0, sum: 0, units: 0 };
        let mut held = vec![0u64; question.need.len()];
        for (median, high, vertex) in near {
            if held.iter().zip(question.need).all(|(have, need)| have >= need) {
                break;
            }
            let need = question.need.get(lead).copied().unwrap_or(0);
            let have = vertex.have.get(lead).copied().unwrap_or(0);
            let units = have.min(need.saturating_sub(star.units));
            for (total, more) in held.iter_mut().zip(&vertex.have) {
                *total = total.saturating_add(*more);
            }
            star.units += units;
            star.sum += u128::from(units) * u128::from(median);
            star.median_us = star.median_us.max(median);
            star.high_us = star.high_us.max(high);
            star.sites.push(vertex.site);
        }
        star.sites.sort_unstable();
        held.iter().zip(question.need).all(|(have, need)| have >= need).then_some(star)
    }

    /// What is to be small.
    fn value(&self, objective: Objective) -> u128 {
        match objective {
            Objective::Any | Objective::Diameter => u128::from(self.median_us),
            Objective::Mean => self.sum,
        }
    }

    fn choice(self, question: &Question<'_>, floor: u128) -> Choice {
        let mean = |sum: u128| u32::try_from(sum / u128::from(self.units.max(1))).unwrap_or(FAR);
        let by_mean = question.objective == Objective::Mean;
        Choice {
            median_us: self.median_us,
            high_us: self.high_us,
            mean_us: by_mean.then(|| mean(self.sum)),
            floor_us: if by_mean { mean(floor) } else { u32::try_from(floor).unwrap_or(FAR) },
            sites: self.sites,
        }
    }
}

/// The dimension that counts members best: the one needed most.
fn lead(question: &Question<'_>) -> usize {
    let most = question.need.iter().enumerate().max_by_key(|(at, need)| (**need, usize::MAX - at));
    most.map_or(0, |(at, _)| at)
}
