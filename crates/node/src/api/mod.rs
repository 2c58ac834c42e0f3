//! The HTTP API on loopback: what the node is and does, in JSON, and what happens to it, as server-sent events.

mod body;
mod error;
mod guard;
mod info;
mod journals;
mod limits;
mod peers;
mod policy;
mod requests;
mod standings;
mod stream;
#[cfg(test)]
mod tests;
mod topics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::middleware;
use axum::routing::{delete, get, post};
use peerage::Node;
use tokio::sync::Semaphore;

use crate::limits::Changer;
use crate::output::Output;

pub(crate) use error::{ApiError, not_found, wrong_method};
pub(crate) use guard::{Guard, check};
use topics::Printers;

/// Streams of server-sent events at a time. Each may hold a subscriber's whole queue.
const STREAMS: usize = 64;

/// What the API is made of.
pub(crate) struct Setup {
    pub(crate) node: Node,
    pub(crate) output: Output,
    /// Where it is served.
    pub(crate) api: SocketAddr,
    /// Where metrics are served.
    pub(crate) metrics: SocketAddr,
    /// Largest message, in bytes.
    pub(crate) max_payload: usize,
    /// Largest payload of a request, in bytes.
    pub(crate) max_request: usize,
    /// Longest time that an answer is waited for.
    pub(crate) max_deadline: Duration,
    pub(crate) changer: Arc<Changer>,
}

/// What every handler shares. Cheap to clone.
#[derive(Clone)]
struct Api(Arc<Inner>);

struct Inner {
    setup: Setup,
    started: Duration,
    streams: Arc<Semaphore>,
    /// KiB of request bodies that may be held at a time.
    bodies: Semaphore,
    /// Requests to peers that may wait at a time.
    requests: Semaphore,
    printers: Printers,
}

/// The API's routes, for requests that the guard lets pass.
pub(crate) fn router(setup: Setup) -> Router {
    let guard = Guard { port: setup.api.port() };
    let api = Api(Arc::new(Inner {
        setup,
        started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        streams: Arc::new(Semaphore::new(STREAMS)),
        bodies: Semaphore::new(body::KIB_AT_A_TIME as usize),
        requests: Semaphore::new(requests::AT_A_TIME),
        printers: Printers::default(),
    }));
    Router::new()
        .route("/v1/node", get(info::node))
        .route("/v1/health", get(info::health))
        .route("/v1/health/ready", get(info::health))
        .route("/v1/health/live", get(info::live))
        .route("/v1/limits", get(limits::limits).patch(limits::change))
        .route("/v1/reload", post(limits::reload))
        .route("/v1/peers", get(info::peers))
        .route("/v1/peers/{id}", delete(peers::remove))
        .route("/v1/peers/{id}/requests/{handler}", post(requests::request))
        .route("/v1/peers/{id}/standing", get(standings::standing))
        .route("/v1/peers/standings", get(standings::standings))
        .route("/v1/peers/static", get(peers::statics).post(peers::add_static))
        .route("/v1/peers/static/{id}", delete(peers::remove_static))
        .route("/v1/peers/trusted", get(peers::trusted).post(peers::add_trusted))
        .route("/v1/peers/trusted/{id}", delete(peers::remove_trusted))
        .route("/v1/bans", get(policy::bans).post(policy::ban))
        .route("/v1/bans/{banned}", delete(policy::unban))
        .route("/v1/admission", get(policy::admission).put(policy::set_admission))
        .route("/v1/journals", post(journals::dump))
        .route("/v1/events", get(stream::events))
        .route("/v1/topics/{topic}", get(topics::subscribe).post(topics::publish))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(guard, check))
        .with_state(api)
}
