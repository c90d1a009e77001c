//! Fleets: machines by kind, where they stand, what they cost, and the round trips between their
//! sites.
//!
//! `Openb` has that cluster's 1,213 GPU nodes in their shares (Weng et al., USENIX ATC 2023), all in
//! one place. `Global` is a made-up supplier market: of 69,000 nodes 53,000 have 8 GPUs, together
//! 461,772 GPUs; data centres in large cities, and people's own machines nearly everywhere. Prices
//! of H100, A100, L40S and RTX 4090 are the least, middle and highest of 21 providers' of May 2026;
//! those of other models lie around what they cost there.
//! **Invariant:** shares hold for every number of nodes, as far as whole machines allow.

use super::Draw;
use super::cities::{Cities, micros};
use super::draw::apportion;
use crate::trace::{TraceNode, TracePlace};
use scheduler_core::command::SiteRtt;
use scheduler_core::id::Name;

/// Class of a node in a data centre.
pub const DATA_CENTRE: &str = "data-centre";
/// Class of somebody's own machine, on for part of the day.
pub const COMMUNITY: &str = "community";
/// Most cities of a fleet: five sites each stay within what the state takes.
pub const CITIES_MAX: usize = 800;
/// Cities of a fleet where nothing is said.
pub const CITIES_USUAL: u64 = 60;
/// Most data centres of one city.
const CENTRES_MAX: u64 = 4;
/// One city in so many has no data centre.
const CITIES_PER_BARE: u64 = 4;
const NODES_PER_RACK: usize = 8;
/// Round trips in milliseconds: inside a site, between the data centres of a city, and what a home's
/// access adds.
const INSIDE_MS: (f64, f64) = (0.07, 0.11);
const BETWEEN_MS: (f64, f64) = (0.13, 2.2);
const HOME_MS: (f64, f64) = (4.0, 12.0);

/// Which fleet to imitate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    Openb,
    Global,
}

impl Profile {
    pub const ALL: [Self; 2] = [Self::Openb, Self::Global];

    pub fn name(self) -> &'static str {
        match self {
            Self::Openb => "openb",
            Self::Global => "global",
        }
    }
}

/// A kind of machine.
struct Kind {
    model: &'static str,
    gpus: u32,
    cpu_milli: u64,
    memory_mib: u64,
    /// Of so many machines that this many are of the kind.
    weight: u64,
    vram_mib: u32,
    /// Least, middle and highest price of a GPU-hour in thousandths of a dollar; 0 = not told.
    price_milli_usd: [f64; 3],
    class: &'static str,
}

const fn openb(model: &'static str, gpus: u32, cpu: u64, memory_mib: u64, weight: u64) -> Kind {
    let (vram_mib, price_milli_usd) = (0, [0.0; 3]);
    Kind {
        model,
        gpus,
        cpu_milli: cpu * 1_000,
        memory_mib,
        weight,
        vram_mib,
        price_milli_usd,
        class: "",
    }
}

const OPENB: [Kind; 15] = [
    openb("G2", 8, 96, 393_216, 549),
    openb("T4", 2, 104, 524_288, 387),
    openb("P100", 2, 16, 122_880, 107),
    openb("G3", 8, 128, 786_432, 39),
    openb("V100M16", 4, 32, 131_072, 28),
    openb("P100", 2, 64, 262_144, 22),
    openb("V100M32", 8, 96, 786_432, 21),
    openb("V100M16", 1, 8, 32_768, 19),
    openb("T4", 4, 96, 393_216, 17),
    openb("V100M32", 4, 48, 376_832, 9),
    openb("V100M16", 8, 64, 262_144, 7),
    openb("P100", 1, 8, 61_440, 3),
    openb("P100", 2, 8, 61_440, 2),
    openb("A10", 1, 128, 1_048_576, 2),
    openb("V100M16", 8, 82, 344_064, 1),
];

const fn centre(
    model: &'static str,
    gpus: u32,
    vram_gib: u32,
    price: [f64; 3],
    weight: u64,
) -> Kind {
    Kind {
        model,
        gpus,
        cpu_milli: 16_000 * gpus as u64,
        memory_mib: 131_072 * gpus as u64,
        weight,
        vram_mib: vram_gib * 1_024,
        price_milli_usd: price,
        class: DATA_CENTRE,
    }
}

const fn home(model: &'static str, gpus: u32, vram_gib: u32, price: [f64; 3], weight: u64) -> Kind {
    Kind {
        cpu_milli: 8_000 * gpus as u64,
        memory_mib: 32_768 * gpus as u64,
        class: COMMUNITY,
        ..centre(model, gpus, vram_gib, price, weight)
    }
}

const RTX_4090: [f64; 3] = [310.0, 450.0, 670.0];
const GLOBAL: [Kind; 12] = [
    centre("H100-SXM", 8, 80, [2_400.0, 2_990.0, 4_290.0], 18_000),
    centre("A100-80G", 8, 80, [670.0, 1_500.0, 2_400.0], 14_000),
    centre("L40S", 8, 48, [400.0, 920.0, 1_950.0], 9_000),
    centre("V100-32G", 8, 32, [250.0, 500.0, 900.0], 5_000),
    centre("H200", 8, 141, [2_900.0, 3_800.0, 5_000.0], 4_000),
    centre("B200", 8, 192, [4_000.0, 5_500.0, 7_000.0], 3_000),
    centre("A10", 4, 24, [350.0, 600.0, 900.0], 2_590),
    home("RTX4090", 4, 24, RTX_4090, 3_000),
    centre("T4", 2, 16, [150.0, 250.0, 400.0], 2_002),
    home("RTX4090", 2, 24, RTX_4090, 3_000),
    home("RTX4090", 1, 24, RTX_4090, 3_000),
    home("RTX3090", 1, 24, [150.0, 300.0, 450.0], 2_408),
];

/// Machines and round trips.
#[derive(Clone, PartialEq, Debug)]
pub struct Fleet {
    pub nodes: Vec<TraceNode>,
    pub rtts: Vec<SiteRtt>,
}

/// A place that machines stand in.
struct Site {
    city: usize,
    class: &'static str,
    place: TracePlace,
    access_ms: f64,
    nodes: usize,
}

/// So many machines of a profile; `cities` is about the global one only, at most [`CITIES_MAX`].
pub fn fleet(profile: Profile, nodes: usize, cities: usize, seed: u64) -> Fleet {
    let kinds: &[Kind] = match profile {
        Profile::Openb => &OPENB,
        Profile::Global => &GLOBAL,
    };
    let mut draw = Draw::new(seed, "machines");
    let mut order = apportion(kinds.iter().map(|kind| kind.weight), nodes);
    draw.shuffle(&mut order);
    let world = Cities::new(cities.clamp(1, CITIES_MAX), seed);
    let mut sites = match profile {
        Profile::Openb => Vec::new(),
        Profile::Global => sites(&world, &mut Draw::new(seed, "sites")),
    };
    let weights = |class: &str, sites: &[Site], draw: &mut Draw| -> Vec<(usize, u32)> {
        let of = sites.iter().enumerate().filter(|(_, site)| site.class == class);
        // A few sites are large, most are small.
        of.map(|(at, _)| (at, (1_000.0 / draw.between(0.02, 1.0)) as u32)).collect()
    };
    let centres = weights(DATA_CENTRE, &sites, &mut draw);
    let homes = weights(COMMUNITY, &sites, &mut draw);
    let nodes = order.into_iter().enumerate().filter_map(|(number, kind)| {
        let kind = kinds.get(kind)?;
        let weights = if kind.class == COMMUNITY { &homes } else { &centres };
        let site = draw.weighed(weights).and_then(|&at| sites.get_mut(at));
        Some(machine(number, kind, site, &mut draw))
    });
    let nodes: Vec<TraceNode> = nodes.collect();
    let rtts = rtts(&world, &sites, &mut Draw::new(seed, "site-pairs"));
    Fleet { nodes, rtts }
}

fn machine(number: usize, kind: &Kind, site: Option<&mut Site>, draw: &mut Draw) -> TraceNode {
    let [least, middle, most] = kind.price_milli_usd;
    let price = draw.quantiles(&[(0.0, least), (0.5, middle), (1.0, most)]).round() as u64;
    let place = site.map(|site| {
        site.nodes += 1;
        let rack = format!("rack-{}", (site.nodes - 1) / NODES_PER_RACK);
        TracePlace { rack, ..site.place.clone() }
    });
    let global = !kind.class.is_empty();
    TraceNode {
        name: format!("n{number}"),
        cpu_milli: kind.cpu_milli,
        memory_mib: kind.memory_mib,
        disk_mib: if global { 1_048_576 * u64::from(kind.gpus) } else { 0 },
        gpus: kind.gpus,
        model: kind.model.to_owned(),
        vram_mib: kind.vram_mib,
        place,
        price_micro_usd: price * 1_000,
        bandwidth_mbps: match kind.class {
            DATA_CENTRE => 25_000,
            COMMUNITY => 500,
            _ => 0,
        },
        class: kind.class.to_owned(),
        spec: None,
    }
}

fn sites(world: &Cities, draw: &mut Draw) -> Vec<Site> {
    let mut sites = Vec::new();
    for city in 0..world.len() {
        let place = |site: String| TracePlace {
            region: world.continent(city).to_owned(),
            zone: format!("city-{city}"),
            site,
            rack: String::new(),
        };
        // The first city has one, so that every machine finds a place.
        let bare = city > 0 && draw.below(CITIES_PER_BARE) == 0;
        let centres = if bare { 0 } else { 1 + draw.below(CENTRES_MAX) };
        for centre in 0..centres {
            let place = place(format!("city-{city}-dc-{centre}"));
            sites.push(Site { city, class: DATA_CENTRE, place, access_ms: 0.0, nodes: 0 });
        }
        let access_ms = draw.between(HOME_MS.0, HOME_MS.1);
        let place = place(format!("city-{city}-homes"));
        sites.push(Site { city, class: COMMUNITY, place, access_ms, nodes: 0 });
    }
    sites
}

/// Between all sites with machines, and within each.
fn rtts(world: &Cities, sites: &[Site], draw: &mut Draw) -> Vec<SiteRtt> {
    let mut rtts = Vec::new();
    let used: Vec<(&Site, Name)> = sites
        .iter()
        .filter(|site| site.nodes > 0)
        .filter_map(|site| Some((site, Name::parse(&site.place.site).ok()?)))
        .collect();
    for (number, (a, name_a)) in used.iter().enumerate() {
        for (at, (b, name_b)) in used.iter().enumerate().take(number + 1) {
            let near = if at == number { INSIDE_MS } else { BETWEEN_MS };
            let near = draw.between(near.0, near.1);
            let far = world.rtt(a.city, b.city);
            let access = micros(a.access_ms + b.access_ms).0;
            let (usual, high) = far.unwrap_or((micros(near), micros(near * 1.1)));
            let add = |rtt: scheduler_core::unit::RttUs| {
                rtt.saturating_add(scheduler_core::unit::RttUs(access))
            };
            rtts.push(SiteRtt {
                rtt_high: add(high),
                ..SiteRtt::told(name_a.clone(), name_b.clone(), add(usual))
            });
        }
    }
    rtts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::specs;
    use std::collections::BTreeMap;

    #[test]
    fn openb_nodes_are_as_published() {
        let fleet = fleet(Profile::Openb, 1_213, 1, 4);
        let mut models: BTreeMap<(&str, u32), u32> = BTreeMap::new();
        for node in &fleet.nodes {
            *models.entry((&node.model, node.gpus)).or_default() += 1;
        }
        for (model, gpus, count) in
            [("G2", 8, 549), ("T4", 2, 387), ("P100", 2, 131), ("G3", 8, 39), ("V100M32", 8, 21)]
        {
            assert_eq!(models.get(&(model, gpus)), Some(&count), "{model}");
        }
        assert_eq!(fleet.nodes.iter().map(|node| node.gpus).sum::<u32>(), 6_212);
        assert!(fleet.rtts.is_empty());
    }

    #[test]
    fn the_global_fleet_has_its_size_prices_and_sites() {
        let fleet = fleet(Profile::Global, 69_000, 60, 7);
        assert_eq!(fleet.nodes.iter().map(|node| node.gpus).sum::<u32>(), 461_772);
        for (model, low, middle, high) in [
            ("H100-SXM", 2.40, 2.99, 4.29),
            ("A100-80G", 0.67, 1.50, 2.40),
            ("L40S", 0.40, 0.92, 1.95),
            ("RTX4090", 0.31, 0.45, 0.67),
        ] {
            let of = fleet.nodes.iter().filter(|node| node.model == model);
            let mut prices: Vec<f64> = of.map(|node| node.price_micro_usd as f64 / 1e6).collect();
            prices.sort_by(f64::total_cmp);
            let found = prices[prices.len() / 2];
            assert!((found / middle - 1.0).abs() < 0.05, "{model}: {found}");
            assert!(prices[0] >= low && prices[prices.len() - 1] <= high, "{model}");
        }
        let sites: BTreeMap<String, &str> = fleet
            .nodes
            .iter()
            .filter_map(|node| Some((node.place.as_ref()?.site.clone(), node.class.as_str())))
            .collect();
        assert!(sites.len() > 120, "{} sites", sites.len());
        // Each with each, and each with itself.
        assert_eq!(fleet.rtts.len(), sites.len() * (sites.len() + 1) / 2);
        for rtt in &fleet.rtts {
            assert!(rtt.rtt <= rtt.rtt_high);
            if rtt.a == rtt.b && sites.get(rtt.a.as_str()) == Some(&DATA_CENTRE) {
                assert!((70..=110).contains(&rtt.rtt.0), "{rtt:?}");
            }
        }
        for node in fleet.nodes.iter().take(500) {
            let spec = specs::node(node).expect("a declaration");
            scheduler_core::validate::node(&spec).expect("a sound one");
            assert_eq!(
                spec.labels.get(specs::CLASS_LABEL).map(|class| &**class),
                Some(&*node.class)
            );
        }
    }

    #[test]
    fn a_small_fleet_has_all_the_common_kinds() {
        let fleet = fleet(Profile::Global, 69, 10, 1);
        let gpus: u32 = fleet.nodes.iter().map(|node| node.gpus).sum();
        assert!((440..=480).contains(&gpus), "{gpus}");
        assert!(fleet.nodes.iter().all(|node| node.place.is_some()));
    }
}
