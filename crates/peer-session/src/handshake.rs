//! The handshake's rules, message by message, as types that can only be used in order.
//!
//! ```text
//! dialling end                                   accepting end
//! magic ‖ e                        ── m1 ──▶
//!                                  ◀── m2 ──     e, ee, s, es: record, hello, ciphers
//! first checkpoint, then
//! s, se: record, hello, cipher     ── m3 ──▶
//!                                                first checkpoint
//!                                  ◀─ record ─   Accepted, or Disconnect with the reason
//! second checkpoint                              second checkpoint
//! ```
//! The dialling end shows its identity last, and only to the node it dialled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use peerage_machine::Time;
use peerage_wire::codec::{self, Blob, CodecError, List};
use peerage_wire::handshake::{CipherId, InitiatorPayload, M1_LEN, MAGIC, MAX_MESSAGE, ResponderPayload};
use peerage_wire::{
    DisconnectReason, Hello, Keypair, MatchedCapability, NodeId, NodeRecord, RecordError, Verified, match_capabilities,
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::Config;
use crate::cipher::{Ciphers, Implementation, Suite};
use crate::noise::{NoiseError, NoiseXx, SecretKey};
use crate::records::{Opener, Sealer};

/// What this end brings to each of its handshakes: its static key, made ready once, and its ciphers. Cheap to clone.
#[derive(Clone)]
pub struct LocalEnd {
    static_secret: Arc<SecretKey>,
    ciphers: Ciphers,
}

impl LocalEnd {
    /// An end that handshakes in the name of `keys`, with the best ciphers there are.
    pub fn new(keys: &Keypair) -> LocalEnd {
        LocalEnd { static_secret: Arc::new(SecretKey::new(&keys.noise_secret())), ciphers: Ciphers::best() }
    }

    /// The same with other ciphers.
    #[must_use]
    pub fn with_ciphers(self, ciphers: Ciphers) -> LocalEnd {
        LocalEnd { ciphers, ..self }
    }
}

impl fmt::Debug for LocalEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEnd").field("ciphers", &self.ciphers).finish_non_exhaustive()
    }
}

/// What this node says of itself.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Its current record.
    pub record: Verified<NodeRecord>,
    /// Its greeting.
    pub hello: Hello,
}

/// Which end opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Direction {
    /// The other end.
    Inbound,
    /// This end.
    Outbound,
}

impl Direction {
    /// A word for metrics and people.
    pub const fn label(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// Who the other end is, proved.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its record, fresh and signed.
    pub record: Verified<NodeRecord>,
    /// Its greeting.
    pub hello: Hello,
    /// What both ends speak.
    pub channels: Vec<MatchedCapability>,
}

impl Remote {
    /// Its identity.
    pub fn id(&self) -> NodeId {
        self.record.id()
    }
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error("connection: {0}")]
    Io(String),
    /// A deadline passed.
    #[error("no answer in time")]
    TimedOut,
    /// The first bytes are not this protocol's.
    #[error("not a peerage connection")]
    Magic,
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
    /// The reason it is counted under, and that the other end is told where it can be.
    pub const fn reason(&self) -> DisconnectReason {
        match self {
            HandshakeError::Io(_) => DisconnectReason::NetworkError,
            HandshakeError::TimedOut => DisconnectReason::HandshakeTimeout,
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

/// Checks everything about the other end that does not depend on the node's other peers.
fn examine(
    config: &Config,
    now: Time,
    ours: &Presented,
    noise: &NoiseXx,
    record: &[u8],
    hello: &[u8],
) -> Result<Remote, HandshakeError> {
    let record = NodeRecord::decode(record)?;
    if record.noise_key() != noise.remote_static() {
        return Err(HandshakeError::NotItsRecord);
    }
    let record = record.verify()?;
    let (hello, _) = codec::decode_prefix::<Hello>(hello, Hello::MAX)?;
    let refuse = |reason| Err(HandshakeError::Refused(reason));
    if record.id() == ours.record.id() {
        return refuse(DisconnectReason::SelfConnect);
    }
    if hello.version != ours.hello.version {
        return refuse(DisconnectReason::IncompatibleVersion);
    }
    if hello.network != ours.hello.network || record.network() != ours.hello.network {
        return refuse(DisconnectReason::WrongNetwork);
    }
    if hello.fork_id != ours.hello.fork_id {
        return refuse(DisconnectReason::WrongFork);
    }
    let signed_at = record.signed_at();
    if let Some(age) = now.unix().checked_sub(signed_at).filter(|age| *age > config.max_record_age) {
        return Err(HandshakeError::RecordTooOld(age));
    }
    if let Some(ahead) = signed_at.checked_sub(now.unix()).filter(|ahead| *ahead > config.max_clock_skew) {
        return Err(HandshakeError::RecordFromFuture(ahead));
    }
    let channels = match_capabilities(&ours.hello.capabilities, &hello.capabilities);
    // A node without capabilities of its own (a crawler) takes any peer.
    if channels.is_empty() && !ours.hello.capabilities.is_empty() {
        return refuse(DisconnectReason::NoCommonCapability);
    }
    Ok(Remote { record, hello, channels })
}

fn encoded_hello(ours: &Presented) -> Result<Blob<1024>, HandshakeError> {
    Blob::new(codec::encode(&ours.hello))
        .ok_or_else(|| CodecError::TooLong { len: codec::encode(&ours.hello).len(), limit: Hello::MAX }.into())
}

fn own_record(ours: &Presented) -> Blob<{ peerage_wire::MAX_RECORD }> {
    Blob::new(ours.record.bytes()).expect("a record is never longer than MAX_RECORD")
}

/// What both record directions need, once the handshake is done.
#[derive(Debug)]
pub struct Keys {
    /// For what this end sends.
    pub sealer: Sealer,
    /// For what the other end sends.
    pub opener: Opener,
    /// The cipher both ends took.
    pub cipher: CipherId,
    /// Who computes it at this end.
    pub implementation: Implementation,
}

fn keys(noise: &NoiseXx, suite: Suite, direction: Direction) -> Keys {
    let cipher = suite.cipher();
    let label = [b"peerage record cipher ".as_slice(), &cipher.0.to_be_bytes()].concat();
    let (from_dialler, from_listener) = noise.record_keys(&label);
    let (ours, theirs) = match direction {
        Direction::Outbound => (from_dialler, from_listener),
        Direction::Inbound => (from_listener, from_dialler),
    };
    let (sealer, opener) = (Sealer::new(suite, &ours), Opener::new(suite, &theirs));
    Keys { sealer, opener, cipher, implementation: suite.implementation() }
}

/// The dialling end, waiting for m2.
pub struct Dialler {
    noise: NoiseXx,
    ciphers: Ciphers,
    expected: NodeId,
}

/// The dialling end, which knows the other and has said nothing of itself yet.
pub struct DiallerKnowing {
    noise: NoiseXx,
    suite: Suite,
}

impl Dialler {
    /// Begins a handshake with `expected`; returns m1 to be sent. `ephemeral` comes from the operating
    /// system and is used once.
    ///
    /// # Errors
    /// None in practice; m1 is sealed by no cipher.
    pub fn begin(
        local: &LocalEnd,
        ephemeral: Zeroizing<[u8; 32]>,
        expected: NodeId,
    ) -> Result<(Dialler, Vec<u8>), HandshakeError> {
        let mut noise = NoiseXx::new(Arc::clone(&local.static_secret), ephemeral, &MAGIC);
        let mut m1 = MAGIC.to_vec();
        noise.write_m1(&[], &mut m1)?;
        Ok((Dialler { noise, ciphers: local.ciphers, expected }, m1))
    }

    /// Reads m2 and checks who sent it.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is then closed without a word, so that this end stays unknown.
    pub fn read_m2(
        mut self,
        config: &Config,
        now: Time,
        ours: &Presented,
        m2: &[u8],
    ) -> Result<(DiallerKnowing, Remote), HandshakeError> {
        let payload = self.noise.read_m2(m2)?;
        let (payload, _) = codec::decode_prefix::<ResponderPayload>(&payload, MAX_MESSAGE)?;
        let remote = examine(config, now, ours, &self.noise, &payload.record, &payload.hello)?;
        if remote.id() != self.expected {
            return Err(HandshakeError::UnexpectedIdentity { expected: self.expected, found: remote.id() });
        }
        let suite = self.ciphers.first_in(&payload.ciphers).ok_or(HandshakeError::NoCipher)?;
        Ok((DiallerKnowing { noise: self.noise, suite }, remote))
    }
}

impl DiallerKnowing {
    /// Writes m3, which shows this end's identity.
    ///
    /// # Errors
    /// A greeting that is too long.
    pub fn write_m3(mut self, ours: &Presented) -> Result<(Vec<u8>, Keys), HandshakeError> {
        let payload = InitiatorPayload {
            record: own_record(ours),
            hello: encoded_hello(ours)?,
            cipher: self.suite.cipher(),
            extension: Blob::default(),
        };
        let mut m3 = Vec::new();
        self.noise.write_m3(&codec::encode(&payload), &mut m3)?;
        Ok((m3, keys(&self.noise, self.suite, Direction::Outbound)))
    }
}

/// The accepting end, waiting for m3.
pub struct Acceptor {
    noise: NoiseXx,
    ciphers: Ciphers,
}

impl Acceptor {
    /// Reads m1 and returns m2 to be sent.
    ///
    /// # Errors
    /// [`HandshakeError`]; nothing is answered then.
    pub fn answer(
        local: &LocalEnd,
        ephemeral: Zeroizing<[u8; 32]>,
        ours: &Presented,
        m1: &[u8; M1_LEN],
    ) -> Result<(Acceptor, Vec<u8>), HandshakeError> {
        let e = m1.strip_prefix(&MAGIC).ok_or(HandshakeError::Magic)?;
        let mut noise = NoiseXx::new(Arc::clone(&local.static_secret), ephemeral, &MAGIC);
        noise.read_m1(e)?;
        let payload = ResponderPayload {
            record: own_record(ours),
            hello: encoded_hello(ours)?,
            ciphers: List::truncated(local.ciphers.offered()),
        };
        let mut m2 = Vec::new();
        noise.write_m2(&codec::encode(&payload), &mut m2)?;
        Ok((Acceptor { noise, ciphers: local.ciphers }, m2))
    }

    /// Reads m3 and derives the keys, with which a refusal can be sent; then says whether the other end
    /// passes.
    ///
    /// # Errors
    /// [`HandshakeError`] where the message is no handshake's: then there is nobody to tell.
    pub fn read_m3(
        mut self,
        config: &Config,
        now: Time,
        ours: &Presented,
        m3: &[u8],
    ) -> Result<(Keys, Result<Remote, HandshakeError>), HandshakeError> {
        let payload = self.noise.read_m3(m3)?;
        let (payload, _) = codec::decode_prefix::<InitiatorPayload>(&payload, MAX_MESSAGE)?;
        // The dialling end alone knows what it has; that it took the first of what both have is its own interest.
        let suite = self.ciphers.offered_as(payload.cipher).ok_or(HandshakeError::WrongCipher(payload.cipher))?;
        let keys = keys(&self.noise, suite, Direction::Inbound);
        Ok((keys, examine(config, now, ours, &self.noise, &payload.record, &payload.hello)))
    }
}

#[cfg(test)]
mod tests;
