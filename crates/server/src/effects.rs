//! What the root does for its machine, and for the services that ask something of each other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use peerage_dialer::DialOutcome;
use peerage_wire::codec::List;
use peerage_wire::{Admission, ForkId};

use crate::actor::State;
use crate::machine::{In, Out, Running};
use crate::types::PeerAddress;

impl State {
    pub(crate) async fn perform(&mut self) {
        // An effect may feed the machine again (a session that does not start); effects keep their order.
        loop {
            let outs: Vec<Out> = self.driver.drain().collect();
            if outs.is_empty() {
                return;
            }
            for out in outs {
                // Apart, as its future is the largest of all: every function that feeds the machine would hold one.
                Box::pin(self.perform_one(out)).await;
            }
        }
    }

    async fn perform_one(&mut self, out: Out) {
        match out {
            Out::Verdict(setup, verdict) => self.verdict(setup, verdict).await,
            Out::InboundPending(id) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.inbound_pending(id);
                }
            }
            Out::InboundDone(id) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.inbound_done(id);
                }
            }
            Out::PeerUp(session, meta) => self.peer_up(session, meta),
            Out::PeerDown { session, meta, ended, lived } => self.peer_down(session, meta, ended, lived),
            Out::Disconnect(session, reason) => {
                if let Some(session) = self.sessions.get(&session) {
                    session.mailbox.disconnect(reason);
                }
            }
            Out::Trusted(..) => self.weigh(),
            Out::Banned(banned, time) => {
                self.metrics.bans.increment(1);
                tracing::info!(%banned, ?time, "banned");
                self.remember_ban(banned, time);
            }
            Out::Unbanned(banned) => {
                tracing::info!(%banned, "no longer banned");
                self.db.unban(banned);
            }
            Out::Blamed(id, penalty, points) => {
                tracing::debug!(%id, penalty = penalty.label(), points, "blamed");
                self.metrics.penalty(penalty);
                self.remember_blame(id, points);
            }
            Out::Forgiven(id) => self.remember_blame(id, 0),
            Out::Admission(admission) => self.admit(&admission),
            Out::Weigh => {
                let brought = self.sessions.iter().map(|(id, session)| (*id, session.mailbox.stats().bytes_in));
                let contributions = brought.collect();
                self.driver.handle(self.clock.now(), In::Contributions(contributions));
            }
            Out::Anchors(ids) => self.remember_anchors(&ids),
            // Looked at after the message.
            Out::Stopped => {}
        }
    }

    pub(crate) fn dialer_asks(&mut self, out: peerage_dialer::Out) {
        use peerage_dialer::Out;
        if self.driver.machine().running() != Running::Running {
            // What it still wants to dial, nobody needs.
            return;
        }
        match out {
            Out::Want(count) => {
                let count = count.get() as usize;
                // Where no packet gets through, discovery has heard of nobody.
                let blind = self.services.discovery.as_ref().is_none_or(|discovery| discovery.table_len() == 0);
                self.services.discovery.iter().for_each(|discovery| discovery.want(count));
                self.services.exchange.iter().for_each(|exchange| exchange.want(count, blind));
            }
            Out::Resolve { attempt, id } => match (&self.services.discovery, &self.services.dialer) {
                (Some(discovery), _) => discovery.resolve_for(attempt.0, id),
                (None, Some(dialer)) => dialer.resolved(attempt, None),
                (None, None) => {}
            },
            Out::Dial { attempt, target } => match (&self.services.connector, &self.services.dialer) {
                (Some(connector), _) => connector.dial(attempt, target),
                (None, Some(dialer)) => dialer.done(attempt, DialOutcome::Cancelled),
                (None, None) => {}
            },
            Out::Cancel(attempt) => {
                if let Some(connector) = &self.services.connector {
                    connector.cancel(attempt);
                }
            }
            Out::Seeking(why) => self.seeking = why,
            // Counted by the dialer's own shell.
            Out::Count(_) => {}
        }
    }

    /// Tells everybody who asks the policy, and those who will ask it in their next life.
    fn admit(&mut self, admission: &Arc<Admission>) {
        self.services.admit(admission.clone());
        if let Some(dialer) = &self.services.dialer {
            dialer.set_admission(admission.clone());
        }
        if let Some(discovery) = &self.services.discovery {
            discovery.admission(admission.clone());
        }
        if let Some(discovery) = &mut self.services.blueprints.discovery {
            discovery.admission = admission.clone();
        }
        if let Some(exchange) = &self.services.exchange {
            exchange.admission(admission.clone());
        }
        if let Some(exchange) = &mut self.services.blueprints.exchange {
            exchange.admission = admission.clone();
        }
    }

    /// Tells the listener for whom to keep slots: where static peers are, and trusted ones, as far as it is known.
    pub(crate) fn privilege(&mut self) {
        let trusted = self.driver.machine().trusted().filter_map(|id| self.db.record(id));
        let trusted = trusted.flat_map(|record| PeerAddress::from(&*record).addresses);
        let named = self.statics.values().flat_map(|peer| peer.addresses.iter().copied());
        let homes: BTreeSet<IpAddr> = named.chain(trusted).map(|socket| socket.ip().to_canonical()).collect();
        self.driver.handle(self.clock.now(), In::Homes(homes.clone()));
        self.services.privilege(homes);
    }

    /// Shows the new fork in set-ups from now on, and lets the run loop look at the peers there are.
    pub(crate) async fn set_forks(&mut self, own: ForkId, accepted: Vec<ForkId>) {
        self.presented.send_modify(|presented| {
            presented.hello.fork_id = own;
            presented.accepted_forks = List::truncated(accepted.iter().copied());
        });
        self.feed(In::Forks(accepted.iter().copied().chain([own]).collect())).await;
        (self.config.fork_id, self.config.accepted_forks) = (own, accepted);
    }
}
