//! The root's part in the exchange of peers: what it says goes to discovery, to the dialer and into the log.

use peerage_discovery::Source;
use peerage_discovery::exchange::{ExchangeOut, PeerUp};
use peerage_discovery::external::Reachable;
use peerage_mailbox::ask;
use peerage_wire::{NodeRecord, Verified};

use crate::actor::State;
use crate::ingress::ANSWER;
use crate::machine::In;

impl State {
    pub(crate) async fn exchange_says(&mut self, out: ExchangeOut) {
        match out {
            ExchangeOut::Offer(records) => self.offer(records),
            ExchangeOut::Candidates(found) => {
                if let Some(dialer) = &self.services.dialer {
                    dialer.candidates(found);
                }
            }
            ExchangeOut::Observed { by, observed } => {
                tracing::debug!(%by, %observed, "a peer says where it sees this node");
            }
            ExchangeOut::Reachable(state) => self.reachable(state),
            ExchangeOut::Report { session, penalty } => self.feed(In::Report(session, penalty)).await,
        }
    }

    /// Discovery gets what peers told of, and the exchange goes on when it has it: whatever becomes of the answer.
    fn offer(&mut self, records: Vec<Verified<NodeRecord>>) {
        let Some(discovery) = self.services.discovery.clone() else {
            return self.services.exchange.iter().for_each(|exchange| exchange.offered());
        };
        let offered = self.ports.offered();
        self.tasks.spawn(async move {
            // Without an answer discovery is starting again, and what it was offered is lost.
            let _ = ask(ANSWER, |reply| discovery.offer(Source::Exchange, records, reply)).await;
            offered.send(());
        });
    }

    fn reachable(&mut self, state: Reachable) {
        self.reachable = state;
        let port = self.presented.borrow().record.tcp_address().map(|socket| socket.port()).unwrap_or_default();
        match state {
            Reachable::Yes => tracing::info!(port, "this node can be dialled from outside"),
            Reachable::No => tracing::warn!(
                port,
                "not dialable from outside: the peers that tried could not connect; forward this TCP port to this \
                 computer in the router and open it in the firewall, or do without: peers that this node dials are \
                 not affected"
            ),
            Reachable::Unknown => {
                tracing::info!(port, "not known any more whether this node can be dialled from outside")
            }
        }
    }

    /// Tells an exchange that has just started of the sessions.
    pub(crate) fn introduce_exchange(&mut self) {
        self.reachable = Reachable::Unknown;
        let Some(exchange) = &self.services.exchange else { return };
        for (id, session) in &self.sessions {
            exchange.peer_up(PeerUp {
                session: *id,
                channel: session.exchange,
                remote: session.address,
                dialled: session.meta.dialled(),
                record: session.record.clone(),
            });
        }
    }

    /// The node has signed a new record of itself.
    pub(crate) fn tell_exchange_of(&mut self, record: &Verified<NodeRecord>) {
        self.services.exchange.iter().for_each(|exchange| exchange.local_changed(record.clone()));
        if let Some(exchange) = &mut self.services.blueprints.exchange {
            exchange.record = record.clone();
        }
    }
}
