//! The streams' part of a peer's lanes: how a stream's task queues bytes, and how the session's task opens and ends streams.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{Door, LaneEnd, State};
use crate::Flow;

/// The stream takes no bytes: it was ended, or the session.
#[derive(Debug)]
pub(crate) struct NotOpen;

/// As much of a write as is taken from the pool when there is no room for all of it.
const SMALL: usize = 16 << 10;

impl State {
    /// The tasks of streams that waited, and for which there is room now; to be woken without the lock.
    pub(super) fn roomy_writers(&mut self) -> Vec<Waker> {
        let State { lanes, writers, .. } = self;
        lanes.streams().take_roomy().iter().filter_map(|stream| writers.remove(stream)).collect()
    }
}

impl Door {
    /// A place for a stream's task in the line before the pool.
    pub(crate) fn writer_place(&self) -> u64 {
        self.0.account.place()
    }

    /// Leaves that place, and the one before the stream.
    pub(crate) fn leave_writer_place(&self, stream: u64, place: u64) {
        let waker = self.0.lock().writers.remove(&stream);
        // A waker may be the last that its task is known by: dropped without the lock.
        drop(waker);
        self.0.account.leave_place(place);
    }

    /// Takes bytes from the pool for a write: all, or at least a small part, or none.
    fn charge_write(&self, room: usize) -> Option<usize> {
        [room, room.min(SMALL)].into_iter().find(|len| self.0.account.charge(*len))
    }

    /// Whether a stream's lane rests; woken when it does no more, or the stream or the session ends.
    fn rests(&self, flow: Flow, place: u64, cx: &Context<'_>) -> bool {
        if !self.0.pressure.sheds(flow.lane) {
            return false;
        }
        let mut state = self.0.lock();
        if state.lanes.streams().room(flow.stream, 1).is_none() {
            // Over, which its writer is to know.
            return false;
        }
        let old = state.writers.insert(flow.stream, cx.waker().clone());
        drop(state);
        drop(old);
        // Registered first and looked at again, so that an end in between is not missed.
        self.0.account.wake_on_room(place, cx.waker());
        self.0.pressure.sheds(flow.lane)
    }

    /// Queues as much of `bytes` as there is room for, and takes that off their front; woken when there is more. Charged
    /// to the peer.
    pub(crate) fn poll_write(
        &self,
        flow: Flow,
        bytes: &mut Bytes,
        place: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), NotOpen>> {
        let stream = flow.stream;
        if !bytes.is_empty() && self.rests(flow, place, cx) {
            return Poll::Pending;
        }
        let mut state = self.0.lock();
        let mut progress = false;
        while !bytes.is_empty() {
            let Some(room) = state.lanes.streams().room(stream, bytes.len()) else { return Poll::Ready(Err(NotOpen)) };
            if room == 0 {
                state.lanes.streams().wait(stream);
                let old = state.writers.insert(stream, cx.waker().clone());
                drop(state);
                drop(old);
                return if progress { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let Some(len) = self.charge_write(room) else {
                if progress {
                    return Poll::Ready(Ok(()));
                }
                // Registered first and asked again, so that bytes given back in between are not missed; closing the lanes
                // wakes it, too.
                let old = state.writers.insert(stream, cx.waker().clone());
                drop(state);
                drop(old);
                self.0.account.wake_on_room(place, cx.waker());
                if let Some(len) = self.charge_write(room) {
                    self.0.account.give_back(len);
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            };
            state.lanes.streams().push(stream, bytes.split_to(len));
            progress = true;
            if let Some(task) = state.task.take() {
                drop(state);
                task.wake();
                state = self.0.lock();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends a stream's outgoing direction after what is queued.
    pub(crate) fn finish_stream(&self, stream: u64) -> Result<(), NotOpen> {
        let mut state = self.0.lock();
        let open = state.lanes.streams().finish(stream);
        let task = state.task.take_if(|_| open);
        drop(state);
        task.into_iter().for_each(Waker::wake);
        if open { Ok(()) } else { Err(NotOpen) }
    }
}

impl LaneEnd {
    /// Another door to these lanes.
    pub fn door(&self) -> Door {
        Door(self.shared.clone())
    }

    /// Opens a stream's outgoing direction.
    pub fn open_stream(&mut self, flow: Flow) {
        self.shared.lock().lanes.streams().open(flow);
    }

    /// Ends a stream's outgoing direction at once: what is queued of it is dropped.
    pub fn end_stream(&mut self, stream: u64) {
        let mut state = self.shared.lock();
        let bytes = state.lanes.streams().remove(stream);
        let writer = state.writers.remove(&stream);
        drop(state);
        if bytes > 0 {
            self.shared.account.give_back(bytes);
        }
        writer.into_iter().for_each(Waker::wake);
    }
}
