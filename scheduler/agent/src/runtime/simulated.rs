//! Replicas that only exist on paper: for demos, tests and benches of the scheduler.
//!
//! **Invariant:** equal seeds, node names and assignments give equal times and failures. A start
//! that takes no time costs no timer.

use crate::replica::Assignment;
use crate::runtime::{Adopted, Event, Haste, Runtime, RuntimeError, Start, Stop};
use agent_core::backoff::Jitter;
use agent_core::replica::{AssignmentId, Exit};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// No simulated start takes longer.
const START_MAX: Duration = Duration::from_secs(3600);
/// Exit code of a simulated failure.
const FAILURE_CODE: i32 = 1;

/// How long starts take.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum StartTime {
    /// Always this long.
    Fixed { ms: u64 },
    /// Evenly between two times.
    Uniform { ms_min: u64, ms_max: u64 },
    /// Log-normal: half of all starts take less than `ms_median`; `sigma` is the spread of the
    /// logarithm (0.5 = two thirds lie within a factor of 1.65).
    Lognormal { ms_median: u64, sigma: f64 },
}

/// What a simulated machine is like.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    pub start: StartTime,
    /// Part of all starts that fail, 0 to 1.
    pub failure_rate: f64,
    pub seed: u64,
}

impl Default for Options {
    /// No time, no failures.
    fn default() -> Self {
        Options { start: StartTime::Fixed { ms: 0 }, failure_rate: 0.0, seed: 0 }
    }
}

impl Options {
    /// Faults of the options, each with the name of its field.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !(0.0..=1.0).contains(&self.failure_rate) {
            faults.push(format!("failure_rate: {} is not within 0 to 1", self.failure_rate));
        }
        let most = START_MAX.as_millis();
        let mut bounded = |field: &str, ms: u64| {
            if u128::from(ms) > most {
                faults.push(format!("start.{field}: {ms} is above {most}"));
            }
        };
        match self.start {
            StartTime::Fixed { ms } => bounded("ms", ms),
            StartTime::Uniform { ms_min, ms_max } => {
                bounded("ms_max", ms_max);
                if ms_min > ms_max {
                    faults.push(format!("start.ms_min: {ms_min} is above ms_max, {ms_max}"));
                }
            }
            StartTime::Lognormal { ms_median, sigma } => {
                bounded("ms_median", ms_median);
                if !(0.0..=5.0).contains(&sigma) {
                    faults.push(format!("start.sigma: {sigma} is not within 0 to 5"));
                }
            }
        }
        faults
    }
}

impl StartTime {
    fn draw(self, dice: &mut Jitter) -> Duration {
        let ms = match self {
            StartTime::Fixed { ms } => return Duration::from_millis(ms).min(START_MAX),
            StartTime::Uniform { ms_min, ms_max } => {
                ms_min as f64 + dice.unit() * ms_max.saturating_sub(ms_min) as f64
            }
            StartTime::Lognormal { ms_median, sigma } => {
                // Box-Muller: two even numbers give one normal one.
                let (radius, turn) = (1.0 - dice.unit(), dice.unit());
                let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * turn).cos();
                ms_median as f64 * (sigma * normal).exp()
            }
        };
        Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(START_MAX).min(START_MAX)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Simulated {
    options: Arc<Options>,
    /// From the seed and the node's name.
    salt: u64,
    /// Starts under way by when they are done; the flag says whether they fail.
    under_way: BTreeSet<(Instant, AssignmentId, bool)>,
}

impl Simulated {
    /// The machine `node` of a simulated fleet.
    pub fn new(options: Arc<Options>, node: &str) -> Simulated {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let salt = node.bytes().fold(options.seed ^ 0xcbf2_9ce4_8422_2325, mix);
        Simulated { options, salt, under_way: BTreeSet::new() }
    }
}

impl Runtime for Simulated {
    async fn adopt(&mut self) -> Result<Vec<Adopted>, RuntimeError> {
        Ok(Vec::new())
    }

    fn start(&mut self, assignment: &Arc<Assignment>) -> Start {
        let id = assignment.binding.id;
        let mut dice = Jitter::new(self.salt ^ id.0.rotate_left(32));
        let fails = self.options.failure_rate > 0.0 && dice.unit() < self.options.failure_rate;
        let time = self.options.start.draw(&mut dice);
        if !time.is_zero() {
            self.under_way.insert((Instant::now() + time, id, fails));
            return Start::Underway;
        }
        if fails { Start::Refused("simulated failure".to_owned()) } else { Start::Ready }
    }

    fn stop(&mut self, id: AssignmentId, _: Haste) -> Stop {
        self.under_way.retain(|(_, other, _)| *other != id);
        Stop::Done
    }

    fn forget(&mut self, _: AssignmentId) {}

    async fn event(&mut self) -> Event {
        let Some((due, id, fails)) = self.under_way.first().copied() else {
            return std::future::pending().await;
        };
        // Boxed: an agent without starts under way carries no timer.
        Box::pin(tokio::time::sleep_until(due)).await;
        self.under_way.pop_first();
        match fails {
            false => Event::Ready(id),
            true => Event::Ended {
                id,
                exit: Exit::Failed(FAILURE_CODE),
                message: Some("simulated failure".to_owned()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Programs;
    use proto::v1;

    fn assignment(id: u64) -> Arc<Assignment> {
        let wire = v1::Assignment { assignment: id, ..Default::default() };
        Arc::new(Assignment::decode(wire, 8, &Programs::default()).unwrap())
    }

    fn machine(options: Options) -> Simulated {
        Simulated::new(Arc::new(options), "node-1")
    }

    fn options(text: &str) -> Options {
        toml::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn no_time_means_ready_at_once() {
        let mut machine = machine(Options::default());
        assert_eq!(machine.start(&assignment(1)), Start::Ready);
        assert!(machine.under_way.is_empty());
        assert_eq!(machine.stop(AssignmentId(1), Haste::Graceful), Stop::Done);
    }

    #[tokio::test]
    async fn starts_take_their_time_and_a_stop_calls_them_off() {
        let mut machine = machine(options("start = { kind = 'uniform', ms_min = 2, ms_max = 20 }"));
        let begun = Instant::now();
        for id in 1..=50 {
            assert_eq!(machine.start(&assignment(id)), Start::Underway);
        }
        machine.stop(AssignmentId(7), Haste::Now);
        for _ in 1..=49 {
            let Event::Ready(id) = machine.event().await else { panic!("failed") };
            assert_ne!(id, AssignmentId(7));
            assert!(begun.elapsed() >= Duration::from_millis(2));
        }
        assert!(machine.under_way.is_empty());
    }

    #[test]
    fn failures_are_as_frequent_as_asked_and_repeatable() {
        let refused = |seed| {
            let mut machine = machine(Options { failure_rate: 0.2, seed, ..Options::default() });
            let failed = |id: &u64| machine.start(&assignment(*id)) != Start::Ready;
            (0..5000).filter(failed).collect::<Vec<_>>()
        };
        let first = refused(1);
        assert!((900..1100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, refused(1));
        assert_ne!(first, refused(2));
    }

    #[test]
    fn lognormal_has_its_median() {
        let time = StartTime::Lognormal { ms_median: 1000, sigma: 0.5 };
        let mut dice = Jitter::new(9);
        let mut drawn: Vec<_> = (0..4001).map(|_| time.draw(&mut dice)).collect();
        drawn.sort();
        assert!((950..1050).contains(&drawn[2000].as_millis()), "{:?}", drawn[2000]);
        assert!(drawn[4000] > Duration::from_secs(3) && drawn[0] < Duration::from_millis(350));
    }

    #[test]
    fn bad_options_are_named() {
        let faults = options(
            "failure_rate = 1.5\nstart = { kind = 'uniform', ms_min = 9, ms_max = 99999999 }",
        )
        .faults();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].starts_with("failure_rate: 1.5") && faults[1].starts_with("start.ms_max")
        );
        assert!(toml::from_str::<Options>("start = { kind = 'soon' }").is_err());
        assert_eq!(Options { failure_rate: f64::NAN, ..Options::default() }.faults().len(), 1);
    }
}
