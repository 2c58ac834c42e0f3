//! One peer: a Noise handshake in which both ends prove their identity, then encrypted records that carry
//! many channels of messages, kept alive, and ended with a typed reason.
//!
//! Usable alone over any stream: an [`Endpoint`] makes sessions of connections, without a server.
//!
#![cfg_attr(
    feature = "actor",
    doc = r#"
```
use peerage_peer_session::Endpoint;
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::{Keypair, frame::Lane};

# tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
let (alice, bob) = (Keypair::generate()?, Keypair::generate()?);
let near = Endpoint::new(&alice, "my network", &[("chat", 1)])?;
let far = Endpoint::new(&bob, "my network", &[("chat", 1)])?;

// Any connection will do; here, one in memory.
let (left, right) = tokio::io::duplex(64 * 1024);
let somewhere = ([127, 0, 0, 1], 1).into();
let (dialled, accepted) = tokio::join!(
    near.dial(Stream::new(left, somewhere), bob.id()),
    far.accept(Stream::new(right, somewhere)),
);
let (dialled, mut accepted) = (dialled?, accepted?);
assert_eq!(accepted.remote().id(), alice.id());

let chat = dialled.channel("chat").expect("both speak it");
dialled.send(chat, Lane::Normal, "hello").await?;
let message = accepted.recv().await.expect("the session lives");
assert_eq!(message.delivery.payload, "hello");
# Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
```
"#
)]
//!
//! The rules are machines ([`handshake`], [`SessionMachine`], [`records`]); the tasks around them come with the default
//! feature `actor`. The default feature `accelerated` adds AES-256-GCM and faster ciphers and curves by `aws-lc-rs`; the
//! bytes on the wire are the same without it, and both kinds of build understand each other.
//!
//! # Private networks
//!
//! A network can have a [`NetworkSecret`] that all of its nodes share ([`Handshaker::with_secret`]). It is mixed into the
//! handshake's first message, so a stranger is refused at that one and told nothing. A network can have forks:
//! [`Presented`](handshake::Presented) lists those that a node speaks with besides its own.
//!
//! # What a peer can do here
//!
//! Nothing a peer sends is trusted: lengths are checked before anything is kept, every message has a
//! largest size, and whatever does not decode or authenticate ends the session with
//! [`DisconnectReason::ProtocolError`](peerage_wire::DisconnectReason::ProtocolError).
//!
//! A peer may send what it was granted: each (channel, lane) has a window, reserved in the node's inbound pool, that grows
//! for peers that are fast and far away and is asked back when it lies idle. A message's part is granted again when its
//! consumer drops its permit. Who sends more is cut off; who is slow to take messages
//! holds up its own peer and nobody else.
//!
//! Beside its messages a channel has bidirectional streams ([`StreamsMachine`]), with the same credit: of one that is not
//! read no more is kept than its window, and neither other streams nor messages wait for it. `SCENARIOS.md` maps attacks and the field's known scenarios to tests.
#![warn(missing_docs)]

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod alone;
#[cfg(feature = "actor")]
mod buffers;
mod cipher;
mod config;
#[cfg(feature = "actor")]
mod control;
pub mod handshake;
#[cfg(feature = "actor")]
mod handshaker;
#[cfg(feature = "actor")]
mod ingress;
mod machine;
#[cfg(feature = "actor")]
mod metrics;
mod noise;
#[cfg(feature = "actor")]
mod own;
#[cfg(feature = "actor")]
mod pump;
pub mod records;
mod secret;
#[cfg(feature = "actor")]
mod stats;
mod streams;
#[cfg(feature = "actor")]
mod traffic;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
#[cfg(feature = "actor")]
pub use alone::{ConnectError, Endpoint, EndpointConfig, Peer};
#[cfg(feature = "actor")]
pub use buffers::Buffers;
pub use cipher::{Ciphers, Forged, Implementation};
pub use config::Config;
#[cfg(feature = "actor")]
pub use handshaker::{Established, Handshaker};
#[cfg(feature = "actor")]
pub use ingress::SessionMailbox;
pub use machine::{Allocator, EndedBy, In, Memory, Out, SessionMachine, Timer, Writing};
pub use noise::NoiseError;
#[cfg(feature = "actor")]
pub use peerage_mailbox;
pub use peerage_queue;
#[cfg(feature = "actor")]
pub use peerage_transport;
pub use peerage_wire;
pub use secret::{NetworkSecret, SecretTooShort};
#[cfg(feature = "actor")]
pub use stats::SessionStats;
pub use streams::{Room, STREAM_ALLOWANCE, StreamIn, StreamOut, StreamTimer, StreamsMachine};
#[cfg(feature = "actor")]
pub use traffic::{Traffic, TrafficDirection, TrafficKind};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ended {
    /// Why.
    pub reason: peerage_wire::DisconnectReason,
    /// Who ended it.
    pub by: EndedBy,
}
