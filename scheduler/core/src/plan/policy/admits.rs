//! Admits: which nodes' GPUs a kind of replica may use.
//!
//! There may be thousands of kinds of each, all held against all, so models are looked up by name
//! once for each kind of replica.
//! **Invariant:** knows models and vRAM, which is all that kinds of demand tell.

use crate::node::{Gpu, Models};
use crate::unit::VramMib;
use crate::view::Kind;

/// What a kind of replica may use.
#[derive(Clone, Debug)]
pub(super) struct Admits {
    /// By number of the model; `None` = any.
    models: Option<Vec<bool>>,
    vram_min: VramMib,
}

impl Admits {
    pub(super) fn new(kind: &Kind, models: &Models) -> Self {
        let named = (!kind.models.is_empty()).then(|| {
            let mut named = vec![false; models.len()];
            for model in kind.models.iter().filter_map(|name| models.find(name)) {
                if let Some(named) = named.get_mut(usize::from(model.0)) {
                    *named = true;
                }
            }
            named
        });
        Self { models: named, vram_min: kind.vram_min }
    }

    /// Whether some GPU of a node will do; who takes any is admitted everywhere.
    pub(super) fn to(&self, gpus: &[Gpu]) -> bool {
        if self.models.is_none() && self.vram_min == VramMib::ZERO {
            return true;
        }
        let named = |gpu: &Gpu| {
            let number = usize::from(gpu.model.0);
            self.models.as_ref().is_none_or(|models| models.get(number) == Some(&true))
        };
        gpus.iter().any(|gpu| gpu.vram >= self.vram_min && named(gpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{World, name, node_spec, register};
    use crate::id::NodeId;
    use crate::job::GpuAsk;
    use crate::unit::{CpuMilli, MemoryMib};

    #[test]
    fn models_and_vram_are_asked_of_one_gpu() {
        let mut world = World::new();
        let mut spec = node_spec("a", 2);
        let told = [("large", 80_000), ("small", 16_000)];
        for (gpu, (model, vram_mib)) in spec.gpus.iter_mut().zip(told) {
            (gpu.model, gpu.vram) = (name(model), VramMib(vram_mib));
        }
        world.done(register(spec));
        let gpus = &world.state.node(NodeId(0)).expect("just registered").gpus;
        let admits = |models: &[&str], vram_mib| {
            let models = models.iter().map(|model| name(model)).collect();
            let (cpu, memory, vram_min) = (CpuMilli(1), MemoryMib(1), VramMib(vram_mib));
            let kind = Kind { gpus: GpuAsk::Whole(1), cpu, memory, models, vram_min };
            let admits = Admits::new(&kind, world.state.models());
            [gpus, &[][..]].map(|gpus| admits.to(gpus))
        };
        assert_eq!(admits(&[], 0), [true, true], "who takes any");
        assert_eq!(admits(&[], 80_000), [true, false]);
        assert_eq!(admits(&[], 80_001), [false, false]);
        assert_eq!(admits(&["none", "small"], 0), [true, false]);
        assert_eq!(admits(&["small"], 80_000), [false, false], "the large one is another model");
        assert_eq!(admits(&["none"], 0), [false, false]);
    }
}
