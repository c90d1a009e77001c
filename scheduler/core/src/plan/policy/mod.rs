//! Policies: how a single replica chooses among the nodes that all would do.
//!
//! Each is a [`Scorer`] that sees one state of nodes at a time (nodes with the same GPUs and free
//! capacity are alike); `board` keeps the scores of all states for a shape and brings them up to
//! date as states come and go, `boards` keeps the boards. `published` holds the simple policies
//! of the literature, `fgd` fragmentation gradient descent, `foresight` ours.
//! **Invariant:** a score never decides whether a replica fits, only where; equal scores are decided
//! by the lower node id; what is kept between two plans never changes an answer.

mod admits;
mod board;
mod boards;
mod bounds;
mod draw;
mod fgd;
mod foresight;
mod fragment;
mod future;
mod holes;
mod look;
mod pools;
mod published;
mod rooms;
mod simplex;
mod standing;

pub(crate) use boards::Boards;
pub(crate) use foresight::Outlook;

use super::Steps;
use super::ask::{Ask, GroupAsk};
use crate::id::NodeId;
use crate::unit::GpuSet;
use crate::view::View;
use look::Look;
use std::fmt;
use std::str::FromStr;

/// How to choose among nodes that all would do, for a job of one replica. Gangs are packed onto as
/// few nodes as possible whatever the policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Policy {
    /// Any node that fits.
    Random,
    /// The node with the least free CPU and GPU afterwards.
    BestFit,
    /// The node whose free CPU and GPU point away most from what is asked for (Tetris' alignment
    /// turned round, as the FGD authors' simulator has it).
    DotProduct,
    /// Shared GPUs first, then free GPUs of nodes in use, then idle nodes.
    GpuPacking,
    /// Nodes that run replicas of the same number of GPUs.
    GpuClustering,
    /// Fragmentation gradient descent: where the GPUs that a typical replica could not use grow
    /// least (Weng et al., "Beware of Fragmentation", USENIX ATC 2023).
    Fgd,
    /// Ours: like `Fgd` with larger kinds weighing more, and among the best nodes the one that
    /// loses least when likely arrivals are played through.
    #[default]
    Foresight,
}

/// No policy of that name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no policy is called {name:?}; there are {}", names())]
pub struct PolicyError {
    name: String,
}

impl Policy {
    pub const ALL: [Self; 7] = [
        Self::Random,
        Self::DotProduct,
        Self::GpuClustering,
        Self::GpuPacking,
        Self::BestFit,
        Self::Fgd,
        Self::Foresight,
    ];

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::BestFit => "best-fit",
            Self::DotProduct => "dot-product",
            Self::GpuPacking => "gpu-packing",
            Self::GpuClustering => "gpu-clustering",
            Self::Fgd => "fgd",
            Self::Foresight => "foresight",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let named = Self::ALL.into_iter().find(|policy| policy.name() == text);
        named.ok_or_else(|| PolicyError { name: text.to_owned() })
    }
}

fn names() -> String {
    Policy::ALL.map(Policy::name).join(", ")
}

/// What a policy is made of. Larger scores are better; all of a policy's scores lie between
/// [`SCORE_MIN`] and [`SCORE_MAX`].
trait Scorer {
    fn score(&self, look: &Look<'_>) -> i32;

    /// Which GPU gets a share; `None` = the fullest that has room, an idle one only if none has.
    fn device(&self, _look: &Look<'_>) -> Option<u8> {
        None
    }

    /// How many of the best nodes get a second look; 1 = none does.
    fn second_looks(&self) -> usize {
        1
    }

    /// What the second look finds of the node as it is; must not follow from what is to be placed.
    fn standing(&self, _look: &Look<'_>) -> f64 {
        0.0
    }

    /// Cost of choosing this node by the second look, given its standing; the least wins, then the
    /// better score.
    fn cost(&self, _look: &Look<'_>, _standing: f64) -> i64 {
        0
    }
}

/// Least score that a policy may give.
const SCORE_MIN: i32 = -500_000_000;
/// Largest score that a policy may give.
const SCORE_MAX: i32 = 500_000_000;

/// Where the one replica of the group goes by the policy: a node that has room, and which of its
/// GPUs, where the policy cares. `None` is certain: no node has room.
pub(super) fn choose(
    ask: &Ask<'_>,
    group: &GroupAsk,
    policy: Policy,
    steps: &mut Steps,
) -> Option<(NodeId, Option<GpuSet>)> {
    let view: &View = ask.view;
    view.with_boards(|boards| boards.choose(ask, group, policy, steps))
}

#[cfg(test)]
mod tests;
