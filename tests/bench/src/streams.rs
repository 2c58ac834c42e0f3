//! Streams between two whole nodes: how much goes through one, and how long a question takes on the same session
//! meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::ServerMailbox;
use peerage_server::router::codec::Bincode;
use peerage_server::router::{IncomingStream, Router, Stream, StreamHandler, StreamHandlerConfig, StreamReader};
use peerage_server::wire::NodeId;
use peerage_server::wire::frame::Lane;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Failure;
use crate::job::{Impl, Job, Values};
use crate::requests::{DEADLINE, HANDLER};
use crate::role::Console;
use crate::sessions::{CHUNK, SMALL, round_trips};
use crate::stats::Window;

/// The one handler: gives as many bytes as it is asked for.
const FLOW: &str = "flow/1";
/// How often a question is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(2);

pub(crate) async fn serve(server: &ServerMailbox) -> Result<(), Failure> {
    let handler = StreamHandler::task(|IncomingStream { stream: Stream { mut writer, mut reader }, .. }| async move {
        let Ok(Some(mut left)) = reader.recv_value::<u64, _>(&Bincode, 16).await else { return };
        // Making the bytes is not what is measured.
        let chunk = Bytes::from(vec![7; CHUNK]);
        while left > 0 {
            let next = chunk.slice(..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK)));
            left -= next.len() as u64;
            if writer.write(next).await.is_err() {
                return;
            }
        }
        // Who asked has all, or has gone.
        let _ = writer.finish();
    });
    server.serve_streams(FLOW, StreamHandlerConfig::recommended(), handler).await?;
    Ok(())
}

async fn flow(router: &Router, from: NodeId, bytes: u64) -> Result<StreamReader, Failure> {
    let Stream { mut writer, reader } = router.open_on(from, FLOW, Lane::Bulk).await?;
    writer.send_value(&Bincode, &bytes).await?;
    writer.finish()?;
    Ok(reader)
}

/// Reads for the length of the job, or all of so many bytes, and asks a question every two milliseconds.
pub(crate) async fn dial(
    router: &Router,
    from: NodeId,
    job: Job,
    bytes: Option<u64>,
    console: &mut Console,
) -> Result<Values, Failure> {
    // Kept to the end, and never read.
    let _unread = match job.by {
        Impl::PeerageUnread => Some(flow(router, from, u64::MAX).await?),
        _ => None,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask(router.clone(), from, stop.clone()));
    console.mark().await?;
    let reader = flow(router, from, bytes.unwrap_or(u64::MAX)).await?;
    let mb_s = match bytes {
        Some(bytes) => all(reader, bytes).await?,
        None => rate(reader, Window::new(job.warm, job.run, 1)).await?,
    };
    stop.store(true, Ordering::Relaxed);
    let questions = round_trips(asking.await??);
    console.mark().await?;
    let questions = questions.into_iter().map(|(name, value)| (format!("ping_{name}"), value));
    Ok(questions.chain([("mb_s".to_owned(), mb_s)]).collect())
}

async fn rate(mut reader: StreamReader, mut window: Window) -> Result<f64, Failure> {
    while let Some(bytes) = reader.read().await? {
        if let Some(rate) = window.arrived(bytes.len()) {
            return Ok(rate.bytes / 1e6);
        }
    }
    Err("the stream ended before the window did".into())
}

async fn all(mut reader: StreamReader, wanted: u64) -> Result<f64, Failure> {
    let (start, mut came) = (Instant::now(), 0);
    while let Some(bytes) = reader.read().await? {
        came += bytes.len() as u64;
    }
    if came != wanted {
        return Err(format!("{came} bytes of {wanted} came").into());
    }
    Ok(came as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Those that are late count: the next is asked when the last is answered.
async fn ask(router: Router, whom: NodeId, stop: Arc<AtomicBool>) -> Result<Vec<Duration>, Failure> {
    let question = Bytes::from(vec![7; SMALL]);
    let mut ticks = tokio::time::interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let asked = Instant::now();
        router.request(whom, HANDLER, question.clone(), DEADLINE).await?;
        samples.push(asked.elapsed());
    }
    Ok(samples)
}
