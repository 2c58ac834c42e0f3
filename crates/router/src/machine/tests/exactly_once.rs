//! Whatever happens in whatever order, each request is completed once and nothing is left behind.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

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
    Asked {
        by: u8,
        id: u64,
        millis: u64,
    },
    Withdrawn {
        by: u8,
        id: u64,
    },
    Answer(usize),
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
        4 => (peer.clone(), 0u64..8, 0u64..3_000).prop_map(|(by, id, millis)| Event::Asked { by, id, millis }),
        2 => (peer, 0u64..8).prop_map(|(by, id)| Event::Withdrawn { by, id }),
        4 => (0usize..64).prop_map(Event::Answer),
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
            Event::Asked { by, id, millis } => node.asked_by(by, id, Duration::from_millis(millis)),
            Event::Withdrawn { by, id } => node.hear(by, wire::cancel(id)),
            Event::Answer(n) => {
                let Some(call) = self.calls.get(n % self.calls.len().max(1)).map(|call| call.call) else { return };
                self.done.insert(call);
                node.answer(call, "done");
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
