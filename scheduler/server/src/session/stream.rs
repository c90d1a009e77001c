//! One agent's session as a stream: reads what the agent says, yields what waits for it.
//!
//! There is no task of its own: whoever polls the answer also reads the requests, so an agent that
//! does not read is not listened to either.
//! **Invariant:** dropping the stream closes the session; nothing is read while reports have no
//! room.

use super::Hub;
use super::table::Slot;
use crate::convert;
use crate::status::bad_field;
use futures::Stream;
use proto::v1::{SessionRequest, SessionResponse, session_request};
use scheduler_core::command::ReplicaReport;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// Messages read in one go before others have their turn.
const READ_IN_A_ROW: usize = 32;

/// The server's half of one session.
pub struct SessionStream<S> {
    hub: Hub,
    slot: Arc<Slot>,
    inbound: S,
    /// Reports for which there is no room yet.
    held: Vec<ReplicaReport>,
    over: bool,
}

impl<S> SessionStream<S> {
    /// A stream for an open slot; `inbound` after the hello.
    pub(crate) fn new(hub: Hub, slot: Arc<Slot>, inbound: S) -> Self {
        Self { hub, slot, inbound, held: Vec::new(), over: false }
    }
}

impl<S> Drop for SessionStream<S> {
    fn drop(&mut self) {
        self.hub.table().close(&self.slot);
    }
}

impl<S> SessionStream<S>
where
    S: Stream<Item = Result<SessionRequest, Status>> + Unpin,
{
    /// Reads what has come in. `Ready` = the agent is gone or at fault.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        for _ in 0..READ_IN_A_ROW {
            if !self.held.is_empty() {
                ready!(self.hub.reports().poll_room(cx));
                self.hub.reports().push(self.held.drain(..));
            }
            match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    tracing::debug!(node = %self.slot.node, %error, "a session broke off");
                    // Whoever is still there said something that cannot be read, such as too much at once.
                    return Poll::Ready(Err(error));
                }
                Some(Ok(request)) => self.take(request)?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take(&mut self, request: SessionRequest) -> Result<(), Status> {
        match request.message {
            Some(session_request::Message::Heartbeat(beat)) => {
                if self.slot.beat(beat.sequence) {
                    // It may come at the end of a lease that ran on elsewhere.
                    self.hub.table().hurry();
                }
                Ok(())
            }
            Some(session_request::Message::Reports(message)) => {
                self.slot.hear();
                let mut reports = convert::session::reports(self.slot.node, &message)?;
                self.hub.quorum().read(|state| {
                    reports.retain(|report| convert::session::is_news(state, report));
                });
                self.held = reports;
                Ok(())
            }
            Some(session_request::Message::Probes(told)) => {
                self.slot.hear();
                self.hub.gathered().push(self.slot.asked.answered(self.slot.node, &told)?);
                Ok(())
            }
            Some(session_request::Message::Hello(_)) => {
                Err(bad_field("hello", "was said before in this stream"))
            }
            None => Err(bad_field("message", "is missing")),
        }
    }
}

impl<S> Stream for SessionStream<S>
where
    S: Stream<Item = Result<SessionRequest, Status>> + Unpin,
{
    type Item = Result<SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.slot.outbox.poll(cx) {
            Poll::Ready(Some(message)) => {
                return Poll::Ready(Some(Ok(SessionResponse { message: Some(message) })));
            }
            Poll::Ready(None) => {
                self.over = true;
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        let read = ready!(self.poll_read(cx));
        self.over = true;
        Poll::Ready(read.err().map(Err))
    }
}
