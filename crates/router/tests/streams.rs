//! Streams between two router actors, under paused time: what applications get, and what they do not.

#[path = "../examples/support/cable.rs"]
mod cable;
#[path = "../examples/support/way.rs"]
mod way;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_router::codec::Bincode;
use peerage_router::peerage_machine::journal::Journals;
use peerage_router::peerage_mailbox::{
    Capacity, Child, Clock, Counts, Inlet, Item, Meter, Outlet, Port, Supervisor, ask, data_queue,
};
use peerage_router::peerage_queue::stream::{AcceptedStream, StreamCode, StreamDoor, StreamError};
use peerage_router::peerage_queue::{ChannelId, Inbound, LanesConfig, Pool, PoolConfig, SessionId, lanes};
use peerage_router::peerage_wire::frame::Lane;
use peerage_router::peerage_wire::{Keypair, NodeId, Penalty};
use peerage_router::wire::streams::{Header, codes};
use peerage_router::{
    Args, Config, ErrorCode, Event, FrameError, Handler, HandlerConfig, HandlerId, Incoming, IncomingStream, Memory,
    OpenStreamError, PeerUp, Refusal, RequestError, Router, RouterMailbox, Stream, StreamFailed, StreamHandler,
    StreamHandlerConfig,
};

const ROOM: Capacity = Capacity { items: 1_000, weight: 64 << 20 };
const SECOND: Duration = Duration::from_secs(1);

struct Told(Event);

impl Item for Told {}

struct Node {
    args: Args,
    counts: Counts,
    id: NodeId,
    mailbox: RouterMailbox,
    child: Child,
    router: Router,
    inbound: Outlet<Inbound>,
    streams: Outlet<AcceptedStream>,
    events: Inlet<Told>,
}

impl Node {
    async fn start(n: u8, config: Config) -> Node {
        let (inbound, inbound_end) = data_queue(ROOM);
        let (streams, streams_end) = data_queue(ROOM);
        let (report_failures, failures) = data_queue(ROOM);
        let (router, asks) = Router::new(ROOM);
        let (told, events) = data_queue(ROOM);
        let counts = Counts::default();
        let args = Args {
            config,
            seed: u64::from(n),
            inbound: inbound_end,
            streams: streams_end,
            asks,
            failures,
            report_failures,
            pool: Pool::new(PoolConfig::outbound()),
            events: Port::from_fn(move |event| told.offer(Told(event)).expect("room")),
            clock: Clock::simulated(Duration::from_secs(1_800_000_000)),
            meter: Meter::new(Arc::new(counts.clone())),
            memory: Memory::new(),
            journals: Journals::off(),
        };
        let (mailbox, child) = peerage_router::spawn(args.clone(), &Supervisor::none()).await.expect("starts");
        let id = Keypair::from_seed([n; 32]).id();
        Node { args, counts, id, mailbox, child, router, inbound, streams, events }
    }

    /// Sees the other node as session 1, without streams.
    fn hears(&self, other: &Node) {
        let up = PeerUp { session: SessionId(1), id: other.id, channel: ChannelId(1) };
        self.mailbox.peer_up(up, way::way(&self.args.pool, self.args.clock, other.inbound.clone()));
    }

    fn sees(&self, other: &Node, door: StreamDoor) {
        self.hears(other);
        self.mailbox.streams(SessionId(1), door);
    }

    async fn restart(&mut self) {
        self.child.kill();
        self.child.wait().await;
        (self.mailbox, self.child) =
            peerage_router::spawn(self.args.clone(), &Supervisor::none()).await.expect("starts again");
    }

    async fn serve(&self, name: &str, config: StreamHandlerConfig, handler: StreamHandler) -> HandlerId {
        let added = ask(SECOND, |reply| self.mailbox.serve_streams(name, config, handler, Some(reply)));
        added.await.expect("answered").expect("free")
    }

    async fn answer(&self, name: &str, handler: Handler) {
        let config = HandlerConfig::concurrent();
        let added = ask(SECOND, |reply| self.mailbox.add_handler(name, config, handler, Some(reply)));
        added.await.expect("answered").expect("free");
    }

    fn open(&self, state: &str) -> f64 {
        self.counts.gauge(&format!("peerage_router_streams{{state={state}}}")).unwrap_or_default()
    }

    fn counted(&self, event: &str) -> u64 {
        self.counts.counter(&format!("peerage_router_events_total{{event={event}}}"))
    }

    async fn is_idle(&self) {
        tokio::time::sleep(120 * SECOND).await;
        for state in ["pending", "served", "opened", "answer_in", "answer_out"] {
            assert_eq!(self.open(state), 0.0, "{state}");
        }
    }
}

/// Two routers, and the doors behind their backs: for a peer that is not a router.
async fn pair_with(config: Config) -> (Node, Node, StreamDoor, StreamDoor) {
    let (a, b) = (Node::start(1, config.clone()).await, Node::start(2, config).await);
    let (at_a, at_b, carry) = cable::cable(a.streams.clone(), b.streams.clone());
    tokio::spawn(carry);
    a.sees(&b, at_a.clone());
    b.sees(&a, at_b.clone());
    (a, b, at_a, at_b)
}

async fn pair() -> (Node, Node) {
    let (a, b, _, _) = pair_with(Config::recommended()).await;
    (a, b)
}

fn usual() -> StreamHandlerConfig {
    StreamHandlerConfig::recommended()
}

async fn all(stream: &mut Stream) -> Result<Vec<u8>, StreamFailed> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.reader.read().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn echo() -> StreamHandler {
    StreamHandler::task(|IncomingStream { stream: Stream { mut writer, mut reader }, .. }| async move {
        while let Ok(Some(bytes)) = reader.read().await {
            if writer.write(bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.finish();
    })
}

#[tokio::test(start_paused = true)]
async fn either_end_opens_streams_to_named_handlers_and_bytes_go_both_ways() {
    let (a, b) = pair().await;
    a.serve("echo/1", usual(), echo()).await;
    b.serve("echo/1", usual(), echo()).await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let Stream { mut writer, reader } = from.router.open(to.id, "echo/1").await.expect("open");
        let sent: Bytes = (0..300_000u32).map(|n| (n * 7 / 5) as u8).collect::<Vec<_>>().into();
        let mut back = Stream { writer: from.router.open(to.id, "echo/1").await.expect("open").writer, reader };
        let (written, read) = tokio::join!(
            async {
                writer.write(sent.clone()).await?;
                writer.finish()
            },
            all(&mut back)
        );
        assert_eq!(written, Ok(()));
        assert!(read.expect("all of it") == sent);
    }
    assert_eq!(a.router.open(a.id, "echo/1").await.expect_err("itself"), OpenStreamError::NotConnected);
    a.is_idle().await;
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_half_ends_by_itself_and_a_reset_reaches_the_other_end_with_its_code() {
    let (a, b) = pair().await;
    let (taken, mut takes) = data_queue(ROOM);
    b.serve("queue/1", usual(), StreamHandler::outlet(taken)).await;
    let Stream { mut writer, mut reader } = a.router.open(b.id, "queue/1").await.expect("open");
    writer.write("question").await.expect("open");
    writer.finish().expect("open");
    let IncomingStream { from, stream: mut there, .. } = takes.recv().await.expect("taken");
    assert_eq!((from, all(&mut there).await), (a.id, Ok(b"question".to_vec())));
    there.writer.write("answer").await.expect("the other half goes on");
    assert_eq!(reader.read().await, Ok(Some("answer".into())));
    there.writer.reset(StreamCode(9));
    assert_eq!(reader.read().await, Err(StreamFailed::Reset(StreamCode(9))));
    drop((reader, there.reader));
    a.is_idle().await;
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_told_why() {
    let (a, b) = pair().await;
    let (taken, _full) = data_queue(Capacity { items: 0, weight: 0 });
    let one = StreamHandlerConfig { per_peer: 1, ..usual() };
    let holds = StreamHandler::task(|stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    b.serve("one/1", one, holds).await;
    b.serve("members/1", StreamHandlerConfig { members_only: true, ..usual() }, echo()).await;
    b.serve("full/1", usual(), StreamHandler::outlet(taken)).await;
    let _held = a.router.open(b.id, "one/1").await.expect("open");
    let _queued = a.router.open(b.id, "full/1").await.expect("an empty queue takes one");
    for (name, refusal) in [
        ("none/1", Refusal::UnknownHandler),
        ("one/1", Refusal::Throttled),
        ("members/1", Refusal::NotMember),
        ("full/1", Refusal::Throttled),
    ] {
        let mut stream = a.router.open(b.id, name).await.expect("open");
        assert_eq!(all(&mut stream).await, Err(StreamFailed::Refused(refusal)), "{name}");
        assert_eq!(stream.writer.write("x").await, Err(StreamFailed::Refused(refusal)), "{name}");
    }
    assert_eq!((b.counted("stream_unknown_handler"), b.counted("stream_throttled")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_resets_its_stream_and_the_router_goes_on() {
    let (a, b) = pair().await;
    fn panics(_: IncomingStream) -> std::future::Ready<()> {
        panic!("the application's")
    }
    b.serve("panics/1", usual(), StreamHandler::task(panics)).await;
    let later = StreamHandler::task(|IncomingStream { mut stream, .. }| async move {
        let _ = stream.reader.read().await;
        panic!("the application's");
    });
    b.serve("later/1", usual(), later).await;
    for name in ["panics/1", "later/1"] {
        let mut stream = a.router.open(b.id, name).await.expect("open");
        let _ = stream.writer.write("now").await;
        assert_eq!(all(&mut stream).await, Err(StreamFailed::Reset(StreamCode::DROPPED)), "{name}");
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!(b.counted("handler_panicked"), 2);
    assert!(b.events.take(9).is_empty(), "nobody is blamed for two");
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_leaves_streams_to_applications_and_resets_those_that_nobody_has() {
    let (a, mut b, door, at_b) = pair_with(Config::recommended()).await;
    b.serve("echo/1", usual(), echo()).await;
    let mut lives = a.router.open(b.id, "echo/1").await.expect("open");
    lives.writer.write("before").await.expect("open");
    assert_eq!(lives.reader.read().await, Ok(Some("before".into())));
    let (_writer, mut unclaimed) = door.open(ChannelId(1), Lane::Normal).await.expect("open");
    tokio::time::sleep(SECOND).await;
    assert_eq!((b.open("pending"), b.open("served")), (1.0, 1.0));
    b.restart().await;
    assert_eq!(unclaimed.read().await, Err(StreamError::Reset(codes::RESTARTED)));
    lives.writer.write("after").await.expect("it lives on");
    assert_eq!(lives.reader.read().await, Ok(Some("after".into())));
    b.serve("echo/1", usual(), echo()).await;
    b.sees(&a, at_b);
    let mut again = a.router.open(b.id, "echo/1").await.expect("open");
    again.writer.write("again").await.expect("open");
    assert_eq!(again.reader.read().await, Ok(Some("again".into())));
    drop((lives, again));
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn messages_on_streams_have_lengths_that_are_judged_before_they_are_believed() {
    let (a, b) = pair().await;
    let doubled = StreamHandler::task(|IncomingStream { stream: Stream { mut writer, mut reader }, .. }| async move {
        while let Ok(Some(number)) = reader.recv_value::<u64, _>(&Bincode, 16).await {
            let _ = writer.send_value(&Bincode, &(2 * number)).await;
        }
        let _ = writer.send("").await;
        let _ = writer.write(&b"\xff\xff\xff\xffx"[..]).await;
        let _ = writer.finish();
    });
    b.serve("double/1", usual(), doubled).await;
    let Stream { mut writer, mut reader } = a.router.open(b.id, "double/1").await.expect("open");
    for number in [1u64, 70_000, u64::MAX / 2] {
        writer.send_value(&Bincode, &number).await.expect("open");
        assert_eq!(reader.recv_value(&Bincode, 16).await, Ok(Some(2 * number)));
    }
    writer.finish().expect("open");
    assert_eq!(reader.recv(0).await, Ok(Some(Bytes::new())));
    let error = FrameError::TooLarge { bytes: u32::MAX as usize, limit: 1 << 20 };
    assert_eq!(reader.recv(1 << 20).await, Err(error));
}

// ---------- hostile peers ----------

/// How a stream to a handler begins.
fn begin(handler: &str) -> Bytes {
    Header::Open { handler: HandlerId::of(handler) }.encode()
}

#[tokio::test(start_paused = true)]
async fn headers_that_never_come_or_come_byte_by_byte_cost_a_bounded_place_for_a_bounded_time() {
    let (a, b, door, _) = pair_with(Config::recommended()).await;
    b.serve("echo/1", usual(), echo()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(door.open(ChannelId(1), Lane::Bulk).await.expect("open"));
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!((b.open("pending"), b.counted("stream_throttled")), (96.0, 104));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((b.open("pending"), b.counted("stream_late")), (0.0, 96));
    for (_, mut reader) in silent.drain(..) {
        assert!(matches!(reader.read().await, Err(StreamError::Reset(codes::HEADER | codes::THROTTLED))));
    }
    let (mut slow, mut answers) = door.open(ChannelId(1), Lane::Bulk).await.expect("open");
    for byte in begin("echo/1") {
        slow.write(vec![byte]).await.expect("open");
        tokio::time::sleep(SECOND / 2).await;
    }
    slow.write("at last").await.expect("open");
    assert_eq!(answers.read().await, Ok(Some("at last".into())), "slow, and in time");
    let (mut slower, mut answers) = door.open(ChannelId(1), Lane::Bulk).await.expect("open");
    for byte in begin("echo/1") {
        let _ = slower.write(vec![byte]).await;
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(answers.read().await, Err(StreamError::Reset(codes::HEADER)));
    // An honest stream beside them.
    let mut stream = a.router.open(b.id, "echo/1").await.expect("open");
    stream.writer.write("hello").await.expect("open");
    assert_eq!(stream.reader.read().await, Ok(Some("hello".into())));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_opens_and_resets_or_asks_for_unknown_handlers_in_a_loop_is_blamed() {
    for unknown in [false, true] {
        let (_a, b, door, _) = pair_with(Config::recommended()).await;
        for _ in 0..300 {
            let (mut writer, reader) = door.open(ChannelId(1), Lane::Bulk).await.expect("open");
            if unknown {
                let _ = writer.write(Header::Open { handler: HandlerId(7) }.encode()).await;
                tokio::time::sleep(SECOND / 1000).await;
            } else {
                writer.reset(StreamCode(1));
                drop(reader);
                tokio::time::sleep(SECOND / 1000).await;
            }
        }
        tokio::time::sleep(SECOND).await;
        let told = b.events.take(1000);
        let flood = Event::Report { session: SessionId(1), penalty: Penalty::ControlFlood };
        assert!(!told.is_empty() && told.iter().all(|Told(event)| *event == flood), "unknown: {unknown}");
        b.is_idle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_opens_all_it_may_and_stalls_holds_up_nobody_else() {
    let (a, b, door, _) = pair_with(Config::recommended()).await;
    b.serve("echo/1", StreamHandlerConfig { per_peer: 64, ..usual() }, echo()).await;
    a.serve("echo/1", usual(), echo()).await;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let (mut writer, reader) = door.open(ChannelId(1), Lane::Bulk).await.expect("open");
        writer.write(begin("echo/1")).await.expect("open");
        stalled.push((writer, reader));
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!((b.open("served"), b.counted("stream_throttled")), (64.0, 36));
    b.answer("back", Handler::function(|Incoming { payload, .. }| Ok(payload))).await;
    assert_eq!(a.router.request(b.id, "back", "still", SECOND).await, Ok("still".into()));
    let mut other = b.router.open(a.id, "echo/1").await.expect("the other way");
    other.writer.write("x").await.expect("open");
    assert_eq!(other.reader.read().await, Ok(Some("x".into())));
    drop((stalled, other));
    b.is_idle().await;
}

// ---------- large answers ----------

/// `many` bytes, as many as the question says.
fn many() -> Handler {
    Handler::function(|Incoming { payload, .. }| {
        let len = payload.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        Ok((0..len).map(|n| (n * 3 / 2) as u8).collect())
    })
}

fn question(len: u32) -> Bytes {
    Bytes::copy_from_slice(&len.to_be_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_comes_whole_on_a_stream_of_its_own() {
    let (a, b) = pair().await;
    b.answer("many", many()).await;
    for (len, streamed) in [(64 << 10, 0), ((64 << 10) + 1, 1), (1 << 20, 2)] {
        let answer = a.router.request(b.id, "many", question(len), 5 * SECOND).await.expect("answered");
        assert_eq!(answer.len(), len as usize);
        assert!(answer.iter().enumerate().all(|(n, byte)| *byte == (n * 3 / 2) as u8));
        tokio::time::sleep(SECOND / 10).await;
        assert_eq!(b.counted("answer_streamed"), streamed);
    }
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let (router, to) = (a.router.clone(), b.id);
            tokio::spawn(async move { router.request(to, "many", question(1_000_000), 5 * SECOND).await })
        })
        .collect();
    for asked in asked {
        assert_eq!(asked.await.expect("no panic").map(|answer| answer.len()), Ok(1_000_000));
    }
    a.is_idle().await;
    b.is_idle().await;
    assert_eq!((a.counted("answer_broken"), b.counted("failed")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_door_for_streams_a_large_answer_goes_among_the_messages() {
    let (a, b) = (Node::start(1, Config::recommended()).await, Node::start(2, Config::recommended()).await);
    a.hears(&b);
    b.hears(&a);
    b.answer("many", many()).await;
    let answer = a.router.request(b.id, "many", question(200_000), 5 * SECOND).await;
    assert_eq!((answer.map(|answer| answer.len()), b.counted("answer_not_streamed")), (Ok(200_000), 1));
    assert_eq!(a.router.open(b.id, "echo/1").await.expect_err("no door"), OpenStreamError::NotConnected);
    a.is_idle().await;
}

/// Asks, and has a peer that is no router answer on a stream: which id it is, is learnt from what is pushed.
async fn hostile(claims: u32, send: &[usize], end: bool) -> (Result<Bytes, RequestError>, Vec<Event>) {
    let a = Node::start(1, Config::recommended()).await;
    let (accept, _) = data_queue(ROOM);
    let (at_a, at_peer, carry) = cable::cable(a.streams.clone(), accept);
    tokio::spawn(carry);
    let peer = Node::start(2, Config::recommended()).await;
    let (door, mut says) = lanes(LanesConfig::recommended(), &a.args.pool, 0);
    a.mailbox.peer_up(PeerUp { session: SessionId(1), id: peer.id, channel: ChannelId(1) }, door);
    a.mailbox.streams(SessionId(1), at_a);
    let asked = {
        let (router, to) = (a.router.clone(), peer.id);
        tokio::spawn(async move { router.request(to, "many", "", 5 * SECOND).await })
    };
    let pushed = says.recv(|| a.args.clock.now()).await.expect("asked").payload;
    let id = u64::from_be_bytes(*pushed[5..].first_chunk().expect("an id"));
    let (mut writer, _reader) = at_peer.open(ChannelId(1), Lane::Bulk).await.expect("open");
    writer.write(Header::Answer { id, length: claims }.encode()).await.expect("open");
    let mut open = true;
    for len in send {
        open &= open && writer.write(vec![0; *len]).await.is_ok();
    }
    if end {
        let _ = writer.finish();
        return (asked.await.expect("no panic"), a.events.take(9).into_iter().map(|Told(event)| event).collect());
    }
    let answer = asked.await.expect("no panic");
    a.is_idle().await;
    (answer, a.events.take(9).into_iter().map(|Told(event)| event).collect())
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_claims_too_much_sends_more_or_less_or_stops_is_believed_nothing() {
    let blamed = vec![Event::Report { session: SessionId(1), penalty: Penalty::MalformedMessage }];
    let refused =
        |code| move |error: RequestError| matches!(error, RequestError::Refused { code: it, .. } if it == code);
    let (answer, told) = hostile(u32::MAX, &[], false).await;
    assert!(answer.is_err_and(refused(ErrorCode::TooLarge)));
    assert_eq!(told, blamed, "a huge answer");
    let (answer, told) = hostile(1_000, &[600, 600], false).await;
    assert!(answer.is_err_and(refused(ErrorCode::Internal)));
    assert_eq!(told, blamed, "more than it claimed");
    let (answer, told) = hostile(1_000, &[600], true).await;
    assert!(answer.is_err_and(refused(ErrorCode::Internal)));
    assert_eq!(told, blamed, "less than it claimed");
    let (answer, told) = hostile(1_000, &[1_000], true).await;
    assert_eq!((answer.map(|answer| answer.len()), told), (Ok(1_000), vec![]));
    let (answer, told) = hostile(1_000_000, &[600], false).await;
    assert_eq!((answer, told), (Err(RequestError::TimedOut), vec![]), "it stalls");
}

#[tokio::test(start_paused = true)]
async fn an_asker_that_does_not_read_holds_its_answer_until_its_deadline_and_no_longer() {
    let (a, b, door, _) = pair_with(Config::recommended()).await;
    b.answer("many", many()).await;
    let stopped = Arc::new(AtomicUsize::new(0));
    // A peer that takes streams and never reads them.
    let (accept, mut accepts) = data_queue::<AcceptedStream>(ROOM);
    let (_, at_b, carry) = cable::cable(accept, b.streams.clone());
    tokio::spawn(carry);
    b.mailbox.streams(SessionId(1), at_b);
    let counts = stopped.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(stream) = accepts.recv().await {
            counts.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    let asked = a.router.request(b.id, "many", question(1_000_000), 5 * SECOND).await;
    assert_eq!((asked, stopped.load(Ordering::SeqCst)), (Err(RequestError::TimedOut), 1));
    tokio::time::sleep(SECOND).await;
    assert_eq!((b.open("answer_out"), b.counted("overdue")), (0.0, 1));
    drop(door);
    a.is_idle().await;
}
