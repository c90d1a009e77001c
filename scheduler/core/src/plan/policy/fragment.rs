//! Fragment: how many of a node's free GPUs a mix of kinds could not use, as Weng et al. (USENIX
//! ATC 2023) define it.
//!
//! For one kind it is all that is free if the node cannot host a replica of that kind (model, GPUs
//! or CPU), else what is left on GPUs that are too full for it; the fragment is the mean over the
//! kinds by their weights. A kind that asks for no GPU counts everything.
//! **Invariant:** sums run in a fixed order, so the same mix and node give the same number anywhere.

use super::admits::Admits;
use super::look::Spare;
use crate::job::GpuAsk;
use crate::node::{Gpu, Models};
use crate::unit::GPU_MILLI_WHOLE;
use crate::view::{Classes, Kind, KindId};

/// Typical kinds are the most frequent that make up this share of the arrivals, in per cent.
pub(super) const TYPICAL_PERCENT: u64 = 95;
/// Most typical kinds. Real traces have some fifty, one in which many models are named a hundred.
const TYPICAL_MAX: usize = 256;
/// Cells of all tables of a [`Fragment`], which grow with the kinds of nodes and with the square of
/// the typical kinds: a bound on memory (128 MiB) and time. Up to 256 kinds of nodes it is none.
const CELLS_MAX: usize = 1 << 24;

/// How many kinds may be typical in a fleet of so many kinds of nodes.
pub(super) fn typical_max(node_kinds: usize) -> usize {
    (CELLS_MAX / node_kinds.max(1)).isqrt().min(TYPICAL_MAX)
}

/// The most frequent kinds, most frequent first and so many at most, that make up so many per cent
/// of all of these.
pub(super) fn frequent<'a>(
    kinds: impl Iterator<Item = &'a (Kind, u64)>,
    percent: u64,
    most: usize,
) -> Vec<&'a (Kind, u64)> {
    let mut by_count: Vec<&(Kind, u64)> = kinds.collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let total: u64 = by_count.iter().map(|(_, count)| count).sum();
    let mut reached = 0u64;
    let wanted = by_count.into_iter().take_while(|(_, count)| {
        let more = u128::from(reached) * 100 < u128::from(total) * u128::from(percent);
        reached += count;
        more
    });
    wanted.take(most).collect()
}

/// Kinds of replicas with the same GPUs.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Whole GPUs; 0 for a share.
    count: u32,
    milli: u16,
    /// Weight of all of them.
    all: f64,
}

/// Weights as seen by the nodes of one kind of GPUs.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Weight of the kinds that can never run there or need no GPU.
    never: f64,
    rows: Vec<Row>,
    /// By rank of CPU, then by row: weight of the kinds that ask for at most the CPU of each rank
    /// below; at rank 0 of none. A node is held against all rows at one rank, so these lie together.
    within: Vec<f64>,
}

/// Weighted kinds, ready to be held against nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Fragment {
    /// CPU asked for by any kind, rising.
    cpus: Vec<u64>,
    /// By kind of node.
    tables: Vec<Table>,
}

/// A kind of replica with its weight.
pub(super) type Weighted<'a> = (&'a Kind, f64);

impl Fragment {
    pub(super) fn new(weighted: &[Weighted<'_>], classes: &Classes, models: &Models) -> Self {
        let mut cpus: Vec<u64> = weighted.iter().map(|(kind, _)| kind.cpu.0).collect();
        cpus.sort_unstable();
        cpus.dedup();
        let held = |&(kind, weight)| (kind, weight, Admits::new(kind, models));
        let mut by_ask: Vec<(&Kind, f64, Admits)> = weighted.iter().map(held).collect();
        by_ask.sort_by_key(|(kind, _, _)| kind.gpus);
        let tables = classes.gpu_lists().map(|gpus| Table::new(&by_ask, &cpus, gpus));
        Self { tables: tables.collect(), cpus }
    }

    /// Expected thousandths of the node's free GPUs that are of no use.
    pub(super) fn of(&self, KindId(kind): KindId, spare: &Spare) -> f64 {
        let Some(table) = self.tables.get(kind as usize) else { return 0.0 };
        let rank = self.cpus.partition_point(|&cpu| cpu <= spare.cpu);
        let free = spare.gpu_milli();
        if free == 0 {
            return 0.0;
        }
        let shared = spare.shared();
        let holes: u32 = shared.iter().map(|&left| u32::from(left)).sum();
        let total = f64::from(free);
        let mut lost = table.never * total;
        let rows = table.rows.len();
        let within = table.within.get(rank * rows..(rank + 1) * rows).unwrap_or(&[]);
        for (row, within) in table.rows.iter().zip(within) {
            let (hosts, unusable) = if row.count > 0 {
                (spare.idle >= row.count, holes)
            } else {
                let mut roomy = spare.idle > 0;
                let mut small = 0u32;
                for &left in shared {
                    if left >= row.milli {
                        roomy = true;
                    } else {
                        small += u32::from(left);
                    }
                }
                (roomy, small)
            };
            lost += if hosts {
                within * f64::from(unusable) + (row.all - within) * total
            } else {
                row.all * total
            };
        }
        lost
    }
}

impl Table {
    /// Of kinds that lie together by the GPUs that they ask for.
    fn new(by_ask: &[(&Kind, f64, Admits)], cpus: &[u64], gpus: &[Gpu]) -> Self {
        let mut table = Self::default();
        let mut within_of_rows: Vec<Vec<f64>> = Vec::new();
        for same in by_ask.chunk_by(|(a, _, _), (b, _, _)| a.gpus == b.gpus) {
            let Some((first, _, _)) = same.first() else { continue };
            let (count, milli) = match first.gpus {
                GpuAsk::None => {
                    table.never += same.iter().map(|(_, weight, _)| weight).sum::<f64>();
                    continue;
                }
                GpuAsk::Whole(count) => (u32::from(count), GPU_MILLI_WHOLE),
                GpuAsk::Share(milli) => (0, milli),
            };
            let mut at_rank = vec![0.0; cpus.len()];
            let mut all = 0.0;
            for (kind, weight, admits) in same {
                if !admits.to(gpus) {
                    table.never += weight;
                    continue;
                }
                all += weight;
                let rank = cpus.partition_point(|&cpu| cpu < kind.cpu.0);
                if let Some(sum) = at_rank.get_mut(rank) {
                    *sum += weight;
                }
            }
            let mut within = vec![0.0];
            let mut sum = 0.0;
            for weight in at_rank {
                sum += weight;
                within.push(sum);
            }
            if all > 0.0 {
                table.rows.push(Row { count, milli, all: sum });
                within_of_rows.push(within);
            }
        }
        for rank in 0..=cpus.len() {
            let at_rank = within_of_rows.iter().filter_map(|within| within.get(rank));
            table.within.extend(at_rank);
        }
        table
    }
}
