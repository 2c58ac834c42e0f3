//! The API over TCP, in front of real nodes.

mod lists;
mod operation;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use peerage::codec::Raw;
use peerage::protocol::Protocol;
use peerage::{Builder, Node};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Setup, router};
use crate::http;
use crate::limits::Changer;
use crate::output::Output;

const LIMIT: Duration = Duration::from_secs(20);

/// A node and its API.
struct Served {
    node: Node,
    port: u16,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

async fn served(builder: Builder) -> Served {
    let node = builder.start().await.expect("starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let api = listener.local_addr().expect("bound");
    let (output, _) = Output::stdout().expect("a thread");
    let changer = Arc::new(Changer::new(node.clone(), vec!["node".into()], Default::default()));
    let (max_payload, max_request, max_deadline) = (4 * 1024 * 1024, 1024 * 1024, Duration::from_secs(60));
    let setup =
        Setup { node: node.clone(), output, api, metrics: api, max_payload, max_request, max_deadline, changer };
    let (close, closing) = watch::channel(false);
    let serving = tokio::spawn(http::serve(listener, router(setup), closing));
    Served { node, port: api.port(), close, serving }
}

struct Answer {
    status: StatusCode,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    fn refused(&self, status: u16, saying: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        let error = self.json()["error"].as_str().expect("a sentence").to_owned();
        assert!(error.contains(saying), "{error}");
    }
}

impl Served {
    async fn open(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("listens");
        let host =
            if head.contains("\r\nhost:") { String::new() } else { format!("host: 127.0.0.1:{}\r\n", self.port) };
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let (first, rest) = head.split_once("\r\n").unwrap_or((head, ""));
        let request = format!("{first} HTTP/1.1\r\n{rest}{host}{length}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        stream.write_all(body).await.expect("writes");
        stream
    }

    /// One request on a connection of its own; further header lines follow the first, each with its line end.
    async fn ask(&self, head: &str, body: impl AsRef<[u8]>) -> Answer {
        let work = async {
            let mut text = Vec::new();
            self.open(head, body.as_ref()).await.read_to_end(&mut text).await.expect("reads");
            String::from_utf8(text).expect("text")
        };
        let text = timeout(LIMIT, work).await.expect("an answer in time");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn stop(self) {
        self.node.shutdown().await;
        self.close.send_replace(true);
        timeout(LIMIT, self.serving).await.expect("ends").expect("no panic");
    }
}

/// Reads a stream until all of these words have come, and returns what it read.
async fn read_until(stream: &mut TcpStream, words: &[&str]) -> String {
    let work = async {
        let mut text = String::new();
        let mut buffer = vec![0; 64 * 1024];
        while !words.iter().all(|word| text.contains(word)) {
            let read = stream.read(&mut buffer).await.expect("reads");
            assert!(read > 0, "ended early: {text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
        }
        text
    };
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("not in time: {words:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_posted_at_one_node_is_an_event_at_another_with_its_peers_and_their_end() {
    let first = served(Builder::local()).await;
    let mut events = first.open("GET /v1/events", b"").await;
    read_until(&mut events, &["text/event-stream"]).await;
    let address = first.node.addresses().await.expect("runs").remove(0);
    let second = served(Builder::local().bootnode(address)).await;
    let other = second.node.id().to_string();
    read_until(&mut events, &["event: peer_up\n", &other]).await;

    let peers = first.ask("GET /v1/peers", "").await.json();
    let peer = &peers[0];
    assert_eq!((peer["id"].as_str(), peer["static"].as_bool()), (Some(other.as_str()), Some(false)));
    assert_eq!(peer["capabilities"][0], "gossip/1");
    assert!(peer["address"].as_str().is_some_and(|address| address.starts_with("/ip4/127.0.0.1/tcp/")));
    assert!(peer["rtt_us"].is_null() || peer["rtt_us"].is_u64());
    assert!(peer["bytes_in"].is_u64() && peer["connected_since_unix_ms"].is_u64());

    let mut messages = first.open("GET /v1/topics/a%2Fb", b"").await;
    read_until(&mut messages, &["event: subscribed\n"]).await;
    let big = vec![b'x'; 1_400_000];
    for body in [&b"hello"[..], &big] {
        let answer = second.ask("POST /v1/topics/a%2Fb", body).await;
        assert_eq!((answer.status.as_u16(), answer.json()["id"].as_str().map(str::len)), (200, Some(64)));
    }
    let big = data_encoding::BASE64.encode(&big);
    let text = read_until(&mut messages, &["event: message\n", "\"bytes\":\"aGVsbG8=\"", &big]).await;
    assert!(text.contains(&format!("\"publisher\":\"{other}\"")));

    let mut anonymous = second.open("GET /v1/topics/t?policy=anonymous", b"").await;
    read_until(&mut anonymous, &["event: subscribed\n"]).await;
    assert_eq!(first.ask("POST /v1/topics/t?policy=anonymous", "once").await.status, StatusCode::OK);
    read_until(&mut anonymous, &["\"publisher\":null"]).await;
    second.ask("POST /v1/topics/t", "signed").await.refused(409, "policy=anonymous");

    second.stop().await;
    read_until(&mut events, &["event: peer_down\n", "\"reason\":\"quitting\"", "\"by\":\"peer\"", "duration_ms"]).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocols_tell_of_the_node_and_of_its_peers_and_their_messages_have_codes() {
    let status = || {
        let status = Protocol::new("status", Raw, |_, mut channel| async move {
            channel.send(1, &"hello".into()).await?;
            loop {
                channel.recv().await?;
            }
        });
        status.version(7, 2).node_info(|| json!({"height": 7})).peer_info(|id| Some(json!({"name": id.to_string()})))
    };
    let first = served(Builder::local().protocol(status()).message_events(true)).await;
    assert_eq!(first.ask("GET /v1/node", "").await.json()["protocols"], json!({"status": {"height": 7}}));
    let mut events = first.open("GET /v1/events", b"").await;
    read_until(&mut events, &["text/event-stream"]).await;
    let address = first.node.addresses().await.expect("runs").remove(0);
    let second = served(Builder::local().protocol(status()).bootnode(address)).await;
    let text = read_until(&mut events, &["\"protocol\":\"status\"", "event: message_received\n"]).await;
    assert!(text.contains("\"code\":1") && text.contains("\"size\":5"), "{text}");
    let peer = first.ask("GET /v1/peers", "").await.json()[0].clone();
    assert_eq!(peer["protocols"]["status"], json!({"name": second.node.id().to_string()}));
    assert!(peer["capabilities"].as_array().is_some_and(|all| all.contains(&json!("status/7"))), "{peer}");
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn the_node_tells_of_itself_and_of_its_health() {
    let served = served(Builder::local().network("here")).await;
    let node = served.ask("GET /v1/node", "").await;
    let json = node.json();
    assert_eq!((json["id"].as_str(), json["network"].as_str()), (Some(&*served.node.id().to_string()), Some("here")));
    assert!(json["record"].as_str().is_some_and(|record| record.starts_with("pnr:")));
    assert!(json["addresses"][0].as_str().is_some_and(|address| address.contains("/p2p/12D3KooW")));
    assert_eq!(json["api"], format!("http://127.0.0.1:{}", served.port));
    assert_eq!(json["instance"].as_str().map(str::len), Some(16));
    assert_eq!(json["reachability"], "unknown", "nobody has tried yet");
    assert!(json["started_unix_ms"].as_u64() > Some(1_700_000_000_000) && json["version"].is_string());
    let health = served.ask("GET /v1/health", "").await;
    assert_eq!((health.status, &health.json()["status"]), (StatusCode::OK, &"ok".into()));

    let elsewhere = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWPW8NCp5gTny3CUywj9ieJJpgg9vxGRZKSxLnqkdYQdVP";
    let json = format!("{{\"address\":\"{elsewhere}\"}}");
    let head = "POST /v1/peers/static\r\ncontent-type: application/json; charset=utf-8\r\n";
    assert_eq!(served.ask(head, &json).await.status, StatusCode::OK);
    let health = served.ask("GET /v1/health", "").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &"degraded".into()));
    assert!(health.json()["reasons"][0].as_str().is_some_and(|reason| reason.contains("no peer is connected")));
    served.stop().await;
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_with_its_status_and_a_sentence() {
    let served = served(Builder::local()).await;
    served.ask("GET /v1/nonsense", "").await.refused(404, "nothing at this path");
    let wrong = served.ask("DELETE /v1/node", "").await;
    wrong.refused(405, "does not know that method");
    assert!(wrong.head.contains("\r\nallow: "), "{}", wrong.head);
    let long = "x".repeat(65);
    served.ask(&format!("POST /v1/topics/{long}"), "hi").await.refused(400, "1 to 64 bytes");
    served.ask(&format!("GET /v1/topics/{long}"), "").await.refused(400, "1 to 64 bytes");
    served.ask("GET /v1/topics/%ff", "").await.refused(400, "UTF-8");
    served.ask("GET /v1/topics/t?policy=secret", "").await.refused(400, "`anonymous`");
    served.ask("DELETE /v1/peers/static/nobody", "").await.refused(400, "not a peer id");

    let json = "\r\ncontent-type: application/json\r\n";
    served.ask("POST /v1/peers/static", "{}").await.refused(415, "application/json");
    served.ask("POST /v1/peers/trusted\r\ncontent-type: text/plain\r\n", "{}").await.refused(415, "application/json");
    served.ask(&format!("POST /v1/peers/static{json}"), "{}").await.refused(400, "missing field `address`");
    served.ask(&format!("POST /v1/peers/static{json}"), "{").await.refused(400, "not the JSON expected");
    let pathless = "{\"address\":\"/ip4/127.0.0.1/tcp/1\"}";
    served.ask(&format!("POST /v1/peers/static{json}"), pathless).await.refused(400, "copy the whole address");
    let own = served.node.addresses().await.expect("runs").remove(0);
    let own = format!("{{\"address\":\"{own}\"}}");
    served.ask(&format!("POST /v1/peers/static{json}"), own).await.refused(400, "this node itself");
    let huge = vec![b' '; 20_000];
    served.ask(&format!("POST /v1/peers/static{json}"), huge).await.refused(413, "16384 bytes");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_4_mib_passes_and_a_larger_one_is_413_that_can_be_read() {
    let served = served(Builder::local()).await;
    let limit = 4 * 1024 * 1024;
    assert_eq!(served.ask("POST /v1/topics/t", vec![1; limit]).await.status, StatusCode::OK);
    served.ask("POST /v1/topics/t", vec![1; limit + 1]).await.refused(413, "4194304 bytes");
    // Without a declared length.
    let chunk = vec![b'y'; 1024 * 1024];
    let mut body = Vec::new();
    for _ in 0..5 {
        body.extend_from_slice(b"100000\r\n");
        body.extend_from_slice(&chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.expect("listens");
    let head =
        format!("POST /v1/topics/t HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ntransfer-encoding: chunked\r\n\r\n", served.port);
    stream.write_all(head.as_bytes()).await.expect("writes");
    stream.write_all(&body).await.expect("writes");
    read_until(&mut stream, &["413 Payload Too Large", "4194304 bytes"]).await;
    // Who asks before sending is answered at once.
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.expect("listens");
    let head = format!(
        "POST /v1/topics/t HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n",
        served.port
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    read_until(&mut stream, &["413 Payload Too Large"]).await;
    served.stop().await;
}

#[tokio::test]
async fn a_page_in_a_browser_gets_nowhere() {
    let served = served(Builder::local()).await;
    let simple = "content-type: text/plain\r\n";
    let origin = "origin: https://evil.example\r\n";
    let site = "sec-fetch-site: cross-site\r\n";
    // A form, or fetch() with `no-cors`: no preflight would stop it.
    served.ask(&format!("POST /v1/topics/t\r\n{simple}{origin}"), "spam").await.refused(403, "Origin");
    served.ask(&format!("POST /v1/topics/t\r\n{simple}{site}"), "spam").await.refused(403, "Sec-Fetch-Site");
    served.ask(&format!("GET /v1/topics/t\r\n{site}"), "").await.refused(403, "Sec-Fetch-Site");
    let rebound = format!("GET /v1/node\r\nhost: evil.example:{}\r\n", served.port);
    served.ask(&rebound, "").await.refused(403, "Host");
    served.ask(&format!("GET /v1/nonsense\r\n{origin}"), "").await.refused(403, "Origin");
    let preflight = format!("OPTIONS /v1/topics/t\r\n{origin}access-control-request-method: POST\r\n");
    let answer = served.ask(&preflight, "").await;
    answer.refused(403, "Origin");
    assert!(!answer.head.contains("access-control"), "{}", answer.head);
    let own =
        format!("POST /v1/topics/t\r\norigin: http://127.0.0.1:{}\r\nsec-fetch-site: same-origin\r\n", served.port);
    let answer = served.ask(&own, "mine").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!answer.head.contains("access-control"), "{}", answer.head);
    assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
    served.stop().await;
}

#[tokio::test]
async fn streams_are_limited_and_a_reader_that_leaves_makes_room() {
    let served = served(Builder::local()).await;
    let mut open = Vec::new();
    for _ in 0..super::STREAMS {
        let mut stream = served.open("GET /v1/topics/t", b"").await;
        read_until(&mut stream, &["event: subscribed\n"]).await;
        open.push(stream);
    }
    let refused = served.ask("GET /v1/events", "").await;
    refused.refused(503, "too many event streams");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    drop(open.pop());
    let room = async {
        loop {
            let mut stream = served.open("GET /v1/events", b"").await;
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.expect("an answer");
            if head.ends_with(b"200") {
                return;
            }
        }
    };
    timeout(LIMIT, room).await.expect("room again");
    // With 63 streams open, the end is as quick.
    served.stop().await;
}

#[tokio::test]
async fn many_messages_go_through_one_connection() {
    let served = served(Builder::local()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", served.port)).await.expect("listens");
    for n in 0..200 {
        let body = format!("message {n}");
        let head = format!("POST /v1/topics/t HTTP/1.1\r\nhost: localhost:{}\r\n", served.port);
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.expect("writes");
        read_until(&mut stream, &["200 OK", "\"peers\":0}"]).await;
    }
    served.stop().await;
}

#[cfg(not(feature = "journal"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_journals_says_how_to_build_one_with() {
    let served = served(Builder::local()).await;
    served.ask("POST /v1/journals", "").await.refused(501, "--features journal");
    served.stop().await;
}

#[cfg(feature = "journal")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journals_are_written_when_asked_for_and_their_paths_are_told() {
    let root = tempfile::tempdir().expect("directory");
    let served = served(Builder::local().data_dir(root.path())).await;
    served.ask("GET /v1/journals", "").await.refused(405, "method");
    served.ask("POST /v1/journals\r\norigin: https://evil.example\r\n", "").await.refused(403, "Origin");
    let answer = served.ask("POST /v1/journals", "").await.json();
    let journals = answer.as_array().expect("a list");
    assert_eq!(journals.len(), 5);
    for journal in journals {
        assert!(std::path::Path::new(journal["path"].as_str().expect("a path")).is_file());
    }
    served.stop().await;
}
