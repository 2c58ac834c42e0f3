//! Peers that open streams as they like.

use std::time::Duration;

use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Header, Kind, Lane};

use crate::support::{Frame, Node};

fn frame(kind: Kind, stream: u64, payload: &[u8]) -> Frame {
    (Header { stream, ..Header::new(kind, Lane::Bulk, 1, payload.len() as u16) }, payload.to_vec())
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_opens_and_resets_without_end_is_cut_off() {
    let node = Node::new(1);
    let (mut session, mut opener) = node.meet(2, 1 << 20).await;
    for batch in 0..40u64 {
        let ids = (0..100).map(|n| 2 * (100 * batch + n) + 1);
        let frames = ids.flat_map(|id| [frame(Kind::Open, id, &[]), frame(Kind::Reset, id, &[0; 4])]);
        let record = opener.seal(&frames.collect::<Vec<_>>());
        assert!(opener.write(&record).await);
    }
    let mut refused = 0;
    let reason = loop {
        let (header, payload) = opener.hear().await.expect("a farewell");
        match header.kind {
            Kind::Reset => refused += 1,
            Kind::Disconnect => break payload,
            _ => {}
        }
    };
    assert_eq!(reason, DisconnectReason::ProtocolError.code().to_be_bytes());
    assert!(refused <= 2000, "{refused}");
    assert_eq!(session.end().await, crate::BREACH);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((node.inbound.used(), node.outbound.used()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_on_a_stream_that_never_was_is_cut_off() {
    let node = Node::new(1);
    let (_session, mut opener) = node.meet(2, 1 << 20).await;
    opener.send(&[frame(Kind::Data, 1, b"nobody opened it")]).await;
    assert_eq!(opener.farewell().await, Some(DisconnectReason::ProtocolError));
}
