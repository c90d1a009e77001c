//! Future: sequences of likely arrivals, played through on one node.
//!
//! **Invariant:** whole numbers only; a sequence offers each arrival once, in order, and what does
//! not fit is gone.

use super::look::Spare;
use crate::job::GpuAsk;
use crate::unit::GPU_MILLI_WHOLE;

/// GPUs of a node that are played at speed; larger nodes take the slow way.
const FAST_GPUS: usize = 8;

/// One arrival of a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) cpu: u64,
    pub(super) memory: u64,
    pub(super) gpus: GpuAsk,
}

impl Offer {
    /// Whether a node with so much to spare can host it.
    pub(super) fn fits(&self, spare: &Spare) -> bool {
        let gpus = match self.gpus {
            GpuAsk::None => true,
            GpuAsk::Whole(count) => spare.idle >= u32::from(count),
            GpuAsk::Share(milli) => {
                spare.idle > 0 || spare.shared().iter().any(|&left| left >= milli)
            }
        };
        gpus && self.cpu <= spare.cpu && self.memory <= spare.memory
    }
}

/// An offer with the least that it and any later one with GPUs asks for, by which playing ends
/// early.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u64,
    memory: u64,
    /// Thousandths of each GPU.
    milli: u16,
    /// GPUs; 0 = none, a share counts as one.
    count: u8,
    cpu_least: u64,
    milli_least: u16,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Sequence(Vec<Step>);

impl Sequence {
    pub(super) fn new(offers: &[Offer]) -> Self {
        let (mut cpu_least, mut milli_least) = (u64::MAX, u16::MAX);
        let mut steps: Vec<Step> = Vec::with_capacity(offers.len());
        for offer in offers.iter().rev() {
            let (count, milli) = match offer.gpus {
                GpuAsk::None => (0, 0),
                GpuAsk::Whole(count) => (count, GPU_MILLI_WHOLE),
                GpuAsk::Share(milli) => (1, milli),
            };
            if count > 0 {
                cpu_least = cpu_least.min(offer.cpu);
                milli_least = milli_least.min(milli);
            }
            let (cpu, memory) = (offer.cpu, offer.memory);
            steps.push(Step { cpu, memory, milli, count, cpu_least, milli_least });
        }
        steps.reverse();
        Self(steps)
    }

    /// Thousandths of GPUs left over.
    pub(super) fn left_over(&self, spare: &Spare) -> u32 {
        let shared = spare.shared();
        if shared.len() + spare.idle as usize > FAST_GPUS {
            return self.left_over_slow(spare);
        }
        let mut devices = [0u16; FAST_GPUS];
        let idle = std::iter::repeat_n(GPU_MILLI_WHOLE, spare.idle as usize);
        for (device, left) in devices.iter_mut().zip(shared.iter().copied().chain(idle)) {
            *device = left;
        }
        self.play(spare.cpu, spare.memory, &mut devices);
        devices.iter().map(|&left| u32::from(left)).sum()
    }

    fn left_over_slow(&self, spare: &Spare) -> u32 {
        let idle = std::iter::repeat_n(GPU_MILLI_WHOLE, spare.idle as usize);
        let mut devices: Vec<u16> = spare.shared().iter().copied().chain(idle).collect();
        self.play(spare.cpu, spare.memory, &mut devices);
        devices.iter().map(|&left| u32::from(left)).sum()
    }

    #[inline]
    fn play(&self, mut cpu: u64, mut memory: u64, devices: &mut [u16]) {
        let mut most = devices.iter().copied().max().unwrap_or(0);
        for step in &self.0 {
            if step.cpu_least > cpu || step.milli_least > most {
                return;
            }
            if step.cpu > cpu || step.memory > memory || step.milli > most {
                continue;
            }
            match step.count {
                0 => {}
                1 => {
                    // Too small ones wrap round to large numbers; the least is the tightest.
                    let mut tightest = u16::MAX;
                    for &left in devices.iter() {
                        tightest = tightest.min(left.wrapping_sub(step.milli));
                    }
                    let wanted = tightest.wrapping_add(step.milli);
                    if let Some(left) = devices.iter_mut().find(|left| **left == wanted) {
                        *left = tightest;
                    }
                    most = devices.iter().copied().max().unwrap_or(0);
                }
                count => {
                    let idle = devices.iter().filter(|left| **left == GPU_MILLI_WHOLE).count();
                    if idle < usize::from(count) {
                        continue;
                    }
                    let idle = devices.iter_mut().filter(|left| **left == GPU_MILLI_WHOLE);
                    for left in idle.take(usize::from(count)) {
                        *left = 0;
                    }
                    most = devices.iter().copied().max().unwrap_or(0);
                }
            }
            cpu -= step.cpu;
            memory -= step.memory;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Resources;
    use crate::unit::{CpuMilli, DiskMib, GpuSet, MemoryMib};
    use crate::view::Free;

    fn spare(gpus: usize, taken: u16, cpu: u64) -> Spare {
        let mut free = Free::default();
        let (memory, disk) = (MemoryMib(1_000), DiskMib::ZERO);
        free.rest = Resources { cpu: CpuMilli(cpu), memory, disk };
        free.idle = GpuSet::first(gpus);
        if taken > 0 {
            free.take_share(0, taken);
        }
        Spare::of(&free)
    }

    fn offer(gpus: GpuAsk, cpu: u64) -> Offer {
        Offer { cpu, memory: 10, gpus }
    }

    #[test]
    fn what_fits_is_taken_in_order_and_the_rest_is_gone() {
        let offers = [
            offer(GpuAsk::Whole(8), 1),
            offer(GpuAsk::Share(500), 1),
            offer(GpuAsk::Share(300), 1),
            offer(GpuAsk::Whole(1), 1),
            offer(GpuAsk::None, 1),
        ];
        let sequence = Sequence::new(&offers);
        // Two GPUs, one with 600 left: 500 goes there, 300 opens the other, one whole finds none.
        assert_eq!(sequence.left_over(&spare(2, 400, 100)), 100 + 700);
        // With CPU for one of them only, the first takes it.
        assert_eq!(sequence.left_over(&spare(2, 400, 1)), 100 + 1_000);
        // Ten GPUs: eight whole, then the shares, then one.
        let left = sequence.left_over(&spare(11, 400, 100));
        assert_eq!(left, 100 + 700, "the slow way counts alike");
    }

    #[test]
    fn an_offer_fits_where_all_of_it_is() {
        let node = spare(2, 400, 5);
        assert!(offer(GpuAsk::Share(600), 5).fits(&node));
        assert!(!offer(GpuAsk::Share(600), 6).fits(&node));
        assert!(!offer(GpuAsk::Whole(2), 1).fits(&node));
        assert!(offer(GpuAsk::None, 5).fits(&node));
    }
}
