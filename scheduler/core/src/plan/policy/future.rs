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
