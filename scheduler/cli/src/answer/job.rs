//! Jobs and their replicas as answers.

use super::{Listed, or_dash, word};
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{age, grouped, milli, now_ms, ranges, rtt, time};
use manifest::native::Manifest;
use proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows of replicas that a table shows unless `-o wide` asks for all.
const REPLICA_ROWS_MAX: usize = 20;

/// A job.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Number.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Tenant that owns it.
    pub tenant: String,
    /// RAY, KUBERNETES or PLAIN.
    pub kind: String,
    /// Who goes first among those that wait.
    pub priority: i32,
    /// Times that jobs of a higher priority took GPUs from it.
    pub preemptions: u32,
    /// How far it has come.
    pub phase: String,
    /// Why it waits or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Replicas by phase.
    pub replica_counts: Counts,
    /// Nodes that hold live replicas.
    pub nodes: u32,
    /// GPUs that live replicas hold, in thousandths.
    pub gpu_milli: u64,
    /// Widest round trip between two members, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us_widest: Option<u32>,
    /// Regions of live replicas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Groups that are placed and start once others run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups_waiting: Vec<GroupWait>,
    /// Request id it was submitted with.
    pub request_id: String,
    /// Log index of the last change.
    pub modified_index: u64,
    /// When it is started at the earliest, RFC 3339; `spec` has it too.
    #[serde(skip)]
    begin_time: Option<String>,
    /// When it is over at the latest.
    #[serde(skip)]
    deadline_time: Option<String>,
    /// Acceptance, RFC 3339.
    pub submitted_time: Option<String>,
    /// First placement, RFC 3339.
    pub placed_time: Option<String>,
    /// First time ready, RFC 3339.
    pub ready_time: Option<String>,
    /// End, RFC 3339.
    pub ended_time: Option<String>,
    /// What was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Manifest>,
    /// Its members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<Replica>>,
    /// Its groups, for the table; `spec` has them too.
    #[serde(skip)]
    groups: Vec<GroupSize>,
    #[serde(skip)]
    submitted_ms: u64,
    #[serde(skip)]
    now_ms: u64,
}

/// How large a group is and may be.
#[derive(Clone, Debug)]
struct GroupSize {
    name: String,
    replicas: u32,
    replicas_min: u32,
    replicas_max: u32,
}

/// Why a job waits or ended.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A group that is placed and waits for others.
#[derive(Clone, Debug, Serialize)]
pub struct GroupWait {
    /// Its name.
    pub group: String,
    /// Groups that do not have their minimum running yet.
    pub waits_for: Vec<String>,
}

/// Replicas by phase.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    waiting: u32,
    assigned: u32,
    starting: u32,
    ready: u32,
    succeeded: u32,
    failed: u32,
    released: u32,
}

/// One member of a job.
#[derive(Clone, Debug, Serialize)]
pub struct Replica {
    /// Rank inside the job.
    pub rank: u32,
    /// Name of its group.
    pub group: String,
    /// How it is.
    pub phase: String,
    /// Node that holds or last held it.
    pub node_id: Option<u32>,
    /// Name of that node.
    pub node: String,
    /// Indexes of its GPUs on the node.
    pub gpus: Vec<u32>,
    /// Thousandths of the one GPU; 0 = whole GPUs.
    pub gpu_milli: u32,
    /// Times it failed or lost its node.
    pub failures: u32,
}

impl From<v1::Reason> for Reason {
    fn from(reason: v1::Reason) -> Self {
        Self { code: word(reason.code().as_str_name(), "REASON_CODE_"), message: reason.message }
    }
}

impl From<v1::GroupWait> for GroupWait {
    fn from(wait: v1::GroupWait) -> Self {
        Self { group: wait.group, waits_for: wait.waits_for }
    }
}

impl From<v1::Replica> for Replica {
    fn from(replica: v1::Replica) -> Self {
        Self {
            rank: replica.rank,
            phase: word(replica.phase().as_str_name(), "REPLICA_PHASE_"),
            node_id: replica.bound.then_some(replica.node_id),
            group: replica.group,
            node: replica.node_name,
            gpus: replica.gpus,
            gpu_milli: replica.gpu_milli,
            failures: replica.failures,
        }
    }
}

impl From<&v1::Group> for GroupSize {
    fn from(group: &v1::Group) -> Self {
        Self {
            name: group.name.clone(),
            replicas: group.replicas,
            replicas_min: group.replicas_min,
            replicas_max: group.replicas_max,
        }
    }
}

impl From<v1::Job> for Job {
    fn from(job: v1::Job) -> Self {
        let counts = job.counts.unwrap_or_default();
        Self {
            id: job.id,
            phase: word(job.phase().as_str_name(), "JOB_PHASE_"),
            kind: word(job.kind().as_str_name(), "JOB_KIND_"),
            priority: job.priority,
            preemptions: job.preemptions,
            groups: job.spec.iter().flat_map(|spec| &spec.groups).map(GroupSize::from).collect(),
            begin_time: job.spec.as_ref().and_then(|spec| time(spec.begin_time_ms)),
            deadline_time: job.spec.as_ref().and_then(|spec| time(spec.deadline_time_ms)),
            spec: job.spec.as_ref().map(Manifest::from),
            name: job.name,
            tenant: job.tenant,
            reason: job.reason.filter(|r| r.code != 0 || !r.message.is_empty()).map(Reason::from),
            replica_counts: Counts {
                waiting: counts.waiting,
                assigned: counts.assigned,
                starting: counts.starting,
                ready: counts.ready,
                succeeded: counts.succeeded,
                failed: counts.failed,
                released: counts.released,
            },
            nodes: job.nodes,
            gpu_milli: job.gpu_milli,
            rtt_us_widest: (job.rtt_us_widest > 0).then_some(job.rtt_us_widest),
            regions: job.regions,
            groups_waiting: job.groups_waiting.into_iter().map(GroupWait::from).collect(),
            request_id: job.request_id,
            modified_index: job.modified_index,
            submitted_time: time(job.submitted_time_ms),
            placed_time: time(job.placed_time_ms),
            ready_time: time(job.ready_time_ms),
            ended_time: time(job.ended_time_ms),
            replicas: None,
            submitted_ms: job.submitted_time_ms,
            now_ms: now_ms(),
        }
    }
}

impl Counts {
    /// All replicas.
    pub fn total(&self) -> u32 {
        let live = self.waiting + self.assigned + self.starting + self.ready;
        live + self.succeeded + self.failed + self.released
    }

    /// The phases that hold replicas: "1200 ready, 50 starting".
    pub fn words(&self) -> String {
        let phases = [
            (self.ready, "ready"),
            (self.starting, "starting"),
            (self.assigned, "assigned"),
            (self.waiting, "waiting"),
            (self.succeeded, "succeeded"),
            (self.failed, "failed"),
            (self.released, "released"),
        ];
        let words: Vec<_> = phases
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, w)| format!("{} {w}", grouped(u64::from(*n))))
            .collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

impl Job {
    /// With its replicas.
    pub fn with_replicas(mut self, replicas: Vec<v1::Replica>) -> Self {
        self.replicas = Some(replicas.into_iter().map(Replica::from).collect());
        self
    }

    /// One line about how it is, for a watch.
    pub fn line(&self) -> String {
        let reason =
            self.reason.as_ref().map(|r| format!(": {} {}", r.code, r.message)).unwrap_or_default();
        format!(
            "{} job {} {} ({}){reason}",
            jiff_time(self.now_ms),
            self.id,
            self.phase,
            self.replica_counts.words()
        )
    }

    fn group_table(&self) -> Option<Table> {
        let mut table = Table::new(&["GROUP", ">REPLICAS", ">MIN", ">MAX"]);
        for group in &self.groups {
            let sizes = [group.replicas, group.replicas_min, group.replicas_max];
            let sizes = sizes.map(|size| grouped(u64::from(size)));
            table.row([group.name.clone()].into_iter().chain(sizes).collect());
        }
        (!self.groups.is_empty()).then_some(table)
    }

    fn summary(&self) -> Table {
        let mut table = Table::fields();
        table.field("Job", self.id.to_string());
        table.field("Name", &self.name);
        table.field("Tenant", &self.tenant);
        table.field("Kind", &self.kind);
        if self.priority != 0 {
            table.field("Priority", self.priority.to_string());
        }
        table.field("Phase", &self.phase);
        if let Some(reason) = &self.reason {
            table.field("Reason", format!("{} {}", reason.code, reason.message));
        }
        if self.preemptions > 0 {
            table.field("Preemptions", grouped(u64::from(self.preemptions)));
        }
        table.field("Replicas", self.replica_counts.words());
        for wait in &self.groups_waiting {
            let groups = if wait.waits_for.len() == 1 { "group" } else { "groups" };
            let others = wait.waits_for.join(", ");
            table.field("Not started", format!("{} waits for {groups} {others}", wait.group));
        }
        table.field("GPUs", grouped_milli(self.gpu_milli));
        table.field("Nodes", grouped(u64::from(self.nodes)));
        if let Some(us) = self.rtt_us_widest {
            table.field("Widest RTT", rtt(us));
        }
        if !self.regions.is_empty() {
            table.field("Regions", self.regions.join(", "));
        }
        let times = [
            ("Begins", &self.begin_time),
            ("Deadline", &self.deadline_time),
            ("Submitted", &self.submitted_time),
            ("Placed", &self.placed_time),
            ("Ready", &self.ready_time),
            ("Ended", &self.ended_time),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                table.field(name, time);
            }
        }
        table.field("Request id", &self.request_id);
        table
    }
}

fn jiff_time(ms: u64) -> String {
    time(ms).unwrap_or_default()
}

fn grouped_milli(gpu_milli: u64) -> String {
    if gpu_milli.is_multiple_of(1000) { grouped(gpu_milli / 1000) } else { milli(gpu_milli) }
}

/// Replicas as rows.
fn replica_table(replicas: &[Replica], wide: bool) -> Table {
    let columns = [">RANK", "GROUP", "PHASE", ">NODE", "NAME", "GPUS", ">FAILURES"];
    rows(&columns, replicas, wide, |replica| {
        vec![
            replica.rank.to_string(),
            replica.group.clone(),
            replica.phase.clone(),
            replica.node_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            or_dash(&replica.node),
            replica.gpu_words(),
            replica.failures.to_string(),
        ]
    })
}

/// Where replicas would go, as rows.
pub fn placement_table(replicas: &[Replica], wide: bool) -> Table {
    rows(&[">RANK", "GROUP", ">NODE", "NAME", "GPUS"], replicas, wide, |replica| {
        vec![
            replica.rank.to_string(),
            replica.group.clone(),
            replica.node_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            or_dash(&replica.node),
            replica.gpu_words(),
        ]
    })
}

fn rows(
    columns: &[&'static str],
    replicas: &[Replica],
    wide: bool,
    cells: impl Fn(&Replica) -> Vec<String>,
) -> Table {
    let mut table = Table::new(columns);
    let shown = if wide { replicas.len() } else { REPLICA_ROWS_MAX.min(replicas.len()) };
    for replica in &replicas[..shown] {
        table.row(cells(replica));
    }
    if shown < replicas.len() {
        table.note(format!("... and {} more; -o wide shows all", replicas.len() - shown));
    }
    table
}

impl Replica {
    fn gpu_words(&self) -> String {
        match (self.gpus.as_slice(), self.gpu_milli) {
            ([], _) => "-".to_owned(),
            (gpus, 0) => ranges(gpus.iter().copied()),
            (gpus, share) => {
                format!("{} x {}", ranges(gpus.iter().copied()), milli(u64::from(share)))
            }
        }
    }
}

impl Answer for Job {
    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut tables = vec![self.summary()];
        tables.extend(self.group_table());
        if let Some(replicas) = &self.replicas {
            let mut groups: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
            for replica in replicas {
                groups.entry((&replica.group, &replica.phase)).or_default().push(replica.rank);
            }
            let mut table = Table::new(&["GROUP", "PHASE", ">REPLICAS", "RANKS"]);
            for ((group, phase), ranks) in groups {
                let count = grouped(ranks.len() as u64);
                table.row(vec![group.to_owned(), phase.to_owned(), count, ranges(ranks)]);
            }
            tables.push(table);
            tables.push(replica_table(replicas, wide));
        }
        tables
    }
}

impl Listed for Job {
    fn columns(wide: bool) -> &'static [&'static str] {
        const ALL: [&str; 13] = [
            ">ID", "NAME", "TENANT", "KIND", ">PRIO", "PHASE", ">READY", ">GPUS", ">NODES", ">AGE",
            "REASON", ">INDEX", "REQUEST",
        ];
        if wide { &ALL } else { &ALL[..11] }
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.id.to_string(),
            self.name.clone(),
            self.tenant.clone(),
            self.kind.clone(),
            self.priority.to_string(),
            self.phase.clone(),
            format!("{}/{}", self.replica_counts.ready, self.replica_counts.total()),
            grouped_milli(self.gpu_milli),
            grouped(u64::from(self.nodes)),
            age(self.submitted_ms, self.now_ms),
            self.reason.as_ref().map_or_else(|| "-".to_owned(), |r| r.code.clone()),
        ];
        if wide {
            cells.push(self.modified_index.to_string());
            cells.push(self.request_id.clone());
        }
        cells
    }
}

/// A job just submitted.
#[derive(Clone, Debug, Serialize)]
pub struct Submitted {
    /// The job.
    pub job: Job,
    /// Whether the request id had been accepted before.
    pub known: bool,
    /// Time of the planner in microseconds.
    pub decide_us: u64,
    /// Time from proposal to commit in microseconds.
    pub commit_us: u64,
}

impl Answer for Submitted {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = self.job.summary();
        if self.known {
            table.field("Known", "accepted before under this request id");
        } else {
            table.field(
                "Decided in",
                format!("{} ms", crate::output::text::decimal(self.decide_us, 3)),
            );
            table.field(
                "Committed in",
                format!("{} ms", crate::output::text::decimal(self.commit_us, 3)),
            );
        }
        vec![table]
    }
}

/// A group with another number of replicas.
#[derive(Clone, Debug, Serialize)]
pub struct Scaled {
    /// The job.
    pub job: Job,
    /// The group.
    pub group: String,
    /// Replicas asked for by the request.
    pub replicas: u32,
    /// Replicas asked for before it.
    pub replicas_before: u32,
    /// Whether the request had been followed before.
    pub known: bool,
}

impl Answer for Scaled {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = self.job.summary();
        let (before, now) = (self.replicas_before, self.replicas);
        let known = if self.known { ", followed before under this request id" } else { "" };
        let [before, now] = [before, now].map(|count| grouped(u64::from(count)));
        table.field("Scaled", format!("{} from {before} to {now} replicas{known}", self.group));
        std::iter::once(table).chain(self.job.group_table()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::List;
    use crate::output::{Format, render};

    pub(crate) fn sample() -> v1::Job {
        v1::Job {
            id: 7,
            tenant: "dev".into(),
            request_id: "r-1".into(),
            phase: v1::JobPhase::Ready.into(),
            counts: Some(v1::ReplicaCounts { ready: 1250, ..Default::default() }),
            nodes: 1250,
            gpu_milli: 10_000_000,
            rtt_us_widest: 182_500,
            regions: vec!["asia-east".into(), "eu-west".into()],
            modified_index: 42,
            submitted_time_ms: 1_000,
            ready_time_ms: 2_500,
            name: "dem\u{7}o".into(),
            kind: v1::JobKind::Ray.into(),
            ..Default::default()
        }
    }

    fn at(job: v1::Job, now_ms: u64) -> Job {
        Job { now_ms, ..Job::from(job) }
    }

    #[test]
    fn list() {
        let pending = v1::Job {
            id: 8,
            name: "next".into(),
            tenant: "dev".into(),
            kind: v1::JobKind::Plain.into(),
            phase: v1::JobPhase::Pending.into(),
            reason: Some(v1::Reason {
                code: v1::ReasonCode::Busy.into(),
                message: "12 nodes busy".into(),
            }),
            counts: Some(v1::ReplicaCounts { waiting: 1, ..Default::default() }),
            submitted_time_ms: 190_000,
            priority: -20,
            ..Default::default()
        };
        let list = List { items: vec![at(sample(), 193_000), at(pending, 193_000)], more: false };
        let text = render(Format::Table, &list).expect("render");
        assert_eq!(
            text,
            "ID  NAME       TENANT  KIND   PRIO  PHASE        READY    GPUS  NODES    AGE  REASON\n \
              7  dem\\u{7}o  dev     RAY       0  READY    1250/1250  10,000  1,250  3m12s  -\n \
              8  next       dev     PLAIN   -20  PENDING        0/1       0      0     3s  BUSY\n"
        );
    }

    #[test]
    fn one_job_with_replicas() {
        let replica = |rank| v1::Replica {
            rank,
            group: "workers".into(),
            phase: v1::ReplicaPhase::Ready.into(),
            node_id: rank + 1,
            node_name: format!("n{rank}"),
            gpus: (0..8).collect(),
            bound: true,
            ..Default::default()
        };
        let job = at(sample(), 0).with_replicas((0..2).map(replica).collect());
        let text = render(Format::Table, &job).expect("render");
        assert_eq!(
            text,
            "Job         7\nName        dem\\u{7}o\nTenant      dev\nKind        RAY\nPhase       READY\n\
             Replicas    1,250 ready\nGPUs        10,000\nNodes       1,250\nWidest RTT  182.5ms\n\
             Regions     asia-east, eu-west\nSubmitted   1970-01-01T00:00:01Z\nReady       1970-01-01T00:00:02.5Z\n\
             Request id  r-1\n\
             \n\
             GROUP    PHASE  REPLICAS  RANKS\nworkers  READY         2  0-1\n\
             \n\
             RANK  GROUP    PHASE  NODE  NAME  GPUS  FAILURES\n   \
                0  workers  READY     1  n0    0-7          0\n   \
                1  workers  READY     2  n1    0-7          0\n"
        );
    }

    #[test]
    fn a_scaled_group_is_shown_with_its_bounds() {
        let group = v1::Group {
            name: "workers".into(),
            replicas: 1_250,
            replicas_min: 1_000,
            replicas_max: 2_000,
            ..Default::default()
        };
        let spec = v1::JobSpec { groups: vec![group], ..Default::default() };
        let answer = Scaled {
            job: at(v1::Job { spec: Some(spec), ..sample() }, 0),
            group: "workers".into(),
            replicas: 1_250,
            replicas_before: 1_200,
            known: false,
        };
        let text = render(Format::Table, &answer).expect("render");
        let end = "Scaled      workers from 1,200 to 1,250 replicas\n\n\
                   GROUP    REPLICAS    MIN    MAX\nworkers     1,250  1,000  2,000\n";
        assert!(text.ends_with(end), "{text}");
        let json = render(Format::Json, &answer).expect("render");
        let value: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!((&value["replicas_before"], &value["known"]), (&1_200.into(), &false.into()));
        assert_eq!(value["job"]["spec"]["groups"][0]["max_replicas"], 2_000);
    }

    #[test]
    fn a_group_says_whom_it_waits_for() {
        let wait = |group: &str, others: &[&str]| v1::GroupWait {
            group: group.into(),
            waits_for: others.iter().map(ToString::to_string).collect(),
        };
        let groups_waiting = vec![wait("store", &["head"]), wait("w", &["head", "store"])];
        let job = at(v1::Job { groups_waiting, ..sample() }, 0);
        let text = render(Format::Table, &job).expect("render");
        for line in
            ["Not started  store waits for group head\n", "  w waits for groups head, store\n"]
        {
            assert!(text.contains(line), "{text}");
        }
        let json = render(Format::Json, &job).expect("render");
        let value: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!(value["groups_waiting"][1]["waits_for"][1], "store");
        let json = render(Format::Json, &at(sample(), 0)).expect("render");
        assert!(!json.contains("groups_waiting"));
    }

    #[test]
    fn names_in_json_are_stable() {
        let json = render(Format::Json, &at(sample(), 0)).expect("render");
        let value: serde_json::Value = serde_json::from_str(&json).expect("json");
        for key in [
            "id",
            "name",
            "tenant",
            "kind",
            "phase",
            "replica_counts",
            "nodes",
            "gpu_milli",
            "rtt_us_widest",
        ] {
            assert!(value.get(key).is_some(), "{key}");
        }
        assert_eq!(value["phase"], "READY");
        assert_eq!(value["replica_counts"]["ready"], 1250);
        assert!(value.get("replicas").is_none());
    }
}
