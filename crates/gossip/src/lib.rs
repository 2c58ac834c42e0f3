//! Topic gossip: what is published to a topic reaches every subscriber of the network, once.
//!
//! Each topic has a mesh, as in gossipsub: some peers with which its messages are exchanged as they come.
//! Most links of it are lazy for most messages: they announce what a peer most likely gets sooner from
//! somebody else. What all that did not bring, or what was sent while a node was away, is pulled. Large
//! messages may travel as shards of an erasure code ([`coded`]). A message on a signed topic is checked
//! before anything else is done with it; a copy that fails the check changes nothing but its sender's
//! standing ([`score`]).
//!
//! [`GossipMachine`] holds all the rules and runs anywhere (`examples/rumour.rs`); with the `actor`
//! feature, [`spawn`] runs it as an actor behind a [`GossipMailbox`].
//!
//! ```
//! use peerage_gossip::{Config, GossipMachine, In, Out, Policy, Topic};
//! use peerage_gossip::peerage_machine::{Driver, Time};
//! use peerage_gossip::peerage_wire::NodeId;
//!
//! let machine = GossipMachine::new(Config::recommended(), NodeId::from_bytes([1; 32]), 7);
//! let mut gossip = Driver::new(machine);
//! let news = Topic::new("news")?;
//! gossip.handle(Time::ZERO, In::Subscribe { token: 0, topic: news.clone(), policy: Policy::Anonymous });
//! let publish = In::Publish {
//!     token: 1, topic: news, policy: Policy::Anonymous, payload: "hi".into(), pressed: false,
//! };
//! gossip.handle(Time::ZERO, publish);
//! assert!(gossip.drain().any(|out| matches!(out, Out::Deliver(message) if message.payload == "hi")));
//! # Ok::<(), peerage_gossip::TopicError>(())
//! ```
#![warn(missing_docs)]

#[cfg(feature = "actor")]
mod actor;
pub mod coded;
mod config;
pub mod durable;
mod genesis;
#[cfg(feature = "actor")]
mod ingress;
mod machine;
#[cfg(feature = "actor")]
mod memory;
mod message;
#[cfg(feature = "actor")]
mod metrics;
#[cfg(any(test, feature = "fault-injection"))]
#[doc(hidden)]
pub mod poison;
pub mod score;
#[cfg(feature = "actor")]
mod validation;
pub mod wire;
#[cfg(feature = "actor")]
mod work;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
pub use config::{Config, ConfigError, Limits, MeshConfig, Mode, Pull, TopicConfig, TopicConfigError, Work};
pub use genesis::GossipGenesis;
#[cfg(feature = "actor")]
pub use ingress::{Event, GossipMailbox, Publish};
pub use machine::{
    Blame, ConfirmError, Confirmed, Count, DropReason, Found, GossipMachine, Handling, In, Out, Outgoing, PeerUp,
    PruneReason, PublishError, Published, Standing, Stats, SubscribeError, Suspect, Timer, Verdict,
};
#[cfg(feature = "actor")]
pub use memory::Memory;
pub use message::{
    Check, Checked, Claim, Fingerprint, MAX_TOPIC, Message, MessageId, Origin, Policy, Topic, TopicError,
};
#[cfg(feature = "actor")]
pub use validation::{Judge, Unjudged};

/// What payloads are made of.
pub use bytes;
/// What the machine is driven with.
pub use peerage_machine;
/// The data queues that messages travel in.
#[cfg(feature = "actor")]
pub use peerage_mailbox;
/// Where durable topics are kept.
#[cfg(feature = "actor")]
pub use peerage_nodedb;
/// The sessions and channels that messages come from and go to.
pub use peerage_queue;
/// Identities.
pub use peerage_wire;
