//! Requests to peers over HTTP: raw bytes in, raw bytes out.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use peerage::server::router::MAX_NAME;
use peerage::{ErrorCode, NodeId, RequestError};
use serde::Deserialize;

use super::error::bad;
use super::{Api, ApiError, body};

/// Requests that may wait for their answers at a time.
pub(super) const AT_A_TIME: usize = 64;
/// How long an answer is waited for where nothing is said.
const DEADLINE: Duration = Duration::from_secs(10);
/// When to try again what there was no room for.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(super) struct Asked {
    deadline_ms: Option<u64>,
}

/// Asks a handler of a peer, and answers what it answers.
pub(super) async fn request(
    State(api): State<Api>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, ApiError> {
    let Path((id, handler)) = path.map_err(|error| bad(error.body_text()))?;
    let Query(Asked { deadline_ms }) = query.map_err(|error| bad(error.body_text()))?;
    let setup = &api.0.setup;
    let id: NodeId = id.parse().map_err(bad)?;
    if !(1..=MAX_NAME).contains(&handler.len()) {
        return Err(bad(format!("a handler's name has 1 to {MAX_NAME} bytes")));
    }
    let longest = setup.max_deadline;
    let deadline = deadline_ms.map_or(DEADLINE.min(longest), Duration::from_millis);
    if deadline.is_zero() || deadline > longest {
        return Err(bad(format!("`deadline_ms` is from 1 to {}", longest.as_millis())));
    }
    let busy = || {
        let sentence = "too many requests wait for their answers; wait for some of them";
        ApiError::later(StatusCode::TOO_MANY_REQUESTS, sentence, AGAIN)
    };
    let _waiting = api.0.requests.try_acquire().map_err(|_| busy())?;
    // Its share of what bodies may take is given back before the wait: the places above bound what waits.
    let question: Bytes = body::read(&api.0.bodies, setup.max_request, &headers, body).await?.bytes.clone();
    let answer = setup.node.server().router().request(id, &handler, question, deadline).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], answer))
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> ApiError {
        use StatusCode as S;
        let sentence = error.to_string();
        match error {
            RequestError::NotConnected | RequestError::NoPeers => ApiError::new(S::NOT_FOUND, sentence),
            RequestError::TimedOut => ApiError::new(S::GATEWAY_TIMEOUT, sentence),
            RequestError::Disconnected => ApiError::new(S::BAD_GATEWAY, sentence),
            RequestError::Busy | RequestError::NotSent => ApiError::later(S::TOO_MANY_REQUESTS, sentence, AGAIN),
            RequestError::Cancelled | RequestError::Restarted | RequestError::CircuitOpen => {
                ApiError::later(S::SERVICE_UNAVAILABLE, sentence, AGAIN)
            }
            RequestError::PayloadTooLarge { .. } => ApiError::new(S::PAYLOAD_TOO_LARGE, sentence),
            RequestError::Refused { code, .. } => {
                let refused = match code {
                    ErrorCode::UnknownHandler => ApiError::new(S::NOT_FOUND, sentence),
                    ErrorCode::Throttled => ApiError::later(S::TOO_MANY_REQUESTS, sentence, AGAIN),
                    _ => ApiError::new(S::BAD_GATEWAY, sentence),
                };
                refused.with_code(code.code())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_request_has_the_status_that_fits_it() {
        let status = |error: RequestError| ApiError::from(error).into_response().status().as_u16();
        let refused = |code| status(RequestError::Refused { code, text: String::new() });
        assert_eq!([RequestError::NotConnected, RequestError::NoPeers].map(status), [404, 404]);
        assert_eq!(status(RequestError::TimedOut), 504);
        assert_eq!(status(RequestError::Disconnected), 502);
        assert_eq!([RequestError::Busy, RequestError::NotSent].map(status), [429, 429]);
        assert_eq!([RequestError::Restarted, RequestError::CircuitOpen].map(status), [503, 503]);
        assert_eq!(status(RequestError::PayloadTooLarge { bytes: 2, limit: 1 }), 413);
        assert_eq!((refused(ErrorCode::UnknownHandler), refused(ErrorCode::Throttled)), (404, 429));
        for code in [ErrorCode::Internal, ErrorCode::NotMember, ErrorCode::Application(7), ErrorCode::Unknown(99)] {
            assert_eq!(refused(code), 502, "{code:?}");
        }
    }
}
