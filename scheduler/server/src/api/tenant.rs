//! `TenantService`: tenants and their quotas.
//!
//! **Invariant:** operators only, which the gate has settled.

use super::job::tenant_name;
use super::{READ_TIME, WRITE_TIME, page_size, read_point, time_left};
use crate::app::Context;
use crate::auth::Caller;
use crate::clock;
use crate::convert;
use crate::status;
use proto::v1;
use proto::v1::tenant_service_server::{TenantService, TenantServiceServer};
use scheduler_core::command::{Command, PutTenant, Quota};
use scheduler_core::validate;
use tonic::{Request, Response, Status};

/// Largest message; a tenant is a name and three numbers.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Serves tenants.
pub struct TenantApi {
    context: Context,
}

impl TenantApi {
    /// The service with its size limits set.
    pub fn service(context: Context) -> TenantServiceServer<Self> {
        TenantServiceServer::new(Self { context }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl TenantService for TenantApi {
    async fn put_tenant(
        &self,
        request: Request<v1::PutTenantRequest>,
    ) -> Result<Response<v1::PutTenantResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let caller = Caller::of(&request)?;
        let asked = request.into_inner().tenant;
        let asked = asked.ok_or_else(|| status::bad_field("tenant", "is missing"))?;
        let tenant = tenant_name("tenant.name", &asked.name)?;
        let default = Quota::default();
        let priority_max = asked.priority_max.map_or(default.priority_max.0.into(), i64::from);
        let priority_max = validate::priority("tenant.priority_max", priority_max)
            .map_err(|rejection| status::rejected(&rejection))?;
        let quota = Quota {
            gpu_milli_max: asked.gpu_milli_max.unwrap_or(default.gpu_milli_max),
            pending_jobs_max: asked.pending_jobs_max.unwrap_or(default.pending_jobs_max),
            priority_max,
        };
        let command = Command::PutTenant(PutTenant { tenant: tenant.clone(), quota });
        let (_, index) = super::propose(&self.context, caller.actor, command, deadline).await?;
        let shown =
            |state: &scheduler_core::state::State| state.tenant(&tenant).map(convert::view::tenant);
        let tenant = self.context.quorum.read(shown);
        let mut response = Response::new(v1::PutTenantResponse { tenant });
        status::label_applied(response.metadata_mut(), index);
        Ok(response)
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, READ_TIME));
        let request = request.into_inner();
        let limit = page_size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(tenant_name("page_token", token)?),
        };
        let consistency = v1::Consistency::Linearizable.into();
        let index = read_point(&self.context, consistency, deadline).await?;
        let mut tenants: Vec<v1::Tenant> = self.context.quorum.read(|state| {
            let rest = state.tenants().filter(|one| after.as_ref().is_none_or(|a| one.id > *a));
            rest.take(limit + 1).map(convert::view::tenant).collect()
        });
        let more = tenants.len() > limit;
        tenants.truncate(limit);
        let last = tenants.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| last.name.clone());
        let mut response = Response::new(v1::ListTenantsResponse { tenants, next_page_token });
        status::label_applied(response.metadata_mut(), index);
        Ok(response)
    }

    async fn remove_tenant(
        &self,
        request: Request<v1::RemoveTenantRequest>,
    ) -> Result<Response<v1::RemoveTenantResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let caller = Caller::of(&request)?;
        let tenant = tenant_name("name", &request.into_inner().name)?;
        let command = Command::RemoveTenant { tenant };
        super::propose(&self.context, caller.actor, command, deadline).await?;
        Ok(Response::new(v1::RemoveTenantResponse {}))
    }
}
