//! The handshake's rules, tested on the machines alone.

use std::time::Duration;

use peerage_wire::codec::Text;
use peerage_wire::handshake::{M1_LEN, M1_SECRET_LEN};
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
        fork_id: ForkId::default(),
        instance: 1,
        agent: Text::new("test/1").expect("short"),
        capabilities: List::truncated(Capability::new("gossip", 1)),
    };
    change(&mut hello);
    let record = RecordDraft::new(signed, network).sign(keys).expect("small");
    Presented { record, hello, accepted_forks: List::default() }
}

fn secret(n: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([n; 32])
}

fn shared(bytes: &[u8]) -> NetworkSecret {
    NetworkSecret::new(bytes).expect("long")
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
    run_with(speaking([Ciphers::best(); 2]), alice_says, bob_says, expected, tamper)
}

/// Alice's end and Bob's, with these ciphers.
fn speaking([of_alice, of_bob]: [Ciphers; 2]) -> [LocalEnd; 2] {
    [LocalEnd::new(&alice()).with_ciphers(of_alice), LocalEnd::new(&bob()).with_ciphers(of_bob)]
}

fn run_with(
    [alice, bob]: [LocalEnd; 2],
    alice_says: &Presented,
    bob_says: &Presented,
    expected: NodeId,
    tamper: impl Fn(u8, &mut Vec<u8>),
) -> Outcome {
    let config = Config::recommended();
    let (dialler, mut m1) = Dialler::begin(&alice, secret(8), expected).expect("begins");
    tamper(1, &mut m1);
    let answered = Acceptor::asked(&bob, &m1).and_then(|asked| asked.answer(secret(9), bob_says));
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
    let met = b.meet(&Config::recommended(), now(), a.record.clone(), a.hello.clone()).expect("no disagreement");
    assert_eq!((met.id(), met.channels.len()), (alice().id(), 1));
    let (a_keys, b_id) = dialled.expect("dialled");
    let (b_keys, a_id) = accepted.expect("m3 sent").expect("accepted");
    assert_eq!((a_id, b_id), (alice().id(), bob().id()));
    understand_each_other(a_keys, b_keys);
}

fn understand_each_other(mut a_keys: Keys, mut b_keys: Keys) {
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
    assert_eq!(digests(Ciphers::pure(), None), CHACHA_BYTES);
    assert_eq!(digests(Ciphers::pure(), Some(b"sixteen bytes ok")), SECRET_BYTES);
    // Without AES in the processor there is nothing to compare.
    if Ciphers::only(CipherId::AES_256_GCM).is_some() {
        assert_eq!(digests(Ciphers::best(), None), AES_BYTES);
    }
}

fn digests(ciphers: Ciphers, secret: Option<&[u8]>) -> Vec<String> {
    let (a, b) = honest();
    let seen = std::cell::RefCell::new(Vec::new());
    let ends = speaking([ciphers; 2]).map(|end| end.with_secret(secret.map(shared)));
    let (dialled, accepted) = run_with(ends, &a, &b, bob().id(), |_, bytes| seen.borrow_mut().push(bytes.clone()));
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

const SECRET_BYTES: [&str; 5] = [
    "52 043adaff872739c9",
    "275 ba73b8c87237ac06",
    "243 6194c1528b4b84e0",
    "23 5ca8959305e16da3",
    "23 6e33d7ffa2dcc915",
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
    let asked = Acceptor::asked(&bob, &m1).expect("a first message");
    let (mut acceptor, m2) = asked.answer(secret(9), &b).expect("answers");
    let (knowing, _) = dialler.read_m2(&config, now(), &a, &m2).expect("proves itself");
    let chosen = knowing.suite.cipher();
    let (m3, _) = knowing.write_m3(&a).expect("fits");
    // As if Bob had offered nothing of what Alice then chose.
    acceptor.ciphers = Ciphers::none();
    let refused = acceptor.read_m3(&config, now(), &b, &m3).map(drop);
    assert_eq!(refused, Err(HandshakeError::WrongCipher(chosen)));

    let (dialled, accepted) = run_with(speaking([Ciphers::best(), Ciphers::none()]), &a, &b, b.record.id(), |_, _| {});
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
        (|hello| hello.fork_id = ForkId::new(&[1]).expect("short"), NOW, DisconnectReason::WrongFork),
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
        let met = b.meet(&Config::recommended(), now(), odd.record.clone(), odd.hello.clone());
        assert_eq!(met.expect_err("differs").reason(), reason, "seen without cryptography");
        // The dialler takes anybody here, so that the acceptor's answer can be seen.
        let lenient = odd.clone();
        let (dialled, accepted) = run(&lenient, &b, bob().id(), |_, _| {});
        match accepted {
            Some(accepted) => assert_eq!(accepted.expect_err("differs").reason(), reason, "seen by the acceptor"),
            None => assert_eq!(dialled.expect_err("differs too").reason(), reason),
        }
    }
}

#[test]
fn two_ends_with_one_secret_know_each_other_whatever_their_ciphers() {
    let (a, b) = honest();
    let kinds = [Ciphers::pure(), Ciphers::best()];
    for pair in kinds.iter().flat_map(|a| kinds.map(|b| [*a, b])) {
        let ends = speaking(pair).map(|end| end.with_secret(Some(shared(&[7; 32]))));
        let (dialled, accepted) = run_with(ends, &a, &b, bob().id(), |_, _| {});
        let (a_keys, b_id) = dialled.expect("dialled");
        let (b_keys, a_id) = accepted.expect("m3 sent").expect("accepted");
        assert_eq!((a_id, b_id), (alice().id(), bob().id()));
        understand_each_other(a_keys, b_keys);
    }
}

#[test]
fn who_has_no_secret_or_another_is_told_apart_at_its_first_message() {
    let (a, b) = honest();
    let secrets = [None, Some(shared(&[7; 32])), Some(shared(&[8; 32]))];
    for (n, of_alice) in secrets.iter().enumerate() {
        for (m, of_bob) in secrets.iter().enumerate() {
            let [end, other] = speaking([Ciphers::best(); 2]);
            let ends = [end.with_secret(of_alice.clone()), other.with_secret(of_bob.clone())];
            let refused = match (n, m) {
                _ if n == m => None,
                (0, _) => Some(HandshakeError::SecretNeeded),
                (_, 0) => Some(HandshakeError::SecretUnknown),
                _ => Some(HandshakeError::OtherSecret),
            };
            let answered = |n, _: &mut Vec<u8>| assert!(n == 1 || refused.is_none(), "m{n} after a stranger's m1");
            let (dialled, _) = run_with(ends, &a, &b, bob().id(), answered);
            assert_eq!(dialled.err(), refused, "{n} {m}");
            let reason = refused.map_or(DisconnectReason::NotAllowed, |error| error.reason());
            assert_eq!(reason, DisconnectReason::NotAllowed);
        }
    }
}

#[test]
fn no_bit_of_a_first_message_with_a_secret_can_be_flipped_and_none_is_answered() {
    let (a, b) = honest();
    for bit in 0..M1_SECRET_LEN * 8 {
        let ends = speaking([Ciphers::best(); 2]).map(|end| end.with_secret(Some(shared(&[7; 32]))));
        let (dialled, _) = run_with(ends, &a, &b, bob().id(), |n, bytes| match n {
            1 => bytes[bit / 8] ^= 1 << (bit % 8),
            n => panic!("m{n} was sent"),
        });
        let error = dialled.map(drop).expect_err("changed");
        let expected = if bit < 32 { HandshakeError::Magic } else { HandshakeError::OtherSecret };
        assert_eq!(error, expected, "bit {bit}");
    }
}

/// What somebody without the secret can do with what passed between two who have it.
#[test]
fn a_first_message_sent_again_leads_to_nothing_that_its_sender_can_read_or_go_on_with() {
    let (a, b) = honest();
    let ends = || speaking([Ciphers::best(); 2]).map(|end| end.with_secret(Some(shared(&[7; 32]))));
    let seen = std::cell::RefCell::new(Vec::new());
    let (dialled, _) = run_with(ends(), &a, &b, bob().id(), |_, bytes| seen.borrow_mut().push(bytes.clone()));
    dialled.expect("dialled");
    let [m1, m2, m3] = seen.into_inner().try_into().expect("three messages");
    let asked = Acceptor::asked(&ends()[1], &m1).expect("who knew the secret made it");
    let (acceptor, again) = asked.answer(secret(10), &b).expect("answers");
    assert!(again[..32] != m2[..32] && again[32..] != m2[32..], "another key, and all behind it");
    let shows = |what: &[u8]| again.windows(what.len()).any(|bytes| bytes == what);
    assert!(!shows(b.record.id().as_bytes()) && !shows(&bob().noise_public()) && !shows(b"gossip"));
    let config = Config::recommended();
    let went_on = acceptor.read_m3(&config, now(), &b, &m3).map(drop);
    assert!(matches!(went_on, Err(HandshakeError::Noise(NoiseError::Forged(_)))), "{went_on:?}");
}

#[test]
fn forks_that_are_accepted_besides_ones_own_pass_and_others_do_not() {
    let fork = |n: u8| ForkId::new(&[n]).expect("short");
    let accepting = |keys: &Keypair, own: u8, others: &[u8]| Presented {
        accepted_forks: List::truncated(others.iter().map(|n| fork(*n))),
        ..presented(keys, NOW, |hello| hello.fork_id = fork(own))
    };
    // Each one's own fork and those it accepts, and who takes the other.
    type Case = (u8, &'static [u8], u8, &'static [u8], bool, bool);
    let cases: [Case; 5] = [
        (1, &[], 1, &[], true, true),
        (1, &[2, 3], 3, &[1], true, true),
        (1, &[2], 3, &[1], false, true),
        (1, &[3], 3, &[], true, false),
        (1, &[], 2, &[3], false, false),
    ];
    for (a, of_a, b, of_b, a_takes, b_takes) in cases {
        let (alice_says, bob_says) = (accepting(&alice(), a, of_a), accepting(&bob(), b, of_b));
        let (dialled, accepted) = run(&alice_says, &bob_says, bob().id(), |_, _| {});
        let wrong = Err(HandshakeError::Refused(DisconnectReason::WrongFork));
        assert_eq!(dialled.map(drop), if a_takes { Ok(()) } else { wrong.clone() }, "{a} {b}");
        let answered = a_takes.then_some(if b_takes { Ok(()) } else { wrong });
        assert_eq!(accepted.map(|accepted| accepted.map(drop)), answered, "{a} {b}");
        assert_eq!((alice_says.accepts_fork(&fork(b)), bob_says.accepts_fork(&fork(a))), (a_takes, b_takes));
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
    let asked = Acceptor::asked(&LocalEnd::new(&bob()), b"GET / HTTP/1.1\r\nHost: example.org\r\n\r");
    assert_eq!(asked.map(drop), Err(HandshakeError::Magic));
}
