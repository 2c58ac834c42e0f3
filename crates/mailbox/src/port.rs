//! A typed door for control messages.

use std::fmt;
use std::sync::Arc;

use ractor::{ActorRef, Message};

/// Where an actor sends what it emits, without knowing who takes it: the wiring maps it to the taker's
/// own message.
pub struct Port<T>(Arc<dyn Fn(T) + Send + Sync>);

impl<T: 'static> Port<T> {
    /// A port that calls `send`, which must not wait.
    pub fn from_fn(send: impl Fn(T) + Send + Sync + 'static) -> Port<T> {
        Port(Arc::new(send))
    }

    /// A port into an actor's control mailbox; `wrap` makes its message. What is sent to an actor that is
    /// gone is dropped.
    pub fn to_actor<M: Message>(actor: &ActorRef<M>, wrap: impl Fn(T) -> M + Send + Sync + 'static) -> Port<T> {
        let actor = actor.clone();
        Port::from_fn(move |value| drop(actor.cast(wrap(value))))
    }

    /// A port that nobody listens to.
    pub fn closed() -> Port<T> {
        Port::from_fn(drop)
    }

    /// Sends.
    pub fn send(&self, value: T) {
        (self.0)(value);
    }
}

impl<T> Clone for Port<T> {
    fn clone(&self) -> Self {
        Port(self.0.clone())
    }
}

impl<T> fmt::Debug for Port<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}
