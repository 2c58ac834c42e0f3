//! One machine of a node: the real one, or another that is told and asks for the same.

use std::cell::Cell;

use peerage_machine::{Driver, Machine, Time};

/// Any machine with the interface of `M`: how hostile nodes are made.
pub type Foreign<M> =
    Box<dyn Machine<In = <M as Machine>::In, Out = <M as Machine>::Out, Timer = <M as Machine>::Timer>>;

/// A buffer for effects that all nodes of a world use in turn: most events have some, and a buffer for each node would be
/// empty nearly always.
pub(super) struct Room<O>(Cell<Vec<O>>);

impl<O> Default for Room<O> {
    fn default() -> Room<O> {
        Room(Cell::default())
    }
}

impl<O> Room<O> {
    /// Takes back what was lent, if it was used or not.
    pub(super) fn give_back(&self, room: Vec<O>) {
        if room.capacity() > 0 {
            self.0.set(room);
        }
    }
}

pub(super) enum Part<M: Machine> {
    Own(Driver<M>),
    Foreign(Driver<Foreign<M>>),
}

impl<M: Machine> Part<M> {
    pub(super) fn new(own: impl FnOnce() -> M, foreign: Option<Foreign<M>>) -> Part<M> {
        match foreign {
            Some(foreign) => Part::Foreign(Driver::new(foreign)),
            None => Part::Own(Driver::new(own())),
        }
    }

    pub(super) fn own(&self) -> Option<&M> {
        match self {
            Part::Own(driver) => Some(driver.machine()),
            Part::Foreign(_) => None,
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn own_mut(&mut self) -> Option<&mut M> {
        match self {
            Part::Own(driver) => Some(driver.machine_mut()),
            Part::Foreign(_) => None,
        }
    }

    pub(super) fn handle(&mut self, now: Time, input: M::In) {
        match self {
            Part::Own(driver) => driver.handle(now, input),
            Part::Foreign(driver) => driver.handle(now, input),
        }
    }

    pub(super) fn expire_due(&mut self, now: Time) {
        match self {
            Part::Own(driver) => driver.expire_due(now),
            Part::Foreign(driver) => driver.expire_due(now),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        match self {
            Part::Own(driver) => driver.next_deadline(),
            Part::Foreign(driver) => driver.next_deadline(),
        }
    }

    /// Lends the machine a buffer for what it asks for.
    pub(super) fn lend(&mut self, room: &Room<M::Out>) {
        match self {
            Part::Own(driver) => driver.lend(room.0.take()),
            Part::Foreign(driver) => driver.lend(room.0.take()),
        }
    }

    /// Takes what the machine asks for, oldest first.
    pub(super) fn take_outs(&mut self) -> Vec<M::Out> {
        match self {
            Part::Own(driver) => driver.take_outs(),
            Part::Foreign(driver) => driver.take_outs(),
        }
    }
}
