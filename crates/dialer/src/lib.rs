//! Whom a node dials, when, and how often.
//!
//! The rules are geth's dial scheduler, as a machine: it is told what happened and answers with what to
//! do. Candidates are *pulled*: it asks for as many as it has free slots and takes no others.
//!
//! ```
//! use peerage_dialer::{Config, DialerMachine, In, Out, StaticPeer};
//! use peerage_machine::{Driver, Rng, Time};
//! use peerage_wire::Keypair;
//!
//! let [me, friend] = [1, 2].map(|n| Keypair::from_seed([n; 32]).id());
//! let mut dialer = Driver::new(DialerMachine::new(Config::recommended(), me, Rng::new(7))?);
//!
//! dialer.handle(Time::ZERO, In::AddStatic(StaticPeer::new(friend, ["192.0.2.1:30303".parse()?])));
//! dialer.handle(Time::ZERO, In::Start);
//!
//! let asked: Vec<Out> = dialer.drain().collect();
//! assert!(matches!(&asked[0], Out::Dial { target, .. } if target.id == friend));
//! assert!(matches!(&asked[1], Out::Want(n) if n.get() == 32), "twice the 16 peers it wants to dial");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Slots
//! Free slots = min(2 × (wanted − dialled peers), most dials at once) − dials in flight, as in geth; twice,
//! because about half of all dials fail. When the wanted number is reached, what is still in flight is
//! cancelled, so the doubling does not overshoot. Static peers have a bound of their own and take none of
//! these slots; connected ones and those being dialled are never more than
//! [`max_static_peers`](Config::max_static_peers), the others wait for their turn.
//!
//! # Who is not dialled
//! [`Refusal`] lists the reasons in the order of the checks. Everybody who was dialled is left alone for
//! [`history`](Config::history), and who failed for a growing, jittered time; so is who was connected and
//! dropped soon after, or for a reason that will not pass. One socket is dialled for one identity at a time, however
//! many name it.
//!
//! # Who is dialled first
//! Static peers; then anchors, the best peers of an earlier life, before anybody is asked for candidates; and
//! while there is neither a dialled nor a static peer, one bootnode every [`lonely_after`](Config::lonely_after).
//!
//! # Why there are too few peers
//! Every attempt and every candidate that came to nothing has a [`Cause`]. While peers are missing a
//! [`Diagnosis`] of the last seconds is emitted ([`Out::Seeking`]), and logged in one line. Missing static peers are
//! told by themselves.
//!
//! # Features
//! `actor` (default): the actor shell (`spawn`, `DialerMailbox`). Without it the crate is the machine
//! alone, without tokio.
#![warn(missing_docs)]

mod config;
mod diagnosis;
mod genesis;
mod machine;
mod messages;

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod ingress;
#[cfg(feature = "actor")]
mod metrics;

pub use config::{Config, ConfigError, dial_share};
pub use diagnosis::{Cause, Diagnosis};
pub use genesis::DialerGenesis;
pub use machine::{DialerMachine, Status, Timer};
pub use messages::{
    Attempt, Candidate, Count, DialOutcome, DialTarget, In, MAX_ADDRESSES, MAX_ANCHORS, MAX_BOOTNODES, Out, RACED,
    Refusal, StaticPeer,
};

/// What the machine is driven with.
pub use peerage_machine;
/// Clocks, meters and ports.
#[cfg(feature = "actor")]
pub use peerage_mailbox;
/// Identities and records.
pub use peerage_wire;

#[cfg(feature = "actor")]
pub use actor::{Args, spawn};
#[cfg(feature = "actor")]
pub use ingress::DialerMailbox;
