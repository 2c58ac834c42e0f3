//! What the API answers when it cannot do what was asked: a status, and a sentence in JSON.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use peerage::server::gossip::SubscribeError;
use peerage::{AddStaticFailed, AskError, Policy, PublishError, TopicError};
use serde::Serialize;

/// A refusal.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    sentence: String,
    retry_after: Option<Duration>,
    code: Option<u16>,
}

#[derive(Serialize)]
struct Body {
    error: String,
    /// Of a peer's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, sentence: impl Into<String>) -> ApiError {
        ApiError { status, sentence: sentence.into(), retry_after: None, code: None }
    }

    /// Refused now; worth another try after a while.
    pub(crate) fn later(status: StatusCode, sentence: impl Into<String>, after: Duration) -> ApiError {
        ApiError { retry_after: Some(after), ..ApiError::new(status, sentence) }
    }

    /// With the code that a peer gave.
    pub(super) fn with_code(self, code: u16) -> ApiError {
        ApiError { code: Some(code), ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry_after_ms = self.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let body = Json(Body { error: self.sentence, code: self.code, retry_after_ms });
        let mut response = (self.status, body).into_response();
        if let Some(after) = self.retry_after {
            // The header knows whole seconds only; the body says it to the millisecond.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

impl From<AddStaticFailed> for ApiError {
    fn from(error: AddStaticFailed) -> ApiError {
        match error {
            AddStaticFailed::Ask(error) => error.into(),
            error => ApiError::new(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> ApiError {
        let sentence = format!("the node does not answer: {error}");
        ApiError::later(StatusCode::SERVICE_UNAVAILABLE, sentence, Duration::from_secs(1))
    }
}

fn other_policy(policy: Policy) -> ApiError {
    let name = match policy {
        Policy::Signed => "signed",
        Policy::Anonymous => "anonymous",
    };
    let sentence =
        format!("this node is subscribed to the topic as a {name} one; say ?policy={name}, or use another topic");
    ApiError::new(StatusCode::CONFLICT, sentence)
}

impl From<TopicError> for ApiError {
    fn from(error: TopicError) -> ApiError {
        match error {
            TopicError::Name(error) => ApiError::new(StatusCode::BAD_REQUEST, error.to_string()),
            TopicError::Refused(SubscribeError::Policy(policy)) => other_policy(policy),
            TopicError::Refused(error @ SubscribeError::TooMany(_)) => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}; end another subscription first"))
            }
            // Not reached by what this API asks for.
            TopicError::Refused(error) => ApiError::new(StatusCode::CONFLICT, error.to_string()),
            TopicError::NoAnswer(error) => error.into(),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> ApiError {
        match error {
            PublishError::Busy { retry_after } => {
                ApiError::later(StatusCode::TOO_MANY_REQUESTS, error.to_string(), retry_after)
            }
            PublishError::TooLarge { .. } => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            PublishError::Policy(policy) => other_policy(policy),
            PublishError::NoAnswer(_) | PublishError::Stopped => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}

/// What was asked makes no sense.
pub(super) fn bad(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error.to_string())
}

/// For paths that nothing is behind.
pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path; topic names with a `/` are written with %2F")
}

/// For paths that something else is behind.
pub(crate) async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not know that method; the Allow header lists its own")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_429_with_whole_seconds_in_the_header_and_at_least_one() {
        for (ms, seconds) in [(0, "1"), (250, "1"), (1_000, "1"), (1_001, "2")] {
            let error = PublishError::Busy { retry_after: Duration::from_millis(ms) };
            let response = ApiError::from(error).into_response();
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], seconds);
        }
    }

    #[test]
    fn refusals_have_the_status_that_fits_them() {
        let status = |error: PublishError| ApiError::from(error).status.as_u16();
        assert_eq!(status(PublishError::TooLarge { bytes: 2, limit: 1 }), 413);
        assert_eq!(status(PublishError::Policy(Policy::Signed)), 409);
        assert_eq!(status(PublishError::Stopped), 503);
        assert_eq!(status(PublishError::NoAnswer(AskError::TimedOut)), 503);
        assert_eq!(ApiError::from(TopicError::Refused(SubscribeError::TooMany(9))).status.as_u16(), 503);
    }
}
