//! What `dev` measured, as table and as file.

use crate::answer::quorum::Quorum;
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::grouped;
use serde::Serialize;

/// Figures of one deployment.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// GPUs of the cluster.
    pub(super) gpus: u32,
    /// GPUs of the fleet.
    pub(super) gpus_fleet: u64,
    /// Simulated nodes.
    pub(super) nodes: u32,
    /// Servers of the quorum.
    pub(super) servers: u32,
    /// Processes started → one leads and all answer.
    pub(super) quorum_up_ms: f64,
    /// First agent started → all have a session and a desired state.
    pub(super) agents_joined_ms: f64,
    /// Time of the planner.
    pub(super) decide_ms: f64,
    /// Proposal → durable on a majority and applied.
    pub(super) commit_ms: f64,
    /// Request sent → answer received, decided and committed in between.
    pub(super) submit_ms: f64,
    /// Request sent → every agent concerned has its replicas.
    pub(super) dispatch_ms: f64,
    /// Request sent → a watch reports the job READY.
    pub(super) ready_ms: f64,
    /// Number of the job.
    pub(super) job: u64,
    /// Nodes of the cluster.
    pub(super) nodes_used: u32,
    /// Sites of the cluster.
    pub(super) sites: usize,
    /// Regions of the cluster.
    pub(super) regions: Vec<String>,
    /// GPU models of the cluster.
    pub(super) models: Vec<String>,
    /// Widest round trip between two members.
    pub(super) rtt_widest_ms: f64,
    /// Bound that was asked for; 0 = none.
    pub(super) rtt_max_ms: f64,
    /// Leader at the end.
    pub(super) leader: u64,
    /// Term at the end.
    pub(super) term: u64,
    /// Last entry applied, by server.
    pub(super) applied: Vec<Applied>,
    /// Whether the job became READY.
    pub(super) ready: bool,
}

/// How far one server is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Applied {
    /// Number of the server.
    pub(super) server: u64,
    /// Last entry it applied.
    pub(super) index: u64,
}

impl Figures {
    /// Takes in the quorum at the end.
    pub(super) fn set_quorum(&mut self, quorum: &Quorum) {
        self.leader = quorum.leader_id;
        self.term = quorum.term;
        self.applied = quorum
            .servers
            .iter()
            .filter_map(|s| Some(Applied { server: s.server_id, index: s.applied_index? }))
            .collect();
    }
}

impl Answer for Figures {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let ms = |figure: f64| format!("{figure:.1}");
        let mut steps = Table::new(&["STEP", ">MS", "WHAT"]);
        let mut step = |name: &str, figure: f64, what: String| {
            steps.row(vec![name.to_owned(), ms(figure), what]);
        };
        step(
            "quorum up",
            self.quorum_up_ms,
            format!("{} server processes, one leads", self.servers),
        );
        let agents = format!(
            "{} agents with {} GPUs in session",
            grouped(self.nodes.into()),
            grouped(self.gpus_fleet)
        );
        step("agents joined", self.agents_joined_ms, agents);
        step("decide", self.decide_ms, format!("places for {} GPUs", grouped(self.gpus.into())));
        step("commit", self.commit_ms, "synced on a majority, applied".to_owned());
        step(
            "dispatch",
            self.dispatch_ms,
            "since the request: all agents have their replicas".to_owned(),
        );
        step("ready", self.ready_ms, "since the request: all replicas run".to_owned());
        let mut place = Table::fields();
        place.field(
            "Cluster",
            format!(
                "job {}: {} GPUs on {} nodes",
                self.job,
                grouped(self.gpus.into()),
                grouped(self.nodes_used.into())
            ),
        );
        place.field("Models", self.models.join(", "));
        place.field("Regions", format!("{} ({} sites)", self.regions.join(", "), self.sites));
        let bound = if self.rtt_max_ms > 0.0 {
            format!(" (bound {} ms)", ms(self.rtt_max_ms))
        } else {
            String::new()
        };
        place.field("Widest RTT", format!("{} ms{bound}", ms(self.rtt_widest_ms)));
        let applied = self
            .applied
            .iter()
            .map(|one| format!("{}: {}", one.server, one.index))
            .collect::<Vec<_>>()
            .join(", ");
        place.field(
            "Quorum",
            format!("server {} leads in term {}; applied {applied}", self.leader, self.term),
        );
        vec![steps, place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, render};

    #[test]
    fn table() {
        let figures = Figures {
            gpus: 10_000,
            gpus_fleet: 12_000,
            nodes: 1_500,
            servers: 3,
            quorum_up_ms: 812.34,
            agents_joined_ms: 2_400.0,
            decide_ms: 3.25,
            commit_ms: 6.5,
            dispatch_ms: 300.04,
            ready_ms: 700.0,
            job: 1,
            nodes_used: 1_250,
            sites: 12,
            regions: vec!["a".into(), "b".into()],
            models: vec!["A100".into(), "H100-SXM".into()],
            rtt_widest_ms: 216.4,
            rtt_max_ms: 240.0,
            leader: 2,
            term: 1,
            applied: [(1, 40), (2, 41), (3, 41)]
                .map(|(server, index)| Applied { server, index })
                .to_vec(),
            ..Figures::default()
        };
        let text = render(Format::Table, &figures).expect("render");
        assert_eq!(
            text,
            "STEP               MS  WHAT\n\
             quorum up       812.3  3 server processes, one leads\n\
             agents joined  2400.0  1,500 agents with 12,000 GPUs in session\n\
             decide            3.2  places for 10,000 GPUs\n\
             commit            6.5  synced on a majority, applied\n\
             dispatch        300.0  since the request: all agents have their replicas\n\
             ready           700.0  since the request: all replicas run\n\
             \n\
             Cluster     job 1: 10,000 GPUs on 1,250 nodes\n\
             Models      A100, H100-SXM\n\
             Regions     a, b (12 sites)\n\
             Widest RTT  216.4 ms (bound 240.0 ms)\n\
             Quorum      server 2 leads in term 1; applied 1: 40, 2: 41, 3: 41\n"
        );
    }
}
