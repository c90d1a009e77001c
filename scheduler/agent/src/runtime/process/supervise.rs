//! The task that stays with one replica until it is gone.
//!
//! **Invariant:** says `Ended` once, last, and only when no process of the group lives. If the
//! runtime goes away, the task goes and the replica stays.

use super::group::Group;
use super::launch::{Launched, launch};
use super::record::Store;
use crate::replica::Assignment;
use crate::runtime::{Event, Haste};
use agent_core::replica::{AssignmentId, EXIT_KILLED, EXIT_NOT_STARTED, Exit};
use rustix::process::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// First and longest pause between two looks at whether killed processes are gone.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Pause after the system refused to tell about a process.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Supervisor {
    pub(super) id: AssignmentId,
    pub(super) store: Arc<Store>,
    pub(super) grace: Duration,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) stop: watch::Receiver<Option<Haste>>,
}

/// The runtime went away.
struct Abandoned;

impl Supervisor {
    /// Starts a replica and stays with it.
    pub(super) async fn run(self, assignment: Arc<Assignment>) {
        let store = Arc::clone(&self.store);
        let launched = tokio::task::spawn_blocking(move || launch(&store, &assignment)).await;
        match launched.unwrap_or_else(|lost| Err(format!("cannot start: {lost}"))) {
            Ok(Launched { child, group }) => {
                self.say(Event::Ready(self.id)).await;
                self.stay(group, Some(child)).await;
            }
            Err(message) => {
                self.ended(Exit::Failed(EXIT_NOT_STARTED), Some(message)).await;
            }
        }
    }

    /// Stays with a replica that an earlier agent process started.
    pub(super) async fn watch_adopted(self, group: Group) {
        self.stay(group, None).await;
    }

    async fn stay(mut self, group: Group, mut child: Option<Child>) {
        loop {
            match self.until_dead(group).await {
                Ok(Ok(())) => break,
                Ok(Err(Abandoned)) => return,
                Err(error) => self.trouble(group, &error).await,
            }
        }
        let mut pause = LOOK_FIRST;
        // The leader is dead; what it left behind is killed before its number is given back.
        let code = loop {
            match self.bury(group, &mut child).await {
                Ok(Some(code)) => break code,
                Ok(None) => tokio::time::sleep(pause).await,
                Err(error) => self.trouble(group, &error).await,
            }
            if pause >= LOOK_MAX {
                tracing::warn!(assignment = self.id.0, pid = group.pid, "processes do not die");
            }
            pause = (pause * 2).min(LOOK_MAX);
        };
        self.ended(Exit::from_code(code), None).await;
    }

    /// Waits for the leader's death, and brings it about when told to.
    async fn until_dead(&mut self, group: Group) -> io::Result<Result<(), Abandoned>> {
        let Some(watch) = group.watch()? else { return Ok(Ok(())) };
        let mut kill_at: Option<Instant> = None;
        loop {
            let order = *self.stop.borrow_and_update();
            match order {
                Some(Haste::Now) => group.signal(Signal::KILL)?,
                Some(Haste::Graceful) if kill_at.is_none() => {
                    group.signal(Signal::TERM)?;
                    kill_at = Some(Instant::now() + self.grace);
                }
                Some(Haste::Graceful) | None => {}
            }
            let grace_over = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                dead = watch.dead() => return dead.map(Ok),
                changed = self.stop.changed() => {
                    if changed.is_err() {
                        return Ok(Err(Abandoned));
                    }
                }
                () = grace_over => {
                    group.signal(Signal::KILL)?;
                    // Nothing is left to do but wait.
                    watch.dead().await?;
                    return Ok(Ok(()));
                }
            }
        }
    }

    /// Kills what is left of the group; the exit code once nothing is.
    async fn bury(&self, group: Group, child: &mut Option<Child>) -> io::Result<Option<i32>> {
        group.signal(Signal::KILL)?;
        let status = child.as_mut().map(|child| child.try_wait()).transpose()?.flatten();
        let lives = tokio::task::spawn_blocking(move || group.lives());
        if lives.await.map_err(io::Error::other)?? {
            return Ok(None);
        }
        let seen = status.map(|status| {
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(EXIT_KILLED - 128))
        });
        let code = seen.or_else(|| self.store.folder(self.id).exit_code());
        Ok(Some(code.unwrap_or(EXIT_KILLED)))
    }

    async fn trouble(&self, group: Group, error: &io::Error) {
        tracing::error!(assignment = self.id.0, pid = group.pid, %error, "cannot watch a process");
        tokio::time::sleep(TROUBLE_PAUSE).await;
    }

    async fn ended(&self, exit: Exit, message: Option<String>) {
        self.say(Event::Ended { id: self.id, exit, message }).await;
    }

    async fn say(&self, event: Event) {
        // Nobody to hear it: the runtime went away.
        let _ = self.events.send(event).await;
    }
}
