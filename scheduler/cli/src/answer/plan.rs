//! Dry runs as answers.

use super::job::{Reason, Replica, placement_table};
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{decimal, dollars_rounded, grouped, rtt};
use manifest::native::Manifest;
use proto::v1;
use serde::Serialize;

/// Where a job would go, or why not.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Whether it would be placed now.
    pub placeable: bool,
    /// What the file was understood as.
    pub spec: Manifest,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Nodes of the fleet by cause; they add up to `nodes_total`.
    pub causes: Vec<Cause>,
    /// Nodes in the fleet.
    pub nodes_total: u32,
    /// Replicas asked for.
    pub replicas_wanted: u64,
    /// Replicas that could be placed now.
    pub replicas_placeable: u32,
    /// Smallest RTT bound in microseconds with which it would fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us_needed: Option<u32>,
    /// Nodes used.
    pub nodes: u32,
    /// Widest round trip in microseconds.
    pub rtt_us_widest: u32,
    /// Regions used.
    pub regions: Vec<String>,
    /// Price of an hour in millionths of a US dollar.
    pub price_micro_usd_per_hour: u64,
    /// Price of the whole duration in millionths of a US dollar, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price_micro_usd_total: Option<u64>,
    /// Log index of the state it was computed against.
    pub index: u64,
    /// Time of the planner in microseconds.
    pub decide_us: u64,
    /// Where every replica would go.
    pub replicas: Vec<Replica>,
}

/// Nodes that fell out for one cause.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// Cause.
    pub cause: String,
    /// Nodes.
    pub nodes: u32,
}

impl Plan {
    /// The answer to a dry run of a spec.
    pub fn new(spec: &v1::JobSpec, response: v1::PlanJobResponse) -> Self {
        let per_hour = response.price_micro_usd_per_hour;
        let total = u128::from(per_hour) * u128::from(spec.duration_s) / 3_600;
        Self {
            placeable: response.placeable,
            spec: Manifest::from(spec),
            reason: response
                .reason
                .filter(|r| r.code != 0 || !r.message.is_empty())
                .map(Reason::from),
            causes: response
                .causes
                .into_iter()
                .map(|c| Cause { cause: c.cause, nodes: c.nodes })
                .collect(),
            nodes_total: response.nodes_total,
            replicas_wanted: spec.groups.iter().map(|g| u64::from(g.replicas)).sum(),
            replicas_placeable: response.replicas_placeable,
            rtt_us_needed: (response.rtt_us_needed > 0).then_some(response.rtt_us_needed),
            nodes: response.nodes,
            rtt_us_widest: response.rtt_us_widest,
            regions: response.regions,
            price_micro_usd_per_hour: per_hour,
            price_micro_usd_total: (spec.duration_s > 0)
                .then(|| u64::try_from(total).unwrap_or(u64::MAX)),
            index: response.index,
            decide_us: response.decide_us,
            replicas: response.replicas.into_iter().map(Replica::from).collect(),
        }
    }

    fn placed(&self) -> Table {
        let mut table = Table::fields().titled("It would be placed now.");
        table.field("Replicas", grouped(self.replicas_wanted));
        table.field(
            "Nodes",
            format!(
                "{} of {}",
                grouped(u64::from(self.nodes)),
                grouped(u64::from(self.nodes_total))
            ),
        );
        table.field(
            "Regions",
            if self.regions.is_empty() { "-".into() } else { self.regions.join(", ") },
        );
        table.field("Widest RTT", rtt(self.rtt_us_widest));
        table.field(
            "Price per hour",
            format!("$ {}", dollars_rounded(self.price_micro_usd_per_hour)),
        );
        if let Some(total) = self.price_micro_usd_total {
            table.field("Price in all", format!("$ {}", dollars_rounded(total)));
        }
        table.field("Decided in", format!("{} ms", decimal(self.decide_us, 3)));
        table.field("State index", self.index.to_string());
        table
    }

    fn not_placed(&self) -> Vec<Table> {
        let why =
            self.reason.as_ref().map(|r| format!("{}: {}", r.code, r.message)).unwrap_or_default();
        let mut table = Table::fields().titled(format!("It would wait. {why}"));
        let wanted = grouped(self.replicas_wanted);
        table.field(
            "Fits now",
            format!("{} of {wanted} replicas", grouped(u64::from(self.replicas_placeable))),
        );
        if let Some(us) = self.rtt_us_needed {
            table.field("Would fit with", format!("max_rtt: {}", rtt(us)));
        }
        table.field("Decided in", format!("{} ms", decimal(self.decide_us, 3)));
        table.field("State index", self.index.to_string());
        let mut causes = Table::new(&[">NODES", "CAUSE"]);
        for cause in &self.causes {
            causes.row(vec![grouped(u64::from(cause.nodes)), cause.cause.clone()]);
        }
        causes.row(vec![grouped(u64::from(self.nodes_total)), "in all".to_owned()]);
        vec![table, causes]
    }
}

impl Answer for Plan {
    fn tables(&self, wide: bool) -> Vec<Table> {
        if !self.placeable {
            return self.not_placed();
        }
        vec![self.placed(), placement_table(&self.replicas, wide)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, render};

    fn spec() -> v1::JobSpec {
        manifest::read(
            "kind: ray\nname: a\nduration: 2h\ngroups: [{name: w, replicas: 10, gpus: 8}]",
        )
        .expect("valid")
        .spec
    }

    #[test]
    fn a_plan_shows_nodes_and_price() {
        let response = v1::PlanJobResponse {
            placeable: true,
            nodes: 10,
            nodes_total: 1500,
            regions: vec!["eu-west".into()],
            rtt_us_widest: 900,
            price_micro_usd_per_hour: 200_000_000,
            index: 4711,
            decide_us: 1234,
            ..Default::default()
        };
        let text = render(Format::Table, &Plan::new(&spec(), response)).expect("render");
        assert!(text.starts_with(
            "It would be placed now.\nReplicas        10\nNodes           10 of 1,500\nRegions         eu-west\n\
             Widest RTT      0.9ms\nPrice per hour  $ 200.00\nPrice in all    $ 400.00\nDecided in      1.234 ms\n\
             State index     4711\n"
        ), "{text}");
    }

    #[test]
    fn a_refusal_shows_counts_that_add_up() {
        let cause = |cause: &str, nodes| v1::CauseCount { cause: cause.into(), nodes };
        let response = v1::PlanJobResponse {
            reason: Some(v1::Reason {
                code: v1::ReasonCode::Busy.into(),
                message: "3 of 10 replicas fit".into(),
            }),
            causes: vec![cause("GPU model", 1000), cause("busy", 500)],
            nodes_total: 1500,
            replicas_placeable: 3,
            rtt_us_needed: 80_000,
            ..Default::default()
        };
        let text = render(Format::Table, &Plan::new(&spec(), response)).expect("render");
        assert_eq!(
            text,
            "It would wait. BUSY: 3 of 10 replicas fit\nFits now        3 of 10 replicas\n\
             Would fit with  max_rtt: 80ms\nDecided in      0 ms\nState index     0\n\n\
             NODES  CAUSE\n1,000  GPU model\n  500  busy\n1,500  in all\n"
        );
    }
}
