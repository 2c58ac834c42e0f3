//! What a router machine is made of, for its journal.

use peerage_machine::journal;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::machine::RouterMachine;

/// The arguments of a [`RouterMachine`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RouterGenesis {
    /// Limits and intervals.
    pub config: Config,
    /// Of all random decisions.
    pub seed: u64,
    /// Of this life.
    pub epoch: u32,
}

impl journal::Genesis for RouterGenesis {
    type Machine = RouterMachine;

    const NAME: &'static str = "router";

    fn build(self) -> Result<RouterMachine, String> {
        self.config.validate().map_err(|error| error.to_string())?;
        Ok(RouterMachine::new(self.config, self.seed, self.epoch))
    }
}
