//! The simple policies of the literature, as the simulator of Weng et al. (USENIX ATC 2023,
//! hkust-adsl/kubernetes-scheduler-simulator) has them, so that results can be compared.
//!
//! **Invariant:** scores are whole numbers rounded down as there: the coarse steps, with ties by
//! node order, are part of what these policies do.

use super::Scorer;
use super::look::Look;
use crate::job::GpuAsk;
use crate::unit::GPU_MILLI_WHOLE;

/// Best score.
const BEST: i32 = 100;

/// All nodes alike; the board draws one of them.
pub(super) struct Random;

impl Scorer for Random {
    fn score(&self, _look: &Look<'_>) -> i32 {
        0
    }
}

/// Largest node of the fleet, by which free amounts are normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Largest {
    pub(super) cpu: u64,
    pub(super) gpu_milli: u64,
}

/// Amounts of up to 2^53 are exact; nodes have less.
fn part(of: u64, whole: u64) -> f64 {
    of as f64 / whole.max(1) as f64
}

/// Least left over, CPU and GPU weighing the same.
pub(super) struct BestFit(pub(super) Largest);

impl Scorer for BestFit {
    fn score(&self, look: &Look<'_>) -> i32 {
        let cpu = look.spare.cpu.saturating_sub(look.needs.cpu.0);
        let gpu = u64::from(look.spare.gpu_milli().saturating_sub(look.asked_milli()));
        let left = part(cpu, self.0.cpu) * 0.5 + part(gpu, self.0.gpu_milli) * 0.5;
        ((1.0 - left) * f64::from(BEST)) as i32
    }
}

/// Least product of what is free and what is asked for.
pub(super) struct DotProduct(pub(super) Largest);

impl Scorer for DotProduct {
    fn score(&self, look: &Look<'_>) -> i32 {
        let cpu = part(look.spare.cpu, self.0.cpu) * part(look.needs.cpu.0, self.0.cpu);
        let free = part(u64::from(look.spare.gpu_milli()), self.0.gpu_milli);
        let gpu = free * part(u64::from(look.asked_milli()), self.0.gpu_milli);
        ((1.0 - (cpu + gpu) / 2.0) * f64::from(BEST)) as i32
    }
}

/// Shared GPUs, then free GPUs of nodes in use, then idle nodes; CPU replicas anywhere.
pub(super) struct GpuPacking;

impl Scorer for GpuPacking {
    fn score(&self, look: &Look<'_>) -> i32 {
        let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        if look.gpus == GpuAsk::None {
            return 0;
        }
        let idle = look.spare.idle;
        if idle == look.gpus_all {
            return (BEST / 3 - number(idle)).max(number(idle));
        }
        let shared = match look.gpus {
            GpuAsk::Share(milli) => look.tightest(milli).filter(|opening| opening.at.is_some()),
            GpuAsk::None | GpuAsk::Whole(_) => None,
        };
        match shared {
            Some(opening) => {
                let left_percent = i32::from(opening.left) * 100 / i32::from(GPU_MILLI_WHOLE);
                (BEST - left_percent / 10).max(BEST / 2)
            }
            None => {
                let opened = look.asked_milli().div_ceil(u32::from(GPU_MILLI_WHOLE));
                (BEST / 2 - number(opened)).max(BEST / 3)
            }
        }
    }
}

/// Nodes with replicas of the same number of GPUs, and of those the fullest; CPU replicas anywhere.
pub(super) struct GpuClustering(pub(super) Largest);

impl Scorer for GpuClustering {
    fn score(&self, look: &Look<'_>) -> i32 {
        if look.gpus == GpuAsk::None {
            return 0;
        }
        let class = match (look.work.same, look.work.others) {
            (true, false) => 3,
            (true, true) => 2,
            (false, false) => 1,
            (false, true) => 0,
        };
        let whole = self.0.gpu_milli.max(1);
        let used = whole.saturating_sub(u64::from(look.spare.gpu_milli()));
        let fullness = u64::from(BEST.unsigned_abs()) / 4 * used / whole;
        i32::try_from(fullness).unwrap_or(0) + BEST / 4 * class
    }
}
