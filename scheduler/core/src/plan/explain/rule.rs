//! Rule: a condition of a spec that can only go as a whole.
//!
//! **Invariant:** names every such condition that the planner keeps, each once.

use crate::job::{GroupSpec, JobSpec};
use crate::node::Custom;
use crate::unit::{BandwidthMbps, ComputeCapability};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A condition of a spec that can only go as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// The bound on the price of the whole duration.
    TotalPrice,
    /// The bound on the price of an hour.
    HourlyPrice,
    /// The bounds on the job's domains.
    Domains,
    /// One affinity of the job, by its index; it becomes a wish.
    Affinity(usize),
    /// Conditions of groups.
    Vendor,
    ComputeCapability,
    BandwidthUp,
    BandwidthDown,
    /// All countable resources.
    Custom,
    ReplicasPerNode,
    /// The group's own strategy; the job's is in its place.
    OwnStrategy,
    /// The group's own required topology.
    OwnTopology,
    /// The bounds on the group's domains.
    OwnDomains,
    Segments,
    Spread,
    /// Where lost replicas are replaced.
    Repair,
}

/// Rules of groups.
const OF_GROUPS: [Rule; 12] = [
    Rule::Vendor,
    Rule::ComputeCapability,
    Rule::BandwidthUp,
    Rule::BandwidthDown,
    Rule::Custom,
    Rule::ReplicasPerNode,
    Rule::OwnStrategy,
    Rule::OwnTopology,
    Rule::OwnDomains,
    Rule::Segments,
    Rule::Spread,
    Rule::Repair,
];

impl Rule {
    /// The rules that the spec has, with the groups that have them; no groups = the job.
    pub fn of(spec: &JobSpec) -> Vec<(Self, Vec<usize>)> {
        let total = spec.cost_max.map(|_| Self::TotalPrice);
        let hourly = spec.hourly_max.map(|_| Self::HourlyPrice);
        let domains = spec.domains_max.first().map(|_| Self::Domains);
        let of_job = [total, hourly, domains].into_iter().flatten();
        let binding = |(at, _): (usize, _)| Self::Affinity(at);
        let affinities = spec.affinities.iter().enumerate().filter(|(_, one)| !one.preferred);
        let of_job = of_job.chain(affinities.map(binding));
        let mut rules: Vec<(Self, Vec<usize>)> = of_job.map(|rule| (rule, Vec::new())).collect();
        for rule in OF_GROUPS {
            let groups = spec.groups.iter().enumerate().filter(|(_, group)| rule.binds(group));
            let groups: Vec<usize> = groups.map(|(at, _)| at).collect();
            if !groups.is_empty() {
                rules.push((rule, groups));
            }
        }
        rules
    }

    /// Those that are about the members together.
    pub fn among_members(spec: &JobSpec) -> Vec<Self> {
        let alone = [
            Self::Vendor,
            Self::ComputeCapability,
            Self::BandwidthUp,
            Self::BandwidthDown,
            Self::Custom,
        ];
        let rules = Self::of(spec).into_iter().map(|(rule, _)| rule);
        rules.filter(|rule| !alone.contains(rule)).collect()
    }

    /// The same spec without the rule.
    pub fn without(self, spec: &JobSpec) -> JobSpec {
        let mut new = spec.clone();
        match self {
            Self::TotalPrice => new.cost_max = None,
            Self::HourlyPrice => new.hourly_max = None,
            Self::Domains => new.domains_max.clear(),
            // A wish from now on: what is known of other jobs goes by the numbers of affinities.
            Self::Affinity(at) => {
                new.affinities.get_mut(at).into_iter().for_each(|one| one.preferred = true);
            }
            _ => new.groups.iter_mut().for_each(|group| self.leave(group)),
        }
        new
    }

    /// Its field, in the words of the native job.
    pub fn field(self) -> String {
        let name = match self {
            Self::TotalPrice => "price_total_micro_usd_max",
            Self::HourlyPrice => "price_hour_micro_usd_max",
            Self::Domains | Self::OwnDomains => "domains_max",
            Self::Affinity(at) => return format!("affinities[{at}]"),
            Self::Vendor => "vendor",
            Self::ComputeCapability => "compute_capability_min",
            Self::BandwidthUp => "bandwidth_up_mbps_min",
            Self::BandwidthDown => "bandwidth_down_mbps_min",
            Self::Custom => "custom",
            Self::ReplicasPerNode => "replicas_per_node_max",
            Self::OwnStrategy => "strategy",
            Self::OwnTopology => "topology_required",
            Self::Segments => "segments",
            Self::Spread => "spread",
            Self::Repair => "repair.level",
        };
        name.to_owned()
    }

    fn binds(self, group: &GroupSpec) -> bool {
        let (shape, rules) = (&group.shape, &group.rules);
        match self {
            Self::TotalPrice | Self::HourlyPrice | Self::Domains | Self::Affinity(_) => false,
            Self::Vendor => shape.alternatives.iter().any(|one| one.vendor.is_some()),
            Self::ComputeCapability => {
                let none = ComputeCapability::ZERO;
                shape.alternatives.iter().any(|one| one.compute_capability_min > none)
            }
            Self::BandwidthUp => shape.bandwidth_up_min > BandwidthMbps::ZERO,
            Self::BandwidthDown => shape.bandwidth_down_min > BandwidthMbps::ZERO,
            Self::Custom => shape.custom != Custom::default(),
            Self::ReplicasPerNode => rules.replicas_per_node_max > 0,
            Self::OwnStrategy => rules.strategy.is_some(),
            Self::OwnTopology => rules.topology_required.is_some(),
            Self::OwnDomains => !rules.domains_max.is_empty(),
            Self::Segments => !rules.segments.is_empty(),
            Self::Spread => rules.spread.iter().any(|one| !one.preferred),
            Self::Repair => group.repair.level.is_some() && !group.repair.preferred,
        }
    }

    fn leave(self, group: &mut GroupSpec) {
        let (shape, rules) = (&mut group.shape, &mut group.rules);
        match self {
            Self::TotalPrice | Self::HourlyPrice | Self::Domains | Self::Affinity(_) => {}
            Self::Vendor => shape.alternatives.iter_mut().for_each(|one| one.vendor = None),
            Self::ComputeCapability => {
                let each = shape.alternatives.iter_mut();
                each.for_each(|one| one.compute_capability_min = ComputeCapability::ZERO);
            }
            Self::BandwidthUp => shape.bandwidth_up_min = BandwidthMbps::ZERO,
            Self::BandwidthDown => shape.bandwidth_down_min = BandwidthMbps::ZERO,
            Self::Custom => shape.custom = Custom::default(),
            Self::ReplicasPerNode => rules.replicas_per_node_max = 0,
            Self::OwnStrategy => rules.strategy = None,
            Self::OwnTopology => rules.topology_required = None,
            Self::OwnDomains => rules.domains_max.clear(),
            Self::Segments => rules.segments.clear(),
            Self::Spread => rules.spread.retain(|one| one.preferred),
            Self::Repair => group.repair.level = None,
        }
    }
}

impl fmt::Display for Rule {
    /// What it is, for people who wrote the job in words of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TotalPrice => "the bound on the total price",
            Self::HourlyPrice => "the bound on the price per hour",
            Self::Domains => "the most domains",
            Self::Affinity(at) => return write!(f, "affinity {}", at + 1),
            Self::Vendor => "the GPU vendor",
            Self::ComputeCapability => "the least compute capability",
            Self::BandwidthUp => "the least bandwidth up",
            Self::BandwidthDown => "the least bandwidth down",
            Self::Custom => "the custom resources",
            Self::ReplicasPerNode => "the most replicas per node",
            Self::OwnStrategy => "the group's own strategy",
            Self::OwnTopology => "the group's own topology bound",
            Self::OwnDomains => "the group's most domains",
            Self::Segments => "the segments",
            Self::Spread => "the spread",
            Self::Repair => "where lost replicas are replaced",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{group, job_spec};
    use crate::job::{
        Affinity, DomainsMax, GpuAlternative, Level, Segment, Spread, Strategy, Target,
    };
    use crate::node::Vendor;
    use crate::unit::CostMicroUsd;

    #[test]
    fn every_rule_is_seen_and_goes_alone() {
        let mut spec = job_spec(vec![group("plain", 1, 1), group("ruled", 4, 1)]);
        (spec.cost_max, spec.hourly_max) = (Some(CostMicroUsd(1)), Some(CostMicroUsd(1)));
        spec.domains_max = vec![DomainsMax { level: Level::Site, max: 1 }];
        let target = Target::Groups { group: 0, with: 1 };
        let affinity = Affinity { anti: true, preferred: false, level: Level::Node, target };
        let wish = Affinity { preferred: true, ..affinity.clone() };
        spec.affinities = vec![wish, affinity];
        let ruled = &mut spec.groups[1];
        let capability = ComputeCapability(900);
        let vendor = Some(Vendor::Nvidia);
        ruled.shape.alternatives = vec![GpuAlternative {
            vendor,
            compute_capability_min: capability,
            ..GpuAlternative::default()
        }];
        ruled.shape.bandwidth_up_min = BandwidthMbps(1);
        ruled.shape.bandwidth_down_min = BandwidthMbps(1);
        ruled.rules.replicas_per_node_max = 2;
        ruled.rules.strategy = Some(Strategy::Spread);
        ruled.rules.topology_required = Some(Level::Site);
        ruled.rules.domains_max = vec![DomainsMax { level: Level::Node, max: 1 }];
        ruled.rules.segments = vec![Segment { level: Level::Rack, size: 2, exclusive: false }];
        ruled.rules.spread = vec![Spread { level: Level::Zone, skew_max: 1, preferred: false }];
        ruled.repair.level = Some(Level::Rack);
        let rules = Rule::of(&spec);
        assert_eq!(rules.len(), 15, "{rules:?}");
        for (rule, groups) in &rules {
            let of_job = [Rule::TotalPrice, Rule::HourlyPrice, Rule::Domains, Rule::Affinity(1)];
            let of_group = !of_job.contains(rule);
            assert_eq!(groups.as_slice(), if of_group { &[1][..] } else { &[] }, "{rule:?}");
            let left: Vec<Rule> =
                Rule::of(&rule.without(&spec)).into_iter().map(|(rule, _)| rule).collect();
            let others = rules.iter().map(|(rule, _)| *rule).filter(|other| other != rule);
            assert_eq!(left, others.collect::<Vec<_>>());
        }
        assert_eq!(Rule::of(&job_spec(vec![group("plain", 1, 1)])), []);
    }
}
