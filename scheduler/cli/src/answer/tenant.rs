//! Tenants as answers.

use super::Listed;
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{grouped, milli};
use proto::v1;
use serde::Serialize;

/// A tenant.
#[derive(Clone, Debug, Serialize)]
pub struct Tenant {
    /// Name.
    pub name: String,
    /// Most GPUs in thousandths; none = no bound.
    pub gpu_milli_max: Option<u64>,
    /// Most jobs that may wait.
    pub pending_jobs_max: Option<u32>,
    /// GPUs in use, in thousandths.
    pub gpu_milli_used: u64,
    /// Jobs that wait.
    pub pending_jobs: u32,
    /// Highest priority of its jobs.
    pub priority_max: i32,
}

impl From<v1::Tenant> for Tenant {
    fn from(tenant: v1::Tenant) -> Self {
        Self {
            name: tenant.name,
            gpu_milli_max: tenant.gpu_milli_max,
            pending_jobs_max: tenant.pending_jobs_max,
            gpu_milli_used: tenant.gpu_milli_used,
            pending_jobs: tenant.pending_jobs,
            priority_max: tenant.priority_max.unwrap_or_default(),
        }
    }
}

impl Listed for Tenant {
    fn columns(_wide: bool) -> &'static [&'static str] {
        &["NAME", ">GPUS USED", ">GPUS MAX", ">JOBS WAITING", ">WAITING MAX", ">PRIORITY MAX"]
    }

    fn cells(&self, _wide: bool) -> Vec<String> {
        vec![
            self.name.clone(),
            milli(self.gpu_milli_used),
            self.gpu_milli_max.map_or_else(|| "no bound".to_owned(), milli),
            grouped(u64::from(self.pending_jobs)),
            self.pending_jobs_max.map_or_else(|| "default".to_owned(), |n| grouped(u64::from(n))),
            self.priority_max.to_string(),
        ]
    }
}

impl Answer for Tenant {
    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = Table::new(Self::columns(wide));
        table.row(self.cells(wide));
        vec![table]
    }
}
