//! Starting actors under a parent, without their ractor types in anybody's public signature.

use std::fmt;

use ractor::{Actor, ActorCell, ActorRef, SupervisionEvent};

/// Who is told when an actor ends: its parent, or nobody.
#[derive(Clone, Debug)]
pub struct Supervisor(Option<ActorCell>);

impl Supervisor {
    /// The actor is started alone.
    pub const fn none() -> Supervisor {
        Supervisor(None)
    }

    /// The actor is this one's child. The parent must override `handle_supervisor_evt`: ractor's default
    /// stops a parent when any child ends.
    pub fn parent<M>(actor: &ActorRef<M>) -> Supervisor {
        Supervisor(Some(actor.get_cell()))
    }
}

/// An actor failed to start.
#[derive(Debug, thiserror::Error)]
#[error("an actor failed to start: {0}")]
pub struct SpawnError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A started actor, to be recognised when it ends, and to be ended.
#[derive(Clone)]
pub struct Child(ActorCell);

impl Child {
    /// Whether this event says that the child ended, and if it failed, how.
    pub fn ended(&self, event: &SupervisionEvent) -> Option<Result<(), String>> {
        match event {
            SupervisionEvent::ActorTerminated(cell, ..) if cell.get_id() == self.0.get_id() => Some(Ok(())),
            SupervisionEvent::ActorFailed(cell, error) if cell.get_id() == self.0.get_id() => {
                Some(Err(error.to_string()))
            }
            _ => None,
        }
    }

    /// Lets the actor end after the message it is handling; what is queued behind it is not handled.
    pub fn stop(&self) {
        self.0.stop(None);
    }

    /// Ends the actor at its next await, without its `post_stop`.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// Waits until the actor has ended.
    pub async fn wait(&self) {
        // The only error is a time-out, and none is given.
        drop(self.0.wait(None).await);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Child")
    }
}

/// Starts an actor. Its `pre_start` runs in the caller and so must neither dial, bind nor look up.
///
/// # Errors
/// [`SpawnError`] with what `pre_start` said.
pub async fn spawn_child<A: Actor>(
    actor: A,
    args: A::Arguments,
    parent: &Supervisor,
) -> Result<(ActorRef<A::Msg>, Child), SpawnError> {
    // No names: ractor's registry is shared by the whole process, and many nodes may live in one.
    let spawned = match &parent.0 {
        Some(parent) => Actor::spawn_linked(None, actor, args, parent.clone()).await,
        None => Actor::spawn(None, actor, args).await,
    };
    // The handle is not kept: whether an actor ended is told to its parent, or asked of its Child.
    let (actor, _handle) = spawned.map_err(|error| SpawnError(error.into()))?;
    let child = Child(actor.get_cell());
    Ok((actor, child))
}
