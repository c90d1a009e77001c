//! Foresight, our default: it adds up estimates of the GPUs that a choice leaves unused.
//!
//! 1. The growth of the node's fragment as `fgd` has it, the kinds weighted by number times the root
//!    of their GPUs.
//! 2. For a share, the rise of the hole's price (`holes`): which remainders find takers, by a linear
//!    program of what is to come.
//! 3. The node's free GPUs: of equals the fuller node, so that whole machines stay whole; or what a
//!    rare room loses of its price (`rooms`).
//! 4. What it takes of GPUs that others are bound to (`bounds`), and, where these or the machines for
//!    large replicas become too few for what is to come, what those lose who need them (`pools`).
//! 5. For the best few states by these: the same sequences of likely arrivals are offered to the
//!    node as it is and as it would be, and the GPUs left over compared. A kind is offered at the
//!    rate at which it would reach one node: its share of arrivals over the nodes that can host it
//!    now. This sees CPU, memory and models.
//!
//! What serves a fleet that only fills up harms one where work comes and goes: there holes open
//! again, and whole machines must be kept for what needs them. So the weights follow what was seen:
//! see [`Weights`]. A fleet that fills up may be at its start only, so the last of its large rooms
//! are kept too. The mix is learned from arrivals alone.
//! **Invariant:** the outlook is a snapshot of the view; sequences follow from it and a fixed seed.

use super::Scorer;
use super::admits::Admits;
use super::bounds::Bounds;
use super::draw::Draw;
use super::fragment::{Fragment, TYPICAL_PERCENT, Weighted, frequent, typical_max};
use super::future::{Future, OFFERS_MAX, Offer};
use super::holes::{Prices, SIZES, Table};
use super::look::{Look, Opening, Spare};
use super::pools::Pools;
use super::rooms::Rooms;
use super::{SCORE_MAX, SCORE_MIN};
use crate::job::GpuAsk;
use crate::node::Models;
use crate::unit::GPU_MILLI_WHOLE;
use crate::view::{Classes, Kind, KindId, Mix, View};
use std::sync::Arc;

/// Most offers of one kind, on average.
const RATE_MAX: f64 = 64.0;
/// Arrivals looked ahead, per node of the fleet: to its last hole.
const HORIZON_PER_NODE: f64 = 165.0;
/// Demand looked ahead for holes, over the fleet's GPUs; what is free comes on top.
const HORIZON_HOLES: f32 = 0.4;
/// Allocation from which on, in per cent, where work comes and goes, arrivals are played through:
/// below, keeping to the fuller nodes loses nothing and costs less time.
const TIGHT_PERCENT: f64 = 85.0;
/// A fleet of more nodes takes hundreds of thousands of jobs before it is tight, as fast as they
/// come; until then nothing is played through there.
const LARGE_FLEET_NODES: usize = 8_192;
/// Over so many per cent more the weight of what is played rises to its full.
const TIGHT_RISE: f64 = 5.0;
/// Nodes of which is counted which kinds they can host: enough for two digits.
const SAMPLE: usize = 2_048;
/// Kinds that are played, the most frequent ones: all but one arrival in a hundred.
const PLAYED_PERCENT: u64 = 99;
/// Most of them: a bound on the time. The published traces have at most 256.
const PLAYED_MAX: usize = 512;
/// Parts of a thousandth of a GPU that scores and costs tell apart.
const PARTS: f64 = 64.0;
/// A GPU of a node with less CPU than this is no hole for anybody: 3 cores.
const HOLE_CPU_MILLI: u64 = 3_000;
/// Seed of the sequences. Any would do; it only has to stay the same.
const SEED: u64 = 42;

/// How the estimates are weighed. Found by search on the openb workloads, in both regimes.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Weights {
    fragment: f64,
    hole: f64,
    /// Of the node's free GPUs.
    free: f64,
    /// Whether rooms have a price.
    rooms: bool,
    /// Of GPUs that others are bound to.
    bound: f64,
    /// Of what those lose who can go nowhere else.
    pool: f64,
    played: f64,
    /// Sequences played through.
    sequences: usize,
    /// States that get a second look.
    shortlist: usize,
}

impl Weights {
    /// For a fleet that fills up: every remainder counts for good.
    fn fill(allocated_percent: f64, nodes: usize) -> Self {
        let roomy = nodes > LARGE_FLEET_NODES && allocated_percent < TIGHT_PERCENT;
        Self {
            fragment: 0.03,
            hole: 1.0,
            free: 0.003,
            rooms: !roomy,
            bound: 0.0,
            pool: if roomy { 0.0 } else { 0.03 },
            played: if roomy { 0.0 } else { 0.7 },
            sequences: if roomy { 0 } else { 64 },
            shortlist: if roomy { 1 } else { 48 },
        }
    }

    /// For work that comes and goes: whole machines first, and the future only where it is tight.
    fn steady(allocated_percent: f64) -> Self {
        let tight = ((allocated_percent - TIGHT_PERCENT) / TIGHT_RISE).clamp(0.0, 1.0);
        let played = tight * 0.5;
        Self {
            fragment: 1.0,
            hole: 0.0,
            free: 0.03,
            rooms: false,
            // Where it is tight the future tells more exactly who needs what.
            bound: 0.1 - 0.097 * tight,
            pool: 0.1,
            played,
            sequences: if played > 0.0 { 16 } else { 0 },
            shortlist: if played > 0.0 { 16 } else { 1 },
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self::steady(0.0)
    }
}

/// A kind as it is played.
struct Played {
    offer: Offer,
    /// By kind of node: whether it may go there.
    admitted: Vec<bool>,
    /// Its part of all arrivals.
    share: f64,
}

/// What is likely to come, as it would reach one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    future: Future,
    prices: Prices,
    rooms: Rooms,
    bounds: Bounds,
    pools: Pools,
    weights: Weights,
    /// A large fleet with much room.
    roomy: bool,
    /// Outlooks so far.
    number: u64,
}

impl Outlook {
    /// The outlook after `last`, with sequences of its own. `fills`: nothing ever leaves.
    pub(crate) fn new(view: &View, mix: &Mix, fills: bool, last: &Self) -> Self {
        let number = last.number + 1;
        let mut draw = Draw::new(SEED.wrapping_add(number));
        let fleet = Fleet::new(view);
        let allocated = fleet.allocated_percent();
        let weights = if fills {
            Weights::fill(allocated, view.nodes_len())
        } else {
            Weights::steady(allocated)
        };
        let prices = if weights.hole > 0.0 {
            Prices::new(&fleet.holes, &fleet.to_come(mix))
        } else {
            Prices::default()
        };
        let future = match weights.sequences {
            0 => Future::default(),
            count => future(view, played(view, mix), count, &mut draw),
        };
        let rooms = if weights.rooms { Rooms::new(view) } else { Rooms::default() };
        let bounds = if weights.bound > 0.0 {
            let free_milli = &fleet.free_milli_by_kind;
            Bounds::new(mix, view.classes(), view.models(), fleet.gpus, free_milli)
        } else {
            Bounds::default()
        };
        let pools = match weights.pool {
            0.0 => Pools::default(),
            _ => Pools::new(view, mix, fleet.free_milli),
        };
        let roomy = view.nodes_len() > LARGE_FLEET_NODES && allocated < TIGHT_PERCENT;
        Self { future, prices, rooms, bounds, pools, weights, roomy, number }
    }

    /// Whether whole GPUs are as well placed on the fullest node that holds them, which is found
    /// in a tenth of the time: in a large fleet with much room nothing will be missed for long.
    pub(crate) fn is_roomy(&self) -> bool {
        self.roomy
    }
}

/// The most frequent kinds.
fn played(view: &View, mix: &Mix) -> Vec<Played> {
    let total: u64 = mix.kinds.iter().map(|(_, count)| count).sum();
    let frequent = frequent(mix.kinds.iter(), PLAYED_PERCENT, PLAYED_MAX);
    frequent
        .into_iter()
        .map(|(kind, count)| Played {
            offer: Offer { cpu: kind.cpu.0, memory: kind.memory.0, gpus: kind.gpus },
            admitted: admitted(view, kind),
            share: *count as f64 / total.max(1) as f64,
        })
        .collect()
}

/// By kind of node: whether it may go there.
fn admitted(view: &View, kind: &Kind) -> Vec<bool> {
    let admits = Admits::new(kind, view.models());
    view.classes().gpu_lists().map(|gpus| admits.to(gpus)).collect()
}

/// So many sequences, each one draw for all kinds of nodes.
fn future(view: &View, played: Vec<Played>, count: usize, draw: &mut Draw) -> Future {
    let arrivals = HORIZON_PER_NODE * view.nodes_len() as f64;
    let rate = |(kind, hosts): (&Played, f64)| {
        if hosts > 0.0 { (arrivals * kind.share / hosts).min(RATE_MAX) } else { 0.0 }
    };
    let rates: Vec<f64> = played.iter().zip(hosts(view, &played)).map(rate).collect();
    let drawn: Vec<Vec<u16>> = (0..count).map(|_| drawn(&rates, draw)).collect();
    let admits = |kind: usize| {
        played.iter().map(|one| one.admitted.get(kind).copied().unwrap_or(false)).collect()
    };
    let admits: Vec<Vec<bool>> = (0..view.classes().gpu_lists().count()).map(admits).collect();
    Future::new(played.into_iter().map(|one| one.offer).collect(), &drawn, &admits)
}

/// About how many nodes of the fleet can host each kind now.
fn hosts(view: &View, played: &[Played]) -> Vec<f64> {
    let stride = view.node_end().div_ceil(SAMPLE).max(1);
    let mut hosts = vec![0u32; played.len()];
    for at in (0..view.node_end()).step_by(stride) {
        let Some(slot) = u32::try_from(at).ok().and_then(|node| view.slot(node)) else { continue };
        if !slot.open {
            continue;
        }
        let spare = Spare::of(&slot.free);
        let KindId(kind) = slot.kind;
        for (count, one) in hosts.iter_mut().zip(played) {
            let admitted = one.admitted.get(kind as usize).copied().unwrap_or(false);
            *count += u32::from(admitted && one.offer.fits(&spare));
        }
    }
    hosts.into_iter().map(|count| f64::from(count) * stride as f64).collect()
}

/// Kinds in random order, each so often as its rate says, cut to length.
fn drawn(rates: &[f64], draw: &mut Draw) -> Vec<u16> {
    let mut list: Vec<u16> = (0u16..)
        .zip(rates)
        .flat_map(|(at, &rate)| std::iter::repeat_n(at, draw.poisson(rate) as usize))
        .collect();
    draw.shuffle(&mut list);
    list.truncate(OFFERS_MAX);
    list
}

/// Size of a hole with this much left.
fn hole(milli: u16) -> usize {
    usize::from(milli / 10).min(SIZES - 1)
}

/// The fleet's GPUs by what is left of them.
struct Fleet {
    /// GPUs by hundredths left.
    holes: Table,
    /// Of open nodes.
    gpus: u64,
    free_milli: u64,
    /// By kind of node.
    free_milli_by_kind: Vec<u64>,
}

impl Fleet {
    fn new(view: &View) -> Self {
        let classes = view.classes().iter();
        let gpus =
            classes.map(|(_, class)| u64::from(class.open) * class.sample.gpus.len() as u64).sum();
        let free_milli_by_kind = vec![0; view.classes().gpu_lists().count()];
        let mut fleet = Self { holes: [0.0; SIZES], gpus, free_milli: 0, free_milli_by_kind };
        for state in view.states().iter() {
            let spare = Spare::of(state.free());
            let free_milli = u64::from(spare.gpu_milli()) * u64::from(state.len());
            fleet.free_milli += free_milli;
            let KindId(kind) = state.kind();
            if let Some(sum) = fleet.free_milli_by_kind.get_mut(kind as usize) {
                *sum += free_milli;
            }
            if spare.cpu < HOLE_CPU_MILLI {
                continue;
            }
            let idle = std::iter::repeat_n(&GPU_MILLI_WHOLE, spare.idle as usize);
            for &left in spare.shared().iter().chain(idle) {
                if let Some(count) = fleet.holes.get_mut(hole(left)) {
                    *count += state.len() as f32;
                }
            }
        }
        fleet
    }

    fn allocated_percent(&self) -> f64 {
        let all = self.gpus * u64::from(GPU_MILLI_WHOLE);
        100.0 - self.free_milli as f64 * 100.0 / all.max(1) as f64
    }

    /// GPU amounts to come: (hundredths of one GPU, how many).
    fn to_come(&self, mix: &Mix) -> Vec<(usize, f32)> {
        let mut by_size = [0f32; SIZES];
        let mut asked = 0f32;
        for (kind, count) in &mix.kinds {
            let (gpus, milli) = match kind.gpus {
                GpuAsk::None => continue,
                GpuAsk::Whole(gpus) => (f32::from(gpus), GPU_MILLI_WHOLE),
                GpuAsk::Share(milli) => (1.0, milli),
            };
            let count = *count as f32 * gpus;
            if let Some(sum) = by_size.get_mut(usize::from(milli.div_ceil(10))) {
                *sum += count;
            }
            asked += count * f32::from(milli) / f32::from(GPU_MILLI_WHOLE);
        }
        if asked <= 0.0 {
            return Vec::new();
        }
        let free = self.free_milli as f32 / f32::from(GPU_MILLI_WHOLE);
        let amount = free + HORIZON_HOLES * self.gpus as f32;
        let sizes = by_size.iter().enumerate().filter(|(_, count)| **count > 0.0);
        sizes.map(|(size, count)| (size, count / asked * amount)).collect()
    }
}

pub(super) struct Foresight {
    fragment: Fragment,
    outlook: Arc<Outlook>,
}

impl Foresight {
    pub(super) fn new(
        mix: &Mix,
        classes: &Classes,
        models: &Models,
        outlook: Arc<Outlook>,
    ) -> Self {
        let with_gpus = mix.kinds.iter().filter(|(kind, _)| kind.gpus != GpuAsk::None);
        let most = typical_max(classes.gpu_lists().count());
        let typical = frequent(with_gpus, TYPICAL_PERCENT, most);
        let weights = typical.iter().map(|(kind, count)| {
            let gpus = match kind.gpus {
                GpuAsk::None => return 0.0,
                GpuAsk::Whole(count) => f64::from(count),
                GpuAsk::Share(milli) => f64::from(milli) / f64::from(GPU_MILLI_WHOLE),
            };
            *count as f64 * gpus.sqrt()
        });
        let weights: Vec<f64> = weights.collect();
        let sum: f64 = weights.iter().sum();
        let kinds = typical.iter().map(|(kind, _)| kind);
        let weighted: Vec<Weighted<'_>> = kinds
            .zip(&weights)
            .filter(|(_, weight)| **weight > 0.0)
            .map(|(kind, weight)| (kind, weight / sum))
            .collect();
        Self { fragment: Fragment::new(&weighted, classes, models), outlook }
    }

    /// What is bad about the rooms, pools and fragments of a node with so much to spare.
    fn burden(&self, look: &Look<'_>, spare: &Spare) -> f64 {
        let fragment = self.outlook.weights.fragment * self.fragment.of(look.kind, spare);
        let pools = self.outlook.weights.pool * self.outlook.pools.worth(look.kind, spare);
        fragment - self.outlook.rooms.price(spare) - pools
    }

    /// Cost without the future, and what is free afterwards, for a GPU that has room.
    fn at(&self, look: &Look<'_>, before: f64, opening: Option<Opening>) -> (f64, Spare) {
        let after = look.after(opening);
        let growth = self.burden(look, &after) - before;
        let rise = match (look.gpus, opening) {
            (GpuAsk::Share(milli), Some(opening)) => {
                let prices = &self.outlook.prices;
                let left = hole(opening.left.saturating_sub(milli));
                f64::from(prices.of(left) - prices.of(hole(opening.left))) * 10.0
            }
            _ => 0.0,
        };
        let weights = &self.outlook.weights;
        let free = f64::from(look.spare.gpu_milli());
        let bound = self.outlook.bounds.price(look.kind) * f64::from(look.asked_milli());
        let taken = weights.free * free + weights.bound * bound;
        (growth + weights.hole * rise + taken, after)
    }

    /// The least cost without the future, what is free then, and on which GPU.
    fn best(&self, look: &Look<'_>) -> (f64, Spare, Option<u8>) {
        let before = self.burden(look, &look.spare);
        let GpuAsk::Share(milli) = look.gpus else {
            let (cost, after) = self.at(look, before, None);
            return (cost, after, None);
        };
        let mut best: Option<(f64, Spare, Option<u8>)> = None;
        for opening in look.openings(milli) {
            let (cost, after) = self.at(look, before, Some(opening));
            if best.as_ref().is_none_or(|(least, _, _)| cost < *least) {
                best = Some((cost, after, Some(opening.gpu)));
            }
        }
        best.unwrap_or((0.0, look.spare, None))
    }
}

impl Scorer for Foresight {
    fn score(&self, look: &Look<'_>) -> i32 {
        let (cost, _, _) = self.best(look);
        (-cost * PARTS).clamp(f64::from(SCORE_MIN), f64::from(SCORE_MAX)) as i32
    }

    fn device(&self, look: &Look<'_>) -> Option<u8> {
        self.best(look).2
    }

    fn second_looks(&self) -> usize {
        self.outlook.weights.shortlist
    }

    fn standing(&self, look: &Look<'_>) -> f64 {
        self.outlook.future.left_over(look.kind, &look.spare)
    }

    fn cost(&self, look: &Look<'_>, standing: f64) -> i64 {
        let (cost, after, _) = self.best(look);
        let left = self.outlook.future.left_over(look.kind, &after);
        let played = self.outlook.weights.played * (left - standing);
        ((cost + played) * PARTS) as i64
    }
}
