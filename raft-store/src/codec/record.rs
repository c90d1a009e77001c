//! What the log keeps: the payloads of records by kind, and votes.
//!
//! **Invariant:** kind bytes are never reused; an entry's body is stored as it was proposed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use super::{CodecError, decode, encode};
use crate::log::LogPosition;
use crate::raft::types::{Address, Batch, Membership, Payload, StoredMembership, Vote};
use crate::raft::types::{to_log_id, to_position};

/// A leader's first record in its term; no payload.
pub(crate) const BLANK: u8 = 1;
/// Entries for the state.
pub(crate) const NORMAL: u8 = 2;
/// A change of members.
pub(crate) const MEMBERSHIP: u8 = 3;

/// A vote as stored and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteBytes {
    pub(crate) term: u64,
    pub(crate) server: u64,
    pub(crate) committed: bool,
}

impl VoteBytes {
    pub(crate) fn of(vote: &Vote) -> Self {
        let leader = &vote.leader_id;
        Self { term: leader.term, server: leader.node_id, committed: vote.committed }
    }

    pub(crate) fn vote(self) -> Vote {
        let leader_id =
            openraft::impls::leader_id_adv::LeaderId { term: self.term, node_id: self.server };
        Vote { leader_id, committed: self.committed }
    }
}

/// Members as stored and sent: voter sets (two while a change is under way) and all addresses.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct MembershipBytes {
    voters: Vec<BTreeSet<u64>>,
    addresses: BTreeMap<u64, Address>,
}

impl MembershipBytes {
    pub(crate) fn of(membership: &Membership) -> Self {
        let addresses = membership.nodes().map(|(id, address)| (*id, address.clone())).collect();
        Self { voters: membership.get_joint_config().clone(), addresses }
    }

    pub(crate) fn membership(self) -> Result<Membership, CodecError> {
        if self == Self::default() {
            return Ok(Membership::default());
        }
        Membership::new(self.voters, self.addresses)
            .map_err(|error| CodecError::body("membership", error))
    }
}

/// The last membership of a state, with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StoredMembershipBytes {
    at: Option<LogPosition>,
    membership: MembershipBytes,
}

impl StoredMembershipBytes {
    pub(crate) fn of(stored: &StoredMembership) -> Self {
        let at = stored.log_id().as_ref().map(to_position);
        Self { at, membership: MembershipBytes::of(stored.membership()) }
    }

    pub(crate) fn stored(self) -> Result<StoredMembership, CodecError> {
        Ok(StoredMembership::new(self.at.map(to_log_id), self.membership.membership()?))
    }
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    // Fixed fields into a growing buffer: there is nothing to fail.
    encode("vote", &VoteBytes::of(vote)).map(Bytes::from).unwrap_or_default()
}

pub(crate) fn vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    decode("vote", bytes).map(VoteBytes::vote)
}

/// Kind and payload of a record. Entries are shared, not copied.
pub(crate) fn encode_payload(payload: &Payload) -> Result<(u8, Bytes), CodecError> {
    Ok(match payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(batch) => (NORMAL, batch.0.clone()),
        EntryPayload::Membership(membership) => {
            let bytes = encode("membership", &MembershipBytes::of(membership))?;
            (MEMBERSHIP, Bytes::from(bytes))
        }
    })
}

/// The opposite of [`encode_payload`]. The entries themselves are decoded when they are applied.
pub(crate) fn payload(kind: u8, payload: &Bytes) -> Result<Payload, CodecError> {
    match kind {
        BLANK if payload.is_empty() => Ok(EntryPayload::Blank),
        BLANK => Err(CodecError::Trailing { what: "blank record", left: payload.len() }),
        NORMAL => Ok(EntryPayload::Normal(Batch(payload.clone()))),
        MEMBERSHIP => {
            let bytes: MembershipBytes = decode("membership", payload)?;
            Ok(EntryPayload::Membership(bytes.membership()?))
        }
        found => Err(CodecError::Kind { what: "record", found }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    fn three_members() -> Membership {
        let address = |id: u64| Address { peer: format!("p{id}"), api: format!("a{id}") };
        let nodes: BTreeMap<u64, Address> = (1..=3).map(|id| (id, address(id))).collect();
        Membership::new(vec![BTreeSet::from([1, 2])], nodes).expect("valid")
    }

    #[test]
    fn records_have_these_bytes() {
        let (kind, bytes) = encode_payload(&EntryPayload::Blank).expect("encodes");
        assert_eq!((kind, hex(&bytes)), (1, String::new()));

        let members = EntryPayload::Membership(three_members());
        let (kind, bytes) = encode_payload(&members).expect("encodes");
        let golden = "0101020102030102703102613102027032026132030270330261 33".replace(' ', "");
        assert_eq!((kind, hex(&bytes)), (3, golden));
        assert_eq!(payload(kind, &bytes), Ok(members));

        let batch = EntryPayload::Normal(Batch(Bytes::from_static(&[1, 0])));
        let (kind, bytes) = encode_payload(&batch).expect("encodes");
        assert_eq!((kind, hex(&bytes)), (2, "0100".to_owned()));
        assert_eq!(payload(kind, &bytes), Ok(batch));
    }

    #[test]
    fn votes_have_these_bytes() {
        let stored = VoteBytes { term: 300, server: 7, committed: true };
        let bytes = encode_vote(&stored.vote());
        assert_eq!(hex(&bytes), "01ac020701");
        assert_eq!(vote(&bytes), Ok(stored.vote()));
    }

    #[test]
    fn an_empty_membership_survives() {
        let stored = StoredMembershipBytes::of(&StoredMembership::default());
        assert_eq!(stored.stored(), Ok(StoredMembership::default()));
    }

    #[test]
    fn bad_records_are_refused() {
        assert!(payload(BLANK, &Bytes::from_static(b"x")).is_err());
        assert!(payload(9, &Bytes::new()).is_err());
        assert!(payload(MEMBERSHIP, &Bytes::from_static(&[1, 1, 1, 5, 0])).is_err());
        assert!(vote(&[1]).is_err());
    }
}
