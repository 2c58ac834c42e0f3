//! Durable topics on loopback and on disk, through the public door only.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use peerage::{AckError, Builder, Durable, DurableError, DurableMessage, DurableTopic, DurableTopicError, Node, Start};

const LIMIT: Duration = Duration::from_secs(60);
/// Tells a copy of this test that it is the one to be killed: the address of the other node, and its folder.
const VICTIM: &str = "PEERAGE_DURABLE_VICTIM";
const NAME: &str = "a_node_that_is_killed_ends_with_every_message_once_and_in_order";

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

fn builder() -> Builder {
    Builder::local().network("durable").listen("/ip4/127.0.0.1/tcp/0")
}

async fn open(node: &Node, from: Option<Start>) -> DurableTopic {
    soon("the topic", node.durable_topic("t", Durable { from, ..Durable::cursor("test") })).await.expect("durable")
}

async fn next(topic: &DurableTopic) -> DurableMessage {
    soon("a message", topic.next()).await.expect("the node runs")
}

fn number(message: &DurableMessage) -> u64 {
    String::from_utf8_lossy(&message.payload).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_goes_on_where_it_was_and_readers_start_where_they_say() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut publishers = Vec::new();
    for life in 0..3u64 {
        let node = builder().data_dir(folder.path()).start().await.expect("starts");
        let topic = open(&node, None).await;
        publishers.push(node.id());
        for n in 0..4 {
            topic.publish((4 * life + n).to_string()).await.expect("published");
        }
        // Three of four are done with, of those that are left since the last life too.
        for n in 0..3 {
            let message = next(&topic).await;
            assert_eq!(number(&message), 3 * life + n, "life {life}");
            assert_eq!(message.position, 3 * life + n + 1);
            topic.ack(message.position).await.expect("on disk");
        }
        assert_eq!(topic.ack(1).await, Ok(()), "an earlier one changes nothing");
        let ahead = topic.ack(4_000).await;
        assert!(matches!(ahead, Err(AckError::Refused(DurableError::Ahead { .. }))), "{ahead:?}");

        let earliest = open(&node, Some(Start::Earliest)).await;
        for n in 0..4 * (life + 1) {
            assert_eq!(number(&next(&earliest).await), n);
        }
        let after = open(&node, Some(Start::After(2))).await;
        assert_eq!(number(&next(&after).await), 2);
        let latest = open(&node, Some(Start::Latest)).await;
        let waiting = tokio::time::timeout(Duration::from_millis(300), latest.next()).await;
        assert!(waiting.is_err(), "nothing has come since");
        node.shutdown().await;
        assert!(soon("the end", latest.next()).await.is_none(), "and nothing will");
    }
    assert!(publishers.windows(2).all(|two| two[0] == two[1]), "one node all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_that_do_not_add_up_are_refused_with_the_sum() {
    let node = builder().start().await.expect("starts");
    let huge = Durable { retain_bytes: 3 << 30, ..Durable::cursor("c") };
    let _first = node.durable_topic("a", huge.clone()).await.expect("fits");
    let refused = node.durable_topic("b", huge.clone()).await.expect_err("does not");
    assert!(refused.to_string().contains("keep 3221225472 bytes, and 3221225472 more make 6442450944"), "{refused}");
    let other = node.durable_topic("a", Durable::cursor("c")).await.expect_err("other bounds");
    assert!(matches!(other, DurableTopicError::Refused(DurableError::Other(_))), "{other}");
    let nothing = node.durable_topic("c", Durable { retain_bytes: 0, ..huge }).await.expect_err("nothing");
    assert_eq!(nothing, DurableTopicError::Refused(DurableError::Nothing));
    node.shutdown().await;
}

/// Reads on from its cursor, and says what it has got.
async fn victim(address: &str, folder: &Path) -> ! {
    let node = builder().data_dir(folder).bootnode(address.to_owned()).start().await.expect("starts");
    let topic = open(&node, None).await;
    let mut out = std::io::stdout();
    loop {
        let message = topic.next().await.expect("runs");
        writeln!(out, "got {} {}", message.position, number(&message)).expect("the parent reads");
        out.flush().expect("the parent reads");
        topic.ack(message.position).await.expect("on disk");
    }
}

fn spawn(address: &str, folder: &Path) -> (Child, Receiver<(u64, u64)>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args([NAME, "--exact", "--nocapture"])
        .env(VICTIM, format!("{address} {}", folder.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a copy of this test");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let got = line.rsplit_once("got ").and_then(|(_, got)| got.split_once(' '));
            let got = got.and_then(|(position, n)| Some((position.parse().ok()?, n.parse().ok()?)));
            if got.is_some_and(|got| told.send(got).is_err()) {
                return;
            }
        }
    });
    (child, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_ends_with_every_message_once_and_in_order() {
    if let Ok(told) = std::env::var(VICTIM) {
        let (address, folder) = told.split_once(' ').expect("an address and a folder");
        victim(address, Path::new(folder)).await;
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let node = builder().start().await.expect("starts");
    let address = node.addresses().await.expect("runs").remove(0).to_string();
    let topic = open(&node, None).await;
    let publishing = tokio::spawn(async move {
        for n in 0..400u64 {
            topic.publish(n.to_string()).await.expect("published");
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        topic
    });
    let mut got: Vec<(u64, u64)> = Vec::new();
    for life in 0..3 {
        let (mut child, heard) = spawn(&address, folder.path());
        // Killed in the middle of the stream twice; the last one reads it to its end.
        let until = if life < 2 { got.len() + 40 } else { usize::MAX };
        let began = got.len();
        let reading = tokio::task::spawn_blocking(move || {
            let mut got = got;
            while got.len() < until && got.last().is_none_or(|(_, n)| *n < 399) {
                got.push(heard.recv_timeout(LIMIT).expect("it goes on"));
            }
            got
        });
        got = soon("its messages", reading).await.expect("read");
        child.kill().expect("killed by its own id");
        child.wait().expect("ended");
        // What was read and not acknowledged when it was killed is read again, at the same position.
        if let Some((position, _)) = got.get(began) {
            let last = began.checked_sub(1).and_then(|last| got.get(last)).map_or(0, |(position, _)| *position);
            assert!(*position <= last + 1 && position + 2 > last, "life {life}: {position} after {last}");
        }
        got.dedup();
    }
    let _topic = publishing.await.expect("published all");
    assert!(
        got.iter().zip(0..).all(|((position, n), expected)| (*position, *n) == (expected + 1, expected)),
        "{got:?}"
    );
    assert_eq!(got.len(), 400, "every message, none twice");

    // What is on disk says the same.
    let again = builder().data_dir(folder.path()).start().await.expect("starts");
    let topic = open(&again, Some(Start::Earliest)).await;
    for n in 0..400 {
        let message = next(&topic).await;
        assert_eq!((message.position, number(&message), message.publisher), (n + 1, n, node.id()));
    }
    again.shutdown().await;
    node.shutdown().await;
}
