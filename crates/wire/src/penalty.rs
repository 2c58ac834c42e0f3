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
    /// Bytes that no correct implementation sends, for which its session was ended.
    BrokenProtocol,
    /// A message that made an actor or its session fail.
    Crash,
}

impl Penalty {
    /// All of them.
    pub const ALL: [Penalty; 5] = [
        Penalty::MalformedMessage,
        Penalty::InvalidMessage,
        Penalty::ControlFlood,
        Penalty::BrokenProtocol,
        Penalty::Crash,
    ];

    /// A word for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Penalty::MalformedMessage => "malformed_message",
            Penalty::InvalidMessage => "invalid_message",
            Penalty::ControlFlood => "control_flood",
            Penalty::BrokenProtocol => "broken_protocol",
            Penalty::Crash => "crash",
        }
    }
}
