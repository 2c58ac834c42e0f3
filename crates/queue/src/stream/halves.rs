//! The two halves of a stream that an application holds.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use peerage_mailbox::{Item, Overflow};

use super::StreamCode;
use super::shared::Shared;
use crate::{ChannelId, Door, Flow, SessionId};

/// Why a stream takes or gives no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The other end has reset its direction.
    #[error("the peer reset the stream: {0}")]
    Reset(StreamCode),
    /// The other end reads no more.
    #[error("the peer reads no more of the stream: {0}")]
    Stopped(StreamCode),
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
}

/// The outgoing direction of a stream. Dropped before it was [finished](StreamWriter::finish), it resets the direction.
pub struct StreamWriter {
    shared: Arc<Shared>,
    door: Door,
    place: u64,
    /// Nothing is left to tell.
    over: bool,
}

impl StreamWriter {
    pub(crate) fn new(shared: Arc<Shared>, door: Door) -> StreamWriter {
        StreamWriter { shared, place: door.writer_place(), door, over: false }
    }

    /// Its channel, id and lane.
    pub fn flow(&self) -> Flow {
        self.shared.flow
    }

    /// Queues bytes, and waits for room: as the peer reads, and the node's outbound pool allows; and while the node
    /// [sheds](crate::Shed) the stream's lane. A future that is dropped
    /// may have queued a part of them.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] or [`StreamError::SessionEnded`].
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), StreamError> {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_write(cx, &mut bytes)).await?;
        }
        Ok(())
    }

    /// Queues as many of the bytes as there is room for, at least one, and takes them off the front.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] or [`StreamError::SessionEnded`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), StreamError>> {
        let polled = self.door.poll_write(self.shared.flow, bytes, self.place, cx);
        polled.map_err(|_| self.shared.write_error())
    }

    /// Ends the direction after all that was written: the peer reads the end when it has read that.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] or [`StreamError::SessionEnded`].
    pub fn finish(mut self) -> Result<(), StreamError> {
        self.over = true;
        self.door.finish_stream(self.shared.flow.stream).map_err(|_| self.shared.write_error())
    }

    /// Ends the direction at once: what was written and not sent is dropped, and the peer's reader fails with the code.
    pub fn reset(mut self, code: StreamCode) {
        self.over = true;
        self.shared.reset(code);
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.door.leave_writer_place(self.shared.flow.stream, self.place);
        if !self.over {
            self.shared.reset(StreamCode::DROPPED);
        }
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamWriter({:?})", self.shared.flow)
    }
}

/// The incoming direction of a stream. Dropped before its end, it tells the peer to stop.
pub struct StreamReader {
    shared: Arc<Shared>,
    stopped: bool,
}

impl StreamReader {
    pub(crate) fn new(shared: Arc<Shared>) -> StreamReader {
        StreamReader { shared, stopped: false }
    }

    /// Its channel, id and lane.
    pub fn flow(&self) -> Flow {
        self.shared.flow
    }

    /// The next bytes, in order, cut as they happened to come; `None` at the end. What is read, the peer may send again.
    ///
    /// # Errors
    /// [`StreamError::Reset`] or [`StreamError::SessionEnded`].
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// As [`read`](StreamReader::read), for a task that waits for other things, too.
    ///
    /// # Errors
    /// [`StreamError::Reset`] or [`StreamError::SessionEnded`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.shared.poll_read(cx)
    }

    /// Reads no more: what is here is dropped, and the peer's writer fails with the code.
    pub fn stop(mut self, code: StreamCode) {
        self.stopped = true;
        self.shared.stop(code);
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        if !self.stopped {
            self.shared.stop(StreamCode::DROPPED);
        }
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamReader({:?})", self.shared.flow)
    }
}

/// A stream that the peer opened, for the protocol of its channel.
#[derive(Debug)]
pub struct AcceptedStream {
    /// From whom.
    pub session: SessionId,
    /// For which protocol of the session.
    pub channel: ChannelId,
    /// Towards the peer.
    pub writer: StreamWriter,
    /// From the peer.
    pub reader: StreamReader,
}

impl Item for AcceptedStream {
    /// A protocol that is behind takes no more streams: they are refused to the peer.
    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }

    /// A session that opens many waits for itself.
    fn source(&self) -> Option<u64> {
        Some(self.session.0)
    }
}
