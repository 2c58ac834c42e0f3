//! Keeping the table: bootnodes, refresh, revalidation.

use std::net::Ipv4Addr;
use std::sync::Arc;

use peerage_machine::{Backoff, Time};
use peerage_wire::{Admission, NodeId};

use super::lookup::Asker;
use super::origin::Origin;
use super::requests::Purpose;
use super::table::{BUCKET_SIZE, Contact, List, Placed};
use super::{Bootnode, DiscoveryMachine, Fx, MAX_NAMED, Out, Timer};
use crate::count::Event;
use crate::key::Key;
use crate::net::canonical;
use crate::source::Source;
use crate::wire::Message;

/// Further lookups of a refresh, after the one for ourselves: random ones (geth), or into crowded buckets.
const RANDOM_LOOKUPS: usize = 3;

/// After so many refreshes their interval is about the longest.
const SETTLING_ROUNDS: u32 = 8;

/// Where the refresh stands.
#[derive(Default)]
pub(super) struct Refresh {
    /// The first one has ended.
    ready: bool,
    running: bool,
    /// The lookup for ourselves has ended and others run.
    spreading: bool,
    /// Lookups of this one that run.
    lookups: usize,
    /// Refreshes in a row that found nobody new.
    quiet: u32,
    found_somebody: bool,
    /// Refreshes that ended.
    rounds: u32,
    /// When the next one is due.
    next: Option<Time>,
    /// Attempts at the bootnodes in a row that left the table empty.
    bootstraps: u32,
}

impl Refresh {
    pub(super) fn ready(&self) -> bool {
        self.ready
    }
}

impl DiscoveryMachine {
    pub(super) fn start(&mut self, now: Time, fx: &mut Fx) {
        for list in [List::Fast, List::Slow] {
            self.schedule_check(now, list, fx);
        }
        for record in std::mem::take(&mut self.seeds) {
            // Our own memory may tell of any address.
            let endpoint = self.endpoint(&record, Ipv4Addr::LOCALHOST.into());
            let fits = record.id() != self.me && record.network() == self.local.network();
            if let Some(addr) = endpoint.ok().filter(|_| fits)
                && self.table.heard_of(Contact::new(addr, record), Origin::Chosen) == Placed::Added
            {
                self.unproven = true;
                fx.emit(Out::Event(Event::NodeAdded));
            }
        }
        if !self.table.is_empty() {
            self.begin_refresh(now, fx);
        } else if self.usable_bootnodes().is_empty() {
            // Whoever begins a network has nobody to refresh from.
            self.end_refresh(now, fx);
        } else {
            self.bootstrap(now, fx);
        }
    }

    /// Tries the bootnodes for as long as the table is empty.
    pub(super) fn bootstrap(&mut self, now: Time, fx: &mut Fx) {
        if !self.table.is_empty() || self.usable_bootnodes().is_empty() {
            self.refresh.bootstraps = 0;
            return;
        }
        fx.emit(Out::Event(Event::Bootstrap));
        self.refresh.bootstraps = self.refresh.bootstraps.saturating_add(1);
        let pause = self.config.bootstrap.delay(self.refresh.bootstraps, &mut self.rng);
        // An attempt takes up to two round trips, so the next never comes before its end.
        fx.arm(Timer::Bootstrap, now + pause + self.config.request_timeout * 2);
        self.ask_bootnodes(now, fx);
        self.regain(now, fx);
        // Where none can be asked (all are of a family without a socket here), none will fail either.
        self.bootnode_failed(now, fx);
    }

    /// The bootnodes that the policy admits.
    fn usable_bootnodes(&self) -> Vec<Bootnode> {
        let all = self.bootnodes.iter().chain(self.named.values().flatten());
        all.filter(|bootnode| self.admits(&bootnode.id, bootnode.addr.ip())).copied().collect()
    }

    /// A source tells whom to begin with: they are asked at once.
    pub(super) fn named(&mut self, now: Time, source: Source, mut nodes: Vec<Bootnode>, fx: &mut Fx) {
        nodes.truncate(MAX_NAMED);
        nodes.retain(|node| node.id != self.me);
        nodes.iter_mut().for_each(|node| node.addr = canonical(node.addr));
        if self.named.insert(source, nodes.clone()) == Some(nodes) {
            return;
        }
        if self.table.is_empty() { self.bootstrap(now, fx) } else { self.ask_bootnodes(now, fx) }
    }

    /// The policy changed: who is not admitted leaves, and bootnodes that are now are tried if nobody else is there.
    pub(super) fn readmit(&mut self, now: Time, admission: Arc<Admission>, fx: &mut Fx) {
        self.admission = admission;
        let policy = &self.admission;
        let admits = |contact: &Contact| policy.permits_id(&contact.id) && policy.permits_ip(contact.addr.ip());
        let removed = self.table.retain(&mut self.rng, admits);
        self.mix.retain(&self.admission);
        (0..removed).for_each(|_| fx.emit(Out::Event(Event::NodeRemoved)));
        // Some may be dialable now at an address that was not.
        self.supply_changed = true;
        if self.table.is_empty() {
            fx.arm(Timer::Bootstrap, now + self.config.bootstrap.delay(1, &mut self.rng));
        }
    }

    fn ask_bootnodes(&mut self, now: Time, fx: &mut Fx) {
        for bootnode in self.usable_bootnodes() {
            let known = self.table.get(bootnode.id).is_some();
            let asked = self.requests.any(|request| request.to == bootnode.id && request.purpose == Purpose::Bootnode);
            if !known && !asked && self.families.reach(bootnode.addr) {
                self.ask(now, bootnode.id, bootnode.addr, Message::RecordRequest, Purpose::Bootnode, fx);
            }
        }
    }

    /// A bootnode did not answer. When none did, this node accepts who comes to it: it may be the first up.
    pub(super) fn bootnode_failed(&mut self, now: Time, fx: &mut Fx) {
        if !self.refresh.ready
            && !self.refresh.running
            && !self.requests.any(|request| request.purpose == Purpose::Bootnode)
        {
            self.end_refresh(now, fx);
        }
    }

    /// Takes note of what became of a node offered to the table.
    pub(super) fn admitted(&mut self, now: Time, placed: Placed, fx: &mut Fx) {
        match placed {
            Placed::Added => {}
            // It may have a place if it answers.
            Placed::Replacement => return self.unproven = true,
            Placed::Inherited => {
                fx.emit(Out::Event(Event::NodeRemoved));
                fx.emit(Out::Event(Event::NodeAdded));
                return;
            }
            Placed::Updated | Placed::Known | Placed::Refused => return,
        }
        fx.emit(Out::Event(Event::NodeAdded));
        self.unproven = true;
        self.refresh.found_somebody = true;
        if self.table.len() == 1 {
            // The first contact, at start or after everybody was lost: the way into the network.
            self.refresh.bootstraps = 0;
            fx.disarm(Timer::Bootstrap);
            self.begin_refresh(now, fx);
        }
    }

    pub(super) fn remove(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        let lost = self.table.remove(id, &mut self.rng);
        // Somebody else may have its place, unasked.
        self.unproven = true;
        fx.emit(Out::Event(Event::NodeRemoved));
        if let Some(contact) = lost {
            self.lose(now, contact, fx);
        }
        if self.table.is_empty() {
            fx.arm(Timer::Bootstrap, now + self.config.bootstrap.delay(1, &mut self.rng));
        }
    }

    /// Begins a refresh unless one runs: a lookup for ourselves, then others.
    pub(super) fn begin_refresh(&mut self, now: Time, fx: &mut Fx) {
        if self.refresh.running {
            return;
        }
        fx.emit(Out::Event(Event::Refresh));
        fx.disarm(Timer::Refresh);
        self.refresh.running = true;
        self.refresh.spreading = false;
        self.refresh.next = None;
        self.refresh.lookups = 1;
        self.ask_bootnodes(now, fx);
        self.begin_lookup(now, Key::of(self.me), Asker::Refresh, fx);
    }

    /// A lookup of the refresh ended.
    pub(super) fn refresh_step(&mut self, now: Time, fx: &mut Fx) {
        self.refresh.lookups = self.refresh.lookups.saturating_sub(1);
        if self.refresh.lookups > 0 {
            return;
        }
        if self.refresh.spreading || self.table.is_empty() {
            return self.end_refresh(now, fx);
        }
        // A bucket that a few sites fill has not met those who would get their places.
        let crowded = self.table.crowded_buckets().into_iter().take(RANDOM_LOOKUPS);
        let mut targets: Vec<Key> = crowded.map(|index| self.table.point_in(index, &mut self.rng)).collect();
        // Between the first refresh and those of the long interval only they and the own neighbourhood are to be met.
        let settling = !self.hungry() && (1..SETTLING_ROUNDS).contains(&self.refresh.rounds);
        if !settling {
            // With few nodes every lookup asks all of them.
            let random = if self.table.len() < BUCKET_SIZE { 1 } else { RANDOM_LOOKUPS };
            targets.resize_with(random.max(targets.len()), || Key::from_bytes(self.rng.bytes()));
        }
        if targets.is_empty() {
            return self.end_refresh(now, fx);
        }
        self.refresh.spreading = true;
        self.refresh.lookups = targets.len();
        targets.into_iter().for_each(|target| self.begin_lookup(now, target, Asker::Refresh, fx));
    }

    fn end_refresh(&mut self, now: Time, fx: &mut Fx) {
        self.refresh.ready = true;
        self.refresh.running = false;
        self.refresh.rounds = self.refresh.rounds.saturating_add(1);
        self.refresh.quiet = if self.refresh.found_somebody { 0 } else { self.refresh.quiet.saturating_add(1) };
        self.refresh.found_somebody = false;
        self.schedule_refresh(now, fx);
    }

    /// Sets the next refresh: soon and then ever later while more nodes are needed, else after a time drawn from
    /// the upper half of the configured one.
    pub(super) fn schedule_refresh(&mut self, now: Time, fx: &mut Fx) {
        let cap = match (self.wanted > 0, self.hungry()) {
            (true, _) => self.config.refresh_wanted,
            (false, true) => self.config.refresh,
            // Whoever came up together with its neighbours may have been overlooked by them: it shows itself again soon,
            // and then ever more seldom.
            (false, false) => {
                let settling = Backoff { base: self.config.refresh_settling, cap: self.config.refresh };
                return self.set_refresh(now, settling, self.refresh.rounds, fx);
            }
        };
        let hungry = Backoff { base: self.config.refresh_hungry, cap };
        self.set_refresh(now, hungry, self.refresh.quiet.saturating_add(1), fx);
    }

    fn set_refresh(&mut self, now: Time, pause: Backoff, attempt: u32, fx: &mut Fx) {
        let at = now + pause.delay(attempt, &mut self.rng);
        self.refresh.next = Some(at);
        fx.arm(Timer::Refresh, at);
    }

    /// The dialer began to wait: the next refresh must not be far.
    pub(super) fn hurry(&mut self, now: Time, fx: &mut Fx) {
        let latest = now + self.config.refresh_wanted;
        if !self.refresh.running && self.refresh.ready && self.refresh.next.is_none_or(|next| next > latest) {
            self.schedule_refresh(now, fx);
        }
    }

    fn schedule_check(&mut self, now: Time, list: List, fx: &mut Fx) {
        let interval = match list {
            List::Fast => self.config.revalidate_fast,
            List::Slow => self.config.revalidate_slow,
        };
        let pause = self.rng.below(u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX));
        fx.arm(Timer::Revalidate(list), now + std::time::Duration::from_nanos(pause));
    }

    /// Checks one random member of a list.
    pub(super) fn revalidate(&mut self, now: Time, list: List, fx: &mut Fx) {
        // First of all, so that nothing below can stop the checks for good (go-ethereum issue 30239).
        self.schedule_check(now, list, fx);
        let waiting: Vec<NodeId> = self
            .table
            .entries()
            .filter(|entry| entry.list == list)
            .map(|entry| entry.contact.id)
            .filter(|id| !self.requests.any(|request| request.to == *id && request.purpose == Purpose::Revalidate))
            .collect();
        let Some(id) = self.rng.index(waiting.len()).map(|at| waiting[at]) else { return };
        if let Some(addr) = self.table.get(id).map(|entry| entry.contact.addr) {
            let ping = Message::Ping { record_seq: self.local.seq() };
            self.ask(now, id, addr, ping, Purpose::Revalidate, fx);
        }
    }
}
