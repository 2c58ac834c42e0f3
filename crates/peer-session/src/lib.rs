//! One peer: a Noise handshake in which both ends prove their identity, then encrypted records that carry
//! many channels of messages, kept alive, and ended with a typed reason.
//!
//! Usable alone over any stream: `examples/echo.rs` joins two processes without a server. The rules are
//! machines ([`handshake`], [`SessionMachine`], [`records`]); the tasks around them come with the default
//! feature `actor`.
//!
//! Nothing a peer sends is trusted: lengths are checked before anything is kept, every message has a
//! largest size, and whatever does not decode or authenticate ends the session with
//! [`DisconnectReason::ProtocolError`](peerage_wire::DisconnectReason::ProtocolError).
#![warn(missing_docs)]

#[cfg(feature = "actor")]
mod actor;
mod cipher;
mod config;
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
#[cfg(feature = "actor")]
mod stats;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
pub use cipher::Forged;
pub use config::Config;
#[cfg(feature = "actor")]
pub use handshaker::{Established, Handshaker};
#[cfg(feature = "actor")]
pub use ingress::SessionMailbox;
pub use machine::{EndedBy, In, Out, SessionMachine, Timer, Writing};
pub use noise::NoiseError;
#[cfg(feature = "actor")]
pub use peerage_mailbox;
pub use peerage_queue;
#[cfg(feature = "actor")]
pub use peerage_transport;
pub use peerage_wire;
#[cfg(feature = "actor")]
pub use stats::SessionStats;

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Ended {
    /// Why.
    pub reason: peerage_wire::DisconnectReason,
    /// Who ended it.
    pub by: EndedBy,
}
