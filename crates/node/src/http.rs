//! Serving HTTP on loopback: a bounded number of connections, each with a time limit for its requests' heads,
//! all of which end when the program says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at a time; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 256;
/// How long a request's head may take to come, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);
/// What a connection may buffer of what it reads.
const BUFFER: usize = 64 * 1024;
/// How long answers in progress may take once the program ends.
const GRACE: Duration = Duration::from_millis(300);
/// How many ports after a default one are tried.
const PORTS_TRIED: u16 = 100;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("{0} is in use by another program: name another port with {1} (0 takes a free one)")]
    Taken(SocketAddr, &'static str),
    #[error("cannot listen on {0}: {2}; name another address with {1}")]
    Failed(SocketAddr, &'static str, io::Error),
    #[error("no port from {0} to {1} of 127.0.0.1 is free: name another one with {2} (0 takes a free one)")]
    NonFree(u16, u16, &'static str),
}

/// Binds the address that was asked for, or else the default port of 127.0.0.1 or the next free one.
pub(crate) async fn bind(
    asked: Option<SocketAddr>,
    default_port: u16,
    flag: &'static str,
) -> Result<TcpListener, BindError> {
    if let Some(address) = asked {
        return TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken(address, flag),
            _ => BindError::Failed(address, flag, error),
        });
    }
    let last = default_port + PORTS_TRIED - 1;
    for port in default_port..=last {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(BindError::Failed(address, flag, error)),
        }
    }
    Err(BindError::NonFree(default_port, last, flag))
}

/// Serves until `closing` says so (or nobody is left to say it), and for a moment after that.
pub(crate) async fn serve(listener: TcpListener, router: Router, mut closing: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let slot = slots.clone().acquire_owned().await;
            (listener.accept().await, slot)
        };
        tokio::select! {
            biased;
            () = closes(&mut closing) => break,
            (accepted, slot) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, router.clone(), closing.clone());
                    connections.spawn(async move {
                        let _slot = slot;
                        connection.await;
                    });
                }
                Err(error) => {
                    // No file descriptor left, most likely; some will be.
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    // Each ends by itself within the grace period.
    while connections.join_next().await.is_some() {}
}

/// Returns when it is time to close. If nobody is left to say so, it is.
async fn closes(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

async fn connection(stream: TcpStream, router: Router, mut closing: watch::Receiver<bool>) {
    // Small answers on connections that live on must not wait for more.
    drop(stream.set_nodelay(true));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = closes(&mut closing) => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
