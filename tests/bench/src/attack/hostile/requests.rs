//! Requests: some have as many under way as they may and ask again with each answer, others ask as fast as the session
//! takes it, whatever that says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peerage_server::peer_session::Peer;
use peerage_server::queue::Message;
use peerage_server::router::HandlerId;
use peerage_server::router::wire::{self, Item};
use peerage_server::wire::frame::Lane;
use tokio::sync::Semaphore;

use super::Foe;
use crate::attack::{COSTLY, ECHO};

/// Requests of a flood that go at a time.
const BATCH: usize = 64;
/// So that the work is begun.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a large question.
const LARGE: usize = 64 << 10;

/// What one of them asks, and how many at a time if it waits for answers.
struct Manner {
    handler: &'static str,
    bytes: usize,
    under_way: Option<usize>,
}

/// Those who wait have under way what one peer may, break no rule, and stay.
const MANNERS: [Manner; 6] = [
    Manner { handler: COSTLY, bytes: 64, under_way: Some(64) },
    Manner { handler: ECHO, bytes: 64, under_way: Some(64) },
    Manner { handler: COSTLY, bytes: 64, under_way: None },
    Manner { handler: ECHO, bytes: LARGE, under_way: Some(16) },
    Manner { handler: ECHO, bytes: 64, under_way: None },
    Manner { handler: "none/1", bytes: 64, under_way: None },
];

pub(super) async fn attack(foe: &Foe, peer: &mut Peer) {
    let Some(channel) = peer.channel("router") else { return };
    let manner = &MANNERS[foe.number % MANNERS.len()];
    let (door, free) = (peer.door().clone(), Semaphore::new(manner.under_way.unwrap_or_default()));
    let asks = async {
        let mut asked = 0;
        let (handler, payload) = (HandlerId::of(manner.handler), Bytes::from(vec![7; manner.bytes]));
        loop {
            let count = if manner.under_way.is_some() { taken(&free).await } else { BATCH };
            let mut message = BytesMut::new();
            for _ in 0..count {
                asked += 1;
                message.extend_from_slice(&wire::request(asked, handler, DEADLINE, &payload));
            }
            if door.offer_when_room(Message::new(channel, Lane::High, message.freeze())).await.is_err() {
                return;
            }
            foe.counted.add("asked", count as u64);
        }
    };
    let hears = async {
        while let Some(inbound) = peer.recv().await {
            let mut ended = 0;
            for item in wire::items(inbound.delivery.payload.clone(), wire::MAX_PAYLOAD) {
                let what = match item {
                    Ok(Item::Response { .. }) => "answered".to_owned(),
                    Ok(Item::Error { code, .. }) => format!("answered.{code:?}").to_lowercase(),
                    _ => continue,
                };
                ended += 1;
                foe.counted.add(&what, 1);
            }
            free.add_permits(ended);
        }
    };
    tokio::select! {
        () = asks => {}
        () = hears => {}
    }
}

/// Takes all permits that there are, one at least.
async fn taken(free: &Semaphore) -> usize {
    // It is never closed.
    if let Ok(permit) = free.acquire().await {
        permit.forget();
    }
    1 + free.forget_permits(BATCH - 1)
}
