//! The root actor: geth's `p2p.Server` run loop, as supervised actors.
//!
//! `start` binds the sockets, starts every other actor and wires them together; what comes back is a
//! `ServerMailbox`. The root owns the peer table. Every connection passes two checkpoints: the first
//! reserves a place as soon as the other end is known, the second repeats its checks and adds the peer.
//! The root is never in the path of data.
//!
//! [`ServerMachine`] is the run loop without any of this: the rules of admission, trust, bans and shutdown;
//! [`listening`] holds the listener's rules, and [`racing`] those of a dial.
//!
//! # Features
//! - `actor` (default): the actors and everything that they need. Without it the crate is the machines and the
//!   configuration, without tokio.
//! - `accelerated` (default): ciphers and curve operations by aws-lc, which needs a C compiler to build.
#![warn(missing_docs)]

mod config;
mod connector;
mod genesis;
pub mod health;
mod limits;
mod listener;
mod machine;
pub mod remembered;
pub mod shedding;

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod addresses;
#[cfg(feature = "actor")]
mod durable;
#[cfg(feature = "actor")]
mod effects;
#[cfg(feature = "actor")]
mod events;
#[cfg(feature = "actor")]
mod exchange;
#[cfg(feature = "actor")]
mod ingress;
#[cfg(feature = "actor")]
mod memory;
#[cfg(feature = "actor")]
mod metrics;
#[cfg(feature = "actor")]
mod names;
#[cfg(feature = "actor")]
mod own;
#[cfg(feature = "actor")]
mod requests;
#[cfg(feature = "actor")]
mod services;
#[cfg(feature = "actor")]
mod sessions;
#[cfg(feature = "actor")]
mod setup;
#[cfg(feature = "actor")]
mod start;
#[cfg(feature = "actor")]
mod supervision;
#[cfg(feature = "actor")]
mod topics;
#[cfg(feature = "actor")]
mod types;
#[cfg(feature = "actor")]
mod views;
#[cfg(feature = "actor")]
mod watch;
#[cfg(feature = "actor")]
mod wiring;

/// Whose connections are taken, who waits, and who gives way: the listener's rules, without a socket.
///
/// Every connection that the computer accepted is [`Accepted`](listening::In::Accepted) under a
/// [number](listening::Conn) that rises; the answer is to begin its set-up or to close it. Its slot is free again
/// after [`Released`](listening::In::Released).
pub mod listening {
    pub use crate::listener::{Conn, In, ListenerMachine, Out, Refusal, Timer};
}

/// Which of a node's addresses are tried when: the connector's rules for one dial, without a socket.
///
/// A [`Race`](racing::Race) decides one dial, from [`Start`](racing::In::Start) to [`Done`](racing::Out::Done). What a
/// handshake's error means for it is `Failure::from`, and what its end means for the dialer
/// [`DialOutcome::from`](peerage_dialer::DialOutcome).
pub mod racing {
    pub use crate::connector::{End, Failure, In, Out, Race, Timer};
}

pub use config::{Churn, Config, MAX_ADMISSION, MAX_ENTRY_BYTES, Reputation};
pub use genesis::{ListenerGenesis, ServerGenesis};
pub use limits::Limits;
pub use listener::{ListenerConfig, SharedAddress};
pub use machine::{In, Meta, Out, Restored, Running, ServerMachine, Setup, Stage, Stats, Timer};
pub use peerage_wire::Banned;

#[cfg(feature = "actor")]
pub use addresses::{dialable, expand};
#[cfg(feature = "actor")]
pub use ingress::{
    AddStaticFailed, DurableFailed, OpenDoorFailed, ServeFailed, ServerMailbox, Service, SetLimitsFailed,
    SubscribeFailed,
};
#[cfg(feature = "actor")]
pub use listener::{Door, DoorError, Visitor};
#[cfg(feature = "actor")]
pub use setup::SetupFailed;
#[cfg(feature = "actor")]
pub use start::{Args, DEFAULT_PORT, Listen, StartError, start};
#[cfg(feature = "actor")]
pub use topics::ConfirmFailed;
#[cfg(feature = "actor")]
pub use types::{Event, Health, LocalNode, PeerAddress, PeerAddressError, PeerInfo, Status};

pub use peerage_dialer as dialer;
pub use peerage_discovery as discovery;
pub use peerage_gossip as gossip;
pub use peerage_machine::journal;
#[cfg(feature = "actor")]
pub use peerage_mailbox as mailbox;
#[cfg(feature = "actor")]
pub use peerage_nodedb as nodedb;
pub use peerage_peer_session as peer_session;
pub use peerage_queue as queue;
pub use peerage_router as router;
#[cfg(feature = "actor")]
pub use peerage_transport as transport;
pub use peerage_wire as wire;
