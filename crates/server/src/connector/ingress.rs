//! The connector's door.

use peerage_dialer::{Attempt, DialTarget};
use ractor::ActorRef;

/// The connector's control messages, from the root.
#[derive(Debug)]
pub(crate) enum ConnectorMsg {
    Dial(Attempt, DialTarget),
    Cancel(Attempt),
    CancelAll,
    #[cfg(feature = "fault-injection")]
    Panic,
}

#[derive(Clone)]
pub(crate) struct ConnectorMailbox(ActorRef<ConnectorMsg>);

impl ConnectorMailbox {
    pub(crate) fn new(actor: ActorRef<ConnectorMsg>) -> ConnectorMailbox {
        ConnectorMailbox(actor)
    }

    pub(crate) fn dial(&self, attempt: Attempt, target: DialTarget) {
        drop(self.0.cast(ConnectorMsg::Dial(attempt, target)));
    }

    pub(crate) fn cancel(&self, attempt: Attempt) {
        drop(self.0.cast(ConnectorMsg::Cancel(attempt)));
    }

    /// Calls off every dial: for a dialer that has lost count of them.
    pub(crate) fn cancel_all(&self) {
        drop(self.0.cast(ConnectorMsg::CancelAll));
    }

    #[cfg(feature = "fault-injection")]
    pub(crate) fn inject_panic(&self) {
        drop(self.0.cast(ConnectorMsg::Panic));
    }
}
