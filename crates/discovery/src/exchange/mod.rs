//! Peers tell each other of their peers, over the sessions they have: for networks where UDP does not pass.
//!
//! As AvalancheGo gossips its peer list (`network/network.go`, `network/ip_tracker.go`), a node *pulls*: it sends one of
//! its peers a filter of the nodes that it knows, under a salt of its own ([`Bloom`](peerage_machine::Bloom)), and is
//! shown up to sixteen records that are not in it. A node shows its own peers only, whose handshakes have proved who
//! they are, and of those only the ones whose record names the address at which their session shows them; nothing that
//! it was merely told goes further than one step. What comes back has its signatures checked and is offered to
//! discovery, where it has to answer like any other node; where discovery knows nobody, as it is switched off or no
//! packet gets through, it goes to the dialer.
//!
//! The same channel carries two smaller things. Each end says once where it sees the other one. And a node asks a few
//! peers to *dial back*: to open one connection to it, at the address that its session shows and nowhere else, and to
//! say whether that worked. So it knows whether it can be dialled from outside, and can say what to do if not.
//!
//! [`ExchangeMachine`] has the rules, [`wire`] the bytes; with the feature `actor`, `spawn` runs it as an actor.

mod config;
mod count;
mod genesis;
mod machine;
pub mod wire;

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod ingress;
#[cfg(feature = "actor")]
mod metrics;

pub use config::{Config, ConfigError, ProbeConfig};
pub use count::{DropReason, Event};
pub use genesis::ExchangeGenesis;
pub use machine::{ExchangeMachine, FIRST_PORT, In, Out, PeerUp, Timer};

#[cfg(feature = "actor")]
pub use actor::{Args, Charge, spawn};
#[cfg(feature = "actor")]
pub use ingress::{ExchangeMailbox, ExchangeOut};

/// The capability under which the exchange runs: its name and version.
pub const CAPABILITY: (&str, u16) = ("peers", 1);
