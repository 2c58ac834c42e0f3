//! Peers that mean harm: each ends with a typed reason, holds no more than its part, and takes nobody along.

mod credit;
mod crowd;
mod ends;
mod frames;
mod handshakes;
mod records;
mod secret;
mod slow;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::{Ended, EndedBy};

/// This end gave the session up for this.
const fn us(reason: DisconnectReason) -> Ended {
    Ended { reason, by: EndedBy::Us }
}

const BREACH: Ended = us(DisconnectReason::ProtocolError);
const STALLED: Ended = us(DisconnectReason::Stalled);
