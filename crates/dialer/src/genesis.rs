//! What a dialer machine is made of, for its journal.

use peerage_machine::{Rng, journal};
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use crate::{Config, DialerMachine};

/// The arguments of a [`DialerMachine`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DialerGenesis {
    /// Its bounds and intervals.
    pub config: Config,
    /// The node it dials for.
    pub id: NodeId,
    /// Decides the order of static peers and the jitter of pauses.
    pub seed: u64,
}

impl journal::Genesis for DialerGenesis {
    type Machine = DialerMachine;

    const NAME: &'static str = "dialer";

    fn build(self) -> Result<DialerMachine, String> {
        DialerMachine::new(self.config, self.id, Rng::new(self.seed)).map_err(|error| error.to_string())
    }
}
