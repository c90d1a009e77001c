//! Values that no sane client sends: each is refused by the path of its field, with the limit.

use scheduler_core::command::Command;
use scheduler_core::fixture::entry::{
    World, group, job_spec, models, name, node_spec, register, submit, vram,
};
use scheduler_core::id::Name;
use scheduler_core::job::{Condition, GpuAsk, JobSpec, Priority, Role, Selector, Toleration};
use scheduler_core::node::{NodeSpec, Taint, TaintEffect};
use scheduler_core::unit::{
    CpuMilli, DiskMib, DurationMs, MemoryMib, PriceMicroUsd, RttUs, TimeMs, VramMib,
};

fn refused_job(change: impl FnOnce(&mut JobSpec)) -> String {
    let mut world = World::with_nodes(1, 8);
    let mut spec = job_spec(vec![group("head", 1, 1), group("w", 4, 1)]);
    change(&mut spec);
    world.refused(Command::Submit(submit("r", spec, None))).to_string()
}

fn refused_node(change: impl FnOnce(&mut NodeSpec)) -> String {
    let mut world = World::new();
    let mut spec = node_spec("n0", 8);
    change(&mut spec);
    world.refused(register(spec)).to_string()
}

#[track_caller]
fn check(refusal: String, wanted: &str) {
    assert!(refusal.starts_with(wanted), "{refusal:?} should begin with {wanted:?}");
}

#[test]
fn groups_and_replicas() {
    check(refused_job(|s| s.groups.clear()), "spec.groups is empty");
    check(
        refused_job(|s| s.groups = (0..65).map(|n| group(&format!("g{n}"), 1, 1)).collect()),
        "spec.groups has 65 items; at most 64 are allowed",
    );
    check(
        refused_job(|s| s.groups[1].replicas = 0),
        "spec.groups[1].replicas is 0; 1 to 100000 are allowed",
    );
    check(
        refused_job(|s| s.groups[1].replicas = u32::MAX),
        "spec.groups[1].replicas is 4294967295; 1 to 100000 are allowed",
    );
    check(
        refused_job(|s| {
            s.groups[1].replicas = 100_000;
            s.groups[1].replicas_max = 100_000;
        }),
        "spec.groups[1].replicas brings the job to 100001 replicas; at most 100000 are allowed",
    );
    check(
        refused_job(|s| s.groups[1].replicas_min = 5),
        "spec.groups[1].replicas_min is 5; 1 to 4 are allowed",
    );
    check(refused_job(|s| s.groups[1].name = name("head")), "spec.groups[1].name is head");
    check(refused_job(|s| s.groups[1].role = Role::Head), "spec.groups[1].replicas is 4; a HEAD");
    check(
        refused_job(|s| {
            s.groups[1] = group("w", 1, 1);
            s.groups.iter_mut().for_each(|group| group.role = Role::Head);
        }),
        "spec.groups[1].role is HEAD",
    );
}

#[test]
fn shapes() {
    let shape = "spec.groups[1].shape.";
    let with = |change: fn(&mut scheduler_core::job::Shape)| {
        refused_job(|s| change(&mut s.groups[1].shape))
    };
    check(with(|s| s.gpus = GpuAsk::Whole(0)), &format!("{shape}gpus is 0; 1 to 64"));
    check(with(|s| s.gpus = GpuAsk::Whole(255)), &format!("{shape}gpus is 255; 1 to 64"));
    check(with(|s| s.gpus = GpuAsk::Share(0)), &format!("{shape}gpu_share_milli is 0"));
    check(with(|s| s.gpus = GpuAsk::Share(1000)), &format!("{shape}gpu_share_milli is 1000"));
    check(
        with(|s| s.cpu = CpuMilli(u64::MAX)),
        &format!("{shape}cpu_milli is 18446744073709551615"),
    );
    check(with(|s| s.memory = MemoryMib(u64::MAX)), &format!("{shape}memory_mib is"));
    check(with(|s| s.disk = DiskMib(u64::MAX)), &format!("{shape}disk_mib is"));
    check(with(|s| s.alternatives = vram(u32::MAX)), &format!("{shape}vram_mib_min is"));
    check(
        with(|s| s.alternatives = models(&["H100"; 65])),
        &format!("{shape}gpu_models has 65 items"),
    );
    check(
        with(|s| {
            s.gpus = GpuAsk::None;
            s.alternatives = models(&["H100"]);
        }),
        &format!("{shape}gpu_models is given, but no GPU"),
    );
    check(
        with(|s| {
            s.gpus = GpuAsk::None;
            s.cpu = CpuMilli(0);
        }),
        &format!("{shape}cpu_milli is 0"),
    );
}

#[test]
fn conditions() {
    let selector = |key: &str, condition| Selector { key: key.into(), condition };
    let long: &str = &"x".repeat(318);
    check(
        refused_job(|s| s.groups[0].selectors = vec![selector("", Condition::Exists)]),
        "spec.groups[0].selectors[0].key is 0 bytes long; 1 to 317 are allowed",
    );
    check(
        refused_job(|s| s.groups[0].selectors = vec![selector("a\nb", Condition::Exists)]),
        "spec.groups[0].selectors[0].key has a byte at 1 that is not printable ASCII",
    );
    check(
        refused_job(|s| s.groups[0].selectors = vec![selector("a", Condition::In(vec![]))]),
        "spec.groups[0].selectors[0].values is empty",
    );
    check(
        refused_job(|s| {
            s.groups[0].selectors =
                vec![selector("a", Condition::NotIn(vec!["b".into(), long.into()]))];
        }),
        "spec.groups[0].selectors[0].values[1] is 318 bytes long",
    );
    check(
        refused_job(|s| s.groups[0].selectors = vec![selector("a", Condition::Exists); 65]),
        "spec.groups[0].selectors has 65 items",
    );
    check(
        refused_job(|s| {
            let toleration = Toleration { key: "k".into(), value: Some(long.into()), effect: None };
            s.groups[0].tolerations = vec![toleration];
        }),
        "spec.groups[0].tolerations[0].value is 318 bytes long",
    );
    check(refused_job(|s| s.rtt_max = Some(RttUs(0))), "spec.rtt_us_max is 0; 1 to 60000000");
    check(refused_job(|s| s.duration = Some(DurationMs(0))), "spec.duration_ms is 0; 1000 to");
    check(refused_job(|s| s.duration = Some(DurationMs(u64::MAX))), "spec.duration_ms is");
    check(refused_job(|s| s.price_max = Some(PriceMicroUsd(u64::MAX))), "spec.price_micro_usd_max");
}

#[test]
fn programs() {
    check(
        refused_job(|s| s.program.argv = vec!["x".repeat(64 * 1024 + 1)]),
        "spec.program is 65537 bytes in all; at most 65536 are allowed",
    );
    check(refused_job(|s| s.program.argv = vec!["a".into(); 1_025]), "spec.program.argv has 1025");
    check(refused_job(|s| s.program.argv = vec![String::new()]), "spec.program.argv[0] is empty");
    check(
        refused_job(|s| s.program.argv = vec!["a".into(), "b\0".into()]),
        "spec.program.argv[1] has a zero byte",
    );
    for key in ["", "A=B", "A\0"] {
        let env = vec![("OK".into(), String::new()), (key.into(), String::new())];
        check(refused_job(|s| s.program.env = env), "spec.program.env[1].name is empty or has");
    }
}

#[test]
fn requests() {
    let mut world = World::with_nodes(1, 8);
    let spec = job_spec(vec![group("w", 1, 1)]);
    let mut refused =
        |id: &str| world.refused(Command::Submit(submit(id, spec.clone(), None))).to_string();
    check(refused(""), "request_id is 0 bytes long; 1 to 64 are allowed");
    check(refused(&"x".repeat(65)), "request_id is 65 bytes long");
    check(refused("a\u{202e}b"), "request_id has a byte at 1 that is not printable ASCII");
}

#[test]
fn nodes() {
    check(refused_node(|s| s.gpus = vec![s.gpus[0].clone(); 65]), "spec.gpus has 65 items");
    check(refused_node(|s| s.gpus[3].vram = VramMib(0)), "spec.gpus[3].vram_mib is 0");
    check(refused_node(|s| s.gpus[3].link_domain = 64), "spec.gpus[3].link_domain is 64; 0 to 63");
    check(refused_node(|s| s.resources.cpu = CpuMilli(u64::MAX)), "spec.resources.cpu_milli is");
    check(refused_node(|s| s.price = PriceMicroUsd(u64::MAX)), "spec.price_micro_usd is");
    check(refused_node(|s| s.address = "a b".into()), "spec.address has a space");
    check(refused_node(|s| s.address = "x".repeat(260).as_str().into()), "spec.address is 260");
    check(
        refused_node(|s| s.labels = (0..65).map(|n| (n.to_string().into(), "".into())).collect()),
        "spec.labels has 65 items; at most 64 are allowed",
    );
    check(
        refused_node(|s| drop(s.labels.insert("muster/site".into(), "here".into()))),
        "spec.labels[0].key is muster/site; labels under muster/",
    );
    check(
        refused_node(|s| drop(s.labels.insert("k".into(), "\u{7f}".into()))),
        "spec.labels[0].value has a byte at 0",
    );
    let taint = Taint { key: "".into(), value: "".into(), effect: TaintEffect::NoSchedule };
    check(refused_node(|s| s.taints = vec![taint.clone()]), "spec.taints[0].key is 0 bytes");
    check(refused_node(|s| s.taints = vec![taint; 33]), "spec.taints has 33 items; at most 32");
}

#[test]
fn names() {
    let bytes = postcard::to_stdvec("../a").expect("encodes");
    assert!(postcard::from_bytes::<Name>(&bytes).is_err(), "decoding checks too");
    let bytes = postcard::to_stdvec(&name("a.b")).expect("encodes");
    assert_eq!(postcard::from_bytes::<Name>(&bytes), Ok(name("a.b")));
    for bad in ["", "..", "../a", "a/b", "a b", "-a", "a-", ".", "a\n", "é", "a\0"] {
        assert!(Name::parse(bad).is_err(), "{bad:?}");
    }
    assert!(Name::parse(&"x".repeat(1 << 20)).is_err());
    assert!(Name::parse(&"x".repeat(63)).is_ok());
}

#[test]
fn priorities() {
    for wild in [i16::MIN, -1_001, 1_001, i16::MAX] {
        let wanted = format!("spec.priority is {wild}; -1000 to 1000 are allowed");
        check(refused_job(|s| s.priority = Priority(wild)), &wanted);
    }
}

#[test]
fn times() {
    let (second, hour) = (DurationMs(1_000), DurationMs(3_600_000));
    // The world's time is a thousand seconds after 1970, and some.
    let soon = Some(TimeMs(2_000_000));
    check(refused_job(|s| s.begin = Some(TimeMs(u64::MAX))), "spec.begin_time_ms is 1844");
    check(refused_job(|s| s.deadline = Some(TimeMs(u64::MAX))), "spec.deadline_time_ms is 1844");
    check(
        refused_job(|s| s.deadline = Some(TimeMs(1_000_000))),
        "spec.deadline_time_ms is 1970-01-01T00:16:40Z, which is not after now, 1970-01-01T00:16:40.0",
    );
    check(
        refused_job(|s| (s.deadline, s.duration) = (soon, Some(hour))),
        "spec.deadline_time_ms is 1970-01-01T00:33:20Z; at least 1h after now, 1970-01-01T00:16:40.0",
    );
    check(
        refused_job(|s| (s.begin, s.deadline) = (soon, soon)),
        "spec.deadline_time_ms is 1970-01-01T00:33:20Z, which is not after spec.begin_time_ms, 1970",
    );
    check(
        refused_job(|s| {
            (s.begin, s.deadline) = (soon, Some(TimeMs(3_000_000)));
            (s.duration, s.duration_min) = (Some(hour), Some(DurationMs(1_000_001)));
        }),
        "spec.deadline_time_ms is 1970-01-01T00:50:00Z; at least 16m40s1ms after spec.begin_time_ms",
    );
    check(
        refused_job(|s| {
            (s.deadline, s.duration) = (Some(TimeMs(9_000_000)), Some(second));
            s.duration_min = Some(hour);
        }),
        "spec.duration_ms_min is 3600000; 1000 to 1000 are allowed",
    );
    check(
        refused_job(|s| (s.duration, s.duration_min) = (Some(hour), Some(second))),
        "spec.duration_ms_min is given without spec.deadline_time_ms",
    );
}
