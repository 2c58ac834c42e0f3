//! What a node that is short of something does not do, in which order, and when it does it again.

mod config;
mod machine;
#[cfg(feature = "actor")]
mod probe;
#[cfg(test)]
mod tests;

pub use config::SheddingConfig;
pub use machine::{In, Level, Out, Resource, STEPS, SheddingMachine, Timer, Usage};
#[cfg(feature = "actor")]
pub use probe::{Probe, SystemProbe};
