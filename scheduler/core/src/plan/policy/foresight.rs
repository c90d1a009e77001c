//! Foresight, our default: a short list by fragment, then likely arrivals played through.
//!
//! 1. Every node is scored by how little its fragment grows, as in `fgd`, with the kinds weighted
//!    by number times the root of their GPUs: large kinds keep whole machines whole.
//! 2. For the best few, the same sequences of likely arrivals are offered to the node as it is and
//!    as it would be; the node whose GPUs left over grow least is taken. A kind is offered at the
//!    rate at which it would reach one node: its share of arrivals over the nodes that can host it
//!    now.
//!
//! The mix is learned from arrivals alone.
//! **Invariant:** the outlook is a snapshot of the view; sequences follow from it and a fixed seed.

use super::Scorer;
use super::draw::Draw;
use super::fragment::{Fragment, Weighted, admits};
use super::look::{Look, Spare};
use super::{SCORE_MAX, SCORE_MIN};
use crate::job::GpuAsk;
use crate::node::{Models, Resources};
use crate::unit::{CpuMilli, DiskMib, GPU_MILLI_WHOLE, MemoryMib};
use crate::view::{Classes, Kind, KindId, Mix, View};

/// Nodes that get a second look.
const SHORTLIST: usize = 16;
/// Sequences played through.
const SEQUENCES: usize = 8;
/// Longest sequence.
const OFFERS_MAX: usize = 64;
/// Most offers of one kind, on average.
const RATE_MAX: f64 = 16.0;
/// Arrivals looked ahead, per node of the fleet.
const HORIZON_PER_NODE: f64 = 25.0;
/// Nodes of which is counted which kinds they can host: enough for two digits.
const SAMPLE: usize = 2_048;
/// Kinds that are played, the most frequent ones: all but one arrival in a hundred.
const PLAYED_PERCENT: u64 = 99;
/// Parts of a thousandth of a GPU that scores tell apart.
const SCORE_PARTS: f64 = 64.0;
/// Seed of the sequences. Any would do; it only has to stay the same.
const SEED: u64 = 42;

/// A kind as it is played.
#[derive(Clone, Debug)]
struct Offer {
    gpus: GpuAsk,
    cpu: u64,
    memory: u64,
    /// By kind of node: whether it may go there.
    admitted: Vec<bool>,
}

/// Likely arrivals, as they would reach one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    offers: Vec<Offer>,
    /// Offers by number.
    sequences: Vec<Vec<u16>>,
}

impl Outlook {
    pub(crate) fn new(view: &View, mix: &Mix) -> Self {
        let mut by_count: Vec<&(Kind, u64)> = mix.kinds.iter().collect();
        by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let total: u64 = by_count.iter().map(|(_, count)| count).sum();
        let mut reached = 0;
        let played: Vec<&(Kind, u64)> = by_count
            .into_iter()
            .take_while(|(_, count)| {
                let more = reached * 100 < total * PLAYED_PERCENT;
                reached += count;
                more
            })
            .collect();
        let offers: Vec<Offer> = played
            .iter()
            .map(|(kind, _)| Offer {
                gpus: kind.gpus,
                cpu: kind.cpu.0,
                memory: kind.memory.0,
                admitted: view
                    .classes()
                    .gpu_lists()
                    .map(|g| admits(kind, g, view.models()))
                    .collect(),
            })
            .collect();
        let hosts = hosts(view, &offers);
        let arrivals = HORIZON_PER_NODE * view.nodes_len() as f64;
        let rates: Vec<f64> = played
            .iter()
            .zip(hosts)
            .map(|((_, count), hosts)| {
                let share = *count as f64 / total.max(1) as f64;
                if hosts > 0.0 { (arrivals * share / hosts).min(RATE_MAX) } else { 0.0 }
            })
            .collect();
        let mut draw = Draw::new(SEED);
        let sequences = (0..SEQUENCES).map(|_| sequence(&rates, &mut draw)).collect();
        Self { offers, sequences }
    }

    /// Thousandths of GPUs left over by each sequence, in all.
    fn left_over(&self, kind: KindId, spare: &Spare) -> i64 {
        let mut left = 0i64;
        for sequence in &self.sequences {
            let mut spare = *spare;
            for &offer in sequence {
                if let Some(offer) = self.offers.get(usize::from(offer)) {
                    offer.play(kind, &mut spare);
                }
            }
            left += i64::from(spare.gpu_milli());
        }
        left
    }
}

impl Offer {
    /// Takes what it asks for, if it is there; whether it is.
    fn play(&self, KindId(kind): KindId, spare: &mut Spare) -> bool {
        if spare.cpu < self.cpu || spare.memory < self.memory {
            return false;
        }
        if !self.admitted.get(kind as usize).copied().unwrap_or(false) {
            return false;
        }
        match self.gpus {
            GpuAsk::None => {}
            GpuAsk::Whole(count) => {
                if spare.idle < u32::from(count) {
                    return false;
                }
                spare.take_idle(u32::from(count));
            }
            GpuAsk::Share(milli) => {
                let shared = spare.shared().iter().enumerate();
                let roomy = shared.filter(|&(_, &left)| left >= milli);
                let at = roomy.min_by_key(|&(_, &left)| left).map(|(at, _)| at);
                if at.is_none() && spare.idle == 0 {
                    return false;
                }
                spare.take_share(at, milli);
            }
        }
        let (cpu, memory) = (CpuMilli(self.cpu), MemoryMib(self.memory));
        spare.take_resources(Resources { cpu, memory, disk: DiskMib::ZERO });
        true
    }
}

/// About how many nodes of the fleet can host each offer now.
fn hosts(view: &View, offers: &[Offer]) -> Vec<f64> {
    let stride = view.node_end().div_ceil(SAMPLE).max(1);
    let mut hosts = vec![0u32; offers.len()];
    for at in (0..view.node_end()).step_by(stride) {
        let Some(slot) = u32::try_from(at).ok().and_then(|node| view.slot(node)) else { continue };
        if !slot.open {
            continue;
        }
        let spare = Spare::of(&slot.free);
        for (count, offer) in hosts.iter_mut().zip(offers) {
            let mut spare = spare;
            *count += u32::from(offer.play(slot.kind, &mut spare));
        }
    }
    hosts.into_iter().map(|count| f64::from(count) * stride as f64).collect()
}

fn sequence(rates: &[f64], draw: &mut Draw) -> Vec<u16> {
    let mut sequence: Vec<u16> = (0u16..)
        .zip(rates)
        .flat_map(|(offer, &rate)| std::iter::repeat_n(offer, draw.poisson(rate) as usize))
        .collect();
    draw.shuffle(&mut sequence);
    sequence.truncate(OFFERS_MAX);
    sequence
}

pub(super) struct Foresight {
    fragment: Fragment,
    outlook: std::sync::Arc<Outlook>,
}

impl Foresight {
    pub(super) fn new(
        mix: &Mix,
        classes: &Classes,
        models: &Models,
        outlook: std::sync::Arc<Outlook>,
    ) -> Self {
        let weights = mix.kinds.iter().map(|(kind, count)| {
            let gpus = match kind.gpus {
                GpuAsk::None => 0.0,
                GpuAsk::Whole(count) => f64::from(count),
                GpuAsk::Share(milli) => f64::from(milli) / f64::from(GPU_MILLI_WHOLE),
            };
            *count as f64 * gpus.sqrt()
        });
        let weights: Vec<f64> = weights.collect();
        let sum: f64 = weights.iter().sum();
        let kinds = mix.kinds.iter().map(|(kind, _)| kind);
        let weighted: Vec<Weighted<'_>> = kinds
            .zip(&weights)
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(kind, weight)| (kind, weight / sum))
            .collect();
        Self { fragment: Fragment::new(&weighted, classes, models), outlook }
    }

    fn gain(&self, look: &Look<'_>, after: &Spare) -> f64 {
        self.fragment.of(look.kind, &look.spare) - self.fragment.of(look.kind, after)
    }

    /// What is free after the replica went to the GPU that is best for it, and that GPU.
    fn best(&self, look: &Look<'_>) -> (f64, Spare, Option<u8>) {
        let GpuAsk::Share(milli) = look.gpus else {
            let after = look.after(None);
            return (self.gain(look, &after), after, None);
        };
        let mut best: Option<(f64, Spare, Option<u8>)> = None;
        for opening in look.openings(milli) {
            let after = look.after(Some(opening));
            let gain = self.gain(look, &after);
            if best.as_ref().is_none_or(|(most, _, _)| gain > *most) {
                best = Some((gain, after, Some(opening.gpu)));
            }
        }
        best.unwrap_or((0.0, look.spare, None))
    }
}

impl Scorer for Foresight {
    fn score(&self, look: &Look<'_>) -> i32 {
        let (gain, _, _) = self.best(look);
        (gain * SCORE_PARTS).clamp(f64::from(SCORE_MIN), f64::from(SCORE_MAX)) as i32
    }

    fn device(&self, look: &Look<'_>) -> Option<u8> {
        self.best(look).2
    }

    fn second_looks(&self) -> usize {
        SHORTLIST
    }

    fn cost(&self, look: &Look<'_>) -> i64 {
        let (_, after, _) = self.best(look);
        self.outlook.left_over(look.kind, &after) - self.outlook.left_over(look.kind, &look.spare)
    }
}
