//! Who takes places: dials all the time, whatever was answered before, or leaves as soon as it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use peerage_dialer::{Attempt, DialTarget, DialerMachine, In, Out};
use peerage_machine::Time;
use peerage_queue::SessionId;
use peerage_server::{Out as RootOut, ServerMachine};
use peerage_wire::{DisconnectReason, NodeId};

use super::hostile::Mind;
use super::pace::Pace;

/// Attempts from here on are the attacker's own.
const OWN: u64 = 1 << 63;

/// Dials these nodes in turn, but for those that it is connected to, without regard for what came of it last time.
pub(super) struct Dials {
    targets: Vec<(NodeId, SocketAddr)>,
    turn: usize,
    pace: Pace,
    attempts: u64,
    in_flight: BTreeMap<Attempt, NodeId>,
    busy: BTreeSet<NodeId>,
    peers: BTreeSet<NodeId>,
}

impl Dials {
    /// Begins with the target of this number, so that attackers do not all begin with the same one.
    pub(super) fn new(targets: Vec<(NodeId, SocketAddr)>, first: usize, pace: Pace) -> Dials {
        let (busy, peers) = (BTreeSet::new(), BTreeSet::new());
        Dials { targets, turn: first, pace, attempts: 0, in_flight: BTreeMap::new(), busy, peers }
    }
}

impl Mind<DialerMachine> for Dials {
    fn hears(&mut self, _now: Time, input: In, _outs: &mut Vec<Out>) -> Option<In> {
        match &input {
            In::Done { attempt, .. } if attempt.0 >= OWN => {
                if let Some(id) = self.in_flight.remove(attempt) {
                    self.busy.remove(&id);
                }
                return None;
            }
            In::PeerUp { id, .. } => drop(self.peers.insert(*id)),
            In::PeerDown { id, .. } => drop(self.peers.remove(id)),
            _ => {}
        }
        Some(input)
    }

    fn next(&self) -> Option<Time> {
        Some(self.pace.next())
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<Out>) -> Vec<In> {
        for _ in 0..self.pace.take(now) {
            let count = self.targets.len();
            let free = |(id, _): &(NodeId, SocketAddr)| !self.busy.contains(id) && !self.peers.contains(id);
            let Some(step) = (0..count).find(|step| free(&self.targets[(self.turn + step) % count])) else { break };
            let (id, address) = self.targets[(self.turn + step) % count];
            self.turn = (self.turn + step + 1) % count;
            self.attempts += 1;
            let attempt = Attempt(OWN | self.attempts);
            self.in_flight.insert(attempt, id);
            self.busy.insert(id);
            outs.push(Out::Dial { attempt, target: DialTarget { id, addresses: vec![address], is_static: false } });
        }
        Vec::new()
    }
}

/// Leaves each session when it has lasted so long.
pub(super) struct Leaver {
    pub(super) stay: Duration,
    pub(super) sessions: BTreeSet<(Time, SessionId)>,
}

impl Mind<ServerMachine> for Leaver {
    fn says(&mut self, now: Time, out: RootOut, outs: &mut Vec<RootOut>) {
        if let RootOut::PeerUp(session, _) = &out {
            self.sessions.insert((now + self.stay, *session));
        }
        outs.push(out);
    }

    fn next(&self) -> Option<Time> {
        self.sessions.first().map(|(at, _)| *at)
    }

    fn acts(&mut self, now: Time, outs: &mut Vec<RootOut>) -> Vec<peerage_server::In> {
        while let Some((at, session)) = self.sessions.first().copied()
            && at <= now
        {
            self.sessions.pop_first();
            outs.push(RootOut::Disconnect(session, DisconnectReason::Requested));
        }
        Vec::new()
    }
}
