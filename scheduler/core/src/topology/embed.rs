//! Embed: coordinates that suit what was measured, so that other pairs can be estimated.
//!
//! Springs between measured pairs, as in Vivaldi (Dabek et al., SIGCOMM 2004), but run by one
//! process over the medians of all pairs instead of by every node over its own samples: nobody's
//! word about its own coordinates is taken. Each spring's pull is capped, so that one pair, or one
//! site that lies about all its pairs, bends the others only so far.
//! **Invariant:** same table, same coordinates, on every machine: sums run in order of id, and of
//! floats only operations are used that IEEE 754 rounds alike everywhere. Never called by `apply`;
//! what is found becomes part of the state only as integers in an entry.

use super::coordinate::{Coordinate, DIMENSIONS};
use super::{Measured, Sites};
use crate::id::SiteId;
use crate::unit::RttUs;

/// Measured pairs that a site must have: with one for each axis and the height, any value could be
/// fitted and nothing would be said.
pub const PAIRS_MIN: usize = 2 * (DIMENSIONS + 1);
/// Springs of one site, evenly taken from all: more do not place it better (Vivaldi, section 5.2),
/// and with a thousand sites take seconds.
const SPRINGS_MAX: usize = 64;
/// Rounds over all springs for sites without coordinates yet; then they hardly move any more.
const ROUNDS: u32 = 80;
/// Rounds when nearly all sites have coordinates already.
const ROUNDS_WARM: u32 = 20;
/// How much of its way a spring moves a site, in the first round and in the last.
const STEPS: (f64, f64) = (0.25, 0.01);
/// Most that a spring counts as too long or too short, as a part of its RTT.
const PULL_MAX: f64 = 0.5;
/// Of a site's measured pairs so many in a hundred have a high RTT within estimate and error.
const COVERED_PERCENT: usize = 95;
/// A site's coordinates are worth an entry of the log once its estimates change by one part in so
/// many, or its error by one part in four.
const WORTH_ONE_IN: u32 = 20;

/// A point while it moves; lengths in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    axes: [f64; DIMENSIONS],
    height: f64,
}

/// For every site with [`PAIRS_MIN`] measured pairs to others, its coordinates.
pub fn embed(sites: &Sites) -> Vec<Option<Coordinate>> {
    let mut springs: Vec<Vec<(usize, f64)>> = vec![Vec::new(); sites.len()];
    for (a, b, Measured { median: RttUs(median), .. }) in sites.rtts().filter(|(a, b, _)| a != b) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(list) = springs.get_mut(usize::from(from.0)) {
                list.push((usize::from(to.0), f64::from(median.max(1))));
            }
        }
    }
    let used: Vec<Vec<(usize, f64)>> = springs.iter().map(|list| some_of(list)).collect();
    let known = sites.iter().filter(|&(id, _)| sites.coordinate(id).is_some()).count();
    let warm = known * 10 >= sites.len() * 9;
    let mut points: Vec<Point> = sites.iter().map(|(id, _)| start(sites, id)).collect();
    let rounds = if warm { ROUNDS_WARM } else { ROUNDS };
    for round in 0..rounds {
        let part = f64::from(round) / f64::from(rounds);
        let first = if warm { STEPS.0 / 4.0 } else { STEPS.0 };
        let step = first + (STEPS.1 - first) * part;
        for (site, list) in used.iter().enumerate() {
            pull(&mut points, site, list, step);
        }
    }
    let mut found: Vec<Option<Coordinate>> = points
        .iter()
        .zip(&springs)
        .map(|(point, list)| (list.len() >= PAIRS_MIN).then(|| point.rounded()))
        .collect();
    let errors: Vec<u32> = (0u16..)
        .zip(&springs)
        .map(|(site, list)| error(sites, &found, SiteId(site), list))
        .collect();
    for (coordinate, error_milli) in found.iter_mut().zip(errors) {
        if let Some(coordinate) = coordinate {
            coordinate.error_milli = error_milli;
        }
    }
    found
}

/// [`SPRINGS_MAX`] of the springs, evenly taken.
fn some_of(springs: &[(usize, f64)]) -> Vec<(usize, f64)> {
    let few = springs.len().min(SPRINGS_MAX);
    (0..few).filter_map(|at| springs.get(at * springs.len() / few).copied()).collect()
}

/// Which of the coordinates found differ enough from those in the table to be told.
pub fn news(
    sites: &Sites,
    found: &[Option<Coordinate>],
) -> impl Iterator<Item = (SiteId, Option<Coordinate>)> {
    (0u16..).map(SiteId).zip(found.iter().copied()).filter(|(site, new)| {
        match (sites.coordinate(*site), new) {
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
            (Some(old), Some(new)) => is_news(old, new),
        }
    })
}

fn is_news(old: &Coordinate, new: &Coordinate) -> bool {
    // How far it moved, against how far it is from the middle of the world.
    let moved = Coordinate { height_us: 0, ..*old }.estimate(&Coordinate { height_us: 0, ..*new });
    let way = moved.median.0.saturating_add(old.height_us.abs_diff(new.height_us));
    let whole = old.estimate(&Coordinate::default()).median.0;
    way > whole / WORTH_ONE_IN || old.error_milli.abs_diff(new.error_milli) > old.error_milli / 4
}

/// Where the site is, or somewhere near the middle, different for every site.
fn start(sites: &Sites, id: SiteId) -> Point {
    if let Some(known) = sites.coordinate(id) {
        let axes = known.axes.map(f64::from);
        return Point { axes, height: f64::from(known.height_us) };
    }
    let mut point = Point { height: 1_000.0, ..Point::default() };
    // A fixed scatter; any will do (Knuth's multiplicative hash).
    let mut word = u32::from(id.0).wrapping_add(1);
    for axis in &mut point.axes {
        word = word.wrapping_mul(2_654_435_761).rotate_left(13);
        *axis = f64::from(word % 20_001) - 10_000.0;
    }
    point
}

/// Moves a site by all its springs together.
fn pull(points: &mut [Point], site: usize, springs: &[(usize, f64)], step: f64) {
    let Some(&own) = points.get(site) else { return };
    let mut force = Point::default();
    for &(other, rtt) in springs {
        let Some(other) = points.get(other) else { continue };
        let ways: [f64; DIMENSIONS] = std::array::from_fn(|at| own.axes[at] - other.axes[at]);
        let core = ways.iter().map(|way| way * way).sum::<f64>().sqrt();
        let heights = own.height + other.height;
        let whole = (core + heights).max(1.0);
        let off = (rtt - whole).clamp(-PULL_MAX * rtt, PULL_MAX * rtt);
        // Near pairs weigh more: their estimates must be right in proportion.
        let weight = off / rtt.sqrt();
        for (axis, way) in force.axes.iter_mut().zip(ways) {
            *axis += weight * way / whole;
        }
        force.height += weight * heights / whole;
    }
    // The mean pull, weighed back to a length.
    let scale: f64 = springs.iter().map(|(_, rtt)| 1.0 / rtt.sqrt()).sum();
    if scale <= 0.0 {
        return;
    }
    let Some(point) = points.get_mut(site) else { return };
    let all = 4.0 * step / scale;
    for (axis, push) in point.axes.iter_mut().zip(force.axes) {
        *axis += all * push;
    }
    point.height = (point.height + all * force.height).max(0.0);
}

impl Point {
    fn rounded(&self) -> Coordinate {
        let limit = 9_000_000.0;
        Coordinate {
            axes: self.axes.map(|axis| axis.clamp(-limit, limit) as i32),
            height_us: self.height.clamp(0.0, limit) as u32,
            error_milli: 0,
        }
    }
}

/// By how much the high RTTs of the site's pairs exceed the estimates, but for the worst.
fn error(
    sites: &Sites,
    found: &[Option<Coordinate>],
    site: SiteId,
    springs: &[(usize, f64)],
) -> u32 {
    let at = |site: usize| found.get(site).copied().flatten();
    let Some(own) = at(usize::from(site.0)) else { return 0 };
    let mut over: Vec<u64> = springs
        .iter()
        .filter_map(|&(to, _)| {
            let estimate = u64::from(own.estimate(&at(to)?).median.0.max(1));
            let other = SiteId(u16::try_from(to).ok()?);
            let high = u64::from(sites.measured(site, other)?.high.0);
            Some(high.saturating_sub(estimate) * 1_000 / estimate)
        })
        .collect();
    over.sort_unstable();
    let rank = (over.len() * COVERED_PERCENT).div_ceil(100).saturating_sub(1);
    let worst = over.get(rank).copied().unwrap_or(u64::from(Coordinate::ERROR_MILLI_MAX));
    // Pairs that shaped the coordinates fit better than others will.
    let fitted = springs.len() as u64;
    let widened = (worst + 50) * (fitted + DIMENSIONS as u64 + 1) / fitted.max(1);
    u32::try_from(widened).unwrap_or(u32::MAX).min(Coordinate::ERROR_MILLI_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cities::cities;
    use crate::topology::Origin;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// All pairs of the world, and one in `one_in` of them as measured.
    fn thinned(count: usize, one_in: usize) -> (Sites, Sites) {
        let full = cities(count, 3);
        let mut thin = full.without_rtts();
        let mut rng = StdRng::seed_from_u64(3);
        for (a, b, told) in full.rtts() {
            if rng.random_range(0..one_in) == 0 {
                thin.set_rtt(a, b, told);
            }
        }
        (full, thin)
    }

    #[test]
    fn pairs_that_were_left_out_are_estimated_within_their_error() {
        let (full, mut thin) = thinned(80, 5);
        let found = embed(&thin);
        assert_eq!(found, embed(&thin));
        assert!(found.iter().flatten().count() >= 75);
        for (site, coordinate) in news(&thin.clone(), &found) {
            assert!(thin.set_coordinate(site, coordinate));
        }
        assert_eq!(news(&thin, &found).count(), 0);
        let (mut off, mut over) = (Vec::new(), 0);
        for (a, b, told) in full.rtts() {
            let guess = thin.spread(a, b).filter(|guess| guess.origin == Origin::Estimated);
            let Some(guess) = guess else { continue };
            off.push(guess.median.0.abs_diff(told.median.0) * 100 / told.median.0);
            over += usize::from(told.high > guess.high);
        }
        off.sort_unstable();
        assert!(off[off.len() / 2] <= 20, "off by {} per cent", off[off.len() / 2]);
        assert!(over * 100 <= off.len() * 10, "{over} of {} over", off.len());
    }

    #[test]
    fn too_few_pairs_give_no_coordinates() {
        let (_, thin) = thinned(30, 200);
        assert!(embed(&thin).iter().all(Option::is_none));
        assert_eq!(news(&thin, &embed(&thin)).count(), 0);
    }

    #[test]
    fn one_site_that_lies_about_all_its_pairs_bends_the_others_only_so_far() {
        let (_, thin) = thinned(80, 3);
        let mut lied = thin.clone();
        for (a, b, told) in thin.rtts().filter(|(a, _, _)| a.0 == 0) {
            let (median, high) = (RttUs(told.median.0 / 20), RttUs(told.high.0 * 20));
            let longer = Measured { median: RttUs(told.median.0 * 10), high, ..told };
            // Half of them far too long, half far too short.
            let lie = if b.0 % 2 == 0 { longer } else { Measured { median, ..told } };
            lied.set_rtt(a, b, lie);
        }
        let (honest, bent) = (embed(&thin), embed(&lied));
        let mut moved: Vec<u32> = Vec::new();
        for a in 1..80usize {
            for b in 1..a {
                let both =
                    |found: &[Option<Coordinate>]| Some(found[a]?.estimate(&found[b]?).median);
                let Some((old, new)) = both(&honest).zip(both(&bent)) else { continue };
                moved.push(old.0.abs_diff(new.0) * 100 / old.0);
            }
        }
        moved.sort_unstable();
        let (half, most) = (moved[moved.len() / 2], moved[moved.len() * 95 / 100]);
        // What remains is the price of trusting anybody: the caps keep it from being everything.
        assert!(half <= 8 && most <= 60, "{half} per cent in the middle, {most} at the 95th");
    }
}
