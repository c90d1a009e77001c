//! Fleets to imitate: which machines, in which shares, at which sites, how far apart.
//!
//! **Invariant:** pure: equal profiles and counts give equal nodes, in the same order.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most nodes of one profile: design limit of a fleet.
pub const NODES_MAX: usize = 150_000;
/// Nodes that share a rack.
const NODES_PER_RACK: usize = 8;
/// Larger weights bring nothing and could overflow sums.
const WEIGHT_MAX: u32 = 1_000_000;

const GLOBAL: &str = include_str!("../profiles/global.toml");
const SINGLE: &str = include_str!("../profiles/single.toml");

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("cannot read profile {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("cannot read profile {name}: {source}")]
    Syntax { name: String, source: Box<toml::de::Error> },
    #[error("profile {name}: {}", faults.join("; "))]
    Faulty { name: String, faults: Vec<String> },
}

/// Who makes a GPU or accelerator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    Nvidia,
    Amd,
    Intel,
    Google,
    Aws,
    Huawei,
    Tenstorrent,
}

/// One machine of a fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Unique in its fleet.
    pub name: String,
    pub region: String,
    pub zone: String,
    pub site: String,
    pub rack: String,
    pub address: String,
    pub gpu_model: String,
    pub gpu_count: u32,
    pub vram_mib: u32,
    pub vendor: Option<Vendor>,
    /// Major x 100 + minor; 0 = not told.
    pub compute_capability: u32,
    /// At least 1.
    pub gpus_per_link_domain: u32,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub bandwidth_up_mbps: u32,
    pub bandwidth_down_mbps: u32,
    pub price_micro_usd: u64,
    pub labels: BTreeMap<String, String>,
    pub custom: BTreeMap<String, u64>,
}

/// See the crate.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    shapes: Vec<Shape>,
    sites: Vec<Site>,
    rtt: Rtt,
}

/// A kind of machine.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    name: String,
    /// Its share of all nodes, against the other shapes' weights.
    weight: u32,
    gpu_model: String,
    gpu_count: u32,
    vram_mib: u32,
    #[serde(default)]
    vendor: Option<Vendor>,
    /// Major x 100 + minor; 0 = not told.
    #[serde(default)]
    compute_capability: u32,
    /// GPUs that share an NVLink island; all of them if left out.
    #[serde(default)]
    gpus_per_link_domain: Option<u32>,
    cpu_milli: u64,
    memory_mib: u64,
    disk_mib: u64,
    bandwidth_up_mbps: u32,
    bandwidth_down_mbps: u32,
    price_micro_usd: u64,
    /// Names of the sites that have it; empty = all.
    #[serde(default)]
    sites: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    custom: BTreeMap<String, u64>,
}

/// A place with machines.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    region: String,
    zone: String,
    name: String,
    /// Its share of the nodes of every shape that it has.
    weight: u32,
    /// Way from the site to its region's backbone, in microseconds; part of every RTT to elsewhere.
    #[serde(default)]
    access_us: u32,
}

/// Round trips in microseconds.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rtt {
    same_zone_us: u32,
    same_region_us: u32,
    #[serde(default)]
    between: Vec<Between>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Between {
    regions: [String; 2],
    us: u32,
}

/// Round trip between two sites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteRtt {
    pub a: String,
    pub b: String,
    pub rtt_us: u32,
}

impl Profile {
    /// The shipped mixed fleet: 1,500 nodes have 12,000 GPUs.
    pub fn global() -> Result<Profile, ProfileError> {
        Profile::parse("global", GLOBAL)
    }

    /// The shipped fleet of single-GPU nodes.
    pub fn single() -> Result<Profile, ProfileError> {
        Profile::parse("single", SINGLE)
    }

    /// A shipped profile by its name, or one from a file.
    pub fn load(name_or_path: &str) -> Result<Profile, ProfileError> {
        match name_or_path {
            "global" => Profile::global(),
            "single" => Profile::single(),
            path => {
                let read = std::fs::read_to_string(path);
                let failed = |source| ProfileError::Io { path: path.to_owned(), source };
                Profile::parse(path, &read.map_err(failed)?)
            }
        }
    }

    /// Reads and checks a profile; `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Result<Profile, ProfileError> {
        let syntax =
            |source| ProfileError::Syntax { name: name.to_owned(), source: Box::new(source) };
        let profile: Profile = toml::from_str(text).map_err(syntax)?;
        let faults = profile.faults();
        match faults.is_empty() {
            true => Ok(profile),
            false => Err(ProfileError::Faulty { name: name.to_owned(), faults }),
        }
    }

    /// `count` machines (at most [`NODES_MAX`]): shapes by largest remainder of their weights, mixed
    /// evenly, so that any stretch of the list looks like the whole.
    pub fn machines(&self, count: usize) -> Vec<Machine> {
        let count = count.min(NODES_MAX);
        let weights: Vec<u32> = self.shapes.iter().map(|shape| shape.weight).collect();
        let quotas = apportion(&weights, count);
        let mut shapes = Rotation::new(quotas.iter().map(|quota| *quota as u64).collect());
        let mut sites: Vec<Rotation> = (0..self.shapes.len()).map(|at| self.sites_of(at)).collect();
        let mut at_site = vec![0usize; self.sites.len()];
        let mut machines = Vec::with_capacity(count);
        while machines.len() < count
            && let Some(shape) = shapes.next()
            && let Some(site) = sites.get_mut(shape).and_then(Rotation::next)
        {
            let ordinal = at_site[site];
            at_site[site] += 1;
            machines.push(self.machine(&self.shapes[shape], &self.sites[site], ordinal));
        }
        machines
    }

    /// Round trips of all pairs of different sites.
    pub fn site_rtts(&self) -> Vec<SiteRtt> {
        let mut rtts = Vec::new();
        for (at, a) in self.sites.iter().enumerate() {
            for b in &self.sites[at + 1..] {
                let us = self.rtt_us(a, b);
                rtts.push(SiteRtt { a: a.name.clone(), b: b.name.clone(), rtt_us: us });
            }
        }
        rtts
    }

    /// Round trips of all pairs among these sites: servers know no others than those with nodes.
    pub fn site_rtts_among(&self, sites: &BTreeSet<&str>) -> Vec<SiteRtt> {
        let mut rtts = self.site_rtts();
        rtts.retain(|pair| sites.contains(&*pair.a) && sites.contains(&*pair.b));
        rtts
    }

    fn rtt_us(&self, a: &Site, b: &Site) -> u32 {
        let base = if a.zone == b.zone && a.region == b.region {
            self.rtt.same_zone_us
        } else if a.region == b.region {
            self.rtt.same_region_us
        } else {
            // `faults` has made sure that there is one.
            self.between(&a.region, &b.region).unwrap_or(u32::MAX)
        };
        base.saturating_add(a.access_us).saturating_add(b.access_us)
    }

    fn between(&self, a: &str, b: &str) -> Option<u32> {
        let is_pair = |pair: &&Between| {
            let [c, d] = &pair.regions;
            (c == a && d == b) || (c == b && d == a)
        };
        self.rtt.between.iter().find(is_pair).map(|pair| pair.us)
    }

    /// Sites of a shape in turn, by weight; different shapes begin at different sites.
    fn sites_of(&self, shape: usize) -> Rotation {
        let only = &self.shapes[shape].sites;
        let weight = |site: &Site| {
            let has = only.is_empty() || only.contains(&site.name);
            if has { u64::from(site.weight) } else { 0 }
        };
        let mut rotation = Rotation::new(self.sites.iter().map(weight).collect());
        for _ in 0..shape * 3 {
            rotation.next();
        }
        rotation
    }

    fn machine(&self, shape: &Shape, site: &Site, ordinal: usize) -> Machine {
        let name = format!("{}-{}-{ordinal:04}", site.name, shape.name);
        Machine {
            address: format!("{name}.{}.example", site.region),
            name,
            region: site.region.clone(),
            zone: site.zone.clone(),
            site: site.name.clone(),
            rack: format!("r{:04}", ordinal / NODES_PER_RACK),
            gpu_model: shape.gpu_model.clone(),
            gpu_count: shape.gpu_count,
            vram_mib: shape.vram_mib,
            vendor: shape.vendor,
            compute_capability: shape.compute_capability,
            gpus_per_link_domain: shape.gpus_per_link_domain.unwrap_or(shape.gpu_count).max(1),
            cpu_milli: shape.cpu_milli,
            memory_mib: shape.memory_mib,
            disk_mib: shape.disk_mib,
            bandwidth_up_mbps: shape.bandwidth_up_mbps,
            bandwidth_down_mbps: shape.bandwidth_down_mbps,
            price_micro_usd: shape.price_micro_usd,
            labels: shape.labels.clone(),
            custom: shape.custom.clone(),
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        check_names("shapes", self.shapes.iter().map(|shape| &*shape.name), &mut faults);
        check_names("sites", self.sites.iter().map(|site| &*site.name), &mut faults);
        let sites: BTreeSet<&str> = self.sites.iter().map(|site| &*site.name).collect();
        for (at, shape) in self.shapes.iter().enumerate() {
            if shape.gpu_count > 64 {
                faults.push(format!("shapes[{at}].gpu_count: {} is above 64", shape.gpu_count));
            }
            if shape.weight > WEIGHT_MAX {
                faults.push(format!("shapes[{at}].weight: {} is above {WEIGHT_MAX}", shape.weight));
            }
            for name in shape.sites.iter().filter(|name| !sites.contains(name.as_str())) {
                faults.push(format!("shapes[{at}].sites: {name:?} is no site"));
            }
            let has = |site: &&Site| shape.sites.is_empty() || shape.sites.contains(&site.name);
            if !self.sites.iter().filter(has).any(|site| site.weight > 0) {
                faults.push(format!("shapes[{at}].sites: no site with weight"));
            }
        }
        for (at, site) in self.sites.iter().enumerate() {
            if site.weight > WEIGHT_MAX {
                faults.push(format!("sites[{at}].weight: {} is above {WEIGHT_MAX}", site.weight));
            }
        }
        if self.shapes.iter().all(|shape| shape.weight == 0) {
            faults.push("shapes: none has weight".to_owned());
        }
        let regions: BTreeSet<&str> = self.sites.iter().map(|site| &*site.region).collect();
        for a in &regions {
            for b in
                regions.range::<str, _>((std::ops::Bound::Excluded(*a), std::ops::Bound::Unbounded))
            {
                if self.between(a, b).is_none() {
                    faults.push(format!("rtt.between: nothing for {a:?} and {b:?}"));
                }
            }
        }
        faults
    }
}

fn check_names<'a>(field: &str, names: impl Iterator<Item = &'a str>, faults: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (at, name) in names.enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        // Both names and a number go into a node's name, which has 63 bytes.
        if name.is_empty() || name.len() > 28 || !name.bytes().all(plain) {
            faults.push(format!("{field}[{at}].name: {name:?} is not 1 to 28 of [A-Za-z0-9._-]"));
        }
        if !seen.insert(name) {
            faults.push(format!("{field}[{at}].name: {name:?} is there twice"));
        }
    }
}

/// Parts of `count` in the ratio of `weights` (largest remainder; the earlier wins a tie).
fn apportion(weights: &[u32], count: usize) -> Vec<usize> {
    let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum::<u128>().max(1);
    let share = |weight: &u32| u128::from(*weight) * count as u128;
    let mut parts: Vec<usize> = weights.iter().map(|w| (share(w) / total) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|at| std::cmp::Reverse(share(&weights[*at]) % total));
    let missing = count.saturating_sub(parts.iter().sum());
    for at in by_remainder.into_iter().filter(|at| weights[*at] > 0).take(missing) {
        parts[at] += 1;
    }
    parts
}

/// Indexes in turn, each as often as its weight says and spread evenly (smooth weighted round
/// robin, as in nginx).
struct Rotation {
    weights: Vec<u64>,
    credits: Vec<i64>,
    total: i64,
}

impl Rotation {
    fn new(weights: Vec<u64>) -> Rotation {
        let total = i64::try_from(weights.iter().sum::<u64>()).unwrap_or(i64::MAX);
        Rotation { credits: vec![0; weights.len()], weights, total }
    }

    /// The next index; `None` if nothing has weight.
    fn next(&mut self) -> Option<usize> {
        for (credit, weight) in self.credits.iter_mut().zip(&self.weights) {
            *credit += i64::try_from(*weight).unwrap_or(i64::MAX);
        }
        let best = (0..self.weights.len())
            .filter(|at| self.weights[*at] > 0)
            .max_by_key(|at| (self.credits[*at], std::cmp::Reverse(*at)))?;
        self.credits[best] -= self.total;
        Some(best)
    }
}

#[cfg(test)]
mod tests;
