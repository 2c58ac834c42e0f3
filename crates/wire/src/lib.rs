//! What Peerage nodes say to each other, byte for byte.
//!
//! Everything here is a value with a bounded encoding; nothing opens a socket or reads a clock.
//!
//! ```
//! use peerage_wire::{Keypair, NetworkId, NodeRecord, RecordDraft};
//!
//! let keys = Keypair::from_seed([7; 32]);
//! let record = RecordDraft::new(1_700_000_000_000, NetworkId::named("example"))
//!     .address("/ip4/192.0.2.1/tcp/30303".parse()?)
//!     .sign(&keys)?;
//!
//! // What another node does with the text form somebody pasted to it:
//! let pasted: NodeRecord = record.to_string().parse()?;
//! let checked = pasted.verify()?;
//! assert_eq!(checked.id(), keys.id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

pub mod address;
mod admission;
pub mod codec;
pub mod frame;
pub mod handshake;
mod hello;
mod host;
mod identity;
pub mod items;
mod penalty;
mod reason;
mod record;

pub use admission::{Admission, AdmissionError, Banned};
pub use hello::{Capability, CapabilityError, ForkId, Hello, MatchedCapability, NetworkId, match_capabilities};
pub use host::{Family, Host, is_name};
pub use identity::{Domain, IdentityError, Keypair, NodeId, Signature};
pub use ipnet::IpNet;
pub use multiaddr::{self, Multiaddr};
pub use penalty::Penalty;
pub use reason::{Consequence, DisconnectReason};
pub use record::{MAX_ENTRIES, MAX_ENTRY_KEY, MAX_RECORD, NodeRecord, RecordDraft, RecordError, Verified};
