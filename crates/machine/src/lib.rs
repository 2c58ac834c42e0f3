//! The contract that every protocol rule in Peerage is written against.
//!
//! A *machine* is plain and synchronous: it has no clock, no socket, no task and no global
//! randomness. A *shell* (an actor in production, a loop in a test, an event heap in a simulator)
//! tells it what happened and when, and performs the effects it asks for:
//!
//! ```
//! use std::time::Duration;
//! use peerage_machine::{Driver, Effects, Machine, Time};
//!
//! /// Answers "late" when nobody pinged for a second.
//! struct Watchdog;
//!
//! impl Machine for Watchdog {
//!     type In = &'static str;
//!     type Out = &'static str;
//!     type Timer = ();
//!
//!     fn handle(&mut self, now: Time, _ping: &'static str, fx: &mut Effects<&'static str, ()>) {
//!         fx.arm((), now + Duration::from_secs(1));
//!     }
//!
//!     fn expire(&mut self, _now: Time, _timer: (), fx: &mut Effects<&'static str, ()>) {
//!         fx.emit("late");
//!     }
//! }
//!
//! let mut driver = Driver::new(Watchdog);
//! let start = Time::ZERO;
//! driver.handle(start, "ping");
//! assert_eq!(driver.next_deadline(), Some(start + Duration::from_secs(1)));
//! driver.expire_due(start + Duration::from_secs(2));
//! assert_eq!(driver.drain().collect::<Vec<_>>(), ["late"]);
//! ```
#![warn(missing_docs)]

mod backoff;
pub mod bloom;
mod decay;
mod effects;
pub mod journal;
mod labelled;
mod quota;
mod rng;
mod time;
mod timers;

pub use backoff::Backoff;
pub use bloom::{Bloom, BloomError};
pub use decay::Decaying;
pub use effects::{Driver, Effects, Machine, TimerOp};
pub use quota::{Quota, QuotaTable};
pub use rng::Rng;
pub use time::Time;
pub use timers::Timers;
