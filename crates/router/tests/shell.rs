//! Two router actors joined by lanes alone, under paused time.

#[path = "../examples/support/way.rs"]
mod way;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_router::codec::Bincode;
use peerage_router::peerage_machine::journal::Journals;
use peerage_router::peerage_mailbox::{
    Capacity, Child, Clock, Counts, Inlet, Item, Meter, Outlet, Port, Supervisor, ask, data_queue,
};
use peerage_router::peerage_queue::{ChannelId, Inbound, PoolConfig, SendFailed, SessionId};
use peerage_router::peerage_wire::{Keypair, NodeId};
use peerage_router::resilience::{Pool, Sample};
use peerage_router::{
    AddError, Args, ClientError, Config, ErrorCode, Event, Fault, Handler, HandlerConfig, HandlerId, Incoming, Job,
    Memory, PeerUp, Request, RequestError, Router, RouterMailbox, Target, Terms,
};

const ROOM: Capacity = Capacity { items: 1_000, weight: 64 << 20 };
const SECOND: Duration = Duration::from_secs(1);

struct Node {
    args: Args,
    counts: Counts,
    id: NodeId,
    mailbox: RouterMailbox,
    child: Child,
    router: Router,
    inbound: Outlet<Inbound>,
    events: Inlet<Told>,
}

struct Told(Event);

impl Item for Told {}

impl Node {
    async fn start(n: u8, clock: Clock, config: Config) -> Node {
        let (inbound, inbound_end) = data_queue(ROOM);
        let (_, streams) = data_queue(ROOM);
        let (report_failures, failures) = data_queue::<SendFailed>(ROOM);
        let pool = peerage_queue::Pool::new(PoolConfig::outbound());
        let (router, asks) = Router::new(Capacity { items: 100, weight: 8 << 20 });
        let (told, events) = data_queue(ROOM);
        let counts = Counts::default();
        let args = Args {
            config,
            seed: u64::from(n),
            inbound: inbound_end,
            streams,
            asks,
            failures,
            report_failures,
            pool,
            events: Port::from_fn(move |event| told.offer(Told(event)).expect("room")),
            clock,
            meter: Meter::new(Arc::new(counts.clone())),
            memory: Memory::new(),
            journals: Journals::off(),
        };
        let (mailbox, child) = peerage_router::spawn(args.clone(), &Supervisor::none()).await.expect("starts");
        let id = Keypair::from_seed([n; 32]).id();
        Node { args, counts, id, mailbox, child, router, inbound, events }
    }

    async fn stop(&self) {
        self.child.kill();
        self.child.wait().await;
    }

    async fn restart(&mut self) {
        self.stop().await;
        (self.mailbox, self.child) =
            peerage_router::spawn(self.args.clone(), &Supervisor::none()).await.expect("starts again");
    }

    /// Sees the other node as session 1.
    fn sees(&self, other: &Node) {
        let up = PeerUp { session: SessionId(1), id: other.id, channel: ChannelId(1) };
        self.mailbox.peer_up(up, way::way(&self.args.pool, self.args.clock, other.inbound.clone()));
    }

    async fn serve(&self, name: &str, handler: Handler) -> Result<HandlerId, AddError> {
        let added =
            ask(SECOND, |reply| self.mailbox.add_handler(name, HandlerConfig::concurrent(), handler, Some(reply)));
        added.await.expect("answered")
    }

    fn counted(&self, event: &str) -> u64 {
        self.counts.counter(&format!("peerage_router_events_total{{event={event}}}"))
    }

    fn told(&self) -> Vec<Event> {
        self.events.take(usize::MAX).into_iter().map(|Told(event)| event).collect()
    }

    async fn is_idle(&self) {
        tokio::time::sleep(120 * SECOND).await;
        for gauge in ["requests", "calls", "call_bytes"] {
            assert_eq!(self.counts.gauge(&format!("peerage_router_{gauge}{{}}")), Some(0.0), "{gauge}");
        }
    }
}

async fn pair() -> (Node, Node) {
    let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
    let (a, b) =
        (Node::start(1, clock, Config::recommended()).await, Node::start(2, clock, Config::recommended()).await);
    a.sees(&b);
    b.sees(&a);
    (a, b)
}

fn refused(code: ErrorCode) -> Result<Bytes, RequestError> {
    Err(RequestError::Refused { code, text: String::new() })
}

fn backwards() -> Handler {
    Handler::function(|Incoming { payload, .. }| Ok(payload.iter().rev().copied().collect()))
}

#[tokio::test(start_paused = true)]
async fn functions_tasks_and_queues_answer() {
    let (a, b) = pair().await;
    b.serve("function", backwards()).await.expect("added");
    let slowly = |Incoming { payload, .. }: Incoming| async move {
        tokio::time::sleep(SECOND).await;
        Ok(payload)
    };
    b.serve("task", Handler::task(slowly)).await.expect("added");
    let (outlet, mut jobs) = data_queue::<Job>(ROOM);
    b.serve("queue", Handler::outlet(outlet)).await.expect("added");
    tokio::spawn(async move {
        while let Ok(Job { incoming, responder }) = jobs.recv().await {
            responder.answer(Err(Fault::application(9, String::from_utf8_lossy(&incoming.payload))));
        }
    });
    assert_eq!(a.router.request(b.id, "function", "abc", 2 * SECOND).await, Ok("cba".into()));
    assert_eq!(a.router.request(b.id, "task", "abc", 2 * SECOND).await, Ok("abc".into()));
    let error = RequestError::Refused { code: ErrorCode::Application(9), text: "abc".to_owned() };
    assert_eq!(a.router.request(b.id, "queue", "abc", 2 * SECOND).await, Err(error));
    assert_eq!(a.router.request(b.id, "none", "abc", 2 * SECOND).await, refused(ErrorCode::UnknownHandler));
    assert_eq!(a.router.request(a.id, "function", "abc", 2 * SECOND).await, Err(RequestError::NotConnected));
    a.is_idle().await;
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn both_ends_ask_and_many_requests_are_out_at_once() {
    let (a, b) = pair().await;
    a.serve("back", backwards()).await.expect("added");
    b.serve("back", backwards()).await.expect("added");
    let mut asked = Vec::new();
    for n in 0..64u8 {
        for (from, to) in [(&a, &b), (&b, &a)] {
            let (router, to) = (from.router.clone(), to.id);
            asked.push((n, tokio::spawn(async move { router.request(to, "back", vec![n, 0], SECOND).await })));
        }
    }
    for (n, answer) in asked {
        assert_eq!(answer.await.expect("no panic"), Ok(vec![0, n].into()));
    }
    a.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_job_and_a_panicking_handler_are_answered() {
    let (a, b) = pair().await;
    let (outlet, jobs) = data_queue::<Job>(ROOM);
    b.serve("dropped", Handler::outlet(outlet)).await.expect("added");
    tokio::spawn(async move {
        let mut jobs = jobs;
        while jobs.recv().await.is_ok() {}
    });
    b.serve("panics", Handler::function(|_| panic!("the application's"))).await.expect("added");
    b.serve("panics later", Handler::task(|_| async { panic!("the application's") })).await.expect("added");
    assert_eq!(a.router.request(b.id, "dropped", "", SECOND).await, refused(ErrorCode::Internal));
    assert!(b.told().is_empty());
    for handler in ["panics", "panics later"] {
        assert_eq!(a.router.request(b.id, handler, "", SECOND).await, refused(ErrorCode::Internal));
        assert!(b.told().is_empty(), "nobody is blamed for a handler that panics now and then");
    }
    assert_eq!(b.counted("handler_panicked"), 2);
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_full_throttles_and_one_that_is_gone_does_too() {
    let (a, b) = pair().await;
    let (outlet, jobs) = data_queue::<Job>(Capacity { items: 1, weight: 1_000 });
    b.serve("queue", Handler::outlet(outlet)).await.expect("added");
    let waits = {
        let (router, b) = (a.router.clone(), b.id);
        tokio::spawn(async move { router.request(b, "queue", "first", SECOND).await })
    };
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(a.router.request(b.id, "queue", "second", SECOND).await, refused(ErrorCode::Throttled));
    drop(jobs);
    assert_eq!(waits.await.expect("no panic"), refused(ErrorCode::Internal));
    assert_eq!(a.router.request(b.id, "queue", "third", SECOND).await, refused(ErrorCode::Throttled));
}

/// A handler that never answers, and counts those of its calls that have ended.
fn forever(ended: &Arc<AtomicUsize>) -> Handler {
    struct Ends(Arc<AtomicUsize>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let ended = ended.clone();
    Handler::task(move |_| {
        let ends = Ends(ended.clone());
        async move {
            let _ends = ends;
            pending().await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_cancels_the_work() {
    let (a, b) = pair().await;
    let ended = Arc::default();
    b.serve("forever", forever(&ended)).await.expect("added");
    let waits = tokio::time::timeout(SECOND, a.router.request(b.id, "forever", "", 30 * SECOND));
    assert!(waits.await.is_err());
    tokio::time::sleep(SECOND).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!((a.counted("cancelled"), b.counted("withdrawn"), b.counted("served")), (1, 1, 0));
    a.is_idle().await;
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_at_both_ends() {
    let (a, b) = pair().await;
    let ended = Arc::default();
    b.serve("forever", forever(&ended)).await.expect("added");
    let before = tokio::time::Instant::now();
    assert_eq!(a.router.request(b.id, "forever", "", 5 * SECOND).await, Err(RequestError::TimedOut));
    assert_eq!(before.elapsed().as_secs(), 5);
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!((ended.load(Ordering::SeqCst), b.counted("overdue")), (1, 1));
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_ends_requests_and_calls() {
    let (a, b) = pair().await;
    let ended = Arc::default();
    b.serve("forever", forever(&ended)).await.expect("added");
    let waits = {
        let (router, b) = (a.router.clone(), b.id);
        tokio::spawn(async move { router.request(b, "forever", "", 30 * SECOND).await })
    };
    tokio::time::sleep(SECOND).await;
    a.mailbox.peer_down(SessionId(1));
    b.mailbox.peer_down(SessionId(1));
    assert_eq!(waits.await.expect("no panic"), Err(RequestError::Disconnected));
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_completes_what_was_asked_ends_what_was_served_and_goes_on() {
    let (mut a, mut b) = pair().await;
    let ended = Arc::default();
    b.serve("forever", forever(&ended)).await.expect("added");
    for restarts in ["asker", "responder"] {
        let waits = {
            let (router, b) = (a.router.clone(), b.id);
            tokio::spawn(async move { router.request(b, "forever", "", 5 * SECOND).await })
        };
        tokio::time::sleep(SECOND).await;
        if restarts == "asker" {
            a.restart().await;
            a.sees(&b);
            assert_eq!(waits.await.expect("no panic"), Err(RequestError::Restarted));
            tokio::time::sleep(5 * SECOND).await;
        } else {
            b.restart().await;
            b.serve("back", backwards()).await.expect("added again");
            b.sees(&a);
            assert_eq!(waits.await.expect("no panic"), Err(RequestError::TimedOut));
        }
    }
    assert_eq!(ended.load(Ordering::SeqCst), 2, "one by its deadline, one with its router");
    assert_eq!(a.router.request(b.id, "back", "ab", SECOND).await, Ok("ba".into()));
    assert_eq!(a.counted("unrequested") + a.counted("earlier_life"), 0);
    a.is_idle().await;
    b.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_is_gone_holds_nothing() {
    let (a, b) = pair().await;
    let ended = Arc::default();
    b.serve("forever", forever(&ended)).await.expect("added");
    let router = a.router.clone();
    let to = b.id;
    tokio::spawn(async move { router.request(to, "forever", "", 30 * SECOND).await });
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.counts.gauge("peerage_router_requests{}"), Some(1.0));
    a.stop().await;
    b.stop().await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.counts.gauge("peerage_router_requests{}"), Some(0.0));
    assert_eq!(b.counts.gauge("peerage_router_calls{}"), Some(0.0));
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_faster_than_the_router_takes_is_refused() {
    let (a, b) = pair().await;
    b.serve("back", backwards()).await.expect("added");
    a.stop().await;
    let asked: Vec<_> = (0..101)
        .map(|_| {
            let (router, b) = (a.router.clone(), b.id);
            tokio::spawn(async move { router.request(b, "back", "", SECOND).await })
        })
        .collect();
    tokio::time::sleep(SECOND / 2).await;
    let finished: Vec<_> = asked.iter().filter(|asked| asked.is_finished()).collect();
    assert_eq!(finished.len(), 1, "the queue has room for a hundred");
    for (n, asked) in asked.into_iter().enumerate() {
        let error = if n == 100 { RequestError::Busy } else { RequestError::TimedOut };
        assert_eq!(asked.await.expect("no panic"), Err(error));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_for_which_there_is_no_room_completes_the_request() {
    let clock = Clock::simulated(Duration::from_secs(1_800_000_000));
    let mut a = Node::start(1, clock, Config::recommended()).await;
    let b = Node::start(2, clock, Config::recommended()).await;
    a.args.pool = peerage_queue::Pool::new(0);
    a.restart().await;
    a.sees(&b);
    assert_eq!(a.router.request(b.id, "back", "", SECOND).await, Err(RequestError::NotSent));
    a.is_idle().await;
}

#[tokio::test(start_paused = true)]
async fn typed_clients_and_handlers_speak_values_and_mistakes_are_told() {
    let (a, b) = pair().await;
    let sum = |numbers: Vec<u32>, _from: NodeId| async move {
        numbers.iter().sum::<u32>().checked_sub(1).ok_or_else(|| Fault::application(1, "nothing to add"))
    };
    b.serve("sum/1", Handler::typed::<_, Vec<u32>, u32, _>(Bincode, sum)).await.expect("added");
    let client = a.router.client::<_, Vec<u32>, u32>("sum/1", Bincode);
    assert_eq!(client.request(b.id, &vec![1, 2, 4], SECOND).await, Ok(6));
    let text = "nothing to add".to_owned();
    let error = RequestError::Refused { code: ErrorCode::Application(1), text };
    assert_eq!(client.request(b.id, &Vec::new(), SECOND).await, Err(ClientError::Request(error)));
    let wrong = a.router.client::<_, u32, u32>("sum/1", Bincode);
    let Err(ClientError::Request(RequestError::Refused { code, .. })) = wrong.request(b.id, &9, SECOND).await else {
        panic!("refused");
    };
    assert_eq!(code, ErrorCode::InvalidRequest);
    let misread = a.router.client::<_, Vec<u32>, String>("sum/1", Bincode);
    assert!(matches!(misread.request(b.id, &vec![9], SECOND).await, Err(ClientError::Answer(_))));
    let gone = client.ask(Target::Peer(a.id), &vec![1], Terms::within(SECOND), Some(&7)).await;
    assert_eq!(gone, Ok((7, None)), "the fallback");
}

#[tokio::test(start_paused = true)]
async fn any_peer_answers_and_messages_reach_handlers() {
    let (a, b) = pair().await;
    let (heard, mut hears) = data_queue::<Job>(ROOM);
    b.serve("news", Handler::outlet(heard)).await.expect("added");
    b.serve("back", backwards()).await.expect("added");
    let sampled = a.router.send(Sample { any: 5, ..Sample::named([a.id]) }, "news", "hi").await.expect("sent");
    assert_eq!((sampled.peers, sampled.missing), (vec![b.id], vec![a.id]));
    let job = hears.recv().await.expect("heard");
    assert!(!job.incoming.answered && job.incoming.from == a.id && job.incoming.payload == "hi");
    let answer = a.router.request_any(Pool::Everyone, "back", "ab", SECOND).await.expect("answered");
    assert_eq!((answer.payload, answer.from), ("ba".into(), Some(b.id)));
    a.mailbox.members([(a.id, 1)].into());
    tokio::time::sleep(SECOND).await;
    let members = a.router.request_any(Pool::Members, "back", "ab", SECOND).await;
    assert_eq!(members, Err(RequestError::NoPeers));
    tokio::time::sleep(60 * SECOND).await;
    let request = Request {
        target: Target::Any(Pool::Others),
        handler: HandlerId::of("back"),
        payload: "ab".into(),
        terms: Terms::within(SECOND),
        fallback: None,
    };
    assert!(a.router.ask(request).await.is_ok());
    assert_eq!(a.told(), [Event::MembersWanted]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_handler_is_unknown_and_its_name_is_free() {
    let (a, b) = pair().await;
    let id = b.serve("back", backwards()).await.expect("added");
    assert_eq!(b.serve("back", backwards()).await, Err(AddError::Taken("back".to_owned())));
    b.mailbox.remove_handler(id);
    tokio::time::sleep(SECOND).await;
    assert_eq!(a.router.request(b.id, "back", "", SECOND).await, refused(ErrorCode::UnknownHandler));
    b.serve("back", backwards()).await.expect("added again");
    assert!(a.router.request(b.id, "back", "", SECOND).await.is_ok());
}
