//! Job files: YAML or JSON on one side, `JobSpec` on the other, both ways.
//!
//! The reading side goes over the file by hand, so that every fault is reported with its path and all
//! faults at once; limits that the servers check anyway are left to them.
//!
//! **Invariant:** no field is ignored: an unknown one is a fault. Amounts never pass through binary fractions.

mod path;
mod read;
pub(crate) mod unit;
mod walk;
mod write;

pub use path::{path, problem};
pub(crate) use read::{DISRUPTIONS, POLICIES};
pub use unit::{microseconds, seconds};
pub use write::Manifest;

use crate::document::Document;
use crate::finding::Findings;
use proto::v1::JobSpec;
use serde_json::Value;

/// Short form of the format for `--help`.
pub const EXAMPLE: &str = "\
A job file is YAML or JSON:
  kind: ray                     # ray | kubernetes | plain
  name: demo
  strategy: pack                # pack | spread | strict-pack | strict-spread
  max_rtt: 60ms                 # widest round trip between two members
  max_price: 2.50               # US dollars per GPU-hour
  duration: 2h                  # from ready; left out = until cancelled
  topology_required: region     # region | zone | site | rack; also topology_preferred
  max_total_price: 900          # US dollars for the whole duration
  max_hourly_price: 450         # US dollars for all GPUs per hour
  rtt_scope: all-pairs          # all-pairs | within-groups | head-to-members
  minimise: diameter            # diameter | mean
  regions: {allowed: [eu-west], denied: [mars]}
  suppliers_denied: [shady]
  compliance: [soc2]            # labels that every node must have as \"true\"
  labels: {app: train}
  priority: 100                 # who goes first among those that wait; -1000 to 1000
  preemption:                   # who takes GPUs from whom; both sides must say so
    policy: lower-priority      # never | lower-priority: takes them from jobs of a lower priority
    disruption: all             # none | single | all: what higher ones may take; single: spare replicas
  begin: 2027-01-31T08:00:00Z   # not started before
  deadline: 2027-01-31T18:00:00Z  # over by then; FAILED if it could not be started in time
  min_duration: 1h              # not started later than this before the deadline; left out = duration
  max_domains: [{level: rack, max: 3}]  # all replicas in at most so many; node: on so many nodes
  affinity:                     # anti: apart; preferred: as far as possible
  - {anti: true, level: node, group: workers, with_jobs: {app: data}}
  program: {argv: [python, train.py], env: {MODE: fast}}
  groups:
  - name: workers
    role: worker                # worker | head
    replicas: 1250
    min_replicas: 1200          # may start with these
    max_replicas: 2000          # may be scaled up to these
    spares: 10                  # so many more, READY without them
    gpus: 8                     # or a share of one: 0.5
    share_policy: mps           # of a share: mps | time-slicing, as the node's label says
    mig_profile: 1g.10gb        # in place of gpus: parts made with MIG; mig_count: 2 for two
    gpu_models: [H100-SXM]
    min_vram: 80GiB             # or several, the most wanted first:
                                # gpu: [{models, vendor, min_vram, min_compute_capability}]
    cpu: 8                      # cores; also 500m
    memory: 64GiB
    disk: 1TiB
    custom: {licence: 1}
    min_bandwidth_up: 10Gbps    # also min_bandwidth_down
    strategy: pack              # in place of the job's; also topology_required, topology_preferred
    max_per_node: 1
    segments: [{level: rack, size: 25}]   # exclusive: true: no two in one rack
    spread: [{level: zone, max_skew: 1, preferred: true}]
    max_domains: [{level: node, max: 40}]
    selectors: [{key: muster/region, operator: in, values: [eu-west]}]
    tolerations: [{key: spot, value: \"true\", effect: no-schedule}]
    depends_on: [head]          # started once these groups have their min_replicas running
    repair: {max_in_flight: 2, level: rack, preferred: true}  # how lost replicas are replaced";

/// Whether a document has the shape of a native job: Kubernetes' objects say their version.
pub(crate) fn is_one(value: &Value) -> bool {
    value.get("apiVersion").is_none()
}

/// Reads a native job.
pub(crate) fn read(document: &Document, findings: &mut Findings) -> JobSpec {
    read::job(&document.value, findings)
}

/// The job as the YAML of a native job file; reading it again gives the same job.
pub fn to_yaml(spec: &JobSpec) -> Result<String, String> {
    serde_saphyr::to_string(&Manifest::from(spec)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{
        DomainsMax, GpuVendor, Group, JobKind, Role, Shape, Strategy, TopologyLevel, shape::Gpus,
    };

    fn parse(text: &str) -> Result<JobSpec, Vec<String>> {
        let faults = |faults: Vec<crate::Fault>| faults.iter().map(ToString::to_string).collect();
        crate::read(text).map(|understood| understood.spec).map_err(faults)
    }

    const FULL: &str = r#"
kind: ray
name: demo
strategy: strict-spread
topology_required: region
topology_preferred: site
max_rtt: 60ms
duration: 1h30m
max_price: 2.50
max_total_price: 1000
max_hourly_price: 650.5
labels: {app: train}
rtt_scope: head-to-members
minimise: mean
priority: -20
begin: 2027-01-31T08:00:00Z
deadline: 2027-01-31T10:00:00.5+01:00
min_duration: 45m
regions: {allowed: [eu-west], denied: [mars]}
max_domains: [{level: site, max: 12}, {level: node, max: 400}]
suppliers_denied: [shady]
compliance: [soc2]
affinity:
- {anti: true, level: node, group: workers, with_group: workers}
- {level: site, preferred: true, with_jobs: {app: data}}
program:
  argv: [python, train.py]
  env: {MODE: fast, STEPS: "100"}
groups:
- name: head
  role: head
  replicas: 1
  cpu: 500m
  memory: 1.5GiB
- name: workers
  replicas: 1250
  min_replicas: 1200
  gpus: 8
  gpu_models: [H100-SXM, A100]
  min_vram: 80GiB
  cpu: 8
  memory: 64GiB
  disk: 1TiB
  selectors:
  - {key: muster/region, operator: in, values: [eu-west]}
  - {key: spot, operator: does-not-exist}
  tolerations:
  - {key: spot, value: "true", effect: no-schedule}
  - {}
- name: shared
  replicas: 2
  gpus: 0.25
- name: picky
  replicas: 16
  max_replicas: 32
  gpus: 1
  gpu:
  - {models: [H200], min_vram: 140GiB}
  - {vendor: nvidia, min_compute_capability: 8.9}
  - {vendor: amd, min_compute_capability: "12.10"}
  min_bandwidth_up: 2.5Gbps
  min_bandwidth_down: 10Gbps
  custom: {licence: 2}
  strategy: spread
  topology_required: zone
  topology_preferred: rack
  max_per_node: 4
  segments: [{level: rack, size: 8, exclusive: true}, {level: node, size: 2}]
  spread: [{level: site, max_skew: 2, preferred: true}]
  max_domains: [{level: rack, max: 3}]
  depends_on: [head, workers]
  repair: {max_in_flight: 2, level: rack, preferred: true}
"#;

    #[test]
    fn a_full_file_is_understood() {
        let spec = parse(FULL).expect("valid");
        assert_eq!(spec.kind(), JobKind::Ray);
        assert_eq!((spec.strategy(), spec.priority), (Strategy::StrictSpread, -20));
        let times = (spec.begin_time_ms, spec.deadline_time_ms, spec.duration_s_min);
        assert_eq!(times, (1_801_382_400_000, 1_801_386_000_500, 2_700));
        assert_eq!(
            (spec.rtt_us_max, spec.duration_s, spec.price_micro_usd_max),
            (60_000, 5_400, 2_500_000)
        );
        let [head, workers, shared, picky] = spec.groups.as_slice() else { panic!("four groups") };
        assert_eq!(head.role(), Role::Head);
        let head_shape = head.shape.as_ref().expect("shape");
        assert_eq!(
            (head_shape.cpu_milli, head_shape.memory_mib, head_shape.gpus),
            (500, 1_536, None)
        );
        let shape = workers.shape.as_ref().expect("shape");
        assert_eq!((workers.replicas, workers.replicas_min), (1_250, 1_200));
        assert_eq!(shape.gpus, Some(Gpus::GpuCount(8)));
        assert_eq!((shape.vram_mib_min, shape.cpu_milli), (81_920, 8_000));
        assert_eq!((shape.memory_mib, shape.disk_mib), (65_536, 1_048_576));
        assert_eq!(workers.selectors.len(), 2);
        assert_eq!(workers.tolerations[1].key, "");
        assert_eq!(shared.shape.as_ref().and_then(|s| s.gpus), Some(Gpus::GpuMilli(250)));
        assert_eq!((picky.replicas_max, picky.replicas_per_node_max), (32, 4));
        let shape = picky.shape.as_ref().expect("shape");
        let able: Vec<u32> =
            shape.gpu_alternatives.iter().map(|one| one.compute_capability_min).collect();
        assert_eq!(able, [0, 809, 1_210]);
        assert_eq!(shape.gpu_alternatives[2].vendor(), GpuVendor::Amd);
        assert_eq!((shape.bandwidth_up_mbps_min, shape.custom["licence"]), (2_500, 2));
        assert_eq!((picky.segments[1].size, picky.spread[0].skew_max), (2, 2));
        assert!(picky.segments[0].exclusive && !picky.segments[1].exclusive);
        let few = |list: &[DomainsMax]| -> Vec<(TopologyLevel, u32)> {
            list.iter().map(|one| (one.level(), one.max)).collect()
        };
        let sites_and_nodes = [(TopologyLevel::Site, 12), (TopologyLevel::Node, 400)];
        assert_eq!(few(&spec.domains_max), sites_and_nodes);
        assert_eq!(few(&picky.domains_max), [(TopologyLevel::Rack, 3)]);
        assert_eq!(picky.depends_on, ["head", "workers"]);
        let repair = picky.repair.expect("a repair");
        assert_eq!((repair.in_flight_max, repair.preferred), (2, true));
        assert_eq!(spec.affinities[1].with_job_labels["app"], "data");
        assert_eq!(spec.price_hour_micro_usd_max, 650_500_000);
        assert_eq!((spec.regions_denied.len(), spec.price_total_micro_usd_max), (1, 1_000_000_000));
    }

    #[test]
    fn writing_and_reading_again_gives_the_same_job() {
        let spec = parse(FULL).expect("valid");
        let yaml = serde_saphyr::to_string(&Manifest::from(&spec)).expect("yaml");
        assert_eq!(parse(&yaml).expect("own output"), spec, "{yaml}");
        let json = serde_json::to_string(&Manifest::from(&spec)).expect("json");
        assert_eq!(parse(&json).expect("own output"), spec, "{json}");
    }

    #[test]
    fn every_amount_survives_the_round_trip() {
        let shape = Shape {
            cpu_milli: 1,
            memory_mib: 1,
            disk_mib: 1_025,
            vram_mib_min: 7,
            ..Shape::default()
        };
        let group = Group { name: "g".into(), replicas: 1, shape: Some(shape), ..Group::default() };
        for (rtt, price, duration) in [
            (1, 1, 1),
            (999, 999_999, 59),
            (10_000_000, 1_000_000_000, 31_622_400),
            (1_500, 10, 3_661),
        ] {
            let spec = JobSpec {
                name: "n".into(),
                kind: JobKind::Plain.into(),
                groups: vec![group.clone()],
                strategy: Strategy::Pack.into(),
                rtt_us_max: rtt,
                duration_s: duration,
                price_micro_usd_max: price,
                ..JobSpec::default()
            };
            let yaml = serde_saphyr::to_string(&Manifest::from(&spec)).expect("yaml");
            let read = parse(&yaml).unwrap_or_else(|faults| panic!("{faults:?}\n{yaml}"));
            let mut wanted = spec.clone();
            wanted.groups[0].role = Role::Worker.into();
            assert_eq!(read, wanted, "{yaml}");
        }
    }

    /// Spares are replicas that a group does without, and the note says so.
    #[test]
    fn spares_are_more_replicas_than_are_needed() {
        let read = |more: &str| {
            let text = format!(
                "kind: plain\nname: a\ngroups: [{{name: w, replicas: 8, gpus: 1, {more}}}]"
            );
            let read = crate::read(&text).expect("valid");
            let group = &read.spec.groups[0];
            (
                group.replicas,
                group.replicas_min,
                read.notes.iter().map(ToString::to_string).collect::<String>(),
            )
        };
        let note = "groups[0].spares: read as 10 replicas of which 8 are needed (min_replicas)";
        assert_eq!(read("spares: 2"), (10, 8, note.to_owned()));
        let (replicas, min, _) = read("spares: 2, min_replicas: 6");
        assert_eq!((replicas, min), (10, 6));
        assert_eq!(read("min_replicas: 6"), (8, 6, String::new()));
        let spares = |count: &str| {
            faults(&format!(
                "kind: plain\nname: a\ngroups: [{{name: w, replicas: 8, gpus: 1, spares: {count}}}]"
            ))
        };
        assert!(spares("0").contains("groups[0].spares: is 0; leave it out"));
        assert!(spares("4294967295").contains("groups[0].spares: is too large"));
    }

    fn of_group(fields: &str) -> String {
        format!("kind: plain\nname: a\ngroups: [{{name: w, replicas: 8, cpu: 1, {fields}}}]")
    }

    fn notes(text: &str) -> String {
        let read = crate::read(text).expect(text);
        read.notes.iter().map(ToString::to_string).collect()
    }

    /// The same resource as Kubernetes' device plugin counts, see `nvidia.com/mig-1g.10gb` there.
    #[test]
    fn parts_made_with_mig_are_countable_resources() {
        let slices = |fields: &str| {
            let spec = parse(&of_group(fields)).expect(fields);
            let yaml = to_yaml(&spec).expect("written");
            assert_eq!(parse(&yaml).expect("own output"), spec, "{yaml}");
            let shape = spec.groups[0].shape.clone().expect("a shape");
            assert_eq!(shape.gpus, None);
            shape.custom.into_iter().collect::<Vec<_>>()
        };
        let resource = "nvidia.com.mig-1g.10gb".to_owned();
        assert_eq!(slices("mig_profile: 1g.10gb"), [(resource.clone(), 1)]);
        assert_eq!(slices("mig_profile: 1g.10gb, mig_count: 3"), [(resource, 3)]);
        assert_eq!(
            notes(&of_group("mig_profile: 1g.10gb+me, mig_count: 2")),
            "groups[0].mig_profile: counted as 2 of the resource `nvidia.com.mig-1g.10gb.me` that \
             nodes declare"
        );
        for (fields, wanted) in [
            ("mig_profile: 10gb", "groups[0].mig_profile: `10gb` is no MIG profile"),
            ("mig_profile: 1g.10gb, gpus: 1", "groups[0].mig_profile: is given beside whole GPUs"),
            ("mig_profile: 1g.10gb, gpus: 0.5", "is given beside a share of a GPU"),
            ("mig_profile: 1g.10gb, min_vram: 5GiB", "is given beside gpu, gpu_models or min_vram"),
            (
                "mig_profile: 1g.10gb, gpu_models: [A]",
                "is given beside gpu, gpu_models or min_vram",
            ),
            ("mig_profile: 1g.10gb, gpu: [{}]", "is given beside gpu, gpu_models or min_vram"),
            ("mig_profile: 1g.10gb, mig_count: 0", "groups[0].mig_count: is 0; leave it out for 1"),
            ("mig_count: 2", "groups[0].mig_count: is given without mig_profile"),
            (
                "mig_profile: 1g.10gb, custom: {nvidia.com.mig-1g.10gb: 1}",
                "groups[0].mig_profile: is also counted under `custom`",
            ),
        ] {
            let text = faults(&of_group(fields));
            assert!(text.contains(wanted), "{wanted} not in:\n{text}");
        }
    }

    #[test]
    fn how_a_gpu_is_shared_is_a_label_of_its_node() {
        for policy in ["mps", "time-slicing"] {
            let text = of_group(&format!(
                "gpus: 0.25, share_policy: {policy}, selectors: [{{key: a, operator: exists}}]"
            ));
            let spec = parse(&text).expect("valid");
            let [_, sharing] = spec.groups[0].selectors.as_slice() else { panic!("two selectors") };
            let key = "nvidia.com/gpu.sharing-strategy";
            assert_eq!(
                (sharing.key.as_str(), sharing.values.as_slice()),
                (key, &[policy.to_owned()][..])
            );
            assert_eq!(
                notes(&text),
                format!("groups[0].share_policy: read as the selector {key} = {policy}")
            );
            let yaml = to_yaml(&spec).expect("written");
            assert_eq!(parse(&yaml).expect("own output"), spec, "{yaml}");
        }
        for gpus in ["gpus: 2, ", ""] {
            let text = faults(&of_group(&format!("{gpus}share_policy: mps")));
            assert!(
                text.contains("groups[0].share_policy: is given, but `gpus` asks for no share")
            );
        }
        let text = faults(&of_group("gpus: 0.5, share_policy: none"));
        assert!(text.contains("`none` is none of time-slicing, mps"), "{text}");
    }

    fn faults(text: &str) -> String {
        parse(text).expect_err(text).join("\n")
    }

    #[test]
    fn faults_name_the_path_and_come_all_at_once() {
        let text = "kind: slurm\nname: 7\nspeed: fast\ngroups: [{name: w, replicas: -1, memory: 64, gpus: 1.5, cpus: 2, gpu: [{vendor: acme, vram: 1}], custom: {a: x}, spread: [{max_skew: 1, preferred: 7}], max_domains: [{level: rack}]}]\nregions: [eu]\nmax_domains: [{level: hall, max: -1}]\n";
        let text = faults(text);
        for wanted in [
            "kind: `slurm` is none of ray, kubernetes, plain",
            "name: must be text, is 7",
            "speed: unknown field",
            "groups[0].replicas: must be a whole number from 0 to 4294967295, is -1",
            "groups[0].memory: needs a unit",
            "groups[0].gpus: must be a whole number of GPUs, or a share of one from 0.001 to 0.999",
            "groups[0].cpus: unknown field",
            "groups[0].gpu[0].vendor: `acme` is none of nvidia, amd",
            "groups[0].gpu[0].vram: unknown field",
            "groups[0].custom.a: must be a whole number",
            "groups[0].spread[0].level: missing",
            "groups[0].spread[0].preferred: must be true or false, is 7",
            "regions: must be a mapping, is a list",
            "groups[0].max_domains[0].max: missing",
            "max_domains[0].level: `hall` is none of region, zone, site, rack, node",
            "max_domains[0].max: must be a whole number",
        ] {
            assert!(text.contains(wanted), "{wanted} not in:\n{text}");
        }
    }

    /// A bound of 0 would be none at all in a job: whoever writes `max_price: 0` wants no dear machine.
    #[test]
    fn a_bound_of_nothing_is_a_fault() {
        let text = "kind: plain\nname: a\nmax_rtt: 0ms\nduration: 0s\nmax_price: 0\nmax_total_price: 0.00\nmax_hourly_price: 0\ngroups: [{name: w, replicas: 1, min_replicas: 0, max_replicas: 0, max_per_node: 0, gpus: \"8\"}, {name: x, replicas: \"4\"}]\n";
        let text = faults(text);
        for wanted in [
            "max_rtt: is 0; leave it out",
            "duration: is 0; leave it out",
            "max_price: is 0; leave it out",
            "max_total_price: is 0; leave it out",
            "max_hourly_price: is 0; leave it out",
            "groups[0].min_replicas: is 0; leave it out",
            "groups[0].max_replicas: is 0; leave it out",
            "groups[0].max_per_node: is 0; leave it out",
            "groups[1].replicas: must be a whole number from 0 to 4294967295 without quotes, is `4`",
        ] {
            assert!(text.contains(wanted), "{wanted} not in:\n{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(faults("name: a\ngroups: [{name: w, replicas: 1}]").contains("kind: missing"));
        assert!(faults("kind: ray\nname: a").contains("groups: missing"));
        assert!(
            faults("kind: ray\nname: a\ngroups: [{name: w}]")
                .contains("groups[0].replicas: missing")
        );
        assert!(faults("[]").contains("must be a mapping"));
        assert!(faults("kind: ray\nkind: ray").contains("duplicate"));
        assert!(!faults("a: [").is_empty());
    }
}
