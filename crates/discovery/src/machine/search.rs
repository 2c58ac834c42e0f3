//! Running lookups, and what their steps bring.

use peerage_machine::Time;
use peerage_wire::address::site;
use peerage_wire::{NodeId, NodeRecord};

use super::lookup::{Asker, Lookup};
use super::origin::Origin;
use super::requests::Purpose;
use super::table::{BUCKET_SIZE, Contact};
use super::{Check, DiscoveryMachine, Fx, Out, Teller};
use crate::count::{DropReason, Event};
use crate::key::Key;
use crate::wire::Message;

impl DiscoveryMachine {
    /// Begins a lookup for a caller, if there is room for one more.
    pub(super) fn lookup_for(&mut self, now: Time, target: Key, asker: Asker, fx: &mut Fx) {
        if self.lookups.len() < self.config.max_lookups {
            self.begin_lookup(now, target, asker, fx);
            return;
        }
        fx.emit(Out::Drop(DropReason::TooManyLookups));
        let lookup = self.walk(target, asker);
        self.report(lookup, fx);
    }

    /// A walk that begins at the nearest nodes of the table.
    fn walk(&self, target: Key, asker: Asker) -> Lookup {
        let known = self.table.closest(&target, BUCKET_SIZE, false);
        let known = known.into_iter().map(|entry| entry.contact.clone());
        Lookup::new(self.me, target, asker, self.config.lookup_paths, known)
    }

    /// Begins a lookup from the nearest nodes of the table.
    pub(super) fn begin_lookup(&mut self, now: Time, target: Key, asker: Asker, fx: &mut Fx) {
        let lookup = self.walk(target, asker);
        let number = self.token();
        self.lookups.insert(number, lookup);
        fx.emit(Out::Event(Event::LookupStarted));
        self.advance(now, number, fx);
    }

    /// Asks whom there is to ask, and ends the lookup if it has nobody left.
    pub(super) fn advance(&mut self, now: Time, number: u64, fx: &mut Fx) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        let target = lookup.target();
        while let Some(next) = self.lookups.get_mut(&number).and_then(Lookup::next) {
            if !self.ask(now, next.id, next.addr, Message::FindNode { target }, Purpose::Lookup(number), fx)
                && let Some(lookup) = self.lookups.get_mut(&number)
            {
                lookup.done(next.id, false);
            }
        }
        if self.lookups.get(&number).is_some_and(Lookup::finished)
            && let Some(lookup) = self.lookups.remove(&number)
        {
            fx.emit(Out::Event(Event::LookupFinished));
            let token = if let Asker::Caller(token) = lookup.asker { Some(token) } else { None };
            fx.emit(Out::Walked { token, hops: lookup.hops(), queries: lookup.queries() });
            if lookup.asker == Asker::Refresh {
                self.refresh_step(now, fx);
            } else {
                self.report(lookup, fx);
            }
        }
    }

    fn report(&self, lookup: Lookup, fx: &mut Fx) {
        match lookup.asker {
            Asker::Refresh => {}
            Asker::Caller(token) => {
                let mut records = lookup.result();
                // The policy may have changed on the way.
                records.retain(|record| self.admission.permits_id(&record.id()));
                fx.emit(Out::Answer { token, records });
            }
            Asker::Resolve(token, id) => {
                let known = self.table.get(id).map(|entry| entry.contact.record.clone());
                let newest = lookup.record_of(id).into_iter().chain(known).max_by_key(|record| record.seq());
                let newest = newest.filter(|record| self.admission.permits_id(&record.id()));
                fx.emit(Out::Answer { token, records: newest.into_iter().collect() });
            }
        }
    }

    /// Records that `teller` told in answer to a step of a lookup.
    pub(super) fn neighbors(
        &mut self,
        now: Time,
        teller: Teller,
        lookup: u64,
        records: impl Iterator<Item = NodeRecord>,
        fx: &mut Fx,
    ) {
        let mut unknown = Vec::new();
        for record in records {
            if record.id() == self.me {
                continue;
            }
            if record.network() != self.local.network() {
                fx.emit(Out::Drop(DropReason::ForeignRecord));
                continue;
            }
            if let Err(reason) = self.endpoint(&record, teller.addr.ip()) {
                fx.emit(Out::Drop(reason));
                continue;
            }
            match self.table.get(record.id()).map(|entry| &entry.contact) {
                // It was checked when it came into the table, and nothing newer is being told.
                Some(known) if record.seq() <= known.record.seq() => self.heard(now, known.clone(), teller, lookup, fx),
                _ => unknown.push(record),
            }
        }
        if !unknown.is_empty() {
            let token = self.token();
            self.checks.insert(token, Check::Neighbors { teller, lookup });
            if let Some(lookup) = self.lookups.get_mut(&lookup) {
                lookup.checks += 1;
            }
            fx.emit(Out::Verify { token, records: unknown });
        }
    }

    /// A node that somebody told of, its record checked.
    pub(super) fn heard(&mut self, now: Time, contact: Contact, teller: Teller, lookup: u64, fx: &mut Fx) {
        if contact.id == self.me {
            return;
        }
        if let Some(lookup) = self.lookups.get_mut(&lookup) {
            lookup.see(contact.clone(), &teller.key);
        }
        let placed = self.table.heard_of(contact, Origin::Told(site(teller.addr.ip())));
        self.admitted(now, placed, fx);
    }

    /// A step of a lookup ended.
    pub(super) fn find_ended(&mut self, now: Time, id: NodeId, lookup: u64, answered: bool, some: bool, fx: &mut Fx) {
        if self.table.find_result(id, some) {
            self.remove(now, id, fx);
        }
        if let Some(lookup) = self.lookups.get_mut(&lookup) {
            lookup.done(id, answered);
        }
        self.advance(now, lookup, fx);
    }

    /// Finds a caller the newest record of a node: from itself if it is in the table, else from the network.
    pub(super) fn resolve(&mut self, now: Time, token: u64, id: NodeId, fx: &mut Fx) {
        if id == self.me {
            return fx.emit(Out::Answer { token, records: vec![self.local.clone()] });
        }
        if !self.admission.permits_id(&id) {
            return fx.emit(Out::Answer { token, records: Vec::new() });
        }
        match self.table.get(id).map(|entry| entry.contact.addr) {
            Some(addr) if self.ask(now, id, addr, Message::RecordRequest, Purpose::Resolve(token), fx) => {}
            _ => self.search_for(now, token, id, fx),
        }
    }

    /// The second way of [`resolve`](Self::resolve): ask the network.
    pub(super) fn search_for(&mut self, now: Time, token: u64, id: NodeId, fx: &mut Fx) {
        self.lookup_for(now, Key::of(id), Asker::Resolve(token, id), fx);
    }
}
