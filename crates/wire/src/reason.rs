//! Why a session ended or never began.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Penalty;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal, $text:literal;)*) => {
        /// Why a session ended or never began. A u16 on the wire; codes below 256 are geth's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum DisconnectReason {
            $($(#[$doc])* $name,)*
            /// A code of a later version.
            Unknown(u16),
        }

        impl DisconnectReason {
            /// Every reason this version knows.
            pub const KNOWN: &'static [DisconnectReason] = &[$(DisconnectReason::$name,)*];

            /// The code on the wire.
            pub const fn code(self) -> u16 {
                match self {
                    $(DisconnectReason::$name => $code,)*
                    DisconnectReason::Unknown(code) => code,
                }
            }

            /// The reason with this code.
            pub const fn from_code(code: u16) -> DisconnectReason {
                match code {
                    $($code => DisconnectReason::$name,)*
                    code => DisconnectReason::Unknown(code),
                }
            }

            /// A word for metrics; one of a closed set whatever a peer sends.
            pub const fn label(self) -> &'static str {
                match self {
                    $(DisconnectReason::$name => $label,)*
                    DisconnectReason::Unknown(_) => "unknown",
                }
            }
        }

        impl fmt::Display for DisconnectReason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(DisconnectReason::$name => f.write_str($text),)*
                    DisconnectReason::Unknown(code) => write!(f, "reason {code}, which this version does not know"),
                }
            }
        }
    };
}

reasons! {
    /// Somebody with the right to asked for it.
    Requested = 0, "requested", "requested";
    /// The connection broke. Never sent.
    NetworkError = 1, "network_error", "network error";
    /// The peer sent what no correct implementation sends.
    ProtocolError = 2, "protocol_error", "breach of protocol";
    /// Nothing in common worth a place.
    Useless = 3, "useless", "useless peer";
    /// No free place.
    TooManyPeers = 4, "too_many_peers", "too many peers";
    /// A session with this node exists.
    AlreadyConnected = 5, "already_connected", "already connected";
    /// No protocol version in common.
    IncompatibleVersion = 6, "incompatible_version", "incompatible version";
    /// The identity shown is not proved.
    InvalidIdentity = 7, "invalid_identity", "invalid identity";
    /// The node is shutting down.
    Quitting = 8, "quitting", "quitting";
    /// Not the node that was dialled.
    UnexpectedIdentity = 9, "unexpected_identity", "unexpected identity";
    /// A node that reached itself.
    SelfConnect = 10, "self", "connected to itself";
    /// Nothing was heard for the idle limit.
    Idle = 11, "idle", "nothing heard for too long";
    /// An application protocol failed.
    Subprotocol = 16, "subprotocol", "subprotocol error";
    /// The peer took nothing for the progress limit.
    Stalled = 256, "stalled", "peer stopped reading";
    /// A node of another network.
    WrongNetwork = 257, "wrong_network", "other network";
    /// A node on another fork of this network.
    WrongFork = 258, "wrong_fork", "other fork";
    /// No capability in common.
    NoCommonCapability = 259, "no_common_capability", "no common capability";
    /// The record shown was signed too long ago.
    RecordTooOld = 260, "record_too_old", "record too old";
    /// The record shown was signed in the future: the clocks differ.
    RecordFromFuture = 261, "record_from_future", "record from the future (do the clocks agree?)";
    /// Banned for what it did.
    Banned = 262, "banned", "banned";
    /// The session's task failed on the side that says so.
    Crashed = 263, "crashed", "session crashed";
    /// The same node came back as a new process.
    Replaced = 264, "replaced", "replaced by the node's new process";
    /// The set-up took longer than its deadline.
    HandshakeTimeout = 265, "handshake_timeout", "handshake too slow";
    /// The peer behaved badly once too often.
    Misbehaved = 266, "misbehaved", "too many penalties";
    /// A node that admits only those on its list, or only some networks.
    NotAllowed = 267, "not_allowed", "not on the list of those allowed";
}

/// What follows from the end of a connection for whoever may meet its node again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consequence {
    /// Nothing is held against it.
    Ignore,
    /// It may do better later.
    BackOff,
    /// It will not do better soon: it is another node, on another network, or wants nothing of this one.
    Avoid,
    /// It did what no correct node does; enough of this is a ban.
    Blame(Penalty),
}

impl DisconnectReason {
    /// What follows from a session, or a set-up, that ended for this reason; `by_us` if this end said so.
    ///
    /// What the other end says is never evidence against it, or a relay could have honest nodes banned.
    pub const fn consequence(self, by_us: bool) -> Consequence {
        use DisconnectReason as R;
        match self {
            // What made a session crash is most likely what it was sent; not so surely that once is enough.
            R::ProtocolError | R::Crashed if by_us => Consequence::Blame(Penalty::BrokenProtocol),
            // It has, or is making, a session with this node.
            R::AlreadyConnected | R::Replaced => Consequence::Ignore,
            R::Useless
            | R::IncompatibleVersion
            | R::InvalidIdentity
            | R::UnexpectedIdentity
            | R::SelfConnect
            | R::WrongNetwork
            | R::WrongFork
            | R::NoCommonCapability
            | R::Banned
            | R::Misbehaved
            | R::NotAllowed => Consequence::Avoid,
            _ => Consequence::BackOff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_and_unknown_ones_survive() {
        for code in 0..=u16::MAX {
            assert_eq!(DisconnectReason::from_code(code).code(), code);
        }
        assert_eq!(DisconnectReason::from_code(999), DisconnectReason::Unknown(999));
    }

    #[test]
    fn only_this_end_can_say_that_a_node_did_wrong() {
        for reason in DisconnectReason::KNOWN.iter().copied().chain([DisconnectReason::Unknown(9_999)]) {
            assert!(!matches!(reason.consequence(false), Consequence::Blame(_)), "{reason:?}");
        }
        let ours = |reason: DisconnectReason| reason.consequence(true);
        assert_eq!(ours(DisconnectReason::ProtocolError), Consequence::Blame(Penalty::BrokenProtocol));
        assert_eq!(ours(DisconnectReason::AlreadyConnected), Consequence::Ignore);
        assert_eq!(ours(DisconnectReason::TooManyPeers), Consequence::BackOff);
        assert_eq!(ours(DisconnectReason::Unknown(9_999)), Consequence::BackOff);
        assert_eq!(ours(DisconnectReason::WrongNetwork), Consequence::Avoid);
    }

    #[test]
    fn codes_and_labels_are_frozen() {
        let listed: Vec<String> =
            DisconnectReason::KNOWN.iter().map(|reason| format!("{}={}", reason.code(), reason.label())).collect();
        assert_eq!(
            listed.join(" "),
            "0=requested 1=network_error 2=protocol_error 3=useless 4=too_many_peers 5=already_connected \
             6=incompatible_version 7=invalid_identity 8=quitting 9=unexpected_identity 10=self 11=idle \
             16=subprotocol 256=stalled 257=wrong_network 258=wrong_fork 259=no_common_capability \
             260=record_too_old 261=record_from_future 262=banned 263=crashed 264=replaced \
             265=handshake_timeout 266=misbehaved 267=not_allowed"
        );
    }
}
