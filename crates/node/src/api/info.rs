//! What the node is, who its peers are, and who its static and trusted peers should be.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use peerage::server::wire::address;
use peerage::{NodeId, PeerAddress, PeerInfo, Status};
use serde::{Deserialize, Serialize};

use super::{Api, ApiError, body};

#[derive(Serialize)]
pub(super) struct NodeBody {
    id: String,
    agent: String,
    network: String,
    record: String,
    addresses: Vec<String>,
    api: String,
    metrics: String,
    /// 16 hexadecimal digits: as a number it would lose its last digits in JavaScript.
    instance: String,
    started_unix_ms: u64,
    version: &'static str,
}

pub(super) async fn node(State(api): State<Api>) -> Result<Json<NodeBody>, ApiError> {
    let setup = &api.0.setup;
    let local = setup.node.local().await?;
    let id = setup.node.id();
    Ok(Json(NodeBody {
        id: id.to_string(),
        agent: local.agent,
        network: local.network,
        record: local.record.to_string(),
        addresses: local.addresses.iter().map(|bare| address::with_id(bare, id).to_string()).collect(),
        api: format!("http://{}", setup.api),
        metrics: format!("http://{}/metrics", setup.metrics),
        instance: format!("{:016x}", local.instance),
        started_unix_ms: u64::try_from(api.0.started.as_millis()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION"),
    }))
}

#[derive(Serialize)]
pub(super) struct PeerBody {
    id: String,
    direction: &'static str,
    address: String,
    capabilities: Vec<String>,
    agent: String,
    #[serde(rename = "static")]
    is_static: bool,
    trusted: bool,
    rtt_us: Option<u64>,
    connected_since_unix_ms: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl From<PeerInfo> for PeerBody {
    fn from(peer: PeerInfo) -> PeerBody {
        PeerBody {
            id: peer.id.to_string(),
            direction: peer.direction.label(),
            address: address::from_tcp(peer.address).to_string(),
            capabilities: peer.capabilities.iter().map(ToString::to_string).collect(),
            agent: peer.agent,
            is_static: peer.is_static,
            trusted: peer.is_trusted,
            rtt_us: peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            connected_since_unix_ms: u64::try_from(peer.connected_at.as_millis()).unwrap_or(u64::MAX),
            bytes_in: peer.bytes_in,
            bytes_out: peer.bytes_out,
        }
    }
}

pub(super) async fn peers(State(api): State<Api>) -> Result<Json<Vec<PeerBody>>, ApiError> {
    Ok(Json(api.0.setup.node.peers().await?.into_iter().map(PeerBody::from).collect()))
}

#[derive(Serialize)]
pub(super) struct HealthBody {
    status: &'static str,
    reasons: Vec<String>,
}

pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<HealthBody>) {
    match api.0.setup.node.health().await {
        Ok(health) => {
            let status = if health.status == Status::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (status, Json(HealthBody { status: health.status.label(), reasons: health.reasons }))
        }
        Err(error) => {
            let reasons = vec![format!("the node does not answer: {error}")];
            (StatusCode::SERVICE_UNAVAILABLE, Json(HealthBody { status: "stopped", reasons }))
        }
    }
}

#[derive(Deserialize)]
struct AddressBody {
    address: String,
}

#[derive(Deserialize, Serialize)]
pub(super) struct IdBody {
    id: String,
}

impl From<NodeId> for IdBody {
    fn from(id: NodeId) -> IdBody {
        IdBody { id: id.to_string() }
    }
}

fn bad(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error.to_string())
}

pub(super) async fn add_static(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IdBody>, ApiError> {
    let AddressBody { address } = body::json(&api.0.bodies, &headers, body).await?;
    let peer: PeerAddress = address.parse().map_err(bad)?;
    let node = &api.0.setup.node;
    if peer.id == node.id() {
        return Err(bad("that is this node's own address; name another node"));
    }
    let id = peer.id;
    node.add_static(peer);
    Ok(Json(id.into()))
}

pub(super) async fn remove_static(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<IdBody>, ApiError> {
    let id = path_id(id)?;
    api.0.setup.node.remove_static(id);
    Ok(Json(id.into()))
}

pub(super) async fn add_trusted(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IdBody>, ApiError> {
    let IdBody { id } = body::json(&api.0.bodies, &headers, body).await?;
    let id: NodeId = id.parse().map_err(bad)?;
    api.0.setup.node.add_trusted(id);
    Ok(Json(id.into()))
}

pub(super) async fn remove_trusted(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<IdBody>, ApiError> {
    let id = path_id(id)?;
    api.0.setup.node.remove_trusted(id);
    Ok(Json(id.into()))
}

fn path_id(id: Result<Path<String>, PathRejection>) -> Result<NodeId, ApiError> {
    id.map_err(bad)?.0.parse().map_err(bad)
}
