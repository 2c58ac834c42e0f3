//! Requests, answers and streams between peers: handlers by name, and exactly one completion for every request.
//!
//! A request goes to a handler of a peer and ends once: with the answer, with an error of the peer, or with the reason
//! why there is none (time, disconnection, cancellation, a full lane, a restart). Handlers have limits for each peer and
//! for all, deadlines travel as durations and hold at the peer that works, and cancellation reaches it. What a request
//! does when an attempt fails is its [`Terms`]; which peer is asked where any will do follows from what peers have shown
//! ([`resilience`]).
//!
//! What is long, or goes both ways, is a stream ([`Router::open`], [`RouterMailbox::serve_streams`]): two byte streams in
//! opposite directions to a handler by name, each with its own end. The router says whether there may be one; its bytes
//! go between the session's task and the application. Answers above [`Config::stream_above`] have streams of their own, so
//! that they delay no other; who asks sees no difference.
//!
//! What is neither question and answer nor a stream is a protocol of its own, which runs once for each peer: [`protocol`].
//!
//! [`RouterMachine`] holds all the rules and runs anywhere; with the `actor` feature, [`spawn`] runs it as an actor, and
//! a [`Router`] asks and serves through it (`examples/ping_pong.rs`, and for streams `fetch.rs` and `duplex.rs`).
//!
//! ```
//! use std::time::Duration;
//!
//! use peerage_router::peerage_machine::{Driver, Time};
//! use peerage_router::peerage_queue::{ChannelId, SessionId};
//! use peerage_router::peerage_wire::NodeId;
//! use peerage_router::{Config, HandlerId, In, Out, PeerUp, Request, RouterMachine, Target, Terms};
//!
//! let mut router = Driver::new(RouterMachine::new(Config::recommended(), 7, 1));
//! let peer = NodeId::from_bytes([1; 32]);
//! router.handle(Time::ZERO, In::PeerUp(PeerUp { session: SessionId(1), id: peer, channel: ChannelId(1) }));
//! let request = Request {
//!     target: Target::Peer(peer),
//!     handler: HandlerId::of("height/1"),
//!     payload: "how high?".into(),
//!     terms: Terms::within(Duration::from_secs(5)),
//!     fallback: None,
//! };
//! router.handle(Time::ZERO, In::Request { token: 1, request: Box::new(request) });
//! assert!(router.drain().any(|out| matches!(out, Out::Push(_))));
//! router.expire_due(Time::ZERO + Duration::from_secs(5));
//! assert!(router.drain().any(|out| matches!(out, Out::Completed { token: 1, result: Err(_) })));
//! ```
//!
//! # Features
//! - `actor` (default): the shell, and per-peer protocols' tasks. Without it the crate is the rules and the wire.
//! - `json`, `messagepack`, `protobuf`: further [codecs](codec) besides raw bytes and bincode.
#![warn(missing_docs)]

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod client;
pub mod codec;
mod config;
mod genesis;
mod handler;
#[cfg(feature = "actor")]
mod ingress;
mod machine;
#[cfg(feature = "actor")]
mod memory;
#[cfg(feature = "actor")]
mod metrics;
pub mod protocol;
pub mod resilience;
#[cfg(feature = "actor")]
mod stream;
#[cfg(feature = "actor")]
mod turns;
#[cfg(feature = "actor")]
mod typed;
pub mod wire;
#[cfg(feature = "actor")]
mod work;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
#[cfg(feature = "actor")]
pub use client::{Client, ClientError, Router};
pub use config::{Config, ConfigError, Limits, StreamLimits};
pub use genesis::RouterGenesis;
pub use handler::{AddError, HandlerConfig, HandlerId, MAX_NAME, Order, Rate, StreamHandlerConfig};
#[cfg(feature = "actor")]
pub use ingress::{Ask, Event, OpenAsk, RouterMailbox};
pub use machine::{
    Answer, AnswerSent, Broken, Call, Count, Fault, In, OpenStreamError, Out, Outgoing, Payload, PeerUp, Request,
    RequestError, RouterMachine, Stats, Target, Terms, Timer,
};
#[cfg(feature = "actor")]
pub use memory::Memory;
#[cfg(feature = "actor")]
pub use stream::{
    FrameError, IncomingStream, Refusal, Stream, StreamFailed, StreamHandler, StreamReader, StreamWriter,
};
pub use wire::ErrorCode;
#[cfg(feature = "actor")]
pub use work::{Handler, Incoming, Job, Responder};

/// What payloads are made of.
pub use bytes;
/// What the machine is driven with.
pub use peerage_machine;
/// The data queues that messages travel in.
#[cfg(feature = "actor")]
pub use peerage_mailbox;
/// The sessions and channels that messages come from and go to.
pub use peerage_queue;
/// Identities.
pub use peerage_wire;
/// What a protocol tells of itself is made of.
#[cfg(feature = "actor")]
pub use serde_json;
