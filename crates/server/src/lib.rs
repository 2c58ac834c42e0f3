//! The root actor: geth's `p2p.Server` run loop, as supervised actors.
//!
//! [`start`] binds the sockets, starts every other actor and wires them together; what comes back is a
//! [`ServerMailbox`]. The root owns the peer table. Every connection passes two checkpoints: the first
//! reserves a place as soon as the other end is known, the second repeats its checks and adds the peer.
//! The root is never in the path of data.
//!
//! [`ServerMachine`] is the run loop without any of this: the rules of admission, trust, bans and shutdown.
#![warn(missing_docs)]

mod actor;
mod addresses;
mod config;
mod connector;
mod effects;
mod events;
mod ingress;
mod listener;
mod machine;
mod memory;
mod metrics;
mod services;
mod sessions;
mod setup;
mod start;
mod supervision;
mod types;
mod views;
mod wiring;

pub use addresses::{dialable, expand};
pub use config::{Churn, Config, MAX_ADMISSION, Reputation};
pub use ingress::{AddStaticFailed, OpenDoorFailed, ServerMailbox, Service, SubscribeFailed};
pub use listener::{Door, DoorError, ListenerConfig, SharedAddress, Visitor};
pub use machine::{In, Meta, Out, Restored, Running, ServerMachine, Setup, Stage, Timer};
pub use peerage_wire::Banned;
pub use setup::SetupFailed;
pub use start::{Args, DEFAULT_PORT, Listen, StartError, start};
pub use types::{Event, Health, LocalNode, PeerAddress, PeerAddressError, PeerInfo, Status};

pub use peerage_dialer as dialer;
pub use peerage_discovery as discovery;
pub use peerage_gossip as gossip;
pub use peerage_mailbox as mailbox;
pub use peerage_nodedb as nodedb;
pub use peerage_peer_session as peer_session;
pub use peerage_queue as queue;
pub use peerage_transport as transport;
pub use peerage_wire as wire;
