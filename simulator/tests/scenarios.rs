//! Every shipped scenario does what it says, on few seeds; `muster sim run` runs all of them.

use simulator::observe::Nobody;
use simulator::scenario::text::Script;
use std::path::PathBuf;

/// Seeds of a scenario here; its file may ask for more.
const SEEDS_MAX: u64 = 2;
/// Fewest scenarios: one that is lost would not be missed otherwise.
const SCENARIOS_MIN: usize = 30;

fn scenarios() -> Vec<(String, Script)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("a text");
        let script = Script::parse(&text).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        (name, script)
    };
    paths.iter().map(read).collect()
}

#[test]
fn every_shipped_scenario_does_what_it_says() {
    let scenarios = scenarios();
    assert!(scenarios.len() >= SCENARIOS_MIN, "only {} scenarios", scenarios.len());
    let mut failures = Vec::new();
    for (name, script) in &scenarios {
        assert!(!script.expectations().is_empty(), "{name} expects nothing");
        for seed in 0..script.seeds().min(SEEDS_MAX) {
            let replay = format!("muster sim run simulator/scenarios/{name}.txt --seed {seed}");
            let verdict = script.evaluate(seed, replay.clone(), &mut Nobody);
            let told = verdict.failures.iter().map(|why| format!("{name}: {why}; {replay}"));
            failures.extend(told);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
