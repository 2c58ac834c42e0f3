//! Records that were changed, sent again, swapped, left out or never finished, by the peer or by somebody on the way.

use std::time::Duration;

use peerage_machine::{Rng, Time};
use peerage_peer_session::handshake::{Acceptor, Dialler, Keys, LocalEnd};
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Kind, Lane};
use peerage_peer_session::records::{MAX_RECORD, RecordError};
use peerage_peer_session::{Ciphers, Config};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::support::{Node, UNIX, data, keys, own, presented};
use crate::{BREACH, us};

/// Both ends' keys, by the machines alone.
fn pair(ciphers: Ciphers) -> (Keys, Keys) {
    let (config, now) = (Config::recommended(), Time::new(Duration::ZERO, UNIX));
    let (alice, bob) = (presented(1), presented(2));
    let local = |n| LocalEnd::new(&keys(n)).with_ciphers(ciphers);
    let (dialler, m1) = Dialler::begin(&local(1), Zeroizing::new([8; 32]), keys(2).id()).expect("begins");
    let asked = Acceptor::asked(&local(2), &m1).expect("a first message");
    let (acceptor, m2) = asked.answer(Zeroizing::new([9; 32]), &bob).expect("answers");
    let (knowing, _) = dialler.read_m2(&config, now, &alice, &m2).expect("Bob's");
    let (m3, dialling) = knowing.write_m3(&alice).expect("fits");
    (dialling, acceptor.read_m3(&config, now, &bob, &m3).expect("Alice's").0)
}

fn sealed(keys: &mut Keys, text: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    let start = keys.sealer.begin(&mut record);
    record.extend_from_slice(text);
    keys.sealer.finish(&mut record, start);
    record
}

#[test]
fn no_bit_of_a_record_can_be_flipped() {
    for ciphers in [Ciphers::best(), Ciphers::pure()] {
        let (mut alice, mut bob) = pair(ciphers);
        for len in [1, 15, 100] {
            let record = sealed(&mut alice, &vec![7; len]);
            for bit in 0..record.len() * 8 {
                let mut flipped = record.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // A length that was raised leaves the record unfinished; it cannot be made whole.
                let mut opened = bob.opener.open_first(&mut flipped);
                if let Ok(None) = opened {
                    flipped.resize(2 + MAX_RECORD, 0);
                    opened = bob.opener.open_first(&mut flipped);
                }
                assert!(opened.is_err(), "{ciphers:?}, {len} bytes, bit {bit}");
            }
            assert!(matches!(bob.opener.open_first(&mut record.clone()), Ok(Some(_))), "as it was, it opens");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_ends_the_session_and_no_other() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    let len = 2 + 15 + 16;
    for bit in 0..len * 8 {
        let (mut session, mut hostile) = node.meet(9, 1 << 16).await;
        let mut record = hostile.seal(&[own(Kind::Ping, [0; 8])]);
        assert_eq!(record.len(), len);
        record[bit / 8] ^= 1 << (bit % 8);
        assert!(hostile.write(&record).await);
        let ended = session.end().await;
        // A length that was raised leaves its reader waiting for the rest of it.
        let waits = u16::from_be_bytes([record[0], record[1]]) as usize > len - 2;
        let expected = if waits { us(DisconnectReason::Idle) } else { BREACH };
        assert_eq!(ended, expected, "bit {bit}");
        assert_eq!(hostile.farewell().await, Some(expected.reason), "the peer is told");
        if bit % 50 == 0 {
            beside.talk().await;
        }
    }
    beside.part().await;
    assert_eq!(node.inbound.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn records_sent_again_swapped_left_out_or_sent_back_end_the_session() {
    let node = Node::new(1);
    let mut beside = node.beside().await;
    for (name, order) in [
        ("again", &[0, 0][..]),
        ("again, later", &[0, 1, 2, 0]),
        ("swapped", &[1, 0]),
        ("the last two swapped", &[0, 2, 1]),
        ("left out", &[0, 2]),
    ] {
        let (mut session, mut hostile) = node.meet(9, 1 << 16).await;
        let records: Vec<_> = (0..3u8).map(|n| hostile.seal(&[data(1, Lane::Normal, false, [n])])).collect();
        for n in order {
            assert!(hostile.write(&records[*n]).await);
        }
        assert_eq!(session.end().await, BREACH, "{name}");
        // What came before was delivered, once and in order.
        let heard: Vec<u8> = session.inlets[0].take(9).iter().map(|inbound| inbound.delivery.payload[0]).collect();
        let true_ones: Vec<u8> =
            order.iter().zip(0..).take_while(|(n, at)| **n == *at).map(|(_, at)| at as u8).collect();
        assert_eq!(heard, true_ones, "{name}");
        beside.talk().await;
    }
    // The node's own record, sent back to it.
    let (mut session, mut hostile) = node.meet(9, 1 << 16).await;
    let mut theirs = [0; 4096];
    let len = tokio::io::AsyncReadExt::read(&mut hostile.stream, &mut theirs).await.expect("limits and a ping");
    assert!(hostile.write(&theirs[..len]).await);
    assert_eq!(session.end().await, BREACH);
    beside.part().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_of_every_length_behind_a_handshake_ends_the_session() {
    let node = Node::new(1);
    let beside = node.beside().await;
    let mut rng = Rng::new(2);
    for len in 1..=300 {
        let (mut session, mut hostile) = node.meet(9, 1 << 16).await;
        let garbage: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        assert!(hostile.write(&garbage).await);
        let stated = garbage.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len)));
        // A record that is not there whole is waited for until the peer is idle.
        let waits = stated.is_none_or(|stated| stated > 16 && stated > len - 2);
        assert_eq!(session.end().await, if waits { us(DisconnectReason::Idle) } else { BREACH }, "{len} bytes");
    }
    beside.part().await;
    assert_eq!(node.inbound.used(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_cut_off_at_any_byte_ends_the_session_at_once() {
    let node = Node::new(1);
    let beside = node.beside().await;
    let record = |hostile: &mut crate::support::Hostile| hostile.seal(&[data(1, Lane::Normal, false, [7; 40])]);
    for cut in 0..2 + 7 + 40 + 16 {
        let (mut session, mut hostile) = node.meet(9, 1 << 16).await;
        let record = record(&mut hostile);
        assert!(hostile.write(&record[..cut]).await);
        drop(hostile);
        let start = tokio::time::Instant::now();
        assert_eq!(session.end().await.reason, DisconnectReason::NetworkError, "cut at {cut}");
        assert!(start.elapsed() < Duration::from_millis(10));
        assert!(session.inlets[0].is_empty(), "nothing of it was delivered");
    }
    beside.part().await;
}

/// The frames of a record, from a peer that may write what it likes: whatever it is, the session ends with a reason or
/// goes on, and the node lives.
#[tokio::test(start_paused = true)]
async fn any_plain_text_is_skipped_or_a_breach() {
    let node = Node::new(1);
    let beside = node.beside().await;
    let mut rng = Rng::new(3);
    let mut skipped = 0;
    for n in 0..400 {
        let (mut session, mut hostile) = node.meet(9, 1 << 16).await;
        let mut text: Vec<u8> = (0..1 + rng.below(200)).map(|_| rng.next_u64() as u8).collect();
        if n % 2 == 0 {
            // Closer to a frame.
            text[0] %= 10;
            let len = text.len().saturating_sub(7) as u8;
            text.splice(1..text.len().min(7), [text[0] % 4, 0, text[0] % 3, 0, 0, len]);
        }
        let record = hostile.seal_text(&text);
        assert!(hostile.write(&record).await);
        let stopped = hostile.send(&[own(Kind::Disconnect, DisconnectReason::Useless.code().to_be_bytes())]).await;
        let ended = session.end().await;
        match ended.reason {
            // The text's own farewell, if it had one, may say anything.
            _ if ended.by == peerage_peer_session::EndedBy::Peer => skipped += 1,
            DisconnectReason::ProtocolError => {}
            reason => panic!("{reason}: {text:?} {stopped}"),
        }
    }
    assert!(skipped > 0 && skipped < 300, "{skipped}");
    beside.part().await;
    assert_eq!(node.inbound.used(), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_never_panic_an_opener_and_never_open(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (_, mut bob) = pair(Ciphers::best());
        let stated = bytes.first_chunk::<2>().map(|len| usize::from(u16::from_be_bytes(*len)));
        let before = bytes.clone();
        match bob.opener.open_first(&mut bytes) {
            Ok(opened) => {
                prop_assert!(opened.is_none(), "nobody sealed it");
                prop_assert_eq!(&bytes, &before, "what is not here whole stays as it is");
            }
            Err(RecordError::Short(len)) => prop_assert_eq!(Some(len), stated),
            Err(RecordError::Forged(_)) => prop_assert!(stated.is_some_and(|len| len + 2 <= before.len())),
        }
    }
}
