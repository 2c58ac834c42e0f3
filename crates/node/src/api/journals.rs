//! Journals of the node's machines, written when asked.

#[cfg(feature = "journal")]
pub(super) use on::dump;

#[cfg(feature = "journal")]
mod on {
    use axum::Json;
    use axum::extract::State;
    use axum::http::StatusCode;
    use peerage::{JournalError, JournalFile};
    use serde::Serialize;

    use super::super::{Api, ApiError};

    #[derive(Serialize)]
    pub(crate) struct JournalBody {
        machine: &'static str,
        life: u32,
        crashed: bool,
        entries: usize,
        path: String,
    }

    impl From<JournalFile> for JournalBody {
        fn from(file: JournalFile) -> JournalBody {
            let JournalFile { machine, life, crashed, entries, path } = file;
            JournalBody { machine, life, crashed, entries, path: path.display().to_string() }
        }
    }

    impl From<JournalError> for ApiError {
        fn from(error: JournalError) -> ApiError {
            let status = match error {
                JournalError::NoDataDir => StatusCode::CONFLICT,
                JournalError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                JournalError::Ending(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            ApiError::new(status, error.to_string())
        }
    }

    pub(crate) async fn dump(State(api): State<Api>) -> Result<Json<Vec<JournalBody>>, ApiError> {
        let files = api.0.setup.node.dump_journals().await?;
        Ok(Json(files.into_iter().map(JournalBody::from).collect()))
    }
}

/// The answer of a node that keeps none.
#[cfg(not(feature = "journal"))]
pub(super) async fn dump() -> super::ApiError {
    super::ApiError::new(
        axum::http::StatusCode::NOT_IMPLEMENTED,
        "this node was built without journals; build it with `cargo build -p node --features journal`",
    )
}
