//! Search: the smallest changes that make a job fit, each tried with the planner itself.
//!
//! Every kind of change is first tried as far as it goes; only where that helps, the smallest one
//! that does is looked for, by bisection where more of it never hurts.
//! **Invariant:** one budget for all; whatever is done to the view is undone before a method
//! returns.

use super::answer::{GroupCounts, Help};
use super::outlook::Outlook;
use super::{Change, Rule, Verdict};
use crate::command::Placement;
use crate::fit::{Domain, label};
use crate::id::{Name, SiteId};
use crate::job::{Condition, DomainsMax, GroupSpec, JobSpec, Level, Selector, Shape, Strategy};
use crate::plan::ahead::{Ahead, least};
use crate::plan::{Budget, Ranks, Request, Steps, attempt, probe};
use crate::topology::FAR;
use crate::unit::{
    CostMicroUsd, CpuMilli, DiskMib, MemoryMib, PriceMicroUsd, RttUs, TimeMs, VramMib,
};
use crate::validate;
use crate::view::{Undo, View};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Different values of one kind of condition that are tried: groups mostly share theirs.
const CONDITIONS_MAX: usize = 8;
/// Further GPU models or label values tried for one condition.
const VALUES_TRIED_MAX: usize = 16;
/// Of those, how many that help are told.
const VALUES_TOLD_MAX: usize = 3;
/// Rules that are tried one by one: more than a job that people write has.
const RULES_MAX: usize = 24;
/// Steps that giving back one replica's part of a node is worth.
const RELEASE_STEPS: u64 = 64;
/// One attempt may take this part of what is left of the budget.
const ATTEMPT_PART: u64 = 4;
/// How exactly the resources of a replica are looked for: a tenth of a core, 64 MiB, 1 GiB.
const CPU_STEP: u64 = 100;
const MEMORY_STEP: u64 = 64;
const DISK_STEP: u64 = 1_024;
/// How exactly a bound on the price per hour is looked for: a cent.
const HOURLY_STEP: u64 = 10_000;
/// All levels, from wide to narrow.
const LEVELS: [Level; 5] = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];

/// Where the request stands before anything is changed.
pub(super) struct Standing<'a> {
    pub(super) verdict: Verdict,
    /// The planner placed it: only the quota is in the way.
    pub(super) fits: bool,
    /// Thousandths of GPUs that the least of it asks for.
    pub(super) least: u64,
    /// Thousandths of GPUs that all of it may hold.
    pub(super) left: u64,
    pub(super) outlook: &'a Outlook,
}

impl Standing<'_> {
    fn missing_quota(&self) -> u64 {
        self.least.saturating_sub(self.left)
    }
}

pub(super) struct Search<'a> {
    view: &'a mut View,
    request: Request<'a>,
    steps: Steps,
    pub(super) helps: Vec<Help>,
    pub(super) is_cut: bool,
}

impl<'a> Search<'a> {
    pub(super) fn new(view: &'a mut View, request: Request<'a>, budget: Budget) -> Self {
        let steps = Steps::new(budget.steps_max);
        Self { view, request, steps, helps: Vec::new(), is_cut: false }
    }

    /// Looks for all changes that help, the ones most wanted first.
    pub(super) fn run(&mut self, standing: &Standing<'_>, groups: &[GroupCounts]) {
        if self.steps.is_spent() {
            self.is_cut = true;
            return;
        }
        let missing = standing.missing_quota();
        self.fewer_replicas(standing);
        if missing > 0 {
            if standing.fits {
                self.tell(Change::Quota { gpu_milli_more: missing }, true);
            }
            return self.wait(standing);
        }
        self.wider_rtt();
        self.wider_topology();
        self.more_domains();
        self.softer_strategy();
        self.fewer_rules();
        // Neither pool nor empty fleet holds it: nothing to wait for.
        let hopeless = [Verdict::NoSuchPool, Verdict::NeverFits, Verdict::NotReady];
        if !hopeless.contains(&standing.verdict) {
            self.wait(standing);
        }
        self.more_models();
        self.less_vram();
        self.fewer_selectors();
        self.more_tolerations();
        self.higher_price();
        self.higher_hourly();
        self.fewer_resources();
        let closed = |group: &GroupCounts| group.counts.iter().any(|(cause, _)| cause.is_closed());
        if groups.iter().any(closed) {
            self.open();
        }
    }

    fn spec(&self) -> &'a JobSpec {
        self.request.spec
    }

    fn tell(&mut self, change: Change, is_least: bool) {
        self.helps.push(Help { change, is_least });
    }

    /// Where the least of the job would go under this spec.
    fn place(&mut self, spec: &JobSpec) -> Option<Vec<Placement>> {
        if validate::job(spec).is_err() {
            return None;
        }
        if self.steps.is_spent() {
            self.is_cut = true;
            return None;
        }
        let request = Request { spec, ..self.request };
        let work = |steps: &mut Steps| (probe(self.view, &request, steps), steps.is_spent());
        let (placed, is_spent) = self.steps.part((self.steps.left() / ATTEMPT_PART).max(1), work);
        self.is_cut |= placed.is_none() && is_spent;
        placed
    }

    fn helps(&mut self, change: &Change) -> bool {
        change.apply(self.request.spec).is_some_and(|spec| self.place(&spec).is_some())
    }

    /// The first of the changes 0 to `last` that helps, given that `last` does and that whatever
    /// comes after one that helps does too; and whether all tries on the way were certain.
    fn first_of(&mut self, last: usize, change: impl Fn(usize) -> Change) -> (Change, bool) {
        let cut_before = std::mem::take(&mut self.is_cut);
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.helps(&change(middle)) { high = middle } else { low = middle + 1 }
        }
        let is_least = !std::mem::replace(&mut self.is_cut, cut_before);
        self.is_cut |= !is_least;
        (change(high), is_least)
    }

    /// Bounds of one kind from the least to the most changed one: tells the first that helps.
    fn bound<T: Copy>(&mut self, values: &[T], change: impl Fn(T) -> Change) {
        let Some((&most, last)) = values.last().zip(values.len().checked_sub(1)) else { return };
        if self.helps(&change(most)) {
            let at = |at: usize| change(values.get(at).copied().unwrap_or(most));
            let (change, is_least) = self.first_of(last, at);
            self.tell(change, is_least);
        }
    }

    /// The largest gang that could start now.
    fn fewer_replicas(&mut self, standing: &Standing<'_>) {
        if !matches!(self.request.ranks, Ranks::All) || !self.request.fixed.is_empty() {
            return;
        }
        let mut spec = self.spec().clone();
        let asked = spec.gpu_milli();
        let left = standing.left.min(asked);
        for group in &mut spec.groups {
            // Within the quota all groups shrink alike.
            let part = u128::from(group.replicas) * u128::from(left);
            let most = part.checked_div(u128::from(asked));
            let most = most.map_or(group.replicas, |n| u32::try_from(n).unwrap_or(u32::MAX));
            (group.replicas, group.replicas_min) = (most.max(1), 1);
        }
        if spec.gpu_milli() > left {
            return;
        }
        let request = Request { spec: &spec, ..self.request };
        let work = |steps: &mut Steps| (attempt(self.view, &request, steps), steps.is_spent());
        let (placed, is_spent) = self.steps.part((self.steps.left() / ATTEMPT_PART).max(1), work);
        self.is_cut |= is_spent;
        let is_least = !is_spent;
        let Some(placed) = placed else { return };
        let mut counts = vec![0u32; spec.groups.len()];
        for placement in &placed {
            let cell = spec.group_of(placement.rank).and_then(|group| counts.get_mut(group));
            cell.into_iter().for_each(|count| *count += 1);
        }
        let change = Change::Replicas(counts);
        if self.helps(&change) {
            self.tell(change, is_least);
        }
    }

    fn wider_rtt(&mut self) {
        let Some(bound) = self.spec().rtt_max else { return };
        let unbound = Change::RttMax(None);
        let spec = unbound.apply(self.spec());
        let Some(placed) = spec.and_then(|spec| self.place(&spec)) else { return };
        // Of every pair, and inside every site.
        let sites = (0u16..).take(self.view.net().len());
        let rows = sites.flat_map(|site| self.view.net().high_row(site));
        let mut values: Vec<RttUs> =
            rows.filter(|&&rtt| rtt != FAR).map(|&rtt| RttUs(rtt)).collect();
        let widest = self.widest(&placed);
        values.retain(|&rtt| rtt > bound && widest.is_none_or(|widest| rtt <= widest));
        values.sort_unstable();
        values.dedup();
        let told = self.helps.len();
        self.bound(&values, |rtt| Change::RttMax(Some(rtt)));
        if self.helps.len() == told {
            self.tell(unbound, true);
        }
    }

    /// The largest RTT between two members' sites; `None` where one is not known.
    fn widest(&self, placed: &[Placement]) -> Option<RttUs> {
        let fixed = self.request.fixed.iter().map(|(_, node)| node.0);
        let nodes = placed.iter().map(|placement| placement.node.0).chain(fixed);
        let used: BTreeSet<SiteId> =
            nodes.filter_map(|node| Some(self.view.slot(node)?.site)).collect();
        let sites = self.view.sites();
        let mut widest = RttUs::ZERO;
        for &a in &used {
            for &b in used.range(a..) {
                widest = widest.max(sites.rtt(a, b)?);
            }
        }
        Some(widest)
    }

    fn wider_topology(&mut self) {
        let Some(level) = self.spec().topology_required else { return };
        let levels = [Level::Rack, Level::Site, Level::Zone, Level::Region];
        let wider = levels.into_iter().filter(|&wider| wider < level).map(Some).chain([None]);
        let values: Vec<Option<Level>> = wider.collect();
        self.bound(&values, Change::Topology);
    }

    /// More domains of one level for the job, or for the groups that have the same bound.
    fn more_domains(&mut self) {
        let spec = self.spec();
        let of_job = spec.domains_max.iter().map(|bound| (*bound, Vec::new()));
        let mut bounds: Vec<(DomainsMax, Vec<usize>)> = of_job.collect();
        for level in LEVELS {
            let own = |group: &GroupSpec| {
                group.rules.domains_max.iter().find(|one| one.level == level).copied()
            };
            let same = shared(spec, own).into_iter();
            bounds.extend(same.filter_map(|(bound, groups)| Some((bound?, groups))));
        }
        for (bound, groups) in bounds.into_iter().take(CONDITIONS_MAX) {
            let change = |max: u32| {
                let bound = DomainsMax { max, ..bound };
                Change::DomainsMax { groups: groups.clone(), bound }
            };
            // As many as hold it where there is no bound are enough.
            let unbound = change(validate::REPLICAS_MAX).apply(spec);
            let Some(placed) = unbound.and_then(|spec| self.place(&spec)) else { continue };
            let most = self.domains_of(bound.level, &groups, &placed);
            let values: Vec<u32> = (bound.max.saturating_add(1)..=most).collect();
            self.bound(&values, change);
        }
    }

    /// Most domains in which one of the groups stands, or all do where none is named.
    fn domains_of(&self, level: Level, groups: &[usize], placed: &[Placement]) -> u32 {
        let fixed = self.request.fixed.iter().copied();
        let all = placed.iter().map(|one| (one.rank, one.node)).chain(fixed);
        let mut held: BTreeMap<Option<usize>, BTreeSet<Domain<'_>>> = BTreeMap::new();
        for (rank, node) in all {
            let group = self.spec().group_of(rank);
            let counts = groups.is_empty() || group.is_some_and(|group| groups.contains(&group));
            if let Some(slot) = self.view.slot(node.0).filter(|_| counts) {
                let whose = group.filter(|_| !groups.is_empty());
                held.entry(whose).or_default().insert(Domain::of(level, &slot.node));
            }
        }
        let most = held.values().map(BTreeSet::len).max().unwrap_or(0);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    fn softer_strategy(&mut self) {
        let softer = match self.spec().strategy {
            Strategy::StrictPack => Strategy::Pack,
            Strategy::StrictSpread => Strategy::Spread,
            Strategy::Pack | Strategy::Spread => return,
        };
        self.bound(&[softer], Change::Strategy);
    }

    fn fewer_rules(&mut self) {
        // Where nothing was lost, nothing is to be replaced near by.
        let binds = |rule: Rule| match rule {
            Rule::Repair => !self.request.lost.is_empty(),
            // How much higher is told, see `higher_hourly`.
            // How many more are told, see `more_domains`.
            Rule::HourlyPrice | Rule::Domains | Rule::OwnDomains => false,
            _ => true,
        };
        let rules = Rule::of(self.spec()).into_iter().filter(|(rule, _)| binds(*rule));
        for (rule, groups) in rules.take(RULES_MAX).collect::<Vec<_>>() {
            let change = Change::NoRule { groups, rule };
            if self.helps(&change) {
                self.tell(change, true);
            }
        }
    }

    fn higher_price(&mut self) {
        let Some(bound) = self.spec().price_max else { return };
        let prices: BTreeSet<PriceMicroUsd> =
            self.view.classes().iter().map(|(_, class)| class.sample.price).collect();
        let values: Vec<_> = prices.into_iter().filter(|&price| price > bound).collect();
        self.bound(&values, Change::PriceMax);
    }

    fn higher_hourly(&mut self) {
        let Some(bound) = self.spec().hourly_max else { return };
        let unbound = Rule::HourlyPrice.without(self.spec());
        let Some(placed) = self.place(&unbound) else { return };
        // What it costs where the price is no object does.
        let most = self.hourly(&placed).0.saturating_sub(bound.0);
        let Some(last) = most.div_ceil(HOURLY_STEP).checked_sub(1) else { return };
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        let at = |at: usize| {
            let more = (at as u64).saturating_add(1).saturating_mul(HOURLY_STEP);
            Change::HourlyMax(CostMicroUsd(bound.0.saturating_add(more)))
        };
        if self.helps(&at(last)) {
            let (change, is_least) = self.first_of(last, at);
            self.tell(change, is_least);
        }
    }

    /// Price of all GPUs for an hour, of the members that stay and of these.
    fn hourly(&self, placed: &[Placement]) -> CostMicroUsd {
        let spec = self.spec();
        let fixed = self.request.fixed.iter().copied();
        let all = placed.iter().map(|one| (one.rank, one.node)).chain(fixed);
        let milli_price = all.fold(0u128, |sum, (rank, node)| {
            let group = spec.group_of(rank).and_then(|group| spec.groups.get(group));
            let milli = group.map_or(0, |group| group.shape.gpu_milli());
            let price = self.view.slot(node.0).map_or(0, |slot| slot.node.price.0);
            sum.saturating_add(u128::from(milli) * u128::from(price))
        });
        CostMicroUsd(u64::try_from(milli_price.div_ceil(1_000)).unwrap_or(u64::MAX))
    }

    fn more_models(&mut self) {
        let lists = shared(self.spec(), |group| models(&group.shape));
        for (allowed, groups) in lists.into_iter().filter(|(models, _)| !models.is_empty()) {
            let any = Change::Model { groups: groups.clone(), model: None };
            if !self.helps(&any) {
                continue;
            }
            let others: Vec<Name> = self
                .view
                .models()
                .iter()
                .map(|(_, name)| name.clone())
                .filter(|name| !allowed.contains(name))
                .take(VALUES_TRIED_MAX)
                .collect();
            let groups = &groups;
            self.any_of(&others, any, |model| Change::Model {
                groups: groups.clone(),
                model: Some(model.clone()),
            });
        }
    }

    /// Tells the values that help by themselves, or, where none does, the widest change, which
    /// does.
    fn any_of<T>(&mut self, values: &[T], widest: Change, change: impl Fn(&T) -> Change) {
        let mut told = 0;
        for change in values.iter().map(change) {
            if told < VALUES_TOLD_MAX && self.helps(&change) {
                told += 1;
                self.tell(change, true);
            }
        }
        if told == 0 {
            self.tell(widest, values.len() < VALUES_TRIED_MAX);
        }
    }

    fn less_vram(&mut self) {
        let gpus = self.view.classes().iter().flat_map(|(_, class)| &class.sample.gpus);
        let mut known: BTreeSet<VramMib> = gpus.map(|gpu| gpu.vram).collect();
        known.insert(VramMib::ZERO);
        for (least, groups) in shared(self.spec(), |group| group.shape.vram_min()) {
            let values: Vec<_> = known.range(..least).rev().copied().collect();
            self.bound(&values, |vram| Change::VramMin { groups: groups.clone(), vram });
        }
    }

    fn fewer_selectors(&mut self) {
        let mut all: Vec<Selector> = Vec::new();
        for selector in self.spec().groups.iter().flat_map(|group| &group.selectors) {
            if !all.contains(selector) && all.len() < CONDITIONS_MAX {
                all.push(selector.clone());
            }
        }
        for selector in all {
            let has = |&at: &usize| {
                self.spec().groups.get(at).is_some_and(|one| one.selectors.contains(&selector))
            };
            let groups: Vec<usize> = (0..self.spec().groups.len()).filter(has).collect();
            let none = Change::NoSelector { groups: groups.clone(), selector: selector.clone() };
            if !self.helps(&none) {
                continue;
            }
            let values = self.other_values(&selector);
            self.any_of(&values, none, |value| {
                let (groups, selector) = (groups.clone(), selector.clone());
                Change::SelectorValue { groups, selector, value: value.clone() }
            });
        }
    }

    /// Values of the selector's label in the fleet that it does not take; none if it is not an
    /// `In`, or reads what classes of nodes do not tell.
    fn other_values(&self, selector: &Selector) -> Vec<Arc<str>> {
        let Condition::In(taken) = &selector.condition else { return Vec::new() };
        if matches!(selector.key.as_ref(), "muster/node" | "muster/rack") {
            return Vec::new();
        }
        let classes = self.view.classes().iter();
        let values: BTreeSet<&str> =
            classes.filter_map(|(_, class)| label(&class.sample, &selector.key)).collect();
        let others =
            values.into_iter().filter(|value| taken.iter().all(|one| one.as_ref() != *value));
        others.take(VALUES_TRIED_MAX).map(Arc::from).collect()
    }

    fn more_tolerations(&mut self) {
        let mut taints = BTreeSet::new();
        for (_, class) in self.view.classes().iter() {
            taints.extend(class.sample.taints.iter().cloned());
        }
        let refused = crate::node::TaintEffect::NoSchedule;
        taints.retain(|taint| taint.effect == refused);
        let groups: Vec<usize> = (0..self.spec().groups.len()).collect();
        for taint in taints.into_iter().take(CONDITIONS_MAX) {
            let change = Change::Tolerate { groups: groups.clone(), taint };
            if self.helps(&change) {
                self.tell(change, true);
            }
        }
    }

    /// Less CPU, memory or disk for each replica: multiples of a step from the most down.
    fn fewer_resources(&mut self) {
        let bare = |group: &GroupSpec| {
            let coreless = Shape { cpu: CpuMilli::ZERO, ..group.shape.clone() };
            !coreless.asks_something()
        };
        for ((cpu, bare), groups) in shared(self.spec(), |one| (one.shape.cpu, bare(one))) {
            // A replica that takes nothing else must at least need some CPU.
            let least = if bare { CPU_STEP } else { 0 };
            self.less_of(cpu.0, CPU_STEP, least, |cpu| Change::Cpu {
                groups: groups.clone(),
                cpu: CpuMilli(cpu),
            });
        }
        for (memory, groups) in shared(self.spec(), |group| group.shape.memory) {
            self.less_of(memory.0, MEMORY_STEP, 0, |memory| Change::Memory {
                groups: groups.clone(),
                memory: MemoryMib(memory),
            });
        }
        for (disk, groups) in shared(self.spec(), |group| group.shape.disk) {
            self.less_of(disk.0, DISK_STEP, 0, |disk| Change::Disk {
                groups: groups.clone(),
                disk: DiskMib(disk),
            });
        }
    }

    /// Tells the largest multiple of `step` from `least` to below `most` that helps.
    fn less_of(&mut self, most: u64, step: u64, least: u64, change: impl Fn(u64) -> Change) {
        if most <= least || !self.helps(&change(least)) {
            return;
        }
        let times = (most - 1 - least) / step;
        let last = usize::try_from(times).unwrap_or(usize::MAX);
        let at = |at: usize| change(least + (times - at as u64) * step);
        let (change, is_least) = self.first_of(last, at);
        self.tell(change, is_least);
    }

    /// The nodes that are closed come back.
    fn open(&mut self) {
        let closed: Vec<u32> =
            self.view.slots().filter(|(_, slot)| !slot.open).map(|(node, _)| node).collect();
        self.steps.spend(closed.len() as u64 * RELEASE_STEPS);
        let undo: Vec<Undo> = closed.iter().filter_map(|&node| self.view.open(node)).collect();
        let placed = self.place(self.request.spec);
        undo.into_iter().rev().for_each(|undo| self.view.undo(undo));
        let Some(placed) = placed else { return };
        let used: BTreeSet<u32> = placed.iter().map(|placement| placement.node.0).collect();
        let nodes = closed.iter().filter(|node| used.contains(node)).count();
        if nodes > 0 {
            // Others might do with fewer; these do.
            self.tell(Change::Open { nodes: u32::try_from(nodes).unwrap_or(u32::MAX) }, nodes == 1);
        }
    }

    /// The first time at which enough has ended.
    fn wait(&mut self, standing: &Standing<'_>) {
        let ends = &standing.outlook.ends;
        // What ends after the last moment to start the job helps it no more.
        let in_time = |by: TimeMs| ends.partition_point(|end| end.at <= by);
        let last = self.spec().start_by().map_or(ends.len(), in_time);
        let cut_before = std::mem::take(&mut self.is_cut);
        let mut ahead = Ahead::default();
        let first = least(0, last, 1, |count| {
            let fits = self.fits_after(&mut ahead, standing, count);
            (fits || !self.steps.is_spent()).then_some(fits)
        });
        ahead.go_to(self.view, ends, 0);
        let is_least = !std::mem::replace(&mut self.is_cut, cut_before);
        self.is_cut |= !is_least;
        let end = first.and_then(|count| ends.get(count.checked_sub(1)?));
        if let Some(end) = end {
            let until = self.spec().begin.map_or(end.at, |begin| end.at.max(begin));
            self.tell(Change::Wait { until, job: end.job, own: end.own }, is_least);
        }
    }

    fn fits_after(&mut self, ahead: &mut Ahead, standing: &Standing<'_>, count: usize) -> bool {
        let ends = &standing.outlook.ends;
        let left = ahead.go_to(self.view, ends, count);
        self.steps.spend(left * RELEASE_STEPS);
        let own = ends.iter().take(count).filter(|end| end.own).map(|end| end.gpu_milli);
        let given_back = own.fold(0, u64::saturating_add);
        standing.missing_quota() <= given_back && self.place(self.request.spec).is_some()
    }
}

/// GPU models that a shape allows; empty = any.
fn models(shape: &Shape) -> Vec<Name> {
    if shape.alternatives.iter().any(|one| one.models.is_empty()) {
        return Vec::new();
    }
    shape.alternatives.iter().flat_map(|one| one.models.iter().cloned()).collect()
}

/// Values of one kind of condition with the indexes of the groups that share them, in the order of
/// the spec; at most [`CONDITIONS_MAX`].
fn shared<T: PartialEq>(spec: &JobSpec, value: impl Fn(&GroupSpec) -> T) -> Vec<(T, Vec<usize>)> {
    let mut found: Vec<(T, Vec<usize>)> = Vec::new();
    for (at, group) in spec.groups.iter().enumerate() {
        let value = value(group);
        if let Some((_, groups)) = found.iter_mut().find(|(known, _)| *known == value) {
            groups.push(at);
        } else if found.len() < CONDITIONS_MAX {
            found.push((value, vec![at]));
        }
    }
    found
}
