//! Bidirectional streams of a session: what of them goes out next, and the two halves that an application holds.
//!
//! A stream is a pair of byte streams in opposite directions. Its rules (ids, credit, ends) are the session's; here is
//! what both the session's task and the application's tasks touch. Only a stream's own task waits: a
//! [`StreamWriter`] for the room that its peer's credit makes, a [`StreamReader`] for bytes.

mod code;
#[cfg(feature = "actor")]
mod door;
#[cfg(feature = "actor")]
mod halves;
mod outgoing;
#[cfg(feature = "actor")]
mod shared;

pub use code::{OpenError, StreamCode};
#[cfg(feature = "actor")]
pub use door::{OpenRequest, StreamDoor, StreamEnd, stream_doors};
#[cfg(feature = "actor")]
pub use halves::{AcceptedStream, StreamError, StreamReader, StreamWriter};
pub use outgoing::Outgoing;
#[cfg(feature = "actor")]
pub use shared::Change;
