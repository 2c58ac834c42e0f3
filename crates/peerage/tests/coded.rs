//! Large messages between real sockets, through the public door: they go as shards where the topic admits it.

use std::sync::Arc;
use std::time::Duration;

use peerage::server::mailbox::Counts;
use peerage::{Admitted, Builder, Node, TopicConfig, Verdict};

const LIMIT: Duration = Duration::from_secs(60);
const NODES: usize = 4;

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_on_a_topic_that_admits_its_publisher_goes_in_shards_and_is_judged_whole() {
    let mut nodes: Vec<(Node, Counts)> = Vec::new();
    for _ in 0..NODES {
        let counts = Counts::default();
        let builder = Builder::local().recorder(Arc::new(counts.clone()));
        let builder = match nodes.first() {
            Some((first, _)) => builder.bootnode(first.addresses().await.expect("runs").remove(0)),
            None => builder,
        };
        nodes.push((builder.start().await.expect("starts"), counts));
    }
    for (node, _) in &nodes {
        until("peers", async || node.peer_count().await.expect("runs") == NODES - 1).await;
    }
    let large: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
    let mut topics = Vec::new();
    for (node, _) in &nodes {
        let whole = large.clone();
        let topic = node.topic_with("blocks", TopicConfig::signed()).validate(move |message| {
            let good = message.payload == whole;
            async move { if good { Verdict::Accept } else { Verdict::Reject } }
        });
        let (publisher, subscriber) = topic.await.expect("free").split();
        publisher.admit(Admitted::Everybody);
        topics.push((publisher, subscriber));
    }
    // Each has heard that the others take shards.
    tokio::time::sleep(Duration::from_secs(2)).await;
    topics[1].0.publish(large.clone()).await.expect("published");
    for (_, subscriber) in &topics {
        let got = tokio::time::timeout(LIMIT, subscriber.next()).await.expect("in time").expect("the node runs");
        assert!(got.payload == large);
    }
    let sum =
        |name: &str| -> Vec<u64> { nodes.iter().map(|(_, counts)| counts.counters(name).values().sum()).collect() };
    let rebuilt = sum("peerage_gossip_rebuilt_total");
    assert!(rebuilt[1] == 0 && rebuilt.iter().sum::<u64>() > 0, "others rebuilt it of shards: {rebuilt:?}");
    assert!(sum("peerage_gossip_shards_total").iter().sum::<u64>() >= 64);
    for (node, _) in nodes {
        node.shutdown().await;
    }
}
