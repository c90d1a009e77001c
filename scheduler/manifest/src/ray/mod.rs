//! Ray's placement groups, and KubeRay's objects.
//!
//! **Invariant:** STRICT_PACK is one node and nothing else; every worker group keeps its own minimum.

pub(crate) mod cluster;
pub(crate) mod job;
pub(crate) mod placement;
pub(crate) mod service;
