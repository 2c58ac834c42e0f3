//! Who the node's static and trusted peers should be, and peers that are to go.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use peerage::server::wire::{Host, address};
use peerage::{NodeId, PeerAddress};
use serde::{Deserialize, Serialize};

use super::error::bad;
use super::{Api, ApiError, body};

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

pub(super) type IdPath = Result<Path<String>, PathRejection>;

pub(super) fn path_id(id: IdPath) -> Result<NodeId, ApiError> {
    id.map_err(bad)?.0.parse().map_err(bad)
}

#[derive(Serialize)]
pub(super) struct StaticBody {
    id: String,
    /// Each as it can be given to `POST`.
    addresses: Vec<String>,
}

impl From<PeerAddress> for StaticBody {
    fn from(peer: PeerAddress) -> StaticBody {
        let named = peer.hosts.iter().map(Host::to_multiaddr);
        let numbered = peer.addresses.iter().copied().map(address::from_tcp);
        let whole = |bare| address::with_id(&bare, peer.id).to_string();
        StaticBody { id: peer.id.to_string(), addresses: named.chain(numbered).map(whole).collect() }
    }
}

pub(super) async fn statics(State(api): State<Api>) -> Result<Json<Vec<StaticBody>>, ApiError> {
    Ok(Json(api.0.setup.node.statics().await?.into_iter().map(StaticBody::from).collect()))
}

pub(super) async fn add_static(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IdBody>, ApiError> {
    let AddressBody { address } = body::json(&api.0.bodies, body::JSON, &headers, body).await?;
    let peer: PeerAddress = address.parse().map_err(bad)?;
    let node = &api.0.setup.node;
    let id = peer.id;
    node.add_static(peer).await?;
    Ok(Json(id.into()))
}

pub(super) async fn remove_static(State(api): State<Api>, id: IdPath) -> Result<Json<IdBody>, ApiError> {
    let id = path_id(id)?;
    api.0.setup.node.remove_static(id);
    Ok(Json(id.into()))
}

pub(super) async fn trusted(State(api): State<Api>) -> Result<Json<Vec<IdBody>>, ApiError> {
    Ok(Json(api.0.setup.node.trusted().await?.into_iter().map(IdBody::from).collect()))
}

pub(super) async fn add_trusted(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<IdBody>, ApiError> {
    let IdBody { id } = body::json(&api.0.bodies, body::JSON, &headers, body).await?;
    let id: NodeId = id.parse().map_err(bad)?;
    api.0.setup.node.add_trusted(id);
    Ok(Json(id.into()))
}

pub(super) async fn remove_trusted(State(api): State<Api>, id: IdPath) -> Result<Json<IdBody>, ApiError> {
    let id = path_id(id)?;
    api.0.setup.node.remove_trusted(id);
    Ok(Json(id.into()))
}

/// Answers when the peer is gone; also if there was none. It is no static peer any more.
pub(super) async fn remove(State(api): State<Api>, id: IdPath) -> Result<Json<IdBody>, ApiError> {
    let id = path_id(id)?;
    api.0.setup.node.remove(id).await?;
    Ok(Json(id.into()))
}
