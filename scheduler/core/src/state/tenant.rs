//! Tenants and their quotas.
//!
//! **Invariant:** a job that is not over has a tenant.

use super::apply::Turn;
use super::{State, TENANTS_MAX};
use crate::command::{Outcome, PutTenant, Rejection};
use crate::event::Event;
use crate::id::TenantId;
use crate::validate;

impl State {
    /// A quota below what is in use takes nothing away; it only lets nothing new in.
    pub(super) fn put_tenant(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &PutTenant,
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        validate::priority("tenant.priority_max", asked.quota.priority_max.0.into())?;
        match self.tenant(&asked.tenant) {
            Some(known) if known.quota == asked.quota => {
                return Ok(Outcome::Done { changed: false });
            }
            None if self.facts.tenants.len() >= TENANTS_MAX => {
                let what = "tenants".to_owned();
                return Err(Rejection::LimitReached { what, limit: TENANTS_MAX as u64 });
            }
            _ => {}
        }
        self.put_tenant_facts(&asked.tenant, asked.quota);
        turn.event(Event::TenantsChanged);
        // A larger quota may be what a job has waited for.
        turn.event(Event::CapacityGrew);
        Ok(Outcome::Done { changed: true })
    }

    pub(super) fn remove_tenant(
        &mut self,
        turn: &mut Turn<'_>,
        id: &TenantId,
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let live = self.known_tenant(id)?.live_jobs;
        if live > 0 {
            let what = format!("tenant {id} has {live} jobs that are not over");
            return Err(Rejection::Precondition { what });
        }
        self.drop_tenant(id);
        turn.event(Event::TenantsChanged);
        Ok(Outcome::Done { changed: true })
    }
}
