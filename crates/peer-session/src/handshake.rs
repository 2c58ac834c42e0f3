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
use crate::noise::{NoiseError, NoiseXx};
use crate::records::{Opener, Sealer};

/// The record ciphers spoken here, best first. The order is fixed for everybody, and both ends take the
/// first that both list.
const CIPHERS: [CipherId; 1] = [CipherId::CHACHA20_POLY1305];

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
    /// The cipher chosen is not the one that both ends must choose.
    #[error("cipher {0:?} chosen against the order")]
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
            | HandshakeError::NoAnswer => DisconnectReason::ProtocolError,
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
}

fn keys(noise: &NoiseXx, cipher: CipherId, direction: Direction) -> Keys {
    let label = [b"peerage record cipher ".as_slice(), &cipher.0.to_be_bytes()].concat();
    let (from_dialler, from_listener) = noise.record_keys(&label);
    let (ours, theirs) = match direction {
        Direction::Outbound => (from_dialler, from_listener),
        Direction::Inbound => (from_listener, from_dialler),
    };
    Keys { sealer: Sealer::new(ours), opener: Opener::new(theirs) }
}

/// The dialling end, waiting for m2.
pub struct Dialler {
    noise: NoiseXx,
    expected: NodeId,
}

/// The dialling end, which knows the other and has said nothing of itself yet.
pub struct DiallerKnowing {
    noise: NoiseXx,
    cipher: CipherId,
}

impl Dialler {
    /// Begins a handshake with `expected`; returns m1 to be sent. `ephemeral` comes from the operating
    /// system and is used once.
    ///
    /// # Errors
    /// None in practice; m1 is sealed by no cipher.
    pub fn begin(
        keys: &Keypair,
        ephemeral: Zeroizing<[u8; 32]>,
        expected: NodeId,
    ) -> Result<(Dialler, Vec<u8>), HandshakeError> {
        let mut noise = NoiseXx::new(keys.noise_secret(), ephemeral, &MAGIC);
        let mut m1 = MAGIC.to_vec();
        noise.write_m1(&[], &mut m1)?;
        Ok((Dialler { noise, expected }, m1))
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
        let cipher = CIPHERS.into_iter().find(|cipher| payload.ciphers.contains(cipher));
        let cipher = cipher.ok_or(HandshakeError::NoCipher)?;
        Ok((DiallerKnowing { noise: self.noise, cipher }, remote))
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
            cipher: self.cipher,
            extension: Blob::default(),
        };
        let mut m3 = Vec::new();
        self.noise.write_m3(&codec::encode(&payload), &mut m3)?;
        Ok((m3, keys(&self.noise, self.cipher, Direction::Outbound)))
    }
}

/// The accepting end, waiting for m3.
pub struct Acceptor {
    noise: NoiseXx,
}

impl Acceptor {
    /// Reads m1 and returns m2 to be sent.
    ///
    /// # Errors
    /// [`HandshakeError`]; nothing is answered then.
    pub fn answer(
        keys: &Keypair,
        ephemeral: Zeroizing<[u8; 32]>,
        ours: &Presented,
        m1: &[u8; M1_LEN],
    ) -> Result<(Acceptor, Vec<u8>), HandshakeError> {
        let e = m1.strip_prefix(&MAGIC).ok_or(HandshakeError::Magic)?;
        let mut noise = NoiseXx::new(keys.noise_secret(), ephemeral, &MAGIC);
        noise.read_m1(e)?;
        let payload = ResponderPayload {
            record: own_record(ours),
            hello: encoded_hello(ours)?,
            ciphers: List::truncated(CIPHERS),
        };
        let mut m2 = Vec::new();
        noise.write_m2(&codec::encode(&payload), &mut m2)?;
        Ok((Acceptor { noise }, m2))
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
        // Every node of this version offers the same list, so there is one right choice.
        if payload.cipher != CIPHERS[0] {
            return Err(HandshakeError::WrongCipher(payload.cipher));
        }
        let keys = keys(&self.noise, payload.cipher, Direction::Inbound);
        Ok((keys, examine(config, now, ours, &self.noise, &payload.record, &payload.hello)))
    }
}

#[cfg(test)]
mod tests {
    use peerage_wire::codec::Text;
    use peerage_wire::{Capability, NetworkId, RecordDraft};

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn now() -> Time {
        Time::new(Duration::ZERO, Duration::from_millis(NOW))
    }

    fn presented(keys: &Keypair, signed: u64, change: impl FnOnce(&mut Hello)) -> Presented {
        let network = NetworkId::named("test");
        let mut hello = Hello {
            version: Hello::VERSION,
            network,
            fork_id: Blob::default(),
            instance: 1,
            agent: Text::new("test/1").expect("short"),
            capabilities: List::truncated(Capability::new("gossip", 1)),
        };
        change(&mut hello);
        Presented { record: RecordDraft::new(signed, network).sign(keys).expect("small"), hello }
    }

    fn secret(n: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([n; 32])
    }

    fn alice() -> Keypair {
        Keypair::from_seed([1; 32])
    }

    fn bob() -> Keypair {
        Keypair::from_seed([2; 32])
    }

    type Outcome = (Result<(Keys, NodeId), HandshakeError>, Option<Result<(Keys, NodeId), HandshakeError>>);

    /// Alice dials Bob; `tamper` sees each message on the way.
    fn run(
        alice_says: &Presented,
        bob_says: &Presented,
        expected: NodeId,
        tamper: impl Fn(u8, &mut Vec<u8>),
    ) -> Outcome {
        let config = Config::recommended();
        let (dialler, mut m1) = Dialler::begin(&alice(), secret(8), expected).expect("begins");
        tamper(1, &mut m1);
        let answered = m1
            .as_slice()
            .try_into()
            .map_err(|_| HandshakeError::Length(m1.len()))
            .and_then(|m1| Acceptor::answer(&bob(), secret(9), bob_says, m1));
        let (acceptor, mut m2) = match answered {
            Ok(answered) => answered,
            Err(error) => return (Err(error), None),
        };
        tamper(2, &mut m2);
        let (knowing, remote) = match dialler.read_m2(&config, now(), alice_says, &m2) {
            Ok(read) => read,
            Err(error) => return (Err(error), None),
        };
        let (mut m3, keys) = knowing.write_m3(alice_says).expect("fits");
        tamper(3, &mut m3);
        let accepted = match acceptor.read_m3(&config, now(), bob_says, &m3) {
            Ok((keys, examined)) => examined.map(|remote| (keys, remote.id())),
            Err(error) => Err(error),
        };
        (Ok((keys, remote.id())), Some(accepted))
    }

    fn honest() -> (Presented, Presented) {
        (presented(&alice(), NOW, |_| {}), presented(&bob(), NOW, |_| {}))
    }

    #[test]
    fn both_ends_know_each_other_and_share_keys() {
        let (a, b) = honest();
        let (dialled, accepted) = run(&a, &b, bob().id(), |_, _| {});
        let (mut a_keys, b_id) = dialled.expect("dialled");
        let (mut b_keys, a_id) = accepted.expect("m3 sent").expect("accepted");
        assert_eq!((a_id, b_id), (alice().id(), bob().id()));
        let mut buffer = Vec::new();
        for (from, to) in [(&mut a_keys.sealer, &mut b_keys.opener), (&mut b_keys.sealer, &mut a_keys.opener)] {
            buffer.clear();
            let start = from.begin(&mut buffer);
            buffer.extend_from_slice(b"hi");
            from.finish(&mut buffer, start);
            let text = to.next(&mut bytes::BytesMut::from(&buffer[..])).expect("true").expect("whole");
            assert_eq!(&text[..], b"hi");
        }
    }

    /// The three messages and the first record of each end, hashed: fixed keys make them the same for ever.
    #[test]
    fn a_handshake_is_these_bytes() {
        let (a, b) = honest();
        let seen = std::cell::RefCell::new(Vec::new());
        let (dialled, accepted) = run(&a, &b, bob().id(), |_, bytes| seen.borrow_mut().push(bytes.clone()));
        let mut seen = seen.into_inner();
        for keys in [dialled.expect("dialled").0, accepted.expect("m3 sent").expect("accepted").0] {
            let (mut keys, mut record) = (keys, Vec::new());
            let start = keys.sealer.begin(&mut record);
            record.extend_from_slice(b"first");
            keys.sealer.finish(&mut record, start);
            seen.push(record);
        }
        let digests: Vec<String> = seen
            .iter()
            .map(|bytes| {
                let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
                format!("{} {}", bytes.len(), data_encoding::HEXLOWER.encode(&digest[..8]))
            })
            .collect();
        assert_eq!(digests, BYTES);
    }

    const BYTES: [&str; 5] = [
        "36 9772793425d0da30",
        "275 fecdeb1590070fa8",
        "243 358690e5479e8c0c",
        "23 0e27b115d0b0696b",
        "23 2ac017ca6d94ec86",
    ];

    #[test]
    fn no_bit_of_a_handshake_can_be_flipped() {
        let (a, b) = honest();
        for message in 1..=3 {
            for bit in 0..(if message == 1 { M1_LEN } else { 300 }) * 8 {
                let (dialled, accepted) = run(&a, &b, bob().id(), |n, bytes| {
                    if n == message {
                        let bit = bit % (bytes.len() * 8);
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                });
                // x25519 ignores the top bit of a key, but the transcript does not.
                assert!(dialled.is_err() || accepted.is_none_or(|accepted| accepted.is_err()), "m{message} bit {bit}");
            }
        }
    }

    #[test]
    fn no_message_can_be_cut_short() {
        let (a, b) = honest();
        for message in 1..=3 {
            for cut in 1..200 {
                let (dialled, accepted) = run(&a, &b, bob().id(), |n, bytes| {
                    if n == message {
                        bytes.truncate(bytes.len().saturating_sub(cut));
                    }
                });
                assert!(dialled.is_err() || accepted.is_none_or(|accepted| accepted.is_err()), "m{message} less {cut}");
            }
        }
    }

    #[test]
    fn a_dialler_refuses_any_other_node_and_shows_nothing_of_itself() {
        let (a, b) = honest();
        let (dialled, accepted) = run(&a, &b, Keypair::from_seed([3; 32]).id(), |_, _| {});
        assert_eq!(dialled.expect_err("another node").reason(), DisconnectReason::UnexpectedIdentity);
        assert!(accepted.is_none(), "m3 was not sent");
    }

    #[test]
    fn each_disagreement_has_its_reason_on_both_ends() {
        type Change = fn(&mut Hello);
        let day = 24 * 3600 * 1000;
        let cases: [(Change, u64, DisconnectReason); 7] = [
            (|hello| hello.version = 2, NOW, DisconnectReason::IncompatibleVersion),
            (|hello| hello.network = NetworkId::named("other"), NOW, DisconnectReason::WrongNetwork),
            (|hello| hello.fork_id = Blob::new([1]).expect("short"), NOW, DisconnectReason::WrongFork),
            (|hello| hello.capabilities = List::default(), NOW, DisconnectReason::NoCommonCapability),
            (
                |hello| hello.capabilities = List::truncated(Capability::new("gossip", 9)),
                NOW,
                DisconnectReason::NoCommonCapability,
            ),
            (|_| {}, NOW - 8 * day, DisconnectReason::RecordTooOld),
            (|_| {}, NOW + 61_000, DisconnectReason::RecordFromFuture),
        ];
        for (change, signed, reason) in cases {
            let (a, b) = honest();
            let (dialled, _) = run(&a, &presented(&bob(), signed, change), bob().id(), |_, _| {});
            assert_eq!(dialled.expect_err("differs").reason(), reason, "seen by the dialler");
            let odd = presented(&alice(), signed, change);
            // The dialler takes anybody here, so that the acceptor's answer can be seen.
            let lenient = Presented { hello: odd.hello.clone(), record: odd.record.clone() };
            let (dialled, accepted) = run(&lenient, &b, bob().id(), |_, _| {});
            match accepted {
                Some(accepted) => assert_eq!(accepted.expect_err("differs").reason(), reason, "seen by the acceptor"),
                None => assert_eq!(dialled.expect_err("differs too").reason(), reason),
            }
        }
    }

    #[test]
    fn a_node_that_reaches_itself_and_a_borrowed_record_are_refused() {
        let b = presented(&bob(), NOW, |_| {});
        let (dialled, _) = run(&b, &b, bob().id(), |_, _| {});
        assert_eq!(dialled.expect_err("itself").reason(), DisconnectReason::SelfConnect);
        // Alice shows Carol's record: she cannot prove Carol's x25519 key.
        let borrowed = presented(&Keypair::from_seed([3; 32]), NOW, |_| {});
        let (_, accepted) = run(&borrowed, &b, bob().id(), |_, _| {});
        assert_eq!(accepted.map(|a| a.map(drop)), Some(Err(HandshakeError::NotItsRecord)));
    }

    #[test]
    fn bytes_of_another_protocol_are_told_apart_at_once() {
        let b = presented(&bob(), NOW, |_| {});
        let answer = Acceptor::answer(&bob(), secret(1), &b, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r");
        assert_eq!(answer.map(drop), Err(HandshakeError::Magic));
    }
}
