//! The session actor's door: control messages, grouped by who sends them.

use std::fmt;
use std::sync::Arc;

use peerage_mailbox::Port;
use peerage_queue::stream::StreamDoor;
use peerage_wire::DisconnectReason;
use ractor::ActorRef;

use crate::Ended;
use crate::stats::{Counters, SessionStats};

/// Control messages.
#[derive(Debug)]
pub(crate) enum SessionMsg {
    // ---------- from the root: a few in a session's life ----------
    Disconnect(DisconnectReason),
    // ---------- from its own pump: once ----------
    PumpEnded(Ended),
    // ---------- from tests of supervision ----------
    #[cfg(feature = "fault-injection")]
    PanicPump,
}

/// A session, for the root.
#[derive(Clone)]
pub struct SessionMailbox {
    actor: ActorRef<SessionMsg>,
    streams: StreamDoor,
    counters: Arc<Counters>,
}

impl SessionMailbox {
    pub(crate) fn new(actor: ActorRef<SessionMsg>, streams: StreamDoor, counters: Arc<Counters>) -> SessionMailbox {
        SessionMailbox { actor, streams, counters }
    }

    /// Lets the session end: the peer is told the reason, and [`Ended`] follows in any case.
    pub fn disconnect(&self, reason: DisconnectReason) {
        // A session that is gone has sent its Ended.
        drop(self.actor.cast(SessionMsg::Disconnect(reason)));
    }

    /// Where streams to the peer are opened: for the protocols that have channels in this session.
    pub const fn streams(&self) -> &StreamDoor {
        &self.streams
    }

    /// The session's readings.
    pub fn stats(&self) -> SessionStats {
        self.counters.read()
    }

    /// Makes the session's pump panic.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn inject_panic(&self) {
        drop(self.actor.cast(SessionMsg::PanicPump));
    }
}

impl fmt::Debug for SessionMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionMailbox({:?})", self.stats())
    }
}

/// Where the pump's end is reported, once.
pub(crate) fn pump_ended(actor: &ActorRef<SessionMsg>) -> Port<Ended> {
    Port::to_actor(actor, SessionMsg::PumpEnded)
}
