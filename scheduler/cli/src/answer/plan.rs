//! Dry runs as answers.

use super::explain::{Explanation, Preempted};
use super::job::{Reason, Replica, placement_table};
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{decimal, dollars_rounded, grouped, milli, rtt, time};
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
    /// Why it would be refused instead of waiting.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refusal: String,
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
    /// Mean round trip over all pairs of replicas, in microseconds.
    pub rtt_us_mean: u32,
    /// What it does for every group.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupPlan>,
    /// What it leaves of the fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragmentation: Option<Fragmentation>,
    /// Running jobs that would give way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preempted: Option<Preempted>,
    /// Why not, and what would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Names the plan for `submit --check-index`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub plan_digest: String,
    /// Log index of the state it was computed against.
    pub index: u64,
    /// Time of the planner in microseconds.
    pub decide_us: u64,
    /// Where every replica would go.
    pub replicas: Vec<Replica>,
    /// It is not started before, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin_time: Option<String>,
}

/// Nodes that fell out for one cause.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// Cause.
    pub cause: String,
    /// Nodes.
    pub nodes: u32,
}

/// What a plan does for one group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupPlan {
    /// Name.
    pub group: String,
    /// Replicas placed.
    pub replicas: u32,
    /// Nodes used.
    pub nodes: u32,
    /// GPUs held, in thousandths.
    pub gpu_milli: u64,
    /// Price of an hour in millionths of a US dollar.
    pub price_micro_usd_per_hour: u64,
}

/// How whole the free GPUs of the fleet are.
#[derive(Clone, Debug, Serialize)]
pub struct Fragmentation {
    /// Nodes with all GPUs idle before the plan.
    pub nodes_whole_before: u32,
    /// And after it.
    pub nodes_whole_after: u32,
    /// Idle GPUs on nodes with other GPUs in use before the plan.
    pub gpus_apart_before: u64,
    /// And after it.
    pub gpus_apart_after: u64,
}

impl From<v1::CauseCount> for Cause {
    fn from(count: v1::CauseCount) -> Self {
        Self { cause: count.cause, nodes: count.nodes }
    }
}

impl From<v1::GroupPlan> for GroupPlan {
    fn from(group: v1::GroupPlan) -> Self {
        Self {
            group: group.group,
            replicas: group.replicas,
            nodes: group.nodes,
            gpu_milli: group.gpu_milli,
            price_micro_usd_per_hour: group.price_micro_usd_per_hour,
        }
    }
}

impl From<v1::Fragmentation> for Fragmentation {
    fn from(told: v1::Fragmentation) -> Self {
        Self {
            nodes_whole_before: told.nodes_whole_before,
            nodes_whole_after: told.nodes_whole_after,
            gpus_apart_before: told.gpus_apart_before,
            gpus_apart_after: told.gpus_apart_after,
        }
    }
}

impl Plan {
    /// The answer to a dry run of a spec.
    pub fn new(spec: &v1::JobSpec, response: v1::PlanJobResponse) -> Self {
        Self {
            placeable: response.placeable,
            spec: Manifest::from(spec),
            reason: response
                .reason
                .filter(|r| r.code != 0 || !r.message.is_empty())
                .map(Reason::from),
            refusal: response.refusal,
            causes: response.causes.into_iter().map(Cause::from).collect(),
            nodes_total: response.nodes_total,
            replicas_wanted: spec.groups.iter().map(|g| u64::from(g.replicas)).sum(),
            replicas_placeable: response.replicas_placeable,
            rtt_us_needed: (response.rtt_us_needed > 0).then_some(response.rtt_us_needed),
            nodes: response.nodes,
            rtt_us_widest: response.rtt_us_widest,
            regions: response.regions,
            price_micro_usd_per_hour: response.price_micro_usd_per_hour,
            price_micro_usd_total: (response.placeable && spec.duration_s > 0)
                .then_some(response.price_micro_usd_total),
            rtt_us_mean: response.rtt_us_mean,
            groups: response.groups.into_iter().map(GroupPlan::from).collect(),
            fragmentation: response.fragmentation.map(Fragmentation::from),
            preempted: response.preempted.map(Preempted::from),
            explanation: response.explanation.map(Explanation::from),
            plan_digest: response.plan_digest,
            index: response.index,
            decide_us: response.decide_us,
            replicas: response.replicas.into_iter().map(Replica::from).collect(),
            begin_time: time(spec.begin_time_ms),
        }
    }

    fn placed(&self) -> Table {
        let begin = self.begin_time.as_deref();
        let mut table = Table::fields().titled(match begin {
            Some(begin) => format!("It fits now, and is not started before {begin}."),
            None if self.preempted.is_some() => {
                "It would be placed now, in place of running jobs of lower priorities.".to_owned()
            }
            None => "It would be placed now.".to_owned(),
        });
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
        table.field("Mean RTT", rtt(self.rtt_us_mean));
        table.field(
            "Price per hour",
            format!("$ {}", dollars_rounded(self.price_micro_usd_per_hour)),
        );
        if let Some(total) = self.price_micro_usd_total {
            table.field("Price in all", format!("$ {}", dollars_rounded(total)));
        }
        if let Some(gives) = &self.preempted {
            table.field("Give way", told(gives));
        }
        if let Some(left) = &self.fragmentation {
            let change = |before: u64, after: u64| {
                if before == after {
                    grouped(after)
                } else {
                    format!("{} -> {}", grouped(before), grouped(after))
                }
            };
            let (before, after) = (left.nodes_whole_before, left.nodes_whole_after);
            table.field("Whole nodes free", change(before.into(), after.into()));
            let (before, after) = (left.gpus_apart_before, left.gpus_apart_after);
            table.field("Other GPUs free", change(before, after));
        }
        table.field("Decided in", format!("{} ms", decimal(self.decide_us, 3)));
        table.field("State index", self.index.to_string());
        if !self.plan_digest.is_empty() {
            table.field("Plan digest", &self.plan_digest);
        }
        table
    }

    fn group_table(&self) -> Table {
        let mut table = Table::new(&["GROUP", ">REPLICAS", ">NODES", ">GPUS", ">$/HOUR"]);
        for group in &self.groups {
            table.row(vec![
                group.group.clone(),
                grouped(u64::from(group.replicas)),
                grouped(u64::from(group.nodes)),
                milli(group.gpu_milli),
                dollars_rounded(group.price_micro_usd_per_hour),
            ]);
        }
        table
    }

    fn not_placed(&self) -> Vec<Table> {
        let message = self.reason.as_ref().map_or("", |reason| reason.message.as_str());
        let code = match (&self.explanation, &self.reason) {
            (Some(told), _) => told.verdict_words(),
            (None, Some(reason)) => reason.code.clone(),
            (None, None) => String::new(),
        };
        let title = match self.refusal.as_str() {
            "" => format!("It would wait. {code}: {message}"),
            refusal => format!("It would be refused. {code}: {refusal}"),
        };
        let mut table = Table::fields().titled(title);
        let wanted = grouped(self.replicas_wanted);
        table.field(
            "Fits now",
            format!("{} of {wanted} replicas", grouped(u64::from(self.replicas_placeable))),
        );
        if let (Some(us), None) = (self.rtt_us_needed, &self.explanation) {
            table.field("Would fit with", format!("max_rtt: {}", rtt(us)));
        }
        table.field("Decided in", format!("{} ms", decimal(self.decide_us, 3)));
        table.field("State index", self.index.to_string());
        let mut tables = vec![table];
        match &self.explanation {
            Some(told) => tables.extend(told.tables()),
            None => {
                let mut causes = Table::new(&[">NODES", "CAUSE"]);
                for cause in &self.causes {
                    causes.row(vec![grouped(u64::from(cause.nodes)), cause.cause.clone()]);
                }
                causes.row(vec![grouped(u64::from(self.nodes_total)), "in all".to_owned()]);
                tables.push(causes);
            }
        }
        tables
    }
}

/// Who would give way, in one line.
fn told(gives: &Preempted) -> String {
    let mut told = Vec::new();
    if gives.jobs_whole > 0 {
        told.push(format!("{} job(s) go back to the queue", gives.jobs_whole));
    }
    if gives.jobs_part > 0 {
        told.push(format!("{} lose spare replicas", gives.jobs_part));
    }
    let own: Vec<String> = gives.job_ids_own.iter().map(u64::to_string).collect();
    let own = match own.as_slice() {
        [] => String::new(),
        own => format!("; own jobs {}", own.join(", ")),
    };
    format!("{} ({} GPUs{own})", told.join(", "), milli(gives.gpu_milli))
}

impl Answer for Plan {
    fn tables(&self, wide: bool) -> Vec<Table> {
        if !self.placeable {
            return self.not_placed();
        }
        let mut tables = vec![self.placed()];
        if self.groups.len() > 1 {
            tables.push(self.group_table());
        }
        tables.push(placement_table(&self.replicas, wide));
        tables
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
            rtt_us_mean: 450,
            price_micro_usd_per_hour: 200_000_000,
            price_micro_usd_total: 400_000_000,
            index: 4711,
            decide_us: 1234,
            ..Default::default()
        };
        let text = render(Format::Table, &Plan::new(&spec(), response)).expect("render");
        assert!(text.starts_with(
            "It would be placed now.\nReplicas        10\nNodes           10 of 1,500\nRegions         eu-west\n\
             Widest RTT      0.9ms\nMean RTT        0.45ms\nPrice per hour  $ 200.00\nPrice in all    $ 400.00\nDecided in      1.234 ms\n\
             State index     4711\n"
        ), "{text}");
    }

    #[test]
    fn who_would_give_way_is_told() {
        let own = |job_ids_own| v1::Preempted {
            jobs_whole: 2,
            jobs_part: 1,
            gpu_milli: 24_000,
            job_ids_own,
        };
        for (job_ids_own, told) in [(vec![], ""), (vec![3, 5], "; own jobs 3, 5")] {
            let preempted = Some(own(job_ids_own));
            let response = v1::PlanJobResponse { placeable: true, preempted, ..Default::default() };
            let text = render(Format::Table, &Plan::new(&spec(), response)).expect("render");
            let line =
                format!("2 job(s) go back to the queue, 1 lose spare replicas (24 GPUs{told})\n");
            assert!(text.contains(&line), "{text}");
            assert!(text.starts_with("It would be placed now, in place of running"), "{text}");
        }
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
        let text = render(Format::Table, &Plan::new(&spec(), response.clone())).expect("render");
        assert_eq!(
            text,
            "It would wait. BUSY: 3 of 10 replicas fit\nFits now        3 of 10 replicas\n\
             Would fit with  max_rtt: 80ms\nDecided in      0 ms\nState index     0\n\n\
             NODES  CAUSE\n1,000  GPU model\n  500  busy\n1,500  in all\n"
        );
        let refused = v1::PlanJobResponse { refusal: "too much".to_owned(), ..response };
        let text = render(Format::Table, &Plan::new(&spec(), refused)).expect("render");
        assert!(text.starts_with("It would be refused. BUSY: too much\n"), "{text}");
    }
}
