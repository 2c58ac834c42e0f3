//! Why a handshake failed, and what that is counted as.

use std::time::Duration;

use peerage_wire::codec::CodecError;
use peerage_wire::handshake::CipherId;
use peerage_wire::{DisconnectReason, NodeId, RecordError};

use crate::noise::NoiseError;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("connection: {0}")]
    Io(String),
    /// The other end closed without a word where its first message was due: it is full, or takes this one for a
    /// stranger.
    #[error("closed without an answer: the peer has no place, or another network secret")]
    Unanswered,
    /// A deadline passed.
    #[error("no answer in time")]
    TimedOut,
    /// The first bytes are not this protocol's.
    #[error("not a peerage connection")]
    Magic,
    /// The other end handshakes without a secret, and this one with one.
    #[error("this network needs a secret, and the peer has none")]
    SecretNeeded,
    /// The other end handshakes with a secret, and this one without.
    #[error("the peer's network needs a secret, and this node has none")]
    SecretUnknown,
    /// The first message is not sealed with this end's secret, or was changed.
    #[error("the peer's network secret is another one")]
    OtherSecret,
    /// A message claims an impossible length.
    #[error("handshake message of {0} bytes")]
    Length(usize),
    /// A message is not a handshake's.
    #[error(transparent)]
    Noise(#[from] NoiseError),
    /// A payload does not decode.
    #[error("handshake payload: {0}")]
    Payload(#[from] CodecError),
    /// The record shown is not one.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record is of another x25519 key than the one proved.
    #[error("the record shown is not of the key proved")]
    NotItsRecord,
    /// Another node answered than the one dialled.
    #[error("dialled {expected}, and {found} answered")]
    UnexpectedIdentity {
        /// Who was dialled.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The record was signed too long ago.
    #[error("record signed {0:?} ago")]
    RecordTooOld(Duration),
    /// The record was signed in the future: the clocks differ by at least as much.
    #[error("record signed {0:?} in the future: the clocks differ")]
    RecordFromFuture(Duration),
    /// The two ends share no cipher.
    #[error("no cipher in common")]
    NoCipher,
    /// The cipher chosen is not one that was offered.
    #[error("cipher {0:?} chosen, which was not offered")]
    WrongCipher(CipherId),
    /// This end refused the other.
    #[error("refused: {0}")]
    Refused(DisconnectReason),
    /// The other end refused this one.
    #[error("the peer refused: {0}")]
    RefusedByPeer(DisconnectReason),
    /// The first record says neither yes nor no.
    #[error("the peer answered neither yes nor no")]
    NoAnswer,
    /// The first record holds more than the answer, by so many bytes. What it is cannot be known before the second
    /// checkpoint, and to drop it would lose a message that the other end believes sent.
    #[error("{0} bytes behind the peer's answer in its record")]
    AnswerNotAlone(usize),
}

impl HandshakeError {
    /// The reason it is counted under, and that the other end is told where it can be. None of them is evidence against
    /// the node that was dialled: who answers at its address need not be it.
    pub const fn reason(&self) -> DisconnectReason {
        match self {
            HandshakeError::Io(_) | HandshakeError::Unanswered => DisconnectReason::NetworkError,
            HandshakeError::TimedOut => DisconnectReason::HandshakeTimeout,
            HandshakeError::SecretNeeded | HandshakeError::SecretUnknown | HandshakeError::OtherSecret => {
                DisconnectReason::NotAllowed
            }
            HandshakeError::Magic
            | HandshakeError::Length(_)
            | HandshakeError::Noise(_)
            | HandshakeError::Payload(_)
            | HandshakeError::WrongCipher(_)
            | HandshakeError::NoAnswer
            | HandshakeError::AnswerNotAlone(_) => DisconnectReason::ProtocolError,
            HandshakeError::Record(_) | HandshakeError::NotItsRecord => DisconnectReason::InvalidIdentity,
            HandshakeError::UnexpectedIdentity { .. } => DisconnectReason::UnexpectedIdentity,
            HandshakeError::RecordTooOld(_) => DisconnectReason::RecordTooOld,
            HandshakeError::RecordFromFuture(_) => DisconnectReason::RecordFromFuture,
            HandshakeError::NoCipher => DisconnectReason::IncompatibleVersion,
            HandshakeError::Refused(reason) | HandshakeError::RefusedByPeer(reason) => *reason,
        }
    }
}
