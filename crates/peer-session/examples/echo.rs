//! Two processes, one encrypted channel: the listener sends back what the dialler says.
//!
//! `cargo run -p peerage-peer-session --example echo` starts the second process itself.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use peerage_peer_session::handshake::Presented;
use peerage_peer_session::peerage_mailbox::{Capacity, Clock, Inlet, Meter, Port, Supervisor, data_queue};
use peerage_peer_session::peerage_queue::{ChannelId, Delivery, Door, LanesConfig, Message, Pool, SessionId, lanes};
use peerage_peer_session::peerage_transport::Transport;
use peerage_peer_session::peerage_wire::codec::{Blob, List, Text};
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::{Capability, DisconnectReason, Hello, Keypair, NetworkId, RecordDraft};
use peerage_peer_session::{Args, Config, Established, Handshaker, SessionMailbox, spawn};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn present(keys: &Keypair) -> Result<Presented, Error> {
    let network = NetworkId::named("echo example");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    let hello = Hello {
        version: Hello::VERSION,
        network,
        fork_id: Blob::default(),
        instance: now,
        agent: Text::new("echo").ok_or("too long")?,
        capabilities: List::truncated(Capability::new("echo", 1)),
    };
    Ok(Presented { record: RecordDraft::new(now, network).sign(keys)?, hello })
}

struct Peer {
    session: SessionMailbox,
    door: Door,
    pool: Pool,
    inlet: Inlet<Delivery>,
    ended: tokio::sync::mpsc::UnboundedReceiver<DisconnectReason>,
}

impl Peer {
    async fn start(established: Established, clock: Clock) -> Result<Peer, Error> {
        let pool = Pool::new(1 << 20);
        let (door, lanes) = lanes(LanesConfig::recommended(), &pool.pressure());
        let (outlet, inlet) = data_queue(Capacity { items: 16, weight: 1 << 20 });
        let (ended_to, ended) = tokio::sync::mpsc::unbounded_channel();
        let args = Args {
            session: SessionId(1),
            config: Config::recommended(),
            established,
            lanes,
            routes: BTreeMap::from([(ChannelId(1), outlet)]),
            ended: Port::from_fn(move |end: peerage_peer_session::Ended| {
                let _ = ended_to.send(end.reason);
            }),
            clock,
            meter: Meter::none(),
        };
        let (session, _) = spawn(args, &Supervisor::none()).await?;
        Ok(Peer { session, door, pool, inlet, ended })
    }

    fn say(&self, bytes: impl Into<bytes::Bytes>) -> Result<(), Error> {
        let bytes = bytes.into();
        let charge = self.pool.charge(bytes.len()).ok_or("pool full")?;
        Ok(self.door.offer(Message::new(ChannelId(1), Lane::Normal, bytes, charge))?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (clock, listener_keys) = (Clock::system(), Keypair::from_seed([1; 32]));
    if let Some(port) = std::env::args().nth(1) {
        let keys = Keypair::generate()?;
        let stream = Transport::sockets().connect(([127, 0, 0, 1], port.parse()?).into()).await?;
        let handshaker = Handshaker::new(Config::recommended(), keys.clone(), clock);
        let established = handshaker.dial(stream, &present(&keys)?, listener_keys.id(), |_| async { Ok(()) }).await?;
        println!("dialler: reached {}", established.remote.id());
        let mut peer = Peer::start(established, clock).await?;
        peer.say("hello")?;
        println!("dialler: heard {:?}", peer.inlet.recv().await?.payload);
        peer.session.disconnect(DisconnectReason::Quitting);
        peer.ended.recv().await;
        return Ok(());
    }
    let mut listener = Transport::sockets().listen(([127, 0, 0, 1], 0).into()).await?;
    let port = listener.local_addr()?.port().to_string();
    let mut dialler = std::process::Command::new(std::env::current_exe()?).arg(port).spawn()?;
    let stream = tokio::time::timeout(Duration::from_secs(10), listener.accept()).await??;
    let handshaker = Handshaker::new(Config::recommended(), listener_keys.clone(), clock);
    let established = handshaker.accept(stream, &present(&listener_keys)?, |_| async { Ok(()) }).await?;
    let mut peer = Peer::start(established, clock).await?;
    let heard = peer.inlet.recv().await?.payload;
    println!("listener: heard {heard:?}, says it back");
    peer.say(heard)?;
    println!("listener: session ended: {}", peer.ended.recv().await.ok_or("session lost")?);
    let status = dialler.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the dialler failed: {status}").into()) }
}
