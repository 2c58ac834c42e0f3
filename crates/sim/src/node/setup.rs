//! The way of a connection to a session: listener, connector and handshake, with the same messages, checkpoints and
//! deadlines as in a real node, and without cryptography.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peerage_dialer::{Attempt, DialTarget};
use peerage_machine::{Driver, Time};
use peerage_peer_session::handshake::{Direction, HandshakeError, Presented, Remote};
use peerage_peer_session::{Ended, EndedBy};
use peerage_queue::SessionId;
use peerage_server::listening::{self, Conn as Arrival};
use peerage_server::racing::{self, Failure, Race};
use peerage_server::{In, Meta, Setup, Stage};
use peerage_wire::{DisconnectReason, NodeId};

use super::sessions::Session;
use super::{Clockwork, Message, PeerageNode, Todo, Use};
use crate::engine::{Closed, Conn, Net};

/// One dial.
pub(super) struct Dial {
    race: Driver<Race>,
    target: DialTarget,
    opening: BTreeMap<SocketAddr, Conn>,
    /// The connection on which the handshake goes on.
    shaking: Option<Conn>,
}

/// What a set-up waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asks,
    Answers,
    Shows,
    /// The root's word at the first checkpoint.
    Verdict,
    /// The other end's.
    Accepted,
    /// The root's word at the second checkpoint.
    Added,
}

/// A connection that is to be a session.
pub(super) struct SettingUp {
    setup: Setup,
    phase: Phase,
    until: Time,
    address: SocketAddr,
    /// The dial that it is of, or its number at the listener.
    of: Origin,
    remote: Option<Box<Remote>>,
}

#[derive(Clone, Copy)]
enum Origin {
    Dial(Attempt, NodeId),
    Listener(u64),
}

impl PeerageNode {
    // ---- Dials.

    pub(super) fn begin_dial(
        &mut self,
        now: Time,
        attempt: Attempt,
        target: DialTarget,
        net: &mut Net<'_, PeerageNode>,
    ) {
        self.cancel_dial(attempt, net);
        let limit = self.config.dialer.dial_timeout.saturating_sub(self.config.session.handshake_timeout);
        let race = Driver::new(Race::new(&target.addresses, limit));
        self.dials.insert(attempt, Box::new(Dial { race, target, opening: BTreeMap::new(), shaking: None }));
        self.race(now, attempt, racing::In::Start, net);
    }

    fn race(&mut self, now: Time, attempt: Attempt, input: racing::In, net: &mut Net<'_, PeerageNode>) {
        if let Some(dial) = self.dials.get_mut(&attempt) {
            dial.race.handle(now, input);
            self.carry_out_race(now, attempt, net);
        }
    }

    fn carry_out_race(&mut self, now: Time, attempt: Attempt, net: &mut Net<'_, PeerageNode>) {
        let Some(dial) = self.dials.get_mut(&attempt) else { return };
        let outs: Vec<racing::Out> = dial.race.drain().collect();
        for out in outs {
            let Some(dial) = self.dials.get_mut(&attempt) else { return };
            match out {
                racing::Out::Open(address) => {
                    let conn = net.connect(address);
                    dial.opening.insert(address, conn);
                    self.uses.insert(conn, Use::Opening(attempt, address));
                }
                racing::Out::GiveUp(address) => {
                    if let Some(conn) = dial.opening.remove(&address) {
                        self.uses.remove(&conn);
                        net.close(conn);
                    }
                }
                racing::Out::Handshake(address) => {
                    if let Some(conn) = dial.opening.remove(&address) {
                        dial.shaking = Some(conn);
                        let of = Origin::Dial(attempt, dial.target.id);
                        self.set_up(now, conn, address, of, Phase::Answers);
                        net.write(conn, Message::Asks);
                    }
                }
                racing::Out::Done(end) => {
                    let id = dial.target.id;
                    self.cancel_dial(attempt, net);
                    self.dialled(attempt, id, end.into(), net);
                }
            }
        }
    }

    /// Ends a dial, with what it has open. A session that came of it stays.
    pub(super) fn cancel_dial(&mut self, attempt: Attempt, net: &mut Net<'_, PeerageNode>) {
        let Some(dial) = self.dials.remove(&attempt) else { return };
        for conn in dial.opening.into_values().chain(dial.shaking) {
            match self.uses.get(&conn) {
                Some(Use::Opening(..)) => drop(self.uses.remove(&conn)),
                Some(Use::SettingUp(_)) => self.release(conn),
                _ => continue,
            }
            net.close(conn);
        }
    }

    pub(super) fn opened(&mut self, conn: Conn, net: &mut Net<'_, PeerageNode>) {
        if let Some(Use::Opening(attempt, address)) = self.uses.get(&conn) {
            let (attempt, address) = (*attempt, *address);
            self.race(net.now(), attempt, racing::In::Opened(address), net);
            self.own_deadline();
        }
    }

    // ---- The listener.

    pub(super) fn accepted(&mut self, conn: Conn, from: SocketAddr, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        self.next_accept += 1;
        self.accepted.insert(self.next_accept, conn);
        self.set_up(now, conn, from, Origin::Listener(self.next_accept), Phase::Asks);
        self.listener.handle(now, listening::In::Accepted(Arrival(self.next_accept), from.ip()));
        self.carry_out_listener(net);
    }

    pub(super) fn carry_out_listener(&mut self, net: &mut Net<'_, PeerageNode>) {
        let outs: Vec<listening::Out> = self.listener.drain().collect();
        for out in outs {
            match out {
                listening::Out::Begin(_) | listening::Out::Hand(_) => {}
                listening::Out::Refuse(arrival, _) | listening::Out::Close(arrival, _) => {
                    if let Some(conn) = self.accepted.get(&arrival.0).copied() {
                        self.release(conn);
                        net.close(conn);
                    }
                }
            }
        }
    }

    // ---- The handshake.

    fn set_up(&mut self, now: Time, conn: Conn, address: SocketAddr, of: Origin, phase: Phase) {
        self.next_setup += 1;
        let setup = Setup(self.next_setup);
        let timeout = match phase {
            Phase::Asks => self.config.session.first_message_timeout,
            _ => self.config.session.handshake_timeout,
        };
        self.setups.insert(setup, conn);
        let setting_up = SettingUp { setup, phase, until: now + timeout, address, of, remote: None };
        self.uses.insert(conn, Use::SettingUp(Box::new(setting_up)));
        self.own_deadline();
    }

    /// A set-up is over: its places are free.
    fn release(&mut self, conn: Conn) {
        let Some(Use::SettingUp(setting_up)) = self.uses.get(&conn) else { return };
        let (setup, of) = (setting_up.setup, setting_up.of);
        self.uses.remove(&conn);
        self.released(setup, of);
    }

    fn released(&mut self, setup: Setup, of: Origin) {
        self.setups.remove(&setup);
        if let Origin::Listener(arrival) = of {
            self.accepted.remove(&arrival);
            // The listener has no timers and asks for nothing here.
            self.listener.handle(Time::ZERO, listening::In::Released(Arrival(arrival)));
        }
        self.todo.push_back(Todo::Root(In::Released(setup)));
        self.own_deadline();
    }

    /// A set-up has failed.
    fn failed(&mut self, conn: Conn, error: &HandshakeError, net: &mut Net<'_, PeerageNode>) {
        let Some(Use::SettingUp(setting_up)) = self.uses.get(&conn) else { return };
        let of = setting_up.of;
        self.release(conn);
        net.close(conn);
        if let Origin::Dial(attempt, _) = of {
            if let Some(dial) = self.dials.get_mut(&attempt) {
                dial.shaking = None;
            }
            self.race(net.now(), attempt, racing::In::Handshaken(Err(Failure::from(error))), net);
        }
    }

    fn presents(&mut self, now: Time, conn: Conn, theirs: &Presented, net: &mut Net<'_, PeerageNode>) {
        let Some(Use::SettingUp(setting_up)) = self.uses.get_mut(&conn) else { return };
        let meeting = match self.cast.verify(&theirs.record) {
            Some(record) => self.presented.meet(&self.config.session, now, record, theirs.hello.clone()),
            None => Err(HandshakeError::NotItsRecord),
        };
        let remote = match (meeting, setting_up.of) {
            (Ok(remote), Origin::Dial(_, expected)) => remote.expected(expected),
            (meeting, _) => meeting,
        };
        match remote {
            Ok(remote) => {
                let direction = direction(setting_up.of);
                let meta = Meta::of(&remote, direction, setting_up.address.ip());
                setting_up.phase = Phase::Verdict;
                setting_up.remote = Some(Box::new(remote));
                let setup = setting_up.setup;
                self.tell_root(now, In::Checkpoint(setup, Stage::Identified, meta), net);
            }
            Err(error) => {
                if matches!(setting_up.of, Origin::Listener(_)) {
                    net.write(conn, Message::Bye(error.reason()));
                }
                self.failed(conn, &error, net);
            }
        }
    }

    /// The first checkpoint is passed.
    pub(super) fn admitted(&mut self, now: Time, conn: Conn, net: &mut Net<'_, PeerageNode>) {
        let Some(Use::SettingUp(setting_up)) = self.uses.get_mut(&conn) else { return };
        match setting_up.of {
            Origin::Dial(..) => {
                setting_up.phase = Phase::Accepted;
                net.write(conn, Message::Shows(self.presented.clone()));
            }
            Origin::Listener(arrival) => {
                self.listener.handle(now, listening::In::Identified(Arrival(arrival)));
                net.write(conn, Message::Accepted);
                self.establish(now, conn, net);
            }
        }
    }

    /// Both ends have accepted.
    fn establish(&mut self, now: Time, conn: Conn, net: &mut Net<'_, PeerageNode>) {
        let Some(Use::SettingUp(setting_up)) = self.uses.get_mut(&conn) else { return };
        let Some(remote) = setting_up.remote.as_deref() else { return };
        setting_up.phase = Phase::Added;
        let meta = Meta::of(remote, direction(setting_up.of), setting_up.address.ip());
        let setup = setting_up.setup;
        self.tell_root(now, In::Checkpoint(setup, Stage::Established, meta), net);
    }

    /// The second checkpoint is passed: the session starts.
    pub(super) fn start_session(&mut self, now: Time, setup: Setup, session: SessionId) {
        let Some(conn) = self.setups.get(&setup).copied() else { return };
        let Some(Use::SettingUp(setting_up)) = self.uses.insert(conn, Use::Session(session)) else { return };
        let SettingUp { setup, of, address, remote, .. } = *setting_up;
        let Some(remote) = remote else { return };
        let meta = Meta::of(&remote, direction(of), address.ip());
        let (id, ip, outbound) = (meta.id, meta.ip, meta.dialled());
        let session = Session::open(&mut self.sessions, now, session, conn, meta, &remote);
        let (session, gossip, router) = session;
        if let Some(channel) = router {
            self.router_up(session, id, channel);
        }
        if let Some(channel) = gossip {
            let up = peerage_gossip::PeerUp { session, id, channel, host: Some(ip), outbound };
            self.todo.push_back(Todo::Gossip(peerage_gossip::In::PeerUp(up)));
        }
        self.released(setup, of);
        if let Origin::Dial(attempt, _) = of {
            self.todo.push_back(Todo::Connected(attempt));
        }
    }

    pub(super) fn connected(&mut self, now: Time, attempt: Attempt, net: &mut Net<'_, PeerageNode>) {
        if let Some(dial) = self.dials.get_mut(&attempt) {
            dial.shaking = None;
        }
        self.race(now, attempt, racing::In::Handshaken(Ok(())), net);
    }

    /// A checkpoint said no.
    pub(super) fn refused(&mut self, conn: Conn, reason: DisconnectReason, net: &mut Net<'_, PeerageNode>) {
        let Some(Use::SettingUp(setting_up)) = self.uses.get(&conn) else { return };
        // A dialler that has not shown itself stays unknown; everybody else is told.
        let unknown = matches!(setting_up.of, Origin::Dial(..)) && setting_up.phase == Phase::Verdict;
        if !unknown {
            net.write(conn, Message::Bye(reason));
        }
        self.failed(conn, &HandshakeError::Refused(reason), net);
    }

    // ---- What comes over connections.

    pub(super) fn message(&mut self, conn: Conn, message: Message, net: &mut Net<'_, PeerageNode>) {
        let now = net.now();
        let phase = match self.uses.get(&conn) {
            Some(Use::Session(session)) => {
                let session = *session;
                return self.received(now, session, message, net);
            }
            Some(Use::SettingUp(setting_up)) => setting_up.phase,
            Some(Use::Opening(..)) | None => return,
        };
        match (phase, message) {
            (Phase::Asks, Message::Asks) => {
                let until = now + self.config.session.handshake_timeout;
                if let Some(Use::SettingUp(setting_up)) = self.uses.get_mut(&conn) {
                    (setting_up.phase, setting_up.until) = (Phase::Shows, until);
                }
                self.own_deadline();
                net.write(conn, Message::Answers(self.presented.clone()));
            }
            (Phase::Answers, Message::Answers(theirs)) | (Phase::Shows, Message::Shows(theirs)) => {
                self.presents(now, conn, &theirs, net);
            }
            (Phase::Accepted, Message::Accepted) => self.establish(now, conn, net),
            (_, Message::Bye(reason)) => self.failed(conn, &HandshakeError::RefusedByPeer(reason), net),
            (_, _) => self.failed(conn, &HandshakeError::NoAnswer, net),
        }
    }

    /// A connection is of no use any more: its other end is out of reach, or what came over it was damaged.
    pub(super) fn broken(&mut self, conn: Conn, reason: DisconnectReason, net: &mut Net<'_, PeerageNode>) {
        match self.uses.get(&conn) {
            Some(Use::Session(session)) => {
                let session = *session;
                self.end_session(session, reason, net);
            }
            Some(Use::SettingUp(_)) => self.failed(conn, &HandshakeError::TimedOut, net),
            Some(Use::Opening(..)) | None => {}
        }
    }

    pub(super) fn closed(&mut self, conn: Conn, how: Closed, net: &mut Net<'_, PeerageNode>) {
        match self.uses.get(&conn) {
            Some(Use::Session(session)) => {
                let session = *session;
                self.uses.remove(&conn);
                self.session_ended(session, Ended { reason: DisconnectReason::NetworkError, by: EndedBy::Network });
            }
            Some(Use::SettingUp(_)) => self.failed(conn, &HandshakeError::Io("closed".into()), net),
            Some(Use::Opening(attempt, address)) => {
                let (attempt, address) = (*attempt, *address);
                self.uses.remove(&conn);
                if let Some(dial) = self.dials.get_mut(&attempt) {
                    dial.opening.remove(&address);
                }
                let timed_out = how == Closed::Unreachable;
                self.race(net.now(), attempt, racing::In::Failed { address, timed_out }, net);
                self.own_deadline();
            }
            None => {}
        }
    }

    // ---- Deadlines of its own: set-ups, races, stalls.

    pub(super) fn own_deadline(&mut self) {
        let setups = self.setups.values().filter_map(|conn| match self.uses.get(conn) {
            Some(Use::SettingUp(setting_up)) => Some(setting_up.until),
            _ => None,
        });
        let races = self.dials.values().filter_map(|dial| dial.race.next_deadline());
        let stalls = self.stalls().map(|(_, at)| at);
        self.due[Clockwork::Own as usize] = setups.chain(races).chain(stalls).min();
    }

    pub(super) fn expire_own(&mut self, now: Time, net: &mut Net<'_, PeerageNode>) {
        let late = self.setups.values().filter(|conn| match self.uses.get(conn) {
            Some(Use::SettingUp(setting_up)) => setting_up.until <= now,
            _ => false,
        });
        for conn in late.copied().collect::<Vec<_>>() {
            self.failed(conn, &HandshakeError::TimedOut, net);
        }
        let due = |dial: &Dial| dial.race.next_deadline().is_some_and(|at| at <= now);
        let races: Vec<Attempt> =
            self.dials.iter().filter(|(_, dial)| due(dial)).map(|(attempt, _)| *attempt).collect();
        for attempt in races {
            if let Some(dial) = self.dials.get_mut(&attempt) {
                dial.race.expire_due(now);
            }
            self.carry_out_race(now, attempt, net);
        }
        let stalled: Vec<SessionId> = self.stalls().filter(|(_, at)| *at <= now).map(|(session, _)| session).collect();
        for session in stalled {
            self.end_session(session, DisconnectReason::Stalled, net);
        }
        self.own_deadline();
    }
}

fn direction(of: Origin) -> Direction {
    match of {
        Origin::Dial(..) => Direction::Outbound,
        Origin::Listener(_) => Direction::Inbound,
    }
}
