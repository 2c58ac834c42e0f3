//! What the end of a handshake means for its race, and the end of a race for the dialer.

use peerage_dialer::DialOutcome;
use peerage_peer_session::handshake::HandshakeError;
use peerage_wire::DisconnectReason;

use super::race::{End, Failure};

/// What the dialer is told. A node that this end had no place for has not failed, and is dialled again when its
/// history has passed.
impl From<End> for DialOutcome {
    fn from(end: End) -> DialOutcome {
        match end {
            End::Connected => DialOutcome::Connected,
            End::HandshakeFailed(reason) => DialOutcome::HandshakeFailed(reason),
            End::Declined(_) => DialOutcome::Cancelled,
            End::ConnectFailed => DialOutcome::ConnectFailed,
            End::TimedOut => DialOutcome::TimedOut,
        }
    }
}

/// What a failed handshake means for the node's other addresses: they can cure what happened before it was certain
/// who answers, and a connection that broke.
impl From<&HandshakeError> for Failure {
    fn from(error: &HandshakeError) -> Failure {
        let curable = match error {
            HandshakeError::Io(_)
            | HandshakeError::Unanswered
            | HandshakeError::SecretNeeded
            | HandshakeError::SecretUnknown
            | HandshakeError::OtherSecret
            | HandshakeError::TimedOut
            | HandshakeError::Magic
            | HandshakeError::Length(_)
            | HandshakeError::Noise(_)
            | HandshakeError::Payload(_)
            | HandshakeError::Record(_)
            | HandshakeError::NotItsRecord
            | HandshakeError::UnexpectedIdentity { .. }
            | HandshakeError::Refused(DisconnectReason::SelfConnect) => true,
            HandshakeError::RecordTooOld(_)
            | HandshakeError::RecordFromFuture(_)
            | HandshakeError::NoCipher
            | HandshakeError::WrongCipher(_)
            | HandshakeError::Refused(_)
            | HandshakeError::RefusedByPeer(_)
            | HandshakeError::NoAnswer
            | HandshakeError::AnswerNotAlone(_) => false,
        };
        use DisconnectReason as R;
        let end = match error {
            HandshakeError::TimedOut => End::TimedOut,
            HandshakeError::Refused(reason @ (R::TooManyPeers | R::Quitting | R::Requested)) => End::Declined(*reason),
            error => End::HandshakeFailed(error.reason()),
        };
        Failure { end, curable }
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::Consequence;

    use super::*;

    /// Places that hostile nodes hold between their answer and their word (5 s each) make this node refuse honest ones.
    #[test]
    fn a_refusal_for_want_of_a_place_here_is_not_held_against_the_node_that_was_dialled() {
        for ours in [DisconnectReason::TooManyPeers, DisconnectReason::Quitting, DisconnectReason::Requested] {
            let own = Failure::from(&HandshakeError::Refused(ours));
            assert_eq!(DialOutcome::from(own.end).consequence(), Consequence::Ignore, "{ours:?}");
            let theirs = Failure::from(&HandshakeError::RefusedByPeer(ours)).end;
            assert_eq!(DialOutcome::from(theirs), DialOutcome::HandshakeFailed(ours));
        }
    }
}
