//! A naive judge of plans: every constraint of a request straight from its words, counted from
//! nodes and allocations, as slow and as plain as can be.
//!
//! **Invariant:** nothing of the planner, of `fit` or of the state's indexes is used here: a fault
//! shared with them would hide itself.

use scheduler_core::command::Plan;
use scheduler_core::id::{JobId, NodeId, Rank, TenantId};
use scheduler_core::job::{
    Affinity, Condition, DomainsMax, GpuAsk, GroupSpec, JobSpec, Level, Role, RttScope, Shape,
    Strategy, Target,
};
use scheduler_core::node::{Eligibility, Gpu, Labels, Node, NodeStatus, TaintEffect};
use scheduler_core::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a fleet and of the jobs on it.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Live replicas of other jobs.
    others: Vec<Other>,
    /// What model numbers are called.
    models: BTreeMap<u16, String>,
    /// RTT against which bounds are held, by site ids; absent = unknown.
    rtts: BTreeMap<(u16, u16), u32>,
    tenant: TenantId,
    /// What other jobs use does not count.
    is_empty: bool,
}

#[derive(Clone)]
struct Other {
    tenant: TenantId,
    spec: JobSpec,
    member: Member,
}

/// A replica on a node.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) rank: u32,
    pub(crate) group: usize,
    pub(crate) node: NodeId,
    pub(crate) gpus: Vec<u8>,
    pub(crate) share: u16,
}

/// What is used of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    cpu: u64,
    memory: u64,
    disk: u64,
    custom: BTreeMap<String, u64>,
    /// Thousandths by GPU.
    gpus: BTreeMap<u8, u32>,
}

/// How much of a gang is there to be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// All that will be: every rule.
    Whole,
    /// More members may come: only what they could not mend.
    Part,
}

impl Facts {
    /// As a state shows them to a job of `tenant` other than `without`.
    pub(crate) fn new(state: &State, tenant: &TenantId, without: Option<JobId>) -> Self {
        let mut others = Vec::new();
        let mut last = None;
        while let Some(job) = state.jobs_after(last).next() {
            last = Some(job.id);
            if Some(job.id) == without || job.phase.is_over() {
                continue;
            }
            for member in members(state, job.id, &job.spec).1 {
                let (tenant, spec) = (job.tenant.clone(), JobSpec::clone(&job.spec));
                others.push(Other { tenant, spec, member });
            }
        }
        let mut rtts = BTreeMap::new();
        for (a, _) in state.sites().iter() {
            for (b, _) in state.sites().iter() {
                if let Some(rtt) = state.sites().rtt(a, b) {
                    rtts.insert((a.0, b.0), rtt.0);
                }
            }
        }
        Self {
            nodes: state.nodes().map(|node| (node.id, Node::clone(node))).collect(),
            others,
            models: state.models().iter().map(|(id, name)| (id.0, name.to_string())).collect(),
            rtts,
            tenant: tenant.clone(),
            is_empty: false,
        }
    }

    /// The same fleet with nothing running on it; where other jobs stand still counts for who wants
    /// to be near or apart.
    pub(crate) fn emptied(&self) -> Self {
        Self { is_empty: true, ..self.clone() }
    }

    /// The same fleet with all nodes up and eligible.
    pub(crate) fn opened(&self) -> Self {
        let mut all = self.clone();
        for node in all.nodes.values_mut() {
            (node.status, node.eligibility) = (NodeStatus::Up, Eligibility::Eligible);
        }
        all
    }

    /// What other jobs use.
    pub(crate) fn used(&self) -> BTreeMap<NodeId, Used> {
        let mut used = BTreeMap::new();
        for other in self.others.iter().filter(|_| !self.is_empty) {
            let of: &mut Used = used.entry(other.member.node).or_default();
            of.take(&other.spec.groups[other.member.group].shape, &other.member);
        }
        used
    }

    /// Everything wrong with a plan for the job's `ranks`, beside the members that stay.
    pub(crate) fn faults(
        &self,
        spec: &JobSpec,
        ranks: &[u32],
        stay: &[Member],
        plan: &Plan,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let mut members = stay.to_vec();
        let mut seen = BTreeSet::new();
        for placement in &plan.placements {
            let rank = placement.rank.0;
            if !ranks.contains(&rank) || !seen.insert(rank) {
                faults.push(format!("rank {rank} was not asked for, or comes twice"));
                continue;
            }
            let Some(node) = self.nodes.get(&placement.node) else {
                faults.push(format!("rank {rank}: node {} does not exist", placement.node));
                continue;
            };
            if node.epoch != placement.node_epoch {
                faults.push(format!("rank {rank}: not the epoch of node {}", node.id));
            }
            let group = group_of(spec, rank).expect("a rank of the job");
            let member = Member {
                rank,
                group,
                node: node.id,
                gpus: placement.gpus.iter().collect(),
                share: placement.share_milli,
            };
            faults.extend(self.alone(spec, &member));
            members.push(member);
        }
        for (group, asked) in spec.groups.iter().enumerate() {
            let placed = members.iter().filter(|member| member.group == group).count();
            if placed < asked.replicas_min as usize {
                faults.push(format!("group {group} has {placed} of {}", asked.replicas_min));
            }
        }
        faults.extend(self.overload(spec, &members));
        faults.extend(self.among(spec, &members, Stage::Whole));
        faults
    }

    /// What is wrong with one replica on its node, were the node empty.
    pub(crate) fn alone(&self, spec: &JobSpec, member: &Member) -> Option<String> {
        let group = &spec.groups[member.group];
        let node = &self.nodes[&member.node];
        let place = format!("rank {} on node {}", member.rank, node.id);
        if !is_open(node) {
            return Some(format!("{place}: takes nothing new"));
        }
        if let Some(why) = self.gpus_wrong(&group.shape, node, member) {
            return Some(format!("{place}: {why}"));
        }
        self.site_wrong(spec, group, node).map(|why| format!("{place}: {why}"))
    }

    fn gpus_wrong(&self, shape: &Shape, node: &Node, member: &Member) -> Option<String> {
        let (count, share) = match shape.gpus {
            GpuAsk::None => (0, 0),
            GpuAsk::Whole(count) => (usize::from(count), 0),
            GpuAsk::Share(milli) => (1, milli),
        };
        if member.gpus.len() != count || member.share != share {
            return Some(format!("{:?} and {} of it", member.gpus, member.share));
        }
        let mut models = BTreeSet::new();
        for &index in &member.gpus {
            let Some(gpu) = node.gpus.get(usize::from(index)) else {
                return Some(format!("there is no GPU {index}"));
            };
            if !self.gpu_will_do(shape, gpu) {
                return Some(format!("GPU {index} is not of a wanted kind"));
            }
            models.insert(gpu.model.0);
        }
        (models.len() > 1).then(|| "GPUs of different models".to_owned())
    }

    /// Whether the GPU is as one of the alternatives says.
    fn gpu_will_do(&self, shape: &Shape, gpu: &Gpu) -> bool {
        shape.alternatives.is_empty()
            || shape.alternatives.iter().any(|one| {
                let called = self.models.get(&gpu.model.0);
                let model = one.models.is_empty()
                    || one.models.iter().any(|name| Some(name.as_str()) == called.map(|c| &**c));
                let vendor = one.vendor.is_none() || one.vendor == gpu.vendor;
                model
                    && vendor
                    && gpu.vram.0 >= one.vram_min.0
                    && gpu.compute_capability.0 >= one.compute_capability_min.0
            })
    }

    fn site_wrong(&self, spec: &JobSpec, group: &GroupSpec, node: &Node) -> Option<String> {
        for selector in &group.selectors {
            let value = match selector.key.as_ref() {
                "muster/region" => Some(node.place.region.to_string()),
                "muster/zone" => Some(node.place.zone.to_string()),
                "muster/site" => Some(node.place.site.to_string()),
                "muster/rack" => Some(node.place.rack.to_string()),
                "muster/supplier" => Some(node.supplier.0.to_string()),
                "muster/node" => Some(node.name.to_string()),
                other => node.labels.get(other).map(ToString::to_string),
            };
            let named = |values: &[std::sync::Arc<str>]| {
                values.iter().any(|one| Some(one.as_ref()) == value.as_deref())
            };
            let holds = match &selector.condition {
                Condition::In(values) => named(values),
                Condition::NotIn(values) => !named(values),
                Condition::Exists => value.is_some(),
                Condition::DoesNotExist => value.is_none(),
            };
            if !holds {
                return Some(format!("{selector:?} does not hold"));
            }
        }
        for taint in &node.taints {
            let tolerated = group.tolerations.iter().any(|one| {
                (one.key.is_empty() || one.key == taint.key)
                    && (one.value.is_none() || one.value.as_ref() == Some(&taint.value))
                    && (one.effect.is_none() || one.effect == Some(taint.effect))
            });
            if taint.effect == TaintEffect::NoSchedule && !tolerated {
                return Some(format!("{taint:?} is not tolerated"));
            }
        }
        let has_gpus = group.shape.gpus != GpuAsk::None;
        if has_gpus && spec.price_max.is_some_and(|most| node.price.0 > most.0) {
            return Some("too dear".to_owned());
        }
        let up = group.shape.bandwidth_up_min.0 > node.bandwidth_up.0;
        let down = group.shape.bandwidth_down_min.0 > node.bandwidth_down.0;
        (up || down).then(|| "too little bandwidth".to_owned())
    }

    /// Nodes that would hold more than they have.
    fn overload(&self, spec: &JobSpec, members: &[Member]) -> Vec<String> {
        let mut used = self.used();
        for member in members {
            let of = used.entry(member.node).or_default();
            of.take(&spec.groups[member.group].shape, member);
        }
        let touched: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
        let over = |node: &NodeId| used[node].over(&self.nodes[node]);
        touched
            .iter()
            .filter_map(|node| over(node).map(|why| format!("node {node}: {why}")))
            .collect()
    }

    /// Rules among members, and between them and other jobs, that are broken.
    pub(crate) fn among(&self, spec: &JobSpec, members: &[Member], stage: Stage) -> Vec<String> {
        let mut faults = Vec::new();
        let everyone: Vec<&Member> = members.iter().collect();
        let of_group = |group: usize| -> Vec<&Member> {
            everyone.iter().copied().filter(|member| member.group == group).collect()
        };
        let shared: Vec<&Member> = everyone
            .iter()
            .copied()
            .filter(|member| spec.groups[member.group].rules.strategy.is_none())
            .collect();
        faults.extend(self.strategy_wrong(spec.strategy, &shared));
        if let Some(level) = spec.topology_required {
            faults.extend(self.apart(level, &everyone, "the job"));
        }
        faults.extend(self.scattered(&spec.domains_max, &everyone, "the job"));
        for (at, group) in spec.groups.iter().enumerate() {
            let rules = &group.rules;
            let own = of_group(at);
            faults.extend(self.scattered(&rules.domains_max, &own, &format!("group {at}")));
            if let Some(strategy) = rules.strategy {
                faults.extend(self.strategy_wrong(strategy, &own));
            }
            if let Some(level) = rules.topology_required {
                faults.extend(self.apart(level, &own, &format!("group {at}")));
            }
            faults.extend(self.crowded(rules.replicas_per_node_max, &own));
            for segment in &rules.segments {
                let first = first_rank(spec, at);
                let number = |member: &Member| (member.rank - first) / segment.size;
                let numbers: BTreeSet<u32> = own.iter().map(|member| number(member)).collect();
                for which in numbers {
                    let part: Vec<&Member> =
                        own.iter().copied().filter(|member| number(member) == which).collect();
                    faults.extend(self.apart(segment.level, &part, &format!("segment {which}")));
                    let inside = |one: &&Member| {
                        let home = part.first().map(|first| self.domain(segment.level, first.node));
                        segment.exclusive && home == Some(self.domain(segment.level, one.node))
                    };
                    if own.iter().copied().filter(inside).count() > part.len() && segment.exclusive
                    {
                        faults.push(format!("segment {which} shares its domain"));
                    }
                }
            }
            if stage == Stage::Whole {
                faults.extend(self.uneven(spec, at, &own));
            }
        }
        faults.extend(self.too_far(spec, &everyone));
        faults.extend(self.too_dear(spec, &everyone));
        for affinity in spec.affinities.iter().filter(|affinity| !affinity.preferred) {
            if affinity.anti || stage == Stage::Whole {
                faults.extend(self.affinity_broken(affinity, &everyone));
            }
        }
        faults.extend(self.unwelcome(spec, &everyone));
        faults
    }

    fn strategy_wrong(&self, strategy: Strategy, members: &[&Member]) -> Option<String> {
        let nodes: BTreeSet<NodeId> = members.iter().map(|member| member.node).collect();
        match strategy {
            Strategy::StrictPack if nodes.len() > 1 => Some("STRICT_PACK on many nodes".to_owned()),
            Strategy::StrictSpread if nodes.len() < members.len() => {
                Some("STRICT_SPREAD with two on one node".to_owned())
            }
            _ => None,
        }
    }

    fn domain(&self, level: Level, node: NodeId) -> String {
        let node = &self.nodes[&node];
        let place = &node.place;
        match level {
            Level::Region => place.region.to_string(),
            Level::Zone => format!("{}/{}", place.region, place.zone),
            Level::Site => place.site.to_string(),
            Level::Rack => format!("{}/{}", place.site, place.rack),
            Level::Node => node.id.to_string(),
        }
    }

    fn apart(&self, level: Level, members: &[&Member], who: &str) -> Option<String> {
        let domains: BTreeSet<String> =
            members.iter().map(|member| self.domain(level, member.node)).collect();
        (domains.len() > 1).then(|| format!("{who} must share a {level:?}, is in {domains:?}"))
    }

    fn scattered(&self, bounds: &[DomainsMax], members: &[&Member], who: &str) -> Option<String> {
        let in_domains = |bound: &DomainsMax| {
            let all = members.iter().map(|member| self.domain(bound.level, member.node));
            all.collect::<BTreeSet<String>>()
        };
        let over = bounds.iter().find(|bound| in_domains(bound).len() as u32 > bound.max)?;
        Some(format!("{who}: {over:?}, is in {:?}", in_domains(over)))
    }

    fn crowded(&self, most: u32, members: &[&Member]) -> Option<String> {
        let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
        for member in members {
            *counts.entry(member.node).or_default() += 1;
        }
        let over = counts.iter().find(|(_, count)| most > 0 && **count > most);
        over.map(|(node, count)| format!("{count} replicas on node {node}, at most {most}"))
    }

    fn uneven(&self, spec: &JobSpec, group: usize, members: &[&Member]) -> Option<String> {
        let asked = &spec.groups[group];
        for spread in asked.rules.spread.iter().filter(|spread| !spread.preferred) {
            let mut counts: BTreeMap<String, u32> = BTreeMap::new();
            for node in self.nodes.values().filter(|node| self.could_hold(spec, group, node)) {
                counts.entry(self.domain(spread.level, node.id)).or_default();
            }
            for member in members {
                *counts.entry(self.domain(spread.level, member.node)).or_default() += 1;
            }
            let (least, most) = (counts.values().min(), counts.values().max());
            if let (Some(least), Some(most)) = (least, most)
                && most - least > spread.skew_max
            {
                return Some(format!("group {group}: {spread:?}, but {counts:?}"));
            }
        }
        None
    }

    /// Whether the node, were it empty, could hold a replica of the group.
    pub(crate) fn could_hold(&self, spec: &JobSpec, group: usize, node: &Node) -> bool {
        let asked = &spec.groups[group];
        let shape = &asked.shape;
        let mut models: BTreeMap<u16, usize> = BTreeMap::new();
        for gpu in node.gpus.iter().filter(|gpu| self.gpu_will_do(shape, gpu)) {
            *models.entry(gpu.model.0).or_default() += 1;
        }
        let most = models.values().max().copied().unwrap_or(0);
        let gpus = match shape.gpus {
            GpuAsk::None => true,
            GpuAsk::Whole(count) => most >= usize::from(count),
            GpuAsk::Share(_) => most >= 1,
        };
        let mut used = Used::default();
        let nothing = Member { rank: 0, group, node: node.id, gpus: Vec::new(), share: 0 };
        used.take(shape, &nothing);
        is_open(node)
            && gpus
            && used.over(node).is_none()
            && self.site_wrong(spec, asked, node).is_none()
    }

    fn too_far(&self, spec: &JobSpec, members: &[&Member]) -> Option<String> {
        let bound = spec.rtt_max?;
        let head = spec.groups.iter().position(|group| group.role == Role::Head);
        let head = head.map_or(0, |group| first_rank(spec, group));
        for (at, a) in members.iter().enumerate() {
            for b in &members[at + 1..] {
                let binds = match spec.rtt_scope {
                    RttScope::AllPairs => true,
                    RttScope::WithinGroups => a.group == b.group,
                    RttScope::HeadToMembers => a.rank == head || b.rank == head,
                };
                let sites = (self.nodes[&a.node].site.0, self.nodes[&b.node].site.0);
                let rtt = self.rtts.get(&sites);
                if binds && rtt.is_none_or(|rtt| *rtt > bound.0) {
                    return Some(format!("{} us at most, but {rtt:?} at {sites:?}", bound.0));
                }
            }
        }
        None
    }

    fn too_dear(&self, spec: &JobSpec, members: &[&Member]) -> Option<String> {
        let price = |member: &&Member| {
            let milli = u128::from(milli_of(&spec.groups[member.group].shape));
            u128::from(self.nodes[&member.node].price.0) * milli
        };
        let hour: u128 = members.iter().map(price).sum();
        if let Some(most) = spec.hourly_max
            && hour > u128::from(most.0) * 1_000
        {
            return Some(format!("costs over {} an hour", most.0));
        }
        let (most, total) = (spec.cost_max?, hour * u128::from(spec.duration?.0));
        // Thousandths of GPUs and thousandths of seconds.
        (total > u128::from(most.0) * 1_000 * 3_600_000).then(|| format!("costs over {}", most.0))
    }

    fn affinity_broken(&self, affinity: &Affinity, members: &[&Member]) -> Option<String> {
        let domain = |member: &Member| self.domain(affinity.level, member.node);
        let broken = match &affinity.target {
            Target::Groups { group, with } if group == with => {
                let own: Vec<String> = members
                    .iter()
                    .filter(|member| member.group == usize::from(*group))
                    .map(|member| domain(member))
                    .collect();
                let different: BTreeSet<&String> = own.iter().collect();
                if affinity.anti { different.len() < own.len() } else { different.len() > 1 }
            }
            Target::Groups { group, with } => {
                let there: BTreeSet<String> = members
                    .iter()
                    .filter(|member| member.group == usize::from(*with))
                    .map(|member| domain(member))
                    .collect();
                let here = members.iter().filter(|member| member.group == usize::from(*group));
                here.into_iter().any(|member| there.contains(&domain(member)) == affinity.anti)
            }
            Target::Jobs { group, labels } => {
                let there: BTreeSet<String> = self
                    .others
                    .iter()
                    .filter(|other| other.tenant == self.tenant)
                    .filter(|other| has_all(&other.spec.labels, labels))
                    .map(|other| self.domain(affinity.level, other.member.node))
                    .collect();
                let bound = |member: &&&Member| {
                    group.is_none_or(|group| usize::from(group) == member.group)
                };
                let mut here = members.iter().filter(bound);
                here.any(|member| there.contains(&domain(member)) == affinity.anti)
            }
        };
        broken.then(|| format!("{affinity:?}"))
    }

    /// Live jobs that want none like this one near them.
    fn unwelcome(&self, spec: &JobSpec, members: &[&Member]) -> Option<String> {
        for other in self.others.iter().filter(|other| other.tenant == self.tenant) {
            for affinity in other.spec.affinities.iter().filter(|one| one.anti && !one.preferred) {
                let Target::Jobs { group, labels } = &affinity.target else { continue };
                let bound = group.is_none_or(|group| usize::from(group) == other.member.group);
                let near = |member: &&Member| {
                    let level = affinity.level;
                    self.domain(level, member.node) == self.domain(level, other.member.node)
                };
                if bound && has_all(&spec.labels, labels) && members.iter().any(near) {
                    return Some(format!("a job that is there wants {affinity:?}"));
                }
            }
        }
        None
    }
}

impl Used {
    /// Adds a replica.
    pub(crate) fn take(&mut self, shape: &Shape, member: &Member) {
        self.cpu += shape.cpu.0;
        self.memory += shape.memory.0;
        self.disk += shape.disk.0;
        for (name, amount) in shape.custom.iter() {
            *self.custom.entry(name.to_string()).or_default() += amount;
        }
        for &gpu in &member.gpus {
            let milli = if member.share == 0 { 1_000 } else { u32::from(member.share) };
            *self.gpus.entry(gpu).or_default() += milli;
        }
    }

    /// What is used more than there is.
    pub(crate) fn over(&self, node: &Node) -> Option<String> {
        let have = node.resources;
        if self.cpu > have.cpu.0 || self.memory > have.memory.0 || self.disk > have.disk.0 {
            return Some(format!("{self:?} of {have:?}"));
        }
        let amount = |called: &str| {
            let mut found = node.custom.iter().filter(|(name, _)| name.as_str() == called);
            found.next().map_or(0, |(_, amount)| amount)
        };
        if let Some((name, used)) = self.custom.iter().find(|(name, used)| **used > amount(name)) {
            return Some(format!("{used} of {name}"));
        }
        let full = self.gpus.iter().find(|(_, milli)| **milli > 1_000);
        full.map(|(gpu, milli)| format!("{milli} thousandths of GPU {gpu}"))
    }

    /// Thousandths of the GPU that are in use.
    pub(crate) fn gpu(&self, index: u8) -> u32 {
        self.gpus.get(&index).copied().unwrap_or(0)
    }
}

/// Whether a node takes anything new.
pub(crate) fn is_open(node: &Node) -> bool {
    node.status == NodeStatus::Up && node.eligibility == Eligibility::Eligible
}

/// Group of a rank: ranks are counted through the groups in order, each at its largest.
pub(crate) fn group_of(spec: &JobSpec, rank: u32) -> Option<usize> {
    (0..spec.groups.len()).find(|&group| {
        let first = first_rank(spec, group);
        (first..first + spec.groups[group].replicas_max).contains(&rank)
    })
}

pub(crate) fn first_rank(spec: &JobSpec, group: usize) -> u32 {
    spec.groups[..group].iter().map(|group| group.replicas_max).sum()
}

fn milli_of(shape: &Shape) -> u64 {
    match shape.gpus {
        GpuAsk::None => 0,
        GpuAsk::Whole(count) => u64::from(count) * 1_000,
        GpuAsk::Share(milli) => u64::from(milli),
    }
}

fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// All ranks of a new job: each group has its first ones.
pub(crate) fn all_ranks(spec: &JobSpec) -> Vec<u32> {
    let first = (0..spec.groups.len()).map(|group| (first_rank(spec, group), group));
    first.flat_map(|(first, group)| first..first + spec.groups[group].replicas).collect()
}

/// Ranks as the planner takes them.
pub(crate) fn ranks(of: &[u32]) -> Vec<Rank> {
    of.iter().copied().map(Rank).collect()
}

/// Waiting ranks of a job, and its live members.
pub(crate) fn members(state: &State, job: JobId, spec: &JobSpec) -> (Vec<u32>, Vec<Member>) {
    let (mut waiting, mut live) = (Vec::new(), Vec::new());
    for (Rank(rank), replica) in state.replicas(job) {
        match replica.allocation.filter(|_| replica.phase.is_live()) {
            None => waiting.push(rank),
            Some(held) => live.push(Member {
                rank,
                group: group_of(spec, rank).expect("a rank of the job"),
                node: held.node,
                gpus: held.gpus.iter().collect(),
                share: held.share_milli,
            }),
        }
    }
    (waiting, live)
}
