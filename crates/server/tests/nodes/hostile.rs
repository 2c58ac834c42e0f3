//! What a node that follows the handshake and nothing else can do.

use std::time::Duration;

use crate::net::{Net, ip};
use peerage_peer_session::Handshaker;
use peerage_peer_session::handshake::Presented;
use peerage_server::PeerAddress;
use peerage_server::nodedb::{Config as Memory, NodeDb};
use peerage_wire::codec::{List, Text};
use peerage_wire::{Capability, Hello, Keypair, Multiaddr, NetworkId, RecordDraft};

const SECOND: Duration = Duration::from_secs(1);

/// What a node says of itself, with a record that names these addresses.
fn presented(net: &Net, keys: &Keypair, addresses: &[&str]) -> Presented {
    let network = NetworkId::named("peerage");
    let mut draft = RecordDraft::new(net.clock.now().unix_millis(), network);
    for address in addresses {
        draft = draft.address(address.parse::<Multiaddr>().expect("multiaddr"));
    }
    let hello = Hello {
        version: Hello::VERSION,
        network,
        fork_id: Default::default(),
        instance: 1,
        agent: Text::new("hostile").expect("short"),
        capabilities: List::truncated(Capability::new("gossip", 1)),
    };
    Presented { record: draft.sign(keys).expect("small"), hello, accepted_forks: List::default() }
}

#[tokio::test(start_paused = true)]
async fn a_dialled_peer_proves_no_address_but_the_one_that_was_dialled() {
    let net = Net::new();
    let keys = Keypair::from_seed([9; 32]);
    let mut socket = net.network.host(ip(9)).listen((ip(9), 30303).into()).await.expect("free");
    let said = presented(&net, &keys, &["/ip4/10.0.0.5/udp/5353", "/ip4/20.0.9.1/tcp/30303"]);
    let handshaker = Handshaker::new(peerage_peer_session::Config::local(), keys.clone(), net.clock);
    let hostile = tokio::spawn(async move {
        let stream = socket.accept().await.expect("open");
        let kept = handshaker.accept(stream, &said, async |_| Ok(())).await.expect("both speak the protocol");
        tokio::time::sleep(5 * SECOND).await;
        drop(kept);
    });
    let db = NodeDb::memory(Memory::recommended());
    let remembered = db.clone();
    let hostile_at = PeerAddress { id: keys.id(), addresses: vec![(ip(9), 30303).into()], hosts: Vec::new() };
    let node = net
        .node(1, |args| {
            args.statics = vec![hostile_at];
            args.db = remembered;
        })
        .await;
    node.until_peers(1).await;
    let elsewhere = [10, 0, 0, 5].into();
    assert_eq!(db.last_pong(&keys.id(), elsewhere, net.clock.now()), None, "nothing came from there");
    node.server.shutdown().await;
    hostile.abort();
}
