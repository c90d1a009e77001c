//! `tenants`.

use super::{Context, missing};
use crate::answer::tenant::Tenant;
use crate::answer::{Done, List};
use crate::args::TenantsCommand;
use crate::exit::{Ending, Exit};
use proto::v1;

/// Largest page that servers give.
const PAGE_MAX: u32 = 1_000;

pub(super) async fn run(context: &Context, command: TenantsCommand) -> Ending {
    match command {
        TenantsCommand::List => list(context).await,
        TenantsCommand::Put { name, gpus_max, pending_jobs_max, priority_max } => {
            let gpu_milli_max = gpus_max.map(|gpus| u64::from(gpus) * 1_000);
            let rest = v1::Tenant::default();
            put(context, v1::Tenant { name, gpu_milli_max, pending_jobs_max, priority_max, ..rest })
                .await
        }
        TenantsCommand::Remove { name } => remove(context, name).await,
    }
}

async fn list(context: &Context) -> Ending {
    let mut items: Vec<Tenant> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            v1::ListTenantsRequest { page_size: PAGE_MAX, page_token: page_token.clone() };
        let page = context
            .client
            .call(|attempt| {
                let request = attempt.request(request.clone());
                async move { attempt.tenants().list_tenants(request).await }
            })
            .await?;
        items.extend(page.tenants.into_iter().map(Tenant::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    context.show_list(
        &List { items, more: false },
        "no tenants; `muster tenants put NAME` makes one",
        "",
    )
}

async fn put(context: &Context, tenant: v1::Tenant) -> Ending {
    let request = v1::PutTenantRequest { tenant: Some(tenant) };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.tenants().put_tenant(request).await }
        })
        .await?;
    context.output.show(&Tenant::from(answer.tenant.ok_or_else(|| missing("tenant"))?))?;
    Ok(Exit::Done)
}

async fn remove(context: &Context, name: String) -> Ending {
    context
        .client
        .call_alone(|attempt| {
            let request = attempt.request(v1::RemoveTenantRequest { name: name.clone() });
            async move { attempt.tenants().remove_tenant(request).await }
        })
        .await?;
    context.output.show(&Done::new(format!("tenant {name} is forgotten")))?;
    Ok(Exit::Done)
}
