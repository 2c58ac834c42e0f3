//! Per-peer protocols between two ends whose sessions are plain queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerage_mailbox::{Inlet, Item, Meter, Outlet, Port, data_queue};
use peerage_queue::{ChannelId, Delivery, Door, Inbound, LaneEnd, LanesConfig, Pool, PoolConfig, SessionId, lanes};
use peerage_router::codec::{Bincode, Raw};
use peerage_router::peerage_machine::Time;
use peerage_router::protocol::{
    Channel, Event, Live, Outbox, Peer, Protocol, Protocols, RecvError, RunError, SendError, Tracker, message,
    send_to_all,
};
use peerage_router::serde_json::json;
use peerage_wire::frame::Lane;
use peerage_wire::{Capability, DisconnectReason, NodeId, match_capabilities};
use tokio::task::JoinSet;

const SESSION: SessionId = SessionId(1);

struct Told(Event);

impl Item for Told {}

type Routes = BTreeMap<ChannelId, Outlet<Inbound>>;

/// One end: a node's protocols, and what its root would do with them.
struct End {
    tracker: Tracker,
    protocols: Protocols,
    told: Inlet<Told>,
    pool: Pool,
    tasks: JoinSet<()>,
    live: BTreeMap<SessionId, (Live, LaneEnd, Routes)>,
}

fn end(protocols: &[Protocol]) -> End {
    let protocols = Protocols::new([], protocols, &[], 16 << 20).expect("sound");
    let (tell, told) = data_queue(peerage_mailbox::Capacity { items: 100_000, weight: 100_000 });
    let pool = Pool::new(PoolConfig::outbound());
    let events = Port::from_fn(move |event| drop(tell.offer(Told(event))));
    let tracker = Tracker::new(protocols.clone(), pool.clone(), events, &Meter::none());
    End { tracker, protocols, told, pool, tasks: JoinSet::new(), live: BTreeMap::new() }
}

impl End {
    /// A session with a peer that speaks these; its door.
    fn up(&mut self, session: SessionId, theirs: &[Capability]) -> Door {
        let (door, lane_end) = lanes(LanesConfig::recommended(), &self.pool, 0);
        let matched = match_capabilities(self.protocols.plan().capabilities(), theirs);
        let peer = Peer {
            id: NodeId::from_bytes([session.0 as u8; 32]),
            session,
            address: ([10, 0, 0, 1], 1).into(),
            dialled: true,
            agent: "test".into(),
            capabilities: theirs.to_vec(),
        };
        let (routes, mut live) = self.tracker.open(&peer, &matched, &door);
        for run in live.start() {
            self.tasks.spawn(run.run());
        }
        self.live.insert(session, (live, lane_end, routes.into_iter().collect()));
        door
    }

    /// The same with a peer that speaks what this one does.
    fn up_alike(&mut self, session: SessionId) -> Door {
        let own = self.protocols.plan().capabilities().to_vec();
        self.up(session, &own)
    }

    /// What the peer says.
    fn hears(&self, session: SessionId, channel: u16, payload: Bytes) -> Result<(), ()> {
        let (_, _, routes) = &self.live[&session];
        let channel = ChannelId(channel);
        let delivery = Delivery { session, channel, stream: 0, lane: Lane::Normal, payload };
        routes[&channel].offer(delivery.into()).map_err(drop)
    }

    /// What the peer is told: the next whole message.
    async fn says(&mut self, session: SessionId) -> (ChannelId, Lane, Bytes) {
        let (_, lane_end, _) = self.live.get_mut(&session).expect("up");
        let mut whole = BytesMut::new();
        loop {
            let fragment = lane_end.recv(|| Time::ZERO).await.expect("the session lives");
            whole.extend_from_slice(&fragment.payload);
            if !fragment.more {
                return (fragment.flow.channel, fragment.flow.lane, whole.freeze());
            }
        }
    }

    /// The session ends.
    fn down(&mut self, session: SessionId) {
        self.tracker.peer_down(session);
        self.live.remove(&session);
    }

    /// Why sessions are to end, as far as that is known when nothing else goes on.
    async fn ends(&mut self) -> Vec<(SessionId, DisconnectReason)> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let told = self.told.take(usize::MAX);
        let ends = told.into_iter().filter_map(|Told(event)| Some((event.session(), self.tracker.event(event)?)));
        ends.collect()
    }
}

/// A run that keeps its outbox for the test, and ends with its session.
fn kept(outboxes: &Outlet<Kept>) -> Protocol {
    let outboxes = outboxes.clone();
    let kept = Protocol::new("kept", Raw, move |_, mut channel: Channel<Raw>| {
        drop(outboxes.offer(Kept(channel.outbox().clone())));
        async move {
            loop {
                channel.recv().await?;
            }
        }
    });
    kept.version(1, 4)
}

struct Kept(Outbox<Raw>);

impl Item for Kept {}

fn keeping() -> (Protocol, Inlet<Kept>) {
    let (outlet, inlet) = data_queue(peerage_mailbox::Capacity { items: 100, weight: 100 });
    (kept(&outlet), inlet)
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// geth's TestPeerProtoReadMsg and TestPeerProtoEncodeMsg.
#[tokio::test(start_paused = true)]
async fn a_run_reads_and_writes_messages_by_code_and_ends_its_peer_when_it_returns() {
    let echo = Protocol::new("echo", Bincode, |peer, mut channel| async move {
        assert_eq!((peer.agent.as_str(), channel.agreed().version), ("test", 2), "the highest common version");
        while let Ok(message) = channel.recv().await {
            let value: u64 = message.value()?;
            if value == 0 {
                return Ok(());
            }
            channel.send(message.code + 1, &(value + 1)).await?;
            channel.send_items(message.code, [value, value]).await?;
        }
        Ok(())
    });
    let mut end = end(&[echo.version(1, 2).version(2, 3).version(3, 9)]);
    end.up(SESSION, &["echo/1", "echo/2", "other/7"].map(|text| text.parse().expect("a capability")));
    end.hears(SESSION, 1, message(1, &[7])).expect("room");
    assert_eq!(end.says(SESSION).await, (ChannelId(1), Lane::Normal, message(2, &[8])));
    assert_eq!(end.says(SESSION).await.2, message(1, &[2, 7, 7]), "a list");
    assert!(end.ends().await.is_empty());
    end.hears(SESSION, 1, message(0, &[0])).expect("room");
    assert_eq!(end.ends().await, [(SESSION, DisconnectReason::Quitting)]);
    assert!(end.tracker.is_empty() && end.hears(SESSION, 1, message(0, &[1])).is_err(), "nobody reads any more");
}

#[tokio::test(start_paused = true)]
async fn each_end_of_a_run_is_told_with_its_reason_and_a_panic_is_one() {
    let ending = Protocol::new("ending", Bincode, |_, mut channel| async move {
        match channel.recv().await?.value::<u8>()? {
            0 => Err(DisconnectReason::Useless.into()),
            1 => Err(RunError::breach("so")),
            2 => Err(RunError::failed("so")),
            3 => panic!("as asked"),
            4 => Ok(channel.send(99, &0u8).await?),
            _ => Ok(()),
        }
    });
    let mut end = end(&[ending.version(1, 1)]);
    use DisconnectReason as R;
    let reasons = [R::Useless, R::ProtocolError, R::Subprotocol, R::Crashed, R::Subprotocol, R::Quitting];
    for (n, reason) in (0u8..).zip(reasons) {
        let session = SessionId(n.into());
        end.up_alike(session);
        end.hears(session, 1, message(0, &[n])).expect("room");
        assert_eq!(end.ends().await, [(session, reason)], "{n}");
        end.down(session);
    }
    // What is no value is the peer's breach, where the run says so by returning it.
    end.up_alike(SESSION);
    end.hears(SESSION, 1, message(0, &[])).expect("room");
    assert_eq!(end.ends().await, [(SESSION, R::ProtocolError)]);
    assert!(end.tracker.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_first_wait_is_an_end_like_others() {
    async fn never() -> Result<(), RunError> {
        Ok(())
    }
    let hasty = Protocol::new("hasty", Raw, |peer, _| if peer.dialled { panic!("at once") } else { never() });
    let mut end = end(&[hasty.version(1, 1)]);
    end.up_alike(SESSION);
    assert_eq!(end.ends().await, [(SESSION, DisconnectReason::Crashed)]);
}

/// The attacker is the peer; the run is one that minds nothing.
#[tokio::test(start_paused = true)]
async fn a_code_out_of_range_ends_the_session_although_the_run_goes_on() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let deaf = Protocol::new("deaf", Raw, move |_, mut channel| {
        let count = count.clone();
        async move {
            loop {
                match channel.recv().await {
                    Ok(_) => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Err(RecvError::Breach(_)) => {}
                    Err(_) => std::future::pending().await,
                }
            }
        }
    });
    let mut end = end(&[deaf.version(1, 2).max_message(4)]);
    let breaches = [message(2, b""), message(u16::MAX, b"1"), message(0, b"12345"), Bytes::new(), bytes("\0")];
    for (n, breach) in (0..).zip(breaches) {
        let session = SessionId(n);
        end.up_alike(session);
        end.hears(session, 1, message(1, b"1234")).expect("room");
        end.hears(session, 1, breach).expect("room");
        // Behind the breach nothing is read.
        end.hears(session, 1, message(0, b"")).expect("room");
        assert_eq!(end.ends().await, [(session, DisconnectReason::ProtocolError)], "{n}");
        assert_eq!(seen.swap(0, Ordering::SeqCst), 1, "{n}");
        assert!(end.hears(session, 1, message(0, b"")).is_err(), "{n}: the queue is closed");
        end.down(session);
    }
    assert_eq!(end.tracker.len(), 5, "none of them returns");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(end.ends().await, [], "they were dropped, which ends nothing");
    assert!(end.tracker.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_protocol_has_not_is_refused_to_its_sender() {
    let (protocol, outboxes) = keeping();
    let mut end = end(&[protocol.max_message(4)]);
    end.up_alike(SESSION);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let Kept(outbox) = outboxes.pop().expect("it runs");
    for (code, text) in [(4, "a"), (u16::MAX, "a"), (0, "12345")] {
        let refused = |error: Result<(), SendError>| matches!(error, Err(SendError::Unsendable(_)));
        assert!(refused(outbox.send(code, &bytes(text)).await) && refused(outbox.try_send(code, &bytes(text))));
    }
    assert_eq!(outbox.try_send(3, &bytes("1234")), Ok(()));
    assert_eq!(outbox.clone().urgent().try_send(3, &bytes("now")), Ok(()));
    assert_eq!(outbox.clone().bulk().try_send(3, &bytes("late")), Ok(()));
    assert_eq!(end.says(SESSION).await.1, Lane::High);
    let said = [end.says(SESSION).await, end.says(SESSION).await].map(|(_, lane, bytes)| (lane, bytes));
    assert_eq!(said, [(Lane::Normal, message(3, b"1234")), (Lane::Bulk, message(3, b"late"))]);
    let written = Outbox::with(outbox, Bincode).try_send(0, &vec![0u64; 1 << 20]);
    assert!(matches!(written, Err(SendError::Value(_))), "{written:?}");
}

/// geth's TestMsgPipeUnblockWrite and TestMsgPipeConcurrentClose.
#[tokio::test(start_paused = true)]
async fn a_full_lane_lets_its_sender_wait_or_refuses_and_the_end_lets_all_go() {
    let (protocol, outboxes) = keeping();
    let mut end = end(&[protocol]);
    end.up_alike(SESSION);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let Kept(outbox) = outboxes.pop().expect("it runs");
    let payload = Bytes::from(vec![0; 64 << 10]);
    let mut queued = 0;
    while outbox.try_send(0, &payload) != Err(SendError::Full) {
        queued += 1;
        assert!(queued < 10_000, "bounded");
    }
    let waiting = tokio::spawn({
        let (outbox, payload) = (outbox.clone(), payload.clone());
        async move { outbox.send(1, &payload).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished(), "the session lives, so it waits");
    end.says(SESSION).await;
    assert_eq!(waiting.await.expect("no panic"), Ok(()), "there was room");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let (outbox, payload) = (outbox.clone(), payload.clone());
            tokio::spawn(async move { outbox.send(1, &payload).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!outbox.is_ended());
    end.down(SESSION);
    for waiting in waiting {
        assert_eq!(waiting.await.expect("no panic"), Err(SendError::Ended));
    }
    outbox.ended().await;
    assert_eq!(outbox.try_send(0, &payload), Err(SendError::Ended));
    assert_eq!((end.pool.used(), end.ends().await), (0, vec![]), "nothing is held of what was not sent");
}

#[tokio::test(start_paused = true)]
async fn the_same_to_many_is_written_and_held_once_and_who_has_no_room_is_named() {
    let (protocol, outboxes) = keeping();
    let mut end = end(&[protocol]);
    (0..4).for_each(|n| drop(end.up_alike(SessionId(n))));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut all: Vec<_> = outboxes.take(9).into_iter().map(|Kept(outbox)| outbox).collect();
    all.sort_by_key(Outbox::peer);
    end.down(SessionId(2));
    let payload = Bytes::from(vec![7; 100_000]);
    let refused = send_to_all(&all, 1, &payload).expect("it can be said");
    assert_eq!(refused, [(NodeId::from_bytes([2; 32]), SendError::Ended)]);
    assert_eq!(end.pool.used(), payload.len() + 2, "once for three peers");
    for n in [0, 1, 3] {
        assert_eq!(end.says(SessionId(n)).await.2, message(1, &payload));
    }
    assert_eq!(end.pool.used(), 0);
    let refused = send_to_all(&all, 9, &payload).expect("to somebody else it could be");
    assert_eq!(refused.len(), 4, "none of them has this code");
    let too_much = Bytes::from(vec![0; 1 << 30]);
    assert!(send_to_all(&all[..0], 1, &too_much).expect("nobody").is_empty());
}

/// What waits to be read is the peer's credit; a run that reads nothing stops its own protocol alone.
#[tokio::test(start_paused = true)]
async fn a_run_that_never_reads_keeps_a_bounded_queue_and_the_other_protocols_go_on() {
    let deaf = Protocol::new("deaf", Raw, |_, channel| async move {
        let _kept = channel;
        std::future::pending().await
    });
    let echo = Protocol::new("echo", Raw, |_, mut channel| async move {
        loop {
            let message = channel.recv().await?;
            channel.send(message.code, &message.payload).await?;
        }
    });
    let mut end = end(&[deaf.version(1, 1), echo.version(1, 1)]);
    end.up_alike(SESSION);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let taken = (0..100_000).filter(|_| end.hears(SESSION, 1, message(0, &[0; 1000])).is_ok()).count();
    assert!((64..1000).contains(&taken), "{taken}");
    for n in 0..100 {
        end.hears(SESSION, 2, message(0, &[n])).expect("room");
        assert_eq!(end.says(SESSION).await.2, message(0, &[n]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_peers_that_come_and_go_leave_no_task_and_no_memory() {
    let living = Arc::new(());
    let token = living.clone();
    let chat = Protocol::new("chat", Raw, move |_, mut channel| {
        let token = token.clone();
        async move {
            let _token = token;
            channel.send(0, &bytes("hello")).await?;
            loop {
                channel.recv().await?;
            }
        }
    });
    let stubborn = living.clone();
    let stubborn = Protocol::new("stubborn", Raw, move |_, _channel| {
        let token = stubborn.clone();
        async move {
            let _token = token;
            std::future::pending().await
        }
    });
    let mut end = end(&[chat.version(1, 1), stubborn.version(1, 1)]);
    let before = Arc::strong_count(&living);
    for n in 0..1000 {
        let session = SessionId(n);
        end.up_alike(session);
        end.hears(session, 1, message(0, b"hello")).expect("room");
        if n % 3 > 0 {
            tokio::task::yield_now().await;
        }
        end.down(session);
        // The root is told, and told in any order.
        end.ends().await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(end.ends().await, []);
    while end.tasks.try_join_next().is_some() {}
    assert_eq!((end.tasks.len(), end.tracker.len(), end.pool.used()), (0, 0, 0));
    assert_eq!(Arc::strong_count(&living), before);
}

/// As where the session does not start after all.
#[tokio::test(start_paused = true)]
async fn runs_that_were_never_started_leave_nothing() {
    let (protocol, _outboxes) = keeping();
    let mut end = end(&[protocol]);
    let (door, _lane_end) = lanes(LanesConfig::recommended(), &end.pool, 0);
    let matched = match_capabilities(end.protocols.plan().capabilities(), end.protocols.plan().capabilities());
    let peer = Peer {
        id: NodeId::from_bytes([1; 32]),
        session: SESSION,
        address: ([10, 0, 0, 1], 1).into(),
        dialled: false,
        agent: String::new(),
        capabilities: Vec::new(),
    };
    let (routes, live) = end.tracker.open(&peer, &matched, &door);
    assert_eq!((routes.len(), end.tracker.len()), (1, 1));
    end.tracker.peer_down(SESSION);
    drop(live);
    assert_eq!(end.ends().await, []);
    assert!(end.tracker.is_empty());
}

#[test]
fn a_protocol_tells_of_itself_and_of_peers_and_a_panic_in_it_is_nothing_told() {
    let run = |_, _: Channel<Raw>| std::future::pending();
    let told = Protocol::new("told", Raw, run).version(1, 1);
    let told = told.node_info(|| json!({"height": 7})).peer_info(|id| (id.as_bytes()[0] == 1).then(|| json!("known")));
    let silent = Protocol::new("silent", Raw, run).version(1, 1);
    let broken = Protocol::new("broken", Raw, run).version(1, 1);
    let broken = broken.node_info(|| panic!("as it is")).peer_info(|_| panic!("as it is"));
    let protocols = Protocols::new([], &[told, silent, broken], &[], 16 << 20).expect("sound");
    assert_eq!(protocols.node_info(), BTreeMap::from([("told".to_owned(), json!({"height": 7}))]));
    let all = protocols.plan().capabilities();
    let of = |n, matched: &[Capability]| protocols.peer_info(NodeId::from_bytes([n; 32]), matched);
    assert_eq!(of(1, all), BTreeMap::from([("told".to_owned(), json!("known"))]));
    assert!(of(2, all).is_empty() && of(1, &[]).is_empty(), "an unknown one, and one that does not speak it");
}
