//! Finds the nodes of a network: signed Kademlia over UDP.
//!
//! Three parts, each usable without the next:
//!
//! - [`wire`]: the packets, byte for byte.
//! - [`Gate`]: what can be refused without knowing anybody. A request must show a cookie, which proves that its
//!   sender receives at its address; an answer must echo a nonce that only this node can have made. So a packet with
//!   a forged source costs a hash, and no answer is larger than what it answers until the asker has proved itself.
//! - [`DiscoveryMachine`]: the table, lookups, refresh and revalidation, and the records handed to a dialer.
//!
//! A world of machines needs no bytes: [`Gate::admit_value`] judges packets that are values by the same rules,
//! [`Packet::encoded_len`](wire::Packet::encoded_len) tells their size, and [`Outgoing::tied`] makes a request's nonce.
//!
//! [`exchange`] is a protocol of its own over sessions: peers tell each other of their peers.
//!
//! With the feature `actor` (on by default) [`spawn`] runs them over sockets that are lent to it, so that they
//! survive its restart.
//!
//! Nodes are learnt of from [`sources`] too: names of hosts, a file, and with the features `dns` and `mdns` signed lists
//! in the DNS and the local network.
//!
//! What the node's own address is, as others see it or a gateway maps it, is found out by [`external`].
//!
//! A policy of the node ([`peerage_wire::Admission`]) can exclude addresses, and all identities but some: neither is
//! heard of or answered then. Where to begin is told by bootnodes, and by seeds that an earlier process remembered.
//!
//! The machine alone, as a simulated world runs it:
//!
//! ```
//! use peerage_discovery::{Bootnode, Config, DiscoveryMachine, Families, In, Out};
//! use peerage_machine::{Driver, Time};
//! use peerage_wire::{Keypair, NetworkId, RecordDraft};
//!
//! let record = RecordDraft::new(1, NetworkId::named("example"))
//!     .address("/ip4/192.0.2.1/udp/30303".parse()?)
//!     .sign(&Keypair::from_seed([1; 32]))?;
//! let bootnode = Bootnode { id: Keypair::from_seed([2; 32]).id(), addr: "192.0.2.2:30303".parse()? };
//!
//! let machine = DiscoveryMachine::new(Config::local(), record, Families::BOTH, vec![bootnode], 7);
//! let mut driver = Driver::new(machine);
//! driver.handle(Time::ZERO, In::Start);
//! let asked = driver.drain().any(|out| matches!(out, Out::Send(packet) if packet.to == bootnode.id));
//! assert!(asked, "a bootnode is asked for its record at once");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

mod clock;
mod config;
mod count;
pub mod exchange;
pub mod external;
mod filter;
mod gate;
mod genesis;
mod key;
mod machine;
mod net;
mod secrets;
mod source;
pub mod sources;
pub mod wire;

pub use clock::{ClockIn, ClockMachine, ClockOut, ClockTimer, MAX_DRIFT};
pub use config::{Config, ConfigError};
pub use count::{DropReason, Event};
pub use filter::EntryRule;
pub use gate::{Gate, GateConfig, Inbound, Known, MAX_KNOWN, Told, Verdict};
pub use genesis::DiscoveryGenesis;
pub use key::{BUCKETS, Distance, Key};
pub use machine::{
    Bootnode, DiscoveryMachine, Families, Found, In, List, MAX_NAMED, MAX_SEEDS, Out, Outgoing, Stats, Timer,
};
pub use secrets::Secrets;
pub use source::{MAX_OFFER, Source};

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod foreign;
#[cfg(feature = "actor")]
mod ingress;
#[cfg(feature = "actor")]
mod metrics;
#[cfg(feature = "actor")]
mod routes;
#[cfg(feature = "actor")]
mod socket;

/// What the machine is driven with.
pub use peerage_machine;
/// Clocks, meters and ports.
#[cfg(feature = "actor")]
pub use peerage_mailbox;
/// Sockets, or an in-memory network.
#[cfg(feature = "actor")]
pub use peerage_transport;
/// Identities and records.
pub use peerage_wire;

#[cfg(feature = "actor")]
pub use actor::{Args, StartError, spawn};
#[cfg(feature = "actor")]
pub use foreign::{Foreign, MAX_FOREIGN};
#[cfg(feature = "actor")]
pub use ingress::{DiscoveryMailbox, DiscoveryOut, Records};
