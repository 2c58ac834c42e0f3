//! Streams and large answers between nodes on loopback, through the public door only.

use std::time::Duration;

use peerage::server::router::{Handler, HandlerConfig, Incoming};
use peerage::{Builder, Event, Node, OpenStreamError, Refusal, Stream, StreamCode, StreamFailed};

const LIMIT: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

async fn pair() -> (Node, Node) {
    let first = Builder::local().message_events(true).start().await.expect("starts");
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

async fn end(nodes: [Node; 2]) {
    for node in nodes {
        soon("the end", node.shutdown()).await;
    }
}

/// Says everything back.
async fn echo(Stream { mut writer, mut reader }: Stream) {
    while let Ok(Some(bytes)) = reader.read().await {
        if writer.write(bytes).await.is_err() {
            return;
        }
    }
    let _ = writer.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_open_streams_to_each_other_and_both_talk_at_once() {
    let (first, second) = pair().await;
    for node in [&first, &second] {
        node.serve_streams("echo/1", |stream, _peer| echo(stream)).await.expect("free");
    }
    let mut events = first.events().await.expect("runs");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n * 5 / 3) as u8).collect();
    for (from, to) in [(&first, &second), (&second, &first)] {
        let Stream { mut writer, mut reader } = from.open_stream(to.id(), "echo/1").await.expect("open");
        let writes = async {
            writer.write(sent.clone()).await?;
            writer.finish()
        };
        let reads = async {
            let mut bytes = Vec::new();
            while let Some(piece) = reader.read().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok::<_, StreamFailed>(bytes)
        };
        let (written, read) = soon("both ways", async { tokio::join!(writes, reads) }).await;
        assert_eq!(written, Ok(()));
        assert!(read.expect("to the end") == sent);
    }
    let mut seen = Vec::new();
    soon("events", async {
        while seen.len() < 4 {
            match events.recv().await.expect("they last") {
                Event::StreamOpened { id, protocol, by_us, .. } => {
                    assert_eq!((id, &*protocol), (second.id(), "router"));
                    seen.push(if by_us { "opened" } else { "accepted" });
                }
                Event::StreamEnded { sent: out, received, .. } => {
                    // With their headers, which go one way.
                    assert_eq!(out + received, 2 * sent.len() as u64 + 13);
                    seen.push("ended");
                }
                _ => {}
            }
        }
    })
    .await;
    seen.sort_unstable();
    assert_eq!(seen, ["accepted", "ended", "ended", "opened"]);
    end([first, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_codes_and_ends_reach_the_other_end() {
    let (first, second) = pair().await;
    let handle = |mut stream: Stream, _peer| async move {
        match stream.reader.recv(16).await {
            Ok(Some(word)) if word == "reset" => stream.abort(StreamCode(404)),
            Ok(Some(word)) if word == "hang" => {
                stream.writer.send("hangs").await.expect("open");
                std::future::pending().await
            }
            _ => panic!("the application's"),
        }
    };
    let id = second.serve_streams("words/1", handle).await.expect("free");
    let taken = second.serve_streams("words/1", |_stream, _peer| async {}).await;
    assert!(taken.is_err(), "the name is taken");
    for (word, code) in [("reset", StreamCode(404)), ("panic", StreamCode::DROPPED)] {
        let mut stream = first.open_stream(second.id(), "words/1").await.expect("open");
        stream.writer.send(word).await.expect("open");
        let read = soon(word, stream.reader.read()).await;
        assert_eq!(read, Err(StreamFailed::Reset(code)), "{word}");
    }
    let mut unknown = first.open_stream(second.id(), "none/1").await.expect("open");
    let read = soon("a refusal", unknown.reader.read()).await;
    assert_eq!(read, Err(StreamFailed::Refused(Refusal::UnknownHandler)));
    let mut hangs = first.open_stream(second.id(), "words/1").await.expect("open");
    hangs.writer.send("hang").await.expect("open");
    assert_eq!(soon("it hangs", hangs.reader.recv(16)).await, Ok(Some("hangs".into())));
    second.server().serve_streams_no_more(id);
    // Nobody says when it has been removed.
    let read = soon("a refusal", async {
        loop {
            let mut stream = first.open_stream(second.id(), "words/1").await.expect("open");
            let _ = stream.writer.send("reset").await;
            match stream.reader.read().await {
                Err(StreamFailed::Reset(StreamCode(404))) => tokio::time::sleep(Duration::from_millis(1)).await,
                read => break read,
            }
        }
    })
    .await;
    assert_eq!(read, Err(StreamFailed::Refused(Refusal::UnknownHandler)));
    assert_eq!(first.open_stream(first.id(), "words/1").await.expect_err("itself"), OpenStreamError::NotConnected);
    soon("the end", second.shutdown()).await;
    assert_eq!(soon("the end", hangs.reader.read()).await, Err(StreamFailed::SessionEnded));
    soon("the end", first.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_come_whole_many_at_once_and_small_ones_pass_beside_them() {
    let (first, second) = pair().await;
    let large = Handler::task(|Incoming { payload, .. }| async move {
        Ok(payload.iter().cycle().take(1 << 20).copied().collect::<Vec<_>>().into())
    });
    second.server().serve("large/1", HandlerConfig::concurrent(), large).await.expect("free");
    second.serve("small/1", |n: u64, _peer| async move { Ok(n + 1) }).await.expect("free");
    let asked: Vec<_> = (0..12u8)
        .map(|n| {
            let (router, to) = (first.server().router().clone(), second.id());
            tokio::spawn(async move { router.request(to, "large/1", vec![n, 255 - n], LIMIT).await })
        })
        .collect();
    for n in 0..50u64 {
        let answer: u64 = first.request(second.id(), "small/1", n).await.expect("answered");
        assert_eq!(answer, n + 1);
    }
    for (n, asked) in (0..12u8).zip(asked) {
        let answer = soon("a large answer", asked).await.expect("no panic").expect("answered");
        assert_eq!(answer.len(), 1 << 20);
        assert!(answer.chunks(2).all(|pair| *pair == [n, 255 - n]));
    }
    end([first, second]).await;
}
