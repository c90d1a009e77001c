//! Writing: event by event as they happen, or a whole trace.
//!
//! **Invariant:** what is written is read back alike; each event is one write of one whole line, so
//! that a file cut short lacks events and never half of one but the last.

use super::VERSION;
use super::line::{
    EndLine, HeadLine, JobLine, JobSaid, Line, NodeLine, NodeSaid, PriceLine, RttLine,
};
use crate::trace::{Change, NodeChange, Trace, TraceJob, TraceNode};
use scheduler_core::command::SiteRtt;
use scheduler_core::unit::TimeMs;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Writes events one by one.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a trace: who writes it, and its beginning in milliseconds since 1970 (0 = none).
    pub fn begin(out: W, source: &str, start_ms: u64) -> io::Result<Self> {
        let mut writer = Self { out };
        let source = source.to_owned();
        writer.line(&Line::Trace(HeadLine { version: VERSION, source, start_ms }))?;
        Ok(writer)
    }

    /// A node joins; at 0 it was there before.
    pub fn node(&mut self, at: TimeMs, node: &TraceNode) -> io::Result<()> {
        self.line(&Line::Node(Box::new(NodeLine::of(at, node))))
    }

    /// Something befalls a node. Joining is left to [`Writer::node`], which says more.
    pub fn change(&mut self, change: &NodeChange) -> io::Result<()> {
        let NodeChange { at, node, change } = change;
        let said = NodeSaid { at_ms: at.0, node: node.clone() };
        self.line(&match change {
            Change::Joined => return Ok(()),
            Change::Up => Line::NodeUp(said),
            Change::Down => Line::NodeDown(said),
            Change::Eligible => Line::NodeEligible(said),
            Change::Cordoned => Line::NodeCordoned(said),
            Change::Draining => Line::NodeDraining(said),
            Change::Removed => Line::NodeRemoved(said),
            Change::Price(price) => Line::NodePrice(PriceLine {
                at_ms: at.0,
                node: node.clone(),
                price_micro_usd: price.0,
            }),
        })
    }

    pub fn rtt(&mut self, rtt: &SiteRtt) -> io::Result<()> {
        self.line(&Line::Rtt(RttLine::of(rtt)))
    }

    /// A job is submitted.
    pub fn job(&mut self, job: &TraceJob) -> io::Result<()> {
        self.line(&Line::Job(Box::new(JobLine::of(job))))
    }

    /// All replicas of the job run.
    pub fn ready(&mut self, at: TimeMs, job: &str) -> io::Result<()> {
        self.line(&Line::JobReady(JobSaid { at_ms: at.0, job: job.to_owned() }))
    }

    /// The job is over.
    pub fn ended(&mut self, at: TimeMs, job: &str, why: &str) -> io::Result<()> {
        let (job, why) = (job.to_owned(), why.to_owned());
        self.line(&Line::JobEnded(EndLine { at_ms: at.0, job, why }))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        self.out.write_all(&text)
    }
}

/// Writes a whole trace: nodes that are there from the beginning, round trips, then jobs and what
/// befell nodes by rising time.
pub fn write(trace: &Trace, source: &str, out: impl Write) -> io::Result<()> {
    let mut writer = Writer::begin(out, source, 0)?;
    let nodes: BTreeMap<&str, &TraceNode> =
        trace.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
    let mut first: BTreeMap<&str, Change> = BTreeMap::new();
    for change in &trace.changes {
        first.entry(&change.node).or_insert(change.change);
    }
    let later: BTreeSet<&str> = first
        .into_iter()
        .filter(|(_, change)| *change == Change::Joined)
        .map(|(node, _)| node)
        .collect();
    for node in trace.nodes.iter().filter(|node| !later.contains(node.name.as_str())) {
        writer.node(TimeMs::ZERO, node)?;
    }
    for rtt in &trace.rtts {
        writer.rtt(rtt)?;
    }
    let mut changes = trace.changes.iter().peekable();
    let change = |writer: &mut Writer<_>, change: &NodeChange| match change.change {
        Change::Joined => match nodes.get(change.node.as_str()) {
            Some(node) => writer.node(change.at, node),
            None => Ok(()),
        },
        _ => writer.change(change),
    };
    for job in &trace.jobs {
        let due = job.submit.unwrap_or(TimeMs::ZERO);
        while let Some(next) = changes.next_if(|next| next.at < due) {
            change(&mut writer, next)?;
        }
        writer.job(job)?;
    }
    for next in changes {
        change(&mut writer, next)?;
    }
    writer.flush()
}
