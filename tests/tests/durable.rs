//! Durable topics: whatever happens to a node or to its gossip, readers get every message once, in order.

use std::time::Duration;

use bytes::Bytes;
use peerage_server::Service;
use peerage_server::gossip::durable::{Durable, DurableAsk, DurableMessage, Lease, Start};
use peerage_server::gossip::{Policy, Publish, Topic};
use peerage_server::mailbox::{AskError, Capacity, Inlet, ask, data_queue};
use peerage_tests::{World, config};

const SECOND: Duration = Duration::from_secs(1);
const BOUNDS: Durable = Durable { retain_bytes: 1 << 20, retain_age: Duration::from_secs(3_600) };

fn kept() -> Topic {
    Topic::new("kept").expect("short")
}

/// A reader of the nth node.
struct Reader {
    n: usize,
    after: u64,
    lagged: u64,
    got: Vec<DurableMessage>,
    _lease: Inlet<Lease>,
}

impl Reader {
    async fn open(world: &World, n: usize, durable: Durable, start: Start) -> Reader {
        let (lease, _lease) = data_queue(Capacity { items: 1, weight: 1 });
        let after = world.nodes[n].server.subscribe_durable(kept(), durable, start, lease).await.expect("durable");
        Reader { n, after, lagged: 0, got: Vec::new(), _lease }
    }

    /// Reads until it has so many messages, those that it was told are lost included.
    async fn read(&mut self, world: &World, until: u64) {
        let asker = world.nodes[self.n].server.asker();
        let begun = world.clock.now();
        while self.lagged + (self.got.len() as u64) < until {
            let (after, topic) = (self.after, kept());
            let answer = ask(SECOND, |reply| {
                drop(asker.offer(DurableAsk::Fetch { topic, after, reply }));
            })
            .await;
            match answer {
                Ok(Ok(batch)) => {
                    self.lagged += batch.lagged;
                    self.after = batch.after;
                    self.got.extend(batch.entries);
                }
                Ok(Err(_)) | Err(AskError::Dropped) => tokio::time::sleep(SECOND / 10).await,
                Err(AskError::TimedOut) => {}
            }
            let waited = world.clock.now().since(begun);
            assert!(waited < 90 * SECOND, "{} of {until} at {}", self.got.len(), self.n);
        }
    }

    async fn ack(&self, world: &World) {
        let (position, cursor) = (self.after, "reader".to_owned());
        let answer = ask(SECOND, |reply| {
            let ack = DurableAsk::Ack { topic: kept(), cursor, position, reply };
            assert!(world.nodes[self.n].server.asker().offer(ack).is_ok());
        });
        assert_eq!(answer.await, Ok(Ok(())));
    }

    fn numbers(&self) -> Vec<u64> {
        let number = |message: &DurableMessage| String::from_utf8_lossy(&message.payload).parse().expect("a number");
        self.got.iter().map(number).collect()
    }
}

async fn publish(world: &World, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let payload = Bytes::from(n.to_string());
        let published = ask(10 * SECOND, |reply| {
            let publish = Publish { topic: kept(), policy: Policy::Signed, payload, reply };
            assert!(world.nodes[0].server.publisher().offer(publish).is_ok());
        });
        published.await.expect("answered").expect("published");
        tokio::time::sleep(SECOND / 4).await;
    }
}

async fn pair(seed: u64) -> World {
    let mut world = World::start(seed, 2, config(10)).await;
    world.until_peers(1, 60 * SECOND).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_every_message_once_through_panics_and_restarts() {
    let mut world = pair(1).await;
    let mut here = Reader::open(&world, 0, BOUNDS, Start::Earliest).await;
    let mut there = Reader::open(&world, 1, BOUNDS, Start::Cursor("reader".into())).await;
    tokio::time::sleep(2 * SECOND).await;
    publish(&world, 0..20).await;
    there.read(&world, 20).await;
    assert_eq!(there.numbers(), (0..20).collect::<Vec<_>>());

    world.nodes[1].server.inject_panic(Service::Gossip);
    publish(&world, 20..40).await;
    there.read(&world, 40).await;
    assert_eq!(there.numbers(), (0..40).collect::<Vec<_>>(), "the actor's next life goes on");
    there.ack(&world).await;

    publish(&world, 40..45).await;
    there.read(&world, 45).await;
    world.kill(&[1]).await;
    publish(&world, 45..60).await;
    world.revive(1).await;
    let mut again = Reader::open(&world, 1, BOUNDS, Start::Cursor("reader".into())).await;
    publish(&world, 60..80).await;
    again.read(&world, 40).await;
    assert_eq!(again.numbers(), (40..80).collect::<Vec<_>>(), "on from what was acknowledged");
    let mut all = Reader::open(&world, 1, BOUNDS, Start::Earliest).await;
    all.read(&world, 80).await;
    assert_eq!(all.numbers(), (0..80).collect::<Vec<_>>());

    // Who publishes has its own messages in its log, and they go on after it was away.
    here.read(&world, 80).await;
    assert_eq!(here.numbers(), (0..80).collect::<Vec<_>>());
    world.kill(&[0]).await;
    world.revive(0).await;
    world.until_peers(1, 60 * SECOND).await;
    let mut here = Reader::open(&world, 0, BOUNDS, Start::After(80)).await;
    tokio::time::sleep(2 * SECOND).await;
    publish(&world, 80..90).await;
    here.read(&world, 10).await;
    again.read(&world, 50).await;
    assert_eq!(here.numbers(), (80..90).collect::<Vec<_>>());
    assert_eq!(again.numbers(), (40..90).collect::<Vec<_>>());
    world.finish().await;
}

/// Away for longer than anything is kept in memory: what was published meanwhile comes out of peers' logs.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_long_gets_what_it_missed_out_of_its_peers_logs() {
    let mut world = World::start(3, 3, config(10)).await;
    world.until_peers(2, 60 * SECOND).await;
    let mut here = Reader::open(&world, 0, BOUNDS, Start::Earliest).await;
    let mut other = Reader::open(&world, 2, BOUNDS, Start::Earliest).await;
    let mut there = Reader::open(&world, 1, BOUNDS, Start::Cursor("reader".into())).await;
    tokio::time::sleep(2 * SECOND).await;
    publish(&world, 0..20).await;
    there.read(&world, 20).await;
    there.ack(&world).await;
    world.kill(&[1]).await;
    publish(&world, 20..420).await;
    tokio::time::sleep(300 * SECOND).await;
    world.revive(1).await;
    // What comes by push waits for what was before it.
    publish(&world, 420..430).await;
    let mut again = Reader::open(&world, 1, BOUNDS, Start::Cursor("reader".into())).await;
    publish(&world, 430..440).await;
    again.read(&world, 420).await;
    assert_eq!(again.numbers(), (20..440).collect::<Vec<_>>(), "on from what was acknowledged");
    // And so does somebody who was never here.
    world.join(peerage_tests::keys(3, 3)).await;
    let mut fresh = Reader::open(&world, 3, BOUNDS, Start::Earliest).await;
    fresh.read(&world, 440).await;
    assert_eq!(fresh.numbers(), (0..440).collect::<Vec<_>>());
    here.read(&world, 440).await;
    other.read(&world, 440).await;
    assert_eq!(here.numbers(), other.numbers());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slower_than_the_window_is_told_what_it_lost() {
    let world = pair(2).await;
    let small = Durable { retain_bytes: 3_000, ..BOUNDS };
    let mut here = Reader::open(&world, 0, small, Start::Earliest).await;
    let mut there = Reader::open(&world, 1, small, Start::Latest).await;
    tokio::time::sleep(2 * SECOND).await;
    publish(&world, 0..100).await;
    here.read(&world, 100).await;
    assert!(here.lagged > 50 && !here.got.is_empty(), "{} lost", here.lagged);
    assert_eq!(here.numbers(), (here.lagged..100).collect::<Vec<_>>(), "the newest are there");
    tokio::time::sleep(10 * SECOND).await;
    there.read(&world, 100).await;
    assert_eq!(there.numbers(), (there.lagged..100).collect::<Vec<_>>());
    world.finish().await;
}
