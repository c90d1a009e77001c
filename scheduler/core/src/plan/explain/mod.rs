//! Explain: why a request could not be placed, in numbers that add up, and what would help.
//!
//! `cause` counts the nodes, `paper` the replicas of a group that would fit by itself, `miss` says
//! how far off RTTs are, `refusal` is the short form that every refusal carries, `change` is one
//! thing that could be changed, `search` finds the changes that help, `answer` puts the long form
//! together.
//! **Invariant:** every node of the fleet is counted under exactly one cause; a change is only
//! named after the planner itself has placed the job with it.

mod answer;
mod cause;
pub mod change;
mod miss;
pub mod outlook;
mod paper;
mod refusal;
pub mod rule;
mod search;

pub use answer::{Explanation, GroupCounts, Help, explain};
pub use cause::Cause;
pub use change::{Change, Taken};
pub use outlook::Outlook;
pub(super) use refusal::{alone, unplaceable};
pub use rule::Rule;

use crate::job::{Reason, ReasonCode};
use crate::unit::{RttUs, TimeMs};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Why it does not fit, in one word: what would have to change first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// The tenant may not hold that much.
    Quota,
    /// No node of the fleet, whatever its status, could hold one replica of some group.
    NoSuchPool,
    /// It fits what is free now, but not within the RTT bound, the topology domain or as few domains.
    Latency,
    /// It would, but for the bound on the price.
    Budget,
    /// The whole fleet, empty and up, would not hold the gang.
    NeverFits,
    /// It would, but nodes are down, cordoned or to be avoided.
    NotReady,
    /// It fits the fleet, but not what is free now. With the time at which enough of what runs has
    /// ended, where that was looked for and found.
    BusyUntil(Option<TimeMs>),
    /// The budget ran out before the answer was certain.
    Undecided,
}

impl Verdict {
    /// The code that a pending job carries for it.
    pub fn code(self) -> ReasonCode {
        match self {
            Self::Quota => ReasonCode::Quota,
            Self::NoSuchPool => ReasonCode::NoSuchPool,
            Self::NeverFits => ReasonCode::NeverFits,
            Self::Latency => ReasonCode::Network,
            Self::Budget => ReasonCode::Budget,
            Self::NotReady => ReasonCode::NotReady,
            Self::BusyUntil(_) | Self::Undecided => ReasonCode::Busy,
        }
    }
}

/// The nearest miss.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Nearest {
    /// Replicas of each group of the spec that could be placed now, each group by itself and by its
    /// own rules, within the best domain if there is a bound; at most as many as wait.
    pub placeable: Vec<u32>,
    /// Replicas that wait, per group.
    pub wanted: Vec<u32>,
    /// The smallest RTT bound found under which the gang fits now; `None` without an RTT bound or
    /// when no bound would do.
    pub rtt_max: Option<RttUs>,
    /// Every group would reach its minimum by itself: it is only together, or by rules among all
    /// members, that they do not fit.
    pub is_alone: bool,
    /// Then: the rules among the members that may be in the way.
    pub rules: Vec<Rule>,
}

/// A refusal with numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unplaceable {
    /// Nodes of the fleet.
    pub nodes: u32,
    /// Nodes per cause, for the group that is hardest to place; they sum to `nodes`.
    pub counts: Vec<(Cause, u32)>,
    /// Index of that group in the spec.
    pub group: usize,
    pub verdict: Verdict,
    pub nearest: Box<Nearest>,
}

impl fmt::Display for Unplaceable {
    /// One line: usable of all nodes, then the causes by falling count, then the nearest miss.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usable = self.counts.iter().find(|(cause, _)| *cause == Cause::Usable);
        let usable = usable.map_or(0, |(_, count)| *count);
        write!(f, "{} of {} nodes usable", Grouped(usable), Grouped(self.nodes))?;
        let mut others: Vec<_> =
            self.counts.iter().filter(|(cause, _)| *cause != Cause::Usable).collect();
        others.sort_by_key(|(cause, count)| (std::cmp::Reverse(*count), *cause));
        let mut separator = ": ";
        for (cause, count) in others {
            write!(f, "{separator}{} {cause}", Grouped(*count))?;
            separator = ", ";
        }
        self.nearest.fmt(f)?;
        if let Some(RttUs(rtt)) = self.nearest.rtt_max {
            write!(f, "; an RTT bound of {}.{:03} ms would do", rtt / 1000, rtt % 1000)?;
        }
        match self.verdict {
            Verdict::Budget => f.write_str("; the bound on the price is in the way"),
            Verdict::Undecided => f.write_str("; the planning budget ran out"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let placeable: u32 = self.placeable.iter().sum();
        let wanted: u32 = self.wanted.iter().sum();
        let groups = self.wanted.iter().filter(|&&count| count > 0).count();
        match (self.is_alone, groups) {
            (true, 0 | 1) => f.write_str("; they would hold the replicas, but not by all rules")?,
            (true, _) => f.write_str("; each group would fit by itself, not all together")?,
            (false, _) => {
                let (placeable, wanted) = (Grouped(placeable), Grouped(wanted));
                write!(f, "; {placeable} of {wanted} replicas would fit")?;
                if groups > 1 {
                    f.write_str(", each group by itself")?;
                }
            }
        }
        let mut separator = " (";
        for rule in &self.rules {
            write!(f, "{separator}{rule}")?;
            separator = ", ";
        }
        if self.rules.is_empty() { Ok(()) } else { f.write_char(')') }
    }
}

impl std::error::Error for Unplaceable {}

impl Unplaceable {
    /// The reason a pending job carries.
    pub fn to_reason(&self) -> Reason {
        Reason::new(self.verdict.code(), self.to_string())
    }
}

/// A number with commas between thousands.
struct Grouped(u32);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}
