//! The dial scheduler's rules, event by event (geth `p2p/dial.go`).

mod ask;
mod attempts;
mod memory;
mod statics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_wire::{NodeId, NodeRecord, Verified};

use self::ask::Ask;
use self::attempts::InFlight;
use self::memory::{Memory, Verdict};
use self::statics::Statics;
use crate::messages::dialable;
use crate::{Attempt, Config, ConfigError, Count, DialTarget, In, Out, Refusal, StaticPeer};

type Fx = Effects<Out, Timer>;

/// The dialer's timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The answer to an attempt's resolution or dial is overdue.
    Deadline(Attempt),
    /// A static peer is not held back any more.
    Static(NodeId),
    /// Candidates may be asked for again.
    Ask,
    /// Every static peer is looked at.
    Sweep,
}

/// What the dialer is at, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Connected peers that this end dialled, static ones not counted.
    pub dialled_peers: u32,
    /// Attempts in flight, static ones not counted.
    pub dialing: u32,
    /// Attempts at static peers in flight.
    pub dialing_static: u32,
    /// Slots free for candidates.
    pub free_slots: u32,
    /// Static peers known.
    pub statics: usize,
    /// Nodes whose dials and failures are remembered.
    pub remembered: usize,
}

/// Decides whom to dial.
///
/// Peers and pending inbound connections are as many as the root has places and handshake slots; all else
/// is bounded by the [`Config`].
#[derive(Debug)]
pub struct DialerMachine {
    config: Config,
    id: NodeId,
    rng: Rng,
    started: bool,
    next_attempt: u64,
    in_flight: BTreeMap<Attempt, InFlight>,
    attempt_of: BTreeMap<NodeId, Attempt>,
    /// Connected peers, and whether this end dialled.
    peers: BTreeMap<NodeId, bool>,
    /// Inbound connections being set up, by node: a node may try more than one.
    inbound: BTreeMap<NodeId, u32>,
    statics: Statics,
    memory: Memory,
    /// Candidates that passed the checks and wait for a slot: slots can go between the wish and the answer.
    waiting: VecDeque<DialTarget>,
    ask: Ask,
}

impl DialerMachine {
    /// The dialer of the node `id`. It dials nobody before [`In::Start`].
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(config: Config, id: NodeId, rng: Rng) -> Result<DialerMachine, ConfigError> {
        config.check()?;
        Ok(DialerMachine {
            id,
            rng,
            started: false,
            next_attempt: 0,
            in_flight: BTreeMap::new(),
            attempt_of: BTreeMap::new(),
            peers: BTreeMap::new(),
            inbound: BTreeMap::new(),
            statics: Statics::default(),
            memory: Memory::new(config.max_remembered, config.forget_after),
            waiting: VecDeque::new(),
            ask: Ask::new(config.ask),
            config,
        })
    }

    /// Its numbers at this moment.
    pub fn status(&self) -> Status {
        Status {
            dialled_peers: self.dialled_peers(),
            dialing: self.dialing(false),
            dialing_static: self.dialing(true),
            free_slots: self.free_slots(),
            statics: self.statics.len(),
            remembered: self.memory.len(),
        }
    }

    // ---- Slots.

    fn dialled_peers(&self) -> u32 {
        count(self.peers.iter().filter(|(id, dialled)| **dialled && !self.statics.contains(id)))
    }

    fn dialing(&self, is_static: bool) -> u32 {
        count(self.in_flight.values().filter(|flight| flight.is_static == is_static))
    }

    fn free_slots(&self) -> u32 {
        let missing = self.config.max_dial_peers.saturating_sub(self.dialled_peers());
        missing.saturating_mul(2).min(self.config.max_active_dials).saturating_sub(self.dialing(false))
    }

    // ---- Checks.

    /// Whether `id` may be dialled now; geth's `checkDial`, and the back-off.
    fn check(&self, now: Time, id: &NodeId, has_address: bool) -> Result<(), Refusal> {
        if *id == self.id {
            Err(Refusal::OwnId)
        } else if !has_address {
            Err(Refusal::NoAddress)
        } else if self.attempt_of.contains_key(id) {
            Err(Refusal::AlreadyDialing)
        } else if self.peers.contains_key(id) {
            Err(Refusal::AlreadyConnected)
        } else if self.inbound.contains_key(id) {
            Err(Refusal::PendingInbound)
        } else {
            self.memory.holds(now, id).map_or(Ok(()), |(_, refusal)| Err(refusal))
        }
    }

    fn check_candidate(&self, now: Time, target: &DialTarget) -> Result<(), Refusal> {
        if self.statics.contains(&target.id) {
            return Err(Refusal::Static);
        }
        self.check(now, &target.id, !target.addresses.is_empty())?;
        if self.memory.has_room(now, &target.id) { Ok(()) } else { Err(Refusal::MemoryFull) }
    }

    /// Puts a static peer into the pool, or arms the timer that will, or leaves it to the event that ends
    /// what is in its way. Called on each such event: attempt done, peer down, inbound done, timer, sweep.
    fn refresh_static(&mut self, now: Time, id: &NodeId, fx: &mut Fx) {
        if !self.statics.contains(id) {
            return;
        }
        let held_until = match self.check(now, id, true) {
            Ok(()) if self.statics.addresses(id).is_empty() => {
                self.statics.resolve_after(id).filter(|resolve_after| *resolve_after > now)
            }
            Ok(()) => None,
            Err(Refusal::RecentlyDialled | Refusal::BackingOff) => self.memory.holds(now, id).map(|(until, _)| until),
            Err(_) => {
                self.statics.unpool(id);
                fx.disarm(Timer::Static(*id));
                return;
            }
        };
        match held_until {
            None => {
                self.statics.pool(id);
                fx.disarm(Timer::Static(*id));
            }
            Some(until) => {
                self.statics.unpool(id);
                fx.arm(Timer::Static(*id), until);
            }
        }
    }

    // ---- Scheduling.

    /// Starts what there are slots for, static peers first, and asks for candidates if slots remain.
    fn schedule(&mut self, now: Time, fx: &mut Fx) {
        if !self.started {
            return;
        }
        let static_slots = self.config.max_static_dials.saturating_sub(self.dialing(true));
        for _ in 0..static_slots {
            let Some(id) = self.statics.pick(&mut self.rng) else { break };
            self.begin_static(now, id, fx);
        }
        while self.free_slots() > 0
            && let Some(target) = self.waiting.pop_front()
        {
            match self.check_candidate(now, &target) {
                Ok(()) => {
                    self.ask.hurry();
                    let attempt = self.begin(now, target.id, false);
                    self.dial(now, attempt, target.addresses, fx);
                }
                Err(refusal) => fx.emit(Out::Count(Count::Dropped(refusal))),
            }
        }
        match NonZeroU32::new(self.free_slots()) {
            None => fx.disarm(Timer::Ask),
            Some(_) if now < self.ask.next_at() => fx.arm(Timer::Ask, self.ask.next_at()),
            Some(free) => {
                fx.emit(Out::Want(free));
                self.ask.asked(now, free.get(), &mut self.rng);
                fx.arm(Timer::Ask, self.ask.next_at());
            }
        }
    }

    // ---- Peers.

    fn peer_up(&mut self, now: Time, id: NodeId, dialled: bool, fx: &mut Fx) {
        self.peers.insert(id, dialled);
        // A session the peer began wins; a dial of this end could only be refused as the second one.
        if !dialled && let Some(attempt) = self.attempt_of.get(&id).copied() {
            self.cancel(now, attempt, fx);
        }
        self.refresh_static(now, &id, fx);
        self.cancel_surplus(now, fx);
    }

    fn peer_down(&mut self, now: Time, id: NodeId, dialled: bool, lived: Duration, fx: &mut Fx) {
        self.peers.remove(&id);
        if lived >= self.config.stable_after {
            self.memory.lived(&id);
        } else if dialled {
            self.failed(now, id, Verdict::BackOff);
        }
        self.ask.hurry();
        self.refresh_static(now, &id, fx);
    }

    fn inbound_done(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        if let Some(pending) = self.inbound.get_mut(&id) {
            *pending -= 1;
            if *pending == 0 {
                self.inbound.remove(&id);
                self.refresh_static(now, &id, fx);
            }
        }
    }

    // ---- Static peers and candidates.

    fn add_static(&mut self, now: Time, peer: StaticPeer, fx: &mut Fx) {
        let id = peer.id;
        let is_new = !self.statics.contains(&id);
        if id == self.id || (is_new && self.statics.len() >= self.config.max_statics) {
            return fx.emit(Out::Count(Count::StaticRefused));
        }
        self.statics.add(now, peer);
        self.refresh_static(now, &id, fx);
    }

    fn remove_static(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        if !self.statics.remove(&id) {
            return;
        }
        fx.disarm(Timer::Static(id));
        if let Some(attempt) = self.attempt_of.get(&id).copied()
            && self.in_flight.get(&attempt).is_some_and(|flight| flight.is_static)
        {
            self.cancel(now, attempt, fx);
        }
        // A session with it is an ordinary dialled one from now on.
        self.cancel_surplus(now, fx);
    }

    fn candidates(&mut self, now: Time, records: Vec<Verified<NodeRecord>>, fx: &mut Fx) {
        for record in records {
            if let Err(refusal) = self.candidate(now, &record, fx) {
                fx.emit(Out::Count(Count::Dropped(refusal)));
            }
        }
    }

    fn candidate(&mut self, now: Time, record: &NodeRecord, fx: &mut Fx) -> Result<(), Refusal> {
        if !self.ask.answered() {
            return Err(Refusal::Unsolicited);
        }
        let target = DialTarget { id: record.id(), addresses: dialable(record), is_static: false };
        if self.statics.contains(&target.id) {
            self.statics.learn(record);
            self.refresh_static(now, &target.id, fx);
        }
        self.check_candidate(now, &target)?;
        if self.waiting.iter().any(|waiting| waiting.id == target.id) {
            return Err(Refusal::Waiting);
        }
        if u32::try_from(self.waiting.len()).is_ok_and(|waiting| waiting >= self.config.max_active_dials) {
            return Err(Refusal::NoSlot);
        }
        self.waiting.push_back(target);
        Ok(())
    }

    fn sweep(&mut self, now: Time, fx: &mut Fx) {
        for id in self.statics.ids() {
            self.refresh_static(now, &id, fx);
        }
        fx.arm(Timer::Sweep, now + self.config.sweep);
    }

    fn start(&mut self, now: Time, fx: &mut Fx) {
        if !self.started {
            self.started = true;
            // Numbers of an earlier life of this dialer are below: nobody dials once a nanosecond.
            let floor = u64::try_from(now.running().as_nanos()).unwrap_or(u64::MAX);
            self.next_attempt = self.next_attempt.max(floor);
            fx.arm(Timer::Sweep, now + self.config.sweep);
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

impl Machine for DialerMachine {
    type In = In;
    type Out = Out;
    type Timer = Timer;

    fn handle(&mut self, now: Time, input: In, fx: &mut Fx) {
        self.memory.forget(now);
        match input {
            In::Start => self.start(now, fx),
            In::AddStatic(peer) => self.add_static(now, peer, fx),
            In::RemoveStatic(id) => self.remove_static(now, id, fx),
            In::PeerUp { id, dialled } => self.peer_up(now, id, dialled, fx),
            In::PeerDown { id, dialled, lived } => self.peer_down(now, id, dialled, lived, fx),
            In::InboundPending(id) => {
                let pending = self.inbound.entry(id).or_default();
                *pending = pending.saturating_add(1);
                self.refresh_static(now, &id, fx);
            }
            In::InboundDone(id) => self.inbound_done(now, id, fx),
            In::Done { attempt, outcome } => self.done(now, attempt, outcome, fx),
            In::Resolved { attempt, record } => self.resolved(now, attempt, record, fx),
            In::Candidates(records) => self.candidates(now, records, fx),
        }
        self.schedule(now, fx);
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        self.memory.forget(now);
        match timer {
            Timer::Deadline(attempt) => self.overdue(now, attempt, fx),
            Timer::Static(id) => self.refresh_static(now, &id, fx),
            Timer::Ask => {}
            Timer::Sweep => self.sweep(now, fx),
        }
        self.schedule(now, fx);
    }
}
