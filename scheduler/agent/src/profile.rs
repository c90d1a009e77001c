//! Fleets to imitate, as nodes to register: the shipped profiles in the words of the contract.
//!
//! **Invariant:** decides nothing; what a fleet is made of is the profile's business.

use crate::config::gpu_vendor;
use fleet_profile::{Machine, ProfileError, SiteRtt};
use proto::v1;

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile(fleet_profile::Profile);

impl Profile {
    /// The shipped mixed fleet: 1,500 nodes have 12,000 GPUs.
    pub fn global() -> Result<Self, ProfileError> {
        fleet_profile::Profile::global().map(Self)
    }

    /// A shipped profile by its name, or one from a file.
    pub fn load(name_or_path: &str) -> Result<Self, ProfileError> {
        fleet_profile::Profile::load(name_or_path).map(Self)
    }

    /// `count` nodes, at most as many as a profile may have.
    pub fn nodes(&self, count: usize) -> Vec<v1::NodeSpec> {
        self.0.machines(count).into_iter().map(node).collect()
    }

    /// Round trips of all pairs of sites that have one of these nodes: servers know no others.
    pub fn site_rtts_of(&self, nodes: &[v1::NodeSpec]) -> Vec<SiteRtt> {
        let places = nodes.iter().filter_map(|node| node.place.as_ref());
        self.0.site_rtts_among(&places.map(|place| &*place.site).collect())
    }
}

fn node(machine: Machine) -> v1::NodeSpec {
    let gpu = |at| v1::Gpu {
        model: machine.gpu_model.clone(),
        vram_mib: machine.vram_mib,
        link_domain: at / machine.gpus_per_link_domain.max(1),
        vendor: gpu_vendor(machine.vendor).into(),
        compute_capability: machine.compute_capability,
    };
    v1::NodeSpec {
        gpus: (0..machine.gpu_count).map(gpu).collect(),
        name: machine.name,
        address: machine.address,
        labels: machine.labels.into_iter().collect(),
        taints: Vec::new(),
        cpu_milli: machine.cpu_milli,
        memory_mib: machine.memory_mib,
        disk_mib: machine.disk_mib,
        place: Some(v1::Place {
            region: machine.region,
            zone: machine.zone,
            site: machine.site,
            rack: machine.rack,
        }),
        bandwidth_up_mbps: machine.bandwidth_up_mbps,
        bandwidth_down_mbps: machine.bandwidth_down_mbps,
        price_micro_usd: machine.price_micro_usd,
        custom: machine.custom.into_iter().collect(),
    }
}
