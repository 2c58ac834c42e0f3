//! The handshake's rules, message by message, as types that can only be used in order.
//!
//! ```text
//! dialling end                                   accepting end
//! magic ‖ e                        ── m1 ──▶     with a secret, also its proof: no answer to who has none
//!                                  ◀── m2 ──     e, ee, s, es: record, hello, ciphers
//! first checkpoint, then
//! s, se: record, hello, cipher     ── m3 ──▶
//!                                                first checkpoint
//!                                  ◀─ record ─   Accepted, or Disconnect with the reason
//! second checkpoint                              second checkpoint
//! ```
//! The dialling end shows its identity last, and only to the node it dialled.
//!
//! In a network with a [secret](crate::NetworkSecret) m1 carries a tag that only those who know it can make; to any other
//! the accepting end answers nothing, and does no work on a curve. Who recorded such a first message can send it again
//! and gets an m2 that it cannot read, and no further.

mod error;

use std::fmt;
use std::sync::Arc;

use peerage_machine::Time;
use peerage_wire::codec::{self, Blob, CodecError, List};
use peerage_wire::handshake::{CipherId, InitiatorPayload, MAGIC, MAGIC_SECRET, MAX_MESSAGE, ResponderPayload, m1_len};
use peerage_wire::{
    DisconnectReason, ForkId, Hello, Keypair, MatchedCapability, NodeId, NodeRecord, Verified, match_capabilities,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::error::HandshakeError;
use crate::cipher::{Ciphers, Implementation, Suite};
use crate::noise::{Asked, NoiseError, NoiseXx, SecretKey};
use crate::records::{Opener, Sealer};
use crate::{Config, NetworkSecret};

/// What this end brings to each of its handshakes: its static key, made ready once, its ciphers and its network's
/// secret. Cheap to clone.
#[derive(Clone)]
pub struct LocalEnd {
    static_secret: Arc<SecretKey>,
    ciphers: Ciphers,
    secret: Option<NetworkSecret>,
}

impl LocalEnd {
    /// An end that handshakes in the name of `keys`, with the best ciphers there are.
    pub fn new(keys: &Keypair) -> LocalEnd {
        let static_secret = Arc::new(SecretKey::new(&keys.noise_secret()));
        LocalEnd { static_secret, ciphers: Ciphers::best(), secret: None }
    }

    /// The same with other ciphers.
    #[must_use]
    pub fn with_ciphers(self, ciphers: Ciphers) -> LocalEnd {
        LocalEnd { ciphers, ..self }
    }

    /// The same in a network with this secret: it then speaks with those who have it and with nobody else.
    #[must_use]
    pub fn with_secret(self, secret: Option<NetworkSecret>) -> LocalEnd {
        LocalEnd { secret, ..self }
    }

    /// How many bytes the first message has that begins with `magic`.
    ///
    /// # Errors
    /// The other end speaks another protocol, or has a secret where this one has none, or none where this one has.
    pub fn m1_len(&self, magic: [u8; 4]) -> Result<usize, HandshakeError> {
        let len = m1_len(magic).ok_or(HandshakeError::Magic)?;
        match (magic == MAGIC_SECRET, &self.secret) {
            (true, None) => Err(HandshakeError::SecretUnknown),
            (false, Some(_)) => Err(HandshakeError::SecretNeeded),
            _ => Ok(len),
        }
    }

    const fn magic(&self) -> [u8; 4] {
        match self.secret {
            Some(_) => MAGIC_SECRET,
            None => MAGIC,
        }
    }

    fn psk(&self) -> Option<&[u8; 32]> {
        self.secret.as_ref().map(NetworkSecret::psk)
    }
}

impl fmt::Debug for LocalEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.secret.is_some();
        f.debug_struct("LocalEnd").field("ciphers", &self.ciphers).field("secret", &secret).finish_non_exhaustive()
    }
}

/// What this node says of itself.
#[derive(Clone, Debug)]
pub struct Presented {
    /// Its current record.
    pub record: Verified<NodeRecord>,
    /// Its greeting.
    pub hello: Hello,
    /// The forks of its network that it speaks with besides its own: those that it knows to go the same way for now.
    pub accepted_forks: List<ForkId, MAX_FORKS>,
}

/// Most forks that a node can accept besides its own.
pub const MAX_FORKS: usize = 16;

impl Presented {
    /// Whether it speaks with nodes on this fork.
    pub fn accepts_fork(&self, fork: &ForkId) -> bool {
        *fork == self.hello.fork_id || self.accepted_forks.contains(fork)
    }

    /// Checks everything about a node that has proved to be the signer of `record`, but for who is expected and for
    /// this node's other peers. The last part of every handshake, without cryptography: a world that knows by itself
    /// who is who runs it alone.
    ///
    /// # Errors
    /// [`HandshakeError::Refused`] with the reason, or how far the record's age is beyond the configuration's.
    pub fn meet(
        &self,
        config: &Config,
        now: Time,
        record: Verified<NodeRecord>,
        hello: Hello,
    ) -> Result<Remote, HandshakeError> {
        let refuse = |reason| Err(HandshakeError::Refused(reason));
        if record.id() == self.record.id() {
            return refuse(DisconnectReason::SelfConnect);
        }
        if hello.version != self.hello.version {
            return refuse(DisconnectReason::IncompatibleVersion);
        }
        if hello.network != self.hello.network || record.network() != self.hello.network {
            return refuse(DisconnectReason::WrongNetwork);
        }
        if !self.accepts_fork(&hello.fork_id) {
            return refuse(DisconnectReason::WrongFork);
        }
        let signed_at = record.signed_at();
        if let Some(age) = now.unix().checked_sub(signed_at).filter(|age| *age > config.max_record_age) {
            return Err(HandshakeError::RecordTooOld(age));
        }
        if let Some(ahead) = signed_at.checked_sub(now.unix()).filter(|ahead| *ahead > config.max_clock_skew) {
            return Err(HandshakeError::RecordFromFuture(ahead));
        }
        let channels = match_capabilities(&self.hello.capabilities, &hello.capabilities);
        // A node without capabilities of its own (a crawler) takes any peer.
        if channels.is_empty() && !self.hello.capabilities.is_empty() {
            return refuse(DisconnectReason::NoCommonCapability);
        }
        Ok(Remote { record, hello, channels })
    }
}

/// Which end opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

    /// The same, if it is who was dialled.
    ///
    /// # Errors
    /// [`HandshakeError::UnexpectedIdentity`].
    pub fn expected(self, expected: NodeId) -> Result<Remote, HandshakeError> {
        match self.id() {
            found if found == expected => Ok(self),
            found => Err(HandshakeError::UnexpectedIdentity { expected, found }),
        }
    }
}

/// Checks that the other end is the node whose record it shows, and everything about it that does not depend on this
/// node's other peers.
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
    ours.meet(config, now, record, hello)
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
    /// None in practice: m1 is short.
    pub fn begin(
        local: &LocalEnd,
        ephemeral: Zeroizing<[u8; 32]>,
        expected: NodeId,
    ) -> Result<(Dialler, Vec<u8>), HandshakeError> {
        let mut m1 = local.magic().to_vec();
        let mut noise = NoiseXx::new(Arc::clone(&local.static_secret), &ephemeral, local.psk(), &m1);
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
        let remote =
            examine(config, now, ours, &self.noise, &payload.record, &payload.hello)?.expected(self.expected)?;
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

/// The accepting end, asked by who knows its network's secret, if there is one. It has said nothing.
pub struct AcceptorAsked {
    asked: Asked,
    local: LocalEnd,
}

/// The accepting end, waiting for m3.
pub struct Acceptor {
    noise: NoiseXx,
    ciphers: Ciphers,
}

impl Acceptor {
    /// Reads m1, of [`LocalEnd::m1_len`] bytes. No work on a curve yet.
    ///
    /// # Errors
    /// [`HandshakeError`]; nothing is answered then.
    pub fn asked(local: &LocalEnd, m1: &[u8]) -> Result<AcceptorAsked, HandshakeError> {
        let (magic, e) = m1.split_first_chunk::<4>().ok_or(HandshakeError::Length(m1.len()))?;
        if m1.len() != local.m1_len(*magic)? {
            return Err(HandshakeError::Length(m1.len()));
        }
        let read = Asked::read_m1(local.psk(), magic, e);
        let (asked, _) = read.map_err(|error| match error {
            NoiseError::Forged(_) => HandshakeError::OtherSecret,
            other => HandshakeError::Noise(other),
        })?;
        Ok(AcceptorAsked { asked, local: local.clone() })
    }
}

impl AcceptorAsked {
    /// Writes m2. `ephemeral` comes from the operating system and is used once.
    ///
    /// # Errors
    /// A weak key in m1, or a greeting that is too long; nothing is answered then.
    pub fn answer(
        self,
        ephemeral: Zeroizing<[u8; 32]>,
        ours: &Presented,
    ) -> Result<(Acceptor, Vec<u8>), HandshakeError> {
        let AcceptorAsked { asked, local } = self;
        let payload = ResponderPayload {
            record: own_record(ours),
            hello: encoded_hello(ours)?,
            ciphers: List::truncated(local.ciphers.offered()),
        };
        let mut noise = asked.answered_by(local.static_secret, &ephemeral);
        let mut m2 = Vec::new();
        noise.write_m2(&codec::encode(&payload), &mut m2)?;
        Ok((Acceptor { noise, ciphers: local.ciphers }, m2))
    }
}

impl Acceptor {
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
