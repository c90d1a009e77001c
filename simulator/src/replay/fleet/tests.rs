//! Fleets put together from small files.

use super::*;
use scheduler_core::unit::PriceMicroUsd;

fn fault(node: &str, start: u64, end: u64) -> NodeFault {
    NodeFault { node: node.to_owned(), start: TimeMs(start), end: TimeMs(end) }
}

fn input(names: &[&str]) -> Input {
    let node = |name: &&str| TraceNode {
        name: (*name).to_owned(),
        gpus: 8,
        model: "V100M32".to_owned(),
        ..TraceNode::default()
    };
    Input { nodes: names.iter().map(node).collect(), ..Input::default() }
}

fn positions<'a>(names: &[&'a str]) -> BTreeMap<&'a str, usize> {
    names.iter().enumerate().map(|(at, name)| (*name, at)).collect()
}

#[test]
fn faults_of_nodes_of_the_list_befall_those() {
    let mut input = input(&["a", "b"]);
    input.join_faults(&[fault("b", 10, 30), fault("b", 20, 50)], None).expect("joins");
    let told = input.events(&positions(&["b", "a"]), TimeMs(100), 1);
    let target = || Target::Node(0);
    assert_eq!(
        told,
        [
            (TimeMs(10), Happening::Lose { target: target(), repair: None }),
            (TimeMs(50), Happening::Restore { target: target() }),
        ]
    );
    let mixed = input.join_faults(&[fault("a", 1, 2), fault("z", 1, 2)], None);
    assert_eq!(
        mixed.expect_err("a mixture").to_string(),
        "node \"z\" is not on the list of nodes, though \"a\" is"
    );
    assert_eq!(
        input.join_faults(&[fault("x", 1, 2), fault("y", 1, 2)], Some(1)),
        Err(JoinError::FaultsOf { named: 2, of: 1 })
    );
}

#[test]
fn histories_of_another_fleet_are_dealt_out_whole() {
    // Ten nodes, two of which have faults: 30 and 10 of 100 ms, so 4 % of the time is lost.
    let faults = [fault("x", 0, 20), fault("x", 90, 100), fault("y", 40, 50)];
    let histories = Histories::new(&faults, Some(10)).expect("of ten");
    for seed in 0..20 {
        let dealt = histories.deal(1_000, TimeMs(9_999), seed);
        let down: u64 = dealt
            .iter()
            .map(|&(_, at, length)| (at.0 + length.0).min(10_000).saturating_sub(at.0))
            .sum();
        // Exactly, but for what reaches over the end.
        assert_eq!(down, 1_000 * 10_000 * 4 / 100, "seed {seed}");
        assert!(dealt.iter().all(|&(node, at, _)| node < 1_000 && at < TimeMs(10_000)));
        let nodes: BTreeSet<usize> = dealt.iter().map(|&(node, ..)| node).collect();
        assert_eq!(nodes.len(), 200, "two nodes of ten have faults");
        assert_eq!(dealt, histories.deal(1_000, TimeMs(9_999), seed));
    }
}

#[test]
fn a_fault_that_is_under_way_at_the_beginning_lasts_for_its_rest() {
    let histories = Histories::new(&[fault("x", 40, 70), fault("y", 0, 100)], None).expect("two");
    let mut told = Vec::new();
    histories.repeat(50, (TimeMs(40), TimeMs(70)), TimeMs(120), |at, length| {
        told.push((at.0, length.0));
    });
    assert_eq!(told, [(0, 20), (90, 30)]);
}

#[test]
fn spot_nodes_that_are_not_listed_come_in_addition_and_go_without_a_word() {
    let mut input = input(&["a"]);
    let change = |at, change| NodeChange { at: TimeMs(at), node: "s".to_owned(), change };
    input.join_spot(vec![change(5, Change::Joined), change(9, Change::Removed)]).expect("joins");
    assert_eq!(input.nodes.len(), 2);
    assert_eq!((input.nodes[1].gpus, input.nodes[1].class.as_str()), (8, SPOT_CLASS));
    let told = input.events(&positions(&["a", "s"]), TimeMs(7), 1);
    let target = || Target::Node(1);
    let lost = Happening::Lose { target: target(), repair: None };
    assert_eq!(
        told,
        [
            (TimeMs(0), lost.clone()),
            (TimeMs(0), Happening::Remove { target: target() }),
            (TimeMs(5), Happening::Restore { target: target() }),
        ],
        "what comes later does not count"
    );
    assert_eq!(
        input.events(&positions(&["a", "s"]), TimeMs(9), 1).last(),
        Some(&(TimeMs(9), lost))
    );
    assert_eq!(
        Input::default().join_spot(vec![change(1, Change::Joined)]),
        Err(JoinError::NoNodes)
    );
}

#[test]
fn nodes_cost_what_their_model_does() {
    let mut input = input(&["a", "b", "c"]);
    input.nodes[1].class = SPOT_CLASS.to_owned();
    input.nodes[2].price_micro_usd = 5;
    let offer = Offer {
        provider: "p".to_owned(),
        model: "V100".to_owned(),
        spot: false,
        price: PriceMicroUsd(9),
        vram_gb: None,
    };
    assert_eq!(input.join_prices(&[offer]), BTreeSet::from(["V100M32".to_owned()]));
    let prices: Vec<u64> = input.nodes.iter().map(|node| node.price_micro_usd).collect();
    assert_eq!(prices, [9, 0, 5], "nobody offers it as spot; what the list tells stays");
}

#[test]
fn round_trips_go_by_sites_or_spread_the_nodes() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("rtt.csv");
    std::fs::write(&file, "src,dst,avg_ms\noslo,rome,40\n").expect("writes");
    let table = RttTable::read(&file, &mut crate::trace::BadRows::refuse()).expect("reads");
    let mut spread = input(&["a", "b", "c"]);
    spread.join_rtts(&table).expect("joins");
    let site = |node: &TraceNode| node.place.clone().unwrap_or_default().site;
    let sites: Vec<String> = spread.nodes.iter().map(site).collect();
    assert_eq!(sites, ["site-0", "site-1", "site-0"]);
    assert_eq!((spread.rtts.len(), spread.rtts[0].rtt.0), (1, 40_000));

    let mut placed = input(&["a", "b"]);
    for (node, site) in placed.nodes.iter_mut().zip(["rome", "oslo"]) {
        node.place = Some(TracePlace { site: site.to_owned(), ..TracePlace::default() });
    }
    placed.join_rtts(&table).expect("joins");
    assert_eq!((placed.rtts[0].a.as_str(), placed.rtts[0].b.as_str()), ("rome", "oslo"));
    placed.nodes[1].place = Some(TracePlace { site: "bern".to_owned(), ..TracePlace::default() });
    assert!(matches!(placed.join_rtts(&table), Err(JoinError::Site { .. })));
    placed.nodes[1].place = None;
    assert!(matches!(placed.join_rtts(&table), Err(JoinError::NoSite { .. })));
}
