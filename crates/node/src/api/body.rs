//! Reading a request's body: within a size, within a time, and within what all bodies may take together.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::ApiError;

/// What all bodies together may take: sixteen of the largest messages.
pub(super) const KIB_AT_A_TIME: u32 = 64 * 1024;
/// How long a body may take to come, and to wait for its turn.
const LIMIT: Duration = Duration::from_secs(30);
/// Largest JSON body, where no list is expected.
pub(super) const JSON: usize = 16 * 1024;
/// How much of a body that is refused is read and thrown away, and for how long. Who is still sending when
/// the connection is closed does not get to read why.
const IGNORED: usize = 64 * 1024 * 1024;
const IGNORING: Duration = Duration::from_secs(2);

/// A body, and its share of what all bodies may take.
pub(super) struct Held<'a> {
    pub(super) bytes: Bytes,
    _share: SemaphorePermit<'a>,
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read<'a>(
    shares: &'a Semaphore,
    limit: usize,
    headers: &HeaderMap,
    body: Body,
) -> Result<Held<'a>, ApiError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared > limit) {
        // Who asks before sending (`Expect: 100-continue`) is not asked to send.
        if !headers.contains_key(header::EXPECT) {
            ignore(body).await;
        }
        return Err(too_large(limit));
    }
    let kib = u32::try_from(declared.unwrap_or(limit).div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, KIB_AT_A_TIME);
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request's body did not come within 30 s");
    let share = timeout(LIMIT, shares.acquire_many(kib)).await.map_err(late)?;
    let share = share.map_err(|_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the API is shutting down"))?;
    let bytes = timeout(LIMIT, collect(body, limit)).await.map_err(late)??;
    Ok(Held { bytes, _share: share })
}

/// Reads a JSON body of at most `limit` bytes.
pub(super) async fn json<T: DeserializeOwned>(
    shares: &Semaphore,
    limit: usize,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let sentence = "send JSON, and say so: `Content-Type: application/json`";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    let held = read(shares, limit, headers, body).await?;
    serde_json::from_slice(&held.bytes)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, format!("the body is not the JSON expected: {error}")))
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let broken = |error| ApiError::new(StatusCode::BAD_REQUEST, format!("the request's body broke off: {error}"));
    let mut chunks = body.into_data_stream();
    let Some(first) = chunks.next().await.transpose().map_err(broken)? else { return Ok(Bytes::new()) };
    let Some(second) = chunks.next().await.transpose().map_err(broken)? else {
        return if first.len() > limit { Err(too_large(limit)) } else { Ok(first) };
    };
    let mut whole = Vec::with_capacity(first.len() + second.len());
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        if whole.len() + chunk.len() > limit {
            drop(whole);
            ignore(Body::from_stream(chunks)).await;
            return Err(too_large(limit));
        }
        whole.extend_from_slice(&chunk);
        next = chunks.next().await.transpose().map_err(broken)?;
    }
    Ok(whole.into())
}

async fn ignore(body: Body) {
    let mut chunks = body.into_data_stream();
    let ignoring = async {
        let mut ignored = 0;
        while let Some(Ok(chunk)) = chunks.next().await {
            ignored += chunk.len();
            if ignored > IGNORED {
                break;
            }
        }
    };
    drop(timeout(IGNORING, ignoring).await);
}

fn too_large(limit: usize) -> ApiError {
    let sentence = format!("the body is larger than the {limit} bytes that are taken here; send it in parts");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}
