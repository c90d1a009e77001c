//! The search for near sites against every subset of few sites.

use super::config;
use crate::fixture::entry::name;
use crate::id::SiteId;
use crate::node::Place;
use crate::plan::Steps;
use crate::plan::clique::{Found, Vertex, tightest};
use crate::topology::Sites;
use crate::unit::RttUs;
use crate::view::Net;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SITES: usize = 9;

struct World {
    sites: Sites,
    vertices: Vec<Vertex>,
    demand: Vec<u64>,
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
                sites.set_rtt(id, SiteId(other), RttUs(rng.random_range(1_000..100_000)));
            }
        }
        let have = vec![rng.random_range(0..10), rng.random_range(0..10)];
        let reach = if rng.random_range(0..3) == 0 { rng.random_range(0..50_000) } else { 0 };
        vertices.push(Vertex { site: id.0, reach, have });
    }
    let demand = vec![rng.random_range(0..25), rng.random_range(1..25)];
    World { sites, vertices, demand }
}

/// The largest RTT of a subset that covers the demand; `None` if it does not, or has an unknown.
fn diameter(world: &World, subset: u32) -> Option<u32> {
    let inside = |at: &usize| subset & (1 << at) != 0;
    let members: Vec<&Vertex> = (0..SITES).filter(inside).map(|at| &world.vertices[at]).collect();
    for (dimension, &need) in world.demand.iter().enumerate() {
        let have: u64 = members.iter().map(|vertex| vertex.have[dimension]).sum();
        if have < need {
            return None;
        }
    }
    let mut widest = members.iter().map(|vertex| vertex.reach).max().unwrap_or(0);
    for (at, a) in members.iter().enumerate() {
        for b in members.iter().skip(at + 1) {
            widest = widest.max(world.sites.rtt(SiteId(a.site), SiteId(b.site))?.0);
        }
    }
    Some(widest)
}

fn check(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = world(&mut rng);
    let bound = rng.random_range(10_000..120_000);
    let net = Net::new(&world.sites);
    let mut steps = Steps { left: u64::MAX };
    let found = tightest(&net, &world.vertices, &world.demand, bound, &mut steps);
    let best = (1..1u32 << SITES)
        .filter_map(|subset| diameter(&world, subset))
        .min()
        .filter(|&rtt| rtt <= bound);
    match (found, best) {
        (Found::None, None) => {}
        (Found::Sites(sites, rtt), Some(best)) => {
            let subset = sites.iter().fold(0u32, |set, &site| set | 1 << site);
            assert_eq!(diameter(&world, subset), Some(rtt));
            assert!(rtt <= bound && rtt >= best);
            assert!(rtt - best <= rtt / 32, "found {rtt}, best {best}");
        }
        (found, best) => panic!("found {found:?}, best {best:?}"),
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn near_sites_are_as_near_as_can_be(seed: u64) {
        check(seed);
    }
}
