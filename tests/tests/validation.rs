//! A network whose applications judge messages: what is rejected reaches nobody but its publisher's neighbours, and what
//! enough peers have is confirmed.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::gossip::{ConfirmError, Message, Policy, Publish, Topic, TopicConfig, Unjudged, Verdict};
use peerage_server::mailbox::{Capacity, Inlet, ask, data_queue};
use peerage_server::{ConfirmFailed, ServerMailbox, Service};
use peerage_tests::{World, config, virtually};

const NODES: usize = 14;
const ROOM: Capacity = Capacity { items: 1_000, weight: 1 << 20 };
const SECOND: Duration = Duration::from_secs(1);

/// A node's application: what it was asked about, and what it got.
struct Judging {
    asked: Arc<Mutex<Vec<Bytes>>>,
    messages: Inlet<Message>,
}

impl Judging {
    async fn start(server: &ServerMailbox) -> Judging {
        let (validator, mut unjudged) = data_queue::<Unjudged>(ROOM);
        let (outlet, messages) = data_queue(ROOM);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            while let Ok(Unjudged { message, judge }) = unjudged.recv().await {
                seen.lock().expect("no panic").push(message.payload.clone());
                tokio::time::sleep(Duration::from_millis(20)).await;
                let bad = message.payload.starts_with(b"bad");
                judge.say(if bad { Verdict::Reject } else { Verdict::Accept });
            }
        });
        server.subscribe_with(judged(), TopicConfig::signed(), Some(validator), outlet).await.expect("running");
        Judging { asked, messages }
    }

    fn asked(&self, payload: &str) -> usize {
        self.asked.lock().expect("no panic").iter().filter(|asked| **asked == payload.as_bytes()).count()
    }

    fn got(&self) -> Vec<Bytes> {
        self.messages.take(usize::MAX).into_iter().map(|message| message.payload).collect()
    }
}

fn judged() -> Topic {
    Topic::new("judged").expect("a short name")
}

async fn publish(server: &ServerMailbox, payload: &'static str) -> peerage_server::gossip::MessageId {
    let published = ask(SECOND, |reply| {
        let (topic, payload) = (judged(), Bytes::from_static(payload.as_bytes()));
        server.publisher().offer(Publish { topic, policy: Policy::Signed, payload, reply }).expect("room");
    });
    published.await.expect("running").expect("published").id
}

#[test]
fn what_is_rejected_reaches_nobody_but_the_neighbours_of_its_publisher() {
    virtually(async {
        let mut world = World::start(71, NODES, config(9)).await;
        let mut nodes = Vec::new();
        for node in &world.nodes {
            nodes.push(Judging::start(&node.server).await);
        }
        world.until_peers(3, 60 * SECOND).await;
        tokio::time::sleep(10 * SECOND).await;
        publish(&world.nodes[1].server, "bad one").await;
        publish(&world.nodes[5].server, "good").await;
        tokio::time::sleep(40 * SECOND).await;

        world.collect().await;
        // Those that were its peers at any time.
        let neighbours: BTreeSet<_> = world.nodes[1].tally.met.clone();
        assert!(neighbours.len() < NODES - 2, "there must be others: {}", neighbours.len());
        let asked: usize = nodes.iter().map(|judging| judging.asked("bad one")).sum();
        assert!(asked > 1, "{asked}");
        for (n, judging) in nodes.iter().enumerate() {
            let got = judging.got();
            let neighbour = neighbours.contains(&world.nodes[n].id);
            if n == 1 {
                assert!(got.contains(&Bytes::from_static(b"bad one")), "it is not asked of its own");
            } else {
                assert_eq!(got, ["good"], "node {n}");
            }
            let limit = usize::from(neighbour);
            assert!(judging.asked("bad one") <= limit, "node {n} was asked {}", judging.asked("bad one"));
            assert_eq!(judging.asked("good"), usize::from(n != 5), "node {n}: once for all copies, and not of its own");
        }
        world.finish().await;
    });
}

#[test]
fn validators_and_parameters_outlive_a_restart_of_gossip() {
    virtually(async {
        let mut world = World::start(72, 3, config(20)).await;
        let mut nodes = Vec::new();
        for node in &world.nodes {
            nodes.push(Judging::start(&node.server).await);
        }
        world.until_peers(2, 60 * SECOND).await;
        tokio::time::sleep(5 * SECOND).await;
        world.nodes[0].server.inject_panic(Service::Gossip);
        tokio::time::sleep(10 * SECOND).await;
        publish(&world.nodes[1].server, "bad").await;
        publish(&world.nodes[2].server, "good").await;
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!((nodes[0].asked("bad"), nodes[0].asked("good")), (1, 1));
        assert_eq!(nodes[0].got(), ["good"]);
        world.finish().await;
    });
}

#[test]
fn a_message_is_confirmed_by_those_that_accepted_it_and_by_nobody_else() {
    virtually(async {
        let mut world = World::start(73, 6, config(20)).await;
        let mut nodes = Vec::new();
        for node in &world.nodes {
            nodes.push(Judging::start(&node.server).await);
        }
        world.until_peers(5, 60 * SECOND).await;
        tokio::time::sleep(5 * SECOND).await;
        let server = world.nodes[0].server.clone();
        let five = NonZeroUsize::new(5).expect("some");
        let id = publish(&server, "good").await;
        let begun = world.clock.now();
        let confirmed = server.confirm(id, five, 10 * SECOND).await.expect("all have it");
        assert_eq!((confirmed.id, confirmed.peers), (id, 5));
        assert!(world.clock.now().since(begun) < SECOND, "as soon as they have it");

        let id = publish(&server, "bad").await;
        let failed = server.confirm(id, five, 5 * SECOND).await;
        let too_few = ConfirmError::TooFew { confirmed: 0, wanted: 5 };
        assert_eq!(failed, Err(ConfirmFailed::Refused(too_few)));

        let standings = world.nodes[1].server.standings().await.expect("running");
        let of_publisher = standings.iter().find(|standing| standing.id == world.nodes[0].id).expect("a peer");
        assert!(of_publisher.score.invalid < 0, "{}", of_publisher.score);
        world.finish().await;
    });
}
