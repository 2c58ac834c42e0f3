//! What the node is, how it is, and who its peers are.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use peerage::server::wire::address;
use peerage::{External, Finding, Health, Multiaddr, PeerInfo, Status};
use serde::Serialize;
use serde_json::Value;

use super::{Api, ApiError};

#[derive(Serialize)]
pub(super) struct NodeBody {
    id: String,
    agent: String,
    network: String,
    record: String,
    addresses: Vec<String>,
    /// Where others reach it, beyond what it is bound to.
    external: Vec<ExternalBody>,
    api: String,
    metrics: String,
    /// 16 hexadecimal digits: as a number it would lose its last digits in JavaScript.
    instance: String,
    /// `unknown`, `reachable`, `unreachable` or `not_listening`.
    reachability: &'static str,
    started_unix_ms: u64,
    version: &'static str,
    /// What its protocols tell of it, by name.
    protocols: BTreeMap<String, Value>,
}

#[derive(Serialize)]
pub(super) struct ExternalBody {
    address: String,
    /// `static`, `mapped` or `predicted`.
    source: &'static str,
}

/// One for TCP and one for UDP, as far as there are.
pub(super) fn external(known: &[External]) -> Vec<ExternalBody> {
    let addresses = known.iter().flat_map(|external| {
        let (tcp, udp) = (external.tcp_socket().map(address::from_tcp), external.udp_socket().map(address::from_udp));
        let body = |address: Multiaddr| ExternalBody { address: address.to_string(), source: external.origin.label() };
        [tcp, udp].into_iter().flatten().map(body).collect::<Vec<_>>()
    });
    addresses.collect()
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
        external: external(&local.external),
        api: format!("http://{}", setup.api),
        metrics: format!("http://{}/metrics", setup.metrics),
        instance: format!("{:016x}", local.instance),
        reachability: local.reachability.map_or("not_listening", |state| state.label()),
        started_unix_ms: u64::try_from(api.0.started.as_millis()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION"),
        protocols: local.protocols,
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
    blame: u32,
    rtt_us: Option<u64>,
    connected_since_unix_ms: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// What the protocols that both speak tell of it, by name.
    protocols: BTreeMap<String, Value>,
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
            blame: peer.blame,
            rtt_us: peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            connected_since_unix_ms: u64::try_from(peer.connected_at.as_millis()).unwrap_or(u64::MAX),
            bytes_in: peer.bytes_in,
            bytes_out: peer.bytes_out,
            protocols: peer.protocols,
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
    checks: Vec<CheckBody>,
}

#[derive(Serialize)]
struct CheckBody {
    check: &'static str,
    /// `pass`, `fail` or `off`.
    state: &'static str,
    since_unix_ms: u64,
    sentence: String,
    threshold: String,
}

impl From<Finding> for CheckBody {
    fn from(finding: Finding) -> CheckBody {
        CheckBody {
            check: finding.check.label(),
            state: finding.state.label(),
            since_unix_ms: finding.since.unix_millis(),
            sentence: finding.sentence,
            threshold: finding.threshold,
        }
    }
}

/// Whether it is well: for who sends work to it.
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<HealthBody>) {
    match api.0.setup.node.health().await {
        Ok(Health { status, reasons, checks }) => {
            let code = if status == Status::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let checks = checks.into_iter().map(CheckBody::from).collect();
            (code, Json(HealthBody { status: status.label(), reasons, checks }))
        }
        Err(error) => {
            let reasons = vec![format!("the node does not answer: {error}")];
            (StatusCode::SERVICE_UNAVAILABLE, Json(HealthBody { status: "stopped", reasons, checks: Vec::new() }))
        }
    }
}

#[derive(Serialize)]
pub(super) struct LiveBody {
    live: bool,
}

/// Whether it answers at all: for who starts it again if it does not. That it lacks peers, or sheds load, is no reason to.
pub(super) async fn live(State(api): State<Api>) -> (StatusCode, Json<LiveBody>) {
    match api.0.setup.node.peer_count().await {
        Ok(_) => (StatusCode::OK, Json(LiveBody { live: true })),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(LiveBody { live: false })),
    }
}
