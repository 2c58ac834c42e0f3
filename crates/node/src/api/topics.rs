//! Topics over HTTP: raw bytes in, server-sent events out.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Sent, Sse};
use data_encoding::BASE64;
use futures_util::stream::{self, Stream, StreamExt};
use peerage::{Message, Policy, Publisher, RecvError, TopicError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Api, ApiError, body, stream::answer, stream::event, stream::lagged};

#[derive(Deserialize)]
pub(super) struct Asked {
    policy: Option<String>,
}

type TopicPath = Result<Path<String>, PathRejection>;
type TopicQuery = Result<Query<Asked>, QueryRejection>;

fn bad(sentence: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, sentence)
}

fn asked(topic: TopicPath, query: TopicQuery) -> Result<(String, Policy), ApiError> {
    let Path(topic) = topic.map_err(|error| bad(error.body_text()))?;
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let policy = match query.policy.as_deref() {
        None | Some("signed") => Policy::Signed,
        Some("anonymous") => Policy::Anonymous,
        Some(_) => return Err(bad("`policy` is `signed`, which is the default, or `anonymous`")),
    };
    Ok((topic, policy))
}

#[derive(Serialize)]
pub(super) struct PublishedBody {
    id: String,
    peers: usize,
}

pub(super) async fn publish(
    State(api): State<Api>,
    topic: TopicPath,
    query: TopicQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PublishedBody>, ApiError> {
    let (topic, policy) = asked(topic, query)?;
    let setup = &api.0.setup;
    let publisher = Publisher::new(&setup.node, &topic, policy).map_err(TopicError::from)?;
    let held = body::read(&api.0.bodies, setup.max_payload, &headers, body).await?;
    let published = publisher.publish(held.bytes.clone()).await?;
    Ok(Json(PublishedBody { id: published.id.to_string(), peers: published.peers }))
}

#[derive(Serialize)]
struct MessageBody {
    id: String,
    publisher: Option<String>,
    from: Option<String>,
    bytes: String,
}

impl From<&Message> for MessageBody {
    fn from(message: &Message) -> MessageBody {
        MessageBody {
            id: message.id.to_string(),
            publisher: message.publisher.map(|id| id.to_string()),
            from: message.from.map(|id| id.to_string()),
            bytes: BASE64.encode(&message.payload),
        }
    }
}

/// The topic's messages from now on; the first event says that the subscription stands.
pub(super) async fn subscribe(
    State(api): State<Api>,
    topic: TopicPath,
    query: TopicQuery,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, ApiError> {
    let (name, policy) = asked(topic, query)?;
    let permit = api.stream()?;
    let node = &api.0.setup.node;
    let topic = match policy {
        Policy::Signed => node.topic(&name).await?,
        Policy::Anonymous => node.anonymous_topic(&name).await?,
    };
    let (_, subscriber) = topic.split();
    let printer = api.0.printers.enter(&name);
    let subscribed = event("subscribed", &json!({ "topic": name }));
    let messages = stream::unfold((api, subscriber, printer, permit), |state| async move {
        let (api, subscriber, printer, _) = &state;
        let sent = match subscriber.recv().await {
            Ok(message) => {
                if printer.is_first() {
                    api.print(&message);
                }
                event("message", &MessageBody::from(&message))
            }
            Err(RecvError::Lagged(missed)) => lagged(missed),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(sent), state))
    });
    Ok(answer(stream::once(async { Ok(subscribed) }).chain(messages)))
}

impl Api {
    fn print(&self, message: &Message) {
        // A topic's name may hold anything, line breaks too.
        let (topic, bytes) = (message.topic.as_str().escape_debug(), message.payload.len());
        match message.from {
            Some(from) => self.0.setup.output.line(format_args!("message: {topic} {bytes} bytes from {from}")),
            None => self.0.setup.output.line(format_args!("message: {topic} {bytes} bytes from this node")),
        }
    }
}

/// Which stream of each topic prints its messages: one, however many there are.
#[derive(Default)]
pub(super) struct Printers(Arc<Mutex<Entered>>);

#[derive(Default)]
struct Entered {
    streams: BTreeMap<String, BTreeSet<u64>>,
    next: u64,
}

/// A stream's place in the list, until it ends.
struct Printer {
    entered: Arc<Mutex<Entered>>,
    topic: String,
    number: u64,
}

impl Printers {
    fn enter(&self, topic: &str) -> Printer {
        let mut entered = lock(&self.0);
        let number = entered.next;
        entered.next += 1;
        entered.streams.entry(topic.to_owned()).or_default().insert(number);
        Printer { entered: self.0.clone(), topic: topic.to_owned(), number }
    }
}

impl Printer {
    fn is_first(&self) -> bool {
        let entered = lock(&self.entered);
        entered.streams.get(&self.topic).and_then(BTreeSet::first) == Some(&self.number)
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        let mut entered = lock(&self.entered);
        if let Some(streams) = entered.streams.get_mut(&self.topic) {
            streams.remove(&self.number);
            if streams.is_empty() {
                entered.streams.remove(&self.topic);
            }
        }
    }
}

/// The list is whole between any two calls, so a panic of another holder does not matter.
fn lock(entered: &Mutex<Entered>) -> MutexGuard<'_, Entered> {
    entered.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stream_of_a_topic_prints_and_nothing_is_kept_of_ended_ones() {
        let printers = Printers::default();
        let (first, second, other) = (printers.enter("t"), printers.enter("t"), printers.enter("u"));
        assert!(first.is_first() && !second.is_first() && other.is_first());
        drop(first);
        assert!(second.is_first());
        drop((second, other));
        assert!(lock(&printers.0).streams.is_empty());
    }
}
