//! Nodes joining, for the first time or again.
//!
//! **Invariant:** a (supplier, name) keeps its node id until the node is removed; a newer session
//! has a higher epoch. Who cannot show the first registration's key gets nothing.

use super::apply::{Turn, forbidden};
use super::usage::Usage;
use super::{NODES_MAX, NODES_OF_SUPPLIER_MAX, State};
use crate::command::{Actor, Outcome, RegisterNode, Rejection};
use crate::event::Event;
use crate::fit::Needs;
use crate::id::{Epoch, JobId, ModelId, Name, NodeId, Rank, SiteId, SupplierId};
use crate::job::ReplicaPhase;
use crate::node::{Eligibility, Gpu, MODELS_MAX, Node, NodeSpec, NodeStatus};
use crate::validate;
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
    pub(super) fn register_node(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &RegisterNode,
    ) -> Result<Outcome, Rejection> {
        // Whom names and nodes are counted against.
        let bringer = match turn.by {
            Actor::System | Actor::Operator => None,
            Actor::Supplier(supplier) if *supplier == asked.supplier => Some(supplier),
            _ => return Err(forbidden("only the supplier itself registers its nodes")),
        };
        validate::node(&asked.spec)?;
        let known = self.node_by_name(&asked.supplier, &asked.spec.name);
        let known = known.and_then(|id| self.node(id)).cloned();
        let (id, epoch) = self.next_session(asked, known.as_deref(), bringer)?;
        self.check_names(&asked.spec)?;
        if let Some(supplier) = bringer {
            self.check_brought(supplier, &asked.spec)?;
        }

        let before = (self.sites().len(), self.models().len());
        let (site, gpus) = self.learn_names(turn, &asked.spec)?;
        if let Some(supplier) = bringer {
            self.count_brought(supplier, before);
        }
        turn.event(Event::NodeChanged(id));
        turn.event(Event::CapacityGrew);
        match known {
            None => {
                let mut node = joined(turn, asked, id, epoch, site, gpus);
                self.shared.share_in_node(&mut node);
                self.add_node(node);
            }
            // Nearly always: a fleet comes back as it was.
            Some(old) if old.is_declared_by(&asked.spec, site, &gpus) => {
                self.change_node(id, |node| begin_session(node, turn, epoch));
            }
            Some(old) => self.rejoin(turn, &old, joined(turn, asked, id, epoch, site, gpus)),
        }
        Ok(Outcome::Registered { node: id, epoch })
    }

    /// A known machine has changed since it joined last.
    fn rejoin(&mut self, turn: &mut Turn<'_>, old: &Node, mut node: Node) {
        self.shared.share_in_node(&mut node);
        // Where people wanted no work, a restart of the agent changes nothing.
        node.eligibility = old.eligibility;
        node.registered_at = old.registered_at;
        if old.status == NodeStatus::Up {
            node.changed_at = old.changed_at;
        }
        let same =
            old.gpus == node.gpus && old.resources == node.resources && old.custom == node.custom;
        let id = node.id;
        self.change_node(id, |place| *place = node);
        if !same {
            self.drop_what_no_longer_fits(turn, id);
        }
    }

    /// Counts the sites and models that were learned since there were so many of each.
    fn count_brought(&mut self, supplier: &SupplierId, (sites, models): (usize, usize)) {
        let numbers = |from: usize, end: usize| (from..end).filter_map(|at| u16::try_from(at).ok());
        let site = numbers(sites, self.sites().len()).map(SiteId).next();
        let models: Vec<ModelId> = numbers(models, self.models().len()).map(ModelId).collect();
        if site.is_some() || !models.is_empty() {
            self.note_brought(supplier, site, models);
        }
    }

    fn next_session(
        &self,
        asked: &RegisterNode,
        known: Option<&Node>,
        bringer: Option<&SupplierId>,
    ) -> Result<(NodeId, Epoch), Rejection> {
        let limit = |what: &str, limit: u64| Rejection::LimitReached { what: what.into(), limit };
        if let Some(node) = known {
            if node.key_digest != asked.key_digest {
                return Err(forbidden("the name is taken by a node with another key"));
            }
            let next = node.epoch.0.checked_add(1).map(Epoch);
            let next = next.ok_or_else(|| limit("sessions of one node", u64::from(u32::MAX)))?;
            return Ok((node.id, next));
        }
        if self.nodes_len() >= NODES_MAX {
            return Err(limit("nodes", NODES_MAX as u64));
        }
        let full = |supplier| self.index.nodes_of(supplier) >= NODES_OF_SUPPLIER_MAX;
        if bringer.is_some_and(full) {
            return Err(limit("nodes of one supplier", NODES_OF_SUPPLIER_MAX as u64));
        }
        let next = self.facts.meta.next_node;
        if next == u32::MAX {
            return Err(limit("node ids", u64::from(u32::MAX)));
        }
        Ok((NodeId(next), Epoch(1)))
    }

    /// Whether the site and the models may be taken in.
    fn check_names(&self, spec: &NodeSpec) -> Result<(), Rejection> {
        if let Err(error) = self.sites().check(&spec.place) {
            let (field, problem) = ("spec.place.site".to_owned(), error.to_string());
            return Err(Rejection::Invalid { field, problem });
        }
        let new: BTreeSet<&Name> = spec
            .gpus
            .iter()
            .map(|gpu| &gpu.model)
            .filter(|model| self.models().find(model).is_none())
            .collect();
        if self.models().len() + new.len() > MODELS_MAX {
            let what = "GPU models".to_owned();
            return Err(Rejection::LimitReached { what, limit: MODELS_MAX as u64 });
        }
        Ok(())
    }

    /// Takes in what [`State::check_names`] let pass; cannot fail after it.
    fn learn_names(
        &mut self,
        turn: &mut Turn<'_>,
        spec: &NodeSpec,
    ) -> Result<(SiteId, Vec<Gpu>), Rejection> {
        let site = match self.sites().find(&spec.place.site) {
            Some(known) => known,
            None => {
                turn.event(Event::SitesChanged);
                let refused = |error: crate::topology::SiteError| Rejection::Precondition {
                    what: format!("site {} {error}", spec.place.site),
                };
                self.change_sites().join(&spec.place).map_err(refused)?
            }
        };
        let mut gpus = Vec::with_capacity(spec.gpus.len());
        for gpu in &spec.gpus {
            let known = self.models().find(&gpu.model);
            let model = known.or_else(|| self.change_models().find_or_add(&gpu.model));
            let limit = || Rejection::LimitReached {
                what: "GPU models".to_owned(),
                limit: MODELS_MAX as u64,
            };
            let model = model.ok_or_else(limit)?;
            gpus.push(Gpu {
                model,
                vram: gpu.vram,
                link_domain: gpu.link_domain,
                vendor: gpu.vendor,
                compute_capability: gpu.compute_capability,
            });
        }
        Ok((site, gpus))
    }

    /// The hardware under live replicas changed: those that it can no longer hold are lost.
    /// Labels, taints, price and place bind new replicas only.
    fn drop_what_no_longer_fits(&mut self, turn: &mut Turn<'_>, id: NodeId) {
        let Some(node) = self.node(id).cloned() else { return };
        let mut held = Usage::default();
        let mut lost: Vec<(JobId, Rank)> = Vec::new();
        let mut needs: Option<(JobId, usize, Needs)> = None;
        for (job_id, rank) in self.node_work(id) {
            let Some(job) = self.job(job_id) else { continue };
            let Some(group) = job.spec.group_of(rank) else { continue };
            let Some(spec) = job.spec.groups.get(group) else { continue };
            let Some(bound) = self.replica(job_id, rank).and_then(|r| r.allocation) else {
                continue;
            };
            if needs.as_ref().is_none_or(|(j, g, _)| (*j, *g) != (job_id, group)) {
                needs = Some((job_id, group, Needs::new(&job.spec, group, self.models())));
            }
            let suits = needs.as_ref().is_some_and(|(_, _, needs)| {
                needs.accepts_gpus(&node, bound.gpus, bound.share_milli)
            });
            if suits && held.lack(&node, &spec.shape, bound.gpus, bound.share_milli).is_none() {
                held.take(&spec.shape, bound.gpus, bound.share_milli);
            } else {
                lost.push((job_id, rank));
            }
        }
        self.lose(turn, &lost);
    }

    /// The replicas are gone with their node; their jobs go on as far as they can.
    pub(super) fn lose(&mut self, turn: &mut Turn<'_>, lost: &[(JobId, Rank)]) {
        let mut jobs = BTreeSet::new();
        for &(job, rank) in lost {
            self.let_go(turn, job, rank, ReplicaPhase::Failed);
            jobs.insert(job);
        }
        for job in jobs {
            self.settle(turn, job);
        }
    }
}

/// Another session of a node that is what it was.
fn begin_session(node: &mut Node, turn: &Turn<'_>, epoch: Epoch) {
    node.epoch = epoch;
    if node.status != NodeStatus::Up {
        node.status = NodeStatus::Up;
        node.changed_at = turn.now;
    }
}

fn joined(
    turn: &Turn<'_>,
    asked: &RegisterNode,
    id: NodeId,
    epoch: Epoch,
    site: SiteId,
    gpus: Vec<Gpu>,
) -> Node {
    let spec = &asked.spec;
    Node {
        id,
        supplier: asked.supplier.clone(),
        name: spec.name.clone(),
        labels: Arc::new(spec.labels.clone()),
        taints: spec.taints.clone(),
        gpus,
        resources: spec.resources,
        custom: spec.custom.clone(),
        place: spec.place.clone(),
        site,
        bandwidth_up: spec.bandwidth_up,
        bandwidth_down: spec.bandwidth_down,
        price: spec.price,
        address: spec.address.clone(),
        status: NodeStatus::Up,
        eligibility: Eligibility::Eligible,
        epoch,
        key_digest: asked.key_digest,
        registered_at: turn.now,
        changed_at: turn.now,
    }
}
