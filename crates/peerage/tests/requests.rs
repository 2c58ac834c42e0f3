//! Requests between nodes on loopback, through the public door only.

use std::time::Duration;

use peerage::server::router::resilience::{Pool, Sample};
use peerage::server::router::{ClientError, ErrorCode, Fault, Handler, HandlerConfig, Incoming, RequestError};
use peerage::{Builder, Node};
use serde::{Deserialize, Serialize};

const LIMIT: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize)]
struct Height;

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

async fn pair() -> (Node, Node) {
    let first = Builder::local().start().await.expect("starts");
    let address = first.addresses().await.expect("runs").remove(0);
    let second = Builder::local().bootnode(address).start().await.expect("starts");
    soon("peers", async {
        while first.peer_count().await.expect("runs") == 0 || second.peer_count().await.expect("runs") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    (first, second)
}

fn refused<T>(result: &Result<T, ClientError>) -> Option<ErrorCode> {
    match result {
        Err(ClientError::Request(RequestError::Refused { code, .. })) => Some(*code),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_ask_each_other() {
    let (first, second) = pair().await;
    for (node, height) in [(&first, 10u64), (&second, 20)] {
        node.serve("height/1", move |_: Height, _peer| async move { Ok(height) }).await.expect("free");
    }
    let height: u64 = first.request(second.id(), "height/1", Height).await.expect("answered");
    assert_eq!(height, 20);
    let height: u64 = second.request(first.id(), "height/1", Height).await.expect("answered");
    assert_eq!(height, 10);

    let taken = first.serve("height/1", |_: Height, _peer| async { Ok(0u64) }).await;
    assert!(taken.is_err(), "the name is taken");
    let unknown: Result<u64, _> = first.request(second.id(), "width/1", Height).await;
    assert_eq!(refused(&unknown), Some(ErrorCode::UnknownHandler));
    let itself: Result<u64, _> = first.request(first.id(), "height/1", Height).await;
    assert_eq!(itself, Err(ClientError::Request(RequestError::NotConnected)));

    let failing = |n: u64, _peer| async move { Err::<u64, _>(Fault::application(n as u16, "as asked")) };
    second.serve("fail/1", failing).await.expect("free");
    let failed: Result<u64, _> = first.request(second.id(), "fail/1", 7u64).await;
    assert_eq!(refused(&failed), Some(ErrorCode::Application(7)));

    soon("the end", first.shutdown()).await;
    let gone: Result<u64, _> = second.request(first.id(), "height/1", Height).await;
    assert!(matches!(gone, Err(ClientError::Request(RequestError::NotConnected | RequestError::Disconnected))));
    let stopped: Result<u64, _> = first.request(second.id(), "height/1", Height).await;
    assert_eq!(stopped, Err(ClientError::Request(RequestError::NotConnected)));
    soon("the end", second.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_many_at_once_and_messages_without_answers_pass() {
    let (first, second) = pair().await;
    let (heard, hears) = std::sync::mpsc::channel();
    let echo = Handler::function(move |Incoming { payload, answered, .. }| {
        if !answered {
            heard.send(payload.len()).expect("the test waits");
        }
        Ok(payload)
    });
    let id = second.server().serve("echo/1", HandlerConfig::in_order(), echo).await.expect("free");
    let router = first.server().router();
    let large = vec![7u8; 1 << 20];
    let answer = router.request(second.id(), "echo/1", large.clone(), LIMIT).await.expect("answered");
    assert_eq!(answer, large);
    let asked: Vec<_> = (0..200u32)
        .map(|n| {
            let (router, pool) = (router.clone(), Pool::Everyone);
            tokio::spawn(async move { router.request_any(pool, "echo/1", n.to_be_bytes().to_vec(), LIMIT).await })
        })
        .collect();
    for (n, asked) in (0..200u32).zip(asked) {
        let answer = asked.await.expect("no panic").expect("answered");
        assert_eq!((&answer.payload[..], answer.from), (&n.to_be_bytes()[..], Some(second.id())));
    }
    let sampled = router.send(Sample::any(3), "echo/1", "news").await.expect("sent");
    assert_eq!(sampled.peers, [second.id()]);
    let length = tokio::task::spawn_blocking(move || hears.recv_timeout(LIMIT)).await.expect("no panic");
    assert_eq!(length, Ok(4));
    second.server().serve_no_more(id);
    // Nobody says when it has been removed.
    soon("unknown", async {
        let unknown = loop {
            match router.request(second.id(), "echo/1", "x", LIMIT).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => break error,
            }
        };
        assert!(matches!(unknown, RequestError::Refused { code: ErrorCode::UnknownHandler, .. }), "{unknown:?}");
    })
    .await;
    soon("the end", first.shutdown()).await;
    soon("the end", second.shutdown()).await;
}
