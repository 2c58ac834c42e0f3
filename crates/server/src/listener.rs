//! The listener actor: accepts connections within its limits, and starts a handshake task for each.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use peerage_machine::{Quota, QuotaTable};
use peerage_mailbox::{Child, Clock, SpawnError, Supervisor, spawn_child};
use peerage_transport::{Listener, Stream};
use peerage_wire::address::{Scope, scope};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::ingress::{ListenerMailbox, ListenerMsg};
use crate::metrics::SetupMetrics;
use crate::setup::SetupContext;

/// How long to wait after `accept` failed: most often there is no file descriptor left, and trying at once
/// takes a whole core (geth g21878).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Hosts remembered for their limit, about 64 bytes each. While all of them are over it, new ones are refused.
const HOSTS: usize = 65_536;

/// A listening socket, lent to one life of the actor after the other.
pub(crate) type SharedListener = Arc<Mutex<Listener>>;

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) sockets: Vec<SharedListener>,
    pub(crate) context: SetupContext,
    pub(crate) slots: usize,
    pub(crate) per_host: Quota,
    pub(crate) exempt_local: bool,
    pub(crate) clock: Clock,
    pub(crate) metrics: SetupMetrics,
}

pub(crate) async fn spawn(args: Args, parent: &Supervisor) -> Result<(ListenerMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(ListenerActor, args, parent).await?;
    Ok((ListenerMailbox::new(actor), child))
}

struct ListenerActor;

struct State {
    accepting: watch::Sender<bool>,
    /// Ends the accept loops, and with them the handshakes, when the actor is gone.
    _loops: JoinSet<()>,
}

impl Actor for ListenerActor {
    type Msg = ListenerMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<ListenerMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        let (accepting, accepts) = watch::channel(true);
        let mut loops = JoinSet::new();
        let slots = Arc::new(tokio::sync::Semaphore::new(args.slots));
        let hosts = Arc::new(StdMutex::new(QuotaTable::new(args.per_host, HOSTS)));
        for socket in args.sockets.clone() {
            let door = Door { args: args.clone(), slots: slots.clone(), hosts: hosts.clone() };
            loops.spawn(door.run(socket, accepts.clone()));
        }
        Ok(State { accepting, _loops: loops })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ListenerMsg>,
        message: ListenerMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ListenerMsg::Pause => drop(state.accepting.send_replace(false)),
            #[cfg(feature = "fault-injection")]
            ListenerMsg::Panic => panic!("injected"),
        }
        Ok(())
    }
}

struct Door {
    args: Args,
    slots: Arc<tokio::sync::Semaphore>,
    /// One table for all sockets, or each socket would multiply the limit. Held for one call.
    hosts: Arc<StdMutex<QuotaTable<IpAddr>>>,
}

impl Door {
    async fn run(mut self, socket: SharedListener, mut accepts: watch::Receiver<bool>) {
        let mut socket = socket.lock().await;
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                changed = accepts.changed() => if changed.is_err() || !*accepts.borrow() { break },
                Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
                accepted = socket.accept() => match accepted {
                    Ok(stream) => self.admit(stream, &mut handshakes),
                    Err(error) => {
                        self.args.metrics.accept_failed();
                        tracing::debug!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // Paused for good: what has begun is answered by the root, which refuses it.
        while handshakes.join_next().await.is_some() {}
    }

    /// Charges the limits before any crypto, then lets the handshake begin.
    fn admit(&mut self, stream: Stream, handshakes: &mut JoinSet<()>) {
        let ip = stream.remote_addr().ip();
        let exempt = self.args.exempt_local && scope(ip) != Scope::Global;
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = exempt || hosts.take(self.args.clock.now(), &host(ip));
        drop(hosts);
        if !admitted {
            self.args.metrics.refused("host_limit");
            return;
        }
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.args.metrics.refused("no_slot");
            return;
        };
        let (context, metrics) = (self.args.context.clone(), self.args.metrics.clone());
        handshakes.spawn(async move {
            let address: SocketAddr = stream.remote_addr();
            match context.run(stream, None).await {
                Ok(id) => {
                    metrics.finished("inbound", "ok");
                    tracing::debug!(%id, %address, "inbound session");
                }
                Err(error) => {
                    metrics.finished("inbound", error.reason().label());
                    tracing::debug!(%address, %error, "inbound handshake failed");
                }
            }
            drop(slot);
        });
    }
}

/// What one host's limit is kept under: its IPv4 address, or the /64 that an IPv6 host chooses its addresses from.
fn host(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}
