//! The gRPC contract: types and services generated from `muster/v1/*.proto`.
//!
//! **Invariant:** no logic; nothing of ours is imported here.

/// Package `muster.v1`.
#[allow(clippy::all, missing_docs, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("muster.v1");
}

/// Encoded `FileDescriptorSet` of the package, for reflection and for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
