//! What benches put on servers: registered nodes, jobs one by one and in batches.

use crate::client::{CallError, Client};
use crate::exit::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1;

/// Registrations under way at once.
const JOINS_AT_ONCE: usize = 256;
/// Sites of the registered nodes, in regions of four.
const SITES: u32 = 32;

/// Nodes with these numbers of GPUs, spread over sites; each has room for any job of the benches.
pub(super) fn nodes(gpus: impl IntoIterator<Item = u32>) -> Vec<v1::NodeSpec> {
    let node = |(number, count): (u32, u32)| {
        let site = number % SITES;
        v1::NodeSpec {
            name: format!("bench-{number:06}"),
            gpus: (0..count)
                .map(|_| v1::Gpu {
                    model: "H100-SXM".to_owned(),
                    vram_mib: 81_920,
                    link_domain: 0,
                    ..v1::Gpu::default()
                })
                .collect(),
            cpu_milli: 192_000,
            memory_mib: 2 << 20,
            disk_mib: 16 << 20,
            place: Some(v1::Place {
                region: format!("region-{}", site / 4),
                zone: format!("zone-{}", site / 2),
                site: format!("site-{site}"),
                rack: format!("rack-{}", number / SITES / 16),
            }),
            bandwidth_up_mbps: 100_000,
            bandwidth_down_mbps: 100_000,
            price_micro_usd: 2_000_000,
            address: format!("bench-{number:06}.example"),
            ..v1::NodeSpec::default()
        }
    };
    (0..).zip(gpus).map(node).collect()
}

/// Sizes of nodes that add up to the GPUs: as many of 8 as possible, the rest of 2 and one in between.
pub(super) fn sizes(nodes: u32, gpus: u32) -> Vec<u32> {
    let (large, small) = (8, 2);
    if gpus < nodes * small || gpus > nodes.saturating_mul(large) {
        // As even as whole numbers allow.
        let upto = |count: u32| (u64::from(count) * u64::from(gpus) / u64::from(nodes)) as u32;
        return (0..nodes).map(|n| upto(n + 1) - upto(n)).collect();
    }
    let spare = gpus - nodes * small;
    let (eights, rest) = (spare / (large - small), spare % (large - small));
    (0..nodes)
        .map(|n| match n {
            n if n < eights => large,
            n if n == eights => small + rest,
            _ => small,
        })
        .collect()
}

/// Registers nodes without sessions.
pub(super) async fn register(clients: &[Client], nodes: Vec<v1::NodeSpec>) -> Result<(), Failure> {
    let join = |(number, spec): (usize, v1::NodeSpec)| {
        let client = &clients[number % clients.len()];
        let mut key = vec![0_u8; 32];
        key[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        let request = v1::JoinRequest {
            spec: Some(spec),
            instance: key[..16].to_vec().into(),
            node_key: key.into(),
        };
        client.call_alone(move |attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.agents().join(request).await }
        })
    };
    stream::iter(nodes.into_iter().enumerate().map(join))
        .buffer_unordered(JOINS_AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

/// A job of one replica.
pub(super) fn job(request_id: String, gpus: u32) -> v1::SubmitJobRequest {
    let shape = v1::Shape {
        gpus: Some(v1::shape::Gpus::GpuCount(gpus)),
        cpu_milli: 1_000,
        memory_mib: 1_024,
        ..v1::Shape::default()
    };
    let group =
        v1::Group { name: "w".to_owned(), replicas: 1, shape: Some(shape), ..v1::Group::default() };
    v1::SubmitJobRequest {
        request_id,
        spec: Some(v1::JobSpec {
            name: "bench".to_owned(),
            kind: v1::JobKind::Plain.into(),
            groups: vec![group],
            ..v1::JobSpec::default()
        }),
        tenant: crate::cluster::TENANT.to_owned(),
        ..v1::SubmitJobRequest::default()
    }
}

/// Submits one job.
pub(super) async fn submit(
    client: &Client,
    request: v1::SubmitJobRequest,
) -> Result<v1::SubmitJobResponse, CallError> {
    client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().submit_job(request).await }
        })
        .await
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchEnd {
    pub(super) accepted: u64,
    pub(super) placed: u64,
    /// The first refusal.
    pub(super) refusal: Option<String>,
}

/// Submits several jobs in one call.
pub(super) async fn submit_batch(
    client: &Client,
    request: &v1::SubmitJobsRequest,
) -> Result<BatchEnd, CallError> {
    let answer = client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().submit_jobs(request).await }
        })
        .await?;
    let mut end = BatchEnd::default();
    for result in answer.results {
        match result.result {
            Some(v1::submit_jobs_result::Result::JobId(_)) => {
                end.accepted += 1;
                end.placed += u64::from(result.placed);
            }
            Some(v1::submit_jobs_result::Result::Refusal(refusal)) => {
                end.refusal.get_or_insert(refusal.message);
            }
            None => {}
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        for (count, gpus) in [(69_000, 461_772), (10, 10), (10, 15), (10, 81), (3, 24), (7, 20)] {
            let sizes = sizes(count, gpus);
            assert_eq!(sizes.len(), count as usize);
            assert_eq!(sizes.iter().sum::<u32>(), gpus, "{count} {gpus}");
        }
        assert_eq!(sizes(69_000, 461_772)[0], 8);
    }
}
