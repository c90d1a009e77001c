//! Field: for each group of an ask, every node that could take a replica now, by site.
//!
//! **Invariant:** exact for an untouched draft; once nodes are touched, room is asked of the draft.

use super::Steps;
use super::ask::{Ask, Fit};
use super::draft::{Base, Draft};
use crate::id::Name;
use crate::job::Strategy;
use crate::view::Slot;

/// A node with room for at least one replica of some group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cand {
    pub(super) node: u32,
    pub(super) room: u32,
    pub(super) shuns: bool,
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

/// Capacity along every dimension of a demand: replicas per group, then whole GPUs, then nodes.
pub(super) type Amounts = Vec<u64>;

/// Whether `have` reaches `need` in every dimension.
pub(super) fn covers(have: &[u64], need: &[u64]) -> bool {
    have.iter().zip(need).all(|(have, need)| have >= need)
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Per group and class: how it fits.
    fits: Vec<Vec<Option<Fit>>>,
    /// Per group and site: candidates by rising node.
    cands: Vec<Vec<Vec<Cand>>>,
    /// Per site: amounts on nodes that do not shun the job, and on all.
    amounts: [Vec<Amounts>; 2],
    /// Whether any candidate shuns the job.
    pub(super) shunned: bool,
}

impl Field {
    /// Looks at every node once. Room is counted up to what is wanted.
    pub(super) fn new(ask: &Ask<'_>, base: Base, steps: &mut Steps) -> Self {
        let draft = Draft::new(ask, base);
        let sites = ask.view.sites().len();
        let groups = ask.groups.len();
        let mut field = Self {
            fits: ask.groups.iter().map(|group| group.class_fits(ask.view)).collect(),
            cands: vec![vec![Vec::new(); sites]; groups],
            amounts: [vec![vec![0; groups + 2]; sites], vec![vec![0; groups + 2]; sites]],
            shunned: false,
        };
        let strict = ask.spec.strategy == Strategy::StrictSpread;
        for (node, slot) in ask.view.slots() {
            if base.admits(slot) && !ask.avoids(node) && !(strict && draft.members(node) > 0) {
                field.look(ask, &draft, node, slot);
            }
        }
        steps.spend(ask.view.nodes_len() as u64 * groups as u64);
        field
    }

    fn look(&mut self, ask: &Ask<'_>, draft: &Draft<'_>, node: u32, slot: &Slot) {
        let site = usize::from(slot.site.0);
        let strict = ask.spec.strategy == Strategy::StrictSpread;
        // Whole GPUs usable by any group, and whether the node serves at all: per shun level.
        let mut gpus = [0u64; 2];
        let mut serves = [false; 2];
        for (at, group) in ask.groups.iter().enumerate() {
            let Some(fit) = self.fit(ask, at, slot) else { continue };
            let most = if strict { 1 } else { group.wanted() };
            let room = draft.room(group, node, slot, fit, most);
            if room == 0 {
                continue;
            }
            let shuns = fit.shuns;
            self.shunned |= shuns;
            if let Some(list) = self.cands.get_mut(at).and_then(|sites| sites.get_mut(site)) {
                if list.capacity() == 0 {
                    list.reserve(ask.view.site_nodes(slot.site) as usize);
                }
                list.push(Cand { node, room, shuns });
            }
            let usable = u64::from(room) * u64::from(group.whole_gpus());
            for level in usize::from(shuns)..2 {
                if let Some(cell) =
                    self.amounts[level].get_mut(site).and_then(|row| row.get_mut(at))
                {
                    *cell += u64::from(room);
                }
                gpus[level] = gpus[level].saturating_add(usable);
                serves[level] = true;
            }
        }
        let groups = ask.groups.len();
        let idle = u64::from(draft.with_free(node, slot, |free| free.idle.len()));
        for level in 0..2 {
            let Some(row) = self.amounts[level].get_mut(site) else { continue };
            if let Some(cell) = row.get_mut(groups) {
                *cell += gpus[level].min(idle);
            }
            if let Some(cell) = row.get_mut(groups + 1) {
                *cell += u64::from(serves[level]);
            }
        }
    }

    /// How the node serves the group; `None` if it never could.
    pub(super) fn fit(&self, ask: &Ask<'_>, group: usize, slot: &Slot) -> Option<Fit> {
        let known = (*self.fits.get(group)?.get(slot.class.0 as usize)?)?;
        let fit = ask.groups.get(group)?.fit(slot, known);
        fit.misfit.is_none().then_some(fit)
    }

    /// What a demand of `targets` replicas per group amounts to; `distinct`: each on a node of its
    /// own.
    pub(super) fn demand(ask: &Ask<'_>, targets: &[u32], distinct: bool) -> Amounts {
        let mut demand: Amounts = targets.iter().map(|&count| u64::from(count)).collect();
        let each = ask.groups.iter().zip(targets);
        demand.push(each.map(|(group, &n)| u64::from(group.whole_gpus()) * u64::from(n)).sum());
        let replicas = targets.iter().map(|&count| u64::from(count)).sum();
        let distinct = distinct || ask.spec.strategy == Strategy::StrictSpread;
        demand.push(if distinct { replicas } else { 0 });
        demand
    }

    /// Amounts at the site; `shunned`: on nodes that shun the job as well.
    pub(super) fn amounts(&self, site: u16, shunned: bool) -> &[u64] {
        self.amounts[usize::from(shunned)].get(usize::from(site)).map_or(&[], Vec::as_slice)
    }

    /// Sum of the amounts over the sites.
    pub(super) fn sum(&self, sites: &[u16], shunned: bool) -> Amounts {
        let mut sum: Amounts = Vec::new();
        for &site in sites {
            let row = self.amounts(site, shunned);
            if sum.len() < row.len() {
                sum.resize(row.len(), 0);
            }
            for (total, more) in sum.iter_mut().zip(row) {
                *total = total.saturating_add(*more);
            }
        }
        sum
    }

    /// Candidates of the group inside the domain.
    pub(super) fn cands<'f>(
        &'f self,
        ask: &'f Ask<'_>,
        group: usize,
        domain: &'f Domain,
        shunned: bool,
    ) -> impl Iterator<Item = (Cand, &'f Slot)> {
        let by_site = self.cands.get(group).map_or(&[][..], Vec::as_slice);
        domain
            .sites
            .iter()
            .filter_map(move |&site| by_site.get(usize::from(site)))
            .flatten()
            .filter(move |cand| shunned || !cand.shuns)
            .filter_map(move |&cand| Some((cand, ask.view.slot(cand.node)?)))
            .filter(move |(_, slot)| {
                domain.rack.as_ref().is_none_or(|rack| *rack == slot.node.place.rack)
            })
    }

    /// Nodes at which the group has room for at least so many replicas.
    pub(super) fn roomy(
        &self,
        group: usize,
        room: u32,
        shunned: bool,
    ) -> impl Iterator<Item = Cand> {
        let by_site = self.cands.get(group).map_or(&[][..], Vec::as_slice);
        let all = by_site.iter().flatten().copied();
        all.filter(move |cand| cand.room >= room && (shunned || !cand.shuns))
    }

    /// All sites with a candidate of any group.
    pub(super) fn sites(&self) -> Vec<u16> {
        let rows = &self.amounts[1];
        let some = |(_, row): &(u16, &Amounts)| row.iter().any(|&amount| amount > 0);
        (0u16..).zip(rows).filter(some).map(|(site, _)| site).collect()
    }
}
