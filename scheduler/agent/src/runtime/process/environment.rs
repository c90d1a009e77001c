//! What a replica finds in its environment.
//!
//! **Invariant:** of the agent's own environment only PATH, HOME and LANG pass. `MUSTER_*` and the
//! choice of GPUs cannot be overridden by the job.

use crate::replica::Assignment;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What passes from the agent's environment.
const KEPT: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Where programs are looked for when nobody sets PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Names that only the agent sets.
const RESERVED: &str = "MUSTER_";

/// Environment of a replica by name, or what is wrong with the job's part of it.
pub(super) fn environment(
    assignment: &Assignment,
    own: impl Fn(&str) -> Option<OsString>,
) -> Result<BTreeMap<String, OsString>, String> {
    let mut env: BTreeMap<String, OsString> = BTreeMap::new();
    for name in KEPT {
        if let Some(value) = own(name) {
            env.insert(name.to_owned(), value);
        }
    }
    env.entry("PATH".to_owned()).or_insert_with(|| PATH_DEFAULT.into());
    let conventional = conventional(assignment);
    env.extend(conventional.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
    for (name, value) in &assignment.program.env {
        check(name, value)?;
        env.insert(name.clone(), value.into());
    }
    let fixed = fixed(assignment);
    env.extend(fixed.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
    Ok(env)
}

/// The shim is a shell: it passes on only what a shell could name.
fn check(name: &str, value: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !head || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!(
            "program.env: {name:?} is no name; letters, digits and _ are, not beginning with a digit"
        ));
    }
    if name.starts_with(RESERVED) {
        return Err(format!("program.env: {name:?} begins with {RESERVED}, set by the agent"));
    }
    if value.contains('\0') {
        return Err(format!("program.env: the value of {name:?} holds a NUL byte"));
    }
    Ok(())
}

/// Names that frameworks look for; a job may set its own values.
fn conventional(assignment: &Assignment) -> Vec<(&'static str, String)> {
    let mut env = vec![
        ("RANK", assignment.binding.rank.0.to_string()),
        ("WORLD_SIZE", assignment.world_size.to_string()),
    ];
    if let Some(host) = host(&assignment.head_address) {
        env.push(("MASTER_ADDR", host.to_owned()));
    }
    env
}

fn fixed(assignment: &Assignment) -> Vec<(&'static str, String)> {
    let gpus: Vec<String> = assignment.binding.gpus.iter().map(|gpu| gpu.to_string()).collect();
    let mut env = vec![
        ("MUSTER_JOB_ID", assignment.binding.job.0.to_string()),
        ("MUSTER_RANK", assignment.binding.rank.0.to_string()),
        ("MUSTER_WORLD_SIZE", assignment.world_size.to_string()),
        ("MUSTER_HEAD_RANK", assignment.head_rank.0.to_string()),
        ("MUSTER_HEAD_ADDRESS", assignment.head_address.to_string()),
        ("MUSTER_GROUP", assignment.group.to_string()),
        ("MUSTER_GPU_MILLI", assignment.binding.gpu_milli.to_string()),
        // The node's GPUs are declared in the order in which nvidia-smi lists them.
        ("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()),
        // Empty hides all GPUs from a replica that has none.
        ("CUDA_VISIBLE_DEVICES", gpus.join(",")),
    ];
    if let Some(token) = &assignment.token {
        env.push(("MUSTER_JOB_TOKEN", token.to_hex()));
    }
    env
}

/// Host of `host`, `host:port` or `[v6]:port`.
fn host(address: &str) -> Option<&str> {
    let host = match address.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        // More than one colon: a bare IPv6 address.
        None if address.matches(':').count() > 1 => address,
        None => address.split(':').next().unwrap_or(address),
    };
    (!host.is_empty()).then_some(host)
}

/// The program's file, so that a wrong name is a clear error and not an exit code of the shim.
pub(super) fn find(argv0: &str, path: Option<&OsStr>, work: &Path) -> Result<PathBuf, String> {
    if argv0.contains('\0') || argv0.is_empty() {
        return Err(format!("program.argv[0]: {argv0:?} is no file name"));
    }
    if argv0.contains('/') {
        let file = work.join(argv0);
        return runnable(&file)
            .map(|()| file)
            .map_err(|why| format!("program.argv[0]: {argv0:?} {why}"));
    }
    let directories = path.map(std::env::split_paths).into_iter().flatten();
    directories
        .map(|directory| work.join(directory).join(argv0))
        .find(|file| runnable(file).is_ok())
        .ok_or_else(|| format!("program.argv[0]: {argv0:?} is in no directory of PATH"))
}

fn runnable(file: &Path) -> Result<(), String> {
    let metadata = file.metadata().map_err(|error| format!("cannot be run: {error}"))?;
    match metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err("is not an executable file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Programs;
    use proto::v1;

    fn assignment(env: &[(&str, &str)]) -> Assignment {
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let wire = v1::Assignment {
            job_id: 5,
            rank: 3,
            gpus: vec![1, 6],
            group: "workers".to_owned(),
            world_size: 8,
            head_address: "10.0.0.7:6379".to_owned(),
            job_token: vec![0x1f; 16].into(),
            program: Some(v1::Program { argv: vec!["x".to_owned()], env }),
            ..Default::default()
        };
        Assignment::decode(wire, 8, &Programs::default()).unwrap()
    }

    fn own(name: &str) -> Option<OsString> {
        matches!(name, "PATH" | "SECRET").then(|| "/own".into())
    }

    #[test]
    fn all_is_set_and_nothing_leaks() {
        let env = environment(&assignment(&[("RANK", "x"), ("A", "b")]), own).unwrap();
        for (name, value) in [
            ("PATH", "/own"),
            ("A", "b"),
            ("RANK", "x"),
            ("WORLD_SIZE", "8"),
            ("MASTER_ADDR", "10.0.0.7"),
            ("MUSTER_JOB_ID", "5"),
            ("MUSTER_RANK", "3"),
            ("MUSTER_WORLD_SIZE", "8"),
            ("MUSTER_HEAD_RANK", "0"),
            ("MUSTER_HEAD_ADDRESS", "10.0.0.7:6379"),
            ("MUSTER_GROUP", "workers"),
            ("MUSTER_GPU_MILLI", "0"),
            ("MUSTER_JOB_TOKEN", "1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f"),
            ("CUDA_VISIBLE_DEVICES", "1,6"),
        ] {
            assert_eq!(env.get(name).unwrap(), value, "{name}");
        }
        assert!(!env.contains_key("SECRET"));
    }

    #[test]
    fn the_job_cannot_choose_its_gpus_or_name_nonsense() {
        let env = environment(&assignment(&[("CUDA_VISIBLE_DEVICES", "0")]), own).unwrap();
        assert_eq!(env.get("CUDA_VISIBLE_DEVICES").unwrap(), "1,6");
        for (name, value) in [("MUSTER_RANK", "0"), ("a=b", ""), ("", ""), ("1a", ""), ("a", "\0")]
        {
            let error = environment(&assignment(&[(name, value)]), own).unwrap_err();
            assert!(error.starts_with("program.env: "), "{error}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(host("a:1"), Some("a"));
        assert_eq!(host("a"), Some("a"));
        assert_eq!(host("[::1]:5"), Some("::1"));
        assert_eq!(host("fe80::1"), Some("fe80::1"));
        assert_eq!(host(""), None);
    }

    #[test]
    fn programs_are_found_or_the_error_says_why() {
        let work = Path::new("/");
        let path = Some(OsStr::new("/nowhere:/bin"));
        assert_eq!(find("sh", path, work), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(find("bin/sh", None, work), Ok(PathBuf::from("/bin/sh")));
        for (name, part) in [
            ("no-such-program", "in no directory of PATH"),
            ("/etc/passwd", "is not an executable file"),
            ("/no/such", "cannot be run"),
            ("", "is no file name"),
        ] {
            let error = find(name, path, work).unwrap_err();
            assert!(error.contains(part) && error.starts_with("program.argv[0]"), "{error}");
        }
    }
}
