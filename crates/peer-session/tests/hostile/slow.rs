//! Who does not take what it is sent: a peer that never reads, and a protocol that drains nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use peerage_peer_session::Config;
use peerage_peer_session::peerage_queue::{ChannelId, Message, PoolConfig, Refusal};
use peerage_peer_session::peerage_transport::{Link, MemoryNetwork};
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Kind, Lane};
use tokio::time::Instant;

use crate::support::{Frame, Node, Session, limit, own};
use crate::{STALLED, us};

/// Offers on every flow what it takes; what the node then holds for its peers.
fn fill(node: &Node, session: &Session) -> usize {
    for channel in 1..=2 {
        for lane in Lane::ALL {
            let refusal = loop {
                let message = Message::new(ChannelId(channel), lane, vec![0; 256 << 10].into());
                if let Err(refusal) = session.door.offer(message) {
                    break refusal;
                }
            };
            assert!(matches!(refusal, Refusal::LaneFull | Refusal::PoolFull | Refusal::SessionEnded), "{refusal:?}");
        }
    }
    node.outbound.used()
}

/// It takes all credit and answers for its life, and takes nothing off the connection; given up, it comes again.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_holds_its_part_of_the_pool_for_twenty_seconds_and_no_more() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    let begun = Instant::now();
    let (mut most, mut sessions) = (0, 0);
    while begun.elapsed() < Duration::from_secs(600) {
        let (mut session, mut hostile) = node.meet(9, 64 << 10).await;
        let start = Instant::now();
        let all: Vec<Frame> =
            (1..=2).flat_map(|channel| Lane::ALL.map(|lane| limit(Kind::Credit, channel, lane, u64::MAX))).collect();
        assert!(hostile.send(&all).await);
        loop {
            most = most.max(fill(&node, &session));
            assert!(most <= PoolConfig::outbound().holder_max, "{most}");
            beside.talk().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let alive = hostile.send(&[own(Kind::Pong, [0; 8])]).await;
            if let Ok(ended) = session.ended.try_recv() {
                assert_eq!(ended, STALLED);
                break;
            }
            assert!(alive || start.elapsed() >= Config::recommended().stall_timeout);
        }
        let took = start.elapsed();
        assert!(took <= Duration::from_secs(23), "{took:?}");
        assert_eq!(node.outbound.used(), 0, "all of it came back");
        sessions += 1;
    }
    assert!(most > 8 << 20 && sessions >= 25, "{most} bytes at most, {sessions} sessions");
    beside.part().await;
}

/// One that reads nothing and says nothing, but whose system keeps the connection open.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_with_nothing_to_take_is_idle() {
    let node = Node::new(1);
    let beside = node.beside().await;
    let (mut session, _hostile) = node.meet(9, 64 << 10).await;
    let start = Instant::now();
    assert_eq!(session.end().await, us(DisconnectReason::Idle));
    assert!(start.elapsed() <= Duration::from_secs(32), "{:?}", start.elapsed());
    beside.part().await;
}

/// How long 4 MiB on channel 2 take over a slow line, and the slowest of the urgent messages meanwhile.
async fn measured(blocked: bool) -> (Duration, Duration) {
    let slow = Link {
        latency: Duration::from_millis(10),
        jitter: Duration::ZERO,
        bytes_per_second: Some(1_250_000),
        ..Link::default()
    };
    let network = MemoryNetwork::new(1, slow);
    let host = |n| network.host(IpAddr::from(Ipv4Addr::new(10, 0, 0, n)));
    let (alice, bob) = (Node::new(1), Node::new(2));
    let address = ([10, 0, 0, 2], 30_303).into();
    let mut listener = host(2).listen(address).await.expect("free");
    let (dialled, accepted) =
        tokio::join!(async { alice.dial(host(1).connect(address).await.expect("listens"), bob.id()).await }, async {
            bob.accept(listener.accept().await.expect("comes")).await
        },);
    let alice_end = alice.start(dialled.expect("dialled"), 4).await;
    let mut bob_end = bob.start(accepted.expect("accepted"), 4).await;
    if blocked {
        for lane in Lane::ALL {
            // The control lane holds 256 KiB.
            for _ in 0..if lane == Lane::Control { 25 } else { 200 } {
                alice_end.say(1, lane, vec![1; 10_000]);
            }
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(bob_end.inlets[0].len(), 4, "and nobody takes them");
    } else {
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let begun = Instant::now();
    for _ in 0..64 {
        alice_end.say(2, Lane::Bulk, vec![2; 64 << 10]);
    }
    let votes = async {
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let sent = u64::try_from(begun.elapsed().as_nanos()).expect("seconds");
            alice_end.say(2, Lane::High, sent.to_be_bytes().to_vec());
        }
    };
    let hears = async {
        let (mut bulk, mut slowest) = (0, Duration::ZERO);
        let mut votes = 0;
        while bulk < 64 || votes < 30 {
            let heard = bob_end.hear(2).await.delivery;
            match heard.lane {
                Lane::Bulk => bulk += 1,
                _ => {
                    let sent = u64::from_be_bytes(heard.payload[..].try_into().expect("a time"));
                    slowest = slowest.max(begun.elapsed() - Duration::from_nanos(sent));
                    votes += 1;
                }
            }
        }
        (begun.elapsed(), slowest)
    };
    let ((), measured) = tokio::join!(votes, hears);
    measured
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_drains_costs_the_other_neither_throughput_nor_latency() {
    let (alone, vote_alone) = measured(false).await;
    let (beside, vote_beside) = measured(true).await;
    assert!(alone > Duration::from_millis(3300), "4 MiB at 1.25 MB a second: {alone:?}");
    assert!(beside <= alone + alone / 50, "{beside:?} instead of {alone:?}");
    assert!(vote_alone < Duration::from_millis(60), "{vote_alone:?}");
    assert!(vote_beside <= vote_alone + Duration::from_millis(5), "{vote_beside:?} instead of {vote_alone:?}");
}
