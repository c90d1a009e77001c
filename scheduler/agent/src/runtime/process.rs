//! Replicas as process groups on this machine.
//!
//! Every replica runs under a small `/bin/sh` shim that leads its process group. The shim waits for
//! a word from the agent before it starts the program, so nothing runs that the agent has not noted
//! on disk; and it writes down the exit code, so that an agent that was restarted meanwhile still
//! learns how the program ended. A program that leaves its process group (`setsid`) escapes; limits
//! on CPU and memory are not enforced here.
//!
//! On disk, under the data directory: `replicas/ASSIGNMENT/` with `record` (who runs), `exit` (how
//! it ended) and `work/` (working directory), and `logs/JOB-RANK-ASSIGNMENT.{out,err}`.
//!
//! **Invariant:** a process is signalled only if its number AND its start time are those on record,
//! and a replica has ended only when no process of its group lives.

mod environment;
mod group;
mod launch;
mod record;
mod supervise;

use crate::replica::Assignment;
use crate::runtime::{Adopted, Event, Haste, Runtime, RuntimeError, Start, Stop};
use agent_core::replica::AssignmentId;
use group::Group;
use record::Store;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use supervise::Supervisor;
use tokio::sync::{mpsc, watch};

/// Events that wait for the agent; supervisors wait beyond that.
const EVENTS_MAX: usize = 64;
/// Longest grace that may be configured.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// How processes are run.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// From SIGTERM to SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// How many ended replicas' logs are kept.
    pub logs_kept: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { grace_ms: 10_000, logs_kept: 1_000 }
    }
}

impl Options {
    /// Faults of the options, each with the name of its field.
    pub fn faults(&self) -> Vec<String> {
        let most = GRACE_MAX.as_millis();
        match u128::from(self.grace_ms) > most {
            true => vec![format!("grace_ms: {} is above {most}", self.grace_ms)],
            false => Vec::new(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Process {
    store: Arc<Store>,
    grace: Duration,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    /// How each live replica's supervisor is told to stop.
    stops: BTreeMap<AssignmentId, watch::Sender<Option<Haste>>>,
}

impl Process {
    /// A runtime that keeps its things under `data_dir`, which exists and is locked by the caller.
    pub fn new(data_dir: &Path, options: &Options) -> Result<Process, RuntimeError> {
        let store = Arc::new(Store::open(data_dir, options.logs_kept)?);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let grace = Duration::from_millis(options.grace_ms);
        Ok(Process { store, grace, events, sender, stops: BTreeMap::new() })
    }

    fn supervisor(&mut self, id: AssignmentId) -> Supervisor {
        let (stop, stopped) = watch::channel(None);
        self.stops.insert(id, stop);
        Supervisor {
            id,
            store: Arc::clone(&self.store),
            grace: self.grace,
            events: self.sender.clone(),
            stop: stopped,
        }
    }
}

impl Runtime for Process {
    async fn adopt(&mut self) -> Result<Vec<Adopted>, RuntimeError> {
        let store = Arc::clone(&self.store);
        let found = tokio::task::spawn_blocking(move || store.adopt())
            .await
            .map_err(|lost| RuntimeError::io("read", "replicas", std::io::Error::other(lost)))??;
        let mut adopted = Vec::with_capacity(found.len());
        for (one, group) in found {
            if let Some(group) = group {
                let supervisor = self.supervisor(one.binding.id);
                tokio::spawn(supervisor.watch_adopted(group));
            }
            adopted.push(one);
        }
        Ok(adopted)
    }

    fn start(&mut self, assignment: &Arc<Assignment>) -> Start {
        if assignment.program.argv.is_empty() {
            return Start::Refused(
                "program.argv is empty: the process runtime needs a program to run".to_owned(),
            );
        }
        let supervisor = self.supervisor(assignment.binding.id);
        tokio::spawn(supervisor.run(Arc::clone(assignment)));
        Start::Underway
    }

    fn stop(&mut self, id: AssignmentId, haste: Haste) -> Stop {
        let Some(stop) = self.stops.get(&id) else { return Stop::Done };
        stop.send_if_modified(|now| {
            let more = now.is_none_or(|now| now < haste);
            if more {
                *now = Some(haste);
            }
            more
        });
        Stop::Underway
    }

    fn forget(&mut self, id: AssignmentId) {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.forget(id));
    }

    async fn event(&mut self) -> Event {
        // The runtime holds a sender itself, so the channel never ends.
        match self.events.recv().await {
            Some(event) => {
                if let Event::Ended { id, .. } = &event {
                    self.stops.remove(id);
                }
                event
            }
            None => std::future::pending().await,
        }
    }
}

impl RuntimeError {
    fn io(doing: &'static str, path: impl ToString, source: std::io::Error) -> RuntimeError {
        RuntimeError::Io { doing, path: path.to_string(), source }
    }
}

/// A replica found on disk; with its group if that still runs.
type Found = (Adopted, Option<Group>);
