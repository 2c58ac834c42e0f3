//! The root's part in sessions: starting them once the run loop has admitted a peer, and telling everybody of
//! those that come and go.

use std::time::Duration;

use peerage_peer_session::{Ended, EndedBy, Established};
use peerage_queue::{ChannelId, InboundShare, SessionId, lanes};
use peerage_wire::DisconnectReason;

use crate::actor::{GOSSIP, Session, State, Waiting};
use crate::machine::{In, Meta, Setup};
use crate::types::Event;

impl State {
    pub(crate) async fn verdict(&mut self, setup: Setup, verdict: Result<Option<SessionId>, DisconnectReason>) {
        let Some(Waiting { reply, established }) = self.waiting.remove(&setup) else { return };
        match (verdict, established) {
            (Ok(Some(session)), Some((established, share))) => {
                self.start_session(session, *established, share).await;
                reply.send(Ok(()));
            }
            (Err(reason), Some((established, _))) => {
                // The other end believes itself accepted, so it is told.
                let limit = self.config.session.disconnect_timeout;
                tokio::spawn(established.refuse(reason, limit));
                reply.send(Err(reason));
            }
            (verdict, _) => reply.send(verdict.map(drop)),
        }
    }

    /// Opens the peer's lanes, tells the protocols, and only then lets its messages in.
    async fn start_session(&mut self, session: SessionId, established: Established, inbound: InboundShare) {
        let remote = &established.remote;
        let meta = Meta::of(remote, established.direction);
        let weight = u64::from(self.driver.machine().is_trusted(&meta.id));
        let (door, lane_end) = lanes(self.config.queue.lanes, &self.pool, weight);
        let gossip = remote.channels.iter().find(|matched| &*matched.capability.name == GOSSIP.0);
        let gossip = gossip.map(|matched| ChannelId(matched.channel));
        let (address, agent) = (established.address(), remote.hello.agent.to_string());
        let capabilities = remote.channels.iter().map(|matched| matched.capability.clone()).collect();
        if let Some(queue) = &self.services.queue {
            queue.peer_up(session, door.clone());
        }
        if let (Some(actor), Some(channel)) = (&self.services.gossip, gossip) {
            actor.peer_up(session, meta.id, channel);
        }
        let args = peerage_peer_session::Args {
            session,
            config: self.config.session,
            established,
            lanes: lane_end,
            inbound,
            buffers: self.buffers.clone(),
            routes: gossip.map(|channel| (channel, self.gossip_inbound.clone())).into_iter().collect(),
            ended: self.ports.session_ended(session),
            clock: self.clock,
            meter: self.meter.clone(),
        };
        match peerage_peer_session::spawn(args, &self.parent).await {
            Ok((mailbox, child)) => {
                let connected_at = self.clock.now().unix();
                let running =
                    Session { mailbox, child, door, gossip, meta, address, agent, capabilities, connected_at };
                self.sessions.insert(session, running);
            }
            Err(error) => {
                tracing::warn!(%error, "a session did not start");
                let ended = Ended { reason: DisconnectReason::Crashed, by: EndedBy::Us };
                self.driver.handle(self.clock.now(), In::Ended(session, ended));
            }
        }
    }

    pub(crate) fn peer_up(&mut self, session: SessionId, meta: Meta) {
        if let Some(dialer) = &self.services.dialer {
            dialer.peer_up(meta.id, meta.dialled());
        }
        self.metrics.peers(meta.direction, 1.0);
        if let Some(running) = self.sessions.get(&session) {
            tracing::info!(id = %meta.id, address = %running.address, direction = meta.direction.label(), "peer up");
            let (address, agent) = (running.address, running.agent.clone());
            self.tell(&Event::PeerUp { id: meta.id, direction: meta.direction, address, agent });
        }
    }

    pub(crate) fn peer_down(&mut self, session: SessionId, meta: Meta, ended: Ended, lived: Duration) {
        self.sessions.remove(&session);
        if let Some(queue) = &self.services.queue {
            queue.peer_down(session);
        }
        if let Some(gossip) = &self.services.gossip {
            gossip.peer_down(session);
        }
        if let Some(dialer) = &self.services.dialer {
            dialer.peer_down(meta.id, meta.dialled(), lived);
        }
        self.metrics.peers(meta.direction, -1.0);
        let by = ended.by.label();
        self.metrics.disconnected(ended.reason, by);
        tracing::info!(id = %meta.id, reason = %ended.reason, by, ?lived, "peer down");
        self.tell(&Event::PeerDown { id: meta.id, reason: ended.reason, by: ended.by, lived });
    }

    fn tell(&mut self, event: &Event) {
        // A subscriber that is full loses its oldest; one that is gone is forgotten.
        self.events.retain(|outlet| outlet.offer(event.clone()).is_ok());
    }
}
