//! Nodes on loopback and in memory, through the public door only.

use std::time::Duration;

use peerage::server::transport::{Link, MemoryNetwork};
use peerage::{
    Builder, Clock, DisconnectReason, EndedBy, Event, Keypair, Message, Node, PublishError, StartError, Topic,
};

const LIMIT: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

async fn next(topic: &Topic) -> Message {
    soon("a message", topic.next()).await.expect("the node runs")
}

async fn joined(node: &Node) -> Node {
    let address = node.addresses().await.expect("runs").remove(0);
    let other = Builder::local().bootnode(address).start().await.expect("starts");
    soon("a peer", async {
        while node.peer_count().await.expect("runs") == 0 || other.peer_count().await.expect("runs") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_exchange_messages_and_one_hears_why_the_other_left() {
    let first = Builder::local().start().await.expect("starts");
    let mut events = first.events().await.expect("runs");
    let second = joined(&first).await;
    assert!(matches!(soon("an event", events.next()).await, Some(Event::PeerUp { id, .. }) if id == second.id()));

    let (here, there) = (first.topic("t").await.expect("free"), second.topic("t").await.expect("free"));
    for _ in 0..2 {
        there.publish("hi").await.expect("published");
    }
    let (one, two) = (next(&here).await, next(&here).await);
    assert_eq!((&one.payload[..], one.publisher, one.from), (&b"hi"[..], Some(second.id()), Some(second.id())));
    assert_ne!(one.id, two.id, "the same content twice is two messages");
    assert_eq!(next(&there).await.from, None, "who publishes hears itself");

    let (here, there) =
        (first.anonymous_topic("a").await.expect("free"), second.anonymous_topic("a").await.expect("free"));
    let (publisher, subscriber) = here.split();
    let once = publisher.publish("once").await.expect("published").id;
    assert_eq!(publisher.publish("once").await.expect("published").peers, 0, "published already");
    let more = publisher.publish("more").await.expect("published").id;
    let heard = [next(&there).await, next(&there).await].map(|message| (message.id, message.publisher));
    assert!(heard.contains(&(once, None)) && heard.contains(&(more, None)), "each once, in any order: {heard:?}");
    assert_eq!(subscriber.missed(), 0);

    soon("a shutdown", second.shutdown()).await;
    match soon("an event", events.next()).await {
        Some(Event::PeerDown { reason, by, .. }) => {
            assert_eq!((reason, by), (DisconnectReason::Quitting, EndedBy::Peer));
        }
        other => panic!("{other:?}"),
    }
    let error = there.publish("late").await.expect_err("stopped");
    assert_eq!(error, PublishError::Stopped);
    soon("a shutdown", first.shutdown()).await;
    assert!(first.peers().await.is_err());
    assert_eq!(soon("the end of events", events.next()).await, None);
}

#[tokio::test]
async fn what_cannot_be_published_or_subscribed_to_is_refused_with_its_reason() {
    let node = Builder::local().start().await.expect("starts");
    let topic = node.topic("t").await.expect("free");
    let limit = 4 * 1024 * 1024;
    let error = topic.publish(vec![0; limit + 1]).await.expect_err("too large");
    assert_eq!(error, PublishError::TooLarge { bytes: limit + 1, limit });
    assert!(node.anonymous_topic("t").await.expect_err("other policy").to_string().contains("Signed"));
    assert!(node.topic("").await.expect_err("no name").to_string().contains("1 to 64 bytes"));
    soon("a shutdown", node.shutdown()).await;
}

#[tokio::test]
async fn an_identity_and_a_rising_record_outlive_a_restart() {
    let root = tempfile::tempdir().expect("directory");
    let path = root.path().join("data");
    let start = || Builder::local().data_dir(&path).start();
    let first = start().await.expect("starts");
    let record = first.record().await.expect("runs");
    let error = start().await.expect_err("in use").to_string();
    assert!(error.contains("another node is running"), "{error}");
    soon("a shutdown", first.shutdown()).await;

    // As if the clock had been set back by a minute since.
    let ahead = record.seq() + 60_000;
    std::fs::write(path.join("record-seq"), format!("{ahead}\n")).expect("write");
    let second = start().await.expect("starts");
    let risen = second.record().await.expect("runs");
    assert_eq!((risen.id(), risen.seq()), (record.id(), ahead + 1));
    soon("a shutdown", second.shutdown()).await;
    let third = start().await.expect("starts");
    assert!(third.record().await.expect("runs").seq() > risen.seq());
    soon("a shutdown", third.shutdown()).await;
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().expect("directory");
    let path = root.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("free");
    let port = taken.local_addr().expect("bound").port();
    let start = |change: fn(Builder, u16) -> Builder| change(Builder::local().data_dir(&path), port).start();
    let error = start(|builder, port| builder.listen(format!("/ip4/127.0.0.1/tcp/{port}"))).await.expect_err("taken");
    assert!(matches!(error, StartError::Taken { .. }), "{error}");
    assert!(error.to_string().contains("in use by another program"), "{error}");
    let error = start(|builder, _| builder.listen("/ip4/127.0.0.1/udp/1/quic-v1")).await.expect_err("quic");
    assert!(error.to_string().contains("quic-v1"), "{error}");
    let error = start(|builder, _| builder.bootnode("/ip4/127.0.0.1/tcp/1")).await.expect_err("whose?");
    assert!(error.to_string().contains("/p2p/"), "{error}");
    let error = start(|builder, _| builder.configure(|config| config.dial_ratio = 0)).await.expect_err("nonsense");
    assert!(error.to_string().contains("dial_ratio"), "{error}");
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn it_all_runs_in_memory_and_in_virtual_time() {
    let network = MemoryNetwork::new(1, Link::default());
    let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
    let builder = |n: u8| {
        Builder::local()
            .identity(Keypair::from_seed([n; 32]))
            .transport(network.host([10, 0, 0, n].into()))
            .listen(std::net::SocketAddr::from(([10, 0, 0, n], 1000)))
            .clock(clock)
            .seed(u64::from(n))
            .configure(|config| config.gossip.work = peerage::server::gossip::Work::Inline)
    };
    let first = builder(1).start().await.expect("starts");
    let second = builder(2).bootnode(first.record().await.expect("runs").to_string()).start().await.expect("starts");
    let (here, there) = (first.topic("t").await.expect("free"), second.topic("t").await.expect("free"));
    there.publish("hi").await.expect("published");
    assert_eq!(next(&here).await.payload, "hi");
    first.shutdown().await;
    second.shutdown().await;
}
