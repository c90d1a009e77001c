//! What annotations and labels pin to an object or a pod: the words of Kueue, KAI and YuniKorn, and ours.
//!
//! **Invariant:** an annotation of a scheduler that is not known here is a fault; free text is told as ignored.

use super::exclusive::Exclusive;
use super::members::{Members, NO_PRIORITIES, shorter, together};
use super::pod::Metadata;
use super::{kai, kueue, yunikorn};
use crate::decode::word;
use crate::finding::{At, Findings, quote};
use crate::native::{DISRUPTIONS, POLICIES, unit};
use proto::v1;
use std::collections::BTreeMap;

/// Why queues are left aside.
pub(super) const NO_QUEUES: &str = "the tenant that submits stands in place of a queue";

/// A name and the place that says it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Named {
    pub(crate) at: At,
    pub(crate) name: String,
}

/// All that is pinned to one object or pod template.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Pinned {
    pub(crate) topology_required: v1::TopologyLevel,
    pub(crate) topology_preferred: v1::TopologyLevel,
    pub(crate) segments: Vec<v1::Segment>,
    /// Kueue: pod sets of one group stay together.
    pub(crate) podset_group: Option<Named>,
    /// Kueue: fewest pods to start with.
    pub(crate) replicas_min: Option<(At, u32)>,
    /// Kueue: plain pods that are one workload, and how many they are.
    pub(crate) pods_group: Option<Named>,
    pub(crate) pods_total: Option<(At, u32)>,
    pub(crate) duration_s: Option<u64>,
    /// Kueue: it waits in a queue, suspended until Kueue starts it.
    pub(crate) queued: bool,
    /// JobSet, LeaderWorkerSet: the domain that each copy is to have to itself, and each subgroup of one.
    pub(crate) exclusive: Option<Exclusive>,
    pub(crate) sub_exclusive: Option<Exclusive>,
    /// KAI: thousandths of a GPU.
    pub(crate) gpu_milli: Option<(At, u32)>,
    /// KAI: PodGroup and its part.
    pub(crate) kai_group: Option<Named>,
    pub(crate) kai_subgroup: Option<Named>,
    /// YuniKorn: groups of an application, and the one that a pod is of.
    pub(crate) task_groups: Option<(At, Vec<yunikorn::TaskGroup>)>,
    pub(crate) task_group: Option<Named>,
    /// YuniKorn: the application that a pod is of.
    pub(crate) application: Option<Named>,
    /// Ours.
    pub(crate) kind: Option<v1::JobKind>,
    pub(crate) rtt_us_max: u32,
    pub(crate) price_micro_usd_max: u64,
    pub(crate) priority: i32,
    /// Whom the job may preempt, and who may preempt it.
    pub(crate) policy: Option<v1::PreemptionPolicy>,
    pub(crate) disruption: Option<v1::Disruption>,
    /// Labels that are no scheduler's words.
    pub(crate) labels: BTreeMap<String, String>,
}

/// One annotation or label.
pub(super) struct Entry<'a> {
    pub(super) at: At,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
}

impl Entry<'_> {
    /// A whole number.
    pub(super) fn number(&self, findings: &mut Findings) -> Option<u32> {
        let number = self.value.trim().parse::<u32>().ok();
        if number.is_none() {
            let problem = format!("must be a whole number, is {}", quote(self.value));
            findings.fault(&self.at, problem);
        }
        number
    }

    pub(super) fn named(&self) -> Option<Named> {
        Some(Named { at: self.at.clone(), name: self.value.to_owned() })
    }

    pub(super) fn ignored(&self, why: &str, findings: &mut Findings) {
        findings.note(&self.at, format!("ignored: {why}"));
    }

    fn has_its_place(&self, on: On, findings: &mut Findings) -> bool {
        let takes = on.takes(self.key);
        if !takes {
            let where_to = match on {
                On::Owner => "on the pod template",
                On::Template | On::Pod => "on the object that owns the pods",
            };
            findings.fault(&self.at, format!("has no effect here: it belongs {where_to}"));
        }
        takes
    }

    pub(super) fn unknown(&self, of: &str, findings: &mut Findings) {
        findings.fault(&self.at, format!("is not known here as a word of {of}"));
    }
}

/// What annotations and labels are pinned to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    /// An object that owns pods.
    Owner,
    /// A pod template.
    Template,
    /// A pod that stands for itself.
    Pod,
}

impl On {
    /// Whether a word has its place here; elsewhere it would be read and then forgotten.
    fn takes(self, key: &str) -> bool {
        match self {
            Self::Owner => !OF_PODS.iter().any(|known| key.starts_with(known)),
            Self::Template => !OF_OWNERS.iter().any(|known| key.starts_with(known)),
            Self::Pod => key != "kueue.x-k8s.io/job-min-parallelism",
        }
    }
}

/// Starts of words that only pods and their templates take.
const OF_PODS: [&str; 8] = [
    "kueue.x-k8s.io/podset-",
    "kueue.x-k8s.io/pod-group-name",
    "kueue.x-k8s.io/pod-group-total-count",
    "gpu-fraction",
    "gpu-memory",
    "pod-group-name",
    "kai.scheduler/subgroup-name",
    "yunikorn.apache.org/task-group",
];
/// Starts of words that only objects take that stand for themselves.
const OF_OWNERS: [&str; 7] = [
    "kueue.x-k8s.io/job-min-parallelism",
    "kueue.x-k8s.io/pod-group-total-count",
    "provreq.kueue.x-k8s.io/",
    "muster/",
    "alpha.jobset.sigs.k8s.io/exclusive-topology",
    "leaderworkerset.sigs.k8s.io/exclusive-topology",
    "leaderworkerset.sigs.k8s.io/subgroup-exclusive-topology",
];

impl Pinned {
    /// Reads annotations and labels.
    pub(crate) fn read(at: &At, metadata: &Metadata, on: On, findings: &mut Findings) -> Self {
        let mut pinned = Self::default();
        let mut slice = kueue::Slice::default();
        for (key, value) in &metadata.annotations {
            let entry = Entry { at: at.field("annotations").field(key), key, value };
            if entry.has_its_place(on, findings) {
                pinned.annotation(&entry, &mut slice, findings);
            }
        }
        for (key, value) in &metadata.labels {
            let entry = Entry { at: at.field("labels").field(key), key, value };
            if entry.has_its_place(on, findings) {
                pinned.label(&entry, findings);
            }
        }
        pinned.segments = slice.segments(&at.field("annotations"), findings);
        if let Some(namespace) = metadata.namespace.as_deref().filter(|text| !text.is_empty()) {
            let text = format!(
                "ignored: the tenant follows from the token, not from {}",
                quote(namespace)
            );
            findings.note(&at.field("namespace"), text);
        }
        pinned
    }

    fn annotation(&mut self, entry: &Entry<'_>, slice: &mut kueue::Slice, findings: &mut Findings) {
        let key = entry.key;
        if let Some(word) = key.strip_prefix("kueue.x-k8s.io/") {
            kueue::annotation(self, word, entry, slice, findings);
        } else if let Some(word) = key.strip_prefix("provreq.kueue.x-k8s.io/") {
            kueue::provisioning(self, word, entry, findings);
        } else if kai::is_annotation(key) {
            kai::annotation(self, entry, findings);
        } else if let Some(word) = key.strip_prefix("yunikorn.apache.org/") {
            yunikorn::annotation(self, word, entry, findings);
        } else if let Some(word) = key.strip_prefix("muster/") {
            self.own(word, entry, findings);
        } else if let Some(word) = key.strip_prefix("alpha.jobset.sigs.k8s.io/") {
            self.jobset(word, entry, findings);
        } else if let Some(word) = key.strip_prefix("leaderworkerset.sigs.k8s.io/") {
            self.leader_worker_set(word, entry, findings);
        } else if key == "scheduling.volcano.sh/queue-name" {
            entry.ignored(NO_QUEUES, findings);
        } else if is_foreign(key) {
            findings
                .fault(&entry.at, "is not supported: a word of a scheduler that is not read here");
        } else {
            entry.ignored("free text that steers nothing", findings);
        }
    }

    fn label(&mut self, entry: &Entry<'_>, findings: &mut Findings) {
        let key = entry.key;
        if let Some(word) = key.strip_prefix("kueue.x-k8s.io/") {
            kueue::label(self, word, entry, findings);
        } else if kai::is_label(key) {
            kai::label(self, entry, findings);
        } else if let Some(word) = key.strip_prefix("yunikorn.apache.org/") {
            yunikorn::annotation(self, word, entry, findings);
        } else if key == "applicationId" {
            self.application = entry.named();
        } else if let Some(word) = key.strip_prefix("ray.io/") {
            self.kuberay(word, entry, findings);
        } else if key == "volcano.sh/queue-name" {
            entry.ignored(NO_QUEUES, findings);
        } else if key == "volcano.sh/job-type" {
            entry.ignored("a name for people, which steers nothing", findings);
        } else if is_foreign(key) {
            findings
                .fault(&entry.at, "is not supported: a word of a scheduler that is not read here");
        } else {
            self.labels.insert(key.to_owned(), entry.value.to_owned());
        }
    }

    /// JobSet's annotations.
    fn jobset(&mut self, word: &str, entry: &Entry<'_>, findings: &mut Findings) {
        match word {
            "exclusive-topology" => self.exclusive = Exclusive::read(entry, findings),
            "node-selector" => {
                entry.ignored("how copies are kept apart is muster's own affair", findings)
            }
            "namespaced-job" | "no-schedule" => entry.ignored("JobSet's own bookkeeping", findings),
            _ => entry.unknown("JobSet", findings),
        }
    }

    /// LeaderWorkerSet's annotations.
    fn leader_worker_set(&mut self, word: &str, entry: &Entry<'_>, findings: &mut Findings) {
        match word {
            "exclusive-topology" => self.exclusive = Exclusive::read(entry, findings),
            "subgroup-exclusive-topology" => self.sub_exclusive = Exclusive::read(entry, findings),
            "experimental-recreate-group-after-start" => entry.ignored(
                "lost members are replaced, and failed ones as often as muster allows",
                findings,
            ),
            "size"
            | "replicas"
            | "leader-name"
            | "subgroup-size"
            | "subgroup-policy-type"
            | "subdomainPolicy" => entry.ignored("LeaderWorkerSet's own bookkeeping", findings),
            _ => entry.unknown("LeaderWorkerSet", findings),
        }
    }

    /// KubeRay's labels for the schedulers that it works with.
    fn kuberay(&mut self, word: &str, entry: &Entry<'_>, findings: &mut Findings) {
        match word {
            "priority-class-name" => findings.fault(&entry.at, NO_PRIORITIES),
            "gang-scheduling-enabled" => entry.ignored("a job here is always a gang", findings),
            "scheduler-name" => entry.ignored("muster is the scheduler here", findings),
            _ => {
                self.labels.insert(entry.key.to_owned(), entry.value.to_owned());
            }
        }
    }

    /// Holds all members of an object to the levels pinned to it.
    pub(crate) fn keep_together(&self, at: &At, members: &mut [Members]) {
        together(&at.field("annotations"), members, self.topology_required, false);
        together(&at.field("annotations"), members, self.topology_preferred, true);
    }

    /// What is suspended is not submitted; but whoever hands a job to Kueue suspends it first.
    pub(crate) fn suspended(&self, at: &At, suspend: Option<bool>, findings: &mut Findings) {
        let at = at.field("suspend");
        match suspend {
            Some(true) if self.queued => {
                findings.note(&at, "ignored: Kueue would start it in its turn, and so does muster");
            }
            Some(true) => {
                findings.fault(&at, "is true: a job is submitted when it is to run");
            }
            Some(false) | None => {}
        }
    }

    /// A minimum for an object whose groups have their own is refused.
    pub(crate) fn refuse_minimum(&self, findings: &mut Findings) {
        if let Some((at, _)) = &self.replicas_min {
            findings.fault(at, "is for Jobs: each group here has its own minimum");
        }
    }

    /// Takes over what another object of the same application asks of the whole job.
    pub(crate) fn take_over(&mut self, other: Self) {
        self.kind = self.kind.or(other.kind);
        if self.rtt_us_max == 0 {
            self.rtt_us_max = other.rtt_us_max;
        }
        if self.price_micro_usd_max == 0 {
            self.price_micro_usd_max = other.price_micro_usd_max;
        }
        if self.priority == 0 {
            self.priority = other.priority;
        }
        self.policy = self.policy.or(other.policy);
        self.disruption = self.disruption.or(other.disruption);
        for (key, value) in other.labels {
            self.labels.entry(key).or_insert(value);
        }
    }

    /// Annotations of our own, for what the other systems have no words for.
    fn own(&mut self, word_of: &str, entry: &Entry<'_>, findings: &mut Findings) {
        const KINDS: [(&str, v1::JobKind); 3] = [
            ("ray", v1::JobKind::Ray),
            ("kubernetes", v1::JobKind::Kubernetes),
            ("plain", v1::JobKind::Plain),
        ];
        let at = &entry.at;
        match word_of {
            "kind" => self.kind = word(at, entry.value, &KINDS, findings),
            "max-rtt" => self.rtt_us_max = bound(at, unit::microseconds(entry.value), findings),
            "max-price" => {
                self.price_micro_usd_max = bound(at, unit::decimal(entry.value, 6), findings);
            }
            "priority" => {
                let number = entry.value.trim().parse::<i32>();
                self.priority = number.unwrap_or_else(|_| {
                    let problem = format!("must be a whole number, is {}", quote(entry.value));
                    findings.fault(at, problem);
                    0
                });
            }
            "preemption" => self.policy = word(at, entry.value, &POLICIES, findings),
            "disruption" => self.disruption = word(at, entry.value, &DISRUPTIONS, findings),
            "duration" => {
                let seconds = Some(bound(at, unit::seconds(entry.value), findings));
                self.duration_s = shorter(self.duration_s, seconds);
            }
            _ => findings.fault(
                at,
                "unknown; known are muster/kind, max-rtt, max-price, duration, priority, preemption, \
                 disruption",
            ),
        }
    }
}

/// A bound that was read: one of nothing would be none at all in a job.
fn bound<T: PartialEq + Default>(at: &At, read: Result<T, String>, findings: &mut Findings) -> T {
    let bound = read.unwrap_or_else(|why| {
        findings.unread(at, why);
        T::default()
    });
    if bound == T::default() {
        findings.fault(at, "is 0; leave it out where there is no bound");
    }
    bound
}

/// Whether a key belongs to a scheduler whose words are not read here.
fn is_foreign(key: &str) -> bool {
    const DOMAINS: [&str; 7] = [
        "volcano.sh",
        "grove.io",
        "scheduling.x-k8s.io",
        "scheduling.sigs.k8s.io",
        "armadaproject.io",
        "koordinator.sh",
        "run.ai",
    ];
    let domain = key.split('/').next().unwrap_or_default();
    key.contains('/')
        && (key == "scheduling.k8s.io/group-name"
            || DOMAINS.iter().any(|known| {
                domain
                    .strip_suffix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }))
}
