//! Nodes of the local network: each announces its record over multicast DNS (RFC 6762, 6763), and browses for others.
//!
//! The service is `_peerage._udp.local.`, its instances have random names, and its TXT record holds the node's own in
//! pieces (`r0`, `r1`) beside a tag of its network (`n`). Anybody on the local network may say anything there; what is
//! believed is decided by [`LocalMachine`].

mod local;

#[cfg(feature = "actor")]
mod task;

pub use local::{In, LocalMachine, MAX_NEWS, Out, Refusal, pieces};

#[cfg(feature = "actor")]
pub(crate) use task::Announcer;
