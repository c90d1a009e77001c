//! `nodes`, `node`, `drain`, `cordon`, `uncordon`, `remove`, `gpus`.

use super::{Context, consistency, missing};
use crate::answer::capacity::Capacity;
use crate::answer::node::Node;
use crate::answer::{Done, List};
use crate::args::{NodeArgs, NodeStatus, NodesArgs, ReadArgs, RemoveArgs};
use crate::exit::{Ending, Exit};
use proto::v1;

/// Largest page that servers give.
const PAGE_MAX: u32 = 1_000;

pub(super) async fn list(context: &Context, args: NodesArgs) -> Ending {
    let limit = args.limit as usize;
    let status = match args.status {
        None => v1::NodeStatus::Unspecified,
        Some(NodeStatus::Up) => v1::NodeStatus::Up,
        Some(NodeStatus::Down) => v1::NodeStatus::Down,
    };
    let mut items: Vec<Node> = Vec::new();
    let mut page_token = String::new();
    let more = loop {
        let request = v1::ListNodesRequest {
            page_size: args.limit.min(PAGE_MAX),
            page_token: page_token.clone(),
            status: status.into(),
            region: args.region.clone(),
            consistency: consistency(args.read),
        };
        let page = context.client.page_of_nodes(&request).await?;
        items.extend(page.nodes.into_iter().map(Node::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || items.len() >= limit {
            break !page_token.is_empty() || items.len() > limit;
        }
    };
    items.truncate(limit);
    context.show_list(&List { items, more }, "no such nodes", "there are more; --limit shows them")
}

pub(super) async fn show(context: &Context, args: NodeArgs) -> Ending {
    let request = v1::GetNodeRequest { node_id: args.id, consistency: consistency(args.read) };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request);
            async move { attempt.nodes().get_node(request).await }
        })
        .await?;
    show_node(context, answer.node)
}

pub(super) async fn drain(context: &Context, id: u32) -> Ending {
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(v1::DrainNodeRequest { node_id: id });
            async move { attempt.nodes().drain_node(request).await }
        })
        .await?;
    show_node(context, answer.node)?;
    context.output.suggest(&format!(
        "muster node {id} shows what is still there; muster uncordon {id} takes it back"
    ));
    Ok(Exit::Done)
}

pub(super) async fn cordon(context: &Context, id: u32) -> Ending {
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(v1::CordonNodeRequest { node_id: id });
            async move { attempt.nodes().cordon_node(request).await }
        })
        .await?;
    show_node(context, answer.node)?;
    context.output.suggest(&format!("muster uncordon {id} takes it back"));
    Ok(Exit::Done)
}

pub(super) async fn uncordon(context: &Context, id: u32) -> Ending {
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(v1::UncordonNodeRequest { node_id: id });
            async move { attempt.nodes().uncordon_node(request).await }
        })
        .await?;
    show_node(context, answer.node)
}

pub(super) async fn remove(context: &Context, args: RemoveArgs) -> Ending {
    let request = v1::RemoveNodeRequest { node_id: args.id, force: args.force };
    context
        .client
        .call_alone(|attempt| {
            let request = attempt.request(request);
            async move { attempt.nodes().remove_node(request).await }
        })
        .await?;
    context.output.show(&Done::new(format!("node {} is forgotten", args.id)))?;
    Ok(Exit::Done)
}

pub(super) async fn gpus(context: &Context, args: ReadArgs) -> Ending {
    let request = v1::GetCapacityRequest { consistency: consistency(args) };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request);
            async move { attempt.nodes().get_capacity(request).await }
        })
        .await?;
    context.output.show(&Capacity::from(answer))?;
    Ok(Exit::Done)
}

fn show_node(context: &Context, node: Option<v1::Node>) -> Ending {
    context.output.show(&Node::from(node.ok_or_else(|| missing("node"))?))?;
    Ok(Exit::Done)
}
