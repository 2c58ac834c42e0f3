//! What the session's actor tells its pump: one slot, in which the newest counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use peerage_wire::DisconnectReason;

/// What the pump is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Disconnect(DisconnectReason),
    /// The actor is gone without a word.
    Abandoned,
    #[cfg(feature = "fault-injection")]
    Panic,
}

#[derive(Debug, Default)]
struct Slot {
    control: Mutex<Option<Control>>,
    pump: AtomicWaker,
}

impl Slot {
    fn set(&self, control: Control) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = Some(control);
        self.pump.wake();
    }
}

/// The actor's end.
#[derive(Debug)]
pub(crate) struct Controller(Arc<Slot>);

impl Controller {
    pub(crate) fn send(&self, control: Control) {
        self.0.set(control);
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let empty = self.0.control.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if empty {
            self.0.set(Control::Abandoned);
        }
    }
}

/// The pump's end.
#[derive(Debug)]
pub(crate) struct Controlled(Arc<Slot>);

impl Controlled {
    /// Takes what was sent. Whoever sends more wakes `pump`.
    pub(crate) fn poll(&self, pump: &Waker) -> Option<Control> {
        self.0.pump.register(pump);
        self.0.control.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

pub(crate) fn control() -> (Controller, Controlled) {
    let slot = Arc::new(Slot::default());
    (Controller(slot.clone()), Controlled(slot))
}
