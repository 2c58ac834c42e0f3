//! The order of each publisher: what may go on, what waits for what is before it, and what came too late.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::Time;
use peerage_wire::NodeId;

use super::DurableConfig;
use crate::message::MessageId;

/// The first number of each life of a publisher is a multiple of this, and none of its others is.
pub(crate) const FIRST_OF_LIFE: u64 = 1 << 20;
/// Longer than it is between two looks at peers' logs while nothing is missing.
const FETCHED_LATELY: Duration = Duration::from_secs(150);

/// How long what is held waits.
#[derive(Clone, Copy, Debug)]
struct Patience {
    hold: Duration,
    hold_most: Duration,
    /// When something came last that others waited for.
    progress: Time,
    /// While peers' logs are looked through: what has been looked for, and how long the rest waits.
    asking: Option<(Option<Time>, Duration)>,
}

/// A message that has no position yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) id: MessageId,
    pub(super) publisher: NodeId,
    pub(super) sequence: u64,
    pub(super) item: Bytes,
}

#[derive(Debug)]
struct Publisher {
    /// The sequence that went on last. None before the first one.
    last: Option<u64>,
    /// When something of it came last.
    heard: Time,
    /// With the time at which each came.
    held: BTreeMap<u64, (Arrival, Time)>,
    bytes: usize,
    /// Since when something is held without a pause.
    since: Time,
    /// Whether that was counted anew when peers' logs had been looked through.
    extended: bool,
}

/// What became of an arrival, besides what goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It goes on, and perhaps others after it.
    Goes,
    /// It waits.
    Held,
    /// It is held already, or was given out, or one after it was.
    Late,
    /// There are too many publishers.
    Refused,
}

#[derive(Debug)]
pub(super) struct Order {
    hold: Duration,
    hold_most: Duration,
    catch_up_most: Duration,
    max_bytes: usize,
    max_publishers: usize,
    /// How long a publisher is remembered that is silent.
    remember: Duration,
    publishers: BTreeMap<NodeId, Publisher>,
    bytes: usize,
    /// When something came last that others waited for.
    progress: Time,
    /// Whether peers' logs are being looked through.
    running: bool,
    /// What was missing at that time was looked for in peers' logs.
    until: Option<Time>,
}

impl Order {
    pub(super) fn new(config: &DurableConfig, remember: Duration) -> Order {
        Order {
            hold: config.hold,
            hold_most: config.hold_most,
            catch_up_most: config.catch_up_most,
            max_bytes: config.held_bytes,
            max_publishers: config.publishers,
            remember,
            publishers: BTreeMap::new(),
            bytes: 0,
            progress: Time::ZERO,
            running: false,
            until: None,
        }
    }

    /// Whether peers' logs are being looked through.
    pub(super) fn catches_up(&self) -> bool {
        self.running
    }

    /// Looking through peers' logs began or ended.
    pub(super) fn catch_up(&mut self, now: Time, running: bool, until: Option<Time>) {
        self.running = running;
        self.until = until.or(self.until);
        if !running {
            // What they brought has its usual time, once.
            for publisher in self.publishers.values_mut().filter(|publisher| !publisher.held.is_empty()) {
                if !std::mem::replace(&mut publisher.extended, true) {
                    publisher.since = now;
                }
            }
        }
    }

    /// How far it is, from a publisher on; and the last publisher that this speaks of.
    pub(super) fn known(&self, first: NodeId, most: usize) -> (NodeId, Vec<(NodeId, u64)>) {
        let known = self.publishers.range(first..).filter_map(|(id, publisher)| Some((*id, publisher.last?)));
        let known: Vec<(NodeId, u64)> = known.take(most).collect();
        let full = known.len() >= most;
        let last = known.last().filter(|_| full).map_or(NodeId::from_bytes([0xff; 32]), |(id, _)| *id);
        (last, known)
    }

    /// While there is too much of them: the latest of those that are held, of whoever has most. Answers their ids.
    pub(super) fn shed(&mut self) -> Vec<MessageId> {
        let mut shed = Vec::new();
        while self.bytes > self.max_bytes {
            let Some(fullest) = self.publishers.values_mut().max_by_key(|publisher| publisher.bytes) else { break };
            let Some((_, (arrival, _))) = fullest.held.pop_last() else { break };
            fullest.bytes -= arrival.item.len();
            self.bytes -= arrival.item.len();
            shed.push(arrival.id);
        }
        shed
    }

    /// Whether a message begins a life of its publisher before which nothing is missing: its number says that it begins
    /// one, what peers' logs have of an earlier one was fetched lately, and what may still be under way of it had time.
    fn begins(&self, now: Time, known: Option<&Publisher>, sequence: u64) -> bool {
        let fetched = self.until.is_some_and(|until| now.since(until) <= FETCHED_LATELY);
        let settled = known.is_none_or(|known| known.held.is_empty() && now.since(known.heard) >= self.hold);
        sequence.is_multiple_of(FIRST_OF_LIFE) && fetched && settled
    }

    /// What went on in an earlier life.
    pub(super) fn restore(&mut self, now: Time, publisher: NodeId, sequence: u64) {
        let known = self.publishers.entry(publisher).or_insert_with(|| Publisher {
            last: None,
            heard: now,
            held: BTreeMap::new(),
            bytes: 0,
            since: now,
            extended: false,
        });
        known.last = known.last.max(Some(sequence));
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Places an arrival; `first` says that nothing of its publisher is missing before it. What goes on is added to
    /// `out`, in order.
    pub(super) fn place(&mut self, now: Time, arrival: Arrival, first: bool, out: &mut Vec<Arrival>) -> Placed {
        if !self.publishers.contains_key(&arrival.publisher) && self.publishers.len() >= self.max_publishers {
            self.forget_silent(now);
            if self.publishers.len() >= self.max_publishers {
                return Placed::Refused;
            }
        }
        let first = first || self.begins(now, self.publishers.get(&arrival.publisher), arrival.sequence);
        let publisher = self.publishers.entry(arrival.publisher).or_insert_with(|| Publisher {
            last: None,
            heard: now,
            held: BTreeMap::new(),
            bytes: 0,
            since: now,
            extended: false,
        });
        publisher.heard = now;
        let sequence = arrival.sequence;
        if publisher.last.is_some_and(|last| sequence <= last) || publisher.held.contains_key(&sequence) {
            return Placed::Late;
        }
        if publisher.held.last_key_value().is_some_and(|(highest, _)| sequence < *highest) {
            self.progress = now;
        }
        if first || publisher.last.is_some_and(|last| last + 1 == sequence) {
            publisher.last = Some(sequence);
            out.push(arrival);
            self.bytes -= publisher.release(|last, next| last.checked_add(1) == Some(next), out);
            return Placed::Goes;
        }
        if publisher.held.is_empty() {
            (publisher.since, publisher.extended) = (now, false);
        }
        publisher.bytes += arrival.item.len();
        self.bytes += arrival.item.len();
        publisher.held.insert(sequence, (arrival, now));
        Placed::Held
    }

    /// What waits no longer: those whose time is over, and those of whoever has most while there is too much. Answers
    /// how often something was given up.
    pub(super) fn release_due(&mut self, now: Time, out: &mut Vec<Arrival>) -> u64 {
        let mut given_up = 0;
        let patience = self.patience();
        for publisher in self.publishers.values_mut() {
            // Once one goes, those after it go that follow it; another gap has its own time.
            while publisher.first_deadline(&patience).is_some_and(|deadline| deadline <= now) {
                self.bytes -= publisher.give_up(out);
                given_up += 1;
            }
        }
        while self.bytes > self.max_bytes {
            let Some(fullest) = self.publishers.values_mut().max_by_key(|publisher| publisher.bytes) else { break };
            self.bytes -= fullest.give_up(out);
            given_up += 1;
        }
        given_up
    }

    /// When [`release_due`](Order::release_due) has something to do. What comes later is due later, so who has set a
    /// timer need not ask again before it has expired.
    pub(super) fn deadline(&self) -> Option<Time> {
        let patience = self.patience();
        self.publishers.values().filter_map(|publisher| publisher.first_deadline(&patience)).min()
    }

    fn patience(&self) -> Patience {
        let (hold, hold_most, progress) = (self.hold, self.hold_most, self.progress);
        let asking = self.running.then_some((self.until, self.catch_up_most));
        Patience { hold, hold_most, progress, asking }
    }

    fn forget_silent(&mut self, now: Time) {
        let remember = self.remember;
        self.publishers.retain(|_, known| !known.held.is_empty() || now.since(known.heard) <= remember);
    }
}

impl Publisher {
    /// When the lowest of what is held waits no longer: it is the one that all others wait for too.
    fn first_deadline(&self, patience: &Patience) -> Option<Time> {
        let (_, (_, came)) = self.held.first_key_value()?;
        match patience.asking {
            // What it waits for was not looked for yet.
            Some((until, most)) if until.is_none_or(|until| *came > until) => Some(self.since + most),
            _ => Some(((*came).max(patience.progress) + patience.hold).min(self.since + patience.hold_most)),
        }
    }

    /// Lets go of the lowest one, and of those that follow it. Answers their bytes.
    fn give_up(&mut self, out: &mut Vec<Arrival>) -> usize {
        let mut first = true;
        self.release(|last, next| std::mem::take(&mut first) || last.checked_add(1) == Some(next), out)
    }

    /// Lets the lowest go as long as they may. Answers their bytes.
    fn release(&mut self, mut may: impl FnMut(u64, u64) -> bool, out: &mut Vec<Arrival>) -> usize {
        let mut bytes = 0;
        while let Some(entry) = self.held.first_entry() {
            let sequence = *entry.key();
            if !may(self.last.unwrap_or(0), sequence) {
                break;
            }
            let (arrival, _) = entry.remove();
            self.last = Some(sequence);
            bytes += arrival.item.len();
            out.push(arrival);
        }
        self.bytes -= bytes;
        bytes
    }
}
