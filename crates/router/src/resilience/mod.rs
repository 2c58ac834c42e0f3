//! What makes requests hold on an unreliable network: each a plain machine that is told what happened and answers.
//!
//! None of them has timers or sends anything: the router's machine asks them at its own deadlines.

mod average;
mod breaker;
mod members;
mod membership;
mod pacing;
mod rates;
mod retry;
mod sampler;
mod throttle;
mod tracker;

pub use average::Average;
pub use breaker::{Breaker, BreakerConfig};
pub use members::Members;
pub use membership::{AfterFetch, Fetched, Fetches, Fetching, Membership};
pub use pacing::{Pace, Pacer, PacingConfig};
pub use rates::{Rates, RatesConfig};
pub use retry::{Class, Next, Retries, RetryPolicy};
pub use sampler::{Pool, Sample, Sampled, Sampler};
pub use throttle::{SlidingWindow, fair_limit};
pub use tracker::{PeerTracker, TrackerConfig};
