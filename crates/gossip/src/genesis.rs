//! What a gossip machine is made of, for its journal.

use peerage_machine::journal;
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::machine::GossipMachine;

/// The arguments of a [`GossipMachine`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GossipGenesis {
    /// Limits and intervals.
    pub config: Config,
    /// Whose gossip it is.
    pub node: NodeId,
    /// Of all random decisions.
    pub seed: u64,
}

impl journal::Genesis for GossipGenesis {
    type Machine = GossipMachine;

    const NAME: &'static str = "gossip";

    fn build(self) -> Result<GossipMachine, String> {
        self.config.validate().map_err(|error| error.to_string())?;
        Ok(GossipMachine::new(self.config, self.node, self.seed))
    }
}
