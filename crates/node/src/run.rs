//! The life of the program: everything is opened, what there is to know is printed, then one line for each
//! change, until a signal or a failure ends it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage::server::wire::address;
use peerage::{Builder, Config, Direction, Event, Events, External, Node, NodeId, RecvError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{self, Guard, Setup};
use crate::cli::Settings;
use crate::http;
use crate::limits::{self, Changed, Changer, Refused};
use crate::metrics::Metrics;
use crate::output::Output;

/// First port of those tried for the API.
const API_PORT: u16 = 30380;
/// First port of those tried for metrics.
const METRICS_PORT: u16 = 30480;
/// How long the end may take. The node's own limits are within it: 3 s for its sessions, 1.2 s for its actors, 6 s for
/// what it remembers. A healthy one takes a fraction of a second.
const END: Duration = Duration::from_millis(10_500);
/// As a shell says it of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Why the program ends with an error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not start; the sentence says what to change.
    Start(String),
    /// It ran, and failed by itself.
    Later(String),
}

fn start(error: impl Display) -> Failure {
    Failure::Start(error.to_string())
}

/// Runs a node until a signal ends it.
pub(crate) async fn run(settings: Settings, output: Output) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(start)?;
    // Bound before anything is made: a port that is taken leaves nothing behind.
    let (api, api_at) = bound(http::bind(settings.api, API_PORT, "--api").await.map_err(start)?)?;
    let (scrape, scrape_at) = bound(http::bind(settings.metrics, METRICS_PORT, "--metrics").await.map_err(start)?)?;

    let metrics = Metrics::new();
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let config = limits::configuration(&settings).map_err(start)?;
    let (max_payload, max_request) = (config.gossip.max_payload, config.router.max_payload);
    let max_deadline = config.router.max_deadline;
    let (typed, fixed) = (settings.typed.clone(), settings.file.fixed.clone());
    let node = builder(settings, config).recorder(metrics.recorder()).start().await.map_err(start)?;
    let events = node.events().await.map_err(start)?;

    let (close, closing) = watch::channel(false);
    let guard = Guard { port: scrape_at.port() };
    let scraping = tokio::spawn(http::serve(scrape, metrics.router(guard), closing.clone()));
    let changer = Arc::new(Changer::new(node.clone(), typed, fixed));
    let setup = Setup {
        node: node.clone(),
        output: output.clone(),
        api: api_at,
        metrics: scrape_at,
        max_payload,
        max_request,
        max_deadline,
        changer: changer.clone(),
    };
    let serving = tokio::spawn(http::serve(api, api::router(setup), closing));
    let upkeep = metrics.keep_small();
    introduce(&node, api_at, scrape_at, &output).await?;
    let printing = tokio::spawn(print(node.clone(), events, output.clone()));

    let ended = loop {
        tokio::select! {
            biased;
            told = signals.next() => match told {
                Told::End => break end(&mut signals, &node, close, [printing, serving, scraping]).await,
                Told::Reload => reload(&changer, &output).await,
            },
            () = node.stopped() => {
                break Err(Failure::Later("the node failed and has stopped; `--log info` tells more".into()));
            }
        }
    };
    upkeep.abort();
    ended
}

/// Reads the file again, and says what came of it.
async fn reload(changer: &Changer, output: &Output) {
    match changer.reload().await {
        Ok(Changed { changed, needs_restart, .. }) => {
            let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
            if !needs_restart.is_empty() {
                output.line(format_args!("reloaded: {} must wait for a restart", list(needs_restart)));
            }
            match changed.is_empty() {
                true => output.line("reloaded: no limit changed"),
                false => output.line(format_args!("reloaded: {}", list(changed))),
            }
        }
        Err(Refused::Wrong(sentence)) => output.line(format_args!("not reloaded: {sentence}")),
        Err(Refused::Gone(error)) => output.line(format_args!("not reloaded: the node does not answer: {error}")),
    }
}

/// The node that the command line asks for.
fn builder(settings: Settings, config: Config) -> Builder {
    let mut builder = Builder::recommended()
        .config(config)
        .data_dir(settings.data_dir)
        .network(settings.network)
        .fork_id(settings.fork_id)
        .discovery(settings.discovery)
        .exchange(settings.exchange)
        .dialing(settings.dialing)
        .listening(settings.listening)
        .churn(settings.churn)
        .message_events(settings.message_events)
        .withhold(settings.withheld)
        .configure(|config| {
            config.external = settings.external;
            config.nat = settings.nat.unwrap_or(config.nat);
        })
        .configure(|config| config.admission = settings.admission)
        .mdns(settings.mdns);
    if let Some(path) = settings.nodes_file {
        builder = builder.nodes_file(path);
    }
    if let Some(server) = settings.dns_server {
        builder = builder.dns_server(server);
    }
    for link in settings.dns_lists {
        builder = builder.dns_list(&link.to_string());
    }
    if let Some(secret) = settings.secret {
        builder = builder.network_secret(secret);
    }
    if let Some(agent) = settings.agent {
        builder = builder.agent(agent);
    }
    builder = settings.listen.into_iter().fold(builder, Builder::listen);
    builder = settings.bootnodes.into_iter().fold(builder, Builder::bootnode);
    builder = settings.statics.into_iter().fold(builder, Builder::static_peer);
    settings.trusted.into_iter().fold(builder, Builder::trusted)
}

fn bound(listener: TcpListener) -> Result<(TcpListener, SocketAddr), Failure> {
    let address = listener.local_addr().map_err(start)?;
    Ok((listener, address))
}

/// Prints what others need to know of the node.
async fn introduce(node: &Node, api: SocketAddr, metrics: SocketAddr, output: &Output) -> Result<(), Failure> {
    let local = node.local().await.map_err(start)?;
    output.line(format_args!("id: {}", node.id()));
    if local.addresses.is_empty() {
        output.line("not listening: no connections are taken");
    }
    for bare in &local.addresses {
        output.line(format_args!("listening: {}", address::with_id(bare, node.id())));
    }
    print_external(&local.external, output);
    output.line(format_args!("record: {}", local.record));
    output.line(format_args!("api: http://{api}"));
    output.line(format_args!("metrics: http://{metrics}/metrics"));
    output.line("ready");
    Ok(())
}

/// Prints where others reach the node, and how that is known.
fn print_external(external: &[External], output: &Output) {
    for external in external {
        // Discovery's port may be another one; the API tells both.
        let socket = external.tcp_socket().map(address::from_tcp).or(external.udp_socket().map(address::from_udp));
        if let Some(address) = socket {
            output.line(format_args!("external: {address} {}", external.origin.label()));
        }
    }
}

/// Prints a line for each change among the peers, those that came before `events` began included.
async fn print(node: Node, mut events: Events, output: Output) {
    let up = |id: NodeId, direction: Direction, socket: SocketAddr| {
        output.line(format_args!("peer up: {id} {} {}", direction.label(), address::from_tcp(socket)));
    };
    let mut shown = BTreeSet::new();
    // A node that stopped meanwhile has no peers to show.
    for peer in node.peers().await.unwrap_or_default() {
        up(peer.id, peer.direction, peer.address);
        shown.insert(peer.id);
    }
    loop {
        match events.recv().await {
            Ok(Event::PeerUp { id, direction, address, .. }) => {
                // One that came just before it was asked for is among those shown.
                if shown.insert(id) {
                    up(id, direction, address);
                }
            }
            Ok(Event::PeerDown { id, reason, by, lived }) => {
                shown.remove(&id);
                let (reason, by) = (reason.label(), by.label());
                output.line(format_args!("peer down: {id} {reason} (by {by}) after {:.1} s", lived.as_secs_f64()));
            }
            Ok(Event::LocalChanged { external, .. }) => match external.is_empty() {
                true => output.line("external: none"),
                false => print_external(&external, &output),
            },
            Ok(Event::Shedding { level, why }) => match why {
                Some(why) => output.line(format_args!("shedding: {} ({why})", level.label())),
                None => output.line("shedding: nothing any more"),
            },
            Ok(Event::MsgSent { id, protocol, lane, size, .. }) => {
                output.line(format_args!("message sent: {id} {protocol} {} {size} B", lane.label()));
            }
            Ok(Event::MsgReceived { id, protocol, lane, size, .. }) => {
                output.line(format_args!("message received: {id} {protocol} {} {size} B", lane.label()));
            }
            Ok(Event::StreamOpened { id, protocol, stream, by_us, .. }) => {
                let by = if by_us { "us" } else { "the peer" };
                output.line(format_args!("stream opened: {id} {protocol} {stream} by {by}"));
            }
            Ok(Event::StreamEnded { id, protocol, stream, sent, received, .. }) => {
                output
                    .line(format_args!("stream ended: {id} {protocol} {stream}, {sent} B sent, {received} B received"));
            }
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "peer events were not printed: too slow"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Ends everything in order. A second signal ends the program at once.
async fn end(
    signals: &mut Signals,
    node: &Node,
    close: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 3],
) -> Result<(), Failure> {
    let ending = async {
        // Ends the streams of events too, so that the servers have little left to wait for.
        node.shutdown().await;
        close.send_replace(true);
        for task in tasks {
            drop(task.await);
        }
    };
    tokio::select! {
        biased;
        () = signals.end() => std::process::exit(INTERRUPTED),
        ended = tokio::time::timeout(END, ending) => {
            ended.map_err(|_| Failure::Later("the node did not stop in time and was cut off".into()))
        }
    }
}

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    /// SIGHUP: read the file again.
    #[cfg_attr(not(unix), allow(dead_code))]
    Reload,
}

/// SIGINT, SIGTERM and SIGHUP; elsewhere, Ctrl-C.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From now on, signals wait for [`next`](Signals::next).
    fn new() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {})
    }

    async fn next(&mut self) -> Told {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await
        }
        Told::End
    }
}

impl Signals {
    /// Returns when the program is to end.
    async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}
