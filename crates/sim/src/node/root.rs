//! What the server's shell does: it carries out what the run loop decides, and keeps what is to be remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_machine::Time;
use peerage_nodedb::Anchor;
use peerage_peer_session::{Ended, EndedBy};
use peerage_queue::SessionId;
use peerage_server::{In, Meta, Out, Setup};
use peerage_wire::{DisconnectReason, NodeId, NodeRecord, Verified};

use super::{Clockwork, Note, PeerageNode, Todo, Use};
use crate::engine::Net;

impl PeerageNode {
    /// Discovery has had answers from where this record says.
    pub(super) fn remember(&mut self, now: Time, record: &Verified<NodeRecord>) {
        self.db.put_record(record, now);
        if let Some(ip) = record.udp_address().map(|socket| socket.ip()) {
            self.db.pong_received(record.id(), ip, now);
        }
    }

    pub(super) fn tell_root(&mut self, now: Time, input: In, net: &mut Net<'_, PeerageNode>) {
        self.root.handle(now, input);
        self.carry_out_root(now, net);
    }

    pub(super) fn carry_out_root(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        loop {
            let outs = self.root.take_outs();
            if outs.is_empty() {
                break;
            }
            for out in outs {
                self.carry_out_one(now, out, net);
            }
        }
        self.due[Clockwork::Root as usize] = self.root.next_deadline();
    }

    fn carry_out_one(&mut self, now: Time, out: Out, net: &mut Net<'_, PeerageNode>) {
        match out {
            Out::Verdict(setup, Ok(Some(session))) => self.start_session(now, setup, session),
            Out::Verdict(setup, verdict) => self.todo.push_back(Todo::Verdict(setup, verdict)),
            Out::InboundPending(id) => self.todo.push_back(Todo::Dialer(peerage_dialer::In::InboundPending(id))),
            Out::InboundDone(id) => self.todo.push_back(Todo::Dialer(peerage_dialer::In::InboundDone(id))),
            Out::PeerUp(session, meta) => self.peer_up(now, session, &meta, net),
            Out::PeerDown { session, meta, ended, lived } => self.peer_down(session, &meta, ended, lived, net),
            Out::Disconnect(session, reason) => self.disconnect(session, reason, net),
            Out::Trusted(..) => {}
            Out::Banned(banned, time) => {
                net.note(Note::Banned(banned));
                self.db.ban(banned, now.unix().saturating_add(time), now);
            }
            Out::Unbanned(banned) => drop(self.db.unban(banned)),
            Out::Blamed(id, penalty, points) => {
                net.note(Note::Blamed(id, penalty));
                self.db.set_score(id, u64::from(points) * 1_000, now.unix());
            }
            Out::Forgiven(id) => self.db.set_score(id, 0, now.unix()),
            Out::Admission(admission) => {
                self.gate.restrict(admission.clone());
                self.listener.handle(now, peerage_server::listening::In::Admission(admission.clone()));
                self.carry_out_listener(net);
                self.todo.push_back(Todo::Dialer(peerage_dialer::In::Admission(admission.clone())));
                self.todo.push_back(Todo::Discovery(peerage_discovery::In::Admission(admission)));
            }
            Out::Weigh => {
                let brought = self.sessions.iter().map(|(id, session)| (*id, session.received));
                let brought: BTreeMap<SessionId, u64> = brought.collect();
                self.root.handle(now, In::Contributions(brought));
            }
            Out::Anchors(ids) => self.remember_anchors(now, &ids),
            Out::Stopped => {}
        }
    }

    fn remember_anchors(&mut self, now: Time, ids: &[NodeId]) {
        let session_of = |id: &NodeId| self.sessions.values().find(|session| session.meta.id == *id);
        let earlier = self.db.anchors(now);
        let anchor = |id: &NodeId| match session_of(id) {
            Some(session) => {
                let since = session.since.unix();
                let lived = now.unix().saturating_sub(since);
                Some(Anchor { record: session.record.clone(), since, lived })
            }
            None => earlier.iter().find(|anchor| anchor.id() == *id).cloned(),
        };
        self.db.set_anchors(ids.iter().filter_map(anchor).collect());
    }

    fn peer_up(&mut self, now: Time, session: SessionId, meta: &Meta, net: &mut Net<'_, PeerageNode>) {
        net.note(Note::PeerUp(meta.id, meta.dialled()));
        self.todo.push_back(Todo::Dialer(peerage_dialer::In::PeerUp { id: meta.id, dialled: meta.dialled() }));
        let Some(running) = self.sessions.get(&session).filter(|_| meta.dialled()) else { return };
        let record = running.record.clone();
        self.db.put_record(&record, now);
        self.db.pong_received(meta.id, meta.ip, now);
    }

    fn peer_down(
        &mut self,
        session: SessionId,
        meta: &Meta,
        ended: Ended,
        lived: Duration,
        net: &mut Net<'_, PeerageNode>,
    ) {
        self.forget_session(session);
        self.todo.push_back(Todo::Gossip(peerage_gossip::In::PeerDown { session }));
        self.todo.push_back(Todo::Router(peerage_router::In::PeerDown { session }));
        let consequence = ended.reason.consequence(ended.by == EndedBy::Us);
        let (id, dialled) = (meta.id, meta.dialled());
        self.todo.push_back(Todo::Dialer(peerage_dialer::In::PeerDown { id, dialled, lived, consequence }));
        net.note(Note::PeerDown(id, ended.reason));
    }

    /// A verdict that starts no session.
    pub(super) fn verdict(
        &mut self,
        now: Time,
        setup: Setup,
        verdict: Result<Option<SessionId>, DisconnectReason>,
        net: &mut Net<'_, PeerageNode>,
    ) {
        let Some(conn) = self.setups.get(&setup).copied() else { return };
        match verdict {
            // At the second checkpoint the session was started with the verdict.
            Ok(_) if matches!(self.uses.get(&conn), Some(Use::SettingUp(_))) => self.admitted(now, conn, net),
            Ok(_) => {}
            Err(reason) => self.refused(conn, reason, net),
        }
    }
}
