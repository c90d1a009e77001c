//! The choice of sites against every subset of few sites.

use super::config;
use crate::fixture::entry::name;
use crate::id::SiteId;
use crate::node::Place;
use crate::plan::Budget;
use crate::plan::near::{
    Answer, Head, Objective, Question, Vertex, any, around_head, bound_needed, choose, largest,
};
use crate::topology::{FAR, Measured, Net, Sites};
use crate::unit::{RttUs, TimeMs};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SITES: usize = 9;

struct World {
    net: Net,
    vertices: Vec<Vertex>,
    need: Vec<u64>,
    fixed: Vec<(u16, u64)>,
    bound: u32,
}

fn world(rng: &mut StdRng) -> World {
    let mut sites = Sites::default();
    let mut vertices = Vec::new();
    for number in 0..SITES {
        let site = name(&format!("s{number}"));
        let place = Place { region: name("r"), zone: name("z"), site, rack: name("k") };
        let id = sites.join(&place).expect("joins");
        // Noise of its own per pair: the triangle inequality does not hold.
        for other in 0..id.0 {
            if rng.random_range(0..10) > 0 {
                sites.set_rtt(id, SiteId(other), measured(rng, 100_000));
            }
        }
        if rng.random_range(0..8) == 0 {
            sites.set_rtt(id, id, measured(rng, 60_000));
        }
        let have = vec![rng.random_range(0..10), rng.random_range(0..10), 0];
        vertices.push(Vertex::new(id.0, have));
    }
    let need = vec![rng.random_range(0..25), rng.random_range(1..25), 0];
    let fixed = match rng.random_range(0..3) {
        0 => vec![(rng.random_range(0..SITES as u16), 2)],
        _ => Vec::new(),
    };
    let net = Net::new(&sites);
    // Often just what some pair takes, or some site inside.
    let [a, b] = [(); 2].map(|()| rng.random_range(0..SITES as u16));
    let bound = match net.high(a, b) {
        high if high < FAR && rng.random_range(0..2) == 0 => high,
        _ => rng.random_range(10_000..130_000),
    };
    World { net, vertices, need, fixed, bound }
}

fn measured(rng: &mut StdRng, us_max: u32) -> Measured {
    let median = rng.random_range(1_000..us_max);
    let high = median + rng.random_range(0..median);
    Measured { median: RttUs(median), high: RttUs(high), samples: 9, at: TimeMs(1) }
}

impl World {
    fn question(&self, bound_us: Option<u32>, objective: Objective) -> Question<'_> {
        let Self { net, vertices, need, fixed, .. } = self;
        Question { net, vertices, need, fixed, bound_us, objective }
    }

    /// The same with amounts that 32 bits do not hold.
    fn larger(&self) -> Self {
        let larger = |amounts: &[u64]| amounts.iter().map(|amount| amount << 40).collect();
        let vertices =
            self.vertices.iter().map(|vertex| Vertex::new(vertex.site, larger(&vertex.have)));
        Self {
            net: self.net.clone(),
            vertices: vertices.collect(),
            need: larger(&self.need),
            fixed: self.fixed.clone(),
            bound: self.bound,
        }
    }

    fn subset(&self, sites: &[u16]) -> u32 {
        sites.iter().fold(0u32, |set, &site| set | 1 << site)
    }

    /// Largest median and largest high RTT of a subset that covers the need; `None` if it does
    /// not, or has an unknown.
    fn diameters(&self, subset: u32, need: &[u64]) -> Option<(u32, u32)> {
        let members: Vec<&Vertex> =
            self.vertices.iter().filter(|vertex| subset & (1 << vertex.site) != 0).collect();
        for (dimension, &need) in need.iter().enumerate() {
            let have: u64 = members.iter().map(|vertex| vertex.have[dimension]).sum();
            if have < need {
                return None;
            }
        }
        let mut widest = (0, 0);
        for (at, a) in members.iter().enumerate() {
            let others = members[at..].iter().map(|vertex| vertex.site);
            for b in others.chain(self.fixed.iter().map(|&(site, _)| site)) {
                let (median, high) = (self.net.median(a.site, b), self.net.high(a.site, b));
                if high == FAR {
                    return None;
                }
                widest = (widest.0.max(median), widest.1.max(high));
            }
        }
        Some(widest)
    }

    /// All subsets that cover the need within the bound, with both diameters.
    fn able(&self, bound: u32, need: &[u64]) -> impl Iterator<Item = (u32, (u32, u32))> {
        (1..1u32 << SITES)
            .filter_map(|subset| Some((subset, self.diameters(subset, need)?)))
            .filter(move |(_, (_, high))| *high <= bound)
            .collect::<Vec<_>>()
            .into_iter()
    }
}

fn diameter(seed: u64) {
    let world = world(&mut StdRng::seed_from_u64(seed));
    let best = world.able(world.bound, &world.need).map(|(_, (median, _))| median).min();
    for objective in [Objective::Any, Objective::Diameter] {
        let question = world.question(Some(world.bound), objective);
        match (choose(&question, Budget::default()), best) {
            (Answer::Infeasible, None) => {}
            (Answer::Chosen(choice), Some(best)) => {
                let told = (choice.median_us, choice.high_us);
                let subset = world.subset(&choice.sites);
                assert_eq!(world.diameters(subset, &world.need), Some(told));
                assert!(choice.high_us <= world.bound && choice.floor_us <= best);
                let over = choice.median_us - best;
                let allowed = if objective == Objective::Any { best / 31 } else { 0 };
                assert!(over <= allowed, "{objective:?}: {} for {best}", choice.median_us);
            }
            (answer, best) => panic!("{answer:?}, best {best:?}"),
        }
    }
    let quick = any(&world.question(Some(world.bound), Objective::Any), Budget::default());
    assert_eq!(matches!(quick, Answer::Chosen(_)), best.is_some(), "{quick:?}");
    if let Answer::Chosen(choice) = &quick {
        assert!(choice.high_us <= world.bound);
    }
    assert_eq!(
        any(&world.larger().question(Some(world.bound), Objective::Any), Budget::default()),
        quick
    );
}

fn miss(seed: u64) {
    let world = world(&mut StdRng::seed_from_u64(seed));
    let question = world.question(Some(world.bound), Objective::Any);
    let least = world.able(FAR - 1, &world.need).map(|(_, (_, high))| high).min();
    match (bound_needed(&question, Budget::default()), least) {
        (None, None) => {}
        (Some(found), Some(least)) => {
            assert!((least..=least + least / 100).contains(&found), "{found} for {least}");
        }
        (found, least) => panic!("{found:?} for {least:?}"),
    }
    let parts = 12u32;
    let (fits, choice) = largest(&question, parts, Budget::default());
    let scaled = |part: u32| -> Vec<u64> {
        let part = |need: &u64| (need * u64::from(part)).div_ceil(u64::from(parts));
        world.need.iter().map(part).collect()
    };
    let able = |part| world.able(world.bound, &scaled(part)).next().is_some();
    let most = (1..=parts).filter(|&part| able(part)).max().unwrap_or(0);
    assert_eq!(fits, most);
    assert_eq!(choice.is_some(), most > 0);
    if let Some(choice) = choice {
        let (_, high) =
            world.diameters(world.subset(&choice.sites), &scaled(fits)).expect("covers");
        assert!(high <= world.bound);
    }
}

/// Least sum of RTTs over pairs, over all ways to give each site so many members.
fn least_sum(world: &World, at: usize, left: u64, units: &mut Vec<u64>, best: &mut Option<u128>) {
    if at == world.vertices.len() {
        if left == 0 {
            let sum = sum_of(world, units);
            *best = [*best, sum].into_iter().flatten().min();
        }
        return;
    }
    for some in 0..=world.vertices[at].have[1].min(left) {
        units.push(some);
        least_sum(world, at + 1, left - some, units, best);
        units.pop();
    }
}

fn sum_of(world: &World, units: &[u64]) -> Option<u128> {
    let used: Vec<u16> = (0u16..).zip(units).filter(|(_, n)| **n > 0).map(|(at, _)| at).collect();
    let mut sum = 0u128;
    for (at, &a) in used.iter().enumerate() {
        let members = u128::from(units[usize::from(a)]);
        for &b in &used[at..] {
            let pairs = match a == b {
                true => members * (members - 1) / 2,
                false => members * u128::from(units[usize::from(b)]),
            };
            if world.net.high(a, b) > world.bound {
                return None;
            }
            sum += pairs * u128::from(world.net.median(a, b));
        }
        for &(fixed, staying) in &world.fixed {
            if world.net.high(a, fixed) > world.bound {
                return None;
            }
            sum += members * u128::from(staying) * u128::from(world.net.median(a, fixed));
        }
    }
    Some(sum)
}

/// How far the mean is above the best, in thousandths; `None` where there is none.
fn mean(seed: u64) -> Option<u64> {
    let mut world = world(&mut StdRng::seed_from_u64(seed));
    world.vertices.truncate(6);
    world.need = vec![0, world.need[1].min(14), 0];
    let mut best = None;
    least_sum(&world, 0, world.need[1], &mut Vec::new(), &mut best);
    let question = world.question(Some(world.bound), Objective::Mean);
    match (choose(&question, Budget::default()), best) {
        (Answer::Infeasible, None) => None,
        (Answer::Chosen(choice), Some(best)) => {
            let (new, old) =
                (u128::from(world.need[1]), world.fixed.iter().map(|f| f.1).sum::<u64>());
            let pairs = new * (new - 1) / 2 + new * u128::from(old);
            let told = u128::from(choice.mean_us.expect("a mean"));
            let best = (best + pairs / 2).checked_div(pairs).unwrap_or(0);
            assert!(choice.high_us <= world.bound);
            assert!(told + 1 >= best && u128::from(choice.floor_us) <= best + 1);
            Some(((told.max(best) - best) * 1000 / best.max(1)) as u64)
        }
        (answer, best) => panic!("{answer:?}, best {best:?}"),
    }
}

fn head(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = world(&mut rng);
    world.fixed.clear();
    let wants = vec![world.need[0].min(2), 1, 0];
    // All sites within a bound of the head's, for every place of the head.
    let radius = |head: &Vertex| {
        let mut near: Vec<(u32, &Vertex)> = world
            .vertices
            .iter()
            .filter(|vertex| world.net.high(head.site, vertex.site) <= world.bound)
            .map(|vertex| (world.net.median(head.site, vertex.site), vertex))
            .collect();
        near.sort_by_key(|(rtt, vertex)| (*rtt, vertex.site));
        let mut held = [0; 3];
        for (rtt, vertex) in near {
            held.iter_mut().zip(&vertex.have).for_each(|(sum, more)| *sum += more);
            if held.iter().zip(&world.need).all(|(have, need)| have >= need) {
                return Some(rtt);
            }
        }
        None
    };
    let able = world.vertices.iter().filter(|vertex| {
        vertex.have.iter().zip(&wants).all(|(have, need)| have >= need)
            && world.net.high(vertex.site, vertex.site) <= world.bound
    });
    let best = able.filter_map(radius).min();
    let question = world.question(Some(world.bound), Objective::Diameter);
    match (around_head(&question, Head::Waits(&wants), Budget::default()), best) {
        ((Answer::Infeasible, None), None) => {}
        ((Answer::Chosen(choice), Some(head)), Some(best)) => {
            assert_eq!((choice.median_us, choice.floor_us), (best, best));
            for &site in &choice.sites {
                assert!(world.net.high(head, site) <= world.bound);
            }
        }
        (answer, best) => panic!("{answer:?}, best {best:?}"),
    }
}

#[test]
fn the_mean_is_as_small_as_can_be_in_most_cases() {
    let over: Vec<u64> = (0..400).filter_map(mean).collect();
    assert!(over.len() > 100, "{} cases", over.len());
    let total: u64 = over.iter().sum();
    assert!(
        total <= 5 * over.len() as u64,
        "{} thousandths over on average",
        total / over.len() as u64
    );
    assert!(over.iter().all(|&over| over <= 150), "{:?} thousandths over", over.iter().max());
}

#[test]
fn what_is_scarcest_may_be_at_no_site_that_stands_in_the_way_of_another() {
    // All of the first dimension is at one site near to all; the other five stand in a ring in
    // which each is too far from two, so that no three of them fit together.
    let mut sites = Sites::default();
    for number in 0..6u16 {
        let site = name(&format!("s{number}"));
        let place = Place { region: name("r"), zone: name("z"), site, rack: name("k") };
        let id = sites.join(&place).expect("joins");
        for other in 0..number {
            let ring = other > 0 && [1, 4].contains(&(number - other));
            let rtt = RttUs(if ring { 900 } else { 300 });
            sites.set_rtt(
                id,
                SiteId(other),
                Measured { median: rtt, high: rtt, samples: 9, at: TimeMs(1) },
            );
        }
    }
    let net = Net::new(&sites);
    let ring = (1..6).map(|site| Vertex::new(site, vec![0, 5]));
    let vertices: Vec<Vertex> = std::iter::once(Vertex::new(0, vec![10, 0])).chain(ring).collect();
    let answer = |second| {
        let need = &[10, second][..];
        let bound_us = Some(500);
        any(
            &Question {
                net: &net,
                vertices: &vertices,
                need,
                fixed: &[],
                bound_us,
                objective: Objective::Any,
            },
            Budget::default(),
        )
    };
    assert!(matches!(answer(10), Answer::Chosen(_)));
    assert_eq!(answer(12), Answer::Infeasible);
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn near_sites_are_as_near_as_can_be(seed: u64) {
        diameter(seed);
    }

    #[test]
    fn a_miss_is_measured_exactly(seed: u64) {
        miss(seed);
    }

    #[test]
    fn members_are_as_near_their_head_as_can_be(seed: u64) {
        head(seed);
    }
}
