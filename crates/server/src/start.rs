//! Starting a node: sockets first, then the record that names them, then the actors.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use peerage_discovery::Foreign;
use peerage_discovery::sources::{Resolve, Sources};
use peerage_machine::journal::Journals;
use peerage_mailbox::{Clock, Meter, Outlet};
use peerage_nodedb::NodeDb;
use peerage_peer_session::NetworkSecret;
use peerage_router::protocol::Protocol;
use peerage_router::resilience::Membership;
use peerage_transport::{Datagram, Listener, Transport};
use peerage_wire::{Keypair, NodeId};

use crate::config::Config;
use crate::ingress::ServerMailbox;
use crate::listener::Door;
use crate::types::PeerAddress;
use crate::wiring::{natives, protocols};
use crate::{actor, listener};

/// The port of a node whose user names none, for TCP and UDP.
pub const DEFAULT_PORT: u16 = 30303;

/// How many ports after the default one are tried.
const PORTS_TRIED: u16 = 100;

/// Where to listen, for TCP and UDP alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On every address, IPv4 and (where the computer has it) IPv6, at [`DEFAULT_PORT`] or the next free one.
    Default,
    /// Exactly here. Port 0 takes a free one.
    At(Vec<SocketAddr>),
}

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Args {
    /// Its limits and intervals.
    pub config: Config,
    /// Who it is.
    pub keys: Keypair,
    /// Where it listens.
    pub listen: Listen,
    /// Whom to ask for other nodes. UDP is expected at the same port as TCP.
    pub bootnodes: Vec<PeerAddress>,
    /// Where to learn of nodes besides these and lookups.
    pub sources: Sources,
    /// Who resolves the names of hosts. If nobody is said: the computer, or the name server that the sources name; and in
    /// virtual time nobody.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Peers to keep connected.
    pub statics: Vec<PeerAddress>,
    /// Nodes that limits spare.
    pub trusted: Vec<NodeId>,
    /// Other protocols on the same port.
    pub doors: Vec<Door>,
    /// Protocols that run once for each peer that speaks them, too.
    pub protocols: Vec<Protocol>,
    /// Who knows the members of the network, if the application does not say them
    /// ([`members`](ServerMailbox::members)).
    pub membership: Option<Arc<dyn Membership>>,
    /// Where datagrams go that come to the UDP sockets and are not discovery's. With discovery off there are none.
    pub foreign: Option<Outlet<Foreign>>,
    /// Sockets, or an in-memory network.
    pub transport: Transport,
    /// Its clock. If it is simulated, everything runs on one thread.
    pub clock: Clock,
    /// Where to count.
    pub meter: Meter,
    /// Where its machines' inputs are kept, in a build with the feature `journal`.
    pub journals: Journals,
    /// Of all random decisions.
    pub seed: u64,
    /// The secret of its network, if that has one: nodes without it are refused at their first bytes.
    pub secret: Option<NetworkSecret>,
    /// What it remembers. Whoever opened it closes it, once the node has stopped.
    pub db: NodeDb,
    /// Sequence that its record must exceed: the last one that an earlier process of this identity used.
    pub min_record_seq: u64,
}

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not add up.
    #[error("configuration: {0}")]
    Config(String),
    /// A socket was not to be had.
    #[error("cannot listen on {address} ({protocol}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// TCP or UDP.
        protocol: &'static str,
        /// Why.
        source: io::Error,
    },
    /// None of the ports tried was free.
    #[error("no free port between {DEFAULT_PORT} and {}", DEFAULT_PORT + PORTS_TRIED)]
    NoPort,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// The sockets of one listen address: those that the node has a use for.
pub(crate) struct Bound {
    pub(crate) listener: Option<Listener>,
    pub(crate) datagram: Option<Arc<Datagram>>,
    pub(crate) address: SocketAddr,
}

/// Which sockets a node needs.
#[derive(Clone, Copy)]
struct Needs {
    tcp: bool,
    udp: bool,
}

async fn bind(transport: &Transport, needs: Needs, on: SocketAddr) -> Result<Bound, StartError> {
    let failed = |protocol| move |source| StartError::Listen { address: on, protocol, source };
    // A free TCP port may be taken for UDP; then another one is tried, if any will do.
    for last in [false, false, false, false, true] {
        let mut address = on;
        let listener = match needs.tcp {
            true => Some(transport.listen(on).await.map_err(failed("TCP"))?),
            false => None,
        };
        if let Some(listener) = &listener {
            address = listener.local_addr().map_err(failed("TCP"))?;
        }
        if !needs.udp {
            return Ok(Bound { listener, datagram: None, address });
        }
        match transport.bind_datagram(address).await {
            Ok(datagram) => {
                let address = datagram.local_addr().map_err(failed("UDP"))?;
                return Ok(Bound { listener, datagram: Some(Arc::new(datagram)), address });
            }
            Err(error) if on.port() != 0 || last => {
                return Err(StartError::Listen { address, protocol: "UDP", source: error });
            }
            Err(_) => {}
        }
    }
    Err(StartError::NoPort)
}

async fn bind_default(transport: &Transport, needs: Needs) -> Result<Vec<Bound>, StartError> {
    for port in DEFAULT_PORT..=DEFAULT_PORT + PORTS_TRIED {
        let v4 = match bind(transport, needs, (Ipv4Addr::UNSPECIFIED, port).into()).await {
            Ok(bound) => bound,
            Err(StartError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error),
        };
        return match bind(transport, needs, (Ipv6Addr::UNSPECIFIED, port).into()).await {
            Ok(v6) => Ok(vec![v4, v6]),
            Err(StartError::Listen { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => continue,
            // A computer without IPv6.
            Err(_) => Ok(vec![v4]),
        };
    }
    Err(StartError::NoPort)
}

/// Starts a node.
///
/// # Errors
/// [`StartError`].
pub async fn start(args: Args) -> Result<ServerMailbox, StartError> {
    args.config.check().map_err(StartError::Config)?;
    protocols(&args).map_err(|error| StartError::Config(error.to_string()))?;
    let needs = Needs { tcp: args.config.listening_on, udp: args.config.discovery_on };
    listener::doors(&args.config.listener, natives(), args.doors.clone())
        .map_err(|error| StartError::Config(error.to_string()))?;
    let bound = match &args.listen {
        // Nothing is bound that nobody would use.
        _ if !needs.tcp && !needs.udp => Vec::new(),
        Listen::Default => bind_default(&args.transport, needs).await?,
        Listen::At(addresses) => {
            let mut bound = Vec::new();
            for address in addresses {
                bound.push(bind(&args.transport, needs, *address).await?);
            }
            bound
        }
    };
    actor::spawn(args, bound).await
}
