//! Validators of topics, through the public door: one that panics, and how many work at a time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use peerage::{Builder, Node, TopicConfig, Verdict};

const LIMIT: Duration = Duration::from_secs(20);

async fn pair() -> (Node, Node) {
    let first = Builder::local().start().await.expect("starts");
    let address = first.addresses().await.expect("runs").remove(0);
    let second = Builder::local().bootnode(address).start().await.expect("starts");
    let peers = async {
        while first.peer_count().await.expect("runs") == 0 || second.peer_count().await.expect("runs") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, peers).await.expect("peers");
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_panics_ignores_that_message_and_goes_on() {
    let (first, second) = pair().await;
    let here = first.topic_with("t", TopicConfig::signed()).validate(|message| async move {
        assert!(&message.payload[..] != b"panic", "meant");
        Verdict::Accept
    });
    let here = here.await.expect("free");
    let there = second.topic("t").await.expect("free");
    for payload in ["panic", "good", "panic", "better"] {
        there.publish(payload).await.expect("published");
    }
    let mut got = Vec::new();
    while got.len() < 2 {
        let next = tokio::time::timeout(LIMIT, here.next()).await.expect("in time");
        got.push(next.expect("the node runs").payload);
    }
    got.sort();
    assert_eq!(got, ["better", "good"]);
    assert_eq!(first.peer_count().await.expect("runs"), 1, "nobody is blamed");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_messages_are_validated_at_a_time_as_was_said() {
    const MESSAGES: usize = 20;
    let (first, second) = pair().await;
    let (running, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (working, opened) = (running.clone(), open.clone());
    let here = first
        .topic_with("t", TopicConfig { validation: LIMIT, ..TopicConfig::signed() })
        .at_a_time(NonZeroUsize::new(3).expect("some"))
        .validate(move |_| {
            let (working, opened) = (working.clone(), opened.clone());
            async move {
                assert!(working.fetch_add(1, Ordering::SeqCst) < 3, "one too many, which would be ignored");
                while !opened.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                working.fetch_sub(1, Ordering::SeqCst);
                Verdict::Accept
            }
        });
    let here = here.await.expect("free");
    let there = second.topic("t").await.expect("free");
    for n in 0..MESSAGES {
        there.publish(n.to_string()).await.expect("published");
    }
    let busy = async {
        while running.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, busy).await.expect("three at a time");
    open.store(true, Ordering::SeqCst);
    for _ in 0..MESSAGES {
        tokio::time::timeout(LIMIT, here.next()).await.expect("in time").expect("the node runs");
    }
    first.shutdown().await;
    second.shutdown().await;
}
