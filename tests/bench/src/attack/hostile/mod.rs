//! The hostile peers: each comes back at once, as the same one, whatever becomes of it.

mod gossip;
mod requests;
mod slow;
mod streams;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerage_server::Config;
use peerage_server::mailbox::{Clock, Meter};
use peerage_server::peer_session::handshake::HandshakeError;
use peerage_server::peer_session::{self, ConnectError, Endpoint, EndpointConfig};
use peerage_server::wire::{DisconnectReason, Keypair};

use super::{Attack, Found, HOSTILE, Spoils, keys};
use crate::Failure;
use crate::flood::{attacker, connect};
use crate::machine::Usage;

/// After the system refused a connection: there may be no port left.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a handshake is waited for, and what a session that has ended says.
const WAIT: Duration = Duration::from_secs(10);
/// Streams that a hostile peer lets itself open: more than anybody lets it.
const STREAMS: usize = 4_096;

/// What they did and got, all together.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counted {
    fn add(&self, what: &str, count: u64) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.get_mut(what) {
            Some(so_far) => *so_far += count,
            None => drop(counted.insert(what.to_owned(), count)),
        }
    }
}

/// One hostile peer.
struct Foe {
    attack: Attack,
    /// Which of its kind.
    number: usize,
    keys: Keypair,
    endpoint: Endpoint,
    from: IpAddr,
    found: Found,
    counted: Counted,
}

impl Foe {
    fn new(attack: Attack, n: usize, found: Found, counted: Counted) -> Result<Foe, Failure> {
        let (attack, number) = attack.of(n);
        let session = peer_session::Config {
            max_streams: STREAMS,
            max_channel_streams: STREAMS,
            ..peer_session::Config::recommended()
        };
        let (clock, meter) = (Clock::system(), Meter::none());
        let config = EndpointConfig { session, sessions: 64, clock, meter, ..EndpointConfig::recommended() };
        let keys = keys(n);
        let network = Config::recommended().network;
        let endpoint = Endpoint::with(&keys, &network, &[("gossip", 1), ("router", 1)], config)?;
        Ok(Foe { attack, number, keys, endpoint, from: attacker(true, n), found, counted })
    }

    /// Until it is aborted.
    async fn attack(self) {
        loop {
            self.once().await;
        }
    }

    /// One connection, from its first byte to its last.
    async fn once(&self) {
        let Ok(stream) = connect(self.from, self.found.at).await else {
            self.counted.add("unconnected", 1);
            return tokio::time::sleep(PAUSE).await;
        };
        let asleep = Arc::new(AtomicBool::new(false));
        let pace = self.attack == Attack::SlowReads;
        let stream = if pace { slow::slowed(stream, asleep.clone(), slow::pace(self.number)) } else { stream };
        let mut peer = match tokio::time::timeout(WAIT, self.endpoint.dial(stream, self.found.id)).await {
            Ok(Ok(peer)) => peer,
            Ok(Err(error)) => return self.counted.add(&refused(&error), 1),
            Err(_) => return self.counted.add("dial.no_answer", 1),
        };
        self.counted.add("dial.session", 1);
        match self.attack {
            Attack::Handshakes | Attack::All => return,
            Attack::Requests => requests::attack(self, &mut peer).await,
            Attack::Gossip => gossip::attack(self, &mut peer).await,
            Attack::Streams => streams::attack(self, &mut peer).await,
            Attack::SlowReads => slow::attack(self, &mut peer, &asleep).await,
        }
        // What it has to say is heard, and what goes on is over.
        asleep.store(false, Ordering::Release);
        peer.disconnect(DisconnectReason::Quitting);
        if let Ok(ended) = tokio::time::timeout(WAIT, peer.ended()).await {
            self.counted.add(&format!("ended.{}", ended.reason.label()), 1);
        }
    }
}

/// Why there is no session, as a part of a figure's name.
fn refused(error: &ConnectError) -> String {
    match error {
        ConnectError::Handshake(HandshakeError::RefusedByPeer(reason)) => format!("dial.{}", reason.label()),
        // Before any cryptography.
        ConnectError::Handshake(HandshakeError::Unanswered | HandshakeError::Io(_)) => "dial.closed".to_owned(),
        ConnectError::Handshake(HandshakeError::TimedOut) => "dial.timed_out".to_owned(),
        _ => "dial.failed".to_owned(),
    }
}

/// Attacks for so long, says what came of it, and goes on until it is killed.
pub(super) async fn run(found: Found, attack: Attack, time: Duration) -> Result<(), Failure> {
    let counted = Counted::default();
    for n in 0..HOSTILE {
        tokio::spawn(Foe::new(attack, n, found, counted.clone())?.attack());
    }
    let before = Usage::now().cpu_us;
    tokio::time::sleep(time).await;
    let cpu_us = Usage::now().cpu_us - before;
    let counted = counted.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    println!("{}", serde_json::to_string(&Spoils { cpu_us, counted })?);
    std::future::pending().await
}
