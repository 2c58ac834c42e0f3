//! Requests and streams between two whole nodes: through the actors and the session of both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use peerage_server::router::{Handler, HandlerConfig, HandlerId, Router};
use peerage_server::wire::{Keypair, NodeId};
use peerage_server::{Config, PeerAddress, ServerMailbox, start};
use tokio::time::Instant;

use crate::job::{Impl, Job, Values, Work};
use crate::role::Console;
use crate::sessions::round_trips;
use crate::{Failure, node, streams};

const ACCEPTING: u8 = 1;
const DIALLING: u8 = 2;
/// The one handler: the answer is the question.
pub(crate) const HANDLER: &str = "echo/1";
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// For a connection and what it is told at first.
const READY: Duration = Duration::from_secs(10);

async fn node(number: u8) -> Result<ServerMailbox, Failure> {
    let config = Config { discovery_on: false, exchange_on: false, ..Config::local() };
    Ok(start(node::args(number, config)).await?)
}

/// The accepting process: answers.
pub(crate) async fn accept(job: Job, console: &mut Console) -> Result<Option<Values>, Failure> {
    let server = node(ACCEPTING).await?;
    let handler = match job.by {
        Impl::PeerageTask => Handler::task(|incoming| async move { Ok(incoming.payload) }),
        _ => Handler::function(|incoming| Ok(incoming.payload)),
    };
    // As many as are out: what is throttled is not measured.
    let config = HandlerConfig { per_peer: 256, ..HandlerConfig::concurrent() };
    server.serve(HANDLER, config, handler).await?;
    streams::serve(&server).await?;
    let local = PeerAddress::from(&*server.local().await?.record);
    console.listening(*local.addresses.first().ok_or("it listens nowhere")?);
    // Until its stdin ends.
    std::future::pending::<()>().await;
    Ok(None)
}

/// The dialling process: asks, and measures.
pub(crate) async fn dial(job: Job, at: SocketAddr, console: &mut Console) -> Result<Option<Values>, Failure> {
    let server = node(DIALLING).await?;
    let id = Keypair::from_seed([ACCEPTING; 32]).id();
    server.add_static(PeerAddress { id, addresses: vec![at], hosts: Vec::new() }).await?;
    let begun = Instant::now();
    while server.router().request(id, HANDLER, "ready?", DEADLINE).await.is_err() {
        if begun.elapsed() > READY {
            return Err("the other node does not answer".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match job.work {
        Work::Request { size } => one_by_one(server.router(), id, job, size).await.map(Some),
        Work::Requests { size, outstanding } => many(&server, id, job, size, outstanding, console).await.map(Some),
        Work::Stream { bytes } => streams::dial(server.router(), id, job, bytes, console).await.map(Some),
        work => Err(format!("a router does no {work:?}").into()),
    }
}

async fn one_by_one(router: &Router, to: NodeId, job: Job, size: usize) -> Result<Values, Failure> {
    let question = Bytes::from(vec![7; size]);
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed() < job.warm + job.run {
        let asked = Instant::now();
        router.request(to, HANDLER, question.clone(), DEADLINE).await?;
        if start.elapsed() >= job.warm {
            samples.push(asked.elapsed());
        }
    }
    Ok(round_trips(samples))
}

/// As many askers as requests may be out, each of which asks again when it has its answer.
async fn many(
    server: &ServerMailbox,
    to: NodeId,
    job: Job,
    size: usize,
    outstanding: usize,
    console: &mut Console,
) -> Result<Values, Failure> {
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (question, handler) = (Bytes::from(vec![7; size]), HandlerId::of(HANDLER));
    for _ in 0..outstanding {
        let (router, question) = (server.router().clone(), question.clone());
        let (answered, failed) = (answered.clone(), failed.clone());
        tokio::spawn(async move {
            loop {
                let count = match router.request(to, handler, question.clone(), DEADLINE).await {
                    Ok(_) => &answered,
                    Err(_) => &failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(job.warm).await;
    console.mark().await?;
    let (start, before) = (Instant::now(), answered.load(Ordering::Relaxed));
    tokio::time::sleep(job.run).await;
    let (seconds, count) = (start.elapsed().as_secs_f64(), answered.load(Ordering::Relaxed) - before);
    console.mark().await?;
    match failed.load(Ordering::Relaxed) {
        0 => Ok(Values::from([("count".to_owned(), count as f64), ("seconds".to_owned(), seconds)])),
        failed => Err(format!("{failed} requests failed").into()),
    }
}
