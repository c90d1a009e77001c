//! A runtime whose strings the test pulls.

use crate::fake::soon;
use agent_core::replica::{AssignmentId, Exit};
use scheduler_agent::replica::Assignment;
use scheduler_agent::runtime::{Adopted, Event, Haste, Runtime, RuntimeError, Start, Stop};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the agent told the runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    Start(u64),
    Stop(u64, Haste),
    Forget(u64),
}

/// The agent's side.
pub(crate) struct Puppet {
    adopted: Vec<Adopted>,
    told: mpsc::UnboundedSender<Told>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// The test's side.
pub(crate) struct Strings {
    told: mpsc::UnboundedReceiver<Told>,
    events: mpsc::UnboundedSender<Event>,
}

pub(crate) fn puppet(adopted: Vec<Adopted>) -> (Puppet, Strings) {
    let (told, told_receiver) = mpsc::unbounded_channel();
    let (events_sender, events) = mpsc::unbounded_channel();
    let strings = Strings { told: told_receiver, events: events_sender };
    (Puppet { adopted, told, events }, strings)
}

impl Strings {
    /// What the runtime is told next.
    pub(crate) async fn told(&mut self) -> Told {
        soon("a word to the runtime", self.told.recv()).await.unwrap()
    }

    /// What it was told and nobody has taken yet.
    pub(crate) fn drain(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }

    pub(crate) fn ready(&self, id: u64) {
        self.events.send(Event::Ready(AssignmentId(id))).unwrap();
    }

    pub(crate) fn ended(&self, id: u64, code: i32) {
        let (id, exit) = (AssignmentId(id), Exit::from_code(code));
        self.events.send(Event::Ended { id, exit, message: None }).unwrap();
    }
}

impl Runtime for Puppet {
    async fn adopt(&mut self) -> Result<Vec<Adopted>, RuntimeError> {
        Ok(std::mem::take(&mut self.adopted))
    }

    fn start(&mut self, assignment: &Arc<Assignment>) -> Start {
        let _ = self.told.send(Told::Start(assignment.binding.id.0));
        Start::Underway
    }

    fn stop(&mut self, id: AssignmentId, haste: Haste) -> Stop {
        let _ = self.told.send(Told::Stop(id.0, haste));
        Stop::Underway
    }

    fn forget(&mut self, id: AssignmentId) {
        let _ = self.told.send(Told::Forget(id.0));
    }

    async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}
