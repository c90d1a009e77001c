//! Who hears whom, and how late.
//!
//! **Invariant:** heartbeats are no events: of a machine that is reachable every one arrives; when
//! it falls silent, it is computed which one was the last.

use super::leader::Lengths;
use crate::scenario::{Latency, Scenario, happens};
use rand::rngs::StdRng;
use scheduler_core::id::Name;
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::BTreeMap;

/// A message that got lost this often arrives anyway: TCP gives up later than that.
const LOSSES_MAX: u32 = 12;
/// The way from the servers to one site.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Half of the RTT to the servers' site.
    base: DurationMs,
    one_way: Latency,
    loss_ppm: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Network {
    ways: Vec<Way>,
    /// Number of the way of each machine.
    of: Vec<u16>,
    resend: DurationMs,
    /// Lengths of leases for the fleet at its beginning.
    pub(super) lengths: Lengths,
}

impl Network {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let model = &scenario.network;
        let mut base: BTreeMap<&Name, DurationMs> = BTreeMap::new();
        for pair in &scenario.rtts {
            let half = DurationMs(u64::from(pair.rtt.0) / 2_000);
            if model.home.as_ref() == Some(&pair.a) {
                base.insert(&pair.b, half);
            } else if model.home.as_ref() == Some(&pair.b) {
                base.insert(&pair.a, half);
            }
        }
        let mut known: BTreeMap<&Name, u16> = BTreeMap::new();
        let (mut ways, mut of) = (Vec::new(), Vec::with_capacity(scenario.nodes.len()));
        for node in &scenario.nodes {
            let site = &node.place.site;
            let number = *known.entry(site).or_insert_with(|| {
                let own = model.sites.iter().rev().find(|own| own.site == *site);
                let (one_way, loss_ppm) = match own {
                    Some(own) => (own.one_way, own.loss_ppm),
                    None => (model.one_way, model.loss_ppm),
                };
                let base = base.get(site).copied().unwrap_or_default();
                ways.push(Way { base, one_way, loss_ppm });
                u16::try_from(ways.len() - 1).unwrap_or(u16::MAX)
            });
            of.push(number);
        }
        let fleet = u32::try_from(scenario.nodes.len()).unwrap_or(u32::MAX);
        Self { ways, of, resend: model.resend, lengths: Lengths::new(scenario, fleet) }
    }

    /// One machine more, on the same way as this one.
    pub(super) fn add_like(&mut self, machine: usize) {
        self.of.extend(self.of.get(machine).copied());
    }

    /// How long a message takes between the servers and the machine.
    pub(super) fn delay(&self, machine: usize, rng: &mut StdRng) -> DurationMs {
        let way = self.of.get(machine).and_then(|at| self.ways.get(usize::from(*at)));
        let Some(way) = way else { return DurationMs::ZERO };
        let mut delay = way.base.saturating_add(way.one_way.draw(rng));
        for _ in 0..LOSSES_MAX {
            if !happens(way.loss_ppm, rng) {
                break;
            }
            delay = delay.saturating_add(self.resend);
        }
        delay
    }

    /// Of a machine that falls silent now: when the servers last heard it, and when its agent sent
    /// the last heartbeat that was answered. Times are when its session opened, up to when
    /// heartbeats were answered at all, and now.
    pub(super) fn last_words(
        &self,
        machine: usize,
        (opened_at, answered_until, now): (TimeMs, TimeMs, TimeMs),
        rng: &mut StdRng,
    ) -> (TimeMs, TimeMs) {
        let way = self.delay(machine, rng);
        let heartbeat = self.lengths.heartbeat.0.max(1);
        // Agents beat out of step with each other.
        let phase = (machine as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % heartbeat;
        let last_before = |at: TimeMs| {
            let beats = at.0.saturating_sub(phase) / heartbeat;
            TimeMs(phase.saturating_add(beats * heartbeat)).min(at).max(opened_at)
        };
        let heard = last_before(TimeMs(now.0.saturating_sub(way.0))).after(way).min(now);
        let round = way.0.saturating_mul(2).saturating_add(self.lengths.digest.0);
        let answered = last_before(TimeMs(answered_until.0.saturating_sub(round)));
        (heard.max(opened_at), answered)
    }
}
