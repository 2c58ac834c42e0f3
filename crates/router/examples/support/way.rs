//! Messages from one router to another, without the session between them.

use peerage_router::peerage_mailbox::{Clock, Outlet};
use peerage_router::peerage_queue::{Delivery, Door, Fragment, Inbound, LanesConfig, Pool, SessionId, lanes};

/// A door that leads to where the other one hears, as its session 1.
pub(crate) fn way(pool: &Pool, clock: Clock, hears: Outlet<Inbound>) -> Door {
    let (door, mut says) = lanes(LanesConfig::recommended(), pool, 0);
    tokio::spawn(async move {
        let mut message = Vec::new();
        while let Some(Fragment { flow, more, payload, .. }) = says.recv(|| clock.now()).await {
            message.extend_from_slice(&payload);
            if !more {
                let (session, payload) = (SessionId(1), std::mem::take(&mut message).into());
                let (channel, stream, lane) = (flow.channel, 0, flow.lane);
                drop(hears.offer(Delivery { session, channel, stream, lane, payload }.into()));
            }
        }
    });
    door
}
