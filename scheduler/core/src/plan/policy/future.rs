//! Future: sequences of likely arrivals, played through on one node.
//!
//! A node takes few of the arrivals of a sequence, so the others are not even looked at: for each
//! amount of GPU and of CPU a sequence has the set of its arrivals that ask for no more, and the
//! next one to take is the first in two such sets. What a node has only shrinks while it is
//! played, and the sets with it.
//! **Invariant:** whole numbers only; a sequence offers each arrival once, in order, and what does
//! not fit is gone.

use super::look::{Spare, asked_milli};
use crate::job::GpuAsk;
use crate::unit::{GPU_MILLI_WHOLE, GPUS_PER_NODE_MAX};
use crate::view::KindId;

/// GPUs of a node that are played at speed: those of nearly all machines.
const FAST_GPUS: usize = 8;

/// Turns the order of unsigned numbers into that of signed ones.
const SIGN: u16 = 1 << 15;

/// Arrivals of a sequence, by place.
type Set = u128;

/// Longest sequence.
pub(super) const OFFERS_MAX: usize = Set::BITS as usize;

/// One kind of arrival.
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

    /// Thousandths of GPUs that a node must have; see [`reach`].
    fn milli(&self) -> u32 {
        asked_milli(self.gpus)
    }
}

/// A kind of arrival with its ranks among all of them, the first of which is 1.
#[derive(Clone, Copy, Debug)]
struct Kind {
    offer: Offer,
    by_gpus: usize,
    by_cpu: usize,
}

/// Sets by rank and sequence: those of one rank lie side by side.
#[derive(Clone, Debug, Default)]
struct Sets {
    /// Sequences.
    width: usize,
    sets: Vec<Set>,
}

impl Sets {
    fn new(ranks: usize, width: usize) -> Self {
        Self { width, sets: vec![0; ranks * width] }
    }

    fn add(&mut self, rank: usize, sequence: usize, one: Set) {
        if let Some(set) = self.sets.get_mut(rank * self.width + sequence) {
            *set |= one;
        }
    }

    /// Each set takes in those of lower ranks.
    fn add_up(&mut self) {
        for at in self.width..self.sets.len() {
            let below = self.sets.get(at - self.width).copied().unwrap_or(0);
            if let Some(set) = self.sets.get_mut(at) {
                *set |= below;
            }
        }
    }

    fn of_rank(&self, rank: usize) -> &[Set] {
        self.sets.get(rank * self.width..(rank + 1) * self.width).unwrap_or(&[])
    }

    fn get(&self, rank: usize, sequence: usize) -> Set {
        self.sets.get(rank * self.width + sequence).copied().unwrap_or(0)
    }
}

/// Sequences of arrivals, and what all of them are made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Future {
    kinds: Vec<Kind>,
    /// What any of them asks for, rising.
    millis: Vec<u32>,
    cpus: Vec<u64>,
    /// Kinds by place, of each sequence.
    sequences: Vec<Vec<u16>>,
    /// Arrivals that ask for GPUs.
    with_gpus: Vec<Set>,
    /// Arrivals within each rank of GPUs and of CPU; at the first rank there are none.
    within_gpus: Sets,
    within_cpu: Sets,
    /// By kind of node: arrivals that may go there.
    admitted: Sets,
}

/// What a node has while it is played.
struct Node<const GPUS: usize> {
    cpu: u64,
    memory: u64,
    /// Thousandths left.
    gpus: [u16; GPUS],
}

impl Future {
    /// Sequences of these kinds by number, each at most [`OFFERS_MAX`] long. `admits`: by kind of
    /// node and kind of arrival, whether the one may host the other.
    pub(super) fn new(offers: Vec<Offer>, drawn: &[Vec<u16>], admits: &[Vec<bool>]) -> Self {
        let mut millis: Vec<u32> = offers.iter().map(Offer::milli).collect();
        let mut cpus: Vec<u64> = offers.iter().map(|offer| offer.cpu).collect();
        millis.sort_unstable();
        millis.dedup();
        cpus.sort_unstable();
        cpus.dedup();
        let width = drawn.len();
        let mut future = Self {
            with_gpus: vec![0; width],
            within_gpus: Sets::new(millis.len() + 1, width),
            within_cpu: Sets::new(cpus.len() + 1, width),
            admitted: Sets::new(admits.len(), width),
            sequences: Vec::with_capacity(width),
            kinds: Vec::with_capacity(offers.len()),
            millis,
            cpus,
        };
        for offer in offers {
            let (by_gpus, by_cpu) =
                (future.rank_of_milli(offer.milli()), future.rank_of_cpu(offer.cpu));
            future.kinds.push(Kind { offer, by_gpus, by_cpu });
        }
        for (sequence, kinds) in drawn.iter().enumerate() {
            let kinds: Vec<u16> = kinds.iter().take(OFFERS_MAX).copied().collect();
            for (place, &kind) in kinds.iter().enumerate() {
                future.put(sequence, place, usize::from(kind), admits);
            }
            future.sequences.push(kinds);
        }
        future.within_gpus.add_up();
        future.within_cpu.add_up();
        future
    }

    fn put(&mut self, sequence: usize, place: usize, kind: usize, admits: &[Vec<bool>]) {
        let Some(&Kind { offer, by_gpus, by_cpu }) = self.kinds.get(kind) else { return };
        let one: Set = 1 << place;
        self.within_gpus.add(by_gpus, sequence, one);
        self.within_cpu.add(by_cpu, sequence, one);
        if let Some(set) = self.with_gpus.get_mut(sequence).filter(|_| offer.milli() > 0) {
            *set |= one;
        }
        for (node, admits) in admits.iter().enumerate() {
            if admits.get(kind).copied().unwrap_or(false) {
                self.admitted.add(node, sequence, one);
            }
        }
    }

    /// Thousandths of GPUs left over on a node of the kind, the mean over the sequences.
    pub(super) fn left_over(&self, kind: KindId, spare: &Spare) -> f64 {
        let gpus = spare.shared().len() + spare.idle as usize;
        let sum = if gpus <= FAST_GPUS {
            self.sum_left::<FAST_GPUS>(kind, spare)
        } else {
            self.sum_left::<GPUS_PER_NODE_MAX>(kind, spare)
        };
        sum as f64 / self.sequences.len().max(1) as f64
    }

    fn sum_left<const GPUS: usize>(&self, KindId(kind): KindId, spare: &Spare) -> u64 {
        let mut gpus = [0u16; GPUS];
        let idle = std::iter::repeat_n(GPU_MILLI_WHOLE, spare.idle as usize);
        for (gpu, left) in gpus.iter_mut().zip(spare.shared().iter().copied().chain(idle)) {
            *gpu = left;
        }
        let admitted = self.admitted.of_rank(kind as usize).iter();
        let by_gpus = self.within_gpus.of_rank(self.rank_of_milli(reach(&gpus)));
        let by_cpu = self.within_cpu.of_rank(self.rank_of_cpu(spare.cpu));
        let open = admitted.zip(by_gpus).zip(by_cpu).map(|((a, b), c)| a & b & c);
        let mut taken = 0;
        for (sequence, (open, with_gpus)) in open.zip(&self.with_gpus).enumerate() {
            if open & with_gpus != 0 {
                let node = Node { cpu: spare.cpu, memory: spare.memory, gpus };
                taken += u64::from(self.play(sequence, open, *with_gpus, node));
            }
        }
        u64::from(spare.gpu_milli()) * self.sequences.len() as u64 - taken
    }

    /// Thousandths taken when what is `open` of a sequence has been offered. When something is met
    /// that does not fit, whatever asks for as much or more goes with it.
    fn play<const GPUS: usize>(
        &self,
        sequence: usize,
        mut open: Set,
        with_gpus: Set,
        node: Node<GPUS>,
    ) -> u32 {
        let Node { mut cpu, mut memory, mut gpus } = node;
        let kinds = self.sequences.get(sequence).map_or(&[][..], Vec::as_slice);
        let mut taken = 0;
        while open & with_gpus != 0 {
            let place = open.trailing_zeros() as usize;
            open &= open - 1;
            let kind = kinds.get(place).copied().unwrap_or(0);
            let Some(Kind { offer, by_gpus, by_cpu }) = self.kinds.get(usize::from(kind)) else {
                continue;
            };
            if offer.cpu > cpu {
                open &= self.within_cpu.get(by_cpu.saturating_sub(1), sequence);
                continue;
            }
            if offer.memory > memory {
                continue;
            }
            let fits = match offer.gpus {
                GpuAsk::None => true,
                GpuAsk::Share(milli) => take_tightest(&mut gpus, milli),
                GpuAsk::Whole(1) => take_tightest(&mut gpus, GPU_MILLI_WHOLE),
                GpuAsk::Whole(count) => take_idle(&mut gpus, usize::from(count)),
            };
            if fits {
                cpu -= offer.cpu;
                memory -= offer.memory;
                taken += offer.milli();
            } else {
                open &= self.within_gpus.get(by_gpus.saturating_sub(1), sequence);
            }
        }
        taken
    }

    fn rank_of_milli(&self, milli: u32) -> usize {
        self.millis.partition_point(|&most| most <= milli)
    }

    fn rank_of_cpu(&self, cpu: u64) -> usize {
        self.cpus.partition_point(|&most| most <= cpu)
    }
}

/// The most thousandths that one arrival can have: all of the idle GPUs together, or what is left
/// of the emptiest.
#[inline]
fn reach<const GPUS: usize>(gpus: &[u16; GPUS]) -> u32 {
    let (mut most, mut idle) = (0u16, 0u16);
    for &left in gpus {
        most = most.max(left);
        idle += u16::from(left == GPU_MILLI_WHOLE);
    }
    u32::from(most).max(u32::from(idle) * u32::from(GPU_MILLI_WHOLE))
}

/// Takes so much of the fullest GPU that has it; whether there is one.
#[inline]
fn take_tightest<const GPUS: usize>(gpus: &mut [u16; GPUS], milli: u16) -> bool {
    // Too small ones wrap round to large numbers; the least is the tightest. Processors find the
    // least of many signed numbers at once, so the order is moved there and back.
    let mut least = i16::MAX;
    for &left in gpus.iter() {
        least = least.min((left.wrapping_sub(milli) ^ SIGN).cast_signed());
    }
    let tightest = least.cast_unsigned() ^ SIGN;
    if tightest > GPU_MILLI_WHOLE {
        return false;
    }
    let wanted = tightest + milli;
    if let Some(left) = gpus.iter_mut().find(|left| **left == wanted) {
        *left = tightest;
    }
    true
}

/// Takes so many idle GPUs, if there are.
#[inline]
fn take_idle<const GPUS: usize>(gpus: &mut [u16; GPUS], count: usize) -> bool {
    if gpus.iter().filter(|left| **left == GPU_MILLI_WHOLE).count() < count {
        return false;
    }
    let idle = gpus.iter_mut().filter(|left| **left == GPU_MILLI_WHOLE);
    idle.take(count).for_each(|left| *left = 0);
    true
}

#[cfg(test)]
mod tests {
    use super::super::draw::Draw;
    use super::*;
    use crate::node::Resources;
    use crate::unit::{CpuMilli, DiskMib, GpuSet, MemoryMib};
    use crate::view::Free;

    fn spare(gpus: usize, taken: &[u16], cpu: u64, memory: u64) -> Spare {
        let mut free = Free::default();
        let (cpu, memory) = (CpuMilli(cpu), MemoryMib(memory));
        free.rest = Resources { cpu, memory, disk: DiskMib::ZERO };
        free.idle = GpuSet::first(gpus);
        for (gpu, &milli) in (0u8..).zip(taken) {
            free.take_share(gpu, milli);
        }
        Spare::of(&free)
    }

    fn offer(gpus: GpuAsk, cpu: u64) -> Offer {
        Offer { cpu, memory: 10, gpus }
    }

    /// One sequence of all the offers, admitted everywhere.
    fn left_over(offers: &[Offer], spare: &Spare) -> f64 {
        let all: Vec<u16> = (0u16..).take(offers.len()).collect();
        let future = Future::new(offers.to_vec(), &[all], &[vec![true; offers.len()]]);
        future.left_over(KindId(0), spare)
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
        // Two GPUs, one with 600 left: 500 goes there, 300 opens the other, one whole finds none.
        assert_eq!(left_over(&offers, &spare(2, &[400], 100, 1_000)), 100.0 + 700.0);
        // With CPU for one of them only, the first takes it.
        assert_eq!(left_over(&offers, &spare(2, &[400], 1, 1_000)), 100.0 + 1_000.0);
        // With memory for two, the third is gone.
        assert_eq!(left_over(&offers, &spare(3, &[400], 100, 20)), 100.0 + 700.0 + 1_000.0);
        // Ten GPUs: eight whole, then the shares, then one.
        let left = left_over(&offers, &spare(11, &[400], 100, 1_000));
        assert_eq!(left, 100.0 + 700.0, "many GPUs count alike");
    }

    #[test]
    fn an_offer_fits_where_all_of_it_is() {
        let node = spare(2, &[400], 5, 1_000);
        assert!(offer(GpuAsk::Share(600), 5).fits(&node));
        assert!(!offer(GpuAsk::Share(600), 6).fits(&node));
        assert!(!offer(GpuAsk::Whole(2), 1).fits(&node));
        assert!(offer(GpuAsk::None, 5).fits(&node));
    }

    /// Offers one after another, each held against what is left.
    fn plainly(offers: &[&Offer], spare: &Spare) -> u64 {
        let (mut cpu, mut memory) = (spare.cpu, spare.memory);
        let mut gpus: Vec<u16> = spare.shared().to_vec();
        gpus.extend(std::iter::repeat_n(GPU_MILLI_WHOLE, spare.idle as usize));
        for offer in offers {
            if offer.cpu > cpu || offer.memory > memory {
                continue;
            }
            match offer.gpus {
                GpuAsk::None => {}
                GpuAsk::Whole(count) => {
                    let idle = gpus.iter().filter(|left| **left == GPU_MILLI_WHOLE).count();
                    if idle < usize::from(count) {
                        continue;
                    }
                    let idle = gpus.iter_mut().filter(|left| **left == GPU_MILLI_WHOLE);
                    idle.take(usize::from(count)).for_each(|left| *left = 0);
                }
                GpuAsk::Share(milli) => {
                    let roomy = gpus.iter_mut().filter(|left| **left >= milli);
                    let Some(left) = roomy.min_by_key(|left| **left) else { continue };
                    *left -= milli;
                }
            }
            (cpu, memory) = (cpu - offer.cpu, memory - offer.memory);
        }
        gpus.iter().map(|&left| u64::from(left)).sum()
    }

    #[test]
    fn sets_leave_over_what_plain_playing_does() {
        let mut draw = Draw::new(5);
        for _ in 0..2_000 {
            let below = |draw: &mut Draw, end: u16| {
                u16::try_from(draw.below(usize::from(end))).unwrap_or(0)
            };
            let offers: Vec<Offer> = (0..12)
                .map(|_| {
                    let gpus = match draw.below(6) {
                        0 => GpuAsk::None,
                        1 => GpuAsk::Whole(1),
                        2 => GpuAsk::Whole(1 << draw.below(4)),
                        _ => GpuAsk::Share(1 + below(&mut draw, 999)),
                    };
                    let memory = draw.below(5) as u64;
                    Offer { cpu: draw.below(6) as u64, memory, gpus }
                })
                .collect();
            let admits: Vec<bool> = (0..12).map(|_| draw.below(4) > 0).collect();
            let drawn: Vec<Vec<u16>> =
                (0..3).map(|_| (0..60).map(|_| below(&mut draw, 12)).collect()).collect();
            let shares: Vec<u16> = (0..draw.below(4)).map(|_| 1 + below(&mut draw, 999)).collect();
            let gpus = shares.len() + draw.below(10);
            let node = spare(gpus, &shares, draw.below(60) as u64, draw.below(60) as u64);
            let expected: u64 = drawn
                .iter()
                .map(|kinds| {
                    let kinds = kinds.iter().map(|&kind| usize::from(kind));
                    let list = kinds.filter(|&kind| admits[kind]).map(|kind| &offers[kind]);
                    plainly(&list.collect::<Vec<_>>(), &node)
                })
                .sum();
            let future = Future::new(offers, &drawn, &[admits]);
            assert_eq!(future.left_over(KindId(0), &node), expected as f64 / 3.0);
        }
    }
}
