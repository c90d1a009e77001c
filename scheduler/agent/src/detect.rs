//! What this machine has, asked of the system.
//!
//! **Invariant:** only reads; what cannot be found out is an error that names the file or program,
//! never a guess.

use proto::v1;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Program that lists NVIDIA GPUs in PCI bus order.
const NVIDIA_SMI: &str = "nvidia-smi";
/// Longest model name of the contract.
const MODEL_BYTES_MAX: usize = 63;

/// Why something could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("cannot make sense of {what}: {text:?}")]
    Nonsense { what: &'static str, text: String },
}

/// The host's name.
pub fn host_name() -> Result<String, DetectError> {
    Ok(read("/proc/sys/kernel/hostname")?.trim().to_owned())
}

/// CPU that this process may use, in thousandths of a core.
pub fn cpu_milli() -> Result<u64, DetectError> {
    let cores = std::thread::available_parallelism()
        .map_err(|source| DetectError::Io { path: "the number of cores".to_owned(), source })?;
    Ok(u64::try_from(cores.get()).unwrap_or(u64::MAX).saturating_mul(1000))
}

/// Memory of the machine in MiB.
pub fn memory_mib() -> Result<u64, DetectError> {
    memory_total(&read("/proc/meminfo")?)
}

fn memory_total(text: &str) -> Result<u64, DetectError> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let nonsense =
        || DetectError::Nonsense { what: "/proc/meminfo", text: text.chars().take(80).collect() };
    kib.map(|kib| kib / 1024).ok_or_else(nonsense)
}

/// Disk that is free for jobs under `directory`, or under its nearest parent that exists, in MiB.
pub fn disk_mib(directory: &Path) -> Result<u64, DetectError> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(existing).map_err(|error| DetectError::Io {
        path: existing.display().to_string(),
        source: error.into(),
    })?;
    let bytes = u128::from(stat.f_bavail) * u128::from(stat.f_frsize);
    Ok(u64::try_from(bytes / (1024 * 1024)).unwrap_or(u64::MAX))
}

/// NVIDIA GPUs in PCI bus order; none where there is no `nvidia-smi`.
pub fn gpus() -> Result<Vec<v1::Gpu>, DetectError> {
    // Drivers before 470 do not know the last field, and then refuse all of them.
    match query("name,memory.total,compute_cap")? {
        Answer::Listed(text) => listed_gpus(&text),
        Answer::Missing => Ok(Vec::new()),
        Answer::Refused(_) => match query("name,memory.total")? {
            Answer::Listed(text) => listed_gpus(&text),
            Answer::Missing => Ok(Vec::new()),
            Answer::Refused(text) => Err(DetectError::Nonsense { what: NVIDIA_SMI, text }),
        },
    }
}

/// What `nvidia-smi` made of a query.
enum Answer {
    Listed(String),
    /// There is no such program.
    Missing,
    Refused(String),
}

fn query(fields: &str) -> Result<Answer, DetectError> {
    let asked = Command::new(NVIDIA_SMI)
        .args([&format!("--query-gpu={fields}"), "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .output();
    match asked {
        Ok(output) if output.status.success() => {
            Ok(Answer::Listed(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(output) => {
            // It tells faults on either.
            let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            Ok(Answer::Refused(String::from_utf8_lossy(text).chars().take(200).collect()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Missing),
        Err(source) => Err(DetectError::Io { path: NVIDIA_SMI.to_owned(), source }),
    }
}

fn listed_gpus(text: &str) -> Result<Vec<v1::Gpu>, DetectError> {
    let gpu = |line: &str| {
        let nonsense = || DetectError::Nonsense { what: NVIDIA_SMI, text: line.to_owned() };
        let mut fields = line.split(',').map(str::trim);
        let model = model_name(fields.next().unwrap_or_default());
        let memory = fields.next().ok_or_else(nonsense)?;
        let compute_capability = match fields.next() {
            None => 0,
            Some(text) => compute_capability(text).ok_or_else(nonsense)?,
        };
        if model.is_empty() {
            return Err(nonsense());
        }
        Ok(v1::Gpu {
            model,
            vram_mib: memory.parse().map_err(|_| nonsense())?,
            // Which GPUs share an NVLink island is not listed; the operator declares it.
            link_domain: 0,
            vendor: v1::GpuVendor::Nvidia.into(),
            compute_capability,
        })
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(gpu).collect()
}

/// "8.9" is 809.
fn compute_capability(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 100 && minor < 100).then_some(major * 100 + minor)
}

/// "NVIDIA GeForce RTX 4090" becomes "RTX-4090".
fn model_name(name: &str) -> String {
    let mut rest = name.trim();
    for brand in ["NVIDIA ", "GeForce ", "Tesla "] {
        rest = rest.strip_prefix(brand).unwrap_or(rest).trim_start();
    }
    let plain =
        |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '-' };
    rest.chars().map(plain).take(MODEL_BYTES_MAX).collect()
}

fn read(path: &str) -> Result<String, DetectError> {
    std::fs::read_to_string(path)
        .map_err(|source| DetectError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        assert!(!host_name().unwrap().is_empty());
        assert!(cpu_milli().unwrap() >= 1000);
        assert!(memory_mib().unwrap() > 100);
        assert!(disk_mib(Path::new("/tmp/not/there/yet")).unwrap() > 0);
    }

    #[test]
    fn nvidias_list_is_understood() {
        let text =
            "NVIDIA H100 80GB HBM3, 81559\nNVIDIA GeForce RTX 4090, 24564\nTesla T4, 15360\n";
        let gpus = listed_gpus(text).unwrap();
        let listed: Vec<_> = gpus.iter().map(|gpu| (gpu.model.as_str(), gpu.vram_mib)).collect();
        assert_eq!(listed, [("H100-80GB-HBM3", 81_559), ("RTX-4090", 24_564), ("T4", 15_360)]);
        let newer = listed_gpus("Tesla T4, 15360, 7.5\nRTX, 1, 12.0").unwrap();
        assert_eq!([newer[0].compute_capability, newer[1].compute_capability], [705, 1_200]);
        assert!(listed_gpus("\n").unwrap().is_empty());
        for bad in ["no comma", "A100, lots", ", 5", "A100, 5, 8", "A100, 5, x.y"] {
            assert!(listed_gpus(bad).unwrap_err().to_string().contains("nvidia-smi"));
        }
    }

    #[test]
    fn memory_is_read_or_refused() {
        assert_eq!(memory_total("MemTotal:       24576 kB\nMemFree: 1 kB\n").unwrap(), 24);
        assert!(memory_total("MemFree: 1 kB").is_err());
    }
}
