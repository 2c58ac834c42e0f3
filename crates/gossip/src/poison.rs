//! Payloads that make gossip panic, each at another stage, for tests of what a panic is charged to.
//!
//! The node that publishes one is not hurt itself: only what came from a peer is looked at.

/// While the session message it came in is read.
pub const DECODE: &[u8] = b"peerage: panic while decoding";
/// Before its signature is checked.
pub const UNCHECKED: &[u8] = b"peerage: panic before the check";
/// While its signature is checked, on the thread that does it.
pub const CHECK: &[u8] = b"peerage: panic in the check";
/// After its signature held.
pub const CHECKED: &[u8] = b"peerage: panic after the check";
/// While it is handed to the topic's subscribers.
pub const DELIVERY: &[u8] = b"peerage: panic at delivery";

/// The issue time that a check of [`CHECK`] is marked with; no message that reaches a check has it.
pub(crate) const ISSUED: u64 = u64::MAX;

/// Panics if this is the poison of this stage.
pub(crate) fn at(stage: &[u8], payload: &[u8]) {
    assert!(payload != stage, "injected");
}
