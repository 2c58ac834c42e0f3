//! The connector's shell: carries out what each dial's race decides, in a task of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use peerage_dialer::{Attempt, DialOutcome, DialTarget};
use peerage_machine::Driver;
use peerage_mailbox::{Child, Clock, Port, SpawnError, Supervisor, spawn_child};
use peerage_peer_session::handshake::HandshakeError;
use peerage_transport::{Stream, Transport};
use peerage_wire::{DisconnectReason, NodeId};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::error::Elapsed;

use super::ingress::{ConnectorMailbox, ConnectorMsg};
use super::race::{End, Failure, In, Out, Race};
use crate::metrics::SetupMetrics;
use crate::setup::SetupContext;

/// The answer to a dial. Sent once for each, however its task ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    pub(crate) attempt: Attempt,
    pub(crate) id: NodeId,
    pub(crate) outcome: DialOutcome,
}

#[derive(Clone)]
pub(crate) struct Args {
    pub(crate) transport: Transport,
    pub(crate) context: SetupContext,
    pub(crate) clock: Clock,
    /// How long opening a connection to one address may take.
    pub(crate) connect_timeout: Duration,
    /// How long connections to a node's addresses may be opened: what the dialer allows for a dial without the time of
    /// a handshake.
    pub(crate) dial_timeout: Duration,
    pub(crate) done: Port<Dialled>,
    pub(crate) metrics: SetupMetrics,
}

pub(crate) async fn spawn(args: Args, parent: &Supervisor) -> Result<(ConnectorMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(Connector, args, parent).await?;
    Ok((ConnectorMailbox::new(actor), child))
}

struct Connector;

struct State {
    args: Args,
    /// As many as the dialer has dials in flight.
    dials: BTreeMap<Attempt, AbortHandle>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.dials.values().for_each(AbortHandle::abort);
    }
}

/// Answers for a task that was aborted or panicked.
struct Answer {
    done: Port<Dialled>,
    dialled: Dialled,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.done.send(self.dialled);
    }
}

impl Actor for Connector {
    type Msg = ConnectorMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _myself: ActorRef<ConnectorMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        Ok(State { args, dials: BTreeMap::new() })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ConnectorMsg>,
        message: ConnectorMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConnectorMsg::Dial(attempt, target) => {
                state.dials.retain(|_, task| !task.is_finished());
                let task = tokio::spawn(dial(state.args.clone(), attempt, target));
                if let Some(earlier) = state.dials.insert(attempt, task.abort_handle()) {
                    earlier.abort();
                }
            }
            ConnectorMsg::Cancel(attempt) => {
                if let Some(task) = state.dials.remove(&attempt) {
                    task.abort();
                }
            }
            ConnectorMsg::CancelAll => {
                std::mem::take(&mut state.dials).into_values().for_each(|task| task.abort());
            }
            #[cfg(feature = "fault-injection")]
            ConnectorMsg::Panic => panic!("injected"),
        }
        Ok(())
    }
}

async fn dial(args: Args, attempt: Attempt, target: DialTarget) {
    let dialled = Dialled { attempt, id: target.id, outcome: DialOutcome::Cancelled };
    let mut answer = Answer { done: args.done.clone(), dialled };
    let end = Dial::new(&args, &target).run().await;
    answer.dialled.outcome = end.into();
    let label = match end {
        End::Connected => "ok",
        End::HandshakeFailed(reason) | End::Declined(reason) => reason.label(),
        End::ConnectFailed | End::TimedOut => DialOutcome::from(end).labels().0,
    };
    args.metrics.finished("outbound", label);
}

/// What came of a connection that was opened.
enum Event {
    Opening(SocketAddr, Result<io::Result<Stream>, Elapsed>),
    Handshaken(Result<NodeId, HandshakeError>),
}

/// One dial: carries what its race decides.
struct Dial<'a> {
    args: &'a Args,
    target: &'a DialTarget,
    race: Driver<Race>,
    /// Ends with the dial, in whatever way that ends.
    tasks: JoinSet<Event>,
    /// As many as the race has addresses.
    opening: BTreeMap<SocketAddr, AbortHandle>,
    /// The connection of which the race has just been told.
    opened: Option<Stream>,
}

impl<'a> Dial<'a> {
    fn new(args: &'a Args, target: &'a DialTarget) -> Dial<'a> {
        let race = Driver::new(Race::new(&target.addresses, args.dial_timeout));
        Dial { args, target, race, tasks: JoinSet::new(), opening: BTreeMap::new(), opened: None }
    }

    async fn run(mut self) -> End {
        let clock = self.args.clock;
        self.race.handle(clock.now(), In::Start);
        loop {
            if let Some(end) = self.perform() {
                return end;
            }
            tokio::select! {
                biased;
                Some(event) = self.tasks.join_next() => self.event(event),
                () = clock.sleep_until(self.race.next_deadline()) => self.race.expire_due(clock.now()),
            }
        }
    }

    fn perform(&mut self) -> Option<End> {
        for out in self.race.drain().collect::<Vec<_>>() {
            match out {
                Out::Open(address) => {
                    let (transport, limit) = (self.args.transport.clone(), self.args.connect_timeout);
                    let open = async move {
                        Event::Opening(address, tokio::time::timeout(limit, transport.connect(address)).await)
                    };
                    self.opening.insert(address, self.tasks.spawn(open));
                }
                Out::GiveUp(address) => {
                    if let Some(task) = self.opening.remove(&address) {
                        task.abort();
                        self.args.metrics.dialled_address("overtaken");
                    }
                }
                Out::Handshake(_) => {
                    if let Some(stream) = self.opened.take() {
                        let (context, id) = (self.args.context.clone(), self.target.id);
                        self.tasks.spawn(async move { Event::Handshaken(context.run(stream, Some(id)).await) });
                    }
                }
                Out::Done(end) => return Some(end),
            }
        }
        None
    }

    fn event(&mut self, event: Result<Event, JoinError>) {
        let id = self.target.id;
        let input = match event {
            Ok(Event::Opening(address, Ok(Ok(stream)))) => {
                // One that finished just before it was given up has nobody waiting for it.
                if self.opening.remove(&address).is_some() {
                    self.args.metrics.dialled_address("opened");
                    self.opened = Some(stream);
                }
                In::Opened(address)
            }
            Ok(Event::Opening(address, failed)) => {
                if self.opening.remove(&address).is_some() {
                    self.args.metrics.dialled_address(if failed.is_err() { "timed_out" } else { "failed" });
                }
                tracing::debug!(%id, %address, ?failed, "dial failed");
                In::Failed { address, timed_out: failed.is_err() }
            }
            Ok(Event::Handshaken(outcome)) => In::Handshaken(outcome.map(drop).map_err(|error| {
                tracing::debug!(%id, %error, "outbound handshake failed");
                Failure::from(&error)
            })),
            // One that was given up. No task here panics but a handshake by a bug of its own.
            Err(error) if error.is_cancelled() => return,
            Err(_) => {
                In::Handshaken(Err(Failure { end: End::HandshakeFailed(DisconnectReason::Crashed), curable: false }))
            }
        };
        self.race.handle(self.args.clock.now(), input);
    }
}
