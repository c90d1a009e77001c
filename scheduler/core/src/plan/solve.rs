//! Solve: where a gang of given size goes — which domain, which sites, which nodes.
//!
//! Nodes that ask to be used last are left out first; then the preferred topology is tried before
//! the required one; inside a domain one site is better than several, and several near ones
//! better than far ones, bound or no bound.
//! **Invariant:** all or nothing; what is returned keeps every rule of the job.

use super::Steps;
use super::ask::Ask;
use super::draft::{Base, Draft};
use super::field::{Amounts, Domain, Field, covers};
use super::near::{self, Answer, Objective, Question, Vertex};
use super::pack;
use super::ruled::Paths;
use crate::command::Placement;
use crate::fit::same_domain;
use crate::id::{Name, SiteId};
use crate::job::{Level, RttObjective, Strategy};
use crate::topology::{FAR, Site};
use crate::unit::RttUs;
use crate::view::Slot;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Single sites tried before sets of sites: if the best few do not do, others rarely will.
const SITES_TRIED_MAX: usize = 8;
/// Wider and wider sets of sites tried when a set holds enough on paper but not in fact.
const WIDENINGS_MAX: usize = 12;
/// Sites for which every maximal clique is tried in the end.
const SITES_EXHAUSTIVE_MAX: usize = 14;
/// Nodes tried for a whole `PACK` job before it is spread over several.
const ONE_NODE_TRIES_MAX: usize = 64;

pub(super) struct Solver<'a> {
    pub(super) ask: &'a Ask<'a>,
    pub(super) field: &'a Field<'a>,
    pub(super) base: Base,
}

impl Solver<'_> {
    /// Places `targets` replicas per group; `None` if that was not found possible.
    pub(super) fn solve(&self, targets: &[u32], steps: &mut Steps) -> Option<Vec<Placement>> {
        let draft = self.draft(targets, steps)?;
        let Some(bulk) = draft.bulk() else { return Some(draft.into_placements()) };
        let placements = bulk.placements(self.ask, self.field)?;
        steps.spend(placements.len() as u64);
        Some(placements)
    }

    /// The same without spelling it out.
    pub(super) fn draft(&self, targets: &[u32], steps: &mut Steps) -> Option<Draft> {
        // On paper first: a sum is cheaper than a failed search.
        let have = self.field.sum(&self.field.sites(), true);
        if !covers(&have, &Field::demand(self.ask, targets, false)) {
            return None;
        }
        let mut draft = Draft::new(self.ask, self.base);
        for shunned in [false, true] {
            if (shunned && !self.field.shunned) || steps.is_spent() {
                continue;
            }
            let strict = self.ask.spec.strategy == Strategy::StrictPack;
            let pack = strict || self.ask.spec.strategy == Strategy::Pack;
            if pack && self.on_one_node(&mut draft, shunned, targets, steps) {
                return Some(draft);
            }
            if strict {
                continue;
            }
            for level in self.levels() {
                // A spread job first looks for nodes enough, and only then for room enough.
                let spread = self.ask.spec.strategy == Strategy::Spread;
                for distinct in if spread { &[true, false][..] } else { &[false] } {
                    let attempt = Attempt { solver: self, shunned, distinct: *distinct, targets };
                    if attempt.in_level(&mut draft, level, steps) {
                        return Some(draft);
                    }
                    if steps.is_spent() {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The same at given sites, where neither topology nor a strict strategy is in the way.
    pub(super) fn draft_at(
        &self,
        sites: Vec<u16>,
        targets: &[u32],
        steps: &mut Steps,
    ) -> Option<Draft> {
        let mut draft = Draft::new(self.ask, self.base);
        let domain = Domain { sites, rack: None };
        let placed =
            [false, true].into_iter().filter(|&with| self.field.shunned || !with).any(|shunned| {
                let attempt = Attempt { solver: self, shunned, distinct: false, targets };
                attempt.place(&mut draft, &domain, steps)
            });
        placed.then_some(draft)
    }

    /// The same by the last way alone that is tried under an RTT bound, anywhere in the fleet; from
    /// these sites on, where some are known to hold the gang on paper.
    pub(super) fn draft_roomy(
        &self,
        targets: &[u32],
        sites: Option<&[u16]>,
        steps: &mut Steps,
    ) -> Option<Draft> {
        let mut draft = Draft::new(self.ask, self.base);
        let everywhere = Domain { sites: self.field.sites(), rack: None };
        let placed =
            [false, true].into_iter().filter(|&with| self.field.shunned || !with).any(|shunned| {
                let attempt = Attempt { solver: self, shunned, distinct: false, targets };
                let fixed = attempt.fixed_sites();
                let vertices = attempt.vertices(&everywhere, &fixed);
                match sites {
                    Some(sites) => attempt.in_grown(&mut draft, sites, &vertices, &fixed, steps),
                    None => attempt.in_roomy_sites(&mut draft, &vertices, &fixed, steps),
                }
            });
        placed.then_some(draft)
    }

    /// Levels to keep the gang within, the most wanted first.
    fn levels(&self) -> Vec<Option<Level>> {
        let (required, preferred) =
            (self.ask.spec.topology_required, self.ask.spec.topology_preferred);
        match preferred {
            // A preferred level that is no narrower than the required one holds by itself.
            Some(level) if required.is_none_or(|required| level > required) => {
                vec![Some(level), required]
            }
            _ => vec![required],
        }
    }

    /// All on one node, the fullest that holds them.
    fn on_one_node(
        &self,
        draft: &mut Draft,
        shunned: bool,
        targets: &[u32],
        steps: &mut Steps,
    ) -> bool {
        let ask = self.ask;
        let strict = ask.spec.strategy == Strategy::StrictPack;
        // The group with the most GPUs leaves the fewest nodes to look at.
        let weight = |&(at, &target): &(usize, &u32)| {
            let gpus = ask.groups.get(at).map_or(0, |group| group.whole_gpus());
            (u64::from(gpus) * u64::from(target), target)
        };
        let Some((lead, &most)) = targets.iter().enumerate().max_by_key(weight) else {
            return false;
        };
        let mut nodes = Vec::new();
        for pool in self.field.roomy(lead, most, shunned) {
            steps.spend(targets.len() as u64);
            if steps.is_spent() {
                return false;
            }
            // Members that stay leave only their own node; else one node of a pool stands for all.
            let node = match ask.fixed.first() {
                Some(&fixed) => pool.nodes().find(|&node| node == fixed),
                None => Some(pool.first),
            };
            let Some((node, slot)) = node.and_then(|node| Some((node, ask.view.slot(node)?)))
            else {
                continue;
            };
            let fixed_elsewhere = ask.fixed.iter().any(|&fixed| fixed != node);
            if fixed_elsewhere || !self.inner_rtt_holds(slot.site, targets) {
                continue;
            }
            let holds = ask.groups.iter().zip(targets).enumerate().all(|(at, (group, &target))| {
                target == 0
                    || self.field.fit(ask, at, slot).is_some_and(|fit| {
                        (shunned || !fit.shuns)
                            && draft.room(group, node, slot, fit.gpus, target) == target
                    })
            });
            if holds {
                nodes.push((pool.shuns, pool.idle, node));
            }
        }
        nodes.sort_unstable();
        let most = if strict { usize::MAX } else { ONE_NODE_TRIES_MAX };
        nodes.into_iter().take(most).any(|(_, _, node)| {
            !steps.is_spent() && pack::place_on(draft, ask, self.field, node, targets, steps)
        })
    }

    /// Whether two members at the site would keep the RTT bound; a lone member always does.
    fn inner_rtt_holds(&self, site: SiteId, targets: &[u32]) -> bool {
        let Some(bound) = self.ask.spec.rtt_max else { return true };
        self.ask.is_alone(targets)
            || self.ask.view.sites().rtt(site, site).is_some_and(|rtt| rtt <= bound)
    }

    /// Whether a site with room may take one member of the gang but not two.
    pub(super) fn has_lone_sites(&self) -> bool {
        let Some(RttUs(bound)) = self.ask.spec.rtt_max else { return false };
        let net = self.ask.view.net();
        self.field.sites().into_iter().any(|site| net.high(site, site) > bound)
    }

    /// Domains of the level with capacity enough on paper, the tightest first. Members that stay
    /// leave only their own domain.
    fn domains(
        &self,
        level: Option<Level>,
        attempt: &Attempt<'_>,
        steps: &mut Steps,
    ) -> Vec<Domain> {
        let sites = self.field.sites();
        let demand = attempt.demand();
        let domains = match level {
            None => return vec![Domain { sites, rack: None }],
            Some(Level::Region) => self.by_place(&sites, |site| (site.region.clone(), None)),
            Some(Level::Zone) => {
                self.by_place(&sites, |site| (site.region.clone(), Some(site.zone.clone())))
            }
            Some(Level::Site) => sites.iter().map(|&site| Domain::of_site(site)).collect(),
            // One node is no level to keep a gang within; `validate` refuses it.
            Some(Level::Rack | Level::Node) => self.racks(&sites, attempt.targets),
        };
        let mut scored = Vec::new();
        for domain in domains {
            if !self.holds_fixed(level, &domain) {
                continue;
            }
            let have = self.field.sum(&domain.sites, attempt.shunned);
            if covers(&have, &demand) {
                let spare: u64 =
                    have.iter().zip(&demand).map(|(have, need)| have.saturating_sub(*need)).sum();
                scored.push((spare, domain.sites.first().copied(), scored.len(), domain));
            }
            steps.spend(1);
        }
        scored.sort_by_key(|(spare, first, number, _)| (*spare, *first, *number));
        scored.into_iter().map(|(_, _, _, domain)| domain).collect()
    }

    fn by_place(&self, sites: &[u16], key: impl Fn(&Site) -> (Name, Option<Name>)) -> Vec<Domain> {
        let mut domains: BTreeMap<(Name, Option<Name>), Vec<u16>> = BTreeMap::new();
        for &id in sites {
            if let Some(site) = self.ask.view.sites().site(SiteId(id)) {
                domains.entry(key(site)).or_default().push(id);
            }
        }
        domains.into_values().map(|sites| Domain { sites, rack: None }).collect()
    }

    fn racks(&self, sites: &[u16], targets: &[u32]) -> Vec<Domain> {
        let replicas: u64 = targets.iter().map(|&count| u64::from(count)).sum();
        let all = Domain { sites: sites.to_vec(), rack: None };
        let numbers = Paths::of(self.ask);
        let mut rooms: Vec<(u64, Option<&Slot>)> = vec![(0, None); numbers.len(Level::Rack)];
        for at in 0..self.ask.groups.len() {
            for (cand, slot) in self.field.cands(self.ask, at, &all, true) {
                let number = numbers.domain(Level::Rack, cand.node) as usize;
                if let Some((room, first)) = rooms.get_mut(number) {
                    *room += u64::from(cand.room);
                    first.get_or_insert(slot);
                }
            }
        }
        // The barest racks first, as with other domains.
        let mut racks: Vec<_> = rooms
            .into_iter()
            .filter(|(room, _)| *room >= replicas)
            .filter_map(|(room, slot)| Some((room, slot?.site.0, &slot?.node.place.rack)))
            .collect();
        racks.sort_unstable();
        let domain = |(_, site, rack): (u64, u16, &Name)| Domain {
            sites: vec![site],
            rack: Some(rack.clone()),
        };
        racks.into_iter().map(domain).collect()
    }

    /// Whether all members that stay lie in the domain.
    fn holds_fixed(&self, level: Option<Level>, domain: &Domain) -> bool {
        let view = self.ask.view;
        let mut nodes = self.ask.fixed.iter().filter_map(|&node| view.slot(node));
        let Some((first, level)) = nodes.next().zip(level) else { return true };
        let site_of = |level| match level {
            // The domain's sites are those with candidates; the members' own may have none.
            Level::Region | Level::Zone => domain.sites.first().is_some_and(|&site| {
                let own = view.sites().site(SiteId(site));
                own.is_some_and(|own| {
                    own.region == first.node.place.region
                        && (level == Level::Region || own.zone == first.node.place.zone)
                })
            }),
            Level::Site | Level::Rack | Level::Node => domain.admits(first),
        };
        site_of(level) && nodes.all(|slot| same_domain(level, &first.node, &slot.node))
    }
}

/// One size of gang, with or without nodes that shun it.
struct Attempt<'a> {
    solver: &'a Solver<'a>,
    shunned: bool,
    /// Only where there is a node for each replica.
    distinct: bool,
    targets: &'a [u32],
}

impl Attempt<'_> {
    fn demand(&self) -> Amounts {
        Field::demand(self.solver.ask, self.targets, self.distinct)
    }

    fn in_level(&self, draft: &mut Draft, level: Option<Level>, steps: &mut Steps) -> bool {
        let domains = self.solver.domains(level, self, steps);
        domains.iter().any(|domain| !steps.is_spent() && self.in_domain(draft, domain, steps))
    }

    fn in_domain(&self, draft: &mut Draft, domain: &Domain, steps: &mut Steps) -> bool {
        let ask = self.solver.ask;
        let bound = ask.spec.rtt_max;
        let whole = domain.rack.is_none();
        if ask.is_alone(self.targets) || (bound.is_none() && domain.sites.len() == 1) {
            return self.place(draft, domain, steps);
        }
        let fixed = self.fixed_sites();
        let vertices = self.vertices(domain, &fixed);
        let demand = self.demand();
        for site in self.single_sites(&vertices, &demand, &fixed) {
            let one = Domain { sites: vec![site], rack: domain.rack.clone() };
            if self.place(draft, &one, steps) {
                return true;
            }
            if steps.is_spent() {
                break;
            }
        }
        if whole && vertices.len() > 1 && self.in_near_sites(draft, &vertices, &fixed, steps) {
            return true;
        }
        bound.is_none() && self.place(draft, domain, steps)
    }

    fn place(&self, draft: &mut Draft, domain: &Domain, steps: &mut Steps) -> bool {
        let Solver { ask, field, .. } = self.solver;
        // On paper first: a sum is cheaper than a failed attempt.
        let have = field.sum(&domain.sites, self.shunned);
        covers(&have, &self.demand())
            && pack::place(draft, ask, field, domain, self.shunned, self.targets, steps)
    }

    /// Sites of the members that stay, with how many are there.
    fn fixed_sites(&self) -> Vec<(u16, u64)> {
        let ask = self.solver.ask;
        let mut fixed: BTreeMap<u16, u64> = BTreeMap::new();
        for site in ask.fixed.iter().filter_map(|&node| Some(ask.view.slot(node)?.site)) {
            *fixed.entry(site.0).or_default() += 1;
        }
        fixed.into_iter().collect()
    }

    /// Sites of the domain that have something and keep the bound towards all members that stay.
    fn vertices(&self, domain: &Domain, fixed: &[(u16, u64)]) -> Vec<Vertex> {
        let net = self.solver.ask.view.net();
        let bound = self.solver.ask.spec.rtt_max.map_or(FAR - 1, |RttUs(bound)| bound);
        let near = |site: u16| {
            self.solver.inner_rtt_holds(SiteId(site), self.targets)
                && fixed.iter().all(|&(other, _)| net.high(site, other) <= bound)
        };
        let have = |site: u16| self.solver.field.amounts(site, self.shunned).to_vec();
        let sites = domain.sites.iter().filter(|&&site| near(site));
        let vertices = sites.map(|&site| Vertex::new(site, have(site)));
        vertices.filter(|vertex| vertex.have.iter().any(|&amount| amount > 0)).collect()
    }

    /// Sites that could hold the gang alone: near the members that stay, on few nodes, with the
    /// least to spare.
    fn single_sites(&self, vertices: &[Vertex], demand: &[u64], fixed: &[(u16, u64)]) -> Vec<u16> {
        let net = self.solver.ask.view.net();
        let able = vertices.iter().filter(|vertex| covers(&vertex.have, demand));
        let mut scored: Vec<_> = able
            .map(|vertex| {
                let nodes = self.nodes_needed(vertex.site);
                let spare: u64 =
                    vertex.have.iter().zip(demand).map(|(have, need)| have - need).sum();
                let far = fixed.iter().map(|&(other, _)| net.median(vertex.site, other)).max();
                (far, nodes, spare, vertex.site)
            })
            .collect();
        scored.sort_unstable();
        scored.into_iter().take(SITES_TRIED_MAX).map(|(_, _, _, site)| site).collect()
    }

    /// Nodes that the groups would take at the site, each on its own, by the roomiest first.
    fn nodes_needed(&self, site: u16) -> u64 {
        let Solver { field, ask, .. } = self.solver;
        if !matches!(ask.spec.strategy, Strategy::Pack) {
            return 0;
        }
        let domain = Domain::of_site(site);
        let mut nodes = 0;
        for (at, &target) in self.targets.iter().enumerate() {
            let pools = field.pools(at, &domain, self.shunned);
            let mut rooms: Vec<(Reverse<u32>, usize)> =
                pools.map(|pool| (Reverse(pool.room), pool.len())).collect();
            rooms.sort_unstable();
            let mut left = target as usize;
            for (Reverse(room), count) in rooms {
                let taken = left.div_ceil(room.max(1) as usize).min(count);
                left = left.saturating_sub(taken * room as usize);
                nodes += taken as u64;
                if left == 0 {
                    break;
                }
            }
        }
        nodes
    }

    /// Near sites that hold the gang; wider ones if they do so only on paper.
    fn in_near_sites(
        &self,
        draft: &mut Draft,
        vertices: &[Vertex],
        fixed: &[(u16, u64)],
        steps: &mut Steps,
    ) -> bool {
        let net = self.solver.ask.view.net();
        let bound_us = self.solver.ask.spec.rtt_max.map(|RttUs(bound)| bound);
        let need = &self.demand();
        let objective = match self.solver.ask.spec.rtt_objective {
            RttObjective::None => Objective::Any,
            RttObjective::Diameter => Objective::Diameter,
            RttObjective::Mean => Objective::Mean,
        };
        let question = Question { net, vertices, need, fixed, bound_us, objective };
        let mut found = near::within_steps(&question, steps);
        let is_on_paper = matches!(found, Answer::Chosen(_));
        let bound = bound_us.unwrap_or(FAR - 1);
        for _ in 0..WIDENINGS_MAX {
            let Answer::Chosen(choice) = found else { break };
            let (rtt, mut domain) = (choice.high_us, Domain { sites: choice.sites, rack: None });
            if self.place(draft, &domain, steps) {
                return true;
            }
            let grown = self.grow(&domain.sites, vertices, fixed, rtt);
            if grown.len() > domain.sites.len() {
                domain.sites = grown;
                if self.place(draft, &domain, steps) {
                    return true;
                }
            }
            if rtt >= bound || steps.is_spent() {
                break;
            }
            let wider = rtt.saturating_add(rtt / 4).saturating_add(1).min(bound);
            let question = Question { bound_us: Some(wider), ..question };
            found = near::any_within_steps(&question, steps);
        }
        // One group that fits on paper does in fact.
        let several = is_on_paper && self.targets.iter().filter(|&&count| count > 0).count() > 1;
        (several && self.in_roomy_sites(draft, vertices, fixed, steps))
            || self.in_any_clique(draft, vertices, steps)
    }

    /// Any near sites that hold the gang on paper, and the roomiest others near all of them.
    fn in_roomy_sites(
        &self,
        draft: &mut Draft,
        vertices: &[Vertex],
        fixed: &[(u16, u64)],
        steps: &mut Steps,
    ) -> bool {
        let Some(RttUs(bound)) = self.solver.ask.spec.rtt_max else { return false };
        let (net, need) = (self.solver.ask.view.net(), &self.demand());
        let (bound_us, objective) = (Some(bound), Objective::Any);
        let question = Question { net, vertices, need, fixed, bound_us, objective };
        let Answer::Chosen(choice) = near::any_within_steps(&question, steps) else { return false };
        self.in_grown(draft, &choice.sites, vertices, fixed, steps)
    }

    /// These sites and the roomiest others near all of them.
    fn in_grown(
        &self,
        draft: &mut Draft,
        sites: &[u16],
        vertices: &[Vertex],
        fixed: &[(u16, u64)],
        steps: &mut Steps,
    ) -> bool {
        let Some(RttUs(bound)) = self.solver.ask.spec.rtt_max else { return false };
        let sites = self.grow(sites, vertices, fixed, bound);
        self.place(draft, &Domain { sites, rack: None }, steps)
    }

    /// Adds the roomiest sites that keep `rtt_us` towards all others.
    fn grow(
        &self,
        sites: &[u16],
        vertices: &[Vertex],
        fixed: &[(u16, u64)],
        rtt_us: u32,
    ) -> Vec<u16> {
        let net = self.solver.ask.view.net();
        let near = |a: u16, b: u16| net.high(a, b) <= rtt_us;
        let to_fixed = |site: u16| fixed.iter().all(|&(other, _)| near(site, other));
        let mut grown = sites.to_vec();
        let mut others: Vec<&Vertex> = vertices
            .iter()
            .filter(|vertex| to_fixed(vertex.site) && !sites.contains(&vertex.site))
            .collect();
        others.sort_by_key(|vertex| (Reverse(vertex.have.iter().sum::<u64>()), vertex.site));
        for vertex in others {
            if grown.iter().all(|&site| near(site, vertex.site)) {
                grown.push(vertex.site);
            }
        }
        grown.sort_unstable();
        grown
    }

    /// Every maximal clique under the bound, where there are few sites.
    fn in_any_clique(&self, draft: &mut Draft, vertices: &[Vertex], steps: &mut Steps) -> bool {
        let Some(bound) = self.solver.ask.spec.rtt_max else { return false };
        if vertices.len() > SITES_EXHAUSTIVE_MAX {
            return false;
        }
        let members: Vec<u16> = vertices.iter().map(|vertex| vertex.site).collect();
        self.solver.ask.view.sites().near_sets(&members, bound).into_iter().any(|sites| {
            !steps.is_spent() && self.place(draft, &Domain { sites, rack: None }, steps)
        })
    }
}
