//! What a discovery machine is made of, for its journal.

use std::sync::Arc;

use peerage_machine::journal;
use peerage_wire::{Admission, NodeRecord, Verified};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::machine::{Bootnode, DiscoveryMachine, Families};

/// The arguments of a [`DiscoveryMachine`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiscoveryGenesis {
    /// Its numbers.
    pub config: Config,
    /// The node's record.
    pub record: Verified<NodeRecord>,
    /// What the node's sockets reach.
    pub families: Families,
    /// Whom to ask first.
    pub bootnodes: Vec<Bootnode>,
    /// What an earlier process remembered.
    pub seeds: Vec<Verified<NodeRecord>>,
    /// Whom the node has to do with.
    pub admission: Arc<Admission>,
    /// Decides jitter and sampling.
    pub seed: u64,
}

impl journal::Genesis for DiscoveryGenesis {
    type Machine = DiscoveryMachine;

    const NAME: &'static str = "discovery";

    fn build(self) -> Result<DiscoveryMachine, String> {
        self.config.check().map_err(|error| error.to_string())?;
        let machine = DiscoveryMachine::new(self.config, self.record, self.families, self.bootnodes, self.seed);
        Ok(machine.admitting(self.admission).seeded(self.seeds))
    }
}
