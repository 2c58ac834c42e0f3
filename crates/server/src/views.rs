//! What the root answers to questions about the node.

use std::collections::BTreeMap;

use peerage_wire::address;

use crate::actor::{Session, State};
use crate::machine::Running;
use crate::types::{Health, LocalNode, PeerInfo, Status};
use crate::watch::reasons;

impl State {
    pub(crate) fn local(&self) -> LocalNode {
        let presented = self.presented.borrow();
        LocalNode {
            record: presented.record.clone(),
            addresses: match self.config.listening_on {
                true => self.sockets.iter().copied().map(address::from_tcp).collect(),
                false => Vec::new(),
            },
            external: self.own.external().to_vec(),
            agent: self.config.agent.clone(),
            network: self.config.network.clone(),
            instance: presented.hello.instance,
            reachability: self.config.listening_on.then_some(self.reachable),
            // Filled in by who asks.
            protocols: BTreeMap::new(),
        }
    }

    pub(crate) fn peers(&self) -> Vec<PeerInfo> {
        let (machine, now) = (self.driver.machine(), self.clock.now());
        let info = |session: &Session| {
            let stats = session.mailbox.stats();
            PeerInfo {
                id: session.meta.id,
                direction: session.meta.direction,
                address: session.address,
                capabilities: session.capabilities.clone(),
                agent: session.agent.clone(),
                is_static: machine.is_static(&session.meta.id),
                is_trusted: machine.is_trusted(&session.meta.id),
                blame: machine.blame_of(now, &session.meta.id),
                connected_at: session.connected_at,
                round_trip: stats.round_trip,
                bytes_in: stats.bytes_in,
                bytes_out: stats.bytes_out,
                protocols: BTreeMap::new(),
            }
        };
        let mut peers: Vec<PeerInfo> = self.sessions.values().map(info).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    pub(crate) fn health(&mut self) -> Health {
        // As of now, not of the last second.
        self.look();
        let checks = self.watch.findings();
        if self.driver.machine().running() != Running::Running {
            return Health { status: Status::Draining, reasons: vec!["the node is shutting down".into()], checks };
        }
        let reasons = reasons(&checks);
        let status = if reasons.is_empty() { Status::Ok } else { Status::Degraded };
        Health { status, reasons, checks }
    }
}
