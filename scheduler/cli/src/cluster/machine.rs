//! What machine this is, for reports: a figure without its machine says nothing.

use serde::Serialize;
use std::path::Path;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Model of the CPU.
    pub cpu: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Kernel.
    pub kernel: String,
    /// File system under the servers' data.
    pub filesystem: String,
    /// Device of that file system, and whether it rotates.
    pub disk: String,
    /// Whether this program was built with optimisation.
    pub build: &'static str,
}

impl Machine {
    /// Looks at this machine; what cannot be read stays "unknown".
    pub fn look(data_dir: &Path) -> Self {
        let (filesystem, disk) = mount(data_dir);
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: line_of("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            memory_mib: line_of("/proc/meminfo", "MemTotal").and_then(|t| kib(&t)).unwrap_or(0)
                / 1024,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |t| t.trim().to_owned()),
            filesystem,
            disk,
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{} cores {}, {} MiB, Linux {}, {} on {}, {} build",
            self.cores,
            self.cpu,
            self.memory_mib,
            self.kernel,
            self.filesystem,
            self.disk,
            self.build
        )
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Value of `key: value` or `key : value` in a file of such lines.
fn line_of(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

fn kib(text: &str) -> Option<u64> {
    text.trim_end_matches("kB").trim().parse().ok()
}

/// Type and device of the file system that holds a directory.
fn mount(dir: &Path) -> (String, String) {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let best = table
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(' ');
            let (device, at, kind) = (parts.next()?, parts.next()?, parts.next()?);
            dir.starts_with(at).then_some((at.len(), device, kind))
        })
        .max_by_key(|(length, ..)| *length);
    best.map_or_else(
        || (unknown(), unknown()),
        |(_, device, kind)| (kind.to_owned(), device.to_owned()),
    )
}

/// Resident memory of a process in MiB, now.
pub fn rss_mib(pid: u32) -> Option<u64> {
    line_of(&format!("/proc/{pid}/status"), "VmRSS").and_then(|t| kib(&t)).map(|kib| kib / 1024)
}

/// Most resident memory that a process ever had, in MiB.
pub fn rss_peak_mib(pid: u32) -> Option<u64> {
    line_of(&format!("/proc/{pid}/status"), "VmHWM").and_then(|t| kib(&t)).map(|kib| kib / 1024)
}

/// Ticks of the kernel's accounting in a second, as it shows them to programs.
const TICKS_PER_S: f64 = 100.0;

/// CPU time that a process has spent, in milliseconds.
pub fn cpu_ms(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; user and system time are fields 14 and 15.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().ok()?;
    Some(ticks as f64 * 1_000.0 / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_machine() {
        assert!(rss_mib(std::process::id()).is_some_and(|mib| mib > 0));
        assert!(rss_peak_mib(std::process::id()).is_some_and(|mib| mib > 0));
        assert!(cpu_ms(std::process::id()).is_some() && cpu_ms(0).is_none());
        let machine = Machine::look(Path::new("/"));
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
    }
}
