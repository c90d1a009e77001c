//! Profiles give fleets of exact sizes.

use super::*;
use proptest::prelude::*;

fn gpus(nodes: &[Machine]) -> usize {
    nodes.iter().map(|node| node.gpu_count as usize).sum()
}

fn distinct<'a>(nodes: &'a [Machine], of: impl Fn(&'a Machine) -> &'a str) -> usize {
    nodes.iter().map(of).collect::<BTreeSet<_>>().len()
}

#[test]
fn the_global_fleet_has_12_000_gpus_on_1_500_nodes() {
    let nodes = Profile::global().unwrap().machines(1500);
    assert_eq!((nodes.len(), gpus(&nodes)), (1500, 12_000));
    let slots: usize = nodes.iter().map(|node| node.gpu_count as usize / 8).sum();
    assert!(slots >= 1250, "{slots} times 8 GPUs");
    assert!(distinct(&nodes, |node| &node.gpu_model) >= 9);
    assert!(distinct(&nodes, |node| &node.site) >= 16);
    assert_eq!(distinct(&nodes, |node| &node.region), 7);
    assert_eq!(distinct(&nodes, |node| &node.name), 1500);
}

#[test]
fn any_stretch_looks_like_the_whole() {
    let nodes = Profile::global().unwrap().machines(1500);
    for stretch in nodes.chunks(100) {
        assert!((760..=840).contains(&gpus(stretch)), "{} GPUs on 100 nodes", gpus(stretch));
        assert!(distinct(stretch, |node| &node.region) >= 6);
    }
}

#[test]
fn the_single_fleet_has_one_gpu_each() {
    let nodes = Profile::single().unwrap().machines(10_000);
    assert_eq!((nodes.len(), gpus(&nodes)), (10_000, 10_000));
    assert!(nodes.iter().all(|node| node.gpu_count == 1));
    assert!(distinct(&nodes, |node| &node.gpu_model) >= 5);
    assert_eq!(distinct(&nodes, |node| &node.name), 10_000);
}

#[test]
fn names_and_places_are_within_the_contract() {
    for profile in [Profile::global().unwrap(), Profile::single().unwrap()] {
        for node in profile.machines(5000) {
            for name in [&node.name, &node.region, &node.zone, &node.site, &node.rack] {
                assert!((1..=63).contains(&name.len()), "{name}");
            }
            assert!(node.cpu_milli <= 4_096_000 && node.price_micro_usd <= 1_000_000_000);
        }
    }
}

#[test]
fn all_pairs_of_sites_have_an_rtt() {
    let profile = Profile::global().unwrap();
    let rtts = profile.site_rtts();
    let sites = profile.sites.len();
    assert_eq!(rtts.len(), sites * (sites - 1) / 2);
    assert!(rtts.iter().all(|pair| pair.a != pair.b && (100..=400_000).contains(&pair.rtt_us)));
    let of = |a: &Site, b: &Site| profile.rtt_us(a, b);
    for (a, b) in profile.sites.iter().zip(profile.sites.iter().skip(1)) {
        assert_eq!(of(a, b), of(b, a));
        if a.region == b.region {
            assert!(of(a, b) < 10_000, "{} and {} share a region", a.name, b.name);
        }
    }
}

#[test]
fn small_fleets_have_rtts_of_their_own_sites_only() {
    let profile = Profile::global().unwrap();
    let nodes = profile.machines(5);
    let sites = distinct(&nodes, |node| &node.site);
    assert!((2..=5).contains(&sites));
    let used = |nodes: &[Machine]| {
        let sites = nodes.iter().map(|node| &*node.site).collect();
        profile.site_rtts_among(&sites)
    };
    assert_eq!(used(&nodes).len(), sites * (sites - 1) / 2);
    assert_eq!(used(&profile.machines(1500)), profile.site_rtts());
}

#[test]
fn faults_are_all_named_at_once() {
    let text = GLOBAL
        .replacen("gpu_count = 8", "gpu_count = 99", 1)
        .replacen("name = \"iad1\"", "name = \"i d\"", 1)
        .replacen("sites = [\"", "sites = [\"nowhere\", \"", 1);
    let Err(ProfileError::Faulty { faults, .. }) = Profile::parse("x", &text) else {
        panic!("passed")
    };
    for part in ["gpu_count: 99 is above 64", "name: \"i d\" is not", "\"nowhere\" is no site"] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:?}");
    }
    assert!(matches!(Profile::parse("x", "a = 1"), Err(ProfileError::Syntax { .. })));
    assert!(matches!(Profile::load("/no/such"), Err(ProfileError::Io { .. })));
    let gap = GLOBAL.replacen("[\"us-east\", \"us-west\"]", "[\"us-east\", \"mars\"]", 1);
    let error = Profile::parse("x", &gap).unwrap_err().to_string();
    assert!(error.contains("nothing for \"us-east\" and \"us-west\""), "{error}");
}

proptest! {
    #[test]
    fn parts_add_up_and_are_fair(
        weights in prop::collection::vec(0u32..1000, 1..12),
        count in 0usize..5000,
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let parts = apportion(&weights, count);
        prop_assert_eq!(parts.iter().sum::<usize>(), count);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (part, weight) in parts.iter().zip(&weights) {
            let exact = f64::from(*weight) * count as f64 / total as f64;
            prop_assert!((*part as f64 - exact).abs() < 1.0);
        }
    }

    #[test]
    fn every_count_gives_that_many_nodes(count in 0usize..3000) {
        let profile = Profile::global().unwrap();
        let nodes = profile.machines(count);
        prop_assert_eq!(nodes.len(), count);
        prop_assert_eq!(distinct(&nodes, |node| &node.name), count);
    }
}
