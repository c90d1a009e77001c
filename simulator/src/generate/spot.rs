//! A pool of spot nodes that comes and goes, after Bamboo's record of p3 instances (Thorpe et al.,
//! NSDI 2023).
//!
//! There a node stays for 0.98 h in the middle (5 per cent: 0.08 h, 95 per cent: 4.3 h), which is
//! what a memoryless stay gives; 2.1 nodes are taken away at one time on average, and 2.1 come; the
//! pool holds three quarters of what is wanted.
//! **Invariant:** a node that was taken away never comes back: another one comes.

use super::Draw;
use crate::trace::{Change, NodeChange};
use scheduler_core::unit::{DurationMs, TimeMs};

/// Mean stay: a median of 0.98 h.
const STAY_MS: f64 = 0.98 * 3_600_000.0 / std::f64::consts::LN_2;
/// Nodes of one time.
const BUNCH: f64 = 2.1;
/// The pool over what is wanted.
const FILLED: f64 = 0.75;

/// Changes of a pool for which so many nodes are wanted, by rising time; they begin to come at 1 ms.
pub fn churn(wanted: u32, span: DurationMs, seed: u64) -> Vec<NodeChange> {
    let mut draw = Draw::new(seed, "spot");
    let mut changes = Vec::new();
    let mut there: Vec<u64> = Vec::new();
    let mut named = 0u64;
    // Nodes that are missing come back at such a rate that in the long run the pool is that full.
    let gap_ms = STAY_MS * (1.0 - FILLED) / FILLED;
    let mut now_ms = 1.0;
    loop {
        let (leave, come) = (there.len() as f64 / STAY_MS, f64::from(wanted) - there.len() as f64);
        let come = come.max(0.0) / gap_ms;
        let first = named == 0;
        if !first {
            now_ms += draw.exponential(BUNCH / (leave + come).max(1e-12));
        }
        if now_ms >= span.0 as f64 || wanted == 0 {
            return changes;
        }
        let at = TimeMs(now_ms as u64);
        let comes = first || draw.unit() * (leave + come) < come;
        let bunch = if first { (f64::from(wanted) * FILLED) as u32 } else { draw.geometric(BUNCH) };
        for _ in 0..bunch.max(1) {
            if comes && there.len() < wanted as usize {
                named += 1;
                there.push(named);
                changes.push(change(at, named, Change::Joined));
            } else if !comes && !there.is_empty() {
                let gone = draw.below(there.len() as u64) as usize;
                changes.push(change(at, there.swap_remove(gone), Change::Removed));
            }
        }
    }
}

fn change(at: TimeMs, node: u64, change: Change) -> NodeChange {
    NodeChange { at, node: format!("spot-{node}"), change }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn stays_and_bunches_are_as_recorded() {
        let changes = churn(32, DurationMs(200 * 86_400_000), 5);
        let mut since: BTreeMap<&str, u64> = BTreeMap::new();
        let mut stays = Vec::new();
        let (mut held_ms, mut last) = (0.0, 0);
        for change in &changes {
            held_ms += since.len() as f64 * (change.at.0 - last) as f64;
            last = change.at.0;
            if change.change == Change::Joined {
                assert!(since.insert(&change.node, change.at.0).is_none());
            } else {
                let joined = since.remove(change.node.as_str()).expect("it was there");
                stays.push((change.at.0 - joined) as f64 / 3_600_000.0);
            }
            assert!(since.len() <= 32);
        }
        stays.sort_by(f64::total_cmp);
        for (at, hours, tolerance) in [(0.05, 0.08, 0.15), (0.5, 0.98, 0.1), (0.95, 4.3, 0.1)] {
            let found = stays[((stays.len() - 1) as f64 * at) as usize];
            assert!((found / hours - 1.0).abs() < tolerance, "{found} h, recorded {hours}");
        }
        let filled = held_ms / last as f64 / 32.0;
        assert!((filled - 0.75).abs() < 0.05, "{filled} of what is wanted");
        let mut bunches: BTreeMap<(u64, Change), u32> = BTreeMap::new();
        for change in &changes {
            *bunches.entry((change.at.0, change.change)).or_default() += 1;
        }
        let mean = changes.len() as f64 / bunches.len() as f64;
        assert!((mean - 2.1).abs() < 0.2, "{mean} nodes at one time");
    }
}
