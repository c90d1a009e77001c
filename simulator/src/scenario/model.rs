//! How long things take and how often they go wrong: distributions of latencies, of agents'
//! starts, of the network between servers and agents, and of the servers themselves.
//!
//! **Invariant:** equal models and equal generators give equal draws.

use rand::{Rng, RngExt};
use scheduler_core::id::Name;
use scheduler_core::unit::DurationMs;
use std::collections::BTreeSet;

/// One in a million: what shares and odds are counted in.
pub const PPM: u32 = 1_000_000;
/// No draw is longer: a day.
const DRAW_MAX: DurationMs = DurationMs(86_400_000);

/// A distribution of a length of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    Fixed(DurationMs),
    /// Evenly between two times.
    Uniform {
        min: DurationMs,
        max: DurationMs,
    },
    /// Half of the draws are below the median; `sigma_milli` / 1000 is the spread of the logarithm.
    Lognormal {
        median: DurationMs,
        sigma_milli: u32,
    },
    /// Memoryless, with this mean.
    Exponential {
        mean: DurationMs,
    },
}

impl Latency {
    pub const ZERO: Self = Self::Fixed(DurationMs::ZERO);

    /// The middle of its draws, roughly.
    pub(crate) fn typical(self) -> DurationMs {
        match self {
            Self::Fixed(time) => time,
            Self::Uniform { min, max } => DurationMs(min.0.midpoint(max.0)),
            Self::Lognormal { median, .. } => median,
            Self::Exponential { mean } => mean,
        }
    }

    /// One draw, to the millisecond.
    pub fn draw(self, rng: &mut impl Rng) -> DurationMs {
        let ms = match self {
            Self::Fixed(time) => return time.min(DRAW_MAX),
            Self::Uniform { min, max } if min >= max => return min.min(DRAW_MAX),
            Self::Uniform { min, max } => {
                return DurationMs(rng.random_range(min.0..=max.0)).min(DRAW_MAX);
            }
            Self::Lognormal { median, sigma_milli } => {
                // Box and Muller (1958): two even draws give a normal one.
                let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * unit(rng)).cos();
                median.0 as f64 * (f64::from(sigma_milli) / 1_000.0 * normal).exp()
            }
            Self::Exponential { mean } => -(mean.0 as f64) * (1.0 - unit(rng)).ln(),
        };
        // Saturates, and takes anything odd for zero.
        DurationMs(ms.round() as u64).min(DRAW_MAX)
    }
}

/// Evenly from 0 up to and without 1.
fn unit(rng: &mut impl Rng) -> f64 {
    rng.random_range(0.0..1.0)
}

/// Whether something with these odds happens now.
pub(crate) fn happens(ppm: u32, rng: &mut impl Rng) -> bool {
    ppm > 0 && rng.random_range(0..PPM) < ppm
}

/// This many of the numbers below `end`, rising (Floyd's algorithm, Bentley 1987).
pub(crate) fn sample(count: usize, end: usize, rng: &mut impl Rng) -> BTreeSet<usize> {
    let mut drawn = BTreeSet::new();
    for last in end.saturating_sub(count)..end {
        let at = rng.random_range(0..=last);
        if !drawn.insert(at) {
            drawn.insert(last);
        }
    }
    drawn
}

/// How agents bring replicas up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartModel {
    /// Fetching the image; once per node and job, shared by the job's replicas there.
    pub image: Latency,
    /// Starting the process once the image is there.
    pub process: Latency,
    /// How many of a million starts fail, at the time at which they would have become ready.
    pub failing_ppm: u32,
    /// How many of a million starts take `straggling_times` as long.
    pub straggling_ppm: u32,
    pub straggling_times: u32,
    /// From being told to stop until the GPUs are free.
    pub stop: Latency,
}

impl Default for StartModel {
    /// An image that is there already, half a second for the process, no trouble.
    fn default() -> Self {
        Self {
            image: Latency::ZERO,
            process: Latency::Fixed(DurationMs(500)),
            failing_ppm: 0,
            straggling_ppm: 0,
            straggling_times: 1,
            stop: Latency::ZERO,
        }
    }
}

/// How long the leader's planner takes for a job; meanwhile others wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannerModel {
    /// Nanoseconds for every plan that is asked for, found or not.
    pub plan_ns: u64,
    /// On top, for each replica that a plan places.
    pub replica_ns: u64,
    /// On top, for each node of the fleet where none is found: the refusal is explained.
    pub node_ns: u64,
}

impl Default for PlannerModel {
    /// As measured on one core: the planner's thread takes 2.5 us for a job of one GPU, 0.27 ms for
    /// 1,250 replicas of eight, 0.68 ms for 10,000 of one, and 0.33 to 0.74 ms to refuse a gang and
    /// say why on 69,000 nodes.
    fn default() -> Self {
        Self { plan_ns: 2_500, replica_ns: 100, node_ns: 8 }
    }
}

impl PlannerModel {
    /// Nanoseconds for a plan with so many placements, or for none on so many nodes.
    pub(crate) fn cost_ns(&self, placed: Option<usize>, nodes: usize) -> u64 {
        let (each, count) = match placed {
            Some(placements) => (self.replica_ns, placements),
            None => (self.node_ns, nodes),
        };
        self.plan_ns.saturating_add(each.saturating_mul(count as u64))
    }
}

/// The way between servers and agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkModel {
    /// Site at which the servers stand: messages take half of its RTT to the agent's site, where
    /// that is known.
    pub home: Option<Name>,
    /// One way, on top of that.
    pub one_way: Latency,
    /// How many of a million messages are lost on the way and sent again after `resend`.
    pub loss_ppm: u32,
    pub resend: DurationMs,
    /// Sites with another latency and loss than the rest; the last of a name counts.
    pub sites: Vec<SiteNetwork>,
}

impl Default for NetworkModel {
    fn default() -> Self {
        Self {
            home: None,
            one_way: Latency::Fixed(DurationMs(1)),
            loss_ppm: 0,
            resend: DurationMs(200),
            sites: Vec::new(),
        }
    }
}

/// A site whose way to the servers is its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteNetwork {
    pub site: Name,
    pub one_way: Latency,
    pub loss_ppm: u32,
}

/// The quorum of servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerModel {
    /// Servers; agents' sessions are spread over them evenly.
    pub count: u32,
    /// From the death of a leader until another one has confirmed that it leads.
    pub election: Latency,
    /// Lease of an agent's session in a small fleet.
    pub lease: DurationMs,
}

impl Default for ServerModel {
    fn default() -> Self {
        Self {
            count: 3,
            election: Latency::Uniform { min: DurationMs(600), max: DurationMs(1_200) },
            lease: scheduler_core::duty::timing::LEASE_MIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn draws(latency: Latency) -> Vec<u64> {
        let mut rng = StdRng::seed_from_u64(5);
        let mut drawn: Vec<u64> = (0..20_001).map(|_| latency.draw(&mut rng).0).collect();
        drawn.sort_unstable();
        drawn
    }

    #[test]
    fn draws_have_the_figures_that_they_are_named_by() {
        let uniform = draws(Latency::Uniform { min: DurationMs(20_000), max: DurationMs(60_000) });
        assert!((20_000..20_100).contains(&uniform[0]) && uniform[20_000] <= 60_000);
        assert!((39_000..41_000).contains(&uniform[10_000]));
        let lognormal = draws(Latency::Lognormal { median: DurationMs(4_000), sigma_milli: 500 });
        assert!((3_900..4_100).contains(&lognormal[10_000]), "{}", lognormal[10_000]);
        // The 97.7th percentile lies two sigmas up: e times the median.
        assert!((10_000..11_800).contains(&lognormal[19_546]), "{}", lognormal[19_546]);
        let exponential = draws(Latency::Exponential { mean: DurationMs(1_000) });
        let mean = exponential.iter().sum::<u64>() / 20_001;
        assert!((970..1_030).contains(&mean), "{mean}");
        assert_eq!(draws(Latency::ZERO)[20_000], 0);
    }
}
