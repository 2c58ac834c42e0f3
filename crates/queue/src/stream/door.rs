//! Where streams are opened, and the session's task's end of them all.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use peerage_wire::frame::Lane;

use super::shared::{Hub, Shared};
use super::{Change, OpenError, StreamError, StreamReader, StreamWriter};
use crate::{ChannelId, Door, Flow, Permit};

type Opened = Result<(StreamWriter, StreamReader), OpenError>;

#[derive(Default)]
struct Slot(Mutex<(Option<Opened>, Option<Waker>)>);

/// What an application asks of the session's task: a stream. Dropped without an answer, it is answered with
/// [`OpenError::SessionEnded`].
pub struct OpenRequest {
    /// The protocol.
    pub channel: ChannelId,
    /// How urgent.
    pub lane: Lane,
    slot: Option<Arc<Slot>>,
}

impl OpenRequest {
    /// Answers it.
    pub fn answer(mut self, opened: Opened) {
        self.fill(opened);
    }

    fn fill(&mut self, opened: Opened) {
        let Some(slot) = self.slot.take() else { return };
        let mut state = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Some(opened);
        let asker = state.1.take();
        drop(state);
        asker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.fill(Err(OpenError::SessionEnded));
    }
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenRequest({:?} {:?})", self.channel, self.lane)
    }
}

/// Where streams to one peer are opened. Cheap to clone; it may outlive the session.
#[derive(Clone)]
pub struct StreamDoor(Arc<Hub>);

impl StreamDoor {
    /// Opens a stream of a channel: waits for the session's own task, not for the peer, which may refuse it later. Then
    /// the halves fail with one of the codes above [`FIRST_OWN`](super::StreamCode::FIRST_OWN).
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, channel: ChannelId, lane: Lane) -> Opened {
        let slot = Arc::new(Slot::default());
        let request = OpenRequest { channel, lane, slot: Some(slot.clone()) };
        if let Err((closed, request)) = self.0.request(request) {
            request.answer(Err(if closed { OpenError::SessionEnded } else { OpenError::TooMany }));
        }
        poll_fn(|cx| {
            let mut state = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
            match state.0.take() {
                Some(opened) => Poll::Ready(opened),
                None => {
                    let old = state.1.replace(cx.waker().clone());
                    drop(state);
                    drop(old);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl fmt::Debug for StreamDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamDoor")
    }
}

/// The session's task's end of its streams. Dropping it ends them: what came whole can still be read, all else fails.
pub struct StreamEnd {
    hub: Arc<Hub>,
    live: BTreeMap<u64, Arc<Shared>>,
}

/// A session's streams, none yet: where they are opened, and the task's end.
pub fn stream_doors() -> (StreamDoor, StreamEnd) {
    let hub = Arc::new(Hub::default());
    (StreamDoor(hub.clone()), StreamEnd { hub, live: BTreeMap::new() })
}

impl StreamEnd {
    /// What the application wants: streams, and changes of those there are. Whoever wants more wakes `task`.
    pub fn take(&mut self, task: &Waker) -> (Vec<OpenRequest>, Vec<Change>) {
        let (opens, changed) = self.hub.take(task);
        let changes = changed.iter().filter_map(|stream| Some(self.live.get(stream)?.change())).collect();
        (opens.into(), changes)
    }

    /// Makes the halves of a stream, which write through `door`.
    pub fn add(&mut self, flow: Flow, door: Door) -> (StreamWriter, StreamReader) {
        let shared = Arc::new(Shared::new(flow, self.hub.clone()));
        self.live.insert(flow.stream, shared.clone());
        (StreamWriter::new(shared.clone(), door), StreamReader::new(shared))
    }

    /// Hands bytes to a stream's reader.
    pub fn deliver(&self, stream: u64, bytes: &[u8]) {
        if let Some(shared) = self.live.get(&stream) {
            shared.deliver(bytes);
        }
    }

    /// The peer has sent all of the stream.
    pub fn end(&self, stream: u64) {
        if let Some(shared) = self.live.get(&stream) {
            shared.end();
        }
    }

    /// Reading fails from now on; what was not read is dropped.
    pub fn fail_reading(&self, stream: u64, error: StreamError) {
        if let Some(shared) = self.live.get(&stream) {
            shared.fail_reading(error);
        }
    }

    /// Writing fails from now on. To be called before the stream's outgoing direction is [ended](crate::LaneEnd::end_stream).
    pub fn fail_writing(&self, stream: u64, error: StreamError) {
        if let Some(shared) = self.live.get(&stream) {
            shared.fail_writing(error);
        }
    }

    /// Tells the task as soon as so many bytes of the stream were read since it was opened; false if they were already.
    pub fn tell_at(&self, stream: u64, total: u64) -> bool {
        self.live.get(&stream).is_none_or(|shared| shared.tell_at(total))
    }

    /// What the application did with a stream.
    pub fn change(&self, stream: u64) -> Option<Change> {
        Some(self.live.get(&stream)?.change())
    }

    /// What the application did with all streams.
    pub fn changes(&self) -> Vec<Change> {
        self.live.values().map(|shared| shared.change()).collect()
    }

    /// Forgets a stream that has ended in both directions.
    pub fn remove(&mut self, stream: u64) {
        self.live.remove(&stream);
    }

    /// The session has ended: what came whole can still be read, and keeps the permit made for so many bytes.
    pub fn session_ended(&mut self, mut permit: impl FnMut(usize) -> Permit) {
        drop(self.hub.close());
        for shared in std::mem::take(&mut self.live).into_values() {
            shared.session_ended(&mut permit);
        }
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.session_ended(|_| Permit::none());
    }
}

impl fmt::Debug for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamEnd({} streams)", self.live.len())
    }
}
