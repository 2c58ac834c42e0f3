//! The root's part in sessions: starting them once the run loop has admitted a peer, and telling everybody of
//! those that come and go.

use std::time::Duration;

use peerage_discovery::exchange::{CAPABILITY as PEERS, PeerUp};
use peerage_peer_session::{Ended, EndedBy, Established};
use peerage_queue::{ChannelId, InboundShare, SessionId, lanes};
use peerage_router::protocol::{self, Peer};
use peerage_wire::{DisconnectReason, NodeId};

use crate::actor::{GOSSIP, Session, State, Waiting};
use crate::machine::{In, Meta, Setup};
use crate::requests::{ROUTER, router_peer};
use crate::types::Event;

impl State {
    pub(crate) async fn verdict(&mut self, setup: Setup, verdict: Result<Option<SessionId>, DisconnectReason>) {
        let Some(Waiting { reply, established }) = self.waiting.remove(&setup) else { return };
        match (verdict, established) {
            (Ok(Some(session)), Some((established, share))) => {
                let started = self.start_session(session, *established, share).await;
                reply.send(if started { Ok(()) } else { Err(DisconnectReason::TooManyPeers) });
            }
            (Err(reason), Some((established, _))) => {
                // The other end believes itself accepted, so it is told.
                let limit = self.config.session.disconnect_timeout;
                self.tasks.spawn(established.refuse(reason, limit));
                reply.send(Err(reason));
            }
            (verdict, _) => reply.send(verdict.map(drop)),
        }
    }

    /// Opens the peer's lanes, tells the protocols, and only then lets its messages in.
    async fn start_session(&mut self, session: SessionId, established: Established, inbound: InboundShare) -> bool {
        let remote = &established.remote;
        let meta = Meta::of(remote, established.direction, established.address().ip());
        let weight = self.weight_of(&meta.id);
        let (door, lane_end) = lanes(self.config.queue.lanes, &self.pool, weight);
        let channel = |name: &str| {
            let matched = remote.channels.iter().find(|matched| &*matched.capability.name == name);
            matched.map(|matched| ChannelId(matched.channel))
        };
        let (gossip, exchange, router) = (channel(GOSSIP.0), channel(PEERS.0), channel(ROUTER.0));
        let (address, agent) = (established.address(), remote.hello.agent.to_string());
        let record = remote.record.clone();
        let capabilities: Vec<_> = remote.channels.iter().map(|matched| matched.capability.clone()).collect();
        let peer = Peer {
            id: meta.id,
            session,
            address,
            dialled: meta.dialled(),
            agent: agent.clone(),
            capabilities: capabilities.clone(),
        };
        let (routes, live) = self.tracker.open(&peer, &remote.channels, &door);
        if let Some(queue) = &self.services.queue {
            queue.peer_up(session, door.clone());
        }
        if let (Some(actor), Some(channel)) = (&self.services.gossip, gossip) {
            actor.peer_up(gossip_peer(session, &meta, channel));
        }
        if let (Some(actor), Some(channel)) = (&self.services.router, router) {
            actor.peer_up(router_peer(session, &meta, channel), door.clone());
        }
        if let Some(actor) = &self.services.exchange {
            let dialled = meta.dialled();
            actor.peer_up(PeerUp { session, channel: exchange, remote: address, dialled, record: record.clone() });
        }
        let inbound_weight = inbound.weight();
        let throttle = self.throttles.peer(self.clock.now(), weight);
        let throttle_weight = throttle.weight();
        let traffic = self.config.message_events.then(|| {
            let coded = routes.iter().map(|(channel, _)| *channel).collect();
            self.events.traffic(meta.id, &remote.channels, coded)
        });
        let args = peerage_peer_session::Args {
            session,
            config: self.config.session,
            established,
            lanes: lane_end,
            inbound,
            // Of the other protocols none has streams.
            accept: router.into_iter().map(|channel| (channel, self.router_streams.clone())).collect(),
            throttle,
            buffers: self.buffers.clone(),
            routes: [
                (gossip, &self.gossip_inbound),
                (exchange, &self.exchange_inbound),
                (router, &self.router_inbound),
            ]
            .into_iter()
            .filter_map(|(channel, outlet)| Some((channel?, outlet.clone())))
            .chain(routes)
            .collect(),
            traffic,
            ended: self.ports.session_ended(session),
            clock: self.clock,
            meter: self.meter.clone(),
        };
        match peerage_peer_session::spawn(args, &self.parent).await {
            Ok((mailbox, child)) => {
                if let Some(actor) = &self.services.router {
                    actor.streams(session, mailbox.streams().clone());
                }
                let connected_at = self.clock.now().unix();
                let running = Session {
                    mailbox,
                    child,
                    door,
                    inbound_weight,
                    throttle_weight,
                    gossip,
                    exchange,
                    router,
                    live,
                    meta,
                    address,
                    agent,
                    record,
                    capabilities,
                    connected_at,
                };
                self.sessions.insert(session, running);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a session did not start");
                self.tracker.peer_down(session);
                // Not the peer's doing, so not `Crashed`.
                let ended = Ended { reason: DisconnectReason::TooManyPeers, by: EndedBy::Us };
                self.driver.handle(self.clock.now(), In::Ended(session, ended));
                false
            }
        }
    }

    /// A peer's part of what is reserved: its weight among the members. One that is trusted and no member has as much as
    /// a member on the average, or all if there are none.
    pub(crate) fn weight_of(&self, id: &NodeId) -> u64 {
        let trusted = self.driver.machine().is_trusted(id);
        let members = self.served.members();
        match members.and_then(|members| members.get(id)) {
            Some(weight) => (*weight).max(u64::from(trusted)),
            None if trusted => {
                let sum: u128 = members.into_iter().flat_map(|it| it.values()).map(|weight| u128::from(*weight)).sum();
                let count = members.map_or(0, |members| members.len()).max(1) as u128;
                u64::try_from(sum.div_ceil(count)).unwrap_or(u64::MAX).max(1)
            }
            None => 0,
        }
    }

    /// Weighs every session again: who is trusted, or a member, has changed.
    pub(crate) fn weigh(&self) {
        let now = self.clock.now();
        for session in self.sessions.values() {
            let weight = self.weight_of(&session.meta.id);
            session.door.set_weight(weight);
            session.inbound_weight.set(weight);
            session.throttle_weight.set(now, weight);
        }
    }

    pub(crate) fn peer_up(&mut self, session: SessionId, meta: Meta) {
        if let Some(dialer) = &self.services.dialer {
            dialer.peer_up(meta.id, meta.dialled());
        }
        self.metrics.peers(meta.direction, 1.0);
        self.watch.came(meta.direction);
        let Some(running) = self.sessions.get_mut(&session) else { return };
        let runs = running.live.start();
        let (address, agent, record) = (running.address, running.agent.clone(), running.record.clone());
        tracing::info!(id = %meta.id, %address, direction = meta.direction.label(), "peer up");
        self.events.tell(&Event::PeerUp { id: meta.id, direction: meta.direction, address, agent });
        if meta.dialled() {
            self.remember_at(&record, Some(meta.ip));
        }
        // After everybody was told.
        for run in runs {
            self.tasks.spawn(run.run());
        }
    }

    pub(crate) fn peer_down(&mut self, session: SessionId, meta: Meta, ended: Ended, lived: Duration) {
        self.tracker.peer_down(session);
        let removed = self.sessions.remove(&session);
        let was_told = removed.is_some();
        if let Some(stats) = removed.map(|session| session.mailbox.stats()) {
            self.watch.went((stats.bytes_in, stats.bytes_out));
        }
        if let Some(queue) = &self.services.queue {
            queue.peer_down(session);
        }
        if let Some(gossip) = &self.services.gossip {
            gossip.peer_down(session);
        }
        if let Some(router) = &self.services.router {
            router.peer_down(session);
        }
        if let Some(exchange) = &self.services.exchange {
            exchange.peer_down(session);
        }
        if let Some(dialer) = &self.services.dialer {
            let consequence = ended.reason.consequence(ended.by == EndedBy::Us);
            dialer.peer_down(meta.id, meta.dialled(), lived, consequence);
        }
        self.metrics.peers(meta.direction, -1.0);
        let by = ended.by.label();
        self.metrics.disconnected(ended.reason, by);
        tracing::info!(id = %meta.id, reason = %ended.reason, by, ?lived, "peer down");
        if was_told {
            self.events.tell(&Event::PeerDown { id: meta.id, reason: ended.reason, by: ended.by, lived });
        }
        self.leaving.remove(&session).into_iter().flatten().for_each(|reply| reply.send(()));
    }
}

impl State {
    /// A run of a protocol has something to tell, which may be that its session is to end.
    pub(crate) fn protocol_says(&mut self, event: protocol::Event) {
        let session = event.session();
        if let Some(reason) = self.tracker.event(event)
            && let Some(session) = self.sessions.get(&session)
        {
            session.mailbox.disconnect(reason);
        }
    }

    /// Whether a session is of use whatever gossip says of it: it has a protocol of the application's.
    pub(crate) fn runs_protocols(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.live.has_protocols())
    }
}

/// A session as gossip is told of it.
pub(crate) fn gossip_peer(session: SessionId, meta: &Meta, channel: ChannelId) -> peerage_gossip::PeerUp {
    peerage_gossip::PeerUp { session, id: meta.id, channel, host: Some(meta.ip), outbound: meta.dialled() }
}
