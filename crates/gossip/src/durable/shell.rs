//! The shell of durable topics: a machine for each, and the logs between them and their readers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Driver, Time};
use peerage_mailbox::{Bell, Capacity, Inlet, Item, Meter, Outlet, Reply, data_queue};
use peerage_nodedb::{
    Appended, Head, LogBounds, LogEntry, LogError, Logs, OpenedLog, ReadLimit, SelectLimit, Selected, Wanted,
};
use peerage_wire::NodeId;

use super::ingress::{DurableAsk, Lease, SubscribeDurable};
use super::metrics::DurableMetrics;
use super::stored::{found, log_entry, message, stored};
use super::{Batch, Durable, DurableError, DurableIn, DurableMachine, DurableOut, Recovered, Start};
use crate::config::Config;
use crate::machine::{HEADS, In, SubscribeError};
use crate::message::{MessageId, Policy, Topic};
use crate::wire::{HistoryAsk, MAX_KNOWN, Parcel};

/// How long after a log did not open that was open in the actor's last life it is tried again.
const RETRY_OPEN: Duration = Duration::from_secs(1);

/// What came of a job of the logs, for a topic's life.
struct Answer {
    topic: Topic,
    life: u64,
    what: What,
}

enum What {
    Opened(Result<OpenedLog, LogError>),
    /// Messages that others may lack.
    Recent(Result<Vec<LogEntry>, LogError>),
    Appended(Result<Appended, LogError>),
    Read(u64, Result<Vec<LogEntry>, LogError>),
    Cursor(u64, String, Result<u64, LogError>),
    /// For a peer.
    Selected(u64, Result<Selected, LogError>),
}

/// The capacity covers all jobs that may be under way.
impl Item for Answer {}

/// Who waits for a topic, and where it wants to start. Who was there before the actor's restart knows.
type Joining = (Start, Option<Reply<Result<u64, DurableError>>>);

/// One durable topic.
struct Line {
    life: u64,
    durable: Durable,
    leases: Vec<Outlet<Lease>>,
    /// Who waits for it to be subscribed to.
    joining: Vec<Joining>,
    /// None until its log is open.
    driver: Option<Driver<DurableMachine>>,
    /// What to tell gossip once what is recent was read.
    opened: Option<(Vec<MessageId>, u64, u64)>,
    open: bool,
    /// When the log is to be opened again, if it did not open.
    retry: Option<Time>,
    fetches: BTreeMap<u64, Reply<Result<Batch, DurableError>>>,
    acks: BTreeMap<u64, Reply<Result<(), DurableError>>>,
    asked_at: Time,
    bytes: u64,
    /// Whether the last commit failed: the log tells of the first failure only.
    failing: bool,
}

/// All durable topics of one life of the actor.
pub(crate) struct Durables {
    config: Config,
    node: NodeId,
    logs: Logs,
    lines: BTreeMap<Topic, Line>,
    subscribing: BTreeMap<u64, Topic>,
    answer: Outlet<Answer>,
    answers: Inlet<Answer>,
    metrics: DurableMetrics,
    next: u64,
}

impl Durables {
    pub(crate) fn new(config: &Config, node: NodeId, logs: Logs, bell: Bell, meter: &Meter) -> Durables {
        // Of each topic one opening, one append, the readers, as many acknowledgements, and what peers have asked for; and
        // of one life before.
        let jobs = 2 * config.durable.topics * (3 + 2 * config.durable.readers);
        let (answer, answers) = data_queue(Capacity { items: jobs, weight: jobs });
        answers.bind(bell);
        Durables {
            config: config.clone(),
            node,
            logs,
            lines: BTreeMap::new(),
            subscribing: BTreeMap::new(),
            answer,
            answers,
            metrics: DurableMetrics::new(meter),
            next: 0,
        }
    }

    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether somebody reads the topic.
    pub(crate) fn holds(&self, topic: &Topic) -> bool {
        self.lines.contains_key(topic)
    }

    /// Opens the topic's log, if that is not done.
    pub(crate) fn subscribe(&mut self, now: Time, subscribe: SubscribeDurable) {
        let SubscribeDurable { topic, durable, start, lease, reply } = subscribe;
        if let Err(error) = self.permits(&topic, durable) {
            return SubscribeDurable::answer(reply, Err(error));
        }
        if let Some(line) = self.lines.get_mut(&topic) {
            line.leases.push(lease);
            match line.driver.as_ref().filter(|_| line.open) {
                Some(driver) => SubscribeDurable::answer(reply, Ok(driver.machine().locate(&start))),
                None => line.joining.push((start, reply)),
            }
            return;
        }
        let life = self.token();
        let line = Line {
            life,
            durable,
            leases: vec![lease],
            joining: vec![(start, reply)],
            driver: None,
            opened: None,
            open: false,
            retry: None,
            fetches: BTreeMap::new(),
            acks: BTreeMap::new(),
            asked_at: now,
            bytes: 0,
            failing: false,
        };
        self.lines.insert(topic.clone(), line);
        self.open(now, topic, life, durable);
    }

    fn open(&self, now: Time, topic: Topic, life: u64, durable: Durable) {
        let bounds = LogBounds {
            bytes: durable.retain_bytes,
            age: durable.retain_age,
            heads_for: durable.retain_age.max(self.config.retained) + 2 * self.config.skew,
            heads: self.config.durable.heads,
        };
        let name = topic.as_str().to_owned();
        self.logs.open(&name, bounds, now.unix(), self.done(topic, life, What::Opened));
    }

    fn permits(&self, topic: &Topic, durable: Durable) -> Result<(), DurableError> {
        if durable.retain_bytes == 0 || durable.retain_age < Duration::from_secs(1) {
            return Err(DurableError::Nothing);
        }
        if let Some(line) = self.lines.get(topic) {
            return if line.durable == durable { Ok(()) } else { Err(DurableError::Other(line.durable)) };
        }
        let limits = &self.config.durable;
        if self.lines.len() >= limits.topics {
            return Err(DurableError::TooMany(limits.topics));
        }
        let taken = self.lines.values().map(|line| line.durable.retain_bytes).sum::<u64>();
        let (asked, limit) = (durable.retain_bytes, limits.bytes);
        if taken.saturating_add(asked) > limit {
            return Err(DurableError::Bytes { taken, asked, limit });
        }
        Ok(())
    }

    fn done<T: 'static>(
        &self,
        topic: Topic,
        life: u64,
        what: impl FnOnce(Result<T, LogError>) -> What + Send + 'static,
    ) -> peerage_nodedb::Done<T> {
        let answer = self.answer.clone();
        // An actor that is gone does not want to know.
        Box::new(move |result| drop(answer.offer(Answer { topic, life, what: what(result) })))
    }

    /// What the logs have answered. Answers what gossip is to be told.
    pub(crate) fn turn(&mut self, now: Time) -> Vec<In> {
        let mut tell = Vec::new();
        for Answer { topic, life, what } in self.answers.take(usize::MAX) {
            let Some(line) = self.lines.get_mut(&topic).filter(|line| line.life == life) else { continue };
            match what {
                What::Opened(Ok(opened)) => self.opened(now, topic, opened, &mut tell),
                What::Opened(Err(error)) => {
                    // Whoever read it before the actor's restart does not ask again, so it is tried again.
                    let replayed = line.joining.iter().any(|(_, reply)| reply.is_none());
                    line.retry = replayed.then(|| now + RETRY_OPEN);
                    self.not_opened(&topic, &DurableError::Log(error.to_string()));
                }
                What::Recent(recent) => {
                    // Others have them from their publishers; it is no reason not to start.
                    let entries = recent.unwrap_or_default();
                    self.join(topic, entries.into_iter().map(|entry| entry.body).collect(), &mut tell);
                }
                What::Appended(result) => {
                    self.metrics.took(now.since(line.asked_at));
                    let oldest = result.as_ref().ok().map(|appended| appended.oldest);
                    match result {
                        Ok(appended) => (line.bytes, line.failing) = (appended.bytes, false),
                        Err(error) => {
                            self.metrics.failed(error.label());
                            if !std::mem::replace(&mut line.failing, true) {
                                tracing::warn!(%topic, %error, "a durable topic is not written; it waits, and tries again");
                            }
                        }
                    }
                    self.feed(now, &topic, DurableIn::Persisted { oldest }, &mut tell);
                }
                What::Read(token, result) => {
                    let entries = result.map_err(|error| self.metrics.failed(error.label())).ok();
                    let entries = entries.map(|entries| entries.into_iter().map(stored).collect());
                    self.feed(now, &topic, DurableIn::Read { token, entries }, &mut tell);
                }
                What::Selected(token, result) => {
                    let found = result.map_err(|error| self.metrics.failed(error.label())).ok().map(found);
                    tell.push(In::HistoryRead { token, found });
                }
                What::Cursor(token, cursor, result) => {
                    let position = match result {
                        Ok(position) => Some(position),
                        Err(error) => {
                            self.metrics.failed(error.label());
                            if let Some(reply) = line.acks.remove(&token) {
                                reply.send(Err(DurableError::Log(error.to_string())));
                            }
                            None
                        }
                    };
                    self.feed(now, &topic, DurableIn::CursorSaved { token, cursor, position }, &mut tell);
                }
            }
        }
        tell
    }

    /// Whoever asks again may have more luck.
    fn not_opened(&mut self, topic: &Topic, error: &DurableError) {
        let Some(line) = self.lines.get_mut(topic) else { return };
        self.metrics.failed("open");
        tracing::warn!(%topic, %error, "a topic is not durable");
        let (asked, replayed) = std::mem::take(&mut line.joining).into_iter().partition(|(_, reply)| reply.is_some());
        line.joining = replayed;
        if line.retry.is_none() {
            self.lines.remove(topic);
        }
        let asked: Vec<_> = asked;
        for (_, reply) in asked {
            SubscribeDurable::answer(reply, Err(error.clone()));
        }
    }

    fn opened(&mut self, now: Time, topic: Topic, opened: OpenedLog, tell: &mut Vec<In>) {
        let Some(line) = self.lines.get_mut(&topic) else { return };
        let mut publishers: BTreeMap<NodeId, u64> = BTreeMap::new();
        for head in &opened.heads {
            let last = publishers.entry(head.publisher).or_default();
            *last = head.sequence.max(*last);
        }
        let own = publishers.get(&self.node).copied().unwrap_or(0);
        let young =
            |head: &Head, age: Duration| u128::from(now.unix_millis().saturating_sub(head.at)) <= age.as_millis();
        // Where there was no room to remember all that was handed out, what is as old is not taken out of peers' logs.
        let crowded = opened.heads.len() >= self.config.durable.heads;
        let skew = u64::try_from(self.config.skew.as_millis()).unwrap_or(u64::MAX);
        let floor = opened.heads.first().filter(|_| crowded).map_or(0, |head| head.at.saturating_add(skew));
        // The newest of those that may come again, and no more than leave room for what comes.
        let seen_for = self.config.seen_for();
        let seen: Vec<MessageId> =
            opened.heads.iter().filter(|head| young(head, seen_for)).map(|head| MessageId(head.id)).collect();
        let seen = seen[seen.len().saturating_sub(self.config.seen_ids / 2)..].to_vec();
        // They are kept for a whole window from now on, and filters go back for one and a half.
        let half = self.config.retained / 2;
        let recent = opened.heads.iter().find(|head| head.position >= opened.oldest && young(head, half));
        let recent = recent.map(|head| head.position);
        let (oldest, next, publishers) = (opened.oldest, opened.next, publishers.into_iter().collect());
        let recovered = Recovered { oldest, next, publishers, cursors: opened.cursors };
        let remember = line.durable.retain_age.max(self.config.retained) + 2 * self.config.skew;
        let machine = DurableMachine::new(now, self.config.durable.clone(), remember, recovered);
        line.driver = Some(Driver::new(machine));
        line.bytes = opened.bytes;
        line.opened = Some((seen, own, floor));
        let life = line.life;
        self.feed(now, &topic, DurableIn::Persisted { oldest: Some(oldest) }, tell);
        match recent {
            None => self.join(topic, Vec::new(), tell),
            Some(position) => {
                let limit = ReadLimit { entries: self.config.cache_ids / 4, bytes: self.config.cache_bytes / 4 };
                let name = topic.as_str().to_owned();
                self.logs.read(&name, position - 1, limit, self.done(topic, life, What::Recent));
            }
        }
    }

    /// Everything is known of earlier lives: the topic is subscribed to.
    fn join(&mut self, topic: Topic, items: Vec<Bytes>, tell: &mut Vec<In>) {
        let token = self.token();
        let Some(line) = self.lines.get_mut(&topic) else { return };
        let Some((ids, sequence, floor)) = line.opened.take() else { return };
        let age = line.durable.retain_age;
        self.subscribing.insert(token, topic.clone());
        tell.push(In::Durable { topic: topic.clone(), ids, items, sequence, age, floor });
        tell.push(In::Subscribe { token: durable_token(token), topic, policy: Policy::Signed });
    }

    /// Gossip has answered; whether the question was one of these.
    pub(crate) fn subscribed(&mut self, token: u64, result: Result<(), SubscribeError>) -> bool {
        let Some(topic) = undurable(token).and_then(|token| self.subscribing.remove(&token)) else { return false };
        match result {
            Err(error) => self.not_opened(&topic, &error.into()),
            Ok(()) => {
                let Some(line) = self.lines.get_mut(&topic) else { return true };
                line.open = true;
                for (start, reply) in std::mem::take(&mut line.joining) {
                    let after = line.driver.as_ref().map(|driver| driver.machine().locate(&start));
                    SubscribeDurable::answer(reply, after.ok_or(DurableError::NotOpen));
                }
            }
        }
        true
    }

    /// Takes what gossip has accepted; false if nobody reads the topic durably.
    pub(crate) fn keep(&mut self, now: Time, id: MessageId, parcel: &Parcel, first: bool, tell: &mut Vec<In>) -> bool {
        let Some(origin) = parcel.origin.as_ref().filter(|_| self.holds(&parcel.topic)) else { return false };
        let (publisher, sequence, item) = (origin.publisher, origin.sequence, parcel.bytes.clone());
        self.feed(now, &parcel.topic, DurableIn::Accepted { id, publisher, sequence, first, item }, tell);
        true
    }

    /// How far a topic is, from a publisher on.
    pub(crate) fn known(&self, topic: Topic, first: NodeId) -> In {
        let driver = self.lines.get(&topic).and_then(|line| line.driver.as_ref());
        let (last, known) = driver.map_or((first, Vec::new()), |driver| driver.machine().known(first, MAX_KNOWN));
        In::HistoryKnown { topic, first, last, known }
    }

    /// Reads what a peer lacks. Answers at once if there is nothing to be read.
    pub(crate) fn select(&self, token: u64, ask: Box<HistoryAsk>, read: ReadLimit) -> Option<In> {
        let Some(line) = self.lines.get(&ask.topic).filter(|line| line.open) else {
            return Some(In::HistoryRead { token, found: None });
        };
        let (topic, after) = (ask.topic.clone(), ask.after);
        let name = topic.as_str().to_owned();
        let done = self.done(topic, line.life, move |result| What::Selected(token, result));
        let wanted: Wanted = Box::new(move |head: &Head| ask.lacks(&head.publisher, head.sequence));
        self.logs.select(&name, after, wanted, SelectLimit { heads: HEADS, read }, done);
        None
    }

    /// Peers' logs are being looked through for a topic, or not any more.
    pub(crate) fn catch_up(
        &mut self,
        now: Time,
        topic: &Topic,
        running: bool,
        until: Option<Time>,
        tell: &mut Vec<In>,
    ) {
        self.feed(now, topic, DurableIn::CatchUp { running, until }, tell);
    }

    /// A reader's question.
    pub(crate) fn ask(&mut self, now: Time, ask: DurableAsk, tell: &mut Vec<In>) {
        let token = self.token();
        let readers = self.config.durable.readers;
        match ask {
            DurableAsk::Fetch { topic, after, reply } => {
                let Some(line) = self.lines.get_mut(&topic).filter(|line| line.open) else {
                    return reply.send(Err(DurableError::NotOpen));
                };
                let gone: Vec<u64> =
                    line.fetches.iter().filter(|(_, reply)| reply.is_abandoned()).map(|(t, _)| *t).collect();
                gone.iter().for_each(|token| drop(line.fetches.remove(token)));
                line.fetches.insert(token, reply);
                for token in gone {
                    self.feed(now, &topic, DurableIn::Abandon { token }, tell);
                }
                self.feed(now, &topic, DurableIn::Fetch { token, after }, tell);
            }
            DurableAsk::Ack { topic, cursor, position, reply } => {
                let Some(line) = self.lines.get_mut(&topic).filter(|line| line.open) else {
                    return reply.send(Err(DurableError::NotOpen));
                };
                if line.acks.len() >= readers {
                    return reply.send(Err(DurableError::Busy));
                }
                line.acks.insert(token, reply);
                self.feed(now, &topic, DurableIn::Ack { token, cursor, position }, tell);
            }
        }
    }

    /// What is due.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<In> {
        let mut tell = Vec::new();
        let topics: Vec<Topic> = self.lines.keys().cloned().collect();
        for topic in topics {
            let due = self.lines.get_mut(&topic).filter(|line| line.retry.is_some_and(|at| at <= now));
            if let Some((life, durable)) = due.map(|line| (line.life, line.durable)) {
                self.lines.get_mut(&topic).into_iter().for_each(|line| line.retry = None);
                self.open(now, topic.clone(), life, durable);
            }
            if let Some(driver) = self.lines.get_mut(&topic).and_then(|line| line.driver.as_mut()) {
                driver.expire_due(now);
                self.perform(now, &topic, &mut tell);
            }
        }
        let sum = |what: fn(&Line) -> u64| self.lines.values().map(what).sum::<u64>() as f64;
        let machine =
            |line: &Line, what: fn(&DurableMachine) -> u64| line.driver.as_ref().map_or(0, |d| what(d.machine()));
        let entries = self.lines.values().map(|line| machine(line, DurableMachine::kept)).sum::<u64>();
        let waits = |machine: &DurableMachine| (machine.in_memory().0 + machine.in_memory().1) as u64;
        let in_memory = self.lines.values().map(|line| machine(line, waits)).sum::<u64>();
        self.metrics.entries.set(entries as f64);
        self.metrics.bytes.set(sum(|line| line.bytes));
        self.metrics.in_memory.set(in_memory as f64);
        tell
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let next = |line: &Line| {
            let machine = line.driver.as_ref().and_then(Driver::next_deadline);
            line.retry.into_iter().chain(machine).min()
        };
        self.lines.values().filter_map(next).min()
    }

    /// Topics that nobody reads any more. What they hold stays on disk for who comes back.
    pub(crate) fn take_unread(&mut self) -> Vec<Topic> {
        let mut unread = Vec::new();
        self.lines.retain(|topic, line| {
            line.leases.retain(|lease| !lease.is_closed());
            let read = !line.leases.is_empty();
            if !read {
                unread.push(topic.clone());
            }
            read
        });
        unread
    }

    fn feed(&mut self, now: Time, topic: &Topic, input: DurableIn, tell: &mut Vec<In>) {
        if let Some(driver) = self.lines.get_mut(topic).and_then(|line| line.driver.as_mut()) {
            driver.handle(now, input);
            self.perform(now, topic, tell);
        }
    }

    fn perform(&mut self, now: Time, topic: &Topic, tell: &mut Vec<In>) {
        let Some(line) = self.lines.get_mut(topic) else { return };
        let life = line.life;
        let outs: Vec<DurableOut> = line.driver.as_mut().map(|driver| driver.drain().collect()).unwrap_or_default();
        for out in outs {
            let Some(line) = self.lines.get_mut(topic) else { return };
            match out {
                DurableOut::Persist(entries) => {
                    line.asked_at = now;
                    let entries = entries.into_iter().map(log_entry).collect();
                    let done = self.done(topic.clone(), life, What::Appended);
                    self.logs.append(topic.as_str(), entries, now.unix(), done);
                }
                DurableOut::Read { token, after, entries, bytes } => {
                    let done = self.done(topic.clone(), life, move |result| What::Read(token, result));
                    self.logs.read(topic.as_str(), after, ReadLimit { entries, bytes }, done);
                }
                DurableOut::SaveCursor { token, cursor, position } => {
                    let name = cursor.clone();
                    let done = self.done(topic.clone(), life, move |result: Result<(), LogError>| {
                        What::Cursor(token, cursor, result.map(|()| position))
                    });
                    self.logs.set_cursor(topic.as_str(), &name, position, done);
                }
                DurableOut::Batch { token, batch } => {
                    if let Some(reply) = line.fetches.remove(&token) {
                        let Batch { lagged, entries, after } = batch;
                        let limit = self.config.max_payload;
                        let entries = entries.into_iter().filter_map(|entry| message(entry, limit)).collect();
                        reply.send(Ok(Batch { lagged, entries, after }));
                    }
                }
                DurableOut::Unread { token } => {
                    if let Some(reply) = line.fetches.remove(&token) {
                        reply.send(Err(DurableError::Busy));
                    }
                }
                DurableOut::Acked { token, result } => {
                    if let Some(reply) = line.acks.remove(&token) {
                        reply.send(result.map_err(|last| match last {
                            Some(last) => DurableError::Ahead { last },
                            None => DurableError::NotOpen,
                        }));
                    }
                }
                DurableOut::Hurry => tell.push(In::Missing { topic: topic.clone() }),
                DurableOut::Forget(id) => tell.push(In::Forget { ids: vec![id] }),
                DurableOut::Count(count) => self.metrics.count(count),
            }
        }
    }
}

/// Questions of durable topics have names of their own: the upper half.
const fn durable_token(token: u64) -> u64 {
    token | 1 << 63
}

fn undurable(token: u64) -> Option<u64> {
    (token >> 63 == 1).then_some(token & !(1 << 63))
}
