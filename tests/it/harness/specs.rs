//! Jobs and nodes with quiet defaults.

use proto::v1::{self, Group, JobKind, JobSpec, NodeSpec, Place, Shape};

/// A plain job of `replicas` members with `gpus` whole GPUs each.
pub fn job(replicas: u32, gpus: u32) -> JobSpec {
    JobSpec {
        name: "demo".to_owned(),
        kind: JobKind::Plain.into(),
        groups: vec![Group {
            name: "workers".to_owned(),
            replicas,
            shape: Some(Shape {
                gpus: (gpus > 0).then_some(v1::shape::Gpus::GpuCount(gpus)),
                cpu_milli: 1_000,
                memory_mib: 1_024,
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The same after a change of its only group's shape.
pub fn job_with(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = job(1, 1);
    change(&mut spec);
    spec
}

/// A node with `gpus` GPUs of one model.
pub fn node(name: &str, gpus: usize) -> NodeSpec {
    NodeSpec {
        name: name.to_owned(),
        gpus: (0..gpus)
            .map(|_| v1::Gpu {
                model: "H100-SXM".to_owned(),
                vram_mib: 81_920,
                link_domain: 0,
                ..v1::Gpu::default()
            })
            .collect(),
        cpu_milli: 96_000,
        memory_mib: 786_432,
        disk_mib: 4_194_304,
        place: Some(Place {
            region: "eu".to_owned(),
            zone: "eu-1".to_owned(),
            site: "eu-1a".to_owned(),
            rack: "r1".to_owned(),
        }),
        bandwidth_up_mbps: 10_000,
        bandwidth_down_mbps: 10_000,
        price_micro_usd: 2_500_000,
        address: String::new(),
        ..Default::default()
    }
}
