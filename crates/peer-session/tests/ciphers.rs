//! Ends with different ciphers and implementations: what they agree on, that they understand each other, and that
//! nobody between them can choose for them.

#[path = "support/ends.rs"]
mod ends;

use std::time::Duration;

use ends::{UNIX, keys, presented, stream};
use peerage_machine::Time;
use peerage_peer_session::handshake::{Acceptor, Dialler, HandshakeError, Keys, LocalEnd};
use peerage_peer_session::peerage_mailbox::Clock;
use peerage_peer_session::peerage_transport::Stream;
use peerage_peer_session::peerage_wire::DisconnectReason;
use peerage_peer_session::peerage_wire::frame::{Header, Kind, Lane};
use peerage_peer_session::peerage_wire::handshake::CipherId;
use peerage_peer_session::{Ciphers, Config, Established, Handshaker, Implementation};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use zeroize::Zeroizing;

/// Every set of ciphers an end can have here; in a build without `accelerated` they are all the same one.
fn sets() -> Vec<Ciphers> {
    let one = [CipherId::AES_256_GCM, CipherId::CHACHA20_POLY1305].into_iter().filter_map(Ciphers::only);
    [Ciphers::best(), Ciphers::pure()].into_iter().chain(one).collect()
}

/// The first of the fixed order that both have.
fn common(a: Ciphers, b: Ciphers) -> Option<CipherId> {
    let order = [CipherId::AES_256_GCM, CipherId::CHACHA20_POLY1305];
    order.into_iter().find(|cipher| [a, b].iter().all(|end| end.offered().any(|offered| offered == *cipher)))
}

fn streams() -> (Stream, Stream) {
    let (a, b) = duplex(1 << 16);
    (stream(a), stream(b))
}

async fn shake(a: Ciphers, b: Ciphers) -> (Result<Established, HandshakeError>, Result<Established, HandshakeError>) {
    let (dialler, acceptor) = streams();
    let clock = Clock::simulated(UNIX);
    let dialling = Handshaker::new(Config::recommended(), keys(1), clock).with_ciphers(a);
    let accepting = Handshaker::new(Config::recommended(), keys(2), clock).with_ciphers(b);
    let (alice, bob) = (presented(1), presented(2));
    tokio::join!(
        dialling.dial(dialler, &alice, keys(2).id(), |_| async { Ok(()) }),
        accepting.accept(acceptor, &bob, |_| async { Ok(()) }),
    )
}

fn carry(from: &mut Keys, to: &mut Keys, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = from.sealer.begin(&mut bytes);
    bytes.extend_from_slice(text);
    from.sealer.finish(&mut bytes, start);
    let record = to.opener.open_first(&mut bytes).expect("true").expect("whole");
    bytes[record.text].to_vec()
}

#[tokio::test(start_paused = true)]
async fn ends_of_every_kind_take_the_best_they_share_and_understand_each_other() {
    for a in sets() {
        for b in sets() {
            let (dialled, accepted) = shake(a, b).await;
            let Some(cipher) = common(a, b) else {
                assert_eq!(dialled.map(drop), Err(HandshakeError::NoCipher));
                assert!(accepted.is_err());
                continue;
            };
            let (mut a_end, mut b_end) = (dialled.expect("dialled"), accepted.expect("accepted"));
            assert_eq!((a_end.keys.cipher, b_end.keys.cipher), (cipher, cipher));
            for (end, ciphers) in [(&a_end, a), (&b_end, b)] {
                let pure = ciphers == Ciphers::pure();
                assert_eq!(end.keys.implementation == Implementation::Pure, pure, "{ciphers:?}");
            }
            for len in [1, 100, 65_519] {
                let text = vec![7; len];
                assert_eq!(carry(&mut a_end.keys, &mut b_end.keys, &text), text);
                assert_eq!(carry(&mut b_end.keys, &mut a_end.keys, &text), text);
            }
        }
    }
}

#[test]
fn what_a_session_got_can_be_said_in_words() {
    for (cipher, label) in [
        (CipherId::AES_256_GCM, "aes-256-gcm"),
        (CipherId::CHACHA20_POLY1305, "chacha20-poly1305"),
        (CipherId(300), "unknown"),
    ] {
        assert_eq!(cipher.label(), label);
    }
    assert_eq!((Implementation::Pure.label(), Implementation::Accelerated.label()), ("pure", "aws-lc"));
}

type Ends = (Result<Keys, HandshakeError>, Option<Result<Keys, HandshakeError>>);

/// The machines alone, with somebody in the middle who may put anything in a message's place.
fn between(a: Ciphers, b: Ciphers, tamper: impl Fn(u8, &mut Vec<u8>)) -> Ends {
    let (config, now) = (Config::recommended(), Time::new(Duration::ZERO, UNIX));
    let (alice, bob) = (presented(1), presented(2));
    let local = |n, ciphers| LocalEnd::new(&keys(n)).with_ciphers(ciphers);
    let (dialler, m1) = Dialler::begin(&local(1, a), Zeroizing::new([8; 32]), keys(2).id()).expect("begins");
    let asked = Acceptor::asked(&local(2, b), &m1).expect("a first message");
    let (acceptor, mut m2) = asked.answer(Zeroizing::new([9; 32]), &bob).expect("answers");
    tamper(2, &mut m2);
    let (knowing, _) = match dialler.read_m2(&config, now, &alice, &m2) {
        Ok(read) => read,
        Err(error) => return (Err(error), None),
    };
    let (mut m3, keys) = knowing.write_m3(&alice).expect("fits");
    tamper(3, &mut m3);
    let accepted = acceptor.read_m3(&config, now, &bob, &m3).and_then(|(keys, examined)| examined.map(|_| keys));
    (Ok(keys), Some(accepted))
}

/// The list of m2 and the choice of m3 are among these bytes; wherever they lie, an edit ends the handshake.
#[test]
fn nobody_in_the_middle_can_edit_the_offer_or_the_choice() {
    let both = Ciphers::best();
    let lengths = std::cell::Cell::new([0; 4]);
    let (dialled, accepted) = between(both, both, |n, message| {
        let mut seen = lengths.get();
        seen[usize::from(n)] = message.len();
        lengths.set(seen);
    });
    let best = both.offered().next();
    assert_eq!(dialled.ok().map(|keys| keys.cipher), best);
    assert_eq!(accepted.and_then(Result::ok).map(|keys| keys.cipher), best);
    for message in [2, 3] {
        for place in 0..lengths.get()[usize::from(message)] {
            for mask in [0x01, 0x02, 0x03, 0x80, 0xff] {
                let (dialled, accepted) = between(both, both, |n, bytes| {
                    if n == message {
                        bytes[place] ^= mask;
                    }
                });
                assert_eq!(dialled.is_err(), message == 2, "m{message}, byte {place} ^ {mask}");
                assert!(accepted.is_none_or(|accepted| accepted.is_err()), "m{message}, byte {place} ^ {mask}");
            }
        }
    }
}

/// Bob's m2 from a time when he had no AES, made under the same ephemeral key, which is more than an attacker gets.
/// Alice believes it, for Bob did say so; but her m3 is bound to it, and Bob, who says otherwise today, refuses it.
#[test]
fn an_older_offer_of_the_same_end_does_not_bring_two_ends_down() {
    if Ciphers::only(CipherId::AES_256_GCM).is_none() {
        return;
    }
    let (best, pure) = (Ciphers::best(), Ciphers::pure());
    let recorded = std::cell::RefCell::new(Vec::new());
    let (dialled, _) = between(best, pure, |n, message| {
        if n == 2 {
            *recorded.borrow_mut() = message.clone();
        }
    });
    assert_eq!(dialled.expect("pure").cipher, CipherId::CHACHA20_POLY1305);
    let (dialled, accepted) = between(best, best, |n, message| {
        if n == 2 {
            message.clone_from(&recorded.borrow());
        }
    });
    assert_eq!(dialled.expect("Bob's own words").cipher, CipherId::CHACHA20_POLY1305);
    assert!(accepted.expect("m3 sent").is_err(), "there is no session");
}

/// An accepting end that puts `behind` into the record of its answer.
async fn answer_with(mut stream: Stream, answer: Kind, behind: &[u8]) {
    let (config, now, bob) = (Config::recommended(), Time::new(Duration::ZERO, UNIX), presented(2));
    let mut m1 = [0; 36];
    stream.read_exact(&mut m1).await.expect("m1");
    let local = LocalEnd::new(&keys(2));
    let asked = Acceptor::asked(&local, &m1).expect("a first message");
    let (acceptor, m2) = asked.answer(Zeroizing::new([9; 32]), &bob).expect("answers");
    stream.write_u16(m2.len() as u16).await.expect("m2");
    stream.write_all(&m2).await.expect("m2");
    let mut m3 = vec![0; usize::from(stream.read_u16().await.expect("m3"))];
    stream.read_exact(&mut m3).await.expect("m3");
    let (mut keys, _) = acceptor.read_m3(&config, now, &bob, &m3).expect("Alice's");
    let mut record = Vec::new();
    let start = keys.sealer.begin(&mut record);
    let payload = DisconnectReason::TooManyPeers.code().to_be_bytes();
    Header::new(answer, Lane::Control, 0, 2).encode(&mut record);
    record.extend_from_slice(&payload);
    record.extend_from_slice(behind);
    keys.sealer.finish(&mut record, start);
    // The next record already: that one is read by the session.
    let next = keys.sealer.begin(&mut record);
    record.extend_from_slice(b"next");
    keys.sealer.finish(&mut record, next);
    stream.write_all(&record).await.expect("answer");
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_the_answer_in_its_record_is_refused_and_never_dropped() {
    let dial = async |answer, behind: &[u8]| {
        let (dialler, acceptor) = streams();
        let handshaker = Handshaker::new(Config::recommended(), keys(1), Clock::simulated(UNIX));
        let alice = presented(1);
        let dialled = handshaker.dial(dialler, &alice, keys(2).id(), |_| async { Ok(()) });
        tokio::join!(dialled, answer_with(acceptor, answer, behind)).0
    };
    let mut ping = Vec::new();
    Header::new(Kind::Ping, Lane::Control, 0, 8).encode(&mut ping);
    ping.extend_from_slice(&[0; 8]);
    for answer in [Kind::Accepted, Kind::Disconnect] {
        for behind in [&ping[..], &[0]] {
            let error = dial(answer, behind).await.map(drop).expect_err("more than an answer");
            assert_eq!(error, HandshakeError::AnswerNotAlone(behind.len()));
            assert_eq!(error.reason(), DisconnectReason::ProtocolError);
        }
    }
    let refused = dial(Kind::Disconnect, &[]).await.map(drop);
    assert_eq!(refused, Err(HandshakeError::RefusedByPeer(DisconnectReason::TooManyPeers)));
    let mut established = dial(Kind::Accepted, &[]).await.expect("accepted");
    let record = established.keys.opener.open_first(&mut established.read).expect("true").expect("whole");
    assert_eq!(&established.read[record.text], b"next");
}
