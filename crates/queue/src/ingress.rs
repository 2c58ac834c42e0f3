//! The queue actor's door: control messages, grouped by who sends them.

use ractor::ActorRef;

use crate::{Door, SessionId};

/// Control messages. Data comes through the inlet of [`Push`](crate::Push)es; `Wake` says that there is some.
#[derive(Debug)]
pub(crate) enum QueueMsg {
    // ---------- from the root: at most one a session ----------
    PeerUp {
        session: SessionId,
        door: Door,
    },
    PeerDown {
        session: SessionId,
    },
    // ---------- from its own inlet: coalesced ----------
    Wake,
    Drain(usize),
    // ---------- from tests of supervision ----------
    #[cfg(feature = "fault-injection")]
    Panic,
}

/// The queue actor, for the root.
#[derive(Clone, Debug)]
pub struct QueueMailbox(pub(crate) ActorRef<QueueMsg>);

impl QueueMailbox {
    /// A peer can be sent to, through this door.
    pub fn peer_up(&self, session: SessionId, door: Door) {
        self.send(QueueMsg::PeerUp { session, door });
    }

    /// A session has ended.
    pub fn peer_down(&self, session: SessionId) {
        self.send(QueueMsg::PeerDown { session });
    }

    /// Handles as many pushes, after the control messages that were sent before they were offered.
    pub(crate) fn drain(&self, count: usize) {
        self.send(QueueMsg::Drain(count));
    }

    /// Makes the actor panic.
    #[cfg(feature = "fault-injection")]
    #[doc(hidden)]
    pub fn inject_panic(&self) {
        self.send(QueueMsg::Panic);
    }

    /// An actor that is gone is told again by the root when it is back.
    fn send(&self, message: QueueMsg) {
        drop(self.0.cast(message));
    }
}
