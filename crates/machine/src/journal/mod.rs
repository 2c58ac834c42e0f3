//! Journals: what happened to a machine, kept so that it can happen to the same machine again.
//!
//! With the feature `journal`, a shell asks the node's [`Journals`] for a [`Recorder`] at each start of its
//! machine and hangs it on the [`Driver`](crate::Driver). From then on every input and every round of expiries
//! is kept with its [`Time`](crate::Time), *before* the machine sees it, and a hash of the effects that
//! followed. As a machine has no other source of change, its constructor's arguments (the [`Genesis`]) and
//! these entries make the same machine do the same things again, up to a panic.
//!
//! What is kept is bounded in bytes for each life of a machine; the oldest entries give way and are counted.
//! The present life is kept, and the last one that crashed. Without the feature the same calls are there, keep
//! nothing and compile to nothing.
//!
//! Journals hold what peers sent and what applications published, and no secret: machines that are
//! given secrets are not recorded.

#[cfg(feature = "journal")]
mod dump;
#[cfg(not(feature = "journal"))]
mod off;
#[cfg(feature = "journal")]
mod on;
#[cfg(feature = "journal")]
mod ring;
#[cfg(all(test, feature = "journal"))]
mod tests;

#[cfg(feature = "journal")]
pub use dump::{Damage, Dump, DumpError, Entry, Header, What};
#[cfg(not(feature = "journal"))]
pub use off::{Journals, Recorder};
#[cfg(feature = "journal")]
pub use on::{Echo, Echoed, Journals, Recorder, Snapshot};

use serde::Serialize;

use crate::Machine;

/// What a recorded machine is made of: all of its constructor's arguments.
pub trait Genesis: Serialize {
    /// The machine.
    type Machine: Machine;

    /// The machine's name in journals and their files: lower-case letters.
    const NAME: &'static str;

    /// The machine, as it is before anything has happened to it.
    ///
    /// # Errors
    /// Why there can be none, in words.
    fn build(self) -> Result<Self::Machine, String>;
}
