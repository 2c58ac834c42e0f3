//! What a peer can be blamed for, by name; what it costs is the server's configuration.

use serde::{Deserialize, Serialize};

/// Something a correct peer does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Penalty {
    /// A message of a protocol that does not decode.
    MalformedMessage,
    /// A message whose signature is not its publisher's, from the peer that relayed it.
    InvalidMessage,
    /// More control messages than the protocol allows.
    ControlFlood,
}

impl Penalty {
    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Penalty::MalformedMessage => "malformed_message",
            Penalty::InvalidMessage => "invalid_message",
            Penalty::ControlFlood => "control_flood",
        }
    }
}
