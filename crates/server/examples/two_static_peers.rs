//! A server without discovery: two nodes on this computer that keep each other connected.

use std::time::Duration;

use peerage_server::journal::Journals;
use peerage_server::mailbox::{Clock, Meter};
use peerage_server::nodedb::NodeDb;
use peerage_server::transport::Transport;
use peerage_server::wire::{Keypair, address};
use peerage_server::{Args, Config, Event, Listen, PeerAddress, ServerMailbox, start};

async fn node(seed: u64, statics: Vec<PeerAddress>) -> Result<ServerMailbox, Box<dyn std::error::Error>> {
    let args = Args {
        config: Config { discovery_on: false, ..Config::local() },
        keys: Keypair::generate()?,
        listen: Listen::At(vec![([127, 0, 0, 1], 0).into()]),
        bootnodes: Vec::new(),
        statics,
        trusted: Vec::new(),
        transport: Transport::sockets(),
        clock: Clock::system(),
        meter: Meter::none(),
        journals: Journals::off(),
        seed,
        secret: None,
        min_record_seq: 0,
        sources: Default::default(),
        resolver: None,
        db: NodeDb::memory(peerage_server::nodedb::Config::recommended()),
        doors: Vec::new(),
        foreign: None,
        protocols: Vec::new(),
        membership: None,
    };
    Ok(start(args).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let first = node(1, Vec::new()).await?;
    let local = first.local().await?;
    println!("first:  {}", address::with_id(&local.addresses[0], local.record.id()));
    let mut events = first.events(16).await?;

    let second = node(2, vec![PeerAddress::from(&*local.record)]).await?;
    println!("second: {}", second.local().await?.record.id());
    let up = tokio::time::timeout(Duration::from_secs(10), events.recv()).await??;
    assert!(matches!(up, Event::PeerUp { .. }));
    println!("first sees:  {up:?}");
    while second.peers().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    second.shutdown().await;
    let down = tokio::time::timeout(Duration::from_secs(10), events.recv()).await??;
    println!("first sees:  {down:?}");
    first.shutdown().await;
    Ok(())
}
