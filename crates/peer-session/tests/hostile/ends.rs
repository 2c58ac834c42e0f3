//! All that can end a session, at once.

use std::time::Duration;

use peerage_machine::Rng;
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Kind, Lane};
use peerage_peer_session::{Config, EndedBy};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::support::{Node, data, own};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    DisconnectHere,
    DisconnectThere,
    ConnectionCut,
    MalformedRecord,
    /// By itself this ends nothing: what comes for it is counted and dropped.
    InletDropped,
}

const CAUSES: [Cause; 5] =
    [Cause::DisconnectHere, Cause::DisconnectThere, Cause::ConnectionCut, Cause::MalformedRecord, Cause::InletDropped];

/// geth `p2p/peer_test.go` TestPeerDisconnectRace, with what can go wrong besides.
#[tokio::test(start_paused = true)]
async fn five_causes_of_death_in_any_order_are_one_end_each_time() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    // Until all that the first session needed is there.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    let (quiet_in, quiet_out) = (node.inbound.used(), node.outbound.used());
    let mut seen = std::collections::BTreeMap::new();
    for seed in 0..1000 {
        let mut rng = Rng::new(seed);
        let (mut session, hostile) = node.meet(9, 1 << 16).await;
        let mut hostile = Some(hostile);
        session.say(1, Lane::Bulk, vec![0; 100_000]);
        let mut causes = CAUSES;
        rng.sample(&mut causes, CAUSES.len());
        let start = Instant::now();
        for cause in causes {
            for _ in 0..rng.below(4) {
                tokio::task::yield_now().await;
            }
            match (cause, &mut hostile) {
                (Cause::DisconnectHere, _) => session.mailbox.disconnect(DisconnectReason::Misbehaved),
                (Cause::DisconnectThere, Some(hostile)) => {
                    hostile.send(&[own(Kind::Disconnect, DisconnectReason::Useless.code().to_be_bytes())]).await;
                }
                (Cause::ConnectionCut, _) => hostile = None,
                (Cause::MalformedRecord, Some(hostile)) => drop(hostile.write(&[0; 40]).await),
                (Cause::InletDropped, hostile) => {
                    session.inlets.clear();
                    if let Some(hostile) = hostile {
                        hostile.send(&[data(1, Lane::High, false, *b"for nobody")]).await;
                    }
                }
                (_, None) => {}
            }
        }
        let ended = session.end().await;
        assert!(start.elapsed() <= Config::recommended().disconnect_timeout, "{seed}: {:?}", start.elapsed());
        let known = [
            (DisconnectReason::Misbehaved, EndedBy::Us),
            (DisconnectReason::Useless, EndedBy::Peer),
            (DisconnectReason::ProtocolError, EndedBy::Us),
            (DisconnectReason::NetworkError, EndedBy::Network),
        ];
        assert!(known.contains(&(ended.reason, ended.by)), "{seed}: {ended:?}");
        *seen.entry((ended.reason, ended.by)).or_insert(0) += 1;
        drop(hostile);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(session.ended.try_recv().is_err(), "{seed}: once");
        drop(session);
        assert_eq!((node.inbound.used(), node.outbound.used()), (quiet_in, quiet_out), "{seed}");
        assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks, "{seed}: a task is left");
        if seed % 100 == 0 {
            beside.talk().await;
        }
    }
    assert_eq!(seen.len(), 4, "each of them was the first now and then: {seen:?}");
    beside.part().await;
    assert_eq!((node.inbound.used(), node.outbound.used()), ((0, 0), 0));
}
