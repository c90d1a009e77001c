//! Ask: a request resolved against the view — per group what is needed, which ranks wait, and
//! which classes of nodes could ever serve.
//!
//! **Invariant:** nothing here depends on what is free.

use super::ruled::{KnownEligible, KnownPaths, depth};
use super::terms::{Term, Terms};
use super::{Ranks, Request};
use crate::fit::{Around, Misfit, Needs};
use crate::id::Rank;
use crate::job::{GpuAsk, JobSpec, Repair};
use crate::node::{Gpu, Node};
use crate::unit::GpuSet;
use crate::view::{Class, ClassId, KindId, Slot, View};
use std::cell::RefCell;
use std::rc::Rc;

/// How the GPUs of a kind serve a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GpuFit {
    /// GPUs of the node that may be used.
    pub(super) mask: GpuSet,
    /// The usable GPUs are all of one model, in one link domain: any of them do.
    pub(super) plain: bool,
}

impl GpuFit {
    /// Serves nothing.
    const NONE: Self = Self { mask: GpuSet::EMPTY, plain: true };

    fn new(mask: GpuSet, gpus: &[Gpu]) -> Self {
        let mut usable = (0u8..).zip(gpus).filter(|&(index, _)| mask.contains(index));
        let first = usable.next().map(|(_, gpu)| (gpu.model, gpu.link_domain));
        let plain = usable.all(|(_, gpu)| Some((gpu.model, gpu.link_domain)) == first);
        Self { mask, plain }
    }
}

/// Whether and how a node of some class serves a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) misfit: Option<Misfit>,
    /// To be used last, for an untolerated `PreferNoSchedule` taint.
    pub(super) shuns: bool,
    pub(super) gpus: GpuFit,
}

/// What was found out so far, by number.
#[derive(Clone, Debug)]
pub(super) struct Known<T>(RefCell<Vec<Option<T>>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: Clone> Known<T> {
    /// What is known of the number, found out now if nothing is.
    pub(super) fn get(&self, number: u32, find: impl FnOnce() -> T) -> T {
        let at = number as usize;
        if let Some(Some(known)) = self.0.borrow().get(at) {
            return known.clone();
        }
        let found = find();
        let mut known = self.0.borrow_mut();
        if known.len() <= at {
            known.resize(at + 1, None);
        }
        if let Some(place) = known.get_mut(at) {
            *place = Some(found.clone());
        }
        found
    }
}

/// Replicas of one group that wait for a node.
#[derive(Clone, Debug)]
pub(super) struct GroupAsk {
    /// Index in the spec.
    pub(super) group: usize,
    pub(super) needs: Needs,
    /// Waiting ranks, rising.
    pub(super) ranks: Vec<Rank>,
    /// At least this many of them must be placed.
    pub(super) min: u32,
    /// Selectors look at names or racks, so classes do not tell everything.
    per_node: bool,
    /// Nothing but taints keeps it from a node whose GPUs serve.
    unconditional: bool,
    /// Place in the ask as it was made.
    place: usize,
    /// Of all groups of the ask, where that pays.
    terms: Option<Rc<Terms>>,
    /// By kind of GPUs: how they serve, and what is wrong with those that do not.
    kind_fits: Known<Option<GpuFit>>,
    kind_faults: Known<Misfit>,
}

impl GroupAsk {
    /// Waiting ranks.
    pub(super) fn wanted(&self) -> u32 {
        u32::try_from(self.ranks.len()).unwrap_or(u32::MAX)
    }

    /// Whole GPUs of one replica; a share counts as none.
    pub(super) fn whole_gpus(&self) -> u32 {
        match self.needs.gpus() {
            GpuAsk::Whole(count) => u32::from(count),
            GpuAsk::None | GpuAsk::Share(_) => 0,
        }
    }

    pub(super) fn reads_identity(&self) -> bool {
        self.per_node
    }

    /// How these GPUs serve this group; `None` if they never could.
    pub(super) fn gpu_fit(&self, gpus: &[Gpu]) -> Option<GpuFit> {
        self.needs.serving(gpus).map(|mask| GpuFit::new(mask, gpus))
    }

    /// The same for the GPUs of a kind, and kept where it is costly to find out.
    pub(super) fn kind_fit(&self, kind: KindId, gpus: &[Gpu]) -> Option<GpuFit> {
        self.kept(kind, &self.kind_fits, || self.gpu_fit(gpus))
    }

    /// Keeps what was found for a kind, where there are alternatives to hold against it.
    fn kept<T: Copy>(&self, kind: KindId, known: &Known<T>, find: impl FnOnce() -> T) -> T {
        if self.needs.alternatives() < 2 { find() } else { known.get(kind.0, find) }
    }

    /// Whether the class, whose GPUs must serve, lets this group in: `None` if not, else whether
    /// its nodes ask to be used last. Where nodes differ, each must be asked as well.
    pub(super) fn admission(&self, class: &Class) -> Option<bool> {
        if self.unconditional && !class.tainted {
            return Some(false);
        }
        // Its GPUs serve, so that the terms decide.
        let Term { misfit, shuns } = self.term(&class.sample);
        (self.per_node || misfit.is_none()).then_some(shuns)
    }

    /// Whether the node, of a class that lets this group in, does so itself.
    pub(super) fn admits(&self, node: &Node) -> bool {
        !self.per_node || self.term(node).misfit.is_none()
    }

    /// What the node says, GPUs left aside.
    fn term(&self, node: &Node) -> Term {
        let known = self.terms.as_ref().and_then(|terms| terms.of(self.place, node));
        known.unwrap_or_else(|| Term {
            misfit: self.needs.term_misfit(node, || self.needs.selects(node)),
            shuns: self.needs.shuns(node),
        })
    }

    /// What the class says, by one of its nodes; the node itself is only read where that is needed.
    fn class_term(&self, class: &Class) -> Term {
        if self.unconditional && !class.tainted && self.needs.custom().is_empty() {
            let misfit = self.needs.resource_misfit(class.resources);
            return Term { misfit, shuns: false };
        }
        self.term(&class.sample)
    }

    /// How the node serves this group; `known` is the answer for its class.
    pub(super) fn fit(&self, slot: &Slot, known: Fit) -> Fit {
        if self.per_node { self.node_fit(slot.kind, &slot.node) } else { known }
    }

    /// How a class of nodes serves this group, going by one of them.
    pub(super) fn class_fit(&self, class: &Class) -> Fit {
        fit_of(self.gpus_of(class.kind, &class.sample), self.class_term(class))
    }

    /// How the node, with GPUs of this kind, serves this group.
    pub(super) fn node_fit(&self, kind: KindId, node: &Node) -> Fit {
        fit_of(self.gpus_of(kind, node), self.term(node))
    }

    /// How the GPUs of the node serve this group, or what is wrong with them.
    fn gpus_of(&self, kind: KindId, node: &Node) -> Result<GpuFit, Misfit> {
        let fault = || self.kept(kind, &self.kind_faults, || self.needs.gpu_fault(&node.gpus));
        self.kind_fit(kind, &node.gpus).ok_or_else(fault)
    }

    /// The same group with other GPUs allowed.
    pub(super) fn set_gpus(&mut self, needs: Needs) {
        self.needs = needs;
        (self.kind_fits, self.kind_faults) = (Known::default(), Known::default());
    }

    /// Classes whose nodes could hold a replica if they were empty; where nodes differ, each must be
    /// asked as well.
    pub(super) fn serving<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a Class> {
        let classes = view.classes();
        // GPUs first: there are fewer kinds of them than classes.
        let fits = |class: &Class| {
            classes.kind(class.kind).and_then(|kind| self.kind_fit(class.kind, &kind.gpus))
        };
        // Unlike for admission, how much there is counts too.
        let holds = |class: &Class| self.per_node || self.class_term(class).misfit.is_none();
        let serves = move |class: &&Class| fits(class).is_some() && holds(class);
        classes.iter().map(|(_, class)| class).filter(serves)
    }

    /// Open nodes of such a class, or all, that could serve this group.
    pub(super) fn serving_nodes<'a>(
        &'a self,
        view: &'a View,
        class: &'a Class,
        all: bool,
    ) -> impl Iterator<Item = (u32, &'a Slot)> {
        let slots = class.nodes.iter().filter_map(|node| Some((node, view.slot(node)?)));
        slots.filter(move |(_, slot)| (slot.open || all) && self.admits(&slot.node))
    }

    /// Fits of all classes, by number; `None` for numbers out of use.
    pub(super) fn class_fits(&self, view: &View) -> Vec<Option<Fit>> {
        let mut fits = vec![None; view.classes().end()];
        // There are fewer kinds of GPUs than classes.
        let by_kind = Known::default();
        for (ClassId(id), class) in view.classes().iter() {
            let gpus = by_kind.get(class.kind.0, || self.gpus_of(class.kind, &class.sample));
            if let Some(place) = fits.get_mut(id as usize) {
                *place = Some(fit_of(gpus, self.class_term(class)));
            }
        }
        fits
    }
}

/// How these GPUs serve a group, or what is wrong with them, on a node that says this besides.
fn fit_of(gpus: Result<GpuFit, Misfit>, Term { misfit, shuns }: Term) -> Fit {
    Fit { misfit: gpus.err().or(misfit), shuns, gpus: gpus.unwrap_or(GpuFit::NONE) }
}

/// A request resolved against the view.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) view: &'a View,
    pub(super) spec: &'a JobSpec,
    /// Groups with waiting ranks, in the spec's order.
    pub(super) groups: Vec<GroupAsk>,
    /// Groups of which only members that stay are looked at.
    pub(super) rest: Vec<GroupAsk>,
    /// Nodes of the members that stay, one item per member, by rising id.
    pub(super) fixed: Vec<u32>,
    /// Members that stay, with their nodes.
    pub(super) members: Vec<(Rank, u32)>,
    /// Nodes not to be used, by rising id.
    pub(super) avoid: Vec<u32>,
    /// Nodes on which lost replicas stood that must be replaced near by, by rising rank.
    pub(super) homes: Vec<(Rank, u32)>,
    /// Where other jobs stand, as far as the rules of this one go.
    pub(super) around: &'a Around,
    pub(super) paths: KnownPaths,
    pub(super) eligible: KnownEligible,
}

impl<'a> Ask<'a> {
    pub(super) fn new(view: &'a View, request: &Request<'a>) -> Self {
        let spec = request.spec;
        let mut staying = vec![0u32; spec.groups.len()];
        for &(rank, _) in request.fixed {
            if let Some(count) = spec.group_of(rank).and_then(|group| staying.get_mut(group)) {
                *count += 1;
            }
        }
        let (mut groups, mut rest) = (Vec::new(), Vec::new());
        let starts = spec.group_starts();
        let counts = request.counts();
        let bounds = starts.iter().zip(starts.iter().skip(1));
        for (((at, group), stay), (&start, &end)) in
            spec.groups.iter().enumerate().zip(staying).zip(bounds)
        {
            let mut ranks: Vec<Rank> = match request.ranks {
                Ranks::All => (start..start.saturating_add(group.replicas)).map(Rank).collect(),
                Ranks::Some(list) => within(list, start, end),
            };
            if let Some(&count) = counts.as_ref().and_then(|counts| counts.get(at)) {
                ranks.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            }
            let wanted = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
            if wanted == 0 && stay == 0 {
                continue;
            }
            let needs = Needs::new(spec, at, view.models());
            let per_node = needs.reads_identity();
            let unconditional = needs.is_unconditional() && !per_node;
            let min = group.replicas_min.saturating_sub(stay).min(wanted);
            let list = if wanted > 0 { &mut groups } else { &mut rest };
            let (place, terms) = (list.len(), None);
            list.push(GroupAsk {
                group: at,
                needs,
                ranks,
                min,
                per_node,
                unconditional,
                place,
                terms,
                kind_fits: Known::default(),
                kind_faults: Known::default(),
            });
        }
        for list in [&mut groups, &mut rest] {
            if let Some(terms) = Terms::new(list).map(Rc::new) {
                list.iter_mut().for_each(|group| group.terms = Some(Rc::clone(&terms)));
            }
        }
        let mut fixed: Vec<u32> = request.fixed.iter().map(|(_, node)| node.0).collect();
        fixed.sort_unstable();
        let mut avoid: Vec<u32> = request.avoid.iter().map(|node| node.0).collect();
        avoid.sort_unstable();
        let members = request.fixed.iter().map(|&(rank, node)| (rank, node.0)).collect();
        let known = request.lost.iter().filter(|(_, node)| view.slot(node.0).is_some());
        let mut homes: Vec<(Rank, u32)> = known.map(|&(rank, node)| (rank, node.0)).collect();
        homes.retain(|(rank, _)| repair(spec, *rank).is_some_and(|repair| repair.level.is_some()));
        homes.sort_unstable();
        let (around, paths) = (request.around, KnownPaths::default());
        let eligible = KnownEligible::default();
        Self { view, spec, groups, rest, fixed, members, avoid, homes, around, paths, eligible }
    }

    /// Depth of the level at which a lost replica is to be replaced near by, and the node on which it stood.
    pub(super) fn home(&self, rank: Rank) -> Option<(usize, u32)> {
        let at = self.homes.binary_search_by_key(&rank, |(rank, _)| *rank).ok()?;
        let (_, node) = self.homes.get(at)?;
        Some((depth(repair(self.spec, rank)?.level?), *node))
    }

    /// The same ask with fewer ranks, or without homes of some of them.
    pub(super) fn narrowed(
        &self,
        keep: impl Fn(Rank) -> bool,
        has_home: impl Fn(Rank) -> bool,
    ) -> Self {
        let mut narrow = self.clone();
        for group in &mut narrow.groups {
            group.ranks.retain(|rank| keep(*rank));
            group.min = group.min.min(group.wanted());
        }
        let dropped = narrow.groups.extract_if(.., |group| group.ranks.is_empty());
        narrow.rest.extend(dropped);
        narrow.homes.retain(|(rank, _)| keep(*rank) && has_home(*rank));
        narrow
    }

    /// Whether the replacement of a lost replica near by is a wish only.
    pub(super) fn prefers_home(&self, rank: Rank) -> bool {
        repair(self.spec, rank).is_some_and(|repair| repair.preferred)
    }

    /// The same ask under another spec whose groups are the same.
    pub(super) fn with_spec<'b>(&self, spec: &'b JobSpec) -> Ask<'b>
    where
        'a: 'b,
    {
        let group = |group: &GroupAsk| GroupAsk {
            needs: group.needs.at_price(spec.price_max),
            ..group.clone()
        };
        let again = |list: &[GroupAsk]| {
            let mut groups: Vec<GroupAsk> = list.iter().map(group).collect();
            let known = list.first().and_then(|group| group.terms.clone());
            if let Some(terms) = known.map(|known| Rc::new(known.again(&groups))) {
                groups.iter_mut().zip(0..).for_each(|(group, place)| {
                    (group.place, group.terms) = (place, Some(Rc::clone(&terms)));
                });
            }
            groups
        };
        Ask {
            view: self.view,
            spec,
            groups: again(&self.groups),
            rest: again(&self.rest),
            fixed: self.fixed.clone(),
            members: self.members.clone(),
            avoid: self.avoid.clone(),
            homes: self.homes.clone(),
            around: self.around,
            paths: self.paths.clone(),
            eligible: KnownEligible::default(),
        }
    }

    /// Drops what the job can start without, if there is something that it cannot start without.
    pub(super) fn keep_minimum(&mut self) {
        if self.groups.iter().any(|group| group.min > 0) {
            for group in &mut self.groups {
                group.ranks.truncate(usize::try_from(group.min).unwrap_or(usize::MAX));
            }
            let dropped = self.groups.extract_if(.., |group| group.ranks.is_empty());
            self.rest.extend(dropped);
        }
    }

    /// Steps that looking at nodes has cost since this was last asked; the caller pays them.
    pub(super) fn unpaid(&self) -> u64 {
        let terms = self.groups.first().and_then(|group| group.terms.as_ref());
        terms.map_or(0, |terms| terms.unpaid()) + self.paths.unpaid() + self.eligible.unpaid()
    }

    pub(super) fn avoids(&self, node: u32) -> bool {
        self.avoid.binary_search(&node).is_ok()
    }

    /// Most that can be asked: all waiting ranks of each group.
    pub(super) fn wanted(&self) -> Vec<u32> {
        self.groups.iter().map(GroupAsk::wanted).collect()
    }

    /// Least that will do for each group.
    pub(super) fn minimum(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.min).collect()
    }

    /// Whether so many replicas per group make a single member: rules among members cannot bind.
    pub(super) fn is_alone(&self, targets: &[u32]) -> bool {
        self.fixed.is_empty() && targets.iter().fold(0u32, |sum, one| sum.saturating_add(*one)) == 1
    }
}

fn repair(spec: &JobSpec, rank: Rank) -> Option<Repair> {
    Some(spec.groups.get(spec.group_of(rank)?)?.repair)
}

/// Those of the ranks from `start` to before `end`, rising, each once.
fn within(ranks: &[Rank], start: u32, end: u32) -> Vec<Rank> {
    let inside = |rank: &&Rank| (start..end).contains(&rank.0);
    let mut found: Vec<Rank> = ranks.iter().filter(inside).copied().collect();
    found.sort_unstable();
    found.dedup();
    found
}
