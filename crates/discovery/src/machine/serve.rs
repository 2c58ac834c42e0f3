//! Answering others, and learning of those who speak to us.

use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::NodeId;
use peerage_wire::address::site;

use super::prove::MAX_PROOFS;
use super::requests::{Purpose, Request};
use super::{DiscoveryMachine, Fx, Out, Outgoing};
use crate::count::DropReason;
use crate::key::Key;
use crate::net::may_relay;
use crate::wire::{self, Cookie, Kind, MAX_NEIGHBORS, Message, Nonce, Packet};

/// How many nodes that spoke to us are remembered as asked.
const MAX_LEARNING: usize = 1_024;
/// Those of one site that are asked for their records at once.
const MAX_PROOFS_OF_SITE: usize = 2;
/// As few are not looked through for those whose pause is over.
pub(super) const FEW_LEARNING: usize = 16;

impl DiscoveryMachine {
    /// Answers a request. The gate has seen its cookie, so it comes from where it says.
    pub(super) fn serve(&mut self, now: Time, from: NodeId, addr: SocketAddr, packet: Packet, fx: &mut Fx) {
        let nonce = packet.nonce;
        match packet.message {
            Message::Ping { record_seq } => {
                let pong = Message::Pong { record_seq: self.local.seq(), observed: addr };
                self.reply(now, from, addr, nonce, pong, fx);
                self.learn(now, from, addr, Some(record_seq), fx);
            }
            Message::FindNode { target } => {
                for message in self.neighbors_for(from, addr, &target) {
                    self.reply(now, from, addr, nonce, message, fx);
                }
                self.learn(now, from, addr, None, fx);
            }
            Message::RecordRequest => {
                let record = self.local.clone().into_inner();
                self.reply(now, from, addr, nonce, Message::RecordResponse { record }, fx);
                self.learn(now, from, addr, None, fx);
            }
            _ => fx.emit(Out::Drop(DropReason::Unsolicited)),
        }
    }

    fn reply(&self, now: Time, to: NodeId, addr: SocketAddr, nonce: Nonce, message: Message, fx: &mut Fx) {
        let packet = Packet { nonce, cookie: Cookie::NONE, expiry: self.expiry(now), message };
        fx.emit(Out::Send(Outgoing { to, addr, packet }));
    }

    /// The nodes nearest to a point that the asker may be told of.
    fn neighbors_for(&self, asker: NodeId, addr: SocketAddr, target: &Key) -> Vec<Message> {
        // One more than is told, in place of the asker itself.
        let nearest = self.table.closest(target, MAX_NEIGHBORS + 1, true);
        let told = nearest.into_iter().map(|entry| &entry.contact).filter(|contact| {
            let mut sockets = contact.record.udp_sockets().iter();
            contact.id != asker && sockets.any(|node| may_relay(addr.ip(), node.ip()))
        });
        wire::neighbors(told.take(MAX_NEIGHBORS).map(|contact| &*contact.record))
    }

    /// Somebody spoke to us from an address it receives at. If we do not know it there, or it has a newer record
    /// than we, it is asked for its record; its answer proves it to us as our cookie proved us to it.
    pub(super) fn learn(&mut self, now: Time, id: NodeId, addr: SocketAddr, seq: Option<u64>, fx: &mut Fx) {
        // Until the first refresh has ended nobody can fill a fresh table by pinging (geth `initDone`).
        if !self.refresh.ready() {
            return;
        }
        let key = Key::of(id);
        let worth_asking = match self.table.get_at(&key, id).map(|entry| &entry.contact) {
            Some(known) => known.addr != addr || seq.is_some_and(|seq| seq > known.record.seq()),
            None => self.table.would_take(&key, id, addr),
        };
        if !worth_asking
            || self.requests.any(|request| request.to == id && request.message.kind() == Kind::RecordRequest)
            || !self.may_learn(addr)
        {
            return;
        }
        if self.learning.len() >= self.learning_crowd {
            self.learning.retain(|_, until| *until > now);
            // Each look is paid for by as many new nodes as it looks at.
            self.learning_crowd = (2 * self.learning.len()).clamp(FEW_LEARNING, MAX_LEARNING);
        }
        let paused = self.learning.get(&id).is_some_and(|until| *until > now);
        if !paused && self.learning.len() < MAX_LEARNING {
            self.learning.insert(id, now + self.config.learn_pause);
            self.ask(now, id, addr, Message::RecordRequest, Purpose::Learn, fx);
        }
    }

    /// Whether one more of those that spoke to us may be asked: few at once, and of one site fewer, so that nobody with
    /// many names keeps the others out.
    fn may_learn(&self, addr: SocketAddr) -> bool {
        let learning = |request: &Request| request.purpose == Purpose::Learn;
        let of_site = |request: &Request| learning(request) && site(request.addr.ip()) == site(addr.ip());
        self.requests.count(learning) < MAX_PROOFS
            && (self.config.exempt(addr.ip()) || self.requests.count(of_site) < MAX_PROOFS_OF_SITE)
    }
}
