//! The one set of types the consensus library is instantiated with, and the way between its
//! positions and the log's.
//!
//! **Invariant:** these types stay inside this crate.

use std::fmt;

use bytes::Bytes;
use openraft::impls;
use openraft::type_config::alias::{LogIdOf, StoredMembershipOf, VoteOf};
use scheduler_core::command::{Outcome, Rejection};
use serde::{Deserialize, Serialize};

use crate::log::LogPosition;
use crate::quorum::{Member, ServerId};

/// Our instantiation of the consensus library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Batch;
    type R = Reply;
    type NodeId = u64;
    type Node = Address;
    type Term = u64;
    type LeaderId = impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Batch, u64, Address>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder<T>
        = impls::OneshotResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

pub(crate) type Raft = openraft::Raft<Types, super::machine::Machine>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type Payload = openraft::type_config::alias::PayloadOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type StoredMembership = StoredMembershipOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Address>;

/// The body of a normal record: encoded once where it is proposed, shared from there on.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Bytes);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What became of the entries of one record, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) results: Vec<Result<Outcome, Rejection>>,
}

/// Where a member is reached.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) peer: String,
    pub(crate) api: String,
}

impl Address {
    pub(crate) fn of(member: &Member) -> Self {
        Self { peer: member.peer_address.clone(), api: member.api_address.clone() }
    }

    pub(crate) fn member(&self, id: u64, voter: bool) -> Member {
        Member {
            id: ServerId(id),
            peer_address: self.peer.clone(),
            api_address: self.api.clone(),
            voter,
        }
    }
}

/// All members of a membership by id.
pub(crate) fn members(membership: &Membership) -> Vec<Member> {
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, address): (&u64, &Address)| address.member(*id, voters.contains(id));
    membership.nodes().map(member).collect()
}

pub(crate) fn to_position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

pub(crate) fn to_log_id(at: LogPosition) -> LogId {
    LogId::new(impls::leader_id_adv::LeaderId { term: at.term, node_id: at.leader }, at.index)
}
