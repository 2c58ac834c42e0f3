//! Whom the node has nothing to do with: bans, which end by themselves, and the policy of admission.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use peerage::{Admission, Banned, IpNet, NodeId};
use serde::{Deserialize, Serialize};

use super::error::bad;
use super::{Api, ApiError, body};
use crate::cli::ip_net;

/// Longest ban: a year. What is to last is for the policy of admission.
const LONGEST_BAN: u64 = 365 * 24 * 3600;
/// Largest policy: 512 networks and some 15,000 ids.
const POLICY: usize = 1024 * 1024;

/// One ban. A field that is not known is refused: it was meant to say something.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BanBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    /// How long, or how much longer.
    seconds: u64,
}

impl BanBody {
    fn new(banned: Banned, time: Duration) -> BanBody {
        // A ban that has begun to end is still one.
        let seconds = u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        match banned {
            Banned::Id(id) => BanBody { id: Some(id.to_string()), network: None, seconds },
            Banned::Network(network) => BanBody { id: None, network: Some(network.to_string()), seconds },
        }
    }
}

pub(super) async fn bans(State(api): State<Api>) -> Result<Json<Vec<BanBody>>, ApiError> {
    let bans = api.0.setup.node.bans().await?;
    Ok(Json(bans.into_iter().map(|(banned, left)| BanBody::new(banned, left)).collect()))
}

/// A ban that lasts longer already stays as it is.
pub(super) async fn ban(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Json<BanBody>, ApiError> {
    let asked: BanBody = body::json(&api.0.bodies, body::JSON, &headers, body).await?;
    let banned = match (&asked.id, &asked.network) {
        (Some(id), None) => Banned::Id(id.parse().map_err(bad)?),
        (None, Some(network)) => Banned::Network(ip_net(network).map_err(bad)?),
        _ => return Err(bad("name either an `id` or a `network`")),
    };
    if !(1..=LONGEST_BAN).contains(&asked.seconds) {
        return Err(bad(format!(
            "`seconds` is from 1 to {LONGEST_BAN}; what is to last longer is for PUT /v1/admission"
        )));
    }
    let node = &api.0.setup.node;
    if banned == Banned::Id(node.id()) {
        return Err(bad("that is this node itself; name another node"));
    }
    let time = Duration::from_secs(asked.seconds);
    node.ban(banned, time);
    Ok(Json(BanBody::new(banned, time)))
}

#[derive(Serialize)]
pub(super) struct UnbannedBody {
    unbanned: String,
}

pub(super) async fn unban(
    State(api): State<Api>,
    banned: Result<Path<String>, PathRejection>,
) -> Result<Json<UnbannedBody>, ApiError> {
    let Path(text) = banned.map_err(bad)?;
    let banned = match (text.parse::<NodeId>(), ip_net(&text)) {
        (Ok(id), _) => Banned::Id(id),
        (_, Ok(network)) => Banned::Network(network),
        (Err(error), Err(remedy)) => return Err(bad(format!("{error}, and {remedy}, with %2F for the `/`"))),
    };
    api.0.setup.node.unban(banned);
    Ok(Json(UnbannedBody { unbanned: banned.to_string() }))
}

/// The policy. A field that is left out admits everybody, and one that is not known is refused: a misspelt list
/// would open the node.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdmissionBody {
    #[serde(default)]
    allowed: Vec<String>,
    #[serde(default)]
    denied: Vec<String>,
    #[serde(default)]
    only: Option<Vec<String>>,
}

impl From<&Admission> for AdmissionBody {
    fn from(admission: &Admission) -> AdmissionBody {
        let texts = |networks: &[IpNet]| networks.iter().map(IpNet::to_string).collect();
        let ids = |ids: &BTreeSet<NodeId>| ids.iter().map(NodeId::to_string).collect();
        AdmissionBody {
            allowed: texts(&admission.allowed),
            denied: texts(&admission.denied),
            only: admission.only.as_ref().map(ids),
        }
    }
}

impl AdmissionBody {
    fn read(&self) -> Result<Admission, ApiError> {
        let networks = |texts: &[String]| texts.iter().map(|text| ip_net(text)).collect::<Result<_, _>>().map_err(bad);
        let ids = |texts: &Vec<String>| texts.iter().map(|text| text.parse::<NodeId>()).collect::<Result<_, _>>();
        Ok(Admission {
            allowed: networks(&self.allowed)?,
            denied: networks(&self.denied)?,
            only: self.only.as_ref().map(ids).transpose().map_err(bad)?,
        })
    }
}

pub(super) async fn admission(State(api): State<Api>) -> Result<Json<AdmissionBody>, ApiError> {
    Ok(Json((&api.0.setup.node.admission().await?).into()))
}

/// Replaces the whole policy; peers that it does not admit are dropped.
pub(super) async fn set_admission(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<AdmissionBody>, ApiError> {
    let asked: AdmissionBody = body::json(&api.0.bodies, POLICY, &headers, body).await?;
    let admission = asked.read()?;
    let set = AdmissionBody::from(&admission);
    api.0.setup.node.set_admission(admission).map_err(|error| bad(format!("{error}; name larger ones")))?;
    Ok(Json(set))
}
