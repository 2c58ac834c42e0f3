//! The rules, told what happens by hand.

mod answers;
mod asking;
mod attacks;
mod exactly_once;
mod serving;
mod streams;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use peerage_machine::{Driver, Time};
use peerage_queue::{ChannelId, SessionId};
use peerage_wire::{NodeId, Penalty};

use super::*;
use crate::handler::{HandlerConfig, HandlerId};
use crate::resilience::{Pool, RetryPolicy, Sample};
use crate::wire::ErrorCode;

const SECOND: Duration = Duration::from_secs(1);

fn peer(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn session(n: u8) -> SessionId {
    SessionId(n.into())
}

fn echo() -> HandlerId {
    HandlerId::of("echo/1")
}

fn ask(target: Target, terms: Terms) -> Request {
    Request { target, handler: echo(), payload: "hi".into(), terms, fallback: None }
}

/// To peer 1, once, within ten seconds.
fn once() -> Request {
    ask(Target::Peer(peer(1)), Terms::within(10 * SECOND))
}

fn anyone() -> Request {
    ask(Target::Any(Pool::Everyone), Terms::trying(20 * SECOND))
}

/// A machine, and all that it asked for.
struct Node {
    driver: Driver<RouterMachine>,
    now: Time,
    completed: Vec<(u64, Result<Answer, RequestError>)>,
    calls: Vec<Call>,
    abandoned: Vec<u64>,
    /// What was sent, each for one session.
    sent: Vec<(SessionId, Item)>,
    tags: Vec<Option<u64>>,
    reports: Vec<(SessionId, Penalty)>,
    counts: BTreeMap<Count, usize>,
    others: Vec<Out>,
}

impl Node {
    fn with(config: Config) -> Node {
        config.validate().expect("adds up");
        Node {
            driver: Driver::new(RouterMachine::new(config, 7, 1)),
            now: Time::ZERO,
            completed: Vec::new(),
            calls: Vec::new(),
            abandoned: Vec::new(),
            sent: Vec::new(),
            tags: Vec::new(),
            reports: Vec::new(),
            counts: BTreeMap::new(),
            others: Vec::new(),
        }
    }

    /// With so many peers, from 1 on, each with a session of its number.
    fn new(peers: u8) -> Node {
        let mut node = Node::with(Config::recommended());
        (1..=peers).for_each(|n| node.up(n));
        node
    }

    /// One that serves, too.
    fn serving(peers: u8, config: HandlerConfig) -> Node {
        let mut node = Node::new(peers);
        node.feed(In::AddHandler { token: 0, name: "echo/1".to_owned(), config });
        assert_eq!(node.others, [Out::HandlerAdded { token: 0, result: Ok(echo()) }]);
        node
    }

    fn up(&mut self, n: u8) {
        self.feed(In::PeerUp(PeerUp { session: session(n), id: peer(n), channel: ChannelId(1) }));
    }

    fn down(&mut self, n: u8) {
        self.feed(In::PeerDown { session: session(n) });
    }

    fn feed(&mut self, input: In) {
        self.driver.handle(self.now, input);
        self.note();
    }

    fn ask(&mut self, token: u64, request: Request) {
        self.feed(In::Request { token, request: Box::new(request) });
    }

    fn hear(&mut self, from: u8, bytes: Bytes) {
        self.feed(In::Inbound { session: session(from), payload: bytes });
    }

    fn asked_by(&mut self, from: u8, id: u64, deadline: Duration) {
        self.hear(from, wire::request(id, echo(), deadline, b"hi"));
    }

    fn answer(&mut self, call: u64, answer: &'static str) {
        self.feed(In::Answered { call, answer: Ok(Payload(answer.into())) });
    }

    /// Lets time go by, and everything happen at its instant.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.driver.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.driver.expire_due(self.now);
            self.note();
        }
        self.now = end;
    }

    fn note(&mut self) {
        let outs: Vec<Out> = self.driver.drain().collect();
        for out in outs {
            match out {
                Out::Completed { token, result } => self.completed.push((token, result)),
                Out::Call(call) => self.calls.push(call),
                Out::Abandon { call } => self.abandoned.push(call),
                Out::Push(Outgoing { to, bytes, tag, .. }) => {
                    for item in wire::items(bytes, wire::MAX_PAYLOAD) {
                        let item = item.expect("what it sends is well formed");
                        self.sent.extend(to.iter().map(|to| (to.session, item.clone())));
                        self.tags.push(tag);
                    }
                }
                Out::Report { session, penalty } => self.reports.push((session, penalty)),
                Out::Count(count) => *self.counts.entry(count).or_default() += 1,
                other => self.others.push(other),
            }
        }
    }

    fn counted(&self, count: Count) -> usize {
        self.counts.get(&count).copied().unwrap_or_default()
    }

    /// The requests it sent: to whom, and by which id.
    fn requests(&self) -> Vec<(SessionId, u64)> {
        let id = |(session, item): &(SessionId, Item)| match item {
            Item::Request { id, .. } => Some((*session, *id)),
            _ => None,
        };
        self.sent.iter().filter_map(id).collect()
    }

    fn last_id(&self) -> u64 {
        self.requests().last().expect("one was sent").1
    }

    /// How the only request ended.
    fn outcome(&self) -> Result<&str, RequestError> {
        let [(_, result)] = &self.completed[..] else { panic!("one completion: {:?}", self.completed) };
        result.as_ref().map(|answer| std::str::from_utf8(&answer.payload).expect("text")).map_err(Clone::clone)
    }

    /// Everything but the sessions is over.
    fn is_clean(&self) -> bool {
        let stats = self.driver.machine().stats();
        stats == Stats { peers: stats.peers, ..Stats::default() }
    }
}
