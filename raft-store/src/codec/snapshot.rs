//! Head and foot of a snapshot file.
//!
//! **Invariant:** the head says what the file is a snapshot of, the foot what it must contain;
//! both are covered by checksums in the file.

use serde::{Deserialize, Serialize};

use super::record::StoredMembershipBytes;
use super::{CodecError, decode, encode};
use crate::log::LogPosition;

/// What a snapshot stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Fingerprint of the cluster's name.
    pub(crate) cluster: u64,
    /// Last record whose effects it holds.
    pub(crate) last: Option<LogPosition>,
    pub(crate) membership: StoredMembershipBytes,
}

/// What a complete snapshot contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Foot {
    pub(crate) rows: u64,
    pub(crate) blocks: u64,
    /// Hash of the state that the rows make.
    pub(crate) state_hash: u128,
}

pub(crate) fn encode_head(head: &Head) -> Result<Vec<u8>, CodecError> {
    encode("snapshot head", head)
}

pub(crate) fn head(bytes: &[u8]) -> Result<Head, CodecError> {
    decode("snapshot head", bytes)
}

pub(crate) fn encode_foot(foot: &Foot) -> Result<Vec<u8>, CodecError> {
    encode("snapshot foot", foot)
}

pub(crate) fn foot(bytes: &[u8]) -> Result<Foot, CodecError> {
    decode("snapshot foot", bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    #[test]
    fn head_and_foot_have_these_bytes() {
        let last = Some(LogPosition { term: 3, leader: 1, index: 300 });
        let wanted = Head { cluster: 9, last, membership: StoredMembershipBytes::default() };
        let bytes = encode_head(&wanted).expect("encodes");
        assert_eq!(hex(&bytes), "0109010301ac02000000");
        assert_eq!(head(&bytes), Ok(wanted));

        let wanted = Foot { rows: 300, blocks: 2, state_hash: 1 << 70 };
        let bytes = encode_foot(&wanted).expect("encodes");
        assert_eq!(hex(&bytes), "01ac02028080808080808080808001");
        assert_eq!(foot(&bytes), Ok(wanted));
    }
}
