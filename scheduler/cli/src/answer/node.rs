//! Nodes as answers.

use super::{Listed, or_dash, word};
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{age, dollars, grouped, mebibytes, milli, now_ms, time};
use proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// Replicas that a table names.
const REPLICAS_SHOWN: usize = 32;

/// A worker machine.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Number.
    pub id: u32,
    /// Host name.
    pub name: String,
    /// Supplier that owns it.
    pub supplier: String,
    /// UP or DOWN.
    pub status: String,
    /// ELIGIBLE, CORDONED or DRAINING.
    pub eligibility: String,
    /// Where it stands.
    pub region: String,
    /// See `region`.
    pub zone: String,
    /// See `region`.
    pub site: String,
    /// See `region`.
    pub rack: String,
    /// GPUs by model.
    pub gpus: Vec<Gpus>,
    /// GPUs in use, in thousandths.
    pub gpu_milli_used: u64,
    /// CPU in thousandths of a core.
    pub cpu_milli: u64,
    /// CPU in use.
    pub cpu_milli_used: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Memory in use.
    pub memory_mib_used: u64,
    /// Disk in MiB.
    pub disk_mib: u64,
    /// Disk in use.
    pub disk_mib_used: u64,
    /// Bandwidth to the outside.
    pub bandwidth_up_mbps: u32,
    /// Bandwidth from the outside.
    pub bandwidth_down_mbps: u32,
    /// Price of a GPU-hour in millionths of a US dollar.
    pub price_micro_usd: u64,
    /// Address for members of a cluster.
    pub address: String,
    /// Free-form facts.
    pub labels: BTreeMap<String, String>,
    /// Marks that keep replicas away: key=value:EFFECT.
    pub taints: Vec<String>,
    /// Countable resources.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom: BTreeMap<String, u64>,
    /// Countable resources in use.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_used: BTreeMap<String, u64>,
    /// Fencing number of its newest session.
    pub epoch: u32,
    /// First registration, RFC 3339.
    pub registered_time: Option<String>,
    /// Last change of status or eligibility, RFC 3339.
    pub changed_time: Option<String>,
    /// Live replicas on it, as job/rank.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<String>,
    #[serde(skip)]
    changed_ms: u64,
    #[serde(skip)]
    now_ms: u64,
}

/// GPUs of one model.
#[derive(Clone, Debug, Serialize)]
pub struct Gpus {
    /// Model.
    pub model: String,
    /// Video memory of each in MiB.
    pub vram_mib: u32,
    /// Who makes them; left out = not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Major x 100 + minor; left out = not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<u32>,
    /// How many.
    pub count: u32,
}

impl Gpus {
    fn one(gpu: &v1::Gpu) -> Self {
        let vendor = gpu.vendor();
        let told = vendor != v1::GpuVendor::Unspecified;
        Self {
            model: gpu.model.clone(),
            vram_mib: gpu.vram_mib,
            vendor: told.then(|| word(vendor.as_str_name(), "GPU_VENDOR_")),
            compute_capability: (gpu.compute_capability > 0).then_some(gpu.compute_capability),
            count: 1,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.model == other.model
            && self.vram_mib == other.vram_mib
            && self.vendor == other.vendor
            && self.compute_capability == other.compute_capability
    }
}

impl From<v1::Node> for Node {
    fn from(node: v1::Node) -> Self {
        let (status, eligibility) = (node.status(), node.eligibility());
        let spec = node.spec.unwrap_or_default();
        let place = spec.place.unwrap_or_default();
        let mut gpus: Vec<Gpus> = Vec::new();
        for gpu in &spec.gpus {
            let one = Gpus::one(gpu);
            match gpus.iter_mut().find(|known| known.is_same(&one)) {
                Some(known) => known.count += 1,
                None => gpus.push(one),
            }
        }
        let taints = spec.taints.iter().map(|t| {
            format!("{}={}:{}", t.key, t.value, word(t.effect().as_str_name(), "TAINT_EFFECT_"))
        });
        Self {
            id: node.id,
            name: spec.name,
            supplier: node.supplier,
            status: word(status.as_str_name(), "NODE_STATUS_"),
            eligibility: word(eligibility.as_str_name(), "ELIGIBILITY_"),
            region: place.region,
            zone: place.zone,
            site: place.site,
            rack: place.rack,
            gpus,
            gpu_milli_used: node.gpu_milli_used,
            cpu_milli: spec.cpu_milli,
            cpu_milli_used: node.cpu_milli_used,
            memory_mib: spec.memory_mib,
            memory_mib_used: node.memory_mib_used,
            disk_mib: spec.disk_mib,
            disk_mib_used: node.disk_mib_used,
            bandwidth_up_mbps: spec.bandwidth_up_mbps,
            bandwidth_down_mbps: spec.bandwidth_down_mbps,
            price_micro_usd: spec.price_micro_usd,
            address: spec.address,
            taints: taints.collect(),
            labels: spec.labels,
            custom: spec.custom,
            custom_used: node.custom_used,
            epoch: node.epoch,
            registered_time: time(node.registered_time_ms),
            changed_time: time(node.changed_time_ms),
            replicas: node.replicas.iter().map(|r| format!("{}/{}", r.job_id, r.rank)).collect(),
            changed_ms: node.changed_time_ms,
            now_ms: now_ms(),
        }
    }
}

impl Node {
    fn gpu_words(&self) -> String {
        if self.gpus.is_empty() {
            return "-".to_owned();
        }
        self.gpus.iter().map(|g| format!("{}x{}", g.count, g.model)).collect::<Vec<_>>().join("+")
    }

    fn gpu_count(&self) -> u32 {
        self.gpus.iter().map(|g| g.count).sum()
    }
}

impl Listed for Node {
    fn columns(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 15] = [
            ">ID",
            "NAME",
            "STATUS",
            "TAKES WORK",
            "REGION",
            "SITE",
            "GPUS",
            ">USED",
            ">AGE",
            "SUPPLIER",
            ">CPU",
            ">MEMORY",
            ">DISK",
            ">$/GPU-H",
            "ADDRESS",
        ];
        if wide { &ALL } else { &ALL[..9] }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.id.to_string(),
            self.name.clone(),
            self.status.clone(),
            self.eligibility.clone(),
            or_dash(&self.region),
            or_dash(&self.site),
            self.gpu_words(),
            format!("{}/{}", milli(self.gpu_milli_used), self.gpu_count()),
            age(self.changed_ms, self.now_ms),
        ];
        if wide {
            cells.extend([
                self.supplier.clone(),
                format!("{}/{}", milli(self.cpu_milli_used), milli(self.cpu_milli)),
                format!("{}/{}", mebibytes(self.memory_mib_used), mebibytes(self.memory_mib)),
                format!("{}/{}", mebibytes(self.disk_mib_used), mebibytes(self.disk_mib)),
                dollars(self.price_micro_usd),
                or_dash(&self.address),
            ]);
        }
        cells
    }
}

impl Answer for Node {
    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = Table::fields();
        table.field("Node", self.id.to_string());
        table.field("Name", &self.name);
        table.field("Supplier", &self.supplier);
        table.field("Status", &self.status);
        table.field("Takes work", &self.eligibility);
        table.field(
            "Place",
            format!("{} / {} / {} / {}", self.region, self.zone, self.site, self.rack),
        );
        for gpus in &self.gpus {
            table.field(
                "GPUs",
                format!("{} x {} {}", gpus.count, gpus.model, mebibytes(u64::from(gpus.vram_mib))),
            );
        }
        table.field("GPUs used", format!("{} of {}", milli(self.gpu_milli_used), self.gpu_count()));
        table.field(
            "CPU used",
            format!("{} of {}", milli(self.cpu_milli_used), milli(self.cpu_milli)),
        );
        table.field(
            "Memory used",
            format!("{} of {}", mebibytes(self.memory_mib_used), mebibytes(self.memory_mib)),
        );
        table.field(
            "Disk used",
            format!("{} of {}", mebibytes(self.disk_mib_used), mebibytes(self.disk_mib)),
        );
        for (name, amount) in &self.custom {
            let used = self.custom_used.get(name).copied().unwrap_or_default();
            table.field("Custom used", format!("{used} of {amount} {name}"));
        }
        table.field(
            "Bandwidth",
            format!(
                "{} up, {} down Mbit/s",
                grouped(u64::from(self.bandwidth_up_mbps)),
                grouped(u64::from(self.bandwidth_down_mbps))
            ),
        );
        table.field("Price", format!("$ {} per GPU-hour", dollars(self.price_micro_usd)));
        table.field("Address", or_dash(&self.address));
        for (key, value) in &self.labels {
            table.field("Label", format!("{key}={value}"));
        }
        for taint in &self.taints {
            table.field("Taint", taint);
        }
        table.field("Epoch", self.epoch.to_string());
        for (name, time) in [("Registered", &self.registered_time), ("Changed", &self.changed_time)]
        {
            if let Some(time) = time {
                table.field(name, time);
            }
        }
        if !self.replicas.is_empty() {
            let shown =
                if wide { self.replicas.len() } else { REPLICAS_SHOWN.min(self.replicas.len()) };
            let more = self.replicas.len() - shown;
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            table.field(
                "Replicas",
                format!("{}{tail} (job/rank)", self.replicas[..shown].join(" ")),
            );
        }
        vec![table]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::List;
    use crate::output::{Format, render};

    #[test]
    fn list() {
        let gpu = v1::Gpu {
            model: "H100-SXM".into(),
            vram_mib: 81_920,
            link_domain: 0,
            ..v1::Gpu::default()
        };
        let spec = v1::NodeSpec {
            name: "n1".into(),
            gpus: vec![gpu; 8],
            place: Some(v1::Place {
                region: "eu-west".into(),
                site: "ams-1".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let node = v1::Node {
            id: 1,
            supplier: "acme".into(),
            spec: Some(spec),
            status: v1::NodeStatus::Up.into(),
            eligibility: v1::Eligibility::Eligible.into(),
            gpu_milli_used: 500,
            changed_time_ms: 1_000,
            ..Default::default()
        };
        let node = Node { now_ms: 61_000, ..Node::from(node) };
        let text = render(Format::Table, &List { items: vec![node], more: false }).expect("render");
        assert_eq!(
            text,
            "ID  NAME  STATUS  TAKES WORK  REGION   SITE   GPUS         USED   AGE\n \
              1  n1    UP      ELIGIBLE    eu-west  ams-1  8xH100-SXM  0.5/8  1m0s\n"
        );
    }
}
