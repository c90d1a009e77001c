//! Lists that come in pages.
//!
//! **Invariant:** a page is asked for with the token of the one before it and nothing else changed.

use super::{CallError, Client};
use proto::v1::{Job, ListJobsRequest, ListJobsResponse};
use proto::v1::{ListNodesRequest, ListNodesResponse, Node};
use proto::v1::{ListSiteRttsRequest, ListSiteRttsResponse};

impl Client {
    /// One page of jobs.
    pub async fn page_of_jobs(
        &self,
        request: &ListJobsRequest,
    ) -> Result<ListJobsResponse, CallError> {
        self.call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().list_jobs(request).await }
        })
        .await
    }

    /// One page of nodes.
    pub async fn page_of_nodes(
        &self,
        request: &ListNodesRequest,
    ) -> Result<ListNodesResponse, CallError> {
        self.call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.nodes().list_nodes(request).await }
        })
        .await
    }

    /// One page of round trips between sites.
    pub async fn page_of_rtts(
        &self,
        request: &ListSiteRttsRequest,
    ) -> Result<ListSiteRttsResponse, CallError> {
        self.call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.nodes().list_site_rtts(request).await }
        })
        .await
    }

    /// All jobs from the request's page on.
    pub async fn all_jobs(&self, mut request: ListJobsRequest) -> Result<Vec<Job>, CallError> {
        let mut jobs = Vec::new();
        loop {
            let page = self.page_of_jobs(&request).await?;
            jobs.extend(page.jobs);
            if page.next_page_token.is_empty() {
                return Ok(jobs);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All nodes from the request's page on.
    pub async fn all_nodes(&self, mut request: ListNodesRequest) -> Result<Vec<Node>, CallError> {
        let mut nodes = Vec::new();
        loop {
            let page = self.page_of_nodes(&request).await?;
            nodes.extend(page.nodes);
            if page.next_page_token.is_empty() {
                return Ok(nodes);
            }
            request.page_token = page.next_page_token;
        }
    }
}
