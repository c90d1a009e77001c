//! The agent's configuration: a TOML file, completed by what the machine says about itself.
//!
//! **Invariant:** parsed once and checked whole: all faults are told at once, each with its field's
//! path. The supplier's token never prints.

use crate::detect::{self, DetectError};
use crate::link::Credential;
use crate::link::channels;
use crate::runtime::{process, simulated};
use fleet_profile::Vendor;
use proto::v1;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Most servers in the list.
const SERVERS_MAX: usize = 64;
/// Most GPUs of one node, as in the contract.
const GPUS_MAX: usize = agent_core::replica::GPUS_MAX as usize;
/// Longest name of the contract.
const NAME_BYTES_MAX: usize = 63;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot read the configuration: {0}")]
    Syntax(Box<toml::de::Error>),
    #[error("the configuration has {} faults: {}", .0.len(), .0.join("; "))]
    Faulty(Vec<String>),
    #[error(transparent)]
    Detect(#[from] DetectError),
}

/// A secret text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The file as written.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `http://HOST:PORT` of every server, in any order.
    pub servers: Vec<String>,
    /// The supplier's token; or `token_file`.
    pub token: Option<Secret>,
    /// File that holds the supplier's token and nothing else.
    pub token_file: Option<PathBuf>,
    /// Name of the supplier, for servers that run with `--insecure-dev` only.
    pub supplier: Option<String>,
    /// Where the agent keeps its identity and what runs.
    pub data_dir: PathBuf,
    pub node: Node,
    #[serde(default)]
    pub runtime: Runtime,
}

/// What the machine is. Numbers that are left out are asked of the system.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Host name if left out.
    pub name: Option<String>,
    /// `HOST` or `HOST:PORT` at which other nodes reach this one; the name if left out.
    pub address: Option<String>,
    pub region: String,
    pub zone: String,
    pub site: String,
    #[serde(default = "rack")]
    pub rack: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub taints: Vec<Taint>,
    /// In CUDA order (PCI bus order); asked of `nvidia-smi` if left out.
    pub gpus: Option<Vec<Gpus>>,
    pub cpu_milli: Option<u64>,
    pub memory_mib: Option<u64>,
    pub disk_mib: Option<u64>,
    #[serde(default)]
    pub bandwidth_up_mbps: u32,
    #[serde(default)]
    pub bandwidth_down_mbps: u32,
    /// Price of one GPU for an hour in millionths of a US dollar.
    #[serde(default)]
    pub price_micro_usd: u64,
    /// Countable resources, such as licences, in units of the operator's choosing.
    #[serde(default)]
    pub custom: BTreeMap<String, u64>,
}

fn rack() -> String {
    "rack".to_owned()
}

/// A mark that keeps replicas away.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    pub key: String,
    #[serde(default)]
    pub value: String,
    pub effect: Effect,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Effect {
    NoSchedule,
    PreferNoSchedule,
}

/// GPUs of one kind, next to each other in CUDA order.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpus {
    pub model: String,
    pub vram_mib: u32,
    #[serde(default = "one")]
    pub count: usize,
    /// Number of the NVLink island.
    #[serde(default)]
    pub link_domain: u32,
    #[serde(default)]
    pub vendor: Option<Vendor>,
    /// Major x 100 + minor, so 8.9 is 809; 0 = not told.
    #[serde(default)]
    pub compute_capability: u32,
}

/// The contract's word for a maker of GPUs.
pub(crate) fn gpu_vendor(vendor: Option<Vendor>) -> v1::GpuVendor {
    match vendor {
        None => v1::GpuVendor::Unspecified,
        Some(Vendor::Nvidia) => v1::GpuVendor::Nvidia,
        Some(Vendor::Amd) => v1::GpuVendor::Amd,
        Some(Vendor::Intel) => v1::GpuVendor::Intel,
        Some(Vendor::Google) => v1::GpuVendor::Google,
        Some(Vendor::Aws) => v1::GpuVendor::Aws,
        Some(Vendor::Huawei) => v1::GpuVendor::Huawei,
        Some(Vendor::Tenstorrent) => v1::GpuVendor::Tenstorrent,
    }
}

fn one() -> usize {
    1
}

/// What runs the replicas.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind", content = "options")]
pub enum Runtime {
    Process(process::Options),
    Simulated(simulated::Options),
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime::Process(process::Options::default())
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let read = std::fs::read_to_string(path);
        Config::parse(&read.map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?)
    }

    /// Reads and checks a text.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let config: Config =
            toml::from_str(text).map_err(|error| ConfigError::Syntax(Box::new(error)))?;
        config.check()?;
        Ok(config)
    }

    /// All faults at once. For configurations that were put together or changed by hand.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Vec::new();
        if !(1..=SERVERS_MAX).contains(&self.servers.len()) {
            let count = self.servers.len();
            faults.push(format!("servers: {count} entries, not 1 to {SERVERS_MAX}"));
        }
        for (at, server) in self.servers.iter().enumerate() {
            if let Err(error) = channels::endpoint(at, server) {
                faults.push(error.to_string());
            }
        }
        if self.token.is_some() && self.token_file.is_some() {
            faults.push("token_file: give token or token_file, not both".to_owned());
        }
        self.node.check(&mut faults);
        let (kind, of_runtime) = match &self.runtime {
            Runtime::Process(options) => ("process", options.faults()),
            Runtime::Simulated(options) => ("simulated", options.faults()),
        };
        tracing::trace!(kind, "runtime");
        faults.extend(of_runtime.into_iter().map(|fault| format!("runtime.options.{fault}")));
        if faults.is_empty() { Ok(()) } else { Err(ConfigError::Faulty(faults)) }
    }

    /// What shows the servers whose node this is; reads `token_file`.
    pub fn credential(&self) -> Result<Credential, ConfigError> {
        let from_file = match &self.token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Io { path: path.clone(), source })?,
            ),
            None => None,
        };
        let token = self.token.as_ref().map(|token| token.0.as_str());
        let token = token.or(from_file.as_deref()).map(str::trim);
        Credential::new(token, self.supplier.as_deref())
            .map_err(|error| ConfigError::Faulty(vec![error.to_string()]))
    }

    /// What the agent declares of its machine; asks the system for what was left out.
    pub fn node_spec(&self) -> Result<v1::NodeSpec, ConfigError> {
        let node = &self.node;
        let name = match &node.name {
            Some(name) => name.clone(),
            None => detect::host_name()?,
        };
        let gpus = match &node.gpus {
            Some(declared) => declared.iter().flat_map(Gpus::each).collect(),
            None => detect::gpus()?,
        };
        let cpu_milli = node.cpu_milli.map_or_else(detect::cpu_milli, Ok)?;
        let memory_mib = node.memory_mib.map_or_else(detect::memory_mib, Ok)?;
        let disk_mib = node.disk_mib.map_or_else(|| detect::disk_mib(&self.data_dir), Ok)?;
        Ok(v1::NodeSpec {
            address: node.address.clone().unwrap_or_else(|| name.clone()),
            name,
            labels: node.labels.clone().into_iter().collect(),
            taints: node.taints.iter().map(Taint::to_wire).collect(),
            gpus,
            cpu_milli,
            memory_mib,
            disk_mib,
            place: Some(v1::Place {
                region: node.region.clone(),
                zone: node.zone.clone(),
                site: node.site.clone(),
                rack: node.rack.clone(),
            }),
            bandwidth_up_mbps: node.bandwidth_up_mbps,
            bandwidth_down_mbps: node.bandwidth_down_mbps,
            price_micro_usd: node.price_micro_usd,
            custom: node.custom.clone().into_iter().collect(),
        })
    }
}

impl Gpus {
    fn each(&self) -> impl Iterator<Item = v1::Gpu> {
        let gpu = v1::Gpu {
            model: self.model.clone(),
            vram_mib: self.vram_mib,
            link_domain: self.link_domain,
            vendor: gpu_vendor(self.vendor).into(),
            compute_capability: self.compute_capability,
        };
        std::iter::repeat_n(gpu, self.count)
    }
}

impl Taint {
    fn to_wire(&self) -> v1::Taint {
        let effect = match self.effect {
            Effect::NoSchedule => v1::TaintEffect::NoSchedule,
            Effect::PreferNoSchedule => v1::TaintEffect::PreferNoSchedule,
        };
        v1::Taint { key: self.key.clone(), value: self.value.clone(), effect: effect.into() }
    }
}

impl Node {
    /// Only what would hurt here; the server checks the rest at the join.
    fn check(&self, faults: &mut Vec<String>) {
        let mut names = vec![
            ("region".to_owned(), &self.region),
            ("zone".to_owned(), &self.zone),
            ("site".to_owned(), &self.site),
            ("rack".to_owned(), &self.rack),
        ];
        names.extend(self.name.as_ref().map(|name| ("name".to_owned(), name)));
        let gpus = self.gpus.as_deref().unwrap_or_default();
        names.extend(
            gpus.iter().enumerate().map(|(at, gpus)| (format!("gpus[{at}].model"), &gpus.model)),
        );
        for (field, name) in names {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(plain) {
                faults.push(format!(
                    "node.{field}: {:?} is not 1 to {NAME_BYTES_MAX} of [A-Za-z0-9._-]",
                    name.chars().take(NAME_BYTES_MAX).collect::<String>()
                ));
            }
        }
        let count = gpus.iter().fold(0usize, |sum, gpus| sum.saturating_add(gpus.count));
        if count > GPUS_MAX {
            faults.push(format!("node.gpus: {count} GPUs are above {GPUS_MAX}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        servers = ["http://10.0.0.1:7070", "10.0.0.2:7070"]
        token = "s3cret"
        data_dir = "/var/lib/muster-agent"
        [node]
        name = "gpu-17"
        region = "eu-west"
        zone = "eu-west-a"
        site = "fra1"
        cpu_milli = 64_000
        memory_mib = 262_144
        disk_mib = 1_000_000
        taints = [{ key = "noisy", effect = "PreferNoSchedule" }]
        custom = { licence = 4 }
        [[node.gpus]]
        model = "H100-SXM"
        vram_mib = 81_920
        vendor = "nvidia"
        compute_capability = 900
        count = 8
        [runtime]
        kind = "process"
        options = { grace_ms = 5000 }
    "#;

    #[test]
    fn a_full_file_gives_a_spec() {
        let config = Config::parse(GOOD).unwrap();
        let spec = config.node_spec().unwrap();
        assert_eq!((spec.gpus.len(), spec.gpus[7].vram_mib), (8, 81_920));
        assert_eq!((spec.name.as_str(), spec.address.as_str()), ("gpu-17", "gpu-17"));
        assert_eq!(spec.taints[0].effect(), v1::TaintEffect::PreferNoSchedule);
        let gpu = &spec.gpus[7];
        assert_eq!((gpu.vendor(), gpu.compute_capability), (v1::GpuVendor::Nvidia, 900));
        assert_eq!(spec.custom.get("licence"), Some(&4));
        assert_eq!(spec.place.unwrap().rack, "rack");
        let Runtime::Process(options) = config.runtime else { panic!("runtime") };
        assert_eq!((options.grace_ms, options.logs_kept), (5000, 1000));
    }

    #[test]
    fn what_is_left_out_is_asked_of_the_machine() {
        let text = "servers = ['127.0.0.1:1']\ndata_dir = '/tmp'\n\
                    [node]\nregion = 'r'\nzone = 'z'\nsite = 's'\ngpus = []";
        let spec = Config::parse(text).unwrap().node_spec().unwrap();
        assert!(spec.cpu_milli >= 1000 && spec.memory_mib > 0 && !spec.name.is_empty());
    }

    #[test]
    fn all_faults_at_once() {
        let text = GOOD
            .replace("http://10.0.0.1:7070", "https://10.0.0.1:7070")
            .replace("fra1", "fra 1")
            .replace("count = 8", "count = 65")
            .replace("grace_ms = 5000", "grace_ms = 5000000")
            .replace("data_dir", "token_file = '/x'\ndata_dir");
        let ConfigError::Faulty(faults) = Config::parse(&text).unwrap_err() else { panic!("kind") };
        for part in [
            "servers[0]:",
            "token_file: give token",
            "node.site: \"fra 1\"",
            "node.gpus: 65 GPUs are above 64",
            "runtime.options.grace_ms: 5000000 is above 600000",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:?}");
        }
        assert_eq!(faults.len(), 5);
    }

    #[test]
    fn unknown_fields_are_refused_and_secrets_do_not_print() {
        let error = Config::parse(&GOOD.replace("zone =", "zoom ="));
        assert!(matches!(error, Err(ConfigError::Syntax(_))));
        let config = Config::parse(GOOD).unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!format!("{:?}", config.credential().unwrap()).contains("s3cret"));
        let spaced = Config::parse(&GOOD.replace("s3cret", "s3 cret")).unwrap();
        let error = spaced.credential().unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("s3"), "{error}");
    }
}
