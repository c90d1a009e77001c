//! Reservations: a gang that waits is promised a time, small jobs are not in its way, and what ends
//! before slips in.

use crate::harness::client::Client;
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::specs::job;
use proto::v1::explain_job_request::Target;
use proto::v1::{self, JobPhase, JobSpec};
use scheduler_core::command::Quota;
use scheduler_core::id::{Name, TenantId};
use scheduler_server::config::FirstTenant;
use scheduler_server::{Config, Server};

const TENANT: &str = "acme";

/// How long the work runs that the gang waits for, in seconds: past the bring-up of a minute that is
/// reckoned with for jobs that slip in, none of which could otherwise.
const LONG_S: u64 = 3_600;

fn lasting(mut spec: JobSpec, duration_s: u64) -> JobSpec {
    spec.duration_s = duration_s;
    spec
}

async fn submit(client: &Client, id: &str, spec: JobSpec) -> v1::Job {
    client.submit(id, spec).await.expect("accepted").job.expect("a job")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_starts_when_it_was_promised_though_small_jobs_come_all_the_time() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let mut config = Config::dev(1, dir.path().join("server"));
    config.cluster.reservations.after_ms = 1;
    let tenant = TenantId(Name::parse(TENANT).expect("a name"));
    config.cluster.tenants = vec![FirstTenant { tenant, quota: Quota::default() }];
    let server = Server::start(config).await.expect("the server starts");
    server.bootstrap(vec![server.member()]).await.expect("founded");
    server.wait_for_leader().await;
    let address = server.api_address().to_string();
    let client = Client::new([address.as_str()]).tenant(TENANT);
    let _agents = [
        TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await,
        TestAgent::start(&client, "n2", 8, Behaviour::Obedient).await,
    ];
    let long = submit(&client, "long", lasting(job(1, 8), LONG_S)).await;
    let long = client.until_phase(long.id, JobPhase::Ready).await;
    let gang = submit(&client, "gang", lasting(job(2, 8), 60)).await;
    let told = |job: &v1::Job| job.reason.as_ref().map(|why| why.message.clone());
    let told = |job: &v1::Job| told(job).unwrap_or_default();
    let reserved = |job: &v1::Job| told(job).contains("; reserved, starts at about ");
    client.until(gang.id, "is reserved", reserved).await;
    // A node is free, and held: who runs for ever, or for too long, waits; a short job does not.
    let small = submit(&client, "small", job(1, 1)).await;
    assert_eq!(small.phase(), JobPhase::Pending);
    assert!(told(&small).contains("16 GPUs are held for 1 other waiting job(s)"), "{small:?}");
    let late = submit(&client, "late", lasting(job(1, 1), LONG_S)).await;
    assert_eq!(late.phase(), JobPhase::Pending);
    let short = submit(&client, "short", lasting(job(1, 1), 1)).await;
    assert_ne!(short.phase(), JobPhase::Pending);
    client.until_phase(short.id, JobPhase::Expired).await;
    // What is held for the gang is not in its own way.
    let target = Some(Target::JobId(gang.id));
    let message = v1::ExplainJobRequest { target, tenant: String::new() };
    let answer = client.jobs().explain_job(client.request(message)).await.expect("an answer");
    let why = answer.into_inner().explanation.expect("an explanation");
    assert_eq!(why.until_time_ms, long.ready_time_ms + LONG_S * 1_000);
    // Its time has come.
    client.cancel(long.id).await.expect("cancelled");
    client.until_phase(gang.id, JobPhase::Ready).await;
    for waits in [small.id, late.id] {
        let waits = client.job(waits).await.expect("known").job.expect("a job");
        assert_eq!(waits.phase(), JobPhase::Pending);
    }
    client.cancel(gang.id).await.expect("cancelled");
    client.until_phase(small.id, JobPhase::Ready).await;
    client.until_phase(late.id, JobPhase::Ready).await;
}
