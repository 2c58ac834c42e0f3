//! Panics: the actor is back, every session stays up, messages flow again; and a session that panics takes
//! only its own peer along.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::router::codec::Bincode;
use peerage_server::router::protocol::{Channel, Protocol};
use peerage_server::router::{
    Handler, HandlerConfig, IncomingStream, RequestError, Stream, StreamHandler, StreamHandlerConfig,
};
use peerage_server::wire::DisconnectReason;
use peerage_server::{Event, Service, Status};
use peerage_tests::{World, config, keys};

const NODES: usize = 6;
const EVERYBODY: [usize; NODES] = [0, 1, 2, 3, 4, 5];

async fn meshed(seed: u64) -> World {
    let mut world = World::start(seed, NODES, config(20)).await;
    world.until_peers(NODES - 1, Duration::from_secs(60)).await;
    world.collect().await;
    world
}

async fn flows(world: &mut World, name: &str) {
    let mut payloads = Vec::new();
    for n in EVERYBODY {
        let payload = Bytes::from(format!("{name} from {n}"));
        world.publish(n, payload.clone()).await;
        payloads.push(payload);
    }
    world.until_delivered(&EVERYBODY, &payloads, Duration::from_secs(60)).await;
    for node in &world.nodes {
        assert!(payloads.iter().all(|payload| node.delivered[payload] == 1), "{name}: delivered twice");
    }
}

async fn panic_in(service: Service) {
    let mut world = meshed(service as u64).await;
    flows(&mut world, "before").await;
    world.nodes[1].server.inject_panic(service);
    // What is published while the actor is down waits for it.
    let meanwhile = Bytes::from_static(b"meanwhile");
    world.publish(1, meanwhile.clone()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.until_delivered(&EVERYBODY, &[meanwhile], Duration::from_secs(60)).await;
    flows(&mut world, "after").await;
    for node in &world.nodes {
        let fallen: Vec<Event> =
            node.events.take(usize::MAX).into_iter().filter(|event| matches!(event, Event::PeerDown { .. })).collect();
        assert_eq!(fallen, [], "{service:?}: sessions stay up");
        assert_eq!(node.server.health().await.map(|health| health.status), Ok(Status::Ok), "{service:?}");
    }
    assert_eq!(world.peer_counts().await, [NODES - 1; NODES]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_discovery_leaves_the_rest_at_work() {
    panic_in(Service::Discovery).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_dialer_leaves_the_rest_at_work() {
    panic_in(Service::Dialer).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_gossip_leaves_the_rest_at_work() {
    panic_in(Service::Gossip).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_queue_leaves_the_rest_at_work() {
    panic_in(Service::Queue).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_router_ends_what_it_asked_once_and_leaves_handlers_and_the_rest_at_work() {
    const WITHIN: Duration = Duration::from_secs(10);
    panic_in(Service::Router).await;
    let world = meshed(70).await;
    for node in &world.nodes {
        let echo = Handler::function(|call| Ok(call.payload));
        node.server.serve("echo", HandlerConfig::concurrent(), echo).await.expect("free");
        let never = Handler::task(|_| std::future::pending());
        node.server.serve("never", HandlerConfig::concurrent(), never).await.expect("free");
    }
    let ask = async |from: usize, to: usize, handler: &str| {
        let (router, peer) = (world.nodes[from].server.router(), world.nodes[to].id);
        router.request(peer, handler, "ping", WITHIN).await
    };
    assert_eq!(ask(1, 0, "echo").await, Ok("ping".into()));
    let panic = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.nodes[1].server.inject_panic(Service::Router);
    };
    let (asked, waited_for, ()) = tokio::join!(ask(1, 0, "never"), ask(0, 1, "never"), panic);
    assert_eq!(asked, Err(RequestError::Restarted));
    assert_eq!(waited_for, Err(RequestError::TimedOut), "whom it asked has restarted, and does not know of it");
    for (from, to) in [(1, 0), (0, 1), (1, 2), (2, 1)] {
        assert_eq!(ask(from, to, "echo").await, Ok("ping".into()), "{from} asks {to}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_router_leaves_streams_to_applications_and_its_handlers_are_served_again() {
    let world = meshed(71).await;
    for node in &world.nodes {
        let echo = StreamHandler::task(|IncomingStream { stream: Stream { mut writer, mut reader }, .. }| async move {
            while let Ok(Some(bytes)) = reader.read().await {
                let _ = writer.write(bytes).await;
            }
        });
        node.server.serve_streams("echo", StreamHandlerConfig::recommended(), echo).await.expect("free");
    }
    let says = async |stream: &mut Stream| {
        stream.writer.write("ping").await.expect("it lives");
        stream.reader.read().await.map(|bytes| bytes.expect("not the end"))
    };
    let open = async |from: usize, to: usize| {
        world.nodes[from].server.router().open(world.nodes[to].id, "echo").await.expect("open")
    };
    let (mut out, mut back) = (open(1, 0).await, open(0, 1).await);
    assert_eq!((says(&mut out).await, says(&mut back).await), (Ok("ping".into()), Ok("ping".into())));
    world.nodes[1].server.inject_panic(Service::Router);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((says(&mut out).await, says(&mut back).await), (Ok("ping".into()), Ok("ping".into())), "they live on");
    for (from, to) in [(1, 0), (0, 1), (1, 2), (2, 1)] {
        assert_eq!(says(&mut open(from, to).await).await, Ok("ping".into()), "{from} opens to {to}");
    }
    drop((out, back));
    world.finish().await;
}

/// A run that has not ended, and has not been dropped either.
struct Running(Arc<[AtomicUsize; 3]>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0[1].fetch_sub(1, Ordering::Relaxed);
    }
}

/// One that says something every 100 ms and listens; how many of its runs began and have not ended, and what they heard.
fn chatter() -> (Protocol, Arc<[AtomicUsize; 3]>) {
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let counted = counts.clone();
    let protocol = Protocol::new("chatter", Bincode, move |_, mut channel: Channel<Bincode>| {
        let counts = counted.clone();
        async move {
            counts[0].fetch_add(1, Ordering::Relaxed);
            counts[1].fetch_add(1, Ordering::Relaxed);
            let _running = Running(counts.clone());
            let outbox = channel.outbox().clone();
            let talks = async {
                while outbox.send(0, &7u8).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let listens = async {
                while channel.recv().await.is_ok() {
                    counts[2].fetch_add(1, Ordering::Relaxed);
                }
            };
            tokio::join!(talks, listens);
            Ok(())
        }
    });
    (protocol.version(1, 1), counts)
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_actor_ends_no_run_of_a_protocol_and_the_nodes_end_takes_all_along() {
    let (protocol, counts) = chatter();
    let [begun, running, heard] = &*counts;
    let mut world = World::new(73, config(20));
    world.protocols = vec![protocol];
    for n in 0..3 {
        world.join(keys(73, n)).await;
    }
    world.until_peers(2, Duration::from_secs(60)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let runs = || (begun.load(Ordering::Relaxed), running.load(Ordering::Relaxed));
    let before = runs();
    assert_eq!(before.1, 6, "two at each node");
    for service in [Service::Router, Service::Queue, Service::Gossip, Service::Dialer] {
        world.nodes[1].server.inject_panic(service);
        // Meanwhile, too: what protocols say goes by no actor.
        let seen = heard.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(heard.load(Ordering::Relaxed) >= seen + 6 * 15, "{service:?}");
        assert_eq!(runs(), before, "{service:?}");
    }
    world.finish().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(running.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_listener_or_connector_leaves_the_rest_at_work() {
    panic_in(Service::Listener).await;
    panic_in(Service::Connector).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_panic_a_newcomer_still_finds_and_is_found() {
    for service in [Service::Discovery, Service::Dialer, Service::Listener, Service::Connector] {
        let mut world = meshed(100 + service as u64).await;
        world.nodes[0].server.inject_panic(service);
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.crash_and_restart(3).await;
        world.until_peers(NODES - 1, Duration::from_secs(60)).await;
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_panics_again_and_again_degrades_the_node_and_ends_nothing_else() {
    let mut world = meshed(50).await;
    for _ in 0..6 {
        world.nodes[1].server.inject_panic(Service::Discovery);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let health = world.nodes[1].server.health().await.expect("running");
    assert_eq!(health.status, Status::Degraded);
    assert_eq!(health.reasons, ["the discovery actor is down"]);
    flows(&mut world, "degraded").await;
    assert_eq!(world.peer_counts().await, [NODES - 1; NODES]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_session_drops_only_that_peer_and_it_comes_back() {
    let mut world = meshed(60).await;
    let victim = world.nodes[2].id;
    world.nodes[1].server.inject_session_panic(victim);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let fallen: Vec<_> = world.nodes[1]
        .events
        .take(usize::MAX)
        .into_iter()
        .filter_map(|event| match event {
            Event::PeerDown { id, reason, .. } => Some((id, reason)),
            _ => None,
        })
        .collect();
    assert_eq!(fallen, [(victim, DisconnectReason::Crashed)]);
    world.until_peers(NODES - 1, Duration::from_secs(60)).await;
    flows(&mut world, "after").await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_crashed_and_came_back_meshes_again() {
    let mut world = meshed(70).await;
    world.crash_and_restart(4).await;
    let back = world.until_peers(NODES - 1, Duration::from_secs(30)).await;
    assert!(back < Duration::from_secs(15), "{back:?}");
    flows(&mut world, "after").await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_every_peer_and_leaves_nothing_listening() {
    let mut world = meshed(80).await;
    world.collect().await;
    world.nodes[5].server.shutdown().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let quitter = world.nodes[5].id;
    for node in &world.nodes[..5] {
        let told = node.events.take(usize::MAX);
        assert!(
            matches!(&told[..], [Event::PeerDown { id, reason: DisconnectReason::Quitting, .. }] if *id == quitter),
            "{told:?}"
        );
    }
    assert!(world.nodes[5].server.peers().await.is_err(), "the node is gone");
    let transport = world.network.host(peerage_tests::ip(0));
    let at = std::net::SocketAddr::new(peerage_tests::ip(5), 30303);
    assert!(transport.connect(at).await.is_err(), "its address is free again");
}
