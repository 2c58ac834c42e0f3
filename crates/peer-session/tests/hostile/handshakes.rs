//! Handshakes with who does not know how, breaks off, changes what passes, or takes its time.

use std::time::Duration;

use futures_util::future::join_all;
use peerage_machine::{Rng, Time};
use peerage_peer_session::handshake::{Acceptor, Dialler, HandshakeError, LocalEnd};
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::Lane;
use peerage_peer_session::peerage_wire::handshake::{M1_LEN, MAGIC, MAGIC_SECRET, MAX_MESSAGE};
use peerage_peer_session::{Config, NetworkSecret};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::support::{Node, UNIX, keys, link, presented};

fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// Says `bytes` to one end of a handshake and then closes, or keeps silent for ever; how that ends.
async fn told(node: &Node, dials: bool, bytes: &[u8], closes: bool) -> HandshakeError {
    let (near, mut far) = link(1 << 16);
    let says = async {
        let _ = far.write_all(bytes).await;
        if closes {
            let _ = far.shutdown().await;
        }
        // Until the other end has given up: what it says is read and forgotten.
        while let Ok(1..) = far.read(&mut [0; 256]).await {}
    };
    let (ended, ()) =
        if dials { tokio::join!(node.dial(near, keys(9).id()), says) } else { tokio::join!(node.accept(near), says) };
    ended.map(drop).expect_err("garbage is no handshake")
}

#[tokio::test(start_paused = true)]
async fn garbage_of_every_length_fails_a_handshake_on_either_end_with_its_reason() {
    let mut rng = Rng::new(1);
    let node = Node::new(1);
    let mut beside = node.beside().await;
    for len in 0..=600 {
        for closes in [true, false] {
            let start = Instant::now();
            let garbage = noise(&mut rng, len);
            let error = told(&node, false, &garbage, closes).await;
            // Its first four bytes say that it is none.
            match (len >= MAGIC.len(), closes) {
                (true, _) => assert_eq!(error, HandshakeError::Magic, "{len} bytes"),
                (false, true) => assert_eq!(error.reason(), DisconnectReason::NetworkError, "{len} bytes"),
                (false, false) => assert_eq!(error, HandshakeError::TimedOut, "{len} bytes"),
            }
            // As m2, and behind a true m1 as m3: its length is garbage, too.
            let as_m3 = [&MAGIC[..], &[9; 32], &garbage].concat();
            for (dials, bytes) in [(true, &garbage), (false, &as_m3)] {
                let error = told(&node, dials, bytes, closes).await;
                let stated = garbage.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len)));
                match stated {
                    Some(stated) if stated > MAX_MESSAGE => assert_eq!(error, HandshakeError::Length(stated)),
                    Some(stated) if stated <= len - 2 => assert!(matches!(error, HandshakeError::Noise(_)), "{error}"),
                    _ if closes => assert_eq!(error.reason(), DisconnectReason::NetworkError, "{len} bytes"),
                    _ => assert_eq!(error, HandshakeError::TimedOut, "{len} bytes"),
                }
            }
            assert!(start.elapsed() <= 3 * Config::recommended().handshake_timeout, "{len} bytes");
        }
        if len % 100 == 0 {
            beside.talk().await;
        }
    }
    beside.part().await;
}

/// What somebody between two ends does with what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// Closes both connections before the nth byte of a direction (0: from the dialler).
    Closes(usize, usize),
    /// Passes nothing more from there on.
    Falls(usize, usize),
    /// Flips a bit of the nth byte.
    Flips(usize, usize, u8),
}

/// Passes bytes between two streams, all but what `between` says.
async fn relay(dialler: Stream, acceptor: Stream, between: Between) {
    let mut ends = [dialler, acceptor];
    let mut passed = [0; 2];
    let mut buffers = [[0; 1024]; 2];
    loop {
        let [a, b] = &mut ends;
        let [near, far] = &mut buffers;
        let (from, len) = tokio::select! {
            biased;
            len = a.read(near) => (0, len),
            len = b.read(far) => (1, len),
        };
        let Ok(len @ 1..) = len else { return };
        let piece = &mut buffers[from][..len];
        let (start, end) = (passed[from], passed[from] + len);
        let mut pass = len;
        match between {
            Between::Closes(direction, at) | Between::Falls(direction, at) if direction == from && at < end => {
                pass = at.saturating_sub(start);
            }
            Between::Flips(direction, at, mask) if direction == from && (start..end).contains(&at) => {
                piece[at - start] ^= mask;
            }
            _ => {}
        }
        if ends[1 - from].write_all(&buffers[from][..pass]).await.is_err() {
            return;
        }
        passed[from] += pass;
        if pass < len {
            if matches!(between, Between::Falls(..)) {
                // Long after both ends have given up.
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            return;
        }
    }
}

type Outcome = (Result<(), HandshakeError>, Result<(), HandshakeError>);

async fn shake(dialler: &Node, acceptor: &Node, between: Between) -> Outcome {
    let ((a, near), (far, b)) = (link(1 << 16), link(1 << 16));
    let relay = relay(near, far, between);
    let shakes = async { tokio::join!(dialler.dial(a, acceptor.id()), acceptor.accept(b)) };
    tokio::pin!(relay, shakes);
    let (dialled, accepted) = tokio::select! {
        ends = &mut shakes => ends,
        () = &mut relay => shakes.await,
    };
    (dialled.map(drop), accepted.map(drop))
}

/// Bytes of m1 and m3, and of m2 and the answer, with their lengths.
async fn lengths(dialler: &Node, acceptor: &Node) -> [usize; 2] {
    let ((a, mut near), (mut far, b)) = (link(1 << 16), link(1 << 16));
    let count = async {
        let (mut one, mut two) = ([0; M1_LEN], vec![0; MAX_MESSAGE]);
        near.read_exact(&mut one).await.expect("m1");
        far.write_all(&one).await.expect("m1");
        let len = far.read(&mut two).await.expect("m2");
        near.write_all(&two[..len]).await.expect("m2");
        let m3 = near.read(&mut two).await.expect("m3");
        far.write_all(&two[..m3]).await.expect("m3");
        let answer = far.read(&mut two).await.expect("the answer");
        near.write_all(&two[..answer]).await.expect("the answer");
        [M1_LEN + m3, len + answer]
    };
    let (dialled, accepted, counted) = tokio::join!(dialler.dial(a, acceptor.id()), acceptor.accept(b), count);
    assert!(dialled.is_ok() && accepted.is_ok());
    counted
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_cut_off_at_any_byte_fails_on_both_ends_at_once() {
    let (alice, bob) = (Node::new(1), Node::new(2));
    let mut beside = bob.beside().await;
    let lengths = lengths(&alice, &bob).await;
    // The accepting end is done when it has answered; nobody can tell it that the answer was lost.
    let answer = 2 + 7 + 16;
    for (direction, length) in lengths.into_iter().enumerate() {
        for at in 0..length {
            let start = Instant::now();
            let (dialled, accepted) = shake(&alice, &bob, Between::Closes(direction, at)).await;
            assert_eq!(
                dialled.map_err(|error| error.reason()),
                Err(DisconnectReason::NetworkError),
                "{direction} {at}"
            );
            if direction == 1 && at >= length - answer {
                assert_eq!(accepted, Ok(()));
            } else {
                assert_eq!(accepted.map_err(|error| error.reason()), Err(DisconnectReason::NetworkError));
            }
            assert!(start.elapsed() < Duration::from_millis(10), "{direction} {at}");
        }
        beside.talk().await;
    }
    beside.part().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_falls_silent_at_any_byte_ends_within_its_deadline() {
    let (alice, bob) = (Node::new(1), Node::new(2));
    let lengths = lengths(&alice, &bob).await;
    for (direction, length) in lengths.into_iter().enumerate() {
        for at in 0..length {
            let start = Instant::now();
            let (dialled, accepted) = shake(&alice, &bob, Between::Falls(direction, at)).await;
            let answered = direction == 1 && at >= length - 25;
            // The accepting end gives the first message a second, and all of them five.
            let first = direction == 0 && at < M1_LEN;
            assert!(dialled.is_err(), "{direction} {at}");
            assert_eq!(accepted, if answered { Ok(()) } else { Err(HandshakeError::TimedOut) }, "{direction} {at}");
            let config = Config::recommended();
            let limit = if first { config.first_message_timeout } else { config.handshake_timeout };
            assert!(accepted.is_ok() || start.elapsed() >= limit);
            assert!(start.elapsed() <= config.handshake_timeout + Duration::from_millis(10), "{:?}", start.elapsed());
        }
    }
}

/// The messages themselves are tested bit by bit where the rules are: here are the lengths before them and the answer.
#[tokio::test(start_paused = true)]
async fn no_bit_of_a_length_or_of_the_answer_can_be_flipped() {
    let (alice, bob) = (Node::new(1), Node::new(2));
    let [_, from_acceptor] = lengths(&alice, &bob).await;
    let lengths = [(0, M1_LEN..M1_LEN + 2), (1, 0..2), (1, from_acceptor - 25..from_acceptor)];
    for (direction, bytes) in lengths {
        for at in bytes {
            for bit in 0..8 {
                let (dialled, accepted) = shake(&alice, &bob, Between::Flips(direction, at, 1 << bit)).await;
                let error = dialled.expect_err("it cannot have its answer").reason();
                let known = [
                    DisconnectReason::ProtocolError,
                    DisconnectReason::HandshakeTimeout,
                    DisconnectReason::NetworkError,
                ];
                assert!(known.contains(&error), "{direction} {at} {bit}: {error}");
                assert_eq!(accepted.is_ok(), direction == 1 && at >= 2, "{direction} {at} {bit}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn five_hundred_handshakes_of_a_byte_a_second_do_not_hold_up_a_good_one() {
    let (node, good) = (Node::new(1), Node::new(2));
    let start = Instant::now();
    let mut slow = Vec::new();
    let mut accepting = Vec::new();
    for n in 0..500 {
        let (near, mut far) = link(1 << 12);
        accepting.push(node.accept(near));
        slow.push(async move {
            // Every other one hurries until its last message.
            let mut m1 = [&MAGIC[..], &[9; 32]].concat();
            if n % 2 == 1 {
                let _ = far.write_all(&m1).await;
                m1 = vec![1; 100];
            }
            for byte in m1 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if far.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
    }
    let good = async {
        // When all the others are under way.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let asked = Instant::now();
        let (near, far) = link(1 << 16);
        let (accepted, dialled) = tokio::join!(node.accept(near), good.dial(far, node.id()));
        let took = asked.elapsed();
        let (mut here, there) =
            (node.start(accepted.expect("accepted"), 10).await, good.start(dialled.expect("dialled"), 10).await);
        there.say(1, Lane::Normal, "in time");
        assert_eq!(here.hear(1).await.delivery.payload, "in time");
        took
    };
    let (ends, took, _) = tokio::join!(join_all(accepting), good, join_all(slow));
    assert!(took < Duration::from_secs(1), "{took:?}");
    for end in ends {
        assert_eq!(end.map(drop), Err(HandshakeError::TimedOut));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

fn independent() -> snow::Builder<'static> {
    const STATIC: [u8; 32] = [5; 32];
    let params = "Noise_XX_25519_ChaChaPoly_SHA256".parse().expect("known");
    snow::Builder::new(params).local_private_key(&STATIC).and_then(|b| b.prologue(&MAGIC)).expect("valid")
}

/// A payload that an honest end could have sent, damaged here and there; or no payload at all.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let honest = |edits: Vec<(usize, u8)>, cut: usize| {
        let record = presented(3).record.bytes().to_vec();
        let mut bytes = vec![record.len() as u8];
        bytes.extend_from_slice(&record);
        bytes.extend_from_slice(&[44, 1]);
        bytes.extend_from_slice(&[0; 60]);
        for (place, to) in edits {
            let place = place % bytes.len();
            bytes[place] = to;
        }
        bytes.truncate(cut);
        bytes
    };
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..1500),
        (proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), 0usize..400)
            .prop_map(move |(edits, cut)| honest(edits, cut)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The other end is an independent Noise, so the payload reaches the decoders as it is.
    #[test]
    fn no_payload_of_a_handshake_panics_or_passes(payload in payload()) {
        let (config, now) = (Config::recommended(), Time::new(Duration::ZERO, UNIX));
        let (alice, bob) = (presented(1), presented(2));
        let mut buffer = [0; 4096];

        let mut theirs = independent().build_initiator().expect("complete");
        let mut m1 = MAGIC.to_vec();
        let len = theirs.write_message(&[], &mut buffer).expect("m1");
        m1.extend_from_slice(&buffer[..len]);
        let local = LocalEnd::new(&keys(2));
        let asked = Acceptor::asked(&local, &m1).expect("a first message");
        let (acceptor, m2) = asked.answer(Zeroizing::new([9; 32]), &bob).expect("answers");
        theirs.read_message(&m2, &mut buffer).expect("m2");
        let len = theirs.write_message(&payload, &mut buffer).expect("m3");
        let read = acceptor.read_m3(&config, now, &bob, &buffer[..len]).and_then(|(_, examined)| examined);
        prop_assert!(read.is_err());

        let mut theirs = independent().build_responder().expect("complete");
        let (dialler, m1) = Dialler::begin(&LocalEnd::new(&keys(1)), Zeroizing::new([8; 32]), keys(3).id()).expect("begins");
        theirs.read_message(&m1[MAGIC.len()..], &mut buffer).expect("m1");
        let len = theirs.write_message(&payload, &mut buffer).expect("m2");
        prop_assert!(dialler.read_m2(&config, now, &alice, &buffer[..len]).is_err());
    }

    /// Messages that are no Noise at all, of any length.
    #[test]
    fn no_message_of_a_handshake_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2200)) {
        let (config, now) = (Config::recommended(), Time::new(Duration::ZERO, UNIX));
        let (alice, bob) = (presented(1), presented(2));
        let (dialler, m1) = Dialler::begin(&LocalEnd::new(&keys(1)), Zeroizing::new([8; 32]), keys(2).id()).expect("begins");
        prop_assert!(dialler.read_m2(&config, now, &alice, &bytes).is_err());
        let asked = Acceptor::asked(&LocalEnd::new(&keys(2)), &m1).expect("a first message");
        let (acceptor, _) = asked.answer(Zeroizing::new([9; 32]), &bob).expect("answers");
        prop_assert!(acceptor.read_m3(&config, now, &bob, &bytes).is_err());
        let local = LocalEnd::new(&keys(2));
        let secret = NetworkSecret::new(&[7; 32]).expect("long");
        for (local, magic) in [(local.clone(), MAGIC), (local.with_secret(Some(secret)), MAGIC_SECRET)] {
            prop_assert!(Acceptor::asked(&local, &bytes).is_err());
            let m1 = [&magic[..], &bytes].concat();
            let asked = Acceptor::asked(&local, &m1).map(drop);
            // A key alone is all that there is to a first message without a secret.
            prop_assert!(asked.is_err() || magic == MAGIC && m1.len() == M1_LEN);
        }
    }
}
