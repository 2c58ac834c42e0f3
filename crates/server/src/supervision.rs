//! The root's part in supervision: what happens when an actor ends, and what its next life is told.

use peerage_dialer::StaticPeer;
use peerage_machine::journal::{Genesis as _, Journals};
use peerage_mailbox::Restart;

use crate::actor::State;
use crate::durable::DurableRegistration;
use crate::genesis::ServerGenesis;
use crate::ingress::{ServerMsg, Service};
use crate::machine::Running;
use crate::names::is_placed;
use crate::remembered::anchors;
use crate::sessions::gossip_peer;

/// The root's part in the journals: nobody is above it to see that it failed.
pub(crate) struct RootJournal {
    pub(crate) journals: Journals,
    /// Whether it is in the middle of a message.
    pub(crate) busy: bool,
}

impl RootJournal {
    pub(crate) fn new(journals: Journals) -> RootJournal {
        RootJournal { journals, busy: false }
    }
}

impl Drop for RootJournal {
    fn drop(&mut self) {
        if self.busy {
            self.journals.crashed(ServerGenesis::NAME);
        }
    }
}

impl State {
    pub(crate) fn service_ended(&mut self, service: Service, ended: Result<(), String>) {
        if self.driver.machine().running() != Running::Running {
            return;
        }
        if ended.is_err() {
            self.journal.journals.crashed(service.label());
        }
        let error = ended.err().unwrap_or_else(|| "stopped by itself".into());
        let charged = match service {
            Service::Gossip => self.gossip_memory.take_charged(),
            Service::Router => self.router_memory.take_charged(),
            Service::Exchange => self.services.blueprints.exchange.as_ref().is_some_and(|args| args.charge.take()),
            _ => false,
        };
        let restart = self.services.decide(self.clock.now(), service, charged);
        let actor = service.label();
        let delay = match restart {
            Restart::After(delay) => {
                tracing::warn!(actor, %error, ?delay, "an actor failed and is started again");
                delay
            }
            Restart::DegradedAfter(delay) => {
                tracing::error!(actor, %error, ?delay, "an actor fails again and again; the node is degraded");
                self.metrics.degraded(actor, true);
                delay
            }
        };
        self.later(delay, ServerMsg::Respawn(service));
    }

    pub(crate) async fn respawn(&mut self, service: Service) {
        if self.driver.machine().running() != Running::Running {
            return;
        }
        if service == Service::Queue {
            let doors = self.sessions.iter().map(|(id, session)| (*id, session.door.clone()));
            self.services.blueprints.queue.doors = doors.collect();
        }
        match Box::pin(self.services.spawn(service, &self.parent)).await {
            Ok(()) => {
                self.metrics.restarted(service.label());
                self.metrics.degraded(service.label(), false);
                self.introduce(service);
            }
            Err(error) => self.service_ended(service, Err(error)),
        }
    }

    /// Tells an actor that has just started what it has to know.
    pub(crate) fn introduce(&mut self, service: Service) {
        match service {
            Service::Gossip => {
                let Some(gossip) = &self.services.gossip else { return };
                self.durables.retain(DurableRegistration::is_open);
                self.durables.iter().for_each(|kept| kept.tell(gossip));
                self.repeat_topics();
                let Some(gossip) = &self.services.gossip else { return };
                for (id, session) in &self.sessions {
                    if let Some(channel) = session.gossip {
                        gossip.peer_up(gossip_peer(*id, &session.meta, channel));
                    }
                }
            }
            Service::Router => self.introduce_router(),
            Service::Exchange => self.introduce_exchange(),
            Service::Dialer => {
                let Some(dialer) = &self.services.dialer else { return };
                self.seeking = None;
                if let Some(connector) = &self.services.connector {
                    connector.cancel_all();
                }
                dialer.set_admission(self.driver.machine().admission());
                dialer.bootnodes(self.bootnodes.iter().map(StaticPeer::from).collect());
                dialer.anchors(anchors(&self.db, self.clock.now()));
                for peer in self.statics.values().filter(|peer| is_placed(peer)) {
                    dialer.add_static(StaticPeer::from(peer));
                }
                for (_, meta, _) in self.driver.machine().peers() {
                    dialer.peer_up(meta.id, meta.dialled());
                }
                self.driver.machine().pending_inbound().for_each(|id| dialer.inbound_pending(id));
                dialer.start();
                self.keep_newcomers_out();
            }
            // A queue is given its doors when it starts; the others know what they need.
            Service::Discovery => self.name_bootnodes(),
            Service::Listener => self.keep_newcomers_out(),
            Service::Queue | Service::Connector => {}
        }
    }
}
