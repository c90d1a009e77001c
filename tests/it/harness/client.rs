//! A gRPC client for tests: tries its servers in turn, and gives statuses back as they are.

use super::PATIENCE;
use proto::v1::job_service_client::JobServiceClient;
use proto::v1::node_admin_service_client::NodeAdminServiceClient;
use proto::v1::node_service_client::NodeServiceClient;
use proto::v1::quorum_service_client::QuorumServiceClient;
use proto::v1::{self, GetQuorumStatusResponse, Job, JobPhase, JobSpec};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(20);

/// Yields for a moment between two looks at a running cluster; never what a test relies on.
pub async fn pause() {
    let mut tick = tokio::time::interval(Duration::from_millis(15));
    tick.tick().await;
    tick.tick().await;
}

/// Talks to some servers as a tenant (`acme` unless changed).
#[derive(Clone)]
pub struct Client {
    channels: Vec<Channel>,
    tenant: Option<String>,
}

impl Client {
    pub fn new<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let channels = addresses
            .into_iter()
            .map(|address| {
                Endpoint::from_shared(format!("http://{address}"))
                    .expect("an address")
                    .connect_timeout(Duration::from_secs(2))
                    .connect_lazy()
            })
            .collect();
        Self { channels, tenant: Some("acme".to_owned()) }
    }

    /// The same as another tenant.
    pub fn tenant(mut self, name: &str) -> Self {
        self.tenant = Some(name.to_owned());
        self
    }

    /// The same with its next server first.
    pub fn next(mut self) -> Self {
        self.channels.rotate_left(1);
        self
    }

    pub fn channel(&self) -> Channel {
        self.channels[0].clone()
    }

    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel()).max_encoding_message_size(64 << 20)
    }

    pub fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel())
    }

    pub fn admin(&self) -> NodeAdminServiceClient<Channel> {
        NodeAdminServiceClient::new(self.channel())
    }

    pub fn quorum(&self) -> QuorumServiceClient<Channel> {
        QuorumServiceClient::new(self.channel())
    }

    /// A request with deadline, as this client's tenant.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL);
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert("x-muster-tenant", tenant.parse().expect("ascii"));
        }
        request
    }

    /// A request with deadline, as the operator.
    pub fn operator<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL);
        request
    }

    /// A request with deadline, as a supplier.
    pub fn supplier<T>(&self, name: &str, message: T) -> Request<T> {
        let mut request = self.operator(message);
        request.metadata_mut().insert("x-muster-supplier", name.parse().expect("ascii"));
        request
    }

    pub async fn quorum_status(&self, hash: bool) -> Result<GetQuorumStatusResponse, Status> {
        let message = v1::GetQuorumStatusRequest { with_state_hash: hash };
        let mut request = self.operator(message);
        request.set_timeout(Duration::from_secs(3));
        Ok(self.quorum().get_quorum_status(request).await?.into_inner())
    }

    /// Submits once.
    pub async fn submit(&self, id: &str, spec: JobSpec) -> Result<v1::SubmitJobResponse, Status> {
        let message = v1::SubmitJobRequest {
            request_id: id.to_owned(),
            spec: Some(spec),
            ..Default::default()
        };
        Ok(self.jobs().submit_job(self.request(message)).await?.into_inner())
    }

    /// Submits until a server of the list answers other than UNAVAILABLE or with lost connection.
    pub async fn submit_surely(&self, id: &str, spec: JobSpec) -> v1::SubmitJobResponse {
        let deadline = Instant::now() + PATIENCE;
        for turn in 0.. {
            let one = Self {
                channels: vec![self.channels[turn % self.channels.len()].clone()],
                tenant: self.tenant.clone(),
            };
            match one.submit(id, spec.clone()).await {
                Ok(answer) => return answer,
                Err(status) if is_passing(&status) => {
                    assert!(Instant::now() < deadline, "submit {id}: {status}");
                    pause().await;
                }
                Err(status) => panic!("submit {id}: {status}"),
            }
        }
        unreachable!("the loop has no end")
    }

    pub async fn job(&self, id: u64) -> Result<v1::GetJobResponse, Status> {
        let message = v1::GetJobRequest { job_id: id, ..Default::default() };
        Ok(self.jobs().get_job(self.request(message)).await?.into_inner())
    }

    pub async fn cancel(&self, id: u64) -> Result<v1::CancelJobResponse, Status> {
        let message = v1::CancelJobRequest { job_id: id };
        Ok(self.jobs().cancel_job(self.request(message)).await?.into_inner())
    }

    /// Watches the job until `seen` holds; the job as it was then.
    pub async fn until(&self, id: u64, what: &str, seen: impl Fn(&Job) -> bool) -> Job {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            for channel in &self.channels {
                let one = Self { channels: vec![channel.clone()], tenant: self.tenant.clone() };
                let watched = tokio::time::timeout_at(deadline, one.watch(id, &seen, &mut last));
                match watched.await {
                    Ok(Some(job)) => return job,
                    Ok(None) => {}
                    Err(_) => panic!("job {id} did not come to: {what}; last seen: {last:?}"),
                }
            }
            pause().await;
        }
    }

    async fn watch(
        &self,
        id: u64,
        seen: impl Fn(&Job) -> bool,
        last: &mut Option<Job>,
    ) -> Option<Job> {
        let message = v1::WatchJobRequest { job_id: id, after_index: 0 };
        let mut request = self.request(message);
        request.set_timeout(PATIENCE);
        let mut stream = self.jobs().watch_job(request).await.ok()?.into_inner();
        while let Ok(Some(update)) = stream.message().await {
            let job = update.job?;
            if seen(&job) {
                return Some(job);
            }
            *last = Some(job);
        }
        None
    }

    pub async fn until_phase(&self, id: u64, phase: JobPhase) -> Job {
        self.until(id, phase.as_str_name(), |job| job.phase() == phase).await
    }

    /// GPUs in thousandths that live replicas of the whole fleet hold.
    pub async fn gpu_milli_used(&self) -> u64 {
        let request = self.operator(v1::GetCapacityRequest::default());
        let answer = self.admin().get_capacity(request).await.expect("capacity").into_inner();
        answer.models.iter().map(|model| model.gpu_milli_used).sum()
    }
}

/// Whether trying again elsewhere or later is right.
pub fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
    )
}

/// Fields that a refusal names.
pub fn fields(status: &Status) -> Vec<String> {
    use tonic_types::StatusExt;
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone());
    violations.unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}
