//! Histories of durable topics: machines whose logs are plain lists.

use std::collections::BTreeMap;

use super::*;
use crate::wire::{HistoryAsk, HistoryEnd, Item};

const HOUR: Duration = Duration::from_secs(3_600);

/// A node with a log, which is kept in the order in which messages come.
struct Library {
    node: Node,
    log: Vec<Parcel>,
    last: BTreeMap<NodeId, u64>,
    /// Messages that came from peers' logs out of the window of pushes.
    old: usize,
    /// Passes that were over, and how many were complete.
    passes: (usize, usize),
    reads: usize,
    /// It says nothing more.
    silent: bool,
}

impl Library {
    fn new(n: u8) -> Library {
        let mut node = Node::with(n, Config { in_flight: 4_096, ..Config::test() });
        let durable =
            In::Durable { topic: topic(), ids: Vec::new(), items: Vec::new(), sequence: 0, age: HOUR, floor: 0 };
        node.feed(at(0), durable);
        node.subscribe(Policy::Signed);
        let (log, last) = (Vec::new(), BTreeMap::new());
        Library { node, log, last, old: 0, passes: (0, 0), reads: 0, silent: false }
    }

    fn take(&mut self, parcel: Parcel) {
        let origin = parcel.origin.clone().expect("signed");
        let last = self.last.entry(origin.publisher).or_default();
        assert!(origin.sequence > *last, "sent again, or out of order");
        *last = origin.sequence;
        self.log.push(parcel);
    }

    /// Does what the shell does. Answers what is to be sent.
    fn perform(&mut self, now: Time, outs: Vec<Out>) -> Vec<(u64, Bytes)> {
        let mut sent = Vec::new();
        for out in outs {
            let more = match out {
                Out::Push(push) => {
                    sent.extend(push.to.iter().map(|to| (to.session.0, push.bytes.clone())));
                    continue;
                }
                Out::Keep { parcel, old, .. } => {
                    self.old += usize::from(old);
                    self.take(parcel);
                    continue;
                }
                Out::History { topic, first } => {
                    let known: Vec<_> = self.last.range(first..).map(|(id, last)| (*id, *last)).take(400).collect();
                    let last = known.get(399).map_or(NodeId::from_bytes([0xff; 32]), |(id, _)| *id);
                    self.node.feed(now, In::HistoryKnown { topic, first, last, known })
                }
                Out::ReadHistory { token, ask, entries, bytes } => {
                    self.reads += 1;
                    self.node.feed(now, In::HistoryRead { token, found: Some(self.select(&ask, entries, bytes)) })
                }
                Out::CatchUp { running: false, until, .. } => {
                    self.passes.0 += 1;
                    self.passes.1 += usize::from(until.is_some());
                    continue;
                }
                _ => continue,
            };
            sent.extend(self.perform(now, more));
        }
        sent
    }

    fn select(&self, ask: &HistoryAsk, entries: usize, bytes: usize) -> Found {
        let (mut items, mut after, mut size) = (Vec::new(), ask.after, 0);
        for (position, parcel) in (1..).zip(&self.log).skip(ask.after as usize) {
            let origin = parcel.origin.as_ref().expect("signed");
            if ask.lacks(&origin.publisher, origin.sequence) {
                size += parcel.bytes.len();
                if items.len() >= entries || (size > bytes && !items.is_empty()) {
                    return Found { items, after, more: true };
                }
                items.push(parcel.bytes.clone());
            }
            after = position;
        }
        Found { items, after, more: false }
    }
}

/// Libraries that are each other's peers; session `n` of each is with the nth.
struct Libraries {
    all: Vec<Library>,
    now: u64,
}

impl Libraries {
    fn new(count: u8) -> Libraries {
        Libraries { all: (0..count).map(Library::new).collect(), now: 0 }
    }

    fn join(&mut self) {
        for here in 0..self.all.len() {
            for there in (0..self.all.len()).filter(|there| *there != here) {
                let up = PeerUp::new(SessionId(there as u64), keys(there as u8).id(), ChannelId(1));
                self.feed(here, In::PeerUp(up));
            }
        }
    }

    fn feed(&mut self, node: usize, input: In) {
        let now = at(self.now);
        let outs = self.all[node].node.feed(now, input);
        let sent = self.all[node].perform(now, outs);
        self.carry(node, sent);
    }

    fn carry(&mut self, from: usize, sent: Vec<(u64, Bytes)>) {
        for (to, payload) in sent {
            if !self.all[from].silent {
                self.feed(to as usize, In::Inbound { session: SessionId(from as u64), payload });
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.now += 50;
            for node in 0..self.all.len() {
                let now = at(self.now);
                let outs = self.all[node].node.expire(now);
                let sent = self.all[node].perform(now, outs);
                self.carry(node, sent);
            }
        }
    }
}

/// Messages of some publishers, in turn, of the last half hour.
fn past(count: u64, publishers: u8) -> Vec<Parcel> {
    let published = |n: u64| {
        let publisher = 100 + (n % u64::from(publishers)) as u8;
        parcel(publisher, 1 + n, Time::new(Duration::ZERO, at(0).unix() - HOUR / 2), &[0; 100])
    };
    (0..count).map(published).collect()
}

#[test]
fn a_node_that_was_away_gets_all_that_its_peers_logs_have_and_each_once() {
    let mut world = Libraries::new(4);
    let messages = past(2_000, 20);
    for (n, message) in messages.iter().enumerate() {
        world.all[1].take(message.clone());
        world.all[2].take(message.clone());
        // One was here for the first half.
        if n < 1_000 {
            world.all[3].take(message.clone());
        }
    }
    world.join();
    world.pass(15_000);
    for (n, library) in world.all.iter().enumerate() {
        assert_eq!(library.log.len(), 2_000, "node {n}");
        assert!(library.passes.1 >= 1, "node {n}");
    }
    assert_eq!((world.all[0].old, world.all[3].old), (2_000, 1_000));
    assert!(world.all[0].node.stats().cached == 0 && world.all[0].node.stats().seen == 0, "nobody pushes these");
    let before: usize = world.all.iter().map(|library| library.reads).sum();
    world.pass(60_000);
    let questions = world.all.iter().map(|library| library.reads).sum::<usize>() - before;
    assert!(questions <= 4 * 3 * 2, "who has everything asks three peers a minute: {questions}");
}

#[test]
fn one_peer_that_says_to_have_nothing_or_nothing_at_all_does_not_end_the_search() {
    for silent in [false, true] {
        let mut world = Libraries::new(3);
        past(50, 3).into_iter().for_each(|message| world.all[1].take(message));
        world.all[2].silent = silent;
        world.join();
        world.pass(30_000);
        assert_eq!(world.all[0].log.len(), 50, "silent: {silent}");
        assert!(world.all[0].passes.1 >= 1);
    }
}

#[test]
fn alone_nothing_is_asked_and_the_first_who_comes_is() {
    let mut world = Libraries::new(2);
    past(50, 3).into_iter().for_each(|message| world.all[1].take(message));
    world.pass(10_000);
    assert_eq!(world.all[0].passes, (1, 0), "nobody was there to be asked");
    assert_eq!(world.all[0].node.driver.next_deadline(), None, "and it costs nothing to be alone");
    world.join();
    world.pass(3_000);
    assert_eq!((world.all[0].log.len(), world.all[0].passes.1), (50, 1));
}

/// An asker that is no machine: session 1 of a library.
fn asked(library: &mut Library, now: Time, session: u64, ask: &HistoryAsk) -> Vec<Out> {
    let outs = library.node.inbound(now, session, wire::history_ask(ask));
    let kept = outs.clone();
    library.perform(now, outs);
    kept
}

fn everything(round: u32) -> HistoryAsk {
    let (first, last) = (NodeId::from_bytes([0; 32]), NodeId::from_bytes([0xff; 32]));
    HistoryAsk { topic: topic(), round, after: 0, first, last, known: Vec::new() }
}

#[test]
fn whoever_asks_and_asks_gets_so_many_answers_and_is_blamed() {
    let mut library = Library::new(0);
    past(5_000, 3).into_iter().for_each(|message| library.take(message));
    library.node.peer(1);
    let mut blamed = false;
    for round in 0..1_000 {
        let outs = asked(&mut library, at(1_000), 1, &everything(round));
        blamed |= outs.iter().any(|out| matches!(out, Out::Report { penalty: Penalty::ControlFlood, .. }));
    }
    assert!(library.reads <= 16 && blamed, "{}", library.reads);

    // Fifty that keep to the quota of each: what all of them get is bounded too.
    let mut library = Library::new(0);
    past(5_000, 3).into_iter().for_each(|message| library.take(message));
    (1..=50).for_each(|n| library.node.peer(n));
    let mut bytes = 0;
    for round in 0..10 {
        for session in 1..=50 {
            let outs = library.node.inbound(at(1_000), session, wire::history_ask(&everything(round)));
            let sent = library.perform(at(1_000), outs);
            bytes += sent.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
    }
    let pull = Config::test().pull;
    assert!(library.reads <= 32, "{}", library.reads);
    assert!(bytes <= pull.history_beat_bytes + pull.history_bytes + 100_000, "{bytes}");
}

#[test]
fn a_log_that_does_not_answer_holds_no_more_than_a_few_questions() {
    let mut library = Library::new(0);
    (1..=50).for_each(|n| library.node.peer(n));
    let reading = |outs: &[Out]| outs.iter().filter(|out| matches!(out, Out::ReadHistory { .. })).count();
    let mut under_way = 0;
    for session in 1..=50 {
        under_way += reading(&library.node.inbound(at(1_000), session, wire::history_ask(&everything(1))));
        under_way += reading(&library.node.inbound(at(1_000), session, wire::history_ask(&everything(2))));
    }
    assert_eq!(under_way, 8);
}

/// A library that has asked session 1, and the number of its question.
fn asking() -> (Library, u32) {
    let mut library = Library::new(0);
    library.node.peer(1);
    for millis in (0..3_000).step_by(50) {
        let outs = library.node.expire(at(millis));
        for (_, bytes) in library.perform(at(millis), outs) {
            for item in wire::items(bytes, 0) {
                if let Ok(Item::HistoryAsk(ask)) = item {
                    return (library, ask.round);
                }
            }
        }
    }
    panic!("it does not ask");
}

fn dropped(outs: &[Out]) -> Vec<DropReason> {
    let reason = |out: &Out| if let Out::Count(Count::Dropped(reason)) = out { Some(*reason) } else { None };
    outs.iter().filter_map(reason).collect()
}

#[test]
fn what_comes_out_of_a_log_is_believed_no_more_than_what_is_pushed() {
    let (mut library, _) = asking();
    let now = at(3_000);
    let past = |age: Duration| Time::new(Duration::ZERO, now.unix() - age);
    let mut send = |session, message: &Parcel| {
        let outs = library.node.inbound(now, session, wire::logged(&message.bytes));
        (dropped(&outs), outs.iter().any(|out| matches!(out, Out::Keep { old: true, .. })), outs)
    };
    let good = parcel(101, 50, past(HOUR / 2), b"good");
    let (reasons, kept, outs) = send(1, &forged(&good, 9));
    assert!(reasons == [DropReason::InvalidSignature] && !kept);
    assert!(outs.iter().any(|out| matches!(out, Out::Report { penalty: Penalty::InvalidMessage, .. })));
    assert_eq!(send(1, &parcel(102, 5, past(2 * HOUR), b"too old")).0, [DropReason::TooOld]);
    assert!(send(1, &parcel(103, 5, past(HOUR / 2), b"good")).1);
    assert_eq!(send(1, &parcel(103, 5, past(HOUR / 2), b"again")).0, [DropReason::HistoryUnasked]);
    assert_eq!(send(1, &parcel(103, 4, past(HOUR / 2), b"back")).0, [DropReason::HistoryUnasked]);
    assert_eq!(send(2, &parcel(104, 4, past(HOUR / 2), b"unasked")).0, [DropReason::UnknownSession]);
    let late = wire::history_end(&HistoryEnd {
        topic: topic(),
        round: 999,
        after: u64::MAX,
        sent: 0,
        more: false,
        keeps: true,
    });
    assert_eq!(dropped(&library.node.inbound(now, 1, late)), [DropReason::HistoryUnasked]);
}

#[test]
fn what_may_have_been_forgotten_is_not_taken_again() {
    let mut library = Library::new(0);
    library.node.feed(at(0), In::Unsubscribe { topic: topic() });
    let floor = at(0).unix_millis() - 60_000 * 20;
    library
        .node
        .feed(at(0), In::Durable { topic: topic(), ids: Vec::new(), items: Vec::new(), sequence: 0, age: HOUR, floor });
    library.node.subscribe(Policy::Signed);
    library.node.peer(1);
    for millis in (0..3_000).step_by(50) {
        let outs = library.node.expire(at(millis));
        library.perform(at(millis), outs);
    }
    let old = parcel(101, 1, Time::new(Duration::ZERO, at(0).unix() - HOUR / 2), b"old");
    assert_eq!(dropped(&library.node.inbound(at(3_000), 1, wire::logged(&old.bytes))), [DropReason::TooOld]);
}

/// A peer that has always more and never says anything is not asked for ever.
#[test]
fn whoever_drips_is_left() {
    let (mut library, mut round) = asking();
    let (mut millis, mut questions, mut drips) = (3_000, 0, 0u64);
    while millis < 240_000 && library.passes.0 == 0 {
        drips += 1;
        let end = HistoryEnd { topic: topic(), round, after: drips, sent: 0, more: true, keeps: true };
        let mut sent = {
            let outs = library.node.inbound(at(millis), 1, wire::history_end(&end));
            library.perform(at(millis), outs)
        };
        while sent.is_empty() && millis < 240_000 && library.passes.0 == 0 {
            millis += 50;
            let outs = library.node.expire(at(millis));
            sent = library.perform(at(millis), outs);
        }
        for item in sent.into_iter().flat_map(|(_, bytes)| wire::items(bytes, 0).collect::<Vec<_>>()) {
            if let Ok(Item::HistoryAsk(ask)) = item {
                (round, questions) = (ask.round, questions + 1);
            }
        }
    }
    assert_eq!(library.passes, (1, 1));
    assert!(questions <= 16, "{questions}");
}

/// It need not sign what it makes up, and each of them is another publisher's.
#[test]
fn whoever_answers_without_end_is_heard_to_an_end() {
    let (mut library, _) = asking();
    library.node.checks = false;
    let origin = parcel(101, 1, at(3_000), b"x").origin.expect("signed");
    let (mut verifying, mut refused) = (0, 0);
    for n in 0..5_000u64 {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let origin = Origin { publisher: NodeId::from_bytes(bytes), ..origin.clone() };
        let made_up = Parcel::new(topic(), Some(origin), b"x");
        let outs = library.node.inbound(at(3_000), 1, wire::logged(&made_up.bytes));
        refused += dropped(&outs).iter().filter(|reason| **reason == DropReason::HistoryUnasked).count();
        verifying += outs.iter().filter(|out| matches!(out, Out::Verify { .. })).count();
    }
    assert!(verifying <= 1_024 && refused >= 3_900, "{verifying}, {refused}");
}

/// What was let go for want of room comes again out of a log: to its readers, and to nobody twice.
#[test]
fn what_was_forgotten_for_want_of_room_goes_to_the_log_alone() {
    let (mut library, _) = asking();
    let message = parcel(101, 1, at(3_000), b"hi");
    let outs = library.node.inbound(at(3_000), 1, message.bytes.clone());
    assert!(outs.iter().any(|out| matches!(out, Out::Keep { old: false, .. })));
    let again = wire::logged(&message.bytes);
    assert!(!library.node.inbound(at(3_001), 1, again.clone()).iter().any(|out| matches!(out, Out::Keep { .. })));
    library.node.feed(at(3_002), In::Forget { ids: vec![message.id()] });
    let later = parcel(102, 1, at(3_000), b"ho");
    library.node.inbound(at(3_003), 1, later.bytes.clone());
    library.node.feed(at(3_004), In::Forget { ids: vec![later.id()] });
    let outs = library.node.inbound(at(3_005), 1, wire::logged(&later.bytes));
    assert!(outs.iter().any(|out| matches!(out, Out::Keep { old: true, .. })), "{outs:?}");
    assert_eq!(library.node.stats().cached, 2);
}
