//! Answers known beforehand: queues by theory. Packing and expiry by hand are scenarios.

use scheduler_core::id::JobId;
use scheduler_core::job::JobPhase;
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use simulator::scenario::text::Script;
use simulator::{Observer, Seen};
use std::collections::BTreeMap;

/// Three standard errors of a mean over as many waits, which depend on each other.
const TOLERANCE: f64 = 0.15;

/// How long jobs wait from coming to being placed.
#[derive(Default)]
struct Waits {
    submitted: BTreeMap<JobId, u64>,
    waited_ms: Vec<u64>,
}

impl Observer for Waits {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        match seen {
            Seen::Phase { job, from: None, to } => {
                let came = state.job(job).map_or(at.0, |job| job.submitted_at.0);
                if to == JobPhase::Pending {
                    self.submitted.insert(job, came);
                } else {
                    self.waited_ms.push(at.0 - came);
                }
            }
            Seen::Phase { job, from: Some(JobPhase::Pending), .. } => {
                if let Some(came) = self.submitted.remove(&job) {
                    self.waited_ms.push(at.0 - came);
                }
            }
            _ => {}
        }
    }
}

/// Mean wait in a queue with `servers` servers, memoryless arrivals and service (Erlang's C), in
/// units of the mean service time.
fn erlang_wait(servers: u32, load: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..servers {
        term *= load / f64::from(k);
        sum += term;
    }
    let c = f64::from(servers);
    let last = term * load / c * (c / (c - load));
    last / (sum + last) / (c - load)
}

/// Mean wait in the simulation, in units of the mean service time, over some seeds.
fn simulated_wait(servers: u32, load: f64) -> f64 {
    const SERVICE_MS: f64 = 60_000.0;
    let gap = SERVICE_MS / load;
    let text = format!(
        "fleet nodes=1 gpus_per_node={servers}
        commit 0
        network one_way=0
        start process=0
        check every=100000
        about every {gap}ms from 0s until {until}ms submit plain gpus=1 life=exponential(60s)",
        until = gap * 12_000.0
    );
    let script = Script::parse(&text).expect("understood");
    let mut waits = Waits::default();
    for seed in 0..6 {
        simulator::run(&script.scenario(seed, String::new()), &mut waits).expect("no violation");
    }
    assert!(waits.waited_ms.len() > 60_000, "{}", waits.waited_ms.len());
    waits.waited_ms.iter().sum::<u64>() as f64 / waits.waited_ms.len() as f64 / SERVICE_MS
}

#[test]
fn queues_wait_as_theory_says() {
    for (servers, load) in [(1, 0.5), (1, 0.7), (4, 3.0)] {
        let (theory, seen) = (erlang_wait(servers, load), simulated_wait(servers, load));
        let off = (seen - theory).abs() / theory;
        assert!(
            off < TOLERANCE,
            "{servers} servers, load {load}: {seen:.3}, by theory {theory:.3}"
        );
    }
}

#[test]
fn erlang_has_its_known_values() {
    // M/M/1: rho / (1 - rho); M/M/2 at load 1: C = 1/3, wait = 1/3.
    assert!((erlang_wait(1, 0.5) - 1.0).abs() < 1e-9);
    assert!((erlang_wait(2, 1.0) - 1.0 / 3.0).abs() < 1e-9);
}
