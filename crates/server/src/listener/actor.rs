//! The listener's shell: accepts connections, finds out whose protocol they speak, and starts a handshake task for
//! each of this node's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Driver;
use peerage_machine::journal::{Genesis as _, Journals};
use peerage_mailbox::{Child, Clock, Port, SpawnError, Supervisor, spawn_child};
use peerage_transport::{Listener, Stream};
use peerage_wire::{Admission, codec};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::config::ListenerConfig;
use super::door::{Door, DoorError, Doors, Native, Visitor};
use super::first_bytes::{Whose, first_bytes};
use super::ingress::{ListenerMailbox, ListenerMsg};
use super::machine::{Conn, In, ListenerMachine, Out, Refusal};
use crate::genesis::ListenerGenesis;
use crate::metrics::SetupMetrics;
use crate::setup::SetupContext;

/// How long to wait after `accept` failed: most often there is no file descriptor left, and trying at once
/// takes a whole core (geth g21878).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// A failure of `accept` is logged at most so often.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A listening socket, lent to one life of the actor after the other.
pub(crate) type SharedListener = Arc<Mutex<Listener>>;

/// The node's own door, which is for `natives`, and those that others have registered.
///
/// # Errors
/// The first one that there cannot be.
pub(crate) fn doors(config: &ListenerConfig, natives: Vec<Native>, others: Vec<Door>) -> Result<Doors, DoorError> {
    let mut doors = Doors::new(natives, (config.slots - config.reserved) / 2);
    others.into_iter().try_for_each(|door| doors.open(door))?;
    Ok(doors)
}

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) sockets: Vec<SharedListener>,
    pub(crate) context: SetupContext,
    pub(crate) config: ListenerConfig,
    pub(crate) exempt_local: bool,
    pub(crate) doors: Doors,
    pub(crate) admission: Arc<Admission>,
    /// Addresses of static and trusted peers.
    pub(crate) privileged: BTreeSet<IpAddr>,
    pub(crate) clock: Clock,
    pub(crate) metrics: SetupMetrics,
    pub(crate) journals: Journals,
}

/// What becomes of a connection in its slot.
#[derive(Debug)]
pub(crate) enum SlotMsg {
    /// The root has a place for who it is.
    Identified(Conn),
    /// It is for this door.
    Matched(Conn, Door, Visitor),
    /// It is over.
    Released(Conn),
}

pub(crate) async fn spawn(args: Args, parent: &Supervisor) -> Result<(ListenerMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(ListenerActor, args, parent).await?;
    Ok((ListenerMailbox::new(actor), child))
}

struct ListenerActor;

struct State {
    args: Args,
    driver: Driver<ListenerMachine>,
    doors: Arc<Doors>,
    slots: Port<SlotMsg>,
    /// The number of the next connection.
    next: u64,
    /// The connection whose fate the machine decides.
    arrived: Option<Stream>,
    matched: Option<(Door, Visitor)>,
    /// One a slot.
    setups: BTreeMap<Conn, AbortHandle>,
    /// End with the actor, as do the accept loops.
    tasks: JoinSet<()>,
    loops: JoinSet<()>,
}

impl Actor for ListenerActor {
    type Msg = ListenerMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<ListenerMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        let genesis = ListenerGenesis { config: args.config.clone(), exempt_local: args.exempt_local };
        let recorder = args.journals.begin(args.clock.now(), || genesis.clone(), codec::encode, codec::encode);
        let mut state = State {
            driver: Driver::new(genesis.build()?).recorded(recorder),
            doors: Arc::new(args.doors.clone()),
            slots: Port::to_actor(&myself, ListenerMsg::Slot),
            next: 0,
            arrived: None,
            matched: None,
            setups: BTreeMap::new(),
            tasks: JoinSet::new(),
            loops: JoinSet::new(),
            args,
        };
        state.accept(&myself);
        state.feed(In::Admission(state.args.admission.clone()));
        state.feed(In::Privileged(state.args.privileged.clone()));
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<ListenerMsg>,
        message: ListenerMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ListenerMsg::Accepted(stream, reply) => {
                state.accepted(stream);
                reply.send(state.driver.machine().wait(state.args.clock.now()));
            }
            ListenerMsg::Slot(SlotMsg::Identified(conn)) => state.feed(In::Identified(conn)),
            ListenerMsg::Slot(SlotMsg::Matched(conn, door, visitor)) => {
                let input = In::Matched { conn, door: door.name.clone(), limit: door.limit };
                state.matched = Some((door, visitor));
                state.feed(input);
                state.matched = None;
            }
            ListenerMsg::Slot(SlotMsg::Released(conn)) => {
                state.setups.remove(&conn);
                state.feed(In::Released(conn));
            }
            ListenerMsg::Doors(doors) => state.doors = Arc::new(doors),
            ListenerMsg::Admission(admission) => state.feed(In::Admission(admission)),
            ListenerMsg::Privileged(addresses) => state.feed(In::Privileged(addresses)),
            // What has begun goes on: the root refuses it.
            ListenerMsg::Pause => state.loops = JoinSet::new(),
            ListenerMsg::Resume => state.accept(&myself),
            ListenerMsg::Limits(config) => {
                state.args.config = ListenerConfig::clone(&config);
                state.feed(In::Limits(config));
            }
            #[cfg(feature = "fault-injection")]
            ListenerMsg::Panic => panic!("injected"),
        }
        while state.tasks.try_join_next().is_some() {}
        let (open, reserved) = state.driver.machine().in_use();
        state.args.metrics.slots(open, reserved);
        Ok(())
    }
}

impl State {
    /// Accepts, unless it does already.
    fn accept(&mut self, myself: &ActorRef<ListenerMsg>) {
        if !self.loops.is_empty() {
            return;
        }
        let mailbox = ListenerMailbox::new(myself.clone());
        for socket in &self.args.sockets {
            let (clock, metrics) = (self.args.clock, self.args.metrics.clone());
            self.loops.spawn(accept(socket.clone(), mailbox.clone(), clock, metrics));
        }
    }

    fn accepted(&mut self, stream: Stream) {
        let conn = Conn(self.next);
        self.next += 1;
        let ip = stream.remote_addr().ip();
        self.arrived = Some(stream);
        self.feed(In::Accepted(conn, ip));
        self.arrived = None;
    }

    fn feed(&mut self, input: In) {
        self.driver.handle(self.args.clock.now(), input);
        for out in self.driver.drain().collect::<Vec<_>>() {
            match out {
                Out::Begin(conn) => self.begin(conn),
                Out::Refuse(conn, refusal) => self.refused(conn, refusal),
                Out::Close(conn, refusal) => {
                    self.refused(conn, refusal);
                    if let Some(task) = self.setups.remove(&conn) {
                        task.abort();
                    }
                }
                Out::Hand(conn) => {
                    self.setups.remove(&conn);
                    if let Some((door, visitor)) = self.matched.take() {
                        door.take.send(visitor);
                    }
                }
            }
        }
    }

    fn refused(&self, conn: Conn, refusal: Refusal) {
        tracing::debug!(?conn, reason = refusal.label(), "inbound connection refused");
        self.args.metrics.refused(refusal.label());
    }

    fn begin(&mut self, conn: Conn) {
        let Some(stream) = self.arrived.take() else { return };
        let setup = Setup {
            slot: Slot { conn, port: self.slots.clone() },
            doors: self.doors.clone(),
            context: self.args.context.clone(),
            metrics: self.args.metrics.clone(),
            deadline: Instant::now() + self.args.config.first_bytes_timeout,
        };
        self.setups.insert(conn, self.tasks.spawn(setup.run(stream)));
    }
}

/// Accepts until it is aborted, one connection after the other, as fast as the listener lets it.
async fn accept(socket: SharedListener, listener: ListenerMailbox, clock: Clock, metrics: SetupMetrics) {
    let mut socket = socket.lock().await;
    let mut logged = None;
    loop {
        let pause = match socket.accept().await {
            // Without an answer the listener is busy or gone.
            Ok(stream) => listener.accepted(stream).await.unwrap_or(ACCEPT_PAUSE),
            Err(error) => {
                metrics.accept_failed();
                let now = clock.now();
                if logged.is_none_or(|at| now.since(at) >= LOG_EVERY) {
                    tracing::warn!(%error, "accept failed");
                    logged = Some(now);
                }
                ACCEPT_PAUSE
            }
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// A connection's slot. Frees it when dropped.
struct Slot {
    conn: Conn,
    port: Port<SlotMsg>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.port.send(SlotMsg::Released(self.conn));
    }
}

/// One connection on its way in.
struct Setup {
    slot: Slot,
    doors: Arc<Doors>,
    context: SetupContext,
    metrics: SetupMetrics,
    deadline: Instant,
}

impl Setup {
    async fn run(self, mut stream: Stream) {
        let address = stream.remote_addr();
        let seen = tokio::time::timeout_at(self.deadline, first_bytes(&mut stream, &self.doors)).await;
        let whose = match seen.unwrap_or(Err(Refusal::FirstBytesTimeout)) {
            Ok(whose) => whose,
            Err(refusal) => {
                tracing::debug!(%address, reason = refusal.label(), "inbound connection refused");
                return self.metrics.refused(refusal.label());
            }
        };
        match whose {
            Whose::Door(door) => {
                let (conn, port) = (self.slot.conn, self.slot.port.clone());
                port.send(SlotMsg::Matched(conn, door, Visitor::new(stream, self.slot)));
            }
            Whose::Native => {
                let identified = || self.slot.port.send(SlotMsg::Identified(self.slot.conn));
                match self.context.run_noting(stream, None, identified).await {
                    Ok(id) => {
                        self.metrics.finished("inbound", "ok");
                        tracing::debug!(%id, %address, "inbound session");
                    }
                    Err(error) => {
                        self.metrics.finished("inbound", error.reason().label());
                        tracing::debug!(%address, %error, "inbound handshake failed");
                    }
                }
            }
        }
    }
}
