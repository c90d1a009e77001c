//! Quote: what a plan amounts to — nodes, round trips, price, and how whole it leaves the fleet —
//! and a digest that names it.
//!
//! **Invariant:** looks at the view that the plan was made against and changes nothing.

use crate::command::{Placement, Victim};
use crate::hash::Hasher;
use crate::id::SiteId;
use crate::job::JobSpec;
use crate::unit::{GpuSet, PriceMicroUsd, RttUs};
use crate::view::View;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::Hash;

/// What a plan does for one group of the spec.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GroupQuote {
    pub replicas: u32,
    pub nodes: u32,
    /// Thousandths of GPUs.
    pub gpu_milli: u64,
    /// Of all its replicas together.
    pub price_per_hour: PriceMicroUsd,
}

/// How whole the free GPUs of the open nodes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Wholeness {
    /// Nodes with all their GPUs idle.
    pub nodes_whole: u32,
    /// Idle GPUs on nodes with other GPUs in use.
    pub gpus_apart: u64,
}

impl Wholeness {
    /// As it is now.
    pub fn of(view: &View) -> Self {
        wholeness(view, &[]).0
    }
}

/// What a plan amounts to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quote {
    /// By index in the spec.
    pub groups: Vec<GroupQuote>,
    pub nodes: u32,
    /// Widest RTT between two members' sites, as far as known.
    pub rtt_widest: RttUs,
    /// Mean over all pairs of members whose sites have a known RTT.
    pub rtt_mean: RttUs,
    /// Pairs of members whose sites have none.
    pub pairs_unknown: u64,
    pub price_per_hour: PriceMicroUsd,
    /// For the job's duration, where it has one.
    pub price_total: Option<PriceMicroUsd>,
    pub before: Wholeness,
    pub after: Wholeness,
}

impl Quote {
    /// The quote of a plan for the spec, made against this view. Ranks rise in a plan.
    pub fn new(view: &View, spec: &JobSpec, placements: &[Placement]) -> Self {
        let mut quote = Self { groups: by_group(view, spec, placements), ..Self::default() };
        quote.nodes = distinct(placements.iter().map(|one| one.node.0).collect());
        let prices = quote.groups.iter().map(|group| group.price_per_hour);
        quote.price_per_hour = prices.fold(PriceMicroUsd::ZERO, PriceMicroUsd::saturating_add);
        quote.price_total = spec.duration.map(|duration| {
            let total = u128::from(quote.price_per_hour.0) * u128::from(duration.0) / 3_600_000;
            PriceMicroUsd(u64::try_from(total).unwrap_or(u64::MAX))
        });
        quote.measure_rtts(view, placements);
        (quote.before, quote.after) = wholeness(view, placements);
        quote
    }

    /// Members at one site count with the site's own inner RTT.
    fn measure_rtts(&mut self, view: &View, placements: &[Placement]) {
        let mut members: BTreeMap<SiteId, u64> = BTreeMap::new();
        for slot in placements.iter().filter_map(|one| view.slot(one.node.0)) {
            *members.entry(slot.site).or_insert(0) += 1;
        }
        let (mut pairs_known, mut sum_us) = (0u64, 0u128);
        for (&a, &at_a) in &members {
            for (&b, &at_b) in members.range(a..) {
                let pairs = if a == b { at_a * (at_a - 1) / 2 } else { at_a * at_b };
                let Some(rtt) = view.sites().rtt(a, b) else {
                    self.pairs_unknown += pairs;
                    continue;
                };
                self.rtt_widest = self.rtt_widest.max(rtt);
                pairs_known += pairs;
                sum_us += u128::from(pairs) * u128::from(rtt.0);
            }
        }
        let mean = sum_us.checked_div(u128::from(pairs_known)).unwrap_or(0);
        self.rtt_mean = RttUs(u32::try_from(mean).unwrap_or(u32::MAX));
    }
}

fn by_group(view: &View, spec: &JobSpec, placements: &[Placement]) -> Vec<GroupQuote> {
    let starts = spec.group_starts();
    let bounds = starts.iter().zip(starts.iter().skip(1));
    let quote = |(&start, &end): (&u32, &u32)| {
        let from = placements.partition_point(|one| one.rank.0 < start);
        let to = placements.partition_point(|one| one.rank.0 < end);
        let own = placements.get(from..to).unwrap_or(&[]);
        let mut group = GroupQuote {
            replicas: u32::try_from(own.len()).unwrap_or(u32::MAX),
            nodes: distinct(own.iter().map(|one| one.node.0).collect()),
            ..GroupQuote::default()
        };
        for one in own {
            let milli = match one.share_milli {
                0 => u64::from(one.gpus.len()) * 1000,
                share => u64::from(share),
            };
            let price = view.slot(one.node.0).map_or(0, |slot| slot.node.price.0);
            let price = PriceMicroUsd(price.saturating_mul(milli) / 1000);
            group.gpu_milli = group.gpu_milli.saturating_add(milli);
            group.price_per_hour = group.price_per_hour.saturating_add(price);
        }
        group
    };
    bounds.map(quote).collect()
}

fn distinct(mut nodes: Vec<u32>) -> u32 {
    nodes.sort_unstable();
    nodes.dedup();
    u32::try_from(nodes.len()).unwrap_or(u32::MAX)
}

/// Before and after the placements.
fn wholeness(view: &View, placements: &[Placement]) -> (Wholeness, Wholeness) {
    // GPUs, not replicas: several may share one.
    let mut taken: BTreeMap<u32, GpuSet> = BTreeMap::new();
    for placement in placements {
        let gpus = taken.entry(placement.node.0).or_insert(GpuSet::EMPTY);
        *gpus = *gpus | placement.gpus;
    }
    let mut sums = [Wholeness::default(); 2];
    for (node, slot) in view.slots().filter(|(_, slot)| slot.open) {
        let gpus = u32::try_from(slot.node.gpus.len()).unwrap_or(u32::MAX);
        let before = slot.free.idle.len();
        let taken = taken.get(&node).copied().unwrap_or(GpuSet::EMPTY);
        let after = (slot.free.idle & !taken).len();
        for (sum, idle) in sums.iter_mut().zip([before, after]) {
            if idle == gpus && gpus > 0 {
                sum.nodes_whole += 1;
            } else {
                sum.gpus_apart += u64::from(idle);
            }
        }
    }
    let [before, after] = sums;
    (before, after)
}

/// Whether the GPUs of the placements are free in the view, on the same sessions of the same nodes.
/// A quick look: rules and other resources are for `State::apply` to check.
pub fn is_free(view: &View, placements: &[Placement]) -> bool {
    placements.iter().all(|one| {
        let Some(slot) = view.slot(one.node.0) else { return false };
        let is_same = slot.open && slot.node.epoch == one.node_epoch;
        is_same && slot.free.has_gpus(one.gpus, one.share_milli)
    })
}

/// Names a plan: equal for the same placements of the same spec on the same sessions of the same
/// nodes, taken from the same jobs, and for nothing else that comes about by accident.
pub fn digest(spec: &JobSpec, placements: &[Placement], victims: &[Victim]) -> u128 {
    let mut hasher = Hasher::new();
    spec.hash(&mut hasher);
    placements.hash(&mut hasher);
    victims.hash(&mut hasher);
    hasher.finish128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, SiteRtt};
    use crate::fixture::entry::{World, group, job_spec, name, node_spec, plan, register};
    use crate::fixture::entry::{placement, submit};
    use crate::id::{JobId, Rank};
    use crate::job::GpuAsk;
    use crate::unit::DurationMs;

    #[test]
    fn a_quote_adds_up() {
        let mut world = World::new();
        for (number, site) in [(0, "a"), (1, "a"), (2, "b"), (3, "b")] {
            let mut spec = node_spec(&format!("n{number}"), 8);
            spec.place.site = name(site);
            world.done(register(spec));
        }
        let rtt = SiteRtt::told(name("a"), name("b"), RttUs(10_000));
        world.done(Command::SetSiteRtts(vec![rtt]));
        let load = job_spec(vec![group("w", 1, 4)]);
        world.submit(submit("load", load, Some(plan(&[(0, 0x0f)]))));
        let mut spec = job_spec(vec![group("v", 2, 4), group("w", 1, 8)]);
        spec.duration = Some(DurationMs(90 * 60_000));
        let placements = [placement(0, 0, 0xf0), placement(1, 1, 0x0f), placement(2, 2, 0xff)];
        let view = View::new(&world.state);
        let quote = Quote::new(&view, &spec, &placements);
        let group = |replicas, nodes, gpu_milli, dollars: u64| GroupQuote {
            replicas,
            nodes,
            gpu_milli,
            price_per_hour: PriceMicroUsd(dollars * 1_000_000),
        };
        // Two dollars a GPU and hour; pairs: one inside a, two between a and b.
        let expected = Quote {
            groups: vec![group(2, 2, 8_000, 16), group(1, 1, 8_000, 16)],
            nodes: 3,
            rtt_widest: RttUs(10_000),
            rtt_mean: RttUs((200 + 20_000) / 3),
            pairs_unknown: 0,
            price_per_hour: PriceMicroUsd(32_000_000),
            price_total: Some(PriceMicroUsd(48_000_000)),
            before: Wholeness { nodes_whole: 3, gpus_apart: 4 },
            after: Wholeness { nodes_whole: 1, gpus_apart: 4 },
        };
        assert_eq!(quote, expected);
    }

    #[test]
    fn a_gpu_that_several_share_is_taken_once() {
        let world = World::with_nodes(2, 4);
        let mut spec = job_spec(vec![group("w", 3, 1)]);
        spec.groups[0].shape.gpus = GpuAsk::Share(300);
        let share = |rank| Placement { share_milli: 300, ..placement(rank, 0, 0x01) };
        let placements = [share(0), share(1), share(2)];
        let quote = Quote::new(&View::new(&world.state), &spec, &placements);
        assert_eq!(quote.before, Wholeness { nodes_whole: 2, gpus_apart: 0 });
        assert_eq!(quote.after, Wholeness { nodes_whole: 1, gpus_apart: 3 });
        // At two dollars: 0.9 of a GPU.
        assert_eq!(quote.price_per_hour, PriceMicroUsd(1_800_000));
    }

    #[test]
    fn what_is_taken_or_gone_is_not_free() {
        let mut world = World::with_nodes(2, 8);
        let placements = [placement(0, 0, 0x0f), placement(1, 1, 0xff)];
        let is_free = |world: &World| super::is_free(&View::new(&world.state), &placements);
        assert!(is_free(&world));
        let load = job_spec(vec![group("w", 1, 4)]);
        world.submit(submit("beside", load.clone(), Some(plan(&[(0, 0xf0)]))));
        assert!(is_free(&world));
        world.rejoin(1);
        assert!(!is_free(&world), "a new session");
        world.submit(submit("on it", load, Some(plan(&[(0, 0x0f)]))));
        assert!(!super::is_free(&View::new(&world.state), &placements[..1]), "taken");
    }

    #[test]
    fn a_digest_names_one_plan() {
        let spec = job_spec(vec![group("w", 2, 4)]);
        let one = [placement(0, 0, 0x0f), placement(1, 0, 0xf0)];
        let mut others = [one; 3];
        others[0][1].node.0 = 1;
        others[1][1].gpus.0 = 0xf1;
        others[2][1].node_epoch.0 = 2;
        assert_eq!(digest(&spec, &one, &[]), digest(&spec, &one.clone(), &[]));
        for other in others {
            assert_ne!(digest(&spec, &one, &[]), digest(&spec, &other, &[]));
        }
        let mut renamed = spec.clone();
        renamed.name = name("other");
        assert_ne!(digest(&spec, &one, &[]), digest(&renamed, &one, &[]));
        let victim = |ranks| Victim { job: JobId(1), ranks };
        let digests = [vec![], vec![victim(vec![])], vec![victim(vec![Rank(0)])]]
            .map(|victims| digest(&spec, &one, &victims));
        assert!(digests[0] != digests[1] && digests[1] != digests[2], "{digests:?}");
    }
}
