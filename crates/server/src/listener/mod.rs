//! The listener: accepts connections within its limits, finds out whose protocol they speak, and starts a
//! handshake task for each of this node's own.

mod config;
mod limits;
mod machine;

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod door;
#[cfg(feature = "actor")]
mod first_bytes;
#[cfg(feature = "actor")]
mod ingress;
#[cfg(feature = "actor")]
mod registrations;

pub use config::{ListenerConfig, SharedAddress};
pub use machine::{Conn, In, ListenerMachine, Out, Refusal, Timer};

#[cfg(feature = "actor")]
pub(crate) use actor::{Args, SlotMsg, doors, spawn};
#[cfg(feature = "actor")]
pub use door::{Door, DoorError, Visitor};
#[cfg(feature = "actor")]
pub(crate) use door::{Doors, Native};
#[cfg(feature = "actor")]
pub(crate) use ingress::ListenerMailbox;
