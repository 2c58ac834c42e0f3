//! The node that is attacked: as recommended for the internet, but that local addresses are limited too, and that it has
//! places for all fifty: who has none does not attack for long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use peerage_server::gossip::Policy;
use peerage_server::mailbox::{Capacity, Counts, Meter, RecvError, data_queue};
use peerage_server::router::{
    Handler, HandlerConfig, IncomingStream, Stream, StreamHandler, StreamHandlerConfig, StreamWriter,
};
use peerage_server::wire::{Banned, NodeId};
use peerage_server::{Args, Config, PeerAddress, ServerMailbox, SharedAddress, start};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{BYTES, COSTLY, ECHO, Facts, Found, HONEST, HOSTILE, LARGE, keys, topic};
use crate::machine::{Usage, waited_us};
use crate::{Failure, node};

const NUMBER: u8 = 1;
/// Hashed for each costly answer: some hundreds of microseconds.
const WORK: usize = 512 << 10;
/// Bytes of a large answer: as many as there may be. Each is made anew, so that it costs the memory that it is counted
/// for; so are the pieces of streams.
const ANSWER: usize = 1 << 20;
/// Bytes written to a stream at a time.
const PIECE: usize = 64 << 10;

/// All honest peers are on one address.
pub(super) fn config() -> Config {
    let mut config = Config { exempt_local: false, discovery_on: false, max_peers: 100, ..Config::recommended() };
    let network = std::net::IpAddr::from([127, 0, 0, 1]).into();
    config.listener.shared_addresses = vec![SharedAddress { network, factor: (2 * HONEST).into() }];
    config
}

/// Processor time of the costly handler, by who asked.
type Spent = Arc<Mutex<BTreeMap<NodeId, f64>>>;

fn thread_us() -> f64 {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    cpu.tv_sec as f64 * 1e6 + cpu.tv_nsec as f64 / 1e3
}

fn costly(spent: Spent) -> Handler {
    let work = Bytes::from(vec![7; WORK]);
    Handler::task(move |incoming| {
        let (spent, work) = (spent.clone(), work.clone());
        async move {
            let begun = thread_us();
            let answer = Bytes::copy_from_slice(digest(&SHA256, &work).as_ref());
            let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
            *spent.entry(incoming.from).or_default() += thread_us() - begun;
            Ok(answer)
        }
    })
}

async fn send(mut writer: StreamWriter) {
    while writer.write(vec![7; PIECE]).await.is_ok() {}
}

/// Sends and takes until the peer ends both.
async fn bytes(IncomingStream { stream: Stream { writer, mut reader }, .. }: IncomingStream) {
    let take = async { while let Ok(Some(_)) = reader.read().await {} };
    tokio::join!(send(writer), take);
}

async fn serve(server: &ServerMailbox, spent: Spent) -> Result<(), Failure> {
    let usual = HandlerConfig::concurrent();
    server.serve(ECHO, usual, Handler::function(|incoming| Ok(incoming.payload))).await?;
    server.serve(COSTLY, usual, costly(spent)).await?;
    server.serve(LARGE, usual, Handler::function(|_| Ok(vec![7; ANSWER].into()))).await?;
    server.serve_streams(BYTES, StreamHandlerConfig::recommended(), StreamHandler::task(bytes)).await?;
    Ok(())
}

/// An application that takes what comes on the topic.
async fn subscribe(server: &ServerMailbox) -> Result<(), Failure> {
    let (outlet, mut inlet) = data_queue(Capacity { items: 10_000, weight: 16 << 20 });
    server.subscribe(topic()?, Policy::Signed, outlet).await?;
    tokio::spawn(async move { while !matches!(inlet.recv().await, Err(RecvError::Closed)) {} });
    Ok(())
}

/// Serves, and answers each line of its input with how it stands.
pub(super) async fn run() -> Result<(), Failure> {
    // Keeps no distributions, whose samples would have to be condensed now and then.
    let counts = Counts::default();
    let server = start(Args { meter: Meter::new(Arc::new(counts.clone())), ..node::args(NUMBER, config()) }).await?;
    let spent = Spent::default();
    serve(&server, spent.clone()).await?;
    subscribe(&server).await?;
    let local = PeerAddress::from(&*server.local().await?.record);
    let at = *local.addresses.first().ok_or("it listens nowhere")?;
    println!("{}", serde_json::to_string(&Found { at, id: local.id })?);
    let mut told = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(_)) = told.next_line().await {
        println!("{}", serde_json::to_string(&facts(&server, &counts, &spent).await?)?);
    }
    Ok(())
}

async fn facts(server: &ServerMailbox, counts: &Counts, spent: &Spent) -> Result<Facts, Failure> {
    let hostile: BTreeSet<NodeId> = (0..HOSTILE).map(|n| keys(n).id()).collect();
    let banned = |(banned, _): &(Banned, _)| matches!(banned, Banned::Id(id) if hostile.contains(id));
    let Usage { cpu_us, rss_kib, peak_kib } = Usage::now();
    let most = |what| counts.gauge(&format!("peerage_throttle_cpu_most_millicores{{what={what}}}")).unwrap_or_default();
    Ok(Facts {
        cpu_us,
        waited_us: waited_us(),
        rss_kib,
        rss_peak_kib: peak_kib,
        actors_most_millicores: most("used"),
        actors_target_millicores: most("target"),
        alive: server.peers().await?.iter().filter(|peer| hostile.contains(&peer.id)).count(),
        banned: server.bans().await?.iter().filter(|ban| banned(ban)).count(),
        handler_us: spent.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, us)| (*id, *us)).collect(),
        counters: counts.counters("peerage_"),
    })
}
