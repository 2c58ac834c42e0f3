//! The dial scheduler's rules, event by event (geth `p2p/dial.go`).

mod ask;
mod attempts;
mod candidates;
mod keep;
mod lonely;
mod memory;
mod seeking;
mod sockets;
mod statics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::{Effects, Machine, Rng, Time};
use peerage_wire::{Admission, Consequence, NodeId};

use self::ask::Ask;
use self::attempts::InFlight;
use self::lonely::Lonely;
use self::memory::Memory;
use self::seeking::Seeking;
use self::sockets::Sockets;
use self::statics::Statics;
use crate::{Attempt, Cause, Config, ConfigError, DialTarget, In, Out, Refusal};

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
    /// There was neither a dialled nor a static peer for too long.
    Lonely,
    /// It is said why peers are missing.
    Report,
}

/// What the dialer is at, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether anybody is dialled at all.
    pub enabled: bool,
    /// Peers it wants to have dialled, static ones not counted.
    pub wanted: u32,
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

/// The inbound connections of a node that are being set up: it may try more than one.
#[derive(Clone, Copy, Debug)]
struct Pending {
    count: u32,
    /// When the latest began.
    latest: Time,
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
    paused: bool,
    next_attempt: u64,
    in_flight: BTreeMap<Attempt, InFlight>,
    attempt_of: BTreeMap<NodeId, Attempt>,
    /// Connected peers, and whether this end dialled.
    peers: BTreeMap<NodeId, bool>,
    inbound: BTreeMap<NodeId, Pending>,
    admission: Arc<Admission>,
    statics: Statics,
    memory: Memory,
    /// As many as nodes are remembered.
    sockets: Sockets,
    /// Who waits for a slot: anchors, before the start and until they are dialled, and candidates that passed
    /// the checks, as slots can go between the wish and the answer. At most the larger of [`MAX_ANCHORS`] and
    /// [`max_active_dials`](Config::max_active_dials).
    ///
    /// [`MAX_ANCHORS`]: crate::MAX_ANCHORS
    waiting: VecDeque<DialTarget>,
    ask: Ask,
    lonely: Lonely,
    seeking: Seeking,
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
            paused: false,
            next_attempt: 0,
            in_flight: BTreeMap::new(),
            attempt_of: BTreeMap::new(),
            peers: BTreeMap::new(),
            inbound: BTreeMap::new(),
            admission: Arc::new(Admission::open()),
            statics: Statics::default(),
            memory: Memory::new(config.max_remembered, config.forget_after),
            sockets: Sockets::new(config.max_remembered),
            waiting: VecDeque::new(),
            ask: Ask::new(config.ask),
            lonely: Lonely::default(),
            seeking: Seeking::default(),
            config,
        })
    }

    /// Plants a bug: history and back-off last a thousandth of their time, so that a node is dialled again at once. For
    /// tests of the world, which must catch it.
    #[cfg(any(test, feature = "planted-bugs"))]
    #[doc(hidden)]
    pub fn plant_bug(&mut self) {
        self.memory.plant_bug();
    }

    /// Its numbers at this moment.
    pub fn status(&self) -> Status {
        Status {
            enabled: self.config.dialing,
            wanted: self.config.max_dial_peers,
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
        if !self.config.dialing {
            return 0;
        }
        let missing = self.config.max_dial_peers.saturating_sub(self.dialled_peers());
        missing.saturating_mul(2).min(self.config.max_active_dials).saturating_sub(self.dialing(false))
    }

    /// Static peers that hold one of their places.
    fn statics_connected(&self) -> u32 {
        count(self.peers.keys().filter(|id| self.statics.contains(id)))
    }

    /// How many more static peers may be dialled. One that dials this node takes a place, too, and so does one that
    /// was dialled before it was named.
    fn static_slots(&self) -> u32 {
        let comes = self.inbound.keys().chain(self.attempt_of.keys());
        let coming = comes.filter(|id| self.statics.contains(id) && !self.peers.contains_key(id));
        let coming = count(coming.collect::<BTreeSet<_>>().into_iter());
        let places = self.config.max_static_peers.saturating_sub(self.statics_connected()).saturating_sub(coming);
        places.min(self.config.max_static_dials.saturating_sub(self.dialing(true)))
    }

    // ---- Checks.

    /// Whether `id` may be dialled now; geth's `checkDial`, and the back-off. If no address is known, the
    /// policy is asked again when one was found.
    fn check(&self, now: Time, id: &NodeId, addresses: &[SocketAddr]) -> Result<(), Refusal> {
        if self.attempt_of.contains_key(id) {
            Err(Refusal::AlreadyDialing)
        } else if self.peers.contains_key(id) {
            Err(Refusal::AlreadyConnected)
        } else if self.inbound.contains_key(id) {
            Err(Refusal::PendingInbound)
        } else if !self.admits(id, addresses) {
            Err(Refusal::Restricted)
        } else {
            self.memory.holds(now, id).map_or(Ok(()), |(_, refusal)| Err(refusal))
        }
    }

    fn admits(&self, id: &NodeId, addresses: &[SocketAddr]) -> bool {
        let admitted = |address: &SocketAddr| self.admission.permits_ip(address.ip());
        self.admission.permits_id(id) && (addresses.is_empty() || addresses.iter().any(admitted))
    }

    fn set_admission(&mut self, now: Time, admission: Arc<Admission>, fx: &mut Fx) {
        self.admission = admission;
        let outside = |flight: &InFlight| {
            !self.admission.permits_id(&flight.id)
                || flight.current().iter().any(|address| !self.admission.permits_ip(address.ip()))
        };
        for attempt in self.attempts(outside) {
            self.cancel(now, attempt, fx);
        }
        self.refresh_statics(now, fx);
    }

    // ---- Scheduling.

    /// Starts what there are slots for, static peers first, and asks for candidates if slots remain.
    fn schedule(&mut self, now: Time, fx: &mut Fx) {
        if !self.started || !self.config.dialing || self.paused {
            return;
        }
        self.mind_loneliness(now, fx);
        for _ in 0..self.static_slots() {
            let Some(id) = self.statics.pick(&mut self.rng) else { break };
            self.begin_static(now, id, fx);
        }
        self.dial_bootnode(now, fx);
        while self.free_slots() > 0
            && let Some(target) = self.waiting.pop_front()
        {
            match self.check_candidate(now, &target) {
                Ok(()) => {
                    self.ask.hurry();
                    let DialTarget { id, mut addresses, .. } = target;
                    addresses.retain(|address| self.may_dial_at(now, address, &id));
                    let attempt = self.begin(now, id, false);
                    self.dial(now, attempt, addresses, fx);
                }
                Err(refusal) => self.refuse(target.id, refusal, fx),
            }
        }
        match NonZeroU32::new(self.free_slots()).filter(|_| self.config.candidates) {
            None => fx.disarm(Timer::Ask),
            Some(_) if now < self.ask.next_at() => fx.arm(Timer::Ask, self.ask.next_at()),
            Some(free) => {
                fx.emit(Out::Want(free));
                self.seeking.asked();
                self.ask.asked(now, free.get(), &mut self.rng);
                fx.arm(Timer::Ask, self.ask.next_at());
            }
        }
        self.seek(now, fx);
    }

    // ---- Peers.

    fn peer_up(&mut self, now: Time, id: NodeId, dialled: bool, fx: &mut Fx) {
        self.peers.insert(id, dialled);
        self.static_missing(&id, None);
        // A session the peer began wins; a dial of this end could only be refused as the second one.
        if !dialled && let Some(attempt) = self.attempt_of.get(&id).copied() {
            self.cancel(now, attempt, fx);
        }
        self.refresh_static(now, &id, fx);
        self.cancel_surplus(now, fx);
    }

    fn peer_down(
        &mut self,
        now: Time,
        id: NodeId,
        dialled: bool,
        lived: Duration,
        consequence: Consequence,
        fx: &mut Fx,
    ) {
        self.peers.remove(&id);
        let stayed = lived >= self.config.stable_after;
        if stayed {
            self.memory.lived(&id);
            if dialled || self.statics.contains(&id) {
                self.lonely.had_company();
            }
        }
        match consequence {
            // It will not do better soon. Of those who came by themselves only who is known anyway: visitors must not
            // fill the memory.
            Consequence::Avoid | Consequence::Blame(_)
                if dialled || self.memory.knows(&id) || self.statics.contains(&id) =>
            {
                self.failed(now, id, consequence);
            }
            _ if dialled && !stayed => self.failed(now, id, Consequence::BackOff),
            _ => {}
        }
        if dialled && !stayed {
            if self.statics.contains(&id) {
                self.static_missing(&id, Some(Cause::Dropped));
            } else {
                self.blame(Cause::Dropped, fx);
            }
        }
        self.ask.hurry();
        self.refresh_static(now, &id, fx);
    }

    fn inbound_pending(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        let pending = self.inbound.entry(id).or_insert(Pending { count: 0, latest: now });
        *pending = Pending { count: pending.count.saturating_add(1), latest: now };
        self.refresh_static(now, &id, fx);
    }

    fn inbound_done(&mut self, now: Time, id: NodeId, fx: &mut Fx) {
        if let Some(pending) = self.inbound.get_mut(&id) {
            pending.count -= 1;
            if pending.count == 0 {
                self.inbound.remove(&id);
                self.refresh_static(now, &id, fx);
            }
        }
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
        self.sockets.forget(now);
        match input {
            In::Start => self.start(now, fx),
            In::Admission(admission) => self.set_admission(now, admission, fx),
            In::Anchors(anchors) => self.anchors(anchors, fx),
            In::Bootnodes(bootnodes) => self.set_bootnodes(bootnodes),
            In::AddStatic(peer) => self.add_static(now, peer, fx),
            In::RemoveStatic(id) => self.remove_static(now, id, fx),
            In::PeerUp { id, dialled } => self.peer_up(now, id, dialled, fx),
            In::PeerDown { id, dialled, lived, consequence } => {
                self.peer_down(now, id, dialled, lived, consequence, fx);
            }
            In::InboundPending(id) => self.inbound_pending(now, id, fx),
            In::InboundDone(id) => self.inbound_done(now, id, fx),
            In::Done { attempt, outcome } => self.done(now, attempt, outcome, fx),
            In::Resolved { attempt, record } => self.resolved(now, attempt, record, fx),
            In::Candidates(found) => self.candidates(now, found, fx),
            In::Limits { max_dial_peers, max_static_peers } => {
                (self.config.max_dial_peers, self.config.max_static_peers) = (max_dial_peers, max_static_peers);
                self.cancel_surplus(now, fx);
            }
            In::Pause(paused) => self.paused = paused,
        }
        self.schedule(now, fx);
    }

    fn expire(&mut self, now: Time, timer: Timer, fx: &mut Fx) {
        self.memory.forget(now);
        self.sockets.forget(now);
        match timer {
            Timer::Deadline(attempt) => self.overdue(now, attempt, fx),
            Timer::Static(id) => self.refresh_static(now, &id, fx),
            Timer::Ask => {}
            Timer::Sweep => self.sweep(now, fx),
            Timer::Lonely => self.lonely.expired(now),
            Timer::Report => self.report(fx),
        }
        self.schedule(now, fx);
    }
}
