//! What the rules of streams are told, and what they ask of the session's task.

use peerage_queue::Flow;
use peerage_queue::stream::StreamCode;
use peerage_wire::DisconnectReason;
use serde::Serialize;

/// What may happen to a session's streams, besides what needs an answer at once (the methods of
/// [`StreamsMachine`](super::StreamsMachine)).
#[derive(Clone, Debug, Serialize)]
pub enum StreamIn {
    /// The end of a stream's outgoing direction was sealed.
    EndSent(u64),
    /// The application reads no more of it.
    Stop(u64, StreamCode),
    /// The application drops its outgoing direction.
    Reset(u64, StreamCode),
    /// The protocol did not take a stream that was [accepted](StreamOut::Accept) for it: with
    /// [`NO_ROOM`](StreamCode::NO_ROOM) because it is behind, which is not held against the peer.
    Refuse(u64, StreamCode),
    /// All frames that were asked for have been sealed.
    Said,
}

/// What the rules ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamOut {
    /// Tell the peer that a stream is open, before any byte of it.
    Open(Flow),
    /// The peer opened a stream: hand it to its protocol, or say [`StreamIn::Refuse`].
    Accept(Flow),
    /// Tell the peer that this end's direction is dropped, with its queue.
    Reset(Flow, StreamCode),
    /// Tell the peer that nobody reads its direction.
    Stop(Flow, StreamCode),
    /// The peer has sent all of a stream.
    Ended(u64),
    /// The peer dropped its direction: reading fails.
    WasReset(u64, StreamCode),
    /// The peer reads no more: writing fails. A [`StreamOut::Reset`] follows.
    WasStopped(u64, StreamCode),
    /// Tell the peer how much it may send on a stream since it was opened.
    Credit(Flow, u64),
    /// Ask the peer to go back to this limit.
    Reclaim(Flow, u64),
    /// The peer lets this end send so much.
    MaySend(Flow, u64),
    /// The peer asks for its credit back, down to this limit: say which holds then.
    Yield(Flow, u64),
    /// Give so many bytes back to the inbound pool.
    GiveBack(u64),
    /// Both directions are over: forget the stream.
    Closed(u64),
    /// A frame of a stream that is over was ignored.
    Late,
    /// The peer broke the rules, or is stalled: the session ends.
    End(DisconnectReason),
}

/// The timers of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamTimer {
    /// Look for windows that lie idle.
    Look,
}

/// Where windows are reserved.
pub trait Room {
    /// Takes all of the bytes from the inbound pool, or none.
    fn reserve(&mut self, bytes: u64) -> bool;
}
