//! What happens when the actor panics: to the message or session it is charged to, and to its next life.

use std::time::Duration;

use bytes::Bytes;
use peerage_mailbox::{Capacity, data_queue};
use peerage_queue::{ChannelId, Delivery, Pool, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty};
use tokio::sync::mpsc;

use super::*;
use crate::machine::POISON;
use crate::message::Policy;
use crate::wire::{self, Parcel};

const ROOM: Capacity = Capacity { items: 1_000, weight: 1 << 20 };
const PEER: SessionId = SessionId(1);

struct Bench {
    args: Args,
    inbound: Outlet<Inbound>,
    events: mpsc::UnboundedReceiver<Event>,
    received: Inlet<Message>,
    outlet: Outlet<Message>,
}

fn topic() -> Topic {
    Topic::new("news").expect("short")
}

impl Bench {
    fn new() -> Bench {
        let (inbound, inbound_end) = data_queue(ROOM);
        let (_, publish) = data_queue(ROOM);
        let (report_failures, failures) = data_queue(ROOM);
        let (push, _) = data_queue(ROOM);
        let (outlet, received) = data_queue(ROOM);
        let (sender, events) = mpsc::unbounded_channel();
        let args = Args {
            config: Config::test(),
            keys: Keypair::from_seed([1; 32]),
            seed: 1,
            inbound: inbound_end,
            publish,
            failures,
            report_failures,
            push,
            pressure: Pool::new(1).pressure(),
            events: Port::from_fn(move |event| assert!(sender.send(event).is_ok())),
            clock: Clock::simulated(Duration::from_secs(1_800_000_000)),
            meter: Meter::none(),
            memory: Memory::new(),
        };
        Bench { args, inbound, events, received, outlet }
    }

    async fn start(&self) -> (GossipMailbox, Child) {
        let (gossip, child) = spawn(self.args.clone(), &Supervisor::none()).await.expect("starts");
        gossip.subscribe(topic(), Policy::Anonymous, self.outlet.clone(), None);
        gossip.peer_up(PEER, NodeId::from_bytes([2; 32]), ChannelId(1));
        (gossip, child)
    }

    fn receive(&self, payload: Bytes) {
        let delivery = Delivery { session: PEER, channel: ChannelId(1), stream: 0, lane: Lane::Normal, payload };
        self.inbound.offer(delivery.into()).expect("room");
    }

    async fn delivered(&self) -> Vec<Bytes> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.received.take(usize::MAX).into_iter().map(|message| message.payload).collect()
    }
}

fn message(payload: &[u8]) -> Bytes {
    Parcel::new(topic(), None, payload).bytes
}

#[tokio::test(start_paused = true)]
async fn a_poison_message_is_refused_by_the_next_life_and_what_was_queued_is_delivered() {
    let mut bench = Bench::new();
    let (_gossip, child) = bench.start().await;
    for payload in [b"before", POISON, b"after"] {
        bench.receive(message(payload));
    }
    child.wait().await;
    assert!(bench.args.memory.take_charged(), "not the actor's own fault");
    assert_eq!(bench.delivered().await, ["before"]);

    let (_gossip, child) = bench.start().await;
    assert_eq!(bench.delivered().await, ["after"]);
    bench.receive(message(POISON));
    bench.receive(message(b"before"));
    bench.receive(message(b"more"));
    assert_eq!(bench.delivered().await, ["more"], "what was seen before the panic is not delivered again");
    assert!(bench.events.try_recv().is_err(), "who relayed it could not know");
    child.kill();
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_items_made_the_actor_panic_is_named_to_the_root() {
    let mut bench = Bench::new();
    bench.args.memory.charge(crate::machine::Handling::Session(PEER));
    let (_gossip, child) = bench.start().await;
    assert_eq!(bench.events.try_recv(), Ok(Event::Crashed { session: PEER }));
    child.kill();
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_actors_own_is_charged_to_nobody() {
    let bench = Bench::new();
    let (gossip, child) = bench.start().await;
    gossip.inject_panic();
    child.wait().await;
    assert!(!bench.args.memory.take_charged());
    let (_gossip, child) = bench.start().await;
    bench.receive(message(b"hi"));
    assert_eq!(bench.delivered().await, ["hi"]);
    child.kill();
}

#[tokio::test(start_paused = true)]
async fn misbehaviour_is_reported_and_streams_are_not_gossip() {
    let mut bench = Bench::new();
    let (_gossip, child) = bench.start().await;
    let stray =
        Delivery { session: PEER, channel: ChannelId(1), stream: 3, lane: Lane::Normal, payload: message(b"hi") };
    bench.inbound.offer(stray.into()).expect("room");
    bench.receive(Bytes::from_static(&[1]));
    assert!(bench.delivered().await.is_empty());
    assert_eq!(bench.events.try_recv(), Ok(Event::Report { session: PEER, penalty: Penalty::MalformedMessage }));
    child.kill();
}

#[tokio::test(start_paused = true)]
async fn a_bad_configuration_does_not_start() {
    let bench = Bench::new();
    let args = Args { config: Config { fanout: 0, ..Config::test() }, ..bench.args };
    let error = spawn(args, &Supervisor::none()).await.expect_err("refused").to_string();
    assert!(error.contains("`fanout` is 0"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_push_that_finds_no_room_counts_as_failed() {
    let mut bench = Bench::new();
    let (push, pushes) = data_queue(Capacity { items: 1, weight: 1 });
    bench.args.push = push;
    let (_gossip, child) = bench.start().await;
    bench.receive(wire::topics(false, [&topic()]));
    // The greeting takes the queue's only place.
    assert!(bench.delivered().await.is_empty());
    assert_eq!(pushes.len(), 1);
    bench.receive(wire::topics(true, [&topic()]));
    assert!(bench.delivered().await.is_empty());
    let greeting = pushes.take(1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again = pushes.take(1);
    assert_eq!(greeting[0].payload, again[0].payload, "the answer that failed is made up for");
    child.kill();
}
