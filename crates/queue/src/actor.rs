//! The queue actor: offers one message to many peers' doors, and does nothing else.

use std::collections::BTreeMap;

use peerage_mailbox::{Bell, Child, Inlet, Meter, SpawnError, Supervisor, spawn_child};
use peerage_wire::frame::Lane;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::Refusal;
use crate::door::{Door, Message};
use crate::ingress::{QueueMailbox, QueueMsg};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::types::{Push, SendFailed, SessionId, WhenFull};

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
    doors: BTreeMap<SessionId, Door>,
    pushes: Inlet<Push>,
    pool: Pool,
    metrics: Metrics,
}

impl Actor for Queue {
    type Msg = QueueMsg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<QueueMsg>, args: Args) -> Result<State, ActorProcessingErr> {
        args.pushes.bind(Bell::new(&myself, || QueueMsg::Wake));
        let metrics = Metrics::new(&args.meter);
        Ok(State { doors: args.doors, pushes: args.pushes, pool: args.pool, metrics })
    }

    async fn handle(
        &self,
        myself: ActorRef<QueueMsg>,
        message: QueueMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            QueueMsg::PeerUp { session, door } => drop(state.doors.insert(session, door)),
            QueueMsg::PeerDown { session } => drop(state.doors.remove(&session)),
            // What is queued now came after the news of its recipients was sent, but such news may still be
            // behind this message. It is ahead of the next one.
            QueueMsg::Wake => QueueMailbox(myself).drain(state.pushes.len().min(BUDGET)),
            QueueMsg::Drain(count) => {
                for _ in 0..count {
                    let Some(push) = state.pushes.pop() else { break };
                    state.fan_out(push);
                }
                state.pushes.ring_if_more();
            }
            #[cfg(feature = "fault-injection")]
            QueueMsg::Panic => panic!("injected"),
        }
        Ok(())
    }
}

impl State {
    fn fan_out(&mut self, push: Push) {
        if push.when_full == WhenFull::TakeBack {
            let doors = push.to.iter().filter_map(|recipient| self.doors.get(&recipient.session));
            let taken: usize = doors.map(|door| door.take_back(push.lane, push.tag)).sum();
            return self.metrics.taken_back.increment(taken as u64);
        }
        self.metrics.pushed.increment(1);
        // Control passes when the pool is full; its lanes are small.
        let charge = match push.lane {
            Lane::Control => None,
            _ => match self.pool.charge(push.payload.len()) {
                Some(charge) => Some(charge),
                None => {
                    for recipient in &push.to {
                        self.fail(&push, recipient.session, Refusal::PoolFull);
                    }
                    return;
                }
            },
        };
        for recipient in &push.to {
            let Some(door) = self.doors.get(&recipient.session) else {
                self.fail(&push, recipient.session, Refusal::SessionEnded);
                continue;
            };
            let mut message =
                Message::new(recipient.channel, push.lane, push.payload.clone()).when_full(push.when_full);
            if let Some(charge) = &charge {
                message = message.charged(charge.clone());
            }
            if let Some(failures) = &push.failures {
                message = message.report(failures.clone(), recipient.session, push.tag);
            }
            match door.offer(message) {
                Ok(()) => self.metrics.offered.increment(1),
                Err(reason) => self.metrics.refused(reason),
            }
        }
    }

    fn fail(&self, push: &Push, session: SessionId, reason: Refusal) {
        self.metrics.refused(reason);
        if let Some(failures) = &push.failures {
            drop(failures.offer(SendFailed { session, tag: push.tag, reason }));
        }
    }
}
