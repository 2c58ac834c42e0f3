//! Sending a request, and taking its answer or its time-out.

use std::net::SocketAddr;

use peerage_machine::Time;
use peerage_wire::{NodeId, NodeRecord};

use super::origin::Origin;
use super::requests::{Purpose, Request};
use super::table::Contact;
use super::{Check, DiscoveryMachine, Fx, Out, Outgoing, Teller, Timer};
use crate::count::{DropReason, Event};
use crate::gate::Inbound;
use crate::key::Key;
use crate::wire::{Cookie, MAX_NEIGHBORS, Message, Nonce, Packet};

impl DiscoveryMachine {
    /// Unix seconds at which a packet sent now expires.
    pub(super) fn expiry(&self, now: Time) -> u64 {
        now.unix().saturating_add(self.config.packet_lifetime).as_secs()
    }

    /// Sends a request; false if too many are unanswered, or we have nothing to do with whom it is for.
    pub(super) fn ask(
        &mut self,
        now: Time,
        to: NodeId,
        addr: SocketAddr,
        message: Message,
        purpose: Purpose,
        fx: &mut Fx,
    ) -> bool {
        let cookie = self.cookies.get(to, addr);
        let request = Request { to, addr, message, purpose, retried: false, packets: 0, records: 0 };
        self.send_request(now, request, cookie, fx)
    }

    fn send_request(&mut self, now: Time, request: Request, cookie: Cookie, fx: &mut Fx) -> bool {
        if !self.admits(&request.to, request.addr.ip()) {
            fx.emit(Out::Drop(DropReason::NotAdmitted));
            return false;
        }
        if self.requests.len() >= self.config.max_requests {
            fx.emit(Out::Drop(DropReason::TooManyRequests));
            return false;
        }
        let (to, addr, message) = (request.to, request.addr, request.message.clone());
        let counter = self.requests.insert(now, request);
        fx.arm(Timer::Request(counter), now + self.config.request_timeout);
        let nonce = Nonce { counter, mac: [0; 8] };
        let packet = Packet { nonce, cookie, expiry: self.expiry(now), message };
        fx.emit(Out::Send(Outgoing { to, addr, packet }));
        true
    }

    fn close(&mut self, counter: u64, fx: &mut Fx) -> Option<Request> {
        fx.disarm(Timer::Request(counter));
        self.requests.remove(counter)
    }

    /// Takes an answer, or a demand for a cookie.
    pub(super) fn answered(&mut self, now: Time, inbound: Inbound, fx: &mut Fx) {
        let Inbound { from, addr, packet } = inbound;
        let counter = packet.nonce.counter;
        let request = match self.requests.matching(packet.nonce, from, addr, packet.message.kind()) {
            Ok(request) => request,
            Err(reason) => return fx.emit(Out::Drop(reason)),
        };
        match packet.message {
            Message::Cookie if request.retried => fx.emit(Out::Drop(DropReason::Excess)),
            Message::Cookie => {
                if let Some(request) = self.close(counter, fx) {
                    self.cookies.insert(from, addr, packet.cookie);
                    let purpose = request.purpose;
                    if !self.send_request(now, Request { retried: true, ..request }, packet.cookie, fx) {
                        self.gave_up(now, from, addr, purpose, fx);
                    }
                }
            }
            Message::Pong { record_seq, observed } => {
                fx.emit(Out::Observed { by: addr, observed });
                if self.close(counter, fx).is_some_and(|request| request.purpose == Purpose::Regain) {
                    self.regained(from, fx);
                }
                let placed = self.table.inherit(from, addr);
                self.admitted(now, placed, fx);
                let settled = self.table.check_passed(now, from, addr);
                // What is remembered counts as proved where its record says first: it has to be where it answered.
                let proved = settled.filter(|record| record.udp_address() == Some(addr));
                proved.into_iter().for_each(|record| fx.emit(Out::Alive(record)));
                self.supply_changed = true;
                self.learn(now, from, addr, Some(record_seq), fx);
            }
            Message::RecordResponse { record } => {
                if let Some(request) = self.close(counter, fx) {
                    self.own_record(now, from, addr, record, request.purpose, fx);
                }
            }
            Message::Neighbors { index, total, records } => {
                let bit = 1u16 << (index & 15);
                if request.packets & bit != 0 {
                    return fx.emit(Out::Drop(DropReason::Excess));
                }
                request.packets |= bit;
                // Counted before any is filtered, so that useless records use up the answer too (geth).
                let allowed = MAX_NEIGHBORS - request.records;
                let taken = records.len().min(allowed);
                if records.len() > taken {
                    fx.emit(Out::Drop(DropReason::Excess));
                }
                request.records += taken;
                let complete = request.packets.count_ones() >= total.into() || request.records >= MAX_NEIGHBORS;
                let purpose = request.purpose;
                let some = request.records > 0;
                if let Purpose::Lookup(lookup) = purpose {
                    let teller = Teller { key: Key::of(from), addr };
                    self.neighbors(now, teller, lookup, records.into_iter().take(taken), fx);
                    if complete {
                        self.close(counter, fx);
                        let placed = self.table.alive(from, addr);
                        self.admitted(now, placed, fx);
                        self.supply_changed = true;
                        self.find_ended(now, from, lookup, true, some, fx);
                    }
                }
            }
            // Requests are served, not matched.
            Message::Ping { .. } | Message::FindNode { .. } | Message::RecordRequest => {}
        }
    }

    /// A node's own record, its signature unchecked.
    fn own_record(
        &mut self,
        now: Time,
        from: NodeId,
        addr: SocketAddr,
        record: NodeRecord,
        purpose: Purpose,
        fx: &mut Fx,
    ) {
        let wrong = match () {
            () if record.id() != from => Some(DropReason::BadRecord),
            () if record.network() != self.local.network() => Some(DropReason::ForeignRecord),
            () => None,
        };
        if let Some(reason) = wrong {
            fx.emit(Out::Drop(reason));
            return self.gave_up(now, from, addr, purpose, fx);
        }
        if let Some(entry) = self.table.get(from)
            && *entry.contact.record == record
        {
            let contact = Contact { addr, ..entry.contact.clone() };
            return self.proved(now, contact, purpose, fx);
        }
        let token = self.token();
        self.checks.insert(token, Check::Own { from, addr, purpose });
        fx.emit(Out::Verify { token, records: vec![record] });
    }

    /// A node answered from its address with its own record.
    pub(super) fn proved(&mut self, now: Time, contact: Contact, purpose: Purpose, fx: &mut Fx) {
        if !self.admits(&contact.id, contact.addr.ip()) {
            // The policy changed while the record was checked.
            fx.emit(Out::Drop(DropReason::NotAdmitted));
            return self.gave_up(now, contact.id, contact.addr, purpose, fx);
        }
        let record = contact.record.clone();
        let origin = if purpose == Purpose::Learn { Origin::Came } else { Origin::Chosen };
        let placed = self.table.proved(contact, origin);
        self.supply_changed = true;
        self.admitted(now, placed, fx);
        if let Purpose::Resolve(token) = purpose {
            fx.emit(Out::Answer { token, records: vec![record] });
        }
    }

    /// A request got no answer in time.
    pub(super) fn timed_out(&mut self, now: Time, counter: u64, fx: &mut Fx) {
        let Some(request) = self.requests.remove(counter) else { return };
        if request.packets > 0 {
            // Part of an answer is an answer; the rest was lost on the way.
            let placed = self.table.alive(request.to, request.addr);
            self.admitted(now, placed, fx);
            self.supply_changed = true;
            if let Purpose::Lookup(lookup) = request.purpose {
                self.find_ended(now, request.to, lookup, true, request.records > 0, fx);
            }
            return;
        }
        fx.emit(Out::Event(Event::Timeout));
        self.gave_up(now, request.to, request.addr, request.purpose, fx);
    }

    /// A request came to nothing.
    pub(super) fn gave_up(&mut self, now: Time, id: NodeId, addr: SocketAddr, purpose: Purpose, fx: &mut Fx) {
        match purpose {
            Purpose::Revalidate | Purpose::Prove => {
                if self.table.check_missed(id, addr) {
                    self.remove(now, id, fx);
                }
            }
            Purpose::Learn | Purpose::Regain => {}
            Purpose::Bootnode => self.bootnode_failed(now, fx),
            Purpose::Resolve(token) => self.search_for(now, token, id, fx),
            Purpose::Lookup(lookup) => self.find_ended(now, id, lookup, false, false, fx),
        }
    }
}
