//! One message to many doors: what the queue actor does, and any other that holds doors itself.

use std::collections::BTreeMap;
use std::fmt;

use peerage_mailbox::Meter;
use peerage_wire::frame::Lane;

use crate::Refusal;
use crate::door::{Door, Message};
use crate::metrics::Metrics;
use crate::pool::{Pool, Pressure};
use crate::types::{Push, SendFailed, SessionId, WhenFull};

/// The doors of peers, and the pool that what goes through them is charged to. An actor whose messages may not wait for
/// the queue actor's turn has one of its own; messages of one sender keep their order only where all go the same way.
pub struct FanOut {
    doors: BTreeMap<SessionId, Door>,
    pool: Pool,
    pressure: Pressure,
    metrics: Metrics,
}

impl FanOut {
    /// Nobody's doors yet.
    pub fn new(pool: Pool, meter: &Meter) -> FanOut {
        FanOut { doors: BTreeMap::new(), pressure: pool.pressure(), pool, metrics: Metrics::new(meter) }
    }

    /// A session has begun.
    pub fn insert(&mut self, session: SessionId, door: Door) {
        self.doors.insert(session, door);
    }

    /// A session has ended. What is offered to it from now on fails.
    pub fn remove(&mut self, session: SessionId) {
        self.doors.remove(&session);
    }

    /// Offers a message to each recipient's lane. Answers at once; what is not queued is reported where the push says.
    pub fn push(&self, push: Push) {
        if push.when_full == WhenFull::TakeBack {
            let doors = push.to.iter().filter_map(|recipient| self.doors.get(&recipient.session));
            let taken: usize = doors.map(|door| door.take_back(push.lane, push.tag)).sum();
            return self.metrics.taken_back.increment(taken as u64);
        }
        self.metrics.pushed.increment(1);
        if self.pressure.sheds(push.lane) {
            return push.to.iter().for_each(|recipient| self.fail(&push, recipient.session, Refusal::Shed));
        }
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
        if let Some(door) = self.doors.get(&session) {
            door.count_failed(reason);
        }
        self.metrics.refused(reason);
        if let Some(failures) = &push.failures {
            drop(failures.offer(SendFailed { session, tag: push.tag, reason }));
        }
    }
}

impl fmt::Debug for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FanOut({} doors)", self.doors.len())
    }
}
