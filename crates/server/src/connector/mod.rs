//! The connector: opens the connections that the dialer decides on.

mod outcome;
mod race;

#[cfg(feature = "actor")]
mod actor;
#[cfg(feature = "actor")]
mod ingress;

pub use race::{End, Failure, In, Out, Race, Timer};

#[cfg(feature = "actor")]
pub(crate) use actor::{Args, Dialled, spawn};
#[cfg(feature = "actor")]
pub(crate) use ingress::ConnectorMailbox;
