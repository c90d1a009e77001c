//! Objects of Kubernetes and its neighbours: one application in one text.
//!
//! **Invariant:** every document is used, told as ignored, or refused.

mod application;
mod claim;
mod exclusive;
mod gang;
mod job;
mod jobset;
mod kai;
mod kubeflow;
mod kueue;
mod lws;
mod members;
mod pinned;
mod placement;
pub(crate) mod pod;
mod preemption;
mod relation;
mod resources;
mod volcano;
mod yunikorn;

pub(crate) use application::{assemble, finish_group};
pub(crate) use claim::Known;
pub(crate) use job::{Owner, name_of};
pub(crate) use members::{Members, deadline, shorter};
pub(crate) use pinned::{On, Pinned};
