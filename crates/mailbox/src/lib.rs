//! Typed, bounded mailboxes over [ractor](https://docs.rs/ractor).
//!
//! An actor here has two ways in. *Control* is ractor's own mailbox: few small messages, bounded by
//! construction, sent through verbs or a [`Port`]. *Data* is everything a network can send: it goes
//! through a bounded [`data_queue`] outside ractor's unbounded mailbox, and a [`Bell`] wakes the actor
//! once for a whole batch.
//!
//! ```
//! use peerage_mailbox::{Capacity, Item, Overflow, data_queue};
//!
//! struct Packet(Vec<u8>);
//!
//! impl Item for Packet {
//!     fn weight(&self) -> usize { self.0.len() }
//!     fn overflow(&self) -> Overflow { Overflow::Reject }
//! }
//!
//! let (outlet, inlet) = data_queue::<Packet>(Capacity { items: 100, weight: 1_000 });
//! outlet.offer(Packet(vec![0; 900])).expect("there is room");
//! assert!(outlet.offer(Packet(vec![0; 900])).is_err(), "not for 1,800 bytes");
//! assert_eq!(inlet.take(10).len(), 1);
//! ```
//!
//! # Why a doorbell
//! ractor boxes every message and polls four channels to receive one. `cargo run --release -p peerage-mailbox
//! --example doorbell` measures both ways: nanoseconds for an item of 64 bytes, from its offer until the actor has
//! handled it, on one thread that lets the actor run after each batch (2 cores, AMD EPYC, 2026-11-21, median of
//! three runs):
//!
//! | items a batch | one boxed message an item | doorbell and drain |
//! |---|---|---|
//! | 1 | 350 | 397 |
//! | 8 | 153 | 69 |
//! | 64 | 131 | 26 |
//!
//! A single item pays for the queue besides the message that rings; from a few items on the message is shared.
//! What the doorbell is for shows at every size: the queue is bounded, and survives a restart of its actor.
#![warn(missing_docs)]

mod actor;
mod bell;
mod clock;
mod counts;
mod meter;
mod port;
mod queue;
mod reply;
mod restart;
mod sync;

pub use actor::{Child, SpawnError, Supervisor, spawn_child};
pub use bell::{Alarm, Bell};
pub use clock::Clock;
pub use counts::Counts;
pub use meter::Meter;
pub use port::Port;
pub use queue::{Capacity, Inlet, Item, Line, Outlet, Overflow, RecvError, Refused, SendError, data_queue};
pub use reply::{AskError, Reply, ask};
pub use restart::{Restart, RestartPolicy};
