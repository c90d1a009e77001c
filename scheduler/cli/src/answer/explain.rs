//! Explanations as answers.

use crate::answer::plan::Cause;
use crate::answer::word;
use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{decimal, grouped, time};
use proto::v1;
use proto::v1::counterfactual::Change as Changed;
use serde::Serialize;

/// Why a job waits, or would wait.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Number of the job, where it was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    /// Its phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Replicas that wait for a node.
    pub replicas_waiting: u32,
    /// Why; nothing where nothing waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Log index of the state it was computed against.
    pub index: u64,
    /// Time it took in microseconds.
    pub decide_us: u64,
}

/// All that can be said about a job that does not fit.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// One word; UNSPECIFIED = it fits now.
    pub verdict: String,
    /// One line with numbers.
    pub summary: String,
    /// When enough of what runs has ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_time: Option<String>,
    /// Nodes in the fleet.
    pub nodes_total: u32,
    /// Name of the group that is hardest to place.
    pub group_hardest: String,
    /// Reasons for every group with waiting replicas.
    pub groups: Vec<Group>,
    /// What would make it fit, each by itself.
    pub counterfactuals: Vec<Counterfactual>,
    /// There may be more that would help.
    pub cut_short: bool,
}

/// Nodes of the fleet by what keeps them from serving one group.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Name.
    pub group: String,
    /// They add up to the fleet.
    pub causes: Vec<Cause>,
    /// Replicas that wait.
    pub replicas_wanted: u32,
    /// Of those, how many could be placed now if the group were alone.
    pub replicas_placeable: u32,
}

/// One change that by itself would make the job fit.
#[derive(Clone, Debug, Serialize)]
pub struct Counterfactual {
    /// In words.
    pub text: String,
    /// Groups that it changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether one step less was seen not to do.
    pub is_least: bool,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// What would be so.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Bound on round trips in microseconds; 0 = none.
    RttUsMax(u32),
    /// Bound on the price of a GPU-hour in millionths of a US dollar.
    PriceMicroUsdMax(u64),
    /// Bound on the price of all GPUs for an hour in millionths of a US dollar.
    PriceHourMicroUsdMax(u64),
    /// Bound on domains in place of the one of the same level.
    DomainsMax {
        /// Their level.
        level: String,
        /// At most so many.
        max: u32,
    },
    /// Level required; UNSPECIFIED = none.
    TopologyRequired(String),
    /// Strategy.
    Strategy(String),
    /// Replicas of every group.
    Replicas(Vec<u32>),
    /// GPU model allowed too; empty = any.
    GpuModel(String),
    /// Least video memory in MiB.
    VramMibMin(u32),
    /// Selector that goes.
    SelectorDropped {
        /// Its key.
        key: String,
        /// Its values.
        values: Vec<String>,
    },
    /// Selector as it would be.
    SelectorWidened {
        /// Its key.
        key: String,
        /// Its values.
        values: Vec<String>,
    },
    /// Taint to put up with.
    TaintTolerated {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// CPU of a replica in thousandths of a core.
    CpuMilli(u64),
    /// Memory of a replica in MiB.
    MemoryMib(u64),
    /// Disk of a replica in MiB.
    DiskMib(u64),
    /// Thousandths of GPUs more in the quota.
    QuotaGpuMilliMore(u64),
    /// Field of a rule that goes.
    RuleDropped(String),
    /// Nodes that come back.
    NodesOpened(u32),
    /// Running jobs of lower priorities that give way.
    Preempted(Preempted),
    /// The end of a running job.
    Ending {
        /// When, RFC 3339.
        time: Option<String>,
        /// Its number, where it may be told.
        #[serde(skip_serializing_if = "Option::is_none")]
        job: Option<u64>,
    },
}

/// Running jobs of lower priorities that would give way.
#[derive(Clone, Debug, Serialize)]
pub struct Preempted {
    /// Jobs that go back to the queue.
    pub jobs_whole: u32,
    /// Jobs that lose spare replicas.
    pub jobs_part: u32,
    /// Thousandths of GPUs that they give back.
    pub gpu_milli: u64,
    /// Those of the tenant itself.
    pub job_ids_own: Vec<u64>,
}

impl From<v1::Preempted> for Preempted {
    fn from(gives: v1::Preempted) -> Self {
        Self {
            jobs_whole: gives.jobs_whole,
            jobs_part: gives.jobs_part,
            gpu_milli: gives.gpu_milli,
            job_ids_own: gives.job_ids_own,
        }
    }
}

impl From<Changed> for Change {
    fn from(change: Changed) -> Self {
        let level = |level| v1::TopologyLevel::try_from(level).unwrap_or_default().as_str_name();
        let strategy = |known| v1::Strategy::try_from(known).unwrap_or_default().as_str_name();
        match change {
            Changed::RttUsMax(us) => Self::RttUsMax(us),
            Changed::PriceMicroUsdMax(price) => Self::PriceMicroUsdMax(price),
            Changed::PriceHourMicroUsdMax(price) => Self::PriceHourMicroUsdMax(price),
            Changed::DomainsMax(bound) => Self::DomainsMax {
                level: word(bound.level().as_str_name(), "TOPOLOGY_LEVEL_"),
                max: bound.max,
            },
            Changed::TopologyRequired(known) => {
                Self::TopologyRequired(word(level(known), "TOPOLOGY_LEVEL_"))
            }
            Changed::Strategy(known) => Self::Strategy(word(strategy(known), "STRATEGY_")),
            Changed::Replicas(counts) => Self::Replicas(counts.replicas),
            Changed::GpuModel(model) => Self::GpuModel(model),
            Changed::VramMibMin(mib) => Self::VramMibMin(mib),
            Changed::SelectorDropped(v1::Selector { key, values, .. }) => {
                Self::SelectorDropped { key, values }
            }
            Changed::SelectorWidened(v1::Selector { key, values, .. }) => {
                Self::SelectorWidened { key, values }
            }
            Changed::TaintTolerated(v1::Taint { key, value, .. }) => {
                Self::TaintTolerated { key, value }
            }
            Changed::CpuMilli(milli) => Self::CpuMilli(milli),
            Changed::MemoryMib(mib) => Self::MemoryMib(mib),
            Changed::DiskMib(mib) => Self::DiskMib(mib),
            Changed::QuotaGpuMilliMore(milli) => Self::QuotaGpuMilliMore(milli),
            Changed::RuleDropped(field) => Self::RuleDropped(field),
            Changed::NodesOpened(nodes) => Self::NodesOpened(nodes),
            Changed::Preempted(gives) => Self::Preempted(gives.into()),
            Changed::Ending(ending) => Self::Ending {
                time: time(ending.time_ms),
                job: (ending.job_id > 0).then_some(ending.job_id),
            },
        }
    }
}

impl From<v1::Explanation> for Explanation {
    fn from(told: v1::Explanation) -> Self {
        Self {
            verdict: word(told.verdict().as_str_name(), "VERDICT_"),
            summary: told.summary,
            until_time: time(told.until_time_ms),
            nodes_total: told.nodes_total,
            group_hardest: told.group_hardest,
            groups: told.groups.into_iter().map(Group::from).collect(),
            counterfactuals: told.counterfactuals.into_iter().map(Counterfactual::from).collect(),
            cut_short: told.cut_short,
        }
    }
}

impl From<v1::GroupExplanation> for Group {
    fn from(told: v1::GroupExplanation) -> Self {
        Self {
            group: told.group,
            causes: told.causes.into_iter().map(Cause::from).collect(),
            replicas_wanted: told.replicas_wanted,
            replicas_placeable: told.replicas_placeable,
        }
    }
}

impl From<v1::Counterfactual> for Counterfactual {
    fn from(told: v1::Counterfactual) -> Self {
        Self {
            text: told.text,
            groups: told.groups,
            is_least: told.is_least,
            change: told.change.map(Change::from),
        }
    }
}

impl Explained {
    /// The answer about a job, or about a spec that was not submitted.
    pub fn new(job: Option<u64>, response: v1::ExplainJobResponse) -> Self {
        let phase = word(response.phase().as_str_name(), "JOB_PHASE_");
        Self {
            phase: job.is_some().then_some(phase),
            job,
            replicas_waiting: response.replicas_waiting,
            explanation: response.explanation.map(Explanation::from),
            index: response.index,
            decide_us: response.decide_us,
        }
    }
}

impl Explanation {
    /// What is in the way and what would help, below a table of the causes.
    pub fn tables(&self) -> Vec<Table> {
        let mut tables = vec![self.causes()];
        if !self.counterfactuals.is_empty() || self.cut_short {
            tables.push(self.helps());
        }
        tables
    }

    /// `BUSY_UNTIL 2026-11-22T14:05:00Z`, and of which group the counts are where there are several.
    pub fn verdict_words(&self) -> String {
        let when = match &self.until_time {
            Some(time) => format!(" {time}"),
            None if self.verdict == "BUSY_UNTIL" => " (no time known)".to_owned(),
            None => String::new(),
        };
        let several = self.groups.len() > 1 && self.verdict != "QUOTA";
        let group = if several { format!(", group {}", self.group_hardest) } else { String::new() };
        format!("{}{when}{group}", self.verdict)
    }

    fn causes(&self) -> Table {
        let columns = if self.groups.len() > 1 {
            &["GROUP", ">NODES", "CAUSE"][..]
        } else {
            &[">NODES", "CAUSE"][..]
        };
        let mut table = Table::new(columns);
        let mut row = |group: &str, nodes: u32, cause: &str| {
            let cells = vec![group.to_owned(), grouped(u64::from(nodes)), cause.to_owned()];
            table.row(cells.into_iter().skip(3 - columns.len()).collect());
        };
        for group in &self.groups {
            let mut causes: Vec<_> = group.causes.iter().collect();
            causes.sort_by_key(|cause| std::cmp::Reverse(cause.nodes));
            for cause in causes {
                row(&group.group, cause.nodes, &cause.cause);
            }
            row(&group.group, self.nodes_total, "in all");
        }
        table
    }

    fn helps(&self) -> Table {
        let title = match self.counterfactuals.len() {
            0 => "No single change was found that would make it fit.",
            _ => "It would fit",
        };
        let mut table = Table::fields().titled(title);
        for help in &self.counterfactuals {
            let text = match &help.change {
                Some(Change::Ending { time, job }) => {
                    let time = time.as_deref().unwrap_or("a time not known");
                    match job {
                        Some(job) => format!("at {time}, when job {job} ends"),
                        None => format!("at {time}, {}", help.text),
                    }
                }
                _ => help.text.clone(),
            };
            let groups = match help.groups.len() {
                0 => String::new(),
                count if count == self.groups.len() => String::new(),
                _ => format!(" (groups {})", help.groups.join(", ")),
            };
            let least = if help.is_least { "" } else { "; less might do" };
            table.row(vec![format!("  {text}{groups}{least}")]);
        }
        if self.cut_short {
            table.note("The search was cut short: there may be more.");
        }
        table
    }
}

impl Answer for Explained {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let whose = match (self.job, &self.phase) {
            (Some(job), Some(phase)) => format!("Job {job} is {phase}. "),
            _ => String::new(),
        };
        let Some(told) = &self.explanation else {
            return vec![Table::fields().titled(format!("{whose}No replica waits for a node."))];
        };
        let title = if told.verdict == "UNSPECIFIED" && told.summary.is_empty() {
            format!("{whose}It would be placed now.")
        } else if told.verdict == "UNSPECIFIED" && told.groups.is_empty() {
            // Nothing is planned for it yet.
            format!("{whose}It {}.", told.summary)
        } else if told.verdict == "UNSPECIFIED" {
            format!("{whose}It fits, and {}.", told.summary)
        } else {
            format!("{whose}{}: {}", told.verdict_words(), told.summary)
        };
        let mut table = Table::fields().titled(title);
        table.field("Replicas waiting", grouped(u64::from(self.replicas_waiting)));
        table.field("Explained in", format!("{} ms", decimal(self.decide_us, 3)));
        table.field("State index", self.index.to_string());
        let mut tables = vec![table];
        if !told.groups.is_empty() {
            tables.extend(told.tables());
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, render};

    fn told() -> v1::ExplainJobResponse {
        let cause = |cause: &str, nodes| v1::CauseCount { cause: cause.into(), nodes };
        let help = |text: &str, is_least, change| v1::Counterfactual {
            text: text.into(),
            groups: Vec::new(),
            is_least,
            change: Some(change),
        };
        let ending = v1::Ending { time_ms: 1_795_356_300_000, job_id: 41 };
        v1::ExplainJobResponse {
            phase: v1::JobPhase::Pending.into(),
            replicas_waiting: 1_250,
            explanation: Some(v1::Explanation {
                verdict: v1::Verdict::BusyUntil.into(),
                summary: "9 of 1,500 nodes usable".into(),
                until_time_ms: ending.time_ms,
                nodes_total: 1_500,
                groups: vec![v1::GroupExplanation {
                    group: "w".into(),
                    causes: vec![
                        cause("GPU model", 491),
                        cause("GPUs busy", 1_000),
                        cause("usable", 9),
                    ],
                    replicas_wanted: 1_250,
                    replicas_placeable: 9,
                }],
                group_hardest: "w".into(),
                counterfactuals: vec![
                    help("with an RTT bound of 80 ms", false, Changed::RttUsMax(80_000)),
                    help("when running work has ended", true, Changed::Ending(ending)),
                ],
                cut_short: true,
            }),
            index: 4711,
            decide_us: 12_345,
        }
    }

    #[test]
    fn an_explanation_reads_from_top_to_bottom() {
        let text = render(Format::Table, &Explained::new(Some(42), told())).expect("render");
        assert_eq!(
            text,
            "Job 42 is PENDING. BUSY_UNTIL 2026-11-22T14:05:00Z: 9 of 1,500 nodes usable\n\
             Replicas waiting  1,250\nExplained in      12.345 ms\nState index       4711\n\n\
             NODES  CAUSE\n1,000  GPUs busy\n  491  GPU model\n    9  usable\n1,500  in all\n\n\
             It would fit\n  with an RTT bound of 80 ms; less might do\n  \
             at 2026-11-22T14:05:00Z, when job 41 ends\n\
             The search was cut short: there may be more.\n"
        );
    }

    #[test]
    fn replicas_that_have_not_their_turn_say_what_they_wait_for() {
        let summary = "waits until replacements that start now run: 2 lost of w, of which at most 1 \
                       may start at once";
        let told = v1::ExplainJobResponse {
            phase: v1::JobPhase::Repairing.into(),
            replicas_waiting: 2,
            explanation: Some(v1::Explanation {
                summary: summary.into(),
                nodes_total: 1_500,
                ..v1::Explanation::default()
            }),
            index: 4711,
            decide_us: 12,
        };
        let text = render(Format::Table, &Explained::new(Some(42), told)).expect("render");
        let title = format!("Job 42 is REPAIRING. It {summary}.\n");
        assert!(text.starts_with(&title) && text.ends_with("State index       4711\n"), "{text}");
        assert!(text.contains("Replicas waiting  2\n"), "{text}");
    }

    #[test]
    fn programs_get_every_change_by_its_name() {
        let text = render(Format::Json, &Explained::new(None, told())).expect("render");
        for piece in ["\"rtt_us_max\": 80000", "\"job\": 41", "\"verdict\": \"BUSY_UNTIL\""] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
    }
}
