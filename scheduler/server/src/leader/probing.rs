//! Makes site RTTs of what agents measure, and coordinates for pairs that nobody measured.
//!
//! **Invariant:** only asks, and rarely: a pair is proposed when it has moved well beyond its
//! jitter, coordinates when estimates would change by several per cent.

use super::{Leader, duty};
use crate::applied::lock;
use crate::clock;
use crate::config::Probing;
use scheduler_core::command::{Command, SiteCoordinate};
use scheduler_core::duty::probes::Probe;
use scheduler_core::topology::{Sites, embed};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// What is known is looked through so many times in a round of probes.
const LOOKS_PER_ROUND: u32 = 4;
/// Most often that coordinates are fitted, in looks: a thousand sites take a second of one core.
const LOOKS_PER_FIT: u64 = 8;
/// Time between two looks where nobody probes: operators' RTTs give coordinates as well.
const IDLE_LOOK: Duration = Duration::from_secs(60);

impl Leader {
    /// Takes in what agents measured.
    pub(super) fn note_probes(&self, probes: &[Probe]) {
        let now = clock::now();
        let mut known = lock(&self.0.probes);
        self.0.quorum.read(|state| {
            for probe in probes {
                known.note(state, probe, now);
            }
        });
    }
}

/// Proposes for as long as it is polled.
pub(super) async fn run(leader: &Leader, probing: Probing) {
    let look = match probing.udp_port {
        0 => IDLE_LOOK,
        _ => probing.round() / LOOKS_PER_ROUND,
    };
    let mut tick = tokio::time::interval(look);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fitted = None;
    for number in 0u64.. {
        tick.tick().await;
        if leader.has_quorum().is_err() {
            continue;
        }
        let now = clock::now();
        let news = {
            let mut known = lock(&leader.0.probes);
            leader.0.quorum.read(|state| known.due(state, now))
        };
        if !news.is_empty() {
            tracing::info!(pairs = news.len(), "round trips between sites have changed");
            duty::propose(leader, vec![Command::SetSiteRtts(news)]).await;
        }
        if number % LOOKS_PER_FIT == LOOKS_PER_FIT - 1 {
            fit(leader, &mut fitted).await;
        }
    }
}

/// Fits coordinates anew if RTTs have changed since they were fitted last and some pairs have none.
async fn fit(leader: &Leader, fitted: &mut Option<Sites>) {
    let sites = leader.0.quorum.read(|state| {
        let sites = state.sites();
        let all = sites.len() * sites.len().saturating_sub(1) / 2;
        let measured = sites.rtts().filter(|(a, b, _)| a != b).count();
        (measured > 0 && measured < all).then(|| sites.clone())
    });
    let Some(sites) = sites.filter(|sites| fitted.as_ref() != Some(sites)) else { return };
    let found = tokio::task::spawn_blocking(move || {
        let found = embed::embed(&sites);
        let news = embed::news(&sites, &found).filter_map(|(site, coordinate)| {
            Some(SiteCoordinate { site: sites.site(site)?.name.clone(), coordinate })
        });
        let news: Vec<SiteCoordinate> = news.collect();
        (sites, news)
    });
    let Ok((sites, news)) = found.await else { return };
    *fitted = Some(sites);
    if !news.is_empty() {
        tracing::info!(sites = news.len(), "sites have new coordinates");
        duty::propose(leader, vec![Command::SetSiteCoordinates(news)]).await;
    }
}
