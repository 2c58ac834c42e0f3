//! The actors that the root starts, and starts again: what each is made of, and how it fares.

use std::collections::{BTreeMap, VecDeque};

use peerage_dialer::DialerMailbox;
use peerage_discovery::DiscoveryMailbox;
use peerage_discovery::exchange::{self, ExchangeMailbox};
use peerage_gossip::GossipMailbox;
use peerage_machine::{Rng, Time};
use peerage_mailbox::{Child, Restart, RestartPolicy, Supervisor};
use peerage_queue::QueueMailbox;
use peerage_router::RouterMailbox;
use ractor::SupervisionEvent;

use crate::connector::ConnectorMailbox;
use crate::ingress::Service;
use crate::listener::ListenerMailbox;
use crate::{connector, listener};

/// What each actor is made of. Kept, so that its next life goes on with the same sockets, queues and memory.
pub(crate) struct Blueprints {
    pub(crate) queue: peerage_queue::Args,
    pub(crate) gossip: peerage_gossip::Args,
    /// None if switched off.
    pub(crate) router: Option<peerage_router::Args>,
    /// None if switched off.
    pub(crate) exchange: Option<exchange::Args>,
    pub(crate) dialer: peerage_dialer::Args,
    pub(crate) connector: connector::Args,
    /// None if switched off.
    pub(crate) discovery: Option<peerage_discovery::Args>,
    pub(crate) listener: listener::Args,
}

#[derive(Default)]
struct Life {
    child: Option<Child>,
    deaths: VecDeque<Time>,
    degraded: bool,
}

/// The actors, while they live.
pub(crate) struct Services {
    pub(crate) blueprints: Blueprints,
    pub(crate) queue: Option<QueueMailbox>,
    pub(crate) gossip: Option<GossipMailbox>,
    pub(crate) router: Option<RouterMailbox>,
    pub(crate) exchange: Option<ExchangeMailbox>,
    pub(crate) dialer: Option<DialerMailbox>,
    pub(crate) connector: Option<ConnectorMailbox>,
    pub(crate) discovery: Option<DiscoveryMailbox>,
    pub(crate) listener: Option<ListenerMailbox>,
    lives: BTreeMap<Service, Life>,
    rng: Rng,
}

impl Services {
    pub(crate) fn new(blueprints: Blueprints, rng: Rng) -> Services {
        Services {
            blueprints,
            queue: None,
            gossip: None,
            router: None,
            exchange: None,
            dialer: None,
            connector: None,
            discovery: None,
            listener: None,
            lives: BTreeMap::new(),
            rng,
        }
    }

    /// Starts one. What it must know of peers and registrations is for the root to tell it.
    pub(crate) async fn spawn(&mut self, service: Service, parent: &Supervisor) -> Result<(), String> {
        let blueprints = &self.blueprints;
        let say = |error: &dyn std::fmt::Display| format!("{}: {error}", service.label());
        let child = match service {
            Service::Queue => {
                let (mailbox, child) =
                    peerage_queue::spawn(blueprints.queue.clone(), parent).await.map_err(|error| say(&error))?;
                self.queue = Some(mailbox);
                child
            }
            Service::Gossip => {
                let (mailbox, child) =
                    peerage_gossip::spawn(blueprints.gossip.clone(), parent).await.map_err(|error| say(&error))?;
                self.gossip = Some(mailbox);
                child
            }
            Service::Router => {
                let Some(args) = blueprints.router.clone() else { return Ok(()) };
                let (mailbox, child) = peerage_router::spawn(args, parent).await.map_err(|error| say(&error))?;
                self.router = Some(mailbox);
                child
            }
            Service::Exchange => {
                let Some(args) = blueprints.exchange.clone() else { return Ok(()) };
                let (mailbox, child) = exchange::spawn(args, parent).await.map_err(|error| say(&error))?;
                self.exchange = Some(mailbox);
                child
            }
            Service::Dialer => {
                let (mailbox, child) =
                    peerage_dialer::spawn(blueprints.dialer.clone(), parent).await.map_err(|error| say(&error))?;
                self.dialer = Some(mailbox);
                child
            }
            Service::Connector => {
                let (mailbox, child) =
                    connector::spawn(blueprints.connector.clone(), parent).await.map_err(|error| say(&error))?;
                self.connector = Some(mailbox);
                child
            }
            Service::Discovery => {
                let Some(args) = blueprints.discovery.clone() else { return Ok(()) };
                let (mailbox, child) = peerage_discovery::spawn(args, parent).await.map_err(|error| say(&error))?;
                self.discovery = Some(mailbox);
                child
            }
            Service::Listener => {
                let (mailbox, child) =
                    listener::spawn(blueprints.listener.clone(), parent).await.map_err(|error| say(&error))?;
                self.listener = Some(mailbox);
                child
            }
        };
        let life = self.lives.entry(service).or_default();
        life.child = Some(child);
        life.degraded = false;
        Ok(())
    }

    /// Whose end an event tells of, and how it came.
    pub(crate) fn ended(&self, event: &SupervisionEvent) -> Option<(Service, Result<(), String>)> {
        self.lives.iter().find_map(|(service, life)| Some((*service, life.child.as_ref()?.ended(event)?)))
    }

    /// Decides about a death. One that a peer has caused does not count against the actor.
    pub(crate) fn decide(&mut self, now: Time, service: Service, charged: bool) -> Restart {
        let policy = match service {
            Service::Gossip | Service::Queue | Service::Router => RestartPolicy::vital(),
            _ => RestartPolicy::service(),
        };
        let life = self.lives.entry(service).or_default();
        life.child = None;
        match service {
            Service::Queue => self.queue = None,
            Service::Gossip => self.gossip = None,
            Service::Router => self.router = None,
            Service::Exchange => self.exchange = None,
            Service::Dialer => self.dialer = None,
            Service::Connector => self.connector = None,
            Service::Discovery => self.discovery = None,
            Service::Listener => self.listener = None,
        }
        if charged {
            return RestartPolicy::CHARGED;
        }
        let restart = policy.decide(now, &mut life.deaths, &mut self.rng);
        life.degraded = !matches!(restart, Restart::After(_));
        restart
    }

    /// Actors that are down for longer than a restart takes.
    pub(crate) fn degraded(&self) -> impl Iterator<Item = Service> {
        self.lives.iter().filter(|(_, life)| life.degraded).map(|(service, _)| *service)
    }

    /// Ends all of them, in the opposite order of their start.
    pub(crate) async fn stop(&mut self) {
        for service in Service::ALL.iter().rev() {
            if let Some(child) = self.lives.get_mut(service).and_then(|life| life.child.take()) {
                child.stop();
                let limit = std::time::Duration::from_millis(200);
                if tokio::time::timeout(limit, child.wait()).await.is_err() {
                    child.kill();
                }
            }
        }
    }
}
