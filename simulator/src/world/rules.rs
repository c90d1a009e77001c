//! The seam between the world and the scheduler's rules, so that tests can break a rule and see
//! whether the oracle notices.
//!
//! **Invariant:** [`Production`] is all that anything but a test uses, and adds nothing.

use scheduler_core::command::{Entry, Plan};
use scheduler_core::plan::{self, Budget, Policy, Request, Unplaceable};
use scheduler_core::state::{Applied, State};
use scheduler_core::view::View;

/// How the world comes to plans and to outcomes.
pub trait Rules {
    fn apply(&mut self, state: &mut State, index: u64, entry: &Entry) -> Applied {
        state.apply(index, entry)
    }

    /// Whether an agent may go on with its session, as state and leases have it.
    fn holds(&mut self, session_holds: bool) -> bool {
        session_holds
    }

    /// Whether an agent stops what it runs when its lease is over.
    fn fences(&mut self) -> bool {
        true
    }

    /// The world's event of this number begins.
    fn begin_event(&mut self, _number: u64) {}

    /// # Errors
    /// As [`plan::plan`].
    fn plan(
        &mut self,
        view: &View,
        request: &Request<'_>,
        policy: &Policy,
        budget: Budget,
    ) -> Result<Plan, Unplaceable> {
        plan::plan(view, request, policy, budget)
    }
}

/// The rules as the servers follow them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Production;

impl Rules for Production {}
