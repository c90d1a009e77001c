//! One look at the jobs or the nodes of a cluster, and what is new since the last.
//!
//! **Invariant:** every job is told once when it is first seen, once when it is first ready and once
//! when it is over, in this order; memory follows the jobs that are live, the nodes and the pairs of sites.

use super::Trouble;
use crate::client::CallError;
use crate::command::Context;
use crate::command::job::is_over;
use futures::{StreamExt, TryStreamExt};
use proto::v1::{
    Eligibility, GetJobRequest, Job, JobPhase, ListJobsRequest, ListNodesRequest,
    ListSiteRttsRequest, Node, NodeStatus, SiteRtt,
};
use scheduler_core::command;
use scheduler_core::id::Name;
use scheduler_core::unit::{PriceMicroUsd, RttUs, TimeMs};
use scheduler_server::convert;
use simulator::trace::jsonl::Writer;
use simulator::trace::{Change, NodeChange, specs};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use tonic::Code;

/// Largest page that servers give.
const PAGE_MAX: u32 = 1_000;
/// Jobs asked for at a time: enough to keep up with thousands of submissions a second, far below
/// what a server takes.
const CALLS_AT_ONCE: usize = 16;

/// What has been recorded, and what must be known to see what is new.
pub(super) struct Recorder<'a, W> {
    context: &'a Context,
    writer: Writer<W>,
    /// Milliseconds since 1970 at which the trace begins.
    start_ms: u64,
    /// Token of the last page of all jobs, and the newest job seen on it.
    page: String,
    newest: u64,
    /// Jobs told that are not over: whether they were ready.
    open: BTreeMap<u64, bool>,
    nodes: BTreeMap<u32, (String, Node)>,
    names: BTreeSet<String>,
    /// Sites of nodes that were told: no replay knows another.
    sites: BTreeSet<String>,
    /// Round trips told.
    rtts: BTreeMap<(String, String), command::SiteRtt>,
    jobs: u64,
    events: u64,
    /// Jobs and nodes that this version of the program cannot read.
    strange: u64,
}

impl<'a, W: Write> Recorder<'a, W> {
    pub(super) fn new(context: &'a Context, writer: Writer<W>, start_ms: u64) -> Self {
        Self {
            context,
            writer,
            start_ms,
            page: String::new(),
            newest: 0,
            open: BTreeMap::new(),
            nodes: BTreeMap::new(),
            names: BTreeSet::new(),
            sites: BTreeSet::new(),
            rtts: BTreeMap::new(),
            jobs: 0,
            events: 0,
            strange: 0,
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// What has been recorded, in words.
    pub(super) fn counted(&self) -> String {
        let mut text = format!(
            "recorded {} jobs, {} nodes and {} further events",
            self.jobs,
            self.names.len(),
            self.events
        );
        if self.strange > 0 {
            text.push_str(&format!(
                ", without {} jobs and nodes that only a newer `muster` understands",
                self.strange
            ));
        }
        text
    }

    /// From milliseconds since 1970 to those of the trace; what was before it is at its beginning.
    fn at(&self, time_ms: u64) -> TimeMs {
        TimeMs(time_ms.saturating_sub(self.start_ms))
    }

    fn now(&self) -> TimeMs {
        self.at(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
    }

    pub(super) async fn look_at_jobs(&mut self) -> Result<(), Trouble> {
        // Live ones first: who is missing there was seen before, and so is over.
        let live = self.context.client.all_jobs(self.list(String::new(), true)).await?;
        let live: BTreeMap<u64, Job> = live.into_iter().map(|job| (job.id, job)).collect();
        let gone: Vec<u64> =
            self.open.keys().filter(|id| !live.contains_key(id)).copied().collect();
        for job in live.values() {
            self.progress(job)?;
        }
        for (id, job) in self.get(gone).await? {
            match job {
                Some(job) => self.progress(&job)?,
                None => self.ended(id, self.now(), "forgotten")?,
            }
        }
        loop {
            let page =
                self.context.client.page_of_jobs(&self.list(self.page.clone(), false)).await?;
            let is_news = |job: &&Job| {
                job.id > self.newest && !(is_over(job.phase()) && job.ended_time_ms < self.start_ms)
            };
            let new: Vec<u64> = page.jobs.iter().filter(is_news).map(|job| job.id).collect();
            let newest = page.jobs.iter().map(|job| job.id).max().unwrap_or(0);
            for (_, job) in self.get(new).await? {
                if let Some(job) = job {
                    self.told(job)?;
                }
            }
            self.newest = self.newest.max(newest);
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            self.page = page.next_page_token;
        }
    }

    /// Asks for jobs without their specs.
    fn list(&self, page_token: String, live_only: bool) -> ListJobsRequest {
        let tenant = self.context.tenant.clone();
        let request = ListJobsRequest { page_token, live_only, tenant, ..Default::default() };
        ListJobsRequest { page_size: PAGE_MAX, ..request }
    }

    /// Jobs with their specs, in order; `None` = no longer known.
    async fn get(&self, ids: Vec<u64>) -> Result<Vec<(u64, Option<Job>)>, CallError> {
        let client = &self.context.client;
        let one = |id: u64| async move {
            let request =
                GetJobRequest { job_id: id, omit_replicas: true, ..GetJobRequest::default() };
            let answer = client
                .call(|attempt| {
                    let request = attempt.request(request);
                    async move { attempt.jobs().get_job(request).await }
                })
                .await;
            match answer {
                Ok(answer) => Ok((id, answer.job)),
                Err(error) if error.code() == Code::NotFound => Ok((id, None)),
                Err(error) => Err(error),
            }
        };
        futures::stream::iter(ids.into_iter().map(one)).buffered(CALLS_AT_ONCE).try_collect().await
    }

    /// A job that was not known.
    fn told(&mut self, job: Job) -> io::Result<()> {
        let Ok(spec) = convert::job::spec("spec", job.spec.clone()) else {
            self.strange += 1;
            return Ok(());
        };
        let told = specs::recorded_job(job.id.to_string(), job.tenant.clone(), &spec);
        let submit = Some(self.at(job.submitted_time_ms));
        self.writer.job(&simulator::trace::TraceJob { submit, ..told })?;
        self.jobs += 1;
        self.open.insert(job.id, false);
        self.progress(&job)
    }

    /// How far a known job has come.
    fn progress(&mut self, job: &Job) -> io::Result<()> {
        let Some(&was_ready) = self.open.get(&job.id) else { return Ok(()) };
        if !was_ready && job.ready_time_ms > 0 {
            self.open.insert(job.id, true);
            self.writer.ready(self.at(job.ready_time_ms), &job.id.to_string())?;
            self.events += 1;
        }
        if !is_over(job.phase()) {
            return Ok(());
        }
        let phase = match job.phase() {
            JobPhase::Failed => "failed",
            JobPhase::Expired => "expired",
            _ => "ended",
        };
        let why = match job.reason.as_ref().map(|reason| reason.message.as_str()) {
            None | Some("") => phase.to_owned(),
            Some(message) => format!("{phase}: {message}"),
        };
        self.ended(job.id, self.at(job.ended_time_ms), &why)
    }

    fn ended(&mut self, id: u64, at: TimeMs, why: &str) -> io::Result<()> {
        self.open.remove(&id);
        self.events += 1;
        self.writer.ended(at, &id.to_string(), why)
    }

    pub(super) async fn look_at_nodes(&mut self) -> Result<(), Trouble> {
        let request = ListNodesRequest { page_size: PAGE_MAX, ..ListNodesRequest::default() };
        let there = self.context.client.all_nodes(request).await?;
        let there: BTreeMap<u32, _> = there.into_iter().map(|node| (node.id, node)).collect();
        let gone: Vec<u32> =
            self.nodes.keys().filter(|id| !there.contains_key(id)).copied().collect();
        for id in gone {
            if let Some((name, _)) = self.nodes.remove(&id) {
                self.befell(self.now(), &name, Change::Removed)?;
            }
        }
        for (_, node) in there {
            self.node(node)?;
        }
        Ok(())
    }

    fn node(&mut self, node: Node) -> io::Result<()> {
        let changed = self.at(node.changed_time_ms);
        let Some((name, was)) = self.nodes.remove(&node.id) else {
            let Some(name) = self.joined(&node)? else { return Ok(()) };
            if node.status() == NodeStatus::Down {
                self.befell(changed, &name, Change::Down)?;
            }
            if node.eligibility() != Eligibility::Eligible {
                self.befell(changed, &name, may_take(node.eligibility()))?;
            }
            self.nodes.insert(node.id, (name, node));
            return Ok(());
        };
        self.declared(&name, &was, &node)?;
        if node.status() != was.status() {
            let up = node.status() == NodeStatus::Up;
            self.befell(changed, &name, if up { Change::Up } else { Change::Down })?;
        }
        if node.eligibility() != was.eligibility() {
            self.befell(changed, &name, may_take(node.eligibility()))?;
        }
        self.nodes.insert(node.id, (name, node));
        Ok(())
    }

    /// A node that was not known, under a name of its own; `None` = it cannot be read.
    fn joined(&mut self, node: &Node) -> io::Result<Option<String>> {
        let spec = node.spec.as_ref().and_then(|spec| convert::node::spec(spec).ok());
        let Some(spec) = spec else {
            self.strange += 1;
            return Ok(None);
        };
        // Host names are unique per supplier only.
        let host = spec.name.to_string();
        let name = if self.names.contains(&host) { format!("n{}", node.id) } else { host };
        self.names.insert(name.clone());
        self.sites.insert(spec.place.site.to_string());
        let at = self.at(node.registered_time_ms);
        self.writer.node(at, &specs::recorded_node(&name, &spec))?;
        Ok(Some(name))
    }

    /// What the node declares now that it did not before.
    fn declared(&mut self, name: &str, was: &Node, is: &Node) -> io::Result<()> {
        let (Some(old), Some(new)) = (&was.spec, &is.spec) else { return Ok(()) };
        if old == new {
            return Ok(());
        }
        let price = new.price_micro_usd;
        let rest = proto::v1::NodeSpec { price_micro_usd: old.price_micro_usd, ..new.clone() };
        if rest == *old {
            return self.befell(self.now(), name, Change::Price(PriceMicroUsd(price)));
        }
        if let Ok(spec) = convert::node::spec(new) {
            self.events += 1;
            self.writer.node(self.now(), &specs::recorded_node(name, &spec))?;
        }
        Ok(())
    }

    /// Round trips between sites that were not told, or were told otherwise.
    pub(super) async fn look_at_rtts(&mut self) -> Result<(), Trouble> {
        let mut request = ListSiteRttsRequest { page_size: PAGE_MAX, ..Default::default() };
        loop {
            let page = self.context.client.page_of_rtts(&request).await?;
            for rtt in page.rtts {
                self.rtt(rtt)?;
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            request.page_token = page.next_page_token;
        }
    }

    fn rtt(&mut self, rtt: SiteRtt) -> io::Result<()> {
        let (Ok(a), Ok(b)) = (Name::parse(&rtt.site_a), Name::parse(&rtt.site_b)) else {
            return Ok(());
        };
        let pair = (rtt.site_a, rtt.site_b);
        let (samples, rtt, rtt_high) = (rtt.samples, RttUs(rtt.rtt_us), RttUs(rtt.rtt_us_high));
        let told = command::SiteRtt { a, b, rtt, rtt_high, samples };
        let is_known = self.sites.contains(&pair.0) && self.sites.contains(&pair.1);
        if is_known && self.rtts.get(&pair) != Some(&told) {
            self.writer.rtt(&told)?;
            self.rtts.insert(pair, told);
        }
        Ok(())
    }

    fn befell(&mut self, at: TimeMs, node: &str, change: Change) -> io::Result<()> {
        self.events += 1;
        self.writer.change(&NodeChange { at, node: node.to_owned(), change })
    }
}

fn may_take(eligibility: Eligibility) -> Change {
    match eligibility {
        Eligibility::Cordoned => Change::Cordoned,
        Eligibility::Draining => Change::Draining,
        Eligibility::Eligible | Eligibility::Unspecified => Change::Eligible,
    }
}
