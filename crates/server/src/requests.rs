//! The root's part in requests: it keeps the handlers and the members, and says them again to a router that restarts.

use std::collections::BTreeMap;

use peerage_mailbox::Reply;
use peerage_queue::{ChannelId, SessionId};
use peerage_router::{AddError, Event, Handler, HandlerConfig, HandlerId};
use peerage_wire::{NodeId, Penalty};

use crate::actor::State;
use crate::machine::{In, Meta};

/// The capability under which requests run.
pub(crate) const ROUTER: (&str, u16) = ("router", 1);

/// A handler that the root keeps and replays.
#[derive(Clone, Debug)]
pub(crate) struct Serve {
    pub(crate) name: String,
    pub(crate) config: HandlerConfig,
    pub(crate) handler: Handler,
}

/// What outlives the router.
#[derive(Debug, Default)]
pub(crate) struct Served {
    handlers: BTreeMap<HandlerId, Serve>,
    members: Option<BTreeMap<NodeId, u64>>,
}

/// A session as the router is told of it.
pub(crate) fn router_peer(session: SessionId, meta: &Meta, channel: ChannelId) -> peerage_router::PeerUp {
    peerage_router::PeerUp { session, id: meta.id, channel }
}

impl State {
    pub(crate) async fn router_says(&mut self, event: Event) {
        match event {
            Event::Report { session, penalty } => self.feed(In::Report(session, penalty)).await,
            Event::Crashed { session } => self.feed(In::Report(session, Penalty::Crash)).await,
            // Whoever says who the members are says it when they change.
            Event::MembersWanted => tracing::debug!("the set of members is old"),
        }
    }

    pub(crate) fn serve(&mut self, serve: Serve, reply: Reply<Result<HandlerId, AddError>>) {
        let checked = serve.config.check(&serve.name);
        let id = match checked {
            Ok(id) => id,
            Err(error) => return reply.send(Err(error)),
        };
        if let Some(there) = self.served.handlers.get(&id) {
            let Serve { name, .. } = serve;
            let same = there.name == name;
            let other = there.name.clone();
            return reply.send(Err(if same { AddError::Taken(name) } else { AddError::Clash { name, other } }));
        }
        let most = self.config.router.max_handlers;
        if self.served.handlers.len() >= most {
            return reply.send(Err(AddError::TooMany(most)));
        }
        self.served.handlers.insert(id, serve.clone());
        let Serve { name, config, handler } = serve;
        match &self.services.router {
            Some(router) => router.add_handler(name, config, handler, Some(reply)),
            // It is told as soon as it is back.
            None => reply.send(Ok(id)),
        }
    }

    pub(crate) fn serve_no_more(&mut self, handler: HandlerId) {
        self.served.handlers.remove(&handler);
        if let Some(router) = &self.services.router {
            router.remove_handler(handler);
        }
    }

    pub(crate) fn members(&mut self, members: BTreeMap<NodeId, u64>) {
        if let Some(router) = &self.services.router {
            router.members(members.clone());
        }
        self.served.members = Some(members);
    }

    /// Tells a router that has just started what it has to know: handlers and members, then peers.
    pub(crate) fn introduce_router(&mut self) {
        let Some(router) = &self.services.router else { return };
        for Serve { name, config, handler } in self.served.handlers.values().cloned() {
            router.add_handler(name, config, handler, None);
        }
        if let Some(members) = self.served.members.clone() {
            router.members(members);
        }
        for (id, session) in &self.sessions {
            if let Some(channel) = session.router {
                router.peer_up(router_peer(*id, &session.meta, channel));
            }
        }
    }
}
