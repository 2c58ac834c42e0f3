//! Who the ends of a test's session are.

use std::net::SocketAddr;
use std::time::Duration;

use peerage_peer_session::handshake::Presented;
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::codec::{List, Text};
use peerage_peer_session::peerage_wire::{Capability, ForkId, Hello, Keypair, NetworkId, RecordDraft};
use tokio::io::DuplexStream;

/// The wall clock when a test begins.
pub(crate) const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// The nth identity.
pub(crate) fn keys(n: u8) -> Keypair {
    Keypair::from_seed([n; 32])
}

/// What the nth identity says of itself: it speaks two protocols.
pub(crate) fn presented(n: u8) -> Presented {
    let network = NetworkId::named("test");
    let hello = Hello {
        version: Hello::VERSION,
        network,
        fork_id: ForkId::default(),
        instance: u64::from(n),
        agent: Text::new("test").expect("short"),
        capabilities: List::truncated([Capability::new("a", 1), Capability::new("b", 1)].into_iter().flatten()),
    };
    let record = RecordDraft::new(UNIX.as_millis() as u64, network).sign(&keys(n)).expect("small");
    Presented { record, hello, accepted_forks: List::default() }
}

pub(crate) fn stream(io: DuplexStream) -> Stream {
    Stream::new(io, SocketAddr::from(([127, 0, 0, 1], 1)))
}
