//! The listener actor: accepts connections within its limits, and starts a handshake task for each.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::{Quota, QuotaTable};
use peerage_mailbox::{Child, Clock, SpawnError, Supervisor, spawn_child};
use peerage_transport::{Listener, Stream};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::ingress::{ListenerMailbox, ListenerMsg};
use crate::metrics::SetupMetrics;
use crate::setup::SetupContext;

/// How long to wait after `accept` failed: most often there is no file descriptor left, and trying at once
/// takes a whole core (geth g21878).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
        for socket in args.sockets.clone() {
            let door = Door {
                args: args.clone(),
                slots: slots.clone(),
                hosts: QuotaTable::new(args.per_host, 4 * args.slots),
            };
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
    hosts: QuotaTable<IpAddr>,
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
        let exempt = self.args.exempt_local && is_local(ip);
        if !exempt && !self.hosts.take(self.args.clock.now(), &ip) {
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

/// Loopback, private and link-local addresses.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
