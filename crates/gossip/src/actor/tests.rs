//! What happens when the actor panics: to the message or session it is charged to, and to its next life.

use std::time::Duration;

use bytes::Bytes;
use peerage_mailbox::{Capacity, data_queue};
use peerage_nodedb::Logs;
use peerage_queue::{ChannelId, Delivery, Pool, SessionId};
use peerage_wire::frame::Lane;
use peerage_wire::{NodeId, Penalty};
use tokio::sync::mpsc;

use super::*;
use crate::PeerUp;
use crate::message::{Claim, Origin, Policy};
use crate::poison;
use crate::wire::{self, Parcel};

const ROOM: Capacity = Capacity { items: 1_000, weight: 1 << 20 };
const PEER: SessionId = SessionId(1);
/// The other policy's topic.
const SIGNED: &str = "signed";

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
            durable: data_queue(ROOM).1,
            logs: Logs::memory(),
            failures,
            report_failures,
            push,
            pressure: Pool::new(1).pressure(),
            events: Port::from_fn(move |event| assert!(sender.send(event).is_ok())),
            clock: Clock::simulated(Duration::from_secs(1_800_000_000)),
            meter: Meter::none(),
            journals: Journals::off(),
            memory: Memory::new(),
        };
        Bench { args, inbound, events, received, outlet }
    }

    async fn start(&self) -> (GossipMailbox, Child) {
        let (gossip, child) = spawn(self.args.clone(), &Supervisor::none()).await.expect("starts");
        gossip.subscribe(topic(), Policy::Anonymous, self.outlet.clone(), None);
        let signed = Topic::new(SIGNED).expect("short");
        gossip.subscribe(signed, Policy::Signed, self.outlet.clone(), None);
        gossip.peer_up(PeerUp::new(PEER, NodeId::from_bytes([2; 32]), ChannelId(1)));
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

fn publisher() -> Keypair {
    Keypair::from_seed([9; 32])
}

/// The node's clock starts here.
const UNIX_MILLIS: u64 = 1_800_000_000_000;

fn signed(sequence: u64, payload: &[u8]) -> Parcel {
    let (topic, keys) = (Topic::new(SIGNED).expect("short"), publisher());
    let claim = Claim { id: MessageId::signed(&topic, &keys.id(), sequence, payload), issued: UNIX_MILLIS };
    let origin = Origin { publisher: keys.id(), sequence, issued: UNIX_MILLIS, signature: claim.sign(&keys) };
    Parcel::new(topic, Some(origin), payload)
}

/// Sends this between two others: the first life dies of it, the next one delivers what is left, refuses it, and names
/// whom it names.
async fn blamed(poison: Bytes, between: [Bytes; 2]) -> Option<Blame> {
    let mut bench = Bench::new();
    let (_gossip, child) = bench.start().await;
    let [before, after] = between;
    for bytes in [before.clone(), poison.clone(), after] {
        bench.receive(bytes);
    }
    child.wait().await;
    assert!(bench.args.memory.take_charged(), "not the actor's own fault");
    assert_eq!(bench.delivered().await, ["before"]);

    let (_gossip, child) = bench.start().await;
    assert_eq!(bench.delivered().await, ["after"]);
    let blame = match bench.events.try_recv() {
        Ok(Event::Crashed { blame }) => Some(blame),
        other => {
            assert!(other.is_err(), "{other:?}");
            None
        }
    };
    if blame != Some(Blame::Session(PEER)) {
        bench.receive(poison);
    }
    bench.receive(before);
    bench.receive(message(b"more"));
    assert_eq!(bench.delivered().await, ["more"], "what was seen before the panic is not delivered again");
    assert!(bench.events.try_recv().is_err(), "nobody else is named");
    child.kill();
    blame
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_poison_message_is_refused_by_the_next_life_and_nobody_is_blamed() {
    for stage in [poison::UNCHECKED, poison::CHECKED, poison::DELIVERY] {
        let blame = blamed(message(stage), [message(b"before"), message(b"after")]).await;
        assert_eq!(blame, None, "who relayed it could not know");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signed_poison_message_is_refused_by_the_next_life_and_its_publisher_blamed() {
    for stage in [poison::UNCHECKED, poison::CHECKED, poison::DELIVERY] {
        let between = [signed(1, b"before").bytes, signed(3, b"after").bytes];
        let blame = blamed(signed(2, stage).bytes, between).await;
        assert_eq!(blame, Some(Blame::Publisher(publisher().id())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_forged_poison_message_is_its_senders() {
    let origin = signed(2, poison::UNCHECKED).origin.map(|origin| Origin { signature: [1; 64], ..origin });
    let forgery = Parcel::new(Topic::new(SIGNED).expect("short"), origin, poison::UNCHECKED).bytes;
    let between = [signed(1, b"before").bytes, signed(3, b"after").bytes];
    assert_eq!(blamed(forgery, between).await, Some(Blame::Session(PEER)));
}

#[tokio::test(start_paused = true)]
async fn what_panics_before_it_is_decoded_is_its_senders() {
    let between = [signed(1, b"before").bytes, signed(3, b"after").bytes];
    let blame = blamed(signed(2, poison::DECODE).bytes, between).await;
    assert_eq!(blame, Some(Blame::Session(PEER)));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_panics_ends_no_life_and_is_charged_to_the_sender() {
    let mut bench = Bench::new();
    let (_gossip, child) = bench.start().await;
    let poison = signed(2, poison::CHECK).bytes;
    for bytes in [signed(1, b"before").bytes, poison.clone(), signed(3, b"after").bytes] {
        bench.receive(bytes);
    }
    assert_eq!(bench.delivered().await, ["before", "after"]);
    assert_eq!(bench.events.try_recv(), Ok(Event::Crashed { blame: Blame::Session(PEER) }));
    bench.receive(poison.clone());
    assert!(bench.delivered().await.is_empty());
    assert!(bench.events.try_recv().is_err(), "refused before it is checked again");
    child.kill();
    child.wait().await;
    assert!(!bench.args.memory.take_charged());
    let (_gossip, child) = bench.start().await;
    bench.receive(poison);
    bench.receive(signed(4, b"more").bytes);
    assert_eq!(bench.delivered().await, ["more"]);
    assert!(bench.events.try_recv().is_err(), "the next life refuses it too");
    child.kill();
}

#[tokio::test]
async fn a_check_that_panics_on_a_thread_is_charged_to_the_sender_and_the_others_go_on() {
    let mut bench = Bench::new();
    bench.args.clock = Clock::system();
    let (_gossip, child) = bench.start().await;
    let issued = bench.args.clock.now().unix_millis();
    let (topic, keys) = (Topic::new(SIGNED).expect("short"), publisher());
    for (sequence, payload) in (0..).zip([b"before".as_slice(), poison::CHECK, b"after"]) {
        let claim = Claim { id: MessageId::signed(&topic, &keys.id(), sequence, payload), issued };
        let origin = Origin { publisher: keys.id(), sequence, issued, signature: claim.sign(&keys) };
        bench.receive(Parcel::new(topic.clone(), Some(origin), payload).bytes);
    }
    let named = tokio::time::timeout(Duration::from_secs(30), bench.events.recv()).await;
    assert_eq!(named, Ok(Some(Event::Crashed { blame: Blame::Session(PEER) })));
    assert_eq!(bench.delivered().await, ["before", "after"]);
    child.kill();
}

#[tokio::test(start_paused = true)]
async fn a_message_of_this_node_that_comes_back_and_panics_is_no_peers_doing() {
    let mut bench = Bench::new();
    bench.args.keys = publisher();
    let (_gossip, child) = bench.start().await;
    bench.receive(signed(2, poison::UNCHECKED).bytes);
    child.wait().await;
    assert!(bench.args.memory.take_charged());
    let (_gossip, child) = bench.start().await;
    assert!(bench.delivered().await.is_empty());
    assert!(bench.events.try_recv().is_err());
    child.kill();
}

#[tokio::test(start_paused = true)]
async fn the_root_is_told_who_is_useful_and_told_again_after_a_restart() {
    let mut bench = Bench::new();
    let told = |bench: &mut Bench| match bench.events.try_recv() {
        Ok(Event::Useful { session: PEER, useful }) => Some(useful),
        other => {
            assert!(other.is_err(), "{other:?}");
            None
        }
    };
    let (_gossip, child) = bench.start().await;
    bench.receive(wire::topics(false, [&topic()]));
    assert!(bench.delivered().await.is_empty());
    assert_eq!(told(&mut bench), Some(true));
    child.kill();
    child.wait().await;

    let (_gossip, child) = bench.start().await;
    assert!(bench.delivered().await.is_empty());
    assert_eq!(told(&mut bench), None, "not before the peer has said its topics");
    bench.receive(wire::topics(false, [&topic()]));
    assert!(bench.delivered().await.is_empty());
    assert_eq!(told(&mut bench), Some(true));
    child.kill();
    child.wait().await;

    let (gossip, child) = bench.start().await;
    bench.receive(wire::topics(false, []));
    assert!(bench.delivered().await.is_empty());
    assert_eq!(told(&mut bench), Some(false));
    gossip.peer_down(PEER);
    assert!(bench.delivered().await.is_empty());
    assert!(bench.args.memory.recall().useful.is_empty());
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
    let args = Args { config: Config { lazy_peers: 0, ..Config::test() }, ..bench.args };
    let error = spawn(args, &Supervisor::none()).await.expect_err("refused").to_string();
    assert!(error.contains("`lazy_peers` is 0"), "{error}");
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
