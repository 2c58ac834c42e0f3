//! Whether a node is well, in checks with thresholds: what is looked at, what each finds, and since when.

mod config;
mod machine;
#[cfg(test)]
mod tests;

pub use config::HealthConfig;
pub use machine::{Check, CheckState, Finding, HealthMachine, In, Out, Reading, Timer};
