//! Two gossip actors joined by plain queues, under paused time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_gossip::coded::Admitted;
use peerage_gossip::peerage_machine::journal::Journals;
use peerage_gossip::peerage_mailbox::{
    AskError, Capacity, Child, Clock, Inlet, Meter, Outlet, Port, RecvError, Supervisor, ask, data_queue,
};
use peerage_gossip::peerage_nodedb::Logs;
use peerage_gossip::peerage_queue::{ChannelId, Delivery, Inbound, Pool, Push, SendFailed, SessionId};
use peerage_gossip::peerage_wire::Keypair;
use peerage_gossip::{
    Args, Config, Event, GossipMailbox, Memory, Message, PeerUp, Policy, Publish, PublishError, Published,
    SubscribeError, Topic, TopicConfig, Unjudged, Verdict,
};

const ROOM: Capacity = Capacity { items: 1_000, weight: 64 << 20 };
const SECOND: Duration = Duration::from_secs(1);

struct Node {
    args: Args,
    pool: Pool,
    gossip: GossipMailbox,
    child: Child,
    publish: Outlet<Publish>,
    inbound: Outlet<Inbound>,
    pushes: Inlet<Push>,
    /// Bytes of the largest session message it sent.
    largest: Arc<AtomicUsize>,
}

impl Node {
    async fn start(n: u8, clock: Clock) -> Node {
        Node::start_with(n, clock, Config::recommended()).await
    }

    async fn start_with(n: u8, clock: Clock, config: Config) -> Node {
        let (inbound, inbound_end) = data_queue(ROOM);
        let (publish, publish_end) = data_queue(ROOM);
        let (report_failures, failures) = data_queue::<SendFailed>(ROOM);
        let (push, pushes) = data_queue(ROOM);
        let pool = Pool::new(100);
        let args = Args {
            config,
            keys: Keypair::from_seed([n; 32]),
            seed: u64::from(n),
            inbound: inbound_end,
            publish: publish_end,
            durable: data_queue(ROOM).1,
            logs: Logs::memory(),
            failures,
            report_failures,
            push,
            pressure: pool.pressure(),
            events: Port::from_fn(|event: Event| {
                assert!(matches!(event, Event::Useful { .. }), "an honest peer was blamed: {event:?}");
            }),
            clock,
            meter: Meter::none(),
            journals: Journals::off(),
            memory: Memory::new(),
        };
        let (gossip, child) = peerage_gossip::spawn(args.clone(), &Supervisor::none()).await.expect("starts");
        Node { args, pool, gossip, child, publish, inbound, pushes, largest: Arc::default() }
    }

    async fn restart(&mut self) {
        self.child.kill();
        self.child.wait().await;
        (self.gossip, self.child) =
            peerage_gossip::spawn(self.args.clone(), &Supervisor::none()).await.expect("starts again");
    }

    /// Sees the other node as session 1, and carries what it pushes to it.
    fn connect(&self, other: &Node) {
        self.gossip.peer_up(PeerUp::new(SessionId(1), other.args.keys.id(), ChannelId(1)));
        let (mut pushes, inbound, largest) = (self.pushes.clone(), other.inbound.clone(), self.largest.clone());
        tokio::spawn(async move {
            while let Ok(Push { to, lane, payload, .. }) = pushes.recv().await {
                largest.fetch_max(payload.len(), Ordering::Relaxed);
                for recipient in to {
                    let (session, channel, payload) = (recipient.session, recipient.channel, payload.clone());
                    inbound.offer(Delivery { session, channel, stream: 0, lane, payload }.into()).expect("room");
                }
            }
        });
    }

    async fn subscribe(&self, policy: Policy, capacity: Capacity) -> Inlet<Message> {
        let (outlet, inlet) = data_queue(capacity);
        let subscribed = ask(SECOND, |reply| self.gossip.subscribe(topic(), policy, outlet, Some(reply))).await;
        assert_eq!(subscribed, Ok(Ok(())));
        inlet
    }

    async fn publish(
        &self,
        policy: Policy,
        payload: &'static str,
    ) -> Result<Result<Published, PublishError>, AskError> {
        let payload = Bytes::from_static(payload.as_bytes());
        ask(SECOND, |reply| {
            self.publish.offer(Publish { topic: topic(), policy, payload, reply }).expect("room");
        })
        .await
    }
}

fn topic() -> Topic {
    Topic::new("news").expect("short")
}

async fn pair() -> (Node, Node) {
    let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
    let (a, b) = (Node::start(1, clock).await, Node::start(2, clock).await);
    a.connect(&b);
    b.connect(&a);
    (a, b)
}

async fn payloads(inlet: &Inlet<Message>) -> Vec<Bytes> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    inlet.take(usize::MAX).into_iter().map(|message| message.payload).collect()
}

#[tokio::test(start_paused = true)]
async fn what_one_publishes_both_get_once() {
    let (a, b) = pair().await;
    let (at_a, at_b) = (a.subscribe(Policy::Signed, ROOM).await, b.subscribe(Policy::Signed, ROOM).await);
    let second_at_b = b.subscribe(Policy::Signed, ROOM).await;
    assert!(payloads(&at_a).await.is_empty());
    for _ in 0..2 {
        let published = a.publish(Policy::Signed, "hi").await.expect("answered").expect("published");
        assert_eq!(published.peers, 1);
    }
    tokio::time::sleep(130 * SECOND).await;
    for inlet in [at_a, at_b, second_at_b] {
        assert_eq!(payloads(&inlet).await, ["hi", "hi"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_says_where_it_is_from() {
    let (a, b) = pair().await;
    let (at_a, at_b) = (a.subscribe(Policy::Signed, ROOM).await, b.subscribe(Policy::Signed, ROOM).await);
    tokio::time::sleep(SECOND).await;
    let id = a.publish(Policy::Signed, "hi").await.expect("answered").expect("published").id;
    tokio::time::sleep(SECOND).await;
    let author = Some(a.args.keys.id());
    for (inlet, from) in [(at_a, None), (at_b, author)] {
        let message = inlet.pop().expect("delivered");
        assert_eq!((message.id, message.publisher, message.from), (id, author, from));
    }
}

impl Node {
    async fn judged(&self, room: Capacity) -> (Inlet<Unjudged>, Inlet<Message>) {
        let ((validator, unjudged), (outlet, inlet)) = (data_queue(room), data_queue(ROOM));
        let config = TopicConfig::signed();
        let subscribed = ask(SECOND, |reply| {
            self.gossip.subscribe_with(topic(), config, Some(validator), outlet, Some(reply));
        });
        assert_eq!(subscribed.await, Ok(Ok(())));
        (unjudged, inlet)
    }
}

#[tokio::test(start_paused = true)]
async fn the_application_judges_what_peers_publish_and_a_dropped_question_is_ignored() {
    let (a, b) = pair().await;
    let _at_a = a.subscribe(Policy::Signed, ROOM).await;
    let (mut unjudged, at_b) = b.judged(ROOM).await;
    tokio::time::sleep(SECOND).await;
    for (payload, verdict) in [("good", Some(Verdict::Accept)), ("stale", Some(Verdict::Ignore)), ("fatal", None)] {
        a.publish(Policy::Signed, payload).await.expect("answered").expect("published");
        let Unjudged { message, judge } = unjudged.recv().await.expect("asked");
        assert_eq!(message.payload, payload);
        assert!(payloads(&at_b).await.is_empty(), "not before the verdict");
        match verdict {
            Some(verdict) => judge.say(verdict),
            None => drop(judge),
        }
        assert_eq!(payloads(&at_b).await.len(), usize::from(payload == "good"));
    }
    tokio::time::sleep(130 * SECOND).await;
    assert!(unjudged.is_empty(), "nothing is asked twice");
    b.publish(Policy::Signed, "own").await.expect("answered").expect("published");
    assert_eq!(payloads(&at_b).await, ["own"], "it is not asked of its own");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_the_validators_queue_is_asked_for_again() {
    let (a, b) = pair().await;
    let _at_a = a.subscribe(Policy::Signed, ROOM).await;
    let (mut unjudged, at_b) = b.judged(Capacity { items: 1, weight: 100 }).await;
    tokio::time::sleep(SECOND).await;
    for payload in ["one", "two"] {
        a.publish(Policy::Signed, payload).await.expect("answered").expect("published");
    }
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(unjudged.len(), 1);
    for _ in 0..2 {
        let Unjudged { judge, .. } =
            tokio::time::timeout(20 * SECOND, unjudged.recv()).await.expect("asked").expect("up");
        judge.say(Verdict::Accept);
    }
    assert_eq!(payloads(&at_b).await, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_has_one_validator_and_without_it_nothing_of_peers_until_there_is_another() {
    let (a, b) = pair().await;
    let _at_a = a.subscribe(Policy::Signed, ROOM).await;
    let (unjudged, at_b) = b.judged(ROOM).await;
    let ((validator, _unused), (outlet, _inlet)) = (data_queue(ROOM), data_queue(ROOM));
    let second = ask(SECOND, |reply| {
        b.gossip.subscribe_with(topic(), TopicConfig::signed(), Some(validator), outlet, Some(reply));
    });
    assert_eq!(second.await, Ok(Err(SubscribeError::Validated)));
    drop(unjudged);
    a.publish(Policy::Signed, "unseen").await.expect("answered").expect("published");
    assert!(payloads(&at_b).await.is_empty());
    let (mut unjudged, at_b) = b.judged(ROOM).await;
    a.publish(Policy::Signed, "seen").await.expect("answered").expect("published");
    while let Ok(Ok(Unjudged { judge, .. })) = tokio::time::timeout(20 * SECOND, unjudged.recv()).await {
        judge.say(Verdict::Accept);
    }
    assert!(payloads(&at_b).await.contains(&Bytes::from_static(b"seen")));
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_questions_and_verdicts_of_the_life_before() {
    let (a, mut b) = pair().await;
    let _at_a = a.subscribe(Policy::Signed, ROOM).await;
    let (mut unjudged, _at_b) = b.judged(ROOM).await;
    tokio::time::sleep(SECOND).await;
    let id = a.publish(Policy::Signed, "late").await.expect("answered").expect("published").id;
    let Unjudged { judge: old, .. } = unjudged.recv().await.expect("asked");
    let two = NonZeroUsize::new(2).expect("some");
    let reply = tokio::spawn(ask(60 * SECOND, move |reply| {
        a.gossip.confirm(id, two, 50 * SECOND, reply);
        a.child.kill();
    }));
    assert_eq!(reply.await.expect("no panic"), Err(AskError::Dropped), "who waits hears of it");
    b.restart().await;
    let (_unjudged, at_b) = b.judged(ROOM).await;
    old.say(Verdict::Accept);
    assert!(payloads(&at_b).await.is_empty(), "a verdict is good for one life");
}

#[tokio::test(start_paused = true)]
async fn who_publishes_while_the_lanes_are_over_half_full_is_told_to_wait() {
    let (a, _b) = pair().await;
    let charge = a.pool.charge(90);
    let retry_after = Config::recommended().retry_after;
    assert_eq!(a.publish(Policy::Signed, "hi").await, Ok(Err(PublishError::Busy { retry_after })));
    drop(charge);
    assert!(a.publish(Policy::Signed, "hi").await.expect("answered").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_actor_relearns_its_peers_topics_and_delivers_nothing_twice() {
    let (mut a, b) = pair().await;
    let (_at_a, at_b) = (a.subscribe(Policy::Signed, ROOM).await, b.subscribe(Policy::Signed, ROOM).await);
    tokio::time::sleep(SECOND).await;
    b.publish(Policy::Signed, "one").await.expect("answered").expect("published");
    tokio::time::sleep(SECOND).await;

    a.restart().await;
    let at_a = a.subscribe(Policy::Signed, ROOM).await;
    a.gossip.peer_up(PeerUp::new(SessionId(1), b.args.keys.id(), ChannelId(1)));
    tokio::time::sleep(SECOND).await;
    let published = a.publish(Policy::Signed, "two").await.expect("answered").expect("published");
    assert_eq!(published.peers, 1, "it knows again what its peer wants");
    tokio::time::sleep(130 * SECOND).await;
    assert_eq!(payloads(&at_a).await, ["two"]);
    assert_eq!(payloads(&at_b).await, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_published_alone_is_fetched_by_who_comes_later() {
    let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
    let (a, b) = (Node::start(1, clock).await, Node::start(2, clock).await);
    let at_b = b.subscribe(Policy::Anonymous, ROOM).await;
    assert_eq!(a.publish(Policy::Anonymous, "hi").await.expect("answered").expect("published").peers, 0);
    tokio::time::sleep(60 * SECOND).await;
    a.connect(&b);
    b.connect(&a);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(payloads(&at_b).await, ["hi"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_the_oldest_and_is_told_how_many() {
    let (a, _b) = pair().await;
    let mut slow = a.subscribe(Policy::Signed, Capacity { items: 2, weight: 100 }).await;
    for payload in ["1", "2", "3", "4", "5"] {
        a.publish(Policy::Signed, payload).await.expect("answered").expect("published");
    }
    assert_eq!(slow.recv().await.map(|message| message.payload), Err(RecvError::Lagged(3)));
    assert_eq!(slow.recv().await.map(|message| message.payload), Ok(Bytes::from_static(b"4")));
}

#[tokio::test(start_paused = true)]
async fn when_the_last_subscriber_is_closed_the_node_leaves_the_topic() {
    let (a, b) = pair().await;
    let (first, second) = (b.subscribe(Policy::Signed, ROOM).await, b.subscribe(Policy::Signed, ROOM).await);
    let peers = async || {
        tokio::time::sleep(2 * SECOND).await;
        a.publish(Policy::Signed, "hi").await.expect("answered").expect("published").peers
    };
    assert_eq!(peers().await, 1);
    first.close();
    assert_eq!(peers().await, 1);
    second.close();
    assert_eq!(peers().await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_second_policy_of_a_topic_is_refused() {
    let (a, _b) = pair().await;
    let _inlet = a.subscribe(Policy::Signed, ROOM).await;
    let (outlet, _kept) = data_queue(ROOM);
    let subscribed = ask(SECOND, |reply| a.gossip.subscribe(topic(), Policy::Anonymous, outlet, Some(reply))).await;
    assert_eq!(subscribed, Ok(Err(SubscribeError::Policy(Policy::Signed))));
}

/// Real threads and real time: signatures are checked on the pool.
#[tokio::test]
async fn signatures_are_checked_on_other_threads() {
    let clock = Clock::system();
    let (a, b) = (Node::start(1, clock).await, Node::start(2, clock).await);
    let mut at_b = b.subscribe(Policy::Signed, ROOM).await;
    a.connect(&b);
    b.connect(&a);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..50 {
        a.publish(Policy::Signed, "hi").await.expect("answered").expect("published");
    }
    for _ in 0..50 {
        let message = tokio::time::timeout(10 * SECOND, at_b.recv()).await.expect("in time");
        assert_eq!(message.map(|message| message.payload), Ok(Bytes::from_static(b"hi")));
    }
}

/// Real threads and real time: shards are made, checked and put together on the pool.
#[tokio::test]
async fn a_large_message_travels_as_shards() {
    let mut config = Config::recommended();
    config.coded.admitted.insert(topic(), Admitted::Everybody);
    let clock = Clock::system();
    let (a, b) = (Node::start_with(1, clock, config.clone()).await, Node::start_with(2, clock, config).await);
    let mut at_b = b.subscribe(Policy::Signed, ROOM).await;
    a.connect(&b);
    b.connect(&a);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let payload: Bytes = (0..1_u32 << 20).map(|n| (n / 7) as u8).collect::<Vec<u8>>().into();
    let published = ask(10 * SECOND, |reply| {
        let (topic, payload) = (topic(), payload.clone());
        a.publish.offer(Publish { topic, policy: Policy::Signed, payload, reply }).expect("room");
    });
    assert_eq!(published.await.expect("answered").expect("published").peers, 1);
    let message = tokio::time::timeout(10 * SECOND, at_b.recv()).await.expect("in time").expect("a message");
    assert!(message.payload == payload && message.publisher == Some(a.args.keys.id()));
    let largest = a.largest.load(Ordering::Relaxed);
    assert!(largest > 1_000 && largest < 100_000, "a shard with its header, and never the message: {largest}");
}
