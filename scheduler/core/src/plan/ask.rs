//! Ask: a request resolved against the view — per group what is needed, which ranks wait, and
//! which classes of nodes could ever serve.
//!
//! **Invariant:** nothing here depends on what is free.

use super::terms::{Term, Terms};
use super::{Ranks, Request};
use crate::fit::{Around, Misfit, Needs};
use crate::id::Rank;
use crate::job::{GpuAsk, JobSpec};
use crate::node::{Gpu, Node};
use crate::unit::GpuSet;
use crate::view::{Class, ClassId, Slot, View};
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
    /// By node, as far as they were asked for and are costly to find out.
    fits: RefCell<Vec<Option<Fit>>>,
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

    /// How the GPUs of a kind serve this group; `None` if they never could.
    pub(super) fn gpu_fit(&self, gpus: &[Gpu]) -> Option<GpuFit> {
        self.needs.serving(gpus).map(|mask| GpuFit::new(mask, gpus))
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

    /// How the node serves this group; `known` is the answer for its class.
    pub(super) fn fit(&self, slot: &Slot, known: Fit) -> Fit {
        if self.per_node { self.class_fit(&slot.node) } else { known }
    }

    /// How a class of nodes serves this group, going by one of them.
    pub(super) fn class_fit(&self, sample: &Node) -> Fit {
        if self.terms.is_none() && self.needs.alternatives() < 2 {
            return self.find_fit(sample);
        }
        let at = sample.id.0 as usize;
        if let Some(Some(known)) = self.fits.borrow().get(at) {
            return *known;
        }
        let fit = self.find_fit(sample);
        let mut fits = self.fits.borrow_mut();
        if fits.len() <= at {
            fits.resize(at + 1, None);
        }
        fits[at] = Some(fit);
        fit
    }

    fn find_fit(&self, sample: &Node) -> Fit {
        let Term { misfit, shuns } = self.term(sample);
        let misfit = self.needs.gpu_misfit(&sample.gpus).or(misfit);
        let gpus = GpuFit::new(self.needs.gpu_mask(&sample.gpus), &sample.gpus);
        Fit { misfit, shuns, gpus }
    }

    /// The same group with other GPUs allowed.
    pub(super) fn set_gpus(&mut self, needs: Needs) {
        self.needs = needs;
        self.fits.borrow_mut().clear();
    }

    /// Fits of all classes, by number; `None` for numbers out of use.
    pub(super) fn class_fits(&self, view: &View) -> Vec<Option<Fit>> {
        let mut fits = vec![None; view.classes().end()];
        for (ClassId(id), class) in view.classes().iter() {
            if let Some(place) = fits.get_mut(id as usize) {
                *place = Some(self.class_fit(&class.sample));
            }
        }
        fits
    }
}

/// A request resolved against the view.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub(super) view: &'a View,
    pub(super) spec: &'a JobSpec,
    /// Groups with waiting ranks, in the spec's order.
    pub(super) groups: Vec<GroupAsk>,
    /// Nodes of the members that stay, one item per member, by rising id.
    pub(super) fixed: Vec<u32>,
    /// Members that stay, with their nodes.
    pub(super) members: Vec<(Rank, u32)>,
    /// Nodes not to be used, by rising id.
    pub(super) avoid: Vec<u32>,
    /// Where other jobs stand, as far as the rules of this one go.
    pub(super) around: &'a Around,
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
        let mut groups = Vec::new();
        let starts = spec.group_starts();
        let bounds = starts.iter().zip(starts.iter().skip(1));
        for (((at, group), stay), (&start, &end)) in
            spec.groups.iter().enumerate().zip(staying).zip(bounds)
        {
            let ranks = match request.ranks {
                Ranks::All => (start..start.saturating_add(group.replicas)).map(Rank).collect(),
                Ranks::Some(list) => within(list, start, end),
            };
            let wanted = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
            if wanted == 0 {
                continue;
            }
            let needs = Needs::new(spec, at, view.models());
            let per_node = needs.reads_identity();
            let unconditional = needs.is_unconditional() && !per_node;
            let min = group.replicas_min.saturating_sub(stay).min(wanted);
            let (place, terms) = (groups.len(), None);
            groups.push(GroupAsk {
                group: at,
                needs,
                ranks,
                min,
                per_node,
                unconditional,
                place,
                terms,
                fits: RefCell::default(),
            });
        }
        if let Some(terms) = Terms::new(&groups).map(Rc::new) {
            groups.iter_mut().for_each(|group| group.terms = Some(Rc::clone(&terms)));
        }
        let mut fixed: Vec<u32> = request.fixed.iter().map(|(_, node)| node.0).collect();
        fixed.sort_unstable();
        let mut avoid: Vec<u32> = request.avoid.iter().map(|node| node.0).collect();
        avoid.sort_unstable();
        let members = request.fixed.iter().map(|&(rank, node)| (rank, node.0)).collect();
        Self { view, spec, groups, fixed, members, avoid, around: request.around }
    }

    /// The same ask under another spec with the same groups, replicas and selectors.
    pub(super) fn with_spec<'b>(&self, spec: &'b JobSpec) -> Ask<'b>
    where
        'a: 'b,
    {
        let group = |group: &GroupAsk| {
            let needs = Needs::new(spec, group.group, self.view.models());
            let per_node = needs.reads_identity();
            GroupAsk { needs, per_node, fits: RefCell::default(), ..group.clone() }
        };
        let mut groups: Vec<GroupAsk> = self.groups.iter().map(group).collect();
        let known = self.groups.first().and_then(|group| group.terms.clone());
        if let Some(terms) = known.map(|known| Rc::new(known.again(&groups))) {
            groups.iter_mut().zip(0..).for_each(|(group, place)| {
                (group.place, group.terms) = (place, Some(Rc::clone(&terms)));
            });
        }
        Ask {
            view: self.view,
            spec,
            groups,
            fixed: self.fixed.clone(),
            members: self.members.clone(),
            avoid: self.avoid.clone(),
            around: self.around,
        }
    }

    /// Drops what the job can start without, if there is something that it cannot start without.
    pub(super) fn keep_minimum(&mut self) {
        if self.groups.iter().any(|group| group.min > 0) {
            for group in &mut self.groups {
                group.ranks.truncate(usize::try_from(group.min).unwrap_or(usize::MAX));
            }
            self.groups.retain(|group| !group.ranks.is_empty());
        }
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

/// Those of the ranks from `start` to before `end`, rising, each once.
fn within(ranks: &[Rank], start: u32, end: u32) -> Vec<Rank> {
    let inside = |rank: &&Rank| (start..end).contains(&rank.0);
    let mut found: Vec<Rank> = ranks.iter().filter(inside).copied().collect();
    found.sort_unstable();
    found.dedup();
    found
}
