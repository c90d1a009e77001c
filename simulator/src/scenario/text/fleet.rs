//! `fleet …` and `rtt …`: the machines and how far their sites are apart.
//!
//! **Invariant:** a fleet depends on its own line alone, not on the seed of a run.

use super::line::{Fault, Word, Words};
use crate::generate;
use crate::trace::specs;
use fleet_profile::{Machine, Profile};
use scheduler_core::command::SiteRtt;
use scheduler_core::fixture::entry::{gpu_spec, node_spec};
use scheduler_core::id::{Name, NameError};
use scheduler_core::node::{NodeSpec, Place, Resources, Vendor};
use scheduler_core::unit::{
    BandwidthMbps, ComputeCapability, CpuMilli, DiskMib, MemoryMib, PriceMicroUsd, RttUs,
};
use std::collections::{BTreeMap, BTreeSet};

/// Most sites: the RTTs between them are pairs.
const SITES_MAX: u64 = 500;

/// Machines of a profile whose GPUs are counted to know how many it takes for more.
const SAMPLE: usize = 1_500;

/// What a `fleet` line gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    pub(super) nodes: Vec<NodeSpec>,
    pub(super) rtts: Vec<SiteRtt>,
}

impl Fleet {
    /// Reads what follows `fleet`: `profile=NAME nodes=N`, `profile=NAME gpus=N`,
    /// `like=NAME nodes=N cities=N`, or `nodes=N gpus_per_node=N sites=N model=NAME`.
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, Fault> {
        let keys = [
            "profile",
            "nodes",
            "gpus",
            "gpus_per_node",
            "sites",
            "model",
            "rtt",
            "seed",
            "like",
            "cities",
        ];
        let pairs = words.pairs(&keys)?;
        let nodes = pairs.number("nodes", 1, fleet_profile::NODES_MAX as u64)?;
        let gpus = pairs.number("gpus", 1, 64 * fleet_profile::NODES_MAX as u64)?;
        let seed = pairs.number("seed", 0, u64::MAX)?;
        if let Some(word) = pairs.get("profile") {
            if nodes.is_some() == gpus.is_some() {
                return Err(pairs.missing("either nodes= or gpus="));
            }
            return Self::of_profile(&word, nodes, gpus, seed);
        }
        let Some(nodes) = nodes else { return Err(pairs.missing("profile= or nodes=")) };
        if let Some(word) = pairs.get("like") {
            let cities = pairs.number("cities", 1, generate::fleet::CITIES_MAX as u64)?;
            let cities = cities.unwrap_or(generate::fleet::CITIES_USUAL);
            return Self::generated(&word, nodes, cities, seed.unwrap_or(0));
        }
        let each = pairs.number("gpus_per_node", 0, 64)?.unwrap_or(8);
        let sites = pairs.number("sites", 1, SITES_MAX)?.unwrap_or(1);
        let model = pairs.read("model", |word| word.name())?;
        let rtt = pairs.read("rtt", |word| word.rtt())?;
        let made = Self::equal(nodes, each, sites, model, rtt);
        made.map_err(|error| pairs.missing(&format!("a fleet whose names hold: it {error}")))
    }

    /// Machines like those of published fleets, drawn by `seed`.
    fn generated(word: &Word<'_>, nodes: u64, cities: u64, seed: u64) -> Result<Self, Fault> {
        let names = generate::fleet::Profile::ALL.map(generate::fleet::Profile::name);
        let profile = generate::fleet::Profile::ALL[word.choice(&names)?];
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let made = generate::fleet::fleet(profile, count(nodes), count(cities), seed);
        let nodes: Result<Vec<NodeSpec>, _> = made.nodes.iter().map(specs::node).collect();
        Ok(Self { nodes: nodes.map_err(|error| word.fault(error))?, rtts: made.rtts })
    }

    /// Equal machines n0, n1, … in the sites s0, s1, … in turn, each site a region of its own.
    fn equal(
        nodes: u64,
        gpus: u64,
        sites: u64,
        model: Option<Name>,
        rtt: Option<RttUs>,
    ) -> Result<Self, NameError> {
        let gpus = usize::try_from(gpus).unwrap_or(0);
        let mut fleet = Self::default();
        for at in 0..nodes {
            let site = at % sites;
            let mut spec = node_spec("node", gpus);
            spec.name = Name::parse(&format!("n{at}"))?;
            spec.place = Place {
                region: Name::parse(&format!("r{site}"))?,
                zone: Name::parse(&format!("z{site}"))?,
                site: Name::parse(&format!("s{site}"))?,
                rack: Name::parse(&format!("k{}", at / sites / 8))?,
            };
            if let Some(model) = &model {
                spec.gpus.iter_mut().for_each(|gpu| gpu.model = model.clone());
            }
            fleet.nodes.push(spec);
        }
        let there = sites.min(nodes);
        for a in 0..there * u64::from(rtt.is_some()) {
            for b in a + 1..there {
                let (a, b) = (Name::parse(&format!("s{a}"))?, Name::parse(&format!("s{b}"))?);
                fleet.rtts.push(SiteRtt::told(a, b, rtt.unwrap_or_default()));
            }
        }
        Ok(fleet)
    }

    /// Machines of a profile; `seed` shuffles the order in which they join, which decides ties.
    fn of_profile(
        word: &Word<'_>,
        nodes: Option<u64>,
        gpus: Option<u64>,
        seed: Option<u64>,
    ) -> Result<Self, Fault> {
        let profile = Profile::load(word.text).map_err(|error| word.fault(error))?;
        let mut machines = match (nodes, gpus) {
            (Some(nodes), _) => profile.machines(usize::try_from(nodes).unwrap_or(usize::MAX)),
            (_, gpus) => with_gpus(&profile, gpus.unwrap_or(0)),
        };
        if let Some(seed) = seed {
            shuffle(&mut machines, seed);
        }
        let used: BTreeSet<&str> = machines.iter().map(|machine| &*machine.site).collect();
        let mut fleet = Self::default();
        let bad = |error: NameError| word.fault(format!("a name of the profile {error}"));
        for pair in profile.site_rtts_among(&used) {
            let (a, b) = (Name::parse(&pair.a).map_err(bad)?, Name::parse(&pair.b).map_err(bad)?);
            fleet.rtts.push(SiteRtt::told(a, b, RttUs(pair.rtt_us)));
        }
        for machine in &machines {
            fleet.nodes.push(spec_of(machine).map_err(bad)?);
        }
        Ok(fleet)
    }
}

/// Machines of the profile with this many GPUs together, or a few more.
fn with_gpus(profile: &Profile, gpus: u64) -> Vec<Machine> {
    let sum = |machines: &[Machine]| -> u64 {
        machines.iter().map(|machine| u64::from(machine.gpu_count)).sum()
    };
    let sample = profile.machines(SAMPLE);
    let each = sum(&sample).max(1);
    let nodes_for = |gpus: u64| (gpus * SAMPLE as u64).div_ceil(each) + 1;
    let nodes = usize::try_from(nodes_for(gpus)).unwrap_or(usize::MAX);
    // The mix is even, but not to the last machine.
    let mut machines = profile.machines(nodes.saturating_add(nodes / SAMPLE));
    let mut spare = sum(&machines).saturating_sub(gpus);
    while let Some(last) = machines.last().map(|machine| u64::from(machine.gpu_count))
        && last <= spare
    {
        machines.pop();
        spare -= last;
    }
    machines
}

fn shuffle(machines: &mut [Machine], seed: u64) {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    for at in (1..machines.len()).rev() {
        machines.swap(at, rng.random_range(0..=at));
    }
}

fn spec_of(machine: &Machine) -> Result<NodeSpec, NameError> {
    let island = machine.gpus_per_link_domain.max(1);
    let vendor = machine.vendor.map(vendor_of);
    let mut spec = node_spec("node", 0);
    spec.name = Name::parse(&machine.name)?;
    let model = Name::parse(&machine.gpu_model)?;
    for at in 0..machine.gpu_count {
        let mut gpu = gpu_spec("gpu", machine.vram_mib);
        gpu.model = model.clone();
        gpu.vendor = vendor;
        gpu.link_domain = u8::try_from(at / island).unwrap_or(u8::MAX);
        let capability = u16::try_from(machine.compute_capability).unwrap_or(0);
        gpu.compute_capability = ComputeCapability(capability);
        spec.gpus.push(gpu);
    }
    spec.resources = Resources {
        cpu: CpuMilli(machine.cpu_milli),
        memory: MemoryMib(machine.memory_mib),
        disk: DiskMib(machine.disk_mib),
    };
    spec.place = Place {
        region: Name::parse(&machine.region)?,
        zone: Name::parse(&machine.zone)?,
        site: Name::parse(&machine.site)?,
        rack: Name::parse(&machine.rack)?,
    };
    spec.bandwidth_up = BandwidthMbps(machine.bandwidth_up_mbps);
    spec.bandwidth_down = BandwidthMbps(machine.bandwidth_down_mbps);
    spec.price = PriceMicroUsd(machine.price_micro_usd);
    spec.address = machine.address.as_str().into();
    let label = |(key, value): (&String, &String)| (key.as_str().into(), value.as_str().into());
    spec.labels = machine.labels.iter().map(label).collect();
    let custom: Result<BTreeMap<Name, u64>, NameError> =
        machine.custom.iter().map(|(key, value)| Ok((Name::parse(key)?, *value))).collect();
    spec.custom = custom?.into();
    Ok(spec)
}

fn vendor_of(vendor: fleet_profile::Vendor) -> Vendor {
    match vendor {
        fleet_profile::Vendor::Nvidia => Vendor::Nvidia,
        fleet_profile::Vendor::Amd => Vendor::Amd,
        fleet_profile::Vendor::Intel => Vendor::Intel,
        fleet_profile::Vendor::Google => Vendor::Google,
        fleet_profile::Vendor::Aws => Vendor::Aws,
        fleet_profile::Vendor::Huawei => Vendor::Huawei,
        fleet_profile::Vendor::Tenstorrent => Vendor::Tenstorrent,
    }
}
