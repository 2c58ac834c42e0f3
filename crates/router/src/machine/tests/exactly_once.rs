//! Whatever happens in whatever order, each request is completed once and nothing is left behind.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::wire::streams::Header;

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Up(u8),
    Down(u8),
    Ask {
        to: u8,
        patient: bool,
        millis: u64,
    },
    Cancel(usize),
    /// Something comes from a session, about one of the requests that were ever sent.
    Respond {
        request: usize,
        from: Option<u8>,
        error: Option<u16>,
    },
    SendFails(usize),
    /// A stream from a session claims to bring one of those answers.
    Claims {
        request: usize,
        from: Option<u8>,
        length: u32,
    },
    /// What becomes of an answer on a stream.
    Comes(usize, Option<Broken>),
    /// What becomes of an answer of this node's.
    Goes(usize, AnswerSent),
    Asked {
        by: u8,
        id: u64,
        millis: u64,
    },
    Withdrawn {
        by: u8,
        id: u64,
    },
    Answer(usize, bool),
    Readd {
        in_order: bool,
    },
    Wait(u64),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let peer = 1u8..4;
    let code = prop_oneof![Just(1u16), Just(2), Just(4), Just(5), Just(0x8001)];
    prop_oneof![
        2 => peer.clone().prop_map(Event::Up),
        1 => peer.clone().prop_map(Event::Down),
        6 => (0u8..4, any::<bool>(), 1u64..5_000).prop_map(|(to, patient, millis)| Event::Ask { to, patient, millis }),
        2 => (0usize..64).prop_map(Event::Cancel),
        6 => (0usize..64, proptest::option::weighted(0.2, 1u8..4), proptest::option::of(code))
            .prop_map(|(request, from, error)| Event::Respond { request, from, error }),
        1 => (0usize..64).prop_map(Event::SendFails),
        4 => (0usize..64, proptest::option::weighted(0.2, 1u8..4), prop_oneof![Just(8u32), Just(u32::MAX)])
            .prop_map(|(request, from, length)| Event::Claims { request, from, length }),
        4 => (0usize..64, proptest::option::weighted(0.2, prop_oneof![Just(Broken::Off), Just(Broken::Length)]))
            .prop_map(|(n, broken)| Event::Comes(n, broken)),
        3 => (0usize..64, prop_oneof![Just(AnswerSent::Whole), Just(AnswerSent::NoStream), Just(AnswerSent::Dropped)])
            .prop_map(|(n, sent)| Event::Goes(n, sent)),
        4 => (peer.clone(), 0u64..8, 0u64..3_000).prop_map(|(by, id, millis)| Event::Asked { by, id, millis }),
        2 => (peer, 0u64..8).prop_map(|(by, id)| Event::Withdrawn { by, id }),
        4 => (0usize..64, any::<bool>()).prop_map(|(n, large)| Event::Answer(n, large)),
        1 => any::<bool>().prop_map(|in_order| Event::Readd { in_order }),
        4 => (0u64..3_000).prop_map(Event::Wait),
        1 => Just(Event::Restart),
    ]
}

struct Run {
    node: Node,
    up: BTreeSet<u8>,
    next: u64,
    /// Asked in this life.
    asked: BTreeSet<u64>,
    /// Requests as they were sent, in any life: to whom, by which id, with which payload.
    sent: Vec<(SessionId, u64, Bytes)>,
    calls: Vec<Call>,
    done: BTreeSet<u64>,
    /// Streams that were claimed to bring an answer: with which payload, and whether the machine wants them still.
    streams: Vec<(u64, Bytes)>,
    wanted: BTreeSet<u64>,
    /// Answers that the machine has had sent on streams, and that are not done.
    going: Vec<u64>,
    life: u32,
}

impl Run {
    fn new() -> Run {
        let mut run = Run {
            node: Node::with(Config::recommended()),
            up: BTreeSet::new(),
            next: 0,
            asked: BTreeSet::new(),
            sent: Vec::new(),
            calls: Vec::new(),
            done: BTreeSet::new(),
            streams: Vec::new(),
            wanted: BTreeSet::new(),
            going: Vec::new(),
            life: 1,
        };
        run.add(false);
        run
    }

    fn add(&mut self, in_order: bool) {
        let config = if in_order { HandlerConfig::in_order() } else { HandlerConfig::concurrent() };
        let config = HandlerConfig { per_peer: 4, ..config };
        self.node.feed(In::AddHandler { token: 0, name: "echo/1".to_owned(), config });
    }

    fn restart(&mut self) {
        self.check();
        self.life += 1;
        self.node.driver = Driver::new(RouterMachine::new(Config::recommended(), 7, self.life));
        // Those that had not been completed are completed as `Restarted` by the shell, which drops their replies.
        self.node.completed.clear();
        self.asked.clear();
        self.wanted.clear();
        self.going.clear();
        self.add(false);
        for n in self.up.clone() {
            self.node.up(n);
        }
    }

    fn play(&mut self, event: Event) {
        let Run { node, .. } = self;
        match event {
            Event::Up(n) if self.up.insert(n) => node.up(n),
            Event::Down(n) if self.up.remove(&n) => node.down(n),
            Event::Up(_) | Event::Down(_) => {}
            Event::Ask { to, patient, millis } => {
                self.next += 1;
                let target = if to == 0 { Target::Any(Pool::Everyone) } else { Target::Peer(peer(to)) };
                let time = Duration::from_millis(millis);
                let terms = if patient { Terms::trying(time) } else { Terms::within(time) };
                let payload = Bytes::copy_from_slice(&self.next.to_be_bytes());
                self.asked.insert(self.next);
                node.ask(self.next, Request { payload, ..ask(target, terms) });
            }
            Event::Cancel(n) => {
                let token = self.asked.iter().nth(n % self.asked.len().max(1)).copied().unwrap_or(0);
                node.feed(In::Cancel { token });
            }
            Event::Respond { request, from, error } => {
                let Some((to, id, payload)) = self.sent.get(request % self.sent.len().max(1)).cloned() else { return };
                let from = from.map_or(to, session);
                let payload = match error {
                    Some(code) => wire::error(id, ErrorCode::from_code(code), ""),
                    None => wire::response(id, &payload),
                };
                node.feed(In::Inbound { session: from, payload });
            }
            Event::SendFails(n) => {
                let Some((session, tag, _)) = self.sent.get(n % self.sent.len().max(1)).cloned() else { return };
                node.feed(In::SendFailed { session, tag });
            }
            Event::Claims { request, from, length } => {
                let Some((to, id, payload)) = self.sent.get(request % self.sent.len().max(1)).cloned() else { return };
                let stream = 1_000_000 + self.streams.len() as u64;
                self.streams.push((stream, payload));
                node.feed(In::StreamCame { stream, session: from.map_or(to, session) });
                node.feed(In::StreamHeader { stream, header: Ok(Header::Answer { id, length }) });
            }
            Event::Comes(n, broken) => {
                let of_wanted = self.streams.iter().filter(|(stream, _)| self.wanted.contains(stream));
                let wanted: Vec<_> = of_wanted.cloned().collect();
                let Some((stream, payload)) = wanted.get(n % wanted.len().max(1)).cloned() else { return };
                self.wanted.remove(&stream);
                node.feed(In::AnswerCame { stream, answer: broken.map_or(Ok(Payload(payload)), Err) });
            }
            Event::Goes(n, sent) => {
                if !self.going.is_empty() {
                    let call = self.going.remove(n % self.going.len());
                    node.feed(In::AnswerSent { call, sent });
                }
            }
            Event::Asked { by, id, millis } => node.asked_by(by, id, Duration::from_millis(millis)),
            Event::Withdrawn { by, id } => node.hear(by, wire::cancel(id)),
            Event::Answer(n, large) => {
                let Some(call) = self.calls.get(n % self.calls.len().max(1)).map(|call| call.call) else { return };
                self.done.insert(call);
                let payload = if large { vec![0; 70_000].into() } else { "done".into() };
                node.feed(In::Answered { call, answer: Ok(Payload(payload)) });
            }
            Event::Readd { in_order } => {
                node.feed(In::RemoveHandler(echo()));
                self.add(in_order);
            }
            Event::Wait(millis) => node.wait(Duration::from_millis(millis)),
            Event::Restart => self.restart(),
        }
        self.collect();
    }

    fn collect(&mut self) {
        for (session, item) in self.node.sent.drain(..) {
            if let Item::Request { id, payload, .. } = item {
                self.sent.push((session, id, payload));
            }
        }
        self.calls.append(&mut self.node.calls);
        for out in self.node.others.drain(..) {
            match out {
                Out::ReadAnswer { stream, .. } => assert!(self.wanted.insert(stream), "{stream} is read twice"),
                Out::RefuseStream { stream, .. } => drop(self.wanted.remove(&stream)),
                Out::SendAnswer { call, .. } => self.going.push(call),
                _ => {}
            }
        }
    }

    /// Each token is completed at most once, by its own answer.
    fn check(&self) {
        let mut completed = BTreeSet::new();
        for (token, result) in &self.node.completed {
            assert!(self.asked.contains(token), "{token} was not asked in this life");
            assert!(completed.insert(*token), "{token} was completed twice");
            if let Ok(answer) = result {
                assert_eq!(answer.payload, token.to_be_bytes()[..], "an answer to another request");
            }
        }
    }

    fn end(&mut self) {
        let calls: BTreeSet<u64> = self.calls.iter().map(|call| call.call).collect();
        assert_eq!(calls.len(), self.calls.len(), "each call is handed out once");
        // What waits in order is handed out as those before it are answered.
        loop {
            let open: Vec<u64> = self.calls.iter().map(|call| call.call).filter(|c| !self.done.contains(c)).collect();
            if open.is_empty() {
                break;
            }
            for call in open {
                self.done.insert(call);
                self.node.answer(call, "done");
                self.node.wait(Duration::ZERO);
            }
            self.collect();
        }
        self.node.wait(Duration::from_secs(300));
        self.collect();
        assert!(self.wanted.is_empty(), "a stream is read for a request that has ended");
        for call in std::mem::take(&mut self.going) {
            self.node.feed(In::AnswerSent { call, sent: AnswerSent::Dropped });
        }
        self.node.wait(Duration::from_secs(1));
        self.check();
        assert_eq!(self.node.completed.len(), self.asked.len(), "every request is completed");
        assert!(self.node.is_clean(), "{:?}", self.node.driver.machine().stats());
        assert_eq!(self.node.driver.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_request_is_completed_once_and_nothing_is_left_behind(
        events in proptest::collection::vec(event(), 0..200),
    ) {
        let mut run = Run::new();
        for event in events {
            run.play(event);
        }
        run.end();
    }
}
