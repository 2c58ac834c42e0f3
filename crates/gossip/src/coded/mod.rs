//! Coded broadcast: a large message travels as shards of an erasure code, and any sufficient part of them is the message.
//!
//! A publisher cuts its payload into shards, makes more of them, and signs a [`Header`] with the root of a tree over all
//! of them. It sends different shards to different peers; every node passes each shard on to a few as it arrives, its
//! proof checked, and tells its peers as soon as it has enough to make the rest. So no node waits for a whole message
//! before it sends, all lines carry at once, and what is lost on one path is made up for by any other shard.
//!
//! Shards travel before anybody has seen the message, so they do so only for publishers that the topic admits
//! ([`Admitted`]), within a quota for each, and within bounds in sessions and bytes for all. A message whose shards turn
//! out not to be those of a payload of the signed id is its publisher's doing and never a relayer's. Nodes and topics
//! without coding get messages whole.
//!
//! | file | rule |
//! |---|---|
//! | `shape` | how a payload is cut |
//! | `merkle`, `header` | what is signed, and what each shard proves |
//! | `code`, `reed_solomon`, `work` | the work, and where it is done |
//! | `publishers` | who may, and how much |
//! | `session` | one message: who has what, and whom a shard is sent to |
//! | `machine` | all of them: publishing, admission, checks |
//! | `relaying` | what comes in and what goes out |
//! | `ending` | ends, bounds, repair |

mod bits;
mod code;
mod config;
mod ending;
mod header;
mod machine;
mod merkle;
mod publishers;
#[cfg(feature = "actor")]
mod reed_solomon;
mod relaying;
mod session;
mod shape;
#[cfg(feature = "actor")]
pub(crate) mod work;

pub use self::bits::Bits;
pub use self::code::{Coding, Erasure, Job, Pieces};
pub use self::config::CodedConfig;
pub use self::header::{Header, Key};
pub(crate) use self::machine::{Coded, Outcome, Publication, is_coded_tag, is_coded_token};
pub use self::merkle::{Hash, Tree};
pub use self::publishers::Admitted;
#[cfg(feature = "actor")]
pub use self::reed_solomon::ReedSolomon;
pub use self::shape::{MAX_SHARD, MAX_SHARDS, MIN_SHARD, Shape};
