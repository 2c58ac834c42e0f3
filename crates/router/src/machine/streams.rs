//! Streams that peers open, up to their handlers, and places for those that this node opens.

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_queue::stream::StreamCode;
use peerage_wire::{NodeId, Penalty};

use super::contract::{Count, OpenStreamError, Out, Stats, Timer};
use super::places::{Part, Places};
use super::{Cx, Fx};
use crate::handler::{AddError, HandlerId, StreamHandlerConfig};
use crate::resilience::SlidingWindow;
use crate::wire::streams::{Header, HeaderError, codes};

/// Peers whose rates a handler keeps apart.
const RATED_PEERS: usize = 4096;

#[derive(Debug)]
struct Handler {
    name: String,
    config: StreamHandlerConfig,
    /// Streams of a handler that was removed do not count for the one that took its name.
    generation: u64,
    window: Option<SlidingWindow>,
    places: Places,
}

#[derive(Debug)]
struct Pending {
    session: SessionId,
    from: NodeId,
    ends: Time,
}

#[derive(Debug)]
struct Served {
    from: NodeId,
    handler: HandlerId,
    generation: u64,
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    handlers: BTreeMap<HandlerId, Handler>,
    pending: BTreeMap<u64, Pending>,
    served: BTreeMap<u64, Served>,
    opened: BTreeMap<u64, NodeId>,
    pending_places: Places,
    served_places: Places,
    opened_places: Places,
    due: BTreeSet<(Time, u64)>,
    armed: Option<Time>,
    generations: u64,
}

/// An answer that a stream claims to bring.
pub(super) struct Claim {
    pub(super) stream: u64,
    pub(super) session: SessionId,
    pub(super) peer: NodeId,
    pub(super) id: u64,
    pub(super) length: usize,
}

impl Streams {
    pub(super) fn add(&mut self, cx: &mut Cx<'_>, token: u64, name: String, config: StreamHandlerConfig) {
        let result = self.add_checked(cx, name, config);
        cx.fx.emit(Out::StreamsAdded { token, result });
    }

    fn add_checked(&mut self, cx: &Cx<'_>, name: String, config: StreamHandlerConfig) -> Result<HandlerId, AddError> {
        let id = config.check(&name)?;
        let there = self.handlers.get(&id).map(|there| &*there.name);
        AddError::unless_free(&name, there, self.handlers.len(), cx.config.max_handlers)?;
        self.generations += 1;
        let window = config.rate.map(|rate| SlidingWindow::new(rate, RATED_PEERS));
        let (generation, places) = (self.generations, Places::default());
        self.handlers.insert(id, Handler { name, config, generation, window, places });
        Ok(id)
    }

    pub(super) fn remove(&mut self, handler: HandlerId) {
        self.handlers.remove(&handler);
    }

    // ---------- what this node opens ----------

    pub(super) fn open(&mut self, cx: &mut Cx<'_>, stream: u64, peer: NodeId, handler: HandlerId) {
        let limits = &cx.config.streams;
        let to = cx.peers.session(&peer).and_then(|session| cx.peers.recipient(session));
        let result = match to {
            None => Err(OpenStreamError::NotConnected),
            Some(_) if self.opened.contains_key(&stream) => Err(OpenStreamError::Busy),
            Some(_) if !self.opened_places.take_one(peer, limits.opened_per_peer, limits.opened, Part::default()) => {
                cx.count(Count::StreamBusy);
                Err(OpenStreamError::Busy)
            }
            Some(to) => {
                self.opened.insert(stream, peer);
                cx.count(Count::StreamOpened);
                Ok((to, Header::Open { handler }))
            }
        };
        cx.fx.emit(Out::Opened { stream, result });
    }

    // ---------- what peers open ----------

    pub(super) fn came(&mut self, cx: &mut Cx<'_>, stream: u64, session: SessionId) {
        let Some(from) = cx.peers.id(session) else {
            cx.count(Count::UnknownSession);
            return refuse(cx, stream, codes::RESTARTED);
        };
        let (limits, part) = (&cx.config.streams, cx.part(&from));
        if !self.pending_places.take_one(from, limits.pending_per_peer, limits.pending, part) {
            cx.peers.forgive(cx.now, session, Count::StreamThrottled, cx.fx);
            return refuse(cx, stream, codes::THROTTLED);
        }
        let ends = cx.now + limits.header_timeout;
        self.due.insert((ends, stream));
        self.pending.insert(stream, Pending { session, from, ends });
        cx.fx.emit(Out::ReadHeader { stream });
    }

    fn take(&mut self, stream: u64) -> Option<Pending> {
        let pending = self.pending.remove(&stream)?;
        self.due.remove(&(pending.ends, stream));
        self.pending_places.give_back(&pending.from, 1);
        Some(pending)
    }

    /// The session of a stream whose header is awaited.
    pub(super) fn session(&self, stream: u64) -> Option<SessionId> {
        self.pending.get(&stream).map(|pending| pending.session)
    }

    /// A header, or none. What claims to be an answer is for who asked.
    pub(super) fn header(
        &mut self,
        cx: &mut Cx<'_>,
        stream: u64,
        header: Result<Header, HeaderError>,
    ) -> Option<Claim> {
        let Pending { session, from, .. } = self.take(stream)?;
        match header {
            Ok(Header::Open { handler }) => self.serve(cx, stream, session, from, handler),
            Ok(Header::Answer { id, length }) => {
                return Some(Claim { stream, session, peer: from, id, length: length as usize });
            }
            Err(HeaderError::Ended) => {
                // Nothing else bounds how often a peer opens streams and ends them before they cost it anything.
                cx.peers.forgive(cx.now, session, Count::StreamEnded, cx.fx);
                refuse(cx, stream, codes::HEADER);
            }
            Err(HeaderError::Kind(_)) => {
                // Of a later version, perhaps.
                cx.peers.forgive(cx.now, session, Count::UnknownKind, cx.fx);
                refuse(cx, stream, codes::HEADER);
            }
            Err(HeaderError::Length(_)) => {
                cx.count(Count::StreamMalformed);
                cx.fx.emit(Out::Report { session, penalty: Penalty::MalformedMessage });
                refuse(cx, stream, codes::HEADER);
            }
        }
        None
    }

    fn serve(&mut self, cx: &mut Cx<'_>, stream: u64, session: SessionId, from: NodeId, handler: HandlerId) {
        if let Err((code, count)) = self.admit(cx, from, handler) {
            cx.peers.forgive(cx.now, session, count, cx.fx);
            return refuse(cx, stream, code);
        }
        let generation = self.handlers.get(&handler).map_or(0, |handler| handler.generation);
        self.served.insert(stream, Served { from, handler, generation });
        cx.count(Count::StreamServed);
        cx.fx.emit(Out::ServeStream { stream, handler, from, session });
    }

    fn admit(&mut self, cx: &Cx<'_>, from: NodeId, handler: HandlerId) -> Result<(), (StreamCode, Count)> {
        let unknown = (codes::UNKNOWN_HANDLER, Count::StreamUnknownHandler);
        let throttled = (codes::THROTTLED, Count::StreamThrottled);
        let served = self.handlers.get_mut(&handler).ok_or(unknown)?;
        if served.config.members_only && !cx.peers.members.has(&from) {
            return Err((codes::NOT_MEMBER, Count::StreamNotMember));
        }
        let config = &served.config;
        let in_rate = cx.in_rate(&mut served.window, config.rate, config.fair, &from);
        let (limits, part) = (&cx.config.streams, cx.part(&from));
        if !in_rate || !served.places.take_one(from, config.per_peer, config.total, part) {
            return Err(throttled);
        }
        if !self.served_places.take_one(from, limits.served_per_peer, limits.served, part) {
            served.places.give_back(&from, 1);
            return Err(throttled);
        }
        Ok(())
    }

    /// The application has let go of a stream.
    pub(super) fn over(&mut self, stream: u64) {
        if let Some(peer) = self.opened.remove(&stream) {
            self.opened_places.give_back(&peer, 1);
        }
        if let Some(Served { from, handler, generation }) = self.served.remove(&stream) {
            self.served_places.give_back(&from, 1);
            if let Some(handler) = self.handlers.get_mut(&handler).filter(|it| it.generation == generation) {
                handler.places.give_back(&from, 1);
            }
        }
    }

    /// A session has ended. What applications have keeps its place until they drop it: it still holds what it read.
    pub(super) fn disconnected(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let of_session = |(stream, pending): (&u64, &Pending)| (pending.session == session).then_some(*stream);
        let streams: Vec<u64> = self.pending.iter().filter_map(of_session).collect();
        for stream in streams {
            self.take(stream);
            refuse(cx, stream, codes::RESTARTED);
        }
    }

    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        self.armed = None;
        while let Some((ends, stream)) = self.due.first().copied() {
            if ends > cx.now {
                break;
            }
            self.due.pop_first();
            let Some(Pending { session, .. }) = self.take(stream) else { continue };
            cx.peers.forgive(cx.now, session, Count::StreamLate, cx.fx);
            refuse(cx, stream, codes::HEADER);
        }
    }

    pub(super) fn arm(&mut self, fx: &mut Fx) {
        let next = self.due.first().map(|(at, _)| *at);
        if next != self.armed {
            match next {
                Some(at) => fx.arm(Timer::Header, at),
                None => fx.disarm(Timer::Header),
            }
            self.armed = next;
        }
    }

    pub(super) fn stats(&self, stats: &mut Stats) {
        stats.streams_pending = self.pending.len().max(self.pending_places.peers());
        let held: usize = self.handlers.values().map(|handler| handler.places.used()).sum();
        stats.streams_served = self.served.len().max(self.served_places.used()).max(held);
        stats.streams_opened = self.opened.len().max(self.opened_places.used());
        stats.deadlines += self.due.len();
    }
}

pub(super) fn refuse(cx: &mut Cx<'_>, stream: u64, code: StreamCode) {
    cx.fx.emit(Out::RefuseStream { stream, code });
}
