//! The command line: what it says, checked as far as possible before anything is made or opened.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ErrorKind};
use peerage::server::wire::address;
use peerage::{PeerAddress, ToListenAddress};
use tracing_subscriber::EnvFilter;

/// A Peerage node. Started without arguments, it makes its identity, listens,
/// and prints the addresses at which others can join it.
#[derive(Debug, Parser)]
#[command(name = "node", version, verbatim_doc_comment, next_line_help = true, after_help = AFTER)]
struct Arguments {
    /// Directory of the node's key, made if there is none [default: the user's own for application data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where to listen, for TCP and UDP, like /ip4/0.0.0.0/tcp/30303 or /ip6/::/tcp/0; may be repeated
    /// [default: every address, port 30303 or the next free one]
    #[arg(long, value_name = "MULTIADDR", value_parser = listen, verbatim_doc_comment)]
    listen: Vec<SocketAddr>,

    /// A node to ask for others: an address or the record that it printed; may be repeated
    #[arg(long, value_name = "MULTIADDR|RECORD", value_parser = bootnode)]
    bootnode: Vec<PeerAddress>,

    /// Most peers at a time
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_peers: u32,

    /// Name of the network; nodes of different networks refuse each other
    #[arg(long, value_name = "NAME", default_value = "peerage", value_parser = network)]
    network: String,

    /// Where the HTTP API listens, on loopback [default: 127.0.0.1, port 30380 or the next free one]
    #[arg(long, value_name = "IP:PORT", value_parser = loopback)]
    api: Option<SocketAddr>,

    /// Where Prometheus reads metrics, on loopback [default: 127.0.0.1, port 30480 or the next free one]
    #[arg(long, value_name = "IP:PORT", value_parser = loopback)]
    metrics: Option<SocketAddr>,

    /// What to log to stderr: a level, or one for each target, like `info` or `warn,peerage_dialer=debug`
    #[arg(long, value_name = "FILTER", default_value = "warn", value_parser = filter)]
    log: String,
}

const AFTER: &str = "\
Port 0 takes a free one. A node that listens on loopback only, with bootnodes on loopback only,
dials as is best on one machine: quickly, and again at once.

A second node, once the first has printed its addresses:
  node --data-dir second-node --bootnode /ip4/127.0.0.1/tcp/30303/p2p/12D3KooW...
Ctrl-C ends a node in order; a second one ends it at once.";

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    /// Nothing for the default.
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) bootnodes: Vec<PeerAddress>,
    pub(crate) max_peers: u32,
    pub(crate) network: String,
    /// Nothing for the default.
    pub(crate) api: Option<SocketAddr>,
    /// Nothing for the default.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log: String,
    /// Whether everything it names is on this machine.
    pub(crate) local: bool,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum NoRun {
    /// Help or version was asked for; this is it.
    Asked(StyledStr),
    /// A sentence that says what to do.
    Wrong(String),
}

/// Reads the command line, program name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Settings, NoRun> {
    let arguments = Arguments::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => NoRun::Asked(error.render()),
        _ => NoRun::Wrong(sentence(&error)),
    })?;
    let data_dir = match arguments.data_dir {
        Some(path) if path.as_os_str().is_empty() => {
            return Err(NoRun::Wrong("--data-dir is empty: name a directory".into()));
        }
        Some(path) => path,
        None => directories::ProjectDirs::from("", "", "peerage")
            .map(|dirs| dirs.data_dir().to_owned())
            .ok_or_else(|| NoRun::Wrong("this user has no home directory: name one with --data-dir".into()))?,
    };
    let on_loopback = |socket: &SocketAddr| socket.ip().is_loopback();
    let local = !arguments.listen.is_empty()
        && arguments.listen.iter().all(on_loopback)
        && arguments.bootnode.iter().flat_map(|peer| &peer.addresses).all(on_loopback);
    Ok(Settings {
        data_dir,
        listen: arguments.listen,
        bootnodes: arguments.bootnode,
        max_peers: arguments.max_peers,
        network: arguments.network,
        api: arguments.api,
        metrics: arguments.metrics,
        log: arguments.log,
        local,
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

fn listen(text: &str) -> Result<SocketAddr, String> {
    // People paste whole addresses, id and all.
    let multiaddr =
        address::parse(text).and_then(|whole| address::split_id(&whole)).map_err(|error| error.to_string())?;
    multiaddr.0.to_listen_address().map_err(|error| error.to_string())
}

fn bootnode(text: &str) -> Result<PeerAddress, String> {
    text.parse().map_err(|error: peerage::server::PeerAddressError| error.to_string())
}

fn network(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("a network has a name; leave --network out for the default one".into())
    } else {
        Ok(text.into())
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let socket: SocketAddr = text.parse().map_err(|_| "write it like 127.0.0.1:30380 or [::1]:0".to_owned())?;
    if socket.ip().is_loopback() {
        Ok(socket)
    } else {
        Err("only loopback addresses are served, as everybody who reaches it could command the node; \
             use 127.0.0.1, and a tunnel to reach it from elsewhere"
            .into())
    }
}

fn filter(text: &str) -> Result<String, String> {
    log_filter(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, NoRun> {
        parse(["node"].iter().chain(arguments).map(Into::into))
    }

    fn wrong(arguments: &[&str]) -> String {
        match read(arguments) {
            Err(NoRun::Wrong(sentence)) => {
                assert!(!sentence.contains('\n'), "one sentence: {sentence}");
                sentence
            }
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    const ID: &str = "12D3KooWPW8NCp5gTny3CUywj9ieJJpgg9vxGRZKSxLnqkdYQdVP";

    #[test]
    fn nothing_said_is_the_default() {
        let settings = read(&[]).expect("fine");
        assert!(settings.listen.is_empty() && settings.bootnodes.is_empty() && settings.api.is_none());
        assert_eq!((settings.max_peers, settings.network.as_str(), settings.local), (50, "peerage", false));
    }

    #[test]
    fn a_node_with_nothing_but_loopback_is_local() {
        let bootnode = |ip: &str| format!("/ip4/{ip}/tcp/1/p2p/{ID}");
        let local =
            |listen: &str, ip: &str| read(&["--listen", listen, "--bootnode", &bootnode(ip)]).expect("fine").local;
        assert!(local("/ip4/127.0.0.1/tcp/0", "127.0.0.1"));
        assert!(local("/ip6/::1/tcp/0", "127.0.0.1"));
        assert!(!local("/ip4/0.0.0.0/tcp/0", "127.0.0.1"));
        assert!(!local("/ip4/127.0.0.1/tcp/0", "192.0.2.1"));
        assert!(!read(&["--bootnode", &bootnode("127.0.0.1")]).expect("fine").local);
    }

    #[test]
    fn a_pasted_address_with_its_id_can_be_listened_at() {
        let settings = read(&["--listen", &format!("/ip4/127.0.0.1/tcp/9/p2p/{ID}"), "--listen", "/ip6/::1/tcp/0"]);
        let expected: [SocketAddr; 2] = ["127.0.0.1:9".parse().expect("socket"), "[::1]:0".parse().expect("socket")];
        assert_eq!(settings.expect("fine").listen, expected);
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence_with_the_remedy() {
        assert!(wrong(&["--listen", "/ip4/127.0.0.1/udp/1/quic-v1"]).contains("transport `quic-v1`"));
        assert!(wrong(&["--listen", "/ip4/127.0.0.1/tcp/1/ws"]).contains("transport `ws`"));
        assert!(wrong(&["--listen", "127.0.0.1:1"]).contains("write it like /ip4/127.0.0.1/tcp/30303"));
        assert!(wrong(&["--bootnode", "/ip4/127.0.0.1/tcp/1"]).contains("copy the whole address"));
        assert!(wrong(&["--bootnode", "pnr:AAAA"]).contains("record"));
        assert!(wrong(&["--max-peers", "0"]).contains("1..=10000"));
        assert!(wrong(&["--max-peers", "many"]).contains("--max-peers"));
        assert!(wrong(&["--api", "0.0.0.0:1"]).contains("only loopback"));
        assert!(wrong(&["--metrics", "192.0.2.1:1"]).contains("only loopback"));
        assert!(wrong(&["--api", "30380"]).contains("127.0.0.1:30380"));
        assert!(wrong(&["--log", "a=b=c"]).contains("write it like `info`"));
        assert!(wrong(&["--network", ""]).contains("has a name"));
        assert!(wrong(&["--data-dir", ""]).contains("--data-dir"));
        assert!(wrong(&["--listne", "x"]).contains("did you mean --listen?"));
        assert!(wrong(&["--nonsense"]).contains("--help"));
        assert!(wrong(&["file"]).contains("--help"));
        assert!(wrong(&["--listen"]).contains("--listen"));
    }

    #[test]
    fn help_and_version_are_no_mistakes() {
        for asked in ["--help", "-h", "--version"] {
            assert!(matches!(read(&[asked]), Err(NoRun::Asked(_))));
        }
    }
}
