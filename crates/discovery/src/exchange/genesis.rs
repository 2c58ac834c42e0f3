//! What an exchange machine is made of, for its journal.

use std::sync::Arc;

use peerage_machine::journal;
use peerage_wire::{Admission, NodeRecord, Verified};
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::machine::ExchangeMachine;

/// The arguments of an [`ExchangeMachine`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExchangeGenesis {
    /// Its numbers.
    pub config: Config,
    /// The node's record.
    pub record: Verified<NodeRecord>,
    /// Whom the node has to do with.
    pub admission: Arc<Admission>,
    /// Decides whom it asks, and when.
    pub seed: u64,
}

impl journal::Genesis for ExchangeGenesis {
    type Machine = ExchangeMachine;

    const NAME: &'static str = "exchange";

    fn build(self) -> Result<ExchangeMachine, String> {
        self.config.check().map_err(|error| error.to_string())?;
        Ok(ExchangeMachine::new(self.config, self.record, self.seed).admitting(self.admission))
    }
}
