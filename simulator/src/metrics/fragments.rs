//! Fragments: how much of what is free is of no use to the jobs that come.
//!
//! After Weng et al. (USENIX ATC 2023), with sizes in place of their types of task: of the free
//! GPUs, the share that lies on nodes where a job does not fit, averaged over the jobs seen so far.
//! A job of g GPUs counts as one replica on one node that takes g times the mean CPU and memory
//! that jobs asked for per GPU; models are left out of account.
//! **Invariant:** reads the state only.

use scheduler_core::job::{GpuAsk, JobSpec};
use scheduler_core::node::NodeStatus;
use scheduler_core::state::State;
use scheduler_core::unit::GPU_MILLI_WHOLE;

/// Whole GPUs of one replica at most, as in the state.
const GPUS_MAX: usize = 64;

/// What jobs ask for, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// Replicas by whole GPUs; at 0 those of a share of one.
    sizes: [u64; GPUS_MAX + 1],
    share_milli: u64,
    gpu_milli: u128,
    cpu_milli: u128,
    memory_mib: u128,
}

impl Default for Demand {
    fn default() -> Self {
        Self { sizes: [0; GPUS_MAX + 1], share_milli: 0, gpu_milli: 0, cpu_milli: 0, memory_mib: 0 }
    }
}

/// What is free on one node.
#[derive(Clone, Copy, Debug, Default)]
struct Free {
    whole: u64,
    /// The largest free part of a GPU that is shared, in thousandths.
    part_milli: u64,
    gpu_milli: u64,
    cpu_milli: u64,
    memory_mib: u64,
}

/// What replicas of one size need.
#[derive(Clone, Copy, Debug)]
struct Need {
    replicas: u64,
    /// 0 = a part of one.
    whole: u64,
    part_milli: u64,
    cpu_milli: u128,
    memory_mib: u128,
}

impl Need {
    fn fits(&self, free: Free) -> bool {
        let room = match self.whole {
            0 => free.whole > 0 || free.part_milli >= self.part_milli,
            whole => free.whole >= whole,
        };
        room && u128::from(free.cpu_milli) >= self.cpu_milli
            && u128::from(free.memory_mib) >= self.memory_mib
    }
}

impl Demand {
    pub(super) fn note(&mut self, spec: &JobSpec) {
        for group in &spec.groups {
            let (shape, replicas) = (&group.shape, u64::from(group.replicas));
            let size = match shape.gpus {
                GpuAsk::None => continue,
                GpuAsk::Share(milli) => {
                    self.share_milli += u64::from(milli) * replicas;
                    0
                }
                GpuAsk::Whole(count) => usize::from(count),
            };
            if let Some(count) = self.sizes.get_mut(size) {
                *count += replicas;
            }
            let times = |one: u64| u128::from(one) * u128::from(replicas);
            self.gpu_milli += times(shape.gpu_milli());
            self.cpu_milli += times(shape.cpu.0);
            self.memory_mib += times(shape.memory.0);
        }
    }

    /// Of the free GPU thousandths, how many of a hundred thousand the mean job cannot use; `None`
    /// when nothing is free or nothing was asked for.
    pub(super) fn lost_ppht(&self, state: &State) -> Option<u64> {
        let asked: u64 = self.sizes.iter().sum();
        let needs = self.needs();
        let (mut free, mut lost) = (0u128, 0u128);
        for node in state.nodes() {
            if !matches!(node.status, NodeStatus::Up) {
                continue;
            }
            let here = free_on(state, node);
            if here.gpu_milli == 0 {
                continue;
            }
            free += u128::from(here.gpu_milli);
            lost += u128::from(here.gpu_milli) * u128::from(kept_out(&needs, here));
        }
        let whole = free * u128::from(asked);
        (whole > 0).then(|| u64::try_from(lost * 100_000 / whole).unwrap_or(100_000))
    }

    /// Of every size that was asked for.
    fn needs(&self) -> Vec<Need> {
        let part_milli = self.share_milli / self.sizes.first().copied().unwrap_or(0).max(1);
        let sizes = self.sizes.iter().zip(0u64..).filter(|&(&replicas, _)| replicas > 0);
        let need = |(&replicas, whole): (&u64, u64)| {
            let milli = if whole == 0 { part_milli } else { whole * u64::from(GPU_MILLI_WHOLE) };
            let part = |all: u128| all * u128::from(milli) / self.gpu_milli.max(1);
            let (cpu_milli, memory_mib) = (part(self.cpu_milli), part(self.memory_mib));
            Need { replicas, whole, part_milli, cpu_milli, memory_mib }
        };
        sizes.map(need).collect()
    }
}

/// How many replicas would not fit.
fn kept_out(needs: &[Need], free: Free) -> u64 {
    needs.iter().filter(|need| !need.fits(free)).map(|need| need.replicas).sum()
}

fn free_on(state: &State, node: &scheduler_core::node::Node) -> Free {
    let milli = u64::from(GPU_MILLI_WHOLE);
    let total = &node.resources;
    let Some(usage) = state.usage(node.id) else {
        return Free::default();
    };
    let whole = u64::from(usage.gpus_free(node).len());
    let parts = usage.shares.iter().map(|&(_, taken)| milli - u64::from(taken).min(milli));
    Free {
        whole,
        part_milli: parts.clone().max().unwrap_or(0),
        gpu_milli: whole * milli + parts.sum::<u64>(),
        cpu_milli: total.cpu.0.saturating_sub(usage.used.cpu.0),
        memory_mib: total.memory.0.saturating_sub(usage.used.memory.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::fixture::entry::{group, job_spec};

    fn demand(asks: &[(u32, u8)]) -> Demand {
        let mut demand = Demand::default();
        for &(replicas, gpus) in asks {
            demand.note(&job_spec(vec![group("workers", replicas, gpus)]));
        }
        demand
    }

    fn free(whole: u64, part_milli: u64) -> Free {
        let gpu_milli = whole * 1_000 + part_milli;
        let (cpu_milli, memory_mib) = (u64::MAX, u64::MAX);
        Free { whole, part_milli, gpu_milli, cpu_milli, memory_mib }
    }

    #[test]
    fn a_job_is_kept_out_by_gpus_or_by_what_goes_with_them() {
        let demand = demand(&[(3, 8), (1, 2)]);
        assert_eq!(kept_out(&demand.needs(), free(8, 0)), 0);
        assert_eq!(kept_out(&demand.needs(), free(7, 900)), 3);
        assert_eq!(kept_out(&demand.needs(), free(1, 0)), 4);
        let no_cpu = Free { cpu_milli: 0, ..free(8, 0) };
        let asks_cpu = demand.cpu_milli > 0;
        assert_eq!(kept_out(&demand.needs(), no_cpu), if asks_cpu { 4 } else { 0 });
    }

    #[test]
    fn a_share_fits_beside_another() {
        let mut demand = Demand::default();
        let mut workers = group("workers", 2, 1);
        workers.shape.gpus = GpuAsk::Share(400);
        demand.note(&job_spec(vec![workers]));
        assert_eq!(kept_out(&demand.needs(), free(0, 400)), 0);
        assert_eq!(kept_out(&demand.needs(), free(0, 399)), 2);
        assert_eq!(kept_out(&demand.needs(), free(1, 0)), 0);
    }
}
