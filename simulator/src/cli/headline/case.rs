//! The worlds of `headline`: fleet, job, and what each variant changes.
//!
//! **Invariant:** the fleet is the same for all seeds and variants; a seed decides the draws.

use super::Args;
use crate::cli::Error;
use crate::cli::sweep::quoted;
use crate::scenario::{
    Arrival, Happening, Latency, NetworkModel, Scenario, SiteNetwork, StartModel, Target,
};
use crate::trace::BadRows;
use crate::trace::rtt::RttTable;
use crate::trace::specs::CLASS_LABEL;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::fixture::entry::{group, job_spec, name, node_spec};
use scheduler_core::job::{Condition, GroupSpec, JobSpec, Selector};
use scheduler_core::node::{NodeSpec, Place};
use scheduler_core::unit::{DurationMs, RttUs, TimeMs};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of all nodes, those that are community machines.
const COMMUNITY_PERCENT: u32 = 18;
const COMMUNITY: &str = "community";
const DATA_CENTRE: &str = "data-centre";
/// Label that every node has: where it stands.
const SITE_LABEL: &str = "muster/site";
/// Members on data-centre machines of 8 GPUs, and on community machines of one.
const MACHINES: u32 = 1_150;
const HOMES: u32 = 800;
/// GPUs of a data-centre machine.
const MACHINE_GPUS: u32 = 8;
/// Spare members, where there are any.
const SPARE_PERCENT: u32 = 4;
/// Of the GPUs of data-centre machines that are taken beforehand, one half is by replicas of 8, the
/// rest in equal parts by these.
const SMALL: [u8; 3] = [4, 2, 1];
/// By then the job is placed: nothing takes new work from here on where nothing is replaced.
const CLOSED: TimeMs = TimeMs(2_000);
/// What is there before the job has been running for so long when it comes.
const LEAD: DurationMs = DurationMs(600_000);
/// Whoever is not ready so long after the request never will be.
pub(super) const GIVE_UP: DurationMs = DurationMs(3_600_000);
const FLEET_SEED: u64 = 7;

/// What is taken away from the world, or added to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Variant {
    /// Nothing: lost members are replaced.
    Replaced,
    /// 4 % more members than needed.
    Spares,
    /// No node takes new work once the job is placed: lost members are not replaced.
    NotReplaced,
    /// 4 % more members than needed, lost ones are not replaced.
    SparesNotReplaced,
    /// No start fails.
    NoFailures,
    /// No start takes longer than the others.
    NoStragglers,
    /// Images take 5 to 15 s.
    QuickImages,
    /// Images take 5 to 15 s, and 4 % more members than needed.
    QuickImagesSpares,
    /// The images are there already.
    ImagesThere,
    /// Half of the GPUs of every site are taken when the job comes.
    HalfFull,
    /// Four fifths of the GPUs of every site are taken when the job comes.
    MostlyFull,
    /// Four fifths are taken, and 4 % more members than needed.
    MostlyFullSpares,
}

impl Variant {
    /// As the command line has it.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Is run where none is asked for by name.
    pub(super) fn is_usual(self) -> bool {
        self.full_percent() == 0
    }

    fn spare_percent(self) -> u32 {
        match self {
            Self::Spares
            | Self::SparesNotReplaced
            | Self::QuickImagesSpares
            | Self::MostlyFullSpares => SPARE_PERCENT,
            _ => 0,
        }
    }

    fn full_percent(self) -> u32 {
        match self {
            Self::HalfFull => 50,
            Self::MostlyFull | Self::MostlyFullSpares => 80,
            _ => 0,
        }
    }
}

/// What all cases share.
pub(super) struct Base {
    scenario: Scenario,
    rtt_max: RttUs,
    /// The command but for variant and seeds, for messages.
    command: String,
}

/// The world without anything taken away, and without a job.
pub(super) fn base(args: &Args) -> Result<Base, Error> {
    let mut bad = BadRows::refuse();
    let table =
        RttTable::read(&args.rtt, &mut bad).map_err(|error| Error::Usage(error.to_string()))?;
    let places = table.places.len();
    let home_network = |number: usize| SiteNetwork {
        site: site(number),
        one_way: Latency::Lognormal { median: DurationMs(20), sigma_milli: 500 },
        loss_ppm: 10_000,
    };
    let network = NetworkModel {
        home: Some(site(0)),
        sites: (0..places).filter(|number| number % 2 == 1).map(home_network).collect(),
        ..NetworkModel::default()
    };
    let start = StartModel {
        image: Latency::Uniform { min: DurationMs(20_000), max: DurationMs(60_000) },
        process: Latency::Lognormal { median: DurationMs(4_000), sigma_milli: 500 },
        failing_ppm: 20_000,
        straggling_ppm: 10_000,
        straggling_times: 3,
        stop: Latency::ZERO,
    };
    let scenario = Scenario {
        nodes: fleet(args.nodes, places),
        rtts: table.told(|number| Some(site(number))),
        network,
        start,
        check_every: crate::replay::CHECK_EVERY,
        ..Scenario::default()
    };
    let (rtt, nodes, max_rtt_ms) = (args.rtt.display(), args.nodes, args.max_rtt_ms);
    let rtt = quoted(&rtt.to_string());
    let command =
        format!("muster sim headline --rtt {rtt} --nodes {nodes} --max-rtt-ms {max_rtt_ms}");
    Ok(Base { scenario, rtt_max: RttUs(max_rtt_ms.saturating_mul(1_000)), command })
}

/// The world of a case; the last arrival is the job that counts.
pub(super) fn scenario(base: &Base, variant: Variant, seed: u64) -> Scenario {
    let (command, name) = (&base.command, variant.name());
    let replay = format!("{command} --variant {name} --seeds {}", seed.saturating_add(1));
    let mut scenario = Scenario { seed, replay, ..base.scenario.clone() };
    let quick = Latency::Uniform { min: DurationMs(5_000), max: DurationMs(15_000) };
    match variant {
        Variant::NoFailures => scenario.start.failing_ppm = 0,
        Variant::NoStragglers => scenario.start.straggling_ppm = 0,
        Variant::ImagesThere => scenario.start.image = Latency::ZERO,
        Variant::QuickImages | Variant::QuickImagesSpares => scenario.start.image = quick,
        Variant::NotReplaced | Variant::SparesNotReplaced => {
            scenario.events.push((CLOSED, Happening::Cordon { target: Target::All }));
        }
        _ => {}
    }
    let full_percent = variant.full_percent();
    let mut at = TimeMs::ZERO;
    if full_percent > 0 {
        at = at.after(LEAD);
        let spec = |spec| Arrival::new(TimeMs::ZERO, Arc::new(spec), None);
        scenario.arrivals = taken(&scenario.nodes, full_percent).into_iter().map(spec).collect();
    }
    let spec = Arc::new(job(variant.spare_percent(), base.rtt_max));
    scenario.arrivals.push(Arrival::new(at, spec, None));
    scenario.until = Some(at.after(GIVE_UP));
    scenario
}

fn site(number: usize) -> scheduler_core::id::Name {
    name(&format!("site-{number}"))
}

fn fleet(nodes: u32, places: usize) -> Vec<NodeSpec> {
    let mut rng = StdRng::seed_from_u64(FLEET_SEED);
    let all = name("all");
    (0..nodes)
        .map(|number| {
            let community = rng.random_range(0..100) < COMMUNITY_PERCENT;
            let gpus = if community { 1 } else { MACHINE_GPUS as usize };
            let mut spec = node_spec(&format!("node-{number}"), gpus);
            let site = site(rng.random_range(0..places));
            spec.place = Place { region: all.clone(), zone: all.clone(), site, rack: all.clone() };
            let class = if community { COMMUNITY } else { DATA_CENTRE };
            spec.labels.insert(CLASS_LABEL.into(), class.into());
            spec
        })
        .collect()
}

fn on(key: &str, value: &str) -> Selector {
    Selector { key: key.into(), condition: Condition::In(vec![value.into()]) }
}

/// The job, with so many per cent of spare members.
fn job(spare_percent: u32, rtt_max: RttUs) -> JobSpec {
    let members = |called: &str, replicas: u32, gpus: u8| {
        let more = replicas + replicas * spare_percent / 100;
        GroupSpec { replicas_min: replicas, replicas_max: more, ..group(called, more, gpus) }
    };
    let mut homes = members("homes", HOMES, 1);
    homes.selectors = vec![on(CLASS_LABEL, COMMUNITY)];
    let spec = job_spec(vec![members("machines", MACHINES, MACHINE_GPUS as u8), homes]);
    JobSpec { rtt_max: Some(rtt_max), ..spec }
}

/// One job for every site that takes so many per cent of its GPUs, in replicas of all sizes.
fn taken(nodes: &[NodeSpec], percent: u32) -> Vec<JobSpec> {
    let mut sites: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for node in nodes {
        let (machines, homes) = sites.entry(node.place.site.as_str()).or_default();
        if node.gpus.len() > 1 { *machines += 1 } else { *homes += 1 }
    }
    let mut jobs = Vec::new();
    for (site, (machines, homes)) in sites {
        let held = machines * MACHINE_GPUS * percent / 100;
        let mut groups = vec![(DATA_CENTRE, held / 2 / MACHINE_GPUS, MACHINE_GPUS as u8)];
        let each = held / 2 / SMALL.len() as u32;
        groups.extend(SMALL.map(|gpus| (DATA_CENTRE, each / u32::from(gpus), gpus)));
        groups.push((COMMUNITY, homes * percent / 100, 1));
        let groups: Vec<GroupSpec> = groups
            .into_iter()
            .filter(|&(_, replicas, _)| replicas > 0)
            .map(|(class, replicas, gpus)| GroupSpec {
                selectors: vec![on(CLASS_LABEL, class), on(SITE_LABEL, site)],
                ..group(&format!("{class}-{gpus}"), replicas, gpus)
            })
            .collect();
        if !groups.is_empty() {
            jobs.push(job_spec(groups));
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_the_share_asked_for_in_all_sizes() {
        let nodes = fleet(10_000, 5);
        let all: u64 = nodes.iter().map(|node| node.gpus.len() as u64).sum();
        for percent in [50, 80] {
            let jobs = taken(&nodes, percent);
            assert_eq!(jobs.len(), 5);
            let held: u64 = jobs.iter().map(|job| job.gpu_milli() / 1_000).sum();
            let wanted = all * u64::from(percent) / 100;
            assert!(wanted - held <= 5 * 16, "{held} of {wanted}");
            assert!(jobs.iter().all(|job| job.groups.len() == 5));
        }
    }

    #[test]
    fn a_job_with_spares_needs_no_more_than_one_without() {
        let (without, with) = (job(0, RttUs(1)), job(SPARE_PERCENT, RttUs(1)));
        let needed = |job: &JobSpec| -> Vec<u32> {
            job.groups.iter().map(|group| group.replicas_min).collect()
        };
        assert_eq!(needed(&without), needed(&with));
        assert_eq!((without.gpu_milli(), with.gpu_milli()), (10_000_000, 10_400_000));
    }
}
