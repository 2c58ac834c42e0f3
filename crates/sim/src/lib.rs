//! A discrete-event world for protocol machines: 10,000 nodes on one core, the same run for the same seed.
//!
//! A [`World`] has hosts, what is between them ([`Links`]), and on each host at most one [`Node`]: whatever a user
//! writes, usually a few machines of [`peerage_machine`] and what connects them. A node is told of [events](Event) and
//! acts through its [`Net`]: datagrams, connections, one wake-up. The world decides what arrives when, and can crash
//! hosts, part the network, let hosts stop to read, and step their clocks.
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//! use peerage_sim::{Event, HostSpec, Links, Net, Node, Payload, World};
//!
//! #[derive(Clone, Debug)]
//! struct Number(u64);
//!
//! impl Payload for Number {
//!     fn size(&self) -> usize { 100 }
//!     fn mark(&self) -> u64 { self.0 }
//! }
//!
//! /// Sends what it gets back, counted down, until it gets 0.
//! struct Countdown;
//!
//! impl Node for Countdown {
//!     type Message = Number;
//!     type Command = (SocketAddr, u64);
//!     type Note = &'static str;
//!
//!     fn handle(&mut self, event: Event<Self>, net: &mut Net<'_, Self>) {
//!         match event {
//!             Event::Command((to, from)) => net.send(to, Number(from)),
//!             Event::Datagram { message: Number(0), .. } => net.note("lift-off"),
//!             Event::Datagram { from, message: Number(n) } => net.send(from, Number(n - 1)),
//!             _ => {}
//!         }
//!     }
//! }
//!
//! let mut world = World::new(Links::uniform(Duration::from_millis(50)), 1);
//! let addresses: [SocketAddr; 2] = [([20, 0, 0, 1], 30303).into(), ([20, 0, 1, 1], 30303).into()];
//! let hosts = addresses.map(|address| world.add(HostSpec::at(address)));
//! hosts.into_iter().for_each(|host| world.start(host, Countdown));
//! world.command(hosts[0], (addresses[1], 9));
//!
//! let mut notes = Vec::new();
//! world.run_until(Duration::from_secs(10), |at, host, note| notes.push((at, host, note)));
//! assert_eq!(notes, [(Duration::from_millis(500), hosts[0], "lift-off")]);
//! ```
//!
//! Everything left to chance is a function of the seed, so a run can be had again: equal seeds give equal
//! [digests](World::digest), and where two runs part, [`Trail::parts_from`] finds the first events that differ. For that,
//! a node must not read clocks, draw from other sources than a seeded [`peerage_machine::Rng`], or let the order of a
//! hash map decide.
//!
//! The engine is exact about order and honest about what it leaves out: connections neither lose nor reorder, a loss
//! makes them late; a limited line is shared by turns of 16 KiB; congestion control is not modelled.
#![warn(missing_docs)]

mod adversaries;
pub mod baseline;
mod engine;
pub mod invariants;
mod node;
#[cfg(feature = "replay")]
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;

pub use engine::{
    Closed, Conn, Counts, Digest, Event, HostId, HostSpec, Links, Net, Node, Payload, Trail, World, resident_bytes,
};
#[cfg(feature = "planted-bugs")]
pub use node::Bug;
pub use node::{
    Cast, Command, Descriptor, Foreign, ForeignParts, Message, NodeArgs, Note, Parcel, PeerageNode, Service, Tally,
};

/// What machines are driven with.
pub use peerage_machine;
