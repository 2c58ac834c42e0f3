//! The listener's door.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_mailbox::{AskError, Reply, ask};
use peerage_transport::Stream;
use peerage_wire::Admission;
use ractor::ActorRef;

use super::{Doors, ListenerConfig, SlotMsg};
use crate::ingress::ANSWER;

/// The listener's control messages.
#[derive(Debug)]
pub(crate) enum ListenerMsg {
    // ---------- from its accept loops: one each, which waits for the answer ----------
    /// Answered with how long to accept nobody.
    Accepted(Stream, Reply<Duration>),
    // ---------- from its set-ups: at most three each ----------
    Slot(SlotMsg),
    // ---------- from the root: one for each change that the application makes ----------
    Doors(Doors),
    Admission(Arc<Admission>),
    Privileged(BTreeSet<IpAddr>),
    Pause,
    // ---------- from the root: one a change of its level of shedding ----------
    Resume,
    // ---------- from the root: one for each change that the application makes ----------
    Limits(Box<ListenerConfig>),
    #[cfg(feature = "fault-injection")]
    Panic,
}

#[derive(Clone)]
pub(crate) struct ListenerMailbox(ActorRef<ListenerMsg>);

impl ListenerMailbox {
    pub(crate) fn new(actor: ActorRef<ListenerMsg>) -> ListenerMailbox {
        ListenerMailbox(actor)
    }

    /// Tells of a connection; answers how long to accept nobody.
    pub(crate) async fn accepted(&self, stream: Stream) -> Result<Duration, AskError> {
        ask(ANSWER, |reply| drop(self.0.cast(ListenerMsg::Accepted(stream, reply)))).await
    }

    /// The doors from now on.
    pub(crate) fn doors(&self, doors: Doors) {
        drop(self.0.cast(ListenerMsg::Doors(doors)));
    }

    /// The policy from now on.
    pub(crate) fn admission(&self, admission: Arc<Admission>) {
        drop(self.0.cast(ListenerMsg::Admission(admission)));
    }

    /// The addresses of static and trusted peers from now on.
    pub(crate) fn privileged(&self, addresses: BTreeSet<IpAddr>) {
        drop(self.0.cast(ListenerMsg::Privileged(addresses)));
    }

    /// Accepts nobody any more.
    pub(crate) fn pause(&self) {
        drop(self.0.cast(ListenerMsg::Pause));
    }

    /// Accepts again.
    pub(crate) fn resume(&self) {
        drop(self.0.cast(ListenerMsg::Resume));
    }

    /// The limits from now on.
    pub(crate) fn limits(&self, config: ListenerConfig) {
        drop(self.0.cast(ListenerMsg::Limits(Box::new(config))));
    }

    #[cfg(feature = "fault-injection")]
    pub(crate) fn inject_panic(&self) {
        drop(self.0.cast(ListenerMsg::Panic));
    }
}
