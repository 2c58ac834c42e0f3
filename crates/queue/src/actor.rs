//! The queue actor: offers one message to many peers' doors, and does nothing else.

use std::collections::BTreeMap;

use peerage_mailbox::{Bell, Child, Inlet, Meter, SpawnError, Supervisor, spawn_child};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::door::Door;
use crate::fan_out::FanOut;
use crate::ingress::{QueueMailbox, QueueMsg};
use crate::pool::Pool;
use crate::types::{Push, SessionId};

/// Messages handled before others get their turn.
const BUDGET: usize = 256;

/// What a queue actor needs. All of it outlives the actor, so that its next life goes on where it was.
#[derive(Clone, Debug)]
pub struct Args {
    /// The peers there are: none at first, and after a restart those that were.
    pub doors: BTreeMap<SessionId, Door>,
    /// Where messages come from.
    pub pushes: Inlet<Push>,
    /// The node's byte pool.
    pub pool: Pool,
    /// Where to count.
    pub meter: Meter,
}

/// Starts the actor. Its parent tells it of every peer that comes and goes.
///
/// # Errors
/// [`SpawnError`].
pub async fn spawn(args: Args, parent: &Supervisor) -> Result<(QueueMailbox, Child), SpawnError> {
    let (actor, child) = spawn_child(Queue, args, parent).await?;
    Ok((QueueMailbox(actor), child))
}

struct Queue;

struct State {
    fan_out: FanOut,
    pushes: Inlet<Push>,
}

impl Actor for Queue {
    type Msg = QueueMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<QueueMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        args.pushes.bind(Bell::new(&myself, || QueueMsg::Wake));
        let mut fan_out = FanOut::new(args.pool, &args.meter);
        args.doors.into_iter().for_each(|(session, door)| fan_out.insert(session, door));
        Ok(State { fan_out, pushes: args.pushes })
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMsg>,
        message: QueueMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueMsg::PeerUp { session, door } => state.fan_out.insert(session, door),
            QueueMsg::PeerDown { session } => state.fan_out.remove(session),
            // What is queued now came after the news of its recipients was sent, but such news may still be
            // behind this message. It is ahead of the next one.
            QueueMsg::Wake => QueueMailbox(myself).drain(state.pushes.len().min(BUDGET)),
            QueueMsg::Drain(count) => {
                for _ in 0..count {
                    let Some(push) = state.pushes.pop() else { break };
                    state.fan_out.push(push);
                }
                state.pushes.ring_if_more();
            }
            #[cfg(feature = "fault-injection")]
            QueueMsg::Panic => panic!("injected"),
        }
        Ok(())
    }
}
