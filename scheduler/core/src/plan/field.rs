//! Field: for each group of an ask, every node that could take a replica now, by site.
//!
//! Nodes of one class in one state are alike for the ask, so they are looked at once, as a pool:
//! what a field costs grows with the variety of the fleet, not with its size.
//! **Invariant:** exact for an untouched draft; once nodes are touched, room is asked of the draft.

use super::Steps;
use super::ask::{Ask, Fit, GpuFit, GroupAsk};
use super::draft::Base;
use super::room::room;
use crate::id::Name;
use crate::job::Strategy;
use crate::view::{Class, ClassId, Free, KindId, NodeKind, NodeSet, NodeState, Slot};
use std::cmp::Reverse;

/// What it costs in steps to know how the GPUs of a kind serve a group.
const FIT_STEPS: u64 = 2;
/// And how much room a state, or a pool of it, has for a group.
const ROOM_STEPS: u64 = 3;

/// A node with room for at least one replica of some group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cand {
    pub(super) node: u32,
    pub(super) room: u32,
}

/// Nodes that are alike for a group: of one class, with the same capacity free.
#[derive(Clone, Debug)]
pub(super) struct Pool<'v> {
    /// Replicas that each node has room for; at least one.
    pub(super) room: u32,
    /// Idle GPUs of each node.
    pub(super) idle: u32,
    pub(super) shuns: bool,
    pub(super) gpus: GpuFit,
    /// What each node has free, but for the indexes of its idle GPUs, which are in its brief.
    /// `None` where more than these differs.
    pub(super) free: Option<&'v Free>,
    /// Pools of other groups with this number have the very same nodes. `None` where some of the
    /// nodes are not for every group.
    pub(super) number: Option<u32>,
    /// The least of the nodes: stands for the pool wherever an order must follow from content.
    pub(super) first: u32,
    pub(super) site: u16,
    /// How many nodes.
    count: u32,
    nodes: Nodes<'v>,
}

#[derive(Clone, Debug)]
enum Nodes<'v> {
    /// As the view holds them.
    All(&'v NodeSet),
    /// Some of them, rising.
    Some(Vec<u32>),
}

impl Pool<'_> {
    pub(super) fn len(&self) -> usize {
        self.count as usize
    }

    /// The node at this place of the rising order.
    pub(super) fn get(&self, at: usize) -> Option<u32> {
        match &self.nodes {
            Nodes::All(nodes) => nodes.get(at),
            Nodes::Some(nodes) => nodes.get(at).copied(),
        }
    }

    /// The nodes, rising.
    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

/// Where a gang may go: some sites, or one rack of one site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Domain {
    pub(super) sites: Vec<u16>,
    pub(super) rack: Option<Name>,
}

impl Domain {
    pub(super) fn of_site(site: u16) -> Self {
        Self { sites: vec![site], rack: None }
    }

    pub(super) fn admits(&self, slot: &Slot) -> bool {
        self.sites.binary_search(&slot.site.0).is_ok()
            && self.rack.as_ref().is_none_or(|rack| *rack == slot.node.place.rack)
    }
}

/// Capacity along every dimension of a demand: replicas per group, then whole GPUs for replicas of
/// some size and above, the largest size first, then nodes.
pub(super) type Amounts = Vec<u64>;

/// Sizes of replicas that are counted by themselves, the smallest and the largest others: sizes that
/// people ask for are powers of two.
const SIZES_MAX: usize = 7;

/// GPUs that replicas of some size and above can use, for several sizes.
///
/// Where every size divides the next larger one, as powers of two do, and nothing but GPUs is scarce,
/// what fits by these sums fits in fact: the largest replicas first, wherever they go, leave of every
/// node whole places for the smaller ones.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    /// Whole GPUs of a replica, and of which number all such sizes are multiples; the largest first.
    each: [(u32, u32); SIZES_MAX],
    count: usize,
}

impl Sizes {
    fn new(ask: &Ask<'_>) -> Self {
        let mut all: Vec<u32> = ask.groups.iter().map(GroupAsk::whole_gpus).collect();
        all.sort_unstable_by_key(|&size| Reverse(size));
        // One group's replicas are counted anyway.
        let by_itself = all.first() != all.get(1);
        all.retain(|&size| size > 0);
        all.dedup();
        let smallest = all.last().copied().unwrap_or(1);
        let larger = all.iter().skip(usize::from(by_itself)).filter(|&&size| size > smallest);
        let mut sizes = Self::default();
        for &size in larger.take(SIZES_MAX - 1).chain([&smallest]) {
            let units = all.iter().filter(|&&other| other >= size);
            let unit = units.fold(0, |unit, &other| divisor(unit, other)).max(1);
            if let Some(cell) = sizes.each.get_mut(sizes.count) {
                *cell = (size, unit);
                sizes.count += 1;
            }
        }
        sizes
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.each.into_iter().take(self.count)
    }
}

/// The greatest common divisor.
fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Whether `have` reaches `need` in every dimension.
pub(super) fn covers(have: &[u64], need: &[u64]) -> bool {
    have.iter().zip(need).all(|(have, need)| have >= need)
}

/// The pools of one group.
#[derive(Clone, Debug, Default)]
struct Lot<'v> {
    pools: Vec<Pool<'v>>,
    /// Indexes into `pools`, by site; those of site s are at `starts[s]..starts[s + 1]`.
    by_site: Vec<u32>,
    starts: Vec<u32>,
    room_max: u32,
}

impl<'v> Lot<'v> {
    /// Sorts by site, keeping the order of finding within each.
    fn close(&mut self, sites: usize) {
        self.starts = vec![0; sites + 1];
        for pool in &self.pools {
            if let Some(count) = self.starts.get_mut(usize::from(pool.site) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut self.starts {
            sum += *start;
            *start = sum;
        }
        let mut next = self.starts.clone();
        self.by_site = vec![0; self.pools.len()];
        for (pool, at) in self.pools.iter().zip(0u32..) {
            let Some(place) = next.get_mut(usize::from(pool.site)) else { continue };
            if let Some(cell) = self.by_site.get_mut(*place as usize) {
                *cell = at;
                *place += 1;
            }
        }
    }

    fn at_site(&self, site: u16) -> impl Iterator<Item = &Pool<'v>> {
        let bounds = self.starts.get(usize::from(site)).zip(self.starts.get(usize::from(site) + 1));
        let range = bounds.map_or(0..0, |(&from, &to)| from as usize..to as usize);
        let places = self.by_site.get(range).unwrap_or(&[]);
        places.iter().filter_map(|&at| self.pools.get(at as usize))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Field<'v> {
    lots: Vec<Lot<'v>>,
    /// One past the largest number of a pool.
    numbers: u32,
    pub(super) base: Base,
    sites: usize,
    sizes: Sizes,
    /// Dimensions of a demand.
    width: usize,
    /// Amounts of all sites, one after another: on nodes that do not shun the job, and on all.
    amounts: [Vec<u64>; 2],
    /// Whether any candidate shuns the job.
    pub(super) shunned: bool,
}

impl<'v> Field<'v> {
    /// Looks at every state once. Room is counted up to what is wanted.
    pub(super) fn new(ask: &Ask<'v>, base: Base, steps: &mut Steps) -> Self {
        Self::look(ask, base, ask.spec.strategy == Strategy::StrictSpread, steps)
    }

    /// The same as if each group were alone and without a strategy, for groups with their own.
    pub(super) fn bare(ask: &Ask<'v>, base: Base, steps: &mut Steps) -> Self {
        Self::look(ask, base, false, steps)
    }

    /// `apart`: each replica on a node of its own, members that stay included.
    fn look(ask: &Ask<'v>, base: Base, apart: bool, steps: &mut Steps) -> Self {
        let sites = ask.view.sites().len();
        let sizes = Sizes::new(ask);
        let width = ask.groups.len() + sizes.count + 1;
        let field = Self {
            lots: vec![Lot::default(); ask.groups.len()],
            numbers: 0,
            base,
            sites,
            sizes,
            width,
            amounts: [vec![0; sites * width], vec![0; sites * width]],
            shunned: false,
        };
        let left_out = left_out(ask, apart);
        let class = |&node: &u32| ask.view.slot(node).map(|slot| slot.class);
        let mut torn: Vec<ClassId> = left_out.iter().filter_map(class).collect();
        torn.sort_unstable();
        torn.dedup();
        let mut look = Look { ask, base, field, apart, left_out, torn, rooms: Vec::new() };
        look.fleet(steps);
        let mut field = look.field;
        for lot in &mut field.lots {
            lot.close(sites);
        }
        // What was counted is what nodes that shun the job add to the others.
        let [open, all] = &mut field.amounts;
        all.iter_mut().zip(open).for_each(|(all, open)| *all += *open);
        field
    }

    /// Whether the node is one that the field is about.
    pub(super) fn admits(&self, slot: &Slot) -> bool {
        self.base.admits(slot)
    }

    /// How the node serves the group; `None` if it never could.
    pub(super) fn fit(&self, ask: &Ask<'_>, group: usize, slot: &Slot) -> Option<Fit> {
        let group = ask.groups.get(group)?;
        let class = ask.view.classes().get(slot.class)?;
        let fit = group.fit(slot, group.class_fit(class));
        fit.misfit.is_none().then_some(fit)
    }

    /// What a demand of `targets` replicas per group amounts to; `distinct`: each on a node of its
    /// own.
    pub(super) fn demand(ask: &Ask<'_>, targets: &[u32], distinct: bool) -> Amounts {
        let mut demand: Amounts = targets.iter().map(|&count| u64::from(count)).collect();
        demand.extend(Sizes::new(ask).iter().map(|(size, _)| {
            let each = ask.groups.iter().map(GroupAsk::whole_gpus).zip(targets);
            let each = each.filter(|&(gpus, _)| gpus >= size);
            each.map(|(gpus, &count)| u64::from(gpus) * u64::from(count)).sum::<u64>()
        }));
        let replicas = targets.iter().map(|&count| u64::from(count)).sum();
        let distinct = distinct || ask.spec.strategy == Strategy::StrictSpread;
        demand.push(if distinct { replicas } else { 0 });
        demand
    }

    /// Amounts at the site; `shunned`: on nodes that shun the job as well.
    pub(super) fn amounts(&self, site: u16, shunned: bool) -> &[u64] {
        let from = usize::from(site) * self.width;
        self.amounts[usize::from(shunned)].get(from..from + self.width).unwrap_or(&[])
    }

    /// Sum of the amounts over the sites.
    pub(super) fn sum(&self, sites: &[u16], shunned: bool) -> Amounts {
        let mut sum: Amounts = vec![0; self.width];
        for &site in sites {
            for (total, more) in sum.iter_mut().zip(self.amounts(site, shunned)) {
                *total = total.saturating_add(*more);
            }
        }
        sum
    }

    /// Pools of the group at the sites of the domain, whatever its rack.
    pub(super) fn pools<'f>(
        &'f self,
        group: usize,
        domain: &'f Domain,
        shunned: bool,
    ) -> impl Iterator<Item = &'f Pool<'v>> {
        let lot = self.lots.get(group);
        let all = domain.sites.iter().flat_map(move |&site| lot.map(|lot| lot.at_site(site)));
        all.flatten().filter(move |pool| shunned || !pool.shuns)
    }

    /// One past the largest number of a pool.
    pub(super) fn numbers(&self) -> usize {
        self.numbers as usize
    }

    /// All numbered pools of the group.
    pub(super) fn numbered(&self, group: usize) -> impl Iterator<Item = (usize, &Pool<'v>)> {
        let pools = self.lots.get(group).into_iter().flat_map(|lot| &lot.pools);
        pools.filter_map(|pool| Some((pool.number? as usize, pool)))
    }

    /// Candidates of the group inside the domain.
    pub(super) fn cands<'f>(
        &'f self,
        ask: &'f Ask<'_>,
        group: usize,
        domain: &'f Domain,
        shunned: bool,
    ) -> impl Iterator<Item = (Cand, &'f Slot)> {
        let each = |pool: &'f Pool<'v>| pool.nodes().map(|node| Cand { node, room: pool.room });
        self.pools(group, domain, shunned)
            .flat_map(each)
            .filter_map(move |cand| Some((cand, ask.view.slot(cand.node)?)))
            .filter(move |(_, slot)| {
                domain.rack.as_ref().is_none_or(|rack| *rack == slot.node.place.rack)
            })
    }

    /// Pools on whose nodes the group has room for at least so many replicas.
    pub(super) fn roomy(
        &self,
        group: usize,
        room: u32,
        shunned: bool,
    ) -> impl Iterator<Item = &Pool<'v>> {
        let lot = self.lots.get(group).filter(|lot| lot.room_max >= room);
        let all = lot.map_or(&[][..], |lot| lot.pools.as_slice()).iter();
        all.filter(move |pool| pool.room >= room && (shunned || !pool.shuns))
    }

    /// All sites with a candidate of any group.
    pub(super) fn sites(&self) -> Vec<u16> {
        let some = |&site: &u16| self.amounts(site, true).iter().any(|&amount| amount > 0);
        let end = u16::try_from(self.sites).unwrap_or(u16::MAX);
        (0..end).filter(some).collect()
    }
}

/// Nodes that no group may use, by rising number: those to be avoided, and where each replica
/// wants a node of its own, those of the members that stay.
fn left_out(ask: &Ask<'_>, apart: bool) -> Vec<u32> {
    let mut nodes = ask.avoid.clone();
    if apart {
        nodes.extend(&ask.fixed);
    }
    nodes.sort_unstable();
    nodes
}

/// One look over the fleet.
struct Look<'a, 'v> {
    ask: &'a Ask<'v>,
    base: Base,
    field: Field<'v>,
    /// Each replica wants a node of its own.
    apart: bool,
    left_out: Vec<u32>,
    /// Their classes.
    torn: Vec<ClassId>,
    /// Per group: room on the nodes looked at.
    rooms: Vec<u32>,
}

/// Each of the nodes looked at.
#[derive(Clone, Copy)]
struct Each<'v> {
    idle: u32,
    free: Option<&'v Free>,
}

/// Where a group may go on the nodes looked at.
#[derive(Clone, Copy)]
struct Way {
    group: usize,
    room: u32,
    shuns: bool,
    gpus: GpuFit,
}

impl<'v> Look<'_, 'v> {
    fn fleet(&mut self, steps: &mut Steps) {
        let view = self.ask.view;
        for (id, kind) in view.classes().kinds() {
            let fits = self.fits(id, kind, steps);
            if fits.iter().any(Option::is_some) && self.base == Base::Now {
                self.kind(id, kind, &fits, steps);
            }
        }
        if self.base != Base::Now {
            self.empty(steps);
        }
        steps.spend(1 + self.ask.unpaid());
    }

    /// How the GPUs of a kind serve each group.
    fn fits(&self, id: KindId, kind: &NodeKind, steps: &mut Steps) -> Vec<Option<GpuFit>> {
        steps.spend(self.ask.groups.len() as u64 * FIT_STEPS);
        self.ask.groups.iter().map(|group| group.kind_fit(id, &kind.gpus)).collect()
    }

    /// What is free now on the nodes of a kind.
    fn kind(&mut self, id: KindId, kind: &NodeKind, fits: &[Option<GpuFit>], steps: &mut Steps) {
        let least = |(group, fit): (&GroupAsk, &Option<GpuFit>)| {
            fit.map(|_| u8::try_from(group.whole_gpus()).unwrap_or(u8::MAX))
        };
        let idle = self.ask.groups.iter().zip(fits).filter_map(least).min().unwrap_or(0);
        for (_, state) in self.ask.view.states().of_kind(id, idle) {
            if self.measure(kind, state.free(), fits) {
                self.state(state, fits, steps);
            }
            steps.spend(fits.len() as u64 * ROOM_STEPS);
        }
    }

    /// Room for each group in what is free; whether there is any.
    fn measure(&mut self, kind: &NodeKind, free: &Free, fits: &[Option<GpuFit>]) -> bool {
        let each = self.ask.groups.iter().zip(fits).map(|(group, fit)| {
            let most = if self.apart { 1 } else { group.wanted() };
            fit.map_or(0, |fit| room(group, &kind.gpus, free, fit, most))
        });
        self.rooms.clear();
        self.rooms.extend(each);
        self.rooms.iter().any(|&room| room > 0)
    }

    fn state(&mut self, state: &'v NodeState, fits: &[Option<GpuFit>], steps: &mut Steps) {
        let mut ways = Vec::with_capacity(self.ask.groups.len());
        let view = self.ask.view;
        for (id, nodes) in state.pools() {
            let Some(class) = view.classes().get(id) else { continue };
            self.ways(class, fits, &mut ways);
            let each = Each { idle: state.idle(), free: state.free_but_idle() };
            self.pool((id, class), each, nodes, &ways);
            steps.spend(fits.len() as u64 * ROOM_STEPS);
        }
    }

    /// All nodes, or all open ones, as if nothing ran on them.
    fn empty(&mut self, steps: &mut Steps) {
        let view = self.ask.view;
        let mut ways = Vec::with_capacity(self.ask.groups.len());
        for (id, class) in view.classes().iter() {
            let Some(kind) = view.classes().kind(class.kind) else { continue };
            let fits = self.fits(class.kind, kind, steps);
            let free = Free::whole(&class.sample);
            steps.spend(fits.len() as u64 * ROOM_STEPS);
            if !self.measure(kind, &free, &fits) {
                continue;
            }
            self.ways(class, &fits, &mut ways);
            let each = Each { idle: free.idle.len(), free: None };
            let all = self.base == Base::EmptyAll || class.open as usize == class.nodes.len();
            if all {
                self.pool((id, class), each, &class.nodes, &ways);
            } else {
                let open = |&node: &u32| view.slot(node).is_some_and(|slot| slot.open);
                let nodes: Vec<u32> = class.nodes.iter().filter(open).collect();
                self.nodes(class, each, nodes.into_iter(), &ways);
            }
        }
    }

    /// Groups that may go on nodes of the class, by the room just measured.
    fn ways(&self, class: &Class, fits: &[Option<GpuFit>], ways: &mut Vec<Way>) {
        ways.clear();
        let each = self.ask.groups.iter().zip(fits).zip(&self.rooms).enumerate();
        for (at, ((group, fit), &room)) in each {
            let Some(gpus) = fit.filter(|_| room > 0) else { continue };
            if let Some(shuns) = group.admission(class) {
                ways.push(Way { group: at, room, shuns, gpus });
            }
        }
    }

    /// Takes in the nodes as a whole where no node is a case of its own.
    fn pool(&mut self, of: (ClassId, &Class), each: Each<'v>, nodes: &'v NodeSet, ways: &[Way]) {
        let (id, class) = of;
        let Some(first) = nodes.first().filter(|_| !ways.is_empty()) else { return };
        let group = |way: &Way| self.ask.groups.get(way.group);
        let by_node = |way: &Way| group(way).is_none_or(GroupAsk::reads_identity);
        if self.torn.binary_search(&id).is_ok() || ways.iter().any(by_node) {
            return self.nodes(class, each, nodes.iter(), ways);
        }
        let site = class.site.0;
        let number = Some(self.number());
        for way in ways {
            let nodes = Nodes::All(nodes);
            self.keep(way, Pool::new(way, each, number, first, site, nodes));
        }
        self.add(site, ways, each.idle, nodes.len() as u64);
    }

    /// Takes in the nodes one by one.
    fn nodes(
        &mut self,
        class: &Class,
        each: Each<'v>,
        nodes: impl Iterator<Item = u32>,
        ways: &[Way],
    ) {
        let site = class.site.0;
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); ways.len()];
        let mut open = Vec::with_capacity(ways.len());
        let mut for_all = true;
        for node in nodes {
            let Some(slot) = self.ask.view.slot(node) else { continue };
            if self.left_out.binary_search(&node).is_ok() {
                continue;
            }
            open.clear();
            for (way, list) in ways.iter().zip(&mut lists) {
                let group = self.ask.groups.get(way.group);
                if group.is_some_and(|group| group.admits(&slot.node)) {
                    list.push(node);
                    open.push(*way);
                }
            }
            for_all &= open.len() == ways.len();
            self.add(site, &open, each.idle, 1);
        }
        let number = for_all.then(|| self.number());
        for (way, list) in ways.iter().zip(lists) {
            if let Some(&first) = list.first() {
                self.keep(way, Pool::new(way, each, number, first, site, Nodes::Some(list)));
            }
        }
    }

    /// The next number for pools with the same nodes.
    fn number(&mut self) -> u32 {
        let number = self.field.numbers;
        self.field.numbers += 1;
        number
    }

    fn keep(&mut self, way: &Way, pool: Pool<'v>) {
        self.field.shunned |= way.shuns;
        if let Some(lot) = self.field.lots.get_mut(way.group) {
            lot.room_max = lot.room_max.max(pool.room);
            lot.pools.push(pool);
        }
    }

    /// Counts `nodes` nodes, open to the groups of `ways`, towards the amounts of their site.
    fn add(&mut self, site: u16, ways: &[Way], idle: u32, nodes: u64) {
        let width = self.field.width;
        let from = usize::from(site) * width;
        let [open, shunning] = &mut self.field.amounts;
        let Some(open) = open.get_mut(from..from + width) else { return };
        let count = |row: &mut [u64], wanted: fn(&Way) -> bool| {
            let ways = ways.iter().filter(|way| wanted(way));
            hold(self.ask, &self.field.sizes, row, ways, idle, nodes);
        };
        if !ways.iter().any(|way| way.shuns) {
            return count(open, |_| true);
        }
        let (mut some, mut all) = (vec![0; width], vec![0; width]);
        count(&mut some, |way| !way.shuns);
        count(&mut all, |_| true);
        open.iter_mut().zip(&some).for_each(|(sum, more)| *sum += more);
        let Some(shunning) = shunning.get_mut(from..from + width) else { return };
        let more = all.iter().zip(&some).map(|(all, some)| all - some);
        shunning.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
}

/// Adds to a row of amounts what `nodes` nodes hold that are open to the groups of `ways`.
fn hold<'w>(
    ask: &Ask<'_>,
    sizes: &Sizes,
    row: &mut [u64],
    ways: impl Iterator<Item = &'w Way>,
    idle: u32,
    nodes: u64,
) {
    let Some((of_nodes, rest)) = row.split_last_mut() else { return };
    let Some((of_groups, of_sizes)) = rest.split_at_mut_checked(ask.groups.len()) else { return };
    let mut gpus = [0u64; SIZES_MAX];
    let mut serves = false;
    for way in ways {
        let whole = ask.groups.get(way.group).map_or(0, GroupAsk::whole_gpus);
        if let Some(cell) = of_groups.get_mut(way.group) {
            *cell += u64::from(way.room) * nodes;
        }
        let most = u64::from(way.room) * u64::from(whole);
        for (sum, (size, _)) in gpus.iter_mut().zip(sizes.iter()) {
            *sum += if whole >= size { most } else { 0 };
        }
        serves = true;
    }
    *of_nodes += if serves { nodes } else { 0 };
    for ((cell, most), (_, unit)) in of_sizes.iter_mut().zip(gpus).zip(sizes.iter()) {
        *cell += most.min(u64::from(idle - idle % unit)) * nodes;
    }
}

impl<'v> Pool<'v> {
    fn new(
        way: &Way,
        each: Each<'v>,
        number: Option<u32>,
        first: u32,
        site: u16,
        nodes: Nodes<'v>,
    ) -> Self {
        let Each { idle, free } = each;
        let Way { room, shuns, gpus, .. } = *way;
        let count = match &nodes {
            Nodes::All(nodes) => nodes.len(),
            Nodes::Some(nodes) => nodes.len(),
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self { room, idle, shuns, gpus, free, number, first, site, count, nodes }
    }
}
