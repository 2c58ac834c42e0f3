//! Streams as applications have them: two halves, and a place among the node's streams that ends with the last of them.
//!
//! Bytes go between these halves and the session's own task; the router's actor only says whether there may be a stream.

mod frames;
mod handler;
pub(crate) mod tasks;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use metrics::Counter;
use peerage_mailbox::{Item, Outlet, Overflow};
use peerage_queue::stream::{self, OpenError, StreamCode, StreamDoor, StreamError};
use peerage_queue::{ChannelId, Flow};
use peerage_wire::frame::Lane;

use self::tasks::{Held, Note};
use crate::machine::OpenStreamError;
use crate::wire::streams::{Header, codes};

pub use self::frames::FrameError;
pub use self::handler::{IncomingStream, StreamHandler};

/// Why a node did not take a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has no such handler.
    #[error("it has no such handler of streams")]
    UnknownHandler,
    /// The handler is for members only.
    #[error("the handler is for members only")]
    NotMember,
    /// More streams than it takes of this node, or of all, at this time.
    #[error("it has too many streams; try again later")]
    Throttled,
    /// It did not get a header that it can read in time.
    #[error("it got no header that it can read")]
    Header,
    /// Its router restarted.
    #[error("its router restarted; try again")]
    Restarted,
    /// It has no room for another stream.
    #[error("it has no room for another stream; try again later")]
    NoRoom,
}

impl Refusal {
    /// What a code says, if it is the refusal of a stream.
    pub const fn of(code: StreamCode) -> Option<Refusal> {
        Some(match code {
            codes::UNKNOWN_HANDLER => Refusal::UnknownHandler,
            codes::NOT_MEMBER => Refusal::NotMember,
            codes::THROTTLED => Refusal::Throttled,
            codes::HEADER => Refusal::Header,
            codes::RESTARTED => Refusal::Restarted,
            StreamCode::REFUSED | StreamCode::TOO_MANY | StreamCode::NO_ROOM => Refusal::NoRoom,
            _ => return None,
        })
    }
}

/// Why a stream takes or gives no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamFailed {
    /// The peer did not take the stream.
    #[error("the peer did not take the stream: {0}")]
    Refused(#[from] Refusal),
    /// The peer has reset its direction.
    #[error("the peer reset the stream: {0}")]
    Reset(StreamCode),
    /// The peer reads no more.
    #[error("the peer reads no more of the stream: {0}")]
    Stopped(StreamCode),
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
}

impl From<StreamError> for StreamFailed {
    fn from(error: StreamError) -> StreamFailed {
        let refused = |code| Refusal::of(code).map(StreamFailed::Refused);
        match error {
            StreamError::Reset(code) => refused(code).unwrap_or(StreamFailed::Reset(code)),
            StreamError::Stopped(code) => refused(code).unwrap_or(StreamFailed::Stopped(code)),
            StreamError::SessionEnded => StreamFailed::SessionEnded,
        }
    }
}

/// A stream's place among the node's. The last half that is dropped gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    stream: u64,
    notes: Outlet<Note>,
}

impl Place {
    pub(crate) fn new(stream: u64, notes: Outlet<Note>) -> Arc<Place> {
        Arc::new(Place { stream, notes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A router that has restarted knows nothing of it.
        drop(self.notes.offer(Note::Over { stream: self.stream }));
    }
}

/// Where the bytes of applications' streams are counted.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) read: Counter,
    pub(crate) written: Counter,
}

/// The outgoing direction of a stream. Dropped before it was [finished](StreamWriter::finish), it resets the direction.
pub struct StreamWriter {
    half: stream::StreamWriter,
    written: Counter,
    _place: Arc<Place>,
}

impl StreamWriter {
    /// Queues bytes, and waits for room: as the peer reads. A future that is dropped may have queued a part of them.
    ///
    /// # Errors
    /// [`StreamFailed`].
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), StreamFailed> {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        self.half.write(bytes).await?;
        self.written.increment(len);
        Ok(())
    }

    /// Ends the direction after all that was written. The other one goes on.
    ///
    /// # Errors
    /// [`StreamFailed`].
    pub fn finish(self) -> Result<(), StreamFailed> {
        Ok(self.half.finish()?)
    }

    /// Ends the direction at once: the peer's reader fails with the code, one below [`codes::FIRST`].
    pub fn reset(self, code: StreamCode) {
        self.half.reset(code);
    }

    /// Its channel, id and lane.
    pub fn flow(&self) -> Flow {
        self.half.flow()
    }
}

/// The incoming direction of a stream. Dropped before its end, it tells the peer to stop.
pub struct StreamReader {
    half: stream::StreamReader,
    /// What came with the header, and what was read and not asked for.
    first: Bytes,
    read: Counter,
    _place: Arc<Place>,
}

impl StreamReader {
    /// The next bytes, in order, cut as they happened to come; `None` at the end. What is read, the peer may send again.
    ///
    /// # Errors
    /// [`StreamFailed`].
    pub async fn read(&mut self) -> Result<Option<Bytes>, StreamFailed> {
        let bytes = match self.first.is_empty() {
            true => self.half.read().await?,
            false => Some(std::mem::take(&mut self.first)),
        };
        self.read.increment(bytes.as_ref().map_or(0, Bytes::len) as u64);
        Ok(bytes)
    }

    /// Reads no more: the peer's writer fails with the code, one below [`codes::FIRST`].
    pub fn stop(self, code: StreamCode) {
        self.half.stop(code);
    }

    /// Its channel, id and lane.
    pub fn flow(&self) -> Flow {
        self.half.flow()
    }
}

/// A stream to a handler of a peer, or from a peer to a handler.
#[derive(Debug)]
pub struct Stream {
    /// Towards the peer.
    pub writer: StreamWriter,
    /// From the peer.
    pub reader: StreamReader,
}

impl Stream {
    fn new(
        (writer, reader): (stream::StreamWriter, stream::StreamReader),
        first: Bytes,
        place: Arc<Place>,
        counted: Counted,
    ) -> Stream {
        let Counted { read, written } = counted;
        Stream {
            writer: StreamWriter { half: writer, written, _place: place.clone() },
            reader: StreamReader { half: reader, first, read, _place: place },
        }
    }

    pub(crate) fn accepted(held: Held, first: Bytes, place: Arc<Place>, counted: Counted) -> Option<Stream> {
        let accepted = held.release()?;
        Some(Stream::new((accepted.writer, accepted.reader), first, place, counted))
    }

    /// Ends both directions at once with a code, one below [`codes::FIRST`].
    pub fn abort(self, code: StreamCode) {
        self.writer.reset(code);
        self.reader.stop(code);
    }
}

/// A stream that may be opened.
pub(crate) struct Opening {
    pub(crate) door: StreamDoor,
    pub(crate) channel: ChannelId,
    pub(crate) header: Header,
    pub(crate) place: Arc<Place>,
    pub(crate) counted: Counted,
}

impl Opening {
    /// Opens it: waits for the session's own task, not for the peer.
    pub(crate) async fn open(self, lane: Lane) -> Result<Stream, OpenStreamError> {
        let Opening { door, channel, header, place, counted } = self;
        let (mut writer, reader) = door.open(channel, lane).await.map_err(|error| match error {
            OpenError::TooMany => OpenStreamError::Busy,
            OpenError::NoRoom => OpenStreamError::NoRoom,
            OpenError::NoChannel | OpenError::Lane | OpenError::SessionEnded => OpenStreamError::NotConnected,
        })?;
        match writer.write(header.encode()).await {
            Err(StreamError::SessionEnded) => Err(OpenStreamError::NotConnected),
            // One that is refused already says so where it is read and written.
            Ok(()) | Err(_) => Ok(Stream::new((writer, reader), Bytes::new(), place, counted)),
        }
    }
}

impl Item for IncomingStream {
    /// Those for which the application has no room are refused to the peer.
    fn overflow(&self) -> Overflow {
        Overflow::Reject
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.half)
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.half)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening({:?} {:?})", self.channel, self.header)
    }
}
