//! What the store needs from its host: a way to carry bytes to other servers, and somebody to
//! tell about applied entries.
//!
//! **Invariant:** bytes in, bytes out: no consensus type crosses this border, and the store never
//! opens a connection itself.

use std::time::Duration;

use bytes::Bytes;
use scheduler_core::event::Event;

use super::member::{Member, Status};

/// A boxed future that can move between threads.
pub type BoxFuture<T> = futures::future::BoxFuture<'static, T>;
/// A boxed stream that can move between threads.
pub type BoxStream<T> = futures::stream::BoxStream<'static, T>;

/// Carries messages to other servers. Implementations keep one lazily opened connection per
/// member and must deliver frames of one stream in order; they need not retry.
pub trait Transport: Send + Sync + 'static {
    /// One question, one answer: votes, heartbeats, leader transfer. At most 1 MiB each way.
    fn call(
        &self,
        target: &Member,
        body: Bytes,
        ttl: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>>;

    /// A pipelined stream of log frames (at most [`crate::FRAME_BYTES_MAX`] each) and the stream
    /// of answers, in the same order. The answers end when `frames` has ended and all were
    /// answered. Dropping the answers must end the stream at the target too.
    fn append_stream(
        &self,
        target: &Member,
        frames: BoxStream<Bytes>,
    ) -> BoxFuture<Result<BoxStream<Result<Bytes, TransportError>>, TransportError>>;

    /// A whole snapshot in frames of at most 1 MiB, and one answer when it is installed. When the
    /// transfer breaks, `frames` ends early at the target, which then discards what it got.
    fn snapshot(
        &self,
        target: &Member,
        frames: BoxStream<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>>;
}

/// Why a message to or from another server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The other side does not take this message: it belongs to another cluster, is another
    /// server than the one meant, cannot read it, or has stopped.
    #[error("refused: {0}")]
    Refused(String),
}

/// Told what happens in the local copy of the state.
pub trait Observer: Send + Sync + 'static {
    /// The effects of all records up to `index` are readable. Called in order, one call per
    /// slice of applied records, after the state's lock is released, from the applying task:
    /// must return in microseconds.
    fn applied(&self, index: u64, events: &[Event]);

    /// Leader, term, role or members changed.
    fn leadership(&self, status: &Status) {
        let _ = status;
    }

    /// The whole state was replaced by a snapshot at `index`: look at everything again.
    fn replaced(&self, index: u64) {
        let _ = index;
    }
}
