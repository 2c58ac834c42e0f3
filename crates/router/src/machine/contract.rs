//! What the machine is told and asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_queue::stream::StreamCode;
use peerage_queue::{ChannelId, Recipient, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty, codec};
use serde::{Deserialize, Serialize};

pub use super::counts::{Count, Stats};
use crate::config::Limits;
use crate::handler::{AddError, HandlerConfig, HandlerId, StreamHandlerConfig};
use crate::resilience::{Pool, RetryPolicy, Sample, Sampled};
use crate::wire::ErrorCode;
use crate::wire::streams::{Header, HeaderError};

/// What may happen to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum In {
    /// A session has the router's channel.
    PeerUp(PeerUp),
    /// A session has ended.
    PeerDown {
        /// The session.
        session: SessionId,
    },
    /// The members of the network are these, by weight; see [`Out::MembersWanted`]. Those that are connected have
    /// [a part](crate::Config::kept_for_members) of what this node is asked.
    Members(BTreeMap<NodeId, u64>),
    /// This node serves a handler from now on.
    AddHandler {
        /// The shell's name for the question.
        token: u64,
        /// The handler's name.
        name: String,
        /// What it may use.
        config: HandlerConfig,
    },
    /// This node does not serve a handler any more. Calls that wait are refused; those at work go on.
    RemoveHandler(HandlerId),
    /// A session message came on the router's channel.
    Inbound {
        /// The session.
        session: SessionId,
        /// What came.
        #[serde(deserialize_with = "codec::copied")]
        payload: Bytes,
    },
    /// The application asks. Completed exactly once.
    Request {
        /// The shell's name for the request. None that is under way.
        token: u64,
        /// What it asks.
        request: Box<Request>,
    },
    /// The application does not wait for the answer any more.
    Cancel {
        /// The request's.
        token: u64,
    },
    /// The application says something that wants no answer.
    Send {
        /// The shell's name for the question.
        token: u64,
        /// To whom.
        to: Sample,
        /// To which of their handlers.
        handler: HandlerId,
        /// What it says.
        #[serde(deserialize_with = "codec::copied")]
        payload: Bytes,
    },
    /// What a handler made of a call. To be told of every [`Out::Call`] once, also of an abandoned one.
    Answered {
        /// The call's.
        call: u64,
        /// Its answer.
        answer: Result<Payload, Fault>,
    },
    /// A handler panicked at what a peer sent.
    HandlerPanicked {
        /// The peer's session.
        session: SessionId,
    },
    /// A push did not reach its recipient.
    SendFailed {
        /// The recipient.
        session: SessionId,
        /// The push's.
        tag: u64,
    },
    /// From the root: how much may be under way from now on. What is goes on.
    Limits {
        /// What this node asks.
        asked: Limits,
        /// What it is asked.
        served: Limits,
    },
    /// This node serves a handler of streams from now on.
    AddStreams {
        /// The shell's name for the question.
        token: u64,
        /// The handler's name.
        name: String,
        /// What it may use.
        config: StreamHandlerConfig,
    },
    /// This node does not serve a handler of streams any more. Streams that it has go on.
    RemoveStreams(HandlerId),
    /// The application opens a stream. Answered by [`Out::Opened`].
    OpenStream {
        /// The shell's name for it. None that is under way.
        stream: u64,
        /// To whom.
        peer: NodeId,
        /// To which of its handlers.
        handler: HandlerId,
    },
    /// A peer opened a stream.
    StreamCame {
        /// The shell's name for it. None that is under way.
        stream: u64,
        /// The peer's session.
        session: SessionId,
    },
    /// What a stream that came begins with.
    StreamHeader {
        /// The stream's.
        stream: u64,
        /// Its header, or why there is none.
        header: Result<Header, HeaderError>,
    },
    /// The application has dropped a stream that it opened or was handed, or could not open it.
    StreamOver {
        /// The stream's.
        stream: u64,
    },
    /// How it went with an answer on a stream. To be told of every [`Out::SendAnswer`] once, also of one that was
    /// [withdrawn](Out::WithdrawAnswer).
    AnswerSent {
        /// The call's.
        call: u64,
        /// How.
        sent: AnswerSent,
    },
    /// An answer that was claimed on a stream is here whole, or will never be.
    AnswerCame {
        /// The stream's.
        stream: u64,
        /// The answer.
        answer: Result<Payload, Broken>,
    },
}

/// How it went with an answer on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerSent {
    /// The asker has it.
    Whole,
    /// The asker does not want it, or is gone.
    Dropped,
    /// There is no room for another stream, here or there.
    NoStream,
}

/// Why an answer on a stream is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Broken {
    /// The peer reset it, or the session ended.
    Off,
    /// It has fewer or more bytes than it said.
    Length,
}

/// A payload that journals can read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(#[serde(deserialize_with = "codec::copied")] pub Bytes);

/// A session that has the router's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUp {
    /// The session.
    pub session: SessionId,
    /// The peer.
    pub id: NodeId,
    /// The session's router channel.
    pub channel: ChannelId,
}

/// Who is to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// This peer.
    Peer(NodeId),
    /// Any of these; the router chooses by what they have shown.
    Any(Pool),
}

/// A question to a handler of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who is to answer.
    pub target: Target,
    /// Which handler.
    pub handler: HandlerId,
    /// The question.
    #[serde(deserialize_with = "codec::copied")]
    pub payload: Bytes,
    /// How long it may take, and what is tried again.
    pub terms: Terms,
    /// What completes the request in place of an error that another time or peer could have spared it.
    pub fallback: Option<Payload>,
}

/// How long a request may take, by grades, and what is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// For one attempt; none: as the peers that answer this handler have shown.
    pub attempt: Option<Duration>,
    /// For all attempts at one peer.
    pub request: Duration,
    /// For all of it.
    pub operation: Duration,
    /// What is tried again.
    pub retry: RetryPolicy,
}

impl Terms {
    /// One attempt that may take so long.
    pub const fn within(deadline: Duration) -> Terms {
        Terms { attempt: Some(deadline), request: deadline, operation: deadline, retry: RetryPolicy::once() }
    }

    /// Attempts that take as long as peers have shown that they need, tried again as [`RetryPolicy::recommended`] says,
    /// half of the time at one peer. For requests that may be handled twice.
    pub const fn trying(deadline: Duration) -> Terms {
        let request = Duration::from_millis((deadline.as_millis() / 2) as u64);
        Terms { attempt: None, request, operation: deadline, retry: RetryPolicy::recommended() }
    }
}

/// How a request ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub payload: Bytes,
    /// Who answered; nobody if it is the request's own [`fallback`](Request::fallback).
    pub from: Option<NodeId>,
    /// From the request to the answer.
    pub took: Duration,
}

/// How a request ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The peer is not connected, or does not speak this protocol.
    #[error("the peer is not connected")]
    NotConnected,
    /// No connected peer is one of those that may answer.
    #[error("no peer that may be asked is connected")]
    NoPeers,
    /// The peer went before it answered.
    #[error("the peer went before it answered")]
    Disconnected,
    /// The request could not be sent: the peer takes what it is sent too slowly.
    #[error("the request could not be sent; the peer is too slow")]
    NotSent,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// Whoever asked does not wait any more.
    #[error("cancelled")]
    Cancelled,
    /// The router restarted meanwhile. The request may have been handled.
    #[error("the router restarted; the request may have been handled")]
    Restarted,
    /// This node has too many requests under way.
    #[error("too many requests under way; wait for some of them")]
    Busy,
    /// The payload is too large for this network.
    #[error("{bytes} bytes, and a payload has at most {limit}")]
    PayloadTooLarge {
        /// Its bytes.
        bytes: usize,
        /// The network's limit.
        limit: usize,
    },
    /// The handler of this peer failed so often that it is given a rest.
    #[error("the peer's handler failed repeatedly and is given a rest")]
    CircuitOpen,
    /// The peer answered with an error.
    #[error("the peer answered {code:?}: {text}")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people: the peer's own words.
        text: String,
    },
}

/// Why a call is not answered by a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code:?}: {text}")]
pub struct Fault {
    /// For programs.
    pub code: ErrorCode,
    /// For people. What is above [`MAX_TEXT`](crate::wire::MAX_TEXT) bytes does not travel.
    pub text: String,
}

impl Fault {
    /// A fault of this code.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Fault {
        Fault { code, text: text.into() }
    }

    /// An error of the application; the upper bit of its code is lost.
    pub fn application(code: u16, text: impl Into<String>) -> Fault {
        Fault::new(ErrorCode::from_code(ErrorCode::Application(code).code()), text)
    }
}

/// Work for a handler of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The machine's name for it.
    pub call: u64,
    /// The handler.
    pub handler: HandlerId,
    /// Who asks.
    pub from: NodeId,
    /// Its session.
    pub session: SessionId,
    /// How long the answer is of use.
    pub deadline: Duration,
    /// Whether somebody waits for the answer.
    pub answered: bool,
    /// The question.
    pub payload: Bytes,
}

/// What it asks of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// Send this.
    Push(Outgoing),
    /// Do this work, and answer with [`In::Answered`].
    Call(Call),
    /// Nobody needs the result of this call any more. It still has its place until [`In::Answered`].
    Abandon {
        /// The call's.
        call: u64,
    },
    /// How a request ended. Once for each.
    Completed {
        /// The request's.
        token: u64,
        /// How.
        result: Result<Answer, RequestError>,
    },
    /// The answer to [`In::AddHandler`].
    HandlerAdded {
        /// The question's.
        token: u64,
        /// Whether it is served.
        result: Result<HandlerId, AddError>,
    },
    /// The answer to [`In::Send`]: for whom it was queued.
    Sent {
        /// The question's.
        token: u64,
        /// To whom, or why to nobody.
        result: Result<Sampled, RequestError>,
    },
    /// The answer to [`In::AddStreams`].
    StreamsAdded {
        /// The question's.
        token: u64,
        /// Whether it is served.
        result: Result<HandlerId, AddError>,
    },
    /// The answer to [`In::OpenStream`]: open it on this channel and write its header. It has a place until
    /// [`In::StreamOver`].
    Opened {
        /// The stream's.
        stream: u64,
        /// Where, and how it begins.
        result: Result<(Recipient, Header), OpenStreamError>,
    },
    /// Read the header of a stream that came, and say it with [`In::StreamHeader`].
    ReadHeader {
        /// The stream's.
        stream: u64,
    },
    /// Stop and reset a stream that came, whoever reads it. Nothing more need be said of it.
    RefuseStream {
        /// The stream's.
        stream: u64,
        /// Why, for the peer.
        code: StreamCode,
    },
    /// Hand a stream to its handler. It has a place until [`In::StreamOver`].
    ServeStream {
        /// The stream's.
        stream: u64,
        /// The handler.
        handler: HandlerId,
        /// Who opened it.
        from: NodeId,
        /// By which session.
        session: SessionId,
    },
    /// Read the answer that a stream brings, of so many bytes and no more, and say it with [`In::AnswerCame`].
    ReadAnswer {
        /// The stream's.
        stream: u64,
        /// The answer's bytes.
        length: usize,
    },
    /// Send an answer on a stream of its own, and say with [`In::AnswerSent`] how it went.
    SendAnswer {
        /// The call's.
        call: u64,
        /// On a stream of this channel.
        to: Recipient,
        /// How the stream begins.
        header: Header,
        /// The answer.
        payload: Bytes,
    },
    /// Nobody waits for this answer any more. [`In::AnswerSent`] is still to be said.
    WithdrawAnswer {
        /// The call's.
        call: u64,
    },
    /// The set of members is old: say it again with [`In::Members`]. Nothing need be said; then the old one stays.
    MembersWanted,
    /// A peer misbehaved.
    Report {
        /// Its session.
        session: SessionId,
        /// What it did.
        penalty: Penalty,
    },
    /// Count this.
    Count(Count),
}

/// Why there is no stream to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// The peer is not connected, or does not speak this protocol.
    #[error("the peer is not connected")]
    NotConnected,
    /// This node has as many streams open, to this peer or in all, as it may have.
    #[error("too many streams are open; wait for one to end")]
    Busy,
    /// The node has no memory for another stream.
    #[error("there is no room for another stream; try again later")]
    NoRoom,
    /// The router restarted meanwhile.
    #[error("the router restarted meanwhile; try again")]
    Restarted,
}

/// A session message for some peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: Vec<Recipient>,
    /// How urgent.
    pub lane: Lane,
    /// The bytes.
    pub bytes: Bytes,
    /// For [`In::SendFailed`]; none where nothing would follow from it.
    pub tag: Option<u64>,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A request of this node, or the grace of one.
    Asked,
    /// A call.
    Served,
    /// Handlers that had their turn go on.
    Turn,
    /// The header of a stream that came.
    Header,
}
