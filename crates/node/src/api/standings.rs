//! How peers stand in gossip, and why: scores by their parts, meshes, and the last prune.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use peerage::Standing;
use peerage::server::gossip::PruneReason;
use peerage::server::gossip::score::Breakdown;
use serde::Serialize;

use super::peers::{IdPath, path_id};
use super::{Api, ApiError};

/// A score, in thousandths of a point; the parts add up to it.
#[derive(Serialize)]
struct ScoreBody {
    total: i64,
    in_mesh: i64,
    firsts: i64,
    silence: i64,
    debt: i64,
    invalid: i64,
    application: i64,
    crowd: i64,
    behaviour: i64,
    slow: i64,
}

impl From<Breakdown> for ScoreBody {
    fn from(score: Breakdown) -> ScoreBody {
        let Breakdown { score: total, in_mesh, firsts, silence, debt, invalid, application, crowd, behaviour, slow } =
            score;
        ScoreBody { total, in_mesh, firsts, silence, debt, invalid, application, crowd, behaviour, slow }
    }
}

#[derive(Serialize)]
pub(super) struct StandingBody {
    id: String,
    /// How many topics it wants.
    topics: usize,
    /// In which of this node's meshes it is.
    meshes: Vec<String>,
    score: ScoreBody,
    /// The same in words, without what is nothing.
    why: String,
    /// Why it was let go from a mesh last; nothing if it was not.
    pruned: Option<&'static str>,
}

impl From<Standing> for StandingBody {
    fn from(standing: Standing) -> StandingBody {
        StandingBody {
            id: standing.id.to_string(),
            topics: standing.topics,
            meshes: standing.meshes.iter().map(|topic| topic.as_str().to_owned()).collect(),
            why: standing.score.to_string(),
            score: standing.score.into(),
            pruned: standing.pruned.map(PruneReason::label),
        }
    }
}

pub(super) async fn standings(State(api): State<Api>) -> Result<Json<Vec<StandingBody>>, ApiError> {
    Ok(Json(api.0.setup.node.standings().await?.into_iter().map(StandingBody::from).collect()))
}

/// Of one peer; a node that is none has no standing.
pub(super) async fn standing(State(api): State<Api>, id: IdPath) -> Result<Json<StandingBody>, ApiError> {
    let id = path_id(id)?;
    let standings = api.0.setup.node.standings().await?;
    let found = standings.into_iter().find(|standing| standing.id == id);
    let none =
        || ApiError::new(StatusCode::NOT_FOUND, format!("{id} is no peer that gossips; GET /v1/peers lists all"));
    found.map(|standing| Json(standing.into())).ok_or_else(none)
}
