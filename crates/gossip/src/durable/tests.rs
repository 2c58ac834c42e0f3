//! A durable topic against a disk and a reader that are plain lists.

use std::collections::{BTreeMap, BTreeSet};

use peerage_machine::{Driver, Time};
use proptest::prelude::*;

use super::*;
use crate::message::{Origin, Topic};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn config(hold: Duration) -> DurableConfig {
    DurableConfig { hold, hold_most: 10 * hold, readers: 4, publishers: 4, ..DurableConfig::recommended() }
}

fn publisher(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn id(n: u8, sequence: u64) -> MessageId {
    let mut id = [n; 32];
    id[..8].copy_from_slice(&sequence.to_be_bytes());
    MessageId(id)
}

/// The topic, what it wrote, and one reader.
struct World {
    topic: Driver<DurableMachine>,
    config: DurableConfig,
    now: Time,
    disk: Vec<Stored>,
    /// How many of the newest stay.
    retain: usize,
    writing: Option<Vec<Stored>>,
    /// Every entry that was ever on disk.
    written: Vec<Stored>,
    after: u64,
    got: Vec<Stored>,
    lagged: u64,
    acked: Vec<(u64, Result<(), Option<u64>>)>,
    cursors: BTreeMap<String, u64>,
    unread: u32,
    counts: Vec<DurableCount>,
    reads: u32,
    forgotten: Vec<MessageId>,
}

impl World {
    fn new(config: DurableConfig, retain: usize) -> World {
        let now = Time::ZERO + HOUR;
        let topic = Driver::new(DurableMachine::new(now, config.clone(), HOUR, Recovered::default()));
        World {
            topic,
            config,
            now,
            disk: Vec::new(),
            retain,
            writing: None,
            written: Vec::new(),
            after: 0,
            got: Vec::new(),
            lagged: 0,
            acked: Vec::new(),
            cursors: BTreeMap::new(),
            unread: 0,
            counts: Vec::new(),
            reads: 0,
            forgotten: Vec::new(),
        }
    }

    fn oldest(&self) -> u64 {
        self.disk.first().map_or(self.written.len() as u64 + 1, |entry| entry.position)
    }

    fn tell(&mut self, input: DurableIn) {
        self.topic.handle(self.now, input);
        self.perform();
    }

    fn perform(&mut self) {
        let outs: Vec<DurableOut> = self.topic.drain().collect();
        for out in outs {
            match out {
                DurableOut::Persist(entries) => {
                    assert!(self.writing.replace(entries).is_none(), "one question at a time");
                }
                DurableOut::Read { token, after, entries, .. } => {
                    self.reads += 1;
                    let found = self.disk.iter().filter(|entry| entry.position > after).take(entries);
                    self.tell(DurableIn::Read { token, entries: Some(found.cloned().collect()) });
                }
                DurableOut::Batch { batch, .. } => {
                    self.lagged += batch.lagged;
                    self.after = batch.after;
                    self.got.extend(batch.entries);
                }
                DurableOut::Unread { .. } => self.unread += 1,
                DurableOut::SaveCursor { token, cursor, position } => {
                    self.cursors.insert(cursor.clone(), position);
                    self.tell(DurableIn::CursorSaved { token, cursor, position: Some(position) });
                }
                DurableOut::Acked { token, result } => self.acked.push((token, result)),
                DurableOut::Hurry => {}
                DurableOut::Forget(id) => self.forgotten.push(id),
                DurableOut::Count(count) => self.counts.push(count),
            }
        }
    }

    fn accept(&mut self, n: u8, sequence: u64, first: bool) {
        let item = Bytes::from(vec![n; 100]);
        let (id, publisher) = (id(n, sequence), publisher(n));
        self.tell(DurableIn::Accepted { id, publisher, sequence, first, item });
    }

    fn write(&mut self, ok: bool) {
        let Some(entries) = self.writing.take() else { return };
        if ok {
            self.commit(entries);
        }
        let oldest = ok.then(|| self.oldest());
        self.tell(DurableIn::Persisted { oldest });
    }

    fn commit(&mut self, entries: Vec<Stored>) {
        for entry in entries {
            assert_eq!(entry.position, self.written.len() as u64 + 1, "positions rise by one");
            self.written.push(entry.clone());
            self.disk.push(entry);
        }
        let gone = self.disk.len().saturating_sub(self.retain);
        self.disk.drain(..gone);
    }

    fn fetch(&mut self) {
        let after = self.after;
        self.tell(DurableIn::Fetch { token: 1, after });
        self.tell(DurableIn::Abandon { token: 1 });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.topic.expire_due(self.now);
        self.perform();
    }

    /// Only what is on disk is left; whether that includes what was being written is for the disk to say.
    fn crash(&mut self, written: bool) {
        if let Some(entries) = self.writing.take().filter(|_| written) {
            self.commit(entries);
        }
        let mut last: BTreeMap<NodeId, u64> = BTreeMap::new();
        for entry in &self.written {
            last.insert(entry.publisher, entry.sequence);
        }
        let (oldest, next) = (self.oldest(), self.written.len() as u64 + 1);
        let recovered =
            Recovered { oldest, next, publishers: last.into_iter().collect(), cursors: self.cursors.clone() };
        self.topic = Driver::new(DurableMachine::new(self.now, self.config.clone(), HOUR, recovered));
        self.tell(DurableIn::Persisted { oldest: Some(oldest) });
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.pass(self.config.hold_most);
            while self.writing.is_some() {
                self.write(true);
            }
        }
        while self.after < self.written.len() as u64 {
            self.fetch();
        }
    }

    /// What the reader got: in the order of each publisher, and nothing twice.
    fn check(&self) {
        let mut last: BTreeMap<NodeId, u64> = BTreeMap::new();
        for entry in &self.got {
            let before = last.insert(entry.publisher, entry.sequence);
            assert!(before.is_none_or(|before| before < entry.sequence), "{:?} after {before:?}", entry.sequence);
        }
        let ids: BTreeSet<MessageId> = self.got.iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), self.got.len());
        assert_eq!(self.got.len() as u64 + self.lagged, self.after, "what is not there is told");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    /// The message of this rank among those that are not here.
    Arrive(usize),
    Write(bool),
    Fetch,
    Pass(u64),
    Crash(bool),
    Ack(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8).prop_map(Step::Publish),
        6 => any::<usize>().prop_map(Step::Arrive),
        4 => any::<bool>().prop_map(Step::Write),
        2 => Just(Step::Fetch),
        2 => (0..1_500u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => (0..40u64).prop_map(Step::Ack),
    ]
}

/// Runs steps; the network brings whatever was published and is not here. Answers how many messages there were.
fn run(world: &mut World, steps: Vec<Step>) -> usize {
    const BASE: u64 = 1_000;
    let mut published = [0u64; 3];
    // What gossip has taken for seen: after a crash, what is on disk.
    let mut seen: BTreeSet<MessageId> = BTreeSet::new();
    let mut acked = 0;
    for step in steps {
        let missing = |seen: &BTreeSet<MessageId>| -> Vec<(u8, u64)> {
            let all = (0..3u8).flat_map(|n| (0..published[usize::from(n)]).map(move |k| (n, BASE + k)));
            all.filter(|(n, sequence)| !seen.contains(&id(*n, *sequence))).collect()
        };
        match step {
            Step::Publish(n) => published[usize::from(n)] += 1,
            Step::Arrive(rank) => {
                let missing = missing(&seen);
                if let Some((n, sequence)) = rank.checked_rem(missing.len()).and_then(|rank| missing.get(rank)) {
                    seen.insert(id(*n, *sequence));
                    // Of two of them it is known where they begin.
                    world.accept(*n, *sequence, *n < 2 && *sequence == BASE);
                }
            }
            Step::Write(ok) => world.write(ok),
            Step::Fetch => world.fetch(),
            Step::Pass(millis) => world.pass(Duration::from_millis(millis)),
            Step::Crash(written) => {
                world.crash(written);
                seen = world.written.iter().map(|entry| entry.id).collect();
            }
            Step::Ack(position) => {
                let last = world.written.len() as u64;
                world.tell(DurableIn::Ack { token: 9, cursor: "c".into(), position });
                let told = world.acked.pop().map(|(_, result)| result);
                assert_eq!(told.is_some_and(|result| result.is_ok()), position <= last);
                acked = if position <= last { position.max(acked) } else { acked };
                let at = world.topic.machine().locate(&Start::Cursor("c".into()));
                assert_eq!(at, if world.cursors.is_empty() { world.oldest() - 1 } else { acked });
            }
        }
        world.check();
    }
    let all = (0..3u8).flat_map(|n| (0..published[usize::from(n)]).map(move |k| (n, BASE + k)));
    let all: Vec<_> = all.collect();
    // Pull repair brings the rest, newest first.
    for (n, sequence) in all.iter().rev().filter(|(n, sequence)| !seen.contains(&id(*n, *sequence))) {
        world.accept(*n, *sequence, *n < 2 && *sequence == BASE);
    }
    world.settle();
    world.check();
    all.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_when_everything_is_kept_once_in_order_if_it_comes_in_time(
        steps in prop::collection::vec(step(), 0..150),
        retain in 3..200usize,
    ) {
        let mut world = World::new(config(HOUR), retain);
        let all = run(&mut world, steps);
        prop_assert_eq!(world.written.len(), all, "none is lost");
        prop_assert_eq!(world.written.iter().map(|entry| entry.id).collect::<BTreeSet<_>>().len(), all);
    }

    #[test]
    fn what_comes_too_late_is_dropped_and_counted_and_nothing_is_out_of_order(
        steps in prop::collection::vec(step(), 0..150),
        retain in 3..200usize,
    ) {
        let mut world = World::new(config(Duration::from_millis(300)), retain);
        let all = run(&mut world, steps);
        let late = world.counts.iter().filter(|count| **count == DurableCount::Late).count();
        prop_assert!(world.written.len() <= all && world.written.len() + late >= all);
    }
}

#[test]
fn a_gap_holds_back_its_publisher_alone_until_it_is_filled() {
    let mut world = World::new(config(6 * SECOND), 100);
    world.accept(1, 10, true);
    world.accept(1, 12, false);
    world.accept(1, 13, false);
    world.accept(2, 50, true);
    assert_eq!(world.counts, [DurableCount::Held, DurableCount::Held]);
    world.write(true);
    world.write(true);
    world.fetch();
    assert_eq!(world.got.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [10, 50]);
    world.accept(1, 11, false);
    world.write(true);
    world.fetch();
    assert_eq!(world.got.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [10, 50, 11, 12, 13]);
}

#[test]
fn a_gap_that_is_not_filled_is_given_up_and_waits_longer_while_others_are_filled() {
    let mut world = World::new(config(6 * SECOND), 100);
    world.accept(1, 10, true);
    for sequence in [20, 19, 18] {
        world.accept(1, sequence, false);
        world.pass(5 * SECOND);
        assert!(!world.counts.contains(&DurableCount::GivenUp(1)), "{sequence}");
    }
    world.pass(SECOND);
    assert!(world.counts.contains(&DurableCount::GivenUp(1)));
    world.accept(1, 17, false);
    assert_eq!(world.counts.last(), Some(&DurableCount::Late));
    world.settle();
    assert_eq!(world.got.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [10, 18, 19, 20]);
}

/// Peers' logs are looked through from one instant to the next.
fn looked_through(world: &mut World, took: Duration) {
    let began = world.now;
    world.tell(DurableIn::CatchUp { running: true, until: None });
    world.pass(took);
    world.tell(DurableIn::CatchUp { running: false, until: Some(began) });
}

#[test]
fn while_peers_logs_are_looked_through_a_gap_waits_and_then_no_longer() {
    let mut world = World::new(config(6 * SECOND), 100);
    world.accept(1, 10, true);
    world.accept(1, 500, false);
    let began = world.now;
    world.tell(DurableIn::CatchUp { running: true, until: None });
    for sequence in 11..100 {
        world.pass(5 * SECOND);
        world.accept(1, sequence, false);
    }
    world.pass(100 * SECOND);
    assert!(!world.counts.iter().any(|count| matches!(count, DurableCount::GivenUp(_))), "it is looked for");
    world.tell(DurableIn::CatchUp { running: false, until: Some(began) });
    world.settle();
    assert_eq!(world.got.len(), 91, "what is not to be had is given up");
    // What was looked for once does not wait for every other look.
    let mut world = World::new(config(6 * SECOND), 100);
    world.accept(1, 10, true);
    world.accept(1, 500, false);
    looked_through(&mut world, SECOND);
    world.tell(DurableIn::CatchUp { running: true, until: None });
    world.pass(6 * SECOND);
    assert!(world.counts.contains(&DurableCount::GivenUp(1)));
    // And nobody looks for longer than so.
    let mut world = World::new(config(6 * SECOND), 100);
    world.accept(1, 10, true);
    world.accept(1, 500, false);
    world.tell(DurableIn::CatchUp { running: true, until: None });
    world.pass(world.config.catch_up_most);
    assert!(world.counts.contains(&DurableCount::GivenUp(1)));
}

#[test]
fn while_peers_logs_are_looked_through_what_is_too_much_is_fetched_again_and_not_given_up() {
    let mut world = World::new(DurableConfig { held_bytes: 1_000, ..config(6 * SECOND) }, 1_000);
    world.accept(1, 10, true);
    world.tell(DurableIn::CatchUp { running: true, until: None });
    (20..40).for_each(|sequence| world.accept(1, sequence, false));
    assert_eq!(world.forgotten, (30..40).map(|sequence| id(1, sequence)).collect::<Vec<_>>());
    (11..20).chain(30..40).for_each(|sequence| world.accept(1, sequence, false));
    world.settle();
    assert_eq!(world.got.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), (10..40).collect::<Vec<_>>());
}

#[test]
fn the_first_message_of_a_life_goes_on_at_once_where_all_before_it_was_fetched() {
    const LIFE: u64 = FIRST_OF_LIFE;
    let gone_on = |world: &World| world.writing.iter().flatten().map(|entry| entry.sequence).collect::<Vec<_>>();
    let mut world = World::new(config(6 * SECOND), 100);
    world.accept(1, 3 * LIFE, false);
    assert_eq!(gone_on(&world), [], "what it published before may be in peers' logs");
    looked_through(&mut world, SECOND);
    world.pass(6 * SECOND);
    world.accept(2, 3 * LIFE, false);
    world.write(true);
    assert_eq!(gone_on(&world), [3 * LIFE]);
    world.accept(2, 3 * LIFE + 1, false);
    world.write(true);
    world.accept(2, 5 * LIFE, false);
    world.accept(3, 7 * LIFE + 1, false);
    world.write(true);
    assert_eq!(gone_on(&world), [], "what was under way when it ended may still come; and a first one may be missing");
    world.accept(2, 3 * LIFE + 2, false);
    world.write(true);
    world.settle();
    looked_through(&mut world, SECOND);
    world.accept(2, 9 * LIFE, false);
    assert_eq!(gone_on(&world), [9 * LIFE]);
    world.settle();
    world.pass(200 * SECOND);
    world.accept(2, 11 * LIFE, false);
    assert_eq!(gone_on(&world), [], "nobody has looked for long");
    let own: Vec<u64> = world.got.iter().filter(|e| e.publisher == publisher(2)).map(|e| e.sequence).collect();
    assert_eq!(own, [3 * LIFE, 3 * LIFE + 1, 3 * LIFE + 2, 5 * LIFE, 9 * LIFE]);
}

#[test]
fn how_far_it_is_is_told_in_parts() {
    let mut world = World::new(DurableConfig { publishers: 100, ..config(HOUR) }, 100);
    (0..10).for_each(|n| world.accept(n, 5 + u64::from(n), true));
    world.accept(10, 3, false);
    let topic = world.topic.machine();
    let (last, known) = topic.known(publisher(0), 4);
    assert_eq!((last, known.len(), known[3]), (publisher(3), 4, (publisher(3), 8)));
    let (last, known) = topic.known(publisher(4), 100);
    assert_eq!((last, known.len()), (publisher(0xff), 6), "what is held back is not here yet");
}

#[test]
fn whoever_is_slow_reads_the_disk_and_is_told_what_it_has_not() {
    let mut world = World::new(config(SECOND), 50);
    for sequence in 1..=200u64 {
        world.accept(1, sequence, sequence == 1);
        world.write(true);
    }
    world.write(true);
    world.fetch();
    assert_eq!((world.lagged, world.got.first().map(|entry| entry.position)), (150, Some(151)));
    let mut slow = World::new(config(SECOND), 100_000);
    for sequence in 1..=30_000u64 {
        slow.accept(1, sequence, sequence == 1);
        slow.write(true);
    }
    slow.settle();
    assert_eq!((slow.lagged, slow.got.len()), (0, 30_000));
    assert!(slow.reads > 100, "they are more than what is kept in memory: {}", slow.reads);
}

#[test]
fn while_the_disk_fails_nothing_is_handed_out_and_what_waits_is_bounded() {
    let most = 20 * 100;
    let mut world = World::new(DurableConfig { waiting_bytes: most, ..config(SECOND) }, 1_000);
    for sequence in 1..=30 {
        world.accept(1, sequence, sequence == 1);
    }
    for _ in 0..5 {
        world.write(false);
        world.pass(100 * SECOND);
        world.fetch();
    }
    assert_eq!((world.got.len(), world.topic.machine().in_memory().1), (0, most));
    assert_eq!(world.counts.iter().filter(|count| **count == DurableCount::Overflow).count(), 10);
    world.settle();
    assert_eq!(world.got.len(), 20);
}

#[test]
fn what_is_held_back_is_bounded_and_whoever_has_most_of_it_waits_no_longer() {
    let mut world = World::new(DurableConfig { held_bytes: 1_000, ..config(HOUR) }, 1_000);
    world.accept(1, 5, false);
    for sequence in 1..=20 {
        world.accept(2, 2 * sequence, false);
    }
    assert!(world.topic.machine().in_memory().0 <= 1_000);
    while world.writing.is_some() {
        world.write(true);
    }
    world.fetch();
    assert!(world.got.iter().all(|entry| entry.publisher == publisher(2)), "the other one is not made to go");
    assert_eq!(world.got.len(), 11);
    for n in 0..50 {
        world.accept(n, 1_000, false);
    }
    assert_eq!(world.counts.iter().filter(|count| **count == DurableCount::Publishers).count(), 46, "four are known");
    for token in 10..20 {
        world.tell(DurableIn::Fetch { token, after: 1_000 });
    }
    assert_eq!(world.unread, 6, "four readers wait");
}

#[test]
fn a_kept_item_is_read_back_and_anything_else_is_none() {
    let topic = Topic::new("t").expect("short");
    let origin = Origin { publisher: publisher(1), sequence: 1, issued: 2, signature: [3; 64] };
    let parcel = Parcel::new(topic, Some(origin), b"hi");
    assert_eq!(parcel_of(&parcel.bytes, 100), Some(parcel.clone()));
    assert_eq!(parcel_of(&parcel.bytes, 1), None);
    assert_eq!(parcel_of(&parcel.bytes.slice(..9), 100), None);
    assert_eq!(parcel_of(&Bytes::new(), 100), None);
}
