//! Specs, good ones and ones with one bad field each.

use super::*;

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
