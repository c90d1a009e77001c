//! Explain: why a request could not be placed, in numbers that add up.
//!
//! **Invariant:** every node of the fleet is counted under exactly one cause.

use super::Steps;
use super::ask::{Ask, Fit, GroupAsk};
use super::draft::Base;
use super::field::{Domain, Field, covers};
use super::room::{gpu_room, room};
use super::solve::Solver;
use crate::fit::Misfit;
use crate::id::SiteId;
use crate::job::{JobSpec, REASON_BYTES_MAX, Reason, ReasonCode};
use crate::node::NodeStatus;
use crate::unit::RttUs;
use crate::view::Slot;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// What keeps one node from serving the group that could not be placed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    GpuModel,
    Vram,
    GpuCount,
    Selector,
    Taint,
    Price,
    /// Even the empty node has too little.
    Cpu,
    Memory,
    Disk,
    Down,
    /// Cordoned or draining.
    Cordoned,
    /// The request says to avoid it.
    Avoided,
    /// Too few of its suitable GPUs are free.
    GpusBusy,
    CpuBusy,
    MemoryBusy,
    DiskBusy,
    /// Has room, but lies outside the largest part of the fleet that keeps the RTT bound or the
    /// required topology.
    TooFar,
    /// Has room; there are too few like it.
    Usable,
}

impl Cause {
    fn text(self) -> &'static str {
        match self {
            Self::GpuModel => "GPU model",
            Self::Vram => "vRAM",
            Self::GpuCount => "GPU count",
            Self::Selector => "selector",
            Self::Taint => "taint",
            Self::Price => "price",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Down => "down",
            Self::Cordoned => "cordoned",
            Self::Avoided => "avoided",
            Self::GpusBusy => "GPUs busy",
            Self::CpuBusy => "CPU busy",
            Self::MemoryBusy => "memory busy",
            Self::DiskBusy => "disk busy",
            Self::TooFar => "too far",
            Self::Usable => "usable",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl From<Misfit> for Cause {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::GpuModel => Self::GpuModel,
            Misfit::Vram => Self::Vram,
            Misfit::GpuCount => Self::GpuCount,
            Misfit::Selector => Self::Selector,
            Misfit::Taint => Self::Taint,
            Misfit::Price => Self::Price,
            Misfit::Cpu => Self::Cpu,
            Misfit::Memory => Self::Memory,
            Misfit::Disk => Self::Disk,
        }
    }
}

/// What would have to change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// No node of the fleet, whatever its status, could hold one replica of some group.
    NoSuchPool,
    /// The whole fleet, empty and up, would not hold the gang.
    NeverFits,
    /// It would, but nodes are down or cordoned.
    NotReady,
    /// It fits what is free now, but not within the RTT bound or topology domain.
    Network,
    /// It fits the fleet, but not what is free now.
    Busy,
    /// The budget ran out before the answer was certain.
    Undecided,
}

/// The nearest miss.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Nearest {
    /// Replicas of each group of the spec that could be placed now, each group by itself, within
    /// the best domain if there is a bound; at most as many as wait.
    pub placeable: Vec<u32>,
    /// Replicas that wait, per group.
    pub wanted: Vec<u32>,
    /// The smallest RTT bound found under which the gang fits now; `None` without an RTT bound or
    /// when no bound would do.
    pub rtt_max: Option<RttUs>,
}

/// A refusal with numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unplaceable {
    /// Nodes of the fleet.
    pub nodes: u32,
    /// Nodes per cause, for the group that is hardest to place; they sum to `nodes`.
    pub counts: Vec<(Cause, u32)>,
    /// Index of that group in the spec.
    pub group: usize,
    pub verdict: Verdict,
    pub nearest: Nearest,
}

impl fmt::Display for Unplaceable {
    /// One line: usable of all nodes, then the causes by falling count, then the nearest miss.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usable = self.counts.iter().find(|(cause, _)| *cause == Cause::Usable);
        let usable = usable.map_or(0, |(_, count)| *count);
        write!(f, "{} of {} nodes usable", Grouped(usable), Grouped(self.nodes))?;
        let mut others: Vec<_> =
            self.counts.iter().filter(|(cause, _)| *cause != Cause::Usable).collect();
        others.sort_by_key(|(cause, count)| (std::cmp::Reverse(*count), *cause));
        let mut separator = ": ";
        for (cause, count) in others {
            write!(f, "{separator}{} {}", Grouped(*count), cause.text())?;
            separator = ", ";
        }
        let placeable: u32 = self.nearest.placeable.iter().sum();
        let wanted: u32 = self.nearest.wanted.iter().sum();
        write!(f, "; {} of {} replicas would fit", Grouped(placeable), Grouped(wanted))?;
        if let Some(RttUs(rtt)) = self.nearest.rtt_max {
            write!(f, "; an rtt_max of {}.{:03} ms would do", rtt / 1000, rtt % 1000)?;
        }
        if self.verdict == Verdict::Undecided {
            f.write_str("; the planning budget ran out")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unplaceable {}

impl Unplaceable {
    /// The reason a pending job carries.
    pub fn to_reason(&self) -> Reason {
        let code = match self.verdict {
            Verdict::NoSuchPool | Verdict::NeverFits => ReasonCode::NeverFits,
            Verdict::Network => ReasonCode::Network,
            Verdict::NotReady | Verdict::Busy | Verdict::Undecided => ReasonCode::Busy,
        };
        let mut message = self.to_string();
        // All ASCII, so any byte is a boundary.
        message.truncate(REASON_BYTES_MAX);
        Reason { code, message: message.into() }
    }
}

/// A number with commas between thousands.
struct Grouped(u32);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Why the ask, whose field this is, could not be placed.
pub(super) fn unplaceable(ask: &Ask<'_>, field: &Field, steps: &mut Steps) -> Unplaceable {
    let aborted = steps.is_spent();
    let minimum = least(ask);
    let (verdict, unbound_rtt) =
        if aborted { (Verdict::Undecided, None) } else { verdict(ask, field, &minimum, steps) };
    let network = verdict == Verdict::Network;
    let near = network.then(|| largest_part(ask, field));
    let within = |slot: &Slot| near.as_ref().is_none_or(|domain| domain.admits(slot));
    let hardest = hardest(ask, field, &minimum);
    let counts = count(ask, hardest, within);
    let mut nearest = Nearest { rtt_max: unbound_rtt, ..Nearest::default() };
    nearest.placeable.resize(ask.spec.groups.len(), 0);
    nearest.wanted.resize(ask.spec.groups.len(), 0);
    for (at, group) in ask.groups.iter().enumerate() {
        let everywhere = Domain { sites: field.sites(), rack: None };
        let domain = near.as_ref().unwrap_or(&everywhere);
        let fits: u64 =
            field.cands(ask, at, domain, true).map(|(cand, _)| u64::from(cand.room)).sum();
        let fits = u32::try_from(fits).unwrap_or(u32::MAX).min(group.wanted());
        if let Some(cell) = nearest.placeable.get_mut(group.group) {
            *cell = fits;
        }
        if let Some(cell) = nearest.wanted.get_mut(group.group) {
            *cell = group.wanted();
        }
    }
    Unplaceable {
        nodes: counts.values().sum(),
        counts: counts.into_iter().collect(),
        group: ask.groups.get(hardest).map_or(0, |group| group.group),
        verdict,
        nearest,
    }
}

/// Why a single replica, which is all that was asked, fits nowhere.
pub(super) fn alone(ask: &Ask<'_>) -> Unplaceable {
    let counts = count(ask, 0, |_| true);
    let has = |causes: &[Cause]| causes.iter().any(|cause| counts.contains_key(cause));
    let verdict = if has(&[Cause::Usable]) {
        Verdict::Undecided
    } else if has(&[Cause::GpusBusy, Cause::CpuBusy, Cause::MemoryBusy, Cause::DiskBusy]) {
        Verdict::Busy
    } else if has(&[Cause::Down, Cause::Cordoned, Cause::Avoided]) {
        Verdict::NotReady
    } else {
        Verdict::NoSuchPool
    };
    let group = ask.groups.first().map_or(0, |group| group.group);
    let mut wanted = vec![0; ask.spec.groups.len()];
    if let Some(cell) = wanted.get_mut(group) {
        *cell = 1;
    }
    let placeable = vec![0; ask.spec.groups.len()];
    Unplaceable {
        nodes: counts.values().sum(),
        counts: counts.into_iter().collect(),
        group,
        verdict,
        nearest: Nearest { placeable, wanted, rtt_max: None },
    }
}

/// The minimum of each group; one replica of the first where none is required at all.
fn least(ask: &Ask<'_>) -> Vec<u32> {
    let mut least = ask.minimum();
    if least.iter().all(|&count| count == 0)
        && let Some(first) = least.first_mut()
    {
        *first = 1;
    }
    least
}

fn verdict(
    ask: &Ask<'_>,
    field: &Field,
    minimum: &[u32],
    steps: &mut Steps,
) -> (Verdict, Option<RttUs>) {
    let pool = |group: &GroupAsk| {
        let fits = group.class_fits(ask.view);
        ask.view.slots().any(|(_, slot)| {
            let known = fits.get(slot.class.0 as usize).copied().flatten();
            known.is_some_and(|known| group.fit(slot, known).misfit.is_none())
        })
    };
    if !ask.groups.iter().all(pool) {
        return (Verdict::NoSuchPool, None);
    }
    let unbound = JobSpec { rtt_max: None, ..ask.spec.clone() };
    let free = JobSpec { topology_required: None, ..unbound.clone() };
    if ask.spec.rtt_max.is_some()
        && let Some(rtt) = widest_rtt(ask, &unbound, field, minimum, steps)
    {
        return (Verdict::Network, rtt);
    }
    let bound = ask.spec.rtt_max.is_some() || ask.spec.topology_required.is_some();
    if bound && widest_rtt(ask, &free, field, minimum, steps).is_some() {
        return (Verdict::Network, None);
    }
    for (base, verdict) in
        [(Base::EmptyAll, Verdict::NeverFits), (Base::EmptyOpen, Verdict::NotReady)]
    {
        let empty = Field::new(ask, base, steps);
        if (Solver { ask, field: &empty, base }).solve(minimum, steps).is_none() {
            let certain = !steps.is_spent();
            return (if certain { verdict } else { Verdict::Undecided }, None);
        }
    }
    (Verdict::Busy, None)
}

/// Places the minimum under a relaxed spec. `Some` = it fits, with the largest RTT among its sites
/// where all are known.
fn widest_rtt(
    ask: &Ask<'_>,
    spec: &JobSpec,
    field: &Field,
    minimum: &[u32],
    steps: &mut Steps,
) -> Option<Option<RttUs>> {
    let relaxed = Ask { view: ask.view, spec, groups: ask.groups.clone(), ..ask.clone() };
    let solver = Solver { ask: &relaxed, field, base: Base::Now };
    let placements = solver.solve(minimum, steps)?;
    let nodes = placements.iter().map(|placement| placement.node.0).chain(ask.fixed.clone());
    let mut sites: Vec<SiteId> = nodes.filter_map(|node| Some(ask.view.slot(node)?.site)).collect();
    sites.sort_unstable();
    sites.dedup();
    let table = ask.view.sites();
    let mut widest = RttUs::ZERO;
    for (at, &a) in sites.iter().enumerate() {
        for &b in sites.iter().skip(at) {
            match table.rtt(a, b) {
                Some(rtt) => widest = widest.max(rtt),
                None => return Some(None),
            }
        }
    }
    Some(Some(widest))
}

/// The part of the fleet inside the bounds with the most room: around each site the others that
/// keep the RTT bound towards all taken so far, the roomiest first; or the roomiest domain.
fn largest_part(ask: &Ask<'_>, field: &Field) -> Domain {
    let sites = field.sites();
    let table = ask.view.sites();
    let room = |site: u16| -> u64 { field.amounts(site, true).iter().take(ask.groups.len()).sum() };
    let level = ask.spec.topology_required;
    let alike = |a: u16, b: u16| {
        let (Some(x), Some(y)) = (table.site(SiteId(a)), table.site(SiteId(b))) else {
            return false;
        };
        match level {
            None => true,
            Some(crate::job::Level::Region) => x.region == y.region,
            Some(crate::job::Level::Zone) => x.region == y.region && x.zone == y.zone,
            Some(crate::job::Level::Site | crate::job::Level::Rack) => a == b,
        }
    };
    let near = |a: u16, b: u16| {
        alike(a, b)
            && ask
                .spec
                .rtt_max
                .is_none_or(|bound| table.rtt(SiteId(a), SiteId(b)).is_some_and(|rtt| rtt <= bound))
    };
    let mut by_room = sites.clone();
    by_room.sort_by_key(|&site| (std::cmp::Reverse(room(site)), site));
    let mut best: (u64, Vec<u16>) = (0, Vec::new());
    for &centre in &sites {
        let mut part = vec![centre];
        for &site in by_room.iter().filter(|&&site| site != centre) {
            if part.iter().all(|&other| near(site, other)) {
                part.push(site);
            }
        }
        let total = part.iter().map(|&site| room(site)).sum();
        if total > best.0 {
            part.sort_unstable();
            best = (total, part);
        }
    }
    Domain { sites: best.1, rack: None }
}

/// The first group that does not even fit alone; else the one with the least slack.
fn hardest(ask: &Ask<'_>, field: &Field, minimum: &[u32]) -> usize {
    let have = field.sum(&field.sites(), true);
    let slack = |at: usize| {
        let have = have.get(at).copied().unwrap_or(0);
        let need = u64::from(minimum.get(at).copied().unwrap_or(0)).max(1);
        have.saturating_mul(1000) / need
    };
    let alone = (0..ask.groups.len()).find(|&at| {
        let (have, need) = (have.get(at).copied().unwrap_or(0), minimum.get(at).copied());
        !covers(&[have], &[u64::from(need.unwrap_or(0))])
    });
    alone.or_else(|| (0..ask.groups.len()).min_by_key(|&at| (slack(at), at))).unwrap_or(0)
}

fn count(ask: &Ask<'_>, hardest: usize, within: impl Fn(&Slot) -> bool) -> BTreeMap<Cause, u32> {
    let mut counts = BTreeMap::new();
    let Some(group) = ask.groups.get(hardest) else {
        // Nothing was asked; every node would do.
        let nodes = u32::try_from(ask.view.nodes_len()).unwrap_or(u32::MAX);
        return BTreeMap::from([(Cause::Usable, nodes)]);
    };
    let fits = group.class_fits(ask.view);
    for (node, slot) in ask.view.slots() {
        let known = fits.get(slot.class.0 as usize).copied().flatten();
        let Some(fit) = known.map(|known| group.fit(slot, known)) else { continue };
        let cause = match fit.misfit {
            Some(misfit) => misfit.into(),
            None if slot.node.status == NodeStatus::Down => Cause::Down,
            None if !slot.open => Cause::Cordoned,
            None if ask.avoids(node) => Cause::Avoided,
            None if room(group, &slot.node, &slot.free, fit, 1) == 0 => busy(group, slot, fit),
            None if !within(slot) => Cause::TooFar,
            None => Cause::Usable,
        };
        *counts.entry(cause).or_insert(0) += 1;
    }
    counts
}

/// What of the node is used up.
fn busy(group: &GroupAsk, slot: &Slot, fit: Fit) -> Cause {
    let (need, left) = (group.needs.resources(), slot.free.rest);
    if gpu_room(group, &slot.node, &slot.free, fit, 1) == 0 {
        Cause::GpusBusy
    } else if need.cpu > left.cpu {
        Cause::CpuBusy
    } else if need.memory > left.memory {
        Cause::MemoryBusy
    } else {
        Cause::DiskBusy
    }
}
