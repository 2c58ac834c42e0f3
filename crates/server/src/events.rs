//! Who is told of what happens among the peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use peerage_mailbox::{Outlet, Port};
use peerage_peer_session::{Traffic, TrafficDirection, TrafficKind};
use peerage_queue::ChannelId;
use peerage_router::protocol::{CODE_LEN, code_of};
use peerage_wire::{MatchedCapability, NodeId};
use tokio::sync::watch;

use crate::types::Event;

/// Subscribers to events.
const MAX_SUBSCRIBERS: usize = 1024;

/// The subscribers to events. Clones are the same list: what sessions tell of their messages does not go through the
/// root.
#[derive(Clone, Debug)]
pub(crate) struct Events(watch::Sender<Vec<Outlet<Event>>>);

impl Events {
    pub(crate) fn new() -> Events {
        Events(watch::Sender::new(Vec::new()))
    }

    /// Adds a subscriber; false if there are as many as there may be.
    pub(crate) fn add(&self, outlet: Outlet<Event>) -> bool {
        self.0.send_if_modified(|outlets| {
            outlets.retain(|outlet| !outlet.is_closed());
            let room = outlets.len() < MAX_SUBSCRIBERS;
            if room {
                outlets.push(outlet);
            }
            room
        })
    }

    /// Where a session tells of its messages and streams; messages on the `coded` channels have a code.
    pub(crate) fn traffic(
        &self,
        id: NodeId,
        channels: &[MatchedCapability],
        coded: BTreeSet<ChannelId>,
    ) -> Port<Traffic> {
        let events = self.clone();
        let named = |matched: &MatchedCapability| (ChannelId(matched.channel), Arc::from(&*matched.capability.name));
        let protocols: BTreeMap<ChannelId, Arc<str>> = channels.iter().map(named).collect();
        Port::from_fn(move |Traffic { kind, direction, channel, stream, lane, size, .. }| {
            let Some(protocol) = protocols.get(&channel).cloned() else { return };
            let by_us = direction == TrafficDirection::Sent;
            events.tell(&match kind {
                TrafficKind::Message { head } => {
                    let payload = size.checked_sub(CODE_LEN as u64).filter(|_| coded.contains(&channel));
                    let code = payload.and(code_of(&head));
                    let size = payload.unwrap_or(size);
                    match direction {
                        TrafficDirection::Sent => Event::MsgSent { id, protocol, code, lane, size },
                        TrafficDirection::Received => Event::MsgReceived { id, protocol, code, lane, size },
                    }
                }
                TrafficKind::StreamOpened => Event::StreamOpened { id, protocol, lane, stream, by_us },
                TrafficKind::StreamEnded { sent, received } => {
                    Event::StreamEnded { id, protocol, lane, stream, sent, received }
                }
            });
        })
    }

    /// A subscriber that is full loses its oldest; one that is gone is forgotten.
    pub(crate) fn tell(&self, event: &Event) {
        let gone = self.0.borrow().iter().filter(|outlet| outlet.offer(event.clone()).is_err()).count();
        if gone > 0 {
            self.0.send_modify(|outlets| outlets.retain(|outlet| !outlet.is_closed()));
        }
    }
}
