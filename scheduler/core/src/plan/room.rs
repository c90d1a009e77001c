//! Room: how many replicas a node's free capacity holds, and which exact GPUs one of them gets.
//!
//! **Invariant:** [`take`] succeeds exactly as often in a row as [`room`] says (for one group).

use super::ask::{GpuFit, GroupAsk};
use crate::job::GpuAsk;
use crate::node::Gpu;
use crate::unit::{GPU_MILLI_WHOLE, GpuSet};
use crate::view::Free;

/// Replicas of the group that fit beside each other into what is free, at most `most`.
pub(super) fn room(group: &GroupAsk, gpus: &[Gpu], free: &Free, fit: GpuFit, most: u32) -> u32 {
    match gpu_room(group, gpus, free, fit, most) {
        0 => 0,
        most => {
            let most = free.resource_slots(group.needs.resources(), most);
            free.custom_slots(group.needs.custom(), most)
        }
    }
}

/// The same, going by GPUs alone.
pub(super) fn gpu_room(group: &GroupAsk, gpus: &[Gpu], free: &Free, fit: GpuFit, most: u32) -> u32 {
    let by_gpus = match group.needs.gpus() {
        GpuAsk::None => most,
        GpuAsk::Whole(count) => {
            let usable = free.idle & fit.mask;
            let count = u32::from(count).max(1);
            if fit.plain || count == 1 {
                usable.len() / count
            } else {
                by_model(gpus, usable).iter().map(|(_, gpus)| gpus.len() / count).sum()
            }
        }
        GpuAsk::Share(milli) => {
            let milli = milli.max(1);
            let in_idle = (free.idle & fit.mask).len() * u32::from(GPU_MILLI_WHOLE / milli);
            let in_partial = free.partial().iter().filter(|(index, _)| fit.mask.contains(*index));
            in_idle + in_partial.map(|&(_, left)| u32::from(left / milli)).sum::<u32>()
        }
    };
    by_gpus.min(most)
}

/// Exact GPUs for one replica: those that leave the best rest. `None` if it does not fit.
/// `gpus` is only read where the node's GPUs differ, and may be empty where they do not.
pub(super) fn pick(group: &GroupAsk, gpus: &[Gpu], free: &Free, fit: GpuFit) -> Option<GpuSet> {
    let most = free.resource_slots(group.needs.resources(), 1);
    if free.custom_slots(group.needs.custom(), most) == 0 {
        return None;
    }
    match group.needs.gpus() {
        GpuAsk::None => Some(GpuSet::EMPTY),
        GpuAsk::Whole(count) => pick_whole(gpus, free.idle & fit.mask, fit.plain, count),
        GpuAsk::Share(milli) => pick_share(gpus, free, fit, milli),
    }
}

/// Takes what one replica needs; its exact GPUs, and of a shared one how many thousandths. `None`,
/// and nothing taken, if it does not fit. `gpus` as for [`pick`].
pub(super) fn take(
    group: &GroupAsk,
    gpus: &[Gpu],
    free: &mut Free,
    fit: GpuFit,
) -> Option<(GpuSet, u16)> {
    let gpus = pick(group, gpus, free, fit)?;
    let share_milli = match group.needs.gpus() {
        GpuAsk::Share(milli) => milli,
        GpuAsk::None | GpuAsk::Whole(_) => 0,
    };
    free.take(gpus, share_milli, group.needs.resources());
    free.take_custom(group.needs.custom());
    Some((gpus, share_milli))
}

fn pick_whole(gpus: &[Gpu], usable: GpuSet, plain: bool, count: u8) -> Option<GpuSet> {
    let count = u32::from(count);
    if usable.len() < count {
        return None;
    }
    if plain {
        return Some(lowest(usable, count));
    }
    // The model with the fewest GPUs that suffice, so that larger sets stay whole.
    let models = by_model(gpus, usable);
    let (_, of_model) = models
        .iter()
        .filter(|(_, gpus)| gpus.len() >= count)
        .min_by_key(|(model, gpus)| (gpus.len(), *model))?;
    // Then the link domain with the fewest; if no single one suffices, the fullest first, so that
    // the replica spans as few as can be.
    let mut domains = by_domain(gpus, *of_model);
    if let Some((_, gpus)) = domains
        .iter()
        .filter(|(_, gpus)| gpus.len() >= count)
        .min_by_key(|(domain, gpus)| (gpus.len(), *domain))
    {
        return Some(lowest(*gpus, count));
    }
    domains.sort_by_key(|(domain, gpus)| (std::cmp::Reverse(gpus.len()), *domain));
    let mut taken = GpuSet::EMPTY;
    for (_, gpus) in domains {
        taken = taken | lowest(gpus, count - taken.len());
        if taken.len() == count {
            return Some(taken);
        }
    }
    None
}

/// The shared GPU with the least left that suffices, else an idle one of the barest link domain.
fn pick_share(gpus: &[Gpu], free: &Free, fit: GpuFit, milli: u16) -> Option<GpuSet> {
    let shared = free
        .partial()
        .iter()
        .filter(|&&(index, left)| left >= milli && fit.mask.contains(index))
        .min_by_key(|&&(index, left)| (left, index));
    if let Some(&(index, _)) = shared {
        return Some(GpuSet::single(index));
    }
    let usable = free.idle & fit.mask;
    if fit.plain {
        return (!usable.is_empty()).then(|| lowest(usable, 1));
    }
    let domains = by_domain(gpus, usable);
    let (_, barest) = domains.iter().min_by_key(|(domain, gpus)| (gpus.len(), *domain))?;
    Some(lowest(*barest, 1))
}

/// The `count` GPUs with the lowest indexes; all, if there are fewer.
pub(super) fn lowest(gpus: GpuSet, count: u32) -> GpuSet {
    if gpus.len() <= count {
        return gpus;
    }
    let mut rest = gpus.0;
    for _ in 0..count {
        rest &= rest.wrapping_sub(1);
    }
    GpuSet(gpus.0 & !rest)
}

fn by_model(gpus: &[Gpu], usable: GpuSet) -> Vec<(u16, GpuSet)> {
    split(gpus, usable, |gpu| gpu.model.0)
}

fn by_domain(gpus: &[Gpu], usable: GpuSet) -> Vec<(u8, GpuSet)> {
    split(gpus, usable, |gpu| gpu.link_domain)
}

/// The usable GPUs split by some property, in order of first sight.
fn split<K: PartialEq>(gpus: &[Gpu], usable: GpuSet, key: impl Fn(&Gpu) -> K) -> Vec<(K, GpuSet)> {
    let mut parts: Vec<(K, GpuSet)> = Vec::new();
    for (index, gpu) in (0u8..).zip(gpus).filter(|&(index, _)| usable.contains(index)) {
        let key = key(gpu);
        let one = GpuSet::single(index);
        match parts.iter_mut().find(|(other, _)| *other == key) {
            Some((_, set)) => *set = *set | one,
            None => parts.push((key, one)),
        }
    }
    parts
}
