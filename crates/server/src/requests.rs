//! The root's part in requests and streams: it keeps the handlers and the members, and says them again to a router that
//! restarts. The members it has fetched by who knows them, where somebody was named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peerage_mailbox::{Port, Reply, ask};
use peerage_queue::{ChannelId, SessionId};
use peerage_router::resilience::{AfterFetch, Fetches, Membership};
use peerage_router::{AddError, Event, Handler, HandlerConfig, HandlerId, StreamHandler, StreamHandlerConfig};
use peerage_wire::{NodeId, Penalty};

use crate::actor::State;
use crate::ingress::{ANSWER, ServeFailed, ServerMailbox, ServerMsg};
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

/// A handler of streams that the root keeps and replays.
#[derive(Clone, Debug)]
pub(crate) struct ServeStreams {
    name: String,
    config: StreamHandlerConfig,
    handler: StreamHandler,
}

/// What outlives the router.
#[derive(Debug, Default)]
pub(crate) struct Served {
    handlers: BTreeMap<HandlerId, Serve>,
    streams: BTreeMap<HandlerId, ServeStreams>,
    members: Option<BTreeMap<NodeId, u64>>,
    membership: Option<Arc<dyn Membership>>,
    fetches: Fetches,
}

impl Served {
    pub(crate) fn new(membership: Option<Arc<dyn Membership>>) -> Served {
        Served { membership, ..Served::default() }
    }
}

/// How long a node without members waits before it has them fetched again.
const FETCH_AGAIN: Duration = Duration::from_secs(5);

/// Says how a fetch has ended, however that comes.
struct Fetch {
    port: Port<Option<BTreeMap<NodeId, u64>>>,
    fetched: Option<BTreeMap<NodeId, u64>>,
}

impl Fetch {
    fn brings(&mut self, members: BTreeMap<NodeId, u64>) {
        self.fetched = Some(members);
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.port.send(self.fetched.take());
    }
}

impl Served {
    /// The members, if the application has said who they are.
    pub(crate) const fn members(&self) -> Option<&BTreeMap<NodeId, u64>> {
        self.members.as_ref()
    }
}

/// A session as the router is told of it.
pub(crate) fn router_peer(session: SessionId, meta: &Meta, channel: ChannelId) -> peerage_router::PeerUp {
    peerage_router::PeerUp { session, id: meta.id, channel }
}

impl ServerMailbox {
    /// Serves a handler by this name, until [`serve_no_more`](ServerMailbox::serve_no_more).
    ///
    /// # Errors
    /// [`ServeFailed`].
    pub async fn serve(
        &self,
        name: impl Into<String>,
        config: HandlerConfig,
        handler: Handler,
    ) -> Result<HandlerId, ServeFailed> {
        let serve = Box::new(Serve { name: name.into(), config, handler });
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::Serve(serve, reply))).await??)
    }

    /// Serves it no more: calls that wait are refused, and those at work go on.
    pub fn serve_no_more(&self, handler: HandlerId) {
        self.send(ServerMsg::ServeNoMore(handler));
    }

    /// Says who the members of the network are, and their weights: for handlers and requests that are for members only,
    /// and for the parts by weight that are kept for them of the node's memory, bandwidth, time and calls.
    pub fn members(&self, members: BTreeMap<NodeId, u64>) {
        self.send(ServerMsg::Members(members));
    }

    /// Serves streams that peers open to a handler by this name, until
    /// [`serve_streams_no_more`](ServerMailbox::serve_streams_no_more). Names of these and of handlers of requests are apart.
    /// The root says it again to a router that restarts.
    ///
    /// # Errors
    /// [`ServeFailed`].
    pub async fn serve_streams(
        &self,
        name: impl Into<String>,
        config: StreamHandlerConfig,
        handler: StreamHandler,
    ) -> Result<HandlerId, ServeFailed> {
        let serve = Box::new(ServeStreams { name: name.into(), config, handler });
        Ok(ask(ANSWER, |reply| self.send(ServerMsg::ServeStreams(serve, reply))).await??)
    }

    /// Serves them no more: streams that the handler has go on.
    pub fn serve_streams_no_more(&self, handler: HandlerId) {
        self.send(ServerMsg::ServeStreamsNoMore(handler));
    }
}

impl State {
    pub(crate) async fn router_says(&mut self, event: Event) {
        match event {
            Event::Report { session, penalty } => self.feed(In::Report(session, penalty)).await,
            Event::Crashed { session } => self.feed(In::Report(session, Penalty::Crash)).await,
            // Where nobody was named who knows them, whoever says who the members are says it when they change.
            Event::MembersWanted => self.fetch_members(),
        }
    }

    /// Has the members fetched, in a task of its own.
    pub(crate) fn fetch_members(&mut self) {
        let Some(membership) = self.served.membership.clone().filter(|_| self.config.router_on) else { return };
        if !self.served.fetches.want() {
            return;
        }
        let mut fetch = Fetch { port: self.ports.fetched(), fetched: None };
        let deadline = self.config.router.members_deadline;
        self.tasks.spawn(async move {
            match tokio::time::timeout(deadline, async { membership.fetch().await }).await {
                Ok(Ok(members)) => fetch.brings(members),
                Ok(Err(error)) => tracing::warn!(%error, "the members could not be fetched; the old ones stay"),
                Err(_) => tracing::warn!(?deadline, "the members were not fetched in time; the old ones stay"),
            }
        });
    }

    pub(crate) fn fetched_members(&mut self, fetched: Option<BTreeMap<NodeId, u64>>) {
        match (self.served.fetches.ended(fetched.is_some()), fetched) {
            (AfterFetch::Use, Some(members)) => self.tell_members(members),
            (AfterFetch::Retry, _) => self.later(FETCH_AGAIN, ServerMsg::FetchMembers),
            (AfterFetch::Use | AfterFetch::Nothing, _) => {}
        }
    }

    fn serve_checked(&self, serve: &Serve) -> Result<HandlerId, AddError> {
        let (id, most) = (serve.config.check(&serve.name)?, self.config.router.max_handlers);
        let there = self.served.handlers.get(&id).map(|there| &*there.name);
        AddError::unless_free(&serve.name, there, self.served.handlers.len(), most).map(|()| id)
    }

    pub(crate) fn serve(&mut self, serve: Serve, reply: Reply<Result<HandlerId, AddError>>) {
        let id = match self.serve_checked(&serve) {
            Ok(id) => id,
            Err(error) => return reply.send(Err(error)),
        };
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

    fn serve_streams_checked(&self, serve: &ServeStreams) -> Result<HandlerId, AddError> {
        let (id, most) = (serve.config.check(&serve.name)?, self.config.router.max_handlers);
        let there = self.served.streams.get(&id).map(|there| &*there.name);
        AddError::unless_free(&serve.name, there, self.served.streams.len(), most).map(|()| id)
    }

    pub(crate) fn serve_streams(&mut self, serve: ServeStreams, reply: Reply<Result<HandlerId, AddError>>) {
        let id = match self.serve_streams_checked(&serve) {
            Ok(id) => id,
            Err(error) => return reply.send(Err(error)),
        };
        self.served.streams.insert(id, serve.clone());
        let ServeStreams { name, config, handler } = serve;
        match &self.services.router {
            Some(router) => router.serve_streams(name, config, handler, Some(reply)),
            None => reply.send(Ok(id)),
        }
    }

    pub(crate) fn serve_streams_no_more(&mut self, handler: HandlerId) {
        self.served.streams.remove(&handler);
        if let Some(router) = &self.services.router {
            router.serve_streams_no_more(handler);
        }
    }

    pub(crate) fn members(&mut self, members: BTreeMap<NodeId, u64>) {
        self.served.fetches.said();
        self.tell_members(members);
    }

    fn tell_members(&mut self, members: BTreeMap<NodeId, u64>) {
        if let Some(router) = &self.services.router {
            router.members(members.clone());
        }
        self.served.members = Some(members);
        self.weigh();
    }

    /// Tells a router that has just started what it has to know: handlers and members, then peers.
    pub(crate) fn introduce_router(&mut self) {
        let Some(router) = &self.services.router else { return };
        for Serve { name, config, handler } in self.served.handlers.values().cloned() {
            router.add_handler(name, config, handler, None);
        }
        for ServeStreams { name, config, handler } in self.served.streams.values().cloned() {
            router.serve_streams(name, config, handler, None);
        }
        if let Some(members) = self.served.members.clone() {
            router.members(members);
        }
        for (id, session) in &self.sessions {
            if let Some(channel) = session.router {
                router.peer_up(router_peer(*id, &session.meta, channel), session.door.clone());
                router.streams(*id, session.mailbox.streams().clone());
            }
        }
    }
}
