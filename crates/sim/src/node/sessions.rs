//! What the pumps of sessions do: each peer's lanes, what comes in, stalls and farewells.
//!
//! Of a session's own frames only the farewell travels. Keep-alive is the world's: it tells both ends of a connection
//! when nothing can have come over it for the idle time. Credit is the window of a connection whose reader does not read.

use std::collections::BTreeMap;

use peerage_gossip::Outgoing;
use peerage_machine::Time;
use peerage_peer_session::handshake::Remote;
use peerage_peer_session::{Ended, EndedBy};
use peerage_queue::{ChannelId, Flow, Lanes, Offer, Recipient, SessionId};
use peerage_server::Meta;
use peerage_wire::frame::Lane;
use peerage_wire::{DisconnectReason, NodeRecord, Verified};

use super::{GOSSIP, Message, Parcel, PeerageNode, ROUTER, Todo, Use};
use crate::engine::{Conn, Net};

/// What waits in a lane, besides the bytes that stand for it.
pub(super) struct Waiting {
    message: Message,
    /// Its sender's name for it, if that wants to know that it failed.
    tag: Option<u64>,
}

impl Waiting {
    fn size(&self) -> usize {
        match &self.message {
            Message::Gossip(parcel) | Message::Request(parcel) => parcel.size as usize,
            _ => 0,
        }
    }
}

/// What waits for a connection that takes no more for now.
struct Backlog {
    lanes: Lanes<Waiting>,
    /// When it is too long that nothing was taken.
    until: Time,
}

pub(super) struct Session {
    conn: Conn,
    pub(super) meta: Meta,
    pub(super) record: Verified<NodeRecord>,
    pub(super) since: Time,
    /// Bytes that it brought.
    pub(super) received: u64,
    gossip: Option<ChannelId>,
    /// Most sessions have none.
    backlog: Option<Box<Backlog>>,
}

impl Session {
    /// Enters a session; returns its channels for gossip and requests, if it has them.
    pub(super) fn open(
        sessions: &mut BTreeMap<SessionId, Box<Session>>,
        now: Time,
        id: SessionId,
        conn: Conn,
        meta: Meta,
        remote: &Remote,
    ) -> (SessionId, Option<ChannelId>, Option<ChannelId>) {
        let channel = |name: &str| {
            let matched = remote.channels.iter().find(|matched| &*matched.capability.name == name);
            matched.map(|matched| ChannelId(matched.channel))
        };
        let (gossip, router) = (channel(GOSSIP.0), channel(ROUTER.0));
        let record = remote.record.clone();
        sessions.insert(id, Box::new(Session { conn, meta, record, since: now, received: 0, gossip, backlog: None }));
        (id, gossip, router)
    }
}

impl PeerageNode {
    pub(super) fn received(&mut self, now: Time, session: SessionId, message: Message, net: &mut Net<'_, PeerageNode>) {
        match message {
            Message::Gossip(parcel) => {
                let Some(running) = self.sessions.get_mut(&session) else { return };
                running.received += u64::from(parcel.size);
                if running.gossip.is_some() {
                    self.tell_gossip(now, peerage_gossip::In::Inbound { session, payload: parcel.bytes }, net);
                }
            }
            Message::Request(parcel) => {
                let Some(running) = self.sessions.get_mut(&session) else { return };
                running.received += u64::from(parcel.size);
                self.tell_router(now, peerage_router::In::Inbound { session, payload: parcel.bytes }, net);
            }
            Message::Fragment(size) => {
                if let Some(running) = self.sessions.get_mut(&session) {
                    running.received += u64::from(size);
                }
            }
            Message::Bye(reason) => {
                if let Some(running) = self.sessions.get(&session) {
                    self.uses.remove(&running.conn);
                    net.close(running.conn);
                }
                self.session_ended(session, Ended { reason, by: EndedBy::Peer });
            }
            _ => self.end_session(session, DisconnectReason::ProtocolError, net),
        }
    }

    /// Ends a session with a farewell.
    pub(super) fn disconnect(&mut self, session: SessionId, reason: DisconnectReason, net: &mut Net<'_, PeerageNode>) {
        // Friends get what is queued for them.
        if matches!(reason, DisconnectReason::Quitting | DisconnectReason::Requested) {
            self.flush(session, net);
        }
        self.end_session(session, reason, net);
    }

    pub(super) fn end_session(&mut self, session: SessionId, reason: DisconnectReason, net: &mut Net<'_, PeerageNode>) {
        let Some(running) = self.sessions.get(&session) else { return };
        let conn = running.conn;
        if self.uses.remove(&conn).is_some() {
            net.write(conn, Message::Bye(reason));
            net.close(conn);
            self.session_ended(session, Ended { reason, by: EndedBy::Us });
        }
    }

    pub(super) fn forget_session(&mut self, session: SessionId) {
        let Some(gone) = self.sessions.remove(&session) else { return };
        if let Some(mut backlog) = gone.backlog {
            for waiting in backlog.lanes.clear() {
                self.unsent(session, &waiting);
            }
            self.own_deadline();
        }
    }

    fn unsent(&mut self, session: SessionId, waiting: &Waiting) {
        self.tally.refused += 1;
        self.queued_bytes = self.queued_bytes.saturating_sub(waiting.size());
        self.not_sent(session, &waiting.message, waiting.tag);
    }

    fn not_sent(&mut self, session: SessionId, message: &Message, tag: Option<u64>) {
        let Some(tag) = tag else { return };
        self.todo.push_back(match message {
            Message::Request(_) => Todo::Router(peerage_router::In::SendFailed { session, tag }),
            _ => Todo::Gossip(peerage_gossip::In::SendFailed { session, tag }),
        });
    }

    /// Sends a message of gossip's.
    pub(super) fn push(&mut self, now: Time, outgoing: Outgoing, net: &mut Net<'_, PeerageNode>) {
        let Outgoing { to, lane, bytes, drop_oldest, tag } = outgoing;
        let parcel = Parcel::new(bytes, lane);
        let payload = parcel.size as usize - parcel.bytes.len().min(parcel.size as usize);
        for recipient in to {
            if self.sessions.contains_key(&recipient.session) {
                self.tally.gossip_bytes += u64::from(parcel.size);
                self.tally.payload_bytes += payload as u64;
            }
            self.put(now, recipient, Message::Gossip(parcel.clone()), drop_oldest, Some(tag), net);
        }
    }

    /// Writes a message to a session, or puts it into its lanes.
    pub(super) fn put(
        &mut self,
        now: Time,
        to: Recipient,
        message: Message,
        drop_oldest: bool,
        tag: Option<u64>,
        net: &mut Net<'_, PeerageNode>,
    ) {
        let (Message::Gossip(parcel) | Message::Request(parcel)) = &message else { return };
        let (size, lane) = (parcel.size as usize, parcel.lane);
        let Some(session) = self.sessions.get_mut(&to.session) else {
            return self.not_sent(to.session, &message, tag);
        };
        if session.backlog.is_none() && net.ready(session.conn) {
            net.write(session.conn, message);
            return;
        }
        let stall = self.config.session.stall_timeout;
        let fresh = session.backlog.is_none();
        let backlog = session.backlog.get_or_insert_with(|| {
            Box::new(Backlog { lanes: Lanes::new(self.config.queue.lanes), until: now + stall })
        });
        let flow = Flow { channel: to.channel, stream: 0, lane };
        let (payload, guard) = (self.cast.filling(size), Waiting { message, tag });
        self.queued_bytes += size;
        let gone = match backlog.lanes.offer(Offer { flow, payload, expires: None, drop_oldest, guard }) {
            Ok(overtaken) => overtaken,
            Err(refused) => vec![refused.guard],
        };
        for waiting in gone {
            self.unsent(to.session, &waiting);
        }
        if fresh {
            self.own_deadline();
        }
    }

    /// Takes back what a session was to be sent and has not begun to be.
    pub(super) fn cancel(&mut self, session: SessionId, tag: u64) {
        let Some(backlog) = self.sessions.get_mut(&session).and_then(|running| running.backlog.as_deref_mut()) else {
            return;
        };
        let gossips = |waiting: &Waiting| matches!(waiting.message, Message::Gossip(_)) && waiting.tag == Some(tag);
        for waiting in backlog.lanes.take_back(Lane::Normal, gossips) {
            self.queued_bytes = self.queued_bytes.saturating_sub(waiting.size());
            self.tally.gossip_bytes -= waiting.size() as u64;
        }
    }

    /// Gives the connection what it takes of a session's backlog; all of it before a friendly end.
    fn pump(&mut self, session: SessionId, all: bool, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        let Some(running) = self.sessions.get_mut(&session) else { return };
        let Some(backlog) = running.backlog.as_deref_mut() else { return };
        let mut took = false;
        while all || net.ready(running.conn) {
            let Some((fragment, whole)) = backlog.lanes.pop(now, usize::MAX) else { break };
            took = true;
            let size = u32::try_from(fragment.payload.len()).unwrap_or(u32::MAX);
            match whole {
                Some(waiting) => {
                    self.queued_bytes = self.queued_bytes.saturating_sub(waiting.size());
                    let whole = match waiting.message {
                        Message::Request(parcel) => Message::Request(Parcel { size, ..parcel }),
                        Message::Gossip(parcel) => Message::Gossip(Parcel { size, ..parcel }),
                        other => other,
                    };
                    net.write(running.conn, whole);
                }
                None => net.write(running.conn, Message::Fragment(size)),
            }
        }
        if took {
            backlog.until = now + self.config.session.stall_timeout;
        }
        if backlog.lanes.is_empty() {
            running.backlog = None;
        }
        self.own_deadline();
    }

    fn flush(&mut self, session: SessionId, net: &mut Net<'_, PeerageNode>) {
        self.pump(session, true, net);
    }

    pub(super) fn writable(&mut self, conn: Conn, net: &mut Net<'_, PeerageNode>) {
        if let Some(Use::Session(session)) = self.uses.get(&conn) {
            let session = *session;
            self.pump(session, false, net);
        }
    }

    /// Sessions that take nothing, and when that is too long.
    pub(super) fn stalls(&self) -> impl Iterator<Item = (SessionId, Time)> {
        self.sessions.iter().filter_map(|(id, session)| Some((*id, session.backlog.as_ref()?.until)))
    }
}
