//! What the two halves of a stream share with the session's task: bytes that wait to be read, and what either side wants.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;

use super::door::OpenRequest;
use super::{StreamCode, StreamError};
use crate::{Flow, Permit};

/// Small pieces share a buffer of this size: else a peer that sends single bytes would make each cost an allocation.
const CHUNK: usize = 4 << 10;

/// What the application did with a stream since its session's task looked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub stream: u64,
    /// Bytes read, or given up, since it was opened.
    pub read: u64,
    /// It reads no more.
    pub stop: Option<StreamCode>,
    /// It writes no more, and what it wrote counts for nothing.
    pub reset: Option<StreamCode>,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<BytesMut>,
    unread: usize,
    /// Bytes read or given up, and the total at which the session's task wants to know.
    read: u64,
    tell_at: u64,
    /// The peer has sent all.
    end: bool,
    read_error: Option<StreamError>,
    write_error: Option<StreamError>,
    reader: Option<Waker>,
    stop: Option<StreamCode>,
    reset: Option<StreamCode>,
    /// What is still to be read after the session's end keeps its part of the inbound pool.
    kept: Option<Permit>,
}

impl State {
    /// Drops what was not read.
    fn give_up(&mut self) {
        self.read += self.unread as u64;
        self.unread = 0;
        self.chunks = VecDeque::new();
        self.kept = None;
    }
}

/// A stream, between its halves and its session's task. The lock is held for one call and never across an await.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) flow: Flow,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(flow: Flow, hub: Arc<Hub>) -> Shared {
        Shared { flow, hub, state: Mutex::new(State { tell_at: u64::MAX, ..State::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---------- the reader's ----------

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut state = self.lock();
        if let Some(chunk) = state.chunks.pop_front() {
            state.read += chunk.len() as u64;
            state.unread -= chunk.len();
            let all = state.end && state.unread == 0;
            let kept = if all { state.kept.take() } else { None };
            let tell = all || state.read >= state.tell_at;
            drop(state);
            drop(kept);
            if tell {
                self.hub.changed(self.flow.stream);
            }
            return Poll::Ready(Ok(Some(chunk.freeze())));
        }
        if state.end {
            return Poll::Ready(Ok(None));
        }
        if let Some(error) = state.read_error {
            return Poll::Ready(Err(error));
        }
        let known = state.reader.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        let old = if known { None } else { state.reader.replace(cx.waker().clone()) };
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(crate) fn stop(&self, code: StreamCode) {
        let mut state = self.lock();
        let over = (state.end && state.unread == 0) || state.read_error.is_some();
        state.stop = Some(code);
        let kept = state.kept.take();
        state.give_up();
        drop(state);
        drop(kept);
        if !over {
            self.hub.changed(self.flow.stream);
        }
    }

    // ---------- the writer's ----------

    pub(crate) fn reset(&self, code: StreamCode) {
        let mut state = self.lock();
        let over = state.write_error.is_some();
        state.reset = Some(code);
        drop(state);
        if !over {
            self.hub.changed(self.flow.stream);
        }
    }

    pub(crate) fn write_error(&self) -> StreamError {
        self.lock().write_error.unwrap_or(StreamError::SessionEnded)
    }

    // ---------- the session's ----------

    pub(crate) fn deliver(&self, bytes: &[u8]) {
        let mut state = self.lock();
        // Nobody reads any more: it counts as read.
        if state.stop.is_some() {
            state.read += bytes.len() as u64;
            return;
        }
        state.unread += bytes.len();
        match state.chunks.back_mut().filter(|last| last.capacity() - last.len() >= bytes.len()) {
            Some(last) => last.extend_from_slice(bytes),
            None => {
                let room = if bytes.len() < CHUNK / 2 { CHUNK } else { bytes.len() };
                let mut chunk = BytesMut::with_capacity(room);
                chunk.extend_from_slice(bytes);
                state.chunks.push_back(chunk);
            }
        }
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    fn wake_reader(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn end(&self) {
        self.wake_reader(|state| state.end = true);
    }

    pub(crate) fn fail_reading(&self, error: StreamError) {
        self.wake_reader(|state| {
            state.give_up();
            state.read_error.get_or_insert(error);
        });
    }

    pub(crate) fn fail_writing(&self, error: StreamError) {
        self.lock().write_error.get_or_insert(error);
    }

    /// Tells the session's task when so much has been read; false if it has been already.
    pub(crate) fn tell_at(&self, total: u64) -> bool {
        let mut state = self.lock();
        state.tell_at = total;
        state.read < total
    }

    pub(crate) fn change(&self) -> Change {
        let mut state = self.lock();
        let (read, reset) = (state.read, state.reset);
        state.tell_at = u64::MAX;
        Change { stream: self.flow.stream, read, stop: state.stop, reset }
    }

    /// The session has ended. What came whole can still be read, and keeps what `permit` makes for it.
    pub(crate) fn session_ended(&self, permit: impl FnOnce(usize) -> Permit) {
        self.fail_writing(StreamError::SessionEnded);
        self.wake_reader(|state| {
            if state.end && state.unread > 0 {
                state.kept = Some(permit(state.unread));
            } else if !state.end {
                state.give_up();
                state.read_error.get_or_insert(StreamError::SessionEnded);
            }
        });
    }
}

#[derive(Debug, Default)]
struct HubState {
    opens: VecDeque<OpenRequest>,
    changed: BTreeSet<u64>,
    closed: bool,
}

/// Where a session's streams tell its task that they want something.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<HubState>,
    task: AtomicWaker,
}

/// Requests that may wait for the session's task.
const OPENS: usize = 1024;

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, stream: u64) {
        let mut state = self.lock();
        let tell = !state.closed && state.changed.insert(stream);
        drop(state);
        if tell {
            self.task.wake();
        }
    }

    /// Queues a request; gives it back if there is no room, or nobody to answer.
    pub(crate) fn request(&self, request: OpenRequest) -> Result<(), (bool, OpenRequest)> {
        let mut state = self.lock();
        if state.closed || state.opens.len() >= OPENS {
            return Err((state.closed, request));
        }
        state.opens.push_back(request);
        drop(state);
        self.task.wake();
        Ok(())
    }

    pub(crate) fn take(&self, task: &Waker) -> (VecDeque<OpenRequest>, BTreeSet<u64>) {
        self.task.register(task);
        let mut state = self.lock();
        (std::mem::take(&mut state.opens), std::mem::take(&mut state.changed))
    }

    /// Takes no more requests; those that wait.
    pub(crate) fn close(&self) -> VecDeque<OpenRequest> {
        let mut state = self.lock();
        state.closed = true;
        state.changed.clear();
        std::mem::take(&mut state.opens)
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::frame::Lane;

    use super::*;
    use crate::ChannelId;

    #[test]
    fn single_bytes_share_buffers_so_that_a_window_of_them_costs_little_more_than_a_window() {
        let flow = Flow { channel: ChannelId(1), stream: 1, lane: Lane::Bulk };
        let shared = Shared::new(flow, Arc::default());
        for n in 0..100_000usize {
            shared.deliver(if n % 5000 == 0 { &[1; 4096] } else { &[1] });
        }
        let state = shared.lock();
        let held: usize = state.chunks.iter().map(BytesMut::capacity).sum();
        assert!(held < 2 * state.unread + CHUNK, "{held} for {}", state.unread);
        assert!(state.chunks.len() < 100);
    }
}
