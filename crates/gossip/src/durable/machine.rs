//! The rules of one durable topic: order, then disk, then readers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use peerage_machine::{Effects, Machine, Time};
use peerage_wire::NodeId;

use super::contract::{DurableCount, DurableIn, DurableOut, DurableTimer, Recovered};
use super::order::{Arrival, Order, Placed};
use super::{Batch, DurableConfig, Start, Stored};

/// A failed write is tried again after this time, twice as long after the next one, up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often the log is asked to drop what is too old, if nothing is appended.
const TRIM: Duration = Duration::from_secs(60);
/// Most bytes of items that are written in one commit, except that there may be one of any size.
const COMMIT_BYTES: usize = 4 << 20;
/// What a reader gets at once, at most.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of the newest messages that are kept in memory, so that a reader that keeps up does not cost a read of the
/// disk.
const RECENT_BYTES: usize = 1 << 20;

/// How many entries from the beginning are within the limits: at least one if there is one.
fn first_entries(from: &VecDeque<Stored>, entries: usize, bytes: usize) -> usize {
    let mut sum = 0;
    let fits = from.iter().take(entries).take_while(|entry| {
        let first = sum == 0;
        sum += entry.item.len().max(1);
        first || sum <= bytes
    });
    fits.count()
}

type Fx = Effects<DurableOut, DurableTimer>;

/// A durable topic.
#[derive(Debug)]
pub struct DurableMachine {
    config: DurableConfig,
    order: Order,
    /// The next position to give.
    next: u64,
    /// The position of the oldest message on disk, or `persisted + 1`.
    oldest: u64,
    /// The last position on disk.
    persisted: u64,
    /// With positions, and not on disk yet; the first `writing` of them are being written.
    waiting: VecDeque<Stored>,
    waiting_bytes: usize,
    writing: usize,
    /// Whether the disk was asked and has not answered.
    asked: bool,
    /// How long it waits until it asks again, while the disk fails.
    pause: Option<Duration>,
    /// The newest on disk.
    recent: VecDeque<Stored>,
    recent_bytes: usize,
    /// Readers that wait, by token, and for what.
    readers: BTreeMap<u64, u64>,
    /// Those of them for whom the disk is read.
    reading: BTreeMap<u64, u64>,
    cursors: BTreeMap<String, u64>,
    hold_armed: bool,
}

impl DurableMachine {
    /// A topic whose last life left this. A publisher is remembered for `remember`.
    pub fn new(now: Time, config: DurableConfig, remember: Duration, recovered: Recovered) -> DurableMachine {
        let mut order = Order::new(&config, remember);
        for (publisher, sequence) in recovered.publishers {
            order.restore(now, publisher, sequence);
        }
        DurableMachine {
            config,
            order,
            next: recovered.next.max(1),
            oldest: recovered.oldest.max(1),
            persisted: recovered.next.max(1) - 1,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            writing: 0,
            asked: false,
            pause: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            readers: BTreeMap::new(),
            reading: BTreeMap::new(),
            cursors: recovered.cursors,
            hold_armed: false,
        }
    }

    /// The position after which a reader starts.
    pub fn locate(&self, start: &Start) -> u64 {
        let earliest = self.oldest - 1;
        match start {
            Start::Earliest => earliest,
            Start::Latest => self.persisted,
            Start::Cursor(name) => self.cursors.get(name).copied().unwrap_or(earliest),
            // A position of a log that was lost since is no reason to wait until the new one has come as far.
            Start::After(position) => (*position).min(self.persisted),
        }
    }

    /// Messages on disk.
    pub fn kept(&self) -> u64 {
        self.persisted + 1 - self.oldest
    }

    /// Bytes that are held back, and bytes that wait for the disk.
    pub fn in_memory(&self) -> (usize, usize) {
        (self.order.held_bytes(), self.waiting_bytes)
    }

    fn accepted(&mut self, now: Time, arrival: Arrival, first: bool, fx: &mut Fx) {
        if self.waiting_bytes + arrival.item.len() > self.config.waiting_bytes {
            fx.emit(DurableOut::Count(DurableCount::Overflow));
            return fx.emit(DurableOut::Forget(arrival.id));
        }
        let mut going = Vec::new();
        match self.order.place(now, arrival, first, &mut going) {
            Placed::Goes => {}
            Placed::Held => {
                fx.emit(DurableOut::Count(DurableCount::Held));
                fx.emit(DurableOut::Hurry);
                if self.order.held_bytes() > self.config.held_bytes && self.order.catches_up() {
                    // What waits for an early message of its publisher comes again, after it.
                    for id in self.order.shed() {
                        fx.emit(DurableOut::Count(DurableCount::Overflow));
                        fx.emit(DurableOut::Forget(id));
                    }
                } else if self.order.held_bytes() > self.config.held_bytes {
                    self.give_up(now, &mut going, fx);
                }
            }
            Placed::Late => fx.emit(DurableOut::Count(DurableCount::Late)),
            Placed::Refused => fx.emit(DurableOut::Count(DurableCount::Publishers)),
        }
        self.go_on(now, going, fx);
        self.arm_hold(fx);
    }

    /// How far it is: the last sequences of the publishers from `first` on, of at most so many of them, and the last
    /// publisher that this speaks of.
    pub fn known(&self, first: NodeId, most: usize) -> (NodeId, Vec<(NodeId, u64)>) {
        self.order.known(first, most)
    }

    fn catch_up(&mut self, now: Time, running: bool, until: Option<Time>, fx: &mut Fx) {
        self.order.catch_up(now, running, until);
        let mut going = Vec::new();
        self.give_up(now, &mut going, fx);
        self.go_on(now, going, fx);
        self.hold_armed = false;
        self.arm_hold(fx);
    }

    fn give_up(&mut self, now: Time, going: &mut Vec<Arrival>, fx: &mut Fx) {
        let given_up = self.order.release_due(now, going);
        if given_up > 0 {
            fx.emit(DurableOut::Count(DurableCount::GivenUp(given_up)));
        }
    }

    fn arm_hold(&mut self, fx: &mut Fx) {
        if !self.hold_armed
            && let Some(deadline) = self.order.deadline()
        {
            self.hold_armed = true;
            fx.arm(DurableTimer::Hold, deadline);
        }
    }

    /// Gives positions, and has them written.
    fn go_on(&mut self, now: Time, going: Vec<Arrival>, fx: &mut Fx) {
        for Arrival { id, publisher, sequence, item } in going {
            self.waiting_bytes += item.len();
            let entry = Stored { position: self.next, id, publisher, sequence, at: now.unix_millis(), item };
            self.waiting.push_back(entry);
            self.next += 1;
        }
        if self.pause.is_none() {
            self.persist(fx);
        }
    }

    fn persist(&mut self, fx: &mut Fx) {
        if !self.waiting.is_empty() {
            self.write(fx);
        }
    }

    /// With nothing to write, what is too old goes.
    fn write(&mut self, fx: &mut Fx) {
        if std::mem::replace(&mut self.asked, true) {
            return;
        }
        self.writing = first_entries(&self.waiting, usize::MAX, COMMIT_BYTES);
        fx.emit(DurableOut::Persist(self.waiting.iter().take(self.writing).cloned().collect()));
    }

    fn persisted(&mut self, now: Time, oldest: Option<u64>, fx: &mut Fx) {
        self.asked = false;
        let written = std::mem::take(&mut self.writing);
        let Some(oldest) = oldest else {
            let pause = self.pause.map_or(PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
            self.pause = Some(pause);
            return fx.arm(DurableTimer::Retry, now + pause);
        };
        self.pause = None;
        fx.disarm(DurableTimer::Retry);
        for entry in self.waiting.drain(..written) {
            self.waiting_bytes -= entry.item.len();
            self.recent_bytes += entry.item.len();
            self.persisted = entry.position;
            self.recent.push_back(entry);
        }
        if written > 0 {
            fx.emit(DurableOut::Count(DurableCount::Persisted(written as u64)));
        }
        if oldest > self.oldest {
            fx.emit(DurableOut::Count(DurableCount::Retired(oldest - self.oldest)));
            self.oldest = oldest;
        }
        while self.recent_bytes > RECENT_BYTES || self.recent.front().is_some_and(|entry| entry.position < oldest) {
            let Some(entry) = self.recent.pop_front() else { break };
            self.recent_bytes -= entry.item.len();
        }
        fx.arm(DurableTimer::Trim, now + TRIM);
        let waiting: Vec<(u64, u64)> = self.readers.iter().map(|(token, after)| (*token, *after)).collect();
        waiting.into_iter().for_each(|(token, after)| self.serve(token, after, fx));
        self.persist(fx);
    }

    fn fetch(&mut self, token: u64, after: u64, fx: &mut Fx) {
        if self.readers.len() + self.reading.len() >= self.config.readers {
            return fx.emit(DurableOut::Unread { token });
        }
        self.readers.insert(token, after);
        self.serve(token, after, fx);
    }

    /// Answers a reader, if there is something; from memory if it can be.
    fn serve(&mut self, token: u64, after: u64, fx: &mut Fx) {
        let from = after.saturating_add(1).max(self.oldest);
        if from > self.persisted {
            // All that it has not got is gone: it is told now, and not when something comes.
            if let Some(lagged) = (self.persisted).checked_sub(after).filter(|lost| *lost > 0) {
                self.readers.remove(&token);
                let batch = Batch { lagged, entries: Vec::new(), after: self.persisted };
                fx.emit(DurableOut::Batch { token, batch });
            }
            return;
        }
        self.readers.remove(&token);
        match self.recent.front().map(|first| first.position) {
            Some(first) if first <= from => {
                let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
                let rest: VecDeque<Stored> = self.recent.iter().skip(skip).take(BATCH).cloned().collect();
                let count = first_entries(&rest, BATCH, BATCH_BYTES);
                self.answer(token, after, rest.into_iter().take(count).collect(), fx);
            }
            _ => {
                self.reading.insert(token, after);
                fx.emit(DurableOut::Read { token, after: from - 1, entries: BATCH, bytes: BATCH_BYTES });
            }
        }
    }

    fn answer(&self, token: u64, asked: u64, entries: Vec<Stored>, fx: &mut Fx) {
        let first = entries.first().map_or(asked.saturating_add(1), |entry| entry.position);
        let after = entries.last().map_or(asked, |entry| entry.position);
        let batch = Batch { lagged: first.saturating_sub(asked.saturating_add(1)), entries, after };
        fx.emit(DurableOut::Batch { token, batch });
    }

    fn read(&mut self, token: u64, entries: Option<Vec<Stored>>, fx: &mut Fx) {
        let Some(after) = self.reading.remove(&token) else { return };
        match entries {
            None => fx.emit(DurableOut::Unread { token }),
            // It went while it was looked for, and the next answer of the disk says so.
            Some(entries) if entries.is_empty() => fx.emit(DurableOut::Unread { token }),
            Some(entries) => self.answer(token, after, entries, fx),
        }
    }

    fn ack(&mut self, token: u64, cursor: String, position: u64, fx: &mut Fx) {
        if position > self.persisted {
            fx.emit(DurableOut::Acked { token, result: Err(Some(self.persisted)) });
        } else if self.cursors.get(&cursor).is_some_and(|saved| *saved >= position) {
            fx.emit(DurableOut::Acked { token, result: Ok(()) });
        } else {
            fx.emit(DurableOut::SaveCursor { token, cursor, position });
        }
    }

    fn cursor_saved(&mut self, token: u64, cursor: String, position: Option<u64>, fx: &mut Fx) {
        if let Some(position) = position {
            let saved = self.cursors.entry(cursor).or_default();
            *saved = position.max(*saved);
        }
        fx.emit(DurableOut::Acked { token, result: position.map(drop).ok_or(None) });
    }
}

impl Machine for DurableMachine {
    type In = DurableIn;
    type Out = DurableOut;
    type Timer = DurableTimer;

    fn handle(&mut self, now: Time, input: DurableIn, fx: &mut Fx) {
        match input {
            DurableIn::Accepted { id, publisher, sequence, first, item } => {
                self.accepted(now, Arrival { id, publisher, sequence, item }, first, fx);
            }
            DurableIn::CatchUp { running, until } => self.catch_up(now, running, until, fx),
            DurableIn::Persisted { oldest } => self.persisted(now, oldest, fx),
            DurableIn::Fetch { token, after } => self.fetch(token, after, fx),
            DurableIn::Read { token, entries } => self.read(token, entries, fx),
            DurableIn::Abandon { token } => {
                self.readers.remove(&token);
                self.reading.remove(&token);
            }
            DurableIn::Ack { token, cursor, position } => self.ack(token, cursor, position, fx),
            DurableIn::CursorSaved { token, cursor, position } => self.cursor_saved(token, cursor, position, fx),
        }
    }

    fn expire(&mut self, now: Time, timer: DurableTimer, fx: &mut Fx) {
        match timer {
            DurableTimer::Hold => {
                self.hold_armed = false;
                let mut going = Vec::new();
                self.give_up(now, &mut going, fx);
                self.go_on(now, going, fx);
                self.arm_hold(fx);
            }
            DurableTimer::Retry | DurableTimer::Trim => self.write(fx),
        }
    }
}
