//! The tasks that read headers, and bring and take large answers, so that the actor waits for no stream.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use peerage_mailbox::{Item, Outlet};
use peerage_queue::stream::{AcceptedStream, StreamCode, StreamDoor, StreamError, StreamReader};
use peerage_queue::{Recipient, SessionId};
use peerage_wire::frame::Lane;
use tokio::sync::oneshot;

use super::Refusal;
use crate::machine::{AnswerSent, Broken};
use crate::wire::streams::{Header, HeaderError, HeaderReader, codes};

/// What the streams tell the actor. Of each stream or answer, of which there are so many, at most two wait at a time.
#[derive(Debug)]
pub(crate) enum Note {
    /// What a stream begins with, and what of it came with that.
    Header { stream: u64, held: Held, rest: Bytes, header: Result<Header, HeaderError> },
    /// The application has dropped a stream.
    Over { stream: u64 },
    /// A handler panicked.
    Panicked { session: SessionId },
    /// An answer came, or will not.
    AnswerCame { stream: u64, answer: Result<Bytes, Broken> },
    /// An answer went, or did not.
    AnswerSent { call: u64, sent: AnswerSent },
}

impl Item for Note {}

/// A stream that has no reader yet. Dropped so, it is refused.
#[derive(Debug)]
pub(crate) struct Held(Option<AcceptedStream>);

impl Held {
    pub(crate) const fn new(accepted: AcceptedStream) -> Held {
        Held(Some(accepted))
    }

    pub(crate) fn release(mut self) -> Option<AcceptedStream> {
        self.0.take()
    }

    pub(crate) fn refuse(mut self, code: StreamCode) {
        self.end(code);
    }

    fn end(&mut self, code: StreamCode) {
        if let Some(AcceptedStream { writer, reader, .. }) = self.0.take() {
            writer.reset(code);
            reader.stop(code);
        }
    }

    fn reader(&mut self) -> Option<&mut StreamReader> {
        self.0.as_mut().map(|accepted| &mut accepted.reader)
    }
}

impl Drop for Held {
    /// Nobody has decided on it, so its router is gone.
    fn drop(&mut self) {
        self.end(codes::RESTARTED);
    }
}

/// A stream whose header is read.
pub(crate) struct Unread {
    held: Held,
    header: HeaderReader,
}

/// A header, or why there is none, and what came with it.
pub(crate) type Begun = (Result<Header, HeaderError>, Bytes);

impl Unread {
    pub(crate) fn new(held: Held) -> Unread {
        Unread { held, header: HeaderReader::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Begun> {
        loop {
            let Some(reader) = self.held.reader() else { return Poll::Ready((Err(HeaderError::Ended), Bytes::new())) };
            let mut piece = match std::task::ready!(reader.poll_read(cx)) {
                Ok(Some(piece)) => piece,
                Ok(None) | Err(_) => return Poll::Ready((Err(HeaderError::Ended), Bytes::new())),
            };
            match self.header.read(&mut piece) {
                Ok(None) => {}
                Ok(Some(header)) => return Poll::Ready((Ok(header), piece)),
                Err(error) => return Poll::Ready((Err(error), piece)),
            }
        }
    }

    /// The header if it has come, as it mostly has: it travels with the stream's beginning.
    pub(crate) fn try_read(mut self) -> Result<(Held, Begun), Unread> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(begun) => Ok((self.held, begun)),
            Poll::Pending => Err(self),
        }
    }

    /// Waits for it in a task, until told with which code to refuse the stream.
    pub(crate) fn wait(self, stream: u64, notes: Outlet<Note>) -> oneshot::Sender<StreamCode> {
        let (withdraw, withdrawn) = oneshot::channel();
        tokio::spawn(async move {
            let mut unread = self;
            let begun = tokio::select! {
                biased;
                code = withdrawn => return unread.held.refuse(code.unwrap_or(codes::RESTARTED)),
                begun = std::future::poll_fn(|cx| unread.poll(cx)) => begun,
            };
            let (header, rest) = begun;
            drop(notes.offer(Note::Header { stream, held: unread.held, rest, header }));
        });
        withdraw
    }
}

/// Reads an answer of just so many bytes in a task, until told that nobody wants it.
pub(crate) fn take_answer(
    stream: u64,
    held: Held,
    first: Bytes,
    length: usize,
    notes: Outlet<Note>,
) -> oneshot::Sender<StreamCode> {
    let (withdraw, withdrawn) = oneshot::channel();
    tokio::spawn(async move {
        let Some(AcceptedStream { writer, mut reader, .. }) = held.release() else { return };
        // There is nothing to say; and a direction that is finished costs the peer no blame, as a reset one would.
        let _ = writer.finish();
        let answer = tokio::select! {
            biased;
            code = withdrawn => return reader.stop(code.unwrap_or(codes::RESTARTED)),
            answer = read_answer(&mut reader, first, length) => answer,
        };
        if answer == Err(Broken::Length) {
            reader.stop(codes::TOO_LARGE);
        }
        drop(notes.offer(Note::AnswerCame { stream, answer }));
    });
    withdraw
}

async fn read_answer(reader: &mut StreamReader, first: Bytes, length: usize) -> Result<Bytes, Broken> {
    let mut answer = Vec::new();
    let mut next = Some(first);
    while let Some(piece) = next {
        if piece.len() > length - answer.len() {
            return Err(Broken::Length);
        }
        if answer.capacity() - answer.len() < piece.len() {
            // Memory follows what came, and is never more than was claimed.
            let capacity = (2 * answer.capacity()).max(answer.len() + piece.len()).min(length);
            answer.reserve_exact(capacity - answer.len());
        }
        answer.extend_from_slice(&piece);
        next = reader.read().await.map_err(|_| Broken::Off)?;
    }
    if answer.len() == length { Ok(answer.into()) } else { Err(Broken::Length) }
}

/// Sends an answer in a task, until the sender that it returns is dropped.
pub(crate) fn bring_answer(
    call: u64,
    door: StreamDoor,
    to: Recipient,
    header: Header,
    payload: Bytes,
    notes: Outlet<Note>,
) -> oneshot::Sender<()> {
    let (wanted, withdrawn) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let sent = tokio::select! {
            biased;
            _ = withdrawn => AnswerSent::Dropped,
            sent = write_answer(door, to, header, payload) => sent.unwrap_or_else(|error| match error {
                StreamError::Reset(code) | StreamError::Stopped(code) => match Refusal::of(code) {
                    Some(Refusal::NoRoom | Refusal::Throttled | Refusal::Header) => AnswerSent::NoStream,
                    // Whoever asked is not there any more, or does not want it.
                    _ => AnswerSent::Dropped,
                },
                StreamError::SessionEnded => AnswerSent::Dropped,
            }),
        };
        drop(notes.offer(Note::AnswerSent { call, sent }));
    });
    wanted
}

async fn write_answer(
    door: StreamDoor,
    to: Recipient,
    header: Header,
    payload: Bytes,
) -> Result<AnswerSent, StreamError> {
    let Ok((mut writer, mut reader)) = door.open(to.channel, Lane::Bulk).await else { return Ok(AnswerSent::NoStream) };
    writer.write(header.encode()).await?;
    writer.write(payload).await?;
    writer.finish()?;
    // The asker ends its direction when it has taken the stream.
    while reader.read().await?.is_some() {}
    Ok(AnswerSent::Whole)
}
