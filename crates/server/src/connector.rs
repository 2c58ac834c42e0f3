//! The connector actor: opens the connections that the dialer decides on, one task for each.

use std::collections::BTreeMap;
use std::time::Duration;

use peerage_dialer::{Attempt, DialOutcome, DialTarget};
use peerage_mailbox::{Child, Port, SpawnError, Supervisor, spawn_child};
use peerage_peer_session::handshake::HandshakeError;
use peerage_transport::Transport;
use peerage_wire::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use crate::ingress::{ConnectorMailbox, ConnectorMsg};
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
    /// How long opening a connection to one address may take.
    pub(crate) connect_timeout: Duration,
    /// How long all addresses of a node may take together, before the dialer calls the dial off.
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
    let outcome = connect(&args, &target).await;
    answer.dialled.outcome = outcome;
    let label = match outcome {
        DialOutcome::Connected => "ok",
        DialOutcome::HandshakeFailed(reason) => reason.label(),
        outcome => outcome.labels().0,
    };
    args.metrics.finished("outbound", label);
}

/// Tries the addresses in their order until one takes the connection; what its node then says is the answer.
async fn connect(args: &Args, target: &DialTarget) -> DialOutcome {
    let mut outcome = DialOutcome::ConnectFailed;
    // Every address gets its turn, however many of them swallow what is sent to them.
    let addresses = u32::try_from(target.addresses.len()).unwrap_or(u32::MAX).max(1);
    let each = args.connect_timeout.min(args.dial_timeout * 4 / 5 / addresses);
    for address in &target.addresses {
        let opened = tokio::time::timeout(each, args.transport.connect(*address)).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(id = %target.id, %address, %error, "dial failed");
                outcome = DialOutcome::ConnectFailed;
                continue;
            }
            Err(_) => {
                outcome = DialOutcome::TimedOut;
                continue;
            }
        };
        return match args.context.run(stream, Some(target.id)).await {
            Ok(_) => DialOutcome::Connected,
            Err(error) => {
                tracing::debug!(id = %target.id, %address, %error, "outbound handshake failed");
                match error {
                    HandshakeError::TimedOut => DialOutcome::TimedOut,
                    error => DialOutcome::HandshakeFailed(error.reason()),
                }
            }
        };
    }
    outcome
}
