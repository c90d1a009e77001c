//! What is due by the clock while this server leads: lost nodes, jobs whose time is over, old jobs
//! to forget, and the first tenants of a new cluster.
//!
//! **Invariant:** only asks; `State::apply` decides by the entries' own time. One duty's proposal
//! is under way at a time, so a slow log is never flooded.

use super::Leader;
use crate::applied::lock;
use crate::clock;
use crate::config::Cluster;
use scheduler_core::command::{Actor, Command, Entry, PutTenant, Quota};
use scheduler_core::duty::expiry;
use scheduler_core::id::TenantId;
use scheduler_core::job::Priority;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often is looked: late by at most this, and cheap (microseconds for an idle fleet).
const TICK: Duration = Duration::from_millis(250);
/// How long one duty's proposal may take before the next tick goes on without it.
const PROPOSE_TIME: Duration = Duration::from_secs(5);

/// Does the duties for as long as it is polled. `has_tenants` as [`first_tenants`] said.
pub(super) async fn run(leader: &Leader, cluster: &Cluster, mut has_tenants: bool) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cut_off = false;
    loop {
        tick.tick().await;
        if leader.has_quorum().is_err() {
            // Nobody can be heard now, so nobody may be called silent: what is proposed here
            // would come true when the quorum is back.
            cut_off = true;
            continue;
        }
        if std::mem::take(&mut cut_off) {
            lock(&leader.0.leases).reset_for_new_term(clock::monotonic());
        }
        if !has_tenants {
            has_tenants = first_tenants(leader, cluster).await;
        }
        let lost = {
            let mut leases = lock(&leader.0.leases);
            leader.0.quorum.read(|state| leases.due(clock::monotonic(), state))
        };
        if !lost.is_empty() {
            tracing::info!(nodes = lost.len(), "leases are over");
            propose(leader, vec![Command::NodeStatuses(lost)]).await;
        }
        let now = clock::now();
        if let Some(expire) = leader.0.quorum.read(|state| expiry::next(state, now)) {
            propose(leader, vec![expire]).await;
        }
    }
}

/// Creates the configured tenants if the cluster has none at all; whether it has some now.
pub(super) async fn first_tenants(leader: &Leader, cluster: &Cluster) -> bool {
    if leader.0.quorum.read(|state| state.tenants().next().is_some()) {
        return true;
    }
    let mut tenants: Vec<(TenantId, Quota)> =
        cluster.tenants.iter().map(|first| (first.tenant.clone(), first.quota)).collect();
    if cluster.insecure_dev
        && let Ok(name) = crate::auth::dev_name()
    {
        let dev = TenantId(name);
        if !tenants.iter().any(|(tenant, _)| *tenant == dev) {
            // A playground is for trying out large things, also many of them, in any order.
            let (pending_jobs_max, priority_max) = (u32::MAX, Priority::MAX);
            let quota = Quota { pending_jobs_max, priority_max, ..Quota::default() };
            tenants.push((dev, quota));
        }
    }
    let put = |(tenant, quota)| Command::PutTenant(PutTenant { tenant, quota });
    let commands: Vec<Command> = tenants.into_iter().map(put).collect();
    commands.is_empty() || propose_as(leader, Actor::Operator, commands).await
}

pub(super) async fn propose(leader: &Leader, commands: Vec<Command>) -> bool {
    propose_as(leader, Actor::System, commands).await
}

/// Proposes; whether it came through. What did not is found due again.
async fn propose_as(leader: &Leader, by: Actor, commands: Vec<Command>) -> bool {
    let at = clock::now();
    let entry = |command| Entry { at, by: by.clone(), command };
    let entries = commands.into_iter().map(entry).collect();
    let proposal = tokio::time::timeout(PROPOSE_TIME, leader.0.quorum.propose(entries));
    match proposal.await {
        Ok(Ok(proposed)) => {
            for rejection in proposed.results.iter().filter_map(|result| result.as_ref().err()) {
                tracing::warn!(%rejection, "a duty was refused");
            }
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a duty could not be proposed");
            false
        }
        Err(_late) => {
            tracing::warn!("a duty was not done in time");
            false
        }
    }
}
