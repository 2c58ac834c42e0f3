//! The node's metrics, as text for Prometheus. The recorder is this node's own, never the process's global one.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::task::JoinHandle;

use crate::api::{self, Guard};

/// How often histograms are condensed, so that they do not grow when nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);
/// Bounds for what is measured in seconds: from a hash to a handshake that timed out.
const SECONDS: [f64; 12] = [1e-5, 1e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 1.0, 5.0];

/// A node's metrics.
pub(crate) struct Metrics {
    recorder: Arc<PrometheusRecorder>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .expect("there are bounds in the list above");
        Metrics { recorder: Arc::new(builder.build_recorder()) }
    }

    /// Who records.
    pub(crate) fn recorder(&self) -> Arc<dyn metrics::Recorder + Send + Sync> {
        self.recorder.clone()
    }

    /// Keeps the recorder small until the task is aborted.
    pub(crate) fn keep_small(&self) -> JoinHandle<()> {
        let handle = self.recorder.handle();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                handle.run_upkeep();
            }
        })
    }

    /// `/metrics`, for requests that the guard lets pass.
    pub(crate) fn router(&self, guard: Guard) -> Router {
        Router::new()
            .route("/metrics", get(render))
            .fallback(api::not_found)
            .method_not_allowed_fallback(api::wrong_method)
            .layer(middleware::from_fn_with_state(guard, api::check))
            .with_state(Rendered { handle: self.recorder.handle(), started: SystemTime::now() })
    }
}

#[derive(Clone)]
struct Rendered {
    handle: PrometheusHandle,
    started: SystemTime,
}

async fn render(State(rendered): State<Rendered>) -> impl IntoResponse {
    rendered.handle.run_upkeep();
    let mut text = rendered.handle.render();
    if let Ok(started) = rendered.started.duration_since(UNIX_EPOCH) {
        gauge(&mut text, "process_start_time_seconds", "When the process was started, since 1970.", started.as_secs());
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let lines = [
            ("VmRSS:", "process_resident_memory_bytes", "Memory in use."),
            ("VmHWM:", "process_resident_memory_peak_bytes", "Most memory that was ever in use."),
        ];
        for (field, name, help) in lines {
            if let Some(kib) = kib(&status, field) {
                gauge(&mut text, name, help, kib * 1024);
            }
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n\n"));
}

/// A line of Linux's `/proc/PID/status`, in KiB.
fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_lines() {
        let status = "Name:\tnode\nVmHWM:\t   12345 kB\nVmRSS:\t    9876 kB\n";
        assert_eq!(
            (kib(status, "VmRSS:"), kib(status, "VmHWM:"), kib(status, "VmX:")),
            (Some(9876), Some(12345), None)
        );
    }
}
