//! What bounds a peer's pace, beside the bytes of the pools: the messages of it that are being handled, its bandwidth
//! and the node's, and the time that its messages take (`avalanchego network/throttling`).
//!
//! Each is a machine without lock, clock or task, behind one small trait. The shell's half is a
//! `PeerThrottle`, owned by the one task that may wait: the one that owns the peer's socket.

mod bandwidth;
mod bucket;
mod cpu;
mod limits;
#[cfg(feature = "actor")]
mod node;
mod processing;
mod slots;
#[cfg(feature = "actor")]
mod stopwatch;

use peerage_machine::Time;

use crate::HolderId;

pub use bandwidth::Bandwidth;
pub use cpu::CpuShares;
pub use limits::{BandwidthLimits, CpuLimits, ThrottleLimits};
#[cfg(feature = "actor")]
pub use node::{PeerThrottle, ThrottleReason, ThrottleStats, ThrottleWeight, Throttles};
pub use processing::Processing;
#[cfg(feature = "actor")]
pub use stopwatch::{Stopwatch, TimeSource};

#[cfg(feature = "actor")]
pub use crate::permit::Spending;

/// What a throttle answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// So much may go on now: at least one, and at most what was asked for.
    Now(u64),
    /// Nothing. To be asked again then; if there is no time, when something of the asker's own was given back.
    Later(Option<Time>),
}

/// A machine that lets its holders go on, or tells them to wait.
///
/// Who is told to wait keeps its place until it takes, gives up or leaves. A holder waits once at a time: asking again
/// is the same wait.
pub trait Throttle {
    /// Adds a holder. One without weight has no part of what is reserved.
    fn join(&mut self, now: Time, weight: u64) -> HolderId;

    /// Changes a holder's weight, and with it everybody's part of what is reserved.
    fn set_weight(&mut self, now: Time, holder: HolderId, weight: u64);

    /// Removes a holder. Its wait ends, and what it had is given back.
    fn leave(&mut self, now: Time, holder: HolderId);

    /// Asks to go on with so much.
    fn take(&mut self, now: Time, holder: HolderId, wanted: u64) -> Take;

    /// Gives back what was taken and not used, or is done with. More than was taken counts as all of it.
    fn give_back(&mut self, now: Time, holder: HolderId, count: u64);

    /// Gives the wait up. Nothing is taken by waiting, so there is nothing to give back.
    fn cancel(&mut self, holder: HolderId);

    /// Holders that wait.
    fn waiting(&self) -> usize;
}

#[cfg(test)]
mod properties;
