//! The fleet's GPUs as an answer.

use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{dollars, grouped, mebibytes, milli};
use proto::v1;
use serde::Serialize;

/// Regions that a table names before it only counts them.
const REGIONS_SHOWN: usize = 3;

/// The fleet's GPUs.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    /// Nodes known.
    pub nodes: u32,
    /// Nodes that are up.
    pub nodes_up: u32,
    /// One row per model.
    pub models: Vec<Model>,
}

/// GPUs of one model.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Model.
    pub model: String,
    /// Smallest video memory in MiB.
    pub vram_mib: u32,
    /// GPUs known.
    pub gpus: u64,
    /// Whole GPUs that are free.
    pub gpus_free: u64,
    /// GPUs in use, in thousandths.
    pub gpu_milli_used: u64,
    /// GPUs on nodes that are down, cordoned or draining.
    pub gpus_unavailable: u64,
    /// Nodes that have the model.
    pub nodes: u32,
    /// Regions that have the model.
    pub regions: Vec<String>,
    /// Lowest price of a GPU-hour in millionths of a US dollar.
    pub price_micro_usd_min: u64,
    /// Highest price of a GPU-hour in millionths of a US dollar.
    pub price_micro_usd_max: u64,
}

impl From<v1::GetCapacityResponse> for Capacity {
    fn from(response: v1::GetCapacityResponse) -> Self {
        let model = |m: v1::ModelCapacity| Model {
            model: m.model,
            vram_mib: m.vram_mib,
            gpus: m.gpus,
            gpus_free: m.gpus_free,
            gpu_milli_used: m.gpu_milli_used,
            gpus_unavailable: m.gpus_unavailable,
            nodes: m.nodes,
            regions: m.regions,
            price_micro_usd_min: m.price_micro_usd_min,
            price_micro_usd_max: m.price_micro_usd_max,
        };
        Self {
            nodes: response.nodes,
            nodes_up: response.nodes_up,
            models: response.models.into_iter().map(model).collect(),
        }
    }
}

impl Answer for Capacity {
    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = Table::new(&[
            "MODEL", ">VRAM", ">GPUS", ">FREE", ">USED", ">OUT", ">NODES", ">$/GPU-H", "REGIONS",
        ]);
        let mut sum = (0_u64, 0_u64, 0_u64, 0_u64);
        for m in &self.models {
            let price = match (m.price_micro_usd_min, m.price_micro_usd_max) {
                (low, high) if low == high => dollars(low),
                (low, high) => format!("{}-{}", dollars(low), dollars(high)),
            };
            let regions = if wide || m.regions.len() <= REGIONS_SHOWN {
                m.regions.join(",")
            } else {
                format!(
                    "{},+{}",
                    m.regions[..REGIONS_SHOWN].join(","),
                    m.regions.len() - REGIONS_SHOWN
                )
            };
            table.row(vec![
                m.model.clone(),
                mebibytes(u64::from(m.vram_mib)),
                grouped(m.gpus),
                grouped(m.gpus_free),
                whole(m.gpu_milli_used),
                grouped(m.gpus_unavailable),
                grouped(u64::from(m.nodes)),
                price,
                regions,
            ]);
            sum = (
                sum.0 + m.gpus,
                sum.1 + m.gpus_free,
                sum.2 + m.gpu_milli_used,
                sum.3 + m.gpus_unavailable,
            );
        }
        table.row(vec![
            "all".to_owned(),
            String::new(),
            grouped(sum.0),
            grouped(sum.1),
            whole(sum.2),
            grouped(sum.3),
            format!("{}/{} up", grouped(u64::from(self.nodes_up)), grouped(u64::from(self.nodes))),
        ]);
        vec![table]
    }
}

fn whole(gpu_milli: u64) -> String {
    if gpu_milli.is_multiple_of(1000) { grouped(gpu_milli / 1000) } else { milli(gpu_milli) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, render};

    #[test]
    fn table() {
        let model = v1::ModelCapacity {
            model: "H100-SXM".into(),
            vram_mib: 81_920,
            gpus: 8_000,
            gpus_free: 3_000,
            gpu_milli_used: 5_000_000,
            nodes: 1_000,
            regions: ["a", "b", "c", "d"].map(String::from).to_vec(),
            price_micro_usd_min: 2_000_000,
            price_micro_usd_max: 2_500_000,
            ..Default::default()
        };
        let response =
            v1::GetCapacityResponse { models: vec![model], nodes: 1_500, nodes_up: 1_499 };
        let text = render(Format::Table, &Capacity::from(response)).expect("render");
        assert_eq!(
            text,
            "MODEL      VRAM   GPUS   FREE   USED  OUT           NODES    $/GPU-H  REGIONS\n\
             H100-SXM  80GiB  8,000  3,000  5,000    0           1,000  2.00-2.50  a,b,c,+1\n\
             all              8,000  3,000  5,000    0  1,499/1,500 up\n"
        );
    }
}
