//! Three nodes on loopback that find each other: the second and third know the first only.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use peerage_discovery::peerage_machine::journal::Journals;
use peerage_discovery::peerage_mailbox::{Child, Clock, Meter, Port, Supervisor};
use peerage_discovery::peerage_transport::Transport;
use peerage_discovery::peerage_wire::{Admission, Keypair, NetworkId, RecordDraft, address};
use peerage_discovery::{Args, Bootnode, Config, DiscoveryOut, Secrets, spawn};
use tokio::sync::mpsc;

const NODES: usize = 3;

/// Starts a node that tells `found` whom it found.
async fn node(
    number: usize,
    bootnodes: Vec<Bootnode>,
    found: mpsc::Sender<(usize, String)>,
) -> Result<(Bootnode, Child), Box<dyn Error>> {
    let keys = Keypair::generate()?;
    let socket = Transport::sockets().bind_datagram("127.0.0.1:0".parse()?).await?;
    let addr = socket.local_addr()?;
    let clock = Clock::system();
    // Candidates are for dialling, so a record must name a TCP socket; nobody dials here.
    let record = RecordDraft::new(clock.now().unix_millis(), NetworkId::named("example"))
        .address(address::from_tcp(addr))
        .address(address::from_udp(addr))
        .sign(&keys)?;
    println!("node {number} is {} at {addr}", keys.id());
    let out = Port::from_fn(move |out| {
        if let DiscoveryOut::Candidates(nodes) = out {
            for (record, _) in nodes {
                drop(found.try_send((number, record.id().to_string())));
            }
        }
    });
    let bootnode = Bootnode { id: keys.id(), addr };
    let args = Args {
        config: Config::local(),
        keys,
        record,
        sockets: vec![Arc::new(socket)],
        foreign: None,
        bootnodes,
        seeds: Vec::new(),
        admission: Arc::new(Admission::open()),
        secrets: Secrets::generate()?,
        seed: number as u64,
        clock,
        sources: Default::default(),
        meter: Meter::none(),
        journals: Journals::off(),
        out,
    };
    let (discovery, child) = spawn(args, &Supervisor::none()).await?;
    discovery.want(NODES - 1);
    Ok((bootnode, child))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (found, mut finds) = mpsc::channel(NODES * NODES);
    let (first, child) = node(0, Vec::new(), found.clone()).await?;
    let mut children = vec![child];
    for number in 1..NODES {
        children.push(node(number, vec![first], found.clone()).await?.1);
    }
    let everybody_found_everybody = async {
        for _ in 0..NODES * (NODES - 1) {
            if let Some((number, id)) = finds.recv().await {
                println!("node {number} found {id}");
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), everybody_found_everybody)
        .await
        .map_err(|_| "the nodes did not find each other within 20 s")?;
    for child in children {
        child.stop();
        child.wait().await;
    }
    Ok(())
}
