//! What operators and suppliers call about nodes and sites.
//!
//! **Invariant:** nothing of another supplier's node is shown or changed, not even that it exists;
//! reads hold the state for short slices only.

use super::{READ_TIME, WRITE_TIME, page_size, propose, read_point, time_left};
use crate::app::Context;
use crate::auth::Caller;
use crate::clock;
use crate::convert;
use crate::convert::node::Capacity;
use crate::status;
use proto::v1;
use proto::v1::node_admin_service_server::{NodeAdminService, NodeAdminServiceServer};
use scheduler_core::command::{Command, Kind};
use scheduler_core::id::{NodeId, SiteId};
use scheduler_core::node::{Eligibility, Node};
use scheduler_core::state::State;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Largest request: 16,384 pairs of sites with long names.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Node ids looked at under one read lock: a few milliseconds.
const SLICE_IDS: u32 = 8_192;

/// The GPUs of all nodes that are meant, by model, and the index up to which they are told.
pub(super) async fn capacity(
    context: &Context,
    is_meant: impl Fn(&Node) -> bool,
) -> (v1::GetCapacityResponse, u64) {
    let (mut capacity, mut start) = (Capacity::default(), 0u32);
    // A large fleet is summed up slice by slice: sums of a fleet at work are passing anyway.
    loop {
        let end = context.quorum.read(|state| {
            let end = state.node_id_end();
            let stop = start.saturating_add(SLICE_IDS).min(end);
            for node in (start..stop).filter_map(|id| state.node(NodeId(id))) {
                if is_meant(node) {
                    capacity.add(state, node);
                }
            }
            start = stop;
            end
        });
        if start >= end {
            break;
        }
        tokio::task::yield_now().await;
    }
    context.quorum.read(|state| (capacity.answer(state), state.index()))
}

/// The service for nodes seen from outside.
pub struct NodeAdminApi {
    context: Context,
}

impl NodeAdminApi {
    /// The service, ready to be added to the public port.
    pub fn service(context: Context) -> NodeAdminServiceServer<Self> {
        NodeAdminServiceServer::new(Self { context }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Waits until the state here is as fresh as asked.
    async fn settle(&self, consistency: i32, time: Duration) -> Result<(), Status> {
        read_point(&self.context, consistency, clock::deadline(time)).await.map(|_| ())
    }

    /// Has one command of the caller logged; the state here shows it afterwards.
    async fn write(&self, caller: &Caller, command: Command, time: Duration) -> Result<(), Status> {
        let (by, deadline) = (caller.actor.clone(), clock::deadline(time));
        propose(&self.context, by, command, deadline).await.map(|_| ())
    }

    /// The caller's node as it is here, and the index it was read at.
    fn show(&self, caller: &Caller, id: NodeId, replicas: bool) -> Result<(v1::Node, u64), Status> {
        self.context.quorum.read(|state| {
            let node = own_node(state, caller, id)?;
            Ok((convert::node::node(state, node, replicas), state.index()))
        })
    }

    async fn set_eligibility<T>(
        &self,
        request: &Request<T>,
        id: u32,
        eligibility: Eligibility,
    ) -> Result<(v1::Node, u64), Status> {
        let (caller, time) = (Caller::of(request)?, time_left(request, WRITE_TIME));
        let node = NodeId(id);
        self.write(&caller, Command::SetEligibility { node, eligibility }, time).await?;
        self.show(&caller, node, false)
    }
}

fn own_node<'s>(state: &'s State, caller: &Caller, id: NodeId) -> Result<&'s Node, Status> {
    let node = state.node(id).filter(|node| caller.sees_supplier(&node.supplier));
    node.map(AsRef::as_ref).ok_or_else(|| status::not_found(Kind::Node, id))
}

fn labelled<T>(answer: T, index: u64) -> Response<T> {
    let mut response = Response::new(answer);
    status::label_applied(response.metadata_mut(), index);
    response
}

/// First node id of the page that a token asks for.
fn page_start(token: &str) -> Result<u32, Status> {
    if token.is_empty() {
        return Ok(0);
    }
    let start = token.strip_prefix('n').and_then(|id| id.parse().ok());
    start.ok_or_else(|| status::bad_field("page_token", "was not given by this service"))
}

fn page_token(start: u32) -> String {
    format!("n{start}")
}

/// First pair of the page of round trips that a token asks for.
fn pair_start(token: &str) -> Result<(SiteId, SiteId), Status> {
    if token.is_empty() {
        return Ok((SiteId(0), SiteId(0)));
    }
    let pair = token.strip_prefix('r').and_then(|pair| pair.split_once('-'));
    let pair = pair.and_then(|(a, b)| Some((SiteId(a.parse().ok()?), SiteId(b.parse().ok()?))));
    pair.ok_or_else(|| status::bad_field("page_token", "was not given by this service"))
}

fn pair_token((a, b): (SiteId, SiteId)) -> String {
    format!("r{}-{}", a.0, b.0)
}

#[tonic::async_trait]
impl NodeAdminService for NodeAdminApi {
    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let (caller, time) = (Caller::of(&request)?, time_left(&request, READ_TIME));
        let asked = request.into_inner();
        self.settle(asked.consistency, time).await?;
        let (node, index) = self.show(&caller, NodeId(asked.node_id), true)?;
        Ok(labelled(v1::GetNodeResponse { node: Some(node) }, index))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let (caller, time) = (Caller::of(&request)?, time_left(&request, READ_TIME));
        let asked = request.into_inner();
        let wanted_status = convert::node::status_filter(asked.status)?;
        let size = page_size(asked.page_size)?;
        let region = asked.region.as_str();
        if !region.is_empty() {
            convert::node::name("region", region)?;
        }
        let mut start = page_start(&asked.page_token)?;
        self.settle(asked.consistency, time).await?;
        let wanted = |node: &Node| {
            caller.sees_supplier(&node.supplier)
                && wanted_status.is_none_or(|wanted| wanted == node.status)
                && (region.is_empty() || region == node.place.region.as_str())
        };
        let mut nodes = Vec::new();
        // One slice after the other, so that a filter that matches little does not stop the world.
        loop {
            let (index, end) = self.context.quorum.read(|state| {
                let end = state.node_id_end();
                let stop = start.saturating_add(SLICE_IDS).min(end);
                while start < stop && nodes.len() < size {
                    if let Some(node) = state.node(NodeId(start)).filter(|node| wanted(node)) {
                        nodes.push(convert::node::node(state, node, false));
                    }
                    start += 1;
                }
                (state.index(), end)
            });
            if start >= end || nodes.len() >= size {
                let next_page_token = if start >= end { String::new() } else { page_token(start) };
                return Ok(labelled(v1::ListNodesResponse { nodes, next_page_token }, index));
            }
            tokio::task::yield_now().await;
        }
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let id = request.get_ref().node_id;
        let (node, index) = self.set_eligibility(&request, id, Eligibility::Draining).await?;
        Ok(labelled(v1::DrainNodeResponse { node: Some(node) }, index))
    }

    async fn cordon_node(
        &self,
        request: Request<v1::CordonNodeRequest>,
    ) -> Result<Response<v1::CordonNodeResponse>, Status> {
        let id = request.get_ref().node_id;
        let (node, index) = self.set_eligibility(&request, id, Eligibility::Cordoned).await?;
        Ok(labelled(v1::CordonNodeResponse { node: Some(node) }, index))
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::UncordonNodeRequest>,
    ) -> Result<Response<v1::UncordonNodeResponse>, Status> {
        let id = request.get_ref().node_id;
        let (node, index) = self.set_eligibility(&request, id, Eligibility::Eligible).await?;
        Ok(labelled(v1::UncordonNodeResponse { node: Some(node) }, index))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let (caller, time) = (Caller::of(&request)?, time_left(&request, WRITE_TIME));
        let asked = request.into_inner();
        let (node, force) = (NodeId(asked.node_id), asked.force);
        self.write(&caller, Command::RemoveNode { node, force }, time).await?;
        tracing::info!(%node, force, "a node was removed");
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn get_capacity(
        &self,
        request: Request<v1::GetCapacityRequest>,
    ) -> Result<Response<v1::GetCapacityResponse>, Status> {
        let (caller, time) = (Caller::of(&request)?, time_left(&request, READ_TIME));
        self.settle(request.get_ref().consistency, time).await?;
        let (answer, index) =
            capacity(&self.context, |node| caller.sees_supplier(&node.supplier)).await;
        Ok(labelled(answer, index))
    }

    async fn set_site_rtts(
        &self,
        request: Request<v1::SetSiteRttsRequest>,
    ) -> Result<Response<v1::SetSiteRttsResponse>, Status> {
        let (caller, time) = (Caller::of(&request)?, time_left(&request, WRITE_TIME));
        let rtts = convert::node::site_rtts(&request.get_ref().rtts)?;
        self.write(&caller, Command::SetSiteRtts(rtts), time).await?;
        Ok(Response::new(v1::SetSiteRttsResponse {}))
    }

    async fn list_site_rtts(
        &self,
        request: Request<v1::ListSiteRttsRequest>,
    ) -> Result<Response<v1::ListSiteRttsResponse>, Status> {
        let time = time_left(&request, READ_TIME);
        let asked = request.into_inner();
        let (size, start) = (page_size(asked.page_size)?, pair_start(&asked.page_token)?);
        self.settle(asked.consistency, time).await?;
        let (answer, index) = self.context.quorum.read(|state| {
            let sites = state.sites();
            let mut pairs = sites.rtts_from(start);
            let page = pairs.by_ref().take(size);
            let rtts =
                page.filter_map(|(a, b, told)| convert::node::shown_rtt(sites, (a, b), told));
            let rtts = rtts.collect();
            let next_page_token = pairs.next().map(|(a, b, _)| pair_token((a, b)));
            let next_page_token = next_page_token.unwrap_or_default();
            (v1::ListSiteRttsResponse { rtts, next_page_token }, state.index())
        });
        Ok(labelled(answer, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_come_back_as_given_and_others_are_refused() {
        assert_eq!(page_start("").expect("the start"), 0);
        assert_eq!(page_start(&page_token(77)).expect("ours"), 77);
        for token in ["77", "n", "n-1", "nn7", "n99999999999", "../"] {
            let refusal = page_start(token).expect_err(token);
            assert!(refusal.message().starts_with("page_token"), "{refusal}");
        }
        let pair = (SiteId(3), SiteId(4_095));
        assert_eq!(pair_start("").expect("the start"), (SiteId(0), SiteId(0)));
        assert_eq!(pair_start(&pair_token(pair)).expect("ours"), pair);
        for token in ["n7", "r", "r1", "r1-", "r-1-2", "r1-70000", "r1-2-3"] {
            let refusal = pair_start(token).expect_err(token);
            assert!(refusal.message().starts_with("page_token"), "{refusal}");
        }
    }
}
