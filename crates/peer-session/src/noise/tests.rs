//! The handshake against the public vectors and against `snow`, with and without a network's secret.

use std::path::Path;

use super::*;

fn own() -> Arc<SecretKey> {
    Arc::new(SecretKey::new(&[3; 32]))
}

fn unhex(value: &serde_json::Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().expect("text").as_bytes()).expect("hex")
}

fn secret(value: &serde_json::Value) -> Secret {
    Zeroizing::new(unhex(value).try_into().expect("32 bytes"))
}

#[test]
fn the_public_vector_is_reproduced_byte_for_byte() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/noise-xx-25519-chachapoly-sha256.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("no vector file beside the checkout: the test against snow stands alone");
        return;
    };
    println!("using the public vector file");
    let vectors: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for vector in vectors["vectors"].as_array().expect("a list") {
        let key = |name: &str| secret(&vector[name]);
        let own = |name: &str| Arc::new(SecretKey::new(&key(name)));
        let prologue = |name: &str| unhex(&vector[name]);
        let mut dialler = NoiseXx::new(own("init_static"), &key("init_ephemeral"), None, &prologue("init_prologue"));
        let messages = vector["messages"].as_array().expect("a list");
        let part = |n: usize| (unhex(&messages[n]["payload"]), unhex(&messages[n]["ciphertext"]));

        let mut sent = [Vec::new(), Vec::new(), Vec::new()];
        dialler.write_m1(&part(0).0, &mut sent[0]).expect("m1");
        let (asked, first) = Asked::read_m1(None, &prologue("resp_prologue"), &sent[0]).expect("m1");
        assert_eq!(first, part(0).0);
        let mut listener = asked.answered_by(own("resp_static"), &key("resp_ephemeral"));
        listener.write_m2(&part(1).0, &mut sent[1]).expect("m2");
        assert_eq!(dialler.read_m2(&sent[1]).expect("m2"), part(1).0);
        dialler.write_m3(&part(2).0, &mut sent[2]).expect("m3");
        assert_eq!(listener.read_m3(&sent[2]).expect("m3"), part(2).0);
        for (n, sent) in sent.iter().enumerate() {
            assert_eq!(*sent, part(n).1, "message {n}");
        }
        assert_eq!(dialler.symmetric.hash.to_vec(), unhex(&vector["handshake_hash"]));
        let (mut to_listener, mut to_dialler) = dialler.split();
        for n in 3..messages.len() {
            let (payload, ciphertext) = part(n);
            // The vectors' transport messages alternate; the accepting end sends the first.
            let cipher = if n % 2 == 1 { &mut to_dialler } else { &mut to_listener };
            let mut sealed = payload;
            let tag = cipher.seal(&[], &mut sealed).expect("short");
            sealed.extend_from_slice(&tag);
            assert_eq!(sealed, ciphertext, "message {n}");
        }
    }
}

/// Without a secret, and with one.
static PSKS: [Option<[u8; 32]>; 2] = [None, Some([6; 32])];

fn independent(
    psk: &'static Option<[u8; 32]>,
    own: &'static [u8; 32],
    ephemeral: &'static [u8; 32],
) -> snow::Builder<'static> {
    let name = if psk.is_some() { NAME_PSK } else { NAME };
    let params = std::str::from_utf8(name).expect("ASCII").parse().expect("known");
    let builder = snow::Builder::new(params).local_private_key(own).and_then(|b| b.prologue(b"prologue"));
    let builder = builder.expect("valid").fixed_ephemeral_key_for_testing_only(ephemeral);
    match psk {
        Some(psk) => builder.psk(0, psk).expect("its place"),
        None => builder,
    }
}

/// Two ends, each in both implementations with the same keys, say the same bytes in both roles, from the first message
/// to records after it.
#[test]
fn snow_says_the_same_bytes_in_both_roles() {
    for psk in &PSKS {
        let mut dialler = NoiseXx::new(own(), &Zeroizing::new([4; 32]), psk.as_ref(), b"prologue");
        let mut their_dialler = independent(psk, &[3; 32], &[4; 32]).build_initiator().expect("complete");
        let mut their_listener = independent(psk, &[5; 32], &[7; 32]).build_responder().expect("complete");
        let (mut theirs, mut opened) = ([0; 1024], [0; 1024]);

        let mut m1 = Vec::new();
        dialler.write_m1(b"", &mut m1).expect("m1");
        let len = their_dialler.write_message(b"", &mut theirs).expect("m1");
        assert_eq!(m1, theirs[..len]);
        assert_eq!(m1.len(), if psk.is_some() { 32 + TAG_LEN } else { 32 });
        assert_eq!(their_listener.read_message(&m1, &mut opened), Ok(0));
        let (asked, first) = Asked::read_m1(psk.as_ref(), b"prologue", &m1).expect("m1");
        assert_eq!(first, b"");
        let mut listener = asked.answered_by(Arc::new(SecretKey::new(&[5; 32])), &Zeroizing::new([7; 32]));

        let mut m2 = Vec::new();
        listener.write_m2(b"two", &mut m2).expect("m2");
        let len = their_listener.write_message(b"two", &mut theirs).expect("m2");
        assert_eq!(m2, theirs[..len]);
        assert_eq!(dialler.read_m2(&m2).expect("m2"), b"two");
        assert_eq!(their_dialler.read_message(&m2, &mut opened), Ok(3));

        let mut m3 = Vec::new();
        dialler.write_m3(b"three", &mut m3).expect("m3");
        let len = their_dialler.write_message(b"three", &mut theirs).expect("m3");
        assert_eq!(m3, theirs[..len]);
        assert_eq!(listener.read_m3(&m3).expect("m3"), b"three");
        assert_eq!(their_listener.read_message(&m3, &mut opened), Ok(5));
        assert_eq!(listener.remote_static(), own().public());
        assert_eq!(their_dialler.get_remote_static(), Some(&dialler.remote_static()[..]));
        for hash in [listener.symmetric.hash, dialler.symmetric.hash] {
            assert_eq!(hash, their_dialler.get_handshake_hash());
        }

        let (mut to_listener, mut to_dialler) = dialler.split();
        let mut their_dialler = their_dialler.into_transport_mode().expect("done");
        let mut their_listener = their_listener.into_transport_mode().expect("done");
        for n in 0..3 {
            let text = vec![n; 100];
            let sealed = |ours: &mut CipherState| {
                let mut sealed = text.clone();
                let tag = ours.seal(&[], &mut sealed).expect("short");
                sealed.extend_from_slice(&tag);
                sealed
            };
            for (sealed, dials) in [(sealed(&mut to_listener), true), (sealed(&mut to_dialler), false)] {
                let (from, to) = match dials {
                    true => (&mut their_dialler, &mut their_listener),
                    false => (&mut their_listener, &mut their_dialler),
                };
                let len = from.write_message(&text, &mut theirs).expect("short");
                assert_eq!(sealed, theirs[..len]);
                let len = to.read_message(&sealed, &mut opened).expect("true");
                assert_eq!(opened[..len], text);
            }
        }
    }
}

/// A listener that is asked with a secret, or without one.
fn asked(psk: Option<&[u8; 32]>) -> NoiseXx {
    let mut m1 = Vec::new();
    NoiseXx::new(own(), &Zeroizing::new([4; 32]), psk, b"").write_m1(b"", &mut m1).expect("m1");
    let (asked, _) = Asked::read_m1(psk, b"", &m1).expect("its own");
    asked.answered_by(own(), &Zeroizing::new([4; 32]))
}

#[test]
fn keys_of_small_order_and_of_a_second_spelling_are_refused() {
    let mut second_spelling = *SecretKey::new(&[4; 32]).public();
    second_spelling[31] |= 0x80;
    for psk in PSKS {
        // A first message with this key, by an end that knows the secret.
        let m1 = |key: &[u8; 32]| {
            let (mut symmetric, mut m1) = (NoiseXx::begin(psk.as_ref(), b""), key.to_vec());
            symmetric.mix_ephemeral(key, psk.is_some());
            symmetric.seal(&[], &mut m1).expect("short");
            m1
        };
        for weak in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            let (asked, _) = Asked::read_m1(psk.as_ref(), b"", &m1(&weak)).expect("only a key so far");
            let mut listener = asked.answered_by(own(), &Zeroizing::new([4; 32]));
            assert_eq!(listener.write_m2(b"", &mut Vec::new()), Err(NoiseError::WeakKey));
        }
        let refused = Asked::read_m1(psk.as_ref(), b"", &m1(&second_spelling)).map(drop);
        assert_eq!(refused, Err(NoiseError::NonCanonicalKey));
        assert_eq!(asked(psk.as_ref()).read_m2(&second_spelling), Err(NoiseError::NonCanonicalKey));
    }
}

#[test]
fn without_the_secret_no_first_message_passes_and_none_can_be_changed() {
    let [_, psk] = PSKS;
    let mut m1 = Vec::new();
    NoiseXx::new(own(), &Zeroizing::new([4; 32]), psk.as_ref(), b"").write_m1(b"", &mut m1).expect("m1");
    let read = |psk: [u8; 32], prologue: &[u8], m1: &[u8]| Asked::read_m1(Some(&psk), prologue, m1).map(drop);
    assert_eq!(read([6; 32], b"", &m1), Ok(()));
    assert_eq!(read([7; 32], b"", &m1), Err(NoiseError::Forged(Forged)), "another secret");
    assert_eq!(read([6; 32], b"x", &m1), Err(NoiseError::Forged(Forged)), "another prologue");
    assert_eq!(read([6; 32], b"", &m1[..31]), Err(NoiseError::Short));
    for bit in 0..m1.len() * 8 {
        let mut flipped = m1.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read([6; 32], b"", &flipped), Err(NoiseError::Forged(Forged)), "bit {bit}");
    }
}

#[test]
fn different_ciphers_have_different_keys_and_so_have_the_directions_and_the_secrets() {
    let keys = |psk: Option<&[u8; 32]>, label| {
        let (from_dialler, from_listener) = asked(psk).record_keys(label);
        [*from_dialler, *from_listener]
    };
    let mut all =
        [keys(None, b"one"), keys(None, b"two"), keys(Some(&[6; 32]), b"one"), keys(Some(&[7; 32]), b"one")].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8);
}
