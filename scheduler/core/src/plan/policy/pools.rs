//! Pools: which GPUs are too few for those who can go nowhere else.
//!
//! A pool is what is free on the kinds of nodes that some demand is bound to, in rooms of the size
//! that it asks for: idle GPUs of one node in whole multiples, or, for shares, every thousandth. It
//! must hold all demand that is bound to these kinds of nodes, or to fewer, in rooms as large or
//! larger (Hall's condition, 1935). Of as much demand as the fleet has GPUs free, some part goes
//! there; the price of a thousandth is that part over what the pool has, past what it can spare, and
//! at most all of the thousandth. So who may go anywhere leaves alone both the models that others
//! name and the machines that large replicas need, and what is scarcer of the two the more.
//! **Invariant:** a snapshot of the view; knows kinds of nodes, never single ones.

use super::admits::Admits;
use super::look::{Spare, asked_milli};
use crate::job::GpuAsk;
use crate::unit::GPU_MILLI_WHOLE;
use crate::view::{Kind, KindId, Mix, View};
use std::collections::BTreeMap;

/// Demand over what a pool has, from which on it has a price: mixes and draws differ by so much.
const SCARCE_FROM: f64 = 0.9;
/// Pools that are looked at, those most asked for: a bound on the time.
const POOLS_MAX: usize = 256;

/// Kinds of nodes in one part of a set.
const PER_PART: usize = u64::BITS as usize;

/// Kinds of nodes, a bit each.
type NodeKinds = Vec<u64>;

/// What is bound to the same kinds of nodes and asks for rooms of the same size.
#[derive(Clone, Debug)]
struct Bound {
    to: NodeKinds,
    /// Idle GPUs of one node; 0 for a share of one.
    size: u32,
    /// Its part of all demand.
    part: f64,
}

/// Prices of a kind of node.
#[derive(Clone, Debug, Default)]
struct Worth {
    /// Of a thousandth in any room.
    milli: f64,
    /// By number of idle GPUs: of the rooms that they make; empty if rooms cost nothing.
    idle: Vec<f64>,
}

/// Prices of what is free, by kind of node.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    worth: Vec<Worth>,
}

/// Thousandths that this many idle GPUs have in rooms of a size.
fn in_rooms(idle: u32, size: u32) -> f64 {
    f64::from(idle - idle % size) * f64::from(GPU_MILLI_WHOLE)
}

impl Pools {
    /// Of a fleet that has so many thousandths free.
    pub(super) fn new(view: &View, mix: &Mix, free_milli: u64) -> Self {
        let bounds = bounds(view, mix);
        let mut sizes: Vec<u32> = bounds.iter().map(|bound| bound.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let have = have(view, &sizes);
        let mut worth: Vec<Worth> = view.classes().gpu_lists().map(|_| Worth::default()).collect();
        for pool in &bounds {
            let at = sizes.partition_point(|&size| size < pool.size);
            let has: f64 = have
                .iter()
                .enumerate()
                .filter(|(kind, _)| has_kind(&pool.to, *kind))
                .filter_map(|(_, have)| have.get(at))
                .sum();
            let asked: f64 = bounds
                .iter()
                .filter(|bound| bound.size >= pool.size && is_within(&bound.to, &pool.to))
                .map(|bound| bound.part * free_milli as f64)
                .sum();
            let price = (asked / has.max(1.0) - SCARCE_FROM).clamp(0.0, 1.0);
            if price == 0.0 {
                continue;
            }
            for (kind, gpus) in view.classes().gpu_lists().enumerate() {
                if let Some(worth) = worth.get_mut(kind).filter(|_| has_kind(&pool.to, kind)) {
                    worth.add(pool.size, price, gpus.len());
                }
            }
        }
        Self { worth }
    }

    /// What is free on a node is worth so many thousandths to those who need it.
    pub(super) fn worth(&self, KindId(kind): KindId, spare: &Spare) -> f64 {
        let Some(worth) = self.worth.get(kind as usize) else { return 0.0 };
        let rooms = worth.idle.get(spare.idle as usize).copied().unwrap_or(0.0);
        if worth.milli == 0.0 { rooms } else { rooms + worth.milli * f64::from(spare.gpu_milli()) }
    }
}

impl Worth {
    /// On a node with so many GPUs in all.
    fn add(&mut self, size: u32, price: f64, gpus: usize) {
        if size == 0 {
            self.milli += price;
            return;
        }
        self.idle.resize(gpus + 1, 0.0);
        for (idle, worth) in (0u32..).zip(&mut self.idle) {
            *worth += price * in_rooms(idle, size);
        }
    }
}

/// Demand by where it is bound to and the size of its rooms, the most of it first.
fn bounds(view: &View, mix: &Mix) -> Vec<Bound> {
    let mut demand: BTreeMap<(NodeKinds, u32), u64> = BTreeMap::new();
    // Many kinds of replicas name the same models.
    let mut seen: BTreeMap<_, NodeKinds> = BTreeMap::new();
    let mut all = 0u64;
    for (kind, count) in &mix.kinds {
        let size = match kind.gpus {
            GpuAsk::None => continue,
            GpuAsk::Share(_) => 0,
            GpuAsk::Whole(gpus) => gpus.into(),
        };
        let to = seen.entry((&kind.models, kind.vram_min)).or_insert_with(|| bound_to(view, kind));
        if to.iter().all(|&part| part == 0) {
            continue;
        }
        let amount = count.saturating_mul(asked_milli(kind.gpus).into());
        all = all.saturating_add(amount);
        let sum = demand.entry((to.clone(), size)).or_default();
        *sum = sum.saturating_add(amount);
    }
    let part = |amount: u64| amount as f64 / all.max(1) as f64;
    let bounds = demand.into_iter().map(|((to, size), sum)| Bound { to, size, part: part(sum) });
    let mut bounds: Vec<Bound> = bounds.collect();
    bounds.sort_by(|a, b| b.part.total_cmp(&a.part));
    bounds.truncate(POOLS_MAX);
    bounds
}

/// Kinds of nodes that a kind of replicas may use.
fn bound_to(view: &View, kind: &Kind) -> NodeKinds {
    let admits = Admits::new(kind, view.models());
    let mut to = Vec::new();
    for (at, gpus) in view.classes().gpu_lists().enumerate() {
        if at % PER_PART == 0 {
            to.push(0);
        }
        let admits = !gpus.is_empty() && admits.to(gpus);
        if let Some(part) = to.last_mut() {
            *part |= u64::from(admits) << (at % PER_PART);
        }
    }
    to
}

fn has_kind(to: &NodeKinds, kind: usize) -> bool {
    to.get(kind / PER_PART).is_some_and(|part| part >> (kind % PER_PART) & 1 == 1)
}

fn is_within(some: &NodeKinds, all: &NodeKinds) -> bool {
    some.iter().zip(all).all(|(some, all)| some & !all == 0)
}

/// Thousandths free in rooms of each size, by kind of node.
fn have(view: &View, sizes: &[u32]) -> Vec<Vec<f64>> {
    let mut have = vec![vec![0.0; sizes.len()]; view.classes().gpu_lists().count()];
    for state in view.states().iter() {
        let spare = Spare::of(state.free());
        let KindId(kind) = state.kind();
        let Some(have) = have.get_mut(kind as usize) else { continue };
        for (have, &size) in have.iter_mut().zip(sizes) {
            let milli = match size {
                0 => f64::from(spare.gpu_milli()),
                size => in_rooms(spare.idle, size),
            };
            *have += milli * f64::from(state.len());
        }
    }
    have
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{World, node_spec, register};
    use crate::id::Name;
    use crate::node::Resources;
    use crate::unit::{CpuMilli, GpuSet, MemoryMib, VramMib};
    use crate::view::Free;

    const LARGE: KindId = KindId(0);
    const SMALL: KindId = KindId(1);

    /// Machines of eight large GPUs, and one of two small ones.
    fn view(machines: usize) -> View {
        let mut world = World::new();
        for number in 0..=machines {
            let small = number == machines;
            let mut spec = node_spec(&format!("n{number}"), if small { 2 } else { 8 });
            let model = name(if small { "small" } else { "large" });
            spec.gpus.iter_mut().for_each(|gpu| gpu.model = model.clone());
            world.done(register(spec));
        }
        View::new(&world.state)
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn kind(gpus: GpuAsk, model: Option<&str>) -> Kind {
        let (cpu, memory, vram_min) = (CpuMilli(1), MemoryMib(1), VramMib::ZERO);
        Kind { gpus, cpu, memory, models: model.map(name).into_iter().collect(), vram_min }
    }

    /// Of 18 GPUs asked for, 6 one by one, 8 at once, and 4 in halves on small ones.
    fn mix() -> Mix {
        let kinds = vec![
            (kind(GpuAsk::None, None), 50),
            (kind(GpuAsk::Whole(1), None), 6),
            (kind(GpuAsk::Whole(8), None), 1),
            (kind(GpuAsk::Share(500), Some("small")), 8),
        ];
        Mix { version: 1, kinds }
    }

    fn spare(idle: usize, shared: &[u16]) -> Spare {
        let mut free = Free::default();
        free.rest = Resources { cpu: CpuMilli(1), ..Resources::default() };
        free.idle = GpuSet::first(idle + shared.len());
        (0u8..).zip(shared).for_each(|(gpu, left)| free.take_share(gpu, 1_000 - left));
        Spare::of(&free)
    }

    #[test]
    fn models_and_large_rooms_are_worth_what_they_are_short_of() {
        let near = |worth: f64, expected: f64| assert!((worth - expected).abs() < 1e-6, "{worth}");
        let pools = Pools::new(&view(2), &mix(), 18_000);
        // Four of 18 are to come, for two small GPUs: all that is lost there is missed.
        near(pools.worth(SMALL, &spare(2, &[])), 2_000.0);
        near(pools.worth(SMALL, &spare(1, &[300])), 1_300.0);
        // Eight are to come for two rooms of eight, 14 for 18 whole ones.
        near(pools.worth(LARGE, &spare(8, &[])), 0.0);
        // With one machine, of ten GPUs free 40/9 will ask for its room and 70/9 for whole ones.
        let pools = Pools::new(&view(1), &mix(), 10_000);
        near(pools.worth(LARGE, &spare(8, &[])), 0.0);
        // As if more were free elsewhere: 16 to come, of which 64/9 for the room of eight (0.89 of
        // it) and 112/9 for ten whole ones (1.24).
        let pools = Pools::new(&view(1), &mix(), 16_000);
        let whole = 112.0 / 90.0 - SCARCE_FROM;
        near(pools.worth(LARGE, &spare(8, &[])), whole * 8_000.0);
        near(pools.worth(LARGE, &spare(3, &[500])), whole * 3_000.0);
        // 18: the room too, and from there on eight idle ones are worth more than seven and one.
        let pools = Pools::new(&view(1), &mix(), 18_000);
        let (room, whole) = (1.0 - SCARCE_FROM, 1.4 - SCARCE_FROM);
        near(pools.worth(LARGE, &spare(8, &[])), (room + whole) * 8_000.0);
        near(pools.worth(LARGE, &spare(7, &[])), whole * 7_000.0);
        // No thousandth is worth more to others than to be there.
        let pools = Pools::new(&view(1), &mix(), 90_000);
        near(pools.worth(LARGE, &spare(8, &[])), 2.0 * 8_000.0);
    }

    #[test]
    fn what_can_run_nowhere_makes_nothing_scarce() {
        let view = view(2);
        let plain = Pools::new(&view, &mix(), 18_000);
        let mut mix = mix();
        mix.kinds.push((kind(GpuAsk::Whole(8), Some("none")), 1_000));
        let pools = Pools::new(&view, &mix, 18_000);
        for (kind, spare) in [(LARGE, spare(8, &[])), (SMALL, spare(2, &[]))] {
            assert_eq!(pools.worth(kind, &spare), plain.worth(kind, &spare));
        }
        assert_eq!(Pools::default().worth(LARGE, &spare(8, &[])), 0.0);
        let nobody = Mix { version: 1, kinds: Vec::new() };
        assert_eq!(Pools::new(&view, &nobody, 1).worth(SMALL, &spare(2, &[])), 0.0);
    }

    #[test]
    fn many_bounds_are_cut_at_the_rarest() {
        let kinds = (1..=64).flat_map(|gpus| {
            (0..8).map(move |count| (kind(GpuAsk::Whole(gpus), (count > 3).then_some("small")), 1))
        });
        let mix = Mix { version: 1, kinds: kinds.collect() };
        let list = bounds(&view(1), &mix);
        assert!(list.len() <= POOLS_MAX && list.is_sorted_by(|a, b| a.part >= b.part));
        assert_eq!(list.len(), 128, "two for each size");
        assert!(has_kind(&list[0].to, 0) != has_kind(&list[1].to, 0));
    }
}
