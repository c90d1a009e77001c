//! What an office needs of whoever runs it: a server's planner thread, or a simulated leader.
//!
//! **Invariant:** values in, values out: no call here waits for the log.

use super::batch::Batch;
use super::look::Answer;
use super::notes::Notes;
use crate::command::Plan;
use crate::plan::{Policy, Request, Unplaceable};
use crate::state::State;
use crate::unit::TimeMs;
use crate::view::View;

/// Whoever runs an office.
pub trait Shell {
    /// What is kept with a submission until it is answered.
    type Ticket;

    /// Looks at the newest state. A server holds a lock meanwhile, so looks are short.
    fn look<R>(&self, at: impl FnOnce(&State) -> R) -> R;

    /// What changed up to the state that [`Shell::look`] shows, as far as it was not told yet.
    fn news(&mut self) -> Notes;

    /// Time that never jumps, by which pauses are counted.
    fn now(&self) -> TimeMs;

    /// Microseconds of a clock that never jumps, by which work is counted. Where it stands still,
    /// work takes no time, and only counts bound a round.
    fn work_us(&self) -> u64;

    /// Wall-clock time, for entries.
    fn clock(&self) -> TimeMs;

    /// A number that nobody can guess: what members of a job know each other by.
    fn token(&mut self) -> u128;

    /// Whether nobody waits for the answer any more.
    fn is_gone(&self, ticket: &Self::Ticket) -> bool;

    fn answer(&mut self, ticket: Self::Ticket, answer: Answer);

    /// Proposes the batch; [`Office::take_back`](super::Office::take_back) is told what came of it.
    fn send(&mut self, batch: Batch<Self::Ticket>);

    /// Looks for a plan; whoever has nothing to add calls [`plan`](crate::plan::plan).
    fn plan(
        &mut self,
        view: &View,
        request: &Request<'_>,
        policy: Policy,
    ) -> Result<Plan, Unplaceable>;
}
