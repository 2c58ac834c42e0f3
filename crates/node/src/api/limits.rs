//! The limits that can change while the node runs.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::Value;

use super::error::bad;
use super::{Api, ApiError, body};
use crate::limits::{Changed, Refused};

/// Largest change: a thousand shared addresses.
const LARGEST: usize = 128 * 1024;

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        match refused {
            Refused::Wrong(sentence) => bad(sentence),
            Refused::Gone(error) => error.into(),
        }
    }
}

pub(super) async fn limits(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    Ok(Json(api.0.setup.changer.limits().await?))
}

/// Changes those that are named, all of them or none.
pub(super) async fn change(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Json<Changed>, ApiError> {
    let patch: Value = body::json(&api.0.bodies, LARGEST, &headers, body).await?;
    Ok(Json(api.0.setup.changer.patch(&patch).await?))
}

/// Makes them what the command line and the file say now.
pub(super) async fn reload(State(api): State<Api>) -> Result<Json<Changed>, ApiError> {
    Ok(Json(api.0.setup.changer.reload().await?))
}
