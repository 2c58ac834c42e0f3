//! Many hostile peers at once, against the pool that they share with honest ones.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_peer_session::peerage_queue::PoolConfig;
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Kind, Lane, MAX_FRAGMENT, MESSAGE_COST, first_window};
use tokio::time::Instant;

use crate::STALLED;
use crate::support::{Frame, Hostile, Node, begin, data, link, own};

const HOSTILE: u8 = 40;
const LARGEST: u32 = 16 << 20;
const TRICKLE: Duration = Duration::from_secs(10);

/// What each begins with on every flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// A fragment, and nothing more.
    Begins,
    /// As much as it may without asking, so that it is not to blame before the node has given it more.
    UsesItsWindows,
    /// The same, and then a byte on every flow now and then.
    Trickles,
}

fn beginning(manner: Manner, channel: u16, lane: Lane) -> Vec<Frame> {
    let mut left = match manner {
        Manner::Begins => 0,
        Manner::UsesItsWindows | Manner::Trickles => (first_window(lane) - MESSAGE_COST) as usize - 1000,
    };
    let mut frames = vec![begin(channel, lane, LARGEST, &[0; 1000])];
    while left > 0 {
        let len = left.min(MAX_FRAGMENT);
        frames.push(data(channel, lane, true, vec![0; len]));
        left -= len;
    }
    frames
}

/// Begins a message on every flow and then only keeps itself alive, until it is told why it has to go.
async fn behave(mut hostile: Hostile, manner: Manner) -> Option<DisconnectReason> {
    for channel in 1..=2 {
        for lane in Lane::ALL {
            hostile.send(&beginning(manner, channel, lane)).await;
        }
    }
    let mut granted = BTreeMap::new();
    let mut next = Instant::now() + TRICKLE;
    loop {
        let heard = match manner {
            Manner::Trickles => tokio::time::timeout_at(next, hostile.hear()).await,
            _ => Ok(hostile.hear().await),
        };
        let Ok(heard) = heard else {
            next += TRICKLE;
            let bytes: Vec<Frame> =
                granted.keys().map(|(channel, lane)| data(*channel, *lane, true, vec![0])).collect();
            hostile.send(&bytes).await;
            continue;
        };
        let (header, payload) = heard?;
        match header.kind {
            Kind::Ping => drop(hostile.send(&[own(Kind::Pong, payload)]).await),
            Kind::Disconnect => return Some(DisconnectReason::from_code(u16::from_be_bytes([payload[0], payload[1]]))),
            Kind::Credit => drop(granted.insert((header.channel, header.lane), ())),
            _ => {}
        }
    }
}

/// How long an honest peer's largest message takes when all of them were there before it.
async fn attacked(manner: Manner) -> Duration {
    let node = Node::new(1);
    let capacity = PoolConfig::inbound().capacity();
    let mut beside = node.beside().await;
    let honest = Node::new(2);
    let (near, far) = link(1 << 20);
    let (accepted, dialled) = tokio::join!(node.accept(near), honest.dial(far, node.id()));
    let mut here = node.start(accepted.expect("accepted"), 10).await;
    let there = honest.start(dialled.expect("dialled"), 10).await;
    let (mut sessions, mut hostiles) = (Vec::new(), Vec::new());
    for n in 0..HOSTILE {
        let (session, hostile) = node.meet(10 + n, 1 << 20).await;
        sessions.push(session);
        hostiles.push(hostile);
    }
    let behaving: Vec<_> = hostiles.into_iter().map(|hostile| tokio::spawn(behave(hostile, manner))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(node.inbound.used().1 <= capacity && node.inbound.waiting() > 30, "{:?}", node.inbound);

    assert!(node.inbound.admit(1 << 20, 0).is_some(), "another peer finds a place");
    let start = Instant::now();
    there.say(1, Lane::Normal, vec![7; 10_000]);
    assert_eq!(here.hear(1).await.delivery.payload.len(), 10_000, "what fits its window waits for nobody");
    assert!(start.elapsed() < Duration::from_millis(10));
    there.say(1, Lane::Bulk, vec![7; LARGEST as usize]);
    let took = loop {
        beside.talk().await;
        assert!(node.inbound.used().1 <= capacity, "{:?}", node.inbound);
        if let Ok(heard) = tokio::time::timeout(Duration::from_secs(1), here.hear(1)).await {
            assert_eq!(heard.delivery.payload.len(), LARGEST as usize);
            break start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(900), "the honest message waits for ever: {:?}", node.inbound);
    };
    for (mut session, behaving) in sessions.into_iter().zip(behaving) {
        assert_eq!(session.end().await, STALLED);
        assert_eq!(behaving.await.expect("no panic"), Some(DisconnectReason::Stalled));
        assert!(node.inbound.used().1 <= capacity);
    }
    assert!(here.lives());
    there.mailbox.disconnect(DisconnectReason::Quitting);
    here.end().await;
    beside.part().await;
    assert_eq!(node.inbound.used(), (0, 0), "and all of it came back");
    took
}

#[tokio::test(start_paused = true)]
async fn forty_peers_that_begin_the_largest_messages_everywhere_are_stalled_and_an_honest_one_comes_through() {
    let took = attacked(Manner::Begins).await;
    assert!(took <= Duration::from_secs(25), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn forty_peers_that_wait_for_credit_which_they_then_do_not_use_only_delay_an_honest_one() {
    let took = attacked(Manner::UsesItsWindows).await;
    assert!(took <= Duration::from_secs(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn forty_peers_that_trickle_must_hurry_because_others_wait() {
    let took = attacked(Manner::Trickles).await;
    assert!(took <= Duration::from_secs(600), "{took:?}");
}
