//! Server-sent events: how many streams there may be, and the stream of changes among the peers.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use peerage::server::wire::address;
use peerage::server::wire::frame::Lane;
use peerage::{Event, NodeId, RecvError};
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::{Api, ApiError};

/// A stream that is quiet says so this often, so that a reader that is gone is noticed.
const QUIET: Duration = Duration::from_secs(15);

impl Api {
    /// A place for one more stream, held for as long as it runs.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.streams.clone().try_acquire_owned().map_err(|_| {
            let sentence = "too many event streams are open; close one and try again";
            ApiError::later(StatusCode::SERVICE_UNAVAILABLE, sentence, Duration::from_secs(1))
        })
    }
}

/// An event of this name with this data.
pub(super) fn event(name: &str, data: &impl Serialize) -> Sent {
    // Text without line breaks, as JSON is, is what an event may hold.
    let text = serde_json::to_string(data).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string());
    Sent::default().event(name).data(text)
}

/// What tells a reader that it was too slow.
pub(super) fn lagged(missed: u64) -> Sent {
    event("lagged", &json!({ "missed": missed }))
}

/// The answer that a stream of events is.
pub(super) fn answer<S>(events: S) -> Sse<impl Stream<Item = Result<Sent, Infallible>>>
where
    S: Stream<Item = Result<Sent, Infallible>> + Send + 'static,
{
    Sse::new(events).keep_alive(KeepAlive::new().interval(QUIET))
}

fn peer_event(change: Event) -> Sent {
    match change {
        Event::PeerUp { id, direction, address, agent } => event(
            "peer_up",
            &json!({
                "id": id.to_string(),
                "direction": direction.label(),
                "address": address::from_tcp(address).to_string(),
                "agent": agent,
            }),
        ),
        Event::PeerDown { id, reason, by, lived } => event(
            "peer_down",
            &json!({
                "id": id.to_string(),
                "reason": reason.label(),
                "text": reason.to_string(),
                "by": by.label(),
                "duration_ms": u64::try_from(lived.as_millis()).unwrap_or(u64::MAX),
            }),
        ),
        Event::LocalChanged { seq, external } => {
            event("local_changed", &json!({ "record_seq": seq, "external": super::info::external(&external) }))
        }
        Event::Shedding { level, why } => event("shedding", &json!({ "level": level.label(), "why": why })),
        Event::MsgSent { id, protocol, code, lane, size } => message("message_sent", id, &protocol, code, lane, size),
        Event::MsgReceived { id, protocol, code, lane, size } => {
            message("message_received", id, &protocol, code, lane, size)
        }
        Event::StreamOpened { id, protocol, lane, stream, by_us } => event(
            "stream_opened",
            &json!({
                "id": id.to_string(), "protocol": *protocol, "lane": lane.label(), "stream": stream, "by_us": by_us,
            }),
        ),
        Event::StreamEnded { id, protocol, lane, stream, sent, received } => event(
            "stream_ended",
            &json!({
                "id": id.to_string(), "protocol": *protocol, "lane": lane.label(), "stream": stream, "sent": sent,
                "received": received,
            }),
        ),
    }
}

fn message(name: &str, id: NodeId, protocol: &str, code: Option<u16>, lane: Lane, size: u64) -> Sent {
    let (id, lane) = (id.to_string(), lane.label());
    event(name, &json!({ "id": id, "protocol": protocol, "code": code, "lane": lane, "size": size }))
}

/// Changes among the peers, from now on.
pub(super) async fn events(
    State(api): State<Api>,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, ApiError> {
    let permit = api.stream()?;
    let events = api.0.setup.node.events().await?;
    Ok(answer(stream::unfold((events, permit), |(mut events, permit)| async move {
        let sent = match events.recv().await {
            Ok(change) => peer_event(change),
            Err(RecvError::Lagged(missed)) => lagged(missed),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(sent), (events, permit)))
    })))
}
