//! Requests over the API: one node's handlers, asked through the other's API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerage::server::router::{Handler, HandlerConfig};
use peerage::{Builder, Fault};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{LIMIT, Served, served};

async fn pair() -> (Served, Served) {
    let first = served(Builder::local()).await;
    let address = first.node.addresses().await.expect("runs").remove(0);
    let second = served(Builder::local().bootnode(address)).await;
    let connected = async {
        while first.node.peer_count().await.expect("runs") + second.node.peer_count().await.expect("runs") < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, connected).await.expect("peers in time");
    (first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_posted_at_one_node_is_answered_by_the_other_or_refused_with_its_status() {
    let (first, second) = pair().await;
    let server = second.node.server();
    let echo = Handler::function(|call| Ok(call.payload));
    server.serve("echo/1", HandlerConfig::concurrent(), echo).await.expect("free");
    let failing = Handler::function(|_| Err(Fault::application(7, "as asked")));
    server.serve("failing", HandlerConfig::concurrent(), failing).await.expect("free");
    let (begun, begin) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (beginning, never) = (begun.clone(), begin.clone());
    let slow = Handler::task(move |call| {
        let (beginning, never) = (beginning.clone(), never.clone());
        async move {
            beginning.notify_one();
            never.notified().await;
            Ok(call.payload)
        }
    });
    let one = HandlerConfig { per_peer: 1, total: 1, ..HandlerConfig::concurrent() };
    server.serve("slow", one, slow).await.expect("free");

    let to = |what: &str| format!("POST /v1/peers/{}/requests/{what}", second.node.id());
    let answer = first.ask(&to("echo%2F1"), "hello").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "hello"));
    assert!(answer.head.contains("content-type: application/octet-stream"), "{}", answer.head);
    assert_eq!(first.ask(&to("echo%2F1"), "").await.body, "", "nothing is an answer, too");
    let large = "x".repeat(1 << 20);
    assert_eq!(first.ask(&to("echo%2F1"), &large).await.body.len(), large.len());
    first.ask(&to("echo%2F1"), format!("{large}x")).await.refused(413, "1048576 bytes");

    first.ask(&to("echo%2F2"), "").await.refused(404, "UnknownHandler");
    let failed = first.ask(&to("failing"), "").await;
    failed.refused(502, "as asked");
    assert_eq!(failed.json()["code"], 0x8007);
    first.ask(&to("slow?deadline_ms=50"), "").await.refused(504, "in time");
    timeout(LIMIT, begun.notified()).await.expect("begun");
    begin.notify_waiters();

    let nobody = "POST /v1/peers/12D3KooWPW8NCp5gTny3CUywj9ieJJpgg9vxGRZKSxLnqkdYQdVP/requests/echo%2F1";
    first.ask(nobody, "").await.refused(404, "not connected");
    first.ask("POST /v1/peers/nobody/requests/echo", "").await.refused(400, "not a peer id");
    for wrong in ["0", "60001", "-1", "soon"] {
        first.ask(&to(&format!("echo%2F1?deadline_ms={wrong}")), "").await.refused(400, "deadline_ms");
    }
    first.ask(&to(&"n".repeat(129)), "").await.refused(400, "1 to 128 bytes");
    first.ask(&to("echo%2F1").replace("POST", "GET"), "").await.refused(405, "method");
    let page = format!("{}\r\norigin: https://evil.example\r\n", to("echo%2F1"));
    first.ask(&page, "").await.refused(403, "Origin");
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_are_limited_and_who_hangs_up_makes_room() {
    let (first, second) = pair().await;
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let never = Handler::task(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    second.node.server().serve("never", HandlerConfig::concurrent(), never).await.expect("free");
    let to = format!("POST /v1/peers/{}/requests/never?deadline_ms=60000", second.node.id());
    let mut open = Vec::new();
    for _ in 0..super::super::requests::AT_A_TIME {
        open.push(first.open(&to, b"").await);
    }
    let all = async {
        while begun.load(Ordering::SeqCst) < super::super::requests::AT_A_TIME {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, all).await.expect("begun in time");
    let refused = first.ask(&to, "").await;
    refused.refused(429, "wait for");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    drop(open);
    let room = async { while first.ask(&to.replace("60000", "50"), "").await.status.as_u16() != 504 {} };
    timeout(LIMIT, room).await.expect("room again");
    second.stop().await;
    first.stop().await;
}
