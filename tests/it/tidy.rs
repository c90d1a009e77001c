//! The habits of the source tree, as tests: layout, file length, who may import whom, banned calls.
//!
//! **Invariant:** reads the tree, never writes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// No source file may be longer; 400 lines is the hint, this is the wall.
const FILE_LINES_MAX: usize = 800;

/// Files of scheduler-core that make or hold state: no floats there.
const CORE_STATE: [&str; 7] =
    ["/state/", "/command.rs", "/job.rs", "/node.rs", "/unit.rs", "/table.rs", "/hash.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

/// Every file below `dir` that ends in `ending`, without build output and hidden folders.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("folder is readable") {
            let path = entry.expect("entry is readable").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", shown(path)))
}

/// Lines that are code: comments are cut off, and all from a `#[cfg(test)] mod` on is left out.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut after_cfg_test = false;
    for (at, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim_end();
        if after_cfg_test && code.trim_start().starts_with("mod ") {
            break;
        }
        after_cfg_test = code.trim() == "#[cfg(test)]";
        lines.push((at + 1, code.to_owned()));
    }
    lines
}

/// Every place below `dir` where code holds one of `needles`.
fn places(dir: &str, needles: &[&str], only: impl Fn(&str) -> bool) -> Vec<String> {
    let mut hits = Vec::new();
    for path in files(&root().join(dir), ".rs") {
        let name = shown(&path);
        if !only(&name) {
            continue;
        }
        for (at, line) in code_lines(&read(&path)) {
            for needle in needles {
                if line.contains(needle) {
                    hits.push(format!("{name}:{at}: {needle}"));
                }
            }
        }
    }
    hits
}

fn assert_none(what: &str, hits: &[String]) {
    assert!(hits.is_empty(), "{what}:\n  {}", hits.join("\n  "));
}

#[test]
fn visible_top_level_is_exactly_the_agreed_one() {
    let seen: BTreeSet<String> = fs::read_dir(root())
        .expect("root is readable")
        .map(|e| e.expect("entry is readable").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let agreed = [
        "Cargo.lock",
        "Cargo.toml",
        "README.md",
        "proto",
        "raft-store",
        "scheduler",
        "simulator",
        "tests",
    ];
    assert_eq!(seen, agreed.iter().map(|&s| s.to_owned()).collect());
}

#[test]
fn no_source_file_is_too_long() {
    let long: Vec<String> = files(&root(), ".rs")
        .iter()
        .filter_map(|path| {
            let lines = read(path).lines().count();
            (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", shown(path)))
        })
        .collect();
    assert_none("files over 800 lines", &long);
}

#[test]
fn every_source_file_says_what_lives_in_it() {
    let silent: Vec<String> = files(&root(), ".rs")
        .iter()
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| shown(path))
        .collect();
    assert_none("files without a module doc in their first line", &silent);
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("db", "g!(")];
    assert_none("left-overs", &places("", &words, |_| true));
    let ignored = [concat!("#[ign", "ore")];
    assert_none("ignored tests", &places("", &ignored, |_| true));
}

#[test]
fn tests_do_not_sleep() {
    let naps = [concat!("thread::sl", "eep("), concat!("time::sl", "eep(")];
    let in_tests = |name: &str| {
        name.starts_with("tests/") || name.contains("/tests/") || name.contains("tests.rs")
    };
    assert_none("sleeps in tests: wait on an event instead", &places("", &naps, in_tests));
}

#[test]
fn cores_have_no_clock_no_io_no_hash_maps() {
    let banned = [
        "Instant::now",
        "SystemTime",
        "HashMap",
        "HashSet",
        "std::env",
        "std::fs",
        "std::net",
        "std::thread",
        "thread::spawn",
        "std::process",
        "println!",
        "thread_rng",
        "rand::rng()",
    ];
    let not_test = |name: &str| !name.contains("/tests") && !name.contains("/benches/");
    assert_none("banned in scheduler-core", &places("scheduler/core/src", &banned, not_test));
    assert_none("banned in agent-core", &places("scheduler/agent-core/src", &banned, not_test));
}

#[test]
fn state_and_commands_hold_no_floats() {
    let hits = places("scheduler/core/src", &["f32", "f64"], |name| {
        CORE_STATE.iter().any(|part| name.contains(part)) && !name.contains("/tests")
    });
    assert_none("floats in the replicated state", &hits);
}

/// Names under `[dependencies]` of a member's manifest.
fn dependencies(member: &str) -> BTreeSet<String> {
    let text = read(&root().join(member).join("Cargo.toml"));
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn crates_import_only_what_they_may() {
    let never: [(&str, &[&str]); 8] = [
        (
            "proto",
            &["scheduler-core", "scheduler-server", "scheduler-agent", "raft-store", "simulator"],
        ),
        (
            "raft-store",
            &["tonic", "proto", "scheduler-server", "scheduler-agent", "simulator", "muster"],
        ),
        ("scheduler/profile", &["scheduler-core", "proto", "tokio", "tonic", "muster"]),
        ("scheduler/server", &["sled", "openraft", "scheduler-agent", "simulator", "muster"]),
        (
            "scheduler/agent",
            &["raft-store", "scheduler-core", "scheduler-server", "openraft", "sled", "muster"],
        ),
        (
            "simulator",
            &["openraft", "sled", "tonic", "tokio", "scheduler-server", "raft-store", "muster"],
        ),
        ("scheduler/cli", &["openraft", "sled", "tests"]),
        (
            "scheduler/manifest",
            &["scheduler-core", "scheduler-server", "tokio", "tonic", "openraft", "sled", "muster"],
        ),
    ];
    for (member, banned) in never {
        let has = dependencies(member);
        let wrong: Vec<&str> = banned.iter().copied().filter(|b| has.contains(*b)).collect();
        assert!(wrong.is_empty(), "{member} must not import {wrong:?}");
    }
    let core = dependencies("scheduler/core");
    let allowed: BTreeSet<String> =
        ["petgraph", "rand", "serde", "thiserror"].iter().map(|&s| s.to_owned()).collect();
    assert!(core.is_subset(&allowed), "scheduler-core may import {allowed:?}, has {core:?}");
    assert_eq!(dependencies("scheduler/agent-core"), BTreeSet::new(), "agent-core is std alone");
}

#[test]
fn only_tests_tamper_with_the_state() {
    let not_test = |name: &str| !name.contains("/tests/") && !name.ends_with("/tamper.rs");
    assert_none("a way around the rules", &places("", &[concat!(".tam", "per(")], not_test));
}

#[test]
fn the_planner_stays_out_of_the_store() {
    let uses = ["scheduler_core::plan", "scheduler_core::view", "scheduler_core::fit"];
    assert_none("raft-store knows the planner", &places("raft-store/src", &uses, |_| true));
}

#[test]
fn the_system_clock_is_read_in_one_file_of_the_server() {
    let hits = places("scheduler/server/src", &["SystemTime::now"], |n| !n.ends_with("/clock.rs"));
    assert_none("SystemTime::now outside clock.rs", &hits);
}

#[test]
fn the_two_commands_of_the_readme_are_what_ci_runs() {
    let readme = read(&root().join("README.md"));
    let ci = read(&root().join(".ci/run"));
    for command in ["cargo run --release -- dev", "cargo test --workspace"] {
        assert!(readme.contains(command), "README.md lacks `{command}`");
        assert!(ci.contains(command), ".ci/run lacks `{command}`");
    }
}

#[test]
fn licence_is_named_once_and_inherited() {
    let root_manifest = read(&root().join("Cargo.toml"));
    assert!(root_manifest.contains("license = \"Apache-2.0\""));
    for manifest in files(&root(), "Cargo.toml") {
        let text = read(&manifest);
        if text.contains("[package]") {
            assert!(text.contains("license.workspace = true"), "{}", shown(&manifest));
            assert!(text.contains("[lints]\nworkspace = true"), "{}", shown(&manifest));
        }
    }
}
