//! Per-peer protocols between nodes on loopback, through the public door only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerage::codec::{Bincode, Raw};
use peerage::protocol::{Protocol, RunError, SendError};
use peerage::server::router::{Handler, HandlerConfig};
use peerage::{Builder, DisconnectReason, EndedBy, Event, Events, Node, StartError};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Two nodes, of which the second dials the first; and what happens to the first's peers.
async fn pair(first: Builder, second: Builder) -> (Node, Node, Events) {
    let first = first.start().await.expect("starts");
    let events = first.events().await.expect("runs");
    let address = first.addresses().await.expect("runs").remove(0);
    let second = second.bootnode(address).start().await.expect("starts");
    (first, second, events)
}

async fn ended(events: &mut Events) -> (DisconnectReason, EndedBy) {
    soon("an end", async {
        loop {
            if let Some(Event::PeerDown { reason, by, .. }) = events.next().await {
                return (reason, by);
            }
        }
    })
    .await
}

/// Says hello with this version's number, and tells what it hears.
fn hello(heard: mpsc::Sender<String>) -> Protocol {
    let hello = Protocol::new("hello", Bincode, move |peer, mut channel| {
        let heard = heard.clone();
        async move {
            let version = channel.agreed().version;
            channel
                .send(0, &format!("{version} from {}", if peer.dialled { "who dialled" } else { "who listens" }))
                .await?;
            let message = channel.recv().await?;
            heard.send(message.value()?).await.map_err(RunError::failed)?;
            channel.outbox().ended().await;
            Err(RunError::Ended)
        }
    });
    hello.version(1, 1).version(2, 1).version(3, 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_runs_at_both_ends_at_the_highest_version_that_neither_withholds() {
    let (tell, mut heard) = mpsc::channel(10);
    let second = Builder::local().protocol(hello(tell.clone())).withhold(["hello/3".parse().expect("a version")]);
    let (first, second, _events) = pair(Builder::local().protocol(hello(tell)), second).await;
    let mut both =
        [soon("hello", heard.recv()).await, soon("hello", heard.recv()).await].map(Option::unwrap_or_default);
    both.sort();
    assert_eq!(both, ["2 from who dialled", "2 from who listens"]);
    let peer = first.peers().await.expect("runs").remove(0);
    assert!(peer.capabilities.iter().any(|capability| capability.to_string() == "hello/2"), "{peer:?}");
    second.shutdown().await;
    first.shutdown().await;
}

#[tokio::test]
async fn protocols_that_cannot_be_are_refused_at_the_start() {
    let refused = async |builder: Builder| match builder.start().await {
        Err(error @ StartError::Server(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let named = |name: &str| Protocol::new(name, Raw, |_, _| std::future::pending());
    assert!(refused(Builder::local().protocol(named("gossip").version(1, 1))).await.contains("of the node's own"));
    assert!(refused(Builder::local().protocol(named("mine"))).await.contains("has no version"));
    let unknown = Builder::local().withhold(["mine/1".parse().expect("a version")]);
    assert!(refused(unknown).await.contains("mine/1 is to be withheld"));
    let large = Builder::local().protocol(named("mine").version(1, 1).max_message(1 << 30));
    assert!(refused(large).await.contains("a session carries"));
}

/// A protocol of which each end declares something else: the second is hostile.
fn said(codes: u16, max_message: usize, (code, bytes): (u16, usize)) -> Protocol {
    let said = Protocol::new("said", Raw, move |_, mut channel| async move {
        channel.send(code, &vec![0; bytes].into()).await?;
        loop {
            channel.recv().await?;
        }
    });
    said.version(1, codes).max_message(max_message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_out_of_range_and_a_message_too_large_are_the_peers_breach() {
    for attack in [(2, 1), (65_000, 0), (0, 101)] {
        let honest = Builder::local().protocol(said(2, 100, (1, 100)));
        let hostile = Builder::local().protocol(said(u16::MAX, 1 << 20, attack));
        let (first, second, mut events) = pair(honest, hostile).await;
        assert_eq!(ended(&mut events).await, (DisconnectReason::ProtocolError, EndedBy::Us));
        second.shutdown().await;
        first.shutdown().await;
    }
}

/// geth's rule: whatever the run returns ends the peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_returns_or_panics_ends_its_peer_and_the_node_goes_on() {
    let ends: [fn() -> Result<(), RunError>; 4] =
        [|| Ok(()), || Err(DisconnectReason::Useless.into()), || Err(RunError::failed("no")), || panic!("as asked")];
    let reasons = [
        DisconnectReason::Quitting,
        DisconnectReason::Useless,
        DisconnectReason::Subprotocol,
        DisconnectReason::Crashed,
    ];
    for (end, reason) in ends.into_iter().zip(reasons) {
        let waiting = Protocol::new("end", Raw, |_, mut channel| async move {
            loop {
                channel.recv().await?;
            }
        });
        let ending = Protocol::new("end", Raw, move |_, _| async move { end() });
        let (first, second, mut events) =
            pair(Builder::local().protocol(ending.version(1, 1)), Builder::local().protocol(waiting.version(1, 1)))
                .await;
        assert_eq!(ended(&mut events).await, (reason, EndedBy::Us));
        assert!(first.health().await.is_ok() && second.health().await.is_ok());
        second.shutdown().await;
        first.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_into_a_run_that_never_reads_is_bounded_and_stops_nothing_else() {
    let deaf = Protocol::new("flood", Raw, |_, channel| async move {
        let _kept = channel;
        std::future::pending().await
    });
    let (sent, full) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, end) = (sent.clone(), full.clone());
    let flood = Protocol::new("flood", Raw, move |_, channel| {
        let (count, end) = (count.clone(), end.clone());
        async move {
            let payload = vec![0; 10_000].into();
            loop {
                match channel.try_send(0, &payload) {
                    Ok(()) => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Err(SendError::Full) => {
                        end.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    });
    let (tell, mut heard) = mpsc::channel(10);
    let first = Builder::local().protocol(deaf.version(1, 1)).protocol(hello(tell.clone()));
    let second = Builder::local().protocol(flood.version(1, 1)).protocol(hello(tell));
    let (first, second, _events) = pair(first, second).await;
    soon("hello", heard.recv()).await.expect("heard");
    soon("hello", heard.recv()).await.expect("heard");
    let echo = Handler::function(|call| Ok(call.payload));
    first.server().serve("echo", HandlerConfig::concurrent(), echo).await.expect("free");
    soon("a full lane", async {
        while full.load(Ordering::SeqCst) < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let before = sent.load(Ordering::SeqCst);
    for n in 0u8..50 {
        let answer = second.server().router().request(first.id(), "echo", vec![n], LIMIT).await;
        assert_eq!(answer, Ok(vec![n].into()));
    }
    assert_eq!(sent.load(Ordering::SeqCst), before, "it has no credit left, and its lane is full");
    assert_eq!((first.peer_count().await, second.peer_count().await), (Ok(1), Ok(1)));
    second.shutdown().await;
    first.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_fetched_when_the_node_starts() {
    let (tell, mut heard) = mpsc::channel(10);
    let caller = Builder::local().start().await.expect("starts");
    let member = caller.id();
    let membership = move || {
        let fetched = tell.try_send(()).map(|()| BTreeMap::from([(member, 1u64)]));
        async move { fetched.map_err(Into::into) }
    };
    let first = Builder::local().membership(membership).static_peer(caller.addresses().await.expect("runs").remove(0));
    let first = first.start().await.expect("starts");
    let members = HandlerConfig { members_only: true, ..HandlerConfig::concurrent() };
    first.server().serve("echo", members, Handler::function(|call| Ok(call.payload))).await.expect("free");
    soon("a fetch", heard.recv()).await.expect("asked");
    soon("an answer", async {
        // Not connected yet, or not fetched.
        while caller.server().router().request(first.id(), "echo", "hi", LIMIT).await != Ok("hi".into()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    caller.shutdown().await;
    first.shutdown().await;
}
