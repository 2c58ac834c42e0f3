//! Message queues and what bounds them.
//!
//! Every peer has a bounded set of [lanes](Lanes), from urgent to bulk. Senders offer messages through a
//! [`Door`], which answers at once or, for tasks that may wait, when there is room; the task that owns the
//! peer's socket takes fragments from the [`LaneEnd`], as far as the peer has granted credit. One [`Pool`]
//! bounds the bytes of the whole node; a peer's messages are charged to its account there, and a buffer that
//! goes to many peers is charged once. Control is not charged: its lanes are small. The queue actor only fans
//! out: it offers one message to many doors, as a [`FanOut`] does wherever it is held.
//!
//! Every message that was accepted is either popped whole or reported by exactly one [`SendFailed`].
//!
//! What comes in is bounded by an [`InboundPool`] in the same way: a message travels with a [`Permit`] until it
//! has been handled.
//!
//! How fast a peer may be is bounded by [`throttle`]: messages of it that are being handled, bandwidth of the peer and of
//! the node, and the time that its messages take.
#![cfg_attr(
    feature = "actor",
    doc = r#"
```
use bytes::Bytes;
use peerage_queue::peerage_machine::Time;
use peerage_queue::{ChannelId, LanesConfig, Message, Pool, PoolConfig, lanes};
use peerage_wire::frame::Lane;

let pool = Pool::new(PoolConfig::outbound());
let (door, mut end) = lanes(LanesConfig::recommended(), &pool, 0);
door.offer(Message::new(ChannelId(1), Lane::Normal, Bytes::from_static(b"hello"))).expect("the lane is empty");

let fragment = end.pop(Time::ZERO).expect("one is waiting");
assert_eq!((&fragment.payload[..], fragment.more), (&b"hello"[..], false));
assert_eq!(pool.used(), 0, "released with its last fragment");
```
"#
)]
#![warn(missing_docs)]

/// The clock that expiry is judged by.
pub use peerage_machine;
/// The data queues that messages and failures travel in.
#[cfg(feature = "actor")]
pub use peerage_mailbox;
/// The types on the wire.
pub use peerage_wire;

#[cfg(feature = "actor")]
mod actor;
mod budget;
mod config;
#[cfg(feature = "actor")]
mod door;
#[cfg(feature = "actor")]
mod fan_out;
#[cfg(feature = "actor")]
mod ingress;
mod lanes;
#[cfg(feature = "actor")]
mod metrics;
#[cfg(feature = "actor")]
mod permit;
#[cfg(feature = "actor")]
mod pool;
pub mod stream;
pub mod throttle;
mod types;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
pub use budget::{Budget, HolderId};
pub use config::{Config, LanesConfig, PoolConfig};
#[cfg(feature = "actor")]
pub use door::{Door, LaneEnd, Message, Tally, lanes};
#[cfg(feature = "actor")]
pub use fan_out::FanOut;
#[cfg(feature = "actor")]
pub use ingress::QueueMailbox;
pub use lanes::{Fragment, Lanes, Offer, Refusal};
#[cfg(feature = "actor")]
pub use permit::{Permit, Returned};
#[cfg(feature = "actor")]
pub use pool::{Account, Charge, InboundPool, InboundShare, InboundWeight, Pool, Pressure, Shed};
pub use types::{ChannelId, Delivery, Flow, Recipient, SendFailed, SessionId};
#[cfg(feature = "actor")]
pub use types::{Inbound, Push, WhenFull};
