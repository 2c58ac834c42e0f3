//! What the root's and the listener's machine are made of, for their journals.

use peerage_machine::{Rng, journal};
use peerage_wire::NodeId;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::listener::{ListenerConfig, ListenerMachine};
use crate::machine::ServerMachine;

/// The arguments of a [`ServerMachine`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerGenesis {
    /// Whose run loop it is.
    pub own: NodeId,
    /// All limits and intervals of the node.
    pub config: Config,
    /// Of its random decisions.
    pub seed: u64,
}

impl journal::Genesis for ServerGenesis {
    type Machine = ServerMachine;

    const NAME: &'static str = "server";

    fn build(self) -> Result<ServerMachine, String> {
        self.config.check()?;
        Ok(ServerMachine::new(self.own, &self.config, Rng::new(self.seed)))
    }
}

/// The arguments of a [`ListenerMachine`](crate::listening::ListenerMachine).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListenerGenesis {
    /// Whose connections are accepted, and how many.
    pub config: ListenerConfig,
    /// Whether limits by address spare local hosts.
    pub exempt_local: bool,
}

impl journal::Genesis for ListenerGenesis {
    type Machine = ListenerMachine;

    const NAME: &'static str = "listener";

    fn build(self) -> Result<ListenerMachine, String> {
        self.config.check()?;
        Ok(ListenerMachine::new(self.config, self.exempt_local))
    }
}
