//! Peerage for programs: a node, its topics and its peers.
//!
//! ```
//! # async fn run(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! # let other = peerage::Builder::local().listen("/ip4/127.0.0.1/tcp/0").start().await?;
//! # let address = other.addresses().await?.remove(0);
//! # let builder = peerage::Builder::local().listen("/ip4/127.0.0.1/tcp/0");
//! # /*
//! let builder = peerage::Builder::recommended();
//! # */
//! let node = builder.data_dir(dir).bootnode(address).start().await?;
//!
//! let blocks = node.topic("blocks").await?;
//! blocks.publish("a block").await?;
//! while let Some(message) = blocks.next().await {
//!     println!("{} bytes, published by {:?}", message.payload.len(), message.publisher);
//! #   node.shutdown().await;
//! }
//! # other.shutdown().await;
//! # Ok(())
//! # }
//! # let dir = tempfile::tempdir().expect("a directory");
//! # let limit = std::time::Duration::from_secs(20);
//! # let runtime = tokio::runtime::Runtime::new().expect("a runtime");
//! # let done = runtime.block_on(async { tokio::time::timeout(limit, run(dir.path())).await });
//! # done.expect("in time").expect("no error");
//! ```
//!
//! A [`Builder`] makes a [`Node`]; a [`Topic`] is what a network talks about; [`Node::serve`] and [`Node::request`] are
//! questions to one peer and its answers; [`Node::serve_streams`] and [`Node::open_stream`] are for what is long, or goes
//! both ways; [`Events`] tell of peers.
//! What a node does and with whom is switched in its builder ([`Builder::discovery`], [`Builder::dialing`],
//! [`Builder::listening`], [`Builder::only_peers`] and others); [`Node`] changes who its peers are while it runs.
//! What is no topic and no question is a [`protocol`] of its own: a task for each peer ([`Builder::protocol`]).
//! What a program must not miss, nor get twice, is a [`DurableTopic`].
//! Dropping a node's handles does not stop it: [`Node::shutdown`] does, and tells the peers.
//!
//! Everything is done by the crates below, which stand alone: [`server`] is the door to them.
#![warn(missing_docs)]

mod builder;
mod data_dir;
mod durable;
#[cfg(feature = "journal")]
mod journals;
mod keeper;
mod node;
mod place;
mod requests;
mod streams;
mod topic;
mod validation;

pub use builder::{Builder, StartError};
pub use data_dir::DataDirError;
pub use durable::{AckError, Durable, DurableTopic, DurableTopicError};
#[cfg(feature = "journal")]
pub use journals::{JournalError, JournalFile};
pub use node::{Events, Node};
pub use place::{ToListenAddress, ToPeerAddress};
pub use topic::{NotConfirmed, PublishError, Publisher, Subscriber, Topic, TopicError};
pub use validation::TopicSetup;

/// The crate below, and through it all others.
pub use peerage_server as server;
pub use peerage_server::discovery::external::{
    External, Nat, NatError, Origin, Reachable, StaticAddress, StaticAddressError,
};
pub use peerage_server::discovery::{EntryRule, Foreign};
pub use peerage_server::gossip::coded::Admitted;
pub use peerage_server::gossip::durable::{DurableError, DurableMessage, Start};
pub use peerage_server::gossip::{
    ConfirmError, Confirmed, Message, MessageId, Mode, Policy, Published, Standing, TopicConfig, Verdict,
};
pub use peerage_server::health::{Check, CheckState, Finding, HealthConfig};
pub use peerage_server::mailbox::{AskError, Clock, RecvError};
pub use peerage_server::peer_session::handshake::Direction;
pub use peerage_server::peer_session::{EndedBy, NetworkSecret, SecretTooShort};
pub use peerage_server::queue::stream::StreamCode;
pub use peerage_server::queue::throttle::{BandwidthLimits, CpuLimits, ThrottleLimits};
pub use peerage_server::router::resilience::{Fetched, Membership};
pub use peerage_server::router::{
    ClientError, ErrorCode, Fault, FrameError, HandlerId, OpenStreamError, Refusal, RequestError, Stream, StreamFailed,
    StreamReader, StreamWriter,
};
pub use peerage_server::router::{codec, protocol};
pub use peerage_server::shedding::SheddingConfig;
pub use peerage_server::transport::Transport;
pub use peerage_server::wire::{
    Admission, AdmissionError, Capability, DisconnectReason, ForkId, IpNet, Keypair, Multiaddr, NodeId, NodeRecord,
};
pub use peerage_server::{
    AddStaticFailed, Banned, Churn, Config, Door, Event, Health, Limits, LocalNode, PeerAddress, PeerInfo, Reputation,
    ServeFailed, SetLimitsFailed, SharedAddress, Status, Visitor,
};
