//! Faults of nodes by class: data-centre nodes fail rarely and stay away for long, community and
//! spot nodes come and go all day.
//!
//! Data centres, after InfiniteHBD's trace of 400 servers over 348 days: 4.2 faults per 1,000
//! node-days, repaired within 20 h in the middle and 133 h on average; a tenth of the nodes has 41
//! per cent of the faults, and 9 per cent come together with another. Community nodes, after
//! volunteer computing and spot markets: there for 17 to 91 per cent of the time, in runs whose
//! median is 0.3 to 1.3 h.
//! **Invariant:** a node's faults do not overlap; those that began before the end are told whole.

use super::Draw;
use super::fleet::COMMUNITY;
use crate::trace::TraceNode;
use crate::trace::faults::NodeFault;
use scheduler_core::unit::{DurationMs, TimeMs};

const DAY_MS: f64 = 86_400_000.0;
const HOUR_MS: f64 = 3_600_000.0;
/// Class of a node that its supplier takes back at any time.
pub const SPOT: &str = "spot";
/// Faults of a data-centre node per day of being up. Those that fail most are down for long, so over
/// all days it is 4.2 in a thousand.
const PER_DAY: f64 = 0.004_75;
/// Shape of the gamma distribution of nodes' own rates: a tenth of them has 41 per cent of faults.
const RATE_SHAPE: f64 = 0.68;
/// Hours of repair: the middle, and the spread of the logarithm that makes the mean 133.
const REPAIR_H: (f64, f64) = (20.0, 1.946);
/// Share of the faults that come together with one of the node before in the list, as of a shared
/// switch or power supply.
const TOGETHER: f64 = 0.093;
/// Share of the time that community nodes are there, and the median of their runs in hours.
const THERE: (f64, f64) = (0.17, 0.91);
const RUN_H: (f64, f64) = (0.3, 1.3);

/// Faults of nodes in so long, by rising start. Nodes of no class count as data-centre nodes.
pub fn faults(nodes: &[TraceNode], span: DurationMs, seed: u64) -> Vec<NodeFault> {
    let mut faults = Vec::new();
    let mut free_from = vec![0.0; nodes.len()];
    let mut alone = Draw::new(seed, "faults");
    let mut together = Draw::new(seed, "faults-together");
    let span_ms = span.0 as f64;
    for (number, node) in nodes.iter().enumerate() {
        let own = &node.name;
        let mut draw = Draw::new(alone.below(u64::MAX), "node");
        if node.class == COMMUNITY || node.class == SPOT {
            come_and_go(node, span_ms, &mut draw, &mut faults);
            continue;
        }
        // Companions are faults too: so many fewer are drawn alone.
        let per_day = draw.gamma(RATE_SHAPE, PER_DAY * (1.0 - TOGETHER));
        let gap_ms = DAY_MS / per_day.max(1e-12);
        let mut at_ms = draw.exponential(gap_ms);
        while at_ms < span_ms {
            at_ms = down(node, at_ms, &mut free_from, number, &mut draw, &mut faults)
                + draw.exponential(gap_ms);
            let with = number + 1;
            let companion = together.chance(TOGETHER / (1.0 - TOGETHER));
            if let (true, Some(node), Some(last)) = (companion, nodes.get(with), faults.last()) {
                let start_ms = last.start.0 as f64;
                if last.node == *own && node.class != COMMUNITY && node.class != SPOT {
                    down(node, start_ms, &mut free_from, with, &mut together, &mut faults);
                }
            }
        }
    }
    faults.sort_by(|a, b| (a.start, &a.node).cmp(&(b.start, &b.node)));
    faults
}

/// A node fails, unless it is down, and is repaired; when it is up again.
fn down(
    node: &TraceNode,
    at_ms: f64,
    free_from: &mut [f64],
    number: usize,
    draw: &mut Draw,
    faults: &mut Vec<NodeFault>,
) -> f64 {
    let Some(free) = free_from.get_mut(number) else { return at_ms };
    if at_ms < *free {
        return *free;
    }
    let end_ms = at_ms + draw.lognormal(REPAIR_H.0, REPAIR_H.1).max(0.001) * HOUR_MS;
    *free = end_ms;
    faults.push(fault(node, at_ms, end_ms));
    end_ms
}

fn come_and_go(node: &TraceNode, span_ms: f64, draw: &mut Draw, faults: &mut Vec<NodeFault>) {
    let there = draw.between(THERE.0, THERE.1);
    let run_ms = draw.between(RUN_H.0, RUN_H.1) * HOUR_MS / std::f64::consts::LN_2;
    let away_ms = run_ms * (1.0 - there) / there;
    let starts_up = draw.chance(there);
    let mut at_ms = if starts_up { draw.exponential(run_ms) } else { 0.0 };
    while at_ms < span_ms {
        let end_ms = at_ms + draw.exponential(away_ms).max(1.0);
        faults.push(fault(node, at_ms, end_ms));
        at_ms = end_ms + draw.exponential(run_ms).max(1.0);
    }
}

fn fault(node: &TraceNode, start_ms: f64, end_ms: f64) -> NodeFault {
    let (start, end) = (TimeMs(start_ms as u64), TimeMs(end_ms as u64));
    NodeFault { node: node.name.clone(), start, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const DAYS: u64 = 348;

    fn nodes(count: usize, class: &str) -> Vec<TraceNode> {
        let node = |number| TraceNode {
            name: format!("n{number}"),
            class: class.to_owned(),
            ..TraceNode::default()
        };
        (0..count).map(node).collect()
    }

    fn near(found: f64, published: f64, tolerance: f64) {
        let off = (found / published - 1.0).abs();
        assert!(off <= tolerance, "{found}, published {published}");
    }

    #[test]
    fn data_centre_faults_are_as_published() {
        let (mut count, mut together, mut of_worst) = (0.0, 0.0, 0.0);
        let mut repairs = Vec::new();
        for seed in 0..20 {
            let faults = faults(&nodes(400, ""), DurationMs(DAYS * 86_400_000), seed);
            count += faults.len() as f64;
            together += faults.windows(2).filter(|two| two[0].start == two[1].start).count() as f64;
            let mut by_node: BTreeMap<&str, u32> = BTreeMap::new();
            for fault in &faults {
                *by_node.entry(&fault.node).or_default() += 1;
                repairs.push((fault.end.0 - fault.start.0) as f64 / HOUR_MS);
            }
            let mut counts: Vec<u32> = by_node.into_values().collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            of_worst += f64::from(counts[..40].iter().sum::<u32>());
        }
        near(count / 20.0 / 400.0 / DAYS as f64 * 1_000.0, 4.2, 0.06);
        near(together / count, 0.09, 0.12);
        near(of_worst / count, 0.41, 0.06);
        repairs.sort_by(f64::total_cmp);
        near(repairs[repairs.len() / 2], 20.0, 0.06);
        near(repairs.iter().sum::<f64>() / repairs.len() as f64, 133.0, 0.12);
    }

    #[test]
    fn community_nodes_come_and_go_as_published() {
        let span = DurationMs(60 * 86_400_000);
        let faults = faults(&nodes(300, COMMUNITY), span, 3);
        let mut by_node: BTreeMap<&str, Vec<&NodeFault>> = BTreeMap::new();
        for fault in &faults {
            by_node.entry(&fault.node).or_default().push(fault);
        }
        let mut outside = 0;
        for list in by_node.values() {
            assert!(list.windows(2).all(|two| two[0].end <= two[1].start), "faults overlap");
            let away: u64 = list.iter().map(|fault| fault.end.0.min(span.0) - fault.start.0).sum();
            let there = 1.0 - away as f64 / span.0 as f64;
            let mut runs: Vec<u64> =
                list.windows(2).map(|two| two[1].start.0 - two[0].end.0).collect();
            runs.sort_unstable();
            let median_h = runs[runs.len() / 2] as f64 / HOUR_MS;
            // A finite time shows each node's own figures with some spread.
            outside +=
                u32::from(!(0.14..0.94).contains(&there) || !(0.25..1.5).contains(&median_h));
        }
        assert_eq!((by_node.len(), outside), (300, 0));
    }
}
