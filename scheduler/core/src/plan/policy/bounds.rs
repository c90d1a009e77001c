//! Bounds: how scarce the GPUs are that part of the demand is bound to.
//!
//! Replicas that name models, or a least vRAM, can go to some kinds of nodes only. The price of a
//! free thousandth there is the part of all demand that is bound to it, over the part of the fleet
//! that is free for that demand: next to nothing where there is plenty, and more the less is left.
//! So whoever may go anywhere goes where nobody else must.
//! **Invariant:** a snapshot of the view; knows kinds of nodes, never single ones.

use super::admits::Admits;
use super::look::asked_milli;
use crate::node::Models;
use crate::unit::GPU_MILLI_WHOLE;
use crate::view::{Classes, KindId, Mix};

/// Prices of a thousandth of a GPU by kind of node.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    prices: Vec<f64>,
}

impl Bounds {
    /// Of a fleet of so many GPUs, with so many thousandths free on nodes of each kind.
    pub(super) fn new(
        mix: &Mix,
        classes: &Classes,
        models: &Models,
        gpus: u64,
        free_milli: &[u64],
    ) -> Self {
        let mut asked = 0.0;
        let mut prices = vec![0.0; free_milli.len()];
        for (kind, count) in &mix.kinds {
            let amount = *count as f64 * f64::from(asked_milli(kind.gpus));
            asked += amount;
            if amount == 0.0 || kind.takes_any_gpu() {
                continue;
            }
            let admits = Admits::new(kind, models);
            let admits: Vec<bool> = classes.gpu_lists().map(|gpus| admits.to(gpus)).collect();
            let open = free_milli.iter().zip(&admits).filter(|(_, admits)| **admits);
            let price = amount / open.map(|(free, _)| *free).sum::<u64>().max(1) as f64;
            for (sum, _) in prices.iter_mut().zip(&admits).filter(|(_, admits)| **admits) {
                *sum += price;
            }
        }
        if asked > 0.0 {
            let scale = gpus as f64 * f64::from(GPU_MILLI_WHOLE) / asked;
            prices.iter_mut().for_each(|price| *price *= scale);
        }
        Self { prices }
    }

    pub(super) fn price(&self, KindId(kind): KindId) -> f64 {
        self.prices.get(kind as usize).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{World, node_spec, register};
    use crate::id::{Name, NodeId};
    use crate::job::GpuAsk;
    use crate::unit::{CpuMilli, MemoryMib, VramMib};
    use crate::view::Kind;

    /// Kinds of four large and two small GPUs, with the names of their models.
    fn fleet() -> (Classes, Models, [Name; 2]) {
        let mut world = World::new();
        let mut names = Vec::new();
        for (name, gpus, model) in [("a", 4, "large"), ("b", 2, "small")] {
            let mut spec = node_spec(name, gpus);
            let model = Name::parse(model).expect("a name");
            spec.gpus.iter_mut().for_each(|gpu| gpu.model = model.clone());
            names.push(model);
            world.done(register(spec));
        }
        let mut classes = Classes::default();
        for node in [NodeId(0), NodeId(1)] {
            classes.enter(world.state.node(node).expect("just registered"));
        }
        let [large, small] = <[Name; 2]>::try_from(names).expect("two");
        (classes, world.state.models().clone(), [large, small])
    }

    fn kind(gpus: GpuAsk, models: &[&Name]) -> Kind {
        let models = models.iter().copied().cloned().collect();
        let (cpu, memory, vram_min) = (CpuMilli(1), MemoryMib(1), VramMib::ZERO);
        Kind { gpus, cpu, memory, models, vram_min }
    }

    #[test]
    fn what_others_are_bound_to_costs_the_more_the_less_is_left() {
        let (classes, models, [large, small]) = fleet();
        let kinds = vec![
            (kind(GpuAsk::None, &[]), 50),
            (kind(GpuAsk::Whole(1), &[]), 6),
            (kind(GpuAsk::Share(500), &[&small]), 4),
            (kind(GpuAsk::Whole(2), &[&large, &small]), 1),
        ];
        let prices = |free: [u64; 2]| {
            let mix = Mix { version: 1, kinds: kinds.clone() };
            let bounds = Bounds::new(&mix, &classes, &models, 6, &free);
            [bounds.price(KindId(0)), bounds.price(KindId(1))]
        };
        // Of 10 GPUs asked for, two halves of two are bound to the small ones, two to either.
        let either = 0.2 * 6.0 / 5.0;
        let [of_large, of_small] = prices([4_000, 1_000]);
        assert!((of_large - either).abs() < 1e-9, "{of_large}");
        assert!((of_small - either - 0.2 * 6.0).abs() < 1e-9, "{of_small}");
        let [_, of_last] = prices([4_500, 500]);
        assert!((of_last - either - 0.2 * 12.0).abs() < 1e-9, "{of_last}");
    }

    #[test]
    fn nobody_is_bound_and_nothing_costs() {
        let (classes, models, _) = fleet();
        let mix = Mix { version: 1, kinds: vec![(kind(GpuAsk::Whole(1), &[]), 1)] };
        let bounds = Bounds::new(&mix, &classes, &models, 6, &[0, 2_000]);
        assert_eq!([bounds.price(KindId(0)), bounds.price(KindId(1))], [0.0, 0.0]);
        assert_eq!(Bounds::default().price(KindId(0)), 0.0);
    }
}
