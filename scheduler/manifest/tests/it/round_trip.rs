//! What a manifest was understood as, written down and read again, is the same job.
//!
//! The files of `tests/data` come in pairs: `NAME.yaml` as users write it, `NAME.native.yaml` as it is
//! understood, notes first.

use crate::understood;
use proptest::prelude::*;
use proto::v1::shape::Gpus;
use proto::v1::{
    Affinity, DomainsMax, GpuAlternative, Group, JobSpec, Preemption, Program, Repair, Segment,
    Selector, Shape, Spread, Toleration,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Notes as comments, then the native job.
fn shown(text: &str) -> String {
    let read = understood(text);
    let native = manifest::native::to_yaml(&read.spec).expect("written");
    let notes: String = read.notes.iter().map(|note| format!("# {note}\n")).collect();
    notes + &native
}

#[test]
fn examples_are_understood_as_written_beside_them() {
    let mut pairs = 0;
    let mut wrong = Vec::new();
    let entries = fs::read_dir(data()).expect("tests/data");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| !path.to_string_lossy().ends_with(".native.yaml")) {
        pairs += 1;
        let wanted_path = path.with_extension("native.yaml");
        let shown = shown(&fs::read_to_string(path).expect("readable"));
        let wanted = fs::read_to_string(&wanted_path).unwrap_or_default();
        if shown != wanted {
            wrong.push(format!("{} is understood as:\n{shown}", path.display()));
        }
        // The native file says the same job once more.
        let again = understood(&shown);
        let first = understood(&fs::read_to_string(path).expect("readable"));
        assert_eq!(again.spec, first.spec, "{}", path.display());
        assert!(again.notes.is_empty());
    }
    assert!(pairs >= 10, "{pairs} pairs");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?"
}

/// Texts that YAML likes to read as something else.
fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("true"),
        Just("no"),
        Just("on"),
        Just("null"),
        Just("~"),
        Just("0x1F"),
        Just("1e3"),
        Just("8.10"),
        Just("- a"),
        Just("a: b"),
        Just("#x"),
        Just("\"q\""),
        Just("2001-01-01"),
        Just(""),
        Just(" a "),
        Just("*a"),
        Just("&a"),
        Just("%a"),
        Just("line\nbreak"),
    ]
    .prop_map(str::to_owned)
    .boxed()
    .prop_union(".{0,12}".boxed())
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(name(), odd_text(), 0..3)
}

fn alternative() -> impl Strategy<Value = GpuAlternative> {
    (proptest::collection::vec(name(), 0..3), 0_i32..8, any::<u32>(), 0_u32..10_000).prop_map(
        |(models, vendor, vram_mib_min, compute_capability_min)| GpuAlternative {
            models,
            vendor,
            vram_mib_min,
            compute_capability_min,
        },
    )
}

fn shape() -> impl Strategy<Value = Shape> {
    let gpus = prop_oneof![
        Just(None),
        (1_u32..100).prop_map(|count| Some(Gpus::GpuCount(count))),
        (1_u32..1000).prop_map(|milli| Some(Gpus::GpuMilli(milli))),
    ];
    let alternatives = proptest::collection::vec(alternative(), 0..3);
    let custom = proptest::collection::btree_map(name(), any::<u64>(), 0..3);
    (
        (gpus, alternatives, proptest::collection::vec(name(), 0..3), any::<u32>()),
        (0_u64..1 << 40, 0_u64..1 << 40, 0_u64..1 << 40, 0_u32..1 << 24, 0_u32..1 << 24, custom),
    )
        .prop_map(|((gpus, gpu_alternatives, gpu_models, vram_mib_min), rest)| {
            let (cpu_milli, memory_mib, disk_mib, up, down, custom) = rest;
            Shape {
                gpus,
                gpu_models,
                vram_mib_min,
                cpu_milli,
                memory_mib,
                disk_mib,
                gpu_alternatives,
                bandwidth_up_mbps_min: up,
                bandwidth_down_mbps_min: down,
                custom,
            }
        })
}

fn domains() -> impl Strategy<Value = Vec<DomainsMax>> {
    let bound = (1_i32..6, any::<u32>()).prop_map(|(level, max)| DomainsMax { level, max });
    proptest::collection::vec(bound, 0..3)
}

fn group() -> impl Strategy<Value = Group> {
    let selector = (name(), 1_i32..5, proptest::collection::vec(odd_text(), 0..3))
        .prop_map(|(key, operator, values)| Selector { key, operator, values });
    let toleration = (odd_text(), proptest::option::of(odd_text()), 0_i32..3)
        .prop_map(|(key, value, effect)| Toleration { key, value, effect });
    let segment = (1_i32..6, any::<u32>(), any::<bool>())
        .prop_map(|(level, size, exclusive)| Segment { level, size, exclusive });
    let repair = (any::<u32>(), 0_i32..6, any::<bool>())
        .prop_map(|(in_flight_max, level, preferred)| Repair { in_flight_max, level, preferred });
    let repair = repair.prop_filter("0 is written by nobody", |one| *one != Repair::default());
    let spread = (1_i32..6, any::<u32>(), any::<bool>())
        .prop_map(|(level, skew_max, preferred)| Spread { level, skew_max, preferred });
    (
        (name(), 1_i32..3, any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), shape()),
        (0_i32..5, 0_i32..5, 0_i32..5),
        (proptest::collection::vec(odd_text(), 0..3), proptest::option::of(repair), domains()),
        proptest::collection::vec(selector, 0..3),
        proptest::collection::vec(toleration, 0..3),
        proptest::collection::vec(segment, 0..3),
        proptest::collection::vec(spread, 0..3),
    )
        .prop_map(|(basic, levels, more, selectors, tolerations, segments, spread)| Group {
            name: basic.0,
            role: basic.1,
            replicas: basic.2,
            replicas_min: basic.3,
            replicas_max: basic.4,
            replicas_per_node_max: basic.5,
            shape: Some(basic.6),
            strategy: levels.0,
            topology_required: levels.1,
            topology_preferred: levels.2,
            selectors,
            tolerations,
            segments,
            spread,
            depends_on: more.0,
            repair: more.1,
            domains_max: more.2,
        })
}

/// The beginning of the year 9999.
const TIME_MS_MAX: u64 = 253_370_764_800_000;

fn spec() -> impl Strategy<Value = JobSpec> {
    let affinity = (any::<bool>(), any::<bool>(), 1_i32..6, odd_text(), odd_text(), map())
        .prop_map(|(anti, preferred, level, group, with_group, with_job_labels)| Affinity {
            anti,
            preferred,
            level,
            group,
            with_group,
            with_job_labels,
        });
    let program = (proptest::collection::vec(odd_text(), 0..3), map())
        .prop_map(|(argv, env)| Program { argv, env });
    let names = || proptest::collection::vec(name(), 0..3);
    (
        (odd_text(), 1_i32..4, 1_i32..5, 0_i32..5, 0_i32..5, any::<u32>()),
        (0_u64..1 << 40, 0_u64..1 << 50, 0_u64..1 << 50, 0_i32..4, 0_i32..3, any::<i32>()),
        (0..TIME_MS_MAX, 0..TIME_MS_MAX, 0_u64..1 << 40, 0_u64..1 << 50),
        (
            map(),
            proptest::option::of(program),
            proptest::collection::vec(affinity, 0..3),
            domains(),
        ),
        (names(), names(), names(), names()),
        proptest::collection::vec(group(), 1..4),
    )
        .prop_map(|(basic, bounds, times, more, lists, groups)| JobSpec {
            name: basic.0,
            kind: basic.1,
            strategy: basic.2,
            topology_required: basic.3,
            topology_preferred: basic.4,
            rtt_us_max: basic.5,
            duration_s: bounds.0,
            price_micro_usd_max: bounds.1,
            price_total_micro_usd_max: bounds.2,
            rtt_scope: bounds.3,
            rtt_objective: bounds.4,
            priority: bounds.5,
            preemption: (times.2 % 3 > 0).then_some(Preemption {
                policy: (times.0 % 3).try_into().unwrap_or_default(),
                disruption: (times.1 % 4).try_into().unwrap_or_default(),
            }),
            begin_time_ms: times.0,
            deadline_time_ms: times.1,
            duration_s_min: times.2,
            price_hour_micro_usd_max: times.3,
            domains_max: more.3,
            labels: more.0,
            program: more.1,
            affinities: more.2,
            suppliers_denied: lists.0,
            regions_allowed: lists.1,
            regions_denied: lists.2,
            compliance: lists.3,
            groups,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every field of a job survives, whatever stands in it.
    #[test]
    fn any_job_survives(spec in spec()) {
        let yaml = manifest::native::to_yaml(&spec).expect("written");
        let read = manifest::read(&yaml);
        prop_assert!(read.is_ok(), "{:?}\n{}", read, yaml);
        prop_assert_eq!(read.expect("checked").spec, spec, "{}", yaml);
    }
}
