//! Strangers at a network with a secret: what they send, what they have recorded, and what they get for it.

use peerage_machine::Rng;
use peerage_peer_session::handshake::{Acceptor, Dialler, HandshakeError, LocalEnd};
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::handshake::{M1_LEN, M1_SECRET_LEN, MAGIC, MAGIC_SECRET, MAX_MESSAGE};
use peerage_peer_session::peerage_wire::{DisconnectReason, NodeId};
use peerage_peer_session::{Config, NetworkSecret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::support::{Node, keys, link, presented};

const WORDS: &[u8] = b"a passphrase that is long enough";

fn secret(bytes: &[u8]) -> Option<NetworkSecret> {
    Some(NetworkSecret::new(bytes).expect("long"))
}

/// The nth node, in the network with this secret.
fn node(n: u8, secret: Option<NetworkSecret>) -> Node {
    let mut node = Node::new(n);
    node.handshaker = node.handshaker.with_secret(secret);
    node
}

/// A true first message to `to` in the network with this secret.
fn first(secret: Option<NetworkSecret>, to: NodeId) -> Vec<u8> {
    let local = LocalEnd::new(&keys(9)).with_secret(secret);
    Dialler::begin(&local, Zeroizing::new([9; 32]), to).expect("begins").1
}

/// Says `bytes` to a node that accepts and then closes its half; why that fails, and all that comes back.
async fn probed(node: &Node, bytes: &[u8]) -> (HandshakeError, Vec<u8>) {
    let (near, mut far) = link(1 << 16);
    let probe = async {
        let _ = far.write_all(bytes).await;
        let _ = far.shutdown().await;
        let mut answer = Vec::new();
        let _ = far.read_to_end(&mut answer).await;
        answer
    };
    let (accepted, answer) = tokio::join!(node.accept(near), probe);
    (accepted.map(drop).expect_err("a stranger"), answer)
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_not_a_byte_whatever_it_says_first() {
    let node = node(1, secret(WORDS));
    let nothing = Vec::new();
    let plain = first(None, node.id());
    assert_eq!((plain.len(), &plain[..4]), (M1_LEN, &MAGIC[..]));
    assert_eq!(probed(&node, &plain).await, (HandshakeError::SecretNeeded, nothing.clone()));
    let other = first(secret(b"another long passphrase"), node.id());
    assert_eq!(probed(&node, &other).await, (HandshakeError::OtherSecret, nothing.clone()));

    let mine = first(secret(WORDS), node.id());
    assert_eq!((mine.len(), &mine[..4]), (M1_SECRET_LEN, &MAGIC_SECRET[..]));
    for at in 0..mine.len() {
        for flip in 1..=u8::MAX {
            let mut changed = mine.clone();
            changed[at] ^= flip;
            let (error, answer) = probed(&node, &changed).await;
            assert!(answer.is_empty(), "byte {at}: {answer:?}");
            let expected = match at {
                0..3 => HandshakeError::Magic,
                3 if changed[3] == MAGIC[3] => HandshakeError::SecretNeeded,
                3 => HandshakeError::Magic,
                _ => HandshakeError::OtherSecret,
            };
            assert_eq!(error, expected, "byte {at}");
        }
        let (error, answer) = probed(&node, &mine[..at]).await;
        assert_eq!((error.reason(), answer), (DisconnectReason::NetworkError, nothing.clone()), "cut at {at}");
    }
    let mut rng = Rng::new(1);
    for len in 0..300 {
        let mut garbage = MAGIC_SECRET.to_vec();
        garbage.extend((0..len).map(|_| rng.next_u64() as u8));
        let (error, answer) = probed(&node, &garbage).await;
        assert!(answer.is_empty(), "{len}");
        let reason =
            if garbage.len() < M1_SECRET_LEN { DisconnectReason::NetworkError } else { DisconnectReason::NotAllowed };
        assert_eq!(error.reason(), reason, "{len}");
    }
}

/// Who scans addresses with a guessed secret gets as little.
#[tokio::test(start_paused = true)]
async fn a_node_without_a_secret_answers_nothing_to_one_with_a_secret() {
    let node = Node::new(1);
    let answer = probed(&node, &first(secret(WORDS), node.id())).await;
    assert_eq!(answer, (HandshakeError::SecretUnknown, Vec::new()));
}

async fn shake(dials: &Node, accepts: &Node) -> [Option<HandshakeError>; 2] {
    let (near, far) = link(1 << 16);
    let start = Instant::now();
    let (dialled, accepted) = tokio::join!(dials.dial(near, accepts.id()), accepts.accept(far));
    assert!(start.elapsed().is_zero(), "nobody waits for a deadline");
    [dialled.err(), accepted.err()]
}

#[tokio::test(start_paused = true)]
async fn nodes_with_different_secrets_part_at_once_and_say_why_in_words() {
    let secrets = [None, secret(WORDS), secret(b"another long passphrase")];
    for (n, of_one) in secrets.iter().enumerate() {
        for (m, of_two) in secrets.iter().enumerate() {
            let [dialled, accepted] = shake(&node(1, of_one.clone()), &node(2, of_two.clone())).await;
            if n == m {
                assert_eq!((dialled, accepted), (None, None));
                continue;
            }
            let [dialled, accepted] = [dialled, accepted].map(|error| error.expect("strangers"));
            let words = match (n, m) {
                (0, _) => "this network needs a secret, and the peer has none",
                (_, 0) => "the peer's network needs a secret, and this node has none",
                _ => "the peer's network secret is another one",
            };
            assert_eq!((accepted.to_string().as_str(), accepted.reason()), (words, DisconnectReason::NotAllowed));
            let words = "closed without an answer: the peer has no place, or another network secret";
            assert_eq!((dialled.to_string().as_str(), dialled.reason()), (words, DisconnectReason::NetworkError));
        }
    }
}

/// Passes a handshake on and keeps what the dialling end sent.
async fn recorded(mut dialler: Stream, mut acceptor: Stream) -> [Vec<u8>; 3] {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut seen = Vec::new();
    for turn in 0..4 {
        let (from, to) = if turn % 2 == 0 { (&mut dialler, &mut acceptor) } else { (&mut acceptor, &mut dialler) };
        let len = from.read(&mut buffer).await.expect("a message");
        to.write_all(&buffer[..len]).await.expect("it is there");
        seen.push(buffer[..len].to_vec());
    }
    seen.truncate(3);
    seen.try_into().expect("three messages")
}

#[tokio::test(start_paused = true)]
async fn who_recorded_a_handshake_and_sends_it_again_gets_one_answer_that_it_cannot_read_and_no_session() {
    let (alice, bob) = (node(1, secret(WORDS)), node(2, secret(WORDS)));
    let ((a, near), (far, b)) = (link(1 << 16), link(1 << 16));
    let (dialled, accepted, [m1, m2, m3]) = tokio::join!(alice.dial(a, bob.id()), bob.accept(b), recorded(near, far));
    assert!(dialled.is_ok() && accepted.is_ok());

    let (near, mut far) = link(1 << 16);
    let replay = async {
        far.write_all(&m1).await.expect("it is there");
        let mut buffer = vec![0; MAX_MESSAGE];
        let len = far.read(&mut buffer).await.expect("an answer");
        far.write_all(&m3).await.expect("it is there");
        let mut rest = Vec::new();
        let _ = far.read_to_end(&mut rest).await;
        (buffer[..len].to_vec(), rest)
    };
    let (accepted, (answer, rest)) = tokio::join!(bob.accept(near), replay);
    assert!(matches!(accepted, Err(HandshakeError::Noise(_))), "the recorded m3 is of another handshake");
    assert!(rest.is_empty(), "and is not answered");
    assert_eq!(answer.len(), m2.len());
    let shows = |what: &[u8]| answer.windows(what.len()).any(|bytes| bytes == what);
    assert!(!shows(bob.id().as_bytes()) && !shows(&keys(2).noise_public()) && !shows(&m2[2..34]));
}

/// The other end is an independent Noise, which has the secret by its bytes alone.
#[test]
fn an_independent_noise_that_knows_the_secret_is_answered_and_understood() {
    let psk = blake3::derive_key("peerage 2026-11 secret of a network", WORDS);
    let independent = || {
        let params = "Noise_XXpsk0_25519_ChaChaPoly_SHA256".parse().expect("known");
        let builder = snow::Builder::new(params).local_private_key(&[5; 32]);
        builder.and_then(|b| b.prologue(&MAGIC_SECRET)).and_then(|b| b.psk(0, &psk)).expect("valid")
    };
    let local = |n| LocalEnd::new(&keys(n)).with_secret(secret(WORDS));
    let (config, now) = (Config::recommended(), peerage_machine::Time::new(Default::default(), crate::support::UNIX));
    let mut buffer = [0; 4096];

    let mut theirs = independent().build_initiator().expect("complete");
    let len = theirs.write_message(&[], &mut buffer).expect("m1");
    let m1 = [&MAGIC_SECRET[..], &buffer[..len]].concat();
    let asked = Acceptor::asked(&local(2), &m1).expect("it knows the secret");
    let (acceptor, m2) = asked.answer(Zeroizing::new([9; 32]), &presented(2)).expect("answers");
    let len = theirs.read_message(&m2, &mut buffer).expect("m2");
    assert!(buffer[..len].windows(32).any(|bytes| bytes == keys(2).id().as_bytes()), "who has the secret reads it");
    let len = theirs.write_message(b"no record", &mut buffer).expect("m3");
    let read = acceptor.read_m3(&config, now, &presented(2), &buffer[..len]).map(drop);
    assert!(matches!(read, Err(HandshakeError::Payload(_))), "opened, and no payload: {read:?}");

    let mut theirs = independent().build_responder().expect("complete");
    let (dialler, m1) = Dialler::begin(&local(1), Zeroizing::new([8; 32]), keys(3).id()).expect("begins");
    assert_eq!(theirs.read_message(&m1[MAGIC_SECRET.len()..], &mut buffer), Ok(0));
    let len = theirs.write_message(b"no record", &mut buffer).expect("m2");
    let read = dialler.read_m2(&config, now, &presented(1), &buffer[..len]).map(drop);
    assert!(matches!(read, Err(HandshakeError::Payload(_))), "opened, and no payload: {read:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_between_two_with_the_secret_carries_messages_while_strangers_knock() {
    let (alice, bob) = (node(1, secret(WORDS)), node(2, secret(WORDS)));
    let (near, far) = link(1 << 16);
    let (dialled, accepted) = tokio::join!(alice.dial(near, bob.id()), bob.accept(far));
    let here = alice.start(dialled.expect("dialled"), 10).await;
    let mut there = bob.start(accepted.expect("accepted"), 10).await;
    let stranger = Node::new(3);
    for n in 0..100u8 {
        let [dialled, accepted] = shake(&stranger, &bob).await;
        assert!(dialled.is_some() && accepted == Some(HandshakeError::SecretNeeded));
        here.say(1, Lane::Normal, vec![n]);
        assert_eq!(there.hear(1).await.delivery.payload, [n][..]);
    }
}
