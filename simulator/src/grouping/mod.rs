//! Grouping: how near to the best the planner's choice of sites comes, and how long it takes.
//!
//! Cases are sub-matrices of a table of RTTs with made-up capacities; the planner's answer is held
//! against a search of our own (`exact`).
//! **Invariant:** time is told by the caller's stopwatch; all else follows from the table and the
//! seed.

pub mod exact;
mod split;

use exact::{Exact, Instance};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::id::SiteId;
use scheduler_core::plan::Budget;
use scheduler_core::plan::near::{self, Answer, Objective, Question, Vertex};
use scheduler_core::topology::{FAR, Net, Origin, Sites, embed};
use serde::Serialize;
use std::time::Duration;

/// Nodes of the exact search for each decision: seconds in the worst cases.
const EXACT_NODES_MAX: u64 = 300_000;
/// Parts of the capacity that are asked for, in thousandths.
const DEMANDS_MILLI: [u64; 4] = [50, 150, 300, 500];
/// Hard bounds that are tried, in thousandths of the least possible one.
const BOUNDS_MILLI: [u64; 5] = [900, 1_000, 1_020, 1_100, 1_500];
/// Sites up to which the least mean is looked for exactly; with more there is the bound alone.
const MEAN_SITES_MAX: usize = 60;

/// Parts of the pairs that are kept as measured when the others are estimated.
const MEASURED_PERCENT: [u32; 3] = [10, 25, 50];

/// Runs something and says how long it took.
pub type Stopwatch<'a> = &'a mut dyn FnMut(&mut dyn FnMut()) -> Duration;

/// One case: sites with what they have, and what is needed.
#[derive(Clone, Debug)]
pub struct Case {
    pub net: Net,
    pub vertices: Vec<Vertex>,
    pub need: Vec<u64>,
}

/// Sum, worst and number of some overshoot.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Gap {
    pub cases: u32,
    pub mean_percent: f64,
    pub worst_percent: f64,
}

impl Gap {
    fn note(&mut self, found: f64, best: f64) {
        let over = if best > 0.0 { (found / best - 1.0).max(0.0) * 100.0 } else { 0.0 };
        self.cases += 1;
        self.mean_percent += (over - self.mean_percent) / f64::from(self.cases);
        self.worst_percent = self.worst_percent.max(over);
    }
}

/// Median and longest of some times, in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Times {
    pub p50_us: f64,
    pub max_us: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let us = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e6);
        Self { p50_us: us(times.get(times.len() / 2)), max_us: us(times.last()) }
    }
}

/// What came of all cases of one size.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Row {
    pub sites: usize,
    pub cases: u32,
    /// Largest RTT against the exact least one, where the exact search ended.
    pub diameter: Gap,
    /// The same against what the planner itself proved, in all cases.
    pub diameter_proven: Gap,
    /// The planner's quick choice, as gangs without an objective get it.
    pub diameter_quick: Gap,
    /// Hard bounds that the exact search says can be kept, and how many of them were kept.
    pub bounds_possible: u32,
    pub bounds_kept: u32,
    /// Hard bounds that cannot be kept, and how many of them were so refused (others: undecided).
    pub bounds_impossible: u32,
    pub bounds_refused: u32,
    /// Mean RTT against the best lower bound known.
    pub mean: Gap,
    /// In how many cases that bound is the exact least mean.
    pub mean_exact: u32,
    pub diameter_time: Times,
    pub quick_time: Times,
    pub bound_time: Times,
    pub mean_time: Times,
    /// Answers that break a rule; there must be none.
    pub wrong: Vec<String>,
}

/// A random case over these sites: every tenth has nothing, the others heavy-tailed capacities.
pub fn case(sites: &Sites, rng: &mut StdRng) -> Case {
    let mut total = 0;
    let vertices: Vec<Vertex> = (0u16..)
        .take(sites.len())
        .map(|site| {
            let tail: f64 = rng.random_range(0.02..1.0);
            let have = if rng.random_range(0..10) == 0 { 0 } else { (32.0 / tail) as u64 };
            total += have;
            Vertex::new(site, vec![have])
        })
        .collect();
    let milli = DEMANDS_MILLI[rng.random_range(0..DEMANDS_MILLI.len())];
    Case { net: Net::new(sites), vertices, need: vec![(total * milli / 1_000).max(2)] }
}

impl Case {
    fn question(&self, bound_us: Option<u32>, objective: Objective) -> Question<'_> {
        let Self { net, vertices, need } = self;
        Question { net, vertices, need, fixed: &[], bound_us, objective }
    }

    fn instance(&self, high: bool) -> Instance {
        let len = self.vertices.len();
        let cost = |a: u16, b: u16| {
            let rtt = if high { self.net.high(a, b) } else { self.net.median(a, b) };
            (rtt != FAR).then_some(rtt)
        };
        let row = |a: u16| (0u16..).take(len).map(|b| cost(a, b)).collect();
        Instance {
            cost: (0u16..).take(len).map(row).collect(),
            have: self.vertices.iter().map(|vertex| vertex.have.clone()).collect(),
            need: self.need.clone(),
        }
    }

    /// What is wrong with an answer, if anything.
    fn fault(&self, question: &Question<'_>, answer: &Answer) -> Option<String> {
        let Answer::Chosen(choice) = answer else { return None };
        let held: u64 = choice
            .sites
            .iter()
            .filter_map(|&site| self.vertices.get(usize::from(site)))
            .map(|vertex| vertex.have[0])
            .sum();
        let bound = question.bound_us.unwrap_or(FAR - 1);
        let far = |&a: &u16| choice.sites.iter().any(|&b| self.net.high(a, b) > bound);
        (held < self.need[0] || choice.sites.iter().any(far))
            .then(|| format!("{} of {} held within {bound} us", held, self.need[0]))
    }
}

/// Measures so many cases over sub-matrices of one size, drawn by `draw`; fewer if it has no more.
pub fn measure(
    size: usize,
    cases: u32,
    seed: u64,
    draw: &mut dyn FnMut(&mut StdRng) -> Option<Sites>,
    stopwatch: Stopwatch<'_>,
) -> Row {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut row = Row { sites: size, ..Row::default() };
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..cases {
        let Some(sites) = draw(&mut rng) else { break };
        let case = case(&sites, &mut rng);
        row.cases += 1;
        diameters(&case, &mut row, &mut times, stopwatch);
        bounds(&case, &mut row, &mut times[2], stopwatch);
        mean(&case, &mut row, &mut times[3], stopwatch);
    }
    let [diameter, quick, bound, mean] = times.map(Times::of);
    row.diameter_time = diameter;
    row.quick_time = quick;
    row.bound_time = bound;
    row.mean_time = mean;
    row
}

fn ask(
    case: &Case,
    question: &Question<'_>,
    only_whether: bool,
    row: &mut Row,
    times: &mut Vec<Duration>,
    stopwatch: Stopwatch<'_>,
) -> Answer {
    let mut answer = Answer::Aborted;
    times.push(stopwatch(&mut || {
        answer = match only_whether {
            true => near::any(question, Budget::default()),
            false => near::choose(question, Budget::default()),
        };
    }));
    row.wrong.extend(case.fault(question, &answer));
    answer
}

fn diameters(case: &Case, row: &mut Row, times: &mut [Vec<Duration>; 4], stopwatch: Stopwatch<'_>) {
    let question = case.question(None, Objective::Diameter);
    let [thorough, quick, ..] = times;
    let answer = ask(case, &question, false, row, thorough, stopwatch);
    let rough = case.question(None, Objective::Any);
    let rough = ask(case, &rough, false, row, quick, stopwatch);
    let exact = case.instance(false).diameter(EXACT_NODES_MAX);
    match (&answer, exact) {
        (Answer::Chosen(choice), Exact::Best(best)) => {
            row.diameter.note(choice.median_us.into(), best.into());
            if let Answer::Chosen(rough) = rough {
                row.diameter_quick.note(rough.median_us.into(), best.into());
            }
            if choice.median_us < best || choice.floor_us > best {
                row.wrong.push(format!("{choice:?} beside the exact {best}"));
            }
        }
        (Answer::Chosen(_), Exact::None) | (Answer::Infeasible, Exact::Best(_)) => {
            row.wrong.push(format!("{answer:?} beside the exact {exact:?}"));
        }
        _ => {}
    }
    if let Answer::Chosen(choice) = answer {
        row.diameter_proven.note(choice.median_us.into(), choice.floor_us.into());
    }
}

fn bounds(case: &Case, row: &mut Row, times: &mut Vec<Duration>, stopwatch: Stopwatch<'_>) {
    let instance = case.instance(true);
    let least = match instance.diameter(EXACT_NODES_MAX) {
        Exact::Best(least) => least,
        // Close enough to the edge to be hard.
        Exact::None | Exact::Aborted => {
            let Some(needed) =
                near::bound_needed(&case.question(None, Objective::Any), Budget::default())
            else {
                return;
            };
            needed
        }
    };
    for milli in BOUNDS_MILLI {
        let bound = u32::try_from(u64::from(least) * milli / 1_000).unwrap_or(FAR - 1);
        let question = case.question(Some(bound), Objective::Any);
        let answer = ask(case, &question, true, row, times, stopwatch);
        match instance.within(bound, EXACT_NODES_MAX) {
            Exact::Best(()) => {
                row.bounds_possible += 1;
                row.bounds_kept += u32::from(matches!(answer, Answer::Chosen(_)));
                if answer == Answer::Infeasible {
                    row.wrong.push(format!("refused a bound of {bound} us that can be kept"));
                }
            }
            Exact::None => {
                row.bounds_impossible += 1;
                row.bounds_refused += u32::from(answer == Answer::Infeasible);
            }
            Exact::Aborted => {}
        }
    }
}

fn mean(case: &Case, row: &mut Row, times: &mut Vec<Duration>, stopwatch: Stopwatch<'_>) {
    let question = case.question(None, Objective::Mean);
    let answer = ask(case, &question, false, row, times, stopwatch);
    let Answer::Chosen(choice) = answer else { return };
    let Some(found) = choice.mean_us else { return };
    let pairs = u128::from(case.need[0]) * u128::from(case.need[0] - 1) / 2;
    let nodes_max = if row.sites <= MEAN_SITES_MAX { EXACT_NODES_MAX / 10 } else { 0 };
    // Half a microsecond for rounding.
    let most = u128::from(found) * pairs + pairs / 2 + 1;
    let (bound, reached) = case.instance(false).sum(most, nodes_max);
    let floor = f64::from(choice.floor_us).max(bound as f64 / pairs as f64);
    row.mean_exact += u32::from(reached);
    if (f64::from(found) + 1.0) < bound as f64 / pairs as f64 {
        row.wrong.push(format!("a mean of {found} us below the bound of {floor}"));
    }
    row.mean.note(found.into(), floor);
}

/// How good estimates from coordinates are when only a part of the pairs was measured.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Guess {
    pub measured_percent: f64,
    /// Pairs left out, and estimated.
    pub pairs: u32,
    /// How far the estimate is off the usual RTT, either way.
    pub off_median_percent: f64,
    pub off_p90_percent: f64,
    /// Pairs whose true high RTT exceeds the estimate's high one.
    pub over_high_percent: f64,
}

/// Takes away all but a part of what is known of the pairs, and estimates the rest.
pub fn guesses(all: &Sites, rng: &mut StdRng) -> Vec<Guess> {
    MEASURED_PERCENT.iter().map(|&percent| guess(all, percent, rng)).collect()
}

fn guess(all: &Sites, percent: u32, rng: &mut StdRng) -> Guess {
    let mut thin = all.without_rtts();
    let mut out = Vec::new();
    for (a, b, told) in all.rtts().filter(|(a, b, _)| a != b) {
        if rng.random_range(0..100) < percent {
            thin.set_rtt(a, b, told);
        } else {
            out.push((a, b, told));
        }
    }
    let found = embed::embed(&thin);
    for (site, coordinate) in (0u16..).zip(found) {
        thin.set_coordinate(SiteId(site), coordinate);
    }
    let (mut off, mut over) = (Vec::new(), 0u32);
    for (a, b, told) in out {
        let Some(guess) = thin.spread(a, b).filter(|guess| guess.origin == Origin::Estimated)
        else {
            continue;
        };
        let way = f64::from(guess.median.0.abs_diff(told.median.0));
        off.push(way / f64::from(told.median.0.max(1)) * 100.0);
        over += u32::from(told.high > guess.high);
    }
    off.sort_by(f64::total_cmp);
    let at = |part: usize| off.get(off.len() * part / 100).copied().unwrap_or(0.0);
    Guess {
        measured_percent: percent.into(),
        pairs: u32::try_from(off.len()).unwrap_or(u32::MAX),
        off_median_percent: at(50),
        off_p90_percent: at(90),
        over_high_percent: f64::from(over) * 100.0 / off.len().max(1) as f64,
    }
}
