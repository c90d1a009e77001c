//! `expect …`: what must be true of a run, and whether it was.
//!
//! **Invariant:** an expectation about jobs that never came is not fulfilled.

use super::line::{Fault, Words};
use super::watch::{Fate, Watch};
use crate::scenario::PPM;
use crate::world::Report;
use scheduler_core::id::Name;
use scheduler_core::unit::DurationMs;

/// A figure of a report by its words.
type Figure = (&'static str, fn(&Report) -> u64);
/// A way to compare by its sign.
type Comparison = (&'static str, fn(u64, u64) -> bool);

/// All figures.
const FIGURES: [Figure; 18] = [
    ("jobs submitted", |report| report.jobs_submitted),
    ("jobs refused", |report| report.jobs_refused),
    ("jobs placed-at-once", |report| report.jobs_placed_at_once),
    ("jobs ready", |report| report.jobs_ready),
    ("jobs over", |report| report.jobs_over),
    ("jobs failed", |report| report.jobs_failed),
    ("jobs waiting", |report| report.jobs_waiting),
    ("jobs preempted", |report| report.jobs_preempted),
    ("plans stale", |report| report.plans_stale),
    ("starts failed", |report| report.starts_failed),
    ("joins held", |report| report.joins_held),
    ("nodes taken-over", |report| report.nodes_taken_over),
    ("agents fenced", |report| report.agents_fenced),
    ("answers slowest-ms", |report| report.answer_slowest.0),
    ("planner busy-ms", |report| report.planner_ns / 1_000_000),
    ("leaders lost", |report| report.leaders_lost),
    ("gpus peak", |report| report.gpu_milli_peak.div_ceil(1_000)),
    ("gpus held", |report| report.gpu_milli_held.div_ceil(1_000)),
];

/// How a figure compares.
const COMPARISONS: [Comparison; 3] =
    [("=", |a, b| a == b), ("<=", |a, b| a <= b), (">=", |a, b| a >= b)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    ReadyWithin(DurationMs),
    NeverReady,
    /// Every repair took at most this long, and there was one.
    RepairedWithin(DurationMs),
    Over,
    Waiting,
    /// On so many different nodes when it was ready first.
    OnNodes(u64),
}

#[derive(Clone, Debug)]
enum What {
    /// The oracle found nothing; it always must, and saying so does no harm.
    NoFindings,
    Figure {
        at: usize,
        comparison: usize,
        number: u64,
    },
    /// How many nodes were declared down.
    NodesLost {
        comparison: usize,
        number: u64,
    },
    /// This share of the jobs of a name.
    Jobs {
        name: Name,
        share_ppm: u32,
        wish: Wish,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// As it stands in the file.
    pub text: String,
    what: What,
}

impl Expectation {
    /// Reads what follows `expect`.
    pub(super) fn parse(text: &str, words: &mut Words<'_>) -> Result<Self, Fault> {
        let what = Self::parse_what(words)?;
        words.finish()?;
        Ok(Self { text: text.trim().to_owned(), what })
    }

    fn parse_what(words: &mut Words<'_>) -> Result<What, Fault> {
        if words.peek().is_some_and(|word| word.text.ends_with('%')) {
            let share_ppm = words.word("a share")?.share()?;
            words.one_of(&["of"])?;
            let name = words.word("the name of jobs")?.name()?;
            return Ok(What::Jobs { name, share_ppm, wish: parse_wish(words)? });
        }
        let heads = [
            "findings", "job", "jobs", "plans", "starts", "joins", "agents", "answers", "planner",
            "leaders", "nodes", "gpus",
        ];
        let (head, word) = words.one_of(&heads)?;
        match head {
            0 => {
                words.one_of(&["none"])?;
                Ok(What::NoFindings)
            }
            1 => {
                let wishes = ["ready", "never", "repaired", "over", "waiting", "on"];
                let named = words.peek().is_some_and(|word| !wishes.contains(&word.text));
                let name = match named {
                    true => words.word("the name of jobs")?.name()?,
                    false => super::default_name(),
                };
                Ok(What::Jobs { name, share_ppm: PPM, wish: parse_wish(words)? })
            }
            _ => {
                let of_head = |figure: &&Figure| figure.0.starts_with(word.text);
                let mut tails: Vec<&str> = FIGURES
                    .iter()
                    .filter(of_head)
                    .filter_map(|(name, _)| name.split(' ').nth(1))
                    .collect();
                if word.text == "nodes" {
                    tails.push("lost");
                }
                let tail = words.one_of(&tails)?.1;
                let names = COMPARISONS.map(|(name, _)| name);
                let comparison = words.one_of(&names)?.0;
                let number = words.word("a number")?.number(0, u64::MAX)?;
                let full = format!("{} {}", word.text, tail.text);
                let at = FIGURES.iter().position(|(name, _)| *name == full);
                Ok(match at {
                    Some(at) => What::Figure { at, comparison, number },
                    None => What::NodesLost { comparison, number },
                })
            }
        }
    }

    /// Whether it was so, and what was so instead.
    pub(super) fn judge(&self, report: &Report, watch: &Watch) -> Result<(), String> {
        match &self.what {
            What::NoFindings => Ok(()),
            What::Figure { at, comparison, number } => {
                let figure = FIGURES.get(*at).map_or(0, |(_, of)| of(report));
                compare(figure, *comparison, *number)
            }
            What::NodesLost { comparison, number } => {
                compare(watch.nodes_lost, *comparison, *number)
            }
            What::Jobs { name, share_ppm, wish } => {
                let fates: Vec<&Fate> = watch.fates(name).collect();
                let good = fates.iter().filter(|fate| wish.is_true_of(fate)).count();
                let needed = (fates.len() as u64 * u64::from(*share_ppm)).div_ceil(PPM.into());
                if !fates.is_empty() && good as u64 >= needed {
                    return Ok(());
                }
                let worst = fates.iter().find(|fate| !wish.is_true_of(fate));
                let worst = worst.map(|fate| format!("; one {fate}")).unwrap_or_default();
                Err(format!("so for {good} of {} jobs{worst}", fates.len()))
            }
        }
    }
}

fn compare(figure: u64, comparison: usize, number: u64) -> Result<(), String> {
    let holds = COMPARISONS.get(comparison).is_some_and(|(_, holds)| holds(figure, number));
    if holds { Ok(()) } else { Err(format!("it was {figure}")) }
}

fn parse_wish(words: &mut Words<'_>) -> Result<Wish, Fault> {
    let heads = ["ready", "never", "repaired", "over", "waiting", "on"];
    let within = |words: &mut Words<'_>| {
        words.one_of(&["within"])?;
        words.word("a time")?.duration()
    };
    Ok(match words.one_of(&heads)?.0 {
        0 => Wish::ReadyWithin(within(words)?),
        1 => {
            words.one_of(&["ready"])?;
            Wish::NeverReady
        }
        2 => Wish::RepairedWithin(within(words)?),
        3 => Wish::Over,
        4 => Wish::Waiting,
        _ => {
            let nodes = words.word("a number of nodes")?.number(1, u64::MAX)?;
            words.one_of(&["nodes", "node"])?;
            Wish::OnNodes(nodes)
        }
    })
}

impl Wish {
    fn is_true_of(self, fate: &Fate) -> bool {
        match self {
            Self::ReadyWithin(time) => fate.ready_after().is_some_and(|after| after <= time),
            Self::NeverReady => fate.ready_after().is_none(),
            Self::RepairedWithin(time) => fate.repair_longest.is_some_and(|took| took <= time),
            Self::Over => fate.over,
            Self::Waiting => fate.is_waiting(),
            Self::OnNodes(nodes) => fate.nodes == nodes,
        }
    }
}
