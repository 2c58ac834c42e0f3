//! One direction of an in-memory stream: bytes that become readable after the link's delay.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes under way in one direction, like a socket's buffers: a writer waits when they are full.
const WINDOW: usize = 256 * 1024;

#[derive(Default)]
struct State {
    /// Readable from the instant on, in order of writing.
    chunks: VecDeque<(Instant, VecDeque<u8>)>,
    bytes: usize,
    /// When the last byte will have left the sender, for a link with a rate.
    sent_at: Option<Instant>,
    closed: bool,
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Pipe(Mutex<State>);

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// No more bytes will come; those under way still arrive.
    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        Pipe::wake(state);
    }

    /// Nobody reads any more, or the link was cut: what is under way is lost.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.broken = true;
        state.chunks.clear();
        Pipe::wake(state);
    }
}

/// How bytes travel in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) latency: Duration,
    pub(crate) bytes_per_second: Option<u64>,
}

/// One end of an in-memory stream.
pub(crate) struct PipeEnd {
    into: Arc<Pipe>,
    out: Arc<Pipe>,
    pace: Pace,
    wake_at: Option<Pin<Box<Sleep>>>,
}

impl PipeEnd {
    pub(crate) fn new(into: Arc<Pipe>, out: Arc<Pipe>, pace: Pace) -> PipeEnd {
        PipeEnd { into, out, pace, wake_at: None }
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut state = this.into.lock();
            if state.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let Some((readable_at, chunk)) = state.chunks.front_mut() else {
                if state.closed {
                    return Poll::Ready(Ok(()));
                }
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let readable_at = *readable_at;
            if readable_at <= Instant::now() {
                let (front, _) = chunk.as_slices();
                let len = front.len().min(buf.remaining());
                buf.put_slice(&front[..len]);
                chunk.drain(..len);
                if chunk.is_empty() {
                    state.chunks.pop_front();
                }
                state.bytes -= len;
                let writer = state.writer.take();
                drop(state);
                if let Some(writer) = writer {
                    writer.wake();
                }
                return Poll::Ready(Ok(()));
            }
            drop(state);
            let sleep = this.wake_at.insert(Box::pin(tokio::time::sleep_until(readable_at)));
            if sleep.as_mut().poll(cx).is_pending() {
                // A cut must wake a reader that sleeps, too.
                this.into.lock().reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.out.lock();
        if state.broken || state.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW.saturating_sub(state.bytes);
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = bytes.len().min(room);
        let now = Instant::now();
        let sent_at = match self.pace.bytes_per_second {
            Some(rate) => {
                let start = state.sent_at.filter(|at| *at > now).unwrap_or(now);
                start + Duration::from_nanos((len as u64).saturating_mul(1_000_000_000) / rate.max(1))
            }
            None => now,
        };
        state.sent_at = Some(sent_at);
        state.bytes += len;
        let chunk = bytes[..len].iter().copied().collect();
        state.chunks.push_back((sent_at + self.pace.latency, chunk));
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.out.close();
        self.into.cut();
    }
}
