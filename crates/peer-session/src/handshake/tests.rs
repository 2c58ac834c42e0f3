//! The handshake's rules, tested on the machines alone.

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
fn run(alice_says: &Presented, bob_says: &Presented, expected: NodeId, tamper: impl Fn(u8, &mut Vec<u8>)) -> Outcome {
    run_with([Ciphers::best(); 2], alice_says, bob_says, expected, tamper)
}

fn run_with(
    [alice_speaks, bob_speaks]: [Ciphers; 2],
    alice_says: &Presented,
    bob_says: &Presented,
    expected: NodeId,
    tamper: impl Fn(u8, &mut Vec<u8>),
) -> Outcome {
    let config = Config::recommended();
    let alice = LocalEnd::new(&alice()).with_ciphers(alice_speaks);
    let bob = LocalEnd::new(&bob()).with_ciphers(bob_speaks);
    let (dialler, mut m1) = Dialler::begin(&alice, secret(8), expected).expect("begins");
    tamper(1, &mut m1);
    let answered = m1
        .as_slice()
        .try_into()
        .map_err(|_| HandshakeError::Length(m1.len()))
        .and_then(|m1| Acceptor::answer(&bob, secret(9), bob_says, m1));
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
        let record = to.open_first(&mut buffer).expect("true").expect("whole");
        assert_eq!(&buffer[record.text], b"hi");
    }
}

/// The three messages and the first record of each end, hashed: fixed keys make them the same for ever, in every build.
#[test]
fn a_handshake_is_these_bytes() {
    assert_eq!(digests(Ciphers::pure()), CHACHA_BYTES);
    // Without AES in the processor there is nothing to compare.
    if Ciphers::only(CipherId::AES_256_GCM).is_some() {
        assert_eq!(digests(Ciphers::best()), AES_BYTES);
    }
}

fn digests(ciphers: Ciphers) -> Vec<String> {
    let (a, b) = honest();
    let seen = std::cell::RefCell::new(Vec::new());
    let speak = [ciphers; 2];
    let (dialled, accepted) = run_with(speak, &a, &b, bob().id(), |_, bytes| seen.borrow_mut().push(bytes.clone()));
    let mut seen = seen.into_inner();
    for keys in [dialled.expect("dialled").0, accepted.expect("m3 sent").expect("accepted").0] {
        let (mut keys, mut record) = (keys, Vec::new());
        let start = keys.sealer.begin(&mut record);
        record.extend_from_slice(b"first");
        keys.sealer.finish(&mut record, start);
        seen.push(record);
    }
    seen.iter()
        .map(|bytes| {
            let digest = <sha2::Sha256 as sha2::Digest>::digest(bytes);
            format!("{} {}", bytes.len(), data_encoding::HEXLOWER.encode(&digest[..8]))
        })
        .collect()
}

const CHACHA_BYTES: [&str; 5] = [
    "36 9772793425d0da30",
    "275 fecdeb1590070fa8",
    "243 358690e5479e8c0c",
    "23 0e27b115d0b0696b",
    "23 2ac017ca6d94ec86",
];

const AES_BYTES: [&str; 5] = [
    "36 9772793425d0da30",
    "276 0347a465612f3be3",
    "243 67a461eb6b0066be",
    "23 50a881b0e5a3fae3",
    "23 486a22403840d505",
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
fn a_cipher_that_was_not_offered_is_refused_and_so_is_having_none_in_common() {
    let (a, b) = honest();
    let config = Config::recommended();
    let bob = LocalEnd::new(&bob());
    let (dialler, m1) = Dialler::begin(&LocalEnd::new(&alice()), secret(8), b.record.id()).expect("begins");
    let m1 = m1.try_into().expect("of m1's length");
    let (mut acceptor, m2) = Acceptor::answer(&bob, secret(9), &b, &m1).expect("answers");
    let (knowing, _) = dialler.read_m2(&config, now(), &a, &m2).expect("proves itself");
    let chosen = knowing.suite.cipher();
    let (m3, _) = knowing.write_m3(&a).expect("fits");
    // As if Bob had offered nothing of what Alice then chose.
    acceptor.ciphers = Ciphers::none();
    let refused = acceptor.read_m3(&config, now(), &b, &m3).map(drop);
    assert_eq!(refused, Err(HandshakeError::WrongCipher(chosen)));

    let (dialled, accepted) = run_with([Ciphers::best(), Ciphers::none()], &a, &b, b.record.id(), |_, _| {});
    assert_eq!(dialled.map(drop), Err(HandshakeError::NoCipher));
    assert!(accepted.is_none(), "m3 was not sent");
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
    let answer = Acceptor::answer(&LocalEnd::new(&bob()), secret(1), &b, b"GET / HTTP/1.1\r\nHost: example.org\r\n\r");
    assert_eq!(answer.map(drop), Err(HandshakeError::Magic));
}
