//! Specs, good ones and ones with one bad field each.

use super::*;
use scheduler_core::job::GpuAsk;

/// A small valid spec.
pub(crate) fn good() -> v1::JobSpec {
    let group = v1::Group {
        name: "workers".to_owned(),
        replicas: 4,
        shape: Some(v1::Shape {
            gpus: Some(v1::shape::Gpus::GpuCount(8)),
            gpu_models: vec!["H100-SXM".to_owned()],
            ..v1::Shape::default()
        }),
        selectors: vec![v1::Selector {
            key: "tier".to_owned(),
            operator: v1::SelectorOperator::In.into(),
            values: vec!["gold".to_owned()],
        }],
        tolerations: vec![v1::Toleration::default()],
        ..v1::Group::default()
    };
    v1::JobSpec {
        name: "train".to_owned(),
        kind: v1::JobKind::Ray.into(),
        groups: vec![group],
        ..v1::JobSpec::default()
    }
}

/// Path of the field that `change` makes bad; `None` when it is taken.
fn fault(change: impl FnOnce(&mut v1::JobSpec)) -> Option<String> {
    let mut changed = good();
    change(&mut changed);
    match spec("spec", Some(changed)) {
        Ok(_) => None,
        Err(Rejection::Invalid { field, problem }) => {
            assert!(problem.len() < 300, "{problem}");
            Some(field)
        }
        Err(other) => panic!("unexpected refusal: {other}"),
    }
}

/// As [`fault`], for the first group.
fn group_fault(change: impl FnOnce(&mut v1::Group)) -> Option<String> {
    fault(|spec| change(&mut spec.groups[0]))
}

/// As [`fault`], for the shape of the first group.
fn shape_fault(change: impl FnOnce(&mut v1::Shape)) -> Option<String> {
    group_fault(|group| change(group.shape.as_mut().expect("has a shape")))
}

#[test]
fn a_good_spec_is_taken_whole() {
    let taken = spec("spec", Some(good())).expect("is good");
    assert_eq!(taken.groups[0].replicas_min, 4, "0 means all");
    assert_eq!(taken.groups[0].shape.gpus, GpuAsk::Whole(8));
    assert_eq!(taken.strategy, Strategy::Pack);
    let again = spec("spec", Some(good())).expect("is good");
    assert_eq!(digest(&taken), digest(&again));
    let mut other = good();
    other.groups[0].replicas = 5;
    assert_ne!(digest(&taken), digest(&spec("spec", Some(other)).expect("is good")));
}

/// The field says seconds, and so does what is told of it.
#[test]
fn a_least_duration_above_the_duration_is_told_in_seconds() {
    let mut asked = good();
    (asked.duration_s, asked.duration_s_min, asked.deadline_time_ms) = (3_600, 7_200, 1 << 40);
    let refusal = spec("spec", Some(asked)).expect_err("too long").to_string();
    assert_eq!(refusal, "spec.duration_s_min is 7200; at most 3600 is allowed");
}

#[test]
fn every_bad_field_of_a_job_is_named() {
    let missing = spec("requests[3].spec", None).expect_err("is missing");
    assert!(missing.to_string().starts_with("requests[3].spec is missing"));
    let field = |text: &str| Some(text.to_owned());
    for name in ["", "../x", "a b", "a\u{7}", "n\u{e4}me", &"x".repeat(1 << 20)] {
        assert_eq!(fault(|spec| spec.name = name.to_owned()), field("spec.name"));
    }
    assert_eq!(fault(|spec| spec.kind = 0), field("spec.kind"));
    assert_eq!(fault(|spec| spec.kind = 99), field("spec.kind"));
    assert_eq!(fault(|spec| spec.strategy = -1), field("spec.strategy"));
    assert_eq!(fault(|spec| spec.topology_required = 9), field("spec.topology_required"));
    assert_eq!(fault(|spec| spec.topology_preferred = 9), field("spec.topology_preferred"));
    assert_eq!(fault(|spec| spec.rtt_us_max = u32::MAX), field("spec.rtt_us_max"));
    assert_eq!(fault(|spec| spec.duration_s = u64::MAX), field("spec.duration_s"));
    assert_eq!(
        fault(|spec| spec.price_micro_usd_max = u64::MAX),
        field("spec.price_micro_usd_max")
    );
    assert_eq!(fault(|spec| spec.begin_time_ms = u64::MAX), field("spec.begin_time_ms"));
    assert_eq!(fault(|spec| spec.deadline_time_ms = u64::MAX), field("spec.deadline_time_ms"));
    assert_eq!(fault(|spec| spec.duration_s_min = u64::MAX), field("spec.duration_s_min"));
    assert_eq!(fault(|spec| spec.duration_s_min = 5), field("spec.duration_s_min"));
    for priority in [i32::MIN, -1_001, 1_001, 1 << 16] {
        assert_eq!(fault(|spec| spec.priority = priority), field("spec.priority"));
    }
    let asks = |policy, disruption| Some(v1::Preemption { policy, disruption });
    assert_eq!(fault(|spec| spec.preemption = asks(3, 0)), field("spec.preemption.policy"));
    assert_eq!(fault(|spec| spec.preemption = asks(0, -1)), field("spec.preemption.disruption"));
    assert_eq!(fault(|spec| spec.groups.clear()), field("spec.groups"));
    assert_eq!(fault(|spec| spec.groups = vec![spec.groups[0].clone(); 65]), field("spec.groups"));
    let twice = fault(|spec| spec.groups.push(spec.groups[0].clone()));
    assert_eq!(twice, field("spec.groups[1].name"));
}

#[test]
fn every_bad_field_of_a_group_is_named() {
    let field = |text: &str| Some(format!("spec.groups[0]{text}"));
    assert_eq!(group_fault(|group| group.replicas = 0), field(".replicas"));
    assert_eq!(group_fault(|group| group.replicas = u32::MAX), field(".replicas"));
    assert_eq!(group_fault(|group| group.replicas_min = 5), field(".replicas_min"));
    assert_eq!(group_fault(|group| group.name = "..".to_owned()), field(".name"));
    assert_eq!(group_fault(|group| group.role = 7), field(".role"));
    assert_eq!(group_fault(|group| group.role = v1::Role::Head.into()), field(".replicas"));
    assert_eq!(group_fault(|group| group.shape = None), field(".shape"));
    let many = vec![v1::Selector::default(); 100_000];
    assert_eq!(group_fault(|group| group.selectors = many), field(".selectors"));
    let many = vec![v1::Toleration::default(); 33];
    assert_eq!(group_fault(|group| group.tolerations = many), field(".tolerations"));
    let operator = group_fault(|group| group.selectors[0].operator = 0);
    assert_eq!(operator, field(".selectors[0].operator"));
    let operator = group_fault(|group| group.selectors[0].operator = 42);
    assert_eq!(operator, field(".selectors[0].operator"));
    let values = group_fault(|group| group.selectors[0].values.clear());
    assert_eq!(values, field(".selectors[0].values"));
    let exists = v1::SelectorOperator::Exists.into();
    let values = group_fault(|group| group.selectors[0].operator = exists);
    assert_eq!(values, field(".selectors[0].values"));
    let key = group_fault(|group| group.selectors[0].key.clear());
    assert_eq!(key, field(".selectors[0].key"));
    let effect = group_fault(|group| group.tolerations[0].effect = 3);
    assert_eq!(effect, field(".tolerations[0].effect"));
}

#[test]
fn every_bad_field_of_a_shape_is_named() {
    use v1::shape::Gpus::{GpuCount, GpuMilli};
    let field = |text: &str| Some(format!("spec.groups[0].shape{text}"));
    for count in [0, 65, u32::MAX] {
        assert_eq!(shape_fault(|shape| shape.gpus = Some(GpuCount(count))), field(".gpu_count"));
    }
    for milli in [0, 1_000, u32::MAX] {
        assert_eq!(shape_fault(|shape| shape.gpus = Some(GpuMilli(milli))), field(".gpu_milli"));
    }
    assert_eq!(shape_fault(|shape| shape.gpus = None), field(".gpu_models"));
    let model = shape_fault(|shape| shape.gpu_models.push("a/b".to_owned()));
    assert_eq!(model, field(".gpu_models[1]"));
    assert_eq!(shape_fault(|shape| shape.vram_mib_min = u32::MAX), field(".vram_mib_min"));
    assert_eq!(shape_fault(|shape| shape.cpu_milli = u64::MAX), field(".cpu_milli"));
    assert_eq!(shape_fault(|shape| shape.memory_mib = u64::MAX), field(".memory_mib"));
    assert_eq!(shape_fault(|shape| shape.disk_mib = u64::MAX), field(".disk_mib"));
    let nothing = shape_fault(|shape| *shape = v1::Shape::default());
    assert_eq!(nothing, field(".cpu_milli"));
}

#[test]
fn every_bad_field_of_an_alternative_is_named() {
    let one = |change: fn(&mut v1::GpuAlternative)| {
        shape_fault(|shape| {
            shape.gpu_models.clear();
            shape.gpu_alternatives = vec![v1::GpuAlternative::default(); 2];
            change(&mut shape.gpu_alternatives[1]);
        })
    };
    let field = |text: &str| Some(format!("spec.groups[0].shape.gpu_alternatives{text}"));
    assert_eq!(one(|_| {}), None);
    assert_eq!(one(|one| one.models = vec!["a/b".to_owned()]), field("[1].models[0]"));
    assert_eq!(one(|one| one.models = vec!["a".to_owned(); 33]), field("[1].models"));
    assert_eq!(one(|one| one.vendor = 99), field("[1].vendor"));
    assert_eq!(one(|one| one.vram_mib_min = u32::MAX), field("[1].vram_mib_min"));
    let able = one(|one| one.compute_capability_min = 10_000);
    assert_eq!(able, field("[1].compute_capability_min"));
    let both = shape_fault(|shape| shape.gpu_alternatives.push(v1::GpuAlternative::default()));
    assert_eq!(both, field(""), "beside the short form");
    let many = shape_fault(|shape| {
        shape.gpu_models.clear();
        shape.gpu_alternatives = vec![v1::GpuAlternative::default(); 1_000];
    });
    assert_eq!(many, field(""));
    let none = shape_fault(|shape| {
        shape.gpu_models.clear();
        shape.gpu_alternatives = vec![v1::GpuAlternative { vendor: 1, ..Default::default() }];
        shape.gpus = None;
        shape.cpu_milli = 1;
    });
    assert_eq!(none, field(""));
}

#[test]
fn every_bad_amount_of_a_shape_is_named() {
    let field = |text: &str| Some(format!("spec.groups[0].shape{text}"));
    let up = shape_fault(|shape| shape.bandwidth_up_mbps_min = u32::MAX);
    assert_eq!(up, field(".bandwidth_up_mbps_min"));
    let down = shape_fault(|shape| shape.bandwidth_down_mbps_min = 10_000_001);
    assert_eq!(down, field(".bandwidth_down_mbps_min"));
    let custom = |name: &str, amount: u64| {
        shape_fault(|shape| {
            shape.custom.insert(name.to_owned(), amount);
        })
    };
    assert_eq!(custom("licence", 3), None);
    assert_eq!(custom("licence", u64::MAX), field(".custom[licence]"));
    assert_eq!(custom("no name", 1), field(".custom[0].name"));
    let many = (0..10_000).map(|at| (format!("c{at}"), 1)).collect();
    assert_eq!(shape_fault(|shape| shape.custom = many), field(".custom"));
}

#[test]
fn regions_suppliers_and_compliance_become_selectors_of_every_group() {
    let mut sent = good();
    sent.regions_allowed = vec!["eu".to_owned()];
    sent.suppliers_denied = vec!["shady".to_owned()];
    sent.compliance = vec!["soc2".to_owned()];
    let taken = spec("spec", Some(sent)).expect("is good");
    let keys: Vec<&str> = taken.groups[0].selectors.iter().map(|one| &*one.key).collect();
    assert_eq!(keys, ["tier", "muster/region", "muster/supplier", "soc2"]);
    let field = |text: &str| Some(text.to_owned());
    let many = vec!["x".to_owned(); 65];
    assert_eq!(fault(|spec| spec.regions_allowed = many.clone()), field("spec.regions_allowed"));
    assert_eq!(fault(|spec| spec.regions_denied = many.clone()), field("spec.regions_denied"));
    assert_eq!(fault(|spec| spec.suppliers_denied = many.clone()), field("spec.suppliers_denied"));
    assert_eq!(fault(|spec| spec.compliance = many.clone()), field("spec.compliance"));
    let bad = || vec!["a".to_owned(), "\u{7}".to_owned()];
    assert_eq!(fault(|spec| spec.regions_allowed = bad()), field("spec.regions_allowed[1]"));
    assert_eq!(fault(|spec| spec.suppliers_denied = bad()), field("spec.suppliers_denied[1]"));
    assert_eq!(fault(|spec| spec.compliance = bad()), field("spec.compliance[1]"));
    let both = fault(|spec| {
        spec.regions_allowed = vec!["eu".to_owned(), "us".to_owned()];
        spec.regions_denied = vec!["us".to_owned()];
    });
    assert_eq!(both, field("spec.regions_denied"));
}

#[test]
fn every_bad_rule_of_a_job_is_named() {
    let field = |text: &str| Some(format!("spec.{text}"));
    assert_eq!(fault(|spec| spec.rtt_scope = 9), field("rtt_scope"));
    let unbound = v1::RttScope::WithinGroups.into();
    assert_eq!(fault(|spec| spec.rtt_scope = unbound), field("rtt_scope"));
    assert_eq!(fault(|spec| spec.rtt_objective = 9), field("rtt_objective"));
    assert_eq!(fault(|spec| spec.price_total_micro_usd_max = 1), field("duration_s"));
    let total = fault(|spec| {
        spec.duration_s = 60;
        spec.price_total_micro_usd_max = u64::MAX;
    });
    assert_eq!(total, field("price_total_micro_usd_max"));
    let rack = v1::TopologyLevel::Rack.into();
    let at_most = |level, max| v1::DomainsMax { level, max };
    for (bounds, wanted) in [
        (vec![at_most(0, 1)], "domains_max[0].level"),
        (vec![at_most(9, 1)], "domains_max[0].level"),
        (vec![at_most(rack, 0)], "domains_max[0].max"),
        (vec![at_most(rack, 100_001)], "domains_max[0].max"),
        (vec![at_most(rack, 1), at_most(rack, 2)], "domains_max[1].level"),
        (vec![at_most(rack, 1); 6], "domains_max"),
    ] {
        assert_eq!(fault(|spec| spec.domains_max = bounds.clone()), field(wanted));
        let of_group = format!("groups[0].{wanted}");
        assert_eq!(fault(|spec| spec.groups[0].domains_max = bounds), field(&of_group));
    }
    let hourly = fault(|spec| spec.price_hour_micro_usd_max = u64::MAX);
    assert_eq!(hourly, field("price_hour_micro_usd_max"));
    let node = v1::TopologyLevel::Node.into();
    assert_eq!(fault(|spec| spec.topology_required = node), field("topology_required"));
    let many = (0..10_000).map(|at| (format!("k{at}"), String::new())).collect();
    assert_eq!(fault(|spec| spec.labels = many), field("labels"));
    let long = [("k".to_owned(), "v".repeat(318))].into();
    assert_eq!(fault(|spec| spec.labels = long), field("labels"));
    let many = vec![v1::Affinity::default(); 10_000];
    assert_eq!(fault(|spec| spec.affinities = many), field("affinities"));
}

#[test]
fn every_bad_field_of_an_affinity_is_named() {
    let between = |change: fn(&mut v1::Affinity)| {
        fault(|spec| {
            let mut one = v1::Affinity {
                level: v1::TopologyLevel::Node.into(),
                group: "workers".to_owned(),
                with_group: "workers".to_owned(),
                ..v1::Affinity::default()
            };
            change(&mut one);
            spec.affinities = vec![one];
        })
    };
    let field = |text: &str| Some(format!("spec.affinities[0].{text}"));
    let label = |one: &mut v1::Affinity| {
        one.with_job_labels.insert("app".to_owned(), "x".to_owned());
    };
    assert_eq!(between(|one| one.level = 0), field("level"));
    assert_eq!(between(|one| one.level = 77), field("level"));
    assert_eq!(between(|one| one.group = "nobody".to_owned()), field("group"));
    assert_eq!(between(|one| one.group.clear()), field("group"));
    assert_eq!(between(|one| one.with_group = "no\u{7}body".to_owned()), field("with_group"));
    assert_eq!(between(label), field("with_job_labels"), "beside with_group");
    assert_eq!(between(|one| one.with_group.clear()), field("with_job_labels"), "empty");
    let many = between(|one| {
        one.with_group.clear();
        one.with_job_labels = (0..17).map(|at| (format!("k{at}"), String::new())).collect();
    });
    assert_eq!(many, field("with_job_labels"));
}

#[test]
fn every_bad_rule_of_a_group_is_named() {
    let field = |text: &str| Some(format!("spec.groups[0].{text}"));
    assert_eq!(group_fault(|group| group.replicas_max = 3), field("replicas_max"));
    assert_eq!(group_fault(|group| group.replicas_max = u32::MAX), field("replicas_max"));
    let most = group_fault(|group| group.replicas_per_node_max = u32::MAX);
    assert_eq!(most, field("replicas_per_node_max"));
    assert_eq!(group_fault(|group| group.strategy = 9), field("strategy"));
    assert_eq!(group_fault(|group| group.topology_required = 9), field("topology_required"));
    let node = v1::TopologyLevel::Node.into();
    assert_eq!(group_fault(|group| group.topology_preferred = node), field("topology_preferred"));
    let segments = |of: &[(v1::TopologyLevel, u32)]| {
        let one = |&(level, size): &(v1::TopologyLevel, u32)| v1::Segment {
            level: level.into(),
            size,
            exclusive: false,
        };
        let segments = of.iter().map(one).collect();
        group_fault(|group| group.segments = segments)
    };
    use v1::TopologyLevel::{Rack, Site, Unspecified};
    assert_eq!(segments(&[(Unspecified, 2)]), field("segments[0].level"));
    assert_eq!(segments(&[(Rack, 0)]), field("segments[0].size"));
    assert_eq!(segments(&[(Rack, 4), (Site, 2)]), field("segments[1].level"));
    assert_eq!(segments(&[(Site, 4), (Site, 2)]), field("segments[1].level"));
    assert_eq!(segments(&[(Site, 4), (Rack, 3)]), field("segments[1].size"));
    assert_eq!(segments(&[(Site, 4); 1_000]), field("segments"));
    let spread = |of: &[(v1::TopologyLevel, u32)]| {
        let one = |&(level, skew_max): &(v1::TopologyLevel, u32)| v1::Spread {
            level: level.into(),
            skew_max,
            preferred: false,
        };
        let spread = of.iter().map(one).collect();
        group_fault(|group| group.spread = spread)
    };
    assert_eq!(spread(&[(Unspecified, 1)]), field("spread[0].level"));
    assert_eq!(spread(&[(Rack, 0)]), field("spread[0].skew_max"));
    assert_eq!(spread(&[(Rack, 1), (Rack, 2)]), field("spread[1].level"));
    assert_eq!(spread(&[(Rack, 1); 1_000]), field("spread"));
    let depends = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        group_fault(|group| group.depends_on = names)
    };
    assert_eq!(depends(&["nobody"]), field("depends_on[0]"));
    assert_eq!(depends(&["workers"]), field("depends_on"));
    assert_eq!(depends(&["workers", "workers"]), field("depends_on"));
    assert_eq!(depends(&["workers"; 17]), field("depends_on"));
    let repair = |in_flight_max, level, preferred| {
        let repair = v1::Repair { in_flight_max, level, preferred };
        group_fault(|group| group.repair = Some(repair))
    };
    assert_eq!(repair(100_001, 0, false), field("repair.in_flight_max"));
    assert_eq!(repair(0, 9, false), field("repair.level"));
    assert_eq!(repair(0, 0, true), field("repair.preferred"));
}

#[test]
fn totals_are_bounded() {
    let too_many = fault(|spec| {
        let mut second = spec.groups[0].clone();
        second.name = "more".to_owned();
        second.replicas = 60_000;
        spec.groups[0].replicas = 60_000;
        spec.groups.push(second);
    });
    assert_eq!(too_many.as_deref(), Some("spec.groups[1].replicas"));
    let gpus = fault(|spec| {
        spec.groups[0].replicas = 100_000;
        let shape = spec.groups[0].shape.as_mut().expect("has a shape");
        shape.gpus = Some(v1::shape::Gpus::GpuCount(64));
    });
    assert_eq!(gpus.as_deref(), Some("spec.groups"));
}

#[test]
fn programs_are_bounded() {
    let program = |change: fn(&mut v1::Program)| {
        fault(|spec| {
            let mut program = v1::Program::default();
            change(&mut program);
            spec.program = Some(program);
        })
    };
    let field = |text: &str| Some(format!("spec.program{text}"));
    assert_eq!(program(|one| one.argv = vec!["x".to_owned(); 257]), field(".argv"));
    assert_eq!(program(|one| one.argv = vec!["x".repeat(100_000)]), field(""));
    assert_eq!(program(|one| one.argv = vec![String::new()]), field(".argv[0]"));
    let reserved = program(|one| {
        one.env.insert("MUSTER_RANK".to_owned(), "7".to_owned());
    });
    assert_eq!(reserved, field(".env"));
    assert_eq!(program(|one| one.argv = vec!["a".to_owned(), "b c\n".to_owned()]), None);
}

#[test]
fn request_ids_are_short_printable_text() {
    assert!(request_id("request_id", "7b0c-1").is_ok());
    for id in ["", "a\nb", "\u{e4}", &"x".repeat(65)] {
        let refusal = request_id("requests[1].request_id", id).expect_err("is bad");
        assert!(refusal.to_string().starts_with("requests[1].request_id "), "{refusal}");
    }
}
