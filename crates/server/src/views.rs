//! What the root answers to questions about the node.

use peerage_discovery::MAX_DRIFT;
use peerage_wire::address;

use crate::actor::{NEITHER, Session, State};
use crate::ingress::Service;
use crate::machine::Running;
use crate::types::{Health, LocalNode, PeerInfo, Status};

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
            }
        };
        let mut peers: Vec<PeerInfo> = self.sessions.values().map(info).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    pub(crate) fn health(&self) -> Health {
        if self.driver.machine().running() != Running::Running {
            return Health { status: Status::Draining, reasons: vec!["the node is shutting down".into()] };
        }
        let down = |service: Service| format!("the {} actor is down", service.label());
        let mut reasons: Vec<String> = self.services.degraded().map(down).collect();
        if !self.config.listening_on && !self.config.dialing_on {
            reasons.push(NEITHER.into());
        }
        let sought = self.services.blueprints.discovery.as_ref().is_some_and(|_| !self.bootnodes.is_empty());
        if self.sessions.is_empty() && (sought || !self.statics.is_empty()) {
            reasons.push("no peer is connected, although bootnodes or static peers are configured".into());
        }
        // The first node of a network is well alone: it was told of nobody, and waits for others.
        if let Some(why) = &self.seeking
            && self.sessions.is_empty()
            && !(self.bootnodes.is_empty() && self.statics.is_empty())
        {
            // An empty table and a full network want different remedies.
            let known = self.services.discovery.as_ref().map(|discovery| discovery.table_len());
            let known = known.map(|nodes| format!("; discovery knows {nodes} nodes")).unwrap_or_default();
            reasons.push(format!("{why}{known}"));
        }
        let drift = self.services.discovery.as_ref().map_or(0, |discovery| discovery.clock_drift());
        if drift.unsigned_abs() > MAX_DRIFT.as_secs() {
            let which = if drift > 0 { "ahead of" } else { "behind" };
            reasons.push(format!("this computer's clock is {} s {which} its peers'", drift.unsigned_abs()));
        }
        let status = if reasons.is_empty() { Status::Ok } else { Status::Degraded };
        Health { status, reasons }
    }
}
