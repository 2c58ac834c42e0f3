//! Outbound message queues.
//!
//! Every peer has a bounded set of [lanes](Lanes), from urgent to bulk. Senders offer messages through a
//! [`Door`] and are answered at once; the task that owns the peer's socket takes fragments from the
//! [`LaneEnd`]. One [`Pool`] bounds the bytes of the whole node, and a buffer that goes to many peers is
//! charged to it once. The queue actor only fans out: it offers one message to many doors.
//!
//! Every message that was accepted is either popped whole or reported by exactly one [`SendFailed`].
#![cfg_attr(
    feature = "actor",
    doc = r#"
```
use bytes::Bytes;
use peerage_queue::{ChannelId, LanesConfig, Message, Pool, lanes};
use peerage_wire::frame::Lane;

let pool = Pool::new(1 << 20);
let (door, mut end) = lanes(LanesConfig::recommended(), &pool.pressure());
let charge = pool.charge(5).expect("the pool is empty");
let message = Message::new(ChannelId(1), Lane::Normal, Bytes::from_static(b"hello"), charge);
door.offer(message).expect("the lane is empty");

let fragment = end.pop_fragment().expect("one is waiting");
assert_eq!((&fragment.payload[..], fragment.more), (&b"hello"[..], false));
assert_eq!(pool.used(), 0, "released with its last fragment");
```
"#
)]
#![warn(missing_docs)]

/// The data queues that messages and failures travel in.
#[cfg(feature = "actor")]
pub use peerage_mailbox;
/// The types on the wire.
pub use peerage_wire;

#[cfg(feature = "actor")]
mod actor;
mod config;
#[cfg(feature = "actor")]
mod door;
#[cfg(feature = "actor")]
mod ingress;
mod lanes;
#[cfg(feature = "actor")]
mod metrics;
#[cfg(feature = "actor")]
mod pool;
mod types;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
pub use config::{Config, LanesConfig};
#[cfg(feature = "actor")]
pub use door::{Door, LaneEnd, Message, lanes};
#[cfg(feature = "actor")]
pub use ingress::QueueMailbox;
pub use lanes::{Fragment, Lanes, Refusal};
#[cfg(feature = "actor")]
pub use pool::{Charge, Pool, Pressure};
pub use types::{ChannelId, Delivery, Recipient, SendFailed, SessionId};
#[cfg(feature = "actor")]
pub use types::{Push, WhenFull};
