//! Joins a network with no TCP at all, and prints the nodes that it finds.
//!
//! `cargo run -p peerage-discovery --example crawl -- --network NAME --seconds 10 pnr:...` asks the nodes whose records
//! are given; without records it makes a network of its own, of 8 nodes on loopback, and crawls that.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peerage_discovery::peerage_machine::journal::Journals;
use peerage_discovery::peerage_mailbox::{Child, Clock, Meter, Port, Supervisor, ask};
use peerage_discovery::peerage_transport::{Datagram, Transport};
use peerage_discovery::peerage_wire::{Admission, Keypair, NetworkId, NodeRecord, RecordDraft, address};
use peerage_discovery::{Args, Bootnode, Config, DiscoveryMailbox, Secrets, spawn};

const USAGE: &str = "usage: crawl [--network NAME] [--seconds N] [pnr:RECORD ...]";
/// Nodes of the network that is made where none is named.
const OWN_NODES: usize = 8;

struct Plan {
    network: String,
    seconds: u64,
    bootnodes: Vec<Bootnode>,
}

fn plan() -> Result<Plan, Box<dyn Error>> {
    let mut plan = Plan { network: "peerage".into(), seconds: 10, bootnodes: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--network" => plan.network = arguments.next().ok_or(USAGE)?,
            "--seconds" => plan.seconds = arguments.next().and_then(|text| text.parse().ok()).ok_or(USAGE)?,
            record if record.starts_with("pnr:") => {
                let record: NodeRecord = record.parse()?;
                plan.bootnodes.push(Bootnode::from_record(&record).ok_or("a record names no UDP address to ask at")?);
            }
            other => return Err(format!("what is `{other}`? {USAGE}").into()),
        }
    }
    Ok(plan)
}

/// A node that asks and answers, and listens to nobody's TCP: its record names UDP addresses only.
async fn node(
    network: &str,
    sockets: Vec<Datagram>,
    bootnodes: Vec<Bootnode>,
) -> Result<(Bootnode, DiscoveryMailbox, Child), Box<dyn Error>> {
    let (keys, clock) = (Keypair::generate()?, Clock::system());
    let mut draft = RecordDraft::new(clock.now().unix_millis(), NetworkId::named(network));
    let addresses: Vec<SocketAddr> = sockets.iter().map(Datagram::local_addr).collect::<Result<_, _>>()?;
    for addr in addresses.iter().filter(|addr| !addr.ip().is_unspecified()) {
        draft = draft.address(address::from_udp(*addr));
    }
    let bootnode = Bootnode { id: keys.id(), addr: addresses[0] };
    let args = Args {
        config: Config::recommended(),
        record: draft.sign(&keys)?,
        keys,
        sockets: sockets.into_iter().map(Arc::new).collect(),
        bootnodes,
        seeds: Vec::new(),
        admission: Arc::new(Admission::open()),
        secrets: Secrets::generate()?,
        seed: 1,
        clock,
        sources: Default::default(),
        meter: Meter::none(),
        journals: Journals::off(),
        foreign: None,
        out: Port::closed(),
    };
    let (discovery, child) = spawn(args, &Supervisor::none()).await?;
    Ok((bootnode, discovery, child))
}

/// Asks again and again for the nodes nearest to a random point, and prints each the first time.
async fn crawl(discovery: &DiscoveryMailbox, time: Duration, enough: usize) -> Result<usize, Box<dyn Error>> {
    let (clock, mut found) = (Clock::system(), BTreeSet::new());
    let end = clock.now() + time;
    while clock.now() < end && found.len() < enough {
        let target = Keypair::generate()?.id();
        let records = ask(end.since(clock.now()), |reply| discovery.lookup(target, reply)).await.unwrap_or_default();
        for record in records.iter().filter(|record| found.insert(record.id())) {
            let addresses: Vec<String> = record.udp_sockets().iter().map(SocketAddr::to_string).collect();
            println!("{} {}", record.id(), addresses.join(" "));
        }
        clock.sleep_until(Some(clock.now() + Duration::from_millis(100))).await;
    }
    Ok(found.len())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut plan = plan()?;
    let transport = Transport::sockets();
    let mut own = Vec::new();
    if plan.bootnodes.is_empty() {
        println!("no record was given: a network of {OWN_NODES} nodes on this computer is crawled");
        // Without optimisation signatures take their time; the crawl is over once all were found.
        plan.seconds = plan.seconds.max(30);
        let mut bootnodes = Vec::new();
        for _ in 0..OWN_NODES {
            let socket = transport.bind_datagram((Ipv4Addr::LOCALHOST, 0).into()).await?;
            let (bootnode, mailbox, child) = node(&plan.network, vec![socket], bootnodes.clone()).await?;
            bootnodes.truncate(1);
            bootnodes.push(bootnode);
            own.push((mailbox, child));
        }
        plan.bootnodes = bootnodes[..1].to_vec();
    }
    let enough = if own.is_empty() { usize::MAX } else { own.len() };
    let local = plan.bootnodes.iter().all(|bootnode| bootnode.addr.ip().is_loopback());
    let on: SocketAddr = if local { (Ipv4Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    let mut sockets = vec![transport.bind_datagram(on).await?];
    if !local && let Ok(v6) = transport.bind_datagram((Ipv6Addr::UNSPECIFIED, 0).into()).await {
        sockets.push(v6);
    }
    let (_, discovery, child) = node(&plan.network, sockets, plan.bootnodes).await?;
    let count = crawl(&discovery, Duration::from_secs(plan.seconds), enough).await?;
    println!("{count} nodes");
    for child in own.into_iter().map(|(_, child)| child).chain([child]) {
        child.stop();
        child.wait().await;
    }
    if count == 0 {
        return Err("nobody answered: is the network's name right, and the record fresh?".into());
    }
    Ok(())
}
