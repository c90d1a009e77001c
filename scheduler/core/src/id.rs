//! Identities: what the log numbers (nodes, jobs) and what people name (tenants, suppliers).
//!
//! **Invariant:** a numeric id is given by `State::apply` and never reused; a name is validated
//! once, by [`Name::parse`], and holds no characters that could disturb a log, a path or a table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name accepted anywhere, in bytes: fits a DNS label.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest request id, in bytes: a UUID in text is 36; some gateways add a prefix.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// A worker machine, numbered by the log in order of first registration, from 0 upwards.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

/// A job, numbered by the log in order of submission, from 1 upwards.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct JobId(pub u64);

/// Position of a replica inside its job: groups in order, replicas of a group in a row.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Rank(pub u32);

/// A site, numbered by the state in order of first sight.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct SiteId(pub u16);

/// A GPU model, numbered by the state in order of first sight.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct ModelId(pub u16);

/// Fencing number of a node's session: each accepted registration adds one; older ones are refused.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

/// Fencing number of one binding of a replica to a node; unique in the life of the cluster.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct AssignmentId(pub u64);

/// A name made of `[A-Za-z0-9._-]`, 1 to [`NAME_BYTES_MAX`] bytes, starting and ending with a
/// letter or digit. So never a path (`..`), never control characters, never look-alike letters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "std::sync::Arc<str>")]
pub struct Name(std::sync::Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    #[error("is empty")]
    Empty,
    #[error("is {bytes} bytes long; at most {NAME_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("has a character at byte {at} that is not a letter, digit, '.', '_' or '-'")]
    BadCharacter { at: usize },
    #[error("must start and end with a letter or digit")]
    BadEdge,
}

impl Name {
    /// Checks `text` and copies it.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }

    fn check(text: &str) -> Result<(), NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if let Some(at) = text.bytes().position(|b| !allowed(b)) {
            return Err(NameError::BadCharacter { at });
        }
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        if !edge(text.bytes().next()) || !edge(text.bytes().last()) {
            return Err(NameError::BadEdge);
        }
        Ok(())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is decoded is held to the same rules as what is typed.
impl TryFrom<std::sync::Arc<str>> for Name {
    type Error = NameError;

    fn try_from(text: std::sync::Arc<str>) -> Result<Self, NameError> {
        Self::check(&text)?;
        Ok(Self(text))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who owns nodes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SupplierId(pub Name);

/// Who submits jobs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TenantId(pub Name);

macro_rules! display_inner {
    ($($name:ident $prefix:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}
display_inner!(NodeId "node-", JobId "job-", Rank "", SiteId "site-", ModelId "model-", Epoch "", AssignmentId "", SupplierId "", TenantId "");
