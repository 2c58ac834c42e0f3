//! The command line: what it says, checked as far as possible before anything is made or opened.

mod check;
mod file;
#[cfg(test)]
mod tests;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser};
use peerage::server::discovery::sources::dns::ListLink;
use peerage::server::gossip::Topic;
use peerage::{
    Admission, Admitted, Capability, ForkId, IpNet, Mode, Nat, NetworkSecret, NodeId, PeerAddress, SharedAddress,
    StaticAddress,
};
use tracing_subscriber::EnvFilter;

use values::{
    agent, capability, coded, dns_list, dns_server, external, filter, fork_id, gossip_mode, id, listen, loopback, nat,
    network, peer, rate, shared, size,
};

pub(crate) use file::{FileSays, nearest};

pub(crate) use values::ip_net;

/// A Peerage node. Started without arguments, it makes its identity, listens,
/// and prints the addresses at which others can join it.
#[derive(Debug, Parser)]
#[command(name = "node", version, verbatim_doc_comment, next_line_help = true, after_help = AFTER)]
struct Arguments {
    /// A file of these same settings, in TOML: `max-peers = 30`, `bootnode = ["..."]`, `no-mdns = true`, and `[limits]`
    /// with what GET /v1/limits shows; what is said here wins. SIGHUP and POST /v1/reload read it again
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Directory of the node's key and of what it remembers, made if there is none [default: the user's own for application data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where to listen, for TCP and UDP, like /ip4/0.0.0.0/tcp/30303 or /ip6/::/tcp/0; may be repeated
    /// [default: every address, port 30303 or the next free one]
    #[arg(long, value_name = "MULTIADDR", value_parser = listen, verbatim_doc_comment)]
    listen: Vec<SocketAddr>,

    /// The address at which others reach this node, like 203.0.113.7 or /ip4/203.0.113.7/tcp/30303; once for IPv4 and
    /// once for IPv6 [default: what the gateway grants, or else what other nodes see]
    #[arg(long, value_name = "MULTIADDR|IP", value_parser = external)]
    external: Vec<StaticAddress>,

    /// How to ask the gateway to let others in: auto, upnp, pcp (NAT-PMP too) or none [default: auto; none for a node
    /// whose addresses are all on this machine]
    #[arg(long, value_name = "HOW", value_parser = nat)]
    nat: Option<Nat>,

    /// Name of the network; nodes of different networks refuse each other
    #[arg(long, value_name = "NAME", default_value = "peerage", value_parser = network)]
    network: String,

    /// The fork that is followed, at most 32 bytes; nodes of different forks refuse each other [default: none]
    #[arg(long, value_name = "HEX", value_parser = fork_id)]
    fork_id: Option<ForkId>,

    /// File with the secret of a private network, at least 16 bytes chosen at random: nodes without it are refused
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Program and version, as peers are told, at most 64 bytes [default: peerage and its version]
    #[arg(long, value_name = "TEXT", value_parser = agent)]
    agent: Option<String>,

    /// A node to ask for others: an address or the record that it printed, or /dns4/HOST/tcp/PORT/p2p/ID;
    /// may be repeated
    #[arg(long, value_name = "MULTIADDR|RECORD", value_parser = peer, help_heading = PEERS)]
    bootnode: Vec<PeerAddress>,

    /// A file of nodes to connect to, one a line, read again when it changes: records or addresses, and comments after #
    #[arg(long, value_name = "FILE", help_heading = PEERS)]
    nodes_file: Option<PathBuf>,

    /// A signed list of nodes in the DNS, like pnrtree://KEY@nodes.example.org; may be repeated
    #[arg(long, value_name = "LINK", value_parser = dns_list, help_heading = PEERS)]
    dns_list: Vec<ListLink>,

    /// The name server to ask for such lists and for names of hosts, like 192.0.2.1:53 [default: the computer's]
    #[arg(long, value_name = "IP:PORT", value_parser = dns_server, help_heading = PEERS)]
    dns_server: Option<SocketAddr>,

    /// A node to keep connected, likewise; may be repeated
    #[arg(long, value_name = "MULTIADDR|RECORD", value_parser = peer, help_heading = PEERS)]
    static_peer: Vec<PeerAddress>,

    /// A node that limits spare: its id, or its address; may be repeated
    #[arg(long, value_name = "ID|MULTIADDR", value_parser = id, help_heading = PEERS)]
    trusted: Vec<NodeId>,

    /// How messages go from node to node: peerage, gossipsub (every link of a mesh is sent everything) or plumtree (one
    /// tree); nodes of different modes understand each other [default: peerage]
    #[arg(long, value_name = "MODE", value_parser = gossip_mode, help_heading = SWITCHES)]
    gossip_mode: Option<Mode>,

    /// A topic of which large messages travel in shards, which is faster: of anybody, or of these publishers only. Shards
    /// are passed on before the message can be checked, so let all nodes of the network say the same; may be repeated
    #[arg(long, value_name = "TOPIC[=ID,...]", value_parser = coded, help_heading = SWITCHES)]
    coded: Vec<(Topic, Admitted)>,

    /// Do not look for nodes; no UDP port is bound
    #[arg(long, help_heading = SWITCHES)]
    no_discovery: bool,

    /// Do not exchange peers with peers, nor ask them whether this node can be dialled
    #[arg(long, help_heading = SWITCHES)]
    no_exchange: bool,

    /// Do not look for nodes on the local network, nor be seen there
    #[arg(long, help_heading = SWITCHES)]
    no_mdns: bool,

    /// Do not dial nodes, static ones included; wait for them to dial
    #[arg(long, help_heading = SWITCHES)]
    no_dial: bool,

    /// Take no connections; no TCP port is bound
    #[arg(long, help_heading = SWITCHES)]
    no_listen: bool,

    /// Keep every peer while full, instead of letting one go every few minutes so that newcomers find places
    #[arg(long, help_heading = SWITCHES)]
    no_churn: bool,

    /// Tell of each message of each session among the events, at some cost
    #[arg(long, help_heading = SWITCHES)]
    message_events: bool,

    /// A version of a protocol that the node shall not speak although it could, like router/1; may be repeated
    #[arg(long, value_name = "NAME/VERSION", value_parser = capability, help_heading = SWITCHES)]
    withhold: Vec<Capability>,

    /// Most peers at a time
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000),
        help_heading = LIMITS)]
    max_peers: u32,

    /// Most bytes a second that are read from all peers together, like 10MiB; none if this is left out
    #[arg(long, value_name = "SIZE", value_parser = rate, help_heading = LIMITS)]
    max_download: Option<u64>,

    /// Most bytes a second that are written to all peers together
    #[arg(long, value_name = "SIZE", value_parser = rate, help_heading = LIMITS)]
    max_upload: Option<u64>,

    /// Most bytes a second that are read from one peer
    #[arg(long, value_name = "SIZE", value_parser = rate, help_heading = LIMITS)]
    max_peer_download: Option<u64>,

    /// Most bytes a second that are written to one peer
    #[arg(long, value_name = "SIZE", value_parser = rate, help_heading = LIMITS)]
    max_peer_upload: Option<u64>,

    /// Most static peers connected at a time, beyond those
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=10_000),
        help_heading = LIMITS)]
    max_static_peers: u32,

    /// One in so many peers is dialled by this node; the other places are for those that dial it
    #[arg(long, value_name = "RATIO", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000),
        help_heading = LIMITS)]
    dial_ratio: u32,

    /// Inbound connections that may be in their set-up at a time
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..),
        help_heading = LIMITS)]
    max_pending: u16,

    /// Addresses that many peers share, as behind a carrier's NAT: each may have so many times the connections and
    /// places of another one; may be repeated
    #[arg(long, value_name = "CIDR=TIMES", value_parser = shared, help_heading = LIMITS)]
    shared_net: Vec<SharedAddress>,

    /// Have to do with addresses of this network only, like 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = ip_net, help_heading = ADMISSION)]
    allow_net: Vec<IpNet>,

    /// Have nothing to do with addresses of this network, whatever is allowed; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = ip_net, help_heading = ADMISSION)]
    deny_net: Vec<IpNet>,

    /// A node to admit, and no others than those named so: its id, or its address; may be repeated
    #[arg(long, value_name = "ID|MULTIADDR", value_parser = id, help_heading = ADMISSION)]
    only: Vec<NodeId>,

    /// A file that names such nodes, one a line
    #[arg(long, value_name = "FILE", help_heading = ADMISSION)]
    only_file: Option<PathBuf>,

    /// Fewest peers of a node that is well; 0 for a network of one node [default: 1 if it was told of others, else 0]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=10_000), help_heading = HEALTH)]
    min_peers: Option<u32>,

    /// It is not well if nobody comes to it for ten minutes [default: so if it listens at a public address, or with
    /// --external]
    #[arg(long, help_heading = HEALTH)]
    expect_inbound: bool,

    /// Memory of the process from which on it does less, like 2GiB: bulk messages rest from 80 % of it on, normal ones from
    /// 90 %, and at all of it nobody new is taken [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = HEALTH)]
    shed_memory: Option<u64>,

    /// Likewise, per cent of all processors [default: no limit]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100), help_heading = HEALTH)]
    shed_cpu: Option<u32>,

    /// Likewise, room that is to stay free on the disk of the data directory [default: 64MiB; no limit on one machine]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = HEALTH)]
    shed_disk: Option<u64>,

    /// Where the HTTP API listens, on loopback [default: 127.0.0.1, port 30380 or the next free one]
    #[arg(long, value_name = "IP:PORT", value_parser = loopback, help_heading = WATCHING)]
    api: Option<SocketAddr>,

    /// Where Prometheus reads metrics, on loopback [default: 127.0.0.1, port 30480 or the next free one]
    #[arg(long, value_name = "IP:PORT", value_parser = loopback, help_heading = WATCHING)]
    metrics: Option<SocketAddr>,

    /// What to log to stderr: a level, or one for each target, like `info` or `warn,peerage_dialer=debug`
    #[arg(long, value_name = "FILTER", default_value = "warn", value_parser = filter, help_heading = WATCHING)]
    log: String,
}

const PEERS: &str = "Peers";
const SWITCHES: &str = "Switches";
const LIMITS: &str = "Limits";
const ADMISSION: &str = "Who is admitted (static and trusted peers are no exception)";
const HEALTH: &str = "When it is well, and when it does less";
const WATCHING: &str = "Watching and commanding it";

const AFTER: &str = "\
Port 0 takes a free one. A node that listens on loopback only, with bootnodes and static peers
on loopback only, dials as is best on one machine: quickly, and again at once.

A second node, once the first has printed its addresses:
  node --data-dir second-node --bootnode /ip4/127.0.0.1/tcp/30303/p2p/12D3KooW...
Ctrl-C ends a node in order; a second one ends it at once.";

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    /// Nothing for the default.
    pub(crate) listen: Vec<SocketAddr>,
    /// One a family.
    pub(crate) external: Vec<StaticAddress>,
    /// Nothing for the default.
    pub(crate) nat: Option<Nat>,
    pub(crate) network: String,
    pub(crate) fork_id: ForkId,
    pub(crate) secret: Option<NetworkSecret>,
    /// Nothing for the default.
    pub(crate) agent: Option<String>,
    pub(crate) bootnodes: Vec<PeerAddress>,
    /// Nothing for none.
    pub(crate) nodes_file: Option<PathBuf>,
    pub(crate) dns_lists: Vec<ListLink>,
    /// Nothing for the computer's.
    pub(crate) dns_server: Option<SocketAddr>,
    pub(crate) mdns: bool,
    /// How messages go from node to node.
    pub(crate) gossip_mode: Mode,
    pub(crate) coded: BTreeMap<Topic, Admitted>,
    pub(crate) statics: Vec<PeerAddress>,
    pub(crate) trusted: Vec<NodeId>,
    pub(crate) discovery: bool,
    pub(crate) exchange: bool,
    pub(crate) dialing: bool,
    pub(crate) listening: bool,
    pub(crate) churn: bool,
    pub(crate) message_events: bool,
    pub(crate) withheld: Vec<Capability>,
    pub(crate) max_peers: u32,
    pub(crate) max_static_peers: u32,
    /// Bytes a second: down and up, of the node and of each peer.
    pub(crate) bandwidth: [(Option<u64>, Option<u64>); 2],
    pub(crate) dial_ratio: u32,
    pub(crate) max_pending: usize,
    pub(crate) shared: Vec<SharedAddress>,
    pub(crate) admission: Admission,
    /// Nothing for the default.
    pub(crate) api: Option<SocketAddr>,
    /// Nothing for the default.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log: String,
    pub(crate) min_peers: Option<u32>,
    pub(crate) expect_inbound: bool,
    /// Bytes, nothing for the default; so below.
    pub(crate) shed_memory: Option<u64>,
    /// Per cent.
    pub(crate) shed_cpu: Option<u32>,
    pub(crate) shed_disk: Option<u64>,
    /// What the file says besides.
    pub(crate) file: FileSays,
    /// What was typed, to be read again with the file.
    pub(crate) typed: Vec<OsString>,
    /// Whether everything it names is on this machine.
    pub(crate) local: bool,
    /// What will work, and most likely is not what was meant; a sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum NoRun {
    /// Help or version was asked for; this is it.
    Asked(StyledStr),
    /// A sentence that says what to do.
    Wrong(String),
}

/// Reads the command line, program name first, and the file that it names.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Settings, NoRun> {
    let typed: Vec<OsString> = arguments.into_iter().collect();
    let said = Arguments::command().try_get_matches_from(&typed).map_err(refused)?;
    let (all, file) = match said.get_one::<PathBuf>("config") {
        Some(path) => file::read(path, &said, &typed).map_err(NoRun::Wrong)?,
        None => (typed.clone(), FileSays::default()),
    };
    let arguments = Arguments::try_parse_from(all).map_err(refused)?;
    let mut settings = settings(arguments).map_err(NoRun::Wrong)?;
    (settings.typed, settings.file) = (typed, file);
    check::contradictions(&settings).map_err(NoRun::Wrong)?;
    settings.local = check::is_local(&settings);
    // Nobody on the local network could reach it.
    settings.mdns &= !settings.local;
    settings.warnings = check::warnings(&settings);
    Ok(settings)
}

fn refused(error: clap::Error) -> NoRun {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => NoRun::Asked(error.render()),
        _ => NoRun::Wrong(sentence(&error)),
    }
}

fn settings(arguments: Arguments) -> Result<Settings, String> {
    let data_dir = match arguments.data_dir {
        Some(path) if path.as_os_str().is_empty() => return Err("--data-dir is empty: name a directory".into()),
        Some(path) => path,
        None => directories::ProjectDirs::from("", "", "peerage")
            .map(|dirs| dirs.data_dir().to_owned())
            .ok_or("this user has no home directory: name one with --data-dir")?,
    };
    let mut only: Option<BTreeSet<NodeId>> = None;
    if !arguments.only.is_empty() {
        only.get_or_insert_default().extend(arguments.only);
    }
    if let Some(path) = arguments.only_file {
        only.get_or_insert_default().extend(values::ids_in(&path)?);
    }
    Ok(Settings {
        data_dir,
        listen: arguments.listen,
        external: arguments.external,
        nat: arguments.nat,
        network: arguments.network,
        fork_id: arguments.fork_id.unwrap_or_default(),
        secret: arguments.secret_file.map(|path| values::secret_in(&path)).transpose()?,
        agent: arguments.agent,
        bootnodes: arguments.bootnode,
        nodes_file: arguments.nodes_file,
        dns_lists: arguments.dns_list,
        dns_server: arguments.dns_server,
        mdns: !arguments.no_mdns && !arguments.no_discovery,
        gossip_mode: arguments.gossip_mode.unwrap_or_default(),
        coded: arguments.coded.into_iter().collect(),
        statics: arguments.static_peer,
        trusted: arguments.trusted,
        discovery: !arguments.no_discovery,
        exchange: !arguments.no_exchange,
        dialing: !arguments.no_dial,
        listening: !arguments.no_listen,
        churn: !arguments.no_churn,
        message_events: arguments.message_events,
        withheld: arguments.withhold,
        max_peers: arguments.max_peers,
        max_static_peers: arguments.max_static_peers,
        bandwidth: [
            (arguments.max_download, arguments.max_upload),
            (arguments.max_peer_download, arguments.max_peer_upload),
        ],
        dial_ratio: arguments.dial_ratio,
        max_pending: arguments.max_pending.into(),
        shared: arguments.shared_net,
        admission: Admission { allowed: arguments.allow_net, denied: arguments.deny_net, only },
        api: arguments.api,
        metrics: arguments.metrics,
        log: arguments.log,
        min_peers: arguments.min_peers,
        expect_inbound: arguments.expect_inbound,
        shed_memory: arguments.shed_memory,
        shed_cpu: arguments.shed_cpu,
        shed_disk: arguments.shed_disk,
        file: FileSays::default(),
        typed: Vec::new(),
        local: false,
        warnings: Vec::new(),
    })
}

/// The log filter that the text asks for. ractor tells of every actor that starts, which is nobody's business.
pub(crate) fn log_filter(text: &str) -> Result<EnvFilter, String> {
    let quiet = "ractor=warn".parse().map_err(|error| format!("{error}"))?;
    let filter = EnvFilter::try_new(text)
        .map_err(|error| format!("{error}; write it like `info` or `warn,peerage_dialer=debug`"))?;
    Ok(filter.add_directive(quiet))
}

/// clap's first line is the sentence; the tips and the usage below it are for --help.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let mut sentence = first.to_owned();
    if let Some(suggested) = error.get(ContextKind::SuggestedArg) {
        sentence.push_str(&format!("; did you mean {suggested}?"));
    }
    if error.kind() != ErrorKind::ValueValidation {
        sentence.push_str("; `node --help` lists what can be set");
    }
    sentence
}
